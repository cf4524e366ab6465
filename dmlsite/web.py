"""A web process that accepts from a socket which its parent listens on, as others beside it may.

python -m dmlsite.web DESCRIPTOR

Uvicorn's own `--fd` takes every such socket for a unix one, which leaves small answers to TCP's delays.
"""

import socket
import sys

import uvicorn

from dmlworker.protocol import MAX_FRAME

FRAME = 4 * MAX_FRAME
"""Bytes of a WebSocket's message that are read: a little more than the protocol takes, so that it can say so."""

PATIENCE = 10
"""Seconds in which requests are ended when the process is told to stop. Redis' client swallows a cancellation at times, and a socket's task
would be waited for without end."""


def main(descriptor: int) -> None:
    # Compressing tensors costs ten times what it saves.
    wanted = {
        "ws_per_message_deflate": False,
        "ws_max_size": FRAME,
        "lifespan": "off",
        "access_log": False,
        "timeout_graceful_shutdown": PATIENCE,
    }
    config = uvicorn.Config("dmlsite.asgi:application", **wanted)  # type: ignore[arg-type]
    uvicorn.Server(config).run([socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
