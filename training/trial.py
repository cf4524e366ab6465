"""A customer tries their model: a sample in, the probability of each class out.

The web process has no TensorFlow, so a job answers. Sample and answer wait in the cache: what is lost there is asked again.
"""

import math
from typing import IO
from uuid import uuid4

import numpy as np
from django.core.cache import cache
from django.http import QueryDict

from dmlsite import jobs
from dmlsite.errors import Invalid
from dmlworker.datasets import DatasetError, images
from training.models import Run

SECONDS = 600
"""A sample and its answer are kept for so long."""
MOST_FIELDS = 40
"""A table with more columns is filled in as one line."""


def kind(run: Run) -> str:
    """How a sample is given: "fields", one for each column; "line"; "image"; empty if the model is not there, or takes what no page can
    ask for."""
    if run.state != Run.State.DONE or not run.classes:  # the classes went with the model, when the account was closed
        return ""
    if run.facts["kind"] == "images":
        return "image"
    shape = run.facts["sample_shape"]
    if len(shape) != 1:
        return ""
    return "fields" if run.facts.get("features") and shape[0] <= MOST_FIELDS else "line"


def fields(run: Run) -> list[tuple[str, str, str]]:
    """(name in the form, column, value of the example) of each field."""
    example = run.facts.get("example") or [""] * len(run.facts["features"])
    return [
        (f"value-{n}", name, f"{value:.6g}" if value != "" else "")
        for n, (name, value) in enumerate(zip(run.facts["features"], example, strict=True))
    ]


def line(run: Run) -> str:
    return ", ".join(f"{value:.6g}" for value in run.facts.get("example") or [])


def read(run: Run, given: QueryDict, image: IO[bytes] | None) -> np.ndarray:
    """The sample in a form, as the data set's reader would give it. Raises Invalid, with what is wrong."""
    asked = kind(run)
    if not asked:
        raise Invalid("This model can't be tried here. Download it.")
    shape = tuple(run.facts["sample_shape"])
    if asked == "image":
        if image is None:
            raise Invalid("Please choose an image.")
        try:
            return images.one(image, shape)
        except DatasetError as error:
            raise Invalid(str(error)) from None
    if asked == "fields":
        return np.array([_number(given.get(name, ""), column) for name, column, _ in fields(run)], np.float32)
    cells = [cell for cell in given.get("line", "").replace(";", ",").split(",") if cell.strip()]
    if len(cells) != shape[0]:
        raise Invalid(f"The model takes {shape[0]} numbers, and these are {len(cells)}.")
    return np.array([_number(cell, f"number {n}") for n, cell in enumerate(cells, 1)], np.float32)


def _number(text: str, what: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not abs(found) < float(np.finfo(np.float32).max):
        raise Invalid(f"{what}: {text.strip()[:40] or 'nothing'} is no number.")
    return found


def ask(run: Run, sample: np.ndarray) -> str:
    """Have a job answer; gives the trial's name."""
    pk = uuid4().hex
    cache.set(_key(run.pk.hex, pk), True, SECONDS)
    cache.set(f"trial-sample:{pk}", (sample.tobytes(), sample.dtype.str, sample.shape), SECONDS)
    jobs.enqueue("training.tasks.answer_trial", str(run.pk), pk)
    return pk


def _key(run: str, pk: str) -> str:
    return f"trial:{run}:{pk}"


def known(run: Run, pk: str) -> bool:
    """Whether this trial is one of this run, and not too old."""
    return bool(cache.get(_key(run.pk.hex, pk)))


def sample(pk: str) -> np.ndarray | None:
    if (kept := cache.get(f"trial-sample:{pk}")) is None:
        return None
    data, dtype, shape = kept
    return np.frombuffer(data, dtype).reshape(shape)


def answer(pk: str, probabilities: list[float]) -> None:
    cache.set(f"trial-answer:{pk}", probabilities, SECONDS)


def answered(pk: str) -> list[float] | None:
    """The probability of each class; None while nobody has answered."""
    found: list[float] | None = cache.get(f"trial-answer:{pk}")
    return found
