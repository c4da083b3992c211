"""Batches: many requests for interviews in one body, each read as if it had been sent alone."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, StrictBool, StringConstraints, ValidationError

from scheduler.domain.command import CreateInterview, Refusal, refusal_of
from scheduler.domain.refusals import InvalidFields, InvalidRequest, Refused
from scheduler.wire import json_values
from scheduler.wire.field_types import Strict, is_external_id, printable
from scheduler.wire.json_values import (
    LARGEST_BODY,
    TEXT_AFTER_END,
    BrokenText,
    MalformedJson,
    RestTooLarge,
    TextAfterObject,
    TooManyBrackets,
    TooManyItems,
    an_object,
    empty_body,
    malformed,
    parse,
    parse_part,
)
from scheduler.wire.named_fields import FieldError, field_errors, invalid_fields, refuse_any

MOST_ITEMS = 1_000
"""Items of a batch in JSON."""
MOST_LINES = 10_000
"""Items of a batch in NDJSON."""
LARGEST_BATCH = 16 * 1024 * 1024
"""Bytes. An item may have at most `LARGEST_BODY`, as a single request."""
MOST_ERRORS = 20
"""Wrong fields that are named for an item. A batch can contain a million of them, and each is stored."""
_ITEMS = "items"
_TEXT = re.compile(rb"[^ \t\r\n][^\n]*+")
"""A line that is not blank, from its first character on."""
_NO_ITEMS = "The body has no `items`. If it is NDJSON, send the header Content-Type: application/x-ndjson."
_IS_JSON = "This is a JSON batch. Send the header Content-Type: application/json."
_LINE_ENDS = "Are the line ends missing? With curl use --data-binary."
_TOO_LARGE = Refusal(
    family=InvalidRequest.__name__,
    code="BODY_TOO_LARGE",
    message="The body is larger than 64 KiB. Send less in one request.",
)
"""An item that would be too large as a request of its own."""

Model = TypeVar("Model", bound=BaseModel)
Reader = Callable[[dict[str, Any]], CreateInterview]
"""Reads the body of a single request. It raises Refused."""


BatchName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), AfterValidator(printable)
]


class BatchForm(StrEnum):
    """The form in which a body contains its items."""

    JSON = "application/json"
    """One object, with a list of items."""
    NDJSON = "application/x-ndjson"
    """One item a line."""


class BatchTooLarge(InvalidRequest):
    """The batch has too many items. Send several batches."""


class BatchHeader(Strict):
    """The values beside the items of a batch: fields of its JSON, or query parameters of a batch in NDJSON."""

    name: BatchName | None = None
    dry_run: StrictBool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """One request of a batch: what it asks for, or why it was refused."""

    index: int
    """From 0. For NDJSON the number of the line less one."""
    request: CreateInterview | None = None
    refusal: Refusal | None = None
    """The error that a single request with this body gets. It quotes no value."""
    external_id: str | None = None
    """Also of a refused item, if it can be read, so that the client recognises it."""

    @property
    def outcome(self) -> CreateInterview | Refusal:
        """The request, or its refusal."""
        outcome = self.request or self.refusal
        assert outcome is not None
        return outcome


def read_json(body: bytes, read_item: Reader) -> tuple[BatchHeader, Sequence[Item]]:
    """Read `{"items": [...]}` with at most `MOST_ITEMS`. An item that is refused does not refuse the others.

    Raises MalformedJson, InvalidFields, BatchTooLarge: then the body is no batch.
    """
    if not body:
        raise empty_body()
    try:
        found = json_values.cut(body, _ITEMS, MOST_ITEMS)
    except TooManyItems:
        raise _too_many(MOST_ITEMS, "items", BatchForm.JSON) from None
    except TooManyBrackets:
        raise _too_many(json_values.MOST_BRACKETS, "brackets", BatchForm.JSON) from None
    except RestTooLarge:
        raise _too_many(LARGEST_BODY, "bytes beside its items", BatchForm.JSON) from None
    except TextAfterObject:
        raise _about_items("MISSING_FIELD", _NO_ITEMS) from None
    if found is None:
        if len(body) <= LARGEST_BODY:
            parse(body)
        raise invalid_fields([FieldError(field="", code="WRONG_TYPE", message="The body must be a JSON object.")])
    header = _read_rest(parse(found.rest), has_list=found.items is not None)
    if not found.items:
        raise _empty()
    try:
        return header, [_read_part(index, body, place, read_item) for index, place in enumerate(found.items)]
    except BrokenText as broken:
        raise broken.refusal from None


def _read_rest(rest: dict[str, Any], *, has_list: bool) -> BatchHeader:
    given = rest.pop(_ITEMS, None)
    if given is None:
        # A line of NDJSON. Its own fields, which a batch does not have, would hide the cause.
        raise _about_items("MISSING_FIELD", _NO_ITEMS)
    header = read_header(rest)
    if not has_list:
        refuse_any([FieldError(field=_ITEMS, code="WRONG_TYPE", message="This must be a list.")])
    return header


def read_header(given: dict[str, Any]) -> BatchHeader:
    """Read the fields of a batch without its items. Raises InvalidFields."""
    return validated(BatchHeader, an_object(given))


def read_lines(body: bytes, read_item: Reader) -> Sequence[Item]:
    """Read NDJSON with at most `MOST_LINES`. A line that is refused does not refuse the others.

    Blank lines are ignored. Raises MalformedJson if no line is JSON, InvalidFields for a batch in JSON, BatchTooLarge.
    """
    lines = list(islice(_lines(body), MOST_LINES + 1))
    if not lines:
        raise empty_body()
    if len(lines) > MOST_LINES:
        raise _too_many(MOST_LINES, "lines", BatchForm.NDJSON)
    _refuse_other_forms(body, is_one_line=len(lines) == 1)
    items = [_read_line(index, line, read_item) for index, line in lines]
    if all(item.refusal is not None and item.refusal.code == MalformedJson.code for item in items):
        first = items[0].refusal
        assert first is not None
        message = f"No line is valid JSON. The first line: {first.message}"
        raise MalformedJson(message, **first.details)
    return items


def validated(model: type[Model], body: dict[str, Any]) -> Model:
    """Validate the body of one request as the framework does. Raises InvalidFields."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)[:MOST_ERRORS]
        raise invalid_fields(field_errors([{**each, "loc": ("body", *each["loc"])} for each in errors])) from None


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 0, and the text of each line that is not blank."""
    number, begin = 0, 0
    for found in _TEXT.finditer(body):
        number += body.count(b"\n", begin, found.start())
        begin = max(begin, body.rfind(b"\n", begin, found.start()) + 1)
        yield number, body[begin : found.end()]
        begin = found.end()


def _refuse_other_forms(body: bytes, *, is_one_line: bool) -> None:
    """Refuse a batch in JSON, and NDJSON that has lost its line ends: their lines would be items with an error."""
    try:
        found = json_values.cut(body, _ITEMS, MOST_ITEMS)
    except TooManyItems:
        raise _about_items("UNKNOWN_FIELD", _IS_JSON) from None
    except TextAfterObject as text:
        if is_one_line:
            refusal = malformed(TEXT_AFTER_END, text.position)
            raise MalformedJson(f"{refusal.message} {_LINE_ENDS}", **refusal.details) from None
        return
    except (TooManyBrackets, RestTooLarge, MalformedJson):
        return
    if found is not None and found.items is not None:
        raise _about_items("UNKNOWN_FIELD", _IS_JSON)


def _about_items(code: str, message: str) -> InvalidFields:
    """Build the refusal of a body whose form differs from its header."""
    return InvalidFields(message, fields=[FieldError(field=_ITEMS, code=code, message=message).model_dump()])


def _empty() -> Refused:
    message = "The batch is empty. Send at least one item."
    return invalid_fields([FieldError(field=_ITEMS, code="TOO_FEW", message=message)])


def _too_many(most: int, unit: str, form: BatchForm) -> BatchTooLarge:
    return BatchTooLarge(
        f"A batch in {form.value} has at most {most:,} {unit}. Send several batches.", limit=most, unit=unit
    )


def _read_line(index: int, line: bytes, read_item: Reader) -> Item:
    if len(line) > LARGEST_BODY:
        return Item(index=index, refusal=_on_line(index, _TOO_LARGE))
    try:
        value = parse(line)
    except MalformedJson as refused:
        return Item(index=index, refusal=_on_line(index, refusal_of(refused)))
    return _read_object(index, value, read_item, "This line")


def _on_line(index: int, refusal: Refusal) -> Refusal:
    """Add the number of the line in the body. For the parser, each line is the first."""
    return replace(refusal, details={**refusal.details, "line": index + 1})


def _read_part(index: int, body: bytes, place: tuple[int, int], read_item: Reader) -> Item:
    start, end = place
    if end - start > LARGEST_BODY:
        return Item(index=index, refusal=_TOO_LARGE)
    try:
        value = parse_part(body, start, end)
    except MalformedJson as refused:
        return Item(index=index, refusal=refusal_of(refused))
    return _read_object(index, value, read_item, "This item")


def _read_object(index: int, value: Any, read_item: Reader, name: str) -> Item:  # noqa: ANN401 - JSON
    try:
        request = read_item(an_object(value, name))
    except Refused as refused:
        return Item(index=index, refusal=refusal_of(refused), external_id=_external_id(value))
    return Item(index=index, request=request, external_id=request.external_id)


def _external_id(value: Any) -> str | None:  # noqa: ANN401 - JSON
    """Read the external id of a refused item, if it could be stored."""
    text = value.get("externalId") if isinstance(value, dict) else None
    return text if isinstance(text, str) and is_external_id(text) else None
