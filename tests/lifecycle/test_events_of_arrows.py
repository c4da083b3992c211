"""Partner events: each arrow of the state machine is reported by these types, or is not reported for a reason."""

import ast
import re
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from scheduler.domain import attempt as events
from scheduler.domain.attempt import Attempt, AttemptState, Decision, Event, Reason
from scheduler.domain.batch import Batch, BatchState
from scheduler.domain.call import AnsweredBy, CallProgress
from scheduler.domain.command import Command, CommandKind
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import AgentFocus, AgentType, Interview, InterviewStatus
from scheduler.domain.webhook import DisabledCause, EventType, NewEvent, OwnersEvent
from scheduler.lifecycle import partner_events
from scheduler.lifecycle.partner_events import NOT_REPORTED
from scheduler.lifecycle.state_machine import ARROWS, Arrow, arrow_of, evolve
from tests.architecture.sources import PRODUCT
from tests.conftest import NOON
from tests.lifecycle.lifecycle_setup import pending
from tests.lifecycle.test_state_machine import LATER, SCHEDULE, an_attempt, one_of_each

REPORTED = {
    "created": {"call_attempt.scheduled"},
    "created_as_test": {"call_attempt.ended"},
    "deferred": {"call_attempt.rescheduled"},
    "not_placed": {"call_attempt.rescheduled"},
    "never_dialled": {"call_attempt.rescheduled"},
    "placed": {"call_attempt.started", "interview.started"},
    "answer_lost": {"call_attempt.started", "interview.started"},
    "progressed": {"call_attempt.answered"},
    "ended": {"call_attempt.ended"},
    "proof_missing": {"call_attempt.unknown"},
    "proven": {"call_attempt.proven"},
    "expired": {"call_attempt.expired"},
    "consent_ended": {"call_attempt.expired"},
    "cancelled": {"call_attempt.cancelled"},
    "rescheduled": {"call_attempt.rescheduled"},
    "moved_by_settings": {"call_attempt.rescheduled"},
    "decided": {"call_attempt.decided"},
    "reported": {"call_attempt.reported"},
}
"""The types that report each event of an attempt. All other events are in NOT_REPORTED."""
AGAIN_UNKNOWN = ("proof_missing", AttemptState.FAILED)
"""The only arrow of a reported event that is not reported: a call that was found late has disappeared again."""


def reported(before: Attempt | None, event: Event) -> tuple[NewEvent, ...]:
    after = pending() if before is None else evolve(before, event, NOON)
    return partner_events.of_attempt(before, after, event)


def test_every_event_is_mapped_or_listed_with_a_reason() -> None:
    assert {each.name for each in NOT_REPORTED} | REPORTED.keys() == {arrow.event for arrow in ARROWS}
    assert not {each.name for each in NOT_REPORTED} & REPORTED.keys()
    assert all(NOT_REPORTED.values())


@pytest.mark.parametrize("arrow", ARROWS, ids=lambda arrow: f"{arrow.event} {arrow.source} {arrow.reason or ''}")
def test_arrow_is_reported_by_its_types(arrow: Arrow) -> None:
    keeps_its_reason = (
        arrow.event in {"deleted", "hang_up_wanted", "reported"} or arrow.source is AttemptState.COMPLETED
    )
    source_reason = arrow.reason if keeps_its_reason else Reason.OUTCOME_UNKNOWN
    source_reason = source_reason if arrow.source not in {None, "PENDING", "IN_PROGRESS"} else None
    before = None if arrow.source is None else an_attempt(arrow.source, source_reason)
    [event] = [
        each
        for each in one_of_each()
        if each.name == arrow.event and getattr(each, "reason", None) in {arrow.reason, None, "a test"}
    ]
    if isinstance(event, events.Progressed):
        event = replace(event, rank=CallProgress.ANSWERED)
    if isinstance(event, events.Rescheduled):
        event = replace(event, schedule=replace(SCHEDULE, due_at=LATER))
    if isinstance(event, events.Decided) and before is not None:
        before = replace(before, look_at=None)
    assert arrow_of(before, event) == arrow
    expected = set() if (arrow.event, arrow.source) == AGAIN_UNKNOWN else REPORTED.get(arrow.event, set())
    assert {each.type.value for each in reported(before, event)} == expected


ID = uuid4()
INTERVIEW = Interview(
    id=ID,
    company_id=ID,
    candidate_id=ID,
    agent_id=ID,
    type=AgentType.ONLINE,
    focus=AgentFocus.GENERIC,
    duration=timedelta(minutes=10),
    status=InterviewStatus.SCHEDULED,
    expires_at=LATER,
    created_at=NOON,
    updated_at=NOON,
)
COMMAND = Command(
    id=ID,
    kind=CommandKind.CREATE_INTERVIEW,
    principal_id=ID,
    company_id=ID,
    idempotency_key=None,
    request_hash=b"hash",
    received_at=NOON,
)
BATCH = Batch(
    id=ID,
    company_id=ID,
    principal_id=ID,
    key_id=ID,
    state=BatchState.COMPLETED,
    total=0,
    created_at=NOON,
    updated_at=NOON,
)
RAISED_BY: dict[str, tuple[NewEvent | OwnersEvent, ...]] = {
    "of_attempt": partner_events.of_attempt(None, pending(), events.Created(), retry_of=ID),
    "of_new_interview": partner_events.of_new_interview(INTERVIEW),
    "of_interview": tuple(
        event
        for status in (InterviewStatus.COMPLETED, InterviewStatus.FAILED, InterviewStatus.CANCELLED)
        for event in partner_events.of_interview(INTERVIEW, replace(INTERVIEW, status=status), NOON)
    ),
    "of_command": (partner_events.of_command(COMMAND, ID, None, NOON),),
    "of_result": (partner_events.of_result(ID, ID, None, "A_CODE", NOON),),
    "of_finished_batch": (partner_events.of_finished_batch(BATCH, NOON),),
    "of_pause": (partner_events.of_pause(ID, Rule.COMPANY_PAUSED, NOON),),
    "of_resumption": (partner_events.of_resumption(ID, Rule.COMPANY_PAUSED, NOON),),
    "of_deletion": (partner_events.of_deletion(ID, NOON),),
    "of_test": (partner_events.of_test(ID),),
    "of_disabled": (partner_events.of_disabled(ID, None, DisabledCause.GONE),),
}
"""Events that each function of `partner_events` builds. Events of attempts are also in REPORTED."""


def test_every_type_is_raised_by_a_function_that_is_called() -> None:
    """So a type that nothing sends cannot be added: the product uses what each function builds."""
    raised = {event.type.value for each in RAISED_BY.values() for event in each}
    assert raised.union(*REPORTED.values()) == {*EventType}
    assert RAISED_BY.keys() == {name for name in vars(partner_events) if name.startswith("of_")}
    sources = [path.read_text(encoding="utf-8") for path in PRODUCT if path.name != "partner_events.py"]
    assert [name for name in RAISED_BY if not any(f"partner_events.{name}" in text for text in sources)] == []
    assert [call for text in sources for call in _calls_without_use(text)] == []
    assert [text[:80] for text in sources if re.search(r"\b(NewEvent|OwnersEvent)\(", text)] == []


def _calls_without_use(source: str) -> list[str]:
    """Find calls of the module's functions that are a statement of their own, so that the event is lost."""
    if "partner_events.of_" not in source:
        return []
    alone = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr))
    calls = (ast.unparse(value) for value in alone if isinstance(value, ast.Call))
    return [call for call in calls if call.startswith("partner_events.of_")]


def test_call_whose_event_is_lost_is_found() -> None:
    lost = "if due:\n    partner_events.of_test(each.id)"
    assert _calls_without_use(lost) == ["partner_events.of_test(each.id)"]
    assert _calls_without_use("note([partner_events.of_test(each.id)])") == []


def test_call_is_reported_as_started_only_once() -> None:
    dialling = an_attempt(AttemptState.IN_PROGRESS)
    lost = events.AnswerLost(look_at=LATER, cause="A_TEST")
    assert [each.type for each in reported(dialling, lost)] == [
        EventType.ATTEMPT_STARTED,
        EventType.INTERVIEW_STARTED,
    ]
    unknown = evolve(dialling, lost, NOON)
    assert reported(unknown, events.Placed(call_sid="CA1", look_at=LATER)) == ()


@pytest.mark.parametrize(
    ("heard", "rank", "by", "is_reported"),
    [
        pytest.param(CallProgress.RINGING, CallProgress.ANSWERED, None, True, id="answered"),
        pytest.param(CallProgress.RINGING, CallProgress.ANSWERED, AnsweredBy.UNKNOWN, True, id="by an unknown party"),
        pytest.param(CallProgress.RINGING, CallProgress.ANSWERED, AnsweredBy.MACHINE, False, id="by a machine"),
        pytest.param(CallProgress.NOTHING, CallProgress.RINGING, None, False, id="rings"),
        pytest.param(CallProgress.ANSWERED, CallProgress.ANSWERED, AnsweredBy.PERSON, False, id="answered before"),
    ],
)
def test_answer_is_reported_once_and_not_for_machines(
    heard: CallProgress, rank: CallProgress, by: AnsweredBy | None, *, is_reported: bool
) -> None:
    before = replace(an_attempt(AttemptState.IN_PROGRESS), heard_rank=heard)
    assert bool(reported(before, events.Progressed(rank=rank, answered_by=by))) == is_reported


def test_short_deferral_is_not_reported() -> None:
    claimed = an_attempt(AttemptState.IN_PROGRESS)
    soon, later = (events.Deferred(due_at=NOON + timedelta(seconds=each), cause="PAUSED") for each in (59, 60))
    assert reported(claimed, soon) == ()
    [moved] = reported(claimed, later)
    assert moved.data["by"] == "DEFERRAL"
    assert moved.data["dueAt"] == (NOON + timedelta(seconds=60)).isoformat().replace("+00:00", "Z")


def test_claim_is_not_reported() -> None:
    assert reported(an_attempt(), events.Claimed(token="new", lease_until=LATER)) == ()


def test_retry_is_reported_for_the_attempt_that_ended() -> None:
    ended, retry = uuid4(), replace(pending(), retry_number=1)
    [event] = partner_events.of_attempt(None, retry, events.Created(), retry_of=ended)
    assert event.type is EventType.ATTEMPT_RETRY_SCHEDULED
    assert event.attempt_id == ended
    assert event.data["nextAttemptId"] == str(retry.id)
    assert event.data["retryNumber"] == 1


def test_words_of_an_operator_are_not_reported() -> None:
    before = replace(an_attempt(AttemptState.FAILED, Reason.OUTCOME_UNKNOWN), look_at=None)
    [event] = reported(before, events.Decided(decision=Decision.RANG, reason="Ada said so"))
    assert event.data["decision"] == "RANG"
    assert "Ada" not in str(event)
