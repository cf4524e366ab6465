"""Dates and times as text of a fixed form, such as "2024-03-05T10:22": hours since 1970, and what can be learnt from."""

import re
from datetime import date
from functools import lru_cache

import numpy as np

FORMS = ("YYYY-MM-DD", "YYYY/MM/DD", "DD.MM.YYYY", "DD/MM/YYYY", "MM/DD/YYYY", "DD-MM-YYYY", "MM-DD-YYYY")
"""How a date may be written; the first that fits all of a column is taken. A time may follow."""
HOUR_AT = 11
"""Where the hour stands, in every form."""
LONGEST = 40
"""Characters of a date with its time."""
PARTS = ("year", "month", "weekday", "season sine", "season cosine", "hour")
DAYS = 366
"""In the longest year: what the season is a part of."""
_TIME = r"(?:[T ]([0-9]{2}):[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?: ?(?:Z|[+-][0-9]{2}:?[0-9]{2}))?)?"
_PATTERNS = {form: re.compile(re.sub("[YMD]", "[0-9]", re.escape(form)) + _TIME) for form in FORMS}
_EPOCH = date(1970, 1, 1).toordinal()
_YEARS = range(1000, 3000)
"""Hours of these years are exact in float32."""


def hours(text: str, form: str) -> int | None:
    """Hours from 1970 to the date as it is written, whatever the time zone; minutes are cut off. None if it is no such date."""
    return _hours(text, form) if len(text) <= LONGEST else None


@lru_cache(maxsize=1 << 16)
def _hours(text: str, form: str) -> int | None:
    match = _PATTERNS[form].fullmatch(text)
    if match is None:
        return None
    year, month, day = (int(text[form.index(part) : form.rindex(part[0]) + 1]) for part in ("YYYY", "MM", "DD"))
    hour = int(match[1] or 0)
    try:
        found = (date(year, month, day).toordinal() - _EPOCH) * 24 + hour
    except ValueError:
        return None
    return found if year in _YEARS and hour < 24 else None


def text(hours: float) -> str:
    """As ISO 8601 has it."""
    return str(np.datetime64(int(hours), "h")) + ":00" if hours % 24 else str(np.datetime64(int(hours) // 24, "D"))


def written(hours: float, form: str) -> str:
    """In its column's own form."""
    iso = text(hours)
    for part, value in (("YYYY", iso[:4]), ("MM", iso[5:7]), ("DD", iso[8:10])):
        form = form.replace(part, value)
    return form + iso[10:].replace("T", " ")


def parts(hours: np.ndarray) -> np.ndarray:
    """The PARTS (n, 6) float32 of hours (n,): year, month from 1, weekday from Monday as 0, the day of the year on a circle, hour."""
    whole = hours.astype(np.int64)
    days = whole // 24  # a third of divmod's time
    hour = whole - 24 * days
    first = days.min() if len(days) else 0
    every = np.arange(first, days.max() + 1) if len(days) else days
    # A calendar of all days between them, unless it is longer than they are.
    found = _of_days(every).take(days - first, axis=0) if len(every) < len(days) else _of_days(days)
    found[:, -1] = hour
    return found


def _of_days(days: np.ndarray) -> np.ndarray:
    """The PARTS of days (n,) since 1970, the hour 0."""
    at = days.astype("datetime64[D]")
    months, years = (at.astype(f"datetime64[{unit}]") for unit in "MY")
    angle = 2 * np.pi * np.arange(DAYS) / DAYS  # float64 and a table: the same float32 on every processor
    season = (at - years.astype("datetime64[D]")).astype(np.int64)
    columns = (years.astype(np.int64) + 1970, months.astype(np.int64) % 12 + 1, (days + 3) % 7)
    return np.stack([*columns, np.sin(angle)[season], np.cos(angle)[season], 0 * days], axis=1).astype(np.float32)
