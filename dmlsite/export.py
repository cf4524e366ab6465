"""Tables as CSV files, streamed."""

import csv
from collections.abc import Callable, Iterator
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone

Column = Callable[[Any], object]


class _Echo:
    """A file that gives back what is written to it, so that rows can be streamed."""

    def write(self, text: str) -> str:
        return text


def cell(value: object) -> object:
    """A spreadsheet must not take a text for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def csv_response(name: str, columns: dict[str, Column], rows: QuerySet[Any]) -> StreamingHttpResponse:
    """Stream rows as CSV; `columns` maps a heading to what it shows of a row."""
    writer = csv.writer(_Echo())  # type: ignore[arg-type]

    def lines() -> Iterator[str]:
        yield writer.writerow(columns)
        for row in rows.iterator(chunk_size=1000):
            yield writer.writerow([cell(column(row)) for column in columns.values()])

    file = f"{name}-{timezone.now():%Y-%m-%d}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8", headers=headers)
