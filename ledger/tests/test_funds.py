"""A wallet with too little is told so before it opens."""

import pytest
from eth_account import Account

from contracts import devchain
from contracts.chain import Rejected
from dmlsite.errors import Conflict
from ledger import funds
from ledger.gateway import key

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_is_missing_is_named_with_where_to_get_it(chain, devchain_url, settings):
    settings.WHERE_TO_GET_DML = "Buy some at https://dml.example."
    wallet = Account.create().address
    with pytest.raises(Conflict, match="has 0.00 DML, and this costs 0.13 DML. Buy some at https://dml.example."):
        funds.require(wallet, micro=130_000)
    chain.send(chain.transfer_call(wallet, 130_000), key("admin"))
    with pytest.raises(Conflict, match="has 0.00 coin, but the network's fee is paid"):
        funds.require(wallet, micro=130_000)
    devchain.fund(devchain_url, wallet, 10**6)
    funds.require(wallet, micro=130_000)
    with pytest.raises(Conflict, match="has 0.001 coin, but 0.001 coin and the network's fee are paid"):
        funds.require(wallet, gwei=10**6)


@pytest.fixture
def devchain_url(chain):
    return chain.w3.provider.endpoint_uri


def test_a_silent_chain_refuses_nothing(chain, monkeypatch):
    def silent(*args):
        raise Rejected("no")

    monkeypatch.setattr(type(chain), "token_balance", silent)
    funds.require(Account.create().address, micro=1)
