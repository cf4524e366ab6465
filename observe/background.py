"""Around every job: whose request it goes back to, how long it waited and took, what became of it. A middleware of Dramatiq's.

It is the first one, so that it sees last what the others have decided: whether a job that failed is tried again.
"""

import inspect
import threading
import time
from contextlib import ExitStack
from functools import cache
from typing import Any

import dramatiq
from dramatiq.middleware import Middleware

from observe import alive, logs, metrics, reports, traces

BEAT = 5.0
"""Seconds between two signs of life."""
IDS = {"ticket": "ticket", "case": "ticket", "run": "run"}
"""Names of jobs' arguments, and what they are in a log line."""


class Background(Middleware):
    def __init__(self) -> None:
        self._now = threading.local()

    # --- Where a job is ordered
    def before_enqueue(self, broker: dramatiq.Broker, message: Any, delay: int | None) -> None:
        """It remembers the request that ordered it, also when it is tried again; one that no request ordered begins an id."""
        message.options.setdefault("request", logs.ids().get("request") or logs.request_id())
        traces.hand_on(message.options)

    # --- Where it runs
    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        metrics.WAITED.labels(message.queue_name).observe(_waited(message))
        self._now.started, self._now.around = time.perf_counter(), ExitStack()
        known = {"request": message.options.get("request"), "job": message.actor_name}
        self._now.around.enter_context(logs.about(**known, **_ids(broker, message)))
        self._now.around.enter_context(traces.job(message))

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        failed = exception is not None and message.failed
        metrics.JOB.labels(message.actor_name).observe(time.perf_counter() - self._now.started)
        self._end(message, "failed" if failed else "retried" if exception else "done", exception)
        if failed and exception:
            reports.job_failed(message.actor_name, exception)
        self._now.around.close()

    def after_skip_message(self, broker: dramatiq.Broker, message: Any) -> None:
        self._end(message, "dropped")
        self._now.around.close()

    def _end(self, message: Any, outcome: str, error: BaseException | None = None) -> None:
        metrics.JOBS.labels(message.actor_name, outcome).inc()
        traces.failed(error)

    # --- The process
    def after_process_boot(self, broker: dramatiq.Broker) -> None:
        traces.start("jobs")
        metrics.serve()

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        threading.Thread(target=_beat, args=(worker,), name="beat", daemon=True).start()


def _waited(message: Any) -> float:
    """Seconds since it was due: it may have been delayed, or tried before."""
    due = message.options.get("eta") or message.message_timestamp
    return max(time.time() - due / 1000, 0.0)


def _ids(broker: dramatiq.Broker, message: Any) -> dict[str, object]:
    given = zip(_parameters(broker.get_actor(message.actor_name).fn), message.args, strict=False)
    return {IDS[name]: value for name, value in given if name in IDS}


@cache
def _parameters(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _beat(worker: dramatiq.Worker) -> None:
    """A sign of life for each queue, as long as all threads that take messages from it, and do them, live."""
    while all(thread.is_alive() for thread in worker.workers):
        for name, consumer in list(worker.consumers.items()):
            if consumer.is_alive():
                alive.sign(name)
        time.sleep(BEAT)
