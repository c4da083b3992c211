"""Attempts that become due shortly after each other are claimed together. A call without company waits for none."""

import pytest

from scheduler.lifecycle.policy import BUSY_PER_S, ENOUGH, LONGEST_S, SHORT_S, claim_at

FIRST = 1000.0


def due_every(seconds: float, count: int = 100) -> list[float]:
    return [FIRST + place * seconds for place in range(count)]


def test_single_call_is_claimed_when_it_is_due() -> None:
    assert claim_at([FIRST]) == FIRST


def test_calls_due_at_the_same_time_wait_for_no_other() -> None:
    assert claim_at([FIRST] * ENOUGH + due_every(0.001)[1:]) == FIRST


def test_calls_at_a_low_rate_wait_for_no_other() -> None:
    assert claim_at(due_every(1 / 20)) == FIRST


def test_call_waits_for_one_due_right_after_it() -> None:
    assert claim_at([FIRST, FIRST + SHORT_S, FIRST + 2 * SHORT_S]) == FIRST + SHORT_S


def test_call_at_a_low_rate_waits_for_none_due_later() -> None:
    assert claim_at([FIRST, FIRST + SHORT_S + 0.001]) == FIRST


@pytest.mark.parametrize("rate", [BUSY_PER_S, 50, 100, 200])
def test_calls_at_a_busy_rate_wait_for_each_other(rate: int) -> None:
    due_at = due_every(1 / rate)
    last = claim_at(due_at)
    assert FIRST < last <= FIRST + LONGEST_S
    assert sum(each <= last for each in due_at) == min(ENOUGH, int(LONGEST_S * rate + 1e-6) + 1)


def test_wait_ends_with_the_last_call_worth_waiting_for() -> None:
    """A longer wait would delay these calls and gain none."""
    others = due_every(0.001)
    due_at = [FIRST, FIRST + 0.01, *(each + LONGEST_S + 0.001 for each in others)]
    assert claim_at(due_at) == FIRST + 0.01


def test_rate_just_below_busy_does_not_wait() -> None:
    assert claim_at(due_every(1 / (BUSY_PER_S - 3))) == FIRST


def test_enough_calls_wait_for_no_more() -> None:
    due_at = due_every(0.001)
    assert claim_at(due_at) == due_at[ENOUGH - 1]


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.001, 0.004, 0.02, 0.025, 0.05, 3.0])
def test_nothing_is_claimed_before_it_is_due_or_too_late(seconds: float) -> None:
    assert FIRST <= claim_at(due_every(seconds)) <= FIRST + LONGEST_S
