"""The forecast equals the starts of simulated calls, one by one and in small steps of time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.lifecycle.forecast import CompanyQueue, DueCalls, Starts, forecast
from scheduler.lifecycle.start_rates import Limits
from tests.lifecycle.plain_forecast import PARTS, PlainStarts, plain_forecast, without_kept

NOW = datetime(2026, 4, 2, 8, 0, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
A, B = UUID(int=1), UUID(int=2)
WIDE = Limits(calls_per_second=1000, concurrent_calls=100_000)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def due(at: float, calls: int, over: float = 0, last_start: float | None = None) -> DueCalls:
    """All spans in minutes from NOW on."""
    closing = None if last_start is None else NOW + minutes(last_start)
    return DueCalls(at=NOW + minutes(at), calls=calls, over=minutes(over), last_start=closing)


def queue(*calls: DueCalls, per_second: float = 1, places: int = 10**6, running: int = 0, of: UUID = A) -> CompanyQueue:
    limits = Limits(calls_per_second=per_second, concurrent_calls=places, in_progress=running)
    return CompanyQueue(company_id=of, limits=limits, due=calls)


def near(starts: Starts, last_start: timedelta, late: timedelta) -> bool:
    second = timedelta(seconds=1)
    assert starts.last_start_at is not None
    return abs(starts.last_start_at - NOW - last_start) < second and abs(starts.last_is_late_by - late) < second


def test_calls_at_one_instant_start_at_the_pace() -> None:
    total = forecast([queue(due(60, 4812), per_second=2)], WIDE, NOW).total
    assert (total.calls, total.past_closing) == (4812, 0)
    assert near(total, minutes(60) + timedelta(seconds=2406), timedelta(seconds=2406))
    assert total.latest_by == total.last_is_late_by


def test_calls_below_the_pace_are_never_late() -> None:
    total = forecast([queue(due(0, 600, over=15), due(15, 899, over=15))], WIDE, NOW).total
    assert near(total, minutes(30), minutes(0))
    assert total.latest_by == timedelta()


def test_calls_that_are_due_already_are_late_by_their_age() -> None:
    total = forecast([queue(due(-30, 60, over=15))], WIDE, NOW).total
    assert near(total, minutes(1), minutes(16))
    assert total.latest_by == minutes(30)


def test_calls_past_closing_leave_their_place_to_others() -> None:
    """Half of the calls may start for ten minutes, the others as long as they must."""
    total = forecast([queue(due(0, 900, last_start=10), due(0, 900))], WIDE, NOW).total
    assert total.past_closing == 600
    assert near(total, minutes(20), minutes(20))


def test_calls_that_become_due_after_closing_do_not_start() -> None:
    total = forecast([queue(due(0, 90, over=15, last_start=5))], WIDE, NOW).total
    assert total.past_closing == 60
    assert near(total, minutes(5), minutes(0))
    assert forecast([queue(due(-5, 90, last_start=-1))], WIDE, NOW).total == Starts(calls=90, past_closing=90)


def test_no_call_has_no_start() -> None:
    assert forecast([], WIDE, NOW).total == Starts()
    assert forecast([queue()], WIDE, NOW).companies == {A: Starts()}


def test_companies_share_the_pace_of_the_account() -> None:
    """B has few calls and is not late because of A. A has the rest of the account's pace."""
    queues = [queue(due(0, 6000), per_second=50), queue(due(0, 300), per_second=50, of=B)]
    found = forecast(queues, Limits(calls_per_second=10, concurrent_calls=1), NOW)
    assert near(found.companies[B], minutes(1), minutes(1))
    assert near(found.companies[A], timedelta(seconds=630), timedelta(seconds=630))
    assert found.total.last_start_at == found.companies[A].last_start_at


def test_full_company_starts_a_call_when_one_ends() -> None:
    """Ten places, calls of 100 s: the places are taken, and one call ends every ten seconds."""
    full = queue(due(0, 60), per_second=1, places=10, running=10)
    found = forecast([full], WIDE, NOW, call_lasts=timedelta(seconds=100))
    assert near(found.total, minutes(10), minutes(10))


def test_free_places_are_taken_at_the_pace() -> None:
    found = forecast([queue(due(0, 8), places=10)], WIDE, NOW, call_lasts=timedelta(hours=1))
    assert near(found.total, timedelta(seconds=8), timedelta(seconds=8))


def test_lowered_limit_waits_for_ends_of_calls() -> None:
    """Of 20 calls in progress with a mean duration of 100 s, 10 are left after 69.3 s."""
    found = forecast([queue(due(0, 1), places=10, running=20)], WIDE, NOW, call_lasts=timedelta(seconds=100))
    assert near(found.total, timedelta(seconds=79.3), timedelta(seconds=79.3))


def test_full_account_limits_all_companies() -> None:
    """One of eleven places is kept for companies without a call."""
    account = Limits(calls_per_second=10, concurrent_calls=11, in_progress=10)
    queues = [queue(due(0, 30)), queue(due(0, 30), of=B)]
    found = forecast(queues, account, NOW, call_lasts=timedelta(seconds=100))
    assert near(found.total, minutes(10), minutes(10))


# --- one by one: calls of one queue at its pace


DUE = st.builds(
    due,
    at=st.integers(-30, 120),
    calls=st.just(0) | st.integers(90, 400),
    over=st.sampled_from([0, 15]),
    last_start=st.none() | st.integers(10, 150),
).filter(lambda each: each.last_start != each.at)  # a fluid has no first call that could start at that instant


def one_by_one(calls: Sequence[DueCalls], per_second: float) -> tuple[list[tuple[float, float]], int]:
    """Return (start, due) in seconds of each call, and the count of those past closing."""
    each = sorted(
        (
            (group.at - NOW + (number + 0.5) / group.calls * group.over).total_seconds(),
            (number + 0.5) / group.calls,
            float("inf") if group.last_start is None else (group.last_start - NOW).total_seconds(),
        )
        for group in calls
        for number in range(group.calls)
    )
    started: list[tuple[float, float]] = []
    past, free_at = 0, 0.0
    for due_at, _, last_start in each:
        start = max(due_at, free_at)
        if start > last_start:
            past += 1
        else:
            started.append((start, due_at))
            free_at = start + 1 / per_second
    return started, past


@given(calls=st.lists(DUE, min_size=1, max_size=6), per_second=st.sampled_from([0.1, 0.5, 1.0, 3.0]))
@settings(max_examples=150, deadline=None)
def test_forecast_equals_calls_one_by_one(calls: list[DueCalls], per_second: float) -> None:
    found = forecast([queue(*calls, per_second=per_second)], WIDE, NOW).total
    started, past = one_by_one(calls, per_second)
    a_call = 1 / per_second + 900 / 90
    assert found.calls == len(started) + past
    assert found.past_closing == pytest.approx(past, abs=len(calls) + 1)
    if started and found.last_start_at is not None:
        assert (found.last_start_at - NOW).total_seconds() == pytest.approx(max(started)[0], abs=2 * a_call)
        latest = max(start - due_at for start, due_at in started)
        assert found.latest_by.total_seconds() == pytest.approx(latest, abs=2 * a_call)


# --- in small steps: several companies, with places


STEP = 3.0


@dataclass
class Stepped:
    """The queue of a company in steps of time. Calls with the same due time start mixed."""

    queue: CompanyQueue
    running: float
    waiting: dict[float, dict[float, float]] = field(default_factory=dict)
    """Parts of calls, by due time and by last start."""
    past: float = 0.0
    last_start: float = 0.0

    def arrive(self, at: float) -> None:
        for group in self.queue.due:
            begins, over = (group.at - NOW).total_seconds(), group.over.total_seconds()
            last_start = float("inf") if group.last_start is None else (group.last_start - NOW).total_seconds()
            steps = [begins + number * STEP for number in range(int(over / STEP))] or [begins]
            for due_at in steps:
                if at == max(due_at, 0):
                    mixed = self.waiting.setdefault(due_at, {})
                    mixed[last_start] = mixed.get(last_start, 0.0) + group.calls / len(steps)
        for mixed in self.waiting.values():
            self.past += sum(mixed.pop(last_start) for last_start in [*mixed] if last_start <= at)

    @property
    def calls(self) -> float:
        return sum(sum(mixed.values()) for mixed in self.waiting.values())

    def wants(self, lasts: float) -> float:
        return min(self.calls / STEP, rate_of(self.queue.limits, self.running, lasts))

    def start(self, at: float, calls: float, lasts: float) -> None:
        self.running += calls - self.running * STEP / lasts
        for due_at in sorted(self.waiting):
            size = sum(self.waiting[due_at].values())
            part = min(1.0, calls / size) if size else 1.0
            self.waiting[due_at] = {each: left * (1 - part) for each, left in self.waiting[due_at].items()}
            if part * size > 1e-9:
                self.last_start = at
            calls -= part * size
            if part < 1:
                break
            del self.waiting[due_at]


def rate_of(limits: Limits, running: float, lasts: float) -> float:
    left = running - running * STEP / lasts
    return min(limits.calls_per_second, max(limits.concurrent_calls - left, 0) / STEP)


def level_of(wanted: Sequence[float], rate: float) -> float:
    """Return the share that no company exceeds, by halving."""
    low, high = 0.0, max(wanted, default=0.0)
    if sum(wanted) <= rate:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(min(each, middle) for each in wanted) > rate else (middle, high)
    return low


def in_steps(queues: Sequence[CompanyQueue], account: Limits, lasts: float) -> list[Stepped]:
    companies = [Stepped(queue=each, running=float(each.limits.in_progress)) for each in queues]
    account = without_kept(account, queues)
    running = float(max(account.in_progress, sum(each.limits.in_progress for each in queues)))
    at = 0.0
    while at <= 46 * 60 or any(company.calls > 1e-6 for company in companies):
        for company in companies:
            company.arrive(at)
        wanted = [company.wants(lasts) for company in companies]
        level = level_of(wanted, rate_of(account, running, lasts))
        running += sum(min(each, level) for each in wanted) * STEP - running * STEP / lasts
        for company, rate in zip(companies, wanted, strict=True):
            company.start(at, min(rate, level) * STEP, lasts)
        at += STEP
    return companies


PLACES = st.integers(2, 30)
FEW_DUE = st.builds(
    due,
    at=st.sampled_from([-15, 0, 15, 30]),
    calls=st.integers(10, 60),
    over=st.sampled_from([0, 15]),
    last_start=st.none() | st.integers(20, 60),
)
QUEUES = st.lists(
    st.builds(
        lambda calls, per_second, places, running: (calls, per_second, places, running),
        st.lists(FEW_DUE, min_size=1, max_size=3),
        st.sampled_from([0.2, 1.0, 5.0]),
        PLACES,
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=3,
)


@given(
    written=QUEUES,
    per_second=st.sampled_from([0.5, 1.0, 8.0]),
    places=PLACES,
    lasts=st.sampled_from([20, 60, 120]),
)
@settings(max_examples=8, deadline=None)
def test_forecast_equals_small_steps_of_time(
    written: list[tuple[list[DueCalls], float, int, int]], per_second: float, places: int, lasts: int
) -> None:
    queues = [
        queue(*calls, per_second=pace, places=most, running=running, of=UUID(int=number))
        for number, (calls, pace, most, running) in enumerate(written)
    ]
    account = Limits(calls_per_second=per_second, concurrent_calls=places)
    found = forecast(queues, account, NOW, call_lasts=timedelta(seconds=lasts))
    for stepped in in_steps(queues, account, float(lasts)):
        starts = found.companies[stepped.queue.company_id]
        assert starts.past_closing == pytest.approx(stepped.past, abs=3)
        if starts.last_start_at is not None:
            assert (starts.last_start_at - NOW).total_seconds() == pytest.approx(stepped.last_start, abs=20)


# --- the plain way, call by call


ANY_DUE = st.builds(
    due,
    at=st.integers(-40, 60),
    calls=st.integers(0, 200),
    over=st.sampled_from([0, 1, 15, 40]),
    last_start=st.none() | st.integers(-5, 90),
)
ANY_QUEUE = st.tuples(
    st.lists(ANY_DUE, max_size=5), st.sampled_from([0.05, 0.2, 1.0, 5.0]), st.integers(1, 30), st.integers(0, 40)
)


def a_call(queues: Sequence[CompanyQueue], account: Limits, call_lasts: timedelta | None) -> float:
    """Return the longest time in seconds that one call takes to become due or to start: a fluid knows no first call."""
    lasts = 0.0 if call_lasts is None else call_lasts.total_seconds()
    shares = [1 / account.calls_per_second, lasts / without_kept(account, queues).concurrent_calls]
    own = [max(1 / each.limits.calls_per_second, lasts / each.limits.concurrent_calls) for each in queues]
    spread = [each.over.total_seconds() / each.calls for queue in queues for each in queue.due if each.calls]
    return max([*own, *(len(queues) * share for share in shares)]) + max(spread, default=0.0)


def assert_equal(found: Starts, plain: Sequence[PlainStarts], seconds: float) -> None:
    started = sorted(each for company in plain for each in company.started)
    assert found.past_closing == pytest.approx(sum(len(each.dropped) for each in plain) / PARTS, abs=1)
    if found.last_start_at is None or not started:
        assert len(started) < PARTS, "less than one call starts"
        assert found.calls - found.past_closing <= 1
        return
    last_start, _ = started[-1]
    assert (found.last_start_at - NOW).total_seconds() == pytest.approx(last_start, abs=seconds)
    # A small part of a call may start just before its closing there, and just not here.
    ends = [each for company in plain for each in (*company.started[-1:], *company.dropped)]
    could_be_last = [late for at, late in ends if abs(at - last_start) <= seconds]
    assert min(abs(found.last_is_late_by.total_seconds() - late) for late in could_be_last) <= seconds
    assert found.latest_by.total_seconds() == pytest.approx(max(late for _, late in started), abs=seconds)


@given(
    written=st.lists(ANY_QUEUE, max_size=6),
    per_second=st.sampled_from([0.1, 0.5, 2.0, 20.0]),
    places=st.integers(1, 60),
    running=st.integers(0, 60),
    lasts=st.none() | st.sampled_from([20, 90, 600]),
)
@settings(max_examples=150, deadline=None)
def test_fast_forecast_equals_the_plain_one(
    written: list[tuple[list[DueCalls], float, int, int]],
    per_second: float,
    places: int,
    running: int,
    lasts: int | None,
) -> None:
    queues = [
        queue(*calls, per_second=pace, places=most, running=own, of=UUID(int=number))
        for number, (calls, pace, most, own) in enumerate(written)
    ]
    account = Limits(calls_per_second=per_second, concurrent_calls=places, in_progress=running)
    call_lasts = None if lasts is None else timedelta(seconds=lasts)
    found = forecast(queues, account, NOW, call_lasts=call_lasts)
    plain = plain_forecast(queues, account, NOW, call_lasts=call_lasts)
    seconds = a_call(queues, account, call_lasts)
    assert found.total.calls == sum(each.calls for each in found.companies.values())
    assert_equal(found.total, plain, seconds)
    for each, expected in zip(queues, plain, strict=True):
        assert found.companies[each.company_id].calls == sum(group.calls for group in each.due)
        assert_equal(found.companies[each.company_id], [expected], seconds)
