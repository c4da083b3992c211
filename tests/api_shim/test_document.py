"""The API serves the document that is in the repository, and a difference is reported."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from api_shim.app import create_app
from command_line import documents
from tests.api_shim.document_operations import DOCUMENT, documented


def test_document_in_the_repository_is_up_to_date() -> None:
    documents.must_equal(DOCUMENT, documents.openapi_text())
    assert json.loads(DOCUMENT.read_text(encoding="utf-8")) == json.loads(json.dumps(create_app().openapi()))


def json_examples(operation: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Yield each example of a JSON body with its schema."""
    for described in (operation.get("requestBody", {}), *operation["responses"].values()):
        media = described.get("content", {}).get("application/json", {})
        yield from ((media["schema"], each["value"]) for each in media.get("examples", {}).values())


def test_each_json_example_is_valid() -> None:
    components = json.loads(DOCUMENT.read_text(encoding="utf-8"))["components"]

    @cache
    def validator_of(schema: str) -> Any:
        """Build the validator of all components once for each schema, because that takes long."""
        return jsonschema_rs.validator_for({**json.loads(schema), "components": components}, validate_formats=True)

    checked = 0
    for method, path, operation in documented():
        for schema, value in json_examples(operation):
            wrong = [error.message for error in validator_of(json.dumps(schema)).iter_errors(value)]
            assert not wrong, (method, path, value)
            checked += 1
    assert checked


def test_each_operation_has_a_summary_and_error_examples() -> None:
    for method, path, operation in documented():
        assert len(operation["summary"]) <= 60, (method, path)
        failed = {status: each for status, each in operation["responses"].items() if status[0] in "45"}
        without = {status for status, each in failed.items() if not list(json_examples({"responses": {"": each}}))}
        assert not without, (method, path)


def test_batch_request_is_a_component_of_the_document() -> None:
    document = create_app().openapi()
    body = document["paths"]["/batches"]["post"]["requestBody"]["content"]
    assert body["application/json"]["schema"] == {"$ref": "#/components/schemas/BatchRequest"}
    described = document["components"]["schemas"]["BatchRequest"]
    assert set(described["properties"]) == {"name", "dryRun", "items"}
    [lines] = body["application/x-ndjson"]["examples"].values()
    validator = jsonschema_rs.validator_for(
        {"$ref": "#/components/schemas/InterviewRequest", "components": document["components"]}
    )
    assert [validator.is_valid(json.loads(line)) for line in lines["value"].splitlines()] == [True, True]
