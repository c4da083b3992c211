"""Hints for callbacks share messages: soon after a pause, and five times a second under load."""

from uuid import UUID, uuid4

import pytest

from scheduler.lifecycle.policy import COMMANDS_A_TRANSACTION
from scheduler.use_cases.shared.hints import APPLY, DIAL, HEAR, SETTLE
from workers.hints import (
    BATCH_S,
    INTERVAL_S,
    LARGEST,
    HintBatch,
    Later,
    LaterHints,
    Message,
    Notification,
    Published,
    joined,
)


def some(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


def test_first_hint_after_a_pause_waits_briefly() -> None:
    batch, ids = HintBatch(), some(2)
    assert batch.wait_s(100.0) is None
    batch.add(ids[:1], 100.0)
    batch.add(ids[1:], 100.0 + BATCH_S / 2)
    assert batch.wait_s(100.0) == pytest.approx(BATCH_S)
    assert batch.wait_s(100.0 + 2 * BATCH_S) == 0
    assert batch.take(100.0 + BATCH_S) == tuple(ids)
    assert batch.wait_s(100.0 + BATCH_S) is None


def test_next_message_follows_after_an_interval() -> None:
    batch, later = HintBatch(), some(3)
    batch.add(some(1), 100.0)
    batch.take(200.0)
    batch.add(later[:2], 200.0 + BATCH_S)
    batch.add(later[2:], 200.0 + 2 * BATCH_S)
    assert batch.wait_s(200.0) == pytest.approx(INTERVAL_S)
    assert batch.take(200.0 + INTERVAL_S) == tuple(later)
    batch.add(some(1), 300.0)
    assert batch.wait_s(300.0) == pytest.approx(BATCH_S), "a pause has passed"


def test_full_batch_does_not_wait() -> None:
    batch, ids = HintBatch(), some(LARGEST + 1)
    batch.take(100.0)
    batch.add(ids, 100.0)
    assert batch.wait_s(100.0) == 0
    assert batch.take(100.0) == tuple(ids[:LARGEST])
    assert batch.wait_s(100.0) == pytest.approx(INTERVAL_S), "the rest is no full batch"
    assert batch.take(100.0) == tuple(ids[LARGEST:])


def test_cleared_batch_has_no_message() -> None:
    batch = HintBatch()
    batch.add(some(1), 100.0)
    batch.clear()
    assert batch.wait_s(200.0) is None
    assert batch.take(200.0) == ()


def test_waiting_command_hints_share_a_message_in_order() -> None:
    first, second, third = ([each] for each in some(3))
    waiting = [Message(task=APPLY, ids=tuple(each)) for each in (first, second, third)]
    assert joined(waiting) == [Message(task=APPLY, ids=(*first, *second, *third))]


def test_message_joins_no_other_task_and_none_before_it() -> None:
    one, two, three, four, five, six = ((each,) for each in some(6))
    waiting: list[Published] = [
        Message(task=APPLY, ids=one),
        Notification(ids=two),
        Notification(ids=three),
        Message(task=APPLY, ids=four),
        Message(task=DIAL, ids=five),
        Message(task=APPLY, ids=six),
    ]
    assert joined(waiting) == [waiting[0], Notification(ids=(*two, *three)), *waiting[3:]]


@pytest.mark.parametrize("task", [DIAL, SETTLE])
def test_hints_of_other_tasks_share_no_message(task: str) -> None:
    waiting = [Message(task=task, ids=(each,)) for each in some(2)]
    assert joined(waiting) == waiting


def test_command_hints_of_a_message_fit_in_a_transaction() -> None:
    ids = some(COMMANDS_A_TRANSACTION + 1)
    sizes = [len(each.ids) for each in joined(Message(task=APPLY, ids=(each,)) for each in ids)]
    assert sizes == [COMMANDS_A_TRANSACTION, 1]


def test_later_hints_wait_for_their_instants() -> None:
    later, (first, second) = LaterHints(), some(2)
    later.add(Later(task=APPLY, ids=(first, second), due_at=100.5))
    later.add(Later(task=HEAR, ids=(first,), due_at=101.0))
    assert later.wait_s(100.0) == pytest.approx(0.5)
    assert later.take(100.0) == []
    assert later.take(100.5) == [Message(task=APPLY, ids=(first, second))]
    assert later.take(200.0) == [Message(task=HEAR, ids=(first,))]
    assert later.wait_s(200.0) is None


def test_later_hint_that_waits_is_not_added_again() -> None:
    """Each worker and each hint of the clock may put off the same command."""
    later, [command] = LaterHints(), some(1)
    for due_at in (100.5, 100.9, 100.2):
        later.add(Later(task=APPLY, ids=(command,), due_at=due_at))
    assert later.take(100.5) == [Message(task=APPLY, ids=(command,))]
    assert later.take(200.0) == []


def test_later_hints_share_messages_up_to_a_transaction() -> None:
    later, ids = LaterHints(), some(COMMANDS_A_TRANSACTION + 1)
    later.add(Later(task=APPLY, ids=tuple(ids), due_at=100.0))
    assert [len(each.ids) for each in later.take(100.0)] == [COMMANDS_A_TRANSACTION, 1]
