"""A line between a worker and the platform that breaks: a TCP proxy which drops connections, or holds frames back.

with Link(port) as link:
    link.flap(1.0)
    Worker(Settings(link.url, …)) …
"""

import asyncio
import re
import threading
from types import TracebackType
from typing import Self

UPLOAD = re.compile(rb"^PUT /worker/blobs/([0-9a-f]{64})")
CHUNK = 1 << 16


class Link:
    """Listens on a free loopback port while its context is open. Its faults may change at any time, from any thread.

    `cuts` counts connections that it ended, `stored` lists the blobs whose upload the platform has answered.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.cuts = 0
        self.stored: list[str] = []
        self._upstream = port
        self._seconds: float | None = None
        self._lines: set[_Line] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="link", daemon=True)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    # --- faults

    def flap(self, seconds: float) -> None:
        """From now on, every connection ends so long after it began."""
        self._seconds = seconds
        self.cut()

    def hold(self) -> None:
        """What the worker says on its WebSocket gets no further; the platform's words and all other bytes do."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._flowing.set)

    def mend(self) -> None:
        """No fault any more, and none on record."""
        self._seconds, self.cuts = None, 0
        self.stored.clear()
        self.release()

    def cut(self) -> None:
        """End the connections of this moment; what was held back is lost."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for line in list(self._lines):
            line.cut()

    # --- in the loop

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over, self._flowing = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        self._flowing.set()
        while self._lines:
            self._cut()
            await asyncio.sleep(0.01)

    async def _serve(self, worker: asyncio.StreamReader, to_worker: asyncio.StreamWriter) -> None:
        line = _Line(to_worker)
        self._lines.add(line)
        try:
            platform, to_platform = await asyncio.open_connection("127.0.0.1", self._upstream)
            line.writers.append(to_platform)
            if self._seconds is not None:
                self._loop.call_later(self._seconds, line.cut)
            await asyncio.gather(self._ask(line, worker, to_platform), self._answer(line, platform, to_worker))
        except OSError:
            pass
        finally:
            self._lines.discard(line)
            self.cuts += line.was_cut
            line.abort()

    async def _ask(self, line: "_Line", worker: asyncio.StreamReader, to_platform: asyncio.StreamWriter) -> None:
        socket = False
        while data := await worker.read(CHUNK):
            socket = socket or data.startswith(b"GET /ws/")
            if upload := UPLOAD.match(data):
                line.upload = upload[1].decode()
            if socket:
                await self._flowing.wait()
            to_platform.write(data)
            await to_platform.drain()
        line.end()

    async def _answer(self, line: "_Line", platform: asyncio.StreamReader, to_worker: asyncio.StreamWriter) -> None:
        while data := await platform.read(CHUNK):
            if line.upload and data.startswith(b"HTTP/1.1 20"):
                self.stored.append(line.upload)
                line.upload = ""
            to_worker.write(data)
            await to_worker.drain()
        line.end()


class _Line:
    """One connection, from end to end."""

    def __init__(self, to_worker: asyncio.StreamWriter) -> None:
        self.writers = [to_worker]
        self.upload = ""
        self.was_cut = False

    def cut(self) -> None:
        self.was_cut = True
        self.abort()

    def abort(self) -> None:
        """As a pulled cable: nothing that is under way arrives any more."""
        for writer in self.writers:
            writer.transport.abort()

    def end(self) -> None:
        """One side has hung up: so does the line, after what is under way."""
        for writer in self.writers:
            writer.close()
