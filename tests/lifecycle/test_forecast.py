"""Forecast: when waiting calls start, between the calls of other companies, and which are too late."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from math import inf
from operator import itemgetter
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.lifecycle.forecast import CompanyQueue, DueCalls, Forecast, Limits, Opening, Starts, forecast
from tests.support import exhaustive

NOW = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
A, B = UUID(int=1), UUID(int=2)
WIDE = Limits(calls_per_second=1e6, concurrent_calls=10**6)
SAME = [timedelta(seconds=180)] * 10
MIXED = [timedelta(seconds=36 * number + 18) for number in range(10)]
"""Durations with the mean of `SAME`, so that calls do not start in waves."""


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def due(calls: int, since: float = 0, over: float = 0, last_start: float | None = None) -> DueCalls:
    """All spans in seconds from NOW on."""
    closing = None if last_start is None else at(last_start)
    return DueCalls(at=at(since), calls=calls, over=timedelta(seconds=over), last_start=closing)


def queue(*calls: DueCalls, per_second: float = 1, places: int = 10**6, running: int = 0, of: UUID = A) -> CompanyQueue:
    limits = Limits(calls_per_second=per_second, concurrent_calls=places, in_progress=running)
    return CompanyQueue(company_id=of, limits=limits, due=calls)


def last_start(found: Forecast, of: UUID | None = None) -> float:
    """Compute the start of the last call in seconds since NOW."""
    starts = found.total if of is None else found.companies[of]
    assert starts.last_start_at is not None
    return (starts.last_start_at - NOW).total_seconds()


def test_calls_at_one_instant_start_at_the_pace() -> None:
    total = forecast([queue(due(4812, since=3600), per_second=2)], WIDE, NOW).total
    assert (total.calls, total.past_closing, total.last_start_at) == (4812, 0, at(3600 + 2405.5))
    assert total.latest_by == total.last_is_late_by == timedelta(seconds=2405.5)


def test_calls_below_the_pace_are_never_late() -> None:
    found = forecast([queue(due(600, over=900), due(899, since=900, over=900))], WIDE, NOW)
    assert last_start(found) == pytest.approx(1800, abs=1)
    assert found.total.latest_by < timedelta(seconds=1)


def test_calls_that_are_due_already_are_late_by_their_age() -> None:
    found = forecast([queue(due(60, since=-1800, over=900))], WIDE, NOW)
    assert last_start(found) == pytest.approx(59)
    assert found.total.last_is_late_by.total_seconds() == pytest.approx(59 + 907.5)
    assert found.total.latest_by.total_seconds() == pytest.approx(1792.5)


def test_calls_past_closing_spend_slots() -> None:
    """Half of the calls may start for ten minutes, the others as long as they must."""
    found = forecast([queue(due(900, last_start=600.5), due(900))], WIDE, NOW)
    assert found.total.past_closing == pytest.approx(600, abs=1)
    assert last_start(found) == pytest.approx(1799, abs=1)
    assert forecast([queue(due(90, since=-300, last_start=-60))], WIDE, NOW).total == Starts(calls=90, past_closing=90)


def test_no_call_has_no_start() -> None:
    assert forecast([], WIDE, NOW).total == Starts()
    assert forecast([queue()], WIDE, NOW).companies == {A: Starts()}


def test_companies_share_the_pace_of_the_account() -> None:
    """B has few calls and is not late because of A. A has the rest of the account's pace."""
    queues = [queue(due(6000), per_second=50), queue(due(300), per_second=50, of=B)]
    found = forecast(queues, Limits(calls_per_second=10, concurrent_calls=1), NOW)
    assert last_start(found, B) == pytest.approx(60, abs=0.2)
    assert last_start(found, A) == last_start(found) == pytest.approx(630, abs=0.2)


@pytest.mark.parametrize(
    ("calls", "expected"),
    [(20, 19), (21, 180), (40, 199), (41, 360), (110, 5 * 180 + 9)],
)
def test_calls_of_one_duration_start_in_waves(calls: int, expected: float) -> None:
    found = forecast([queue(due(calls), places=20)], WIDE, NOW, durations=SAME)
    assert last_start(found) == pytest.approx(expected)


def test_only_paces_count_without_durations() -> None:
    assert last_start(forecast([queue(due(100), places=1)], WIDE, NOW)) == pytest.approx(99)


def test_calls_in_progress_keep_their_places_until_they_end() -> None:
    def starts(account: Limits = WIDE, **given: Any) -> float:
        return last_start(forecast([queue(due(1), **given)], account, NOW, durations=SAME))

    assert starts(places=4, running=4) == pytest.approx(180 / 8)
    assert starts(places=4, running=3) == 0
    assert starts(places=2, running=4) == pytest.approx(180 * 5 / 8), "of a limit that was lowered"
    assert starts(Limits(calls_per_second=50, concurrent_calls=4, in_progress=4)) == pytest.approx(180 / 8)


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
def test_last_places_are_kept_for_first_calls(places: int, sizes: list[int], usable: int) -> None:
    queues = [queue(due(size), per_second=50, of=UUID(int=number)) for number, size in enumerate(sizes)]
    found = forecast(queues, Limits(calls_per_second=50, concurrent_calls=places), NOW, durations=MIXED)
    assert last_start(found) == pytest.approx((sum(sizes) - usable) * 180 / usable, rel=0.06)


# --- new calls


A_WEEK = at(7 * 86_400)


def new(calls: int, *, closes: float | None = None, expires_at: datetime = A_WEEK) -> DueCalls:
    closing = None if closes is None else at(closes)
    return DueCalls(at=NOW, calls=calls, last_start=closing, expires_at=expires_at, is_new=True)


def opening(opens: float | None, of: UUID, *calls: DueCalls) -> CompanyQueue:
    """Build a queue whose calls have another opening after this number of seconds."""

    def find(_: object, after: datetime) -> Opening | None:
        return None if opens is None or at(opens) <= after else (at(opens), None)

    return CompanyQueue(
        company_id=of, limits=Limits(calls_per_second=1, concurrent_calls=1000), due=calls, next_opening=find
    )


def test_calls_of_others_delay_new_ones() -> None:
    """Also after closing, until the last look of each has found it closed. They return when they open again."""
    account = Limits(calls_per_second=1, concurrent_calls=1000)

    def last_new(calls: int, *, opens: float | None) -> float:
        others = opening(opens, B, due(300, last_start=100.0))
        found = forecast([opening(None, A, new(calls)), others], account, NOW)
        assert found.last_new_at is not None
        return (found.last_new_at - NOW).total_seconds()

    assert last_new(100, opens=None) == pytest.approx(200, abs=3)
    assert last_new(200, opens=None) == pytest.approx(400, abs=3)
    # Of 300 calls 50 start, 75 are found closed until they open again, and 250 start then.
    assert last_new(400, opens=250) == pytest.approx(400 + 300 + 75, abs=3)


def test_new_calls_wait_for_the_next_opening_or_expire() -> None:
    moved = forecast([opening(5000, A, new(10, closes=4.5))], WIDE, NOW)
    assert (moved.last_new_at, moved.expired) == (at(5004), 0)
    expired = forecast([opening(5000, A, new(10, closes=4.5, expires_at=at(5000)))], WIDE, NOW)
    assert (expired.last_new_at, expired.expired) == (at(4), 5)
    never = forecast([opening(None, A, new(10, closes=-1))], WIDE, NOW)
    assert (never.last_new_at, never.expired) == (None, 10)


def test_forecast_ends_with_the_last_new_call() -> None:
    found = forecast([opening(None, A, new(3), due(2000, since=1))], WIDE, NOW)
    assert found.last_new_at == found.total.last_start_at == at(2)


# --- the plain way: all companies are compared for each start


@dataclass
class Plain:
    queue: CompanyQueue
    waiting: list[tuple[float, float, float]]
    """Due time, order among calls of the same instant, last start."""
    ends: list[float]
    slot: float = 0.0
    at: float = -inf
    started: list[tuple[float, float]] | None = None
    past: int = 0

    def opens(self) -> float:
        return max(self.waiting[0][0], self.slot) if self.waiting else inf


def plainly(
    queues: Sequence[CompanyQueue], account: Limits, durations: Sequence[float]
) -> list[tuple[list[tuple[float, float]], int]]:
    """Compute (start, lateness) of each call that starts, and the number of those past closing, by company."""
    lasts = cycle([*durations[::3], *durations[1::3], *durations[2::3]] or [0.0])
    companies = [
        Plain(each, sorted(_apart(each), key=itemgetter(0, 1)), _began(each.limits.in_progress, lasts), started=[])
        for each in queues
    ]
    unknown = _began(max(account.in_progress - sum(each.limits.in_progress for each in queues), 0), lasts)
    kept, slot, now = max(1, account.concurrent_calls // 10), 0.0, 0.0
    while any(each.waiting for each in companies):
        running = [sum(end > now for end in each.ends) for each in companies]
        room = account.concurrent_calls - sum(running) - sum(end > now for end in unknown)
        ready = [
            each
            for each, calls in zip(companies, running, strict=True)
            if room > 0 and calls < each.queue.limits.concurrent_calls and (calls == 0 or room > kept)
        ]
        starting = [each for each in ready if each.opens() <= now]
        if not starting or slot > now:
            later = [slot] * bool(starting) + [each.opens() for each in companies]
            now = min(
                each for each in [*later, *unknown, *(end for one in companies for end in one.ends)] if each > now
            )
            continue
        company = min(starting, key=lambda each: (each.at, each.opens()))
        due_at, _, closes = company.waiting.pop(0)
        slot, company.slot, company.at = now + 1 / account.calls_per_second, now + 1 / _pace(company), now
        if closes <= now:
            company.past += 1
            continue
        assert company.started is not None
        company.started.append((now, now - due_at))
        company.ends.append(now + next(lasts))
    return [(each.started or [], each.past) for each in companies]


def _pace(company: Plain) -> float:
    return company.queue.limits.calls_per_second


def _apart(queue: CompanyQueue) -> list[tuple[float, float, float]]:
    return [
        (
            (each.at - NOW).total_seconds() + (number + 0.5) / each.calls * each.over.total_seconds(),
            (number + 0.5) / each.calls,
            inf if each.last_start is None else (each.last_start - NOW).total_seconds(),
        )
        for each in queue.due
        for number in range(each.calls)
    ]


def _began(calls: int, lasts: "cycle[float]") -> list[float]:
    return [next(lasts) * (number + 0.5) / calls for number in range(calls)]


ANY_DUE = st.builds(
    due,
    st.integers(0, 30),
    since=st.sampled_from([-900, 0, 60, 900]),
    over=st.sampled_from([0, 60, 900]),
    last_start=st.none() | st.sampled_from([-300.5, 30.5, 600.5]),
)
ANY_QUEUE = st.tuples(
    st.lists(ANY_DUE, max_size=3), st.sampled_from([0.05, 0.5, 1.0, 5.0]), st.integers(1, 8), st.integers(0, 10)
)


@given(
    written=st.lists(ANY_QUEUE, max_size=5),
    account=st.builds(
        lambda pace, places, running: Limits(calls_per_second=pace, concurrent_calls=places, in_progress=running),
        st.sampled_from([0.1, 0.5, 2.0, 20.0]),
        st.integers(1, 30),
        st.integers(0, 30),
    ),
    durations=st.sampled_from([[], SAME, MIXED]),
)
@settings(max_examples=exhaustive.cases(150, 40), deadline=None)
def test_forecast_equals_the_plain_way(
    written: list[tuple[list[DueCalls], float, int, int]], account: Limits, durations: list[timedelta]
) -> None:
    queues = [
        queue(*calls, per_second=pace, places=most, running=running, of=UUID(int=number))
        for number, (calls, pace, most, running) in enumerate(written)
    ]
    found = forecast(queues, account, NOW, durations=durations)
    plain = plainly(queues, account, [each.total_seconds() for each in durations])
    for each, (started, past) in zip(queues, plain, strict=True):
        starts = found.companies[each.company_id]
        assert (starts.calls, starts.past_closing) == (sum(one.calls for one in each.due), past)
        assert (starts.last_start_at is None) == (not started)
        if started:
            assert last_start(found, each.company_id) == pytest.approx(started[-1][0], abs=1e-4)
            assert starts.last_is_late_by.total_seconds() == pytest.approx(started[-1][1], abs=1e-4)
            assert starts.latest_by.total_seconds() == pytest.approx(max(late for _, late in started), abs=1e-4)
