"""An event: something that happened to an interview, a call or a company."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event, as a webhook delivers it and as `Client.events` reads it.

    New types, and new fields of `data`, may appear at any time: ignore those that you do not know.
    """

    type: str
    id: str
    """The same at each delivery and at each reading. An id that you have handled before is a repetition."""
    at: datetime
    sequence: int | None
    """Rises by one with each event of an interview. None for events without an interview."""
    data: Mapping[str, Any]
    """Ids, states, codes and times."""
    place: int | None = None
    """Continue to read after this place. None in a webhook."""

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            type=body["type"],
            id=body["deliveryId"],
            at=datetime.fromisoformat(body["timestamp"]),
            sequence=body["sequence"],
            data=body["data"],
            place=body.get("place"),
        )
