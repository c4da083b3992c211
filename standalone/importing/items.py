"""Rows become items of batches, and items become parts of the file, each of which is one batch."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.wire.batches import MOST_LINES
from scheduler.wire.json_values import LARGEST_BODY, canonical
from standalone.importing.fields import REJECT_COLUMNS, Columns, Path, field_of
from standalone.importing.files import Fault, Row, Table

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
        """Return the same key for the same part, so that a repeated import stores it once."""
        return "import-" + hashlib.sha256(canonical(dict(params)) + b"\n" + self.body).hexdigest()


def items_of(table: Table, columns: Columns, defaults: Defaults) -> tuple[list[Item], list[Reject]]:
    """Return an item for each row, and the rows that cannot be sent.

    A row without externalId gets one that follows from its content and from the number of equal rows before it, not
    from its place. So a file that was changed or sorted, too, creates each row once. Defaults are no part of it: with
    another --at a row is refused (EXTERNAL_ID_REUSED), and the person is not called twice.
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
    """Return whether some row can name its agent. Without an agent of all rows, each of the others is refused."""
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
