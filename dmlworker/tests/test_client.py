"""The worker against a small platform that breaks in every way: work is done once, and told in the end."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from safetensors.numpy import save

from dmlworker import cheats, client, models, protocol, trainer, transfer
from dmlworker.cache import Cache
from dmlworker.client import Refused, Settings, Worker
from dmlworker.display import Display, display
from dmlworker.protocol import (
    Accept,
    Ack,
    Cancel,
    Challenge,
    Commit,
    Decline,
    Heartbeat,
    Hello,
    Hyper,
    Progress,
    Release,
    Reveal,
)
from dmlworker.tests.platform import KEY, Platform, serving
from dmlworker.trace import Trace, steps_of_segment

X = np.random.Generator(np.random.PCG64(0)).normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
SPEC = models.spec(models.build((4,), 2, "mlp", models.statistics(X)))
START = trainer.initial_weights(SPEC, 1)
HYPER = Hyper(2, 10, 0.1, 3)
LONG = Hyper(1000, 1, 0.001, 3)
"""Minutes of work."""
SHARD = save({"x": X, "y": Y})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks are short, and TensorFlow, which other tests have started, keeps its threads."""
    monkeypatch.setattr(transfer, "backoff", lambda *_: 0.01)
    monkeypatch.setattr(client, "backoff", lambda *_: 0.01)
    monkeypatch.setattr(client, "WORTH_KEEPING", 0)
    monkeypatch.setattr(trainer, "threads", lambda n: None)


class Lines(Display):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def settings(platform: Platform | str, cache: Path, key: str = KEY) -> Settings:
    return Settings(platform if isinstance(platform, str) else platform.url, key, cache, 1)


@asynccontextmanager
async def working(platform: Platform, cache: Path, kind: type[Worker] = Worker) -> AsyncIterator[Lines]:
    lines = Lines()
    with lines:
        worker = kind(settings(platform, cache), lines)
        running = asyncio.create_task(worker.run())
        try:
            yield lines
        finally:
            worker.stop()
            await asyncio.wait_for(running, 60)


def offered(platform: Platform, hyper: Hyper = HYPER, spec: bytes | None = None, round_: int = 1) -> protocol.Offer:
    return platform.offer(spec or models.spec_bytes(SPEC), trainer.pack(START), SHARD, hyper, round_)


def honest() -> bytes:
    return trainer.pack(trainer.train(SPEC, START, X, Y, HYPER))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(limited())


def test_a_lease_from_offer_to_ack(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path) as lines:
            offer = offered(platform)
            commit: Commit = await platform.hears(Commit)
            assert platform.blobs[commit.sha256] == honest()
            assert commit.lease == offer.lease
            kinds = [type(message) for message in platform.heard if not isinstance(message, Heartbeat)]
            assert kinds[:2] == [Hello, Accept]
            assert kinds[-1] is Commit
            assert Progress in kinds
            while "done" not in lines.text:
                await asyncio.sleep(0.01)
            assert "Connected" in lines.text

    run(scenario)


def test_the_same_work_is_answered_from_the_disk_even_by_a_new_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            for attempt in (1, 2):
                offered(platform)
                async with working(platform, tmp_path):
                    await platform.hears(Commit, attempt)
            first, second = [message for message in platform.heard if isinstance(message, Commit)]
            assert first == second
            assert platform.count(Progress) == 1  # trained once
            assert sum(method == "GET" for method, _, _ in platform.requests) == 3

    run(scenario)


def test_a_broken_connection_does_not_interrupt_the_training(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path) as lines:
            offered(platform, Hyper(300, 10, 0.01, 3))
            await platform.hears(Progress)
            await platform.hang_up()
            await platform.hears(Accept, 2)  # offered again: still at it
            await platform.hears(Commit)
            assert platform.count(Hello) == 2
            assert lines.text.count("training") == 1
            assert "trying again" in lines.text

    run(scenario)


def test_a_line_that_does_not_hold_never_keeps_it_away_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def soon(attempt: int, longest: float) -> float:
        waits.append(min(longest, 2.0**attempt))
        return 0.01

    monkeypatch.setattr(client, "backoff", soon)

    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path) as lines:
            for breaks in range(1, 8):
                while lines.text.count("Connected") < breaks:
                    await asyncio.sleep(0.01)
                await platform.hang_up()
            await platform.hears(Hello, 8)
            assert max(waits) == client.WELCOMED_WAIT
            platform.close_with = 1013  # now nobody is welcomed
            await platform.hang_up()
            while max(waits) < client.LONGEST_WAIT:
                await asyncio.sleep(0.01)

    run(scenario)


def test_a_platform_that_takes_the_connection_and_says_nothing_is_called_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WELCOME_SECONDS", 0.3)

    async def scenario() -> None:
        async with serving() as platform:
            platform.silent = True
            async with working(platform, tmp_path) as lines:
                await platform.hears(Hello, 2)
                assert "said nothing" in lines.text
                platform.silent = False
                while "Connected" not in lines.text:
                    await asyncio.sleep(0.01)
                offered(platform)
                await platform.say(platform.offers[-1])
                await platform.hears(Commit)
                assert platform.count(Hello) >= 3

    run(scenario)


def test_a_platform_too_busy_to_answer_is_called_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long each try took: it was no connection that held."""
    attempts: list[int] = []

    def soon(attempt: int, longest: float) -> float:
        attempts.append(attempt)
        return 0.01

    monkeypatch.setattr(client, "WELCOME_SECONDS", 0.2)
    monkeypatch.setattr(client, "STEADY_SECONDS", 0.1)
    monkeypatch.setattr(client, "backoff", soon)

    async def scenario() -> None:
        async with serving() as platform:
            platform.silent = True
            async with working(platform, tmp_path):
                await platform.hears(Hello, 4)
        assert attempts[:3] == [1, 2, 3]

    run(scenario)


def test_a_commit_that_was_lost_is_said_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            offer = offered(platform)
            await platform.hears(Commit)
            platform.offers = [offer]  # as if it had not been heard
            await platform.hang_up()
            assert (await platform.hears(Commit, 2)).lease == offer.lease

    run(scenario)


def test_heartbeats_go_on_while_it_trains(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            offered(platform, LONG)
            await platform.hears(Progress)
            before = platform.count(Heartbeat)
            await platform.hears(Heartbeat, before + 2, seconds=10)
            assert platform.count(Commit) == 0

    run(scenario)


def test_reports_come_at_most_twice_a_second(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            offered(platform, LONG)
            await platform.hears(Progress)
            before = platform.count(Progress)
            await asyncio.sleep(2)
            assert platform.count(Progress) - before <= 5

    run(scenario)


def test_cancel_ends_the_work_and_the_next_lease_is_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path) as lines:
            offer = offered(platform, LONG)
            await platform.hears(Progress)
            await platform.say(Cancel(offer.lease, "closed"))
            await platform.say(offered(platform, round_=2))
            commit = await platform.hears(Commit)
            assert commit.lease.round == 2
            assert "no longer wanted (closed)" in lines.text

    run(scenario)


def test_leases_wait_their_turn_and_can_be_withdrawn_before_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            first = offered(platform, Hyper(200, 10, 0.01, 3))
            await platform.hears(Accept)
            await platform.say(second := offered(platform, round_=2))
            await platform.say(offered(platform, Hyper(1, 10, 0.1, 3), round_=3))
            await platform.say(Cancel(second.lease))
            assert (await platform.hears(Commit)).lease == first.lease
            assert (await platform.hears(Commit, 2)).lease.round == 3

    run(scenario)


def test_a_download_that_breaks_is_resumed_where_it_broke(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            breaks = iter([1000])
            platform.damage = lambda sha256, data: data[: next(breaks, None)]
            offered(platform)
            commit = await platform.hears(Commit)
            assert platform.blobs[commit.sha256] == honest()
            assert "bytes=1000-" in [span for _, _, span in platform.requests]

    run(scenario)


def test_an_upload_that_breaks_is_resumed_where_it_broke(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            platform.put_statuses, platform.unfinished = [503], honest()[:1000]
            offered(platform)
            commit = await platform.hears(Commit)
            assert platform.blobs[commit.sha256] == honest()
            assert [method for method, sha256, _ in platform.requests if sha256 == commit.sha256] == [
                "PUT", "HEAD", "PATCH"
            ]  # fmt: skip

    run(scenario)


def test_start_weights_are_fetched_once_a_round(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            offer = offered(platform)
            await platform.hears(Commit)
            await platform.say(offered(platform, round_=2))
            await platform.hears(Commit, 2)
            fetched = [sha256 for method, sha256, _ in platform.requests if method == "GET"]
            assert fetched.count(offer.weights.sha256) == 1

    run(scenario)


def test_what_lies_in_an_object_store_is_fetched_there_without_the_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            platform.store = platform.url.removeprefix("http://").replace("127.0.0.1", "localhost")
            assert platform.store not in platform.url
            offered(platform)
            commit = await platform.hears(Commit)
            assert platform.blobs[commit.sha256] == honest()
            assert platform.shown_to_store == ["", "", ""]

    run(scenario)


def test_a_slow_line_is_a_sign_of_life_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the lease of who fetches or sends something large would lapse."""
    monkeypatch.setattr(transfer, "CHUNK", 64)
    monkeypatch.setattr(client, "SECONDS_BETWEEN_REPORTS", 0)

    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            offered(platform)
            await platform.hears(Commit)
            said = [(message.step, message.steps) for message in platform.heard if isinstance(message, Progress)]
            trained = next(steps for step, steps in said if steps)
            assert said[0] == (0, 0)
            assert said[-1] == (trained, trained)
            assert said.count((trained, trained)) > 1  # once by the training

    run(scenario)


def test_a_blob_damaged_on_the_way_is_fetched_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            damages = iter([b"\0"])
            platform.damage = lambda sha256, data: next(damages, data[:1]) + data[1:]
            offered(platform)
            commit = await platform.hears(Commit)
            assert platform.blobs[commit.sha256] == honest()

    run(scenario)


def test_a_damaged_cache_is_noticed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    blob = cache.put(b"good")
    (tmp_path / "blobs" / blob.sha256).write_bytes(b"evil")
    assert cache.get(blob) is None
    assert cache.get(cache.put(b"good")) == b"good"


def test_what_another_worker_takes_away_while_the_cache_is_pruned_is_no_error(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    kept = cache.put(b"kept")
    (tmp_path / "blobs" / "gone").symlink_to("nowhere")  # named in the folder, and not there any more
    cache.prune(max_bytes=4)
    assert cache.get(kept) == b"kept"


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    import os

    cache = Cache(tmp_path)
    old, new = cache.put(b"o" * 100), cache.put(b"n" * 100)
    os.utime(tmp_path / "blobs" / old.sha256, (1, 1))
    cache.prune(150)
    assert cache.get(old) is None
    assert cache.get(new) == b"n" * 100


def declined(tmp_path: Path, prepare: Callable[[Platform], object], reason: str) -> None:
    """The lease is declined for `reason`, and the worker goes on."""

    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            prepare(platform)
            assert reason in (await platform.hears(Decline)).reason
            platform.damage, platform.put_statuses = lambda sha256, data: data, []
            await platform.say(offered(platform, round_=2))
            assert (await platform.hears(Commit)).lease.round == 2

    run(scenario)


def test_a_blob_that_stays_damaged_is_declined(tmp_path: Path) -> None:
    def prepare(platform: Platform) -> None:
        platform.damage = lambda sha256, data: b"\0" * len(data)
        offered(platform)

    declined(tmp_path, prepare, "another hash")


def test_a_blob_that_is_not_there_is_declined(tmp_path: Path) -> None:
    def prepare(platform: Platform) -> None:
        del platform.blobs[offered(platform).shard.sha256]

    declined(tmp_path, prepare, "not there")


@pytest.mark.parametrize(
    ("statuses", "reason"),
    [([413], "too large"), ([503] * transfer.TRIES, "answered 503"), ([422] * transfer.TRIES, "422")],
)
def test_an_update_that_is_not_taken_is_declined(tmp_path: Path, statuses: list[int], reason: str) -> None:
    def prepare(platform: Platform) -> None:
        platform.put_statuses = statuses
        offered(platform)

    declined(tmp_path, prepare, reason)


def test_a_model_that_is_refused_is_declined(tmp_path: Path) -> None:
    declined(tmp_path, lambda platform: offered(platform, spec=b'{"class_name":"Lambda"}'), "last layer must be")


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_too_full_for_the_shard_is_declined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt, fails = Cache.adopt, iter([full])
    monkeypatch.setattr(Cache, "adopt", lambda *them: next(fails, adopt)(*them))
    declined(tmp_path, offered, "No space left")


def test_a_disk_too_full_for_the_result_does_not_keep_it_from_being_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cache, "put", full)

    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            offered(platform)
            assert platform.blobs[(await platform.hears(Commit)).sha256] == honest()

    run(scenario)


def test_a_busy_platform_gets_the_update_at_the_next_try(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            platform.put_statuses = [503, 422, 429]
            offered(platform)
            await platform.hears(Commit)

    run(scenario)


def test_a_refused_update_is_computed_anew_when_offered_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path) as lines:
            offer = offered(platform)
            commit = await platform.hears(Commit)
            await asyncio.sleep(0.1)
            platform.offers = [offer]
            await platform.say(offer)
            await platform.hears(Commit, 2)
            await platform.say(Ack(offer.lease, False, "too late"))
            while "refused (too late)" not in lines.text:
                await asyncio.sleep(0.01)
            del platform.blobs[commit.sha256]

    run(scenario)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (protocol.CLOSE_BAD_KEY, "does not accept this key"),
        (protocol.CLOSE_BANNED, "does not let this provider work"),
        (protocol.CLOSE_TOO_OLD, "Upgrade this worker"),
    ],
)
def test_final_refusals_end_the_worker_with_the_reason(tmp_path: Path, code: int, message: str) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            platform.close_with = code
            with pytest.raises(Refused, match=message):
                await Worker(settings(platform, tmp_path), Lines()).run()

    run(scenario)


def test_a_wrong_key_and_a_newer_platform_are_final_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            with pytest.raises(Refused, match="does not accept this key"):
                await Worker(settings(platform, tmp_path, "wrong"), Lines()).run()
            platform.frames = [f'{{"v":{protocol.VERSION + 1},"type":"welcome"}}']
            with pytest.raises(Refused, match=f"version {protocol.VERSION + 1}"):
                await Worker(settings(platform, tmp_path), Lines()).run()

    run(scenario)


def test_nonsense_from_the_platform_is_survived(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            platform.frames = ["nonsense"]
            async with working(platform, tmp_path) as lines:
                await platform.hears(Hello, 2)
                platform.frames = []
                offered(platform)
                await platform.hears(Commit)
                assert "don't understand" in lines.text

    run(scenario)


def test_an_unreachable_platform_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        platform = Platform()
        platform.url = url
        async with working(platform, tmp_path) as lines:
            while lines.text.count("Can't reach") < 3:
                await asyncio.sleep(0.01)

    run(scenario)


def test_the_wait_grows_has_chance_in_it_and_an_end() -> None:
    import importlib

    backoff = importlib.reload(transfer).backoff
    waits = [[backoff(attempt, 60) for _ in range(50)] for attempt in (0, 3, 20)]
    assert all(0.25 <= wait <= 0.5 for wait in waits[0])
    assert all(2 <= wait <= 4 for wait in waits[1])
    assert all(30 <= wait <= 60 for wait in waits[2])
    assert len(set(waits[0])) > 1


@pytest.mark.parametrize("mode", sorted(cheats.MODES))
def test_cheats_send_something_else(tmp_path: Path, mode: str) -> None:
    from dmlworker.comparison import agrees, compare

    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path, cheats.cheating(mode)):
            offered(platform)
            commit = await platform.hears(Commit)
            claimed = trainer.unpack(platform.blobs[commit.sha256])
            assert not agrees(compare(START, claimed, trainer.unpack(honest())))

    run(scenario)


@pytest.mark.parametrize("server", ["dml.example.org", "ftp://dml.example.org", "", "http://"])
def test_an_address_must_be_one(server: str) -> None:
    with pytest.raises(ValueError, match="no address of a platform"):
        Settings(server, KEY, Path(), 1)


@pytest.mark.parametrize("key", ["", "two words", "a\nb", "ключ"])
def test_a_key_must_be_one_and_is_never_shown(key: str) -> None:
    with pytest.raises(ValueError, match="no API key"):
        Settings("http://localhost", key, Path(), 1)
    assert KEY not in repr(Settings("http://localhost", KEY, Path(), 1))


def test_addresses() -> None:
    secure, plain = (
        Settings("https://dml.example.org/", KEY, Path(), 1),
        Settings("http://127.0.0.1:8000", KEY, Path(), 1),
    )
    assert secure.socket == "wss://dml.example.org/ws/worker/"
    assert plain.socket == "ws://127.0.0.1:8000/ws/worker/"
    assert (secure.local, plain.local) == (False, True)


def test_lines_without_a_terminal_and_a_bar_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = protocol.Lease("run-1", 1, 0, 1)
    for terminal in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal, raising=False)
        with display() as shown:
            shown.progress(lease, 1, 4, 0.5)
            shown.say("hello [world]")
            shown.finished()
        assert "hello [world]" in capsys.readouterr().out


# --- The command line, as a process -----------------------------------------------------------------------------------
started: list[asyncio.subprocess.Process] = []


async def command(
    *arguments: str, module: str = "dmlworker", stdout: int | IO[bytes] = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=stdout, stderr=asyncio.subprocess.PIPE
    )
    started.append(process)
    return process


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    """A test that fails leaves no worker behind."""
    yield
    for process in started:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    started.clear()


def test_a_log_on_a_full_disk_ends_no_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            offered(platform)
            options = ("--server", platform.url, "--key", KEY, "--cache", str(tmp_path), "--threads", "1")
            with Path("/dev/full").open("wb") as full:
                process = await command(*options, stdout=full)
            await platform.hears(Commit)
            assert process.returncode is None
            process.terminate()
            await asyncio.wait_for(process.communicate(), 60)

    run(scenario)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_in_the_middle_of_work(tmp_path: Path, number: signal.Signals) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            offered(platform, LONG)
            process = await command("--server", platform.url, "--key", KEY, "--cache", str(tmp_path), "--threads", "1")
            await platform.hears(Progress)
            process.send_signal(number)
            out, err = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0
            assert b"Traceback" not in err
            assert out.rstrip().endswith(b"Ended.")
            assert KEY.encode() not in out + err

    run(scenario)


# --- Audits ------------------------------------------------------------------------------------------------------------
async def challenge(platform: Platform, offer: protocol.Offer, commit: Commit, *segments: int) -> Trace:
    """Asks to see some segments; gives the trace that the worker shows."""
    await platform.say(Challenge(offer, commit.root, segments))
    reveal: Reveal = await platform.hears(Reveal)
    trace = Trace.from_bytes(platform.blobs[reveal.trace])
    assert (reveal.lease, trace.root) == (offer.lease, commit.root)
    return trace


def shown(platform: Platform, trace: Trace, *numbers: int) -> list[list[np.ndarray]]:
    """The weights after these segments, as the worker sent them."""
    return [trainer.unpack(platform.blobs[trace.segments[number].sha256]) for number in numbers]


def replayed(at: list[np.ndarray], segment: int) -> bytes:
    return trainer.pack(trainer.replay(SPEC, START, X, Y, HYPER, at, steps_of_segment(segment, len(Y), HYPER)))


def test_what_is_asked_for_is_shown_and_can_be_done_again(tmp_path: Path) -> None:
    """60 samples by 10, twice: 12 steps, three segments of 5, 5 and 2."""

    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path) as lines:
            offer = offered(platform)
            commit: Commit = await platform.hears(Commit)
            trace = await challenge(platform, offer, commit, 1)
            assert [len(trace.segments), trace.segments[2].sha256] == [3, commit.sha256]
            first, second = shown(platform, trace, 0, 1)
            assert replayed(START, 0) == trainer.pack(first)
            assert replayed(first, 1) == trainer.pack(second)
            assert replayed(second, 2) == platform.blobs[commit.sha256]
            assert "shown to an audit" in lines.text

    run(scenario)


@pytest.mark.parametrize("lost", ["traces", "traces/*/[0-9]*"])
def test_what_was_kept_and_got_lost_is_computed_again(tmp_path: Path, lost: str) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            async with working(platform, tmp_path):
                offer = offered(platform)
                commit: Commit = await platform.hears(Commit)
            for path in tmp_path.glob(f"*/{lost}"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            async with working(platform, tmp_path):
                await platform.hears(Hello, 2)
                trace = await challenge(platform, offer, commit, 1)
                assert replayed(START, 0) == trainer.pack(*shown(platform, trace, 0))

    run(scenario)


def test_of_a_compressed_update_the_last_weights_are_shown_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            offer = offered(platform, Hyper(2, 10, 0.1, 3, compression="int8"))
            commit: Commit = await platform.hears(Commit)
            trace = await challenge(platform, offer, commit)
            assert trainer.pack(*shown(platform, trace, 2)) == honest()
            assert commit.sha256 != trace.segments[2].sha256

    run(scenario)


def test_work_that_was_not_done_here_is_not_shown_and_the_worker_lives_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path) as lines:
            offer = offered(platform)
            await platform.hears(Commit)
            await platform.say(Challenge(offer, "0" * 64, (0,)))
            while "can't show the work" not in lines.text:
                await asyncio.sleep(0.01)
            await platform.say(offered(platform, round_=2))
            assert (await platform.hears(Commit, 2)).lease.round == 2
            assert platform.count(Reveal) == 0

    run(scenario)


def test_what_is_released_is_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform, working(platform, tmp_path):
            offer = offered(platform)
            await platform.hears(Commit)
            assert len(list(tmp_path.glob("*/traces/*/*"))) == 4  # three checkpoints and the trace
            await platform.say(Release(offer.lease))
            while list(tmp_path.glob("*/traces/*")):
                await asyncio.sleep(0.01)

    run(scenario)


def test_a_wrong_key_on_the_command_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            process = await command("--server", platform.url, "--key", "wrong", "--cache", str(tmp_path))
            _, err = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 1
            assert b"does not accept this key" in err
            assert b"Traceback" not in err

    run(scenario)


def test_a_cheat_on_the_command_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            offered(platform)
            options = ("--server", platform.url, "--key", KEY, "--cache", str(tmp_path), "--mode", "garbage")
            process = await command(*options, module="dmlworker.cheats")
            commit = await platform.hears(Commit)
            assert platform.blobs[commit.sha256] != honest()
            process.terminate()
            await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0

    run(scenario)
