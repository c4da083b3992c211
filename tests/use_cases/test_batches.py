"""Batches: as many statements for 200 items as for one, and no item that fails spoils the others."""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from scheduler.domain.attempt import Attempt, AttemptState, ExpiryMoved, Phase, Reason
from scheduler.domain.call import Accepted, MachineDetection
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, RELEASE_SPAN
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    a_stored_callback,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
    of_company,
)
from tests.support.statements import statements_of
from tests.use_cases.conftest import pause_reason
from tests.use_cases.dialling.test_conflicts import LOCK_ATTEMPT, locked
from tests.use_cases.test_hear import Form, a_form, deliver
from tests.verification.world.bulk_attempts import FIRST, bulk_attempts
from workers.tasks import _each, _together

A_DAY = timedelta(days=1)
_OTHERS = "SELECT state FROM attempts WHERE interview_id = :interview_id AND id <> :id"
SIZES = (1, 50)
ANSWERED = {"status": "completed", "AnsweredBy": "human", "CallDuration": "60"}
BUSY = {"status": "busy"}
RINGING = {"status": "ringing"}
TwoCalls = tuple[Attempt, Attempt]


def placed(tenant: Tenant, postgres_url: str, count: int) -> list[Attempt]:
    ids = bulk_attempts(postgres_url, tenant, count, due_at=tenant.now(), kinds=[FIRST])
    mine = [
        each.attempt
        for start in range(0, count, AT_MOST_A_TRANSACTION)
        for each in tenant.dial.claim(ids[start : start + AT_MOST_A_TRANSACTION]).claimed
    ]
    tenant.dial.record([(attempt, Accepted(call_sid=a_sid())) for attempt in mine])
    return [tenant.attempt(attempt.id) for attempt in mine]


def stored(hear: Hear, hints: RecordingHints, callbacks: Sequence[tuple[Attempt, Form]]) -> list[UUID]:
    hints.rung.clear()
    for attempt, form in callbacks:
        deliver(hear, attempt, form)
    return hints.ids(tasks.HEAR)


def verdict(attempt: Attempt) -> Form:
    """Build the callback of asynchronous machine detection. It has no status."""
    [sid, account, *_] = a_form(attempt, "in-progress")
    return [sid, account, ("AnsweredBy", "human"), ("MachineDetectionDuration", "2150")]


def apply_all(hear: Hear, event_ids: Sequence[UUID]) -> None:
    """Apply events as the task does."""
    _each(hear.batch(event_ids), hear.event)


@pytest.mark.parametrize(
    ("fields", "state", "follows"),
    [
        pytest.param(RINGING, AttemptState.IN_PROGRESS, [], id="progress"),
        pytest.param(ANSWERED, AttemptState.COMPLETED, [], id="answered, booked"),
        pytest.param(BUSY, AttemptState.FAILED, ["PENDING"], id="busy, retried"),
    ],
)
def test_callbacks_take_as_many_statements_as_one(
    retrying: Tenant,
    hear: Hear,
    hints: RecordingHints,
    postgres_url: str,
    fields: dict[str, str],
    state: AttemptState,
    follows: list[str],
) -> None:
    numbers = set()
    for size in SIZES:
        attempts = placed(retrying, postgres_url, size)
        event_ids = stored(hear, hints, [(each, a_form(each, **fields)) for each in attempts])
        assert len(event_ids) == size
        with statements_of(retrying.database) as sent:
            apply_all(hear, event_ids)
        numbers.add(len(sent))
        for each in attempts:
            assert retrying.attempt(each.id).state is state
            rows = retrying.ask(_OTHERS, interview_id=each.interview_id, id=each.id)
            assert [row.state for row in rows] == follows
    assert len(numbers) == 1, numbers


def test_verdict_takes_the_statements_of_any_progress(
    tenant: Tenant, hear: Hear, hints: RecordingHints, postgres_url: str
) -> None:
    """A fifth callback of a call costs what each of the others does, alone and in a batch with them."""
    asynchronous = of_company(tenant, seed(tenant.database, tenant.now(), machine_detection=MachineDetection.ASYNC))
    alone, among_others = placed(asynchronous, postgres_url, 2)
    others = [a_form(among_others, each) for each in ("initiated", "ringing", "in-progress")]
    end = a_form(among_others, "completed", CallDuration="60")

    def count(*callbacks: tuple[Attempt, Form]) -> int:
        event_ids = stored(hear, hints, callbacks)
        with statements_of(asynchronous.database) as sent:
            apply_all(hear, event_ids)
        return len(sent)

    of_each = {
        count((alone, form)) for form in (a_form(alone, "ringing"), a_form(alone, "in-progress"), verdict(alone))
    }
    assert len(of_each) == 1, of_each
    assert asynchronous.history(alone.id)[-1] == "verdict_heard"
    of_end = count((alone, a_form(alone, "completed", CallDuration="60")))
    assert count(*((among_others, form) for form in (*others, verdict(among_others), end))) == of_end
    assert asynchronous.history(among_others.id)[-2:] == ["verdict_heard", "ended"]


def test_answers_take_as_many_statements_as_one(tenant: Tenant, postgres_url: str) -> None:
    numbers = set()
    for size in (1, 10, AT_MOST_A_TRANSACTION):
        ids = bulk_attempts(postgres_url, tenant, size, due_at=tenant.now())
        mine = [each.attempt for each in tenant.dial.claim(ids).claimed]
        assert len(mine) == size
        with statements_of(tenant.database) as sent:
            tenant.dial.record([(attempt, Accepted(call_sid=a_sid())) for attempt in mine])
        numbers.add(len(sent))
        assert {tenant.attempt(each.id).phase for each in mine} == {Phase.PLACED}
    assert len(numbers) == 1, numbers


def test_batch_applies_callbacks_in_the_order_of_progress(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    attempts = [a_placed_attempt(tenant) for _ in range(3)]
    backwards = [(each, a_form(each, **fields)) for each in attempts for fields in (ANSWERED, RINGING)]
    assert hear.batch(stored(hear, hints, backwards)) == []
    for each in attempts:
        assert tenant.history(each.id) == ["created", "claimed", "placed", "progressed", "ended"]
        ended = tenant.attempt(each.id)
        assert (ended.state, ended.reason) == (AttemptState.COMPLETED, Reason.ANSWERED)
        assert ended.epoch == each.epoch + 2
        assert tenant.interview_status(each) is InterviewStatus.COMPLETED
        assert tenant.line(each)[0] is None
    [[booked]] = tenant.ask("SELECT count(*) FROM usage")
    assert booked == len(attempts)


def test_failing_callback_does_not_spoil_its_batch(
    tenant: Tenant, other: Tenant, hear: Hear, hints: RecordingHints
) -> None:
    broken, *others = a_placed_attempt(other), a_placed_attempt(tenant), a_placed_attempt(tenant)
    other.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=other.company_id)
    [first, bad, last] = stored(hear, hints, [(each, a_form(each, **BUSY)) for each in (others[0], broken, others[1])])
    alone = hear.batch([first, bad, last])
    assert alone == [bad]
    with capture_logs() as logs:
        _each(alone, hear.event)
    assert [each["event"].partition(":")[0] for each in logs] == ["id_failed"]
    assert all(tenant.attempt(each.id).reason is Reason.BUSY for each in others)
    assert tenant.ask("SELECT id, failures FROM carrier_events WHERE heard_at IS NULL") == [(bad, 1)]


def test_callback_that_failed_joins_no_further_batch(
    tenant: Tenant, other: Tenant, hear: Hear, hints: RecordingHints
) -> None:
    broken, mine = a_placed_attempt(other), a_placed_attempt(tenant)
    other.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=other.company_id)
    [failing] = stored(hear, hints, [(broken, a_form(broken, **BUSY))])
    with pytest.raises(KeyError):
        hear.event(failing)
    [later, free] = stored(hear, hints, [(broken, a_form(broken, **RINGING)), (mine, a_form(mine, **BUSY))])
    with statements_of(tenant.database) as sent:
        assert hear.batch([failing, later, free]) == [failing, later], "a later one of its call waits for it"
    assert len([each for each in sent if each.endswith("BEGIN")]) == 1, "one transaction: nothing failed"
    assert tenant.attempt(mine.id).reason is Reason.BUSY


def test_alarm_of_one_callback_pauses_its_company_only(
    tenant: Tenant, other: Tenant, hear: Hear, hints: RecordingHints
) -> None:
    twice, mine = a_placed_attempt(tenant), a_placed_attempt(other)
    event_ids = stored(hear, hints, [(twice, a_form(a_sid(), **RINGING)), (mine, a_form(mine, **BUSY))])
    with capture_logs() as logs:
        apply_all(hear, event_ids)
    assert [each["alarm"] for each in logs if "alarm" in each] == ["TWO_CALLS_FOR_ONE_TOKEN"]
    assert (pause_reason(tenant) is None, pause_reason(other)) == (False, None)
    assert other.attempt(mine.id).reason is Reason.BUSY


def test_locked_attempt_delays_no_other_callback_of_its_batch(
    tenant: Tenant, hear: Hear, hints: RecordingHints, postgres_url: str
) -> None:
    stuck, free = a_placed_attempt(tenant), a_placed_attempt(tenant)
    event_ids = stored(hear, hints, [(each, a_form(each, **BUSY)) for each in (stuck, free)])
    with locked(postgres_url, LOCK_ATTEMPT, stuck.id):
        assert hear.batch(event_ids) == []
    [(_, put_off, _)] = hints.put_off
    assert list(put_off) == event_ids[:1]
    hear.event(event_ids[0])
    assert {tenant.attempt(each.id).reason for each in (stuck, free)} == {Reason.BUSY}


def test_locked_successor_delays_no_callback_of_its_batch(
    tenant: Tenant, hear: Hear, hints: RecordingHints, postgres_url: str
) -> None:
    """Seen in a review: the batch waited for the lock of an attempt that none of its callbacks changes."""
    unknown, busy = an_attempt_of_unknown_outcome(tenant), a_placed_attempt(tenant)
    successor = a_placed_attempt(tenant, a_number(), interview_id=unknown.interview_id)
    event_ids = stored(hear, hints, [(unknown, a_form(a_sid(), **BUSY)), (busy, a_form(busy, **BUSY))])
    with locked(postgres_url, LOCK_ATTEMPT, successor.id):
        assert hear.batch(event_ids) == []
    assert {tenant.attempt(each.id).reason for each in (unknown, busy)} == {Reason.BUSY}


@pytest.fixture
def two_calls(tenant: Tenant, other: Tenant, now: TestClock) -> TwoCalls:
    """A call with an unknown outcome, and an hour later another company's call to the same number."""
    number = a_number()
    late = an_attempt_of_unknown_outcome(tenant, number)
    now.move(timedelta(hours=1))
    return late, a_placed_attempt(other, number)


def test_calls_of_a_batch_keep_the_order_of_their_arrival(
    tenant: Tenant, other: Tenant, hear: Hear, hints: RecordingHints, two_calls: TwoCalls
) -> None:
    """The first call ends before the second one, to the same number, is seen alive."""
    late, first = two_calls
    ended = stored(hear, hints, [(first, a_form(first, "no-answer"))])
    seen = stored(hear, hints, [(late, a_form(a_sid(), **RINGING))])
    apply_all(hear, [*ended, *seen])
    assert (pause_reason(tenant), pause_reason(other)) == (None, None)
    assert tenant.line(late)[0] == late.id


@guards("in_turn", "late_line")
def test_callback_that_overtook_another_waits_before_an_alarm(
    tenant: Tenant, other: Tenant, hear: Hear, hints: RecordingHints, postgres_url: str, two_calls: TwoCalls
) -> None:
    """The end of the first call is delayed by a lock. The second call, to the same number, is seen alive."""
    late, first = two_calls
    event_ids = stored(hear, hints, [(first, a_form(first, "no-answer")), (late, a_form(a_sid(), **RINGING))])
    with locked(postgres_url, LOCK_ATTEMPT, first.id), capture_logs() as logs:
        _together(event_ids, hear.batch, hear.event)
    assert {"locked_rows", "callback_waits"} <= {each["event"].partition(":")[0] for each in logs}
    assert (pause_reason(tenant), pause_reason(other)) == (None, None)
    _together(event_ids, hear.batch, hear.event)
    assert (pause_reason(tenant), pause_reason(other)) == (None, None)
    assert tenant.line(late)[0] == late.id


def test_callback_waits_for_an_earlier_one_only_for_a_while(
    tenant: Tenant, hear: Hear, hints: RecordingHints, now: TestClock, two_calls: TwoCalls
) -> None:
    late, first = two_calls
    [_, seen] = stored(hear, hints, [(first, a_form(first, "no-answer")), (late, a_form(a_sid(), **RINGING))])
    now.move(timedelta(seconds=30))
    hear.event(seen)
    assert pause_reason(tenant) == "ALARM: TWO_CALLS_TO_ONE_NUMBER"


def test_second_call_pauses_although_a_later_callback_waits(
    tenant: Tenant, hear: Hear, hints: RecordingHints, now: TestClock, two_calls: TwoCalls
) -> None:
    late, first = two_calls
    [seen] = stored(hear, hints, [(late, a_form(a_sid(), **RINGING))])
    now.move(timedelta(milliseconds=5))
    stored(hear, hints, [(first, a_form(first, "no-answer"))])
    hear.event(seen)
    assert pause_reason(tenant) == "ALARM: TWO_CALLS_TO_ONE_NUMBER"


def test_first_of_two_calls_of_a_batch_is_the_attempts_call(
    tenant: Tenant, other: Tenant, hear: Hear, hints: RecordingHints, now: TestClock
) -> None:
    mine, another = an_unknown_attempt(tenant), a_placed_attempt(other)
    event_ids = []
    for call, form in (
        (mine, a_form(a_sid(), **ANSWERED)),
        (mine, a_form(a_sid(), **RINGING)),
        (another, a_form(another, **BUSY)),
    ):
        event_ids += stored(hear, hints, [(call, form)])
        now.move(timedelta(milliseconds=5))
    with capture_logs() as logs:
        apply_all(hear, event_ids)
    assert [each["alarm"] for each in logs if "alarm" in each] == ["TWO_CALLS_FOR_ONE_TOKEN"]
    assert tenant.attempt(mine.id).reason is Reason.ANSWERED
    assert other.attempt(another.id).reason is Reason.BUSY


# ---- settings that another release wrote


def test_late_leg_holds_its_line_with_unreadable_settings(tenant: Tenant, hear: Hear, hints: RecordingHints) -> None:
    mine = an_attempt_of_unknown_outcome(tenant)
    successor = a_pending_attempt(tenant, a_number(), interview_id=mine.interview_id)
    tenant.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=tenant.company_id)
    [event_id] = stored(hear, hints, [(mine, a_form(a_sid(), **RINGING))])
    hear.event(event_id)
    assert tenant.attempt(successor.id).reason is Reason.REPLACED
    assert tenant.line(mine)[0] == mine.id


def test_accepted_call_is_recorded_with_unreadable_settings(tenant: Tenant) -> None:
    mine = a_claimed_attempt(tenant)
    tenant.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=tenant.company_id)
    tenant.dial.record([(mine, Accepted(call_sid=a_sid()))])
    assert tenant.attempt(mine.id).phase is Phase.PLACED


def test_form_of_an_erased_call_is_deleted_unread(tenant: Tenant, hear: Hear) -> None:
    form = json.dumps({"To": "+421900000000", "CallStatus": "of a later release"})
    event_id = a_stored_callback(tenant, token="gone", raw=form)
    hear.event(event_id)
    assert tenant.ask("SELECT heard_at IS NOT NULL, raw FROM carrier_events") == [(True, {})]


# ---- gathered writes


def test_statement_sees_the_writes_gathered_before_it(tenant: Tenant) -> None:
    mine = a_claimed_attempt(tenant)
    with tenant.database.transaction() as stores, stores.connection.gathering():
        stores.lines.give_back(mine.id)
        assert stores.lines.hold(mine.number_hash or b"", mine.id), "free again, and held again"
    assert tenant.line(mine)[0] == mine.id


def test_error_drops_gathered_writes(tenant: Tenant) -> None:
    mine = a_claimed_attempt(tenant)
    with tenant.database.transaction() as stores:
        with suppress(ZeroDivisionError), stores.connection.gathering():
            stores.lines.give_back(mine.id)
            raise ZeroDivisionError
        stores.connection.send()
    assert tenant.line(mine)[0] == mine.id


def test_save_leaves_columns_that_did_not_change(tenant: Tenant) -> None:
    mine, until = a_pending_attempt(tenant), tenant.now() + RELEASE_SPAN
    tenant.change("UPDATE attempts SET released_until = :until WHERE id = :id", until=until, id=mine.id)
    with tenant.database.transaction() as stores:
        stores.attempts.save(mine, ExpiryMoved(expires_at=mine.expires_at + A_DAY), "a test", tenant.now())
    saved = tenant.attempt(mine.id)
    assert (saved.released_until, saved.expires_at) == (until, mine.expires_at + A_DAY)
