"""The state machine allows exactly the listed arrows, and the database has the same list."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import product
from uuid import UUID, uuid4

import psycopg
import pytest

from scheduler.domain import attempt as events
from scheduler.domain.attempt import (
    Attempt,
    AttemptState,
    ConversationOutcome,
    Decision,
    Event,
    HangUpCause,
    Phase,
    Reason,
)
from scheduler.domain.call import AnsweredBy, CallProgress
from scheduler.lifecycle.state_machine import (
    ARROWS,
    CALL_ENDS,
    ENDS,
    MAY_HAVE_BEEN_ANSWERED,
    REFUSALS,
    Arrow,
    NoSuchArrow,
    arrow_of,
    evolve,
    is_busy,
    is_over,
)
from tests.architecture.guards import guards
from tests.conftest import NOON
from tests.lifecycle.lifecycle_setup import pending

LATER = NOON + timedelta(minutes=1)
SCHEDULE = pending().schedule
OVER = (AttemptState.COMPLETED, AttemptState.FAILED, AttemptState.CANCELLED)


def an_attempt(state: AttemptState = AttemptState.PENDING, reason: Reason | None = None) -> Attempt:
    """Build an attempt in that state, with the values that the state requires."""
    plain = pending(state=state, reason=reason)
    if state is AttemptState.IN_PROGRESS:
        return replace(plain, phase=Phase.DIALLING, token="token", claimed_at=NOON, lease_until=LATER, epoch=1)
    if reason is Reason.OUTCOME_UNKNOWN:  # with a live call, so that every possible event is allowed
        plain = replace(plain, call_sid="CA1", look_at=LATER)
    if reason is Reason.ANSWERED:  # and its outcome is awaited
        plain = replace(plain, outcome_until=LATER)
    return replace(plain, ended_at=NOON if state in OVER else None)


def one_of_each() -> Iterator[Event]:
    """Yield one event of each kind, and one for each reason if it has reasons."""
    yield from (
        events.Created(),
        events.CreatedAsTest(),
        events.Claimed(token="new", lease_until=LATER),
        events.Deferred(due_at=LATER, cause="A_TEST"),
        events.NotPlaced(due_at=LATER, cause="A_TEST"),
        events.Placed(call_sid="CA1", look_at=LATER),
        events.AnswerLost(look_at=LATER, cause="A_TEST"),
        events.Progressed(rank=CallProgress.RINGING),
        events.VerdictHeard(answered_by=AnsweredBy.MACHINE),
        events.VerdictAwaited(call_sid="CA1", look_at=LATER),
        events.CauseAwaited(sip_code=603, look_at=LATER),
        events.ProofMissing(),
        events.Expired(),
        events.ConsentEnded(),
        events.Rescheduled(schedule=SCHEDULE, expires_at=LATER),
        events.MovedBySettings(schedule=SCHEDULE, due_at=LATER),
        events.ExpiryMoved(expires_at=LATER),
        events.HangUpWanted(cause=HangUpCause.QUEUED_PAST_CLOSING),
        events.NeverDialled(due_at=LATER, call_sid="CA1"),
        events.LegSeen(call_sid="CA1", rank=CallProgress.RINGING, look_at=LATER),
        events.Decided(decision=Decision.RANG, reason="a test"),
        events.Deleted(),
        events.Reported(outcome=ConversationOutcome.OPTED_OUT),
        events.OutcomeAwaited(until=LATER),
        events.NotReported(),
    )
    for reason in Reason:
        yield events.Ended(reason=reason, ended_at=LATER)
        yield events.Proven(reason=reason, call_sid="CA1", ended_at=LATER)
        yield events.Cancelled(reason=reason)


def standings() -> Iterator[tuple[AttemptState | None, Reason | None]]:
    """Yield every state of an attempt, with its reasons: not created, pending, in progress or ended."""
    yield None, None
    yield AttemptState.PENDING, None
    yield AttemptState.IN_PROGRESS, None
    yield AttemptState.COMPLETED, Reason.ANSWERED
    yield AttemptState.COMPLETED, Reason.TEST
    yield from ((AttemptState.FAILED, reason) for reason in CALL_ENDS if CALL_ENDS[reason] is AttemptState.FAILED)
    yield AttemptState.FAILED, Reason.OUTCOME_UNKNOWN
    yield AttemptState.FAILED, Reason.EXPIRED
    yield AttemptState.FAILED, Reason.CONSENT_EXPIRED
    yield from ((AttemptState.CANCELLED, Reason(reason)) for reason in CANCELLATIONS)


CANCELLATIONS = ("CANCELLED_BY_USER", "REPLACED", "INTERVIEW_DELETED", "CANDIDATE_DELETED", "COMPANY_DELETED")

CONTRACT = {
    ("created", None): {("PENDING", None)},
    ("created_as_test", None): {("COMPLETED", "TEST")},
    ("claimed", "PENDING"): {("IN_PROGRESS", None)},
    ("cancelled", "PENDING"): {("CANCELLED", reason) for reason in CANCELLATIONS},
    ("expired", "PENDING"): {("FAILED", "EXPIRED")},
    ("consent_ended", "PENDING"): {("FAILED", "CONSENT_EXPIRED")},
    ("deferred", "IN_PROGRESS"): {("PENDING", None)},
    ("not_placed", "IN_PROGRESS"): {("PENDING", None)},
    ("placed", "IN_PROGRESS"): {("IN_PROGRESS", None)},
    ("answer_lost", "IN_PROGRESS"): {("IN_PROGRESS", None)},
    ("progressed", "IN_PROGRESS"): {("IN_PROGRESS", None)},
    ("cancelled", "IN_PROGRESS"): {("CANCELLED", "COMPANY_DELETED")},
    # Who answered comes as news of its own, before or after the end of the call.
    ("verdict_heard", "IN_PROGRESS"): {("IN_PROGRESS", None)},
    ("verdict_awaited", "IN_PROGRESS"): {("IN_PROGRESS", None)},
    # The cause of a failure comes from a poll.
    ("cause_awaited", "IN_PROGRESS"): {("IN_PROGRESS", None)},
    ("verdict_heard", "FAILED"): {("FAILED", "OUTCOME_UNKNOWN")},
    ("verdict_awaited", "FAILED"): {("FAILED", "OUTCOME_UNKNOWN")},
    ("proof_missing", "IN_PROGRESS"): {("FAILED", "OUTCOME_UNKNOWN")},
    # Moved, or found live: the state does not change, but the history records it.
    ("rescheduled", "PENDING"): {("PENDING", None)},
    ("moved_by_settings", "PENDING"): {("PENDING", None)},
    ("expiry_moved", "PENDING"): {("PENDING", None)},
    ("hang_up_wanted", "IN_PROGRESS"): {("IN_PROGRESS", None)},
    ("hang_up_wanted", "FAILED"): {("FAILED", "OUTCOME_UNKNOWN")},
    ("never_dialled", "IN_PROGRESS"): {("PENDING", None)},
    ("leg_seen", "FAILED"): {("FAILED", "OUTCOME_UNKNOWN")},
    ("proof_missing", "FAILED"): {("FAILED", "OUTCOME_UNKNOWN")},
    ("decided", "FAILED"): {("FAILED", "OUTCOME_UNKNOWN")},
    ("reported", "IN_PROGRESS"): {("IN_PROGRESS", None)},
    ("reported", "COMPLETED"): {("COMPLETED", "ANSWERED")},
    # A refusal of the number is noted after any call that may have reached a person.
    ("reported", "FAILED"): {
        ("FAILED", "VOICEMAIL"),
        ("FAILED", "INSTRUCTIONS_FAILED"),
        ("FAILED", "OUTCOME_UNKNOWN"),
    },
    ("outcome_awaited", "COMPLETED"): {("COMPLETED", "ANSWERED")},
    ("not_reported", "COMPLETED"): {("COMPLETED", "ANSWERED")},
}
FAILURES = (
    *("BUSY", "NO_ANSWER", "VOICEMAIL", "DECLINED", "INVALID_NUMBER", "CARRIER_ERROR", "CANCELLED_AT_CARRIER"),
    *("BLOCKED_BY_NETWORK", "UNREACHABLE", "INSTRUCTIONS_FAILED"),
)
HOW_CALLS_END = {("COMPLETED", "ANSWERED"), *(("FAILED", reason) for reason in FAILURES)}
CONTRACT |= {
    ("ended", "IN_PROGRESS"): HOW_CALLS_END,
    ("proven", "FAILED"): HOW_CALLS_END,
    ("deleted", "COMPLETED"): {("COMPLETED", "ANSWERED"), ("COMPLETED", "TEST")},
    ("deleted", "CANCELLED"): {("CANCELLED", reason) for reason in CANCELLATIONS},
    ("deleted", "FAILED"): {
        ("FAILED", reason) for reason in (*FAILURES, "OUTCOME_UNKNOWN", "EXPIRED", "CONSENT_EXPIRED")
    },
}
"""The contract's table of states, copied by hand."""


def test_the_arrows_are_those_of_the_contract() -> None:
    drawn: dict[tuple[str, str | None], set[tuple[str, str | None]]] = {}
    for arrow in ARROWS:
        source = arrow.source.value if arrow.source else None
        drawn.setdefault((arrow.event, source), set()).add(
            (arrow.target.value, arrow.reason.value if arrow.reason else None)
        )
    assert drawn == CONTRACT
    assert len(ARROWS) == len(set(ARROWS)), "no arrow is listed twice"


def test_the_database_has_the_same_arrows(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        rows = set(connection.execute("SELECT event, from_state, to_state, reason FROM arrows").fetchall())
    assert rows == {(arrow.event, arrow.source or "", arrow.target.value, arrow.reason or "") for arrow in ARROWS}


def allowed(state: AttemptState | None, reason: Reason | None, event: Event) -> Arrow | None:
    """Find the arrow of an event from a state in the list itself."""
    keeps = isinstance(event, events.Deleted | events.Reported)
    if state is AttemptState.FAILED and reason is not Reason.OUTCOME_UNKNOWN and not keeps:
        return None
    if reason is Reason.TEST and not isinstance(event, events.Deleted):
        return None
    # The reason of a decision is an operator's text.
    wanted = reason if keeps else None if isinstance(event, events.Decided) else getattr(event, "reason", None)
    found = [
        arrow
        for arrow in ARROWS
        if (arrow.event, arrow.source) == (event.name, state) and (wanted is None or arrow.reason is wanted)
    ]
    assert len(found) <= 1
    return found[0] if found else None


PAIRS = list(product(standings(), one_of_each()))


def test_every_arrow_is_taken_and_every_other_pair_is_refused() -> None:
    taken = set()
    for (state, reason), event in PAIRS:
        attempt = None if state is None else an_attempt(state, reason)
        if attempt is not None and isinstance(event, events.Decided):
            attempt = replace(attempt, look_at=None)  # a live call forbids only this event
        arrow = allowed(state, reason, event)
        if arrow is None:
            with pytest.raises(NoSuchArrow):
                arrow_of(attempt, event)
            continue
        taken.add(arrow)
        assert arrow_of(attempt, event) == arrow
        if attempt is not None:
            moved = evolve(attempt, event, LATER)
            assert (moved.state, moved.reason) == (arrow.target, arrow.reason)
            assert (moved.epoch, moved.updated_at) == (attempt.epoch + 1, LATER)
    assert taken == set(ARROWS)


@pytest.mark.parametrize(("state", "reason"), [pair for pair in standings() if pair[0] in OVER], ids=str)
def test_end_state_changes_only_by_proof_of_an_unknown_outcome(state: AttemptState, reason: Reason) -> None:
    over = an_attempt(state, reason)
    ways_out = set()
    for event in one_of_each():
        try:
            after = evolve(over, event, LATER)
        except NoSuchArrow:
            continue
        if (after.state, after.reason) != (state, reason):
            ways_out.add(type(event))
    assert ways_out == ({events.Proven} if reason is Reason.OUTCOME_UNKNOWN else set())


def test_unknown_outcome_is_hung_up_only_after_its_call_is_found() -> None:
    seen = an_attempt(AttemptState.FAILED, Reason.OUTCOME_UNKNOWN)
    wanted = events.HangUpWanted(cause=HangUpCause.COMPANY_DELETED)
    assert evolve(seen, wanted, NOON).hang_up is HangUpCause.COMPANY_DELETED
    for nothing_to_end in (replace(seen, look_at=None), an_attempt(), an_attempt(AttemptState.FAILED, Reason.BUSY)):
        with pytest.raises(NoSuchArrow):
            evolve(nothing_to_end, wanted, NOON)


def test_decision_is_possible_once_and_not_during_a_call() -> None:
    unknown = replace(an_attempt(AttemptState.FAILED, Reason.OUTCOME_UNKNOWN), look_at=None, search_at=LATER)
    decided = evolve(unknown, events.Decided(decision=Decision.LEFT, reason="a test"), LATER)
    assert (decided.decision, decided.decided_at, decided.search_at) == (Decision.LEFT, LATER, LATER)
    for no_decision in (decided, replace(unknown, look_at=LATER)):
        with pytest.raises(NoSuchArrow):
            evolve(no_decision, events.Decided(decision=Decision.RANG, reason="a test"), LATER)


@pytest.mark.parametrize("decision", Decision)
def test_late_proof_replaces_each_decision(decision: Decision) -> None:
    unknown = replace(an_attempt(AttemptState.FAILED, Reason.OUTCOME_UNKNOWN), look_at=None, call_sid=None)
    decided = evolve(unknown, events.Decided(decision=decision, reason="a test"), NOON)
    for reason, state in CALL_ENDS.items():
        proven = evolve(decided, events.Proven(reason=reason, call_sid="CA1", ended_at=LATER), LATER)
        assert (proven.state, proven.reason) == (state, reason)
    seen = evolve(decided, events.LegSeen(call_sid="CA1", rank=CallProgress.RINGING, look_at=LATER), LATER)
    assert (seen.reason, seen.decision, seen.decided_at) == (Reason.OUTCOME_UNKNOWN, None, None)
    again = evolve(seen, events.ProofMissing(), LATER)
    assert (again.reason, again.decision) == (Reason.OUTCOME_UNKNOWN, None), "an operator decides again"


@pytest.mark.parametrize(
    "decision",
    [
        Decision.DID_NOT_RING,
        *(pytest.param(each, marks=guards("late_fallback")) for each in (Decision.RANG, Decision.LEFT)),
    ],
)
def test_late_fallback_keeps_a_decision_that_no_call_follows(decision: Decision) -> None:
    lost = replace(an_attempt(AttemptState.FAILED, Reason.OUTCOME_UNKNOWN), look_at=None)
    decided = evolve(lost, events.Decided(decision=decision, reason="a test"), LATER)
    fallback = events.LegSeen(call_sid="CA1", rank=CallProgress.ANSWERED, look_at=LATER, instructions_failed=True)
    kept = None if decision is Decision.DID_NOT_RING else decision
    seen = evolve(decided, fallback, LATER)
    assert (seen.decision, seen.decided_at) == (kept, kept and LATER)


@guards("late_proof")
def test_proof_is_final() -> None:
    proof = events.Proven(reason=Reason.BUSY, call_sid="CA1", ended_at=LATER)
    proven = evolve(an_attempt(AttemptState.FAILED, Reason.OUTCOME_UNKNOWN), proof, LATER)
    with pytest.raises(NoSuchArrow):
        evolve(proven, replace(proof, reason=Reason.ANSWERED), LATER)


def test_an_error_names_event_and_state() -> None:
    with pytest.raises(NoSuchArrow, match="claimed cannot happen to an attempt that is FAILED BUSY"):
        evolve(an_attempt(AttemptState.FAILED, Reason.BUSY), events.Claimed(token="t", lease_until=LATER), LATER)


@pytest.mark.parametrize(
    "event", [events.Deferred(due_at=LATER, cause="A_TEST"), events.NotPlaced(due_at=LATER, cause="A_TEST")]
)
def test_attempt_back_to_pending_keeps_only_its_token(event: Event) -> None:
    busy = replace(an_attempt(AttemptState.IN_PROGRESS), released_until=LATER, looks=3, look_at=LATER, unknown_at=NOON)
    not_placed = 1 if isinstance(event, events.NotPlaced) else 0
    back = replace(an_attempt(), token="token", epoch=2, updated_at=LATER, due_at=LATER, not_placed=not_placed)
    assert evolve(busy, event, LATER) == back


def test_placed_attempt_resets_the_count_of_unplaced_tries() -> None:
    refused_twice = replace(an_attempt(AttemptState.IN_PROGRESS), not_placed=2)
    assert evolve(refused_twice, events.Placed(call_sid="CA1", look_at=LATER), LATER).not_placed == 0


def test_only_in_progress_is_busy_and_only_end_states_are_over() -> None:
    for state in AttemptState:
        attempt = an_attempt(state)
        assert is_busy(attempt) is (state is AttemptState.IN_PROGRESS)
        assert is_over(attempt) is (state in OVER)


# ---- the database repeats it


def insert(connection: psycopg.Connection[object], table: str, row: dict[str, object]) -> None:
    places = ", ".join(["%s"] * len(row))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})".encode(), list(row.values()))


def test_history_row_of_an_unknown_arrow_is_refused(postgres_url: str) -> None:
    row = {"attempt_id": uuid4(), "at": NOON, "epoch": 0, "actor": "a test", "detail": "{}"}
    arrow = {"event": "claimed", "from_state": "FAILED", "to_state": "IN_PROGRESS", "reason": ""}
    with psycopg.connect(postgres_url) as connection, pytest.raises(psycopg.errors.ForeignKeyViolation):
        insert(connection, "attempt_history", row | arrow)


ROW = {
    "id": UUID(int=9),
    "chain_id": UUID(int=9),
    "retry_number": 0,
    "manual": True,
    "state": "PENDING",
    "due_at": NOON,
    "expires_at": NOON,
    "schedule": "{}",
    "warnings": "{}",
    "number_hash": b"hash",
    "epoch": 0,
    "heard_rank": -1,
    "looks": 0,
    "not_placed": 0,
    "created_at": NOON,
    "updated_at": NOON,
}
CLAIMED = {"state": "IN_PROGRESS", "token": "t", "claimed_at": NOON, "account_id": 1}
DIALLING = {**CLAIMED, "phase": "DIALLING", "lease_until": LATER}
GOOD: dict[str, dict[str, object]] = {
    "pending": {},
    "dialling": DIALLING,
    "placed": {**CLAIMED, "phase": "PLACED", "call_sid": "CA1", "look_at": LATER},
    "unknown": {**CLAIMED, "phase": "UNKNOWN", "unknown_at": NOON, "look_at": LATER},
    "a test": {"state": "COMPLETED", "reason": "TEST", "ended_at": NOON, "number_hash": None},
    **{
        f"ended by {reason}": {"state": state.value, "reason": reason.value, "ended_at": NOON}
        for reason, state in ENDS.items()
    },
}
WRONG = {
    "an invalid state": ({"state": "RINGING", "ended_at": NOON}, "state_and_reason"),
    "pending with a reason": ({"reason": "BUSY"}, "state_and_reason"),
    "in progress with a reason": ({**DIALLING, "reason": "BUSY"}, "state_and_reason"),
    "completed without one": ({"state": "COMPLETED", "ended_at": NOON}, "state_and_reason"),
    "completed as busy": ({"state": "COMPLETED", "reason": "BUSY", "ended_at": NOON}, "state_and_reason"),
    "failed as answered": ({"state": "FAILED", "reason": "ANSWERED", "ended_at": NOON}, "state_and_reason"),
    "cancelled as expired": ({"state": "CANCELLED", "reason": "EXPIRED", "ended_at": NOON}, "state_and_reason"),
    "over without an end": ({"state": "FAILED", "reason": "BUSY"}, "ended_when_over"),
    "pending with an end": ({"ended_at": NOON}, "ended_when_over"),
    "pending with a phase": ({"phase": "PLACED"}, "phase"),
    "in progress without a phase": (CLAIMED, "a_phase_in_progress_only"),
    "an invalid phase": ({**CLAIMED, "phase": "RINGING", "look_at": LATER}, "ck_attempts_phase"),
    "dialling without a lease": ({**CLAIMED, "phase": "DIALLING"}, "dialling_has_a_lease"),
    "placed with a lease": ({**GOOD["placed"], "lease_until": LATER}, "dialling_has_a_lease"),
    "placed without a name": ({**GOOD["placed"], "call_sid": None}, "placed_is_named"),
    "unknown since never": ({**GOOD["unknown"], "unknown_at": None}, "unknown_since"),
    "unknown without a poll": ({**GOOD["unknown"], "look_at": None}, "somebody_looks_for_its_end"),
    "claimed without a token": ({**DIALLING, "token": None}, "in_progress_is_claimed"),
    "claimed by no account": ({**DIALLING, "account_id": None}, "in_progress_is_claimed"),
    "pending with a call": ({"call_sid": "CA1"}, "pending_is_not_called"),
    "pending with a lease": ({"lease_until": LATER}, "dialling_has_a_lease|pending_is_not_called"),
    "a call without a line": ({"number_hash": None}, "a_call_has_a_line"),
}


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection[object]]:
    """Connect without checks of foreign keys, so that only the row itself is checked."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection
        connection.rollback()


def insert_attempt(connection: psycopg.Connection[object], row: dict[str, object]) -> None:
    insert(connection, "attempts", {**ROW, "company_id": uuid4(), "interview_id": uuid4(), **row})


@pytest.mark.parametrize("row", GOOD.values(), ids=GOOD.keys())
def test_the_database_takes_a_row_that_is(connection: psycopg.Connection[object], row: dict[str, object]) -> None:
    insert_attempt(connection, row)


@pytest.mark.parametrize(("row", "constraint"), WRONG.values(), ids=WRONG.keys())
def test_the_database_refuses_a_row_that_is(
    connection: psycopg.Connection[object], row: dict[str, object], constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        insert_attempt(connection, row)


@pytest.mark.parametrize(
    ("second", "index"),
    [
        pytest.param({"interview_id": UUID(int=5)}, "one_open_per_interview", id="two open ones of an interview"),
        pytest.param({**DIALLING, "number_hash": b"same"}, "one_call_per_number", id="two calls to a number"),
        pytest.param({**GOOD["placed"], "call_sid": "CA7"}, "call_sid", id="two attempts with one call"),
    ],
)
def test_the_database_refuses(connection: psycopg.Connection[object], second: dict[str, object], index: str) -> None:
    first = {"interview_id": UUID(int=5), **GOOD["placed"], "number_hash": b"same", "call_sid": "CA7"}
    insert_attempt(connection, {**first, "id": UUID(int=8)})
    with pytest.raises(psycopg.errors.UniqueViolation, match=index):
        insert_attempt(connection, second)


@pytest.mark.parametrize("outcome", sorted(set(ConversationOutcome) - REFUSALS))
@pytest.mark.parametrize("reason", [*MAY_HAVE_BEEN_ANSWERED, Reason.ANSWERED])
def test_only_a_refusal_is_reported_after_the_wait(reason: Reason, outcome: ConversationOutcome) -> None:
    ended = replace(an_attempt(ENDS[reason], reason), outcome_until=None, look_at=None)
    assert evolve(ended, events.Reported(outcome=ConversationOutcome.OPTED_OUT), LATER).reason is reason
    with pytest.raises(NoSuchArrow):
        evolve(ended, events.Reported(outcome=outcome), LATER)


@pytest.mark.parametrize("outcome", sorted(ConversationOutcome))
def test_any_outcome_is_reported_in_a_call_that_was_found_late(outcome: ConversationOutcome) -> None:
    found = an_attempt(AttemptState.FAILED, Reason.OUTCOME_UNKNOWN)
    assert evolve(found, events.Reported(outcome=outcome), LATER).outcome is outcome
