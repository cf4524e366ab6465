"""Weights as bytes: safetensors, float32, in order. NumPy only, so that the web process may look at an update too."""

import re
from collections.abc import Sequence

import numpy as np
from safetensors import SafetensorError
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
    return bytes(_save({f"{i:03d}/{name}": np.ascontiguousarray(array) for i, (array, name) in enumerate(numbered)}))


def unpack(data: bytes) -> list[np.ndarray]:
    """The arrays of `pack`, in order, float32. Raises MalformedUpdate for anything else."""
    try:
        tensors = _load(data)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise MalformedUpdate("Not a safetensors file.") from None
    ordered = [tensors[name] for name in sorted(tensors)]
    numbers = [match and int(match[1]) for match in map(_NAME.fullmatch, sorted(tensors))]
    if not tensors or numbers != list(range(len(ordered))):
        raise MalformedUpdate('Arrays must be named "000/...", "001/..." and so on without a gap.')
    if any(array.dtype != np.float32 for array in ordered):
        raise MalformedUpdate("Arrays must be float32.")
    return ordered
