"""Many connected workers that wait for work, for bench/scale.py: each says Hello and then only heartbeats.

python -m bench.crowd SERVER KEYS STATE      KEYS: a JSON file with API keys; STATE: a file, written anew every second
"""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from dmlworker import protocol

AT_ONCE = 50
"""Connections that are being opened at the same time."""
WELCOME_SECONDS = 15
HELLO = protocol.encode(protocol.Hello("bench", 1, "none"))
HEARTBEAT = protocol.encode(protocol.Heartbeat())


class Crowd:
    def __init__(self, server: str, keys: list[str]) -> None:
        self.socket, self.keys = f"ws{server.removeprefix('http')}{protocol.SOCKET_PATH}", keys
        self.connecting = asyncio.Semaphore(AT_ONCE)
        self.tried = self.open = 0
        self.failures: Counter[str] = Counter()
        self.begun, self.seconds = time.monotonic(), 0.0

    async def stay(self) -> None:
        await asyncio.gather(*map(self.one, self.keys))

    async def one(self, key: str) -> None:
        """A connection from its beginning to its end; there is no second one."""
        try:
            async with self.connecting:
                try:
                    socket, seconds = await self.enter(key)
                finally:
                    self.tried += 1
                    self.seconds = time.monotonic() - self.begun
            self.open += 1
            try:
                await asyncio.gather(beat(socket, seconds), listen(socket))
            finally:
                self.open -= 1
        except (OSError, WebSocketException, TimeoutError) as error:
            self.failures[f"{type(error).__name__}: {error}"[:100]] += 1

    async def enter(self, key: str) -> tuple[ClientConnection, int]:
        headers = {"Authorization": f"Bearer {key}"}
        socket = await connect(self.socket, additional_headers=headers, proxy=None, compression=None)
        await socket.send(HELLO)
        async with asyncio.timeout(WELCOME_SECONDS):
            welcome = protocol.decode(str(await socket.recv()))
        assert isinstance(welcome, protocol.Welcome), welcome
        return socket, welcome.heartbeat

    def state(self) -> str:
        names = ("tried", "open", "failures", "seconds")
        return json.dumps({name: getattr(self, name) for name in names})


async def beat(socket: ClientConnection, seconds: int) -> None:
    while True:
        await asyncio.sleep(seconds)
        await socket.send(HEARTBEAT)


async def listen(socket: ClientConnection) -> None:
    while True:
        await socket.recv()  # raises when the connection has ended


async def main(server: str, keys: Path, state: Path) -> None:
    crowd = Crowd(server, json.loads(keys.read_text()))
    staying = asyncio.create_task(crowd.stay())
    while not staying.done():
        await asyncio.sleep(1)
        written = state.with_suffix(".new")
        written.write_text(crowd.state())
        written.replace(state)
    await staying


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
