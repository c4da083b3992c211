"""The circuit breaker: when it stops calling, probes the carrier and allows a trial call."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, NeverTaken, NumberRefused
from scheduler.lifecycle import breaker
from scheduler.lifecycle.breaker import BACK_OFF, OPENS_AFTER, Breaker

NOON = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
A_MOMENT = timedelta(microseconds=1)


def after(failures: int, *, cause: str = "NEVER_CONNECTED") -> Breaker:
    """Build a breaker after some consecutive failures at the same instant."""
    judged = Breaker()
    for _ in range(failures):
        judged = breaker.after_failure(judged, cause, NOON)
    return judged


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        pytest.param(NeverTaken(cause="NEVER_CONNECTED"), "NEVER_CONNECTED", id="never connected"),
        pytest.param(NeverTaken(cause="THROTTLED"), "THROTTLED", id="throttled"),
        pytest.param(AnswerUnknown(cause="HTTP_503"), "HTTP_503", id="unknown answer"),
        pytest.param(NeverTaken(cause="NOT_SENT"), None, id="not sent: not the carrier's fault"),
        pytest.param(Accepted(call_sid="CA1"), None, id="taken"),
        pytest.param(NumberRefused(cause="X"), None, id="refused for its number: the carrier works"),
        pytest.param(NeverTaken(cause="CALLER_REFUSED"), None, id="one company's caller id stops no other company"),
    ],
)
def test_answer_counts_as_a_carrier_failure_or_does_not(answer: CarrierAnswer, cause: str | None) -> None:
    assert breaker.cause_of(answer) == cause


@pytest.mark.parametrize(
    ("answer", "works"),
    [
        (Accepted(call_sid="CA1"), True),
        (NumberRefused(cause="X"), True),
        (NeverTaken(cause="CALLER_REFUSED"), True),
        (NeverTaken(cause="ORDER_REFUSED"), True),
        (NeverTaken(cause="NEVER_CONNECTED"), False),
        (NeverTaken(cause="CREDENTIALS"), False),
        (NeverTaken(cause="NOT_SENT"), False),
        (AnswerUnknown(cause="HTTP_503"), False),
    ],
    ids=str,
)
def test_a_carrier_that_decides_about_a_call_works(answer: CarrierAnswer, works: bool) -> None:
    assert breaker.shows_that_it_works(answer) is works


def test_few_failures_without_a_lost_call_stop_nothing() -> None:
    judged = after(OPENS_AFTER - 1)
    assert not judged.is_down
    assert not judged.is_on_trial


@pytest.mark.parametrize("cause", ["HTTP_500", "HTTP_503", "NO_ANSWER_IN_TIME", "ANSWER_BROKE_OFF"])
def test_first_call_that_may_be_lost_opens_the_breaker(cause: str) -> None:
    judged = breaker.after_failure(Breaker(), cause, NOON)
    assert judged.is_down
    assert judged.down_until == NOON + BACK_OFF[0]
    assert judged.cause == cause


@pytest.mark.parametrize("cause", ["HTTP_400", "HTTP_302", "CREATED_WITHOUT_A_NAME", "THROTTLED", "QUEUE_FULL"])
def test_single_minor_failure_does_not_open_the_breaker(cause: str) -> None:
    assert not breaker.after_failure(Breaker(), cause, NOON).is_down
    assert after(OPENS_AFTER, cause=cause).is_down


def test_fifth_failure_opens_the_breaker_and_probes_after_5_s() -> None:
    judged = after(OPENS_AFTER)
    assert judged.down_until == NOON + timedelta(seconds=5)
    assert not judged.is_to_be_asked(NOON + timedelta(seconds=5) - A_MOMENT)
    assert judged.is_to_be_asked(NOON + timedelta(seconds=5))
    assert judged.is_down, "it stays open until the probe is answered"
    assert not judged.is_on_trial


def test_a_carrier_that_takes_calls_is_not_asked() -> None:
    assert not Breaker().is_to_be_asked(NOON)
    assert not after(OPENS_AFTER - 1).is_to_be_asked(NOON)


def test_successful_probe_allows_one_trial_call() -> None:
    judged = after_a_good_answer(after(OPENS_AFTER), NOON + timedelta(seconds=5))
    assert judged.is_on_trial
    assert not judged.is_down
    assert not judged.is_to_be_asked(NOON + timedelta(days=1))


def test_each_failed_probe_extends_the_wait_to_five_minutes() -> None:
    judged, waits = after(OPENS_AFTER), []
    for _ in range(5):
        assert judged.down_until is not None
        now = judged.down_until
        judged = breaker.while_asked(judged, now)
        assert judged.is_down
        assert judged.down_until is not None
        assert not judged.is_to_be_asked(now), "only one worker probes"
        waits.append(judged.down_until - now)
    assert waits == [*BACK_OFF[1:], timedelta(minutes=5), timedelta(minutes=5)]


def test_each_failed_trial_call_extends_the_next_wait() -> None:
    waits, judged, now = [], after(OPENS_AFTER, cause="HTTP_503"), NOON
    for _ in range(len(BACK_OFF) + 2):
        assert judged.down_until is not None
        waits.append(judged.down_until - now)
        now = judged.down_until
        judged = breaker.after_failure(after_a_good_answer(judged, now), "HTTP_503", now)
        assert judged.is_down
    assert waits == [*BACK_OFF, timedelta(minutes=5), timedelta(minutes=5)]


def test_answer_from_before_a_new_outage_no_longer_counts() -> None:
    judged = after_a_good_answer(after(OPENS_AFTER), NOON)
    assert replace(judged, down_until=NOON + A_MOMENT).is_down, "written like this by a worker of the previous release"


def test_wait_from_a_clock_that_was_set_back_is_over() -> None:
    judged = after(OPENS_AFTER)
    assert judged.is_to_be_asked(NOON - timedelta(days=1))
    assert judged.is_down


def after_a_good_answer(judged: Breaker, now: datetime) -> Breaker:
    asked = breaker.while_asked(judged, now)
    assert asked != judged
    return breaker.after_answer(judged, now)


def test_failure_of_a_call_before_the_opening_is_ignored() -> None:
    judged = after(OPENS_AFTER)
    for _ in range(50):
        assert breaker.after_failure(judged, "NEVER_CONNECTED", NOON + timedelta(seconds=1)) == judged


@pytest.mark.parametrize("cause", sorted(breaker.NEEDS_A_PERSON))
def test_fault_that_needs_a_person_opens_the_breaker_at_once(cause: str) -> None:
    judged = breaker.after_failure(Breaker(), cause, NOON)
    assert judged.is_down
    assert judged.cause == cause


def test_an_attempt_waits_longer_each_time_it_was_not_taken() -> None:
    waits = [breaker.not_placed_delay(times) for times in range(6)]
    assert waits == [*BACK_OFF, timedelta(minutes=5), timedelta(minutes=5)]


def test_failed_probes_extend_no_wait_after_an_answered_probe() -> None:
    judged, now = after(OPENS_AFTER), NOON
    for _ in range(20):  # an outage of more than an hour
        assert judged.down_until is not None
        now = judged.down_until
        judged = breaker.while_asked(judged, now)
    answered = breaker.after_answer(judged, now)
    failed = breaker.after_failure(answered, "HTTP_503", now)
    assert failed.down_until == now + BACK_OFF[1], "a short fault after recovery costs 15 s, not five minutes"


def test_failed_calls_extend_the_wait_despite_answered_probes() -> None:
    judged, now = after(OPENS_AFTER, cause="HTTP_503"), NOON
    for wait in (BACK_OFF[1], BACK_OFF[2], BACK_OFF[3]):
        judged = breaker.after_failure(after_a_good_answer(judged, now), "HTTP_503", now)
        assert judged.down_until == now + wait


def test_late_failure_begins_with_the_first_wait() -> None:
    judged = after(OPENS_AFTER, cause="HTTP_503")
    for _ in range(4):
        judged = breaker.after_failure(after_a_good_answer(judged, NOON), "HTTP_503", NOON)
    answered = after_a_good_answer(judged, NOON)
    later = NOON + breaker.FORGETS_AFTER
    assert breaker.after_failure(answered, "HTTP_503", later).down_until == later + BACK_OFF[-1]
    later += A_MOMENT
    assert breaker.after_failure(answered, "HTTP_503", later).down_until == later + BACK_OFF[0]


ROOT = Path(__file__).resolve().parents[2]
DECISION = "docs/decisions/0013-probe-the-carrier-before-trying-a-call.md"


def trials_in_vain(hours: int) -> list[int]:
    """Count the trial calls per hour while the carrier answers every probe immediately and fails every call."""
    judged, tried = after(OPENS_AFTER), [0] * hours
    while judged.down_until is not None and (hour := (judged.down_until - NOON) // timedelta(hours=1)) < hours:
        instant = judged.down_until
        judged = breaker.after_failure(breaker.after_answer(judged, instant), "HTTP_500", instant)
        tried[hour] += 1
    return tried


def test_trials_of_an_hour_are_as_many_as_the_decision_says() -> None:
    first, *further = trials_in_vain(5)
    assert set(further) == {further[0]}
    text = " ".join((ROOT / DECISION).read_text(encoding="utf-8").split())
    assert f"{first} trials in the first hour and {further[0]} in each later hour" in text


@pytest.mark.parametrize("page", ["docs/reference/limits.md", "docs/operations.md"])
def test_trials_of_an_hour_are_counted_on_one_page_alone(page: str) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    sentences = [each for each in text.split(". ") if "0013-probe-the-carrier" in each and "trial" in each]
    assert sentences
    per_hour = r"\b(?:twelve|fourteen|\d+) (?:trials )?(?:in |per )?(?:an |the first )?hour"
    assert [each for each in sentences if re.search(per_hour, each)] == []
