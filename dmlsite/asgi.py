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

from training import blobs  # noqa: E402
from training.consumers import TicketConsumer, WorkerConsumer  # noqa: E402

browsers = AllowedHostsOriginValidator(
    AuthMiddlewareStack(URLRouter([path("ws/tickets/<uuid:pk>/", TicketConsumer.as_asgi())]))
)


async def sockets(scope, receive, send):  # type: ignore[no-untyped-def]
    """Workers show an API key and no cookie; browsers show a cookie and must come from our own pages."""
    if scope["path"] == "/ws/worker/":
        return await WorkerConsumer.as_asgi()(scope, receive, send)
    return await browsers(scope, receive, send)


async def http(scope, receive, send):  # type: ignore[no-untyped-def]
    door = blobs.door if scope["path"].startswith(blobs.PREFIX) else pages
    return await door(scope, receive, send)


application = ProtocolTypeRouter({"http": http, "websocket": sockets})
