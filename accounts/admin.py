"""People and their API keys in the admin."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils import timezone

from accounts import confirmation, second_factor
from accounts.forms import AdminPasswordForm
from accounts.models import ApiKey, User, Wallet
from dmlsite.admin import Audited, ReadOnlyAdmin, ReadOnlyInline, back


class _LowerCase:
    """Addresses are kept in lower case; whoever logs in is looked up that way."""

    cleaned_data: dict[str, Any]

    def clean_email(self) -> str:
        return str(self.cleaned_data["email"]).lower()


class NewUserForm(_LowerCase, AdminUserCreationForm):
    class Meta:
        model = User
        fields = ("email",)


class UserForm(_LowerCase, UserChangeForm):
    class Meta:
        model = User
        fields = "__all__"


class WalletInline(ReadOnlyInline):
    model = Wallet
    fields = ["address", "linked"]
    show_change_link = False


class ApiKeyInline(ReadOnlyInline):
    model = ApiKey
    fields = ["prefix", "name", "use", "created", "last_used", "revoked"]


@admin.register(User)
class UserAdmin(Audited, DjangoUserAdmin):
    """Accounts are closed ("active" off), never deleted: money and history refer to them."""

    form, add_form, change_password_form = UserForm, NewUserForm, AdminPasswordForm
    ordering = ["email"]
    actions = ("remove_second_factor",)
    list_display = ["email", "confirmed", "is_customer", "is_provider", "is_staff", "is_active", "date_joined"]
    list_filter = ["is_customer", "is_provider", "is_staff", "is_active", "date_joined"]
    search_fields = ["email", "provider__user_name", "provider__wallet", "wallets__address"]
    readonly_fields = ["is_customer", "is_provider", "confirmed", "date_joined", "last_login"]
    fieldsets = [
        (None, {"fields": ["email", "confirmed", "password", "is_active"]}),
        ("What they do here", {"fields": ["is_customer", "is_provider", "date_joined", "last_login"]}),
        ("Rights in the admin", {"fields": ["is_staff", "is_superuser", "groups", "user_permissions"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "usable_password", "password1", "password2"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Only a superuser hands out rights."""
        rights = [] if request.user.is_superuser else ["is_staff", "is_superuser", "groups", "user_permissions"]
        return [*self.readonly_fields, *rights]

    def get_inlines(self, request: HttpRequest, obj: User | None) -> list[type[ReadOnlyInline]]:
        return [WalletInline, ApiKeyInline] if obj else []

    @admin.action(description="Remove the second factor (phone and recovery codes lost)")
    def remove_second_factor(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """A superuser's to do: whoever knows the password then sets up another one."""
        if not request.user.is_superuser:
            raise PermissionDenied
        for user in queryset.filter(is_staff=True):
            second_factor.remove(user)
            self.log_change(request, user, "second factor removed")
            self.message_user(request, f"{user}: the second factor is removed; the next login sets it up anew.")

    def save_model(self, request: HttpRequest, obj: User, form: ModelForm, change: bool) -> None:
        """Nobody knows yet whether another address is theirs."""
        moved = change and not User.objects.filter(pk=obj.pk, email=obj.email).exists()
        if moved:
            obj.confirmed = None
        super().save_model(request, obj, form, change)
        if moved:
            confirmation.ask(obj)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """An admin's account is a superuser's to change: whoever sets its password has its rights."""
        if obj and (obj.is_staff or obj.is_superuser) and obj != request.user and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    actions = buttons = ("revoke",)
    fields = list_display = ("prefix", "user", "name", "use", "created", "last_used", "revoked")
    list_filter = ["use", "created", ("revoked", admin.EmptyFieldListFilter)]
    list_select_related = ["user"]
    search_fields = ["prefix", "user__email", "name"]

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> Any:
        """For good. A program that shows the key is refused at once, a worker from its next connection on."""
        rows = list(queryset.filter(revoked=None))
        self.carry_out(request, rows, _revoke, "revoked")
        return back(request, rows)


def _revoke(key: ApiKey) -> None:
    ApiKey.objects.filter(pk=key.pk, revoked=None).update(revoked=timezone.now())
