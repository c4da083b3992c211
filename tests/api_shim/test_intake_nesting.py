"""JSON that is nested more deeply than any request needs is rejected like any other wrong body."""

from itertools import product
from typing import Any

from scheduler.wire.json_values import MAX_LEVELS, parse, unstorable
from tests.api_shim.answers import refusal
from tests.api_shim.document_operations import address_of_nothing, documented
from tests.api_shim.intake import Intake, Worker

DEPTHS = (MAX_LEVELS + 1, 200, 479, 480, 600, 800, 970, 989, 990, 1_200, 10_000, 32_000)


def nested(levels: int, *, inside: str = "[]", name: str | None = "metadata") -> bytes:
    """A body of this many levels, including the outermost object if there is one."""
    inner = levels - (name is not None)
    value = "[" * inner + "]" * inner
    if inside == "{}":
        value = '{"a":' * (inner - 1) + "{}" + "}" * (inner - 1)
    return (value if name is None else f'{{"{name}": {value}}}').encode()


def test_deep_json_is_rejected_by_every_operation(intake: Intake) -> None:
    headers = {"Content-Type": "application/json"}
    writes = [(method, path, each) for method, path, each in documented() if method != "GET"]
    for number, (method, path, operation) in enumerate(writes):
        address = address_of_nothing(path)
        for levels in DEPTHS if number == 0 else (DEPTHS[0], DEPTHS[-1]):
            answer = intake.send(method, address, content=nested(levels), headers=headers)
            assert refusal(answer) == (400, "MALFORMED_JSON"), (operation["operationId"], levels)
            assert answer.json()["error"]["details"]["reason"] == f"it is nested more than {MAX_LEVELS} levels deep"
            stranger = intake.client.request(method, address, content=nested(levels), headers=headers)
            assert stranger.status_code == (401 if "security" in operation else 400), operation["operationId"]
    assert intake.count("inbox") == 0


def test_levels_are_counted_in_lists_and_objects(intake: Intake) -> None:
    for inside, name in product(("[]", "{}"), ("metadata", None)):
        for levels, code in ((MAX_LEVELS, "VALIDATION_ERROR"), (MAX_LEVELS + 1, "MALFORMED_JSON")):
            content = nested(levels, inside=inside, name=name)
            answer = intake.post("/jobs", content=content, headers={"Content-Type": "application/json"})
            assert refusal(answer) == (400, code), (inside, name, levels)


def test_many_levels_beside_each_other_are_not_deep(intake: Intake, worker: Worker) -> None:
    body = intake.body(metadata={"list": [[[1]]] * 200})
    assert intake.create(body).status_code == 201


def test_deepest_json_is_read_by_a_full_stack() -> None:
    """Every later reader can walk through a body that the parser accepts, at any depth of the call stack."""

    def call(depth: int) -> Any:
        return call(depth - 1) if depth else unstorable(parse(nested(MAX_LEVELS)))

    assert call(700) == []
