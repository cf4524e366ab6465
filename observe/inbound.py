"""Around every request and every socket: its id, its line in the log, its numbers and its span. ASGI, outside of Django's pages."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from observe import logs, metrics, traces

log = logging.getLogger(__name__)
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

VIEW = "dml.view"
"""In a scope: the name of the view that answers. What has none is "other": a page that there is not, a static file."""
TICKET = "dml.ticket"
"""The ticket that a request is about. In the scope, for Django answers in a task of its own, whose context is not ours."""
HUNG_UP = 499
"""The status, as nginx has it, of who went before there was an answer."""


def watched(application: Application) -> Application:
    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        watch = {"http": _request, "websocket": _socket}.get(scope["type"])
        if watch is None:
            return await application(scope, receive, send)
        request = logs.request_id(scope["headers"])
        with logs.about(request=request):
            await watch(application, scope, receive, send, request)

    return around


async def _request(application: Application, scope: Scope, receive: Receive, send: Send, request: str) -> None:
    started, status = time.perf_counter(), HUNG_UP

    async def answer(event: dict[str, Any]) -> None:
        nonlocal status
        if event["type"] == "http.response.start":
            status = event["status"]
            event = {**event, "headers": [*event.get("headers", ()), (b"x-request-id", request.encode())]}
        await send(event)

    with traces.request(scope):
        try:
            await application(scope, receive, answer)
        except Exception:
            status = 500
            raise
        finally:
            _ended(scope, status, time.perf_counter() - started)


def _ended(scope: Scope, status: int, seconds: float) -> None:
    """The address is not told: some hold a token."""
    view = scope.get(VIEW, "other")
    logs.note(ticket=scope.get(TICKET))
    metrics.HTTP.labels(view, status).observe(seconds)
    traces.answered(view, status)
    told = {"method": scope["method"], "view": view, "status": status, "ms": round(seconds * 1000)}
    log.info("%s %s %s", scope["method"], view, status, extra=told)


async def _socket(application: Application, scope: Scope, receive: Receive, send: Send, request: str) -> None:
    """A socket's id is that of all it says, and of the jobs that this orders."""
    kind = "worker" if scope["path"] == "/ws/worker/" else "page"
    came, went = (metrics.FRAMES.labels(kind, direction) for direction in ("in", "out"))
    open_ = metrics.SOCKETS.labels(kind)

    async def hear() -> dict[str, Any]:
        event = await receive()
        if event["type"] == "websocket.receive":
            came.inc()
        return event

    async def say(event: dict[str, Any]) -> None:
        if event["type"] == "websocket.send":
            went.inc()
        await send(event)

    open_.inc()
    try:
        await application(scope, hear, say)
    finally:
        open_.dec()


class NameView:
    """Tells the watch outside which view answers, and which ticket it is about."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: object, args: object, kwargs: dict[str, Any]) -> None:
        match = request.resolver_match
        if match is None or not hasattr(request, "scope"):
            return
        request.scope[VIEW] = match.view_name
        request.scope[TICKET] = ticket_of(match.route, kwargs)
        logs.note(ticket=request.scope[TICKET])


def ticket_of(route: str, kwargs: dict[str, Any]) -> object:
    """By the address alone; the parts of an upload and providers' cases have other ids."""
    return kwargs.get("ticket") or (kwargs.get("pk") if "tickets/<uuid:pk>" in route else None)
