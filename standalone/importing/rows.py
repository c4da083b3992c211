"""Rows of a file of people: columns, form (CSV or NDJSON), the items that rows become, and the file of errors."""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from scheduler.wire import json_values
from scheduler.wire.batches import MOST_LINES
from scheduler.wire.json_values import LARGEST_BODY, MalformedJson, canonical

# --- Files of people, CSV or NDJSON, and their rows


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
            value = json_values.parse(line.encode())
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
    """Guess the delimiter: the most frequent of the header, outside of quotes."""
    header = next(line for line in text.splitlines() if line.strip())
    plain = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=plain.count)


# --- Fields of an item, and the columns of a file that contain them


Path = tuple[str, ...]
"""Names from the outermost to the field: `("candidate", "phoneNumber")`."""
Columns = Mapping[str, Path]
"""The field of each column."""

_OF_A_PERSON = ("firstName", "lastName", "phoneNumber", "email", "gdprExpiryDate", "timezone")
_OF_AN_INTERVIEW = ("externalId", "candidateId", "agentId", "jobId", "scheduledAt", "expiresAt", "isTest")
REJECT_COLUMNS = ("errorCode", "errorMessage", "errorField")
"""The last columns of the file of errors. An import of this file ignores them."""
_NAMES = ", ".join((*_OF_A_PERSON, *_OF_AN_INTERVIEW, "candidate.externalId or metadata.NAME"))
_NAME = re.compile(r"[A-Za-z][A-Za-z_. -]{0,39}")
_SEPARATORS = re.compile(r"[\s_-]+")


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name).casefold()


_KNOWN: Mapping[str, Path] = {
    **{_plain(name): ("candidate", name) for name in _OF_A_PERSON},
    **{_plain(name): (name,) for name in _OF_AN_INTERVIEW},
}
_OF_CANDIDATE: Mapping[str, Path] = {
    _plain(name): ("candidate", name) for name in (*_OF_A_PERSON, "externalId", "jobId")
}


def field_of(name: str) -> Path | None:
    """Find the field that a column's name means, whatever its case, spaces, underscores and hyphens."""
    parent, dot, rest = name.strip().partition(".")
    if not dot:
        return _KNOWN.get(_plain(parent))
    if _plain(parent) == "metadata" and rest:
        return "metadata", rest
    return _OF_CANDIDATE.get(_plain(rest)) if _plain(parent) == "candidate" else None


def chosen(pairs: Iterable[str]) -> dict[str, Path]:
    """Read values of --map, such as `phoneNumber=Telefon`, to fields by column. Raises UnreadableFile."""
    columns: dict[str, Path] = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        path = field_of(name)
        if not column.strip():
            raise UnreadableFile(f"--map must be FIELD=COLUMN. FIELD is one of {_NAMES}.")
        if path is None:
            # Not quoted unless it looks like a name: the two may be mixed up, and columns are texts of the file.
            what = f"{name} is no field" if _NAME.fullmatch(name) else "This is no field"
            raise UnreadableFile(f"--map: {what}. FIELD is one of {_NAMES}.")
        if column.strip() in columns:
            raise UnreadableFile("--map names one column twice. A column has one field.")
        columns[column.strip()] = path
    return columns


def columns_of(table: Table, by_option: Columns, *, ignores_others: bool) -> Columns:
    """Find the field of each column of the header, if the file has one. Raises UnreadableFile for other columns.

    Messages name columns by number: the first row of a file without a header is a person.
    """
    if (header := table.columns) is None:
        return by_option
    repeated = [number for number, name in enumerate(header, 1) if name and header.count(name) > 1]
    if repeated:
        raise UnreadableFile(f"Columns {_listed(repeated)} have the same name. Rename one of them.")
    missing = [".".join(path) for column, path in by_option.items() if column not in header]
    if missing:
        raise UnreadableFile(f"The header has no such column as --map names for {', '.join(missing)}.")
    set_by_option = set(by_option.values())
    columns = dict(by_option)
    for name in header:
        path = field_of(name)
        if name not in columns and path is not None and path not in set_by_option:
            columns[name] = path
    if not columns:
        raise UnreadableFile("Row 1 names no known field. It must be the header. Set --map for other names.")
    _refuse_repeated_fields(header, columns)
    others = [number for number, name in enumerate(header, 1) if name not in columns and name not in REJECT_COLUMNS]
    if others and not ignores_others:
        raise UnreadableFile(
            f"Column {_listed(others)} of the header is no known field. Use --map FIELD=COLUMN,"
            " or --ignore-other-columns to leave out such columns."
        )
    return columns


def _refuse_repeated_fields(header: tuple[str, ...], columns: Columns) -> None:
    for path, count in Counter(columns.values()).items():
        if count > 1:
            numbers = [number for number, name in enumerate(header, 1) if columns.get(name) == path]
            raise UnreadableFile(
                f"Columns {_listed(numbers)} are both {path[-1]}. Choose one with --map, and rename the others."
            )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


# --- Rows become items of batches, and items become parts of the file, each of which is one batch


LARGEST_PART = 15 * 1024 * 1024
"""Bytes. The API takes 16 MiB."""
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Values for rows that lack them."""

    agent_id: str | None = None
    job_id: str | None = None
    gdpr_expiry_date: str | None = None
    scheduled_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    row: Row
    line: bytes = field(repr=False)
    has_own_id: bool = True
    """False if its externalId follows from its content."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A row that was refused."""

    row: Row
    fault: Fault


@dataclass(frozen=True, kw_only=True)
class Part:
    """The items of one batch."""

    items: Sequence[Item]

    @property
    def body(self) -> bytes:
        return b"\n".join(item.line for item in self.items) + b"\n"

    def idempotency_key(self, params: Mapping[str, str | int]) -> str:
        """Derive the same key for the same part, so that a repeated import stores it once."""
        return "import-" + hashlib.sha256(canonical(dict(params)) + b"\n" + self.body).hexdigest()


def items_of(table: Table, columns: Columns, defaults: Defaults) -> tuple[list[Item], list[Reject]]:
    """Build an item for each row, and collect the rows that cannot be sent.

    A row without externalId gets one that follows from its content and from the number of equal rows before it, not
    from its place. So each row is created once, also from a file that was changed or sorted. Defaults are no part of
    it: with another --at a row is refused (EXTERNAL_ID_REUSED), and the person is not called twice.
    """
    seen: Counter[bytes] = Counter()
    items, rejects = [], []
    for row in table.rows:
        body, fault = _body_of(row, columns, is_csv=table.columns is not None)
        if fault is None:
            has_own_id = body.get("externalId") is not None
            if not has_own_id:
                digest = hashlib.sha256(canonical(body)).digest()
                seen[digest] += 1
                body["externalId"] = "row-" + hashlib.sha256(digest + str(seen[digest]).encode()).hexdigest()[:40]
            _fill_in(body, defaults)
            line = json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()
            if len(line) <= LARGEST_BODY:
                items.append(Item(row=row, line=line, has_own_id=has_own_id))
                continue
            fault = Fault(code="BODY_TOO_LARGE", message="The row is larger than 64 KiB. Shorten it.")
        rejects.append(Reject(row=row, fault=fault))
    return items, rejects


def name_agent(table: Table, columns: Columns) -> bool:
    """Check whether some row can name its agent. Without an agent of all rows, each of the others is refused."""
    rows = [row.values for row in table.rows if row.fault is None]
    names = set(table.columns or ()) if table.columns is not None else {name for row in rows for name in row}
    is_csv = table.columns is not None
    fields = {columns.get(name) or (None if is_csv else field_of(name)) for name in names}
    return not rows or ("agentId",) in fields or (not is_csv and "agent" in names)


def parts_of(items: Sequence[Item], largest: int = LARGEST_PART, most: int = MOST_LINES) -> Iterator[Part]:
    """Split the items into parts that a batch can have."""
    part: list[Item] = []
    size = 0
    for item in items:
        if part and (len(part) == most or size + len(item.line) + 1 > largest):
            yield Part(items=part)
            part, size = [], 0
        part.append(item)
        size += len(item.line) + 1
    if part:
        yield Part(items=part)


def _body_of(row: Row, columns: Columns, *, is_csv: bool) -> tuple[dict[str, Any], Fault | None]:
    if row.fault is not None:
        return {}, row.fault
    placed = {name: columns.get(name) or (None if is_csv else field_of(name)) for name in row.values}
    # Bodies of `POST /interviews` stay as they are. The API names fields that it does not know.
    body: dict[str, Any] = {
        name: dict(value) if isinstance(value, dict) else value
        for name, value in row.values.items()
        if placed[name] is None and name not in REJECT_COLUMNS and not is_csv
    }
    for name, path in placed.items():
        if path is None:
            continue
        value = row.values[name]
        if is_csv and path == ("isTest",):
            value = _BOOLEANS.get(value.casefold())
            if value is None:
                return {}, Fault(code="WRONG_TYPE", message="This must be true or false.", field="isTest")
        if not _put(body, path, value):
            message = "The row has this field twice. Send only one of them."
            return {}, Fault(code="CONFLICTING_FIELDS", message=message, field=".".join(path))
    return body, None


def _put(body: dict[str, Any], path: Path, value: Any) -> bool:  # noqa: ANN401 - JSON
    """Set a field. Return False if it is set already."""
    parent: Any = body
    for name in path[:-1]:
        parent = parent.setdefault(name, {})
        if not isinstance(parent, dict):
            return False
    is_new = path[-1] not in parent
    parent.setdefault(path[-1], value)
    return is_new


def _fill_in(body: dict[str, Any], defaults: Defaults) -> None:
    person = body.get("candidate")
    has_job_of_person = isinstance(person, dict) and person.get("jobId") is not None
    for name, value, is_set in (
        ("agentId", defaults.agent_id, body.get("agent") is not None),
        ("jobId", defaults.job_id, body.get("job") is not None or has_job_of_person),
        ("scheduledAt", defaults.scheduled_at, body.get("scheduleTime") is not None),
    ):
        if value is not None and not is_set and body.get(name) is None:
            body[name] = value
    if defaults.gdpr_expiry_date is not None and isinstance(person, dict) and person.get("gdprExpiryDate") is None:
        person["gdprExpiryDate"] = defaults.gdpr_expiry_date


# --- The file of errors: rows that were refused as they were, with the error as last columns


class RejectsFile:
    """Writes rows that were refused. Corrected, the file can be imported: its last columns are ignored."""

    def __init__(self, file: TextIO, table: Table) -> None:
        self._file = file
        self._table = table
        columns = table.columns or ()
        self._kept = [index for index, name in enumerate(columns) if name not in REJECT_COLUMNS]
        self._csv = csv.writer(file, delimiter=table.delimiter, lineterminator="\n")
        if table.columns is not None:
            self._csv.writerow([*(columns[index] for index in self._kept), *REJECT_COLUMNS])

    def write(self, rejects: Iterable[Reject]) -> None:
        for each in rejects:
            error = (each.fault.code, each.fault.message, each.fault.field or "")
            if self._table.columns is not None:
                self._csv.writerow([*(each.row.cells[index] for index in self._kept), *error])
                continue
            is_object = bool(each.row.values) or each.row.fault is None
            given = {**each.row.values} if is_object else {"line": each.row.cells[0]}
            # After the fields of the row, also if it has errors of an earlier import.
            given = {name: value for name, value in given.items() if name not in REJECT_COLUMNS}
            self._file.write(json.dumps({**given, **dict(zip(REJECT_COLUMNS, error, strict=True))}, ensure_ascii=False))
            self._file.write("\n")
        self._file.flush()
