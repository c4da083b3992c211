"""Files of people, CSV or NDJSON, and their rows."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.wire import json_text
from scheduler.wire.json_text import MalformedJson

DELIMITERS = ",;\t"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class UnreadableFile(Exception):
    """The file cannot be imported. The text says where and what to do. It contains no text of the file."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An error of a row. It quotes no value."""

    code: str
    message: str
    field: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    number: int
    """As a spreadsheet counts: the header is row 1. In NDJSON the line."""
    cells: tuple[str, ...] = field(repr=False)
    """As they were, for the file of errors. In NDJSON the whole line."""
    values: Mapping[str, Any] = field(repr=False)
    """By the name of their column, without empty cells."""
    fault: Fault | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of a file."""

    rows: Sequence[Row]
    columns: tuple[str, ...] | None
    """The header. None for NDJSON, in which each line names its fields."""
    delimiter: str = ","


def read(content: bytes, delimiter: str | None = None) -> Table:
    """Read a file. It is NDJSON if its first character is `{`. Raises UnreadableFile."""
    text = _decoded(content)
    if not text.strip():
        raise UnreadableFile("The file is empty.")
    if text.lstrip().startswith("{"):
        return Table(rows=tuple(_lines(text)), columns=None)
    return _csv(text, delimiter)


def _decoded(content: bytes) -> str:
    if content.startswith(_UTF_16):
        raise UnreadableFile("The file is UTF-16. Save it as UTF-8 (in Excel: CSV UTF-8).")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(
            f"Line {line} is not UTF-8. Save the file as UTF-8 (in Excel: CSV UTF-8), or convert it,"
            " for example: iconv -f WINDOWS-1250 -t UTF-8."
        ) from None


def _lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        fault, value = None, None
        try:
            value = json_text.parse(line.encode())
        except MalformedJson as refused:
            fault = Fault(code=refused.code, message=refused.message)
        if fault is None and not isinstance(value, dict):
            fault = Fault(code="VALIDATION_ERROR", message="The line must be a JSON object.")
        values = value if isinstance(value, dict) else {}
        yield Row(number=number, cells=(line.removesuffix("\r"),), values=values, fault=fault)


def _csv(text: str, delimiter: str | None) -> Table:
    delimiter = delimiter or _delimiter_of(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: tuple[str, ...] | None = None
    rows = []
    number = 1
    try:
        for number, cells in enumerate(reader, 1):
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = tuple(cell.strip() for cell in cells)
            elif len(cells) != len(columns):
                raise UnreadableFile(
                    f"Row {number} has {len(cells)} cells, but the header has {len(columns)}."
                    f" Quote cells that contain {delimiter!r}, or set --delimiter."
                )
            else:
                given = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
                values = {name: cell for name, cell in given.items() if cell}
                rows.append(Row(number=number, cells=tuple(cells), values=values))
    except csv.Error:
        raise UnreadableFile(
            f"Row {number + 1 if columns else number} is no CSV. Check its quotes: a quoted cell ends with a quote,"
            ' and a quote within it is written "".'
        ) from None
    if columns is None or not rows:
        raise UnreadableFile("The file has no row below its header.")
    return Table(rows=rows, columns=columns, delimiter=delimiter)


def _delimiter_of(text: str) -> str:
    """Return the most frequent delimiter of the header, outside of quotes."""
    header = next(line for line in text.splitlines() if line.strip())
    plain = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=plain.count)
