"""Faults 5, 7, 8, 9, 10 and 11: only the quoted wallet, on our chain, with the exact amount, in time, pays; and once."""

from uuid import uuid4

import pytest
from django.core.files.base import ContentFile
from eth_abi.abi import encode

from accounts.models import User
from contracts.chain import Call, Chain, ChainError, Quote, Reverted, connect
from contracts.deploy import deploy
from contracts.devchain import DevChain, free_port
from contracts.devchain import test_key as rich
from contracts.tests.proxy import Proxy
from dmlsite.errors import Conflict
from ledger import outbox
from ledger.gateway import key
from ledger.models import Alarm, ChainEvent, Sighting, Transfer, balance
from ledger.scanner import Scanner, WrongChain
from tests.faults.steps import (
    FEE,
    PRICE,
    SHARES,
    balanced,
    fund,
    pass_time,
    quote,
    read,
    refunded_exactly,
    rpc,
    until_quiet,
)
from tickets import actions
from tickets.models import Status, Ticket

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def customer():
    return User.objects.create_user("customer@example.org", "x", is_customer=True)


@pytest.fixture
def ticket(chain, customer):
    found = actions.order(customer, file_name="a.csv", file_size=1_250_000, payer=rich(1).address)
    assert found.price == PRICE
    return found


def follow(ticket):
    """What the nudges would have done."""
    actions.payment_sighted(Ticket.objects.get(pk=ticket.pk))
    if ChainEvent.objects.filter(name="Paid", case=ticket.pk).exists():
        actions.payment_seen(Ticket.objects.get(pk=ticket.pk))
    ticket.refresh_from_db()


def nothing_moved(chain, had):
    """After a refused payment: nothing in escrow, nothing booked, and the wallet has what it had."""
    assert chain.token_balance(rich(1).address) == had
    assert chain.escrowed() == 0
    read(chain)
    assert not ChainEvent.objects.filter(name="Paid").exists()
    assert not Transfer.objects.filter(currency="DML").exists()


# --- 5 ----------------------------------------------------------------------------------------------------------------
def test_5_a_reorg_drops_the_payment_and_no_work_starts(chain, ticket, client):
    fund(chain, rich(1))
    had = chain.token_balance(rich(1).address)
    chain.send(actions.payment_call(ticket), rich(1))
    scanner = Scanner(chain)
    scanner.scan()
    follow(ticket)
    assert Sighting.objects.get(name="Paid").case == ticket.pk
    assert ticket.status == Status.QUOTED
    assert ticket.events.filter(kind="payment").count() == 1
    client.force_login(ticket.customer)
    page = f"/tickets/{ticket.pk}/"
    assert "Your payment is in block" in client.get(page).content.decode()
    with pytest.raises(Conflict):
        actions.upload(ticket, ContentFile(b"data"), "customer")

    rpc(chain, "anvil_reorg", 1, [])
    scanner.scan()
    follow(ticket)
    assert not Sighting.objects.filter(name="Paid").exists()
    assert ticket.status == Status.QUOTED, "the ticket is back where it was"
    assert ticket.events.filter(kind="payment").count() == 2
    shown = client.get(page).content.decode()
    assert "Your payment is in block" not in shown and "One confirmation in your wallet" in shown
    nothing_moved(chain, had)

    chain.send(actions.payment_call(ticket), rich(1))
    read(chain)
    follow(ticket)
    assert ticket.status == Status.PAID
    assert chain.token_balance(rich(1).address) == had - PRICE
    assert balance(f"escrow:{ticket.pk}") == PRICE == chain.escrowed()
    assert not Sighting.objects.exists()
    balanced(chain)


# --- 7 ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spelling", [str.lower, str.upper, lambda text: text])
def test_7_a_hash_pays_for_the_ticket_that_its_event_names_and_no_other(chain, customer, ticket, client, spelling):
    """There is no place where a browser could claim a hash; one that is sent all the same has no effect."""
    other = actions.order(customer, file_name="b.csv", file_size=1_250_000, payer=rich(1).address)
    fund(chain, rich(1))
    paid = chain.send(actions.payment_call(ticket), rich(1)).hash
    read(chain)
    client.force_login(customer)
    claim = {name: spelling(paid) for name in ("hash", "tx", "paid_tx", "transaction")}
    for place in (f"/tickets/{other.pk}/pay/", f"/api/v1/tickets/{other.pk}/payment"):
        client.post(place, claim)
    follow(ticket)
    follow(other)
    assert (ticket.status, other.status) == (Status.PAID, Status.QUOTED)
    assert (ticket.paid_tx, other.paid_tx) == (paid, "")
    assert balance(f"escrow:{other.pk}") == 0
    balanced(chain)


def test_7_a_second_payment_of_one_ticket_is_refused_by_the_escrow(chain, ticket):
    call = actions.payment_call(ticket)
    fund(chain, rich(1), 2 * PRICE)
    chain.send(call, rich(1))
    had = chain.token_balance(rich(1).address)
    with pytest.raises(Reverted, match="WrongTicketState"):
        chain.send(call, rich(1))
    assert chain.token_balance(rich(1).address) == had
    read(chain)
    assert balance(f"escrow:{ticket.pk}") == PRICE == chain.escrowed()


# --- 8 ----------------------------------------------------------------------------------------------------------------
def test_8_another_contract_that_emits_our_events_is_not_heard(chain, ticket):
    """The bytes of Paid(ticket, payer, amount), from an address that is not the escrow's."""
    topics = [chain.w3.keccak(text="Paid(uint256,address,uint256)"), ticket.pk.int.to_bytes(32)]
    topics.append(bytes.fromhex(rich(1).address[2:]).rjust(32, b"\0"))
    emit(chain, topics, PRICE.to_bytes(32))
    read(chain)
    follow(ticket)
    assert ticket.status == Status.QUOTED
    assert not ChainEvent.objects.filter(name="Paid").exists()
    assert not Transfer.objects.exists()


def emit(chain, topics, data):
    """Have a new contract's constructor log this: PUSH32 data, MSTORE, the topics, LOGn."""
    code = b"\x7f" + data + b"\x60\x00\x52"
    for topic in reversed(topics):
        code += b"\x7f" + bytes(topic)
    code += b"\x60\x20\x60\x00" + bytes([0xA0 + len(topics)]) + b"\x00"
    w3, sender = chain.w3, rich(9)
    fields = {"from": sender.address, "data": code, "nonce": w3.eth.get_transaction_count(sender.address)}
    fields |= {"gas": 200_000, "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9, "chainId": w3.eth.chain_id}
    signed = sender.sign_transaction({name: value for name, value in fields.items() if name != "from"})
    receipt = w3.eth.wait_for_transaction_receipt(w3.eth.send_raw_transaction(signed.raw_transaction))
    assert receipt["status"] == 1 and len(receipt["logs"]) == 1


def test_8_a_token_of_somebodys_own_pays_for_nothing(chain, ticket):
    """Whoever is not the token gets no hearing: the escrow's hook can be called by anyone."""
    offer = actions.quote(ticket)
    data = encode(["(uint256,address,uint256,uint64,uint64)", "bytes"], [offer.as_tuple(), bytes(ticket.signature)])
    hook = chain._escrow.functions.onTransferReceived(rich(1).address, rich(1).address, PRICE, data)
    call = Call(chain.deployment.escrow, hook._encode_transaction_data())
    with pytest.raises(Reverted, match="NotToken"):
        chain.send(call, rich(1))
    fake = deploy(chain.w3, rich(9), **dict.fromkeys(("quoter", "settler", "guardian", "treasury"), rich(9).address))
    theirs = Chain(chain.w3, fake)
    with pytest.raises(Reverted):  # its transferAndCall, aimed at our escrow
        chain.send(Call(fake.token, actions.payment_call(ticket).data), rich(9))
    theirs.send(theirs.transfer_call(chain.deployment.escrow, PRICE), rich(9))
    read(chain)
    assert not ChainEvent.objects.exclude(name__startswith="Role").filter(name__in=["Paid", "Stray"]).exists()
    assert balance("stray") == 0 == chain.escrowed()
    balanced(chain)


def test_8_tokens_sent_straight_to_the_escrow_are_kept_apart_and_can_be_given_back(chain, ticket):
    fund(chain, rich(1))
    had = chain.token_balance(rich(1).address)
    chain.send(chain.transfer_call(chain.deployment.escrow, PRICE), rich(1))
    read(chain)
    follow(ticket)
    assert ticket.status == Status.QUOTED, "it paid for nothing"
    assert balance("stray") == PRICE == chain.totals().surplus
    assert Alarm.objects.get().kind == "stray tokens"
    assert Alarm.objects.get().halts == ""
    balanced(chain)

    chain.send(chain.move_surplus_call(rich(1).address, PRICE), key("admin"))
    read(chain)
    assert balance("stray") == 0 == chain.totals().surplus
    assert chain.token_balance(rich(1).address) == had
    balanced(chain)


# --- 9 ----------------------------------------------------------------------------------------------------------------
def altered(offer: Quote, **fields) -> Quote:
    return Quote(**{**offer.__dict__, **fields})


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda o: altered(o, amount=PRICE - 1), "QuoteForged"),
        (lambda o: altered(o, amount=1), "QuoteForged"),
        (lambda o: altered(o, amount=0), "QuoteOutOfRange"),
        (lambda o: altered(o, ticket=uuid4()), "QuoteForged"),
        (lambda o: altered(o, settle_by=o.settle_by + 10**6), "QuoteForged"),
        (lambda o: altered(o, pay_by=o.pay_by + 60), "QuoteForged"),
    ],
)
def test_9_a_quote_that_was_changed_is_refused(chain, ticket, wrong, error):
    fund(chain, rich(1))
    had = chain.token_balance(rich(1).address)
    with pytest.raises(Reverted, match=error):
        chain.send(chain.pay_call(wrong(actions.quote(ticket)), bytes(ticket.signature)), rich(1))
    nothing_moved(chain, had)


@pytest.mark.parametrize("amount", [PRICE - 1, PRICE + 1, 0])
def test_9_another_amount_than_was_quoted_is_refused(chain, ticket, amount):
    """The quote is genuine; the transfer that carries it is of another amount."""
    fund(chain, rich(1), 2 * PRICE)
    had = chain.token_balance(rich(1).address)
    data = encode(
        ["(uint256,address,uint256,uint64,uint64)", "bytes"],
        [actions.quote(ticket).as_tuple(), bytes(ticket.signature)],
    )
    transfer = chain._token.functions["transferAndCall(address,uint256,bytes)"]
    call = Call(chain.deployment.token, transfer(chain.deployment.escrow, amount, data)._encode_transaction_data())
    with pytest.raises(Reverted, match="WrongAmount"):
        chain.send(call, rich(1))
    nothing_moved(chain, had)


def test_9_a_late_payment_is_refused(chain, customer):
    late = quote(uuid4(), rich(1), chain, seconds=60)
    fund(chain, rich(1))
    had = chain.token_balance(rich(1).address)
    pass_time(chain, 61)
    with pytest.raises(Reverted, match="QuoteLate"):
        chain.send(chain.pay_call(late, chain.sign_quote(late, key("quoter"))), rich(1))
    nothing_moved(chain, had)


def test_9_a_quote_signed_by_anybody_else_is_refused(chain):
    forged = quote(uuid4(), rich(1), chain)
    fund(chain, rich(1))
    had = chain.token_balance(rich(1).address)
    for signer in (rich(1), key("settler"), key("admin")):
        with pytest.raises(Reverted, match="QuoteForged"):
            chain.send(chain.pay_call(forged, chain.sign_quote(forged, signer)), rich(1))
    nothing_moved(chain, had)


def test_9_a_quote_is_good_for_one_payment_also_after_the_refund(chain, ticket):
    fund(chain, rich(1), 2 * PRICE)
    had = chain.token_balance(rich(1).address)
    call = actions.payment_call(ticket)
    chain.send(call, rich(1))
    read(chain)
    follow(ticket)
    actions.refund(ticket, "changed their mind")
    until_quiet(chain)
    refunded_exactly(chain, ticket.pk, rich(1).address, had)
    with pytest.raises(Reverted, match="WrongTicketState"):
        chain.send(call, rich(1))
    assert chain.token_balance(rich(1).address) == had


# --- 10 ---------------------------------------------------------------------------------------------------------------
def test_10_another_wallet_cannot_pay_with_the_quote(chain, ticket):
    had = chain.token_balance(rich(1).address)
    fund(chain, rich(5))
    theirs = chain.token_balance(rich(5).address)
    with pytest.raises(Reverted, match="WrongPayer"):
        chain.send(actions.payment_call(ticket), rich(5))
    assert chain.token_balance(rich(5).address) == theirs
    nothing_moved(chain, had)


@pytest.mark.parametrize("what", ["speeds up", "cancels"])
def test_10_the_customer_speeds_up_or_cancels_in_the_wallet(chain, ticket, what):
    """A wallet replaces a waiting transaction by one with the same nonce: the same call again, or an empty one."""
    fund(chain, rich(1))
    had = chain.token_balance(rich(1).address)
    call, nonce = actions.payment_call(ticket), chain.confirmed_nonce(rich(1).address)
    fees = chain.suggest_fees(1)
    gas = chain.estimate(call, rich(1).address) * 2
    more = type(fees)(fees.max_fee_gwei * 2, fees.tip_gwei * 2)
    instead = call if what == "speeds up" else Call(rich(1).address, "0x")
    rpc(chain, "evm_setAutomine", False)
    try:
        first = chain.sign(call, rich(1), nonce, fees=fees, gas=gas)
        second = chain.sign(instead, rich(1), nonce, fees=more, gas=gas)
        chain.broadcast(first.raw)
        chain.broadcast(second.raw)
    finally:
        rpc(chain, "evm_setAutomine", True)
        rpc(chain, "evm_mine")
    assert chain.wait(second.hash).ok and chain.receipt(first.hash) is None
    if what == "cancels":
        nothing_moved(chain, had)
        chain.send(call, rich(1))  # and pays later
    read(chain)
    follow(ticket)
    assert ticket.status == Status.PAID
    assert chain.token_balance(rich(1).address) == had - PRICE
    assert balance(f"escrow:{ticket.pk}") == PRICE == chain.escrowed()
    balanced(chain)


# --- 11 ---------------------------------------------------------------------------------------------------------------
def test_11_a_quote_is_worth_nothing_on_another_chain(chain, ticket):
    """The wallet is on the wrong network, and there is a DML at the very same addresses."""
    assert actions.payment_call(ticket).for_wallet(rich(1).address, chain.deployment.chain_id)["chainId"] == hex(31337)
    with DevChain(None, free_port(), chain_id=4242) as another:
        roles = {"quoter": key("quoter").address, "settler": key("settler").address}
        there = connect(another.url)
        place = deploy(there, rich(0), **roles, guardian=rich(0).address, treasury=rich(0).address)
        elsewhere = Chain(there, place)
        elsewhere.send(elsewhere.transfer_call(rich(1).address, PRICE), rich(0))
        with pytest.raises(Reverted, match="QuoteForged"):
            elsewhere.send(elsewhere.pay_call(actions.quote(ticket), bytes(ticket.signature)), rich(1))


def test_11_a_node_that_silently_serves_another_chain_is_noticed_before_anything_is_booked_or_signed(paid):
    """The other chain has the same id, and contracts of ours with events of its own at the same addresses."""
    tx, chain = paid.settle(), paid.chain
    booked = Transfer.objects.count()
    with DevChain(None, free_port()) as another, Proxy(chain.w3.provider.endpoint_uri) as proxy:
        theirs = connect(another.url)
        while theirs.eth.block_number < chain.finalized().number + 5:
            theirs.provider.make_request("evm_mine", [])
        for address in (chain.deployment.token, chain.deployment.escrow):
            code = chain.w3.eth.get_code(address).to_0x_hex()
            theirs.provider.make_request("anvil_setCode", [address, code])
        direct, chain.w3 = chain.w3, connect(proxy.url)
        ours = Chain(chain.w3, chain.deployment)
        proxy.switch(another.url)
        ours.verify()  # the id and the code are right: nothing else would tell
        with pytest.raises(WrongChain):
            Scanner(ours).scan()
        with pytest.raises(WrongChain):
            outbox.send(tx)
        chain.w3 = direct
    tx.refresh_from_db()
    assert (tx.state, tx.attempts.count(), Transfer.objects.count()) == ("ready", 0, booked)
    assert Alarm.objects.get().kind == "another chain"
    Alarm.objects.all().delete()
    until_quiet(chain)
    assert chain.token_balance(paid.wallet) - paid.wallet_had == SHARES
    assert balance("fee") == FEE
    balanced(chain)


def test_11_a_node_of_a_chain_with_another_id_is_refused_at_once(chain):
    with DevChain(None, free_port(), chain_id=4242) as another, pytest.raises(ChainError, match="serves chain 4242"):
        Chain(connect(another.url), chain.deployment).verify()
