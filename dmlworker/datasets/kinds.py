"""What a table's columns hold: numbers, categories, dates or text. What they are is known when all of them is read; what they seem to be is
kept meanwhile, and where it was wrong they are read once more."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dmlworker.datasets import dates, text
from dmlworker.datasets.cells import Block, Cells, Texts
from dmlworker.datasets.dataset import MISSING, DatasetError, Raw, check_text

MAX_VALUES = 1000
"""Different values that a category may have."""
MAX_VALUES_TOTAL = 1_000_000
"""Of all columns together, which bounds the memory."""
MAX_LENGTH = 200
"""Characters in a value of a category."""
MAX_CHARACTERS = 500_000_000
"""Of all different texts of a column."""
MAX_TEXTS = 1 << 24
"""Different ones: more are not told apart by float32."""
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")


class Seen:
    """What was seen of a column so far. values: the different ones, or None if they are too many or too long for a category."""

    def __init__(self) -> None:
        self.numbers = self.texts = self.commas = self.sentences = 0
        self.values: set[str] | None = set()
        self.forms = list(dates.FORMS)
        self.first: tuple[Block, int, str] | None = None

    def add(self, cells: Cells, block: Block) -> None:
        """Some more cells, and the block that they are of."""
        if not self.texts and (numbers := cells.gapped(MISSING)) is not None:
            self.numbers += int((~np.isnan(numbers)).sum())
            if self.values is not None:
                self._keep([cell for cell in cells.distinct()[0] if not is_missing(cell)])
            return
        found, codes = cells.distinct()
        for code, (cell, count) in enumerate(zip(found, np.bincount(codes).tolist(), strict=True)):
            if not is_missing(cell):
                self._add(cell, count)
                if self.texts and self.first is None:
                    self.first = (block, int((codes == code).argmax()), cell)

    def _add(self, cell: str, count: int) -> None:
        if is_number(cell):
            self.numbers += count
        else:
            check_text(cell)
            self.texts += count
            self.commas += count if _DECIMAL_COMMA.fullmatch(cell) else 0
            self.sentences += count if text.looks_like_text(cell) else 0
            self.forms = [form for form in self.forms if dates.hours(cell, form) is not None]
        self._keep([cell])

    def _keep(self, cells: Sequence[str]) -> None:
        if self.values is not None:
            self.values.update(cells)
            if len(self.values) > MAX_VALUES or any(len(cell) > MAX_LENGTH for cell in cells):
                self.values = None

    def settled(self, name: str, wanted: str = "") -> Raw | str:
        """What the column is, or why nothing can be learnt from it; `wanted`: the kind that its owner says. Raises DatasetError if it is
        not, or looks like numbers with a slip."""
        filled = self.numbers + self.texts
        if not filled:
            return "empty"
        if wanted:
            return self._wanted(name, wanted)
        if not self.texts:
            return Raw(name, "number")
        if self.forms and not self.numbers:
            return Raw(name, "date", form=self.forms[0])
        if self.commas == self.texts or (2 * self.numbers > filled and not self._repeats(filled)):
            raise self._slip(name)
        if self._repeats(filled):
            return Raw(name, "category", values=tuple(sorted(self.values or ())))
        if 2 * self.sentences > filled:
            return Raw(name, "text")
        return (
            "nearly every value is another"
            if self.values
            else f"over {MAX_VALUES:,} different values, and no text of several words"
        )

    def _wanted(self, name: str, kind: str) -> Raw:
        if kind == "number" and self.texts:
            raise self._slip(name)
        if kind == "date" and (self.numbers or not self.forms):
            raise DatasetError(
                f"Column {name!r:.80} does not hold dates, all in one of the forms {', '.join(dates.FORMS)}."
            )
        if kind == "category" and self.values is None:
            raise DatasetError(
                f"Column {name!r:.80} has over {MAX_VALUES:,} different values, or very long ones: too many for a category."
            )
        values = tuple(sorted(self.values or ())) if kind == "category" else ()
        return Raw(name, kind, values, self.forms[0] if kind == "date" else "")

    def _repeats(self, filled: int) -> bool:
        return self.values is not None and (len(self.values) <= 2 or 2 * len(self.values) <= filled)

    def _slip(self, name: str) -> DatasetError:
        assert self.first
        block, row, cell = self.first
        hint = " Write decimals with a point." if _DECIMAL_COMMA.fullmatch(cell) else ""
        return DatasetError(
            f"Column {name!r:.80} has text in line {block.line(row)}: {cell!r:.80}. The others are numbers.{hint}"
        )


def bound(seen: Sequence[Seen]) -> None:
    """Forgets the values of the columns with the most, if all of them together are too many."""
    total = sum(len(each.values or ()) for each in seen)
    for each in sorted(seen, key=lambda each: -len(each.values or ())):
        if total <= MAX_VALUES_TOTAL:
            return
        total -= len(each.values or ())
        each.values = None


def is_missing(cell: str) -> bool:
    return cell.lower().lstrip("+-") in MISSING


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class Column:
    """A column on its way from text to what `Raw` says, some cells at a time. `raw`: what is known of it so far."""

    def __init__(self, raw: Raw) -> None:
        self._raw, self._characters = raw, 0
        self._codes = {value: code for code, value in enumerate(raw.values)}

    @property
    def raw(self) -> Raw:
        return replace(self._raw, values=tuple(self._codes))

    def typed(self, cells: Cells) -> np.ndarray:
        """(n,) float32, NaN for what is missing. Of text only what is empty is missing."""
        if self._raw.kind == "number":
            return _floats(cells)
        found, codes = cells.distinct()
        if self._raw.kind == "date":
            hours = [dates.hours(cell, self._raw.form) for cell in found]
            return np.array([np.nan if each is None else each for each in hours], np.float32)[codes]
        if self._raw.kind == "text":
            self._learn(found)
        return np.array([self._codes.get(cell, np.nan) for cell in found], np.float32)[codes]

    def _learn(self, cells: Sequence[str]) -> None:
        for cell in cells:
            if cell and cell not in self._codes:
                self._codes[cell] = len(self._codes)
                self._characters += len(cell)
        if self._characters > MAX_CHARACTERS or len(self._codes) > MAX_TEXTS:
            raise DatasetError(
                f"The texts of column {self._raw.name!r:.80} are too long together. Leave some rows out."
            )


class Surprise(Exception):
    """A column is not what it seemed to be: it has to be read again."""


class Draft:
    """A column that is kept as what its first cells seem to be. `seen`: what was seen of it; of what seem to be numbers only their count.
    `gaps`: whether there were some before, or among numbers."""

    def __init__(self, wanted: str) -> None:
        self.seen, self._wanted = Seen(), wanted
        self._kind, self._form, self._characters = "codes" if wanted in ("category", "text") else "", "", 0
        self._codes: dict[str, int] = {}
        self.gaps = False

    def add(self, cells: Cells, block: Block) -> np.ndarray:
        """(n,) float32 for some more cells: numbers or hours, NaN where nothing is; or which of the different cells each is. Raises Surprise."""
        if self._kind in ("", "number"):
            numbers = cells.gapped(MISSING)
            if numbers is not None:
                return self._numbers(numbers)
            if self._kind == "number":
                raise Surprise
        self.seen.add(cells, block)
        if not self._kind:
            self._kind, self._form = ("date", self.seen.forms[0]) if self._dated else ("codes", "")
        if self._kind == "date" and not (self._dated and self.seen.forms[0] == self._form):
            self._kind = "lost"
        return self._typed(cells, block.rows)

    @property
    def _dated(self) -> bool:
        return bool(self.seen.forms) and not self.seen.numbers

    def _numbers(self, numbers: np.ndarray) -> np.ndarray:
        known = len(numbers) - int(np.isnan(numbers).sum())
        self.seen.numbers += known
        self._kind = "number" if known else self._kind
        self.gaps = self.gaps or known < len(numbers)
        with np.errstate(over="ignore"):
            return numbers.astype(np.float32)

    def _typed(self, cells: Cells, rows: int) -> np.ndarray:
        if self._kind == "date":
            return Column(Raw("", "date", form=self._form)).typed(cells)
        if self._kind == "codes":
            found, codes = cells.distinct()
            places = np.array([self._code(cell) for cell in found], np.float32)
            if len(self._codes) <= MAX_VALUES or self._is_text():
                return places[codes]
            self._kind, self._codes = "lost", {}
        return np.full(rows, np.nan, np.float32)

    def _code(self, cell: str) -> int:
        if (code := self._codes.get(cell)) is None:
            code = self._codes[cell] = len(self._codes)
            self._characters += len(cell)
        return code

    def _is_text(self) -> bool:
        """Whether what is no category may become a text, and not a longer one than is taken."""
        if self._characters > MAX_CHARACTERS or len(self._codes) > MAX_TEXTS:
            return False
        return self._wanted == "text" or 2 * self.seen.sentences > self.seen.numbers + self.seen.texts

    def settled(self, what: Raw) -> tuple[Raw, np.ndarray | None]:
        """(what the column is, what becomes of the codes that were given if it is codes). Raises Surprise if something else was kept."""
        kept = {"number": "number", "date": "date", "category": "codes", "text": "codes"}[what.kind]
        # Of gaps before the first text nobody knows how they were written.
        if kept != self._kind or what.form != self._form or (what.kind == "text" and self.gaps):
            raise Surprise
        if kept != "codes":
            return what, None
        column = Column(what)
        becomes = column.typed(Texts(list(self._codes)))
        return column.raw, becomes


def _floats(cells: Cells) -> np.ndarray:
    numbers = cells.gapped(MISSING)
    if numbers is None:
        raise ValueError("the column was found to be numbers")
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)
