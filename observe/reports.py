"""Errors are told to the admins by mail, the same one seldom; and to Sentry, where SENTRY_DSN names one.

No text of an exception goes out, no argument and no variable: they may hold an address, a name or a key. A mail says what kind of
error it was, where in the code, and by which ids the whole is found in the log.
"""

import hashlib
import logging
import os
import threading
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.conf import settings

from observe import logs

log = logging.getLogger(__name__)
AN_HOUR = 3600
SILENT = ("ledger.alarms", "dramatiq", __name__)
"""Loggers whose errors are told otherwise: alarms have mails of their own, jobs are told of once they have failed for good."""
_sender = ThreadPoolExecutor(1, thread_name_prefix="reports")
_local = threading.local()


class Handler(logging.Handler):
    """Mails the admins what is logged as an error. Sending takes place in a thread of its own: a mail server may be slow."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(SILENT) or getattr(record, "status_code", 500) != 500:
            return
        error = record.exc_info[1] if record.exc_info else None
        tell(f"{record.name}: {str(record.msg).strip()}", error)


def job_failed(job: str, error: BaseException) -> None:
    """A job that is not tried again."""
    tell(f"job {job}", error)


def tell(what: str, error: BaseException | None) -> Future[None] | None:
    """`what` is the same for the same error, and holds no more than the code says."""
    if not (settings.ADMINS and settings.ERROR_MAILS_PER_HOUR) or getattr(_local, "telling", False):
        return None
    kind = type(error).__name__ if error else "error"
    where = _where(error) if error else []
    known = "\n".join(f"{name}: {value}" for name, value in logs.ids().items())
    text = "\n".join([what, "", f"{kind}, at", *where, "", known, "", MORE])
    return _sender.submit(_mail, f"Error: {kind}: {what}"[:120].replace("\n", " "), text, _key(what, kind, where))


MORE = (
    "The log has the rest, under the same ids. The same error is mailed again after ERROR_MAIL_MINUTES at the earliest."
)


def _where(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"  {_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]


def _short(path: str) -> str:
    return path.rpartition("site-packages" + os.sep)[2].removeprefix(f"{settings.BASE_DIR}{os.sep}")


def _key(what: str, kind: str, where: list[str]) -> str:
    return hashlib.sha256("\n".join([what, kind, *where[-1:]]).encode()).hexdigest()[:32]


def _mail(subject: str, text: str, key: str) -> None:
    _local.telling = True
    try:
        if _may(key):
            from django.core.mail import mail_admins

            mail_admins(subject, text)
    except Exception:  # the mail server, too, may be what is away
        log.exception("the admins could not be told")
    finally:
        _local.telling = False


# --- How often --------------------------------------------------------------------------------------------------------
def _may(key: str) -> bool:
    """Not the same within ERROR_MAIL_MINUTES, and not more than ERROR_MAILS_PER_HOUR, by whatever process."""
    try:
        return _counted(key)
    except Exception as error:  # whatever Redis' client raises: that it is away is worth a mail as well
        log.warning("error mails are counted in this process alone: %s", type(error).__name__)
        return _alone()


def _counted(key: str) -> bool:
    from django.core.cache import cache

    if not cache.add(f"reports:{key}", 1, settings.ERROR_MAIL_MINUTES * 60):
        return False
    hour = f"reports:{int(time.time() // AN_HOUR)}"
    cache.add(hour, 0, AN_HOUR)
    return int(cache.incr(hour)) <= settings.ERROR_MAILS_PER_HOUR


_last_alone = [float("-inf")]


def _alone() -> bool:
    if time.monotonic() - _last_alone[0] < settings.ERROR_MAIL_MINUTES * 60:
        return False
    _last_alone[0] = time.monotonic()
    return True


# --- Sentry -----------------------------------------------------------------------------------------------------------
def start_sentry(dsn: str) -> None:
    """Called by settings.py, before there is a broker: the SDK takes its place in it."""
    import sentry_sdk
    from sentry_sdk.integrations.django import DjangoIntegration
    from sentry_sdk.integrations.dramatiq import DramatiqIntegration

    sentry_sdk.init(
        dsn,
        integrations=[DjangoIntegration(), DramatiqIntegration()],
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        before_send=scrubbed,
    )


def scrubbed(event: Any, hint: Any) -> Any:
    """Without what may be about people: the request but for its method, who it was, texts of errors, arguments of log lines and jobs."""
    event["request"] = {"method": event.get("request", {}).get("method")}
    for name in ("user", "extra", "breadcrumbs", "server_name"):
        event.pop(name, None)
    event["contexts"] = {
        name: found for name, found in event.get("contexts", {}).items() if name in ("runtime", "os", "trace")
    }
    for entry in event.get("exception", {}).get("values", ()):
        entry["value"] = ""
    if "logentry" in event:
        event["logentry"] = {"message": event["logentry"].get("message", "")}  # as the code has it
    event["tags"] = dict(logs.ids())
    return event
