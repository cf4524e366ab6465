"""What worker and platform say to each other: small JSON text frames over one WebSocket. Standard library only.

Tensors never travel here: frames name blobs by SHA-256, and the bytes go over HTTP from the same host
(`GET` and `PUT` of `blob_path(sha256)`, `Authorization: Bearer KEY`; see docs/decisions/worker-protocol.md).

A conversation: Hello, Welcome, then for every lease Offer, Accept (or Decline), Progress ..., Commit, Ack. Some work is
audited: Challenge, Reveal. What was kept for that is let go at Release. The platform repeats Offers and Challenges after a
reconnect; a repeated Commit with the same hash is answered with the same Ack.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

VERSION = 6
SOCKET_PATH = "/ws/worker/"
MAX_FRAME = 16 * 1024
"""Bytes of UTF-8 in one frame, at most. Far above any real one, far below what would hurt."""
COMPRESSIONS = ("none", "fp16", "int8")
OPTIMIZERS = ("sgd", "momentum", "adam")
MAX_TEXT = 500
"""Characters in any text field, at most."""

CLOSE_BAD_KEY = 4401
"""WebSocket close code: no provider has this key."""
CLOSE_BANNED = 4403
"""WebSocket close code: the provider is banned, or not (or no longer) in standing."""
CLOSE_TOO_OLD = 4426
"""WebSocket close code: the peer speaks a version that we no longer do."""


class ProtocolError(ValueError):
    """A frame that is not what this protocol allows. The text says why and is fit for a log or a close reason."""


class VersionMismatch(ProtocolError):
    """A frame of another protocol version. `theirs` is that version."""

    def __init__(self, theirs: int) -> None:
        super().__init__(f"protocol version {theirs} is not spoken here, only version {VERSION}")
        self.theirs = theirs


def blob_path(sha256: str) -> str:
    """The path, on the platform's host, from which a blob is fetched (GET, Range) and to which it is sent (PUT)."""
    return f"/worker/blobs/{sha256}"


SIGNED_SECONDS = 24 * 3600
"""Life of a signed sign-in, at most."""


def sign_in_text(site: str, wallet: str, expires: int) -> str:
    """What a provider's wallet signs (EIP-191) to show that a worker is its own; `site`: host and port of the platform, so
    that nobody can pass the signature on to another; expires: Unix seconds. Shown as `wallet:<wallet>:<expires>:<signature>`
    in place of an API key."""
    return f"DML worker sign-in\nSite: {site}\nWallet: {wallet}\nExpires: {expires}"


ATTEST_PATH = "/api/v1/provider/attestations"
ATTESTED = "DML-Attestation-Secret"
"""The header in which an attested worker shows its secret, to the socket and for blobs."""


def session_of(secret: str) -> str:
    """What the platform keeps of the secret that a worker drew when it started and that never leaves its memory otherwise."""
    return hashlib.sha256(secret.encode()).hexdigest()


def attestation_data(site: str, nonce: str, wallet: str, session: str) -> bytes:
    """The 64 bytes that an attestation report has to have in it (REPORT_DATA). site: host and port of the platform; nonce: the platform's;
    wallet: the provider's; session: `session_of` the worker's secret. So a report is for one platform, one provider, one running
    worker, and for now."""
    text = f"DML attestation\nSite: {site}\nNonce: {nonce}\nWallet: {wallet}\nSession: {session}"
    return hashlib.sha512(text.encode()).digest()


@dataclass(frozen=True)
class Lease:
    """The right to train one shard in one round. Rounds and attempts count from 1, shards from 0; run is an id."""

    run: str
    round: int
    shard: int
    attempt: int

    def __post_init__(self) -> None:
        _require(0 < len(self.run) <= 64, "run must have 1 to 64 characters")
        for name in ("round", "shard", "attempt"):
            _require(0 <= getattr(self, name) < 2**31, f"{name} must be from 0 to 2^31 - 1")


@dataclass(frozen=True)
class Blob:
    """Bytes known by their SHA-256 (64 lower-case hexadecimal digits); `size` in bytes."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        _require(re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None, "sha256 must be 64 lower-case hex digits")
        _require(0 <= self.size < 2**40, "size must be from 0 to 2^40 - 1")


@dataclass(frozen=True)
class Hyper:
    """All that a worker might choose and does not: passes over the shard, rows a step, step length, sample order.

    `proximal`: FedProx' mu, the pull back to the start weights; 0 for none. `compression`: how the update is sent, of
    COMPRESSIONS (see compression.py). `checkpoint_every`: steps of a segment, between two checkpoints (see trace.py). `clip`: the norm
    that a step's gradient has at most, over all weights; 0 for any. `optimizer`: of OPTIMIZERS (see optimizers.py)."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    proximal: float = 0.0
    compression: str = "none"
    checkpoint_every: int = 5
    clip: float = 0.0
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        _require(1 <= self.epochs <= 1000, "epochs must be from 1 to 1000")
        _require(1 <= self.batch_size <= 65536, "batch_size must be from 1 to 65536")
        _require(math.isfinite(self.learning_rate) and self.learning_rate > 0, "learning_rate must be above 0")
        _require(0 <= self.seed < 2**63, "seed must be from 0 to 2^63 - 1")
        _require(0 <= self.proximal <= 100, "proximal must be from 0 to 100")
        _require(self.compression in COMPRESSIONS, f"compression must be one of {', '.join(COMPRESSIONS)}")
        _require(1 <= self.checkpoint_every < 2**31, "checkpoint_every must be from 1 to 2^31 - 1")
        _require(0 <= self.clip <= 1000, "clip must be from 0 to 1000")
        _require(self.optimizer in OPTIMIZERS, f"optimizer must be one of {', '.join(OPTIMIZERS)}")


def order_seed(seed: int, round_: int, shard: int) -> int:
    """The sample order of one lease, from the run's seed: a provider has no choice that could be tuned."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{round_}:{shard}".encode()).digest()[:4])


@dataclass(frozen=True)
class Hello:
    """Worker, first frame: its software ("dml-worker 0.1.0"), the threads it trains with, its device ("CPU")."""

    software: str
    threads: int
    device: str = "CPU"

    def __post_init__(self) -> None:
        _require(1 <= self.threads <= 4096, "threads must be from 1 to 4096")


@dataclass(frozen=True)
class Welcome:
    """Platform: who the key belongs to, and the seconds between two Heartbeats."""

    provider: str
    heartbeat: int

    def __post_init__(self) -> None:
        _require(1 <= self.heartbeat <= 3600, "heartbeat must be from 1 to 3600 seconds")


@dataclass(frozen=True)
class Offer:
    """Platform: train this. `spec`: the model as JSON; `weights`, `shard`: safetensors; `deadline`: Unix seconds."""

    lease: Lease
    spec: Blob
    weights: Blob
    shard: Blob
    hyper: Hyper
    deadline: int

    def __post_init__(self) -> None:
        _require(0 <= self.deadline < 2**40, "deadline must be in Unix seconds")


@dataclass(frozen=True)
class Accept:
    """Worker: the lease is taken; work begins."""

    lease: Lease


@dataclass(frozen=True)
class Decline:
    """Worker: the lease can't be served (disk full, model refused, ...); best given to someone else at once."""

    lease: Lease
    reason: str


@dataclass(frozen=True)
class Progress:
    """Worker, at most twice a second: `step` of `steps` done, mean loss of the current epoch so far (a report, no proof)."""

    lease: Lease
    step: int
    steps: int
    loss: float

    def __post_init__(self) -> None:
        _require(0 <= self.step <= self.steps < 2**40, "step must be from 0 to steps")


@dataclass(frozen=True)
class Commit:
    """Worker: the update is stored on the platform under this hash. `root`: of the training's trace (trace.py). `joules`, and `gpu`,
    the share of the time that a GPU was at work (0 to 1), are reports, no proof; 0: not known."""

    lease: Lease
    sha256: str
    size: int
    root: str
    joules: float = 0.0
    gpu: float = 0.0

    def __post_init__(self) -> None:
        Blob(self.sha256, self.size)
        Blob(self.root, 0)
        _require(self.joules >= 0, "joules must not be below 0")
        _require(0 <= self.gpu <= 1, "gpu must be from 0 to 1")


@dataclass(frozen=True)
class Ack:
    """Platform: the Commit is durably recorded (ok), or refused for `reason`."""

    lease: Lease
    ok: bool
    reason: str = ""


@dataclass(frozen=True)
class Cancel:
    """Platform: stop the work on this lease; its result is no longer wanted."""

    lease: Lease
    reason: str = ""


@dataclass(frozen=True)
class Challenge:
    """Platform: show the trace with this root of the work that `offer` was, and the weights around these segments (numbers from
    0), around the one with the largest change, and around the last one. Blobs that the offer names, and the update, are here."""

    offer: Offer
    root: str
    segments: tuple[int, ...]

    def __post_init__(self) -> None:
        Blob(self.root, 0)
        _require(all(number >= 0 for number in self.segments), "segments count from 0")


@dataclass(frozen=True)
class Reveal:
    """Worker: the trace is stored on the platform under this hash, and so are the weights that were asked for."""

    lease: Lease
    trace: str

    def __post_init__(self) -> None:
        Blob(self.trace, 0)


@dataclass(frozen=True)
class Release:
    """Platform: this work will not be asked about any more; what was kept of it can go."""

    lease: Lease


@dataclass(frozen=True)
class Heartbeat:
    """Worker: alive. Sent whatever the training thread is doing."""


Message = (
    Hello
    | Welcome
    | Offer
    | Accept
    | Decline
    | Progress
    | Commit
    | Ack
    | Cancel
    | Challenge
    | Reveal
    | Release
    | Heartbeat
)

_TYPES: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in Message.__args__}


def encode(message: Message) -> str:
    """The frame of a message: `{"v":6,"type":"accept",...}`, no spaces, fields in the order of the class.

    Raises ProtocolError if a value is not of its field's type or the frame would be too long.
    """
    kind = type(message)
    if _TYPES.get(kind.__name__.lower()) is not kind:
        raise ProtocolError(f"{kind.__name__} is no message")
    body = _plain(message)
    _build(kind, body, kind.__name__.lower())
    text = json.dumps({"v": VERSION, "type": kind.__name__.lower(), **body}, separators=(",", ":"), allow_nan=False)
    _require(len(text) <= MAX_FRAME, f"frame over {MAX_FRAME} bytes")
    return text


def decode(text: str) -> Message:
    """The message in a frame.

    Raises VersionMismatch for another version, ProtocolError for anything else that is not exactly a message:
    too long, no JSON object, unknown type, a field missing, unknown, of the wrong type or out of range.
    """
    body = _parse(text)
    version = body.pop("v", None)
    if type(version) is not int:
        raise ProtocolError("v must be a whole number")
    if version != VERSION:
        raise VersionMismatch(version)
    name = body.pop("type", None)
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError("unknown type of message")
    message: Message = _build(kind, body, str(name))
    return message


def nesting(text: str) -> int:
    """How deep the brackets of a JSON text go at most, those inside strings counted too.

    To be asked before `json.loads`: Python's parser recurses in C, and a text that is deep enough ends the process
    wherever a library has raised the recursion limit.
    """
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ProtocolError(otherwise)


def _parse(text: str) -> dict[str, Any]:
    if not isinstance(text, str):
        raise ProtocolError("frames are text, not binary")
    # A character is at least a byte: this spares encoding what is too long in any case.
    if len(text) > MAX_FRAME or len(text.encode("utf-8", "surrogatepass")) > MAX_FRAME:
        raise ProtocolError(f"frame over {MAX_FRAME} bytes")
    # Lease in offer in challenge: three; and a text field may be full of brackets.
    _require(nesting(text) <= 3 + MAX_TEXT, "nested too deep")
    try:
        body = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except ProtocolError:
        raise
    except (ValueError, RecursionError):
        raise ProtocolError("not JSON") from None
    if not isinstance(body, dict):
        raise ProtocolError("not a JSON object")
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    _require(len(body) == len(pairs), "a name occurs twice")
    return body


def _refuse_constant(name: str) -> float:
    raise ProtocolError(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def _build(kind: type[Any], body: Any, where: str) -> Any:
    """An instance of the dataclass `kind` from a JSON object that has exactly its fields."""
    _require(isinstance(body, dict), f"{where} must be an object")
    hints = get_type_hints(kind)
    _require(body.keys() == hints.keys(), f"{where} must have exactly the fields: {', '.join(hints) or 'none'}")
    return kind(**{name: _value(hint, body[name], f"{where}.{name}") for name, hint in hints.items()})


def _value(hint: type[Any], value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, value, where)
    if hint is float:
        return _real(value, where)
    if hint == tuple[int, ...]:
        _require(type(value) is list, f"{where} must be a list")
        return tuple(_value(int, each, where) for each in value)
    # Exact types: to Python, True is also an int.
    _require(type(value) is hint, f"{where} must be {_NAMES[hint]}")
    return _text(value, where) if hint is str else value


_NAMES = {str: "text", int: "a whole number", bool: "true or false"}


def _real(value: Any, where: str) -> float:
    _require(type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value), f"{where} must be a number")
    return float(value)


def _text(value: str, where: str) -> str:
    _require(len(value) <= MAX_TEXT, f"{where} is over {MAX_TEXT} characters")
    _require(not any("\ud800" <= char <= "\udfff" for char in value), f"{where} is not valid Unicode")
    return value
