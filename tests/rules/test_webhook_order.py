"""Order of deliveries: an event waits for the earlier ones of its interview, for at most a minute of failures."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.rules.webhooks import WAITS_AT_MOST, QueuedDelivery, blocked_until, sendable
from tests.conftest import NOON

SECOND = timedelta(seconds=1)


def waiting(sequence: int, **given: Any) -> QueuedDelivery:
    return replace(QueuedDelivery(sequence=sequence, send_at=NOON), **given)


def sequences(deliveries: list[QueuedDelivery]) -> list[int]:
    return [each.sequence for each in sendable(deliveries, NOON)]


def test_only_the_first_is_sent() -> None:
    assert sequences([waiting(3), waiting(1), waiting(2)]) == [1]


@pytest.mark.parametrize(
    "first",
    [
        waiting(1, is_waiting=False),
        waiting(1, first_failed_at=NOON - WAITS_AT_MOST, send_at=NOON + SECOND),
        waiting(1, is_replay=True, send_at=NOON + SECOND),
    ],
    ids=["it is over", "it has failed for a minute", "it is a replay"],
)
def test_next_does_not_wait(first: QueuedDelivery) -> None:
    assert sequences([first, waiting(2)]) == [2]


@pytest.mark.parametrize(
    "first",
    [
        waiting(1, send_at=NOON + SECOND),
        waiting(1, lease_until=NOON + SECOND),
        waiting(1, first_failed_at=NOON - WAITS_AT_MOST + SECOND, send_at=NOON + SECOND),
        waiting(1, first_failed_at=NOON - WAITS_AT_MOST + SECOND, lease_until=NOON + SECOND),
    ],
    ids=["it is not due", "it is being sent", "it failed just now", "it is tried again"],
)
def test_next_waits(first: QueuedDelivery) -> None:
    assert sequences([first, waiting(2)]) == []


def test_replay_waits_for_none() -> None:
    assert sequences([waiting(1, lease_until=NOON + SECOND), waiting(2, is_replay=True)]) == [2]


def test_lease_that_ended_does_not_keep_a_delivery_back() -> None:
    assert sequences([waiting(1, lease_until=NOON)]) == [1]


def test_end_of_a_block_is_known_after_a_failure() -> None:
    first, second = waiting(1, first_failed_at=NOON - SECOND), waiting(2)
    assert blocked_until(second, [first, second], NOON) == NOON - SECOND + WAITS_AT_MOST
    assert blocked_until(first, [first, second], NOON) is None
    never = blocked_until(second, [waiting(1), second], NOON)
    assert never is not None
    assert never.year == 9999


TIMES = st.timedeltas(-timedelta(minutes=3), timedelta(minutes=3)).map(lambda span: NOON + span)
DELIVERIES = st.lists(
    st.builds(
        QueuedDelivery,
        sequence=st.integers(1, 9),
        is_waiting=st.booleans(),
        first_failed_at=st.none() | TIMES.filter(lambda at: at <= NOON),
        send_at=TIMES,
        lease_until=st.none() | TIMES,
        is_replay=st.booleans(),
    ),
    max_size=9,
    unique_by=lambda each: each.sequence,
)


@given(deliveries=DELIVERIES)
def test_what_is_sent_waits_for_no_earlier_one(deliveries: list[QueuedDelivery]) -> None:
    chosen = sendable(deliveries, NOON)
    assert [each.sequence for each in chosen] == sorted(each.sequence for each in chosen)
    for each in chosen:
        assert each.is_waiting
        assert each.send_at <= NOON
        earlier = [other for other in deliveries if other.sequence < each.sequence]
        assert each.is_replay or all(
            not other.is_waiting
            or other.is_replay
            or (other.first_failed_at is not None and NOON - other.first_failed_at >= WAITS_AT_MOST)
            for other in earlier
        )


@given(deliveries=DELIVERIES)
def test_first_waiting_one_is_never_stuck(deliveries: list[QueuedDelivery]) -> None:
    ordered = [each for each in deliveries if each.is_waiting and not each.is_replay]
    if ordered:
        first = min(ordered, key=lambda each: each.sequence)
        at = max(first.send_at, first.lease_until or first.send_at)
        assert first in sendable(deliveries, at)


@given(deliveries=DELIVERIES)
def test_receiver_that_accepts_gets_all_in_order(deliveries: list[QueuedDelivery]) -> None:
    left = [replace(each, is_replay=False, first_failed_at=None) for each in deliveries]
    now, sent = NOON, []
    for _ in range(500):
        due = sendable(left, now)
        for each in due:
            sent.append(each.sequence)
            left[left.index(each)] = replace(each, is_waiting=False)
        now += SECOND * 5
    assert sent == sorted(each.sequence for each in deliveries if each.is_waiting)
