"""The gate every update passes before it is stored: is it weights of this model at all?"""

from collections.abc import Sequence

import numpy as np

from dmlworker.weights import MalformedUpdate


def check(update: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> None:
    """Raises MalformedUpdate, saying which array and why, unless update has the reference's arrays, all finite.

    The arrays' names are their numbers ("000/..."), which `unpack` has checked: order is identity.
    """
    if len(update) != len(reference):
        raise MalformedUpdate(f"The update has {len(update)} arrays, the model {len(reference)}.")
    for number, (array, expected) in enumerate(zip(update, reference, strict=True)):
        if array.shape != expected.shape:
            raise MalformedUpdate(f"Array {number} has the shape {array.shape} instead of {expected.shape}.")
        if array.dtype != expected.dtype:
            raise MalformedUpdate(f"Array {number} is {array.dtype} instead of {expected.dtype}.")
        if not np.isfinite(array).all():
            raise MalformedUpdate(f"Array {number} holds values that are not finite.")
