"""scripts/services.py: what is missing is named, and nobody else's process is ended."""

import os
import subprocess

import pytest

from dmlsite.embedded import ServerError
from scripts import services


def test_missing_programs_are_named_with_what_to_type(monkeypatch):
    monkeypatch.setattr(services, "PROGRAMS", {"/usr/bin/env": "coreutils", "/nowhere/redis-server": "redis-server"})
    with pytest.raises(ServerError, match="apt-get install --no-install-recommends redis-server$"):
        services.refuse_missing()


def test_only_what_was_started_here_is_ended(tmp_path):
    stack = services.Stack(tmp_path, services.free_ports())
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        stack.processes["redis"] = other.pid, "another start"  # an id that was given anew meanwhile
        services.down(stack)
        assert other.poll() is None
        stack.processes["redis"] = other.pid, services.started_at(other.pid)
        services.down(stack)
        assert other.wait(5) < 0
    assert services.Stack.load(tmp_path).processes == {}


def test_no_services_is_a_clear_error(tmp_path):
    with pytest.raises(ServerError, match="python -m scripts.services up"):
        services.Stack.load(tmp_path)


def test_what_is_kept_is_for_its_owner_alone(tmp_path):
    services.Stack(tmp_path, services.free_ports()).save()
    assert (tmp_path / "stack.json").stat().st_mode & 0o077 == 0
    assert services.started_at(os.getpid())
