"""Parquet, Arrow and Excel, read by other people's libraries: in a process of its own with little memory (`unpack`), which sends rows of text.

A small file of these kinds can unpack to terabytes, and only the library that unpacks it knows. What comes of that ends the process
and not ours.
"""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from dmlworker.datasets import table
from dmlworker.datasets.dataset import Dataset, DatasetError
from dmlworker.task import AUTO

REFUSED = 3
"""The process's exit code, if it tells the reason."""
NAMES = {"parquet": "a Parquet", "arrow": "an Arrow or Feather", "excel": "an Excel"}
_ROOT = Path(__file__).resolve().parents[2]
_KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TZDIR")
"""Of our environment. The rest is none of its business: a hostile file may take the process over."""
_ENVIRONMENT = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
    "PYTHONPATH": str(_ROOT),
    "PYTHONIOENCODING": "utf-8",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
}


def read(path: Path, target: str | None, task: str = AUTO, *, kind: str) -> Dataset:
    """The table in a file of this kind. Raises DatasetError."""
    return table.with_header(partial(_rows, path, kind), target, kind, kind != "excel", task)


def _rows(path: Path, kind: str) -> Iterator[table.Row]:
    """What the process finds; it ends when nobody wants more."""
    command = [sys.executable, "-m", "dmlworker.datasets.unpack", kind, str(path.resolve())]
    with TemporaryFile() as told:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=told, stdin=subprocess.DEVNULL, env=_ENVIRONMENT
        )
        try:
            with TextIOWrapper(process.stdout, "utf-8", newline="") as text:  # type: ignore[type-var]
                yield from ((line, cells) for line, cells in enumerate(csv.reader(text), 1) if any(cells))
            _check_end(process.wait(), told, kind)
        finally:
            process.kill()
            process.wait()


def _check_end(code: int, told: IO[bytes], kind: str) -> None:
    if code == REFUSED:
        told.seek(0)
        raise DatasetError(told.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2])
    if code:
        raise broken(kind)


def broken(kind: str) -> DatasetError:
    return DatasetError(f"The file is broken, too large when it is unpacked, or not {NAMES[kind]} file at all.")
