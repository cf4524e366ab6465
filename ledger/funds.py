"""Whether a wallet can pay what it is about to be asked for: told before the wallet opens, in words that help."""

from django.conf import settings

from contracts.chain import ChainError
from dmlsite.errors import Conflict
from ledger import money
from ledger.gateway import chain


def require(wallet: str, micro: int = 0, gwei: int = 0) -> None:
    """Raises Conflict if the wallet has fewer tokens (micro-DML) or coins (gwei) than that; beyond them it needs some coins for the
    network's fee. While the chain does not answer, nothing is known and nothing refused: the contract has the last word."""
    try:
        tokens = chain().token_balance(wallet) if micro else 0
        coins = chain().native_balance(wallet)
    except ChainError:
        return
    if tokens < micro:
        where = settings.WHERE_TO_GET_DML or "Whoever runs this site can tell you where to get some."
        raise Conflict(
            f"Your wallet has {money.text(tokens, 'DML')}, and this costs {money.text(micro, 'DML')}. {where}"
        )
    if coins <= gwei:
        wanted = f"{money.text(gwei, 'COIN')} and the network's fee are" if gwei else "the network's fee is"
        raise Conflict(f"Your wallet has {money.text(coins, 'COIN')}, but {wanted} paid in the network's own coin.")
