"""Reads CSV files, images or .npy arrays as the model wants them. Needs NumPy, and Pillow for images; reads preprocessing.json beside it.

raw(files)      for model.keras and the SavedModel: columns by name if the table has more than plain numbers, else an array
numbers(files)  for model.onnx and model.tflite: always an array of float32
tell(outputs)   prints what the model says
"""

import csv
import io
import json
import math
import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

ABOUT = json.loads(Path(__file__).with_name("preprocessing.json").read_text(encoding="utf-8"))
COLUMNS, LABELS = ABOUT["columns"], ABOUT["labels"]
"""COLUMNS: of each raw column what becomes of it; without "kind", a plain number."""


def raw(files: list[str]) -> dict[str, np.ndarray] | np.ndarray:
    if not _mixed():
        return numbers(files)
    columns = zip(COLUMNS, zip(*_table(files), strict=True), strict=True)
    return {column["input"]: _raw(column, cells) for column, cells in columns}


def numbers(files: list[str]) -> np.ndarray:
    if files[0].endswith(".npy"):
        return np.concatenate([np.load(file) for file in files]).astype(np.float32)
    if ABOUT["kind"] == "images":
        return np.stack([_image(file) for file in files])
    table = _table(files)
    if not _mixed():
        return np.array([[_number(cell) for cell in row] for row in table], np.float32)
    return np.array([_encoded(row) for row in table], np.float32)


def tell(outputs: np.ndarray) -> None:
    """A line for each sample: the number; the labels that apply; or the class, and how sure the model is of it."""
    for values in outputs:
        if ABOUT["task"] == "regression":
            print(f"{values[0]:.6g}")
        elif ABOUT["task"] == "multilabel":
            print(", ".join(label for label, value in zip(LABELS, values, strict=True) if value > 0.5) or "-")
        else:
            print(f"{LABELS[values.argmax()]}\t{values.max():.1%}")


def _mixed() -> bool:
    return any("kind" in column for column in COLUMNS)


def _image(file: str) -> np.ndarray:
    from PIL import Image

    height, width, *colours = ABOUT["shape"]
    image = Image.open(file)
    if image.mode.startswith("I") and not colours:  # 16 bits of grey
        image = Image.fromarray((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8))
    image = image.convert("RGB" if colours else "L")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image, np.float32)


def _table(files: list[str]) -> list[list[str]]:
    """Cells of the columns that the model knows, in its order; the target and others may be there or not."""
    return [row for file in files for row in _rows(file)]


def _rows(file: str) -> list[list[str]]:
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = Path(file).read_text(encoding="cp1252")
    delimiter = max(",;\t|", key=text.partition("\n")[0].count)
    found = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = [cells for row in found if any(cells := [cell.strip() for cell in row])]
    names = [column["name"] for column in COLUMNS]
    head = [name or f"column {number}" for number, name in enumerate(rows[0], 1)]
    if set(names) <= set(head):
        rows, places = rows[1:], [head.index(name) for name in names]
    elif all(re.fullmatch("column [0-9]+", name) for name in names):  # trained on a table without a header
        places = [int(name.split()[1]) - 1 for name in names]
    else:
        raise SystemExit(f"{file} has no column {min(set(names) - set(head))!r}.")
    if short := [row for row in rows if len(row) <= max(places)]:
        raise SystemExit(f"{file} has a row with {len(short[0])} values only: {short[0]}")
    return [[row[place] for place in places] for row in rows]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise SystemExit(f"{cell!r} is no number.") from None


def _known(cell: str) -> str:
    """The cell; empty if it says that nothing is known."""
    return "" if cell.lower().lstrip("+-") in ABOUT["missing"] else cell


def _raw(column: dict, cells: tuple[str, ...]) -> np.ndarray:
    """(n,) float32 with NaN for what is missing, or text, empty where missing."""
    known = [_known(cell) for cell in cells]
    if column["kind"] == "number":
        return np.array([_number(cell) if cell else math.nan for cell in known], np.float32)
    return np.array(known, str)


def _encoded(row: list[str]) -> list[float]:
    """A row as the model was trained on it."""
    encode = {"number": _of_number, "category": _of_category, "date": _of_date}
    pairs = zip(COLUMNS, map(_known, row), strict=True)
    return [part for column, cell in pairs for part in encode[column["kind"]](column, cell)]


def _of_number(column: dict, cell: str) -> list[float]:
    """The median where it is missing, and then a mark, if any was missing in the training data."""
    return [_number(cell) if cell else column["fill"], *[float(not cell)] * column["missing"]]


def _of_category(column: dict, cell: str) -> list[float]:
    """A mark for each value that counts, after one for all others."""
    values = [*column["values"], *[""] * column["missing"]]
    place = values.index(cell) + 1 if cell in values else 0
    return [float(number == place) for number in range(len(values) + 1)]


def _of_date(column: dict, cell: str) -> list[float]:
    """Year, month, weekday from Monday as 0, the day of the year on a circle, and the hour if any counts; minutes are cut off."""
    date = datetime(1970, 1, 1) + timedelta(hours=column["fill"])
    if cell:
        year, month, day = (int(cell[column["form"].index(part) :][: len(part)]) for part in ("YYYY", "MM", "DD"))
        date = datetime(year, month, day, int(cell[11:13] or 0))
    angle = 2 * math.pi * (date.timetuple().tm_yday - 1) / 366
    parts = [date.year, date.month, date.weekday(), math.sin(angle), math.cos(angle), *[date.hour] * column["timed"]]
    return [*parts, *[float(not cell)] * column["missing"]]
