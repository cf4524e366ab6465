"""Runs a script in TensorFlow Federated's environment (`make verify-tff` builds it), and cleans up after it."""

import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".bench" / "tff" / "bin" / "python"


def run(script: str, *arguments: str | Path, seconds: int = 1800, onednn: bool = True) -> str:
    """Runs bench/`script` there and returns what it printed. Raises RuntimeError if it fails.

    TFF leaves its `worker_binary` children behind, which hold on to an inherited stdout: it gets a file, not a pipe, and a
    session of its own, which is ended whole.
    """
    command = [PYTHON, ROOT / "bench" / script, *arguments]
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": str(int(onednn)), "TF_CPP_MIN_LOG_LEVEL": "2"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, env=environment, start_new_session=True)
        try:
            failed = process.wait(seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for file in (out, errors):
            file.seek(0)
        if failed:
            raise RuntimeError(f"{script} failed:\n{errors.read()[-3000:]}")
        return out.read()
