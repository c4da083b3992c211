"""One run of an import: the parts of a file are sent, then awaited, and the outcomes of all rows are added up."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.domain.refusals import message_of_many, without_numbers
from standalone.importing.items import Item, Reject, parts_of
from standalone.importing.sending import Sending, advice

_MOST_NUMBERS = 100
Key = tuple[str, str | None, str]


@dataclass(kw_only=True)
class RefusedRows:
    """Rows that were refused with the same code about the same field, in messages that differ in numbers only."""

    code: str
    field: str | None
    message: str
    """That of the first of them, without the position in the row."""
    count: int = 0
    numbers: Sequence[int] = ()
    """The first of these rows."""

    def add(self, count: int, numbers: Iterable[int]) -> None:
        self.count += count
        self.numbers = sorted([*self.numbers, *numbers])[:_MOST_NUMBERS]


@dataclass(kw_only=True)
class ImportResult:
    batch_ids: list[str] = field(default_factory=list)
    stored: int = 0
    """Rows that the API has stored. Their outcome is known unless `is_awaited` is false."""
    created: int = 0
    existed: int = 0
    existed_cancelled: int = 0
    """Those of the existing interviews that are cancelled."""
    refused: list[RefusedRows] = field(default_factory=list)
    refused_at_once: int = 0
    """Rows that the API refused while it stored them. Only of an import that was not awaited."""
    is_awaited: bool = True
    was_sent_before: bool = False
    """An earlier run has sent rows of this one, which keep the outcome of that run."""

    @property
    def has_refused(self) -> bool:
        return bool(self.refused) or self.refused_at_once > 0


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of a dry run."""

    parts: Sequence[Mapping[str, Any]]
    """The answers of the API, one for each part of the file."""
    refused: Sequence[RefusedRows]


def run_import(
    sending: Sending,
    rows: Sequence[Item],
    unsendable: Sequence[Reject],
    name: str | None,
    keep: Callable[[Sequence[Reject]], object],
    *,
    waits: bool,
) -> ImportResult:
    """Send all rows, then wait for their outcomes. `keep` gets the rows that are refused, as soon as they are known.

    Raises ApiAway, ApiRefused.
    """
    result = ImportResult(is_awaited=waits)
    refused: dict[Key, RefusedRows] = {}
    _keep(unsendable, refused, keep)
    sent = []
    for each in sending.send(list(parts_of(rows)), name):
        sent.append(each)
        result.batch_ids.append(each.batch_id)
        result.was_sent_before |= each.was_sent_before
        result.stored += len(each.part.items)
        result.refused_at_once += 0 if waits else each.refused_at_once
    for each in sent if waits else ():
        outcome = sending.outcome(each)
        result.created += outcome.created
        result.existed += outcome.existed
        result.existed_cancelled += outcome.existed_cancelled
        _keep(outcome.rejects, refused, keep)
    result.refused = _most_frequent_first(refused)
    return result


def run_check(sending: Sending, rows: Sequence[Item], unsendable: Sequence[Reject]) -> CheckResult:
    """Check all rows, and store nothing. Raises ApiAway, ApiRefused."""
    refused: dict[Key, RefusedRows] = {}
    _keep(unsendable, refused, lambda _: None)
    parts = list(parts_of(rows))
    answers = []
    for part, answer in zip(parts, sending.check(parts), strict=True):
        answers.append(answer)
        for each in answer["refused"]:
            numbers = [part.items[index].row.number for index in each["indexes"]]
            message = advice(each["code"], each["field"], each["message"], part.items[each["indexes"][0]])
            _group(refused, each["code"], each["field"], message).add(each["count"], numbers)
    return CheckResult(parts=answers, refused=_most_frequent_first(refused))


def _keep(
    rejects: Sequence[Reject], refused: dict[Key, RefusedRows], keep: Callable[[Sequence[Reject]], object]
) -> None:
    keep(rejects)
    for each in rejects:
        fault = each.fault
        _group(refused, fault.code, fault.field, fault.message).add(1, [each.row.number])


def _group(refused: dict[Key, RefusedRows], code: str, name: str | None, message: str) -> RefusedRows:
    message = message_of_many(message)
    key = code, name, without_numbers(message)
    return refused.setdefault(key, RefusedRows(code=code, field=name, message=message))


def _most_frequent_first(refused: Mapping[Key, RefusedRows]) -> list[RefusedRows]:
    return sorted(refused.values(), key=lambda each: -each.count)
