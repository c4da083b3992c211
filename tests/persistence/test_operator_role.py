"""The role of the operators' console: it reads no personal data, whatever a page asks for."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from console.sessions import ConsoleSessions
from scheduler.domain.command import CommandKind
from scheduler.domain.principal import OPERATORS, Act, KeyKind, OperatorRole, TargetKind, Verb
from scheduler.domain.refusals import InvalidApiKey, KeyRevoked, NotFound
from scheduler.persistence.database import Database
from scheduler.persistence.errors import WrongRole
from scheduler.persistence.schema import Logins
from scheduler.persistence.tables import metadata
from scheduler.use_cases.resources.keys import Keys
from tests.conftest import real_now
from tests.support.builders import Tenant, a_placed_attempt, a_waiting_command, an_operator

FORBIDDEN = {
    "companies": {"profile", "metadata", "prices"},
    "api_keys": {"key_hash"},
    "phone_numbers": {"number", "location"},
    "agents": {"name", "details", "metadata"},
    "jobs": {"title", "description", "details", "metadata", "external_id", "content_hash"},
    "candidates": {"first_name", "last_name", "email", "phone_number", "metadata", "external_id", "content_hash"},
    "interviews": {"caller_number", "metadata", "external_id", "content_hash"},
    "attempts": {"called_number", "token", "outcome_note"},
    "invitations": {"email"},
    "inbox": {"body", "answer", "request_hash", "idempotency_key"},
    "carrier_events": {"raw", "fingerprint", "token"},
    "carrier_backoffs": {"caller"},
    "batches": {"name"},
    "batch_items": {"body", "external_id", "error"},
    "webhook_endpoints": {"url", "name", "description", "headers", "header_names", "secret", "old_secret"},
}
"""Columns with names, numbers, addresses, texts of clients or hashes of secrets."""
UNREADABLE = {"attempt_tokens", "assignments", "users", "memberships", "invitation_tokens", "caller_results"}
"""Tables of which the console reads nothing. A token names a call in the callbacks of the carrier."""
DENIED = "permission denied"
WRITTEN = {
    "companies": {"paused_at", "pause_reason", "resumed_at", "updated_at"},
    "carrier_accounts": {"paused_at", "pause_reason", "claimed_on", "claimed_copy", "updated_at"},
    "inbox": {"failures", "quarantined_at", "first_failed_at", "failed_with", "rung_at"},
    "carrier_events": {
        *("failures", "quarantined_at", "first_failed_at", "failed_with", "rung_at", "heard_at", "raw"),
    },
    "alarms": {"acknowledged_at", "acknowledged_by", "note", "post_at"},
    "api_keys": {"revoked_at", "suspended_at", "suspend_reason", "updated_at"},
    "console_sessions": {"last_used_at", "revoked_at"},
    "sign_in_links": {"used_at"},
    "webhook_endpoints": {
        *("consecutive_failures", "failing_since", "circuit_opened_at", "probe_at", "disabled_at", "disabled_cause"),
        *("is_slow", "notice_at", "notice_tries", "updated_at"),
    },
    "webhook_deliveries": {
        *(
            "state",
            "is_replay",
            "tries",
            "send_at",
            "claim",
            "lease_until",
            "first_failed_at",
            "finished_at",
            "held_until",
        ),
    },
}
LOCKED = {"interviews", "attempts"}
"""Tables whose rows may be locked, for which the role needs the right to change a column. A policy forbids changes."""
INSERTED = {"console_sessions", "console_acts", "audit", "inbox", "events"}


@pytest.fixture(scope="module")
def operator(logins: Logins) -> Iterator[Database]:
    assert logins.operator is not None
    database = Database(logins.operator, pool_size=2, operates=True)
    yield database
    database.close()


def _may(operator: Database, statement: str) -> bool:
    with operator.transaction() as stores:
        try:
            stores.connection.execute(text(statement))
        except ProgrammingError as error:
            if DENIED in str(error):
                return False
            raise
    return True


def _columns_with(operator: Database, right: str) -> dict[str, set[str]]:
    """List the columns on which the role has this right, by table."""
    query = text("SELECT has_column_privilege(:table, :column, :right)")
    with operator.reading() as stores:
        return {
            table.name: {
                column.name
                for column in table.columns
                if stores.connection.execute(
                    query, {"table": table.name, "column": column.name, "right": right}
                ).scalar_one()
            }
            for table in metadata.sorted_tables
        }


def test_operator_reads_only_columns_without_personal_data(operator: Database) -> None:
    read = _columns_with(operator, "SELECT")
    for table in metadata.sorted_tables:
        columns = {column.name for column in table.columns}
        unread = columns if table.name in UNREADABLE else FORBIDDEN.get(table.name, set())
        assert columns - read[table.name] == unread, table.name
    assert not _may(operator, "SELECT email FROM candidates")


def test_operator_writes_only_what_acts_change(operator: Database) -> None:
    written, inserted = _columns_with(operator, "UPDATE"), _columns_with(operator, "INSERT")
    for name, columns in written.items():
        assert columns == ({"updated_at"} if name in LOCKED else WRITTEN.get(name, set())), name
        assert not _may(operator, f"DELETE FROM {name}")
    assert {name for name, columns in inserted.items() if columns} == INSERTED


@pytest.mark.parametrize("table", sorted(LOCKED))
def test_operator_locks_rows_that_it_may_not_change(operator: Database, tenant: Tenant, table: str) -> None:
    a_placed_attempt(tenant)
    with operator.transaction() as stores:
        assert stores.connection.execute(text(f"SELECT id FROM {table} FOR NO KEY UPDATE")).scalars() != []
    with pytest.raises(ProgrammingError, match="violates row-level security"), operator.transaction() as stores:
        stores.connection.execute(text(f"UPDATE {table} SET updated_at = now()"))


def test_operator_adds_only_decisions_to_the_inbox(operator: Database, tenant: Tenant) -> None:
    waiting = a_waiting_command(tenant, None)
    decision = replace(waiting, id=uuid4(), kind=CommandKind.DECIDE_OUTCOME, principal_id=OPERATORS)
    with operator.transaction() as stores:
        stores.inbox.add_all([decision])
    with operator.reading() as stores:
        ids = stores.connection.execute(text("SELECT id FROM inbox ORDER BY seq")).scalars()
    assert ids == [waiting.id, decision.id]
    for other in (
        replace(decision, id=uuid4(), kind=CommandKind.INVOKE_ATTEMPT),
        replace(decision, id=uuid4(), principal_id=waiting.principal_id),
    ):
        with pytest.raises(ProgrammingError, match="violates row-level security"), operator.transaction() as stores:
            stores.inbox.add_all([other])


def test_operator_reports_only_its_own_acts(operator: Database, tenant: Tenant) -> None:
    for type_, code, is_own in (
        ("company.paused", "COMPANY_PAUSED", True),
        ("company.resumed", "ACCOUNT_PAUSED", True),
        ("command.applied", "COMMAND_DROPPED", True),
        ("command.applied", "RESOURCE_NOT_FOUND", False),
        ("interview.completed", "ANSWERED", False),
        ("endpoint.disabled", "OPERATOR", True),
        ("endpoint.disabled", "GONE", False),
    ):
        report = (
            "INSERT INTO events (id, company_id, type, occurred_at, data)"
            f" VALUES (gen_random_uuid(), '{tenant.company_id}', '{type_}', now(), '{{\"reasonCode\": \"{code}\"}}')"
        )
        assert _changed(operator, report) == (1 if is_own else None), (type_, code)


REFUSED = "violates row-level security"


def _changed(operator: Database, statement: str) -> int | None:
    """Count the rows that a statement changed, or None if a policy refused it."""
    try:
        with operator.transaction() as stores:
            return stores.connection.execute(text(statement)).rowcount
    except ProgrammingError as error:
        if REFUSED in str(error):
            return None
        raise


def test_operator_changes_only_what_is_in_quarantine(operator: Database, tenant: Tenant) -> None:
    command = a_waiting_command(tenant, None, {"text": "hello"})
    again = "UPDATE inbox SET quarantined_at = NULL, failures = 0"
    drop = f"SELECT drop_quarantined(ARRAY[CAST('{command.id}' AS uuid)], now(), '{{}}')"
    stored = text("SELECT applied_at IS NOT NULL, body, answer FROM inbox")
    assert _changed(operator, again) == 0
    assert _may(operator, drop)
    with tenant.database.transaction() as stores:
        assert stores.connection.execute(stored).one() == (False, {"text": "hello"}, None)
        for _ in range(5):
            stores.inbox.count_failure(command.id, "builtins.KeyError at x:1", tenant.now())
    for column in ("body = '{}'", "body = NULL", "applied_at = now()", "answer = '{}'", "interview_id = NULL"):
        assert not _may(operator, f"UPDATE inbox SET {column}")
    assert _changed(operator, again) == 1
    with tenant.database.transaction() as stores:
        for _ in range(5):
            stores.inbox.count_failure(command.id, "builtins.KeyError at x:1", tenant.now())
    for _ in range(2):
        assert _may(operator, drop)
    assert _changed(operator, again) == 0
    with tenant.database.transaction() as stores:
        assert stores.connection.execute(stored).one() == (True, None, {})
    assert _changed(operator, "UPDATE carrier_events SET raw = '{}', heard_at = NULL WHERE heard_at IS NOT NULL") == 0


def test_operator_revives_no_session_and_no_link(operator: Database, tenant: Tenant) -> None:
    sessions = ConsoleSessions(tenant.database, tenant.hasher, tenant.now)
    _, secret = sessions.make_link(OperatorRole.VIEWER, "cli:ada@host")
    assert _changed(operator, "UPDATE sign_in_links SET used_at = NULL") is None
    signed_in = sessions.sign_in(secret)
    assert signed_in is not None
    assert _changed(operator, "UPDATE sign_in_links SET used_at = NULL") == 0
    sessions.revoke(signed_in[0].id)
    assert _changed(operator, "UPDATE console_sessions SET revoked_at = NULL") == 0
    assert sessions.sign_in(secret) is None
    assert sessions.current(signed_in[1]) is None


def test_operator_revives_no_revoked_key(operator: Database, tenant: Tenant) -> None:
    of_person = Keys(tenant.database, tenant.hasher, tenant.now)
    revoked, secret = of_person.create(kind=KeyKind.ATS, name="revoked")
    other, _ = of_person.create(kind=KeyKind.ATS, name="other")
    keys = Keys(operator, tenant.hasher, tenant.now, an_operator(tenant))
    assert keys.suspend(revoked.key_id, "a leak")
    assert keys.revoke(revoked.key_id)
    for change in ("revoked_at = NULL", "revoked_at = now() + interval '1 day'", "suspended_at = NULL"):
        changed = f"UPDATE api_keys SET {change}, suspend_reason = NULL WHERE id = '{revoked.key_id}'"
        assert _changed(operator, changed) == 0
    assert not keys.revoke(revoked.key_id)
    for act in (keys.suspend, keys.resume):
        with pytest.raises(KeyRevoked):
            act(revoked.key_id, "again")
    with pytest.raises(InvalidApiKey):
        of_person.authenticate(secret)
    assert [keys.suspend(other.key_id, "a test"), keys.resume(other.key_id), keys.resume(other.key_id)] == [
        *(True, True, False),
    ]
    with pytest.raises(NotFound):
        keys.revoke(uuid4())


def _signs(operator: Database, actor: str) -> bool:
    act = Act(verb=Verb.PAUSE, target_kind=TargetKind.ALL, reason="a test")
    try:
        with operator.transaction() as stores:
            stores.audit.add(actor, [act], real_now())
    except ProgrammingError as error:
        if REFUSED in str(error):
            return False
        raise
    return True


def test_operator_signs_acts_only_as_the_operator_of_a_session(operator: Database, tenant: Tenant) -> None:
    sessions = ConsoleSessions(tenant.database, tenant.hasher, real_now)
    _, secret = sessions.make_link(OperatorRole.OPERATOR, "cli:ada@host")
    signed_in = ConsoleSessions(operator, tenant.hasher, real_now).sign_in(secret)
    assert signed_in is not None
    session = signed_in[0]
    assert _signs(operator, session.actor)
    strangers = (f"link:{uuid4()}", "link:1", "oidc:1", "cli:root", "api", f"key:{uuid4()}")
    assert not any(_signs(operator, actor) for actor in strangers)
    sessions.revoke(session.id)
    assert not _signs(operator, session.actor)


def test_operator_opens_no_session_that_a_link_did_not_grant(operator: Database, tenant: Tenant) -> None:
    sessions = ConsoleSessions(tenant.database, tenant.hasher, real_now)
    unused, _ = sessions.make_link(OperatorRole.VIEWER, "cli:ada@host")
    used, secret = sessions.make_link(OperatorRole.VIEWER, "cli:ada@host")
    assert sessions.sign_in(secret) is not None
    opened = (
        "INSERT INTO console_sessions (id, token_hash, actor, role, created_at, expires_at, last_used_at)"
        " VALUES (gen_random_uuid(), uuid_send(gen_random_uuid()), '{actor}', '{role}', now(), now(), now())"
    )
    for actor, role in ((f"link:{unused.id}", "viewer"), (f"link:{used.id}", "admin"), ("cli:root", "viewer")):
        assert _changed(operator, opened.format(actor=actor, role=role)) is None
    for actor, role in ((f"link:{used.id}", "viewer"), ("oidc:1", "admin")):
        assert _changed(operator, opened.format(actor=actor, role=role)) == 1


def test_function_of_quarantine_quotes_no_body(operator: Database, tenant: Tenant) -> None:
    command = a_waiting_command(tenant, None, {"attempt_id": "Canaria"})
    with tenant.database.transaction() as stores:
        for _ in range(5):
            stores.inbox.count_failure(command.id, "builtins.KeyError at x:1", tenant.now())
    with operator.reading() as stores:
        found = stores.quarantine.find(command.id)
    assert found is not None
    assert found.attempt_id is None


def test_operator_sees_the_rows_of_all_companies(operator: Database, tenant: Tenant) -> None:
    attempt = a_placed_attempt(tenant)
    with operator.reading() as stores:
        assert stores.connection.execute(text("SELECT id FROM attempts")).scalars() == [attempt.id]
        assert stores.connection.execute(text("SELECT id FROM companies")).scalars() == [tenant.company_id]
    with operator.counting() as stores:
        assert stores.connection.execute(text("SELECT count(*) FROM attempts")).scalar_one() == 1
    with operator.reading() as stores:  # the role of the counts has ended with them
        assert stores.connection.execute(text("SELECT current_user")).scalar_one() == "duecall_operator"


def test_superuser_login_runs_as_operator(postgres_url: str) -> None:
    database = Database(postgres_url, pool_size=1, operates=True)
    assert not _may(database, "SELECT email FROM candidates")
    database.close()


def test_login_without_the_operators_role_is_refused(logins: Logins, postgres_url: str) -> None:
    for url in (logins.api, logins.worker):
        database = Database(url, pool_size=1, operates=True)
        with pytest.raises(WrongRole, match="set DATABASE_OPERATOR_URL and run `duecall db logins`"):
            database.check_start()
        database.close()


def test_login_of_the_console_runs_as_operator(logins: Logins) -> None:
    """By a setting of the login, because a pooler drops options of a connection."""
    assert logins.operator is not None
    with psycopg.connect(logins.operator) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("duecall_operator",)


@pytest.mark.parametrize(
    ("cause", "disabled", "enabled"),
    [("KEY_REVOKED", 1, 0), ("OPERATOR", 1, 1), ("GONE", None, 1), ("DELETED", None, 1)],
)
def test_operator_disables_webhooks_only_for_its_causes(
    operator: Database, tenant: Tenant, cause: str, disabled: int | None, enabled: int
) -> None:
    _a_webhook(tenant)
    disable = f"UPDATE webhook_endpoints SET disabled_at = now(), disabled_cause = '{cause}'"
    assert _changed(operator, disable) == disabled
    enable = "UPDATE webhook_endpoints SET disabled_at = NULL, disabled_cause = NULL"
    assert _changed(operator, enable) == enabled


@pytest.mark.parametrize(("state", "replayed"), [("FAILED", 1), ("DELIVERED", 0)])
def test_operator_replays_only_what_has_failed(operator: Database, tenant: Tenant, state: str, replayed: int) -> None:
    endpoint_id, event_id, at = _a_webhook(tenant), uuid4(), tenant.now()
    tenant.insert("events", id=event_id, company_id=tenant.company_id, type="ping", occurred_at=at, data="{}")
    times = {"send_at": at, "created_at": at, "finished_at": at}
    ids = {"event_id": event_id, "endpoint_id": endpoint_id}
    tenant.insert("webhook_deliveries", **ids, place=1, state=state, tries=3, **times)
    assert _changed(operator, "UPDATE webhook_deliveries SET state = 'DELIVERED'") == (None if replayed else 0)
    replay = "UPDATE webhook_deliveries SET state = 'WAITING', is_replay = true, tries = 0, finished_at = NULL"
    assert _changed(operator, replay) == replayed


def _a_webhook(tenant: Tenant) -> UUID:
    endpoint_id = uuid4()
    tenant.insert(
        "webhook_endpoints",
        id=endpoint_id,
        principal_id=tenant.principal.id,
        api_key_id=tenant.principal.key_id,
        url="https://example.com",
        events=[],
        max_retries=9,
        timeout_ms=15_000,
        secret=b"x",
        created_at=tenant.now(),
        updated_at=tenant.now(),
    )
    return endpoint_id
