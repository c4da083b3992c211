"""Decisions: the due time of a requested call, the last look, and the events that follow from news."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain import attempt as events
from scheduler.domain.attempt import Attempt, AttemptState, Event, Phase, Reason
from scheduler.domain.call import (
    Accepted,
    AnsweredBy,
    AnswerUnknown,
    CalleeClock,
    CallNews,
    CallProgress,
    CallStatus,
    CarrierAnswer,
    FailureCause,
    ListedCall,
    NeverTaken,
    NumberRefused,
    Schedule,
    ScheduleWarning,
    TimezoneSource,
)
from scheduler.domain.company import CallTimeInterval, Weekday
from scheduler.domain.refusals import Refused
from scheduler.lifecycle import decisions, scheduling, settling
from scheduler.lifecycle.blocks import Line, Situation
from scheduler.lifecycle.breaker import Breaker
from scheduler.lifecycle.decisions import Alarm, AskTheCarrier, GoAhead, NotMine
from scheduler.lifecycle.policy import MAX_QUEUE, Policy
from scheduler.lifecycle.state_machine import evolve, has_live_leg, is_over
from scheduler.timing import callee_zones
from tests.architecture.guards import guards
from tests.conftest import NOON
from tests.lifecycle.lifecycle_setup import a_callee, daily, pending
from tests.support.builders import ALWAYS

POLICY = Policy(short_call=timedelta())
READS_NOTIFICATIONS = Policy()
A_SECOND = timedelta(seconds=1)
A_DAY = timedelta(days=1)
TOLL_FREE = callee_zones.read_number("+18004633339")


def asked(text: str | None, *, now: datetime = NOON, **fields: Any) -> tuple[Schedule, tuple[ScheduleWarning, ...]]:
    return scheduling.on_request(text, a_callee(**fields), now, POLICY)


def refusal(text: str | None, *, now: datetime = NOON, **fields: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        asked(text, now=now, **fields)
    return refused.value


# ---- requested times


def test_no_time_within_the_window_is_now() -> None:
    assert asked(None)[0].due_at == NOON


def test_no_time_outside_the_window_is_the_next_opening() -> None:
    assert asked(None, now=NOON.replace(hour=19))[0].due_at == NOON.replace(day=3, hour=6)


def test_next_opening_is_never_in_the_last_seconds_of_a_window() -> None:
    closing = NOON.replace(hour=18) - POLICY.room
    assert asked(None, now=closing - A_SECOND)[0].due_at == closing - A_SECOND
    assert asked(None, now=closing)[0].due_at == NOON.replace(day=3, hour=6)


@pytest.mark.parametrize(
    ("text", "due_at"),
    [
        pytest.param("2026-04-02T15:00:00", NOON.replace(hour=13), id="on the callee's clock"),
        pytest.param("2026-04-02T13:00:00Z", NOON.replace(hour=13), id="as an instant"),
        pytest.param("2026-04-02T15:00:00+02:00", NOON.replace(hour=13), id="with its offset"),
        pytest.param("2026-04-02T11:59:01Z", NOON, id="less than a minute ago means now"),
        pytest.param("2026-04-02T11:59:00Z", NOON, id="a minute ago means now"),
        pytest.param("2026-05-02T12:00:00Z", NOON + timedelta(days=30), id="in thirty days"),
    ],
)
def test_a_time_that_is_allowed_is_when_it_is_due(text: str, due_at: datetime) -> None:
    schedule, warnings = asked(text)
    assert (schedule.due_at, schedule.requested, warnings) == (due_at, text, ())


CLOSES = "2026-04-02T20:00:00"


REFUSED = {
    "no date": ("soon", {}, "INVALID_DATE_FORMAT"),
    "more than a minute ago": ("2026-04-02T11:58:59Z", {}, "SCHEDULE_IN_PAST"),
    "more than thirty days ahead": ("2026-05-02T12:00:01Z", {}, "SCHEDULE_TOO_FAR"),
    "before opening": ("2026-04-03T07:59:59", {}, "OUTSIDE_CALL_TIME_INTERVAL"),
    "at closing": (CLOSES, {}, "OUTSIDE_CALL_TIME_INTERVAL"),
    "no clock at all": ("2026-04-02T15:00:00", {"number": None}, "TIMEZONE_UNKNOWN"),
    "never open together": (None, {"number": TOLL_FREE, "intervals": daily("09:00", "10:00")}, "NO_COMMON_OPENING"),
    "on too many clocks": ("2026-04-02T15:00:00", {"number": TOLL_FREE}, "TIMEZONE_AMBIGUOUS"),
    "too short to ring": (None, {"intervals": daily("09:00", "09:00:35")}, "NO_OPENING_BEFORE_EXPIRY"),
    "consent is over": ("2026-04-02T15:00:00", {"consent_until": date(2026, 4, 1)}, "CONSENT_EXPIRED"),
    "an offset that the number lacks": (
        "2026-04-03T09:00:00+10:30",
        {"offset_must_match_number": True},
        "OFFSET_DIFFERS_FROM_PHONE_NUMBER",
    ),
}


@pytest.mark.parametrize(("text", "fields", "code"), REFUSED.values(), ids=REFUSED)
def test_a_time_that_is_not_allowed_is_refused_as(text: str | None, fields: dict[str, Any], code: str) -> None:
    assert refusal(text, **fields).code == code


def test_outside_says_when_it_is_allowed_next_and_on_whose_clock() -> None:
    details = refusal("2026-04-03T03:00:00").details
    assert details["nextAllowedAt"] == "2026-04-03T06:00:00Z"
    assert (details["timezone"], details["timezoneSource"]) == ("Europe/Bratislava", "PHONE_NUMBER")
    assert (details["localTime"], details["reason"]) == ("2026-04-03T03:00:00", "CLOSED")


AUSTRALIAN_MOBILE = callee_zones.read_number("+61412345678")


def test_outside_lists_the_local_time_of_each_zone() -> None:
    refused = refusal("2026-04-02T21:30:00Z", number=AUSTRALIAN_MOBILE)
    assert refused.details["timezone"].split(", ") == list(AUSTRALIAN_MOBILE.zones)
    assert refused.details["localTime"] == (
        "2026-04-03T08:00:00, 2026-04-03T07:30:00, 2026-04-03T07:00:00, 2026-04-03T08:30:00, 2026-04-03T05:30:00"
    ), "Adelaide, Brisbane, Darwin, Hobart, Perth: each distinct time once, in the order of the zones"
    assert refused.message.startswith("2026-04-03 05:30 to 2026-04-03 08:30 on the callee's clock")


@pytest.mark.parametrize(
    ("text", "next_text"),
    [
        pytest.param("2026-04-03T21:00:00+05:30", "2026-04-04T08:00:00+05:30", id="an offset"),
        pytest.param("2026-04-03T21:00:00Z", "2026-04-04T06:00:00Z", id="an instant"),
        pytest.param("2026-04-03T21:00:00", "2026-04-04T08:00:00", id="a wall time"),
        pytest.param("2026-04-03T21:00[Asia/Tokyo]", "2026-04-04T08:00:00[Asia/Tokyo]", id="a zone"),
        pytest.param("2026-04-03T21:00+09:00[Asia/Tokyo]", "2026-04-04T08:00:00+09:00[Asia/Tokyo]", id="offset, zone"),
    ],
)
def test_next_allowed_time_is_accepted_when_it_is_sent_back(text: str, next_text: str) -> None:
    details = refusal(text).details
    assert details["nextAllowedScheduledAt"] == next_text
    schedule, _ = asked(details["nextAllowedScheduledAt"])
    assert schedule.due_at == datetime.fromisoformat(details["nextAllowedAt"])


def test_next_allowed_time_beyond_thirty_days_is_null() -> None:
    """Only Thursday mornings are open, and the next but four is more than 30 days ahead."""
    thursdays = (CallTimeInterval(days=frozenset({Weekday.THU}), start=timedelta(0), end=timedelta(hours=1)),)
    details = refusal("2026-05-01T10:00:00", intervals=thursdays).details
    assert details["nextAllowedAt"] == "2026-05-06T22:00:00Z"
    assert details["nextAllowedScheduledAt"] is None


def test_ambiguous_next_allowed_time_is_sent_with_its_offset() -> None:
    """Open from 02:00 to 02:30 in Berlin: the second 02:00 of 25 October is the next one."""
    half_an_hour = daily("02:00", "02:30")
    autumn = datetime(2026, 10, 24, 12, tzinfo=UTC)
    for text, again in (
        ("2026-10-25T02:45:00", "2026-10-25T01:00:00Z"),
        ("2026-10-25T02:45[Europe/Berlin]", "2026-10-25T02:00:00+01:00[Europe/Berlin]"),
    ):
        details = refusal(text, now=autumn, intervals=half_an_hour).details
        assert details["nextAllowedAt"] == "2026-10-25T01:00:00Z"
        assert details["nextAllowedScheduledAt"] == again
        assert asked(again, now=autumn, intervals=half_an_hour)[0].due_at == datetime(2026, 10, 25, 1, tzinfo=UTC)


def test_next_allowed_time_is_null_without_a_matching_offset() -> None:
    """On 29 March Bratislava's +01:00 ends, and the company accepts only the number's own offsets."""
    winter = datetime(2026, 3, 28, 12, tzinfo=UTC)
    details = refusal("2026-03-28T21:00:00+01:00", now=winter, offset_must_match_number=True).details
    assert (details["nextAllowedAt"], details["nextAllowedScheduledAt"]) == ("2026-03-29T07:00:00Z", None)


def test_offset_of_a_sparsely_populated_zone_fits_a_mobile() -> None:
    lord_howe = "2026-04-03T12:00:00+11:00"
    assert asked(lord_howe, number=AUSTRALIAN_MOBILE, offset_must_match_number=True)[1] == ()
    elsewhere = "2026-04-03T12:00:00+03:00"
    assert refusal(elsewhere, number=AUSTRALIAN_MOBILE, offset_must_match_number=True).code.startswith("OFFSET_DIFFERS")


def test_the_last_seconds_before_closing_count_as_outside() -> None:
    assert asked("2026-04-02T19:59:24")[0].due_at == NOON.replace(hour=17, minute=59, second=24)
    assert refusal("2026-04-02T19:59:25").details["reason"] == "CLOSING"


def test_the_company_s_clock_decides_where_nothing_else_does() -> None:
    schedule, _ = asked("2026-04-02T15:00:00", number=None, company_zone="Europe/London")
    assert (schedule.due_at, schedule.clock.source) == (NOON.replace(hour=14), TimezoneSource.COMPANY)


def test_an_offset_is_used_as_it_is_and_warned_of() -> None:
    schedule, warnings = asked("2026-04-02T19:00:00+00:00")
    assert schedule.due_at == NOON.replace(hour=19), "21:00 in Bratislava"
    assert warnings == (ScheduleWarning.OFFSET_DIFFERS_FROM_PHONE_NUMBER,)


def test_consent_ends_at_midnight_on_the_callees_clock() -> None:
    always = daily("00:00", "23:59:59.999999")
    last_day = date(2026, 4, 2)
    assert asked("2026-04-02T23:00:00", intervals=always, consent_until=last_day)
    assert refusal("2026-04-03T00:00:00", intervals=always, consent_until=last_day).code == "CONSENT_EXPIRED"


def test_with_several_zones_consent_ends_with_the_earliest() -> None:
    both = CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=("Asia/Tokyo", "Europe/London"))
    midnight_in_tokyo = datetime(2026, 4, 2, 15, 0, tzinfo=UTC)
    assert scheduling.consent_is_over(both, date(2026, 4, 2), midnight_in_tokyo)
    assert not scheduling.consent_is_over(both, date(2026, 4, 2), midnight_in_tokyo - A_SECOND)


# ---- the last look


def an_attempt(**fields: Any) -> Attempt:
    """Claimed at noon."""
    claim = {"claimed_at": NOON, "lease_until": NOON + POLICY.lease, "token": "mine", "epoch": 1}
    return pending(**({"state": AttemptState.IN_PROGRESS, "phase": Phase.DIALLING} | claim | fields))


def unknown() -> Attempt:
    return an_attempt(phase=Phase.UNKNOWN, lease_until=None, unknown_at=NOON, look_at=NOON)


def looked(attempt: Attempt | None = None, *, epoch: int = 1, now: datetime = NOON, **seen: Any) -> Any:
    usual: dict[str, Any] = {
        "attempt": attempt or an_attempt(),
        "callee": a_callee(),
        "line": Line(mine=True),
        "command_waiting": False,
        "account_paused": None,
        "company_paused": None,
        "company_deleted": False,
        "interview_over": False,
        "breaker": Breaker(),
        "database_skew": timedelta(0),
    }
    return decisions.on_last_look(Situation(**(usual | seen)), epoch, now, POLICY)


def test_attempt_may_ring_when_nothing_is_wrong() -> None:
    assert isinstance(looked(), GoAhead)


def leave_by(attempt: Attempt | None = None, **seen: Any) -> datetime:
    verdict = looked(attempt, **seen)
    assert isinstance(verdict, GoAhead)
    return verdict.leave_by


def test_call_leaves_before_closing_with_room_for_ringing() -> None:
    callee = a_callee(intervals=daily("13:00", "14:30"))  # 14:00 in Bratislava
    assert leave_by(an_attempt(lease_until=NOON + timedelta(hours=2)), callee=callee) == (
        NOON + timedelta(minutes=30) - POLICY.room - timedelta.resolution
    )


@pytest.mark.parametrize("end", ["lease_until", "expires_at"])
def test_call_leaves_before_its_lease_and_its_interview_end(end: str) -> None:
    ends = {"lease_until": NOON + timedelta(minutes=5), "expires_at": NOON + timedelta(minutes=5)}
    ends[end] = NOON + timedelta(minutes=1)
    assert leave_by(an_attempt(**ends)) == NOON + timedelta(minutes=1)


def test_call_leaves_before_the_last_day_of_consent_ends() -> None:
    midnight = datetime(2026, 4, 2, 22, 0, tzinfo=UTC)  # in Bratislava
    now = midnight - timedelta(milliseconds=100)
    callee = a_callee(intervals=ALWAYS, consent_until=date(2026, 4, 2))
    attempt = an_attempt(lease_until=now + timedelta(minutes=1))
    assert leave_by(attempt, now=now, callee=callee) == midnight


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        pytest.param({"database_skew": timedelta(seconds=2, microseconds=1)}, "CLOCK_SKEW", id="clocks differ"),
        pytest.param({"database_skew": -timedelta(seconds=3)}, "CLOCK_SKEW", id="the other way"),
        pytest.param({"command_waiting": True}, "COMMAND_WAITING", id="a command waits"),
        pytest.param({"refusal_waiting_since": NOON - A_SECOND}, "COMMAND_WAITING", id="a refusal waits"),
        pytest.param({"refusal_waiting_since": NOON + A_SECOND}, "COMMAND_WAITING", id="a refusal of the future"),
        pytest.param({"company_paused": "why"}, "COMPANY_PAUSED", id="the company is paused"),
        pytest.param({"account_paused": "why"}, "ACCOUNT_PAUSED", id="everything is paused"),
        pytest.param({"interview_over": True}, "INTERVIEW_OVER", id="the interview was deleted"),
        pytest.param({"breaker": Breaker(failures=5, down_until=NOON + A_SECOND)}, "CARRIER_DOWN", id="carrier down"),
        pytest.param({"company_deleted": True}, "COMPANY_DELETED", id="company deleted"),
        pytest.param({"line": Line(mine=False)}, "NUMBER_BUSY", id="another number's line"),
    ],
)
def test_attempt_is_deferred_for_five_seconds_when(seen: dict[str, Any], cause: str) -> None:
    assert looked(**seen) == (events.Deferred(due_at=NOON + timedelta(seconds=5), cause=cause),)


@pytest.mark.parametrize("skew", [timedelta(seconds=2), -timedelta(seconds=2)])
def test_clocks_may_differ_by_two_seconds(skew: timedelta) -> None:
    assert isinstance(looked(database_skew=skew), GoAhead)


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(an_attempt(epoch=2), id="another event has happened since"),
        pytest.param(an_attempt(state=AttemptState.PENDING, phase=None, lease_until=None), id="given back"),
        pytest.param(an_attempt(lease_until=NOON), id="the lease is over"),
        pytest.param(an_attempt(phase=Phase.PLACED, lease_until=None), id="placed already"),
    ],
)
def test_claim_is_no_longer_valid_when(attempt: Attempt) -> None:
    assert isinstance(looked(attempt), NotMine)


def test_attempt_that_expired_after_its_claim_ends() -> None:
    found = looked(an_attempt(expires_at=NOON))
    assert [type(event) for event in found] == [events.Deferred, events.Expired]


def test_attempt_whose_consent_is_over_ends() -> None:
    found = looked(callee=a_callee(consent_until=date(2026, 4, 1)))
    assert [type(event) for event in found] == [events.Deferred, events.ConsentEnded]


def test_moved_attempt_waits_for_its_new_time() -> None:
    assert looked(an_attempt(due_at=NOON + A_DAY)) == (events.Deferred(due_at=NOON + A_DAY, cause="NOT_DUE"),)


def test_a_shut_window_defers_to_the_next_opening_never_to_now() -> None:
    for opens, due_at in (("15:00", NOON.replace(hour=13)), ("14:00:01", NOON + timedelta(seconds=5))):
        seen = looked(callee=a_callee(intervals=daily(opens, "16:00")))
        assert seen == (events.Deferred(due_at=due_at, cause="WINDOW_CLOSED"),)


def test_a_window_that_closes_before_the_ringing_ends_is_shut() -> None:
    assert isinstance(looked(callee=a_callee(intervals=daily("13:00", "14:00:36"))), GoAhead)
    assert looked(callee=a_callee(intervals=daily("13:00", "14:00:35")))[0].cause == "WINDOW_CLOSED"


def test_a_window_that_never_opens_is_looked_at_again_tomorrow() -> None:
    assert looked(callee=a_callee(intervals=()))[0].due_at == NOON + A_DAY


def test_unknown_zone_defers_the_call_by_a_day() -> None:
    lost = a_callee(timezone="Atlantis/Poseidonis")
    assert looked(callee=lost) == (events.Deferred(due_at=NOON + A_DAY, cause="TIMEZONE_UNKNOWN"),)


TOKYO = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=9))
OFFSET = replace(pending().schedule, requested="2026-04-02T21:00:00+09:00", clock=TOKYO)


def test_retry_after_an_offset_must_also_suit_the_number() -> None:
    morning_there = a_callee(intervals=daily("20:00", "22:00"))
    first = an_attempt(schedule=OFFSET)
    assert isinstance(looked(first, callee=morning_there), GoAhead)
    retry = replace(first, retry_number=1, schedule=replace(OFFSET, requested=None))
    assert looked(retry, callee=morning_there)[0].cause == "WINDOW_CLOSED"


def test_retry_after_an_offset_rings_when_both_clocks_are_open() -> None:
    retry = an_attempt(schedule=replace(OFFSET, requested=None), retry_number=1)
    assert isinstance(looked(retry, callee=a_callee(intervals=daily("13:00", "22:00"))), GoAhead)


# ---- answers to the POST


ANSWERED = {
    "accepted": (
        Accepted(call_sid="CA1", queue_time=timedelta(seconds=3)),
        events.Placed(call_sid="CA1", look_at=NOON + timedelta(seconds=3 + 30 + 15)),
    ),
    "never taken": (
        NeverTaken(cause="THROTTLED"),
        events.NotPlaced(due_at=NOON + timedelta(seconds=5), cause="THROTTLED"),
    ),
    "number refused": (NumberRefused(cause="X"), events.Ended(reason=Reason.INVALID_NUMBER, ended_at=NOON)),
    "number unreachable": (
        NumberRefused(cause="X", may_be_outage=True),
        events.Ended(reason=Reason.UNREACHABLE, ended_at=NOON),
    ),
    "number blocked": (
        NeverTaken(cause="NUMBER_BLOCKED"),
        events.NotPlaced(due_at=NOON + timedelta(hours=1), cause="NUMBER_BLOCKED"),
    ),
    "unknown": (AnswerUnknown(cause="X"), events.AnswerLost(look_at=NOON, cause="X")),
}


@pytest.mark.parametrize(("answer", "event"), ANSWERED.values(), ids=ANSWERED)
def test_an_answer_becomes(answer: CarrierAnswer, event: Event) -> None:
    assert decisions.on_answer(an_attempt(), answer, None, NOON, POLICY) == (event,)


def test_an_answer_without_a_rule_is_an_error() -> None:
    with pytest.raises(TypeError, match="no rule"):
        decisions.on_answer(an_attempt(), CarrierAnswer(), None, NOON, POLICY)


# ---- news


def news(status: CallStatus, sid: str = "CA1", **fields: Any) -> CallNews:
    return CallNews(call_sid=sid, status=status, **({"token": "mine"} | fields))


def heard(attempt: Attempt, *told: CallNews) -> Attempt:
    """Compute the attempt after these news."""
    for each in told:
        found = decisions.on_news(attempt, each, a_callee(), NOON, POLICY)
        assert not isinstance(found, Alarm | AskTheCarrier), found
        for event in found:
            attempt = evolve(attempt, event, NOON)
    return attempt


BEGINNINGS = [CallStatus.QUEUED, CallStatus.DIALLED, CallStatus.RINGING, CallStatus.ANSWERED]
ENDINGS: list[tuple[CallStatus, dict[str, Any], Reason]] = [
    (CallStatus.COMPLETED, {"answered_by": AnsweredBy.PERSON, "duration": A_SECOND}, Reason.ANSWERED),
    (CallStatus.COMPLETED, {"answered_by": AnsweredBy.UNKNOWN, "duration": A_SECOND}, Reason.ANSWERED),
    (CallStatus.COMPLETED, {"duration": A_SECOND}, Reason.ANSWERED),
    (CallStatus.COMPLETED, {"answered_by": AnsweredBy.MACHINE}, Reason.VOICEMAIL),
    (CallStatus.COMPLETED, {"answered_by": AnsweredBy.FAX}, Reason.VOICEMAIL),
    (CallStatus.COMPLETED, {"instructions_failed": True, "duration": A_SECOND}, Reason.INSTRUCTIONS_FAILED),
    (CallStatus.BUSY, {}, Reason.BUSY),
    (CallStatus.NO_ANSWER, {}, Reason.NO_ANSWER),
    (CallStatus.CANCELLED, {}, Reason.CANCELLED_AT_CARRIER),
    (CallStatus.FAILED, {}, Reason.CARRIER_ERROR),
    (CallStatus.FAILED, {"sip_code": 503}, Reason.CARRIER_ERROR),
    (CallStatus.FAILED, {"sip_code": 404}, Reason.INVALID_NUMBER),
    (CallStatus.FAILED, {"sip_code": 410}, Reason.INVALID_NUMBER),
    (CallStatus.FAILED, {"sip_code": 484}, Reason.INVALID_NUMBER),
    (CallStatus.FAILED, {"sip_code": 604}, Reason.INVALID_NUMBER),
    (CallStatus.FAILED, {"sip_code": 486}, Reason.BUSY),
    (CallStatus.FAILED, {"sip_code": 600}, Reason.BUSY),
    (CallStatus.FAILED, {"sip_code": 603}, Reason.DECLINED),
    (CallStatus.FAILED, {"sip_code": 603, "to": "+421915123456"}, Reason.DECLINED),
    (CallStatus.FAILED, {"sip_code": 603, "to": "+12125550123"}, Reason.BLOCKED_BY_NETWORK),
    (CallStatus.FAILED, {"sip_code": 607}, Reason.BLOCKED_BY_NETWORK),
    (CallStatus.FAILED, {"sip_code": 608}, Reason.BLOCKED_BY_NETWORK),
    (CallStatus.BUSY, {"sip_code": 608}, Reason.BLOCKED_BY_NETWORK),
    (CallStatus.NO_ANSWER, {"sip_code": 487}, Reason.NO_ANSWER),
    # The SIP code and the cause that the carrier names decide together.
    (CallStatus.FAILED, {"cause": FailureCause.BLOCKED}, Reason.BLOCKED_BY_NETWORK),
    (CallStatus.FAILED, {"sip_code": 603, "cause": FailureCause.BLOCKED}, Reason.BLOCKED_BY_NETWORK),
    (CallStatus.FAILED, {"sip_code": 503, "cause": FailureCause.NUMBER}, Reason.INVALID_NUMBER),
    (CallStatus.FAILED, {"cause": FailureCause.UNREACHABLE}, Reason.UNREACHABLE),
    (CallStatus.FAILED, {"sip_code": 503, "cause": FailureCause.UNREACHABLE}, Reason.UNREACHABLE),
    (CallStatus.FAILED, {"sip_code": 404, "cause": FailureCause.UNREACHABLE}, Reason.INVALID_NUMBER),
    (CallStatus.FAILED, {"sip_code": 603, "cause": FailureCause.CARRIER}, Reason.DECLINED),
    (CallStatus.FAILED, {"cause": FailureCause.CARRIER}, Reason.CARRIER_ERROR),
]


@pytest.mark.parametrize(("status", "fields", "reason"), ENDINGS)
def test_a_call_ends_as(status: CallStatus, fields: dict[str, Any], reason: Reason) -> None:
    assert heard(an_attempt(), news(status, **fields)).reason is reason


FALLBACK = news(CallStatus.ANSWERED, instructions_failed=True)
"""The carrier requested our instructions, because the voice server gave none."""


@guards("instructions_failed")
@pytest.mark.parametrize("answered_by", [None, AnsweredBy.PERSON, AnsweredBy.MACHINE])
@pytest.mark.parametrize("start", [an_attempt(), evolve(unknown(), events.ProofMissing(), NOON)], ids=["live", "lost"])
def test_call_without_instructions_reached_no_person(start: Attempt, answered_by: AnsweredBy | None) -> None:
    over = news(CallStatus.COMPLETED, answered_by=answered_by, duration=A_SECOND)
    for told in ([FALLBACK], [news(CallStatus.ANSWERED), FALLBACK, FALLBACK]):
        assert heard(start, *told, over).reason is Reason.INSTRUCTIONS_FAILED


SHORT = news(CallStatus.COMPLETED, duration=READS_NOTIFICATIONS.short_call - A_SECOND)


def found_by(attempt: Attempt, told: CallNews) -> Any:
    return decisions.on_news(attempt, told, a_callee(), NOON, READS_NOTIFICATIONS)


@guards("short_call")
@pytest.mark.parametrize("told", [SHORT, replace(SHORT, duration=None)], ids=["short", "without a duration"])
def test_short_call_is_no_conversation_until_it_is_polled(told: CallNews) -> None:
    placed = evolve(an_attempt(), events.Placed(call_sid="CA1", look_at=NOON + A_SECOND), NOON)
    assert isinstance(found_by(placed, told), AskTheCarrier)
    for start in (an_attempt(), unknown()):
        assert found_by(start, told) == (events.Placed(call_sid="CA1", look_at=NOON),)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (replace(SHORT, instructions_failed=True), Reason.INSTRUCTIONS_FAILED),
        (replace(SHORT, instructions_failed=False), Reason.ANSWERED),
        (replace(SHORT, duration=READS_NOTIFICATIONS.short_call), Reason.ANSWERED),
        (replace(SHORT, answered_by=AnsweredBy.MACHINE), Reason.VOICEMAIL),
        (news(CallStatus.NO_ANSWER), Reason.NO_ANSWER),
    ],
)
def test_call_that_is_long_or_polled_ends_at_once(told: CallNews, reason: Reason) -> None:
    for start in (an_attempt(), unknown()):
        assert found_by(start, told)[-1].reason is reason
    [proven] = found_by(evolve(unknown(), events.ProofMissing(), NOON), told)
    assert (type(proven), proven.reason) == (events.Proven, reason)


def a_short_call_proven_late(told: CallNews = SHORT) -> Attempt:
    given_up = evolve(unknown(), events.ProofMissing(), NOON)
    [waits] = found_by(given_up, told)
    assert (type(waits), waits.look_at, waits.call_sid) == (events.VerdictAwaited, NOON, "CA1"), "no call is live"
    return evolve(given_up, waits, NOON)


@guards("late_short_call", "instructions_failed")
@pytest.mark.parametrize("duration", [SHORT.duration, None])
def test_short_call_proven_late_waits_for_its_notifications(duration: timedelta | None) -> None:
    told = replace(SHORT, duration=duration)
    waiting = a_short_call_proven_late(told)
    assert isinstance(found_by(waiting, told), AskTheCarrier)
    record = replace(SHORT, token=None)
    [proven] = found_by(waiting, replace(record, instructions_failed=True))
    assert (type(proven), proven.reason) == (events.Proven, Reason.INSTRUCTIONS_FAILED)
    for polled in (
        replace(record, instructions_failed=False),
        replace(record, duration=READS_NOTIFICATIONS.short_call),
    ):
        [proven] = found_by(waiting, polled)
        assert (type(proven), proven.reason, proven.ended_at) == (events.Proven, Reason.ANSWERED, NOON)


def test_fallback_ends_the_wait_for_notifications() -> None:
    [proven] = found_by(a_short_call_proven_late(), FALLBACK)
    assert proven.reason is Reason.INSTRUCTIONS_FAILED


def test_short_call_without_notifications_is_given_up_again() -> None:
    waiting = a_short_call_proven_late()
    over = MAX_QUEUE + READS_NOTIFICATIONS.ring_timeout + READS_NOTIFICATIONS.max_call
    assert waiting.claimed_at is not None
    for after, event in ((over - A_SECOND, None), (over, events.ProofMissing())):
        assert settling.on_no_answer(waiting, waiting.claimed_at + after, READS_NOTIFICATIONS) == event
    again = evolve(waiting, events.ProofMissing(), NOON)
    assert (again.reason, has_live_leg(again)) == (Reason.OUTCOME_UNKNOWN, False)


def test_no_call_is_polled_without_a_span_of_short_calls() -> None:
    """Also one whose duration the carrier does not report."""
    for told in (SHORT, replace(SHORT, duration=None)):
        assert heard(an_attempt(), told).reason is Reason.ANSWERED


def test_short_call_whose_fallback_was_heard_ends_at_once() -> None:
    assert found_by(heard(an_attempt(), FALLBACK), SHORT)[-1].reason is Reason.INSTRUCTIONS_FAILED


def test_fallback_after_the_end_changes_nothing() -> None:
    over = heard(an_attempt(), news(CallStatus.COMPLETED, duration=A_SECOND))
    assert heard(over, FALLBACK) == over


def test_fallback_does_not_replace_an_end_without_an_answer() -> None:
    """Only an answered call gets instructions, so a call that was busy had none to lose."""
    assert heard(an_attempt(), FALLBACK, news(CallStatus.BUSY)).reason is Reason.BUSY


@st.composite
def tellings(draw: st.DrawFn) -> tuple[list[CallNews], list[CallNews]]:
    """Draw the news of one valid call, and the same news in another order with repetitions."""
    status, fields, _ = draw(st.sampled_from(ENDINGS))
    lived = BEGINNINGS if status is CallStatus.COMPLETED else BEGINNINGS[:3]
    trace = [news(each) for each in lived if draw(st.booleans())] + [news(status, **fields)]
    again = trace + draw(st.lists(st.sampled_from(trace), max_size=4))
    return trace, draw(st.permutations(again))


RINGING, BUSY = (heard(an_attempt(), news(status)) for status in (CallStatus.RINGING, CallStatus.BUSY))
SECOND_CALL = news(CallStatus.RINGING, sid="CA2")
STARTS = [
    pytest.param(an_attempt(), id="not yet recorded"),
    pytest.param(evolve(an_attempt(), events.Placed(call_sid="CA1", look_at=NOON), NOON), id="placed"),
    pytest.param(unknown(), id="unknown"),
    pytest.param(evolve(unknown(), events.ProofMissing(), NOON), id="given up"),
]


@pytest.mark.parametrize("start", STARTS)
@given(telling=tellings())
def test_repeated_news_in_any_order_has_one_outcome(
    start: Attempt, telling: tuple[list[CallNews], list[CallNews]]
) -> None:
    in_order, otherwise = (heard(start, *told) for told in telling)
    assert is_over(in_order)
    assert in_order.reason is not Reason.OUTCOME_UNKNOWN
    assert replace(in_order, epoch=0) == replace(otherwise, epoch=0)
    assert in_order.call_sid == "CA1"
    assert in_order.heard_rank is CallProgress.OVER


@given(told=st.lists(st.sampled_from([news(status) for status in BEGINNINGS])))
def test_before_the_end_the_furthest_news_count(told: list[CallNews]) -> None:
    after = heard(an_attempt(), *told)
    assert after.state is AttemptState.IN_PROGRESS
    assert after.heard_rank == max((each.rank for each in told), default=CallProgress.NOTHING)


def test_old_news_change_nothing() -> None:
    for status in (CallStatus.DIALLED, CallStatus.RINGING):
        assert decisions.on_news(RINGING, news(status), None, NOON, POLICY) == ()


def test_first_of_two_ends_counts() -> None:
    assert heard(an_attempt(), news(CallStatus.BUSY), news(CallStatus.COMPLETED)).reason is Reason.BUSY


def test_who_answered_is_remembered_until_the_end() -> None:
    told = [news(CallStatus.ANSWERED, answered_by=AnsweredBy.MACHINE), news(CallStatus.COMPLETED)]
    assert heard(an_attempt(), *told).reason is Reason.VOICEMAIL


def test_an_unknown_outcome_is_proven_by_an_end_alone() -> None:
    given_up = evolve(unknown(), events.ProofMissing(), NOON)
    seen = heard(given_up, *(news(each) for each in BEGINNINGS))
    assert (seen.state, seen.reason) == (AttemptState.FAILED, Reason.OUTCOME_UNKNOWN)
    assert has_live_leg(seen)
    assert not has_live_leg(heard(seen, news(CallStatus.COMPLETED)))
    assert heard(given_up, news(CallStatus.COMPLETED)).state is AttemptState.COMPLETED


ALARMING = {
    "an old token": (an_attempt(), news(CallStatus.RINGING, token="an old one"), "NEWS_FOR_AN_OLD_TOKEN"),
    "a second call": (RINGING, SECOND_CALL, "TWO_CALLS_FOR_ONE_TOKEN"),
    "a second call after the end": (BUSY, SECOND_CALL, "TWO_CALLS_FOR_ONE_TOKEN"),
    "a call that was never accepted": (
        evolve(an_attempt(), events.NotPlaced(due_at=NOON, cause="X"), NOON),
        news(CallStatus.RINGING),
        "NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED",
    ),
}


@pytest.mark.parametrize(("attempt", "told", "cause"), ALARMING.values(), ids=ALARMING)
def test_it_is_an_alarm(attempt: Attempt, told: CallNews, cause: str) -> None:
    alarm = decisions.on_news(attempt, told, None, NOON, POLICY)
    assert isinstance(alarm, Alarm)
    assert (alarm.cause, alarm.stray_sid) == (cause, told.call_sid), "the unanswered call is ended"


@pytest.mark.parametrize(
    ("status", "live"), [(CallStatus.RINGING, ()), (CallStatus.ANSWERED, ("CA2",)), (CallStatus.COMPLETED, ())]
)
def test_answered_second_call_is_named_for_tracking(status: CallStatus, live: Sequence[str]) -> None:
    for attempt in (RINGING, BUSY):
        alarm = decisions.on_news(attempt, news(status, sid="CA2"), None, NOON, POLICY)
        assert isinstance(alarm, Alarm)
        assert alarm.live_sids == live


def test_polled_news_without_a_token_raises_no_alarm() -> None:
    assert heard(an_attempt(), news(CallStatus.RINGING, token=None)).phase is Phase.PLACED


# ---- silence


def test_a_lapsed_lease_is_an_answer_lost() -> None:
    assert settling.on_lapsed_lease(an_attempt(lease_until=NOON), NOON) == events.AnswerLost(
        look_at=NOON, cause="LEASE_OVER"
    )


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(an_attempt(lease_until=NOON + A_SECOND), id="a valid lease"),
        pytest.param(an_attempt(phase=Phase.PLACED, lease_until=None), id="placed"),
        pytest.param(unknown(), id="unknown already"),
    ],
)
def test_lease_does_not_lapse_for(attempt: Attempt) -> None:
    assert settling.on_lapsed_lease(attempt, NOON) is None


def listed(*sids: str) -> Sequence[ListedCall]:
    return [ListedCall(news=news(CallStatus.RINGING, sid=sid, token=None), created_at=NOON) for sid in sids]


@pytest.mark.parametrize("late", [timedelta(0), POLICY.settle, A_DAY], ids=["at once", "at the last", "late"])
def test_one_call_on_the_list_is_the_proof(late: timedelta) -> None:
    assert settling.on_listing(unknown(), listed("CA1"), NOON + late, POLICY) == listed("CA1")[0].news


def test_two_calls_on_the_list_are_an_alarm_and_never_a_proof() -> None:
    two, alarm = listed("CA1", "CA2"), Alarm(cause="TWO_CALLS_TO_ONE_NUMBER", stray_sid="CA1")
    assert settling.on_listing(unknown(), two, NOON, POLICY) == alarm, "the list names the newer call first"
    assert isinstance(settling.on_listing(unknown(), two, NOON + POLICY.settle, POLICY), events.ProofMissing)


def test_answered_calls_of_two_in_the_list_are_tracked() -> None:
    answered = ListedCall(news=news(CallStatus.ANSWERED, sid="CA2", token=None), created_at=NOON)
    alarm = settling.on_listing(unknown(), [*listed("CA1"), answered], NOON, POLICY)
    assert alarm == Alarm(cause="TWO_CALLS_TO_ONE_NUMBER", stray_sid="CA1", live_sids=("CA2",))


def test_empty_list_is_no_proof_before_the_settle_time() -> None:
    too_soon = NOON + POLICY.settle - timedelta(microseconds=1)
    assert settling.on_listing(unknown(), (), NOON, POLICY) is None
    assert settling.on_listing(unknown(), (), too_soon, POLICY) is None
    missing = settling.on_listing(unknown(), (), NOON + POLICY.settle, POLICY)
    assert missing == events.ProofMissing(search_at=NOON + POLICY.settle + timedelta(seconds=30))


LISTABLE = POLICY.lease + timedelta(seconds=5)
"""Time after the claim at which the claim can no longer create a call."""
HUNG_UP = POLICY.lease + POLICY.room + POLICY.max_call
A_MOMENT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("listed_after", "asked_after", "is_given_up"),
    [
        pytest.param(None, POLICY.settle, False, id="never listed", marks=guards("answered")),
        pytest.param(None, HUNG_UP - A_MOMENT, False, id="it may still talk", marks=guards("answered")),
        pytest.param(None, HUNG_UP, True, id="it must have been hung up"),
        pytest.param(
            LISTABLE - A_MOMENT,
            POLICY.settle,
            False,
            id="listed too early",
            marks=guards("answered", "listed_after_lease"),
        ),
        pytest.param(LISTABLE, POLICY.settle, True, id="listed once the lease had ended"),
        pytest.param(LISTABLE, POLICY.settle - A_MOMENT, False, id="a call may be listed late"),
    ],
)
def test_verdict_without_an_answer_needs_an_earlier_list(
    listed_after: timedelta | None, asked_after: timedelta, is_given_up: bool
) -> None:
    attempt = replace(unknown(), listed_at=None if listed_after is None else NOON + listed_after)
    missing = settling.on_no_answer(attempt, NOON + asked_after, POLICY)
    assert isinstance(missing, events.ProofMissing) is is_given_up


def test_list_asked_for_before_the_lease_ended_is_no_verdict() -> None:
    hasty = replace(POLICY, lease=timedelta(seconds=20), settle=timedelta(seconds=21))
    assert settling.on_listing(unknown(), (), NOON + timedelta(seconds=24), hasty) is None
    assert isinstance(settling.on_listing(unknown(), (), NOON + timedelta(seconds=25), hasty), events.ProofMissing)


def test_searches_grow_rarer_until_the_call_must_be_over() -> None:
    given_up, now = evolve(unknown(), events.ProofMissing(search_at=NOON), NOON), NOON + POLICY.settle
    waits = []
    while (then := settling.next_search(given_up, (), now, POLICY)) is not None:
        waits.append(then - now)
        now = then
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (timedelta(seconds=30), timedelta(minutes=10))
    assert now >= NOON + POLICY.lease + MAX_QUEUE + POLICY.ring_timeout + POLICY.max_call


def test_search_ends_when_two_calls_match_that_are_both_over() -> None:
    given_up = evolve(unknown(), events.ProofMissing(search_at=NOON), NOON)
    over = [replace(each, news=replace(each.news, status=CallStatus.BUSY)) for each in listed("CA1", "CA2")]
    assert settling.next_search(given_up, over, NOON + POLICY.settle, POLICY) is None
    one_lives = [over[0], *listed("CA2")]
    assert settling.next_search(given_up, one_lives, NOON + POLICY.settle, POLICY) is not None


def test_search_binds_one_call_and_never_one_of_two() -> None:
    assert settling.on_search(()) is None
    assert settling.on_search(listed("CA1")) == listed("CA1")[0].news
    assert settling.on_search(listed("CA1", "CA2")) == Alarm(cause="TWO_CALLS_TO_ONE_NUMBER", stray_sid="CA1")


def test_listing_span_covers_claim_and_lease_with_a_margin() -> None:
    margin = timedelta(seconds=5)
    assert settling.listing_span(unknown(), POLICY) == (NOON - margin, NOON + POLICY.lease + margin)


def test_polls_grow_rarer_and_the_last_repeats() -> None:
    placed = an_attempt(phase=Phase.PLACED, lease_until=None, look_at=NOON)
    minutes = [
        (settling.next_poll_at(replace(placed, looks=looks), NOON) - NOON) / timedelta(minutes=1) for looks in range(6)
    ]
    assert minutes == [1, 2, 5, 10, 10, 10]
    assert settling.next_poll_at(unknown(), NOON) == NOON + timedelta(seconds=10)
