"""The ledger against a model chain: random sequences of everything that people, thieves, crashes and the chain may do.

After each step the reconciliation equalities hold, the transfers only grow, and no ticket has two ends under way. After
each example everything calms down, and then each decided ticket has its end on the chain, nothing is left pending, and
every wallet holds what the books say, to the unit.

Real PostgreSQL: an example is one transaction, rolled back at its end; a crash rolls the ledger's own transaction back to
its savepoint, which is what a death of the process does. Only the node is a model, `ModelChain`.

LEDGER_EXAMPLES says how many examples of STEPS steps; a failure prints how it is repeated. In CI the examples are always
the same, so that luck cannot block a landing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from contracts.chain import Call, Quote, Reverted, Unavailable
from dmlsite.errors import Conflict
from ledger import actions, alarms, money, outbox
from ledger.books import following
from ledger.models import COUNTED, Alarm, Attempt, ChainEvent, ChainTx, Currency, Sighting, Transfer
from ledger.reconcile import NotYet, compare
from ledger.scanner import Scanner
from ledger.tests.model_chain import KEYS, PLACE, RICH, ROLES, TERMS, TREASURY, WALLETS, ModelChain

T = TypeVar("T")
EXAMPLES = int(os.environ.get("LEDGER_EXAMPLES", "300"))
STEPS = 25
ROOT = "0x" + "11" * 32
PAYERS, PROVIDERS = WALLETS[:2], WALLETS[1:]
"""One wallet is both."""
SETTLER = ROLES["settler"].address
Kind, State = Alarm.Kind, ChainTx.State
FOR_GOOD = {"WrongCaseState", "CaseTooLarge", "TooEarly", "DailyCapReached"}
"""For these reasons an accusation, a ban or an acquittal may wait for ever; a payment may for none."""


# --- Faults -----------------------------------------------------------------------------------------------------------
class Crash(BaseException):
    """The process is dead: nothing can catch it."""


class Silence(Unavailable):
    """No answer from the node."""


WRITES = ("INSERT", "UPDATE", "DELETE", "RELEASE")
"""A death before a question to the database is one after the statement before it. RELEASE is what stands for a commit."""


@dataclass
class Fault:
    """At which write to the database, broadcast, or question to the node something goes wrong: before it, for once."""

    where: str
    at: int
    left: int = -1

    @contextmanager
    def burning(self, chain: ModelChain) -> Iterator[None]:
        self.left = self.at
        with connection.execute_wrapper(self._statement):
            chain.asked = self._question
            try:
                yield
            finally:
                chain.asked = lambda question: None

    def _statement(self, execute: Callable[..., object], sql: str, *others: object) -> object:
        if self.where == "write" and sql.startswith(WRITES):
            self._burn(Crash)
        return execute(sql, *others)

    def _question(self, question: str) -> None:
        if self.where == "broadcast" and question.startswith("broadcast"):
            self._burn(Crash)
        if self.where == "question":
            self._burn(Silence)

    def _burn(self, error: type[BaseException]) -> None:
        self.left -= 1
        if self.left == -1:
            raise error(f"at {self.where} {self.at}")


NONE, DEATH = st.none(), st.builds(Fault, st.just("write"), st.integers(0, 15))
FAULTS = (
    NONE
    | DEATH
    | st.builds(Fault, st.just("broadcast"), st.integers(0, 3))
    | st.builds(Fault, st.just("question"), st.integers(0, 15))
)


# --- The machine ------------------------------------------------------------------------------------------------------
class Now:
    """What the ledger takes for the chain, and for the time."""

    chain: ModelChain
    ticks = 0

    @classmethod
    def time(cls) -> datetime:
        """The model's clock; no two answers are the same, so that rows have an order."""
        cls.ticks += 1
        return datetime.fromtimestamp(cls.chain.now, UTC) + timedelta(microseconds=cls.ticks)


NUMBERS = st.integers(0, 5)
AMOUNTS = [130_000, 1, 49, 50, 999_999]
WEIGHTS = [(1,), (1, 1), (3, 0, 2), (0, 0, 5, 1), (7, 7, 7, 7)]
LISTS = [(1, 3), (1, 1), (2, 3), (1, 0), (4, 1)]
"""How many cheats, how many honest providers after them; four are too many for the cap."""


ROWS = """
    select null::uuid, count(*), null::bigint from ledger_transfer
    union all
    select "case", count(*) filter (where ending), sum(amount)::bigint from (
        select "case", true as ending, null::bigint as amount from ledger_chaintx
        where verb in ('settle', 'refund', 'failTicket') and state in ('ready', 'sent', 'final')
        union all
        select plan."case", false, plan.amount from ledger_transfer plan
        left join ledger_transfer outcome on outcome.pending_id = plan.id
        where plan.kind = 'pending' and outcome.id is null
    ) as parts group by "case"
"""
"""The number of transfers; then, per ticket, its ends that are alive and what is decided and not done yet."""

REACHED: Counter[str] = Counter()
"""In how many examples there was such an event, alarm, or intent in such a state."""


class Ledger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.example = transaction.atomic()
        self.example.__enter__()
        self.chain = Now.chain = ModelChain()
        Now.ticks = 0
        self.scanner = Scanner(self.chain)
        self.tickets: list[Quote] = []
        self.paid: list[Quote] = []
        self.accused: list[ChainEvent] = []
        self.cases = 0
        self.transfers, self.compared = 0, None
        self.touched = self.scanned = False
        self.stolen = self.overtaken = False
        self.decided_again: set[UUID] = set()

    @initialize(sees_pool=st.booleans(), amounts=st.lists(st.sampled_from(AMOUNTS), min_size=2, max_size=3))
    def begin(self, sees_pool: bool, amounts: list[int]) -> None:
        """Four providers have their deposit in the escrow, some customers have paid."""
        self.chain.sees_pool = sees_pool
        for wallet in PROVIDERS[:4]:
            self.chain.submit(self._next_move(wallet), wallet)
        for number, amount in enumerate(amounts):
            self.pay(PAYERS[number % 2], amount, 100_000)
        self._follow()

    # --- Customers, providers, admins, thieves

    @rule(payer=st.sampled_from(PAYERS), amount=st.sampled_from(AMOUNTS), promised=st.sampled_from([1, 100_000]))
    def pay(self, payer: str, amount: int, promised: int) -> None:
        pay_by = self.chain.now // 500 * 500 + 1_000
        quote = Quote(UUID(int=len(self.tickets) + 1), payer, amount, pay_by, pay_by + promised)
        self.tickets.append(quote)
        self.chain.submit(self.chain.pay_call(quote, self.chain.sign_quote(quote, ROLES["quoter"])), payer)

    @rule(wallet=st.sampled_from(PROVIDERS), leaves=st.booleans())
    def a_provider_moves_on(self, wallet: str, leaves: bool) -> None:
        """Fetches what it is owed, or joins, or leaves: at once or step by step."""
        self.chain.submit(self._next_move(wallet), wallet)
        if leaves:
            self.chain.mine()
            self.chain.now += TERMS.unbonding
            self.chain.submit(self.chain.withdraw_call(), wallet)

    def _next_move(self, wallet: str) -> Call:
        on, state = self.chain, self.chain.tip.state
        if state.token_credit[wallet]:
            return on.withdraw_token_credit_call(PLACE.escrow if wallet in self.chain.refused else wallet)
        if state.coin_credit[wallet]:
            return on.withdraw_credit_call()
        moves = {"None": lambda: on.register_call(bytes([PROVIDERS.index(wallet) + 1])), "Active": on.exit_call}
        return moves.get(state.provider(wallet).standing, on.withdraw_call)()

    @rule(number=NUMBERS, what=st.sampled_from(["customer refunds", "anyone refunds", "stray"]))
    def somebody_acts(self, number: int, what: str) -> None:
        """A refund that is not ours is refused before `settleBy`."""
        self.overtaken |= what != "stray"
        quote = pick(self.tickets, number)
        refund, stray = self.chain.refund_call(quote.ticket), self.chain.transfer_call(PLACE.escrow, 7)
        self.chain.submit(stray if what == "stray" else refund, TREASURY if what.startswith("any") else quote.payer)

    @rule(number=NUMBERS, what=st.sampled_from(["nothing", "refund", "settle"]), overtakes=st.booleans())
    def a_thief_acts(self, number: int, what: str, overtakes: bool) -> None:
        """Somebody else spends a nonce of the settler's, in place of what waits with it or after that."""
        self.stolen = True
        quote = pick(self.tickets, number)
        calls = {
            "nothing": lambda: self.chain.transfer_call(SETTLER, 0),
            "refund": lambda: self.chain.refund_call(quote.ticket),
            "settle": lambda: self.chain.settle_call(quote.ticket, {PROVIDERS[0]: quote.amount}, ROOT),
        }
        self.chain.submit(calls[what](), SETTLER, self.chain.tip.state.nonces[SETTLER] if overtakes else None)

    @rule(what=st.sampled_from(["pause", "unpause", "surplus", "surplus to escrow", "refuse"]), number=NUMBERS)
    def an_owner_acts(self, what: str, number: int) -> None:
        """The escrow's with the cold key; the token's, which refuses a wallet from now on, or no longer."""
        on, surplus = self.chain, self.chain.tip.state.surplus
        if what == "refuse":
            on.refused ^= {pick([*WALLETS[:3], TREASURY], number)}
            return
        calls: dict[str, Callable[[], Call]] = {
            "pause": on.pause_call,
            "unpause": on.unpause_call,
            "surplus": lambda: on.move_surplus_call(PAYERS[0], surplus),
            "surplus to escrow": lambda: on.move_surplus_call(PLACE.escrow, surplus),
        }
        on.submit(calls[what](), ROLES["admin"].address)

    # --- The platform decides

    @precondition(lambda self: self.paid)
    @rule(number=NUMBERS, weights=st.sampled_from(WEIGHTS), fault=NONE | NONE | DEATH)
    def release(self, number: int, weights: tuple[int, ...], fault: Fault | None) -> None:
        quote = pick(self.paid, number)
        shares, fee = money.shares(quote.amount, dict(zip(PROVIDERS, weights, strict=False)))
        self._decide(quote.ticket, lambda: actions.release(quote.ticket, shares, fee, ROOT), fault)

    @precondition(lambda self: self.paid)
    @rule(number=NUMBERS, fault=NONE | NONE | DEATH)
    def refund(self, number: int, fault: Fault | None) -> None:
        quote = pick(self.paid, number)
        self._decide(quote.ticket, lambda: actions.refund(quote.ticket, quote.payer, quote.amount), fault)

    @precondition(lambda self: self.paid)
    @rule(number=NUMBERS, lists=st.sampled_from(LISTS), fault=NONE | NONE | DEATH)
    def fail_ticket(self, number: int, lists: tuple[int, int], fault: Fault | None) -> None:
        quote = pick(self.paid, number)
        about = quote.ticket, quote.payer, quote.amount
        self._decide(quote.ticket, lambda: actions.fail_ticket(*about, *parted(lists)), fault)

    def _decide(self, ticket: UUID, decision: Callable[[], None], fault: Fault | None) -> None:
        """A second decision is a Conflict; after the end there is none to take, and none is taken."""
        ends = ChainTx.objects.filter(case=ticket, verb__in=actions.ENDING_VERBS)
        before = list(ends.values_list("state", flat=True))
        ended = ChainEvent.objects.filter(case=ticket, name__in=("Settled", "Refunded")).exists()
        due = not ended and not set(before) & set(actions.ALIVE)
        if due and before:
            self.decided_again.add(ticket)
        try:
            done = self._do(decision, fault)
            assert not done or ended or due, "a second decision was taken"
        except Conflict:
            assert not ended and not due
        assert ends.count() - len(before) <= due

    @rule(number=NUMBERS, lists=st.sampled_from(LISTS), acquits=st.booleans(), fault=NONE | NONE | DEATH)
    def accuse_or_acquit(self, number: int, lists: tuple[int, int], acquits: bool, fault: Fault | None) -> None:
        """The ban of an accusation is planned as soon as it is read, see `_read`."""
        if acquits and self.accused:
            self._do(lambda: actions.acquit(pick(self.accused, number).case), fault)
        else:
            self.cases += 1
            self._do(lambda: actions.accuse(UUID(int=500 + self.cases), *parted(lists)), fault)

    # --- The jobs

    @rule(fault=FAULTS, times=st.sampled_from([1, 2]))
    def send_what_is_due(self, fault: Fault | None, times: int) -> None:
        """The second time, what the job knows is out of date."""
        self._do(lambda: send_all(times), fault)

    @rule(number=NUMBERS, fault=FAULTS)
    def send_one(self, number: int, fault: Fault | None) -> None:
        """Whatever has become of it."""
        if found := list(ChainTx.objects.order_by("created")):
            self._do(lambda: outbox.send(pick(found, number)), fault)

    @rule(fault=FAULTS, again=st.booleans())
    def read(self, fault: Fault | None, again: bool) -> None:
        self._do(self._read, fault)
        if again:
            self._do(self._read, None)

    @rule(fault=FAULTS, sends=st.booleans(), latest_first=st.booleans(), keep=st.sampled_from([0, 0, 1, 2]))
    def go_on(self, fault: Fault | None, sends: bool, latest_first: bool, keep: int) -> None:
        """What happens all the time: something is sent, a block is mined, another becomes final and is read."""
        if sends:
            self._do(send_all, None)
        self.chain.mine(None, latest_first)
        self.chain.finalize(keep)
        self._do(self._read, fault)

    @rule()
    def an_admin_acts(self) -> None:
        """Rashly: clears all alarms, and has everything tried again that reverted, whyever it did."""
        self._do(lambda: self._clear_and_retry(lambda tx: True), None)

    def _clear_and_retry(self, wanted: Callable[[ChainTx], bool]) -> None:
        """What was decided anew meanwhile is not tried again."""
        for found in Alarm.objects.filter(cleared=None):
            alarms.clear(found, "admin")
        for tx in filter(wanted, ChainTx.objects.filter(state=State.REVERTED)):
            with suppress(Conflict):
                actions.retry(tx, "admin")

    # --- The chain

    @rule(limit=st.sampled_from([None, 1, 2]), latest_first=st.booleans())
    def mine(self, limit: int | None, latest_first: bool) -> None:
        self.chain.mine(limit, latest_first)

    @rule(depth=st.integers(1, 4), lost=st.booleans())
    def reorg(self, depth: int, lost: bool) -> None:
        self.chain.reorg(depth, lost)

    @rule(seconds=st.sampled_from([130, 61, 1_500, 100_000]), gwei=st.sampled_from([None, 1, 3, 50, 900]))
    def time_passes(self, seconds: int, gwei: int | None) -> None:
        """And fees change."""
        self.chain.now += seconds
        self.chain.base_fee = gwei or self.chain.base_fee

    # --- Doing it

    def _do(self, operation: Callable[[], object], fault: Fault | None) -> bool:
        """Whether it came to its end. A new process takes over from one that died, and knows nothing of it."""
        self.touched = True
        try:
            if fault is None:
                operation()
                return True
            with fault.burning(self.chain):
                operation()
            return True
        except (Crash, Silence):
            self.scanner = Scanner(self.chain)
            return False
        finally:
            assert not connection.needs_rollback

    def _follow(self) -> None:
        """Everything becomes final, and is read."""
        self.chain.mine()
        self.chain.finalize()
        self._do(self._read, None)

    def _read(self) -> None:
        """As `scan_chain` does it; what follows a `Paid` is ours to decide, what follows an `Accused` is a ban."""
        self.scanned = True
        self.scanner.scan()
        outbox.confirm(self.chain)
        seen = set(ChainEvent.objects.filter(name="Paid").values_list("case", flat=True))
        self.paid = [quote for quote in self.tickets if quote.ticket in seen]
        self.accused = list(ChainEvent.objects.filter(name="Accused"))
        for event in self.accused:
            with following(event.pk) as new:
                if new:
                    actions.execute_ban(event.case, event.args["cheats"], event.args["honest"])

    # --- What always holds

    @invariant()
    def it_holds(self) -> None:
        """Asked again only when something may have changed."""
        if self.touched:
            self._rows_hold()
        both = self.transfers, self.chain.totals(at=self.chain.final)
        if self.scanned and both != self.compared:
            balanced(self.chain)
            self.compared = both
        self.touched = self.scanned = False

    def _rows_hold(self) -> None:
        """Transfers only grow; a ticket has one end under way; what is decided about it is all that was paid."""
        amounts = {quote.ticket: quote.amount for quote in self.tickets}
        with connection.cursor() as cursor:
            cursor.execute(ROWS)
            for ticket, count, amount in cursor.fetchall():
                if ticket is None:
                    assert count >= self.transfers, "transfers are gone"
                    self.transfers = count
                else:
                    assert count <= 1, f"{ticket} has {count} ends under way"
                    assert amount in (None, amounts[ticket]), f"{amount} of {ticket} is decided on"

    # --- The end

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self._calm_down()
                self._is_right()
        finally:
            transaction.set_rollback(True)
            self.example.__exit__(None, None, None)

    def _calm_down(self) -> None:
        """No more faults, and all that waits for somebody is done, until nothing changes any more."""
        self.chain.base_fee = 1
        self._follow()
        while (
            self.chain.tip.state.paused
        ):  # again, if that filled the gap before another pause, in the place of a lost one
            self.chain.submit(self.chain.unpause_call(), ROLES["admin"].address)
            self._follow()
        before: object = self._stands()
        for _ in range(20):
            self._clear_and_retry(lambda tx: not self._refusal(tx))
            send_all()
            self._follow()
            now = self._stands()
            if now == before and not any(state == State.SENT for _, state in now[0]) and not self._skip_time():
                return
            before = now
            self.chain.now += 13
        raise AssertionError(f"it never calms down: {before}")

    def _skip_time(self) -> bool:
        """Whether something waits for its time, which is now."""
        later = ChainTx.objects.filter(state=State.READY, not_before__gt=Now.time())
        self.chain.now = max((int(tx.not_before.timestamp()) for tx in later if tx.not_before), default=self.chain.now)
        return bool(later)

    def _stands(self) -> tuple[list[tuple[UUID, str]], int]:
        return sorted(ChainTx.objects.values_list("pk", "state")), len(self.chain.pool)

    def _is_right(self) -> None:
        self.touched, self.scanned, self.compared = True, True, None
        self.it_holds()
        self._waits_with_reason()
        self._is_ended()
        self._is_known()
        self._is_sent_once()
        self._is_held()
        self._alarms_are_true()
        self._tell()

    def _refusal(self, tx: ChainTx) -> str:
        """Why the escrow would refuse it now."""
        try:
            self.chain.estimate(outbox._call(tx), ROLES[tx.role].address)
        except Reverted as error:
            return error.name
        return ""

    def _waits_with_reason(self) -> None:
        """What was never sent is an accusation, a ban or an acquittal, and refused for a reason that nobody can mend."""
        for tx in ChainTx.objects.filter(state=State.READY):
            assert tx.verb not in actions.ENDING_VERBS, tx
            assert self._refusal(tx) in FOR_GOOD, tx

    def _is_ended(self) -> None:
        """What was decided has happened: on the chain, and in the books."""
        assert not Transfer.objects.filter(kind="pending", outcome=None).exists()
        for case in ChainTx.objects.filter(verb__in=actions.ENDING_VERBS).values_list("case", flat=True):
            assert self.chain.ticket_state(case) in ("Settled", "Refunded")
        accused = {UUID(int=number) for number in self.chain.tip.state.cases}
        accused |= set(ChainTx.objects.filter(verb="accuse").values_list("case", flat=True))
        failed = set(ChainTx.objects.filter(verb="failTicket").values_list("case", flat=True))
        assert failed - self.decided_again <= accused

    def _is_known(self) -> None:
        """Each event once, in the chain's order; nothing is in sight that is not final."""
        known = ChainEvent.objects.values_list("name", "block", "block_hash", "log_index")
        assert list(known) == [(e.name, e.block, e.block_hash, e.log_index) for e in self.chain.events(0, 10**6)]
        assert not Sighting.objects.exists()

    def _is_sent_once(self) -> None:
        """Of all that was ever signed for an intent, at most one was mined."""
        mined = Counter(
            attempt.tx_id for attempt in Attempt.objects.all() if self.chain.receipt(attempt.hash) is not None
        )
        assert all(count == 1 for count in mined.values())

    def _is_held(self) -> None:
        """Every wallet holds what the books say, to the unit."""
        state = self.chain.tip.state
        without_gas = {wallet: held + state.gas_paid[wallet] for wallet, held in state.coins.items()}
        for currency, held, credit in (
            (Currency.DML, state.tokens, state.token_credit),
            (Currency.COIN, without_gas, state.coin_credit),
        ):
            books = balances(currency)
            for wallet in KEYS:
                earned = books["fee"] if wallet == TREASURY else 0
                earned += books[f"outside:{wallet}"] + books[f"provider:{wallet}"]
                assert held[wallet] == RICH + earned
                assert credit[wallet] == books[f"credit:{wallet}"]
        for wallet in WALLETS:
            assert state.provider(wallet).stake == books[f"deposit:{wallet}"]

    def _alarms_are_true(self) -> None:
        raised = set(Alarm.objects.values_list("kind", flat=True))
        assert not raised & {Kind.BOOKS_DIFFER, Kind.ANOTHER_CHAIN}
        assert self.stolen or not raised & {Kind.UNPLANNED, Kind.FOREIGN_NONCE}
        assert self.stolen or self.overtaken or Kind.OVERTAKEN not in raised

    def _tell(self) -> None:
        for model, field in ((ChainEvent, "name"), (Alarm, "kind")):
            REACHED.update(model.objects.order_by().values_list(field, flat=True).distinct())
        REACHED.update(f"{verb} {state}" for verb, state in set(ChainTx.objects.values_list("verb", "state")))


def pick(found: list[T], number: int) -> T:
    return found[number % len(found)]


def parted(lists: tuple[int, int]) -> tuple[list[str], list[str]]:
    """The cheats, and the honest."""
    cheats, honest = lists
    return PROVIDERS[:cheats], PROVIDERS[cheats : cheats + honest]


def send_all(times: int = 1) -> None:
    for pk in outbox.due():
        tx = ChainTx.objects.get(pk=pk)
        for _ in range(times):
            outbox.send(tx)


def balanced(chain: ModelChain) -> None:
    try:
        _, rows = compare(chain)
    except NotYet:
        return
    assert [row for row in rows if row.difference] == []


def balances(currency: str) -> Counter[str]:
    """Every account's credits less its debits."""
    found: Counter[str] = Counter()
    for row in Transfer.objects.filter(currency=currency, kind__in=COUNTED):
        found[row.credit] += row.amount
        found[row.debit] -= row.amount
    return found


SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    print_blob=True,
    report_multiple_bugs=False,
    derandomize="CI" in os.environ and "LEDGER_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The ledger speaks to the model, by its clock, and wakes nobody."""
    for module in (actions, outbox):
        monkeypatch.setattr(module, "chain", lambda: Now.chain)
    monkeypatch.setattr(outbox, "key", ROLES.__getitem__)
    monkeypatch.setattr("django.utils.timezone.now", Now.time)
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.django_db(transaction=True)
def test_money_is_exact_and_moves_once_whatever_happens(model: None) -> None:
    REACHED.clear()
    run_state_machine_as_test(Ledger, settings=SETTINGS)
    print(REACHED)


# --- What it has found -------------------------------------------------------------------------------------------------
@pytest.fixture
def machine(model: None, transactional_db: None) -> Iterator[Ledger]:
    """By hand, with one paid ticket; at the end everything has to calm down as ever."""
    found = Ledger()
    found.begin(sees_pool=False, amounts=[130_000])
    yield found
    found.it_holds()
    found.teardown()


def test_a_ticket_that_was_to_fail_is_refunded_by_somebody_else(machine: Ledger) -> None:
    """The refund is not wanted any more, the accusation is."""
    machine.fail_ticket(0, (1, 3), None)
    machine.a_thief_acts(0, "refund", overtakes=False)


def test_a_payment_ends_while_its_intent_has_lost_its_nonce(machine: Ledger) -> None:
    """The end is read first, when the intent still counts as sent; then it is to be sent again."""
    machine.refund(0, None)
    machine.send_what_is_due(None, 1)
    machine.a_thief_acts(0, "refund", overtakes=True)
    machine.mine(None, False)


def test_a_reorg_takes_back_what_somebody_else_did_with_a_new_key(machine: Ledger) -> None:
    """The first nonce that we take may not be one that such a block has moved on: a gap would block the key."""
    machine.a_thief_acts(0, "nothing", overtakes=False)
    machine.mine(None, False)
    machine.refund(0, None)
    machine.send_what_is_due(None, 1)
    machine.reorg(1, lost=True)


@pytest.mark.parametrize("question", range(16))
def test_silence_while_a_reverted_settlement_is_looked_at(machine: Ledger, question: int) -> None:
    """Whatever the node does not answer: the next time it is decided anew, or an admin is told."""
    too_late(machine)
    machine.go_on(Fault("question", question), sends=False, latest_first=False, keep=0)


def test_what_was_decided_anew_is_not_tried_again(machine: Ledger) -> None:
    too_late(machine)
    machine.go_on(None, sends=False, latest_first=False, keep=0)
    machine.an_admin_acts()


def test_a_job_that_comes_late_to_a_settlement_that_was_decided_anew(machine: Ledger) -> None:
    machine.release(0, (1, 1), None)
    machine.chain.now += 200_000
    machine.send_what_is_due(None, times=2)


@pytest.mark.parametrize("first", ["settle", "fail"])
def test_a_reverted_decision_is_replaced_by_another(machine: Ledger, first: str) -> None:
    """Reverted for a reason that is mended, so that it could be tried again: one of both, never both."""
    decides = {"settle": lambda: machine.release(0, (1, 1), None), "fail": lambda: machine.fail_ticket(0, (1, 3), None)}
    decides[first]()
    machine.send_what_is_due(None, 1)
    machine.an_owner_acts("pause", 0)
    machine.mine(None, latest_first=True)
    machine.an_owner_acts("unpause", 0)
    machine.go_on(None, sends=False, latest_first=False, keep=0)
    machine.refund(0, None)
    machine.it_holds()
    machine.an_admin_acts()


@pytest.mark.parametrize("leaving", [PROVIDERS[:1], PROVIDERS[:2]])
def test_a_provider_leaves_while_a_reverted_settlement_waits(machine: Ledger, leaving: list[str]) -> None:
    """It reverted for a reason that passes, and by then there is another, for which another decision is right."""
    machine.release(0, (1, 1), None)
    machine.send_what_is_due(None, 1)
    machine.an_owner_acts("pause", 0)
    machine.mine(None, latest_first=True)
    machine.go_on(None, sends=False, latest_first=False, keep=0)
    assert ChainTx.objects.get().error == "EnforcedPause()"
    for wallet in leaving:
        machine.a_provider_moves_on(wallet, leaves=True)


def too_late(machine: Ledger) -> None:
    """A settlement was sent in time, and is mined after `settleBy`."""
    machine.release(0, (1, 1), None)
    machine.send_what_is_due(None, 1)
    machine.chain.now += 200_000
    machine.mine(None, False)
