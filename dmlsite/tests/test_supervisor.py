"""The supervisor: a taken port is refused, and no child outlives it, however it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts.devchain import free_port
from dmlsite.embedded import Layout, ServerError, start_postgres
from dmlsite.supervisor import Child, Platform, listening

PARENT = """
import os, sys, time
from pathlib import Path
from dmlsite.supervisor import Child
child = Child("child", ["sleep", "1000"], Path(sys.argv[1]) / "log", dict(os.environ))
child.start()
print(child.process.pid, flush=True)
time.sleep(1000)
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_taken_port_is_a_clear_error():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} is taken"):
            listening(port)


def test_children_end_when_the_supervisor_is_killed(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        until(lambda: not alive(pid))


def test_ending_a_child_ends_what_it_started_and_cannot_be_refused(tmp_path):
    script = "trap '' TERM; sleep 1000 & echo $!; wait; wait"
    child = Child("stubborn", ["bash", "-c", script], tmp_path / "log", dict(os.environ))
    child.start()
    until(lambda: (tmp_path / "log").read_text().strip())
    grandchild = int((tmp_path / "log").read_text())
    child.end(seconds=0.5)
    assert not child.alive()
    until(lambda: not alive(grandchild))


@pytest.mark.embedded
def test_a_server_that_dies_is_started_again(tmp_path, monkeypatch):
    for name in ("DATABASE_URL", "REDIS_URL", "CHAIN_RPC_URL"):
        monkeypatch.delenv(name, raising=False)
    platform = Platform(tmp_path / "var", free_port(), free_port())
    platform.start_servers()
    platform.watch()
    try:
        before = [platform.chain.process, *(server.process for server in platform.servers.values())]
        for process in before:
            process.kill()

        def all_again():
            now = [platform.chain.process, *(server.process for server in platform.servers.values())]
            return not set(now) & {None, *before} and all(process.poll() is None for process in now)

        until(all_again, 60)
    finally:
        platform.stop()


@pytest.mark.embedded
def test_the_database_comes_back_with_its_data_after_a_kill(tmp_path):
    import psycopg

    layout = Layout(tmp_path / "var")
    where = f"host={layout.sockets / 'pg'} user=postgres dbname=dml"
    first = start_postgres(layout)
    with psycopg.connect(where) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (42)")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    second = start_postgres(layout)
    try:
        with psycopg.connect(where) as connection:
            assert connection.execute("select n from kept").fetchone() == (42,)
    finally:
        second.stop()
