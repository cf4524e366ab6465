"""What a log line says besides its text: the request that caused it, and the ticket, run and provider that it is about.

They are kept in a context variable, which goes along into sync views' threads, awaited code and consumers; a job is given its
request by `background.py`. No Django in here: settings.py names the formatters before there are settings.
"""

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from pythonjsonlogger.json import JsonFormatter

_ids: ContextVar[Mapping[str, str]] = ContextVar("ids", default={})  # noqa: B039 - never changed, only replaced
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{8,64}")
_API_KEY = re.compile(r"\bdml_[A-Za-z0-9_-]{20,}")
_PASSWORD = re.compile(r"(?<=://)[^\s/@]*:[^\s/@]+(?=@)")
"""And the name before it, in an address."""
_MARK = "[secret]"
NOT_TOLD = ("request", "server_time", "color_message", "sql", "params")
"""Libraries' own fields of a record: objects, the same text again, what people have typed."""
SHORTEST = 8
"""Characters of a secret that is looked for in lines; a shorter one would be found in words."""


def ids() -> Mapping[str, str]:
    """What the code that runs now is about."""
    return _ids.get()


@contextmanager
def about(**found: object) -> Iterator[None]:
    """Lines that are logged within name these, too. None and "" are left out."""
    token = _ids.set(_joined(found))
    try:
        yield
    finally:
        _ids.reset(token)


def note(**found: object) -> None:
    """As `about`, until the request, the connection or the job ends."""
    _ids.set(_joined(found))


def _joined(found: Mapping[str, object]) -> dict[str, str]:
    return {**_ids.get(), **{name: str(value) for name, value in found.items() if value not in (None, "")}}


def request_id(headers: Iterable[tuple[bytes, bytes]] = ()) -> str:
    """The one that a proxy or a client has given, if it is well-formed; else a new one. ASGI's headers, names in lower case."""
    given = next((value.decode("latin-1") for name, value in headers if name == b"x-request-id"), "")
    return given if _WELL_FORMED.fullmatch(given) else uuid4().hex


# --- Secrets ----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def _secrets() -> tuple[str, ...]:
    """What this process was given and must not tell, the longest first."""
    names = (
        "SECRET_KEY",
        "METRICS_TOKEN",
        "EMAIL_HOST_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_S3_SECRET_ACCESS_KEY",
        "SENTRY_DSN",
    )
    found = {os.environ.get(name, "").strip() for name in names} | {_passphrase()} | _key_of_node()
    return tuple(sorted((one for one in found if len(one) >= SHORTEST), key=len, reverse=True))


def _passphrase() -> str:
    try:
        return Path(os.environ.get("KEY_PASSPHRASE_FILE", "")).read_text().strip()
    except OSError:
        return ""


def _key_of_node() -> set[str]:
    """Those who run nodes put a customer's key into the path or the query of the address."""
    try:
        parts = urlsplit(os.environ.get("CHAIN_RPC_URL", ""))
    except ValueError:
        return set()
    return {parts.path.strip("/"), parts.query, f"{parts.path.strip('/')}?{parts.query}"}


def without_secrets(text: str) -> str:
    """A text as it may be kept or sent on: what libraries put into their errors can be an address with its key."""
    for secret in _secrets():
        text = text.replace(secret, _MARK)
    return _API_KEY.sub(_MARK, _PASSWORD.sub(_MARK, text))


# --- Lines ------------------------------------------------------------------------------------------------------------
class Json(JsonFormatter):
    """One JSON object a line, for a collector of logs."""

    converter = time.gmtime

    def __init__(self) -> None:
        names = {"asctime": "time", "levelname": "level", "name": "logger", "message": "text", "exc_info": "error"}
        fields = ["asctime", "levelname", "name", "message"]
        super().__init__(fields, rename_fields=names, datefmt="%Y-%m-%dT%H:%M:%S", json_default=str)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return f"{super().formatTime(record, datefmt)}.{int(record.msecs):03}Z"

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        for name in NOT_TOLD:
            log_data.pop(name, None)
        log_data.update(ids(), process=record.process)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {name: without_secrets(value) if isinstance(value, str) else value for name, value in log_data.items()}


class Line(logging.Formatter):
    """For people: the text, and after it in brackets what it is about."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        named = " ".join(f"{name}={value}" for name, value in ids().items())
        return f"{super().formatMessage(record)} [{named}]" if named else super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def configuration(form: str, level: str) -> dict[str, Any]:
    """Django's LOGGING. Every library's lines go the one way; errors are told to the admins, too (`reports.py`)."""
    onward = {"handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "observe.logs.Json"}, "line": {"()": "observe.logs.Line"}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": form},
            "admins": {"class": "observe.reports.Handler", "level": "ERROR"},
        },
        "root": {"handlers": ["stderr", "admins"], "level": level},
        "loggers": {
            **{name: onward for name in ("django", "django.server", "uvicorn", "uvicorn.error", "daphne")},
            "uvicorn.access": {
                "handlers": [],
                "propagate": False,
            },  # with addresses; `inbound.py` has a line for each request
            "httpx": {"level": "WARNING"},
            "pika": {"level": "CRITICAL"},  # it raises all that it logs; an idle connection's end is no error
            "web3": {"level": "WARNING"},
        },
    }
