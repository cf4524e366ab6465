"""Registration, login, passwords, and the account page."""

from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, views
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse, reverse_lazy
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django_htmx.http import HttpResponseClientRedirect

from accounts import actions
from accounts.forms import LoginForm, RegisterForm
from accounts.models import User
from dmlsite.errors import Invalid
from dmlsite.limits import throttle


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
            messages.success(request, "Welcome. Your account is ready.")
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

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        throttle(request, "reset", settings.LOGIN_RATE, "ip", "post:email")
        return super().post(request, *args, **kwargs)


class NewPassword:
    """A new password ends the API's tokens too: whoever had the old one may have made them."""

    def form_valid(self, form: Any) -> HttpResponse:
        answer: HttpResponse = super().form_valid(form)  # type: ignore[misc]
        actions.end_tokens(form.user)
        return answer


class PasswordResetConfirm(NewPassword, views.PasswordResetConfirmView):
    template_name = "accounts/reset_confirm.html"
    success_url = reverse_lazy("accounts:reset_complete")


class PasswordChange(NewPassword, views.PasswordChangeView):
    template_name = "accounts/password.html"
    success_url = reverse_lazy("accounts:account")

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, "Your password was changed.")
        return super().form_valid(form)


@login_required
def account(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/account.html")
