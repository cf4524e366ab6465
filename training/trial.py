"""A customer tries their model: a sample in, the probability of each class out, or a number.

The web process has no TensorFlow, so a job answers. Sample and answer wait in the cache: what is lost there is asked again.
"""

import csv
import io
import math
from typing import IO, NamedTuple
from uuid import uuid4

import numpy as np
from django.core.cache import cache
from django.http import QueryDict

from dmlsite import jobs
from dmlsite.errors import Invalid
from dmlworker.datasets import DatasetError, images
from dmlworker.datasets.encoding import Feature
from training.models import Run
from training.raw import encoder_of

SECONDS = 600
"""A sample and its answer are kept for so long."""
MOST_FIELDS = 40
"""A table with more columns is filled in as one line."""


class Field(NamedTuple):
    """Of the form. name: in the form. value: of the example. choices: known values, if it is a category. number: as a keyboard should offer
    it. required: nothing was ever missing here. text: of any length."""

    name: str
    column: str
    value: str
    choices: tuple[str, ...] = ()
    number: bool = True
    required: bool = True
    text: bool = False


def kind(run: Run) -> str:
    """How a sample is given: "fields", one for each column; "line"; "rows" of a window; "image"; empty if the model is not there, or takes
    what no page can ask for."""
    # Classes and features went with the model, when the account was closed.
    if run.state != Run.State.DONE or not (run.classes or "features" in run.facts):
        return ""
    if run.facts["kind"] == "images":
        return "image"
    if run.facts.get("window"):
        return "rows"
    if len(run.facts["sample_shape"]) != 1:
        return ""
    columns = len(run.facts.get("features") or [])
    return "fields" if 0 < columns <= MOST_FIELDS else "line"


def fields(run: Run) -> list[Field]:
    encoder, example = encoder_of(run), run.facts.get("example") or [""] * len(run.facts["features"])
    if encoder:
        given = zip(encoder.features, example, strict=True)
        return [_raw_field(f"value-{n}", feature, value) for n, (feature, value) in enumerate(given)]
    return [
        Field(f"value-{n}", name, f"{value:.6g}" if value != "" else "")
        for n, (name, value) in enumerate(zip(run.facts["features"], example, strict=True))
    ]


def _raw_field(name: str, feature: Feature, value: str) -> Field:
    choices, text = () if feature.split else feature.values, bool(feature.split)
    return Field(name, feature.name, value, choices, feature.kind == "number", not (feature.missing or text), text)


def line(run: Run) -> str:
    example = run.facts.get("example") or []
    if not run.facts.get("encoder"):
        return ", ".join(f"{value:.6g}" for value in example)
    return _csv([example] if example else [])


def rows(run: Run) -> str:
    """A window that no provider saw, a line for each row."""
    example = run.facts.get("example") or []
    return _csv(example if run.facts.get("encoder") else [[f"{value:.6g}" for value in row] for row in example])


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().strip("\n")


def read(run: Run, given: QueryDict, image: IO[bytes] | None) -> np.ndarray:
    """The sample in a form, as the data set's reader, and the encoder, would give it. Raises Invalid, with what is wrong."""
    asked = kind(run)
    if not asked:
        raise Invalid("This model can't be tried here. Download it.")
    try:
        if asked == "image":
            return _image(run, image)
        if asked == "rows":
            return np.stack([_row(run, cells) for cells in _window(run, given)])
        if encoder := encoder_of(run):
            return encoder.row(_cells(run, given, asked))
    except DatasetError as error:
        raise Invalid(str(error)) from None
    if asked == "fields":
        return np.array([_number(given.get(field.name, ""), field.column) for field in fields(run)], np.float32)
    cells = [cell for cell in given.get("line", "").replace(";", ",").split(",") if cell.strip()]
    _check_count(len(cells), run.facts["sample_shape"][0], "numbers")
    return np.array([_number(cell, f"number {n}") for n, cell in enumerate(cells, 1)], np.float32)


def _image(run: Run, image: IO[bytes] | None) -> np.ndarray:
    if image is None:
        raise Invalid("Please choose an image.")
    return images.one(image, tuple(run.facts["sample_shape"]))


def _cells(run: Run, given: QueryDict, asked: str) -> list[str]:
    """A raw row."""
    if asked == "fields":
        return [given.get(field.name, "") for field in fields(run)]
    cells = next(iter(_parsed(given.get("line", ""), ",")), [])
    _check_count(len(cells), len(run.facts["features"]), "values")
    return cells


def _window(run: Run, given: QueryDict) -> list[list[str]]:
    """Its rows, as typed, or pasted from a spreadsheet, which puts tabs between the cells."""
    text = given.get("rows", "")
    found = [cells for cells in _parsed(text, "\t" if "\t" in text else ",") if any(cell.strip() for cell in cells)]
    _check_count(len(found), run.facts["window"], "rows")
    for cells in found:
        _check_count(len(cells), len(run.facts["features"]), "values in a row")
    return found


def _row(run: Run, cells: list[str]) -> np.ndarray:
    if encoder := encoder_of(run):
        return encoder.row(cells)
    named = zip(cells, run.facts["features"], strict=True)
    return np.array([_number(cell, name) for cell, name in named], np.float32)


def _parsed(text: str, delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise Invalid(f"This is no part of a table: {error}.") from None


def _check_count(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise Invalid(f"The model takes {wanted} {what}, and these are {found}.")


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


def answer(pk: str, found: list[float]) -> None:
    cache.set(f"trial-answer:{pk}", found, SECONDS)


def answered(pk: str) -> list[float] | None:
    """The probability of each class, or a number; None while nobody has answered."""
    found: list[float] | None = cache.get(f"trial-answer:{pk}")
    return found
