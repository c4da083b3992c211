"""Row-level security: the rows that PostgreSQL shows and lets a query change that does not name the tenant."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from pydantic import SecretStr
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from api_shim.app import create_app
from scheduler import assembly
from scheduler.domain.principal import Act, KeyKind, Principal, TargetKind, Verb
from scheduler.domain.resource import ExternalId, ExternalKind
from scheduler.hashing import Hasher
from scheduler.persistence import schema
from scheduler.persistence.carrier_events import NewCarrierEvent
from scheduler.persistence.database import Database
from scheduler.persistence.errors import SchemaNotMade, WrongRole
from scheduler.persistence.schema import Logins
from scheduler.settings import Settings
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.counts import Counts
from scheduler.use_cases.operations.pauses import CarrierWaits
from scheduler.use_cases.resources.keys import Keys
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, TestClock, seed
from tests.support.builders import Tenant, a_placed_attempt, a_waiting_command, of_company

# Every table is in one of these lists. A new table needs a policy in its migration and a row in `_ROWS` below, or a
# reason here for its absence.
TENANTS = {
    "companies": "id",
    "api_keys": "id",
    "phone_numbers": "id",
    "agents": "id",
    "jobs": "id",
    "candidates": "id",
    "assignments": "job_id",
    "interviews": "id",
    "attempts": "id",
    "attempt_history": "attempt_id",
    "attempt_tokens": "token",
    "carrier_events": "id",
    "reresolutions": "company_id",
    "inbox": "id",
    "users": "id",
    "memberships": "company_id",
    "invitations": "id",
    "invitation_tokens": "invitation_id",
    "usage": "attempt_id",
    "erasures": "company_id",
    "carrier_backoffs": "company_id",
    "events": "id",
    "webhook_endpoints": "id",
    "webhook_deliveries": "event_id",
    "batches": "id",
    "batch_items": "batch_id",
}
"""Tables with tenants' rows, each with a column that identifies the row."""
OF_ATS = {"webhook_endpoints", "webhook_deliveries"}
"""Tables of `TENANTS` whose rows belong to a principal: here to the ATS, and its company does not see them."""
FOR_ANY_PRINCIPAL = {"lines"}
"""A line belongs to no tenant: it has only the hash of a number and its state."""
FOR_ALL = {"alembic_version", "carrier_accounts", "installation_marks"}
HIDDEN = {
    "stray_calls",
    "arrows",
    "tallies",
    "tally_entries",
    "caller_days",
    "caller_results",
    "alarms",
    "audit",
    "console_sessions",
    "sign_in_links",
    "console_acts",
    "interview_sequences",
}
"""Tables that the API cannot read."""

DENIED = "permission denied"


@dataclass(frozen=True, kw_only=True)
class WalledTenant:
    """A company with a row in every table, and the two principals with access to it."""

    tenant: Tenant
    regular: Principal
    ats: Principal
    rows: dict[str, set[str]]

    def reader(self, table: str) -> Principal:
        return self.ats if table in OF_ATS else self.regular


@dataclass(frozen=True, kw_only=True)
class TwoTenants:
    one: WalledTenant
    other: WalledTenant
    api: Database


@pytest.fixture(scope="module")
def api(logins: Logins) -> Iterator[Database]:
    """The API's database as in production: its connections were used for other principals before."""
    api = Database(logins.api, pool_size=2, bound=True)
    yield api
    api.close()


@pytest.fixture
def town(tenant: Tenant, database: Database, api: Database, now: TestClock) -> TwoTenants:
    one = _a_tenant(tenant)
    other = _a_tenant(of_company(tenant, seed(database, now())))
    return TwoTenants(one=one, other=other, api=api)


def _a_tenant(tenant: Tenant) -> WalledTenant:
    ats_id = uuid4()
    _do(
        tenant,
        "UPDATE companies SET ats_principal_id = :ats WHERE id = :company",
        ats=ats_id,
        company=tenant.company_id,
    )
    keys = Keys(tenant.database, tenant.hasher, tenant.now)
    regular, _ = keys.create(kind=KeyKind.REGULAR, name="a test", company_id=tenant.company_id)
    attempt = a_placed_attempt(tenant)
    command = a_waiting_command(tenant, attempt.interview_id)
    new = {"company": tenant.company_id, "ats": ats_id, "now": NOON, "attempt": attempt.id, "token": attempt.token}
    new |= {name: uuid4() for name in ("job", "user", "invitation", "event")}
    new |= {"hash": uuid4().bytes, "email": f"{uuid4()}@example.com", "interview": attempt.interview_id}
    # One transaction, because 33 of them would take most of the CPU of these tests.
    with tenant.database.transaction() as stores:
        for statement in _ROWS:
            stores.connection.execute(text(statement), new)
        rows = {
            table: {
                str(row[0])
                for row in stores.connection.execute(
                    text(f"SELECT DISTINCT {column} FROM {table} WHERE {_condition(table)}"), new
                )
            }
            for table, column in TENANTS.items()
        }
    assert all(rows.values()), rows
    assert str(command.id) in rows["inbox"]
    return WalledTenant(
        tenant=tenant,
        regular=regular,
        ats=Principal(id=ats_id, kind=KeyKind.ATS, key_id=uuid4(), scopes=frozenset()),
        rows=rows,
    )


def test_external_ids_of_other_companies_are_not_found(town: TwoTenants) -> None:
    named = [
        ExternalId(kind=kind, company_id=each.tenant.company_id, text="ats-4711")
        for each in (town.one, town.other)
        for kind in ExternalKind
    ]
    for each in (town.one, town.other):
        for table in ("candidates", "jobs", "interviews"):
            change = f"UPDATE {table} SET external_id = 'ats-4711' WHERE company_id = :id"
            _do(each.tenant, change, id=each.tenant.company_id)
    for principal in (town.one.regular, town.one.ats):
        with town.api.reading(principal) as stores:
            found = stores.external_ids.find_all(named)
        assert set(found) == {each for each in named if each.company_id == town.one.tenant.company_id}


_ROWS = (
    (
        "INSERT INTO jobs (id, company_id, title, description, status, created_at, updated_at)"
        " VALUES (:job, :company, 'a job', 'a text', 'OPEN', :now, :now)"
    ),
    (
        "INSERT INTO assignments (candidate_id, job_id, company_id, created_at)"
        " SELECT candidate_id, :job, company_id, :now FROM interviews WHERE id = :interview"
    ),
    "INSERT INTO users (id, email, name, created_at, updated_at) VALUES (:user, :email, 'Ada', :now, :now)",
    (
        "INSERT INTO memberships (company_id, user_id, role, created_at, updated_at)"
        " VALUES (:company, :user, 'OWNER', :now, :now)"
    ),
    (
        "INSERT INTO invitations (id, company_id, email, expires_at, tries, created_at, updated_at)"
        " VALUES (:invitation, :company, :email, :now, 0, :now, :now)"
    ),
    "INSERT INTO invitation_tokens (token_hash, invitation_id, created_at) VALUES (:hash, :invitation, :now)",
    (
        "INSERT INTO usage (attempt_id, company_id, ats_principal_id, interview_id, booked_at, billing_system,"
        " cost_key, talked) VALUES"
        " (:attempt, :company, :ats, :interview, :now, 'minutes', 'GENERIC', interval '1 minute')"
    ),
    (
        "INSERT INTO carrier_backoffs (account_id, company_id, caller, failures, trials, cause, is_asked, others_work,"
        " created_at, updated_at) SELECT max(id), :company, '+421221020001', 1, 0, 'X', false, false, :now, :now"
        " FROM carrier_accounts"
    ),
    (
        "INSERT INTO erasures (company_id, ats_principal_id, asked_at, rung_at, erased)"
        " VALUES (:company, :ats, :now, :now, '{}')"
    ),
    (
        "INSERT INTO carrier_events (id, token, fingerprint, raw, received_at, rung_at)"
        " VALUES (:event, :token, :hash, '{}', :now, :now)"
    ),
    (
        "INSERT INTO reresolutions (company_id, is_last_pass, not_before, asked_at, rung_at)"
        " VALUES (:company, false, :now, :now, :now)"
    ),
    (
        "INSERT INTO events (id, company_id, ats_principal_id, interview_id, type, occurred_at, data)"
        " VALUES (:event, :company, :ats, :interview, 'interview.scheduled', :now, '{}')"
    ),
    (
        "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,"
        " secret, created_at, updated_at)"
        " VALUES (:event, :ats, :ats, :company, 'https://example.com', '{}', 3, 15000, 'x', :now, :now)"
    ),
    (
        "INSERT INTO webhook_deliveries (event_id, endpoint_id, place, state, send_at, created_at)"
        " VALUES (:event, :event, 1, 'WAITING', :now, :now)"
    ),
    (
        "INSERT INTO batches (id, company_id, principal_id, key_id, state, total, work_at, created_at, updated_at)"
        " VALUES (:event, :company, :ats, :ats, 'ACCEPTED', 1, :now, :now, :now)"
    ),
    (
        "INSERT INTO batch_items (batch_id, index, company_id, state, body)"
        " VALUES (:event, 0, :company, 'WAITING', '{}')"
    ),
)


def _condition(table: str) -> str:
    return {
        "companies": "id = :company",
        "attempt_history": "attempt_id = :attempt",
        "attempt_tokens": "attempt_id = :attempt",
        "carrier_events": "token = :token",
        "users": "id = :user",
        "webhook_deliveries": "event_id = :event",
        "invitation_tokens": "invitation_id IN (SELECT id FROM invitations WHERE company_id = :company)",
    }.get(table, "company_id = :company")


def _do(tenant: Tenant, statement: str, **parameters: object) -> None:
    with tenant.database.transaction() as stores:
        stores.connection.execute(text(statement), parameters)


def rows_of(database: Database, principal: Principal | None, table: str, column: str = "*") -> list[Any]:
    with database.transaction(principal) as stores:
        return list(stores.connection.execute(text(f"SELECT {column} FROM {table}")))


# ---- every table


def test_every_table_is_listed_and_has_row_level_security(database: Database) -> None:
    with database.transaction() as stores:
        tables = stores.connection.execute(
            text(
                "SELECT relname, relrowsecurity AND relforcerowsecurity FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')"
            )
        ).all()
    assert {name for name, _ in tables} == TENANTS.keys() | FOR_ANY_PRINCIPAL | FOR_ALL | HIDDEN
    assert {name for name, behind in tables if not behind} == FOR_ALL | {"arrows"}


def test_query_without_where_shows_only_own_rows(town: TwoTenants) -> None:
    for table, column in TENANTS.items():
        for walled in (town.one, town.other):
            for principal in (walled.regular, walled.ats):
                rows = {str(row[0]) for row in rows_of(town.api, principal, table, column)}
                if table in OF_ATS and principal is walled.regular:
                    assert rows == set(), table
                else:
                    own = {str(walled.regular.key_id)} if table == "api_keys" else walled.rows[table]
                    assert rows == own, table


def test_transaction_without_a_principal_sees_no_rows(town: TwoTenants) -> None:
    for table in (*TENANTS, *FOR_ANY_PRINCIPAL):
        column = TENANTS.get(table, "*")
        assert rows_of(town.api, None, table, column) == [], table
        # Also on a connection that was used for a principal before.
        assert rows_of(town.api, town.one.reader(table), table, column), table
        assert rows_of(town.api, None, table, column) == [], table


def test_unknown_principal_sees_no_rows(town: TwoTenants) -> None:
    ats = Principal(id=uuid4(), kind=KeyKind.ATS, key_id=uuid4(), scopes=frozenset())
    for unknown in (ats, replace(ats, company_id=uuid4())):
        for table, column in TENANTS.items():
            assert rows_of(town.api, unknown, table, column) == [], table


def test_hidden_table_is_denied(town: TwoTenants) -> None:
    for table in HIDDEN:
        with pytest.raises(ProgrammingError, match=DENIED):
            rows_of(town.api, town.one.regular, table)


CHANGES = {
    "companies": "name = 'changed'",
    "api_keys": "revoked_at = now()",
    "jobs": "title = 'changed'",
    "agents": "name = 'changed'",
    "candidates": "first_name = 'changed'",
    "interviews": "metadata = '{}'",
    "attempts": "warnings = '{}'",
    "inbox": "failures = 4",
    "memberships": "role = 'ADMIN'",
    "invitations": "tries = 3",
    "carrier_events": "raw = '{\"a\": 1}'",
    "webhook_endpoints": "is_active = false",
    "webhook_deliveries": "tries = 2",
    "batches": "name = 'changed'",
    "batch_items": "body = '[]'",
}


READABLE = {"api_keys": "revoked_at", "carrier_events": "raw"}
"""A readable column of the tables of which the API may not read whole rows."""


def test_update_without_where_is_denied_for_other_tables(town: TwoTenants) -> None:
    for table in TENANTS.keys() - CHANGES.keys():
        column = TENANTS[table]
        with town.api.transaction(town.one.regular) as stores, pytest.raises(ProgrammingError, match=DENIED):
            stores.connection.execute(text(f"UPDATE {table} SET {column} = {column}"))


def test_update_without_where_changes_only_own_rows(town: TwoTenants) -> None:
    for table, change in CHANGES.items():
        column, update = TENANTS[table], text(f"UPDATE {table} SET {change}")
        content = f"{column}, {READABLE.get(table, f'md5({table}::text)')}"
        reader = town.one.reader(table)
        others = rows_of(town.api, town.other.reader(table), table, content)
        with town.api.transaction() as stores:
            assert stores.connection.execute(update).rowcount == 0, table
        own = len(rows_of(town.api, reader, table, column))
        with town.api.transaction(reader) as stores:
            assert stores.connection.execute(update).rowcount == own, table
        assert others == rows_of(town.api, town.other.reader(table), table, content), table


DELETABLE = ("assignments", "memberships")


def test_delete_without_where_removes_only_own_rows(town: TwoTenants) -> None:
    for table in TENANTS.keys() - {*DELETABLE}:
        with town.api.transaction(town.one.regular) as stores, pytest.raises(ProgrammingError, match=DENIED):
            stores.connection.execute(text(f"DELETE FROM {table}"))
    for table in DELETABLE:
        before = rows_of(town.one.tenant.database, None, table)
        with town.api.transaction(town.one.regular) as stores:
            assert stores.connection.execute(text(f"DELETE FROM {table}")).rowcount == 1
        assert len(rows_of(town.one.tenant.database, None, table)) == len(before) - 1
        assert len(rows_of(town.api, town.other.regular, table)) == 1


FOR_OTHERS = {
    "give own rows to another company": ("UPDATE jobs SET company_id = :theirs"),
    "insert for another company": (
        "INSERT INTO reresolutions (company_id, is_last_pass, not_before, asked_at, rung_at)"
        " VALUES (:theirs, false, :now, :now, :now)"
    ),
    "send a command for another company": (
        "INSERT INTO inbox (id, principal_id, company_id, request_hash, kind, body, received_at, rung_at, failures)"
        " VALUES (gen_random_uuid(), :me, :theirs, '', 'delete_interview', '{}', :now, :now, 0)"
    ),
    "send a command as another principal": (
        "INSERT INTO inbox (id, principal_id, company_id, request_hash, kind, body, received_at, rung_at, failures)"
        " VALUES (gen_random_uuid(), :them, :mine, '', 'delete_interview', '{}', :now, :now, 0)"
    ),
    "join another company": (
        "INSERT INTO memberships (company_id, user_id, role, created_at, updated_at)"
        " SELECT :theirs, user_id, 'ADMIN', :now, :now FROM memberships"
    ),
    "write history of another company": (
        "INSERT INTO attempt_history (attempt_id, at, event, from_state, to_state, reason, epoch, actor, detail)"
        " VALUES (:attempt, :now, 'created', '', 'PENDING', '', 0, 'me', '{}')"
    ),
    "write an event of another company": (
        "INSERT INTO events (id, company_id, type, occurred_at, data)"
        " VALUES (gen_random_uuid(), :theirs, 'interview.failed', :now, '{}')"
    ),
    "receive events of another company": (
        "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries,"
        " timeout_ms, secret, created_at, updated_at) VALUES"
        " (gen_random_uuid(), :them, :them, :theirs, 'https://example.com', '{}', 3, 15000, 'x', :now, :now)"
    ),
    "receive events of another company by a webhook of one's own": (
        "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries,"
        " timeout_ms, secret, created_at, updated_at) VALUES"
        " (gen_random_uuid(), :me, :me, :theirs, 'https://example.com', '{}', 3, 15000, 'x', :now, :now)"
    ),
    "write a ping of another principal": (
        "INSERT INTO events (id, ats_principal_id, type, occurred_at, data, place)"
        " VALUES (gen_random_uuid(), :them, 'ping', :now, '{}', 1)"
    ),
    "give an event a place that is no ping": (
        "INSERT INTO events (id, company_id, type, occurred_at, data, place)"
        " VALUES (gen_random_uuid(), :mine, 'interview.failed', :now, '{}', 1)"
    ),
    "send an event to an endpoint of another principal": (
        "INSERT INTO webhook_deliveries (event_id, endpoint_id, place, state, send_at, created_at)"
        " VALUES (:endpoint, :endpoint, 1, 'WAITING', :now, :now)"
    ),
    "send a batch for another company": (
        "INSERT INTO batches (id, company_id, principal_id, key_id, state, total, work_at, created_at, updated_at)"
        " VALUES (gen_random_uuid(), :theirs, :them, :them, 'ACCEPTED', 1, :now, :now, :now)"
    ),
    "add an item for another company": (
        "INSERT INTO batch_items (batch_id, index, company_id, state, body)"
        " VALUES (gen_random_uuid(), 0, :theirs, 'WAITING', '{}')"
    ),
}


def test_write_for_another_tenant_is_denied(town: TwoTenants) -> None:
    parameters = {
        "mine": town.one.tenant.company_id,
        "theirs": town.other.tenant.company_id,
        "me": town.one.regular.id,
        "them": town.other.regular.id,
        "attempt": UUID(min(town.other.rows["attempts"])),
        "endpoint": UUID(min(town.other.rows["webhook_endpoints"])),
        "now": NOON,
    }
    for name, statement in FOR_OTHERS.items():
        for principal in (town.one.regular, town.one.ats):
            refused = pytest.raises(ProgrammingError, match="violates row-level security policy")
            with town.api.transaction(principal) as stores, refused:
                stores.connection.execute(text(statement), {**parameters, "me": principal.id})
                pytest.fail(name)
        if "SELECT" in statement:
            continue  # without a principal there is no visible row to copy
        with town.api.transaction() as stores:
            if statement.startswith("UPDATE"):
                assert stores.connection.execute(text(statement), parameters).rowcount == 0
                continue
            with pytest.raises(ProgrammingError, match="violates row-level security policy"):
                stores.connection.execute(text(statement), parameters)


def test_ats_key_creates_companies_only_for_itself(town: TwoTenants) -> None:
    make = text(
        "INSERT INTO companies (id, name, settings, ats_principal_id, calls_per_second, concurrent_calls, next_slot_at,"
        " created_at, updated_at) VALUES (:id, 'New', '{}', :ats, 1, 1, :now, :now, :now)"
    )
    for owner, allowed in ((town.one.ats, True), (town.other.ats, False)):
        with town.api.transaction(town.one.ats) as stores:
            parameters = {"id": uuid4(), "ats": owner.id, "now": NOON}
            if allowed:
                stores.connection.execute(make, parameters)
                continue
            with pytest.raises(ProgrammingError, match="violates row-level security policy"):
                stores.connection.execute(make, parameters)


def test_api_cannot_change_columns_of_operators_and_claims(town: TwoTenants) -> None:
    for column in ("ats_principal_id", "billing_system", "prices", "paused_at", "next_slot_at"):
        with town.api.transaction(town.one.ats) as stores, pytest.raises(ProgrammingError, match=DENIED):
            stores.connection.execute(text(f"UPDATE companies SET {column} = {column}"))


# ---- requests without a principal


def test_key_is_found_only_by_its_hash(town: TwoTenants, hasher: Hasher) -> None:
    principal, secret = Keys(town.one.tenant.database, hasher, town.one.tenant.now).create(kind=KeyKind.ATS, name="x")
    with town.api.transaction() as stores:
        found = stores.keys.by_hash(hasher.key(secret))
        assert found is not None
        assert found.key.principal == principal
        assert not found.company_deleted
        assert stores.keys.by_hash(b"another") is None
    for reader in (None, principal):
        with town.api.transaction(reader) as stores, pytest.raises(ProgrammingError, match=DENIED):
            stores.connection.execute(text("SELECT key_hash FROM api_keys"))


def test_carrier_event_is_stored_only_for_a_known_token(town: TwoTenants) -> None:
    [token] = town.one.rows["attempt_tokens"]
    store = text(
        "INSERT INTO carrier_events (id, token, fingerprint, raw, received_at, rung_at)"
        " VALUES (:id, :token, :fingerprint, '{}', :now, :now)"
    )
    known, guess = (
        NewCarrierEvent(id=uuid4(), token=each, raw={}, fingerprint=each.encode()) for each in (token, "a guess")
    )
    with town.api.transaction() as stores:
        assert stores.carrier_events.add([guess, known], NOON) == 1
        assert stores.carrier_events.add([guess, known], NOON) == 0, "it is stored already"
    with town.api.transaction() as stores:
        stores.connection.execute(store, {"id": uuid4(), "token": token, "fingerprint": b"1", "now": NOON})
    with town.api.transaction() as stores, pytest.raises(ProgrammingError, match="violates row-level security policy"):
        stores.connection.execute(store, {"id": uuid4(), "token": "a guess", "fingerprint": b"2", "now": NOON})


def test_invitation_token_gives_access_to_its_company_only(town: TwoTenants) -> None:
    [[token_hash]] = town.one.tenant.ask(
        "SELECT token_hash FROM invitation_tokens JOIN invitations ON id = invitation_id WHERE company_id = :id",
        id=town.one.tenant.company_id,
    )
    find = text("SELECT company_of_invitation(:hash)")
    with town.api.transaction() as stores:
        assert stores.connection.execute(find, {"hash": b"a guess"}).scalar_one() is None
        company_id = stores.connection.execute(find, {"hash": token_hash}).scalar_one()
        assert company_id == town.one.tenant.company_id
        stores.act_for_company(company_id)
        accept = text("UPDATE invitations SET accepted_at = :now")
        assert stores.connection.execute(accept, {"now": NOON}).rowcount == 1
        stores.connection.execute(
            text(
                "INSERT INTO users (id, email, name, created_at, updated_at)"
                " VALUES (:id, 'new@example.com', 'New', :now, :now) ON CONFLICT DO NOTHING"
            ),
            {"id": uuid4(), "now": NOON},
        )
        user_id = stores.connection.execute(text("SELECT user_of_email('new@example.com')")).scalar_one()
        assert user_id is not None
        assert stores.connection.execute(text("UPDATE memberships SET role = 'ADMIN'")).rowcount == 1
        stores.connection.execute(
            text(
                "INSERT INTO memberships (company_id, user_id, role, created_at, updated_at)"
                " VALUES (:company, :user, 'OWNER', :now, :now)"
            ),
            {"company": company_id, "user": user_id, "now": NOON},
        )
        assert stores.companies.lock(company_id) is not None
        assert stores.companies.lock(town.other.tenant.company_id) is None
    assert rows_of(town.api, None, "users") == []


def test_user_is_found_only_by_the_whole_address(town: TwoTenants) -> None:
    [[email, user_id]] = town.other.tenant.ask(
        "SELECT email, id FROM users WHERE id = :id", id=UUID(min(town.other.rows["users"]))
    )
    with town.api.transaction(town.one.regular) as stores:
        find = text("SELECT user_of_email(:email)")
        assert stores.connection.execute(find, {"email": email}).scalar_one() == user_id
        assert stores.connection.execute(find, {"email": "%"}).scalar_one() is None


def test_answered_commands_are_readable_only_by_id(town: TwoTenants) -> None:
    waiting = a_waiting_command(town.other.tenant, None)
    applied = a_waiting_command(town.one.tenant, None)
    _do(
        town.one.tenant,
        "UPDATE inbox SET applied_at = :now, body = NULL, answer = '{}' WHERE id = :id",
        now=NOON,
        id=applied.id,
    )
    with town.api.reading() as stores:
        assert stores.inbox.which_answered([waiting.id, applied.id, uuid4()]) == [applied.id]
        assert stores.inbox.which_answered([waiting.id]) == []
        assert stores.connection.execute(text("SELECT count(*) FROM inbox")).scalar_one() == 0


def test_search_finds_only_candidates_of_the_principal(town: TwoTenants) -> None:
    find = text("SELECT found FROM candidates_found(:company, '', 10) AS found")

    def found(principal: Principal | None, of: WalledTenant) -> int:
        with town.api.reading(principal) as stores:
            return len(stores.connection.execute(find, {"company": of.tenant.company_id}).all())

    for principal in (town.one.regular, town.one.ats):
        assert found(principal, town.one) > 0
        assert found(principal, town.other) == 0
    assert found(None, town.one) == 0


def test_security_definer_functions_are_these_with_safe_paths(database: Database) -> None:
    with database.transaction() as stores:
        functions = stores.connection.execute(
            text(
                "SELECT proname, proconfig, has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc"
                " WHERE pronamespace = 'public'::regnamespace AND prosecdef"
            )
        ).all()
    assert {name for name, *_ in functions} == {
        "key_of_hash",
        "token_is_known",
        "company_of_invitation",
        "user_of_email",
        "answered_commands",
        "candidates_found",
        "candidates_of_number",
        "resources_of_external_id",
        "numbers_of_interview",
        "open_transactions",
        "raise_alarms",
        "decision_answer",
        "quarantined_attempt",
        "quarantined_call",
        "drop_quarantined",
        "kept_events",
        "has_reader",
        "event_places",
        "webhook_origin",
    }
    assert all(config == ["search_path=pg_catalog, pg_temp"] for _, config, _ in functions)
    assert not any(is_public for *_, is_public in functions)


# ---- counting, working, owning


def test_counting_role_reads_no_personal_data(town: TwoTenants, hasher: Hasher) -> None:
    tenant = town.one.tenant
    counts = Counts(replace(tenant.context, database=town.api, hasher=hasher))
    assert {row.company_id for row in counts.attempts()} == {tenant.company_id, town.other.tenant.company_id}
    assert [each.in_progress for each in counts.carriers()] == [2]
    _do(tenant, "UPDATE carrier_backoffs SET down_until = :now", now=NOON)
    waits = CarrierWaits(town.api, tenant.now).all()
    assert {each.scope.company_id for each in waits} == {tenant.company_id, town.other.tenant.company_id}
    for secret in (
        "first_name FROM candidates",
        "body FROM inbox",
        "answer FROM inbox",
        "called_number FROM attempts",
        "token FROM attempts",
        "name FROM companies",
        "caller_number FROM interviews",
        "email FROM users",
        "key_hash FROM api_keys",
        "raw FROM carrier_events",
        "caller FROM carrier_backoffs",
    ):
        with town.api.counting() as stores, pytest.raises(ProgrammingError, match=DENIED):
            stores.connection.execute(text(f"SELECT {secret}"))
    with town.api.transaction() as stores:
        stores.connection.execute(text("SET LOCAL ROLE duecall_counter"))
        with pytest.raises(ProgrammingError, match=DENIED):
            stores.connection.execute(text("UPDATE attempts SET reason = reason"))


def test_transaction_that_reads_cannot_write(town: TwoTenants) -> None:
    for opened in (town.api.reading(town.one.tenant.principal), town.api.counting(), town.api.reading()):
        with opened as stores, pytest.raises(DBAPIError, match="read-only transaction"):
            stores.connection.execute(text("UPDATE companies SET name = name"))


def test_explanation_counts_calls_of_other_companies(town: TwoTenants, hasher: Hasher) -> None:
    """All companies share the carrier's limit. A principal sees the number of calls, and not whose calls they are."""
    tenant = town.one.tenant
    explain = Explain(replace(tenant.context, database=town.api, hasher=hasher))
    [attempt_id] = town.one.rows["attempts"]
    attempt = tenant.attempt(UUID(attempt_id))
    story = explain.explanation(town.one.regular, None, attempt.interview_id, attempt.id)
    assert story.attempt.id == attempt.id
    assert len(story.happenings) == len(tenant.history(attempt.id))


def test_a_worker_sees_and_changes_every_row(town: TwoTenants, logins: Logins) -> None:
    worker = Database(logins.worker, pool_size=1, bound=False)
    for table, column in TENANTS.items():
        rows = {str(row[0]) for row in rows_of(worker, None, table, column)}
        assert rows >= town.one.rows[table] | town.other.rows[table]
    with worker.transaction() as stores:
        assert stores.connection.execute(text("UPDATE candidates SET metadata = '{}'")).rowcount == 2
        with pytest.raises(ProgrammingError, match="must be owner"):
            stores.connection.execute(text("ALTER TABLE candidates DISABLE ROW LEVEL SECURITY"))
    worker.close()


@pytest.fixture
def bare_server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server without migrations. The role `maker` may create roles, `plain` may not, and each has a database."""
    with EmbeddedPostgres(tmp_path, durable=False) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            for name, right in (("maker", "CREATEROLE"), ("plain", "")):
                connection.execute(f"CREATE ROLE {name} LOGIN {right} PASSWORD '{name}'".encode())
                connection.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
        yield server


def test_owner_without_superuser_rights_migrates_and_works(bare_server: EmbeddedPostgres) -> None:
    maker, plain = (_as(bare_server.url, name, name) for name in ("maker", "plain"))
    with pytest.raises(SchemaNotMade, match=r"CREATE ROLE duecall_api NOLOGIN NOINHERIT; .*TO plain;"):
        schema.upgrade(plain)
    schema.upgrade(maker)
    schema.upgrade(maker)
    with pytest.raises(SchemaNotMade, match="this once, then try again: GRANT duecall_counter TO plain;"):
        schema.upgrade(plain)
    with psycopg.connect(bare_server.url, autocommit=True) as connection:
        connection.execute("GRANT duecall_counter TO plain")
    schema.upgrade(plain)
    for url in (maker, plain):
        owner = Database(url, pool_size=1, bound=False)
        company_id = seed(owner, NOON).company_id
        assert [row[0] for row in rows_of(owner, None, "companies", "id")] == [company_id]
        with owner.counting() as stores:
            assert stores.connection.execute(text("SELECT count(*) FROM companies")).scalar_one() == 1
        owner.close()


def test_migrating_role_needs_no_right_to_make_extensions(bare_server: EmbeddedPostgres) -> None:
    schema.upgrade(_as(bare_server.url, "maker", "maker"))
    url = make_url(bare_server.url).set(database="plain").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE plain OWNER TO duecall")
        connection.execute("GRANT ALL ON SCHEMA public TO plain")
        connection.execute("GRANT duecall_counter TO plain")
    plain = _as(bare_server.url, "plain", "plain")
    with psycopg.connect(plain) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute("CREATE EXTENSION pg_trgm")
    schema.upgrade(plain)
    schema.check(plain)


def _as(url: str, name: str, database: str) -> str:
    _, _, place = url.partition("@")
    return f"postgresql://{name}:{name}@{place.rpartition('/')[0]}/{database}"


# ---- query plans


INDEXED = {
    "candidates WHERE company_id = :company ORDER BY created_at DESC, id DESC LIMIT 20": "company_id = ",
    "interviews WHERE id = :interview": "id = ",
    "attempts WHERE interview_id = :interview FOR NO KEY UPDATE": "interview_id = ",
    "attempt_history WHERE attempt_id = :attempt": "attempt_id = ",
    "inbox WHERE principal_id = :company AND idempotency_key = 'a'": "idempotency_key = ",
    "attempt_tokens WHERE token = 'a'": "token = ",
}


def test_query_under_row_level_security_uses_its_index(town: TwoTenants) -> None:
    """The query's own condition uses the index, and the policy filters its result, not the other way round."""
    [attempt], [interview] = town.one.rows["attempts"], town.one.rows["interviews"]
    parameters = {"company": town.one.tenant.company_id, "interview": UUID(interview), "attempt": UUID(attempt)}
    for query, index in INDEXED.items():
        table = query.split(maxsplit=1)[0]
        with _as_if_large(town, table):
            for principal in (town.one.regular, town.one.ats):
                with town.api.transaction(principal) as stores:
                    plan = stores.connection.execute(text(f"EXPLAIN (FORMAT JSON) SELECT * FROM {query}"), parameters)
                    scan = plan.scalar_one()[0]["Plan"]
                while scan.get("Relation Name") != table:
                    scan = next(each for each in scan["Plans"] if each["Parent Relationship"] == "Outer")
                assert any(index in condition for condition in _index_conditions(scan)), query


def _index_conditions(scan: dict[str, Any]) -> Iterator[str]:
    """Yield the index conditions of a scan. In a bitmap scan they are in the lower nodes."""
    if "Index Cond" in scan:
        yield scan["Index Cond"]
    for below in scan.get("Plans", ()):
        yield from _index_conditions(below)


@contextmanager
def _as_if_large(town: TwoTenants, table: str) -> Iterator[None]:
    """Fake the table's statistics, because for a few rows the planner uses no index."""
    statistics = "UPDATE pg_class SET reltuples = :rows, relpages = :pages WHERE relname = :table"
    _do(town.one.tenant, statistics, table=table, rows=100_000, pages=1)
    yield
    _do(town.one.tenant, statistics, table=table, rows=-1, pages=0)


# ---- roles


def production(url: str, redis_url: str, **more: Any) -> Settings:
    return Settings(
        duecall_env="production",
        database_url=SecretStr(url),
        redis_url=SecretStr(redis_url),
        key_pepper=SecretStr("a pepper of our own"),
        webhook_key=SecretStr("YSBrZXkgb2Ygd2ViaG9va3MgaW4gcHJvZHVjdGlvbi4="),
        flower_basic_auth=SecretStr("a:password of some length"),
        public_url="https://duecall.example.com",
        console_url="https://console.example.com",
        twilio_voice_url="https://voice.example.com/twiml",
        twilio_account_sid="AC" + "0" * 32,
        twilio_auth_token=SecretStr("a token"),
        smtp_url=SecretStr("smtps://mail.example.com"),
        mail_from="mail@example.com",
        app_url="https://app.example.com",
        **more,
    )


async def starts(settings: Settings) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        pass


async def test_production_api_starts_only_with_a_bound_role(
    broker: None, logins: Logins, postgres_url: str, redis_url: str
) -> None:
    await starts(production(logins.api, redis_url))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS stranger")
        connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    for url in (postgres_url, logins.worker, _as(postgres_url, "stranger", "duecall")):
        with pytest.raises(WrongRole, match=r"DATABASE_URL logs in as .* needs a role that is bound"):
            await starts(production(url, redis_url))
    await starts(
        Settings(database_url=SecretStr(postgres_url), redis_url=SecretStr(redis_url))
    )  # development may use one role for all


def test_worker_whose_role_sees_no_rows_does_not_start(logins: Logins, postgres_url: str, redis_url: str) -> None:
    with pytest.raises(WrongRole, match="sees no row; set DATABASE_WORKER_URL"):
        assembly.check_worker_start(production(logins.api, redis_url))
    assembly.check_worker_start(production(logins.api, redis_url, database_worker_url=logins.worker))
    assembly.check_worker_start(production(postgres_url, redis_url))


# ---- the audit, which only grows

ENTRY = (
    "INSERT INTO audit (at, actor, verb, target_kind, company_id, before, after)"
    " VALUES (:now, :actor, 'pause', 'company', :company, '{}', '{}')"
)


def test_no_role_may_change_the_audit(town: TwoTenants, postgres_url: str) -> None:
    entry = {"now": NOON, "actor": "cli:ada@control", "company": town.one.tenant.company_id}
    _do(town.one.tenant, ENTRY, **entry)
    for role in ("duecall_api", "duecall_worker", "duecall_counter"):
        for statement in ("UPDATE audit SET reason = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
            with psycopg.connect(postgres_url) as connection:
                connection.execute(f"SET ROLE {role}".encode())
                with pytest.raises(InsufficientPrivilege):
                    connection.execute(statement.encode())
    assert town.one.tenant.ask("SELECT reason FROM audit WHERE verb = 'pause'") == [(None,)]


def test_worker_adds_and_reads_the_audit(town: TwoTenants, logins: Logins) -> None:
    worker = Database(logins.worker, pool_size=1, bound=False)
    with worker.transaction() as stores:
        entry = {"now": NOON, "actor": "cli:ada@control", "company": None}
        stores.connection.execute(text(ENTRY), entry)
        assert (
            stores.connection.execute(text("SELECT actor FROM audit WHERE verb = 'pause'")).scalar_one()
            == "cli:ada@control"
        )
    worker.close()


def test_api_adds_only_acts_of_its_own_key(town: TwoTenants) -> None:
    mine, theirs = (walled.tenant.company_id for walled in (town.one, town.other))
    key, another = (f"key:{walled.regular.key_id}" for walled in (town.one, town.other))
    act = Act(verb=Verb.PAUSE, target_kind=TargetKind.COMPANY, target_id=mine, company_id=mine)
    with town.api.transaction(town.one.regular) as stores:
        stores.audit.add(key, [act], NOON)
    for principal, actor, company in (
        (town.one.regular, another, mine),
        (town.one.regular, "cli:ada@control", mine),
        (town.one.regular, key, theirs),
        (town.one.regular, key, None),
        (None, key, mine),
    ):
        with town.api.transaction(principal) as stores, pytest.raises(ProgrammingError, match="row-level security"):
            stores.connection.execute(text(ENTRY), {"now": NOON, "actor": actor, "company": company})
    assert town.one.tenant.ask("SELECT actor FROM audit WHERE verb = 'pause'") == [(key,)]
