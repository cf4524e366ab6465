"""Every movement of money is a verb here. Deciding writes pending transfers and an intent; the chain's events post them.

Accounts are named by what they hold: `escrow:<ticket>`, `provider:<wallet>`, `outside:<wallet>`, `fee`, `treasury` in
micro-DML; `deposit:<wallet>`, `credit:<wallet>`, `outside:<wallet>`, `treasury` in gwei.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from contracts.chain import Call
from dmlsite import jobs
from dmlsite.errors import Conflict
from ledger.gateway import chain
from ledger.models import Alarm, ChainEvent, ChainTx, Currency, Transfer

log = logging.getLogger(__name__)
DML, COIN = Currency.DML, Currency.COIN


# --- Deciding ---------------------------------------------------------------------------------------------------------
def release(ticket: UUID, shares: Mapping[str, int], fee: int, receipt_root: str) -> None:
    """Decide that a ticket's price goes to the providers (wallet -> micro-DML) and the fee to the platform."""
    with transaction.atomic():
        for wallet, amount in shares.items():
            _pend(f"settle:{ticket}:{wallet}", DML, f"escrow:{ticket}", f"provider:{wallet}", amount, ticket)
        _pend(f"settle:{ticket}:fee", DML, f"escrow:{ticket}", "fee", fee, ticket)
        paid = {wallet: amount for wallet, amount in shares.items() if amount}
        _intend("settle", ticket, chain().settle_call(ticket, paid, receipt_root))


def refund(ticket: UUID, payer: str, amount: int) -> None:
    """Decide that a ticket's whole price goes back to the wallet that paid it."""
    with transaction.atomic():
        _pend(f"refund:{ticket}", DML, f"escrow:{ticket}", f"outside:{payer}", amount, ticket)
        _intend("refund", ticket, chain().refund_call(ticket))


def fail_ticket(ticket: UUID, payer: str, amount: int, cheats: Iterable[str], honest: Iterable[str]) -> None:
    """As `refund`, and accuse the cheats in the same chain transaction."""
    with transaction.atomic():
        _pend(f"refund:{ticket}", DML, f"escrow:{ticket}", f"outside:{payer}", amount, ticket)
        _intend("failTicket", ticket, chain().fail_ticket_call(ticket, sorted(cheats), sorted(honest)))


def accuse(case: UUID, cheats: Iterable[str], honest: Iterable[str]) -> None:
    """Accuse providers of their deposit outside a ticket."""
    _intend("accuse", case, chain().accuse_call(case, sorted(cheats), sorted(honest)))


def execute_ban(case: UUID, cheats: Iterable[str], honest: Iterable[str]) -> None:
    """Plan the ban for the end of the challenge time."""
    ready = datetime.fromtimestamp(chain().accusation(case).executable_at, UTC)
    _intend("executeBan", case, chain().execute_ban_call(case, sorted(cheats), sorted(honest)), not_before=ready)


def acquit(case: UUID) -> None:
    """Take an accusation back. A planned ban that was not sent yet is dropped."""
    ChainTx.objects.filter(key=f"executeBan:{case}", state=ChainTx.State.READY).update(
        state=ChainTx.State.DROPPED, error="the accusation was lifted"
    )
    _intend("acquit", case, chain().acquit_call(case), role="guardian")


def retry(tx: ChainTx, actor: str) -> ChainTx:
    """An admin has a reverted transaction tried again, as a new intent."""
    if tx.state != ChainTx.State.REVERTED:
        raise Conflict("Only a reverted transaction can be tried again.")
    again = ChainTx.objects.filter(verb=tx.verb, case=tx.case).count() + 1
    log.info("%s has %s tried again", actor, tx)
    call = Call(to=tx.to, data=tx.data, value_gwei=tx.value_gwei)
    return _intend(tx.verb, tx.case, call, role=tx.role, key=f"{tx.verb}:{tx.case}#{again}")


def _pend(key: str, currency: str, debit: str, credit: str, amount: int, case: UUID) -> None:
    if amount:
        Transfer.objects.create(
            key=key, kind=Transfer.Kind.PENDING, currency=currency, debit=debit, credit=credit, amount=amount, case=case
        )


def _intend(
    verb: str, case: UUID, call: Call, *, role: str = "settler", key: str = "", not_before: datetime | None = None
) -> ChainTx:
    """Write down what the chain is to do, once per key, and have it sent after commit."""
    fields = {"verb": verb, "case": case, "to": call.to, "data": call.data, "value_gwei": call.value_gwei}
    tx, new = ChainTx.objects.get_or_create(
        key=key or f"{verb}:{case}", defaults={**fields, "role": role, "not_before": not_before}
    )
    if new:
        jobs.enqueue("ledger.tasks.send", str(tx.pk))
    return tx


# --- What the chain says ----------------------------------------------------------------------------------------------
NUDGES = {
    "Paid": "tickets.tasks.event_seen",
    "Refunded": "tickets.tasks.event_seen",
    "Settled": "training.tasks.settled",
    "Registered": "providers.tasks.event_seen",
    "ExitRequested": "providers.tasks.event_seen",
    "Withdrawn": "providers.tasks.event_seen",
    "Accused": "providers.tasks.event_seen",
    "Acquitted": "providers.tasks.event_seen",
    "Banned": "providers.tasks.event_seen",
}
"""Which job follows an event. An event nobody follows counts as followed."""


def record(event: ChainEvent) -> None:
    """Book a new final event and nudge the app it concerns. The caller's transaction holds the cursor's row."""
    book = _BOOKS.get(event.name)
    if book:
        book(event)
    if event.name in NUDGES:
        jobs.enqueue(NUDGES[event.name], event.pk)


def _post(event: ChainEvent, part: str, currency: str, debit: str, credit: str, amount: int, planned: str = "") -> None:
    """Post a transfer that the chain made; if it was planned, as the outcome of its pending row."""
    if not amount:
        return
    pending = (
        Transfer.objects.filter(key=planned, kind=Transfer.Kind.PENDING, outcome=None).first() if planned else None
    )
    if planned and (pending is None or pending.amount != amount):
        alarm(
            "unplanned transfer", f"{event.name} moved {amount} {currency} {debit} → {credit} in {event.tx}", event.case
        )
        pending = None
    Transfer.objects.create(
        key=f"event:{event.chain_id}:{event.block_hash}:{event.log_index}:{part}",
        kind=Transfer.Kind.POST if pending else Transfer.Kind.POSTED,
        pending=pending,
        currency=currency,
        debit=debit,
        credit=credit,
        amount=amount,
        case=event.case,
        event=event,
    )


def _paid(event: ChainEvent) -> None:
    args = event.args
    _post(event, "paid", DML, f"outside:{args['payer']}", f"escrow:{event.case}", args["amount"])


def _provider_paid(event: ChainEvent) -> None:
    wallet = event.args["provider"]
    accounts = f"escrow:{event.case}", f"provider:{wallet}"
    _post(event, "share", DML, *accounts, event.args["amount"], planned=f"settle:{event.case}:{wallet}")


def _settled(event: ChainEvent) -> None:
    _post(event, "fee", DML, f"escrow:{event.case}", "fee", event.args["fee"], planned=f"settle:{event.case}:fee")


def _refunded(event: ChainEvent) -> None:
    """A refund may come without our asking, after `settleBy`: what was planned for the providers is then void."""
    for pending in Transfer.objects.filter(
        case=event.case, kind=Transfer.Kind.PENDING, outcome=None, key__startswith="settle:"
    ):
        _void(pending)
        alarm("settlement overtaken by a refund", f"{event.tx} refunded ticket {event.case}", event.case)
    accounts = f"escrow:{event.case}", f"outside:{event.args['payer']}"
    planned = f"refund:{event.case}" if Transfer.objects.filter(key=f"refund:{event.case}").exists() else ""
    _post(event, "refund", DML, *accounts, event.args["amount"], planned=planned)


def _void(pending: Transfer) -> None:
    names = ("currency", "debit", "credit", "amount", "case")
    same = {name: getattr(pending, name) for name in names}
    Transfer.objects.create(key=f"void:{pending.key}", kind=Transfer.Kind.VOID, pending=pending, **same)


def _registered(event: ChainEvent) -> None:
    wallet = event.args["provider"]
    _post(event, "stake", COIN, f"outside:{wallet}", f"deposit:{wallet}", event.args["stake"])


def _withdrawn(event: ChainEvent) -> None:
    wallet = event.args["provider"]
    _post(event, "stake", COIN, f"deposit:{wallet}", f"outside:{wallet}", event.args["stake"])


def _banned(event: ChainEvent) -> None:
    """The deposit goes into the case's pot; StakeShared events take it out again, to the unit."""
    _post(event, "stake", COIN, f"deposit:{event.args['provider']}", f"case:{event.case}", event.args["stake"])


def _stake_shared(event: ChainEvent) -> None:
    _post(event, "share", COIN, f"case:{event.case}", f"credit:{event.args['provider']}", event.args["amount"])


def _credit_withdrawn(event: ChainEvent) -> None:
    wallet = event.args["owner"]
    _post(event, "credit", COIN, f"credit:{wallet}", f"outside:{wallet}", event.args["amount"])


_BOOKS = {
    "Paid": _paid,
    "ProviderPaid": _provider_paid,
    "Settled": _settled,
    "Refunded": _refunded,
    "Registered": _registered,
    "Withdrawn": _withdrawn,
    "Banned": _banned,
    "StakeShared": _stake_shared,
    "CreditWithdrawn": _credit_withdrawn,
}


@contextmanager
def following(pk: int) -> Iterator[ChainEvent | None]:
    """The event with its row locked, marked as followed when the block ends well; None if that was done before."""
    with transaction.atomic():
        event = ChainEvent.objects.select_for_update().filter(pk=pk, followed=None).first()
        yield event
        if event:
            ChainEvent.objects.filter(pk=pk).update(followed=timezone.now())


# --- Alarms -----------------------------------------------------------------------------------------------------------
def alarm(kind: str, text: str, case: UUID | None = None) -> None:
    """Record something an admin must look at and mail the admins; one open alarm per kind and case."""
    log.error("alarm: %s: %s", kind, text)
    try:
        with transaction.atomic():
            found = Alarm.objects.create(kind=kind, text=text, case=case)
            jobs.enqueue("ledger.tasks.mail_alarm", found.pk)
    except IntegrityError:
        log.info("that alarm is open already")


def clear(found: Alarm, actor: str) -> None:
    Alarm.objects.filter(pk=found.pk, cleared=None).update(cleared=timezone.now(), cleared_by=actor)
