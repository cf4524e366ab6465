"""Secrets come from the environment or from files."""

import os
import subprocess
import sys

import pytest

from dmlsite import embedded, env


def test_a_secret_comes_from_a_file_unless_the_variable_itself_is_set(monkeypatch, tmp_path):
    monkeypatch.delenv("SOME_PASSWORD", raising=False)
    assert env.secret("SOME_PASSWORD", "none") == "none"
    (tmp_path / "password").write_text("from a file\n")
    monkeypatch.setenv("SOME_PASSWORD_FILE", str(tmp_path / "password"))
    assert env.secret("SOME_PASSWORD", "none") == "from a file"
    monkeypatch.setenv("SOME_PASSWORD", "itself")
    assert env.secret("SOME_PASSWORD", "none") == "itself"


def test_a_file_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(env.BadSetting, match="SOME_PASSWORD_FILE"):
        env.secret("SOME_PASSWORD")


def test_rabbitmq_confirms_what_it_keeps():
    broker = embedded.broker("amqp://dml@localhost:5672/dml")
    assert (broker["BROKER"], broker["OPTIONS"]["confirm_delivery"]) == (
        "dmlsite.rabbit.Rabbit",
        True,
    )
    assert embedded.broker("redis://localhost")["BROKER"] == "dramatiq.brokers.redis.RedisBroker"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"BROKER_URL": "kafka://localhost"}, "BROKER_URL"),
        ({"FILE_STORE": "floppy"}, "FILE_STORE"),
        ({"FILE_STORE": "s3", "S3_BUCKET": ""}, "S3_BUCKET"),
        ({"FILE_STORE": "gcs", "GCS_BUCKET": ""}, "GCS_BUCKET"),
        ({"SECRET_KEY_FILE": "/nowhere", "SECRET_KEY": ""}, "SECRET_KEY_FILE"),
    ],
)
def test_what_cannot_be_used_stops_the_program_and_is_named(settings, named):
    command = [sys.executable, "-c", "import dmlsite.settings"]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode
    assert named in done.stderr
    assert "Traceback" not in done.stderr
