"""What follows from what is: pure functions from a state of affairs and `now` to an event, a schedule or a refusal."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from scheduler.domain.attempt import (
    AnswerLost,
    Attempt,
    AttemptState,
    ConsentEnded,
    Deferred,
    Ended,
    Event,
    Expired,
    NotPlaced,
    Phase,
    Placed,
    Progressed,
    ProofMissing,
    Proven,
    Reason,
)
from scheduler.domain.call import (
    Accepted,
    AnsweredBy,
    AnswerUnknown,
    CallNews,
    CallStatus,
    CarrierAnswer,
    ListedCall,
    NeverTaken,
    NumberRefused,
    Rank,
)
from scheduler.domain.company import CompanySettings
from scheduler.domain.refusals import (
    ConsentExpired,
    NoCommonOpening,
    NoOpeningBeforeExpiry,
    OffsetMustMatchNumber,
    OutsideCallTimeInterval,
    ScheduleInPast,
    ScheduleTooFar,
    TimezoneUnknown,
)
from scheduler.domain.schedule import CalleeClock, Schedule, ScheduleWarning, TimezoneSource
from scheduler.lifecycle import policy as times
from scheduler.lifecycle.policy import Policy
from scheduler.timing import call_windows, callee_zones, requested_time
from scheduler.timing.callee_zones import CalleeNumber

_SHORTEST_COMMON_OPENING = timedelta(minutes=60)
_NO_OPENING_DELAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Callee:
    """All that decides when one person may be called."""

    number: CalleeNumber | None
    timezone: str | None
    consent_until: date
    settings: CompanySettings


# ---- submit: what somebody asked for


def on_request(
    text: str | None, callee: Callee, received_at: datetime, policy: Policy
) -> tuple[Schedule, tuple[ScheduleWarning, ...]]:
    """When the call that was asked for is due, judged as of `received_at`.

    Raises the refusal whose name says why not: a text that is no date, the past, too far ahead, a shut window, no
    clock, no common opening, a consent that is over by then.
    """
    requested = requested_time.read(text) if text is not None else None
    clock = callee_zones.deciding_clock(
        requested,
        candidate_zone=callee.timezone,
        number=callee.number,
        company_zone=callee.settings.timezone,
    )
    _must_have_common_opening(clock, callee.settings, received_at)
    if requested is None:
        due_at = call_windows.next_open(clock, callee.settings.intervals, received_at, room=policy.room)
        if due_at is None:
            raise NoOpeningBeforeExpiry(_NO_LONG_ENOUGH_OPENING.format(seconds=int(policy.room.total_seconds())))
    else:
        due_at = _explicit(call_windows.resolve(requested, clock), clock, callee.settings, received_at, policy)
    _must_consent(clock, callee.consent_until, due_at)
    warnings = _offset_warning(clock, callee, due_at)
    schedule = Schedule(requested=text, clock=clock, due_at=due_at, tzdata_version=callee_zones.TZDATA_VERSION)
    return schedule, warnings


_NO_LONG_ENOUGH_OPENING = "No opening is as long as the {seconds} s that a call needs to ring."


def _must_have_common_opening(clock: CalleeClock, settings: CompanySettings, now: datetime) -> None:
    if len(clock.zones) < 2:  # noqa: PLR2004 - one zone always agrees with itself
        return
    if call_windows.common_minutes(clock, settings.intervals, now) < _SHORTEST_COMMON_OPENING:
        zones = ", ".join(clock.zones)
        raise NoCommonOpening(
            f"The number may be in any of these time zones, and they are open together for less than an hour in the"
            f" next 7 days: {zones}. Set the candidate's timezone.",
            zones=list(clock.zones),
        )


def _explicit(
    due_at: datetime, clock: CalleeClock, settings: CompanySettings, now: datetime, policy: Policy
) -> datetime:
    if due_at < now - times.PAST_ALLOWANCE:
        raise ScheduleInPast(
            f"{_utc_text(due_at)} lies {_span_text(now - due_at)} in the past. Send a later time, or none at all for"
            " as soon as allowed.",
            scheduledAt=_utc_text(due_at),
            receivedAt=_utc_text(now),
        )
    if due_at > now + times.MAX_AHEAD:
        raise ScheduleTooFar(
            f"{_utc_text(due_at)} lies more than 30 days ahead. The latest time now is"
            f" {_utc_text(now + times.MAX_AHEAD)}.",
            scheduledAt=_utc_text(due_at),
            latest=_utc_text(now + times.MAX_AHEAD),
        )
    due_at = max(due_at, now)
    if call_windows.is_open(clock, settings.intervals, due_at, room=policy.room):
        return due_at
    next_at = call_windows.next_open(clock, settings.intervals, due_at, room=policy.room)
    closing = call_windows.is_open(clock, settings.intervals, due_at)
    local = call_windows.local_times(clock, due_at)[0]
    where = _clock_text(clock)
    why = "too close to closing to ring" if closing else "outside the hours in which this person may be called"
    raise OutsideCallTimeInterval(
        f"{local:%Y-%m-%d %H:%M} on the callee's clock ({where}) is {why}."
        + (f" The next allowed time is {_utc_text(next_at)}." if next_at else ""),
        localTime=local.isoformat(timespec="seconds"),
        timezone=where,
        timezoneSource=clock.source.value,
        callTimeIntervals=call_windows.intervals_as_json(settings.intervals),
        nextAllowedAt=_utc_text(next_at) if next_at else None,
        reason="CLOSING" if closing else "CLOSED",
    )


def _must_consent(clock: CalleeClock, until: date, instant: datetime) -> None:
    if consent_is_over(clock, until, instant):
        raise ConsentExpired(
            f"The candidate's consent ends with {until.isoformat()} on the callee's clock, before the call would be"
            " due. Renew gdprExpiryDate or choose an earlier time.",
            gdprExpiryDate=until.isoformat(),
        )


def consent_is_over(clock: CalleeClock, until: date, instant: datetime) -> bool:
    """The last day of consent ends at midnight on the callee's clock; with several zones, on the earliest of them."""
    end = datetime.combine(until, time.min) + timedelta(days=1)
    return any(local >= end for local in call_windows.local_times(clock, instant))


def _offset_warning(clock: CalleeClock, callee: Callee, due_at: datetime) -> tuple[ScheduleWarning, ...]:
    if clock.source is not TimezoneSource.OFFSET or callee.number is None or not callee.number.zones:
        return ()
    own = CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=callee.number.zones)
    here = call_windows.local_times(clock, due_at)[0]
    if here in call_windows.local_times(own, due_at):
        return ()
    if callee.settings.offset_must_match_number:
        raise OffsetMustMatchNumber(zones=list(callee.number.zones))
    return (ScheduleWarning.OFFSET_DIFFERS_FROM_PHONE_NUMBER,)


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


# ---- dial: the last look, and what the one POST brought


class GoAhead:
    """The one POST may be sent now."""


class NotMine:
    """Somebody else has the attempt's story now; whoever asked writes nothing and sends nothing."""


@dataclass(frozen=True, kw_only=True)
class LastLook:
    """What the database says right before the send, read by one query."""

    attempt: Attempt
    callee: Callee
    line_is_mine: bool
    """The line of the candidate's present number is held by this attempt."""
    command_waiting: bool
    paused: bool
    company_deleted: bool
    database_skew: timedelta
    """The database's clock less ours, offset left out."""


def on_last_look(look: LastLook, epoch: int, now: datetime, policy: Policy) -> GoAhead | NotMine | tuple[Event, ...]:
    """May it ring, this instant? Everything that the claim asked is asked again, and the window above all.

    Events instead of a yes put it back, or end it.
    """
    attempt = look.attempt
    if attempt.state is not AttemptState.IN_PROGRESS or attempt.epoch != epoch:
        return NotMine()
    if attempt.lease_until is None or attempt.lease_until <= now:
        return NotMine()  # the lapsed lease is settled, never sent
    soon = now + times.DEFERRED_DELAY
    for holds, cause in (
        (abs(look.database_skew) > times.MAX_CLOCK_SKEW, "CLOCK_SKEW"),
        (look.command_waiting, "COMMAND_WAITING"),
        (look.paused, "PAUSED"),
        (look.company_deleted, "COMPANY_DELETED"),
        (not look.line_is_mine, "NUMBER_CHANGED"),
    ):
        if holds:
            return (Deferred(due_at=soon, cause=cause),)
    if attempt.expires_at <= now:
        return (Deferred(due_at=soon, cause="EXPIRED"), Expired())
    clocks = deciding_clocks(attempt, look.callee)
    try:
        consent_over = any(consent_is_over(clock, look.callee.consent_until, now) for clock in clocks)
    except TimezoneUnknown:  # since it was scheduled; held, never placed
        return (Deferred(due_at=now + _NO_OPENING_DELAY, cause="TIMEZONE_UNKNOWN"),)
    if consent_over:
        return (Deferred(due_at=soon, cause="CONSENT_EXPIRED"), ConsentEnded())
    if attempt.due_at > now:
        return (Deferred(due_at=attempt.due_at, cause="NOT_DUE"),)
    opening = next_opening(clocks, look.callee.settings, now, policy)
    if opening == now:
        return GoAhead()
    due_at = max(opening, soon) if opening else now + _NO_OPENING_DELAY
    return (Deferred(due_at=due_at, cause="WINDOW_CLOSED"),)


def deciding_clocks(attempt: Attempt, callee: Callee) -> tuple[CalleeClock, ...]:
    """The clocks that must be open when `attempt` rings.

    The chain keeps the clock that was decided for it. Where that was an offset and the chain has gone on to a retry,
    the number's own zones must be open too: nobody asked for that hour by its offset.
    """
    clock = attempt.schedule.clock
    moved_on = attempt.retry_number > 0
    if clock.offset is not None and moved_on and callee.number is not None and callee.number.zones:
        return (clock, CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=callee.number.zones))
    return (clock,)


def next_opening(
    clocks: Sequence[CalleeClock], settings: CompanySettings, now: datetime, policy: Policy
) -> datetime | None:
    """The first instant from `now` on at which all `clocks` are open with room to ring; None when there is none."""
    return call_windows.next_open(clocks, settings.intervals, now, room=policy.room)


def on_answer(answer: CarrierAnswer, now: datetime, policy: Policy) -> Event:
    """What the one POST's answer makes of the attempt."""
    match answer:
        case Accepted():
            look_at = now + answer.queue_time + policy.ring_timeout + times.POLL_AFTER_RING
            return Placed(call_sid=answer.call_sid, look_at=look_at)
        case NeverTaken():
            return NotPlaced(due_at=now + times.NOT_PLACED_DELAY, cause=answer.cause)
        case NumberRefused():
            return Ended(reason=Reason.INVALID_NUMBER, ended_at=now)
        case AnswerUnknown():
            return AnswerLost(look_at=now, cause=answer.cause)
    raise TypeError(f"no rule for {type(answer).__name__}")


# ---- hear: what the carrier says of a call


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Something that must never happen has; no call of that company is claimed until a person has looked."""

    cause: str


_REASON_OF = {
    CallStatus.BUSY: Reason.BUSY,
    CallStatus.NO_ANSWER: Reason.NO_ANSWER,
    CallStatus.CANCELLED: Reason.CANCELLED_AT_CARRIER,
}
_SIP_REASONS = {
    404: Reason.INVALID_NUMBER,
    410: Reason.INVALID_NUMBER,
    484: Reason.INVALID_NUMBER,
    604: Reason.INVALID_NUMBER,
    486: Reason.BUSY,
    600: Reason.BUSY,
    603: Reason.DECLINED,
    607: Reason.DECLINED,
}
"""RFC 3261 section 21 and RFC 8197: what a final response says of the number or of the person."""


def reason_of(news: CallNews) -> Reason:
    """How the call ended, from news that it is over."""
    if news.status is CallStatus.COMPLETED:
        machine = news.answered_by in {AnsweredBy.MACHINE, AnsweredBy.FAX}
        return Reason.VOICEMAIL if machine else Reason.ANSWERED
    if news.status is CallStatus.FAILED:
        return _SIP_REASONS.get(news.sip_code or 0, Reason.CARRIER_ERROR)
    return _REASON_OF[news.status]


def on_news(attempt: Attempt, news: CallNews, now: datetime, policy: Policy) -> tuple[Event, ...] | Alarm:
    """What the carrier's news make of the attempt; order and repetition do not matter.

    The events are to be taken one after the other. No event: the news are old, or known.
    """
    if news.token is not None and news.token != attempt.token:
        return Alarm(cause="NEWS_FOR_AN_OLD_TOKEN")
    if attempt.call_sid is not None and attempt.call_sid != news.call_sid:
        return Alarm(cause="TWO_CALLS_FOR_ONE_TOKEN")
    if attempt.state is AttemptState.PENDING:
        return Alarm(cause="NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED")
    if attempt.reason is Reason.OUTCOME_UNKNOWN:
        return _late_proof(attempt, news, now)
    if attempt.state is not AttemptState.IN_PROGRESS:
        return ()
    events: list[Event] = []
    if attempt.phase is not Phase.PLACED:
        look_at = now + policy.ring_timeout + times.POLL_AFTER_RING
        events.append(Placed(call_sid=news.call_sid, look_at=look_at))
    answered_by = news.answered_by or attempt.answered_by
    if news.rank is Rank.OVER:
        known = CallNews(call_sid=news.call_sid, status=news.status, answered_by=answered_by, sip_code=news.sip_code)
        events.append(Ended(reason=reason_of(known), ended_at=now, answered_by=answered_by, duration=news.duration))
    elif news.rank > attempt.heard_rank:
        events.append(Progressed(rank=news.rank, answered_by=news.answered_by))
    return tuple(events)


def _late_proof(attempt: Attempt, news: CallNews, now: datetime) -> tuple[Event, ...]:
    if news.rank is not Rank.OVER:
        return ()
    return (
        Proven(
            reason=reason_of(news),
            call_sid=news.call_sid,
            ended_at=now,
            answered_by=news.answered_by or attempt.answered_by,
            duration=news.duration,
        ),
    )


# ---- settle: when nobody says anything


def on_silence(attempt: Attempt, now: datetime) -> AnswerLost | None:
    """A lease that is over without a record: nobody knows whether the POST was sent."""
    if attempt.phase is not Phase.DIALLING or attempt.lease_until is None or attempt.lease_until > now:
        return None
    return AnswerLost(look_at=now, cause="LEASE_OVER")


def on_listing(
    attempt: Attempt, listed: Sequence[ListedCall], now: datetime, policy: Policy
) -> CallNews | ProofMissing | Alarm | None:
    """What the carrier's list says of an attempt whose answer was lost. None: go on asking.

    `listed` are the calls between its two numbers around its claim that no attempt has yet. One is the proof; that
    it is unique rests on one call per number. Two bind neither, and an empty list is no proof of anything: both end
    as an unknown outcome when the time for a proof is over.
    """
    if len(listed) == 1:
        return listed[0].news
    if attempt.unknown_at is not None and now >= attempt.unknown_at + policy.settle:
        return ProofMissing()
    return Alarm(cause="TWO_CALLS_TO_ONE_NUMBER") if listed else None


def next_look(attempt: Attempt, now: datetime) -> datetime:
    """When the carrier is asked again about an attempt, after it was asked now."""
    if attempt.phase is Phase.UNKNOWN:
        return now + times.ASK_EVERY
    return now + times.POLLS[min(attempt.looks, len(times.POLLS) - 1)]


def listing_span(attempt: Attempt, policy: Policy) -> tuple[datetime, datetime]:
    """Between which instants the carrier must have created the call, if it did."""
    assert attempt.claimed_at is not None
    return (
        attempt.claimed_at - times.LIST_MARGIN,
        attempt.claimed_at + policy.lease + times.LIST_MARGIN,
    )
