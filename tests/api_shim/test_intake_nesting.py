"""JSON that is nested more deeply than any request needs is rejected like any other wrong body."""

from collections.abc import Iterator
from typing import Any

import pytest

from scheduler.wire.json_values import MAX_LEVELS, parse, unstorable
from tests.api_shim.answers import refusal
from tests.api_shim.document_operations import address_of_nothing, documented
from tests.api_shim.intake import Intake, Worker

DEPTHS = (MAX_LEVELS + 1, 200, 479, 480, 600, 800, 970, 989, 990, 1_200, 10_000, 32_000)


def _operations() -> Iterator[Any]:
    for method, path, operation in documented():
        if method != "GET":
            yield pytest.param(method, path, "security" in operation, id=operation["operationId"])


def nested(levels: int, *, inside: str = "[]", name: str | None = "metadata") -> bytes:
    """A body of this many levels, including the outermost object if there is one."""
    inner = levels - (name is not None)
    value = "[" * inner + "]" * inner
    if inside == "{}":
        value = '{"a":' * (inner - 1) + "{}" + "}" * (inner - 1)
    return (value if name is None else f'{{"{name}": {value}}}').encode()


@pytest.mark.parametrize(("method", "path", "is_keyed"), list(_operations()))
def test_deep_json_is_rejected_by_every_operation(intake: Intake, method: str, path: str, is_keyed: bool) -> None:
    address = address_of_nothing(path)
    headers = {"Content-Type": "application/json"}
    for levels in DEPTHS:
        answer = intake.send(method, address, content=nested(levels), headers=headers)
        assert refusal(answer) == (400, "MALFORMED_JSON"), (levels, answer.text)
        assert answer.json()["error"]["details"]["reason"] == f"it is nested more than {MAX_LEVELS} levels deep"
        stranger = intake.client.request(method, address, content=nested(levels), headers=headers)
        assert stranger.status_code == (401 if is_keyed else 400), (levels, stranger.text)
    assert intake.count("inbox") == 0


@pytest.mark.parametrize("inside", ["[]", "{}"])
@pytest.mark.parametrize("name", ["metadata", None])
def test_levels_are_counted_in_lists_and_objects(intake: Intake, inside: str, name: str | None) -> None:
    for levels, found in ((MAX_LEVELS, False), (MAX_LEVELS + 1, True)):
        content = nested(levels, inside=inside, name=name)
        answer = intake.post("/jobs", content=content, headers={"Content-Type": "application/json"})
        assert refusal(answer) == (400, "MALFORMED_JSON" if found else "VALIDATION_ERROR"), answer.text


def test_many_levels_beside_each_other_are_not_deep(intake: Intake, worker: Worker) -> None:
    body = intake.body(metadata={"list": [[[1]]] * 200})
    assert intake.create(body).status_code == 201


def test_deepest_json_is_read_by_a_full_stack() -> None:
    """Every later reader can walk through a body that the parser accepts, at any depth of the call stack."""

    def call(depth: int) -> Any:
        return call(depth - 1) if depth else unstorable(parse(nested(MAX_LEVELS)))

    assert call(700) == []
