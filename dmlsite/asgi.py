"""The one ASGI application: pages and API by Django, sockets by Channels, workers' bytes. Any ASGI server runs it."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dmlsite.settings")

import django  # noqa: E402

django.setup(set_prefix=False)

from dmlsite.threads import Pages  # noqa: E402

pages = Pages()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import path  # noqa: E402

from dmlsite.bodies import bounded  # noqa: E402
from observe import health, inbound, traces  # noqa: E402
from training import blobs  # noqa: E402
from training.consumers import TicketConsumer, WorkerConsumer  # noqa: E402

bounded_pages = bounded(pages)
browsers = AllowedHostsOriginValidator(
    AuthMiddlewareStack(URLRouter([path("ws/tickets/<uuid:pk>/", TicketConsumer.as_asgi())]))
)


async def sockets(scope, receive, send):  # type: ignore[no-untyped-def]
    """Workers show an API key and no cookie; browsers show a cookie and must come from our own pages."""
    if scope["path"] == "/ws/worker/":
        return await WorkerConsumer.as_asgi()(scope, receive, send)
    return await browsers(scope, receive, send)


async def http(scope, receive, send):  # type: ignore[no-untyped-def]
    if scope["path"].startswith(blobs.PREFIX):
        scope[inbound.VIEW] = "blob"
        return await blobs.door(scope, receive, send)
    return await bounded_pages(scope, receive, send)


traces.start("web")
users = inbound.watched(ProtocolTypeRouter({"http": http, "websocket": sockets}))


async def application(scope, receive, send):  # type: ignore[no-untyped-def]
    """Who watches the process is not counted among those who use it."""
    if scope["type"] == "http" and scope["path"] in health.DOORS:
        return await health.door(scope, send)
    return await users(scope, receive, send)
