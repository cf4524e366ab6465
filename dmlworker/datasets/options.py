"""What a customer says of their data, beside the target."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dmlworker.datasets.dataset import DatasetError, check_text
from dmlworker.task import AUTO, SCORES

KINDS = ("number", "category", "date", "text")
SHARDINGS = ("iid", "group", "speed")
CLASS_WEIGHTS = ("none", "balanced")
MAX_WINDOW = 1000
MAX_HORIZON = 10_000


@dataclass(frozen=True)
class Options:
    """task: what of the target is to be learnt (dmlworker/task.py), or AUTO. leave_out: columns that are no features. kinds: column -> one of KINDS, where ours was wrong. group: the column that names a person
    or the like, whose rows stay together. window: rows of an ordered table that are one sample, 0: each row is. horizon: rows from a
    window's last to its target. sharding: "iid", or "group": a group's rows go to one provider; "speed": as iid, but half of the parts are larger,
    for the faster providers. class_weights: "balanced": a class counts
    by the inverse of its frequency."""

    task: str = AUTO
    leave_out: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    window: int = 0
    horizon: int = 1
    sharding: str = "iid"
    class_weights: str = "none"

    @classmethod
    def of(cls, source: object) -> "Options":
        """Of whatever has attributes with these names."""
        found = {each.name: getattr(source, each.name) for each in fields(cls)}
        return cls(**found | {"leave_out": tuple(found["leave_out"])})

    @property
    def text(self) -> str:
        """JSON of what is not as usual; empty if nothing is."""
        usual = vars(Options())
        changed = {name: value for name, value in vars(self).items() if value != usual[name]}
        return json.dumps(changed, sort_keys=True, ensure_ascii=False) if changed else ""

    @classmethod
    def from_text(cls, text: str) -> "Options":
        """The inverse of `text`. Raises DatasetError."""
        try:
            found: dict[str, Any] = json.loads(text or "{}")
            options = cls(**found | {"leave_out": tuple(found.get("leave_out", ()))})
            options.check()
        except (ValueError, TypeError, AttributeError):
            raise DatasetError("What was said of the data can't be read.") from None
        return options

    def check(self) -> None:
        """Raises DatasetError for what makes no sense."""
        for name in (*self.leave_out, *self.kinds, self.group):
            check_text(name)
        if self.task not in (AUTO, *SCORES):
            raise DatasetError(f"The task is one of {', '.join((AUTO, *SCORES))}.")
        wrong = sorted(kind for kind in self.kinds.values() if kind not in KINDS)
        if wrong:
            raise DatasetError(
                f"There is no kind of column {wrong[0]!r:.40}. It is one of {', '.join(KINDS)}.", "kinds"
            )
        if self.sharding not in SHARDINGS or self.class_weights not in CLASS_WEIGHTS:
            raise DatasetError(
                f"The sharding is one of {', '.join(SHARDINGS)}, the class weights are none or balanced."
            )
        if self.sharding == "group" and not self.group:
            raise DatasetError(
                "To give each group to one provider, name the column that says which group a row is of.", "group"
            )
        if not 0 <= self.window <= MAX_WINDOW or not 1 <= self.horizon <= MAX_HORIZON:
            raise DatasetError(
                f"A window has up to {MAX_WINDOW:,} rows, its target lies 1 to {MAX_HORIZON:,} rows ahead.",
                "window",
            )
        if self.window and self.group:
            raise DatasetError(
                "Windows are of one series of rows: leave the group column empty, or the window at 0.", "window"
            )

    @property
    def of_tables(self) -> bool:
        """Whether any of it makes sense for tables alone."""
        return bool(self.leave_out or self.kinds or self.group or self.window)


PLAIN = Options()
