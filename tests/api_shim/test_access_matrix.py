"""Access matrix: every operation that names a resource, with every kind of key. Generated from the document.

New routes are included automatically. A path with a new parameter fails until this test creates its resource.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from scheduler.domain.attempt import Progressed
from scheduler.domain.call import CallProgress
from scheduler.domain.principal import KeyKind
from scheduler.hashing import Hasher
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.resources.keys import ALL_SCOPES
from tests.api_shim.answers import data
from tests.api_shim.bodies import FIRST_NAME, JOB, NUMBER, TOMORROW, candidate
from tests.api_shim.calls import tenant_of
from tests.api_shim.document_operations import documented, example_of
from tests.api_shim.intake import PEPPER, Intake, Worker
from tests.conftest import CALLER
from tests.support.builders import RecordingHints, a_placed_attempt

ANOTHER_TIME = "2026-04-03T09:00:00Z"
WEBHOOK = {"url": "https://hooks.example.com", "events": ["ping"]}
BODIES: Mapping[str, Mapping[str, Any]] = {
    "updateInterview": {"metadata": {"ref": "A-18"}},
    "createCallAttempt": {"scheduledAt": ANOTHER_TIME},
    "rescheduleCallAttempt": {"scheduledAt": ANOTHER_TIME},
    "updateCandidate": {"status": "IN_PROCESS"},
}
"""Bodies for operations whose documented example does not fit the clock of the tests."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    name: str
    method: str
    path: str
    scope: str | None
    """None: the scope depends on the resource."""
    body: Mapping[str, Any] | None
    takes_company_id: bool

    @property
    def params(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def is_about_a_webhook(self) -> bool:
        """Its resource belongs to one key, and not to the company."""
        return self.params[0] == "webhookId"

    @property
    def is_about_a_company(self) -> bool:
        return self.params == ["companyId"]

    def address(self, ids: Mapping[str, str]) -> str:
        unknown = set(self.params) - set(ids)
        assert not unknown, f"{self.name}: this test does not know what {unknown} names; add it to `_made`"
        return self.path.format_map(ids)


def _operations() -> Iterator[Operation]:
    for method, path, spec in documented():
        security = spec.get("security")
        if "{" not in path or security is None:
            continue
        [scopes] = security
        yield Operation(
            name=spec["operationId"],
            method=method,
            path=path,
            scope=next(iter(scopes["apiKey"]), None),
            body=BODIES.get(spec["operationId"], example_of(spec)),
            takes_company_id="companyId" in {each["name"] for each in spec["parameters"] if each["in"] == "query"},
        )


OPERATIONS = list(_operations())


@dataclass(frozen=True, kw_only=True)
class World:
    """Two ATS keys with companies, a company with regular keys, and one of each resource in the first company."""

    intake: Intake
    ats: Intake
    other_ats: Intake
    regular: Intake
    other_regular: Intake
    company: str
    sibling: str
    other_company: str
    ids: Mapping[str, str]

    def send(self, by: Intake, operation: Operation, company_id: str | None, key: str | None = None) -> httpx.Response:
        params = {"companyId": company_id} if company_id is not None and operation.takes_company_id else {}
        more = {} if operation.body is None else {"json": dict(operation.body)}
        asking = by if key is None else by.with_key(key)
        # No process sends the ping of a test.
        headers = {"Prefer": "respond-async"} if operation.name == "testWebhook" else {}
        return asking.send(operation.method, operation.address(self.ids), params=params, headers=headers, **more)


@pytest.fixture
def world(intake: Intake, worker: Worker) -> World:
    ats, other_ats = (intake.with_new_key(kind=KeyKind.ATS) for _ in range(2))
    company, sibling = _company(ats), _company(ats)
    other_company = _company(other_ats)
    return World(
        intake=intake,
        ats=ats,
        other_ats=other_ats,
        regular=_regular(intake, company),
        other_regular=intake,
        company=company,
        sibling=sibling,
        other_company=other_company,
        ids={"companyId": company, **_made(ats, company)},
    )


def _company(ats: Intake) -> str:
    return str(ats.made("/company", {"name": "Acme"})["id"])


def _regular(intake: Intake, company: str, *scopes: str) -> Intake:
    of_company = replace(intake.seeded, company_id=UUID(company))
    return replace(intake, seeded=of_company).with_new_key(*scopes)


def _made(ats: Intake, company: str) -> dict[str, str]:
    """One of each resource that a path can name, by parameter name."""
    params = {"companyId": company}

    def make(path: str, body: Mapping[str, Any], **headers: str) -> Any:
        return ats.made(path, body, params=params, headers=headers)

    with ats.database.transaction() as stores:
        number = stores.phone_numbers.add(uuid4(), UUID(company), CALLER, ats.now())
    agent = {"name": "Ann", "type": "PHONE", "focus": "GENERIC", "language": "EN", "duration": 10}
    agent_id = make("/agents", agent | {"companyPhoneNumberId": str(number)})["id"]
    job_id = make("/jobs", JOB)["id"]
    person = make("/candidates", candidate())["id"]
    body = {"agentId": agent_id, "candidateId": person, "scheduledAt": TOMORROW}
    interview = make("/interviews", body, **{"Idempotency-Key": "the interview"})
    NumberEvents(ats.database, RecordingHints(), ats.now).all()
    [event] = data(ats.get("/events", types="interview.scheduled", **params))["items"]
    batch = {"items": [{"agentId": agent_id, "candidateId": person}]}
    return {
        "batchId": data(ats.post("/batches", batch, params=params), 202)["id"],
        "agentId": agent_id,
        "eventId": event["deliveryId"],
        "jobId": job_id,
        "candidateId": person,
        "interviewId": interview["id"],
        "attemptId": interview["callAttempts"][0]["id"],
        "token": _a_token(ats, company, UUID(agent_id)),
        "reference": "the interview",
        **_webhook(ats, {"companyId": company}),
    }


def _a_token(ats: Intake, company: str, agent_id: UUID) -> str:
    """The token of a call of the company that a person has answered."""
    tenant = tenant_of(replace(ats, seeded=replace(ats.seeded, company_id=UUID(company), agent_id=agent_id)))
    token = tenant.take(a_placed_attempt(tenant), Progressed(rank=CallProgress.ANSWERED)).token
    assert token is not None
    return token


def _webhook(client: Intake, body: Mapping[str, Any]) -> dict[str, str]:
    """A webhook with a delivery."""
    webhook_id = client.made("/webhooks", {**WEBHOOK, **body})["id"]
    test = client.post(f"/webhooks/{webhook_id}/test", headers={"Prefer": "respond-async"})
    return {"webhookId": webhook_id, "deliveryId": data(test)["deliveryId"]}


# ---- keys with access


READS, CHANGES, DELETIONS = (
    sorted(
        (each for each in OPERATIONS if each.method in methods),
        key=lambda each: (-len(each.params), each.is_about_a_company, each.name),
    )
    for methods in ({"GET"}, {"POST", "PATCH"}, {"DELETE"})
)
"""Those of each resource before those of the resource that it belongs to."""


def _has_access_by_ats(world: World, operation: Operation) -> None:
    # Only the sender of a command may read it.
    company = None if operation.params == ["reference"] else world.company
    answer = world.send(world.ats, operation, company)
    assert answer.is_success, f"{operation.name}: {answer.text}"


def _has_access_by_regular_key(world: World, operation: Operation) -> None:
    if operation.is_about_a_webhook:
        with _unchanged(world.intake):
            assert world.send(world.regular, operation, None).status_code == 404
        world = replace(world, ids=_webhook(world.regular, {}))
    if operation.params != ["reference"]:
        answer = world.send(world.regular, operation, world.other_company)
        assert answer.is_success, f"{operation.name}: companyId of a regular key is ignored: {answer.text}"


def test_keys_of_the_company_have_access_to_reads_and_changes(world: World) -> None:
    for operation in (*READS, *CHANGES):
        _has_access_by_ats(world, operation)
        _has_access_by_regular_key(world, operation)


@pytest.mark.parametrize("has_access", [_has_access_by_ats, _has_access_by_regular_key], ids=["ats", "regular"])
def test_keys_of_the_company_have_access_to_deletions(
    world: World, has_access: Callable[[World, Operation], None]
) -> None:
    for operation in DELETIONS:
        has_access(world, operation)


# ---- keys without access. Nothing changes, so all operations share a world


def test_other_keys_have_no_access_and_change_nothing(world: World) -> None:
    for operation in OPERATIONS:
        foreign = 403 if operation.is_about_a_company else 404
        refused: list[tuple[str, Intake, str | None, int]] = [
            ("another ATS key, in its own company", world.other_ats, world.other_company, foreign),
            ("a regular key of another company", world.other_regular, None, foreign),
            ("a regular key of another company, naming this one", world.other_regular, world.company, foreign),
        ]
        if operation.takes_company_id:
            refused += [
                ("the same ATS key, in a sibling company", world.ats, world.sibling, 404),
                ("another ATS key, naming this company", world.other_ats, world.company, 403),
                ("an ATS key that names a company that is not there", world.ats, str(uuid4()), 403),
                ("an ATS key that names no company", world.ats, None, 400),
            ]
        with _unchanged(world.intake):
            for who, by, company_id, status in refused:
                answer = world.send(by, operation, company_id)
                assert answer.status_code == status, f"{operation.name}, {who}: {answer.text}"
                _says_nothing_of(world, answer)


def test_missing_and_foreign_resource_get_the_same_answer(world: World) -> None:
    nowhere = {name: str(uuid4()) for name in world.ids}
    for operation in OPERATIONS:
        missing = replace(world, ids=nowhere).send(world.other_ats, operation, world.other_company)
        theirs = world.send(world.other_ats, operation, world.other_company)
        assert missing.status_code == theirs.status_code, operation.name
        assert _anonymous(missing, nowhere) == _anonymous(theirs, world.ids)


def test_dead_or_unscoped_key_is_refused_and_changes_nothing(world: World) -> None:
    key = world.regular.key
    dead = {
        "not a key": "sk_live_",
        "a key with a typing error": key[:-1] + ("a" if key[-1] != "a" else "b"),
        **{column: _ended(world, column) for column in ("revoked_at", "suspended_at", "expires_at")},
    }
    for operation in OPERATIONS:
        others = ALL_SCOPES - {operation.scope or "read:interviews"}
        unscoped = _regular(world.intake, world.company, *others).key
        no = 404 if operation.scope is None else 403
        with _unchanged(world.intake):
            for which, key, status in (*((name, each, 401) for name, each in dead.items()), ("unscoped", unscoped, no)):
                answer = world.send(world.regular, operation, None, key=key)
                assert answer.status_code == status, f"{operation.name}, {which}: {answer.text}"
                _says_nothing_of(world, answer)


def _ended(world: World, column: str) -> str:
    key = _regular(world.intake, world.company)
    change = f"UPDATE api_keys SET {column} = :at WHERE key_hash = :hash"
    world.intake.change(change, at=world.intake.now(), hash=Hasher(PEPPER).key(key.key))
    return key.key


@contextmanager
def _unchanged(intake: Intake) -> Iterator[None]:
    """Check that no row outside the inbox changes, except for the last use of a key and the counts of requests."""
    before = _everything(intake)
    yield
    assert _everything(intake) == before


def _everything(intake: Intake) -> dict[str, str]:
    tables = [
        row[0]
        for row in intake.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        if row[0] not in {"inbox", "api_keys", "alembic_version", "arrows", "tallies", "tally_entries"}
    ]
    digest = "SELECT '{0}', md5(coalesce(string_agg(each::text, '|' ORDER BY each::text), '')) FROM {0} AS each"
    digests = " UNION ALL ".join(digest.format(table) for table in tables)
    return dict(tuple(row) for row in intake.ask(digests))


def _says_nothing_of(world: World, answer: httpx.Response) -> None:
    error = str(answer.json()["error"])
    assert not [word for word in ("Acme", FIRST_NAME, NUMBER, JOB["title"], "Ann") if word in error]


def _anonymous(answer: httpx.Response, ids: Mapping[str, str]) -> str:
    error = str(answer.json()["error"])
    for each in ids.values():
        error = error.replace(each, "an id")
    return error
