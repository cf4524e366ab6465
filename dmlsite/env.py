"""Typed readers of environment variables: a bad value stops the program at start and names the variable.

`READ` remembers what was asked for; docs/settings.md is made of it (scripts/settings_reference.py).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class BadSetting(SystemExit):
    """An environment variable that cannot be used. Exits with a message, not a traceback."""


@dataclass(frozen=True)
class Setting:
    """A variable that was read: what it may hold, in words, and what counts where it is not set."""

    kind: str
    default: object
    secret: bool = False


READ: dict[str, Setting] = {}


def _read(name: str, default: T, cast: Callable[[str], T], kind: str) -> T:
    READ[name] = Setting(kind, default)
    raw = os.environ.get(name, "").strip()
    if not raw:
        return default
    try:
        return cast(raw)
    except ValueError as error:
        raise BadSetting(f"Environment variable {name}={raw!r}: {error}") from None


def text(name: str, default: str = "") -> str:
    return _read(name, default, str, "text")


def secret(name: str, default: str = "") -> str:
    """A text that nobody else should see. It may lie in a file, which NAME_FILE names; the variable itself wins."""
    READ[name] = Setting("text", default, secret=True)
    return os.environ.get(name, "").strip() or _content(f"{name}_FILE") or default


def _content(name: str) -> str:
    """What is in the file that a variable names, without spaces and ends of lines around it."""
    place = os.environ.get(name, "").strip()
    if not place:
        return ""
    try:
        return Path(place).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"Environment variable {name}={place!r}: {error}") from None


def integer(name: str, default: int, minimum: int = 0) -> int:
    def cast(raw: str) -> int:
        value = int(raw)
        if value < minimum:
            raise ValueError(f"must be at least {minimum}")
        return value

    return _read(name, default, cast, f"number, {minimum} or more")


def amount(raw: str) -> Decimal | None:
    """A number not below 0, or None for what is none."""
    try:
        found = Decimal(raw)
    except InvalidOperation:
        return None
    return found if found.is_finite() and found >= 0 and found.adjusted() < 30 else None


def decimal(name: str) -> Decimal:
    """0 if it is not set."""

    def cast(raw: str) -> Decimal:
        found = amount(raw)
        if found is None:
            raise ValueError("must be a number not below 0")
        return found

    return _read(name, Decimal(), cast, "decimal number")


def flag(name: str, default: bool) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

    def cast(raw: str) -> bool:
        if raw.lower() not in words:
            raise ValueError("must be one of " + ", ".join(words))
        return words[raw.lower()]

    return _read(name, default, cast, "yes or no")


def path(name: str, default: Path) -> Path:
    return _read(name, default, lambda raw: Path(raw).expanduser().resolve(), "path")


def listed(name: str, default: list[str]) -> list[str]:
    return _read(
        name, default, lambda raw: [part.strip() for part in raw.split(",") if part.strip()], "list, with commas"
    )


def levels(name: str, names: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Versions by name, as `Milan=4.0.22.213,Genoa=10.0.23.84`. names: those that there are, with how many numbers each has."""

    def cast(raw: str) -> dict[str, tuple[int, ...]]:
        pairs = [part.strip().partition("=") for part in raw.split(",") if part.strip()]
        found = {name: tuple(int(number) for number in numbers.split(".")) for name, _, numbers in pairs}
        if any(len(numbers) != names.get(name) for name, numbers in found.items()):
            raise ValueError("must be like " + ", ".join(f"{name}={'.'.join('0' * n)}" for name, n in names.items()))
        return found

    return _read(name, {}, cast, "list, with commas")


def choice(name: str, default: str, options: tuple[str, ...]) -> str:
    def cast(raw: str) -> str:
        if raw not in options:
            raise ValueError("must be one of " + ", ".join(options))
        return raw

    return _read(name, default, cast, " or ".join(options))
