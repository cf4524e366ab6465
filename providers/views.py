"""The provider's page: join, deposit, keys, workers, earnings, leave."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from django_htmx.http import HttpResponseClientRefresh

from accounts.models import ApiKey, User
from contracts.chain import Call, ChainError
from dmlsite.errors import Conflict, Invalid
from dmlsite.export import csv_response
from dmlsite.limits import CHAIN, CHANGES, READS, throttle
from dmlsite.views import wallet_request
from ledger import funds
from ledger.gateway import chain
from ledger.models import Currency, Transfer, balance
from providers import actions, attestations, earnings
from providers.forms import AnswerForm, JoinForm, KeyForm, WalletForm
from providers.models import Accusation, Attestation, Connection, Provider, Standing

SHOWN = 20
"""Rows of a table."""

MEASURED = 50
"""Updates by which the speed of workers is told."""


@login_required
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    provider = Provider.objects.filter(user=cast(User, request.user)).first()
    if provider is None:
        return _join(request)
    return render(request, "providers/home.html", _page(request, provider))


def _join(request: HttpRequest) -> HttpResponse:
    form = JoinForm(request.POST or None)
    if request.method == "POST":
        throttle(request, "join", CHANGES, "user")
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
    throttle(request, "live", READS, "user")
    provider = own(request)
    if request.GET.get("standing") != provider.standing:
        return HttpResponseClientRefresh()
    return render(request, "providers/_live.html", _context(provider))


def own(request: HttpRequest) -> Provider:
    return get_object_or_404(Provider, user=cast(User, request.user))


def _page(request: HttpRequest, provider: Provider) -> dict[str, Any]:
    """All of the page: what is asked for every few seconds, the chart, and from when on the deposit can be withdrawn."""
    unlocks = actions.unlocks(provider)
    locked = unlocks is not None and unlocks > timezone.now()
    chart = earnings.chart(provider, request.GET.get("by", "day"))
    return _context(provider) | {"earnings": chart, "unlocks": unlocks, "locked": locked}


def _context(provider: Provider) -> dict[str, Any]:
    return {
        "provider": provider,
        "deposit_gwei": provider.deposit_gwei or _deposit(),
        "keys": ApiKey.objects.filter(user=provider.user, use=ApiKey.Use.WORKER).order_by("revoked", "-created"),
        "key_form": KeyForm(),
        "workers": _workers(provider),
        "audits": _audits(provider),
        "attestation": attestations.current(provider),
        "refused": _refused(provider),
        "cases": _cases(provider),
        "answer_form": AnswerForm(),
        "history": provider.history.order_by("-id")[:SHOWN],
        "waits": provider.standing in (Standing.PENDING, Standing.LEFT),
        "site_url": settings.SITE_URL,
        "local": urlsplit(settings.SITE_URL).hostname in ("localhost", "127.0.0.1", "::1"),
        **_earnings(provider),
    }


def _workers(provider: Provider) -> list[dict[str, Any]]:
    """Those online, each with what it computes now and how fast it was."""
    taken = defaultdict(list)
    for lease in provider.assignments.filter(state="accepted").select_related("round__run", "shard"):
        taken[lease.channel].append(lease)
    online = Connection.objects.online().filter(provider=provider).order_by("opened")
    speeds = _speeds(provider, [worker.channel for worker in online])
    return [
        {"worker": worker, "leases": taken[worker.channel], "speed": speeds.get(worker.channel)} for worker in online
    ]


def _refused(provider: Provider) -> Attestation | None:
    """The latest attestation, if it failed: its worker says so too, but may run where nobody looks."""
    last = provider.attestations.exclude(presented=None).first()
    return last if last and last.state == Attestation.State.REFUSED else None


def _speeds(provider: Provider, channels: list[str]) -> dict[str, str]:
    """By connection: samples per second, to two digits, from taking a lease to its update, transfers included. Of the provider's
    latest work only; one that has not delivered any has none."""
    done = provider.assignments.filter(channel__in=channels, accepted__isnull=False, committed__isnull=False)
    samples, seconds = defaultdict[str, int](int), defaultdict[str, float](float)
    for one in done.select_related("round__run", "shard").order_by("-id")[:MEASURED]:
        samples[one.channel] += one.shard.samples * one.round.run.epochs
        seconds[one.channel] += (one.committed - one.accepted).total_seconds()
    return {name: _two_digits(samples[name] / time) for name, time in seconds.items() if time}


def _two_digits(number: float) -> str:
    """1234.5 -> "1,200"."""
    return f"{float(f'{number:.2g}'):,.10g}"


def _audits(provider: Provider) -> dict[str, int]:
    """How many of its audits are in each state."""
    found = provider.assignments.exclude(audit=None).order_by().values_list("audit__state")
    return dict(found.annotate(Count("pk")))


def _earnings(provider: Provider) -> dict[str, Any]:
    """Amounts in micro-DML; `credit_gwei` is the share in others' deposits that waits to be fetched."""
    if not provider.wallet:
        return {"earned": 0, "pending": [], "transfers": [], "assignments": [], "credit_gwei": 0}
    account = f"provider:{provider.wallet}"
    decided = Transfer.objects.filter(credit=account, currency=Currency.DML, kind=Transfer.Kind.PENDING, outcome=None)
    work = provider.assignments.select_related("round__run", "shard").order_by("-id")
    return {
        "earned": balance(account),
        "pending": decided.order_by("-id")[:SHOWN],
        "transfers": earnings.paid(provider)[:SHOWN],
        "assignments": work[:SHOWN],
        "credit_gwei": balance(f"credit:{provider.wallet}", Currency.COIN),
    }


@login_required
@never_cache
def download(request: HttpRequest) -> HttpResponseBase:
    """Every payment as CSV: time, ticket, DML, transaction."""
    provider = own(request)
    throttle(request, "earnings", "60/h", "user")
    return csv_response(f"earnings-{provider.user_name}", earnings.COLUMNS, earnings.paid(provider))


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
    throttle(request, "chain", CHAIN, "user")
    sender = _sender(request)
    call = actions.deposit_call(own(request), sender)
    funds.require(sender, gwei=chain().deposit_gwei())
    return wallet_request(call, sender)


def _by_own_wallet(request: HttpRequest, prepare: Callable[[Provider], Call]) -> HttpResponse:
    throttle(request, "chain", CHAIN, "user")
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


# --- Accusations ------------------------------------------------------------------------------------------------------
def _cases(provider: Provider) -> list[dict[str, Any]]:
    """What the provider is accused of, or was, with all of the evidence that concerns it and its answers."""
    found = []
    for case in actions.cases_of(provider):
        replays, rest = actions.evidence_for(provider, case)
        told = {"case": case, "open": case.state == Accusation.State.OPEN, "answers": case.answers.all()}
        found.append(told | {"replays": list(map(_readable, replays)), "rest": _readable(rest)})
    return found


def _readable(facts: dict[str, object]) -> list[tuple[str, object]]:
    """Names as words; what is nested is left as JSON."""
    return [(name.replace("_", " "), value) for name, value in facts.items() if value is not None]


@login_required
@require_POST
def answer(request: HttpRequest, pk: UUID) -> HttpResponse:
    """An accused provider says something to its own case; for all others there is none."""
    throttle(request, "answer", "20/h", "user")
    provider, form = own(request), AnswerForm(request.POST)
    if not form.is_valid():
        raise Invalid("Write an answer of at most 4,000 characters.")
    actions.answer(provider, pk, form.cleaned_data["text"])
    messages.success(request, "Your answer is with the case now. The guardian is told.")
    return redirect("providers:home")


# --- Keys -------------------------------------------------------------------------------------------------------------
@login_required
@require_POST
@never_cache
def create_key(request: HttpRequest) -> HttpResponse:
    """Answers with the page itself, not a redirect: the key is in this one response and is kept nowhere."""
    provider, form = own(request), KeyForm(request.POST)
    throttle(request, "keys", "60/h", "user")
    if not form.is_valid():
        raise Invalid("Give the key a name of at most 60 characters.")
    key = actions.issue_key(provider, form.cleaned_data["name"])
    return render(request, "providers/home.html", _page(request, provider) | {"new_key": key})


@login_required
@require_POST
def revoke_key(request: HttpRequest, pk: int) -> HttpResponse:
    throttle(request, "revoke", CHANGES, "user")
    key = ApiKey.objects.filter(pk=pk, user=cast(User, request.user), use=ApiKey.Use.WORKER).first()
    if key is None:
        raise Http404
    ApiKey.objects.filter(pk=key.pk, revoked=None).update(revoked=timezone.now())
    messages.success(request, f"The key {key.prefix}… no longer works.")
    return redirect("providers:home")
