"""Bodies of batches: which items are read, and which error each refused one gets."""

import json
import tracemalloc
from dataclasses import replace
from datetime import date
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_shim.schemas.requested_calls import item_reader
from scheduler.domain.refusals import InvalidFields
from scheduler.wire import batches, json_values
from scheduler.wire.batches import BatchTooLarge, Item
from scheduler.wire.json_values import LARGEST_BODY, MAX_LEVELS, MalformedJson

_READER = item_reader(date(2026, 4, 1))


def _good(**more: Any) -> dict[str, Any]:
    return {"candidateId": str(uuid4()), "agentId": str(uuid4()), **more}


def _lines(*lines: bytes | dict[str, Any]) -> list[Item]:
    body = b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines)
    return list(batches.read_lines(body, _READER))


def _json(text: str) -> list[Item]:
    return list(batches.read_json(text.encode(), _READER)[1])


_TEXTS = st.text(alphabet='{}[]",\\ :a\u00e9\n')
_VALUES = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers() | _TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def _tight(values: list[Any]) -> str:
    return json.dumps({"items": values, "a": "]"}, ensure_ascii=False, separators=(",", ":"))


def _code(item: Item) -> str:
    assert item.request is None
    assert item.refusal is not None
    return item.refusal.code


def test_lines_are_read_each_by_itself() -> None:
    items = _lines(_good(externalId="a"), b"{", _good(phone=1), b"[]", _good(), b"")
    assert [each.index for each in items] == list(range(5))
    assert [each.request is not None for each in items] == [True, False, False, False, True]
    assert [_code(items[at]) for at in (1, 2, 3)] == ["MALFORMED_JSON", "VALIDATION_ERROR", "VALIDATION_ERROR"]
    assert items[0].external_id == "a"


def test_blank_lines_are_ignored_and_counted() -> None:
    body = b"\n \t\n" + json.dumps(_good()).encode() + b"\r\n\r\n  {\n\n\n" + json.dumps(_good()).encode() + b"\n \n\n"
    items = list(batches.read_lines(body, _READER))
    assert [(each.index, each.request is not None) for each in items] == [(2, True), (4, False), (7, True)]
    assert items[1].refusal is not None
    assert (items[1].refusal.details["line"], items[1].refusal.details["position"]) == (5, 3)
    many = (json.dumps(_good()).encode() + b"\n\n") * batches.MOST_LINES
    assert len(batches.read_lines(many, _READER)) == batches.MOST_LINES


def test_line_that_is_no_object_is_named_as_line() -> None:
    first, second = _lines(_good(), b"[]")
    assert first.refusal is None
    assert second.refusal is not None
    assert second.refusal.details["fields"][0]["message"] == "This line must be a JSON object."
    (item,) = _json('{"items": [1]}')
    assert item.refusal is not None
    assert item.refusal.details["fields"][0]["message"] == "This item must be a JSON object."


@pytest.mark.parametrize("lines", [1, 2, 900])
def test_lines_sent_as_json_name_the_header(lines: int) -> None:
    body = b"\n".join([json.dumps(_good()).encode()] * lines)
    with pytest.raises(InvalidFields, match=r"no `items`.*application/x-ndjson"):
        batches.read_json(body, _READER)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"items": [_good()]}),
        json.dumps({"name": "x", "items": [_good()] * 900}),
        json.dumps({"items": [{}] * 1001}),
        json.dumps({"items": [_good()]}, indent=1),
    ],
)
def test_json_sent_as_lines_names_the_header(text: str) -> None:
    with pytest.raises(InvalidFields, match="Content-Type: application/json"):
        batches.read_lines(text.encode() + b"\n", _READER)


def test_items_of_another_level_or_kind_are_a_line() -> None:
    for body in (_good(metadata={"items": [1]}), _good(items=1)):
        (item,) = _lines(body)
        assert item.index == 0


@pytest.mark.parametrize("lines", [2, 900])
def test_lost_line_ends_are_named(lines: int) -> None:
    body = json.dumps(_good()).encode() * lines
    with pytest.raises(MalformedJson, match=r"text after the end of the value.*Are the line ends missing"):
        batches.read_lines(body, _READER)
    good, bad = _lines(_good(), body)
    assert good.request is not None
    assert bad.refusal is not None


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
    refusal = second.refusal
    assert refusal is not None
    # A line is named by its number in the body, and otherwise the two are equal.
    assert line_errors[1].refusal == replace(refusal, details={**refusal.details, "line": 2})


def test_line_that_is_not_json_is_named_by_its_number() -> None:
    items = _lines(_good(), b'{"agentId": 1,}', b"", _good(metadata={"a": "x" * 70_000}), b"\xff")
    refusals = [each.refusal for each in items[1:]]
    assert [None if each is None else each.details["line"] for each in refusals] == [2, 4, 5]
    assert refusals[0] is not None
    assert refusals[0].details["reason"] == "a name in double quotes is expected"
    assert "a name in double quotes is expected" in refusals[0].message


@pytest.mark.parametrize("bad", ["1e999", r'"\ud800"'])
def test_many_unstorable_values_are_not_all_named(bad: str) -> None:
    """Each name is half as long as the item: together they were 2,500 times longer than it, in memory and stored."""
    values = ",".join([bad] * 3_000)
    for item in _json(f'{{"items": [{{"metadata": {{"{"k" * 30_000}": [{values}]}}}}]}}'):
        assert item.refusal is not None
        assert len(item.refusal.details["fields"]) == 20
        assert len(json.dumps(item.refusal.details)) < 10_000
        assert len(item.refusal.message) < 5_000


@pytest.mark.parametrize("size", [LARGEST_BODY, LARGEST_BODY + 1])
def test_item_may_be_as_large_as_a_single_request(size: int) -> None:
    item = '{"metadata":"\u00e9'
    item += "x" * (size - len(item.encode()) - 2) + '"}'
    assert len(item.encode()) == size
    found = [*_json(f'{{"items": [\n  {item}\n ]}}'), *_lines(item.encode(), _good())[:1]]
    expected = "VALIDATION_ERROR" if size == LARGEST_BODY else "BODY_TOO_LARGE"
    assert [_code(each) for each in found] == [expected, expected]


_LISTS = b'{"items": [' + b"[[],[]]," * 2_000_000 + b"{}]}"
_DEEP = b",".join([b"[" * 50 + b"]" * 50] * 5_001)
_NESTED = b'{"items": [' + (b"[" * 50 + b"]" * 50 + b",") * 150_000 + b"{}]}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(_LISTS, "1,000 items", id="many lists"),
        pytest.param(_NESTED, "1,000 items", id="nested lists"),
        pytest.param(b"{" + b'"a":0,' * 2_700_000 + b'"items": [{}]}', "bytes beside its items", id="many fields"),
        pytest.param(b'{"items": [{}], "items": [' + b"{}," * 5_000_000 + b"{}]}", "the same name", id="repeated key"),
        pytest.param(b'{"items": [{}], "it\\u0065ms": [{}]}', "the same name", id="repeated key, escaped"),
        pytest.param(b"[" + _LISTS + b"]", "invalid", id="no object"),
    ],
)
def test_hostile_json_is_refused_without_being_parsed(body: bytes, words: str) -> None:
    """Parsed, most of these bodies take a hundred times more memory than the test allows, without their own copy."""
    tracemalloc.start()
    try:
        with pytest.raises((BatchTooLarge, MalformedJson, InvalidFields), match=words):
            batches.read_json(body, _READER)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(body) + 1_000_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"items": [{}, [' + _LISTS + b"]]}",
        b'{"items": [{"a": [' + _DEEP + b"]}]}",
        b'{"items": [{}], "a": ' + _LISTS + b"}",
    ],
)
def test_json_of_brackets_is_not_searched_for_its_end(body: bytes) -> None:
    with pytest.raises(BatchTooLarge, match="500,000 brackets"):
        batches.read_json(body, _READER)


@pytest.mark.parametrize(
    "text",
    [
        '{"items": [{"a": tru}, {}]}',
        '{"items": [{}, ]}',
        '{"items": [, {}]}',
        '{"items": [{} {}]}',
        '{"items": [{}}]',
        '{"items": [{"a": "b]}',
        '{"items": [{}]',
        '{"items": [{}]} x',
        '{"items": [{}], }',
        '{"items": [{"a": 1]}]}',
        '\ufeff{"items": [{}]}',
    ],
)
def test_text_that_is_not_json_is_no_batch(text: str) -> None:
    with pytest.raises(MalformedJson):
        _json(text)


def test_fault_in_an_item_is_placed_in_the_whole_text() -> None:
    with pytest.raises(MalformedJson) as refused:
        _json('{"name": "\u00e9",\n "items": [{},\n {"a": tru}]}')
    assert refused.value.details["reason"] == "a JSON value is expected"
    assert (refused.value.details["line"], refused.value.details["column"]) == (3, 8)


@settings(max_examples=60)
@given(_VALUES)
def test_items_of_any_json_are_found(values: list[Any]) -> None:
    """The places of the items are those of Python's own parser, whatever is in strings and around them."""
    for text in (json.dumps({"a": values, "items": values, "b": {"items": values}}, indent=1), _tight(values)):
        found = json_values.cut(text.encode(), "items", 1000)
        assert found is not None
        assert [json.loads(text.encode()[start:end]) for start, end in found.items or ()] == values
        assert json.loads(found.rest) == {**json.loads(text), "items": []}


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
