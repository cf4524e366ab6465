"""Reads CSV files, images or .npy arrays as the model wants them. Needs NumPy, and Pillow for images; reads preprocessing.json beside it.

raw(files)      for model.keras and the SavedModel: columns by name if the table has more than plain numbers, else an array
numbers(files)  for model.onnx and model.tflite: always an array of float32
tell(outputs)   prints what the model says

A model of a series takes windows: of each file, whose rows are in their order, every part of so many rows. The last one is the file's end, so
what the model says of it is not in the file.
"""

import csv
import io
import json
import math
import re
import string
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

ABOUT = json.loads(Path(__file__).with_name("preprocessing.json").read_text(encoding="utf-8"))
COLUMNS, LABELS, WINDOW = ABOUT["columns"], ABOUT["labels"], ABOUT["window"]
"""COLUMNS: of each raw column what becomes of it; without "kind", a plain number. WINDOW: rows that are one sample; 0: each is one."""
TEXTS = ("text", "tokens")
"""Kinds of columns: which words occur; the words in their order."""
SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase, string.punctuation)
csv.field_size_limit(1 << 30)


def raw(files: list[str]) -> dict[str, np.ndarray] | np.ndarray:
    """By name (n, 1), or (n, WINDOW): float32 with NaN for what is missing, or text, empty where missing."""
    if not _mixed():
        return numbers(files)
    tables = [list(zip(*_rows(file), strict=True)) for file in files]
    return {
        column["input"]: np.concatenate([_windows(_raw(column, table[place]), WINDOW or 1) for table in tables])
        for place, column in enumerate(COLUMNS)
    }


def numbers(files: list[str]) -> np.ndarray:
    if files[0].endswith(".npy"):
        return np.concatenate([np.load(file) for file in files]).astype(np.float32)
    if ABOUT["kind"] == "images":
        return np.stack([_image(file) for file in files])
    encode = _encoded if _mixed() else _plain
    tables = [np.array([encode(row) for row in _rows(file)], np.float32) for file in files]
    return np.concatenate([_windows(table, WINDOW) for table in tables] if WINDOW else tables)


def tell(outputs: np.ndarray) -> None:
    """A line for each sample: the number, in the target's own unit; the labels above one half, or the class, with how sure the model is."""
    for values in outputs:
        if ABOUT["task"] == "regression":
            print(f"{values[0]:.6g}")
        elif ABOUT["task"] == "multilabel":
            likely = [f"{label} {value:.1%}" for label, value in zip(LABELS, values, strict=True) if value > 0.5]
            print(", ".join(likely) or "-")
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


def _windows(rows: np.ndarray, steps: int) -> np.ndarray:
    """(n, steps, ...) of rows in their order."""
    if len(rows) < steps:
        raise SystemExit(f"A window has {steps} rows, and these are {len(rows)} only.")
    return rows[np.arange(len(rows) - steps + 1)[:, None] + np.arange(steps)]


def _rows(file: str) -> list[list[str]]:
    """Cells of the columns that the model knows, in its order; the target and others may be there or not."""
    data = Path(file).read_bytes()  # not as text, which would change the ends of lines within a cell
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252")
    found = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), skipinitialspace=True)
    rows = [cells for row in found if any(cells := [cell.strip() for cell in row])]
    names = [column["name"] for column in COLUMNS]
    head = [name or f"column {number}" for number, name in enumerate(rows[0], 1)]
    if odd := [row for row in rows if len(row) != len(head)]:
        raise SystemExit(f"{file} has {len(head)} columns, and a row with {len(odd[0])}: {odd[0]}")
    if set(names) <= set(head):
        rows, places = rows[1:], [head.index(name) for name in names]
    elif all(re.fullmatch("column [0-9]+", name) for name in names):  # trained on a table without a header
        places = [int(name.split()[1]) - 1 for name in names]
    else:
        raise SystemExit(f"{file} has no column {min(set(names) - set(head))!r}.")
    if max(places) >= len(head):
        raise SystemExit(f"{file} has {len(head)} columns only.")
    return [[row[place] for place in places] for row in rows]


def _delimiter(text: str) -> str:
    """The one that cuts the first lines into the most columns, all equally many."""
    lines = text[: 1 << 16].splitlines(keepends=True)[:50]
    lines = lines[:-1] if len(text) > 1 << 16 and len(lines) > 1 else lines  # the last one may be cut off

    def fit(delimiter: str) -> tuple[bool, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        return len(set(widths)) == 1 and widths[0] > 1, min(widths, default=0)

    return max(",;\t|", key=fit)


def _plain(row: list[str]) -> list[float]:
    return [_number(cell) for cell in row]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise SystemExit(f"{cell!r} is no number.") from None


def _known(column: dict, cell: str) -> str:
    """The cell; empty if it says that nothing is known, which a text never does."""
    gone = column["kind"] not in TEXTS and cell.lower().lstrip("+-") in ABOUT["missing"]
    return "" if gone else cell


def _raw(column: dict, cells: tuple[str, ...]) -> np.ndarray:
    """(n,)"""
    known = [_known(column, cell) for cell in cells]
    if column["kind"] == "number":
        return np.array([_number(cell) if cell else math.nan for cell in known], np.float32)
    return np.array(known, object)  # not str, which takes as much for each cell as for the longest


def _encoded(row: list[str]) -> list[float]:
    """A row as the model was trained on it."""
    encode = {"number": _of_number, "category": _of_category, "date": _of_date, "text": _of_text, "tokens": _of_tokens}
    pairs = zip(COLUMNS, row, strict=True)
    return [part for column, cell in pairs for part in encode[column["kind"]](column, _known(column, cell))]


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


def _of_text(column: dict, cell: str) -> list[float]:
    """Whether any word occurs that does not count, then for each one that does."""
    words = set(_words(column, cell))
    return [float(not words <= set(column["values"])), *[float(word in words) for word in column["values"]]]


def _of_tokens(column: dict, cell: str) -> list[float]:
    """The words' numbers from 2, 1 for any that does not count, 0 after the end."""
    place = _places(column)
    found = [float(place.get(word, 1)) for word in _words(column, cell)[: column["length"]]]
    return found + [0.0] * (column["length"] - len(found))


def _places(column: dict) -> dict[str, int]:
    """Of each word that counts; kept for the next row."""
    return column.setdefault("places", {word: number for number, word in enumerate(column["values"], 2)})


def _words(column: dict, cell: str) -> list[str]:
    """In small letters of A to Z, without ASCII punctuation; characters where a script has no spaces. As Keras' TextVectorization."""
    plain = cell.translate(SMALL)
    return (
        list(plain) if column["split"] == "character" else [word for word in re.split("[ \t\n\r\v\f]+", plain) if word]
    )
