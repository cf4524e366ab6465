"""A platform in a hundred lines, for tests of the worker: the socket and the blobs, with faults to order."""

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from dmlworker import protocol
from dmlworker.protocol import Accept, Ack, Blob, Commit, Hello, Hyper, Lease, Message, Offer, Welcome

KEY = "test-key"


class Platform:
    """Offers `offers` to every worker that says hello until they are acknowledged; keeps what it is told in `heard`."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.offers: list[Offer] = []
        self.heard: list[Message] = []
        self.requests: list[tuple[str, str, str]] = []
        self.close_with: int | None = None
        self.damage: Callable[[str, bytes], bytes] = lambda path, data: data
        self.put_statuses: list[int] = []
        self.unfinished = b""
        """What there is of an update whose upload broke."""
        self.frames: list[str] = []
        self.silent = False
        self.url = ""
        self.store = ""
        """Host and port of an object store, to which fetches are sent on: another name of this server."""
        self.shown_to_store: list[str] = []
        self.attestations: list[dict[str, str]] = []
        """What workers presented; what is said to it is in `attested`: a status and a body each, the last one again."""
        self.attested: list[tuple[int, dict[str, Any]]] = []
        self.secrets: list[str] = []
        """Shown to the socket, and with what is fetched here."""
        self._send: Callable[[dict[str, Any]], Awaitable[None]] | None = None
        self._news = asyncio.Event()

    # --- For tests ----------------------------------------------------------------------------------------------------
    def add(self, data: bytes) -> Blob:
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        self.blobs[blob.sha256] = data
        return blob

    def offer(self, spec: bytes, weights: bytes, shard: bytes, hyper: Hyper, round_: int = 1) -> Offer:
        """Puts an offer up; workers that come later hear of it."""
        lease, deadline = Lease("run-1", round_, 0, 1), int(time.time()) + 600
        made = Offer(lease, self.add(spec), self.add(weights), self.add(shard), hyper, deadline)
        self.offers.append(made)
        return made

    async def say(self, message: Message) -> None:
        assert self._send is not None
        await self._send({"type": "websocket.send", "text": protocol.encode(message)})

    async def hang_up(self, code: int = 1011) -> None:
        assert self._send is not None
        await self._send({"type": "websocket.close", "code": code})

    async def hears(self, kind: type[Message], count: int = 1, seconds: float = 180) -> Any:
        """The count-th message of a kind, as soon as it is there."""
        async with asyncio.timeout(seconds):
            while len(found := [each for each in self.heard if isinstance(each, kind)]) < count:
                self._news.clear()
                await self._news.wait()
        return found[count - 1]

    def count(self, kind: type[Message]) -> int:
        return sum(isinstance(each, kind) for each in self.heard)

    # --- The two protocols --------------------------------------------------------------------------------------------
    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        allowed = headers.get("authorization") == f"Bearer {KEY}"
        if scope["path"].startswith(protocol.ATTEST_PATH):
            return await self._attest(receive, send)
        self.secrets.append(headers.get(protocol.ATTESTED.lower(), ""))
        if scope["type"] == "websocket":
            await self._socket(receive, send, allowed and scope["path"] == protocol.SOCKET_PATH)
        else:
            await self._blob(scope, receive, send, headers, allowed)

    async def _socket(self, receive: Any, send: Any, allowed: bool) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        code = self.close_with if allowed else protocol.CLOSE_BAD_KEY
        if code:
            await send({"type": "websocket.close", "code": code, "reason": "because"})
            return
        while (event := await receive())["type"] == "websocket.receive":
            message = protocol.decode(event["text"])
            self.heard.append(message)
            self._news.set()
            await self._answer(message, send)

    async def _answer(self, message: Message, send: Any) -> None:
        if isinstance(message, Hello):
            self._send = send
            for text in self.frames:
                await send({"type": "websocket.send", "text": text})
            if not self.silent:
                await self.say(Welcome("ada", 1))
            for offer in self.offers:
                await self.say(offer)
        if isinstance(message, Commit):
            self.offers = [offer for offer in self.offers if offer.lease != message.lease]
            await self.say(Ack(message.lease, message.sha256 in self.blobs))

    async def _blob(
        self, scope: dict[str, Any], receive: Any, send: Any, headers: dict[str, str], allowed: bool
    ) -> None:
        sha256, span = scope["path"].rsplit("/", 1)[1], headers.get("range", "")
        self.requests.append((scope["method"], sha256, span))
        if self.store and scope["method"] == "GET" and headers["host"] != self.store and allowed:
            location = f"http://{self.store}{scope['path']}".encode()
            await send({"type": "http.response.start", "status": 302, "headers": [(b"location", location)]})
            await send({"type": "http.response.body"})
        elif self.store and headers["host"] == self.store:
            self.shown_to_store.append(headers.get("authorization", "") + self.secrets.pop())
            await _respond(send, 200, self.blobs[sha256])
        elif not allowed:
            await _respond(send, 403)
        elif scope["method"] in ("PUT", "PATCH"):
            offset = int(headers.get("upload-offset", 0))
            await _respond(send, await self._put(sha256, receive, self.unfinished[:offset]))
        elif scope["method"] == "HEAD":
            start = {"type": "http.response.start", "status": 200}
            await send(start | {"headers": [(b"upload-offset", str(len(self.unfinished)).encode())]})
            await send({"type": "http.response.body"})
        elif sha256 not in self.blobs:
            await _respond(send, 404)
        else:
            first = int(span.removeprefix("bytes=").removesuffix("-") or 0)
            body = self.blobs[sha256][first:]
            await _respond(send, 206 if span else 200, self.damage(sha256, body), len(body))

    async def _attest(self, receive: Any, send: Any) -> None:
        told = json.loads((await receive()).get("body") or b"{}")
        if not told:
            site = urlsplit(self.url).netloc
            return await _respond(
                send, 201, json.dumps({"id": "1", "nonce": "n", "wallet": "0x1", "site": site}).encode()
            )
        self.attestations.append(told)
        status, body = self.attested.pop(0) if len(self.attested) > 1 else self.attested[0]
        await _respond(send, status, json.dumps(body).encode())

    async def _put(self, sha256: str, receive: Any, body: bytes) -> int:
        more = True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        if self.put_statuses:
            return self.put_statuses.pop(0)
        if hashlib.sha256(body).hexdigest() != sha256:
            return 422
        known = sha256 in self.blobs
        self.blobs[sha256] = body
        return 200 if known else 201


async def _respond(send: Any, status: int, body: bytes = b"", length: int | None = None) -> None:
    """`length` beyond the body's makes a connection that breaks in the middle."""
    size = str(len(body) if length is None else length).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", size)]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving() -> AsyncIterator[Platform]:
    """A platform on a free port of the loopback, in this very event loop."""
    platform = Platform()
    listener = socket.create_server(("127.0.0.1", 0))
    platform.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(platform, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serves = asyncio.create_task(server._serve(sockets=[listener]))
    try:
        yield platform
    finally:
        server.should_exit = True
        await serves
        listener.close()


__all__ = ["KEY", "Accept", "Platform", "serving"]
