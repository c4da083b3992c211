"""JSON for scripts: names as on the wire, instants in UTC, spans in seconds."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel

_SPANS = ("late", "oldest")


def as_json(values: dict[str, Any]) -> dict[str, Any]:
    converted = {}
    for name, value in values.items():
        if name in _SPANS:
            converted[f"{name}Seconds"] = None if value is None else value.total_seconds()
        elif isinstance(value, datetime):
            converted[to_camel(name)] = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        else:
            converted[to_camel(name)] = str(value) if isinstance(value, UUID) else value
    return converted
