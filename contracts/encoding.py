"""Between DML's units and the contracts': addresses, numbers, bytes, and what the compiler said about both contracts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from eth_abi.abi import decode as abi_decode
from eth_utils.address import is_checksum_address, to_checksum_address
from eth_utils.crypto import keccak

from contracts.types import COIN_EVENTS, GWEI, ChainError, Reverted

ABI_FOLDER = Path(__file__).parent / "abi"


@cache
def artifact(name: str) -> dict[str, Any]:
    """A committed compiler output: abi, bytecode, runtime, immutables, compiler."""
    return cast(dict[str, Any], json.loads((ABI_FOLDER / f"{name}.json").read_text()))


def to_checksum(address: str) -> Any:
    """An address in its one spelling; ChainError if it is none. Mixed case has to be a right checksum."""
    try:
        if address.lower() != address and not is_checksum_address(address):
            raise ValueError("wrong checksum")
        return to_checksum_address(address)
    except (ValueError, TypeError, AttributeError) as error:
        raise ChainError(f"{address!r} is not an address: {error}") from error


def by_address(shares: Mapping[str, int]) -> dict[str, int]:
    """Shares by checksum address; ChainError if one address has two."""
    found = {to_checksum(address): amount for address, amount in shares.items()}
    if len(found) != len(shares):
        raise ChainError("one address has two shares, in two spellings")
    return found


def ascending(addresses: Sequence[str]) -> list[str]:
    """The contract's order: strictly by number, hence without doubles."""
    return sorted({to_checksum(address) for address in addresses}, key=numeric)


def numeric(address: str) -> int:
    return int(address, 16)


def outside(event: str, key: str, value: Any) -> tuple[str, Any]:
    """One argument of an event, or of a call, in the units of the outside."""
    if key in ("ticketId", "caseId"):
        return key.removesuffix("Id"), _uuid(value)
    if key == "stake" or (key == "amount" and event in COIN_EVENTS):
        return key, value // GWEI
    if isinstance(value, (bytes, bytearray)):
        return _snake(key), to_hex(value)
    return _snake(key), list(value) if isinstance(value, (list, tuple)) else value


def _uuid(number: int) -> UUID | int:
    """A number beyond a UUID is none of ours (a stolen hot key could make one): it must not stop the scanner."""
    return UUID(int=number) if number < 1 << 128 else number


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def to_hex(value: bytes | bytearray) -> str:
    return "0x" + bytes(value).hex()


def from_hex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def topic(entry: Mapping[str, Any]) -> str:
    """By which logs name an event of the ABI."""
    types = ",".join(part["type"] for part in entry["inputs"])
    return to_hex(keccak(text=f"{entry['name']}({types})"))


def without_immutables(name: str, code: bytes) -> bytes:
    """Runtime code with zeros where the constructor wrote what was chosen at deployment."""
    masked = bytearray(code)
    for start, length in artifact(name)["immutables"]:
        masked[start : start + length] = bytes(length)
    return bytes(masked)


def revert(message: str, data: str) -> Reverted:
    """The error that a contract gave. `data`: its bytes as '0x…', '' for none."""
    known = _custom_errors().get(data[:10])
    if known is None:
        return Reverted(message)
    name, types = known
    values = abi_decode(types, from_hex(data)[4:])
    words = ", ".join(map(str, values))
    return Reverted(f"{name}({words})", name, values)


@cache
def _custom_errors() -> dict[str, tuple[str, list[str]]]:
    """Selector -> the custom errors of both contracts."""
    found = {}
    for entry in artifact("DMLToken")["abi"] + artifact("DMLEscrow")["abi"]:
        if entry["type"] == "error":
            types = [part["type"] for part in entry["inputs"]]
            selector = keccak(text=f"{entry['name']}({','.join(types)})")[:4]
            found[to_hex(selector)] = (entry["name"], types)
    return found
