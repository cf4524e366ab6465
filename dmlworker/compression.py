"""Smaller updates for slow lines: the change of the weights as float16 or int8, with error feedback. NumPy only.

What rounding loses in one round is added to the change of the next (error feedback; Seide et al. 2014, Karimireddy et al. 2019,
https://arxiv.org/abs/1901.09847), so that it is delayed rather than lost. What it costs: docs/decisions/training-arithmetic.md.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dmlworker.weights import MAX_ARRAYS, MalformedUpdate

Weights = list[np.ndarray]


def encode(delta: Sequence[np.ndarray], kind: str) -> tuple[bytes, Weights]:
    """(bytes, rest) of a change of weights: a float32 array each. rest: what the bytes do not say, for the next round.

    fp16: two bytes a number, what is too large for it cut to its largest. int8: one byte, in steps of 1/127 of the array's
    largest number, which is kept beside it.
    """
    tensors: dict[str, np.ndarray] = {}
    for number, array in enumerate(delta):
        if kind == "fp16":
            tensors[f"{number:03d}/delta"] = np.clip(array, -65504, 65504).astype(np.float16)
        else:
            step = np.float32(np.max(np.abs(array), initial=0) / 127)
            tensors[f"{number:03d}/step"] = step.reshape(1)
            tensors[f"{number:03d}/delta"] = np.rint(array / step if step else array).astype(np.int8)
    rest = [before - said for before, said in zip(delta, _decoded(tensors, kind), strict=True)]
    return cast(bytes, save(tensors)), rest


def decode(data: bytes, kind: str, start: Sequence[np.ndarray]) -> Weights:
    """The weights that an encoded change of `start` gives, float32. Raises MalformedUpdate for anything else."""
    try:
        changes = _decoded(load(data), kind)
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise MalformedUpdate(f"Not an update in {kind}.") from None
    if [change.shape for change in changes] != [array.shape for array in start]:
        raise MalformedUpdate("The update has other arrays than the model.")
    return [array + change for array, change in zip(start, changes, strict=True)]


def _decoded(tensors: dict[str, np.ndarray], kind: str) -> Weights:
    """Raises KeyError or ValueError for what `encode` does not write."""
    count = len(tensors) if kind == "fp16" else len(tensors) // 2
    if not 0 < count <= MAX_ARRAYS or len(tensors) != (count if kind == "fp16" else 2 * count):
        raise ValueError("another number of arrays")
    found = []
    for number in range(count):
        array = tensors[f"{number:03d}/delta"]
        if array.dtype != (np.float16 if kind == "fp16" else np.int8):
            raise ValueError(f"array {number} is {array.dtype}")
        step = tensors[f"{number:03d}/step"] if kind == "int8" else np.ones(1, np.float32)
        if step.dtype != np.float32 or step.shape != (1,):
            raise ValueError(f"step {number} is {step.dtype}")
        found.append(array.astype(np.float32) * step[0])
    return found
