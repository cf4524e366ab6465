"""The live part of a ticket's page, the files of a receipt, and the check of a file before it is paid for."""

from functools import partial
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core import signing
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts.models import User
from dmlsite.errors import Invalid
from dmlsite.limits import throttle
from dmlworker import datasets
from ledger import money
from ledger.models import ChainEvent, ChainTx, Sighting, Transfer
from tickets import mail
from tickets.models import Status, Ticket
from tickets.views import download, expired, linked, visible
from training import actions, records, store
from training.models import Assignment, Round, Run

CHECKS = "30/10m"
"""How often one person may have a file read before paying."""

SHOWN = 12
"""Classes named in the answer of a check."""

WIDTH, HEIGHT = 300, 80
"""The curve's box, in SVG units."""


@login_required
@never_cache
def progress(request: HttpRequest, pk: UUID) -> HttpResponse:
    ticket = visible(request, pk)
    return render(request, "training/_progress.html", progress_of(ticket, cast(User, request.user)))


def progress_of(ticket: Ticket, user: User) -> dict[str, Any]:
    """All that the live part shows of a ticket, whatever its status."""
    mine = ticket.customer_id == user.pk
    run = Run.objects.filter(ticket=ticket).first()
    return {
        "ticket": ticket,
        "mine": mine,
        "may_pay": mine and ticket.status == Status.QUOTED,
        "sighting": Sighting.objects.filter(name="Paid", case=ticket.pk).first(),
        "may_upload": mine and ticket.status == Status.PAID,
        "may_cancel": mine and ticket.status in (Status.QUOTED, Status.PAID, Status.UPLOADED),
        "run": run,
        "events": ticket.events.exclude(kind="round"),  # the table of rounds says that already
        "downloads": [(file, mail.link(file).removeprefix(settings.SITE_URL)) for file in ticket.artifacts.all()],
        "link_days": settings.ARTIFACT_LINK_SECONDS // 86400,
        "chain_txs": ChainTx.objects.filter(case=ticket.pk).prefetch_related("attempts"),
        "payouts": _payouts(ticket, run),
        "refund": _refund(ticket),
        **(_rounds(run) if run else {}),
    }


def _rounds(run: Run) -> dict[str, Any]:
    rounds = list(run.all_rounds.all())
    done = [found for found in rounds if found.checked]
    now = next((found for found in rounds if found.state == Round.State.OPEN), None) if run.finished is None else None
    return {
        "rounds": done,
        "current": now,
        "work": _work(now) if now else [],
        "curve": _curve([found.accuracy or 0 for found in done], run.rounds),
        "waiting": _waiting(run) if run.state == Run.State.WAITING else "",
    }


def _waiting(run: Run) -> str:
    """What a run waits for, in words, and how many start before it."""
    last, queue = run.ticket.events.filter(kind="waiting").last(), actions.queue()
    before = queue.index(run) if run in queue else 0
    place = f"; {before} before yours" if before else ""
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
    planned = Transfer.objects.filter(case=ticket.pk, key__startswith="settle:", kind=Transfer.Kind.PENDING)
    rows = planned.exclude(outcome__kind=Transfer.Kind.VOID).select_related("outcome__event").order_by("id")
    return [_payout(row, names) for row in rows]


def _payout(row: Transfer, names: dict[str, str]) -> dict[str, Any]:
    outcome = getattr(row, "outcome", None)
    wallet = row.credit.partition(":")[2]
    name = names.get(wallet, wallet) if wallet else "platform fee"
    done = outcome is not None and outcome.kind == Transfer.Kind.POST
    return {"name": name, "wallet": wallet, "amount": row.amount, "tx": outcome.event.tx if done else ""}


def _names(run: Run) -> dict[str, str]:
    pairs = Assignment.objects.filter(round__run=run).values_list("provider__wallet", "provider__user_name").distinct()
    return {wallet: name for wallet, name in pairs if wallet}


# --- What a receipt names ---------------------------------------------------------------------------------------------
def blob(request: HttpRequest, token: str, sha256: str) -> HttpResponseBase:
    """A file that a receipt names, by the receipt's own signed link: what `dmlworker verify` computes with."""
    try:
        found = records.named(linked(token), sha256)
    except signing.SignatureExpired:
        return expired(request)
    if link := store.link(found.sha256):
        return redirect(link)
    return download(partial(store.opened, found.sha256), found.sha256, found.size)


# --- The check before paying ------------------------------------------------------------------------------------------
@login_required
@require_POST
def check(request: HttpRequest) -> HttpResponse:
    """Read the file as training would, say what was found, keep nothing."""
    throttle(request, "check", CHECKS, "user")
    file = request.FILES.get("file")
    if file is None:
        raise Invalid("Please choose a file.")
    size = file.size or 0
    if not 0 < size <= settings.MAX_CHECK_BYTES:
        raise Invalid("The file is empty." if not size else "The file is too large to be checked before paying.")
    try:
        facts = _inspect(file, request.POST.get("target", "").strip())
    finally:
        file.close()  # the temporary file goes with it
    largest = sorted(facts.classes.items(), key=lambda pair: -pair[1])[:SHOWN]
    more = len(facts.classes) - len(largest)
    context = {"facts": facts, "classes": largest, "more": more, "price": money.price(size)}
    return render(request, "training/_check.html", context)


def _inspect(file: UploadedFile, target: str) -> datasets.Facts:
    path = cast(TemporaryUploadedFile, file).temporary_file_path()  # settings choose the handler: always on disk
    try:
        return datasets.inspect(path, file.name or "data", target or None)
    except datasets.DatasetError as error:
        raise Invalid(str(error)) from None
