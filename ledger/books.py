"""What the chain says, booked: every final event of the escrow becomes double entries, once.

Accounts are named by what they hold: `escrow:<ticket>`, `provider:<wallet>`, `outside:<wallet>`, `credit:<wallet>`,
`stray`, `fee` in micro-DML; `deposit:<wallet>`, `case:<case>`, `credit:<wallet>`, `outside:<wallet>` in gwei.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from dmlsite import jobs
from ledger import money
from ledger.alarms import Kind, alarm
from ledger.models import PAYOUTS, ChainEvent, ChainTx, Currency, Transfer
from observe import logs

DML, COIN = Currency.DML, Currency.COIN

ENDINGS = ("Settled", "Refunded")
"""The events after which a ticket's payment has left the escrow for good."""

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


@contextmanager
def following(pk: int) -> Iterator[ChainEvent | None]:
    """The event with its row locked, marked as followed when the block ends well; None if that was done before."""
    with transaction.atomic():
        event = ChainEvent.objects.select_for_update().filter(pk=pk, followed=None).first()
        logs.note(ticket=event and event.case)
        yield event
        if event:
            ChainEvent.objects.filter(pk=pk).update(followed=timezone.now())


def lock_case(case: UUID) -> None:
    """Until commit nobody else decides about this case, or books its end."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"case:{case}"])


def void(pending: Transfer) -> None:
    """What was decided will not happen."""
    names = ("currency", "debit", "credit", "amount", "case")
    same = {name: getattr(pending, name) for name in names}
    Transfer.objects.create(key=f"void:{pending.key}", kind=Transfer.Kind.VOID, pending=pending, **same)


# --- Posting ----------------------------------------------------------------------------------------------------------
def _post(event: ChainEvent, part: str, currency: str, debit: str, credit: str, amount: int) -> bool:
    """Post a transfer that the chain made, as the outcome of its pending row if it was planned; says whether it was."""
    if not amount:
        return True
    same = {"currency": currency, "debit": debit, "credit": credit, "amount": amount, "case": event.case}
    plan = Transfer.objects.filter(kind=Transfer.Kind.PENDING, outcome=None, **same).first() if event.case else None
    Transfer.objects.create(
        key=f"event:{event.chain_id}:{event.block_hash}:{event.log_index}:{part}",
        kind=Transfer.Kind.POST if plan else Transfer.Kind.POSTED,
        pending=plan,
        event=event,
        **same,
    )
    return plan is not None


def _post_planned(event: ChainEvent, part: str, credit: str, amount: int) -> None:
    """Only the platform's own key can settle: a settlement that it never decided halts every payout."""
    debit = f"escrow:{event.case}"
    if not _post(event, part, DML, debit, credit, amount):
        text = f"{event.name} moved {money.text(amount, DML)} {debit} → {credit} in {event.tx}: nobody decided that"
        alarm(Kind.UNPLANNED, text, event.case, halts=PAYOUTS)


def _paid(event: ChainEvent) -> None:
    args = event.args
    _post(event, "paid", DML, f"outside:{args['payer']}", f"escrow:{event.case}", args["amount"])


def _provider_paid(event: ChainEvent) -> None:
    _post_planned(event, "share", f"provider:{event.args['provider']}", event.args["amount"])


def _settled(event: ChainEvent) -> None:
    _post_planned(event, "fee", "fee", event.args["fee"])
    _ended(event)


def _refunded(event: ChainEvent) -> None:
    """A refund may come without our asking: after `settleBy` anyone can have it done."""
    _post(event, "refund", DML, f"escrow:{event.case}", f"outside:{event.args['payer']}", event.args["amount"])
    _ended(event)


def _ended(event: ChainEvent) -> None:
    """The payment has left the escrow: whatever else was decided about it is void, and need not be sent."""
    if event.case is None:
        return
    lock_case(event.case)
    open_ = Transfer.objects.filter(case=event.case, kind=Transfer.Kind.PENDING, outcome=None, currency=DML)
    rows = list(open_)
    for row in rows:
        void(row)
    if rows:
        alarm(Kind.OVERTAKEN, f"{event.name} in {event.tx} came before what was decided", event.case)
    waiting = ChainTx.objects.filter(case=event.case, verb__in=["settle", "refund"], state=ChainTx.State.READY)
    waiting.update(state=ChainTx.State.DROPPED, error=f"{event.name} in {event.tx} came first")


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


def _token_credited(event: ChainEvent) -> None:
    """The token refused to pay: the escrow owes it instead. The payment itself is booked by its own event."""
    wallet = event.args["owner"]
    _post(event, "credit", DML, f"outside:{wallet}", f"credit:{wallet}", event.args["amount"])


def _token_credit_withdrawn(event: ChainEvent) -> None:
    owner, to = event.args["owner"], event.args["to"]
    _post(event, "credit", DML, f"credit:{owner}", f"outside:{to}", event.args["amount"])


def _stray(event: ChainEvent) -> None:
    """Tokens reached the escrow without paying for anything. They are kept apart until the admin key moves them on."""
    sender, amount = event.args["sender"], event.args["amount"]
    _post(event, "stray", DML, f"outside:{sender}", "stray", amount)
    alarm(Kind.STRAY_TOKENS, f"{sender} sent {money.text(amount, DML)} to the escrow in {event.tx}, for nothing")


def _surplus_moved(event: ChainEvent) -> None:
    _post(event, "surplus", DML, "stray", f"outside:{event.args['to']}", event.args["amount"])


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
    "TokenCredited": _token_credited,
    "TokenCreditWithdrawn": _token_credit_withdrawn,
    "Stray": _stray,
    "SurplusMoved": _surplus_moved,
}
