"""Weights as bytes: safetensors (https://huggingface.co/docs/safetensors), float32, in order. NumPy only, so that the web
process may look at an update too. Nothing is copied that need not be: fresh memory costs more than the bytes in it.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Bytes = bytes | bytearray | memoryview
MAX_ARRAYS = 1000
MAX_HEADER = 1 << 20
"""Bytes of the description of so many arrays, generously."""
_NAME = re.compile(r"(\d{3})/.{1,200}")


class MalformedUpdate(ValueError):
    """Bytes or arrays that are not weights of the model in question. No proof of bad will: unpaid, retried elsewhere."""


def pieces(weights: Sequence[np.ndarray], names: Sequence[str] | None = None) -> list[memoryview]:
    """The bytes of `pack` without a copy: a header, then each array's own memory. Raises MalformedUpdate as `pack` does."""
    if any(array.dtype != np.float32 for array in weights) or not 0 < len(weights) <= MAX_ARRAYS:
        raise MalformedUpdate(f"Weights are 1 to {MAX_ARRAYS} arrays of float32.")
    labels = names if names is not None else ["weight"] * len(weights)
    entries, end = {}, 0
    for number, (array, name) in enumerate(zip(weights, labels, strict=True)):
        begin, end = end, end + array.nbytes
        entries[f"{number:03d}/{name}"] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return [memoryview(len(header).to_bytes(8, "little") + header), *map(_memory, weights)]


def _memory(array: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8))


def pack(weights: Sequence[np.ndarray], names: Sequence[str] | None = None) -> bytes:
    """Arrays as safetensors bytes, named "000/kernel", "001/bias", ... so that their order is kept.

    `names`: what follows the number; "weight" without it. Equal arrays and names give equal bytes, hence equal hashes.
    Raises MalformedUpdate if an array is not float32.
    """
    return b"".join(pieces(weights, names))


def unpack(data: Bytes) -> list[np.ndarray]:
    """The arrays of `pack`, in order, float32: views of the bytes, not to be written to. Raises MalformedUpdate for anything
    else."""
    return _views(np.frombuffer(data, np.uint8))


def mapped(path: Path) -> list[np.ndarray]:
    """As `unpack` of the file's bytes, read by the operating system as they are looked at: a model of any size takes no
    memory of ours."""
    try:
        data = np.asarray(np.memmap(path, np.uint8, mode="r"))
    except (ValueError, OSError):
        raise MalformedUpdate("Not a safetensors file.") from None
    return _views(data)


def _views(data: np.ndarray) -> list[np.ndarray]:
    """The arrays in safetensors bytes: a header of JSON says where each lies in what follows, one after another."""
    first = 8 + int.from_bytes(data[:8].tobytes(), "little")
    if not 8 < first <= min(len(data), MAX_HEADER):
        raise MalformedUpdate("Not a safetensors file.")
    body = data[first:]
    try:
        entries = dict(json.loads(data[8:first].tobytes()))
        entries.pop("__metadata__", None)
        names = sorted(entries)
        _check_names(names)
        found = [_view(body, entries[name]) for name in names]
        _check_gaps(sorted(entry["data_offsets"] for entry in entries.values()), len(body))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        text = "Not a safetensors file."
        raise MalformedUpdate(str(error) if isinstance(error, MalformedUpdate) else text) from None
    return found


def _check_names(names: Sequence[str]) -> None:
    numbers = [match and int(match[1]) for match in map(_NAME.fullmatch, names)]
    if not numbers or numbers != list(range(len(numbers))):
        raise MalformedUpdate('Arrays must be named "000/...", "001/..." and so on without a gap.')


def _view(body: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    if entry["dtype"] != "F32":
        raise MalformedUpdate("Arrays must be float32.")
    (begin, end), shape = entry["data_offsets"], entry["shape"]
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise ValueError("sizes are whole numbers")
    if end - begin != 4 * math.prod(shape):
        raise ValueError("the shape does not fit the size")
    return body[begin:end].view("<f4").reshape(shape)


def _check_gaps(spans: list[list[int]], size: int) -> None:
    """Raises ValueError unless every byte belongs to exactly one array."""
    ends = [0, *(end for _, end in spans)]
    if ends[-1] != size or [begin for begin, _ in spans] != ends[:-1]:
        raise ValueError("arrays overlap, or leave a gap")
