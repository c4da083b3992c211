"""When no call is tried because the carrier takes none, and when one is tried again."""

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, NeverTaken, NumberRefused
from scheduler.lifecycle import breaker
from scheduler.lifecycle.breaker import BACK_OFF, OPENS_AFTER, Breaker

NOON = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
A_MOMENT = timedelta(microseconds=1)


def after(failures: int, *, cause: str = "NEVER_CONNECTED") -> Breaker:
    """So many in a row, each tried as soon as one may be."""
    judged, now = Breaker(), NOON
    for _ in range(failures):
        judged = breaker.after_failure(judged, cause, now)
        now = max(now, judged.down_until or now)
    return judged


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        pytest.param(NeverTaken(cause="NEVER_CONNECTED"), "NEVER_CONNECTED", id="never connected"),
        pytest.param(NeverTaken(cause="THROTTLED"), "THROTTLED", id="throttled"),
        pytest.param(AnswerUnknown(cause="HTTP_503"), "HTTP_503", id="nobody knows"),
        pytest.param(NeverTaken(cause="NOT_SENT"), None, id="not sent: the carrier can do nothing for that"),
        pytest.param(Accepted(call_sid="CA1"), None, id="taken"),
        pytest.param(NumberRefused(cause="X"), None, id="refused for its number: the carrier works"),
        pytest.param(NeverTaken(cause="CALLER_REFUSED"), None, id="one company's caller id stops nobody else"),
    ],
)
def test_an_answer_speaks_against_the_carrier_or_does_not(answer: CarrierAnswer, cause: str | None) -> None:
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


def test_a_few_failures_stop_nothing() -> None:
    judged = after(OPENS_AFTER - 1)
    assert not judged.is_down(NOON)
    assert not judged.is_on_trial


def test_one_more_stops_all_calls_for_five_seconds_and_then_one_is_tried() -> None:
    judged = after(OPENS_AFTER)
    assert judged.down_until == NOON + timedelta(seconds=5)
    assert judged.is_down(NOON + timedelta(seconds=5) - A_MOMENT)
    assert not judged.is_down(NOON + timedelta(seconds=5))
    assert judged.is_on_trial


def test_each_try_in_vain_makes_the_next_wait_longer_up_to_five_minutes() -> None:
    waits, judged, now = [], Breaker(), NOON
    for _ in range(OPENS_AFTER + 5):
        judged = breaker.after_failure(judged, "NEVER_CONNECTED", now)
        if judged.down_until is not None:
            waits.append(judged.down_until - now)
            now = judged.down_until
    assert waits == [*BACK_OFF, timedelta(minutes=5), timedelta(minutes=5)]


def test_what_was_sent_before_it_opened_counts_no_more() -> None:
    judged = after(OPENS_AFTER)
    for _ in range(50):
        assert breaker.after_failure(judged, "NEVER_CONNECTED", NOON + timedelta(seconds=1)) == judged


@pytest.mark.parametrize("cause", sorted(breaker.NEEDS_A_PERSON))
def test_what_only_a_person_can_mend_stops_all_calls_at_once(cause: str) -> None:
    judged = breaker.after_failure(Breaker(), cause, NOON)
    assert judged.is_down(NOON)
    assert judged.cause == cause


def test_an_attempt_waits_longer_each_time_it_was_not_taken() -> None:
    waits = [breaker.not_placed_delay(times) for times in range(6)]
    assert waits == [*BACK_OFF, timedelta(minutes=5), timedelta(minutes=5)]
