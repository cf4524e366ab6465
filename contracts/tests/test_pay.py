"""A ticket's money on a real chain: quoted, paid, settled or refunded."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from contracts.chain import ChainError, Reverted, TicketOnChain, connect
from contracts.devchain import test_key as rich
from contracts.tests.conftest import DML, World


def refusal(world: World, call: object, sender: str) -> str:
    with pytest.raises(Reverted) as caught:
        world.chain.estimate(call, sender)  # type: ignore[arg-type]
    return caught.value.name


def test_pay_then_settle_moves_every_unit_once(world: World) -> None:
    chain, start = world.chain, world.chain.head().number + 1
    ticket = world.pay(130_000)
    assert chain.ticket_state(ticket) == "Paid"
    assert chain.totals().token_balance == chain.escrowed() == 130_000
    receipt = world.settle(ticket, 50_000, 0, 40_000, 37_400)
    assert receipt.ok and chain.ticket_state(ticket) == "Settled"
    assert [world.balance(key) for key in world.providers] == [50_000, 0, 40_000, 37_400]
    assert world.balance(world.treasury) == 2_600
    assert chain.totals().token_balance == chain.escrowed() == 0
    names = [event.name for event in chain.events(start, chain.head().number)]
    assert names == ["Paid", "ProviderPaid", "ProviderPaid", "ProviderPaid", "Settled"]


def test_events_speak_the_outside_units(world: World) -> None:
    chain = world.chain
    first, *_, last = chain.events(chain.deployment.block, chain.head().number)[-4:]
    assert (first.name, first.args["stake"]) == ("Registered", 1_000_000)
    ticket = world.pay(5 * DML)
    *_, paid = chain.events(chain.deployment.block, chain.head().number)
    assert paid.args == {"ticket": ticket, "payer": world.customer.address, "amount": 5 * DML}
    assert paid.block_hash == chain.block(paid.block).hash
    assert chain.receipt_events(paid.tx) == [paid]
    settled = chain.receipt_events(world.settle(ticket, 49 * DML // 10, 0, 0, 0).hash)[-1]
    assert settled.args == {"ticket": ticket, "amount": 5 * DML, "fee": DML // 10, "receipt_root": "0x" + "ab" * 32}


def test_the_deposit_transaction_carries_the_reference(world: World) -> None:
    chain = world.chain
    key = rich(0)
    ref = world.join(key)
    *_, event = chain.events(chain.deployment.block, chain.head().number)
    assert event.args == {"provider": key.address, "ref": "0x" + ref.hex.zfill(64), "stake": chain.deposit_gwei()}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"amount": 5 * DML + 1}, "QuoteForged"),
        ({"ticket": uuid4()}, "QuoteForged"),
        ({"settle_by": 2**32 - 1}, "QuoteForged"),
        ({"pay_by": 1}, "QuoteLate"),
        ({"amount": 0}, "QuoteOutOfRange"),
        ({"payer": rich(9).address}, "WrongPayer"),
    ],
)
def test_a_quote_changed_after_signing_is_refused(world: World, change: dict[str, object], why: str) -> None:
    quote = world.quote(5 * DML)
    signature = world.chain.sign_quote(quote, world.quoter)
    call = world.chain.pay_call(replace(quote, **change), signature)  # type: ignore[arg-type]
    assert refusal(world, call, world.customer.address) == why


def test_wrong_signer_wrong_payer_and_a_second_payment_are_refused(world: World) -> None:
    chain, quote = world.chain, world.quote(5 * DML)
    forged = chain.pay_call(quote, chain.sign_quote(quote, world.settler))
    assert refusal(world, forged, world.customer.address) == "QuoteForged"
    right = chain.pay_call(quote, chain.sign_quote(quote, world.quoter))
    assert refusal(world, right, world.admin.address) == "WrongPayer"
    chain.send(right, world.customer)
    assert refusal(world, right, world.customer.address) == "WrongTicketState"


def test_a_quote_of_another_chain_or_escrow_is_refused(world: World) -> None:
    chain, quote = world.chain, world.quote(5 * DML)
    for foreign in (replace(chain.deployment, chain_id=80002), replace(chain.deployment, escrow=world.treasury)):
        elsewhere = type(chain)(chain.w3, foreign)
        call = chain.pay_call(quote, elsewhere.sign_quote(quote, world.quoter))
        assert refusal(world, call, world.customer.address) == "QuoteForged"


def test_pay_out_of_an_allowance(world: World) -> None:
    chain, quote = world.chain, world.quote(5 * DML)
    chain.send(chain.approve_call(quote.amount), world.customer)
    chain.send(chain.pay_approved_call(quote, chain.sign_quote(quote, world.quoter)), world.customer)
    expected = TicketOnChain("Paid", world.customer.address, 5 * DML, quote.settle_by)
    assert chain.ticket(quote.ticket) == expected


def test_a_stray_transfer_is_surplus_and_can_be_sent_back(world: World) -> None:
    chain = world.chain
    chain.send(chain.transfer_call(chain.deployment.escrow, 3 * DML), world.customer)
    assert (chain.totals().surplus, chain.escrowed()) == (3 * DML, 0)
    chain.send(chain.move_surplus_call(world.customer.address, 3 * DML), world.admin)
    assert chain.totals().surplus == 0


def test_settle_is_refused_for_strangers_doubles_and_a_high_fee(world: World) -> None:
    chain, ticket = world.chain, world.pay(100)
    settler, root = world.settler.address, "0x" + "00" * 32
    assert refusal(world, chain.settle_call(ticket, {world.treasury: 98}, root), settler) == "NotInStanding"
    one = world.providers[0].address
    assert refusal(world, chain.settle_call(ticket, {one: 97}, root), settler) == "FeeTooHigh"
    assert refusal(world, chain.settle_call(ticket, {one: 101}, root), settler) == "SharesExceedAmount"
    stranger = world.customer.address
    call = chain.settle_call(ticket, {one: 98}, root)
    assert refusal(world, call, stranger) == "AccessControlUnauthorizedAccount"
    with pytest.raises(ChainError, match="two spellings"):
        chain.settle_call(ticket, {one: 49, one.lower(): 49}, root)


def test_refund_by_the_platform_at_once_by_anyone_at_settle_by(world: World) -> None:
    chain = world.chain
    first, second = world.pay(100), world.pay(200)
    chain.send(chain.refund_call(first), world.settler)
    stranger = world.providers[0]
    assert refusal(world, chain.refund_call(second), stranger.address) == "TooEarly"
    world.pass_time(3_700)
    assert refusal(world, chain.settle_call(second, {stranger.address: 196}, "0x" + "00" * 32), world.settler.address)
    chain.send(chain.refund_call(second), stranger)
    assert world.balance(world.customer) == 1_000 * DML
    assert refusal(world, chain.refund_call(second), world.settler.address) == "WrongTicketState"


def test_paused_refunds_still_work(world: World) -> None:
    chain, ticket = world.chain, world.pay(100)
    chain.send(chain.pause_call(), world.guardian)
    assert chain.paused()
    quote = world.quote(100)
    call = chain.pay_call(quote, chain.sign_quote(quote, world.quoter))
    assert refusal(world, call, world.customer.address) == "EnforcedPause"
    chain.send(chain.refund_call(ticket), world.settler)
    chain.send(chain.unpause_call(), world.admin)
    assert world.balance(world.customer) == 1_000 * DML


def test_for_wallet_is_what_a_browser_wallet_takes(world: World) -> None:
    chain = world.chain
    tx = chain.register_call(b"ref").for_wallet(world.admin.address, chain.deployment.chain_id)
    assert tx["value"] == hex(10**15) and tx["chainId"] == "0x7a69"
    sent = connect(chain.w3.provider.endpoint_uri).eth.send_transaction(tx)  # type: ignore
    assert chain.wait("0x" + bytes(sent).hex()).ok


def strays(world: World, start: int) -> list[tuple[str, int]]:
    found = world.chain.events(start, world.chain.head().number)
    assert found == sorted(found, key=lambda event: (event.block, event.log_index))
    return [(event.args["sender"], event.args["amount"]) for event in found if event.name == "Stray"]


def test_tokens_that_pay_for_nothing_are_told_apart_from_payments(world: World) -> None:
    """Two payments, by transfer and by approval; a plain transfer of the same amount, and a mint to the escrow."""
    chain, start, escrow = world.chain, world.chain.head().number + 1, world.chain.deployment.escrow
    first = world.pay(70)
    assert strays(world, start) == []
    sent = chain.send(chain.transfer_call(escrow, 70), world.customer)
    chain.send(chain.mint_call(escrow, 5), world.admin)
    quote = world.quote(30)
    chain.send(chain.approve_call(30), world.customer)
    chain.send(chain.pay_approved_call(quote, chain.sign_quote(quote, world.quoter)), world.customer)
    assert strays(world, start) == [(world.customer.address, 70), ("0x" + "00" * 20, 5)]
    found = chain.events(start, chain.head().number)
    assert [event.args["ticket"] for event in found if event.name == "Paid"] == [first, quote.ticket]
    stray = found[1]
    assert (stray.name, stray.tx, stray.block, stray.block_hash) == ("Stray", sent.hash, sent.block, sent.block_hash)


def test_what_the_escrow_sends_itself_is_stray_too(world: World) -> None:
    """Its balance is the same afterwards: whoever books strays has to know the sender."""
    chain, escrow = world.chain, world.chain.deployment.escrow
    chain.send(chain.transfer_call(escrow, 8), world.customer)
    start = chain.head().number + 1
    chain.send(chain.move_surplus_call(escrow, 3), world.admin)
    assert strays(world, start) == [(escrow, 3)] and chain.totals().surplus == 8


def test_nothing_is_no_stray(world: World) -> None:
    chain, start = world.chain, world.chain.head().number + 1
    chain.send(chain.transfer_call(chain.deployment.escrow, 0), world.customer)
    assert strays(world, start) == []


def test_a_payment_accounts_for_one_transfer_of_its_own_transaction(world: World) -> None:
    """Logs as a contract could make them that pays and sends in one transaction."""
    start = world.chain.head().number + 1
    ticket = world.pay(70)
    paid = world.chain.events(start, world.chain.head().number)[-1]
    assert paid.name == "Paid" and paid.args["ticket"] == ticket

    def arrival(amount: int, tx: str, index: int) -> dict[str, object]:
        args = {"from": paid.args["payer"], "value": amount}
        place = {"blockNumber": paid.block, "blockHash": bytes.fromhex(paid.block_hash[2:]), "logIndex": index}
        return {"args": args, "transactionHash": bytes.fromhex(tx[2:]), **place}

    arrived = [
        arrival(70, paid.tx, 1),
        arrival(70, paid.tx, 2),
        arrival(69, paid.tx, 3),
        arrival(70, "0x" + "ab" * 32, 4),
    ]
    assert [event.log_index for event in world.chain._strays([paid], arrived)] == [2, 3, 4]
