"""Events: what partners read about their interviews, calls and companies."""

from datetime import datetime
from uuid import UUID

from scheduler.domain.partner_event import EventFilter, EventPage, EventType, PartnerEvent
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import AccessDenied
from scheduler.persistence.database import Database
from scheduler.use_cases.shared.access import require


class Events:
    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, principal: Principal, event_id: UUID) -> PartnerEvent:
        """Return an event that `after` would return. Raises NotFound, DatabaseAway."""
        with self._database.reading(principal) as stores:
            if principal.kind is KeyKind.ATS:
                found = stores.events.of_ats(event_id, principal.id)
            else:
                assert principal.company_id is not None
                found = stores.events.of_company(event_id, principal.company_id, principal.id)
            return require(found, "event", event_id)

    def after(
        self,
        principal: Principal,
        company_id: UUID | None,
        types: frozenset[EventType] | None = None,
        period: tuple[datetime | None, datetime | None] = (None, None),
        *,
        delivery_success: bool | None = None,
        after: int,
        limit: int,
    ) -> EventPage:
        """Return the events that follow a place, of one company or of all that an ATS key has created.

        The end of `period` is exclusive. Without `company_id`, an ATS key reads also that a
        company was deleted. Raises InvalidDateFormat, AccessDenied, DatabaseAway.
        """
        since, until = period
        wanted = EventFilter(types=types, since=since, until=until, delivery_success=delivery_success)
        with self._database.reading(principal) as stores:
            own = principal.company_id if principal.kind is KeyKind.REGULAR else company_id
            if own is None:
                return stores.events.page_of_ats(principal.id, wanted, after, limit)
            if not stores.keys.reach(principal, own):  # guard: event_reach
                raise AccessDenied
            return stores.events.page_of_company(own, wanted, after, limit, principal.id)
