"""Facts about a phone number that decide about its calls, without the digits. Attempts store them in their schedule."""

from scheduler.domain.call import CalleeClock, NumberFacts, Schedule, TimezoneSource
from scheduler.timing.callee_zones import CalleeNumber, NumberKind


def number_facts(clock: CalleeClock, number: CalleeNumber | None, candidate_zone: str | None) -> NumberFacts | None:
    """Collect the facts that a schedule on this clock stores. None without a number."""
    if number is None:
        return None
    # With an offset, the zones are kept even if the candidate's zone decides: it may be removed, and the clock stays.
    decides = clock.offset is not None or (candidate_zone is None and clock.source is not TimezoneSource.ZONE)
    return NumberFacts(
        country=number.region,
        never_called=None if number.is_ever_called else number.kind.value,
        zones=number.zones if decides and number.zones != _zones_in(clock) else None,
    )


def number_without_digits(schedule: Schedule, country: str | None) -> CalleeNumber:
    """Rebuild the number as far as its schedule describes it. `country` is for schedules without the facts."""
    facts = schedule.number or NumberFacts(country=country)
    return CalleeNumber(
        e164="",
        kind=NumberKind(facts.never_called) if facts.never_called else NumberKind.OTHER,
        region=facts.country,
        zones=_zones_in(schedule.clock) if facts.zones is None else facts.zones,
    )


def _zones_in(clock: CalleeClock) -> tuple[str, ...]:
    """List the zones of the number that the clock contains."""
    return clock.zones if clock.source is TimezoneSource.PHONE_NUMBER else ()
