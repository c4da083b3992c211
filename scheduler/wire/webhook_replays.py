"""Request body of a replay, and its conversion to a filter."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from scheduler.domain.delivery_history import ReplayFilter
from scheduler.domain.partner_event import EventType
from scheduler.wire.field_errors import FieldError
from scheduler.wire.field_types import Instant, Strict

_MAX_PLACE = 2**63 - 1


class ReplayRequest(Strict):
    """The range of a replay, by the times of the events."""

    since: Annotated[Instant, Field(alias="from", description="The first instant of the range.")]
    until: Annotated[
        Instant | None, Field(alias="to", description="The first instant after the range. Default: none.")
    ] = None
    types: Annotated[
        list[EventType] | None, Field(min_length=1, max_length=50, description="Only these types. Default: all.")
    ] = None
    only_failed: Annotated[
        StrictBool,
        Field(
            description="Only deliveries that have failed. Otherwise also those that were delivered, and events that"
            " occurred while the webhook was not active, or before it was created."
        ),
    ] = False
    after: Annotated[
        StrictInt, Field(ge=0, le=_MAX_PLACE, description="The `after` of the replay that this one continues.")
    ] = 0

    def contradictions(self) -> Iterator[FieldError]:
        """Yield the errors between fields that are valid by themselves."""
        if self.until is not None and self.until <= self.since:
            message = "to must be later than from; it is the first instant after the range."
            yield FieldError(field="to", code="INVALID_RANGE", message=message)

    def to_filter(self) -> ReplayFilter:
        types = None if self.types is None else frozenset(self.types)
        return ReplayFilter(since=self.since, until=self.until, types=types, only_failed=self.only_failed)
