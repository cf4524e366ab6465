"""A development chain of our own: anvil as a child process, its state kept in a file.

    python -m contracts.devchain --port 8545 --state var/chain.json      runs until SIGTERM or Ctrl-C

Three things it takes care of, as a development chain is easily mistaken for a working one:
- the process that listens on the port is our child, never one that was there before;
- the child dies with its parent, however that ends;
- finality moves on: anvil mines only when there is a transaction and calls head - 2 final, so two more blocks have to
  follow each transaction. The heartbeat mines those, and nothing while the chain is idle, which keeps its file small.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import platform
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import requests
from eth_account import Account
from web3 import Web3
from web3.exceptions import Web3Exception

from contracts.encoding import to_checksum
from contracts.keys import Key
from contracts.node import answering, connect
from contracts.types import GWEI, ChainError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
ROOT = Path(__file__).parent.parent
MNEMONIC = "test test test test test test test test test test test junk"
PR_SET_PDEATHSIG = 1
# anvil calls a block final when this many lie on top of it (with one slot in an epoch).
FINAL_AFTER = 2


class DevChain:
    """One anvil. Not for threads that end soon: the child is tied to the thread that calls `start`."""

    def __init__(self, state_file: str | Path | None, port: int, chain_id: int = 31337, beat: float = 0.5) -> None:
        self.state_file = Path(state_file).absolute() if state_file else None
        self.port = port
        self.chain_id = chain_id
        self.beat = beat
        self.process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._heart: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self, timeout: float = 60) -> Self:
        """Returns once our own child listens and its stored state is final. ChainError if that can't be had."""
        _refuse_taken_port(self.port)
        self._rescue_state()
        # preexec_fn is the only way to the kernel's death signal; what it runs takes no lock and allocates nothing big
        tie = _dies_with(os.getpid())
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(self._command(), text=True, preexec_fn=tie, **pipes)  # noqa: PLW1509
        lines = _lines_of(cast(IO[str], self.process.stdout))
        try:
            self._await_listening(lines, time.monotonic() + timeout)
            with answering():
                _finalize(connect(self.url, 30))
        except BaseException:
            self.stop()
            raise
        self._stopping = threading.Event()  # a new one: a heart that still waits for an answer must not start again
        self._heart = threading.Thread(
            target=self._beat, args=(self._stopping,), name="devchain-heartbeat", daemon=True
        )
        self._heart.start()
        return self

    def stop(self, timeout: float = 30) -> None:
        """End the child, its state written; without effect if it is not running."""
        self._end_heart(timeout)
        if self.process is None:
            return
        _end(self.process, timeout)
        self.process = None

    def kill(self) -> None:
        """As a crash would: at most the last second of the state file is lost."""
        self._stopping.set()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self._end_heart(10)

    def _end_heart(self, timeout: float) -> None:
        """It also writes the copy of the state: it has to end before another start reads that."""
        self._stopping.set()
        if self._heart is not None:
            self._heart.join(timeout)
            self._heart = None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def fund(self, address: str, gwei: int = 10**10) -> None:
        """Add test coins to an address: ten by default."""
        fund(self.url, address, gwei)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        command = [str(anvil_binary()), "--host", HOST, "--port", str(self.port), "--chain-id", str(self.chain_id)]
        command += ["--slots-in-an-epoch", "1", "--mnemonic", MNEMONIC]
        if self.state_file is not None:
            self.state_file.parent.mkdir(parents=True, exist_ok=True)
            command += ["--state", str(self.state_file), "--state-interval", "1"]
        return command

    def _await_listening(self, lines: queue.Queue[str | None], deadline: float) -> None:
        """The child's own word counts; a connection to the port would prove nothing."""
        said: list[str] = []
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise ChainError(f"anvil ended at once: {' '.join(said[-3:]).strip() or 'without a word'}")
            if line.startswith("Listening on"):
                return
            said.append(line)
        raise ChainError(f"anvil did not listen on {self.url} in time")

    def _rescue_state(self) -> None:
        """anvil rewrites its file in place; killed in the middle of that it leaves a torn one. The heartbeat's copy is
        a few seconds old at most and whole."""
        if self.state_file is None or not self.state_file.exists() or _is_whole(self.state_file):
            return
        copy = _copy_of(self.state_file)
        if not copy.exists():
            raise ChainError(f"{self.state_file} is damaged, and there is no copy: remove it to start a new chain")
        log.warning("%s is damaged: going on from its copy", self.state_file)
        shutil.copyfile(copy, self.state_file)

    def _beat(self, stopping: threading.Event) -> None:
        w3 = connect(self.url, 5)
        while not stopping.wait(self.beat):
            try:
                mine_if_pending_finality(w3)
                self._keep_copy()
            except (ChainError, Web3Exception, requests.RequestException, OSError, ValueError) as error:
                # the chain may be stopped, or held, under our hands: the next beat tries again
                log.debug("no heartbeat: %s", error)

    def _keep_copy(self) -> None:
        if self.state_file is None or not self.state_file.exists():
            return
        copy = _copy_of(self.state_file)
        if copy.exists() and copy.stat().st_mtime >= self.state_file.stat().st_mtime:
            return
        draft = copy.with_suffix(".draft")
        shutil.copyfile(self.state_file, draft)
        if _is_whole(draft):
            os.replace(draft, copy)


def anvil_binary() -> Path:
    """The program itself: the npm shim would swallow signals. ChainError if the packages are not installed."""
    system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system(), platform.system().lower())
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    path = ROOT / "node_modules" / "@foundry-rs" / f"anvil-{system}-{machine}" / "bin" / "anvil"
    if not path.exists():
        raise ChainError(f"anvil is not installed ({path} is missing): npm ci")
    return path


def test_key(index: int) -> Key:
    """One of anvil's ten well-known keys, rich on every development chain. Index 0 to 9."""
    Account.enable_unaudited_hdwallet_features()
    return cast(Key, Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}"))


# Tests import this by name; it is none.
test_key.__test__ = False  # type: ignore[attr-defined]


def fund(url: str, address: str, gwei: int) -> None:
    """Add native coin out of nothing; refused by every chain but anvil."""
    w3 = connect(url, 30)
    balance = w3.eth.get_balance(to_checksum(address)) + gwei * GWEI
    _rpc(w3, "anvil_setBalance", [address, hex(balance)])


def mine_if_pending_finality(w3: Web3) -> bool:
    """Mine one empty block if the last block with a transaction in it is not final yet; says whether it did."""
    head = w3.eth.block_number
    if not any(w3.eth.get_block(n)["transactions"] for n in range(max(head - FINAL_AFTER + 1, 1), head + 1)):
        return False
    _rpc(w3, "evm_mine", [])
    return True


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _finalize(w3: Web3) -> None:
    """After a restart: anvil keeps the state of its last block only, and the final one lies two blocks before. Mining
    on until that last block is final makes the final state readable again."""
    head = w3.eth.block_number
    while head and w3.eth.get_block("finalized")["number"] < head:
        _rpc(w3, "evm_mine", [])


def _rpc(w3: Web3, method: str, params: list[Any]) -> Any:
    answer = w3.provider.make_request(cast(Any, method), params)
    if "error" in answer:
        raise ChainError(f"{method}: {answer['error']}")
    return answer["result"]


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ChainError(f"port {port} is taken by another program: free it, or choose another") from error


def _dies_with(parent: int) -> Callable[[], None]:
    """For the child, before it becomes anvil: ask the kernel for SIGINT (anvil's cue to save and end) at the parent's
    death. The library is loaded beforehand: between fork and exec there is no safe place to do so."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return tie


def _lines_of(stream: IO[str]) -> queue.Queue[str | None]:
    """Reads on for ever, so that the child never blocks on a full pipe; keeps only what was said before listening."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        listening = False
        for line in stream:
            if not listening:
                lines.put(line)
            listening = listening or line.startswith("Listening on")
        lines.put(None)

    threading.Thread(target=read, name="devchain-output", daemon=True).start()
    return lines


def _end(process: subprocess.Popen[str], timeout: float) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _is_whole(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _copy_of(path: Path) -> Path:
    return path.with_name(path.name + ".copy")


def _heeding_signals() -> threading.Event:
    """Is set by SIGTERM or SIGINT from now on, also where a shell had us ignore Ctrl-C."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    return told


def _until(told: threading.Event, chain: DevChain) -> int:
    """Wait to be told to end (0), or for the child to end by itself (1)."""
    while not told.wait(0.2):
        if not chain.alive():
            print("anvil ended unexpectedly", file=sys.stderr)
            return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contracts.devchain", description="A development chain (anvil).")
    parser.add_argument("--port", type=int, default=8545)
    parser.add_argument("--state", type=Path, help="file that keeps the chain between runs")
    parser.add_argument("--chain-id", type=int, default=31337)
    options = parser.parse_args(arguments)
    chain = DevChain(options.state, options.port, options.chain_id)
    told = _heeding_signals()  # before we say that we run: who hears it may end us at once
    try:
        chain.start()
    except ChainError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"development chain {chain.chain_id} on {chain.url}", flush=True)
    try:
        return _until(told, chain)
    finally:
        chain.stop()


if __name__ == "__main__":
    sys.exit(main())
