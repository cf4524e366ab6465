"""A node with faults: it passes JSON-RPC on to a real one, as far as it is told to.

with Proxy(devchain.url) as proxy:
    proxy.fail(0.7, seed=1)
    Chain(connect(proxy.url), deployment) …
"""

from __future__ import annotations

import json
import random
import threading
import urllib.error
import urllib.request
from collections import Counter
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

FAULTS = ("refused", "cut", "unanswered")
"""HTTP 502, the node hears nothing; the connection ends, the node hears nothing; the node hears it, and the connection
ends: nobody knows what it said."""

HOLD = 5.0
"""Seconds for which a swallowed call is held before the connection ends."""

CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Refused(Exception):
    """To be answered with HTTP 502."""


class Cut(Exception):
    """Not to be answered: the connection ends."""


class Proxy:
    """Serves on a free loopback port while its context is open; then every connection ends. Faults may change at any
    time, from any thread. `calls` counts what arrived, by method, whatever became of it."""

    def __init__(self, upstream: str) -> None:
        self.calls: Counter[str] = Counter()
        self._upstream = upstream
        self._rate, self._chance = 0.0, random.Random(0)
        self._swallowed: frozenset[str] = frozenset()
        self._frozen: str | None = None
        self._range: int | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    # --- faults

    def fail(self, rate: float, seed: int = 0) -> None:
        """This share of the calls fails from now on, in one of three ways (FAULTS); the same calls for the same seed."""
        with self._lock:
            self._rate, self._chance = rate, random.Random(seed)

    def swallow(self, *methods: str) -> None:
        """The node hears calls of these methods, and nobody ever hears what it says. None: of no method any more."""
        self._swallowed = frozenset(methods)

    def freeze_finalized(self) -> None:
        """The block that is final now stays the last final one."""
        self._frozen = self._block("finalized")

    def thaw(self) -> None:
        self._frozen = None

    def limit_range(self, blocks: int | None) -> None:
        """Refuse the logs of more blocks than that at a time. None: of as many as one likes."""
        self._range = blocks

    def switch(self, upstream: str) -> None:
        """Serve another node from now on, and say nothing."""
        self._upstream = upstream

    # --- one call

    def answer(self, call: Any) -> Any:
        """What the node says to a call, or to a batch of them. Raises Refused and Cut."""
        if isinstance(call, list):
            return [self.answer(one) for one in call]
        method, fault = call["method"], self._fault(call["method"])
        if fault == "refused":
            raise Refused
        if fault == "cut" or self._over.is_set():
            raise Cut
        said = self._refusal(call) or self._ask({**call, "params": _at(self._frozen, call.get("params", []))})
        if method in self._swallowed:
            self._over.wait(HOLD)
            raise Cut
        if fault == "unanswered":
            raise Cut
        return said

    def _fault(self, method: str) -> str:
        with self._lock:
            self.calls[method] += 1
            return self._chance.choice(FAULTS) if self._chance.random() < self._rate else ""

    def _refusal(self, call: dict[str, Any]) -> dict[str, Any] | None:
        limit = self._range
        if limit is None or call["method"] != "eth_getLogs" or "blockHash" in call["params"][0]:
            return None
        first, last = (self._block(call["params"][0].get(end, "latest")) for end in ("fromBlock", "toBlock"))
        if int(last, 16) - int(first, 16) < limit:
            return None
        return {"id": call["id"], "jsonrpc": "2.0", "error": {"code": -32602, "message": "block range is too wide"}}

    def _block(self, tag: str) -> str:
        """The number of a block that is named by its number or by a tag."""
        if tag.startswith("0x"):
            return tag
        call = {"id": 1, "jsonrpc": "2.0", "method": "eth_getBlockByNumber", "params": [tag, False]}
        return str(self._ask(call)["result"]["number"])

    def _ask(self, call: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        try:
            with _direct.open(
                urllib.request.Request(self._upstream, json.dumps(call).encode(), headers), timeout=30
            ) as it:
                return dict(json.loads(it.read()))
        except (OSError, HTTPException, ValueError) as error:
            raise Refused from error


def _at(frozen: str | None, value: Any) -> Any:
    """Parameters in which "finalized" is the frozen block, wherever it stands."""
    if frozen is None:
        return value
    if isinstance(value, list):
        return [_at(frozen, one) for one in value]
    if isinstance(value, dict):
        return {key: _at(frozen, one) for key, one in value.items()}
    return frozen if value == "finalized" else value


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = (
            True  # head and body are two packets: the second must not wait for the first's receipt
        )

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                self._say(200, json.dumps(proxy.answer(json.loads(body))).encode())
            except Refused:
                self._say(502, b"{}")
            except (Cut, OSError):  # OSError: it was the caller who ended the connection
                self.close_connection = True

        def do_OPTIONS(self) -> None:
            self._say(200, b"")

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **CORS}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
