"""The provider's page: join, deposit, keys, workers, earnings, leave."""

from collections.abc import Callable
from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from django_htmx.http import HttpResponseClientRefresh

from accounts.models import ApiKey, User
from contracts.chain import Call, ChainError
from dmlsite.errors import Conflict, Invalid
from dmlsite.limits import throttle
from dmlsite.views import wallet_request
from ledger.gateway import chain
from ledger.models import Currency, Transfer, balance
from providers import actions
from providers.forms import JoinForm, KeyForm, WalletForm
from providers.models import Connection, Provider, Standing

SHOWN = 20
"""Rows of a table."""


@login_required
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    provider = Provider.objects.filter(user=cast(User, request.user)).first()
    if provider is None:
        return _join(request)
    return render(request, "providers/home.html", _context(provider))


def _join(request: HttpRequest) -> HttpResponse:
    form = JoinForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            actions.join(cast(User, request.user), form.cleaned_data["user_name"])
            return redirect("providers:home")
        except Invalid as error:  # lost a race for the name
            form.add_error("user_name", str(error))
    context = {"form": form, "deposit_gwei": _deposit()}
    return render(request, "providers/join.html", context, status=422 if form.errors else 200)


def _deposit() -> int | None:
    """gwei; None while the chain does not answer, which must not take this page down."""
    try:
        return chain().deposit_gwei()
    except ChainError:
        return None


@login_required
def name(request: HttpRequest) -> HttpResponse:
    """Says while somebody types whether a user name is free."""
    throttle(request, "name", "120/m", "user")
    text = request.GET.get("user_name", "").strip()
    if not text:
        return HttpResponse()
    try:
        actions.check_user_name(text)
    except Invalid as error:
        return render(request, "providers/_name.html", {"problem": str(error)})
    return render(request, "providers/_name.html", {"name": text})


@login_required
@never_cache
def live(request: HttpRequest) -> HttpResponse:
    """What the page asks for every few seconds. A change of standing changes the whole page."""
    provider = own(request)
    if request.GET.get("standing") != provider.standing:
        return HttpResponseClientRefresh()
    return render(request, "providers/_live.html", _context(provider))


def own(request: HttpRequest) -> Provider:
    return get_object_or_404(Provider, user=cast(User, request.user))


def _context(provider: Provider) -> dict[str, Any]:
    return {
        "provider": provider,
        "deposit_gwei": provider.deposit_gwei or _deposit(),
        "keys": ApiKey.objects.filter(user=provider.user).order_by("revoked", "-created"),
        "key_form": KeyForm(),
        "workers": Connection.objects.online().filter(provider=provider).order_by("opened"),
        "history": provider.history.order_by("-id")[:SHOWN],
        "waits": provider.standing in (Standing.PENDING, Standing.LEFT),
        "site_url": settings.SITE_URL,
        **_earnings(provider),
    }


def _earnings(provider: Provider) -> dict[str, Any]:
    """Amounts in micro-DML; `credit_gwei` is the share in others' deposits that waits to be fetched."""
    if not provider.wallet:
        return {"earned": 0, "pending": [], "transfers": [], "assignments": [], "credit_gwei": 0}
    account = f"provider:{provider.wallet}"
    rows = Transfer.objects.filter(credit=account, currency=Currency.DML).order_by("-id")
    work = provider.assignments.select_related("round", "shard").order_by("-id")
    return {
        "earned": balance(account),
        "pending": rows.filter(kind=Transfer.Kind.PENDING, outcome=None)[:SHOWN],
        "transfers": rows.filter(kind__in=[Transfer.Kind.POSTED, Transfer.Kind.POST]).select_related("event")[:SHOWN],
        "assignments": work[:SHOWN],
        "credit_gwei": balance(f"credit:{provider.wallet}", Currency.COIN),
    }


# --- What the wallet signs --------------------------------------------------------------------------------------------
def _sender(request: HttpRequest) -> str:
    form = WalletForm(request.POST)
    if not form.is_valid():
        raise Invalid("The wallet gave no usable address.")
    return cast(str, form.cleaned_data["address"])


@login_required
@require_POST
def deposit(request: HttpRequest) -> HttpResponse:
    """The deposit's transaction, as JSON. Active is set by the chain's own event, not by this page."""
    sender = _sender(request)
    return wallet_request(actions.deposit_call(own(request), sender), sender)


def _by_own_wallet(request: HttpRequest, prepare: Callable[[Provider], Call]) -> HttpResponse:
    provider = own(request)
    if not provider.wallet:
        raise Conflict("There is no deposit.")
    return wallet_request(prepare(provider), provider.wallet)


@login_required
@require_POST
def leave(request: HttpRequest) -> HttpResponse:
    return _by_own_wallet(request, actions.exit_call)


@login_required
@require_POST
def withdraw(request: HttpRequest) -> HttpResponse:
    return _by_own_wallet(request, actions.withdraw_call)


@login_required
@require_POST
def credit(request: HttpRequest) -> HttpResponse:
    """Fetch what came in from cheats' deposits."""
    return _by_own_wallet(request, lambda provider: chain().withdraw_credit_call())


# --- Keys -------------------------------------------------------------------------------------------------------------
@login_required
@require_POST
@never_cache
def create_key(request: HttpRequest) -> HttpResponse:
    """Answers with the page itself, not a redirect: the key is in this one response and is kept nowhere."""
    provider, form = own(request), KeyForm(request.POST)
    if not form.is_valid():
        raise Invalid("Give the key a name of at most 60 characters.")
    key = actions.issue_key(provider, form.cleaned_data["name"])
    return render(request, "providers/home.html", {**_context(provider), "new_key": key})


@login_required
@require_POST
def revoke_key(request: HttpRequest, pk: int) -> HttpResponse:
    key = ApiKey.objects.filter(pk=pk, user=cast(User, request.user)).first()
    if key is None:
        raise Http404
    ApiKey.objects.filter(pk=key.pk, revoked=None).update(revoked=timezone.now())
    messages.success(request, f"The key {key.prefix}… no longer works.")
    return redirect("providers:home")
