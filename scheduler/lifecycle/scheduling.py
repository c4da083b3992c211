"""When an attempt is due, and on whose clock: from what was asked for, for a retry, and after settings changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from scheduler.domain.attempt import Attempt
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
from scheduler.domain.schedule import CalleeClock, Schedule, ScheduleWarning, TimezoneSource
from scheduler.lifecycle import policy as times
from scheduler.lifecycle.policy import Policy
from scheduler.timing import call_windows, callee_zones, requested_time
from scheduler.timing.callee_zones import CalleeNumber
from scheduler.timing.requested_time import RequestedTime

_SHORTEST_COMMON_OPENING = timedelta(minutes=60)


@dataclass(frozen=True, kw_only=True)
class Callee:
    """All that decides when one person may be called."""

    number: CalleeNumber | None
    timezone: str | None
    consent_until: date
    settings: CompanySettings


# ---- what somebody asked for


def on_request(
    text: str | None, callee: Callee, received_at: datetime, policy: Policy, *, field: str = "scheduledAt"
) -> tuple[Schedule, tuple[ScheduleWarning, ...]]:
    """When the call that was asked for is due, judged as of `received_at`; `field` is what the client calls the text.

    Raises the refusal whose name says why not: a text that is no date, the past, too far ahead, a shut window, no
    clock, no common opening, a consent that is over by then.
    """
    requested = requested_time.read(text, field=field) if text is not None else None
    clock = _clock(requested, callee)
    _must_have_common_opening(clock, callee.settings, received_at)
    if requested is None:
        earliest_at = received_at
        found = call_windows.next_open(clock, callee.settings.intervals, received_at, room=policy.room)
        if found is None:
            raise NoOpeningBeforeExpiry(_NO_LONG_ENOUGH_OPENING.format(seconds=int(policy.room.total_seconds())))
        due_at = found
    else:
        due_at = _explicit(requested, clock, callee, received_at, policy)
        earliest_at = due_at
    _must_consent(clock, callee.consent_until, due_at)
    warnings = _offset_warning(clock, callee, due_at)
    schedule = Schedule(
        requested=text,
        clock=clock,
        due_at=due_at,
        earliest_at=earliest_at,
        tzdata_version=callee_zones.TZDATA_VERSION,
    )
    return schedule, warnings


def online_time(
    text: str | None, callee: Callee, received_at: datetime, *, field: str = "scheduledAt"
) -> datetime | None:
    """When an ONLINE interview shall be; nobody is rung, so that neither hours nor consent are asked.

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
"""For a text that says all by itself."""


def clock_or_none(callee: Callee) -> CalleeClock | None:
    """Whose clock a wall time is on that names none; None when nothing says it."""
    try:
        return _clock(None, callee)
    except TimezoneUnknown:
        return None


def default_expiry(due_at: datetime) -> datetime:
    return due_at + times.DEFAULT_LIFE


def explicit_expiry(text: str, clock: CalleeClock | None) -> datetime:
    """When an interview shall expire. Raises InvalidDateFormat; TimezoneUnknown for a wall time on nobody's clock."""
    requested = requested_time.read(text, field="expiresAt")
    if requested.is_instant or requested.offset is not None:
        return call_windows.resolve(requested, _ANY_CLOCK)
    if requested.zone is not None:
        clock = CalleeClock(source=TimezoneSource.ZONE, zones=(requested.zone,))
    if clock is None:
        raise TimezoneUnknown
    return call_windows.resolve(requested, clock)


def must_open_before(expires_at: datetime, due_at: datetime, policy: Policy) -> None:
    """Raise NoOpeningBeforeExpiry where a call that is due then could not ring before the interview expires."""
    if expires_at <= due_at + policy.room:
        raise NoOpeningBeforeExpiry(
            "The interview would expire before its call could ring. Send a later expiresAt, or an earlier time.",
            dueAt=_utc_text(due_at),
            expiresAt=_utc_text(expires_at),
        )


_NO_LONG_ENOUGH_OPENING = "No opening is as long as the {seconds} s that a call needs to ring."


def _must_have_common_opening(clock: CalleeClock, settings: CompanySettings, now: datetime) -> None:
    if len(clock.zones) < 2:  # noqa: PLR2004 - one zone always agrees with itself
        return
    together = call_windows.common_minutes(clock, settings.intervals, now, enough=_SHORTEST_COMMON_OPENING)
    if together < _SHORTEST_COMMON_OPENING:
        zones = ", ".join(clock.zones)
        raise NoCommonOpening(
            f"The number may be in any of these time zones, and they are open together for less than an hour in the"
            f" next 7 days: {zones}. Set the candidate's timezone.",
            zones=list(clock.zones),
        )


def _explicit(requested: RequestedTime, clock: CalleeClock, callee: Callee, now: datetime, policy: Policy) -> datetime:
    due_at = _in_time(call_windows.resolve(requested, clock), now)
    intervals = callee.settings.intervals
    if call_windows.is_open(clock, intervals, due_at, room=policy.room):
        return due_at
    next_at = call_windows.next_open(clock, intervals, due_at, room=policy.room)
    closing = call_windows.is_open(clock, intervals, due_at)
    where = _clock_text(clock)
    why = "too close to closing to ring" if closing else "outside the hours in which this person may be called"
    raise OutsideCallTimeInterval(
        f"{_span_of_local_times(clock, due_at)} on the callee's clock ({where}) is {why}."
        + (f" The next allowed time is {_utc_text(next_at)}." if next_at else ""),
        localTime=local_time_text(clock, due_at),
        timezone=where,
        timezoneSource=clock.source.value,
        callTimeIntervals=call_windows.intervals_as_json(intervals),
        nextAllowedAt=_utc_text(next_at) if next_at else None,
        nextAllowedScheduledAt=_as_requested(next_at, requested, clock, callee, now) if next_at else None,
        reason="CLOSING" if closing else "CLOSED",
    )


def local_time_text(clock: CalleeClock, instant: datetime) -> str:
    """Each local time that the zones of `clock` have at `instant`, in their order, with commas between them."""
    return together([each.isoformat(timespec="seconds") for each in call_windows.local_times(clock, instant)])


def together(texts: Sequence[str]) -> str:
    """Each different text once, in order, with commas between them."""
    return ", ".join(dict.fromkeys(texts))


def _span_of_local_times(clock: CalleeClock, instant: datetime) -> str:
    local = call_windows.local_times(clock, instant)
    earliest, latest = min(local), max(local)
    return f"{earliest:%Y-%m-%d %H:%M}" + ("" if earliest == latest else f" to {latest:%Y-%m-%d %H:%M}")


def _as_requested(
    instant: datetime, requested: RequestedTime, clock: CalleeClock, callee: Callee, now: datetime
) -> str | None:
    """`instant` in the form of the request, so that it is judged by the same clock when it is sent back.

    None if it would be refused: beyond 30 days, or at an offset that the number does not have then and must have.
    """
    if instant > now + times.MAX_AHEAD:
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
    """The request's own form first. A wall time that comes twice, or differs among zones, needs a more exact one."""
    wall = call_windows.local_times(clock, instant)[0].isoformat()
    if requested.zone is not None:
        if requested.offset is None and not requested.is_instant:
            yield f"{wall}[{requested.zone}]"
        yield f"{wall}{offset_text(call_windows.utc_offsets(clock, instant)[0])}[{requested.zone}]"
    elif not requested.is_instant:
        yield wall
    yield _utc_text(instant)


def _named_instant(requested: RequestedTime, clock: CalleeClock) -> datetime | None:
    try:
        return call_windows.resolve(requested, clock)
    except TimezoneAmbiguous:
        return None


def _in_time(instant: datetime, now: datetime) -> datetime:
    """The instant, or now when it has just passed. Raises ScheduleInPast, ScheduleTooFar."""
    if instant < now - times.PAST_ALLOWANCE:
        raise ScheduleInPast(
            f"{_utc_text(instant)} lies {_span_text(now - instant)} in the past. Send a later time, or none at all for"
            " as soon as allowed.",
            scheduledAt=_utc_text(instant),
            receivedAt=_utc_text(now),
        )
    if instant > now + times.MAX_AHEAD:
        raise ScheduleTooFar(
            f"{_utc_text(instant)} lies more than 30 days ahead. The latest time now is"
            f" {_utc_text(now + times.MAX_AHEAD)}.",
            scheduledAt=_utc_text(instant),
            latest=_utc_text(now + times.MAX_AHEAD),
        )
    return max(instant, now)


def _must_consent(clock: CalleeClock, until: date, instant: datetime) -> None:
    if consent_is_over(clock, until, instant):
        raise ConsentExpired(
            f"The candidate's consent ends with {until.isoformat()} on the callee's clock, before the call would be"
            " due. Renew gdprExpiryDate or choose an earlier time.",
            gdprExpiryDate=until.isoformat(),
        )


def consent_is_over(clock: CalleeClock, until: date, instant: datetime) -> bool:
    """The last day of consent ends at midnight on the callee's clock; with several zones, on the earliest of them."""
    # The midnight itself is not computed: behind the calendar's last day, which stands for "never", there is none.
    return any(local.date() > until for local in call_windows.local_times(clock, instant))


def consent_is_over_on_any(clocks: Sequence[CalleeClock], until: date, instant: datetime) -> bool:
    """The same for the clocks that decide together."""
    return any(consent_is_over(clock, until, instant) for clock in clocks)


def _offset_warning(clock: CalleeClock, callee: Callee, due_at: datetime) -> tuple[ScheduleWarning, ...]:
    if clock.source is not TimezoneSource.OFFSET or callee.number is None or not callee.number.zones:
        return ()
    if _is_an_offset_of_the_number(clock, callee, due_at):
        return ()
    if callee.settings.offset_must_match_number:
        raise OffsetMustMatchNumber(zones=list(callee.number.zones))
    return (ScheduleWarning.OFFSET_DIFFERS_FROM_PHONE_NUMBER,)


def _is_an_offset_of_the_number(clock: CalleeClock, callee: Callee, instant: datetime) -> bool:
    """Whether some zone of the number has that offset then. Sparsely populated zones count here (F2-3)."""
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


def offset_text(offset: timedelta) -> str:
    """`+10:30`."""
    minutes = int(offset.total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _utc_text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _span_text(span: timedelta) -> str:
    return str(timedelta(seconds=int(span.total_seconds())))


# ---- which clocks must be open when it rings


def present_clock(attempt: Attempt, callee: Callee) -> CalleeClock:
    """Whose clock decides for `attempt` as things are now. Raises TimezoneUnknown."""
    clock = attempt.schedule.clock
    if clock.source in {TimezoneSource.OFFSET, TimezoneSource.ZONE}:
        return clock
    return _clock(None, callee)


def deciding_clocks(attempt: Attempt, callee: Callee, now: datetime) -> tuple[CalleeClock, ...]:
    """The clocks that must be open when `attempt` rings, as of `now`. Raises TimezoneUnknown.

    A clock that the request's own text named stays; one that was looked up is looked up again, because nobody may be
    rung on a clock that is theirs no more. Where it is an offset, and this is a retry that nobody has moved or another
    opening than the one that was asked for, the person's own clock must be open too (F2-9): the candidate's zone, else
    those of the number. No request named that hour by its offset.
    """
    clock = present_clock(attempt, callee)
    if clock.offset is None:
        return (clock,)
    if attempt.schedule.requested is not None and _is_in_the_same_opening(attempt.schedule, callee.settings, now):
        return (clock,)
    own = _own_clock_or_none(callee)
    return (clock,) if own is None else (clock, own)  # guard: own_clock


def _own_clock_or_none(callee: Callee) -> CalleeClock | None:
    """The person's own clock, never the company's. Raises TimezoneUnknown if the candidate's zone is unknown."""
    if callee.timezone is None and (callee.number is None or not callee.number.zones):
        return None
    return callee_zones.deciding_clock(None, candidate_zone=callee.timezone, number=callee.number, company_zone=None)


def _is_in_the_same_opening(schedule: Schedule, settings: CompanySettings, now: datetime) -> bool:
    asked_for = schedule.earliest_at
    span = max(now - asked_for, timedelta())
    return call_windows.is_open(schedule.clock, settings.intervals, asked_for, room=span)


def next_opening(
    clocks: Sequence[CalleeClock], settings: CompanySettings, now: datetime, policy: Policy
) -> datetime | None:
    """The first instant from `now` on at which all `clocks` are open with room to ring; None when there is none."""
    return call_windows.next_open(clocks, settings.intervals, now, room=policy.room)


def last_start(clocks: Sequence[CalleeClock], settings: CompanySettings, now: datetime, policy: Policy) -> datetime:
    """The last instant in the opening that holds `now` at which a call may start to ring."""
    # At the instant of closing it is closed.
    return call_windows.closes_at(clocks, settings.intervals, now) - policy.room - timedelta.resolution


def opening_after_this_one(attempt: Attempt, callee: Callee, now: datetime, policy: Policy) -> datetime | None:
    """The next opening for `attempt` once the present one has closed; None when there is none.

    Raises TimezoneUnknown.
    """
    closes = call_windows.closes_at(deciding_clocks(attempt, callee, now), callee.settings.intervals, now)
    return next_opening(deciding_clocks(attempt, callee, closes), callee.settings, closes, policy)


# ---- after hours, zones or the number changed


def recomputed_schedule(attempt: Attempt, callee: Callee, now: datetime, policy: Policy) -> Schedule | None:
    """The schedule of a pending attempt under the settings as they are now; None: it stays as it is.

    A clock that came from the request's own text stays; one that was looked up is looked up again. A time that was
    asked for stays the earliest one. Where no zone or no opening can be told, nothing is moved: the last look holds it.
    """
    try:
        clock = present_clock(attempt, callee)
        earliest_at = _present_earliest(attempt, clock)
        start = max(earliest_at, now)
        if attempt.not_placed:  # its turn comes when the carrier takes calls again, not when hours change
            start = max(start, attempt.due_at)
        moved = _moved(attempt, clock, earliest_at)
        due_at = next_opening(deciding_clocks(moved, callee, start), callee.settings, start, policy)
    except TimezoneUnknown:
        return None
    if due_at is None or (clock == attempt.schedule.clock and _is_as_good(attempt, due_at, now)):
        return None
    return Schedule(
        requested=attempt.schedule.requested,
        clock=clock,
        due_at=due_at,
        earliest_at=earliest_at,
        tzdata_version=callee_zones.TZDATA_VERSION,
    )


def _present_earliest(attempt: Attempt, clock: CalleeClock) -> datetime:
    """A wall time means another instant on another clock, or by newer zone data.

    An instant, and the end of a retry's wait, do not. Older zone data than those that resolved it decide nothing.
    """
    schedule = attempt.schedule
    has_newer_data = schedule.tzdata_version < callee_zones.TZDATA_VERSION
    if schedule.requested is None or (clock == schedule.clock and not has_newer_data):
        return schedule.earliest_at
    try:
        return call_windows.resolve(requested_time.read(schedule.requested), clock)
    except TimezoneAmbiguous:
        return schedule.earliest_at
    except InvalidDateFormat:
        if clock.source is not TimezoneSource.ZONE:
            raise
        return schedule.earliest_at  # an offset that its zone no longer has: the offset named the instant


def _moved(attempt: Attempt, clock: CalleeClock, earliest_at: datetime) -> Attempt:
    return replace(attempt, schedule=replace(attempt.schedule, clock=clock, earliest_at=earliest_at))


def _is_as_good(attempt: Attempt, due_at: datetime, now: datetime) -> bool:
    """What is due already, or was put off by seconds, need not be told that it has moved."""
    return due_at == attempt.due_at or (due_at <= max(attempt.due_at, now) <= due_at + times.DEFERRED_DELAY)
