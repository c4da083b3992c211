"""Partner events: written with the change, only for companies with a reader, numbered in the order of the history."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.carriers.twilio import callback_path
from scheduler.domain.attempt import Attempt, AttemptState, Cancelled, Decision, Reason
from scheduler.domain.call import Accepted, AnsweredBy, CallStatus
from scheduler.domain.command import (
    Command,
    CommandKind,
    DecideOutcome,
    DeleteInterview,
    UpdateInterview,
)
from scheduler.domain.company import CompanySettings, RetryPolicy
from scheduler.domain.interview import NewJob
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import AccessDenied
from scheduler.domain.webhook import READ_WEBHOOKS, EventType, PartnerEvent
from scheduler.lifecycle.decisions import Alarm
from scheduler.persistence.carrier_events import NewCarrierEvent
from scheduler.persistence.database import Database
from scheduler.persistence.events import Numbered
from scheduler.rules import retention
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations import number_events
from scheduler.use_cases.operations.erase import Erase, Purge
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.operations.unknown_outcomes import OperatorCommands, UnknownOutcomes, command_of
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.keys import DEFAULT_SCOPES, Keys
from scheduler.use_cases.resources.webhooks import Events
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.effects import InvariantViolated
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    ApiWriter,
    RecordingHints,
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
    an_operator,
    of_company,
)
from tests.support.statements import statements_of
from tests.use_cases.conftest import Perform, apply_news, candidate_of, with_reader
from tests.use_cases.test_apply import a_new_candidate, a_wish, sent
from tests.use_cases.test_hear import a_form, signature
from tests.use_cases.test_intake_statements import apply_all
from tests.use_cases.test_submit_and_apply import TOMORROW, delete, invoke, move
from tests.use_cases.webhooks.endpoints import Webhooks
from workers.tasks import _each

OVER = {"answered_by": AnsweredBy.PERSON, "duration": timedelta(seconds=61)}


@pytest.fixture
def do(tenant: Tenant, accept: Perform, apply: Apply) -> Callable[..., None]:
    def done(request: Any) -> None:
        apply.command(accept(request).id)

    return done


@pytest.fixture
def numbering(tenant: Tenant, hints: RecordingHints) -> NumberEvents:
    return NumberEvents(tenant.database, hints, tenant.now)


def noted(tenant: Tenant) -> list[str]:
    """List the types of all events, in the order in which they were written, and forget them."""
    found = [row[0] for row in tenant.ask("SELECT type FROM events ORDER BY entry")]
    tenant.change("DELETE FROM events")
    return found


def numbered(tenant: Tenant) -> list[Any]:
    return tenant.ask("SELECT * FROM events WHERE place IS NOT NULL ORDER BY place")


def page(tenant: Tenant, after: int = 0, limit: int = 100, **wanted: Any) -> Sequence[PartnerEvent]:
    return Events(tenant.database).after(tenant.principal, None, **wanted, after=after, limit=limit).events


# ---- what each use case writes


def test_new_interview_is_reported_with_its_call(read: Tenant, apply: Apply) -> None:
    apply_all(apply, [sent(read, a_wish(read)).id])
    assert noted(read) == ["interview.scheduled", "call_attempt.scheduled", "command.applied"]


def test_test_interview_is_reported_as_completed(read: Tenant, apply: Apply) -> None:
    apply_all(apply, [sent(read, a_wish(read, is_test=True)).id])
    assert noted(read) == ["interview.completed", "call_attempt.ended", "command.applied"]


def test_refused_command_reports_only_its_code(read: Tenant, apply: Apply) -> None:
    apply_all(apply, [sent(read, a_wish(read, agent_id=uuid4())).id])
    [[data]] = read.ask("SELECT data FROM events")
    assert (data["status"], data["reasonCode"]) == ("REFUSED", "RESOURCE_NOT_FOUND")
    assert noted(read) == ["command.applied"]


def test_answered_call_is_reported_from_start_to_end(read: Tenant) -> None:
    attempt = a_placed_attempt(read)
    assert noted(read)[-2:] == ["call_attempt.started", "interview.started"]
    apply_news(read, attempt, CallStatus.RINGING)
    assert noted(read) == []
    apply_news(read, attempt, CallStatus.ANSWERED)
    assert noted(read) == ["call_attempt.answered"]
    apply_news(read, attempt, CallStatus.COMPLETED, **OVER)
    rows = read.ask("SELECT type, interview_id, attempt_id, data FROM events ORDER BY entry")
    assert [row[:3] for row in rows] == [
        ("call_attempt.ended", attempt.interview_id, attempt.id),
        ("interview.completed", attempt.interview_id, attempt.id),
    ]
    assert [row[3]["reasonCode"] for row in rows] == ["ANSWERED", "ANSWERED"]


def test_busy_call_is_reported_with_its_retry(tenant: Tenant) -> None:
    retrying = with_reader(of_company(tenant, seed(tenant.database, tenant.now(), retry_policy=RetryPolicy())))
    attempt = a_placed_attempt(retrying)
    noted(retrying)
    apply_news(retrying, attempt, CallStatus.BUSY)
    [_, retry] = retrying.attempts(attempt.interview_id)
    ended, scheduled = retrying.ask("SELECT type, attempt_id, data FROM events ORDER BY entry")
    assert (ended.type, ended.attempt_id) == ("call_attempt.ended", attempt.id)
    assert (scheduled.type, scheduled.attempt_id) == ("call_attempt.retry_scheduled", attempt.id)
    assert scheduled.data["nextAttemptId"] == str(retry.id)
    assert scheduled.data["timezone"] == "Europe/Bratislava"


def test_decision_is_reported_and_not_its_command(read: Tenant, apply: Apply) -> None:
    attempt = an_attempt_of_unknown_outcome(read)
    noted(read)
    request = DecideOutcome(
        interview_id=attempt.interview_id,
        attempt_id=attempt.id,
        decision=Decision.RANG,
        reason="a test",
        operator="cli:a test",
    )
    command = command_of(CommandKind.DECIDE_OUTCOME, request, read.company_id, read.now())
    with read.database.transaction() as stores:
        stores.inbox.add_all([command])
    apply.command(command.id)
    assert noted(read) == ["call_attempt.decided"]


def test_clients_changes_of_a_call_are_reported(read: Tenant, do: Callable[..., None]) -> None:
    attempt = a_pending_attempt(read)
    noted(read)
    do(UpdateInterview(interview_id=attempt.interview_id, metadata={"title": "Ada"}))
    assert noted(read) == ["command.applied"], "metadata change no call"
    do(move(attempt, TOMORROW))
    assert noted(read) == ["call_attempt.rescheduled", "command.applied"]
    do(invoke(attempt))
    assert noted(read) == ["call_attempt.cancelled", "call_attempt.scheduled", "command.applied"]
    [second] = [each for each in read.attempts(attempt.interview_id) if each.state is AttemptState.PENDING]
    do(delete(second))
    assert noted(read) == ["call_attempt.cancelled", "command.applied"]
    do(DeleteInterview(interview_id=attempt.interview_id))
    assert noted(read) == ["interview.cancelled", "command.applied"]


def test_changed_hours_report_only_moved_calls(read: Tenant, records: ApiWriter, now: TestClock) -> None:
    a_pending_attempt(read)
    noted(read)
    records.change_settings(read.principal, CompanySettings(timezone="Europe/Prague"))
    records.recompute()
    assert noted(read) == []


def test_deleted_candidate_is_reported_by_its_interviews(read: Tenant, records: ApiWriter) -> None:
    attempt = a_pending_attempt(read)
    noted(read)
    records.delete_candidate(read.principal, candidate_of(read, attempt))
    assert noted(read) == ["call_attempt.cancelled", "interview.cancelled"]


def test_expired_call_is_reported(read: Tenant, settle: Settle, now: TestClock) -> None:
    a_pending_attempt(read)
    noted(read)
    now.move(timedelta(days=400))
    settle.round()
    assert noted(read) == ["call_attempt.expired", "interview.failed"]


def test_pause_and_resume_are_reported_once_without_words(read: Tenant, pauses: Pauses) -> None:
    pauses.pause(read.company_id, "the words of an operator")
    pauses.pause(read.company_id, "other words")
    pauses.resume(read.company_id)
    pauses.resume(read.company_id)
    assert read.ask("SELECT DISTINCT data FROM events") == [({"reasonCode": "COMPANY_PAUSED"},)]
    assert noted(read) == ["company.paused", "company.resumed"]


def test_pause_of_all_is_reported_to_each_reader(read: Tenant, other: Tenant, pauses: Pauses) -> None:
    pauses.pause(None, "the words of an operator")
    with_reader(other)
    pauses.pause(None, "other words")
    with statements_of(read.database) as statements:
        pauses.resume(None)
    assert sum("INSERT INTO events" in each for each in statements) == 1
    pauses.resume(None)
    assert read.ask("SELECT type, company_id, data FROM events ORDER BY entry, company_id")[0] == (
        "company.paused",
        read.company_id,
        {"reasonCode": "ACCOUNT_PAUSED"},
    )
    resumed = read.ask("SELECT company_id, data ->> 'reasonCode' FROM events WHERE type = 'company.resumed'")
    assert sorted(resumed) == sorted((each, "ACCOUNT_PAUSED") for each in (read.company_id, other.company_id))
    assert noted(read) == ["company.paused", "company.resumed", "company.resumed"]


@pytest.mark.parametrize("of_all", [False, True])
def test_console_reports_a_pause(read: Tenant, operators_database: Database, *, of_all: bool) -> None:
    Pauses(operators_database, read.now, an_operator(read)).pause(None if of_all else read.company_id, "a test")
    assert noted(read) == ["company.paused"]


# ---- what an operator does


def in_quarantine(tenant: Tenant, interview_id: UUID | None = None) -> Command:
    command = a_waiting_command(tenant, interview_id, {"number": a_number()})
    tenant.change("UPDATE inbox SET quarantined_at = :at, failures = 5 WHERE id = :id", at=tenant.now(), id=command.id)
    return command


@pytest.mark.parametrize("by_console", [False, True])
def test_dropped_command_is_reported_as_refused(
    read: Tenant, operators_database: Database, numbering: NumberEvents, *, by_console: bool
) -> None:
    attempt = a_pending_attempt(read)
    noted(read)
    command = in_quarantine(read, attempt.interview_id)
    operators = operators_database if by_console else read.database
    Quarantine(operators, read.now, an_operator(read)).drop(command.id, "the words of an operator")
    numbering.all()
    [event] = page(read)
    assert (event.type, event.interview_id) == (EventType.COMMAND_APPLIED, attempt.interview_id)
    assert {name: event.data[name] for name in ("commandId", "status", "reasonCode")} == {
        "commandId": str(command.id),
        "status": "REFUSED",
        "reasonCode": "COMMAND_DROPPED",
    }
    assert "words" not in json.dumps(event.data)


def test_dropped_command_of_an_operator_is_not_reported(read: Tenant) -> None:
    attempt = an_attempt_of_unknown_outcome(read)
    noted(read)
    UnknownOutcomes(read.database, read.now, "cli:a test").decide(attempt.id, Decision.RANG, "a test")
    [[command_id]] = read.ask("SELECT id FROM inbox WHERE kind = 'decide_outcome'")
    read.change("UPDATE inbox SET quarantined_at = :at, failures = 5 WHERE id = :id", at=read.now(), id=command_id)
    Quarantine(read.database, read.now, "cli:a test").drop(command_id, "a test")
    assert noted(read) == []


def test_command_forgotten_in_quarantine_is_reported(read: Tenant, hints: RecordingHints, now: TestClock) -> None:
    commands = [in_quarantine(read) for _ in range(3)]
    now.move(retention.ANSWERS + timedelta(seconds=1))
    with statements_of(read.database) as statements:
        Purge(read.database, hints, now).round()
    assert sum("INSERT INTO events" in each for each in statements) == 1
    found = read.ask("SELECT data ->> 'commandId', data ->> 'reasonCode' FROM events")
    assert sorted(found) == sorted((str(each.id), "COMMAND_DROPPED") for each in commands)


def test_cancellation_by_an_operator_is_reported(read: Tenant, apply: Apply, hints: RecordingHints) -> None:
    attempt = a_pending_attempt(read)
    noted(read)
    OperatorCommands(read.database, read.now, "cli:a test", hints).cancel([attempt.id], "the words of an operator")
    [command_id] = hints.ids(tasks.APPLY)
    apply.command(command_id)
    assert "words" not in json.dumps([row[0] for row in read.ask("SELECT data FROM events")])
    assert noted(read) == ["call_attempt.cancelled"]


def test_repeated_call_is_reported_with_the_decision(read: Tenant, apply: Apply) -> None:
    attempt = an_attempt_of_unknown_outcome(read)
    noted(read)
    command_id = UnknownOutcomes(read.database, read.now, "cli:a test").decide(
        attempt.id, Decision.DID_NOT_RING, "the words of an operator"
    )
    assert command_id is not None
    apply.command(command_id)
    assert "words" not in json.dumps([row[0] for row in read.ask("SELECT data FROM events")])
    assert noted(read) == ["call_attempt.decided", "interview.scheduled", "call_attempt.scheduled"]


def test_alarm_that_pauses_a_company_is_reported(read: Tenant) -> None:
    attempt = a_placed_attempt(read)
    noted(read)
    read.effects.pause_for_alarm(InvariantViolated(Alarm(cause="A_TEST"), attempt))
    assert read.ask("SELECT data FROM events") == [({"reasonCode": "COMPANY_PAUSED"},)]
    assert noted(read) == ["company.paused"]


# ---- readers


def callbacks(hear: Hear, attempts: Sequence[Attempt], status: str, **fields: str) -> list[NewCarrierEvent]:
    """Build genuine callbacks, one for each call."""
    made = []
    for attempt in attempts:
        assert attempt.token is not None
        form = a_form(attempt, status, **fields)
        signed = signature(attempt.token, form)
        made.append(hear.genuine(attempt.token, callback_path(attempt.token), form, signed))
    return made


def test_events_take_no_statement_for_any_batch(tenant: Tenant, other: Tenant, apply: Apply, hear: Hear) -> None:
    """The hot path: apply, claim, record and hear take as many statements with a reader as without.

    Also as many for 50 calls as for one.
    """
    with_reader(other)
    sizes, counts = (1, 10, 50), set()
    for each, size in product((tenant, other), sizes):
        command_ids = [sent(each, a_wish(each)).id for _ in range(size)]
        with statements_of(each.database) as statements:
            apply_all(apply, command_ids)
            pending = each.ask("SELECT id FROM attempts WHERE company_id = :c AND call_sid IS NULL", c=each.company_id)
            claimed = [claim.attempt for claim in each.dial.claim([row[0] for row in pending]).claimed]
            placed = [replace(attempt, call_sid=a_sid()) for attempt in claimed]
            each.dial.record([(attempt, Accepted(call_sid=str(attempt.call_sid))) for attempt in placed])
            for status, fields in (("in-progress", {}), ("completed", {"CallDuration": "61"})):
                heard = callbacks(hear, placed, status, AnsweredBy="human", **fields)
                hear.store(heard)
                _each(hear.batch([callback.id for callback in heard]), hear.event)
        assert len(placed) == size
        counts.add(len(statements))
    assert len(counts) == 1, counts
    assert {row[0] for row in tenant.ask("SELECT company_id FROM events")} == {other.company_id}
    assert tenant.ask("SELECT count(*) FROM events") == [(8 * sum(sizes),)]


def test_events_of_a_company_without_a_reader_are_not_even_sent(tenant: Tenant, apply: Apply) -> None:
    """Building them takes a twentieth of the CPU of a call."""
    with statements_of(tenant.database) as statements:
        apply_all(apply, [sent(tenant, a_wish(tenant)).id])
        [[attempt_id]] = tenant.ask("SELECT id FROM attempts")
        [claim] = tenant.dial.claim([attempt_id]).claimed
        tenant.dial.record([(claim.attempt, Accepted(call_sid=a_sid()))])
        apply_news(tenant, claim.attempt, CallStatus.COMPLETED, **OVER)
    assert tenant.attempt(attempt_id).state is AttemptState.COMPLETED
    assert not any("INTO events" in each for each in statements)


def test_reader_may_come_and_go_between_the_events_of_a_call(tenant: Tenant) -> None:
    keys = Keys(tenant.database, tenant.hasher, tenant.now)
    attempt = a_pending_attempt(tenant)
    assert noted(tenant) == []
    principal, _ = keys.create(
        kind=KeyKind.REGULAR, name="events", company_id=tenant.company_id, scopes=frozenset({READ_WEBHOOKS})
    )
    [claim] = tenant.dial.claim([attempt.id]).claimed
    tenant.dial.record([(claim.attempt, Accepted(call_sid=a_sid()))])
    assert noted(tenant) == ["call_attempt.started", "interview.started"]
    keys.revoke(principal.key_id)
    apply_news(tenant, claim.attempt, CallStatus.ANSWERED)
    assert noted(tenant) == []
    with_reader(tenant)
    apply_news(tenant, claim.attempt, CallStatus.COMPLETED, **OVER)
    assert noted(tenant) == ["call_attempt.ended", "interview.completed"]


def a_key_without_scopes(tenant: Tenant) -> None:
    keys = Keys(tenant.database, tenant.hasher, tenant.now)
    principal, _ = keys.create(kind=KeyKind.REGULAR, name="a backend", company_id=tenant.company_id)
    assert principal.scopes == DEFAULT_SCOPES


def a_revoked_key(tenant: Tenant) -> None:
    with_reader(tenant)
    [[key_id]] = tenant.ask("SELECT id FROM api_keys WHERE 'read:webhooks' = ANY (scopes)")
    Keys(tenant.database, tenant.hasher, tenant.now).revoke(key_id)


def a_disabled_webhook(tenant: Tenant) -> None:
    an_endpoint(tenant, uuid4(), tenant.company_id, disabled_at=tenant.now(), disabled_cause="GONE")


@pytest.mark.parametrize("make", [a_key_without_scopes, a_revoked_key, a_disabled_webhook])
def test_company_without_a_reader_has_no_events(tenant: Tenant, make: Callable[[Tenant], None]) -> None:
    make(tenant)
    a_pending_attempt(tenant)
    assert noted(tenant) == []


def an_endpoint(tenant: Tenant, principal_id: UUID, company_id: UUID | None, **fields: Any) -> None:
    Webhooks(tenant=tenant).endpoint(principal_id=principal_id, company_id=company_id, events=["ping"], **fields)


def of_an_ats(tenant: Tenant) -> Principal:
    """Let an ATS have created the company. Return its principal."""
    ats_id = uuid4()
    tenant.change("UPDATE companies SET ats_principal_id = :ats WHERE id = :id", ats=ats_id, id=tenant.company_id)
    return Principal(id=ats_id, kind=KeyKind.ATS, key_id=uuid4(), scopes=frozenset({READ_WEBHOOKS}))


def test_webhook_of_the_company_is_a_reader(tenant: Tenant) -> None:
    an_endpoint(tenant, uuid4(), tenant.company_id)
    a_pending_attempt(tenant)
    assert noted(tenant) == ["interview.scheduled", "call_attempt.scheduled"]


def test_webhook_of_the_ats_is_a_reader(tenant: Tenant, other: Tenant) -> None:
    ats = of_an_ats(tenant)
    an_endpoint(tenant, ats.id, None)
    a_pending_attempt(other)
    assert noted(tenant) == []
    a_pending_attempt(tenant)
    assert noted(tenant) == ["interview.scheduled", "call_attempt.scheduled"]


# ---- numbering


def test_numbering_gives_places_in_the_order_of_the_history(read: Tenant, numbering: NumberEvents) -> None:
    attempt = a_placed_attempt(read)
    apply_news(read, attempt, CallStatus.ANSWERED)
    apply_news(read, attempt, CallStatus.COMPLETED, **OVER)
    assert numbered(read) == []
    numbering.all()
    rows = numbered(read)
    assert [row.type for row in rows if row.type.startswith("call_attempt.")] == [
        "call_attempt.scheduled",
        "call_attempt.started",
        "call_attempt.answered",
        "call_attempt.ended",
    ]
    assert [row.sequence for row in rows] == list(range(1, 8))
    assert read.history(attempt.id) == ["created", "claimed", "placed", "progressed", "ended"]


def test_numbering_adds_the_ids_of_the_interview(read: Tenant, numbering: NumberEvents, apply: Apply) -> None:
    apply_all(apply, [sent(read, a_wish(read, job=NewJob(title="Baker", description="Bread"))).id])
    numbering.all()
    [[candidate_id, job_id]] = read.ask("SELECT candidate_id, job_id FROM interviews")
    for event in page(read):
        assert event.data["candidateId"] == str(candidate_id)
        assert event.data["jobId"] == str(job_id)


def test_numbering_goes_on_in_another_turn(
    read: Tenant, hints: RecordingHints, numbering: NumberEvents, short_turns: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_events, "EVENTS_A_BATCH", 4)
    for _ in range(3):
        a_pending_attempt(read)
    for places in (4, 6):
        numbering.all()
        assert (len(numbered(read)), hints.rings.count((tasks.NUMBER_EVENTS, ()))) == (places, 1)


def test_batch_takes_as_many_statements_as_one_event(read: Tenant, numbering: NumberEvents) -> None:
    counts = set()
    for size in (1, 3, 90):
        for _ in range(size):
            a_pending_attempt(read)
        with statements_of(read.database) as statements:
            numbering.batch()
        counts.add(len(statements))
    assert len(counts) == 1, counts
    assert len(numbered(read)) == 2 * 94


def test_clock_leaves_a_long_backlog_to_a_worker(read: Tenant, release: Release, hints: RecordingHints) -> None:
    for _ in range(101):
        a_pending_attempt(read)
    hints.rings.clear()
    release.number_events()
    assert [task for task, _ in hints.rings] == [tasks.NUMBER_EVENTS]
    assert len(numbered(read)) == 200
    NumberEvents(read.database, hints, read.now).all()
    assert len(numbered(read)) == 202
    hints.rings.clear()
    release.number_events()
    assert hints.rings == []


def test_event_of_a_late_commit_gets_a_later_place(read: Tenant, numbering: NumberEvents) -> None:
    """A reader that has read up to a place misses nothing, although the late event was written first."""
    slow = a_pending_attempt(read)
    noted(read)
    with read.database.transaction() as stores:
        late = stores.attempts.lock(slow.id)
        with stores.connection.gathering():
            stores.attempts.save(late, Cancelled(reason=Reason.CANCELLED_BY_USER), "a test", read.now())
        a_pending_attempt(read)
        numbering.all()
        [*_, last] = numbered(read)
    numbering.all()
    [found] = page(read, after=last.place)
    assert found.type is EventType.ATTEMPT_CANCELLED


def test_places_rise_with_the_clock_and_never_fall(read: Tenant, numbering: NumberEvents, now: TestClock) -> None:
    read.change("SELECT setval('event_places', 1)")  # another test may have numbered at a later time
    for change in (timedelta(0), timedelta(hours=1), timedelta(minutes=-30)):
        now.instant += change
        a_pending_attempt(read)
        a_pending_attempt(read)
        numbering.all()
    rows, an_hour = numbered(read), 3_600_000_000
    assert [row.entry for row in rows] == sorted(row.entry for row in rows)
    before, later, set_back = rows[:4], rows[4:8], rows[8:]
    assert later[0].place - before[-1].place > an_hour * 0.99
    assert 0 < set_back[0].place - later[-1].place < an_hour * 0.01


@guards("one_numberer")
def test_second_numberer_leaves_without_a_wait(read: Tenant, numbering: NumberEvents) -> None:
    a_pending_attempt(read)
    with read.database.transaction() as stores:
        assert stores.events.number(1, read.now()) == Numbered(events=1, deliveries=0)
        numbering.all()
        with read.database.transaction() as second:
            assert second.events.number(1, read.now()) is None
    numbering.all()
    assert len(numbered(read)) == 2


# ---- reading


def test_reader_continues_after_a_place(read: Tenant, numbering: NumberEvents) -> None:
    for _ in range(3):
        a_pending_attempt(read)
    numbering.all()
    seen: list[UUID] = []
    after, more = 0, True
    while more:
        part = Events(read.database).after(read.principal, None, after=after, limit=4)
        seen += [each.id for each in part.events]
        after, more = part.after, part.has_more
    assert seen == [row.id for row in numbered(read)]
    assert Events(read.database).after(read.principal, None, after=after, limit=4).after == after


def test_events_are_filtered_by_type_and_time(read: Tenant, numbering: NumberEvents, now: TestClock) -> None:
    first = now()
    a_pending_attempt(read)
    now.move(timedelta(hours=1))
    a_pending_attempt(read)
    numbering.all()
    types = frozenset({EventType.ATTEMPT_SCHEDULED})
    assert [each.occurred_at for each in page(read, types=types)] == [first, now()]
    assert {each.occurred_at for each in page(read, period=(now(), None))} == {now()}
    assert {each.occurred_at for each in page(read, period=(None, now()))} == {first}


def test_short_page_of_a_filter_says_where_to_continue(
    read: Tenant, numbering: NumberEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.persistence.events._MOST_READ", 3)
    for _ in range(3):
        a_pending_attempt(read)
    numbering.all()
    types = frozenset({EventType.ATTEMPT_SCHEDULED})
    found, after, pages, more = 0, 0, 0, True
    while more:
        part = Events(read.database).after(read.principal, None, types, after=after, limit=100)
        found, after, pages, more = found + len(part.events), part.after, pages + 1, part.has_more
    assert (found, pages) == (3, 3)


def test_test_of_a_webhook_hides_no_event_that_is_numbered_later(tenant: Tenant, other: Tenant, now: TestClock) -> None:
    """A ping has its place at once. Also another company's, because a period is found by the events of all."""
    read = with_reader(tenant)
    endpoint_id = Webhooks(tenant=other).endpoint(principal_id=other.principal.id)
    first = now()
    a_pending_attempt(read)
    now.move(timedelta(minutes=10))
    with other.database.transaction(other.principal) as stores:
        endpoint = stores.webhook_endpoints.get(other.principal.id, endpoint_id)
        assert endpoint is not None
        stores.webhook_endpoints.add_test(endpoint, other.principal, now())
    NumberEvents(tenant.database, RecordingHints(), tenant.now).all()
    until = now() - timedelta(minutes=5)
    assert {each.occurred_at for each in page(read, period=(None, until))} == {first}


@guards("event_reach")
def test_ats_reads_all_its_companies_and_no_other(read: Tenant, other: Tenant, numbering: NumberEvents) -> None:
    ats = of_an_ats(read)
    with_reader(other)
    a_pending_attempt(read)
    a_pending_attempt(other)
    numbering.all()
    events = Events(read.database)
    assert {each.company_id for each in events.after(ats, None, after=0, limit=100).events} == {read.company_id}
    own = events.after(ats, read.company_id, after=0, limit=100).events
    assert {each.company_id for each in own} == {read.company_id}
    with pytest.raises(AccessDenied):
        events.after(ats, other.company_id, after=0, limit=100)


# ---- deletion


def test_erased_company_leaves_only_its_deletion(
    read: Tenant, records: ApiWriter, numbering: NumberEvents, hints: RecordingHints
) -> None:
    ats = of_an_ats(read)
    an_endpoint(read, uuid4(), read.company_id)
    a_pending_attempt(read)
    numbering.all()
    a_pending_attempt(read)
    records.delete_company(read.principal, read.company_id)
    erase = Erase(read.context, hints, batch=2)
    while read.ask("SELECT count(*) FROM erasures WHERE finished_at IS NULL") != [(0,)]:
        erase.company(read.company_id)
    assert read.ask("SELECT count(*) FROM interview_sequences") == [(0,)]
    assert read.ask("SELECT count(*) FROM webhook_endpoints") == [(0,)]
    [[erased]] = read.ask("SELECT erased FROM erasures")
    assert (erased["events"], erased["sequences"], erased["webhooks"]) == (4, 1, 1)
    numbering.all()
    [deleted] = Events(read.database).after(ats, None, after=0, limit=100).events
    assert (deleted.type, deleted.company_id) == (EventType.COMPANY_DELETED, read.company_id)


def test_deletion_without_an_ats_leaves_no_event(read: Tenant, records: ApiWriter, hints: RecordingHints) -> None:
    a_pending_attempt(read)
    records.delete_company(read.principal, read.company_id)
    Erase(read.context, hints).company(read.company_id)
    assert noted(read) == []


def test_deleted_interview_keeps_its_events(read: Tenant, numbering: NumberEvents, do: Callable[..., None]) -> None:
    attempt = a_pending_attempt(read)
    do(DeleteInterview(interview_id=attempt.interview_id))
    numbering.all()
    found = [each.type.value for each in page(read)]
    assert found[-3:] == ["call_attempt.cancelled", "interview.cancelled", "command.applied"]
    assert all(each.data["candidateId"] for each in page(read))


# ---- no personal data


def test_no_event_holds_personal_data(read: Tenant, apply: Apply, numbering: NumberEvents, pauses: Pauses) -> None:
    number = a_number()
    person = a_new_candidate(number, first_name="Canary", last_name="Canaria", email="canary@example.com")
    wish = a_wish(read, candidate=person, metadata={"note": "Canary"})
    apply_all(apply, [sent(read, wish).id, sent(read, replace(wish, agent_id=uuid4())).id])
    [[attempt_id]] = read.ask("SELECT id FROM attempts")
    [claim] = read.dial.claim([attempt_id]).claimed
    read.dial.record([(claim.attempt, Accepted(call_sid=a_sid()))])
    apply_news(read, read.attempt(attempt_id), CallStatus.ANSWERED, to=number)
    apply_news(read, read.attempt(attempt_id), CallStatus.COMPLETED, to=number, **OVER)
    pauses.pause(read.company_id, "for Canary")
    numbering.all()
    [[text]] = read.ask("SELECT json_agg(e)::text FROM events e")
    assert len(numbered(read)) == 10
    for secret in ("anar", number[1:], read.caller[1:], "example.com", claim.attempt.token or "", "+"):
        assert secret not in text.replace("+00:00", ""), secret
