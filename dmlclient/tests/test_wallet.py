"""A wallet signs the payment that was ordered, and nothing else."""

import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from eth_abi import encode
from eth_account import Account
from eth_utils import keccak

from contracts.keys import make_keystore
from dmlclient import Keystore, NetworkError, PaymentError, Terms, Ticket
from dmlclient.records import micro
from dmlclient.wallet import TRANSFER_AND_CALL, payment_data

PASSPHRASE = "correct horse"
SIGNATURE = bytes(range(1, 66))
OTHER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
TERMS = Terms(31337, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0x90F79bf6EB2c4f870365E785982E1f101E93b906")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("keys") / "keystore.json"
    make_keystore(found, PASSPHRASE, iterations=2)
    return found


@pytest.fixture(scope="module")
def wallet(path):
    return Keystore(path, PASSPHRASE, "http://localhost:1")


@pytest.fixture
def ticket(wallet):
    now = datetime.now(UTC).replace(microsecond=0)
    said = {
        "id": str(uuid4()),
        "status": "quoted",
        "file_name": "a.csv",
        "file_size": 1_250_000,
        "price": "0.13",
        "price_micro": 130_000,
        "payer": wallet.address,
        "pay_by": (now + timedelta(hours=1)).isoformat(),
        "settle_by": (now + timedelta(days=7)).isoformat(),
        "outcome": "",
        "accuracy": None,
    }
    return Ticket.of(said)


def payment(ticket, terms=TERMS):
    data = payment_data(ticket, terms.escrow, SIGNATURE)
    return {"from": ticket.payer, "to": terms.token, "data": "0x" + data.hex(), "value": "0x0", "chainId": "0x7a69"}


def test_the_payment_is_what_the_contracts_take(ticket):
    """Against eth-abi: the quote and its signature in transferAndCall, as the platform makes it."""
    pk = int(ticket.id.replace("-", ""), 16)
    times = int(ticket.pay_by.timestamp()), int(ticket.settle_by.timestamp())
    quote = encode(
        ["(uint256,address,uint256,uint64,uint64)", "bytes"], [(pk, ticket.payer, 130_000, *times), SIGNATURE]
    )
    arguments = encode(["address", "uint256", "bytes"], [TERMS.escrow, 130_000, quote])
    assert keccak(text="transferAndCall(address,uint256,bytes)")[:4] == TRANSFER_AND_CALL
    assert payment_data(ticket, TERMS.escrow, SIGNATURE) == TRANSFER_AND_CALL + arguments


def test_the_ordered_payment_is_signed(wallet, ticket):
    wallet.check(payment(ticket), ticket, TERMS, 130_000)


def altered(data: str, at: int) -> str:
    """The byte at this place is another one."""
    raw = bytearray.fromhex(data[2:])
    raw[at] ^= 1
    return "0x" + raw.hex()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chainId": "0x1"}, "chain"),
        ({"to": OTHER}, "token"),
        ({"from": OTHER}, "sender"),
        ({"value": "0x1"}, "coins"),
        ({"data": "0x"}, "another one"),
        ({"data": "0xa9059cbb" + "0" * 128}, "another one"),
    ],
)
def test_another_transaction_is_not_signed(wallet, ticket, change, said):
    with pytest.raises(PaymentError, match=said):
        wallet.check(payment(ticket) | change, ticket, TERMS, 130_000)


@pytest.mark.parametrize(
    "place", [0, 4, 35, 67, 99, 131, 163, 195, 227, 259, 291, 323, 355, 421, 451], ids=lambda n: f"byte{n}"
)
def test_no_byte_of_it_may_be_another_but_the_signatures(wallet, ticket, place):
    """Function, escrow, amount, quote, lengths, padding."""
    call = payment(ticket)
    with pytest.raises(PaymentError):
        wallet.check(call | {"data": altered(call["data"], place)}, ticket, TERMS, 130_000)


def test_nothing_follows_the_payment(wallet, ticket):
    call = payment(ticket)
    with pytest.raises(PaymentError):
        wallet.check(call | {"data": call["data"] + "00"}, ticket, TERMS, 130_000)


def test_no_other_ticket_is_paid(wallet, ticket):
    other = replace(ticket, id=str(uuid4()))
    with pytest.raises(PaymentError):
        wallet.check(payment(other), ticket, TERMS, 130_000)


def test_a_ticket_of_another_payer_is_not_paid(wallet, ticket):
    with pytest.raises(PaymentError, match="wallet"):
        wallet.check(payment(ticket), replace(ticket, payer=OTHER), TERMS, 130_000)


def test_a_higher_price_is_not_paid(wallet, ticket):
    with pytest.raises(PaymentError, match=r"0.13 DML, and at most 0.12"):
        wallet.check(payment(ticket), ticket, TERMS, micro("0.12"))


@pytest.mark.parametrize("price", ["x", "", -1, "0.0000001", "nan", "inf", None])
def test_a_limit_that_is_no_price_is_refused(path, price):
    with pytest.raises(ValueError, match="no price"):
        Keystore(path, PASSPHRASE, "http://localhost:1", max_price=price)


@pytest.mark.parametrize("price", ["0.13", 0.13, Decimal("0.13")])
def test_a_price_is_exact_however_it_is_given(price):
    assert micro(price) == 130_000


def test_a_wrong_passphrase_or_file_says_so_and_repeats_nothing(path, tmp_path):
    with pytest.raises(PaymentError, match="passphrase is wrong") as caught:
        Keystore(path, "wrong-secret", "http://localhost:1")
    assert "wrong-secret" not in str(caught.value)
    with pytest.raises(PaymentError, match="No such file"):
        Keystore(tmp_path / "none.json", PASSPHRASE, "http://localhost:1")


def test_the_key_is_not_in_its_repr_and_not_pickled(wallet):
    assert repr(wallet) == f"Keystore({wallet.address})"
    with pytest.raises(TypeError, match="holds a key"):
        pickle.dumps(wallet)


# --- On the chain -----------------------------------------------------------------------------------------------------
SMALL = b"a,b\n1,2\n"


@pytest.fixture
def ordered(client, customer, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(SMALL)
    return client.quote(path, customer.wallet.address)


def state(platform, customer):
    address = customer.wallet.address
    return platform.chain.token_balance(address), platform.chain.next_nonce(address)


def test_nothing_is_sent_above_the_limit(platform, client, customer, keystore, ordered):
    before = state(platform, customer)
    wallet = Keystore(keystore, PASSPHRASE, platform.rpc_url, max_price="0.009")
    with pytest.raises(PaymentError, match="0.01 DML, and at most 0.009"):
        client.pay(ordered, wallet)
    with pytest.raises(PaymentError, match=r"at most 0\.001"):
        client.pay(ordered, wallet, max_price="0.001")
    assert state(platform, customer) == before


@pytest.mark.parametrize("change", [{"token": OTHER}, {"escrow": OTHER}, {"chain_id": 80002}])
def test_a_platform_that_names_other_contracts_than_one_trusts_is_not_paid(
    platform, client, customer, keystore, ordered, change
):
    before = state(platform, customer)
    wallet = Keystore(keystore, PASSPHRASE, platform.rpc_url, terms=replace(client.terms(), **change))
    with pytest.raises(PaymentError, match="Not signed"):
        client.pay(ordered, wallet)
    assert state(platform, customer) == before


def test_what_is_sent_twice_is_paid_once_and_no_error(platform, client, customer, keystore, ordered, key):
    balance, nonce = state(platform, customer)
    wallet = Keystore(keystore, PASSPHRASE, platform.rpc_url)
    call = customer.call("POST", f"tickets/{ordered.id}/payment")
    wallet.check(call, ordered, client.terms(), ordered.price_micro)
    signed = client._run(wallet.signed(call))
    assert {client._run(wallet.send(signed)) for _ in range(3)} == {signed.hash}
    platform.chain.wait(signed.hash)
    assert client._run(wallet.send(signed)) == signed.hash
    assert client.pay(ordered).status == "paid"
    assert state(platform, customer) == (balance - ordered.price_micro, nonce + 1)


def test_a_wallet_without_coins_hears_it_from_the_node(platform, client, tmp_path):
    poor = Account.create()
    make_keystore(tmp_path / "poor.json", PASSPHRASE, key=poor, iterations=2)
    (tmp_path / "a.csv").write_bytes(SMALL)
    ticket = client.quote(tmp_path / "a.csv", poor.address)
    with pytest.raises(PaymentError, match="The node refuses eth_estimateGas"):
        client.pay(ticket, Keystore(tmp_path / "poor.json", PASSPHRASE, platform.rpc_url))


def test_a_node_that_does_not_answer_is_a_network_error(client, keystore, ordered):
    with pytest.raises(NetworkError, match="node at localhost"):
        client.pay(ordered, Keystore(keystore, PASSPHRASE, "http://localhost:1/secret-path"))
