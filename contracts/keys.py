"""Private keys in encrypted files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import cast

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount

from contracts.types import ChainError

Key = LocalAccount


def make_keystore(path: str | Path, passphrase: str, *, key: Key | None = None, iterations: int | None = None) -> Key:
    """Write a key (a new one, unless given) encrypted to `path`, readable by its owner only. Never overwrites.

    `iterations`: of scrypt, a power of two; the default costs about a second, 2 is for development chains only.
    """
    if Path(path).exists():
        raise ChainError(f"{path} exists: not overwriting a key")
    key = key or Account.create()
    secret = Account.encrypt(key.key, passphrase, kdf="scrypt", iterations=iterations)
    write_atomically(Path(path), json.dumps(secret), mode=0o600)
    return key


def load_keystore(path: str | Path, passphrase: str) -> Key:
    """The key in an encrypted file. The passphrase is never repeated in an error."""
    try:
        return cast(Key, Account.from_key(Account.decrypt(json.loads(Path(path).read_text()), passphrase)))
    except OSError as error:
        raise ChainError(f"cannot read the key file {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, NotImplementedError):
        raise ChainError(f"{path} is not a key file, or the passphrase is wrong") from None


def signer(text: str, signature: str) -> str | None:
    """The address whose key signed `text` (EIP-191, what wallets call personal_sign); None if that is no signature."""
    try:
        return str(Account.recover_message(encode_defunct(text=text), signature=signature))
    except Exception:  # eth_account raises whatever its parsers do
        return None


def write_atomically(path: Path, text: str, mode: int) -> None:
    """All or nothing, with its final rights from the first byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
