"""The model of the escrow and the escrow itself, on anvil, do the same."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from contracts.chain import Call, Chain, Quote, Receipt, Reverted, connect
from contracts.deploy import deploy
from contracts.devchain import DevChain
from ledger import money
from ledger.tests.model_chain import KEYS, RICH, ROLES, TERMS, TREASURY, WALLETS, ModelChain

ROOT = "0x" + "11" * 32
SETTLER = ROLES["settler"].address


class Walk:
    """Random calls, right ones and wrong ones, each to be made on two chains."""

    def __init__(self, chance: random.Random, model: ModelChain) -> None:
        self.chance, self.model, self.steps = chance, model, 0

    def step(self) -> tuple[str, Callable[[Chain], Call]]:
        """Who makes which call. Nobody stays away for ever, and a pause does not last."""
        self.steps += 1
        if self.model.tip.state.paused and self.chance.random() < 0.4:
            return ROLES["admin"].address, Chain.unpause_call
        if self.steps <= 2 * len(WALLETS):
            return self._join(self.model.now)
        kinds = [self._pay, self._pay, self._settle, self._settle, self._refund, self._fail, self._ban, self._ban]
        rare = [self._accuse, self._acquit, self._join, self._leave, self._fetch, self._own, self._stray]
        return self.chance.choice([*kinds, *kinds, *rare])(self.model.now)

    def _ticket(self) -> UUID:
        """Mostly one with money in it."""
        return self._one([number for number, one in self.model.tip.state.tickets.items() if one.state == "Paid"])

    def _case(self) -> UUID:
        """Mostly an open one."""
        return self._one([number for number, one in self.model.tip.state.cases.items() if one.state == "Open"])

    def _one(self, good: list[int]) -> UUID:
        return UUID(int=self.chance.choice(good if good and self.chance.random() < 0.8 else range(1, 40)))

    def _mostly(self, usual: str) -> str:
        return usual if self.chance.random() < 0.9 else self.chance.choice(list(KEYS))

    def _lists(self, case: UUID) -> tuple[list[str], list[str]]:
        """Nearly always the same ones for the same case."""
        cheats = WALLETS[case.int % 5 :][: 1 + case.int % 2]
        honest = [one for one in WALLETS if one not in cheats][: self.chance.choice([*[case.int % 4] * 9, 1])]
        return cheats[: self.chance.choice([*[4] * 9, 0])], honest

    def _pay(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        pay_by = now + self.chance.choice([-60, *[500] * 9])
        payer, amount = self.chance.choice(WALLETS), self.chance.choice([*[130_000] * 9, 1, 0])
        quote = Quote(
            UUID(int=self.chance.randint(1, 39)),
            payer,
            amount,
            pay_by,
            pay_by + self.chance.choice([0, 200, *[5_000] * 8]),
        )
        signer = KEYS[self._mostly(ROLES["quoter"].address)]
        return self._mostly(payer), lambda on: on.pay_call(quote, on.sign_quote(quote, signer))

    def _settle(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        ticket, fee = self._ticket(), self.chance.choice([*[2_600] * 5, 2_601, 0, -1])
        some = self.chance.sample(WALLETS, self.chance.randint(1, 3))
        shares = money.split(130_000 - fee, dict.fromkeys(some, 1))
        return self._mostly(SETTLER), lambda on: on.settle_call(ticket, shares, ROOT)

    def _refund(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        ticket = self._ticket()
        return self.chance.choice([SETTLER, WALLETS[0]]), lambda on: on.refund_call(ticket)

    def _fail(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        ticket = self._ticket()
        lists = self._lists(ticket)
        return self._mostly(SETTLER), lambda on: on.fail_ticket_call(ticket, *lists)

    def _accuse(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        case = self._ticket()
        lists = self._lists(case)
        return self._mostly(SETTLER), lambda on: on.accuse_call(case, *lists)

    def _ban(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        case = self._case()
        lists = self._lists(case)
        return self._mostly(SETTLER), lambda on: on.execute_ban_call(case, *lists)

    def _acquit(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        case = self._case()
        return self._mostly(ROLES[self.chance.choice(["guardian", "admin"])].address), lambda on: on.acquit_call(case)

    def _join(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        ref, more = bytes([self.chance.randint(0, 5)]), self.chance.choice([0] * 5 + [1])
        return self.chance.choice(WALLETS), lambda on: replace(
            on.register_call(ref), value_gwei=TERMS.deposit_gwei + more
        )

    def _leave(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        call = self.chance.choice([Chain.exit_call, Chain.withdraw_call])
        return self.chance.choice(WALLETS), call

    def _fetch(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        calls = [Chain.withdraw_credit_call, lambda on: on.withdraw_token_credit_call(WALLETS[0])]
        return self.chance.choice([*WALLETS, TREASURY]), self.chance.choice(calls)

    def _own(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        calls = [Chain.pause_call, Chain.unpause_call]
        moves = [
            lambda on: on.move_surplus_call(on.deployment.escrow, 3),
            lambda on: on.move_surplus_call(WALLETS[0], 4),
        ]
        return self._mostly(ROLES["admin"].address), self.chance.choice([*calls, *moves])

    def _stray(self, now: int) -> tuple[str, Callable[[Chain], Call]]:
        amount = self.chance.choice([5, 0, 10**15])
        return self.chance.choice(WALLETS), lambda on: on.transfer_call(on.deployment.escrow, amount)


def deployed(devchain: DevChain) -> Chain:
    """The contracts with the model's people and terms; everybody has coins and tokens."""
    w3 = connect(devchain.url)
    for wallet in KEYS:
        w3.provider.make_request("anvil_setBalance", [wallet, hex(10**24)])
    names = {name: ROLES[name].address for name in ("quoter", "settler", "guardian")}
    on = Chain(w3, deploy(w3, ROLES["admin"], **names, treasury=TREASURY, terms=TERMS))
    for wallet in KEYS.keys() - {ROLES["admin"].address}:
        on.send(on.transfer_call(wallet, RICH), ROLES["admin"])
    return on


def held(on: Chain) -> list[object]:
    """All that somebody could want to know, but for gas."""
    cases = [UUID(int=number) for number in range(40)]
    of_wallets = [(on.provider_standing(one), on.coin_credit(one), on.token_balance(one)) for one in WALLETS]
    return [on.totals(), on.slash_left_gwei(), [(on.ticket(one), on.accusation(one)) for one in cases], of_wallets]


def said(on: Chain, receipt: Receipt) -> list[tuple[str, str]]:
    events = [event for event in on.events(receipt.block, receipt.block) if event.tx == receipt.hash]
    return [(event.name, str(event.args).replace(on.deployment.escrow, "escrow")) for event in events]


def refusal(on: Chain, call: Call, sender: str) -> str:
    """Why the call would be refused now."""
    try:
        on.estimate(call, sender)
    except Reverted as error:
        return error.name
    return ""


def lasting_refusal(model: ModelChain, call: Call, sender: str) -> str:
    """The reason if it is the same some seconds later: the two chains' clocks are as far apart."""
    first, model.now = refusal(model, call, sender), model.now + 10
    return first if first == refusal(model, call, sender) else ""


def test_the_model_is_the_contract(devchain: DevChain) -> None:
    """The same random walk on both: what is refused and why, every event, and all that is held, are the same."""
    real, model, chance = deployed(devchain), ModelChain(), random.Random(5)
    walk, outcomes = Walk(chance, model), Counter[str]()
    for _ in range(250):
        real.w3.provider.make_request("evm_increaseTime", [chance.choice([1, 1, 1, 1, 30, 61])])
        model.now = real.head().timestamp
        sender, make = walk.step()
        call = make(real)
        signed = real.sign(call, KEYS[sender], real.next_nonce(sender), real.suggest_fees(), 2_000_000)
        theirs = real.wait(real.broadcast(signed.raw))
        model.now = real.block(theirs.block).timestamp
        tx = model.submit(make(model), sender)
        model.mine()
        ours = model.receipt(tx.hash)
        assert ours is not None and ours.ok == theirs.ok
        assert said(model, ours) == said(real, theirs)
        outcomes.update({name for name, _ in said(model, ours)})
        if not ours.ok and (why := lasting_refusal(model, tx.call, sender)):
            outcomes[why] += 1
            assert why == refusal(real, call, sender)
    print(outcomes)
    assert held(model) == held(real)
