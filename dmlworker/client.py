"""The worker's connection: says hello, takes leases, fetches, trains, sends, commits; and comes back after every break.

One asyncio loop talks, heartbeats included; training runs in a thread beside it, so the loop answers whatever the
arithmetic does. Nothing is remembered between connections but what is on disk: the platform repeats its offers.
"""

import asyncio
import contextlib
import hashlib
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from dmlworker import __version__, backends, bounds, compression, datasets, protocol, spans
from dmlworker.attested import Attested
from dmlworker.cache import MAX_BYTES, Cache, blob_of
from dmlworker.checkpoints import Checkpoints
from dmlworker.display import Display, named
from dmlworker.energy import Meter, Used, nvml
from dmlworker.protocol import (
    Ack,
    Blob,
    Cancel,
    Challenge,
    Hyper,
    Lease,
    Offer,
    ProtocolError,
    VersionMismatch,
    Welcome,
)
from dmlworker.snp import AttestationError
from dmlworker.trace import Recorder, Trace, steps_of
from dmlworker.transfer import backoff, fetch, fetch_once, send
from dmlworker.wallet import Wallet
from dmlworker.weights import Bytes, pieces, unpack

SECONDS_BETWEEN_REPORTS = 0.5
"""Progress goes out at most this often."""
STEADY_SECONDS = 10.0
"""A welcomed connection that held this long was a good one: the next break starts the back-off from its beginning."""
WELCOME_SECONDS = 15.0
"""A platform that has not answered Hello by then has lost us, on its way down or up: another connection fares better."""
LONGEST_WAIT = 60.0
WELCOMED_WAIT = 3.0
"""The longest wait after a connection that was welcomed: the platform is there, it is the line that does not hold."""

MAX_WAITING = 1000
"""Offers, and audits, that wait for their turn."""
MAX_SENT = 1000
"""Commits whose release is waited for."""
WORTH_KEEPING = 2.0
"""Seconds of training; the result of less is not written down for another time: it would be had sooner again than read."""

Weights = list[np.ndarray]
Result = TypeVar("Result")


class Files(NamedTuple):
    """What an offer names: the model as JSON, start weights and shard as safetensors, the shard on the disk."""

    spec: bytes
    weights: Bytes
    shard: Path


class Refused(Exception):
    """The platform does not want this worker, and coming back won't change that; the text is for the provider."""


class _Stopped(Exception):
    """The work in hand is no longer wanted."""


@dataclass(frozen=True)
class Settings:
    """Where to work, as whom (by an API key, or by a wallet), and with how much of this computer. cache: a folder; each
    provider gets its own inside, of so many bytes (`disk`). backend: one of `backends.LIBRARIES`."""

    server: str
    key: str = field(repr=False)
    cache: Path
    threads: int
    wallet: Wallet | None = None
    backend: str = backends.DEFAULT
    disk: int = MAX_BYTES
    attested: Attested | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.server!r} is no address of a platform; it looks like https://dml.example.org")
        good = self.key.isascii() and self.key.isprintable() and self.key and " " not in self.key
        if not good and not self.wallet:
            raise ValueError("That is no API key. The provider page shows it once, when you join.")

    @property
    def socket(self) -> str:
        """The address of the WebSocket: ws for http, wss for https."""
        return f"ws{self.server.removeprefix('http').rstrip('/')}{protocol.SOCKET_PATH}"

    @property
    def local(self) -> bool:
        """Whether the platform is on this very computer, where no proxy is asked and plain HTTP is safe."""
        host = urlsplit(self.server).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def authorization(self) -> dict[str, str]:
        """Asked for at every request: a wallet's signature runs out."""
        token = self.wallet.token(self.site) if self.wallet else self.key
        secret = {protocol.ATTESTED: self.attested.secret} if self.attested else {}
        return {"Authorization": f"Bearer {token}"} | secret

    @property
    def site(self) -> str:
        """Host and port of the platform."""
        return urlsplit(self.server).netloc

    @property
    def folder(self) -> Path:
        """The cache of this provider on this platform."""
        owner = self.wallet.address if self.wallet else self.key
        return self.cache / hashlib.sha256(f"{self.server} {owner}".encode()).hexdigest()[:16]


class Worker:
    """One provider's worker. `run` returns after `stop`, or raises Refused."""

    def __init__(self, settings: Settings, display: Display) -> None:
        self._settings, self._display = settings, display
        self._cache = Cache(settings.folder)
        self._cache.prune(self._settings.disk)
        self._socket: ClientConnection | None = None
        self._waiting: dict[Lease, Offer] = {}
        self._challenges: asyncio.Queue[Challenge] = asyncio.Queue()
        self._sent: dict[Lease, Offer] = {}
        self._start: tuple[Blob | None, Bytes] = None, b""
        self._current: Lease | None = None
        self._steps = 0
        self._drop = threading.Event()
        self._stopping = asyncio.Event()
        self._work_came = asyncio.Event()
        self._warm, self._device = asyncio.Event(), "CPU"
        self._proven = asyncio.Event()
        self._gpus: Any = None
        self._meter, self._used = Meter(), Used()
        self._reporting: asyncio.Task[None] | None = None
        self._trainer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trainer")

    # --- Life ---------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Connects and works until `stop`. Raises Refused if the platform does not want this worker."""
        async with self._http() as http:
            lives = [self._stay_connected(), self._work(http), self._answer(http), self._stopping.wait()]
            lives += [self._stay_attested(http, self._settings.attested)] if self._settings.attested else []
            tasks = [asyncio.create_task(life) for life in lives]
            try:
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._drop.set()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._trainer.shutdown(wait=False, cancel_futures=True)
        for task in ended:
            task.result()

    def stop(self) -> None:
        """Ends `run`: the connection is closed, the work in hand dropped. To be called in the loop's thread."""
        self._stopping.set()

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._settings.server,
            auth=self._authorized,
            follow_redirects=True,  # to the platform's object store, which does not get to see the key, nor the secret
            event_hooks={"request": [self._keep_secret]},
            timeout=httpx.Timeout(60, connect=10),
            trust_env=not self._settings.local,
        )

    def _authorized(self, request: httpx.Request) -> httpx.Request:
        request.headers.update(self._settings.authorization)
        return request

    async def _keep_secret(self, request: httpx.Request) -> None:
        if request.url.netloc.decode() != self._settings.site:
            request.headers.pop(protocol.ATTESTED, None)

    # --- Attestation --------------------------------------------------------------------------------------------------
    async def _stay_attested(self, http: httpx.AsyncClient, attested: Attested) -> None:
        """Proves what this worker runs in, before it connects and again in time. Raises Refused if the platform does not believe it."""
        failed = 0
        while True:
            try:
                wait = await attested.present(http, self._settings.site)
            except AttestationError as error:
                raise Refused(f"Not attested: {error}") from error
            except httpx.HTTPError as error:
                wait, failed = backoff(failed, LONGEST_WAIT), failed + 1
                self._display.say(f"Can't attest ({_plain(error)}); trying again in {wait:.1f} s")
            else:
                failed = 0
                self._proven.set()
                self._display.say(f"Attested; again in {wait / 3600:.1f} h")
            await asyncio.sleep(wait)

    # --- The connection -----------------------------------------------------------------------------------------------
    async def _stay_connected(self) -> None:
        attempt = 0
        await self._warm.wait()
        if self._settings.attested:
            await self._proven.wait()
        while True:
            began = time.monotonic()
            reason = await self._one_connection()
            welcomed, self._socket = self._socket is not None, None
            longest = WELCOMED_WAIT if welcomed else LONGEST_WAIT
            attempt = 0 if welcomed and time.monotonic() - began > STEADY_SECONDS else attempt + 1
            wait = backoff(attempt, longest)
            self._display.say(f"{reason}; trying again in {wait:.1f} s")
            await asyncio.sleep(wait)

    async def _one_connection(self) -> str:
        """One connection from beginning to end; returns why it ended. Raises Refused if there should be no other."""
        try:
            async with self._connect() as socket:
                return await self._talk(socket)
        except InvalidStatus as error:
            return _handshake_refused(error.response.status_code, self._settings.server)
        except InvalidURI as error:
            raise Refused(f"{self._settings.server} is no address of a platform") from error
        except ConnectionClosed as error:
            return _closed(error)
        except VersionMismatch as error:
            raise Refused(f"The platform speaks version {error.theirs} of the protocol. {_UPGRADE}") from error
        except ProtocolError as error:
            return f"The platform sent what I don't understand ({error})"
        except (OSError, TimeoutError, InvalidHandshake) as error:
            return f"Can't reach {self._settings.server} ({_plain(error)})"

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[ClientConnection]:
        async with connect(
            self._settings.socket,
            additional_headers=self._settings.authorization,
            proxy=None if self._settings.local else True,
            compression=None,
            max_size=2 * protocol.MAX_FRAME,
            open_timeout=10,
            close_timeout=2,
        ) as socket:
            yield socket

    async def _talk(self, socket: ClientConnection) -> str:
        software = f"dml-worker {__version__} ({backends.LIBRARIES[self._settings.backend].title})"
        hello = protocol.Hello(software, self._settings.threads, self._device)
        await socket.send(protocol.encode(hello))
        beats: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(WELCOME_SECONDS) as patience:
                async for frame in socket:
                    message = protocol.decode(frame if isinstance(frame, str) else "")
                    if isinstance(message, Welcome):
                        patience.reschedule(None)
                        beats = beats or asyncio.create_task(_heartbeat(socket, message.heartbeat))
                        self._socket = socket
                        said = f"Connected to {self._settings.server} as {message.provider}"
                        self._display.say(f"{said}. Waiting for work.")
                    await self._handle(message)
        except TimeoutError:
            return "The platform took the connection and said nothing"
        finally:
            if beats:
                beats.cancel()
        return _closed_with(socket.close_code, socket.close_reason)

    async def _handle(self, message: protocol.Message) -> None:
        match message:
            case Offer():
                await self._offered(message)
            case Cancel():
                self._cancelled(message)
            case Ack():
                self._acknowledged(message)
            case Challenge():
                if self._challenges.qsize() < MAX_WAITING:
                    self._challenges.put_nowait(message)
            case protocol.Release():
                self._released(message.lease)

    async def _say(self, message: protocol.Message) -> None:
        """Sends if there is a connection. If not, nothing is lost: the platform repeats its offer, and we our answer."""
        if self._socket:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(protocol.encode(message))

    # --- Leases -------------------------------------------------------------------------------------------------------
    async def _offered(self, offer: Offer) -> None:
        if offer.lease == self._current:  # after a reconnect: still at it
            await self._say(protocol.Accept(offer.lease))
            return
        if len(self._waiting) < MAX_WAITING:  # else the platform says it again
            self._waiting[offer.lease] = offer
            self._work_came.set()

    def _cancelled(self, message: Cancel) -> None:
        known = self._waiting.pop(message.lease, None) or self._sent.pop(message.lease, None)
        if message.lease == self._current:
            self._drop.set()
        if known or message.lease == self._current:
            self._display.say(f"{named(message.lease)}: no longer wanted {message.reason and f'({message.reason})'}")

    def _acknowledged(self, message: Ack) -> None:
        if message.ok:
            self._display.say(f"{named(message.lease)}: done")
            return
        offer = self._sent.pop(message.lease, None)
        if offer:
            self._cache.forget(offer)
            self._checkpoints(offer).remove()
        self._display.say(f"{named(message.lease)}: refused ({message.reason})")

    def _remember(self, offer: Offer) -> None:
        """For the platform's answers; a release that never came is forgotten some day."""
        self._sent[offer.lease] = offer
        if len(self._sent) > MAX_SENT:
            self._sent.pop(next(iter(self._sent)))

    def _released(self, lease: Lease) -> None:
        """The platform will not ask about this work any more."""
        if offer := self._sent.pop(lease, None):
            self._checkpoints(offer).remove()

    async def _work(self, http: httpx.AsyncClient) -> None:
        """One lease after the other, for as long as the worker lives, whatever the connection does meanwhile."""
        self._device = await self._in_thread(self._warm_up)
        self._warm.set()
        while True:
            await self._work_came.wait()
            if not self._waiting:
                self._work_came.clear()
                continue
            lease = next(iter(self._waiting))
            self._current, self._steps = lease, 0
            self._drop.clear()
            try:
                with spans.work(lease):
                    await self._serve(http, self._waiting.pop(lease))
            finally:
                self._current = None
                self._display.finished()
                self._cache.prune(self._settings.disk)

    async def _serve(self, http: httpx.AsyncClient, offer: Offer) -> None:
        """Does the work of one lease; whatever goes wrong is told to the platform and ends this lease only."""
        await self._say(protocol.Accept(offer.lease))
        try:
            self._used = Used()  # of what was trained before, it is not known any more
            update, parts, root = self._cache.result(offer) or await self._compute(http, offer)
            await send(http, update, parts, self._mover(offer.lease))
            self._remember(offer)
            took = self._used.joules, self._used.gpu
            await self._say(protocol.Commit(offer.lease, update.sha256, update.size, root, *took))
        except _Stopped:
            pass
        except Exception as error:  # The model and the data are a stranger's: anything may be wrong with them.
            reason = _plain(error)
            self._display.say(f"{named(offer.lease)}: can't be done ({reason})")
            await self._say(protocol.Decline(offer.lease, reason[: protocol.MAX_TEXT]))

    async def _compute(self, http: httpx.AsyncClient, offer: Offer) -> tuple[Blob, Sequence[Bytes], str]:
        """The update, its bytes, and the root of the training's trace."""
        self._display.say(f"{named(offer.lease)}: training")
        files = await self._files(http, offer)
        began, self._meter = time.monotonic(), Meter(gpus=self._gpus)
        parts, root = await self._in_thread(self._train, offer, files, asyncio.get_running_loop())
        self._used = self._meter.used()
        update = blob_of(parts)
        if time.monotonic() - began > WORTH_KEEPING:
            with contextlib.suppress(OSError):  # a full disk does not keep us from sending it
                self._cache.put(*parts)
                self._cache.remember(offer, update, root)
        return update, parts, root

    async def _files(self, http: httpx.AsyncClient, offer: Offer) -> Files:
        bounds.check(offer)
        moved = self._mover(offer.lease)
        spec, shard = [await fetch(http, self._cache, blob, moved) for blob in (offer.spec, offer.shard)]
        return Files(spec.read_bytes(), await self._weights(http, offer.weights, moved), shard)

    async def _weights(self, http: httpx.AsyncClient, blob: Blob, moved: Callable[[], None]) -> Bytes:
        """A round's start weights. All shards of a round have the same, no other round has them: not worth a place on disk."""
        if self._start[0] != blob:
            self._start = None, b""
            self._start = blob, await fetch_once(http, blob, moved)
        return self._start[1]

    def _mover(self, lease: Lease) -> Callable[[], None]:
        """What a transfer calls for every piece: tells the platform that there is life, however slow the line."""
        last = time.monotonic()

        def moved() -> None:
            nonlocal last
            if time.monotonic() - last >= SECONDS_BETWEEN_REPORTS:
                last = time.monotonic()
                self._tell(protocol.Progress(lease, self._steps, self._steps, 0.0))

        return moved

    # --- Audits -------------------------------------------------------------------------------------------------------
    async def _answer(self, http: httpx.AsyncClient) -> None:
        """Shows what the platform asks to see of work that was committed, beside whatever is being trained."""
        while True:
            challenge = await self._challenges.get()
            try:
                await self._show(http, challenge)
            except Exception as error:  # The worker lives on; the platform gives up on this work by itself.
                self._display.say(f"{named(challenge.offer.lease)}: can't show the work ({_plain(error)})")

    async def _show(self, http: httpx.AsyncClient, challenge: Challenge) -> None:
        offer = challenge.offer
        files, trace = await self._files(http, offer), self._checkpoints(offer).trace()
        if trace is None:  # lost: the same work gives the same trace
            await self._in_thread(self._train, offer, files, asyncio.get_running_loop())
            trace = self._checkpoints(offer).trace()
        if trace is None or trace.root != challenge.root:
            raise ValueError("this is not the work that was done here")
        moved = self._mover(offer.lease)
        for number in self._shown(trace, challenge):
            parts = pieces(await self._checkpoint(offer, files, number))
            await send(http, blob_of(parts), parts, moved)
        data = trace.to_bytes()
        await send(http, blob_of([data]), [data], moved)
        await self._say(protocol.Reveal(offer.lease, blob_of([data]).sha256))
        self._display.say(f"{named(offer.lease)}: shown to an audit")

    def _shown(self, trace: Trace, challenge: Challenge) -> list[int]:
        """The numbers of the checkpoints around the segments asked for, but what the platform has."""
        ends = {number for segment in trace.asked(challenge.segments) for number in (segment, segment + 1)}
        sent = {len(trace.segments)} if challenge.offer.hyper.compression == "none" else set()
        return sorted(ends - {0} - sent)

    async def _checkpoint(self, offer: Offer, files: Files, number: int) -> Weights:
        """The checkpoint after so many segments: from the disk, or computed again from the nearest one there."""
        found = await asyncio.to_thread(self._checkpoints(offer).nearest, number)
        if found and found[0] == number:
            return found[1]
        return await self._in_thread(self._train_on, offer, files, number, *(found or (0, unpack(files.weights))))

    def _checkpoints(self, offer: Offer) -> Checkpoints:
        return Checkpoints(self._cache.checkpoints(offer))

    # --- In the training thread ---------------------------------------------------------------------------------------
    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._trainer, work, *arguments)

    def _warm_up(self) -> str:
        """Imports TensorFlow or JAX, which takes seconds, before the first offer comes; gives the device that it computes
        on. Raises Refused if it is missing."""
        library = backends.LIBRARIES[self._settings.backend]
        try:
            backends.choose(self._settings.backend)
            from dmlworker import trainer

            trainer.threads(self._settings.threads)
            found = trainer.device()
            self._gpus = nvml() if found != "CPU" else None
            return found
        except ImportError as error:
            raise Refused(f"{library.title} can't be imported ({error}). Install it: {library.install}") from error

    def _train(self, offer: Offer, files: Files, loop: asyncio.AbstractEventLoop) -> tuple[Sequence[Bytes], str]:
        """The update's bytes, and the root of the training's trace, which is left with the checkpoints."""
        start, checkpoints = unpack(files.weights), self._checkpoints(offer)
        record = Recorder(start, checkpoints.keep, offer.hyper.optimizer)
        trained = self._training(offer, files, start, self._reporter(offer.lease, loop), record)
        checkpoints.finish(record.trace)
        update = self.update(start, trained, offer.hyper)
        parts = pieces(update) if offer.hyper.compression == "none" else [self._compressed(offer, start, update)]
        return parts, record.trace.root

    def _training(
        self, offer: Offer, files: Files, start: Weights, report: Callable[[int, int, float], None], record: Recorder
    ) -> Weights:
        """The arithmetic itself."""
        from dmlworker import models, trainer

        x, y, w = datasets.mapped(files.shard)
        return trainer.train(models.spec_from_bytes(files.spec), start, x, y, offer.hyper, report, record, w)

    def _train_on(self, offer: Offer, files: Files, to: int, done: int, at: Weights) -> Weights:
        """From the checkpoint `done` to the checkpoint `to`."""
        from dmlworker import models, trainer

        x, y, w = datasets.mapped(files.shard)
        every, last = offer.hyper.checkpoint_every, steps_of(len(y), offer.hyper)
        steps = range(done * every, min(to * every, last))
        spec = models.spec_from_bytes(files.spec)
        return trainer.replay(spec, unpack(files.weights), x, y, offer.hyper, at, steps, w=w)

    def _compressed(self, offer: Offer, start: Weights, update: Weights) -> bytes:
        """The change of the weights in fewer bytes; what that loses is kept for the next round of this shard."""
        lost = self._cache.rest(offer.lease) or [np.float32(0)] * len(start)
        delta = [end - begin + rest for begin, end, rest in zip(start, update, lost, strict=True)]
        data, rest = compression.encode(delta, offer.hyper.compression)
        self._cache.keep_rest(offer.lease, rest)
        return data

    def _reporter(self, lease: Lease, loop: asyncio.AbstractEventLoop) -> Callable[[int, int, float], None]:
        """What the trainer calls every few steps: passes progress on to the loop, ends the training when it should."""
        last = -math.inf

        def report(step: int, steps: int, loss: float) -> None:
            nonlocal last
            if self._drop.is_set():
                raise _Stopped
            if time.monotonic() - last >= SECONDS_BETWEEN_REPORTS:
                last = time.monotonic()
                self._meter.look()
                loop.call_soon_threadsafe(self._report, lease, step, steps, loss)

        return report

    def update(self, start: Weights, trained: Weights, hyper: Hyper) -> Weights:
        """What is sent: the trained weights."""
        return trained

    def _report(self, lease: Lease, step: int, steps: int, loss: float) -> None:
        """In the loop again: tells the provider and the platform. The task holds itself until it is done."""
        loss = loss if math.isfinite(loss) else 0.0
        self._display.progress(lease, step, steps, loss)
        self._steps = steps
        self._tell(protocol.Progress(lease, step, steps, loss))

    def _tell(self, progress: protocol.Progress) -> None:
        """Says it beside whatever else is going on. On a slow line, the next report will do."""
        if self._reporting is None or self._reporting.done():
            self._reporting = asyncio.create_task(self._say(progress))


_UPGRADE = "Upgrade this worker: pip install --upgrade dml-worker"


async def _heartbeat(socket: ClientConnection, seconds: int) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.sleep(seconds)
            await socket.send(protocol.encode(protocol.Heartbeat()))


def _plain(error: BaseException) -> str:
    """An error in words, whatever it was raised with."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _handshake_refused(status: int, server: str) -> str:
    """For servers that answer a bad key in HTTP. Raises Refused, or gives the reason to try again."""
    if status in (401, 403):
        raise Refused("The platform does not accept this key. The provider page makes a new one.")
    if status == 404:
        raise Refused(f"There is no DML platform at {server} (it answered 404).")
    if status == 426:
        raise Refused(f"The platform no longer speaks to this version of the worker. {_UPGRADE}")
    return f"The platform answered {status}"


def _closed(error: ConnectionClosed) -> str:
    frame = error.rcvd
    return _closed_with(frame.code, frame.reason) if frame else "The connection broke"


def _closed_with(code: int | None, reason: str | None) -> str:
    """Raises Refused for the codes that are final, or gives the reason to try again."""
    said = f" ({reason})" if reason else ""
    if code == protocol.CLOSE_BAD_KEY:
        raise Refused(f"The platform does not accept this key{said}. The provider page makes a new one.")
    if code == protocol.CLOSE_BANNED:
        raise Refused(f"The platform does not let this provider work{said}. The provider page says why.")
    if code == protocol.CLOSE_TOO_OLD:
        raise Refused(f"The platform no longer speaks to this version of the worker{said}. {_UPGRADE}")
    return f"The platform closed the connection{said}"
