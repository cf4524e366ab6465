"""Weights as bytes: safetensors, float32, in order. NumPy only, so that the web process may look at an update too."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as _load
from safetensors.numpy import save as _save

MAX_ARRAYS = 1000
_NAME = re.compile(r"(\d{3})/.{1,200}")


class MalformedUpdate(ValueError):
    """Bytes or arrays that are not weights of the model in question. No proof of bad will: unpaid, retried elsewhere."""


def pack(weights: Sequence[np.ndarray], names: Sequence[str] | None = None) -> bytes:
    """Arrays as safetensors bytes, named "000/kernel", "001/bias", ... so that their order is kept.

    `names`: what follows the number; "weight" without it. Equal arrays and names give equal bytes, hence equal hashes.
    Raises MalformedUpdate if an array is not float32.
    """
    if any(array.dtype != np.float32 for array in weights) or not 0 < len(weights) <= MAX_ARRAYS:
        raise MalformedUpdate(f"Weights are 1 to {MAX_ARRAYS} arrays of float32.")
    labels = names if names is not None else ["weight"] * len(weights)
    numbered = zip(weights, labels, strict=True)
    return bytes(_save({f"{i:03d}/{name}": np.asarray(array, order="C") for i, (array, name) in enumerate(numbered)}))


def unpack(data: bytes) -> list[np.ndarray]:
    """The arrays of `pack`, in order, float32. Raises MalformedUpdate for anything else."""
    try:
        tensors = _load(data)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise MalformedUpdate("Not a safetensors file.") from None
    _check_names(tensors)
    ordered = [tensors[name] for name in sorted(tensors)]
    if any(array.dtype != np.float32 for array in ordered):
        raise MalformedUpdate("Arrays must be float32.")
    return ordered


def _check_names(names: Iterable[str]) -> None:
    numbers = [match and int(match[1]) for match in map(_NAME.fullmatch, sorted(names))]
    if not numbers or numbers != list(range(len(numbers))):
        raise MalformedUpdate('Arrays must be named "000/...", "001/..." and so on without a gap.')


def mapped(path: Path) -> list[np.ndarray]:
    """As `unpack` of the file's bytes, but read-only, and read by the operating system as they are looked at: a model of
    any size takes no memory of ours."""
    try:
        with safe_open(path, framework="numpy"):  # the library has the last word on what is a safetensors file
            data = np.memmap(path, np.uint8, mode="r")
    except (SafetensorError, ValueError, OSError):
        raise MalformedUpdate("Not a safetensors file.") from None
    first = 8 + int.from_bytes(data[:8].tobytes(), "little")
    entries = json.loads(data[8:first].tobytes())
    entries.pop("__metadata__", None)
    _check_names(entries)
    if any(entry["dtype"] != "F32" for entry in entries.values()):
        raise MalformedUpdate("Arrays must be float32.")
    return [_view(data[first:], entries[name]) for name in sorted(entries)]


def _view(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    begin, end = entry["data_offsets"]
    return data[begin:end].view("<f4").reshape(entry["shape"])


def write(file: IO[bytes], weights: Sequence[np.ndarray]) -> None:
    """Write the bytes of `pack(weights)`, array by array, without a copy of them all."""
    entries, end = {}, 0
    for number, array in enumerate(weights):
        begin, end = end, end + array.nbytes
        entries[f"{number:03d}/weight"] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    for array in weights:
        file.write(np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8).data)
