"""One run of an import: the parts of a file are sent, then awaited, and the outcomes of all rows are added up."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from scheduler.domain.refusals import ExternalIdReused
from scheduler.wire.named_fields import message_alone, message_of_many, without_numbers
from standalone.api_client import ApiAnswer, ApiAway, ApiClient, ApiRefused
from standalone.importing.rows import Fault, Item, Part, Reject, parts_of

# --- Sends the parts of a file as batches, waits until they are applied, and reads the outcome of each row


_POST_TIMEOUT_S = 120.0
"""The API takes up to 33 s after it has received the body."""
_PAGE = 100
_MOST_FAILURES = 10
"""Failures in a row after which a command gives up."""
_LONGEST_LOOK_S = 5.0
"""Between two looks at a batch. A key may send 60 requests a minute."""
_NDJSON = {"Content-Type": "application/x-ndjson"}
_IMPORTED_BEFORE = (
    "These rows were imported before with other options. Use the same options, or add a column that makes them"
    " different: docs/how-to/import.md."
)
_CANCELLED = Fault(code="BATCH_CANCELLED", message="The batch was cancelled before this row was applied.")


class Reporter(Protocol):
    """Shows the progress of an import."""

    def sent(self, rows: int) -> None: ...

    def applied(self, rows: int) -> None:
        """Add rows with an outcome."""

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SentPart:
    """A part of the file that the API has stored as a batch."""

    part: Part
    batch_id: str
    refused_at_once: int
    was_sent_before: bool
    """An earlier run has sent the same part."""


@dataclass(kw_only=True)
class Outcome:
    """The outcomes of the rows of a batch."""

    created: int = 0
    existed: int = 0
    existed_cancelled: int = 0
    """Those of the existing interviews that are cancelled."""
    rejects: list[Reject] = field(default_factory=list)


class Sending:
    """Sends parts to an API. A request that fails is repeated, with the same Idempotency-Key."""

    def __init__(
        self, client: ApiClient, company_id: str | None, wait: Callable[[float], object], reporter: Reporter
    ) -> None:
        """`wait` waits for some seconds."""
        self._client = client
        self._company: Mapping[str, str | int] = {} if company_id is None else {"companyId": company_id}
        self._wait = wait
        self._reporter = reporter

    def send(self, parts: Sequence[Part], name: str | None) -> Iterator[SentPart]:
        """Store each part as a batch. Raises ApiAway, ApiRefused."""
        params = {**self._company, **({} if name is None else {"name": name})}
        for part in parts:
            headers = {**_NDJSON, "Idempotency-Key": part.idempotency_key(params)}
            answer, failures = self._post(part, params, headers)
            self._reporter.sent(len(part.items))
            was_sent_before = answer.is_replayed and failures == 0
            yield SentPart(
                part=part,
                batch_id=answer.data["id"],
                refused_at_once=answer.data["counts"]["refused"],
                was_sent_before=was_sent_before,
            )

    def check(self, parts: Sequence[Part]) -> Iterator[Mapping[str, Any]]:
        """Ask what the API would do with each part, and store nothing. Raises ApiAway, ApiRefused."""
        for part in parts:
            answer, _ = self._post(part, {**self._company, "dryRun": "true"}, _NDJSON)
            self._reporter.sent(len(part.items))
            yield answer.data

    def outcome(self, sent: SentPart) -> Outcome:
        """Wait until a batch is applied, and return the outcomes of its rows. Raises ApiAway, ApiRefused."""
        self._wait_for(sent)
        outcome = Outcome()
        for item in self._items(sent.batch_id):
            sent_item = sent.part.items[item["index"]]
            row = sent_item.row
            if item["status"] == "APPLIED":
                existed = item["existed"] or sent.was_sent_before
                outcome.existed += existed
                outcome.existed_cancelled += existed and item.get("interviewStatus") == "CANCELLED"
                outcome.created += not existed
            elif item["status"] == "REFUSED":
                outcome.rejects.append(Reject(row=row, fault=fault_of(item["error"], sent_item)))
            else:
                outcome.rejects.append(Reject(row=row, fault=_CANCELLED))
        return outcome

    def _post(self, part: Part, params: Mapping[str, str | int], headers: Mapping[str, str]) -> tuple[ApiAnswer, int]:
        return self._persistently(
            lambda: self._client.send(
                "POST", "/batches", params=params, data=part.body, headers=headers, timeout_s=_POST_TIMEOUT_S
            ),
            len(part.items),
        )

    def _wait_for(self, sent: SentPart) -> None:
        looks, done, was_paused = 0, 0, False
        while True:
            batch = self._get(f"/batches/{sent.batch_id}", {})
            now_done = batch["total"] - batch["counts"]["waiting"]
            self._reporter.applied(now_done - done)
            done = now_done
            if batch["counts"]["waiting"] == 0:
                return
            is_paused = batch["status"] == "PAUSED"
            if is_paused and not was_paused:
                self._reporter.note(f"batch {sent.batch_id} is paused; resume it with POST /batches/{{id}}/resume")
            was_paused = is_paused
            looks += 1
            self._wait(min(0.5 * looks, _LONGEST_LOOK_S))

    def _items(self, batch_id: str) -> Iterator[Mapping[str, Any]]:
        more: Mapping[str, str | int] = {}
        while True:
            page = self._get(f"/batches/{batch_id}/items", {"limit": _PAGE, **more})
            yield from page["items"]
            cursor = page["pagination"]["nextCursor"]
            if cursor is None:
                return
            more = {"cursor": cursor}

    def _get(self, path: str, params: Mapping[str, str | int]) -> Mapping[str, Any]:
        answer, _ = self._persistently(lambda: self._client.send("GET", path, params={**self._company, **params}))
        data: Mapping[str, Any] = answer.data
        return data

    def _persistently(self, ask: Callable[[], ApiAnswer], count: int = 0) -> tuple[ApiAnswer, int]:
        """Ask until the API answers a request with so many items. Also count the failures before that."""
        failures = 0
        while True:
            try:
                return ask(), failures
            except ApiAway as away:
                failures += 1
                if away.most_items is not None and away.most_items < count:
                    raise ApiRefused(
                        f"The key may send {away.most_items:,} rows an hour, and this import sends {count:,} at once."
                        " Split the file, or use a key with a higher --per-hour."
                    ) from None
                if failures == _MOST_FAILURES:
                    raise
                self._reporter.note(f"{away}; trying again in {away.pause_s(failures):g} s")
                self._wait(away.pause_s(failures))


def fault_of(error: Mapping[str, Any], item: Item) -> Fault:
    """Choose the error of an item. Of several wrong fields, the first, with its own message."""
    details = error.get("details") or {}
    fields = details.get("fields") or []
    name = (fields[0]["field"] or None) if fields else details.get("field")
    message = message_alone(error["message"], details)
    return Fault(code=error["code"], message=advice(error["code"], name, message, item), field=name)


def advice(code: str, field: str | None, message: str, item: Item) -> str:
    """Write the message for a person with a file, who does not know the ids that the import makes."""
    if code == ExternalIdReused.code and field == "externalId" and not item.has_own_id:
        return _IMPORTED_BEFORE
    return message


# --- One run of an import
# the parts of a file are sent, then awaited, and the outcomes of all rows are added up.


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
