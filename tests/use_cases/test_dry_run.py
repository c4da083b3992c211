"""A dry run gives each item the answer of the worker, and stores nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import pytest

from scheduler.domain.batch import DryRun
from scheduler.domain.command import CreateInterview, refusal_of
from scheduler.domain.interview import AgentFocus, AgentType, NewAgent
from scheduler.domain.principal import KeyKind
from scheduler.domain.refusals import AccessDenied
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.dry_run import ITEMS_A_TRANSACTION, DryRuns
from scheduler.use_cases.resources.agents import add_agent, add_job
from scheduler.wire.named_fields import FieldError, invalid_fields
from tests.conftest import Seeded, TestClock, seed
from tests.support.builders import Tenant, a_candidate, a_claimed_attempt, a_number, a_pending_attempt, of_company
from tests.support.statements import statements_of
from tests.use_cases.test_apply import a_new_candidate, a_wish, answer_of, rows, sent
from tests.use_cases.test_intake_statements import A_JOB, apply_all
from tests.use_cases.test_submit_and_apply import TOMORROW

NIGHT = "2026-04-03T03:00:00+02:00"


@pytest.fixture
def api(logins: Logins) -> Any:
    """The API's database, whose role sees only the rows of the principal."""
    api = Database(logins.api, pool_size=2, bound=True)
    yield api
    api.close()


@pytest.fixture
def dry_runs(tenant: Tenant, api: Database) -> DryRuns:
    return DryRuns(replace(tenant.context, database=api))


def codes(run: DryRun, total: int) -> list[str | None]:
    """The refusal of each item by its place."""
    found: list[str | None] = [None] * total
    for each in run.refused:
        assert each.count == len(each.first)
        for place in each.first:
            found[place] = each.code
    return found


def applied_codes(tenant: Tenant, apply: Apply, items: Sequence[CreateInterview]) -> list[str | None]:
    commands = [sent(tenant, each) for each in items]
    apply_all(apply, [each.id for each in commands])
    answers = [answer_of(tenant, each) for each in commands]
    return [None if each.refusal is None else each.refusal.code for each in answers]


def a_job(tenant: Tenant, **fields: Any) -> Any:
    with tenant.database.transaction() as stores:
        return add_job(stores, tenant.company_id, replace(A_JOB, **fields), tenant.now()).id


def an_agent(tenant: Tenant, seeded: Seeded, **fields: Any) -> Any:
    with tenant.database.transaction() as stores:
        return add_agent(stores, tenant.company_id, a_new_agent(seeded, **fields), tenant.now()).id


def a_new_agent(seeded: Seeded, **fields: Any) -> NewAgent:
    usual: dict[str, Any] = {
        "name": "Screening",
        "type": AgentType.PHONE,
        "focus": AgentFocus.SCREENING,
        "language": "EN",
        "duration": timedelta(minutes=10),
        "phone_number_id": seeded.phone_number_id,
    }
    return NewAgent(**(usual | fields))


def every_kind(tenant: Tenant, seeded: Seeded, other: Tenant) -> list[CreateInterview]:
    """Requests of every outcome. Later ones name what earlier ones create."""
    job, job_of_other = a_job(tenant), a_job(other)
    screening = an_agent(tenant, seeded)
    online = an_agent(tenant, seeded, type=AgentType.ONLINE, focus=AgentFocus.GENERIC, phone_number_id=None)
    known, called = a_candidate(tenant), a_number()
    consent_over = a_candidate(tenant, consent_until=date(2026, 4, 1))
    a_pending_attempt(tenant, called)
    person = replace(a_new_candidate(), external_id="p")

    def wish(**fields: Any) -> CreateInterview:
        return a_wish(tenant, **fields)

    def person_with(**fields: Any) -> CreateInterview:
        return wish(candidate=a_new_candidate(**fields))

    return [
        wish(),
        wish(scheduled_at=TOMORROW),
        wish(scheduled_at=NIGHT),
        wish(scheduled_at="tomorrow"),
        wish(scheduled_at="2020-01-01T10:00:00Z"),
        wish(scheduled_at="2027-01-01T10:00:00Z"),
        wish(expires_at="2026-04-02T10:00:10Z"),
        wish(expires_at="soon"),
        wish(agent_id=uuid4()),
        wish(agent_id=other.agent_id),
        wish(candidate_id=uuid4()),
        wish(candidate_id=a_candidate(other).id),
        wish(candidate_id=known.id),
        wish(candidate_id=consent_over.id),
        wish(candidate_id=known.id, job_id=job_of_other),
        wish(candidate_id=known.id, job_id=job),
        wish(candidate_id=known.id, agent_id=screening),
        person_with(number="+421900"),
        person_with(phone_number=None),
        person_with(email=None, phone_number=None),
        person_with(number="+421800123456"),
        person_with(number="+18005550199"),
        person_with(timezone="Mars/Base"),
        person_with(job_ids=(uuid4(),)),
        person_with(number=called),
        person_with(number=called),
        wish(agent_id=screening),
        wish(agent_id=screening, job_id=job),
        wish(agent_id=screening, job=A_JOB),
        wish(agent_id=None, agent=a_new_agent(seeded, focus=AgentFocus.GENERIC)),
        wish(agent_id=None, agent=a_new_agent(seeded, phone_number_id=None)),
        wish(agent_id=None, agent=a_new_agent(seeded, phone_number_id=uuid4())),
        wish(agent_id=online, candidate=a_new_candidate(phone_number=None)),
        wish(agent_id=online, scheduled_at="2020-01-01T10:00:00Z"),
        wish(is_test=True),
        # Refused, so it leaves nothing behind.
        wish(candidate=person, job=replace(A_JOB, external_id="j"), scheduled_at=NIGHT),
        wish(candidate=person, job=replace(A_JOB, external_id="j", title="Another title")),
        wish(candidate=person, job=replace(A_JOB, external_id="j")),
        wish(candidate=person, agent_id=screening),
        wish(candidate=replace(person, first_name="Eve")),
        wish(candidate=person, external_id="i"),
        wish(candidate=person, external_id="i"),
        wish(candidate=person, external_id="i", scheduled_at=TOMORROW),
    ]


def test_dry_run_gives_the_answers_of_the_workers(
    tenant: Tenant, seeded: Seeded, database: Database, dry_runs: DryRuns, apply: Apply, now: TestClock
) -> None:
    other = of_company(tenant, seed(database, now()))
    items = every_kind(tenant, seeded, other)
    before = rows(tenant)
    run = dry_runs.decide(tenant.principal, None, items)
    assert rows(tenant) == before
    found, expected = codes(run, len(items)), applied_codes(tenant, apply, items)
    assert found == expected
    assert len(set(found)) > 15
    after = rows(tenant)
    assert run.calls == after["attempts"] - before["attempts"] - 1  # a test interview has an attempt and no call
    assert run.accepted == after["interviews"] - before["interviews"]
    assert run.existing == 1
    assert run.total == run.accepted + run.existing + sum(each.count for each in run.refused)


def test_item_sees_what_items_of_earlier_parts_create(tenant: Tenant, seeded: Seeded, dry_runs: DryRuns) -> None:
    person, job = replace(a_new_candidate(), external_id="p"), replace(A_JOB, external_id="j")
    screening = an_agent(tenant, seeded)
    first = a_wish(tenant, agent_id=screening, candidate=person, job=job, external_id="i")
    others = [a_wish(tenant) for _ in range(ITEMS_A_TRANSACTION)]
    of_person = a_wish(tenant, agent_id=screening, candidate=person)
    other_person = a_wish(tenant, candidate=replace(person, first_name="Eve"))
    run = dry_runs.decide(tenant.principal, None, [first, *others, first, of_person, other_person])
    assert (run.accepted, run.existing, run.repeated_numbers) == (len(others) + 2, 1, 1)
    assert [(each.code, each.first) for each in run.refused] == [("EXTERNAL_ID_REUSED", (len(others) + 3,))]


def test_dry_run_takes_as_many_statements_for_many_items(
    tenant: Tenant, seeded: Seeded, api: Database, dry_runs: DryRuns
) -> None:
    number_id, numbers = seeded.phone_number_id, set()
    for size in (6, 20, ITEMS_A_TRANSACTION):
        items = [
            a_wish(
                tenant,
                agent=a_new_agent(seeded, phone_number_id=number_id) if each % 2 else None,
                agent_id=None if each % 2 else tenant.agent_id,
                candidate_id=a_candidate(tenant).id,
                job_id=a_job(tenant) if each % 3 else None,
                external_id=f"{size}-{each}",
            )
            for each in range(1, size + 1)
        ]
        with statements_of(api) as statements:
            dry_runs.decide(tenant.principal, None, items)
        numbers.add(len(statements))
    assert len(numbers) == 1, numbers


def test_unread_items_are_counted_by_code_and_field(tenant: Tenant, dry_runs: DryRuns) -> None:
    unread = refusal_of(invalid_fields([FieldError(field="agent", code="MISSING_FIELD", message="Send agent.")]))
    run = dry_runs.decide(tenant.principal, None, [a_wish(tenant), unread, a_wish(tenant, scheduled_at=NIGHT), unread])
    assert [(each.code, each.field, each.count, each.first) for each in run.refused] == [
        ("VALIDATION_ERROR", "agent", 2, (1, 3)),
        ("OUTSIDE_CALL_TIME_INTERVAL", "scheduledAt", 1, (2,)),
    ]


def test_items_at_different_times_of_a_night_are_one_group(tenant: Tenant, dry_runs: DryRuns) -> None:
    nights = [a_wish(tenant, scheduled_at=f"2026-04-03T0{hour}:00:00+02:00") for hour in (1, 2, 3)]
    [group] = dry_runs.decide(tenant.principal, None, nights).refused
    assert (group.code, group.first) == ("OUTSIDE_CALL_TIME_INTERVAL", (0, 1, 2))
    assert group.message.startswith("2026-04-03 01:00")


def test_numbers_that_are_called_already_are_counted(tenant: Tenant, dry_runs: DryRuns, now: TestClock) -> None:
    waiting, called, of_other, twice = (a_number() for _ in range(4))
    a_pending_attempt(tenant, waiting)
    a_claimed_attempt(tenant, called)
    a_pending_attempt(of_company(tenant, seed(tenant.database, now())), of_other)
    people = [a_new_candidate(each) for each in (waiting, called, of_other, twice, twice, called)]
    run = dry_runs.decide(tenant.principal, None, [a_wish(tenant, candidate=each) for each in people])
    assert (run.calls, run.repeated_numbers, run.numbers_with_calls) == (6, 2, 3)


def test_due_times_are_counted_by_hour_and_zones(tenant: Tenant, dry_runs: DryRuns) -> None:
    adelaide = a_new_candidate("+61870701234", timezone="Australia/Adelaide")
    items = [
        *(a_wish(tenant, scheduled_at=f"2026-04-03T09:{minute}:00+02:00") for minute in (10, 20)),
        *(a_wish(tenant, scheduled_at=f"2026-04-03T{hour}:30:00") for hour in ("09", "10")),
        a_wish(tenant, scheduled_at="2026-04-03T09:30:00", candidate=adelaide),
        a_wish(tenant, is_test=True),
    ]
    run = dry_runs.decide(tenant.principal, None, items)
    assert run.refused == ()
    assert [(f"{each.begins:%d %H}", each.zones, each.offset, each.calls) for each in run.due] == [
        ("02 23", ("Australia/Adelaide",), None, 1),
        ("03 07", (), timedelta(hours=2), 2),
        ("03 07", ("Europe/Bratislava",), None, 1),
        ("03 08", ("Europe/Bratislava",), None, 1),
    ]
    assert run.first_due_at == run.due[0].begins
    assert run.last_due_at == run.due[-1].begins + timedelta(minutes=30)


def test_dry_run_of_another_company_is_refused(tenant: Tenant, dry_runs: DryRuns, now: TestClock) -> None:
    other = of_company(tenant, seed(tenant.database, now()))
    ats = replace(tenant.principal, kind=KeyKind.ATS, company_id=None, id=uuid4())
    with pytest.raises(AccessDenied):
        dry_runs.decide(ats, other.company_id, [a_wish(other)])
