"""The one chain that this installation speaks to, and the keys it holds."""

from functools import lru_cache

from django.conf import settings

from contracts.chain import Chain, ChainError, Deployment, Key, connect
from contracts.keys import load_keystore
from observe import metrics


def deployment() -> Deployment:
    """Where our contracts are; no node is asked. Raises ChainError."""
    if not settings.CHAIN_DEPLOYMENT.exists():
        raise ChainError("The contracts are not deployed yet: manage.py deploy_contracts")
    found = Deployment.load(settings.CHAIN_DEPLOYMENT)
    if found.chain_id != settings.CHAIN_ID:
        raise ChainError(f"The contracts are on chain {found.chain_id}, but CHAIN_ID is {settings.CHAIN_ID}")
    return found


@lru_cache(maxsize=1)
def chain() -> Chain:
    """The verified connection. Raises ChainError; a failure is not remembered, so a later call tries again."""
    found = Chain(connect(settings.CHAIN_RPC_URL, told=metrics.rpc), deployment())
    found.verify()
    return found


@lru_cache(maxsize=4)
def key(role: str) -> Key:
    """The private key of a role: quoter, settler, guardian. Read once from its keystore file."""
    passphrase = settings.KEY_PASSPHRASE_FILE.read_text().strip()
    return load_keystore(getattr(settings, f"{role.upper()}_KEYSTORE"), passphrase)
