"""People with many interviews: erased and blocked with the response, their interviews cancelled in batches."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.interview import InterviewStatus
from scheduler.use_cases.operations.erase import ErasePeople
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources import candidates
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock, wait_until
from tests.support.builders import ApiWriter, RecordingHints, Tenant, a_pending_attempt, a_placed_attempt
from tests.support.statements import statements_of
from tests.use_cases.conftest import candidate_of, finish, refusing

FIRST = 2
"""Interviews that the request cancels itself."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "INTERVIEWS_AT_ONCE", FIRST)


@pytest.fixture
def worker(tenant: Tenant, hints: RecordingHints) -> ErasePeople:
    return ErasePeople(tenant.context, hints, batch=FIRST)


def calls_of_one_person(tenant: Tenant, count: int) -> list[Attempt]:
    """Create due calls of one person, each of an interview of its own."""
    made = [a_pending_attempt(tenant) for _ in range(count)]
    tenant.change(
        "UPDATE interviews SET candidate_id = :person WHERE id = ANY (:ids)",
        person=candidate_of(tenant, made[0]),
        ids=[each.interview_id for each in made],
    )
    return made


def left(tenant: Tenant, attempts: Sequence[Attempt]) -> list[Attempt]:
    return [each for each in attempts if tenant.attempt(each.id).state is AttemptState.PENDING]


def leaving(tenant: Tenant) -> int:
    [(count,)] = tenant.ask("SELECT count(*) FROM candidates WHERE leaving_at IS NOT NULL")
    return int(count)


@contextmanager
def locked(tenant: Tenant, table: str, row_id: UUID) -> Iterator[None]:
    with tenant.database.transaction() as stores:
        stores.connection.execute(text(f"SELECT FROM {table} WHERE id = :id FOR NO KEY UPDATE"), {"id": row_id})
        yield


def test_person_with_many_interviews_is_erased_then_left(
    tenant: Tenant, records: ApiWriter, worker: ErasePeople, hints: RecordingHints
) -> None:
    calls = calls_of_one_person(tenant, 7)
    records.delete_candidate(tenant.principal, candidate_of(tenant, calls[0]))
    assert tenant.ask("SELECT phone_number FROM candidates WHERE erased_at IS NOT NULL") == [(None,)]
    assert len(left(tenant, calls)) == 7 - FIRST
    assert (tasks.ERASE_PEOPLE, ()) in hints.rings
    worker.turn()
    assert left(tenant, calls) == []
    assert {tenant.attempt(each.id).reason for each in calls} == {Reason.CANDIDATE_DELETED}
    assert {tenant.interview_status(each) for each in calls} == {InterviewStatus.CANCELLED}
    assert leaving(tenant) == 0


def test_person_is_left_in_several_turns(
    tenant: Tenant, records: ApiWriter, worker: ErasePeople, hints: RecordingHints, short_turns: None
) -> None:
    calls = calls_of_one_person(tenant, 7)
    records.delete_candidate(tenant.principal, candidate_of(tenant, calls[0]))
    for still in (3, 1):
        hints.rings.clear()
        worker.turn()
        assert (len(left(tenant, calls)), hints.rings) == (still, [(tasks.ERASE_PEOPLE, ())])


def test_unreadable_interview_keeps_no_other_person_waiting(
    tenant: Tenant, records: ApiWriter, worker: ErasePeople
) -> None:
    first, second = calls_of_one_person(tenant, 5), calls_of_one_person(tenant, 5)
    for calls in (first, second):
        records.delete_candidate(tenant.principal, candidate_of(tenant, calls[0]))
    later = left(tenant, first)
    tenant.change(
        "UPDATE interviews SET focus = 'OF_A_LATER_RELEASE' WHERE id = ANY (:ids)",
        ids=[each.interview_id for each in later],
    )
    worker.turn()
    assert left(tenant, [*first, *second]) == later
    assert leaving(tenant) == 1


def test_person_with_few_interviews_leaves_at_once(tenant: Tenant, records: ApiWriter, hints: RecordingHints) -> None:
    calls = calls_of_one_person(tenant, FIRST)
    records.delete_candidate(tenant.principal, candidate_of(tenant, calls[0]))
    assert (left(tenant, calls), leaving(tenant), hints.rings) == ([], 0, [])


def test_deletion_takes_as_many_statements_for_any_count(tenant: Tenant, records: ApiWriter) -> None:
    counts = set()
    for many in (3, 12):
        calls = calls_of_one_person(tenant, many)
        with statements_of(tenant.database) as statements:
            records.delete_candidate(tenant.principal, candidate_of(tenant, calls[0]))
        counts.add(len(statements))
    assert len(counts) == 1


@guards("erased_person")
def test_erased_person_is_not_claimed_before_the_worker(tenant: Tenant, records: ApiWriter) -> None:
    calls = calls_of_one_person(tenant, 4)
    records.delete_candidate(tenant.principal, candidate_of(tenant, calls[0]))
    rest = left(tenant, calls)
    assert rest
    assert tenant.dial.claim([each.id for each in rest]).claimed == ()
    assert {tenant.attempt(each.id).state for each in rest} == {AttemptState.PENDING}


@guards("erasing_stops_claims")
def test_deletion_of_a_person_waits_for_a_claim_under_way(tenant: Tenant, records: ApiWriter) -> None:
    """The claim has read that the person may be called, and holds the company until it commits."""
    person = candidate_of(tenant, a_pending_attempt(tenant))
    with ThreadPoolExecutor(1) as pool:
        with locked(tenant, "companies", tenant.company_id):
            deletion = pool.submit(records.delete_candidate, tenant.principal, person)
            wait_until(
                lambda: deletion.done() or tenant.ask("SELECT FROM pg_locks WHERE NOT granted"),
                says="the deletion waits or is done",
            )
            assert not deletion.done()
        deletion.result()


def test_locked_interview_delays_neither_deletion_nor_others(
    tenant: Tenant, records: ApiWriter, worker: ErasePeople, now: TestClock
) -> None:
    mine, [theirs, *rest] = calls_of_one_person(tenant, 1)[0], calls_of_one_person(tenant, 4)
    people = [candidate_of(tenant, each) for each in (mine, theirs)]
    with locked(tenant, "interviews", mine.interview_id):
        for person in people:
            records.delete_candidate(tenant.principal, person)
        worker.turn()
        assert left(tenant, [mine, theirs, *rest]) == [mine]
    worker.turn()
    assert left(tenant, [mine]) == [mine], "it is put off"
    now.move(timedelta(seconds=6))
    worker.turn()
    assert (left(tenant, [mine]), leaving(tenant)) == ([], 0)


def test_locked_ended_call_of_a_person_keeps_no_other_waiting(
    tenant: Tenant, records: ApiWriter, worker: ErasePeople, now: TestClock
) -> None:
    """Its number is deleted with the last interviews, and nothing skips its lock."""
    first, second = calls_of_one_person(tenant, 5), calls_of_one_person(tenant, 5)
    records.delete_candidate(tenant.principal, candidate_of(tenant, first[0]))
    now.move(timedelta(seconds=1))
    records.delete_candidate(tenant.principal, candidate_of(tenant, second[0]))
    [ended, *_] = [each for each in first if each not in left(tenant, first)]
    tenant.change("UPDATE attempts SET called_number = '+421900000000' WHERE id = :id", id=ended.id)
    with locked(tenant, "attempts", ended.id):
        worker.turn()
        assert left(tenant, second) == []
        assert leaving(tenant) == 1
    now.move(timedelta(seconds=6))
    worker.turn()
    assert (left(tenant, first), leaving(tenant)) == ([], 0)


def test_unexpected_error_keeps_no_other_person_waiting(
    tenant: Tenant, records: ApiWriter, worker: ErasePeople, now: TestClock
) -> None:
    first, second = calls_of_one_person(tenant, 5), calls_of_one_person(tenant, 5)
    for calls in (first, second):
        records.delete_candidate(tenant.principal, candidate_of(tenant, calls[0]))
        now.move(timedelta(seconds=1))
    failing = f"OLD.candidate_id = '{candidate_of(tenant, first[0])}'"
    with refusing(tenant, "UPDATE ON interviews", failing), capture_logs() as lines:
        worker.turn()
    assert (left(tenant, second), leaving(tenant)) == ([], 1)
    assert [line["log_level"] for line in lines if line["event"].startswith("erased_person_put_off")] == ["error"]


def test_locked_attempt_is_left_to_the_worker(
    tenant: Tenant, records: ApiWriter, worker: ErasePeople, now: TestClock
) -> None:
    [call] = calls_of_one_person(tenant, 1)
    with locked(tenant, "attempts", call.id):
        records.delete_candidate(tenant.principal, candidate_of(tenant, call))
        assert tenant.interview_status(call) is InterviewStatus.SCHEDULED
    now.move(timedelta(seconds=6))
    worker.turn()
    assert tenant.interview_status(call) is InterviewStatus.CANCELLED


def test_live_call_ends_without_a_retry_before_the_worker(retrying: Tenant, hints: RecordingHints) -> None:
    """Its interview is not cancelled yet. The number is erased with the end of the call."""
    live, records = a_placed_attempt(retrying), ApiWriter(tenant=retrying, hints=hints)
    person = candidate_of(retrying, live)
    with locked(retrying, "interviews", live.interview_id):
        records.delete_candidate(retrying.principal, person)
    assert retrying.attempt(live.id).called_number is not None
    over = finish(retrying, retrying.attempt(live.id))
    assert over.called_number is None
    assert len(retrying.attempts(live.interview_id)) == 1
    ErasePeople(retrying.context, hints).turn()
    assert leaving(retrying) == 0


def test_clock_reminds_the_worker_of_erased_people(
    tenant: Tenant, records: ApiWriter, worker: ErasePeople, release: Release, hints: RecordingHints
) -> None:
    calls = calls_of_one_person(tenant, 4)
    records.delete_candidate(tenant.principal, candidate_of(tenant, calls[0]))
    hints.rings.clear()
    release.hint_sweep()
    assert (tasks.ERASE_PEOPLE, ()) in hints.rings
    worker.turn()
    hints.rings.clear()
    release.hint_sweep()
    assert (tasks.ERASE_PEOPLE, ()) not in hints.rings
