"""Deciding about money: each verb writes pending transfers and an intent; the chain's events post them (`books.py`).

A ticket's payment is decided once. Only when the escrow has refused a decision for good, so that it moved nothing and
never will, is there another (`reconsider`).
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from contracts.chain import Call, Reverted
from dmlsite import jobs
from dmlsite.errors import Conflict
from ledger import money
from ledger.alarms import Kind, alarm
from ledger.books import ENDINGS, lock_case, void
from ledger.gateway import chain
from ledger.models import ChainEvent, ChainTx, Currency, Transfer

log = logging.getLogger(__name__)
State = ChainTx.State

ENDING_VERBS = ("settle", "refund", "failTicket")
"""Each takes a ticket's whole payment out of the escrow."""
ALIVE = (State.READY, State.SENT, State.FINAL)
"""Of an intent that will happen, may happen or has happened."""


# --- Tickets ----------------------------------------------------------------------------------------------------------
def release(ticket: UUID, shares: Mapping[str, int], fee: int, receipt_root: str) -> None:
    """Decide that a ticket's price goes to the providers (wallet -> micro-DML) and the fee to the platform."""
    with transaction.atomic():
        if _may_end(ticket):
            _settle(ticket, shares, fee, receipt_root)


def refund(ticket: UUID, payer: str, amount: int) -> None:
    """Decide that a ticket's whole price goes back to the wallet that paid it."""
    with transaction.atomic():
        if _may_end(ticket):
            _refund(ticket, payer, amount)


def fail_ticket(ticket: UUID, payer: str, amount: int, cheats: Iterable[str], honest: Iterable[str]) -> None:
    """As `refund`, and accuse the cheats in the same chain transaction."""
    with transaction.atomic():
        if _may_end(ticket):
            _pend("failTicket", ticket, {f"outside:{payer}": amount})
            _end("failTicket", ticket, chain().fail_ticket_call(ticket, sorted(cheats), sorted(honest)))
        else:
            accuse(ticket, cheats, honest)


def _may_end(ticket: UUID) -> bool:
    """Whether a decision about the payment is still due; False if the chain has made the end already.

    Holds the case's lock until commit, so that neither another decision nor the end's own event comes between. Raises
    Conflict if another decision is under way.
    """
    lock_case(ticket)
    if _has_ended(ticket):
        return False
    if other := _ends(ticket).filter(state__in=ALIVE).first():
        raise Conflict(f"The payment is decided on already: {other}")
    return True


def _has_ended(ticket: UUID) -> bool:
    return ChainEvent.objects.filter(case=ticket, name__in=ENDINGS).exists()


def _ends(ticket: UUID) -> QuerySet[ChainTx]:
    return ChainTx.objects.filter(case=ticket, verb__in=ENDING_VERBS)


def is_due(tx: ChainTx) -> bool:
    """Whether the end of a payment, which `tx` was to be, is still to come, and nothing else is under way."""
    if tx.verb not in ENDING_VERBS or _has_ended(tx.case):
        return False
    return not _ends(tx.case).filter(Q(state__in=ALIVE) | Q(created__gt=tx.created)).exists()


def _settle(ticket: UUID, shares: Mapping[str, int], fee: int, receipt_root: str) -> None:
    parts = {f"provider:{wallet}": amount for wallet, amount in shares.items()}
    _pend("settle", ticket, parts | {"fee": fee})
    paid = {wallet: amount for wallet, amount in shares.items() if amount}
    _end("settle", ticket, chain().settle_call(ticket, paid, receipt_root))


def _refund(ticket: UUID, payer: str, amount: int) -> None:
    _pend("refund", ticket, {f"outside:{payer}": amount})
    _end("refund", ticket, chain().refund_call(ticket))


def planned(ticket: UUID) -> QuerySet[Transfer]:
    """What is decided of a ticket's payment and neither posted nor void."""
    rows = Transfer.objects.filter(case=ticket, kind=Transfer.Kind.PENDING, outcome=None)
    return rows.filter(debit=f"escrow:{ticket}").order_by("id")


# --- Deciding anew ----------------------------------------------------------------------------------------------------
def reconsider(tx: ChainTx, why: Reverted) -> bool:
    """The escrow refuses a decision: take the only other one that is right, if there is one. Says whether it did.

    settle, because a provider was banned or left meanwhile: its share goes to the others. settle, because it is too
    late or nobody is left: refund. failTicket, whatever the reason: refund now if that is still due, and accuse apart.
    """
    if tx.verb == "settle" and why.name in ("NotInStanding", "TooLate"):
        return _settle_anew(tx, why)
    if tx.verb == "failTicket" and why.name:
        return _fail_apart(tx, why)
    if tx.verb in ENDING_VERBS and why.name == "WrongTicketState":
        return _overtaken(tx, why)
    return False


def _settle_anew(tx: ChainTx, why: Reverted) -> bool:
    on, ticket = chain(), tx.case
    shares = {row.credit.partition(":")[2]: row.amount for row in planned(ticket) if row.credit.startswith("provider:")}
    paid, root = on.ticket(ticket), str(on.arguments(_call(tx))["receipt_root"])
    final = on.finalized().number
    standing = {wallet: on.provider_standing(wallet, at=final).name for wallet in shares}
    left = {wallet: part for wallet, part in shares.items() if standing[wallet] in ("Active", "Exiting")}
    if why.name == "NotInStanding" and len(left) == len(shares):
        return False  # not final yet: it may still come otherwise
    with transaction.atomic():
        if not (_withdraw(tx, why) and _may_end(ticket)):
            return False
        if left and why.name == "NotInStanding":
            fee = money.fee(paid.amount)
            _settle(ticket, money.split(paid.amount - fee, left), fee, root)
        else:
            _refund(ticket, paid.payer, paid.amount)
        alarm(Kind.RESPLIT, f"{tx.verb} was refused ({why}); {len(left)} of {len(shares)} in standing", ticket)
    return True


def _fail_apart(tx: ChainTx, why: Reverted) -> bool:
    on = chain()
    lists = on.arguments(_call(tx))
    with transaction.atomic():
        if not _withdraw(tx, why):
            return False
        if _may_end(tx.case):
            _end("refund", tx.case, on.refund_call(tx.case))
        accuse(tx.case, lists["cheats"], lists["honest"])
    return True


def _overtaken(tx: ChainTx, why: Reverted) -> bool:
    """The payment has ended otherwise while this was under way, whose nonce somebody else has spent: it is not sent."""
    with transaction.atomic():
        lock_case(tx.case)
        return _has_ended(tx.case) and _drop(tx, why)


def _withdraw(tx: ChainTx, why: Reverted) -> bool:
    """Take back a decision that cannot happen any more: never signed, or reverted in a final block. Holds the lock.

    False if somebody did so before, and maybe has decided anew.
    """
    lock_case(tx.case)
    reverted = ChainTx.objects.filter(pk=tx.pk, state=State.REVERTED).exists()
    return (reverted or _drop(tx, why)) and not _ends(tx.case).filter(state__in=ALIVE).exists()


def _drop(tx: ChainTx, why: Reverted) -> bool:
    return bool(ChainTx.objects.filter(pk=tx.pk, state=State.READY).update(state=State.DROPPED, error=str(why)))


def _call(tx: ChainTx) -> Call:
    return Call(to=tx.to, data=tx.data, value_gwei=tx.value_gwei)


# --- Accusations ------------------------------------------------------------------------------------------------------
def accuse(case: UUID, cheats: Iterable[str], honest: Iterable[str]) -> None:
    """Accuse providers of their deposit outside a ticket."""
    _intend("accuse", case, chain().accuse_call(case, sorted(cheats), sorted(honest)))


def execute_ban(case: UUID, cheats: Iterable[str], honest: Iterable[str]) -> None:
    """Plan the ban for the end of the challenge time."""
    ready = datetime.fromtimestamp(chain().accusation(case).executable_at, UTC)
    _intend("executeBan", case, chain().execute_ban_call(case, sorted(cheats), sorted(honest)), not_before=ready)


def acquit(case: UUID) -> None:
    """Take an accusation back. What was planned of it and not signed yet is dropped."""
    drop_ban(case, "the accusation was lifted")
    unsent = ChainTx.objects.filter(key=f"accuse:{case}", state=State.READY)
    if unsent.update(state=State.DROPPED, error="the accusation was lifted"):
        return  # the chain never heard of it
    _intend("acquit", case, chain().acquit_call(case), role="guardian")


def drop_ban(case: UUID, reason: str) -> None:
    """A planned ban that was not signed yet is not wanted any more."""
    ready = ChainTx.objects.filter(verb="executeBan", case=case, state=State.READY)
    ready.update(state=State.DROPPED, error=reason)


# --- Intents ----------------------------------------------------------------------------------------------------------
def retry(tx: ChainTx, actor: str) -> ChainTx:
    """An admin has a reverted transaction tried again, as a new intent."""
    if tx.state != State.REVERTED:
        raise Conflict("Only a reverted transaction can be tried again.")
    log.info("%s has %s tried again", actor, tx)
    with transaction.atomic():
        lock_case(tx.case)
        if tx.verb in ENDING_VERBS and (_has_ended(tx.case) or _ends(tx.case).filter(created__gt=tx.created).exists()):
            raise Conflict("The payment was decided anew meanwhile.")
        if ChainTx.objects.filter(case=tx.case, verb=tx.verb, state__in=ALIVE).exists():
            raise Conflict("It is being tried again already.")
        return _intend(tx.verb, tx.case, _call(tx), role=tx.role, key=_next_key(tx.verb, tx.case))


def _pend(verb: str, ticket: UUID, parts: Mapping[str, int]) -> None:
    """Write down what is decided: from the ticket's escrow account to each account its part, in micro-DML.

    What was decided before is void: `_may_end` has seen to it that it cannot happen.
    """
    for row in planned(ticket):
        void(row)
    key = _next_key(verb, ticket)
    Transfer.objects.bulk_create(
        Transfer(
            key=f"{key}:{account}",
            kind=Transfer.Kind.PENDING,
            currency=Currency.DML,
            debit=f"escrow:{ticket}",
            credit=account,
            amount=amount,
            case=ticket,
        )
        for account, amount in parts.items()
        if amount
    )


def _end(verb: str, ticket: UUID, call: Call) -> None:
    """Write down the end of a ticket's payment; `_may_end` has seen to it that no other one can happen."""
    _intend(verb, ticket, call, key=_next_key(verb, ticket))


def _next_key(verb: str, case: UUID) -> str:
    """The idempotency key of the next intent of a kind: it is another one only when those before are dead."""
    dead = ChainTx.objects.filter(verb=verb, case=case, state__in=[State.DROPPED, State.REVERTED]).count()
    return f"{verb}:{case}" + (f"#{dead + 1}" if dead else "")


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
