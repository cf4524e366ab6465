"""What `dml login` keeps: the platform's address, the key, and where payments go. A file that its owner alone can read."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dmlclient.errors import DataError
from dmlclient.records import Terms


@dataclass(frozen=True)
class Config:
    """terms: as they were when one logged in; a payment to somewhere else is not signed."""

    url: str
    key: str = field(repr=False)
    terms: Terms | None = None


def path() -> Path:
    """DML_CONFIG, or the place that the system has for such files."""
    if named := os.environ.get("DML_CONFIG"):
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "dml" / "client.json"


def save(config: Config) -> Path:
    """Never readable by others, not for a moment."""
    place = path()
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(config), file)
    os.replace(draft, place)
    return place


def load() -> Config:
    """DML_URL and DML_KEY, both of them, go before the file. Raises DataError if there is nothing, or nothing that can be read."""
    url, key = os.environ.get("DML_URL"), os.environ.get("DML_KEY")
    if url and key:
        return Config(url, key)
    try:
        said = json.loads(path().read_text())
        return Config(said["url"], said["key"], Terms(**said["terms"]) if said["terms"] else None)
    except FileNotFoundError:
        raise DataError("Not logged in: run dml login, or set DML_URL and DML_KEY.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path()} can't be read: {error}") from None
