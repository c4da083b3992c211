"""Bodies of batches: which items are read, and which error each refused one gets."""

import json
from datetime import date
from typing import Any
from uuid import uuid4

import pytest

from api_shim.schemas.create_interview import item_reader
from scheduler.domain.refusals import InvalidFields
from scheduler.wire import batches
from scheduler.wire.batches import BatchTooLarge, Item
from scheduler.wire.json_text import MalformedJson
from scheduler.wire.json_values import MAX_LEVELS

_READER = item_reader(date(2026, 4, 1))


def _good(**more: Any) -> dict[str, Any]:
    return {"candidateId": str(uuid4()), "agentId": str(uuid4()), **more}


def _lines(*lines: bytes | dict[str, Any]) -> list[Item]:
    body = b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines)
    return list(batches.read_lines(body, _READER))


def _json(text: str) -> list[Item]:
    return list(batches.read_json(text.encode(), _READER)[1])


def _code(item: Item) -> str:
    assert item.request is None
    assert item.refusal is not None
    return item.refusal.code


def test_lines_are_read_each_by_itself() -> None:
    items = _lines(_good(externalId="a"), b"{", _good(phone=1), b"", b"[]", _good(), b"")
    assert [each.index for each in items] == list(range(6))
    assert [each.request is not None for each in items] == [True, False, False, False, False, True]
    assert [_code(items[at]) for at in (1, 2, 3, 4)] == [
        "MALFORMED_JSON",
        "VALIDATION_ERROR",
        "MALFORMED_JSON",
        "VALIDATION_ERROR",
    ]
    assert items[0].external_id == "a"


def test_refused_line_names_its_field_but_no_value() -> None:
    (item,) = _lines(_good(externalId="b", candidate={"phoneNumber": "00421"}))
    assert item.refusal is not None
    assert {each["field"] for each in item.refusal.details["fields"]} >= {"candidate.phoneNumber"}
    assert "00421" not in repr(item.refusal)
    assert item.external_id == "b"


def test_unknown_field_keeps_a_name_that_is_also_a_place() -> None:
    (item,) = _lines(_good(query=1))
    assert item.refusal is not None
    assert item.refusal.details["fields"][0]["field"] == "query"


def test_consent_that_is_over_refuses_its_item_only() -> None:
    person = {"firstName": "J", "lastName": "N", "gdprExpiryDate": "2026-03-31", "phoneNumber": "+421915123456"}
    over, fine = _lines({"candidate": person, "agentId": str(uuid4())}, _good())
    assert _code(over) == "VALIDATION_ERROR"
    assert fine.request is not None


def test_large_item_is_refused_as_a_single_request_is() -> None:
    large = _good(metadata={"a": "x" * 70_000})
    assert [_code(each) for each in _lines(large, _good())[:1]] == ["BODY_TOO_LARGE"]
    first, second = _json(json.dumps({"items": [large, _good()]}))
    assert _code(first) == "BODY_TOO_LARGE"
    assert second.request is not None


@pytest.mark.parametrize("bad", ["NaN", '{"a": 1, "a": 2}', "9" * 5000, "[" * 70 + "]" * 70])
def test_fault_in_one_item_does_not_refuse_the_others(bad: str) -> None:
    text = json.dumps(_good())
    first, second, third = _json(f'{{"items": [{text}, {{"metadata": {{"a": [{bad}]}}}}, {text}]}}')
    assert _code(second) == "MALFORMED_JSON"
    assert first.request is not None
    assert third.request is not None
    line_errors = _lines(text.encode(), f'{{"metadata": {{"a": [{bad}]}}}}'.encode())
    assert line_errors[1].refusal == second.refusal


def test_items_may_be_as_deep_as_a_single_request() -> None:
    deep = '{"metadata": ' + "[" * (MAX_LEVELS - 1) + "]" * (MAX_LEVELS - 1) + "}"
    (item,) = _json(f'{{"items": [{deep}]}}')
    assert _code(item) == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"", MalformedJson, "empty"),
        (b"name;number\nJana;1\n", MalformedJson, "The first line"),
        (b"\n", MalformedJson, "empty"),
        (b"{}\n" * 10_001, BatchTooLarge, "10,000 lines"),
    ],
)
def test_lines_that_are_no_batch_are_refused(body: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        batches.read_lines(body, _READER)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", MalformedJson, "empty"),
        ('{"items": [', MalformedJson, "expected"),
        ("[]", InvalidFields, "invalid"),
        ("{}", InvalidFields, "items"),
        ('{"items": {}}', InvalidFields, "items"),
        ('{"items": []}', InvalidFields, "items"),
        ('{"items": [{}], "nmae": "x"}', InvalidFields, "nmae"),
        ('{"items": [{}], "name": NaN}', MalformedJson, "NaN"),
        (json.dumps({"items": [{}] * 1001}), BatchTooLarge, "1,000 items"),
    ],
)
def test_json_that_is_no_batch_is_refused(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        batches.read_json(text.encode(), _READER)


def test_header_of_a_batch_is_read() -> None:
    header, _ = batches.read_json(json.dumps({"name": " May ", "items": [_good()]}).encode(), _READER)
    assert header.name == "May"
    assert not header.dry_run


def test_few_of_many_wrong_fields_are_named() -> None:
    body = json.dumps({f"field{number}": 1 for number in range(1_000)}).encode()
    [item] = batches.read_lines(body, _READER)
    assert item.refusal is not None
    assert len(item.refusal.details["fields"]) == batches.MOST_ERRORS
