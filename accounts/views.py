"""Registration, login, passwords, and the account page with what one can do there."""

from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout, views
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse, reverse_lazy
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST
from django_htmx.http import HttpResponseClientRedirect

from accounts import actions, confirmation, passwords, personal, wallets
from accounts.forms import CloseForm, KeyForm, LoginForm, NewPasswordForm, RegisterForm, ResetForm, ResetPasswordForm
from accounts.models import ApiKey, User
from dmlsite.errors import Invalid, Missing
from dmlsite.limits import CHANGES, throttle

LINKS = "60/5m"
"""Links out of mails that one address may try."""


def landing(user: User) -> str:
    """The page of a person's type; for one who is both, the customer's."""
    if user.is_staff and not (user.is_customer or user.is_provider):
        return reverse("admin:index")
    return reverse("providers:home" if user.is_provider and not user.is_customer else "tickets:list")


@sensitive_post_parameters()
@never_cache
def register(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect(landing(cast(User, request.user)))
    form = RegisterForm(request.POST or None, initial={"kind": request.GET.get("kind", "customer")})
    if request.method == "POST":
        throttle(request, "register", settings.LOGIN_RATE, "ip")
        if form.is_valid() and (user := _registered(form)):
            login(request, user)
            messages.success(
                request, "Welcome. Your account is ready. Please confirm your address by the link in our mail."
            )
            return redirect(landing(user))
    return render(request, "accounts/register.html", {"form": form}, status=422 if form.errors else 200)


def _registered(form: RegisterForm) -> User | None:
    data = form.cleaned_data
    try:
        return actions.register(data["email"], data["password"], data["kind"])
    except Invalid as error:  # lost a race for the address
        form.add_error("email", str(error))
        return None


class Login(views.LoginView):
    template_name = "accounts/login.html"
    form_class = LoginForm
    redirect_authenticated_user = True

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if getattr(request, "htmx", False):  # a fragment of a page whose session has ended: move the whole page here
            back = request.htmx.current_url_abs_path or "/"
            return HttpResponseClientRedirect(f"{request.path}?{urlencode({'next': back})}")
        return super().get(request, *args, **kwargs)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        throttle(request, "login", settings.LOGIN_RATE, "ip", "post:username")
        return super().post(request, *args, **kwargs)

    def form_invalid(self, form: Any) -> HttpResponse:
        return self.render_to_response(self.get_context_data(form=form), status=422)

    def get_default_redirect_url(self) -> str:
        return landing(cast(User, self.request.user))


class PasswordReset(views.PasswordResetView):
    template_name = "accounts/reset.html"
    email_template_name = "accounts/reset_mail.txt"
    subject_template_name = "accounts/reset_subject.txt"
    success_url = reverse_lazy("accounts:reset_sent")
    form_class = ResetForm

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        throttle(request, "reset", settings.LOGIN_RATE, "ip", "post:email")
        return super().post(request, *args, **kwargs)


class PasswordResetConfirm(views.PasswordResetConfirmView):
    form_class = ResetPasswordForm
    template_name = "accounts/reset_confirm.html"
    success_url = reverse_lazy("accounts:reset_complete")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        throttle(request, "link", LINKS, "ip")
        return super().dispatch(request, *args, **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        """Whoever reads the mail is its owner; whoever was in the account before may not be, and may have linked a wallet."""
        with transaction.atomic():
            answer = super().form_valid(form)
            User.objects.filter(pk=form.user.pk, confirmed=None).update(confirmed=timezone.now())
            gone = wallets.unlink_all(form.user)
        _tell_renewed(self.request, form.user)
        if gone:
            were = "wallet was" if gone == 1 else "wallets were"
            messages.info(self.request, f"Your {gone} linked {were} unlinked. Link yours again on your account page.")
        return answer


class PasswordChange(views.PasswordChangeView):
    form_class = NewPasswordForm
    template_name = "accounts/password.html"
    success_url = reverse_lazy("accounts:account")

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """It asks for the old password: guesses at that are counted with the log-in's."""
        throttle(request, "login", settings.LOGIN_RATE, "ip", "user")
        return super().post(request, *args, **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        answer = super().form_valid(form)
        _tell_renewed(self.request, form.user)
        return answer


def _tell_renewed(request: HttpRequest, user: User) -> None:
    messages.success(request, "Your password was changed. The API keys of your programs no longer work.")
    if passwords.has_workers(user):
        messages.info(request, "The keys of your workers still work. You can revoke them on your provider page.")


@login_required
@never_cache
def account(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/account.html", _page(cast(User, request.user)))


def _page(user: User) -> dict[str, Any]:
    keys = user.api_keys.filter(use__in=ApiKey.PROGRAMS).order_by("revoked", "-created")
    return {"wallets": user.wallets.all(), "keys": keys, "key_form": KeyForm()}


# --- The e-mail address -----------------------------------------------------------------------------------------------
@never_cache
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    """The button, not the link, confirms: programs that look into mails follow links."""
    if request.method != "POST":
        return render(request, "accounts/confirm.html", {"email": confirmation.address(token)})
    throttle(request, "link", LINKS, "ip")
    confirmation.confirm(token)
    messages.success(request, "Thank you. Your e-mail address is confirmed.")
    return redirect("accounts:account" if request.user.is_authenticated else "accounts:login")


@login_required
@require_POST
def ask_confirmation(request: HttpRequest) -> HttpResponse:
    throttle(request, "confirm", "5/h", "user")
    user = cast(User, request.user)
    if user.confirmed is None:
        confirmation.ask(user)
    messages.success(request, f"A mail to {user.email} is on its way.")
    return redirect("accounts:account")


# --- Wallets ----------------------------------------------------------------------------------------------------------
@sensitive_post_parameters("password")
@require_POST
@never_cache
def wallet_text(request: HttpRequest) -> HttpResponse:
    """What a wallet is to sign: to log in, or, for who is logged in and shows the password, to be linked."""
    throttle(request, "wallet", "60/5m", "ip")
    purpose = "login"
    if request.user.is_authenticated:
        purpose = "link"
        throttle(request, "login", settings.LOGIN_RATE, "ip", "user")
        actions.require_own(cast(User, request.user), request.POST.get("password", ""))
    return JsonResponse({"text": wallets.ask(request.session, request.POST.get("address", ""), purpose)})


@require_POST
@never_cache
def wallet_login(request: HttpRequest) -> HttpResponse:
    throttle(request, "login", settings.LOGIN_RATE, "ip")
    user = wallets.owner(wallets.proven(request.session, request.POST.get("signature", ""), "login"))
    login(request, user)
    wanted = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return JsonResponse({"next": wanted if safe else landing(user)})


@login_required
@require_POST
def wallet_link(request: HttpRequest) -> HttpResponse:
    throttle(request, "wallet", "60/5m", "ip")
    address = wallets.proven(request.session, request.POST.get("signature", ""), "link")
    wallets.link(cast(User, request.user), address)
    messages.success(request, f"The wallet {address} is linked. You can log in with it from now on.")
    return JsonResponse({"next": reverse("accounts:account")})


@login_required
@require_POST
def wallet_unlink(request: HttpRequest, pk: int) -> HttpResponse:
    throttle(request, "revoke", CHANGES, "user")
    if not cast(User, request.user).wallets.filter(pk=pk).delete()[0]:
        raise Missing("You have linked no such wallet.")
    messages.success(request, "The wallet is no longer linked.")
    return redirect("accounts:account")


# --- Keys -------------------------------------------------------------------------------------------------------------
@login_required
@require_POST
@never_cache
def create_key(request: HttpRequest) -> HttpResponse:
    """Answers with the page itself, not a redirect: the key is in this one response and is kept nowhere."""
    user, form = cast(User, request.user), KeyForm(request.POST)
    throttle(request, "keys", "60/h", "user")
    if not form.is_valid():
        raise Invalid("Give the key a name of at most 60 characters.")
    key = actions.issue_key(user, **form.cleaned_data)
    return render(request, "accounts/account.html", _page(user) | {"new_key": key})


@login_required
@require_POST
def revoke_key(request: HttpRequest, pk: int) -> HttpResponse:
    throttle(request, "revoke", CHANGES, "user")
    key = actions.revoke_key(cast(User, request.user), pk)
    messages.success(request, f"The key {key.prefix}… no longer works.")
    return redirect("accounts:account")


# --- My data ----------------------------------------------------------------------------------------------------------
@login_required
@never_cache
def export(request: HttpRequest) -> HttpResponse:
    """All that is kept about the person, as one JSON file."""
    throttle(request, "export", "20/h", "user")
    answer = JsonResponse(personal.export(cast(User, request.user)), json_dumps_params={"indent": 2})
    answer["Content-Disposition"] = 'attachment; filename="dml-my-data.json"'
    return answer


@sensitive_post_parameters()
@login_required
@never_cache
def close(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    form = CloseForm(request.POST or None)
    if request.method == "POST":
        throttle(request, "login", settings.LOGIN_RATE, "ip", "user")
        if form.is_valid() and _closed(user, form):
            logout(request)
            messages.success(request, "Your account is closed, and your data is being erased.")
            return redirect("home")
    context = {"form": form, "refusals": personal.refusals(user)}
    return render(request, "accounts/close.html", context, status=422 if form.errors else 200)


def _closed(user: User, form: CloseForm) -> bool:
    try:
        personal.close(user, form.cleaned_data["password"])
    except Invalid as error:
        form.add_error("password", str(error))
        return False
    return True
