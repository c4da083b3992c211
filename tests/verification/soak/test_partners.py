"""The judgement of partners reports each event that is missing, repeated under another id or out of order."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.verification.soak.partners import Message, Owed, missing, out_of_order

ATTEMPT, RETRY, INTERVIEW, COMMAND = "an attempt", "its retry", "an interview", "a command"
OWED = Owed(
    history=[(ATTEMPT, "created"), (ATTEMPT, "placed"), (ATTEMPT, "ended"), (RETRY, "created"), (RETRY, "cancelled")],
    new_attempts=[(ATTEMPT, False), (RETRY, True)],
    interviews=[(INTERVIEW, "CANCELLED")],
    commands=[COMMAND],
)


def a_message(sequence: int, type_: str, **data: Any) -> Message:
    body = {"type": type_, "sequence": sequence, "data": {"interviewId": INTERVIEW, **data}}
    return Message(endpoint="well", id=f"event {sequence}", body=body, at_s=float(sequence), accepted=True)


ALL = (
    a_message(1, "interview.scheduled"),
    a_message(2, "call_attempt.scheduled", callAttemptId=ATTEMPT),
    a_message(3, "command.applied", commandId=COMMAND),
    a_message(4, "call_attempt.started", callAttemptId=ATTEMPT),
    a_message(5, "call_attempt.ended", callAttemptId=ATTEMPT),
    a_message(6, "call_attempt.retry_scheduled", callAttemptId=ATTEMPT, nextAttemptId=RETRY),
    a_message(7, "call_attempt.cancelled", callAttemptId=RETRY),
    a_message(8, "interview.cancelled"),
)


def failed(message: Message, at_s: float) -> Message:
    return replace(message, at_s=at_s, accepted=False)


def test_complete_messages_have_no_fault() -> None:
    assert not list(missing(OWED, ALL))
    assert not list(out_of_order(ALL))


@pytest.mark.parametrize("left_out", range(len(ALL)))
def test_each_missing_event_is_reported(left_out: int) -> None:
    rest = [each for place, each in enumerate(ALL) if place != left_out]
    assert list(missing(OWED, rest))
    assert list(missing(OWED, [*rest, failed(ALL[left_out], 9.0)]))


def test_same_event_under_two_ids_is_reported() -> None:
    assert list(missing(OWED, [*ALL, a_message(9, "call_attempt.ended", callAttemptId=ATTEMPT)]))


def test_repetition_with_the_same_id_is_not_a_fault() -> None:
    again = [*ALL, replace(ALL[1], at_s=20.0), replace(ALL[7], at_s=21.0)]
    assert not list(missing(OWED, again))
    assert not list(out_of_order(again))


@pytest.mark.parametrize(
    ("tries", "is_fault"),
    [
        ([replace(ALL[1], at_s=1.0), replace(ALL[0], at_s=2.0)], True),
        ([failed(ALL[0], 1.0), replace(ALL[1], at_s=2.0), replace(ALL[0], at_s=6.0)], True),
        ([failed(ALL[0], 1.0), replace(ALL[0], at_s=6.0), replace(ALL[1], at_s=6.5)], False),
        ([failed(ALL[0], 1.0), replace(ALL[1], at_s=61.0), replace(ALL[0], at_s=301.0)], False),
        ([replace(ALL[1], at_s=1.0)], True),
    ],
)
def test_order_of_an_interview_is_judged(tries: Sequence[Message], is_fault: bool) -> None:
    assert bool(list(out_of_order(tries))) is is_fault
