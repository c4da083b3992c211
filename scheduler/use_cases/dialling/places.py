"""Places of a claim: which attempts may start within the next second, by the limits of account and companies."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.domain.attempt import Attempt
from scheduler.domain.company import Company
from scheduler.lifecycle.capacity import Allotment, Pace, allot, kept_places
from scheduler.lifecycle.policy import SEND_SPAN
from scheduler.persistence.attempt_claims import ClaimFacts
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.use_cases.dialling.claims import PLACES_COME_TOGETHER

_ROOM_AGAIN = timedelta(seconds=0.25)


def is_full(company: Pace, now: datetime) -> bool:
    """Return True if the company's own limits leave no place within the next second."""
    return company.room <= 0 or company.next_slot_at >= now + SEND_SPAN


def account_free_at(allotment: Allotment, room: int, now: datetime) -> datetime | None:
    """Return when to claim for the account again. None: now."""
    if room <= 0:
        return now + _ROOM_AGAIN  # there is no event for the end of a call
    free_at = allotment.account.next_slot_at - SEND_SPAN
    return free_at + PLACES_COME_TOGETHER if free_at >= now else None


def allotment_of(
    claimable: Sequence[Attempt],
    account: CarrierAccount,
    room: int,
    companies: Mapping[UUID, tuple[Company, datetime]],
    facts: ClaimFacts,
    now: datetime,
) -> Allotment:
    """Divide the account's pace and its free places among the companies, within the pace and places of each."""
    return allot(
        [(each.id, each.company_id) for each in claimable],
        Pace(next_slot_at=account.next_slot_at, per_second=account.calls_per_second, room=room),
        {
            company_id: Pace(
                next_slot_at=next_slot_at,
                per_second=company.settings.limits.calls_per_second,
                room=company.settings.limits.concurrent_calls - facts.calls_by_company.get(company_id, 0),
                calls=facts.calls_by_company.get(company_id, 0),
            )
            for company_id, (company, next_slot_at) in companies.items()
        },
        now,
        SEND_SPAN,
        _kept(account, facts, room),
    )


def _kept(account: CarrierAccount, facts: ClaimFacts, room: int) -> int:
    """Return how many calls of `room` are kept for companies without one. A trial leaves the other places free."""
    free = account.max_calls - facts.calls
    return max(0, kept_places(account.max_calls) - (free - room))


def room_of(account: CarrierAccount, facts: ClaimFacts) -> int:
    """Return how many more calls the account may have. While the breaker is half-open, one at a time."""
    room = account.max_calls - facts.calls
    if account.breaker.is_on_trial:
        return min(room, 1 - facts.calls_being_placed)
    return room
