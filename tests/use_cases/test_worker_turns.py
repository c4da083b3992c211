"""Turns of workers: each ends in time, and one thread of a process has a turn where the work asks for it."""

import threading
from collections.abc import Callable

import pytest

from scheduler.use_cases.shared import hints
from scheduler.use_cases.shared.hints import take_turn
from tests.use_cases.conftest import MonotonicClock


@pytest.fixture
def clock(long_turns: None, monkeypatch: pytest.MonkeyPatch) -> MonotonicClock:
    clock = MonotonicClock(at=100.0)
    monkeypatch.setattr(hints, "monotonic", clock)
    return clock


def batches(clock: MonotonicClock, count: int, seconds: float) -> Callable[[], bool]:
    """Build work of so many batches. One more finds nothing to do."""
    left = iter(range(count))

    def batch() -> bool:
        clock.at += seconds
        return next(left, None) is not None

    return batch


@pytest.mark.parametrize(("seconds", "turns_taken"), [(0.1, 1), (0.5, 3), (2.0, 11), (60.0, 11)])
def test_turn_ends_after_two_seconds(clock: MonotonicClock, seconds: float, turns_taken: int) -> None:
    batch = batches(clock, 10, seconds)
    assert [take_turn(batch) for _ in range(turns_taken)] == [True] * (turns_taken - 1) + [False]


def test_thread_without_a_turn_leaves_at_once(clock: MonotonicClock) -> None:
    alone = threading.Lock()
    found = []

    def batch() -> bool:
        found.append(take_turn(batch, alone=alone))
        return False

    take_turn(batch, alone=alone)
    assert found == [False]


def test_next_turn_is_free_after_an_error(clock: MonotonicClock) -> None:
    alone = threading.Lock()
    with pytest.raises(ZeroDivisionError):
        take_turn(lambda: bool(1 / 0), alone=alone)
    assert take_turn(batches(clock, 1, 60.0), alone=alone)
