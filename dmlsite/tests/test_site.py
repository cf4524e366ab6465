"""What holds for the whole site."""

import os
import subprocess
import sys

import pytest
from django.core.management import call_command


@pytest.mark.django_db
def test_migrations_are_complete():
    call_command("makemigrations", "--check", "--dry-run")


@pytest.mark.parametrize("program", ["import dmlsite.asgi", "import django; django.setup(); import training.tasks"])
def test_the_web_process_never_imports_tensorflow(program):
    """Not at start, and not when it enqueues a job."""
    check = (
        f"{program}; import sys; bad = {{'tensorflow', 'keras'}} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "dmlsite.settings"}
    done = subprocess.run([sys.executable, "-c", check], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_jobs_use_tensorflow_whatever_the_environment_says():
    """A worker may train with JAX; what it did is judged by TensorFlow's own rounding."""
    check = "import django; django.setup(); from dmlworker import models; import keras; print(keras.backend.backend())"
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "dmlsite.settings", "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", check], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["tensorflow"], done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("DATABASE_URL", "sqlite:///x.db"), ("CHAIN_ID", "polygon"), ("DML_ENV", "staging"), ("DEBUG", "maybe")],
)
def test_a_bad_setting_stops_the_program_and_is_named(name, value):
    env = os.environ | {name: value}
    done = subprocess.run([sys.executable, "manage.py", "check"], env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert name in done.stderr
