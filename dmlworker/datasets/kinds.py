"""What a table's columns hold: numbers, categories or dates. Found by reading all of it once, before anything is kept."""

import re
from collections.abc import Sequence

import numpy as np

from dmlworker.datasets import dates
from dmlworker.datasets.cells import Block, Cells
from dmlworker.datasets.dataset import MISSING, DatasetError, Raw, check_text

MAX_VALUES = 1000
"""Different values that a category may have."""
MAX_VALUES_TOTAL = 1_000_000
"""Of all columns together, which bounds the memory."""
MAX_LENGTH = 200
"""Characters in a value of a category."""
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")


class Seen:
    """What was seen of a column so far. values: the different ones, or None if they are too many or too long for a category."""

    def __init__(self) -> None:
        self.numbers = self.texts = self.commas = 0
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
            self.forms = [form for form in self.forms if dates.hours(cell, form) is not None]
        self._keep([cell])

    def _keep(self, cells: Sequence[str]) -> None:
        if self.values is not None:
            self.values.update(cells)
            if len(self.values) > MAX_VALUES or any(len(cell) > MAX_LENGTH for cell in cells):
                self.values = None

    def settled(self, name: str) -> Raw | str:
        """What the column is, or why nothing can be learnt from it. Raises DatasetError if it looks like numbers with a slip."""
        filled = self.numbers + self.texts
        if not filled:
            return "empty"
        if not self.texts:
            return Raw(name, "number")
        if self.forms and not self.numbers:
            return Raw(name, "date", form=self.forms[0])
        if self.commas == self.texts or (2 * self.numbers > filled and not self._repeats(filled)):
            raise self._slip(name)
        if self._repeats(filled):
            return Raw(name, "category", values=tuple(sorted(self.values or ())))
        return "nearly every value is another" if self.values else f"long text or over {MAX_VALUES:,} different values"

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


def typed(raw: Raw, cells: Cells) -> np.ndarray:
    """Cells as the raw column holds them, (n,) float32, NaN for what is missing."""
    if raw.kind == "number":
        numbers = cells.gapped(MISSING)
        if numbers is None:
            raise ValueError("the column was found to be numbers")
        with np.errstate(over="ignore"):
            return numbers.astype(np.float32)
    found, codes = cells.distinct()
    if raw.kind == "date":
        values = [dates.hours(cell, raw.form) for cell in found]
        return np.array([np.nan if hours is None else hours for hours in values], np.float32)[codes]
    places = {value: code for code, value in enumerate(raw.values)}
    return np.array([places.get(cell, np.nan) for cell in found], np.float32)[codes]
