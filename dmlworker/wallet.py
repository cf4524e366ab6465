"""A provider's wallet in place of an API key. Needs `eth-account`: pip install "dml-worker[wallet]"."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dmlworker.protocol import SIGNED_SECONDS, sign_in_text

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


class Wallet:
    """Signs the worker in, and nothing else: no transaction is ever signed here."""

    def __init__(self, account: "LocalAccount") -> None:
        self._account = account
        self._token, self._renew = "", 0.0

    @classmethod
    def load(cls, keystore: Path, passphrase: str) -> "Wallet":
        """From an encrypted keystore file (the format of geth and MetaMask's kin). Raises ValueError with what is wrong."""
        try:
            from eth_account import Account
        except ImportError:
            raise ValueError('A wallet needs eth-account: pip install "dml-worker[wallet]"') from None
        try:
            return cls(Account.from_key(Account.decrypt(json.loads(keystore.read_text()), passphrase)))
        except OSError as error:
            raise ValueError(f"Can't read {keystore}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, NotImplementedError):
            raise ValueError(f"{keystore} is no keystore file, or the passphrase is wrong.") from None

    @property
    def address(self) -> str:
        return str(self._account.address)

    def token(self, site: str) -> str:
        """What is shown to the platform at `site` (host and port); signed anew when half of its life is over."""
        if time.time() > self._renew:
            self._token = self._signed(site, int(time.time()) + SIGNED_SECONDS)
            self._renew = time.time() + SIGNED_SECONDS / 2
        return self._token

    def _signed(self, site: str, expires: int) -> str:
        from eth_account.messages import encode_defunct

        text = encode_defunct(text=sign_in_text(site, self.address, expires))
        return f"wallet:{self.address}:{expires}:0x{self._account.sign_message(text).signature.hex()}"
