"""Tries to deliver a message: ten, with growing waits, and never sooner than the receiver allows."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from scheduler.rules.webhooks import DELAYS, MOST_TRIES, try_again_at
from tests.conftest import NOON

JITTER = st.floats(-1, 1)
WAITS = st.none() | st.timedeltas(timedelta(0), timedelta(days=1))


def test_tries_are_those_of_the_contract() -> None:
    hours = [timedelta(hours=each) for each in (2, 5, 10, 14, 20, 24)]
    first = [timedelta(0), timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30)]
    assert list(DELAYS) == first + hours
    assert MOST_TRIES == 10


@given(tries=st.integers(1, MOST_TRIES - 1), jitter=JITTER)
def test_each_wait_varies_by_a_tenth(tries: int, jitter: float) -> None:
    at = try_again_at(tries, NOON, jitter=jitter)
    assert at is not None
    # Times are rounded to microseconds.
    assert abs(at - NOON - DELAYS[tries]) <= DELAYS[tries] * 0.1 + timedelta(microseconds=1)


@given(tries=st.integers(1, MOST_TRIES - 1))
def test_extremes_of_the_jitter_are_reached(tries: int) -> None:
    assert try_again_at(tries, NOON, jitter=1) == NOON + DELAYS[tries] * 1.1
    assert try_again_at(tries, NOON, jitter=-1) == NOON + DELAYS[tries] * 0.9


@given(tries=st.integers(1, MOST_TRIES - 1), jitter=JITTER, wait=WAITS)
def test_retry_after_delays_and_never_hastens(tries: int, jitter: float, wait: timedelta | None) -> None:
    plain, at = (try_again_at(tries, NOON, jitter=jitter, retry_after=each) for each in (None, wait))
    assert plain is not None
    assert at == max(plain, NOON + (wait or timedelta(0)))


@given(jitters=st.lists(JITTER, min_size=MOST_TRIES, max_size=MOST_TRIES), waits=st.lists(WAITS, min_size=10))
def test_tries_end_after_the_tenth(jitters: list[float], waits: list[timedelta | None]) -> None:
    at: datetime | None = NOON
    times = []
    for tries, (jitter, wait) in enumerate(zip(jitters, waits, strict=False), 1):
        assert at is not None
        times.append(at)
        at = try_again_at(tries, at, jitter=jitter, retry_after=wait)
    assert at is None
    assert times == sorted(times)
    assert len(times) == MOST_TRIES


def test_tries_without_jitter_take_three_days() -> None:
    assert sum(DELAYS, timedelta(0)) == timedelta(hours=75, minutes=35, seconds=5)
