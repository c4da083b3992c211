"""Bodies of requests: a text is no boolean and no number, in every field."""

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

import api_shim.app  # noqa: F401 - defines all bodies
from scheduler.wire.field_types import Strict


def bodies(base: type[BaseModel] = Strict) -> list[type[BaseModel]]:
    return [body for each in base.__subclasses__() for body in (each, *bodies(each))]


def fields(kind: str) -> list[tuple[type[BaseModel], str]]:
    """Read the fields of all bodies whose values are of this type of JSON, or null."""
    return [
        (body, name)
        for body in bodies()
        for name, schema in body.model_json_schema(by_alias=False).get("properties", {}).items()
        if kind in {each.get("type") for each in (schema, *schema.get("anyOf", []))}
    ]


def lowest(body: type[BaseModel], name: str) -> int:
    """Find the lowest number that a field takes. Those without a minimum take 1."""
    schema = body.model_json_schema(by_alias=False)["properties"][name]
    return int(next((each["minimum"] for each in (schema, *schema.get("anyOf", [])) if "minimum" in each), 1))


def takes(body: type[BaseModel], name: str, value: object) -> bool:
    field = body.model_fields[name]
    alone = create_model("Alone", __config__=ConfigDict(extra="forbid"), value=(field.rebuild_annotation(), ...))
    try:
        TypeAdapter(alone).validate_python({"value": value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("body", "name"), fields("boolean"))
def test_text_is_no_boolean(body: type[BaseModel], name: str) -> None:
    assert takes(body, name, True)
    assert not any(takes(body, name, each) for each in ("yes", "true", "on", "1", 1, 0))


@pytest.mark.parametrize(("body", "name"), fields("integer"))
def test_text_is_no_number(body: type[BaseModel], name: str) -> None:
    number = lowest(body, name)
    assert takes(body, name, number)
    assert not any(takes(body, name, each) for each in (str(number), True, float(number)))


def test_fields_of_both_types_are_found() -> None:
    assert {name for _, name in fields("boolean")} >= {"is_test", "is_active", "only_failed", "machine_detection"}
    assert {name for _, name in fields("integer")} >= {"concurrent_calls", "after", "max_retries"}
