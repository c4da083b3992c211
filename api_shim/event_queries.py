"""Query parameters of lists of events and of their deliveries."""

from typing import Annotated

from fastapi import Depends, Query
from pydantic import WithJsonSchema

from api_shim.openapi_responses import IfSent
from scheduler.domain.partner_event import EventType
from scheduler.wire.field_errors import FieldError, invalid_fields

_Bound = Annotated[
    IfSent[str],
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}),
]
_BOUND_FORMAT = "An ISO 8601 date (midnight UTC) or date-time (UTC unless it has an offset)."


async def _types(
    types: Annotated[
        IfSent[str], Query(description="Only these types, separated by commas.", examples=["interview.completed"])
    ] = None,
) -> frozenset[EventType] | None:
    if types is None:
        return None
    names = {name.strip() for name in types.split(",")}
    if not names <= {each.value for each in EventType}:
        message = f"A type does not exist. Separate types by commas. They are {', '.join(EventType)}."
        raise invalid_fields([FieldError(field="types", code="INVALID_VALUE", message=message)])
    return frozenset(EventType(name) for name in names)


async def _period(
    since: Annotated[_Bound, Query(alias="from", description=f"Only events from this time on. {_BOUND_FORMAT}")] = None,
    until: Annotated[_Bound, Query(alias="to", description=f"Only events before this time. {_BOUND_FORMAT}")] = None,
) -> tuple[str | None, str | None]:
    return since, until


EventTypes = Annotated[frozenset[EventType] | None, Depends(_types)]
EventPeriod = Annotated[tuple[str | None, str | None], Depends(_period)]
"""The texts of both ends."""
