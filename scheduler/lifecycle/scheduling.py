"""Scheduling: the due time of an attempt and its clock, from a request, for a retry, and after a change of settings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CalleeClock, Schedule, ScheduleWarning, TimezoneSource
from scheduler.domain.company import CompanySettings
from scheduler.domain.refusals import (
    ConsentExpired,
    InvalidDateFormat,
    NoCommonOpening,
    NoOpeningBeforeExpiry,
    OffsetMustMatchNumber,
    OutsideCallTimeInterval,
    ScheduleInPast,
    ScheduleTooFar,
    TimezoneAmbiguous,
    TimezoneUnknown,
)
from scheduler.lifecycle import policy
from scheduler.lifecycle.policy import Policy
from scheduler.timing import call_windows, callee_zones, requested_time, time_texts, zone_names
from scheduler.timing.callee_zones import CalleeNumber, number_facts
from scheduler.timing.requested_time import RequestedTime
from scheduler.timing.time_texts import offset_text, span_text, together, utc_text

_SHORTEST_COMMON_OPENING = timedelta(minutes=60)


@dataclass(frozen=True, kw_only=True)
class Callee:
    """The data that decides when a person may be called."""

    number: CalleeNumber | None
    timezone: str | None
    consent_until: date
    settings: CompanySettings


# ---- requested times


def on_request(
    text: str | None,
    callee: Callee,
    received_at: datetime,
    policy: Policy,
    *,
    field: str = "scheduledAt",
    is_call_back: bool = False,
) -> tuple[Schedule, tuple[ScheduleWarning, ...]]:
    """Schedule a requested call, evaluated as of `received_at`. `field` is the client's name of the text.

    If the person named the time (`is_call_back`), an offset does not decide alone: see `deciding_clocks`.

    Raises InvalidDateFormat, ScheduleInPast, ScheduleTooFar, OutsideCallTimeInterval, TimezoneUnknown,
    TimezoneAmbiguous, NoCommonOpening, NoOpeningBeforeExpiry, ConsentExpired or OffsetMustMatchNumber.
    """
    requested = requested_time.read(text, field=field) if text is not None else None
    clock = _clock(requested, callee)
    clocks: tuple[CalleeClock, ...] = (clock,)
    if is_call_back:
        clocks = _with_own_clock(clock, callee)  # guard: named_own_clock
    _must_have_common_opening(clock, callee.settings, received_at)
    if requested is None:
        earliest_at = received_at
        opening = call_windows.next_open(clocks, callee.settings.intervals, received_at, room=policy.room)
        if opening is None:
            raise NoOpeningBeforeExpiry(_NO_LONG_ENOUGH_OPENING.format(seconds=int(policy.room.total_seconds())))
        due_at = opening
    else:
        due_at = _explicit(requested, clocks, callee, received_at, policy)
        earliest_at = due_at
    _must_consent(clocks, callee.consent_until, due_at)
    warnings = offset_warnings(clock, callee, due_at)
    return schedule_on(clock, callee, requested=text, due_at=due_at, earliest_at=earliest_at), warnings


def schedule_on(
    clock: CalleeClock, callee: Callee, *, requested: str | None, due_at: datetime, earliest_at: datetime
) -> Schedule:
    """Build a schedule by the present zone data, with the facts about the callee's number."""
    return Schedule(
        requested=requested,
        clock=clock,
        due_at=due_at,
        earliest_at=earliest_at,
        tzdata_version=zone_names.TZDATA_VERSION,
        number=number_facts(clock, callee.number, callee.timezone),
    )


def online_time(
    text: str | None, callee: Callee, received_at: datetime, *, field: str = "scheduledAt"
) -> datetime | None:
    """Read the time of an ONLINE interview. No phone rings, so neither calling hours nor consent are checked.

    Raises InvalidDateFormat, ScheduleInPast, ScheduleTooFar, TimezoneUnknown, TimezoneAmbiguous.
    """
    if text is None:
        return None
    requested = requested_time.read(text, field=field)
    if requested.is_instant or requested.offset is not None:
        instant = call_windows.resolve(requested, _ANY_CLOCK)
    else:
        instant = call_windows.resolve(requested, _clock(requested, callee))
    return _in_time(instant, received_at)


_ANY_CLOCK = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta())
"""For a text that names an instant or an offset."""


def clock_or_none(callee: Callee) -> CalleeClock | None:
    """Find the clock of a wall time without zone or offset, or None if it is unknown."""
    try:
        return _clock(None, callee)
    except TimezoneUnknown:
        return None


def default_expiry(due_at: datetime) -> datetime:
    return due_at + policy.DEFAULT_LIFE


def explicit_expiry(text: str, clock: CalleeClock | None) -> datetime:
    """Read the requested expiry. Raises InvalidDateFormat, or TimezoneUnknown for a wall time without a clock."""
    requested = requested_time.read(text, field="expiresAt")
    if requested.is_instant or requested.offset is not None:
        return call_windows.resolve(requested, _ANY_CLOCK)
    if requested.zone is not None:
        clock = CalleeClock(source=TimezoneSource.ZONE, zones=(requested.zone,))
    if clock is None:
        raise TimezoneUnknown
    return call_windows.resolve(requested, clock)


def must_open_before(expires_at: datetime, due_at: datetime, policy: Policy) -> None:
    """Raise NoOpeningBeforeExpiry if a call due at `due_at` could not ring before the interview expires."""
    if expires_at <= due_at + policy.room:
        raise NoOpeningBeforeExpiry(
            "The interview would expire before its call could ring. Send a later expiresAt, or an earlier time.",
            dueAt=utc_text(due_at),
            expiresAt=utc_text(expires_at),
        )


_NO_LONG_ENOUGH_OPENING = (
    "No opening is long enough: a call needs {seconds} s to ring. Set longer callTimeIntervals for the company."
)


def _must_have_common_opening(clock: CalleeClock, settings: CompanySettings, now: datetime) -> None:
    if len(clock.zones) < 2:  # noqa: PLR2004 - one zone always agrees with itself
        return
    together = call_windows.common_minutes(clock, settings.intervals, now, enough=_SHORTEST_COMMON_OPENING)
    if together < _SHORTEST_COMMON_OPENING:
        zones = ", ".join(clock.zones)
        raise NoCommonOpening(
            f"The number may be in any of these time zones, whose calling hours have less than one hour in common in"
            f" the next 7 days: {zones}. Set the candidate's timezone.",
            zones=list(clock.zones),
        )


def _explicit(
    requested: RequestedTime, clocks: Sequence[CalleeClock], callee: Callee, now: datetime, policy: Policy
) -> datetime:
    """Resolve the time on the first of the clocks, all of which must be open then."""
    due_at = _in_time(call_windows.resolve(requested, clocks[0]), now)
    intervals = callee.settings.intervals
    closed = [each for each in clocks if not call_windows.is_open(each, intervals, due_at, room=policy.room)]
    if not closed:
        return due_at
    next_at = call_windows.next_open(clocks, intervals, due_at, room=policy.room)
    closing = call_windows.is_open(clocks, intervals, due_at)
    clock = closed[0]
    zone_text = _clock_text(clock)
    why = "too close to the end of the calling hours" if closing else "outside the calling hours of this person"
    raise OutsideCallTimeInterval(
        f"{_span_of_local_times(clock, due_at)} on the callee's clock ({zone_text}) is {why}."
        + (f" The next allowed time is {utc_text(next_at)}." if next_at else ""),
        localTime=together([each.isoformat(timespec="seconds") for each in call_windows.local_times(clock, due_at)]),
        timezone=zone_text,
        timezoneSource=clock.source.value,
        callTimeIntervals=time_texts.intervals_as_json(intervals),
        **_next_allowed(next_at, requested, clocks[0], callee, now),
        reason="CLOSING" if closing else "CLOSED",
    )


def next_for_call_back(text: str, callee: Callee, now: datetime, policy: Policy) -> dict[str, str | None]:
    """Find the first time from `now` on to call the person back, as an instant and in the form of the request."""
    requested = requested_time.read(text)
    clock = _clock(requested, callee)
    start = now.replace(microsecond=0) + timedelta(seconds=1)
    next_at = call_windows.next_open(_with_own_clock(clock, callee), callee.settings.intervals, start, room=policy.room)
    return _next_allowed(next_at, requested, clock, callee, now)


def _next_allowed(
    next_at: datetime | None, requested: RequestedTime, clock: CalleeClock, callee: Callee, now: datetime
) -> dict[str, str | None]:
    return {
        "nextAllowedAt": utc_text(next_at) if next_at else None,
        "nextAllowedScheduledAt": _as_requested(next_at, requested, clock, callee, now) if next_at else None,
    }


def _span_of_local_times(clock: CalleeClock, instant: datetime) -> str:
    local = call_windows.local_times(clock, instant)
    earliest, latest = min(local), max(local)
    return f"{earliest:%Y-%m-%d %H:%M}" + ("" if earliest == latest else f" to {latest:%Y-%m-%d %H:%M}")


def _as_requested(
    instant: datetime, requested: RequestedTime, clock: CalleeClock, callee: Callee, now: datetime
) -> str | None:
    """Write `instant` in the form of the request, so that the same clock evaluates it when it is sent back.

    None if it would be refused: beyond 30 days, or with an offset that must match the number but does not at that time.
    """
    if instant > now + policy.MAX_AHEAD:
        return None
    if clock.offset is not None:
        matches = not callee.settings.offset_must_match_number or _is_an_offset_of_the_number(clock, callee, instant)
        return (
            f"{call_windows.local_times(clock, instant)[0].isoformat()}{offset_text(clock.offset)}" if matches else None
        )
    return next(
        text
        for text in _forms(instant, requested, clock)
        if _named_instant(requested_time.read(text), clock) == instant
    )


def _forms(instant: datetime, requested: RequestedTime, clock: CalleeClock) -> Iterator[str]:
    """Yield the request's own form, then more exact forms for a wall time that is ambiguous or differs by zone."""
    wall = call_windows.local_times(clock, instant)[0].isoformat()
    if requested.zone is not None:
        if requested.offset is None and not requested.is_instant:
            yield f"{wall}[{requested.zone}]"
        yield f"{wall}{offset_text(call_windows.utc_offsets(clock, instant)[0])}[{requested.zone}]"
    elif not requested.is_instant:
        yield wall
    yield utc_text(instant)


def _named_instant(requested: RequestedTime, clock: CalleeClock) -> datetime | None:
    try:
        return call_windows.resolve(requested, clock)
    except TimezoneAmbiguous:
        return None


def _in_time(instant: datetime, now: datetime) -> datetime:
    """Take the instant, or `now` if it has just passed. Raises ScheduleInPast, ScheduleTooFar."""
    if instant < now - policy.PAST_ALLOWANCE:
        raise ScheduleInPast(
            f"{utc_text(instant)} is {span_text(now - instant)} in the past. Send a later time, or omit it to call"
            " as soon as allowed.",
            scheduledAt=utc_text(instant),
            receivedAt=utc_text(now),
        )
    if instant > now + policy.MAX_AHEAD:
        raise ScheduleTooFar(
            f"{utc_text(instant)} is more than 30 days ahead. The latest allowed time now is"
            f" {utc_text(now + policy.MAX_AHEAD)}.",
            scheduledAt=utc_text(instant),
            latest=utc_text(now + policy.MAX_AHEAD),
        )
    return max(instant, now)


def _must_consent(clocks: Sequence[CalleeClock], until: date, instant: datetime) -> None:
    if consent_is_over_on_any(clocks, until, instant):
        raise ConsentExpired(
            f"The candidate's consent ends on {until.isoformat()} (callee's clock), before the call would be due. Set a"
            " later gdprExpiryDate or choose an earlier time.",
            gdprExpiryDate=until.isoformat(),
        )


def consent_is_over(clock: CalleeClock, until: date, instant: datetime) -> bool:
    """Return whether consent is over. Its last day ends at midnight, in the earliest of several zones."""
    # The midnight is not computed, because none exists after the calendar's last day, which means "never".
    return any(local.date() > until for local in call_windows.local_times(clock, instant))


def consent_is_over_on_any(clocks: Sequence[CalleeClock], until: date, instant: datetime) -> bool:
    """Return whether consent is over on any of the clocks."""
    return any(consent_is_over(clock, until, instant) for clock in clocks)


def offset_warnings(clock: CalleeClock, callee: Callee, due_at: datetime) -> tuple[ScheduleWarning, ...]:
    """Warn of an offset that the number does not have then (F2-3). Raises OffsetMustMatchNumber."""
    if clock.source is not TimezoneSource.OFFSET or callee.number is None or not callee.number.zones:
        return ()
    if _is_an_offset_of_the_number(clock, callee, due_at):
        return ()
    if callee.settings.offset_must_match_number:
        raise OffsetMustMatchNumber(zones=list(callee.number.zones))
    return (ScheduleWarning.OFFSET_DIFFERS_FROM_PHONE_NUMBER,)


def _is_an_offset_of_the_number(clock: CalleeClock, callee: Callee, instant: datetime) -> bool:
    """Return whether a zone of the number has that offset then. Sparsely populated zones count here (F2-3)."""
    if callee.number is None or not callee.number.zones:
        return True
    own = CalleeClock(
        source=TimezoneSource.PHONE_NUMBER,
        zones=callee.number.zones + callee.number.sparse_zones,
    )
    return call_windows.local_times(clock, instant)[0] in call_windows.local_times(own, instant)


def _clock(requested: RequestedTime | None, callee: Callee) -> CalleeClock:
    return callee_zones.deciding_clock(
        requested,
        candidate_zone=callee.timezone,
        number=callee.number,
        company_zone=callee.settings.timezone,
    )


def _clock_text(clock: CalleeClock) -> str:
    if clock.offset is not None:
        return offset_text(clock.offset)
    return ", ".join(clock.zones)


# ---- clocks that must be open when the phone rings


def present_clock(attempt: Attempt, callee: Callee) -> CalleeClock:
    """Find the clock that currently decides for `attempt`. Raises TimezoneUnknown."""
    clock = attempt.schedule.clock
    if clock.source in {TimezoneSource.OFFSET, TimezoneSource.ZONE}:
        return clock
    return _clock(None, callee)


def deciding_clocks(attempt: Attempt, callee: Callee, now: datetime) -> tuple[CalleeClock, ...]:
    """Find the clocks that must be open when `attempt` rings, as of `now`. Raises TimezoneUnknown.

    A clock from the request's text is kept. Any other clock is looked up again, because it may no longer be the
    person's. If the clock is an offset, the person's own clock (candidate's zone, otherwise the zones of the number)
    must be open too, unless a client requested a time in the current opening (F2-9): the offset was not sent for any
    other opening, for a retry, or for a time that the person named in a call.
    """
    clock = present_clock(attempt, callee)
    if is_call_back(attempt):
        return _with_own_clock(clock, callee)  # guard: call_back_clock
    if attempt.schedule.requested is not None and _is_in_the_same_opening(attempt.schedule, callee.settings, now):
        return (clock,)
    clocks: tuple[CalleeClock, ...] = (clock,)
    clocks = _with_own_clock(clock, callee)  # guard: own_clock
    return clocks  # noqa: RET504 - the guard can be removed


def is_call_back(attempt: Attempt) -> bool:
    """Return whether the attempt follows from a time that the person named, also if it was moved or retried since."""
    return attempt.call_backs > 0


def _with_own_clock(clock: CalleeClock, callee: Callee) -> tuple[CalleeClock, ...]:
    """Add the person's own clock to an offset. Raises TimezoneUnknown."""
    own = None if clock.offset is None else callee_zones.own_clock(callee.timezone, callee.number)
    return (clock,) if own is None else (clock, own)


def _is_in_the_same_opening(schedule: Schedule, settings: CompanySettings, now: datetime) -> bool:
    requested_at = schedule.earliest_at
    span = max(now - requested_at, timedelta())
    return call_windows.is_open(schedule.clock, settings.intervals, requested_at, room=span)


def next_opening(
    clocks: Sequence[CalleeClock], settings: CompanySettings, now: datetime, policy: Policy
) -> datetime | None:
    """Find the first instant from `now` on at which all `clocks` are open long enough for a call to ring, or None."""
    return call_windows.next_open(clocks, settings.intervals, now, room=policy.room)


def last_start(clocks: Sequence[CalleeClock], settings: CompanySettings, now: datetime, policy: Policy) -> datetime:
    """Find the last instant in the opening that contains `now` at which a call may start to ring."""
    # The instant of closing is already closed.
    return call_windows.closes_at(clocks, settings.intervals, now) - policy.room - timedelta.resolution


def opening_after_this_one(attempt: Attempt, callee: Callee, now: datetime, policy: Policy) -> datetime | None:
    """Find the next opening for `attempt` after the current one, or None. Raises TimezoneUnknown."""
    closes = call_windows.closes_at(deciding_clocks(attempt, callee, now), callee.settings.intervals, now)
    return next_opening(deciding_clocks(attempt, callee, closes), callee.settings, closes, policy)


# ---- after a change of hours, zones or the number


def recomputed_schedule(attempt: Attempt, callee: Callee, now: datetime, policy: Policy) -> Schedule | None:
    """Compute the schedule of a pending attempt under the current settings. None: it does not change.

    A clock from the request's text is kept, any other clock is looked up again. A requested time remains the earliest
    time. Without a known zone or opening the attempt is not moved, and the last look blocks it.
    """
    try:
        clock = present_clock(attempt, callee)
        earliest_at = present_earliest(attempt, clock)
        start = max(earliest_at, now)
        if attempt.not_placed:  # it waits for the carrier, so a change of hours must not make it due earlier
            start = max(start, attempt.due_at)
        moved = _moved(attempt, clock, earliest_at)
        due_at = next_opening(deciding_clocks(moved, callee, start), callee.settings, start, policy)
    except TimezoneUnknown:
        return None
    if due_at is None or (clock == attempt.schedule.clock and _is_as_good(attempt, due_at, now)):
        return None
    return schedule_on(clock, callee, requested=attempt.schedule.requested, due_at=due_at, earliest_at=earliest_at)


def present_earliest(attempt: Attempt, clock: CalleeClock) -> datetime:
    """Compute the earliest time under the current clock and zone data.

    Only a wall time changes with the clock or with newer zone data; an instant and the end of a retry's wait do not.
    Zone data older than those of the schedule are ignored.
    """
    schedule = attempt.schedule
    has_newer_data = schedule.tzdata_version < zone_names.TZDATA_VERSION
    if schedule.requested is None or (clock == schedule.clock and not has_newer_data):
        return schedule.earliest_at
    try:
        return call_windows.resolve(requested_time.read(schedule.requested), clock)
    except TimezoneAmbiguous:
        return schedule.earliest_at
    except InvalidDateFormat:
        if clock.source is not TimezoneSource.ZONE:
            raise
        return schedule.earliest_at  # the zone no longer has that offset; the offset still names the instant


def _moved(attempt: Attempt, clock: CalleeClock, earliest_at: datetime) -> Attempt:
    return replace(attempt, schedule=replace(attempt.schedule, clock=clock, earliest_at=earliest_at))


def _is_as_good(attempt: Attempt, due_at: datetime, now: datetime) -> bool:
    """Return whether the attempt is already due, or was deferred by seconds, so that it need not be moved."""
    return due_at == attempt.due_at or (due_at <= max(attempt.due_at, now) <= due_at + policy.DEFERRED_DELAY)
