"""Query parameters of lists of events and of their deliveries."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query

from api_shim.openapi_responses import IfSent
from scheduler.domain.partner_event import EventType
from scheduler.wire.field_errors import FieldError, invalid_fields
from scheduler.wire.field_types import Instant


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
    since: Annotated[
        IfSent[Instant], Query(alias="from", description="Only events from this time on, with Z or an offset.")
    ] = None,
    until: Annotated[
        IfSent[Instant], Query(alias="to", description="Only events before this time, with Z or an offset.")
    ] = None,
) -> tuple[datetime | None, datetime | None]:
    if since is not None and until is not None and until <= since:
        message = "to must be later than from; it is the first instant after the range."
        raise invalid_fields([FieldError(field="to", code="INVALID_RANGE", message=message)])
    return since, until


EventTypes = Annotated[frozenset[EventType] | None, Depends(_types)]
EventPeriod = Annotated[tuple[datetime | None, datetime | None], Depends(_period)]
"""Both ends."""
