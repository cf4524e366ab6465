"""A run on a table with more than plain numbers: how its rows became numbers, and how its model is fed. No TensorFlow in here."""

import json
from collections.abc import Iterator

from dmlworker.datasets import Encoder, dates, text
from dmlworker.datasets.encoding import Feature
from tickets.models import Ticket
from training.models import Run

MOST_WORDS = 20
"""That the model card names of a text."""
LOAD = 'import keras\n\nmodel = keras.saving.load_model("model.keras")'


def encoder_of(run: Run) -> Encoder | None:
    """What made numbers of the raw rows; None if they were numbers already."""
    return Encoder.from_json(run.facts["encoder"], run.facts.get("window", 0)) if run.facts.get("encoder") else None


def loading(run: Run) -> str:
    """Python that opens the customer's model; for raw rows, with one that no provider saw, while their data is here."""
    encoder = encoder_of(run)
    if encoder is None:
        return LOAD
    row = [""] * len(encoder.features)
    example = run.facts["example"] or ([row] * run.facts["window"] if encoder.steps else row)
    cells = zip(encoder.inputs, encoder.features, zip(*example, strict=True) if encoder.steps else example, strict=True)
    rows = [f"    {_text(name)}: [{_sample(feature.kind, cell)}]," for name, feature, cell in cells]
    feed = "model.predict({name: keras.ops.convert_to_tensor(values) for name, values in rows.items()})"
    return "\n".join([LOAD, "rows = {  # as many as you like in each list", *rows, "}", feed])


def said(ticket: Ticket) -> Iterator[str]:
    """What the customer said of the data, in words."""
    if ticket.leave_out:
        yield f"without {', '.join(ticket.leave_out)}"
    yield from (f"{name} is a {kind}" for name, kind in ticket.kinds.items())
    if ticket.group:
        apart = ", a provider each" if ticket.sharding == "group" else ""
        yield f"rows with the same {ticket.group} stay together{apart}"
    if ticket.sharding == "speed":
        yield "more rows to the faster providers"
    if ticket.window:
        yield f"windows of {ticket.window} rows, the target {ticket.horizon} further on"
    if ticket.class_weights != "none":
        yield "rare classes count more"


def columns(run: Run) -> list[list[str]]:
    """Of each raw column, as cells of a Markdown table: its name, what it is, what becomes of what is missing, the values that count."""
    encoder = encoder_of(run)
    rows = [[each.name, _is(each), _missing(each), _values(each)] for each in encoder.features] if encoder else []
    return [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]


def _values(feature: Feature) -> str:
    """Of a text, the most frequent words."""
    if not feature.split:
        return ", ".join(feature.values)
    return ", ".join(feature.values[:MOST_WORDS]) + (" …" if len(feature.values) > MOST_WORDS else "")


def _is(feature: Feature) -> str:
    if feature.split:
        many = f"{len(feature.values):,} {'characters' if feature.split == text.CHARACTER else 'words'}"
        return f"text, the first {feature.length} of {many}" if feature.length else f"text, which of {many} occur"
    return f"date, {feature.form}" if feature.kind == "date" else feature.kind


def _missing(feature: Feature) -> str:
    if feature.split:
        return "an empty text"
    if feature.kind == "category":
        return "a value of its own" if feature.missing else "another value"
    return dates.text(feature.fill) if feature.kind == "date" else f"{feature.fill:.6g}"


def _sample(kind: str, cell: str | tuple[str, ...]) -> str:
    """A cell, or those of a window."""
    return _literal(kind, cell) if isinstance(cell, str) else f"[{', '.join(_literal(kind, each) for each in cell)}]"


def _literal(kind: str, cell: str) -> str:
    return (str(float(cell)) if cell else 'float("nan")') if kind == "number" else _text(cell)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
