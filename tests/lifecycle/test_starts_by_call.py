"""Starts call by call: the durations of calls decide when the next ones start."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.lifecycle.expected_starts import WaitingCalls, WaitingQueue, expected_starts
from scheduler.lifecycle.forecast import CompanyQueue, DueCalls, forecast
from scheduler.lifecycle.start_rates import Limits
from scheduler.lifecycle.starts_by_call import are_few, starts_by_call

NOW = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
FAST = Limits(calls_per_second=50.0, concurrent_calls=1000)
SAME = [timedelta(seconds=180)] * 10


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def a_queue(*due: DueCalls, most: int = 1000, per_second: float = 1.0, running: int = 0, of: int = 1) -> CompanyQueue:
    limits = Limits(calls_per_second=per_second, concurrent_calls=most, in_progress=running)
    return CompanyQueue(company_id=UUID(int=of), limits=limits, due=due)


def calls(number: int, *, at: float = 0.0, last_start: float | None = None) -> DueCalls:
    closing = None if last_start is None else NOW + seconds(last_start)
    return DueCalls(at=NOW + seconds(at), calls=number, last_start=closing)


def last_start(queues: Sequence[CompanyQueue], account: Limits = FAST, durations: Sequence[timedelta] = SAME) -> float:
    last_start_at = starts_by_call(queues, account, NOW, durations=durations).total.last_start_at
    assert last_start_at is not None
    return (last_start_at - NOW).total_seconds()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(20, 19), (21, 180), (40, 199), (41, 360), (110, 5 * 180 + 9)],
)
def test_calls_of_one_duration_start_in_waves(number: int, expected: float) -> None:
    assert last_start([a_queue(calls(number), most=20)]) == pytest.approx(expected)


def test_waves_of_the_account_are_shared() -> None:
    """Two of the twenty places are kept for companies without a call, which neither is."""
    account = Limits(calls_per_second=50.0, concurrent_calls=20)
    assert last_start([a_queue(calls(15)), a_queue(calls(15), of=2)], account) == pytest.approx(185, abs=0.1)


def test_calls_of_many_durations_start_steadily() -> None:
    durations = [seconds(36 * number + 18) for number in range(10)]
    found = last_start([a_queue(calls(400), most=20)], durations=durations)
    assert found == pytest.approx((400 - 20) * 180 / 20, rel=0.05)


def test_only_paces_count_without_durations() -> None:
    assert last_start([a_queue(calls(100), most=1)], durations=()) == pytest.approx(99)


def test_calls_in_progress_keep_their_places_until_they_end() -> None:
    full = a_queue(calls(1), most=4, running=4)
    assert last_start([full]) == pytest.approx(180 / 8)
    assert last_start([a_queue(calls(1), most=4, running=3)]) == 0
    account = Limits(calls_per_second=50.0, concurrent_calls=4, in_progress=4)
    assert last_start([a_queue(calls(1))], account) == pytest.approx(180 / 8)


MIXED = [seconds(36 * number + 18) for number in range(10)]
"""Durations with the mean of `SAME`, so that calls do not start in waves."""


@pytest.mark.parametrize(
    ("places", "sizes", "usable"),
    [
        pytest.param(20, [400], 18, id="one company"),
        pytest.param(20, [300, 100], 18, id="two companies"),
        pytest.param(20, [25] * 16, 18, id="fewer companies than places"),
        pytest.param(10, [30] * 10, 10, id="a company for each place"),
        pytest.param(10, [25] * 12, 10, id="more companies than places"),
        pytest.param(2, [40], 1, id="two places"),
        pytest.param(1, [40], 1, id="one place"),
        pytest.param(1, [20] * 2, 1, id="one place for two companies"),
    ],
)
def test_both_forecasts_know_kept_places(places: int, sizes: list[int], usable: int) -> None:
    queues = [a_queue(calls(size), per_second=50.0, of=number) for number, size in enumerate(sizes)]
    account = Limits(calls_per_second=50.0, concurrent_calls=places)
    by_call = last_start(queues, account, MIXED)
    fluid = forecast(queues, account, NOW, call_lasts=seconds(180)).total.last_start_at
    assert fluid is not None
    expected = (sum(sizes) - usable) * 180 / usable
    assert by_call == pytest.approx(expected, rel=0.06)
    assert (fluid - NOW).total_seconds() == pytest.approx(expected, rel=0.06)


def test_call_past_closing_does_not_start() -> None:
    found = starts_by_call([a_queue(calls(30, last_start=100.5), most=20)], FAST, NOW, durations=SAME)
    assert (found.total.last_start_at, found.total.past_closing) == (NOW + seconds(19), 10)
    assert found.past == {UUID(int=1): {NOW + seconds(100.5): 10}}


ANY_CALLS = st.builds(calls, st.integers(0, 40), at=st.sampled_from([0.0, 3.0, 20.0]))


@given(
    written=st.lists(st.tuples(st.lists(ANY_CALLS, max_size=3), st.sampled_from([0.5, 1.0, 5.0])), max_size=4),
    per_second=st.sampled_from([0.5, 2.0, 20.0]),
)
@settings(max_examples=100, deadline=None)
def test_starts_keep_all_paces(written: list[tuple[list[DueCalls], float]], per_second: float) -> None:
    """A call waits for its company or the account, so never longer than for both one after the other.

    Where the account is not the limit, the fluid has the same starts. Where several companies share it, slots are lost
    that the fluid does not know: two companies are ready at the same instant, and none at the next one.
    """
    queues = [a_queue(*due, per_second=pace, of=number) for number, (due, pace) in enumerate(written)]
    account = Limits(calls_per_second=per_second, concurrent_calls=1000)
    found, fluid = starts_by_call(queues, account, NOW), forecast(queues, account, NOW)
    assert found.total.calls == fluid.total.calls
    is_free = sum(pace for _, pace in written) <= per_second / 2
    for queue, (due, pace) in zip(queues, written, strict=True):
        own, expected = found.companies[queue.company_id], fluid.companies[queue.company_id]
        assert (own.last_start_at is None) == (expected.last_start_at is None)
        if own.last_start_at is not None and expected.last_start_at is not None:
            last = (own.last_start_at - NOW).total_seconds()
            last_due = max((each.at - NOW).total_seconds() for each in due if each.calls)
            assert (own.calls - 1) / pace <= last + 1e-6
            assert last <= last_due + own.calls / pace + found.total.calls / per_second + 1e-6
            if is_free:
                late = (own.last_start_at - expected.last_start_at).total_seconds()
                assert late == pytest.approx(0, abs=(len(queues) + 1) / per_second + 2 / pace)


def test_many_calls_are_not_simulated() -> None:
    assert are_few([a_queue(calls(10_000)), *(a_queue(calls(1), of=number) for number in range(2, 5))])
    assert not are_few([a_queue(calls(200_000), of=number) for number in range(2)])


# --- calls of other companies past their closing


def test_calls_of_others_delay_new_ones() -> None:
    """Also after closing, until the last look of each has found it closed. They return when they open again."""
    account = Limits(calls_per_second=1.0, concurrent_calls=1000)

    def last_new(number: int, *, opens: float | None) -> float:
        def next_opening(_: object, after: datetime) -> tuple[datetime, datetime | None] | None:
            at = None if opens is None else NOW + seconds(opens)
            return None if at is None or at <= after else (at, None)

        due = DueCalls(at=NOW, calls=number)
        new = WaitingCalls(due=due, clock=None, expires_at=NOW + timedelta(days=7), is_new=True)
        other = WaitingCalls(due=calls(300, last_start=100.0), clock=None, expires_at=NOW + timedelta(days=7))
        limits = Limits(calls_per_second=1.0, concurrent_calls=1000)
        own, others = (
            WaitingQueue(company_id=UUID(int=of), limits=limits, waiting=[each], next_opening=next_opening)
            for of, each in ((1, new), (2, other))
        )
        found = expected_starts(own, [others], account, NOW)
        assert found.expired == 0
        assert found.last_start_at is not None
        return (found.last_start_at - NOW).total_seconds()

    assert last_new(100, opens=None) == pytest.approx(200, abs=3)
    assert last_new(200, opens=None) == pytest.approx(400, abs=3)
    assert last_new(400, opens=250) == pytest.approx(650, abs=3)
