"""A node with faults: it passes JSON-RPC on to a real one, as far as it is told to."""

from __future__ import annotations

import json
import random
import threading
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

REFUSED, CUT, UNANSWERED = "refused", "cut", "unanswered"
"""An HTTP 502; the connection ends before the node has heard; the node has heard, and the connection ends."""


class Proxy:
    """Serves on a free loopback port while its context is open. Faults may change at any time."""

    def __init__(self, upstream: str) -> None:
        self.calls: Counter[str] = Counter()
        self._upstream = upstream
        self._rate, self._chance = 0.0, random.Random(0)
        self._swallowed: set[str] = set()
        self._frozen: Any = None
        self._range: int | None = None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
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
        self._server.shutdown()
        self._server.server_close()

    # --- faults

    def fail(self, rate: float, seed: int = 0) -> None:
        """This share of the calls fails from now on, in one of three ways."""
        with self._lock:
            self._rate, self._chance = rate, random.Random(seed)

    def swallow(self, method: str) -> None:
        """The node hears calls of this method, and nobody ever hears what it says."""
        self._swallowed.add(method)

    def freeze_finalized(self) -> None:
        """The block that is final now stays the last final one."""
        self._frozen = self._ask(
            {"id": 1, "jsonrpc": "2.0", "method": "eth_getBlockByNumber", "params": ["finalized", False]}
        )

    def thaw(self) -> None:
        self._frozen = None

    def limit_range(self, blocks: int | None) -> None:
        """Refuse the logs of more blocks than that at a time."""
        self._range = blocks

    def switch(self, upstream: str) -> None:
        """Serve another node from now on, and say nothing."""
        self._upstream = upstream

    # --- one call

    def answer(self, call: dict[str, Any]) -> dict[str, Any] | None:
        """What the node says; None to end the connection without a word. Raises OSError for a 502."""
        method = str(call.get("method"))
        fault = self._fault()
        with self._lock:
            self.calls[method] += 1
        if fault == REFUSED:
            raise OSError("refused")
        if fault == CUT:
            return None
        if refusal := self._refusal(call):
            return refusal
        said = self._frozen_or_asked(call)
        return None if fault == UNANSWERED or method in self._swallowed else said

    def _fault(self) -> str:
        with self._lock:
            if self._chance.random() >= self._rate:
                return ""
            return self._chance.choice([REFUSED, CUT, UNANSWERED])

    def _refusal(self, call: dict[str, Any]) -> dict[str, Any] | None:
        if self._range is None or call["method"] != "eth_getLogs":
            return None
        asked = call["params"][0]
        if int(asked["toBlock"], 16) - int(asked["fromBlock"], 16) < self._range:
            return None
        return {"id": call["id"], "jsonrpc": "2.0", "error": {"code": -32602, "message": "block range is too wide"}}

    def _frozen_or_asked(self, call: dict[str, Any]) -> dict[str, Any]:
        if self._frozen is None:
            return self._ask(call)
        if call["method"] == "eth_getBlockByNumber" and call["params"][0] == "finalized":
            return {**self._frozen, "id": call["id"]}
        number = self._frozen["result"]["number"]
        return self._ask({**call, "params": [number if value == "finalized" else value for value in call["params"]]})

    def _ask(self, call: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._upstream, json.dumps(call).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.loads(answer.read()))


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                said = proxy.answer(json.loads(body))
            except OSError:
                return self._say(502, b"{}")
            if said is None:
                self.close_connection = True
                return None
            return self._say(200, json.dumps(said).encode())

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
