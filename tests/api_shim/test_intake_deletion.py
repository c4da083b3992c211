"""Deletion of a company over HTTP: rules F6-1 to F6-3. `tests/verification/crash/test_erasure.py` has the crashes."""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import redis

from scheduler.domain.principal import KeyKind
from scheduler.use_cases.operations.erase import Erase
from scheduler.use_cases.shared import hints as tasks
from tests.api_shim.answers import data, refusal
from tests.api_shim.bodies import JOB, ONLINE_AGENT, TOMORROW, candidate
from tests.api_shim.calls import a_call
from tests.api_shim.carrier_callbacks import call_back, changed, token_of
from tests.api_shim.intake import ASYNC, Intake, Worker
from tests.architecture.rules import does, does_not
from tests.conftest import wait_until
from tests.support.builders import RecordingHints, Tenant, a_placed_attempt, a_sid

QUEUE = f"duecall:{tasks.QUEUES[tasks.ERASE]}"
"""The queue in which erasures wait, as Redis has it."""
Erasure = Callable[[UUID], None]
DELETE_KEY = {"Idempotency-Key": "a deletion"}


@pytest.fixture
def erase(tenant: Tenant) -> Erasure:
    """Erase as a worker does after a hint, and after those that it sends when a turn was too short."""

    def erased(company_id: UUID) -> None:
        hints = RecordingHints()
        turns = 1
        Erase(tenant.context, hints).company(company_id)
        while len(hints.ids(tasks.ERASE)) == turns:
            turns += 1
            Erase(tenant.context, hints).company(company_id)

    return erased


def delete(intake: Intake, company_id: object, **headers: str) -> httpx.Response:
    return intake.delete(f"/company/{company_id}", headers=headers)


def a_company(ats: Intake, **headers: str) -> str:
    return str(ats.made("/company", {"name": "Canary"}, headers=headers)["id"])


def is_deleted(intake: Intake, company_id: object) -> bool:
    rows = intake.ask("SELECT deleted_at IS NOT NULL FROM companies WHERE id = :id", id=str(company_id))
    return not rows or bool(rows[0][0])


# ---- F6-1: permission and answer


@does("F6-1")
def test_f6_1_a_regular_key_deletes_its_own_company(intake: Intake) -> None:
    assert data(delete(intake, intake.seeded.company_id)) is True
    assert is_deleted(intake, intake.seeded.company_id)


@does("F6-1")
def test_f6_1_ats_key_deletes_a_company_that_it_created(ats: Intake) -> None:
    company_id, other = a_company(ats), a_company(ats)
    assert data(ats.delete(f"/v1/company/{company_id}")) is True
    assert is_deleted(ats, company_id)
    assert not is_deleted(ats, other)


@does_not("F6-1")
def test_f6_1_foreign_or_missing_company_is_not_deleted(intake: Intake, ats: Intake) -> None:
    company_id = a_company(ats)
    for stranger in (intake, intake.with_key_of_another_company(), intake.with_new_key(kind=KeyKind.ATS)):
        for which in (company_id, uuid4()):
            assert refusal(delete(stranger, which)) == (403, "RESOURCE_ACCESS_DENIED")
    assert refusal(delete(ats, intake.seeded.company_id)) == (403, "RESOURCE_ACCESS_DENIED")
    assert not is_deleted(intake, company_id)
    assert not is_deleted(intake, intake.seeded.company_id)


@does("F6-1")
def test_f6_1_deletion_is_written_by_the_api_and_never_gets_202(ats: Intake) -> None:
    """No worker runs here."""
    company_id = a_company(ats)
    assert data(delete(ats, company_id, **ASYNC)) is True
    assert is_deleted(ats, company_id)


@does("F6-1")
def test_f6_1_repeated_deletion_is_answered_after_the_erasure(ats: Intake, erase: Erasure) -> None:
    company_id = a_company(ats)
    assert data(delete(ats, company_id, **DELETE_KEY)) is True
    for _ in range(2):
        again = delete(ats, company_id, **DELETE_KEY)
        assert data(again) is True
        assert again.headers["Idempotent-Replayed"] == "true"
        erase(UUID(company_id))
    assert ats.count("erasures") == 1
    other = a_company(ats)
    assert refusal(delete(ats, other, **DELETE_KEY)) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert not is_deleted(ats, other)


@does_not("F6-1")
def test_f6_1_repeated_deletion_without_its_key_gets_403(ats: Intake, erase: Erasure) -> None:
    company_id = a_company(ats)
    assert data(delete(ats, company_id)) is True
    for headers in ({}, DELETE_KEY):
        assert refusal(delete(ats, company_id, **headers)) == (403, "RESOURCE_ACCESS_DENIED")
    erase(UUID(company_id))
    assert refusal(delete(ats, company_id)) == (403, "RESOURCE_ACCESS_DENIED")


# ---- F6-2: after the answer


@does("F6-2")
def test_f6_2_only_the_keys_of_the_deleted_company_are_dead(intake: Intake, erase: Erasure) -> None:
    second, stranger = intake.with_new_key(), intake.with_key_of_another_company()
    assert data(delete(intake, intake.seeded.company_id, **DELETE_KEY)) is True
    for _ in range(2):
        for key in (intake, second):
            assert refusal(key.get("/jobs")) == (401, "INVALID_API_KEY")
            assert refusal(delete(key, intake.seeded.company_id, **DELETE_KEY)) == (401, "INVALID_API_KEY")
        assert stranger.get("/jobs").status_code == 200
        erase(intake.seeded.company_id)
    assert stranger.get("/jobs").status_code == 200


@does_not("F6-2")
def test_f6_2_deleted_company_can_no_longer_be_read_or_written(intake: Intake, worker: Worker, erase: Erasure) -> None:
    ats = intake.with_key_of_its_ats()
    company_id = str(intake.seeded.company_id)
    params = {"companyId": company_id}
    made = {
        path: ats.made(path, body, params=params)["id"]
        for path, body in (("/jobs", JOB), ("/candidates", candidate()), ("/agents", ONLINE_AGENT))
    }
    accepted = ats.post("/interviews", ats.body(), params=params, headers=ASYNC)
    call = a_call(intake, scheduledAt=TOMORROW)
    stays = a_company(ats)
    paths = ["/phone-numbers", *made, call.interview, call.attempts, call.attempt, call.explanation]
    paths += [f"{path}/{each}" for path, each in made.items()]
    for path in paths:
        assert ats.get(path, **params).status_code == 200, path
    assert data(delete(ats, company_id)) is True
    for _ in range(2):
        for path in paths:
            assert refusal(ats.get(path, **params)) == (403, "RESOURCE_ACCESS_DENIED"), path
        assert refusal(ats.get(f"/company/{company_id}")) == (403, "RESOURCE_ACCESS_DENIED")
        assert refusal(ats.patch(f"/company/{company_id}", {"name": "Back"})) == (403, "RESOURCE_ACCESS_DENIED")
        assert refusal(ats.post("/jobs", JOB, params=params)) == (403, "RESOURCE_ACCESS_DENIED")
        assert refusal(ats.create(companyId=company_id)) == (403, "RESOURCE_ACCESS_DENIED")
        assert ats.ids("/company") == [stays]
        assert ats.get(accepted.headers["Location"]).status_code in {403, 404}
        erase(UUID(company_id))
    assert ats.get(f"/company/{stays}").status_code == 200


COMPANY = "/company/{company}"
WRITES = [
    pytest.param(method, path, body, id=f"{method} {path}")
    for kind, new, change in (
        ("jobs", JOB, {"status": "CLOSED"}),
        ("candidates", candidate(), {"phoneNumber": "+421915123457"}),
        ("agents", ONLINE_AGENT, {"duration": 45}),
    )
    for method, path, body in (
        ("POST", f"/{kind}", new),
        ("PATCH", f"/{kind}/{{{kind}}}", change),
        ("DELETE", f"/{kind}/{{{kind}}}", {}),
    )
] + [
    pytest.param("PATCH", COMPANY, {"name": "Back", "ownerEmail": "owner@example.com"}, id="PATCH /company"),
    pytest.param("DELETE", COMPANY, {}, id="DELETE /company"),
    pytest.param("DELETE", f"/interviews/{uuid4()}", {}, id="a command"),
]


@does_not("F6-2")
@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_f6_2_write_that_meets_the_deletion_is_refused(
    intake: Intake, method: str, path: str, body: dict[str, Any]
) -> None:
    headers = {"Idempotency-Key": "a write"} if method == "POST" else {}
    address, company_id = path.format(**one_of_each(intake)), intake.seeded.company_id
    before = rows(intake)
    with ThreadPoolExecutor(1) as pool:
        with intake.database.transaction() as stores:
            assert stores.companies.lock_to_delete(company_id)
            answer = pool.submit(intake.send, method, address, json=body, headers=headers)
            wait_until(lambda: waits_for_a_lock(intake), says="the write waits for the company")
            stores.companies.delete(company_id, intake.now())
        assert refusal(answer.result()) == (403, "RESOURCE_ACCESS_DENIED")
    assert rows(intake) == before


@does("F6-2")
def test_f6_2_write_before_the_deletion_is_completed_first(intake: Intake) -> None:
    job = one_of_each(intake)["jobs"]
    with ThreadPoolExecutor(2) as both:
        with intake.database.transaction() as stores:
            assert stores.jobs.lock(intake.seeded.company_id, UUID(job)) is not None
            change = both.submit(intake.send, "PATCH", f"/jobs/{job}", json={"status": "CLOSED"})
            wait_until(lambda: waits_for_a_lock(intake), says="the write waits for its job")
            deletion = both.submit(delete, intake, intake.seeded.company_id)
            wait_until(lambda: waits_for_a_lock(intake) > 1, says="the deletion waits for the write")
        assert data(change.result())["status"] == "CLOSED"
        assert data(deletion.result()) is True


def one_of_each(intake: Intake) -> dict[str, str]:
    made = {"jobs": JOB, "candidates": candidate(), "agents": ONLINE_AGENT}
    ids = {kind: intake.made(f"/{kind}", body)["id"] for kind, body in made.items()}
    return {"company": str(intake.seeded.company_id), **ids}


def rows(intake: Intake) -> dict[str, list[Any]]:
    """All rows except for the company itself, and for the counts of requests, which the API adds when it has time."""
    others = {"companies", "api_keys", "tallies", "tally_entries"}
    names = [name for (name,) in intake.ask(TABLES) if name not in others]
    return {name: intake.ask(f"SELECT t::text FROM {name} AS t ORDER BY 1") for name in names}


def waits_for_a_lock(intake: Intake) -> int:
    return len(intake.ask("SELECT DISTINCT pid FROM pg_locks WHERE NOT granted"))


@does("F6-2")
def test_f6_2_hint_for_the_worker_contains_only_the_id(intake: Intake) -> None:
    with redis.Redis.from_url(intake.settings.redis) as broker:
        broker.delete(QUEUE)
        assert data(delete(intake, intake.seeded.company_id)) is True
        [message] = wait_until(lambda: broker.lrange(QUEUE, 0, -1), says="the hint is sent")
    content = json.loads(message)
    assert content["headers"]["task"] == tasks.ERASE
    assert json.loads(base64.b64decode(content["body"]))[0] == [[str(intake.seeded.company_id)]]


# ---- F6-3: nothing is restored


@does("F6-3")
def test_f6_3_everything_is_erased_but_certificate_and_usage(intake: Intake, worker: Worker, erase: Erasure) -> None:
    ats = intake.with_key_of_its_ats()
    a_call(intake)
    company_id = intake.seeded.company_id
    assert data(delete(ats, company_id)) is True
    erase(company_id)
    [[erased, asked_at, finished_at]] = intake.ask("SELECT erased, asked_at, finished_at FROM erasures")
    assert (erased["candidates"], erased["interviews"], erased["attempts"]) == (1, 1, 1)
    assert asked_at <= finished_at <= intake.now()
    left = {table: intake.count(table) for (table,) in intake.ask(TABLES)}
    # Counts of requests are of the whole installation. The audit and the event for the ATS name the deletion by ids.
    counts_of_all = {"tallies", "tally_entries"}
    filled = {table for table, count in left.items() if count} - counts_of_all
    assert filled == {"api_keys", "audit", "carrier_accounts", "erasures", "events"}
    assert intake.ask("SELECT type FROM events") == [("company.deleted",)]
    assert intake.ask("SELECT kind FROM api_keys") == [("ATS",)]


@does_not("F6-3")
def test_f6_3_rows_of_another_company_are_kept(intake: Intake, worker: Worker, erase: Erasure) -> None:
    stranger = intake.with_key_of_another_company()
    call = a_call(stranger)
    assert data(delete(intake, intake.seeded.company_id)) is True
    erase(intake.seeded.company_id)
    assert data(stranger.get(call.attempt))["status"] == "PENDING"


@does_not("F6-3")
def test_f6_3_late_callback_belongs_to_no_attempt(intake: Intake, tenant: Tenant, erase: Erasure) -> None:
    placed = a_placed_attempt(tenant)
    token = token_of(placed)
    form = changed(CallSid=placed.call_sid or a_sid(), CallStatus="completed")
    assert data(delete(intake, tenant.company_id)) is True
    assert call_back(intake, token, form).status_code == 204
    assert intake.count("carrier_events") == 1, "it is accepted while it may still end a call"
    intake.change(
        "UPDATE attempts SET state = 'FAILED', reason = 'BUSY', phase = NULL, look_at = NULL, ended_at = :at",
        at=intake.now(),
    )
    intake.change("UPDATE lines SET attempt_id = NULL")
    erase(tenant.company_id)
    assert intake.count("carrier_events") == 0
    assert call_back(intake, token, form).status_code == 204
    assert intake.count("carrier_events") == 0


@does_not("F6-3")
def test_f6_3_repeated_requests_restore_nothing(ats: Intake, worker: Worker, erase: Erasure) -> None:
    headers = {"Idempotency-Key": "a company"}
    company_id = a_company(ats, **headers)
    job: Any = {"headers": {"Idempotency-Key": "a job"}, "json": JOB, "params": {"companyId": company_id}}
    assert ats.post("/jobs", **job).status_code == 201
    assert data(delete(ats, company_id)) is True
    for _ in range(2):
        content = ats.post("/company", {"name": "Canary"}, headers=headers)
        assert refusal(content) == (410, "COMPANY_DELETED")
        assert content.headers["Idempotent-Replayed"] == "true"
        assert not [each for each in ("Canary", "settings") if each in content.text]
        assert refusal(ats.post("/jobs", **job)) == (403, "RESOURCE_ACCESS_DENIED")
        assert refusal(ats.get(f"/company/{company_id}")) == (403, "RESOURCE_ACCESS_DENIED")
        erase(UUID(company_id))
    assert ats.ask("SELECT count(*) FROM companies WHERE id = :id", id=company_id) == [(0,)]
    assert ats.count("jobs") == 0


TABLES = (
    "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('arrows', 'alembic_version')"
)
