"""Threads, and with them connections to the database, for the requests of one web process: few, and used again.

Django gives each request under ASGI a thread of its own from its first byte on, which ends with it, and its connection with the thread: every page
opened a new connection, and a hundred customers at the same moment more than the database takes.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any

from asgiref.sync import ThreadSensitiveContext
from django.core.handlers.asgi import ASGIHandler
from django.db import connections

from dmlsite import jobs

MOST = 24
"""Requests that are worked at, others wait for their turn; and threads, with a connection each, that wait for requests. PostgreSQL has 100
connections unless it is told otherwise."""
TURN = 0.001
"""Seconds that a thread may compute while others wait. With Python's own 5 ms whoever asks the database a few short questions, as sockets do
for workers, waits for 24 such turns after each answer: seconds, and workers give up."""
Message = dict[str, Any]
_held: ContextVar[tuple[AsyncExitStack, AsyncExitStack]] = ContextVar("held")


class Pages(ASGIHandler):
    """Django's own, but for when a thread is taken: after the body has arrived. Slow lines take no place: neither in sending, nor in
    reading the answer."""

    def __init__(self) -> None:
        super().__init__()
        sys.setswitchinterval(TURN)
        self.places, self.free = asyncio.Semaphore(MOST), list[ThreadPoolExecutor]()

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        async with AsyncExitStack() as thread, AsyncExitStack() as place:
            _held.set((thread, place))

            async def answer(message: Message) -> None:
                await place.aclose()
                await send(message)

            await self.handle(scope, receive, answer)

    async def read_body(self, receive: Callable[[], Awaitable[Message]]) -> Any:
        body = await super().read_body(receive)
        thread, place = _held.get()
        await place.enter_async_context(self.places)
        await thread.enter_async_context(self.thread())
        return body

    @asynccontextmanager
    async def thread(self) -> AsyncIterator[None]:
        """What Django does within, it does in a thread that nobody else uses meanwhile: the one used last, whose connection is freshest."""
        one = self.free.pop() if self.free else ThreadPoolExecutor(1, "request")
        try:
            async with ThreadSensitiveContext(executor=one):
                yield
        finally:
            if len(self.free) < MOST:
                self.free.append(one)
            else:
                one.submit(hang_up)
                one.shutdown(wait=False)


def hang_up() -> None:
    """Of a thread that ends: else its connections stay, to the database until garbage is collected, to the broker for ever."""
    connections.close_all()
    jobs.hang_up()
