"""External ids in the worker: locked for a batch in one statement, and one interview for equal commands."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from scheduler.domain.command import Command, CreateInterview, UpdateInterview
from scheduler.domain.interview import NewJob
from scheduler.domain.resource import ExternalId, ExternalKind
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.json_columns import STORY, content_as_json
from scheduler.persistence.resources import ExternalIds
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.submit import Messages, Submit
from tests.architecture.guards import guards
from tests.support.builders import Tenant, a_candidate
from tests.support.statements import statements_of
from tests.use_cases.conftest import Perform
from tests.use_cases.test_apply import a_new_candidate, a_wish, answer_of, refusal_of, rows, sent
from tests.use_cases.test_intake_statements import A_JOB, apply_all, sent_within
from tests.use_cases.test_submit_and_apply import TOMORROW

OURS = "ats-4711"
REUSED = "EXTERNAL_ID_REUSED"


def interview_of(tenant: Tenant, given: Command) -> UUID:
    answer = answer_of(tenant, given)
    assert answer.refusal is None, answer.refusal
    interview_id: UUID = STORY.validate_python(answer.snapshot).interview.id
    return interview_id


def existed(tenant: Tenant, given: Command) -> bool:
    return answer_of(tenant, given).existed is True


def wish(tenant: Tenant, external_id: str | None = OURS, **fields: Any) -> CreateInterview:
    return a_wish(tenant, **{"scheduled_at": TOMORROW, "external_id": external_id, **fields})


# ---- statements


def test_external_ids_of_a_batch_take_two_more_statements(tenant: Tenant, apply: Apply) -> None:
    numbers = set()
    for size in (1, 2, 20):
        people = [replace(a_new_candidate(), external_id=f"p{size}-{n}") for n in range(size)]
        wishes = [wish(tenant, f"{size}-{n}", candidate=person) for n, person in enumerate(people)]
        command_ids = [sent(tenant, each).id for each in wishes]
        with statements_of(tenant.database) as statements:
            apply_all(apply, command_ids)
        numbers.add(len(sent_within(statements)))
        assert not [each for each in statements if "SAVEPOINT" in each]
    assert numbers == {7}, numbers
    assert rows(tenant)["attempts"] == 23


def test_command_without_an_external_id_sends_no_lock(tenant: Tenant, apply: Apply) -> None:
    command_ids = [sent(tenant, wish(tenant, None)).id for _ in range(2)]
    with statements_of(tenant.database) as statements:
        apply_all(apply, command_ids)
    assert len(sent_within(statements)) == 5
    assert not [each for each in statements if "advisory" in each]


# ---- one interview


def test_equal_commands_of_a_batch_create_one_interview(tenant: Tenant, apply: Apply) -> None:
    same = wish(tenant)
    given = [sent(tenant, same) for _ in range(3)]
    other = sent(tenant, wish(tenant, candidate_id=a_candidate(tenant).id, candidate=None))
    free = sent(tenant, wish(tenant, "b"))
    assert apply.batch([each.id for each in (*given, other, free)]) == []
    assert len({interview_of(tenant, each) for each in given}) == 1
    assert [existed(tenant, each) for each in (*given, free)] == [False, True, True, False]
    assert refusal_of(tenant, other) == REUSED
    assert rows(tenant)["interviews"] == 2


def test_id_of_a_refused_command_is_free_in_its_batch(tenant: Tenant, apply: Apply) -> None:
    bad = sent(tenant, wish(tenant, scheduled_at="tomorrow", job=replace(A_JOB, external_id="j")))
    good = sent(tenant, wish(tenant, job=replace(A_JOB, external_id="j", title="Another title")))
    assert apply.batch([bad.id, good.id]) == []
    assert refusal_of(tenant, bad) == "INVALID_DATE_FORMAT"
    assert not existed(tenant, good)
    assert tenant.ask("SELECT title FROM jobs") == [("Another title",)]


def test_inline_resources_of_a_batch_are_created_once(tenant: Tenant, apply: Apply) -> None:
    person, job = replace(a_new_candidate(), external_id="p"), replace(A_JOB, external_id="j")
    given = [sent(tenant, wish(tenant, f"{n}", candidate=person, job=job)) for n in range(3)]
    named = sent(tenant, wish(tenant, "named", candidate=person))
    assert apply.batch([each.id for each in (*given, named)]) == []
    assert len({interview_of(tenant, each) for each in (*given, named)}) == 4
    assert rows(tenant)["candidates"] == 1
    assert tenant.ask("SELECT count(*) FROM jobs") == [(1,)]
    assert tenant.ask("SELECT count(*) FROM assignments") == [(1,)]
    warned = [STORY.validate_python(answer_of(tenant, each).snapshot).attempts[0].warnings for each in given]
    assert [len(each) for each in warned] == [0, 1, 1]


def test_equal_commands_of_two_workers_give_one_interview(tenant: Tenant, apply: Apply) -> None:
    same = [wish(tenant, f"{n}") for n in range(10)]
    batches = [[sent(tenant, each) for each in (same if n % 2 else same[::-1])] for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(apply_all, apply, [each.id for each in batch]) for batch in batches]:
            done.result()
    given = [each for batch in batches for each in batch]
    # Commands that met a lock wait for another hint.
    apply_all(apply, [each.id for each in given])
    assert len({interview_of(tenant, each) for each in given}) == 10
    assert sum(existed(tenant, each) for each in given) == 30
    assert rows(tenant)["interviews"] == rows(tenant)["attempts"] == rows(tenant)["candidates"] == 10


def with_external_id(tenant: Tenant, kind: ExternalKind) -> Command:
    """Store a command that names OURS as an external id of this kind."""
    fields: dict[ExternalKind, dict[str, Any]] = {
        ExternalKind.INTERVIEW: {},
        ExternalKind.CANDIDATE: {"external_id": None, "candidate": replace(a_new_candidate(), external_id=OURS)},
        ExternalKind.JOB: {"external_id": None, "job": replace(A_JOB, external_id=OURS)},
    }
    return sent(tenant, wish(tenant, **fields[kind]))


@contextmanager
def locked(tenant: Tenant, kind: ExternalKind) -> Iterator[None]:
    with tenant.database.transaction() as stores:
        ours = ExternalId(kind=kind, company_id=tenant.company_id, text=OURS)
        assert stores.external_ids.lock_free([ours]) == set()
        yield


@pytest.mark.parametrize("kind", list(ExternalKind))
@guards("held_external_id")
def test_locked_external_id_delays_no_other_command(tenant: Tenant, apply: Apply, kind: ExternalKind) -> None:
    stuck, free = with_external_id(tenant, kind), sent(tenant, wish(tenant, "b"))
    with locked(tenant, kind):
        assert apply.batch([stuck.id, free.id]) == []
        assert answer_of(tenant, free).refusal is None
        assert not is_applied(tenant, stuck)
    apply.command(stuck.id)
    assert all(answer_of(tenant, each).refusal is None for each in (stuck, free))


@pytest.mark.parametrize("kind", list(ExternalKind))
@guards("external_lock")
def test_command_alone_waits_for_its_external_id(tenant: Tenant, apply: Apply, kind: ExternalKind) -> None:
    stuck = with_external_id(tenant, kind)
    with locked(tenant, kind), pytest.raises(DatabaseAway) as away:
        apply.command(stuck.id, lock_s=0.1)
    # Not its kind, LockTaken: this test must not fail without the guard `lock_taken`.
    assert "lock timeout" in str(away.value.__cause__)
    assert not is_applied(tenant, stuck)
    apply.command(stuck.id)
    assert answer_of(tenant, stuck).refusal is None


def is_applied(tenant: Tenant, command: Command) -> bool:
    return bool(tenant.ask("SELECT 1 FROM inbox WHERE id = :id AND applied_at IS NOT NULL", id=command.id))


def test_external_ids_of_companies_and_kinds_are_independent(tenant: Tenant, other: Tenant, apply: Apply) -> None:
    person, job = replace(a_new_candidate(), external_id=OURS), NewJob(title="A", description="B", external_id=OURS)
    given = [sent(each, wish(each, candidate=person, job=job)) for each in (tenant, other)]
    assert apply.batch([each.id for each in given]) == []
    assert len({interview_of(tenant, each) for each in given}) == 2
    assert not any(existed(tenant, each) for each in given)


def test_change_and_creation_give_an_id_to_one_interview(tenant: Tenant, accept: Perform, apply: Apply) -> None:
    for n in range(10):
        first = sent(tenant, wish(tenant, None))
        apply.command(first.id)
        interview_id = interview_of(tenant, first)
        change = accept(UpdateInterview(interview_id=interview_id, external_id=f"{n}"))
        created = sent(tenant, wish(tenant, f"{n}"))
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(apply.command, each.id) for each in (change, created)]:
                done.result()
        refusals = [answer_of(tenant, each).refusal for each in (change, created)]
        assert [each.code for each in refusals if each is not None] == [REUSED]
    assert tenant.ask("SELECT count(*), count(DISTINCT external_id) FROM interviews WHERE external_id IS NOT NULL") == [
        (10, 10)
    ]


@pytest.mark.parametrize("kind", [ExternalKind.CANDIDATE, ExternalKind.JOB])
@pytest.mark.parametrize("number", [1, 2])
def test_inline_resource_deleted_after_its_lookup_is_created(
    tenant: Tenant, apply: Apply, monkeypatch: pytest.MonkeyPatch, kind: ExternalKind, number: int
) -> None:
    """Its external id is free then. The client, who named no id of ours, would not understand a 404."""
    person, job = replace(a_new_candidate(), external_id="p"), replace(A_JOB, external_id="j")
    apply.command(sent(tenant, wish(tenant, "0", candidate=person, job=job)).id)
    find_all = ExternalIds.find_all

    def deleted_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(ExternalIds, "find_all", find_all)
        found = find_all(*arguments)
        with tenant.database.transaction() as stores:
            ids = {each.kind: found[each].id for each in found}
            if kind is ExternalKind.CANDIDATE:
                stores.candidates.erase(ids[kind], tenant.now())
            else:
                stores.jobs.delete(ids[kind], tenant.now())
        return found

    monkeypatch.setattr(ExternalIds, "find_all", deleted_meanwhile)
    given = [sent(tenant, wish(tenant, f"{n + 1}", candidate=person, job=job)) for n in range(number)]
    apply_all(apply, [each.id for each in given])
    assert len({interview_of(tenant, each) for each in given}) == number
    table, end = ("candidates", "erased_at") if kind is ExternalKind.CANDIDATE else ("jobs", "deleted_at")
    assert tenant.ask(f"SELECT count(*), count(external_id) FROM {table}") == [(2, 1)]
    assert tenant.ask(f"SELECT {end} IS NULL FROM {table} WHERE external_id IS NOT NULL") == [(True,)]
    assert tenant.ask("SELECT count(*) FROM assignments") == [(1,)]


# ---- messages


def test_message_is_judged_by_its_external_id(tenant: Tenant, submit: Submit, apply: Apply) -> None:
    keys = Keys(tenant.database, tenant.hasher, tenant.now)
    body = {"candidateId": str(a_candidate(tenant).id), "agentId": str(tenant.agent_id), "externalId": OURS}
    principal, _ = keys.create(kind=tenant.principal.kind, name="a backend", company_id=tenant.company_id)
    messages = Messages(keys, submit, tenant.hasher)
    commands = []
    for key, changes in (("a", {}), ("b", {}), ("c", {"isTest": True}), ("d", {"externalId": ""})):
        envelope = {"apiKeyId": str(principal.key_id), "idempotencyKey": key, "kind": "create_interview"}
        messages.take({**envelope, "body": body | changes})
        commands.append(submit.find(principal, key))
    apply_all(apply, [each.id for each in commands[:3]])
    answers = [submit.find(principal, key).answer for key in "abcd"]
    assert [each and each.existed for each in answers] == [None, True, None, None]
    assert [each and each.refusal and each.refusal.code for each in answers] == [
        *(None, None, REUSED),
        "VALIDATION_ERROR",
    ]
    assert rows(tenant)["interviews"] == 1


# ---- content


def test_content_leaves_out_the_external_id_and_defaults(tenant: Tenant) -> None:
    person = a_new_candidate()
    one = CreateInterview(agent_id=tenant.agent_id, candidate=person, external_id="a", scheduled_at=TOMORROW)
    form = content_as_json(one)
    assert set(form) == {"agent_id", "candidate", "scheduled_at"}
    assert {"metadata", "timezone", "job_ids"}.isdisjoint(form["candidate"])
    assert content_as_json(replace(one, external_id="b", time_name="scheduleTime", metadata={}, is_test=False)) == form
    for other in (
        replace(one, is_test=True),
        replace(one, candidate=replace(person, external_id="p")),
        replace(one, scheduled_at=None),
        replace(one, metadata={"a": None}),
    ):
        assert content_as_json(other) != form
