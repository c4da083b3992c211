"""The intake of a command takes few statements, and a batch of new interviews as many as one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from scheduler.domain.call import ScheduleWarning
from scheduler.domain.interview import NewJob
from scheduler.domain.principal import KeyKind
from scheduler.domain.refusals import AccessDenied
from scheduler.persistence.json_columns import STORY
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.submit import Submit
from tests.support.builders import RecordingHints, Tenant, a_candidate, a_pending_attempt, a_waiting_command
from tests.support.statements import statements_of
from tests.use_cases.conftest import Perform
from tests.use_cases.test_apply import a_wish, answer_of, command, refusal_of, rows, sent
from tests.use_cases.test_submit_and_apply import TOMORROW, move
from workers.tasks import _each

A_JOB = NewJob(title="Baker", description="Bread")
WARNED = ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW


def sent_within(statements: Sequence[str]) -> list[str]:
    """Leave out the statements that begin a transaction."""
    return [each for each in statements if "BEGIN" not in each]


def test_key_is_checked_in_one_statement(tenant: Tenant) -> None:
    keys = Keys(tenant.database, tenant.hasher, tenant.now)
    _, secret = keys.create(kind=KeyKind.REGULAR, name="a backend", company_id=tenant.company_id)
    with statements_of(tenant.database) as sent:
        keys.authenticate(secret)
    [only] = sent
    assert "key_of_hash" in only


def test_new_interview_is_accepted_in_two_statements(tenant: Tenant, accept: Perform) -> None:
    with statements_of(tenant.database) as sent:
        accept(a_wish(tenant))
    company, command = sent_within(sent)
    assert "FOR KEY SHARE" in company
    assert command.startswith("INSERT INTO inbox")


def test_command_is_found_in_one_statement(tenant: Tenant, accept: Perform, submit: Submit) -> None:
    command = accept(a_wish(tenant))
    with statements_of(tenant.database) as sent:
        assert submit.find(tenant.principal, str(command.id)) == command
    assert len(sent_within(sent)) == 1


def test_command_of_a_deleted_company_is_not_found(tenant: Tenant, accept: Perform, submit: Submit) -> None:
    command = accept(a_wish(tenant))
    tenant.change("UPDATE companies SET deleted_at = :at WHERE id = :id", at=tenant.now(), id=tenant.company_id)
    with pytest.raises(AccessDenied):
        submit.find(tenant.principal, str(command.id))


def waiting(tenant: Tenant, count: int, **fields: Any) -> list[UUID]:
    return [sent(tenant, a_wish(tenant, **fields)).id for _ in range(count)]


def apply_all(apply: Apply, command_ids: Sequence[UUID]) -> None:
    """Apply commands as the task does."""
    _each(apply.batch(command_ids), apply.command)


def test_batch_of_commands_takes_as_many_statements_as_one(tenant: Tenant, apply: Apply) -> None:
    numbers = set()
    for size in (1, 2, 20):
        command_ids = waiting(tenant, size, scheduled_at=TOMORROW)
        with statements_of(tenant.database) as statements:
            apply_all(apply, command_ids)
        numbers.add(len(sent_within(statements)))
        assert not [each for each in statements if "SAVEPOINT" in each]
    assert numbers == {5}, numbers
    assert rows(tenant)["attempts"] == 23


def test_named_candidate_takes_three_more_statements(tenant: Tenant, apply: Apply) -> None:
    for size in (2, 10):
        command_ids = [sent(tenant, a_wish(tenant, candidate_id=a_candidate(tenant).id)).id for _ in range(size)]
        with statements_of(tenant.database) as statements:
            apply_all(apply, command_ids)
        # Not one for the candidate, and two more: the locks of all candidates, and because the calls are due at once.
        assert len(sent_within(statements)) == 7 + 3 * size


# ---- a batch does the same as its commands alone


def test_refused_command_leaves_nothing_and_spoils_no_other(tenant: Tenant, apply: Apply) -> None:
    good = [sent(tenant, a_wish(tenant)) for _ in range(2)]
    bad = sent(tenant, a_wish(tenant, scheduled_at="tomorrow", job=A_JOB))
    assert apply.batch([good[0].id, bad.id, good[1].id]) == []
    assert refusal_of(tenant, bad) == "INVALID_DATE_FORMAT"
    assert all(answer_of(tenant, each).refusal is None for each in good)
    assert rows(tenant)["candidates"] == 2
    assert tenant.ask("SELECT count(*) FROM jobs") == [(0,)]


def test_second_interview_of_a_candidate_in_a_batch_is_warned_of(tenant: Tenant, apply: Apply) -> None:
    candidate_id = a_candidate(tenant).id
    both = [sent(tenant, a_wish(tenant, candidate_id=candidate_id)) for _ in range(2)]
    assert apply.batch([each.id for each in both]) == []
    stories = [STORY.validate_python(answer_of(tenant, each).snapshot) for each in both]
    assert [story.attempts[0].warnings for story in stories] == [(), (WARNED,)]


def test_refusal_after_sent_writes_undoes_only_its_own(tenant: Tenant, apply: Apply) -> None:
    """The second command names the candidate of the first. Its new job is sent before its refusal."""
    candidate_id = a_candidate(tenant).id
    first = sent(tenant, a_wish(tenant, candidate_id=candidate_id))
    late = {"candidate_id": candidate_id, "job": A_JOB, "expires_at": "yesterday"}
    second = sent(tenant, a_wish(tenant, **late))
    with statements_of(tenant.database) as statements:
        assert apply.batch([first.id, second.id]) == []
    assert [each for each in statements if each.startswith("ROLLBACK TO SAVEPOINT")]
    assert answer_of(tenant, first).refusal is None
    assert answer_of(tenant, second).refusal is not None
    assert (rows(tenant)["interviews"], tenant.ask("SELECT count(*) FROM jobs")) == (1, [(0,)])


def test_failing_command_is_taken_out_and_counted_once(tenant: Tenant, other: Tenant, apply: Apply) -> None:
    good = [sent(tenant, a_wish(tenant)) for _ in range(2)]
    poison = a_waiting_command(tenant, None, {"no": "sense"})
    theirs = sent(other, a_wish(other))
    other.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=other.company_id)
    alone = apply.batch([good[0].id, poison.id, theirs.id, good[1].id])
    assert alone == [poison.id, theirs.id]
    with capture_logs() as logs:
        _each(alone, apply.command)
    assert [each["event"].partition(":")[0] for each in logs] == ["id_failed", "id_failed"]
    assert all(answer_of(tenant, each).refusal is None for each in good)
    assert [command(tenant, each).failures for each in (poison, theirs)] == [1, 1]
    again = sent(tenant, a_wish(tenant))
    assert apply.batch([poison.id, again.id]) == [poison.id], "it does not fail another batch"
    assert answer_of(tenant, again).refusal is None


def test_command_for_an_existing_interview_is_applied_alone(
    tenant: Tenant, accept: Perform, apply: Apply, hints: RecordingHints
) -> None:
    attempt = a_pending_attempt(tenant)
    moved, created = accept(move(attempt)), sent(tenant, a_wish(tenant))
    assert apply.batch([moved.id, created.id]) == [moved.id]
    assert hints.answers == [created.id]
    assert tenant.attempt(attempt.id) == attempt


def test_workers_at_once_apply_each_command_once(tenant: Tenant, apply: Apply) -> None:
    command_ids = waiting(tenant, 20)
    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(apply_all, apply, command_ids) for _ in range(4)]:
            each.result()
    assert rows(tenant)["interviews"] == 20


def test_deleted_company_is_refused_in_a_batch(tenant: Tenant, other: Tenant, apply: Apply) -> None:
    mine, theirs = sent(tenant, a_wish(tenant)), sent(other, a_wish(other))
    other.change("UPDATE companies SET deleted_at = :at WHERE id = :id", at=tenant.now(), id=other.company_id)
    assert apply.batch([mine.id, theirs.id]) == []
    assert refusal_of(tenant, theirs) == "RESOURCE_ACCESS_DENIED"
    assert answer_of(tenant, mine).refusal is None


def test_same_number_twice_takes_no_more_statements(tenant: Tenant, apply: Apply) -> None:
    wish = a_wish(tenant)
    command_ids = [sent(tenant, replace(wish, scheduled_at=TOMORROW)).id for _ in range(10)]
    with statements_of(tenant.database) as statements:
        apply_all(apply, command_ids)
    assert len(sent_within(statements)) == 5
