"""A web process that accepts from a socket which its parent listens on, as others beside it may.

python -m dmlsite.web DESCRIPTOR

Uvicorn's own `--fd` takes every such socket for a unix one, which leaves small answers to TCP's delays.
"""

import socket
import sys

import uvicorn


def main(descriptor: int) -> None:
    # Compressing tensors costs ten times what it saves.
    wanted = {"ws_per_message_deflate": False, "lifespan": "off", "access_log": False}
    config = uvicorn.Config("dmlsite.asgi:application", **wanted)  # type: ignore[arg-type]
    uvicorn.Server(config).run([socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
