"""The live part of a ticket's page, the files of a receipt, and the check of a file before it is paid for."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core import signing
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts.models import User
from dmlsite.bodies import takes
from dmlsite.errors import Invalid, Missing
from dmlsite.limits import CHANGES, FILES, READS, throttle
from dmlworker import datasets, rewards
from dmlworker.aggregation.rules import RULES
from dmlworker.datasets.dataset import ALWAYS_THE_SAME
from dmlworker.datasets.options import KINDS
from dmlworker.task import score_of
from ledger import pricing
from ledger.models import ChainEvent, ChainTx, Currency, Sighting, Transfer
from providers.models import Provider
from providers.score import FORMULA
from tickets import mail, preparing
from tickets.forms import DataForm
from tickets.models import Artifact, Status, Ticket
from tickets.views import download, expired, linked, own, visible
from training import actions, delivery, measures, pay, raw, records, retention, standing, store, trial
from training.models import Assignment, Round, Run

CHECKS = "30/10m"
"""How often one person may have a file read before paying."""

TRIALS = "120/10m"
"""How often one person may try their models."""

PUBLIC = "120/m"
"""How often one address may look at providers' public pages."""

IMAGE = 30 * 10**6
"""Bytes of an image that a model is tried with, at most."""

SHOWN = 12
"""Classes named in the answer of a check."""

PLAIN = ("numbers", "whole numbers", ALWAYS_THE_SAME)
"""Columns that a model gets as they are."""

WIDTH, HEIGHT = 300, 80
"""The curves' box, in SVG units."""

SIDE = 300
"""The side of the square in which predicted numbers are drawn against true ones."""

LAST = 4
"""Rounds by which the time that is left is told."""


@login_required
@require_POST
def erase(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The customer wants their file, and its parts, gone before their time."""
    throttle(request, "erase", CHANGES, "user")
    retention.erase(own(request, pk), cast(User, request.user).email)
    messages.success(request, "Your data is erased.")
    return redirect("tickets:ticket", pk)


@login_required
@never_cache
def progress(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The live part; 204 where the page says that it shows just this, so that nothing is swapped for the same."""
    throttle(request, "progress", READS, "user")
    found = progress_of(visible(request, pk), cast(User, request.user))
    if request.GET.get("seen") == found["mark"]:
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    return render(request, "training/_progress.html", found)


def progress_of(ticket: Ticket, user: User) -> dict[str, Any]:
    """All that the live part shows of a ticket, whatever its status, and a mark that changes when any of it does."""
    found = _shown(ticket, user)
    return found | {"mark": _mark(found)}


def _mark(found: dict[str, Any]) -> str:
    """Of what people see. Links are signed anew each time, and so are forms, which has no meaning here."""
    same = found | {"downloads": [(title, [(file, "") for file, _ in files]) for title, files in found["downloads"]]}
    text = render_to_string("training/_progress.html", same)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(ticket: Ticket, user: User) -> dict[str, Any]:
    mine = ticket.customer_id == user.pk
    run = Run.objects.filter(ticket=ticket).first()
    payouts, refund = _payouts(ticket, run), _refund(ticket)
    return {
        "ticket": ticket,
        "mine": mine,
        "may_pay": mine and ticket.status == Status.QUOTED,
        "sighting": Sighting.objects.filter(name="Paid", case=ticket.pk).first(),
        "may_upload": mine and ticket.status == Status.PAID,
        "may_cancel": mine and ticket.status in (Status.QUOTED, Status.PAID, Status.UPLOADED),
        "may_repeat": mine and ticket.status in (Status.SETTLED, Status.REFUNDED, Status.EXPIRED),
        "run": run,
        "prepared": None if run else preparing.fraction(ticket),
        "events": ticket.events.exclude(kind="round"),  # the table of rounds says that already
        "downloads": _downloads(ticket),
        "kept_until": retention.until(ticket) if mine else None,
        "link_days": settings.ARTIFACT_LINK_SECONDS // 86400,
        "chain_txs": ChainTx.objects.filter(case=ticket.pk).prefetch_related("attempts"),
        "payouts": payouts,
        "rule": RULES[ticket.rule],
        "said": list(raw.said(ticket)),
        "scheme": rewards.SCHEMES[ticket.reward],
        "price_scheme": pricing.SCHEMES[ticket.price_scheme],
        "price_parts": pricing.SCHEMES[ticket.price_scheme].parts(ticket.priced),
        "score": score_of(ticket.task),
        "refund": refund,
        "over": _over(ticket, run, payouts, refund),
        **(_rounds(run) if run else {}),
    }


def _downloads(ticket: Ticket) -> list[tuple[str, list[tuple[Artifact, str]]]]:
    """The customer's files with their links, by kind."""
    files = delivery.grouped({file.name: file for file in ticket.artifacts.all()})
    return [
        (title, [(file, mail.link(file).removeprefix(settings.SITE_URL)) for file in group]) for title, group in files
    ]


def _over(ticket: Ticket, run: Run | None, payouts: list[dict[str, Any]], refund: dict[str, Any] | None) -> bool:
    """Whether there is nothing more to wait for, on the chain either."""
    if refund:
        return bool(refund["final"])
    paid = ticket.status == Status.SETTLED and all(row["tx"] for row in payouts)
    return ticket.status == Status.EXPIRED or (paid and (run is None or run.delivered is not None))


def _rounds(run: Run) -> dict[str, Any]:
    rounds = list(run.all_rounds.all())
    done = [found for found in rounds if found.checked]
    now = next((found for found in rounds if found.state == Round.State.OPEN), None) if run.finished is None else None
    return {
        "rounds": done,
        "current": now,
        "work": _work(now) if now else [],
        "curve": _curve([max(found.accuracy or 0, 0) for found in done], run.rounds),
        "loss_curve": _curve(_heights([found.loss for found in done]), run.rounds),
        **_measures(run, done),
        **_trial(run),
        "left": _left(done, run.rounds) if now else None,
        "loading": raw.loading(run),
        "waiting": _waiting(run) if run.state == Run.State.WAITING else "",
    }


def _measures(run: Run, done: list[Round]) -> dict[str, Any]:
    """What is known of the model that the customer gets, its classes or its errors; empty before."""
    kept = done[-1].by_class if done and run.state == Run.State.DONE else None
    names = [str(name) for name in run.classes]
    found = {"metrics": measures.told(run.metrics)} if run.metrics else {}
    if not kept:
        return found
    if not names:
        return found | {"errors": measures.named(kept), "scatter": measures.scatter(kept["points"], SIDE)}
    tables = found | {
        "classes": measures.table(kept, names),
        "matrix": measures.matrix(kept, names),
        "exact": kept.get("exact"),
    }
    return tables | {"most_classes": measures.MOST_CLASSES}


def _trial(run: Run) -> dict[str, Any]:
    """The form in which the customer tries the model."""
    kind = trial.kind(run)
    given = {"fields": trial.fields, "line": trial.line, "rows": trial.rows}.get(kind)
    return {"trial": kind, "sample": given(run) if given else None, "filled": bool(run.facts.get("example"))}


def _waiting(run: Run) -> str:
    """What a run waits for, in words, and how many start before it."""
    last, queue = run.ticket.events.filter(kind="waiting").last(), actions.queue()
    before = queue.index(run) if run in queue else None
    place = {None: "", 0: "; you are next"}.get(before, f"; {before} before yours")
    return f"{last.text if last else 'the providers are being asked'}{place}"


def _work(round_: Round) -> list[Assignment]:
    live = round_.assignments.filter(state__in=Assignment.LIVE)
    return list(live.select_related("provider", "shard").order_by("shard__number"))


def _curve(accuracies: list[float], rounds: int) -> str:
    """The points of an SVG polyline: rounds to the right, accuracy 0..1 upwards. Empty before the second round."""
    if len(accuracies) < 2:
        return ""
    step = WIDTH / max(rounds - 1, 1)
    return " ".join(f"{i * step:.1f},{HEIGHT * (1 - accuracy):.1f}" for i, accuracy in enumerate(accuracies))


def _heights(losses: list[float | None]) -> list[float]:
    """Losses as parts of the largest; one that was not finite is as high."""
    most = max((loss for loss in losses if loss), default=1.0)
    return [1.0 if loss is None else loss / most for loss in losses]


def _left(done: list[Round], rounds: int) -> timedelta | None:
    """How long the rest of the rounds will take, if they take as long as the last few; None before two are done."""
    ends = [found.closed for found in done if found.closed][-LAST:]
    if len(ends) < 2:
        return None
    return (ends[-1] - ends[0]) / (len(ends) - 1) * max(rounds - len(done), 1)


def _refund(ticket: Ticket) -> dict[str, Any] | None:
    """How far the way back of the payment is: the transaction, as soon as there is one, and whether it is final."""
    if ticket.status != Status.REFUNDED:
        return None
    if done := ChainEvent.objects.filter(case=ticket.pk, name="Refunded").first():
        return {"tx": done.tx, "final": True}
    ours = ChainTx.objects.filter(case=ticket.pk, verb__in=["refund", "failTicket"])
    sent = ours.filter(state__in=[ChainTx.State.SENT, ChainTx.State.FINAL]).order_by("-created").first()
    return {"tx": sent.hash if sent else "", "final": False}


def _payouts(ticket: Ticket, run: Run | None) -> list[dict[str, Any]]:
    """Who gets what of the price: one row per decided transfer, with whether the chain has made it."""
    if ticket.status != Status.SETTLED:
        return []
    names = _names(run) if run else {}
    points = rewards.merit(ticket.reward, map(pay.work_of, pay.counted(run))) if run else {}
    planned = Transfer.objects.filter(case=ticket.pk, key__startswith="settle:", kind=Transfer.Kind.PENDING)
    rows = planned.exclude(outcome__kind=Transfer.Kind.VOID).select_related("outcome__event").order_by("id")
    unit = rewards.SCHEMES[ticket.reward].unit
    return [_payout(row, names) | {"points": points.get(_wallet(row), 0) / unit} for row in rows]


def _wallet(row: Transfer) -> str:
    """Whom it goes to; empty for the platform."""
    return row.credit.partition(":")[2]


def _payout(row: Transfer, names: dict[str, str]) -> dict[str, Any]:
    outcome = getattr(row, "outcome", None)
    wallet = _wallet(row)
    name = names.get(wallet, wallet) if wallet else "platform fee"
    done = outcome is not None and outcome.kind == Transfer.Kind.POST
    return {"name": name, "wallet": wallet, "amount": row.amount, "tx": outcome.event.tx if done else ""}


def _names(run: Run) -> dict[str, str]:
    pairs = Assignment.objects.filter(round__run=run).values_list("provider__wallet", "provider__user_name").distinct()
    return {wallet: name for wallet, name in pairs if wallet}


# --- What a receipt names ---------------------------------------------------------------------------------------------
def blob(request: HttpRequest, token: str, sha256: str) -> HttpResponseBase:
    """A file that a receipt names, by the receipt's own signed link: what `dmlworker verify` computes with."""
    throttle(request, "file", FILES, "ip")
    try:
        found = records.named(linked(token), sha256)
    except signing.SignatureExpired:
        return expired(request)
    if link := store.link(found.sha256):
        return redirect(link)
    return download(partial(store.opened, found.sha256), found.sha256, found.size)


# --- Providers --------------------------------------------------------------------------------------------------------
def provider(request: HttpRequest, name: str) -> HttpResponse:
    """What everybody may know of a provider, by user name or wallet, without login. One who never had a deposit is nobody yet."""
    throttle(request, "provider", PUBLIC, "ip")
    found = Provider.objects.filter(Q(user_name__iexact=name) | Q(wallet__iexact=name)).exclude(wallet=None).first()
    if found is None:
        raise Http404
    return render(request, "providers/public.html", standing.public(found) | {"formula": FORMULA})


@login_required
@never_cache
def work(request: HttpRequest, ticket: UUID) -> HttpResponse:
    """What a provider's own work on a ticket is worth, round by round; of the others only the points of all together."""
    throttle(request, "points", READS, "user")
    me = get_object_or_404(Provider, user=cast(User, request.user))
    run = get_object_or_404(Run.objects.select_related("ticket"), ticket=ticket)
    if not Assignment.objects.filter(round__run=run, provider=me).exists():
        raise Http404
    everything = pay.rows(run)
    mine = [row for row in everything if row.update.provider_id == me.pk]
    scheme = pay.scheme_of(run)
    context = {
        "run": run,
        "score": score_of(run.ticket.task),
        "scheme": scheme,
        "rows": mine,
        "points": sum(row.points for row in mine),
        "of": sum(row.points for row in everything),
        "payouts": Transfer.objects.filter(
            case=ticket, currency=Currency.DML, credit=f"provider:{me.wallet}", key__startswith="settle:"
        )
        .filter(kind=Transfer.Kind.PENDING)
        .exclude(outcome__kind=Transfer.Kind.VOID),
    }
    return render(request, "training/work.html", context)


# --- The check before paying ------------------------------------------------------------------------------------------
@takes(lambda: settings.MAX_CHECK_BYTES)
@login_required
@require_POST
def check(request: HttpRequest) -> HttpResponse:
    """Read the file as training would, say what was found, keep nothing."""
    throttle(request, "check", CHECKS, "user")
    options = said(request.POST)
    facts = facts_of(request.FILES.get("file"), request.POST.get("target", "").strip(), options)
    largest = sorted(facts.classes.items(), key=lambda pair: -pair[1])[:SHOWN]
    most = max((count for _, _, count in facts.spread.bars), default=0) if facts.spread else 0
    context = {"classes": largest, "more": len(facts.classes) - len(largest), "most": most, "shape": _shape(facts)}
    return render(request, "training/_check.html", _checked(facts, options) | context)


def facts_of(file: UploadedFile | None, target: str, options: datasets.Options) -> datasets.Facts:
    """What is in a file that was sent with the request; the file is gone afterwards. Raises Invalid."""
    if file is None:
        raise Invalid("Please choose a file.")
    size = file.size or 0
    if not 0 < size <= settings.MAX_CHECK_BYTES:
        raise Invalid("The file is empty." if not size else "The file is too large to be checked before paying.")
    try:
        return _inspect(file, target, options)
    finally:
        file.close()  # the temporary file goes with it


def _shape(facts: datasets.Facts) -> tuple[int, ...]:
    """Of one sample as a model gets it; empty where that is not known yet: only the training part tells what becomes of a category."""
    plain = all(column.kind in PLAIN for column in facts.details) and len(facts.columns) <= len(facts.details)
    return facts.inputs if plain else ()


def said(given: Mapping[str, Any]) -> datasets.Options:
    """What the fields of the order form say of the data. Raises Invalid."""
    form = DataForm(given)
    if not form.is_valid():
        raise Invalid(form.first_error())
    return datasets.Options(**form.cleaned_data | {"leave_out": tuple(form.cleaned_data["leave_out"])})


def _checked(facts: datasets.Facts, options: datasets.Options) -> dict[str, Any]:
    """What was found, and for each column what its owner said."""
    rows = [
        {"found": each, "left_out": each.name in options.leave_out, "kind": options.kinds.get(each.name, "")}
        for each in facts.details
    ]
    return {"facts": facts, "columns": rows, "kinds": KINDS, "group": options.group}


def _inspect(file: UploadedFile, target: str, options: datasets.Options) -> datasets.Facts:
    path = cast(TemporaryUploadedFile, file).temporary_file_path()  # settings choose the handler: always on disk
    try:
        return datasets.inspect(path, file.name or "data", target or None, options)
    except datasets.DatasetError as error:
        raise Invalid(str(error)) from None


# --- Trying the model -------------------------------------------------------------------------------------------------
@takes(lambda: IMAGE)
@login_required
@require_POST
def ask_trial(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Take a sample, and lead to its answer."""
    throttle(request, "trial", TRIALS, "user")
    run = get_object_or_404(Run, ticket=visible(request, pk))
    name = trial.ask(run, trial.read(run, request.POST, request.FILES.get("image")))
    return redirect("training:trial", pk=pk, name=name)


@login_required
@never_cache
def see_trial(request: HttpRequest, pk: UUID, name: str) -> HttpResponse:
    """What the model says; as long as it has said nothing, the page asks again."""
    run = get_object_or_404(Run.objects.select_related("ticket"), ticket=visible(request, pk))
    if not trial.known(run, name):
        raise Missing("This trial is too old. Please try again.")
    found = trial.answered(name)
    page = "training/_answer.html" if getattr(request, "htmx", False) else "training/answer.html"
    answer = render(request, page, {"ticket": run.ticket, "name": name, **_answers(run, found or [])})
    if not found and not getattr(request, "htmx", False):
        answer["Refresh"] = "2"
    return answer


def _answers(run: Run, found: list[float]) -> dict[str, Any]:
    """What a model said, as the page shows it: a number, or the likeliest classes."""
    if found and not run.classes:
        return {"number": found[0], "target": run.facts.get("target") or "The answer"}
    return {
        "answers": sorted(zip(map(str, run.classes), found, strict=True), key=lambda pair: -pair[1])[:SHOWN]
        if found
        else []
    }
