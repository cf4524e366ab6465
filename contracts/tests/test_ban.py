"""Deposits on a real chain: joining, leaving, accusation, ban, acquittal."""

from __future__ import annotations

import pytest

from contracts.chain import Reverted
from contracts.tests.conftest import World


def test_fail_ticket_refunds_then_bans_and_shares(world: World) -> None:
    chain, ticket = world.chain, world.pay(130_000)
    cheat, *honest = (key.address for key in world.providers)
    failed = chain.send(chain.fail_ticket_call(ticket, [cheat], honest), world.settler)
    assert chain.ticket_state(ticket) == "Refunded" and world.balance(world.customer) == 1_000 * 10**6
    case = chain.accusation(ticket)
    assert case.state == "Open" and case.cheats == (cheat,)
    assert case.executable_at == chain.block(failed.block).timestamp + chain.challenge_seconds
    ban = chain.execute_ban_call(ticket, [cheat], list(reversed(honest)))
    with pytest.raises(Reverted, match="TooEarly"):
        chain.estimate(ban, world.settler.address)
    world.pass_time(chain.challenge_seconds)
    receipt = chain.send(ban, world.settler)
    assert chain.provider_standing(cheat).name == "Banned" and chain.provider_standing(cheat).stake_gwei == 0
    assert [chain.coin_credit(address) for address in honest] == [333_333] * 3
    assert chain.coin_credit(world.treasury) == 1
    shared = [event for event in chain.receipt_events(receipt.hash) if event.name == "StakeShared"]
    assert sum(event.args["amount"] for event in shared) == chain.deposit_gwei()
    totals = chain.totals()
    assert totals.native_gwei == totals.staked_gwei + totals.credits_gwei == 4_000_000


def test_a_credit_is_fetched_by_its_owner(world: World) -> None:
    chain = world.chain
    cheat, honest = world.providers[:2]
    ticket = world.pay(100)
    chain.send(chain.fail_ticket_call(ticket, [cheat.address], [honest.address]), world.settler)
    world.pass_time(chain.challenge_seconds)
    chain.send(chain.execute_ban_call(ticket, [cheat.address], [honest.address]), world.settler)
    before = chain.native_balance(honest.address)
    receipt = chain.send(chain.withdraw_credit_call(), honest)
    assert chain.native_balance(honest.address) == pytest.approx(before + 1_000_000 - receipt.fee_gwei, abs=1)
    assert chain.credits_gwei() == 0
    with pytest.raises(Reverted, match="NothingToWithdraw"):
        chain.estimate(chain.withdraw_credit_call(), honest.address)


def test_acquitted_and_free_to_leave(world: World) -> None:
    chain, provider, ticket = world.chain, world.providers[0], world.pay(100)
    chain.send(chain.exit_call(), provider)
    chain.send(chain.fail_ticket_call(ticket, [provider.address], []), world.settler)
    world.pass_time(chain.unbonding_seconds)
    with pytest.raises(Reverted, match="Frozen"):
        chain.estimate(chain.withdraw_call(), provider.address)
    assert chain.provider_standing(provider.address).frozen_until > chain.head().timestamp
    chain.send(chain.acquit_call(ticket), world.guardian)
    assert chain.accusation(ticket).state == "Acquitted"
    chain.send(chain.withdraw_call(), provider)
    assert chain.provider_standing(provider.address).name == "None"
    world.join(provider)


def test_the_banned_never_return(world: World) -> None:
    chain, cheat, ticket = world.chain, world.providers[0], world.pay(100)
    chain.send(chain.fail_ticket_call(ticket, [cheat.address], []), world.settler)
    world.pass_time(chain.challenge_seconds)
    chain.send(chain.execute_ban_call(ticket, [cheat.address], []), world.settler)
    assert chain.coin_credit(world.treasury) == chain.deposit_gwei()
    with pytest.raises(Reverted) as caught:
        chain.estimate(chain.register_call(b"again"), cheat.address)
    assert (caught.value.name, caught.value.args_) == ("WrongStanding", (cheat.address.lower(), 3))


def test_a_lapsed_case_bans_nobody(world: World) -> None:
    chain, provider, ticket = world.chain, world.providers[0].address, world.pay(100)
    chain.send(chain.fail_ticket_call(ticket, [provider], []), world.settler)
    world.pass_time(3_600)
    assert chain.accusation(ticket).state == "Lapsed"
    with pytest.raises(Reverted, match="WrongCaseState"):
        chain.estimate(chain.execute_ban_call(ticket, [provider], []), world.settler.address)


def test_one_convicted_twice_is_banned_and_slashed_once(world: World) -> None:
    chain, cheat = world.chain, world.providers[0].address
    cases = [world.pay(100), world.pay(100)]
    for case in cases:
        chain.send(chain.fail_ticket_call(case, [cheat], []), world.settler)
    world.pass_time(chain.challenge_seconds)
    bans = [chain.send(chain.execute_ban_call(case, [cheat], []), world.settler) for case in cases]
    names = [[event.name for event in chain.receipt_events(receipt.hash)] for receipt in bans]
    assert names == [["Banned", "StakeShared"], []]
    assert [chain.accusation(case).state for case in cases] == ["Executed", "Executed"]
    assert chain.coin_credit(world.treasury) == chain.deposit_gwei()
