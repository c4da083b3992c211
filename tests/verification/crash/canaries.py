"""Canary values for personal data: put them in every column that can hold it, and search for the remains."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import redis
from psycopg import sql

from scheduler.domain.attempt import Attempt, Ended, Reason
from tests.support.builders import (
    Tenant,
    a_pending_attempt,
    a_placed_attempt,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
)

NAME, WORDS, ADDRESS, OURS = "Kanárikovská", "canary-words", "canary@example.com", "+421221077777"
NUMBERS = tuple(f"+4219157{digit}7777" for digit in range(9))
CANARIES = (NAME, WORDS, ADDRESS, OURS, *NUMBERS)


def fill(tenant: Tenant) -> None:
    """Fill every table that can hold data of a company. Each row with personal data contains a canary."""
    attempts = _calls(tenant)
    _texts(tenant)
    _around(tenant, attempts[0])
    for key in ("a waiting one", "an answered one"):
        command = a_waiting_command(tenant, attempts[0].interview_id, {"candidate": {"email": ADDRESS}})
        tenant.change("UPDATE inbox SET idempotency_key = :key WHERE id = :id", key=f"{key} {ADDRESS}", id=command.id)
    tenant.change(
        "UPDATE inbox SET applied_at = received_at, body = NULL, answer = jsonb_build_object('attempt_id', NULL)"
        " WHERE idempotency_key LIKE 'an answered one%'"
    )


def _calls(tenant: Tenant) -> list[Attempt]:
    """Create calls in every state that is not live. One was answered and its usage is recorded."""
    now = tenant.now()
    talked = a_placed_attempt(tenant, NUMBERS[0])
    tenant.take(talked, Ended(reason=Reason.ANSWERED, ended_at=now, duration=timedelta(seconds=90)))
    unknown = an_attempt_of_unknown_outcome(tenant, NUMBERS[1])
    waiting = [a_pending_attempt(tenant, number, due_at=now + timedelta(days=1)) for number in NUMBERS[2:]]
    return [talked, unknown, *waiting]


def _texts(tenant: Tenant) -> None:
    """Overwrite the builders' names and texts with canaries."""
    words = "jsonb_build_object('note', CAST(:words AS text))"
    ids, reported = "external_id = :address || id", "outcome = 'FINISHED', outcome_at = created_at"
    texts = {"name": NAME, "words": WORDS, "address": ADDRESS, "ours": OURS, "number": NUMBERS[0]}
    for statement in (
        f"UPDATE companies SET name = :name, profile = {words}, metadata = {words} WHERE id = :id",
        f"UPDATE agents SET name = :name, details = {words}, metadata = {words} WHERE company_id = :id",
        f"UPDATE candidates SET last_name = :name, email = :address, {ids}, metadata = {words} WHERE company_id = :id",
        f"UPDATE interviews SET metadata = {words}, caller_number = :ours, {ids} WHERE company_id = :id",
        "UPDATE phone_numbers SET number = :ours, location = :words WHERE company_id = :id",
        # The previous release left this value when it ended a call.
        "UPDATE attempts SET called_number = :number WHERE company_id = :id",
        f"UPDATE attempts SET {reported}, outcome_note = :words WHERE company_id = :id",
    ):
        used = {name: value for name, value in texts.items() if f":{name}" in statement}
        tenant.change(statement, id=tenant.company_id, **used)


def _around(tenant: Tenant, called: Attempt) -> None:
    """Insert the rows that no builder creates."""
    at, user_id, job_id, invitation_id = tenant.now(), uuid4(), uuid4(), uuid4()
    times = {"created_at": at, "updated_at": at}
    ours = {"company_id": tenant.company_id, **times}
    tenant.insert("users", id=user_id, email=ADDRESS, name=NAME, **times)
    tenant.insert("memberships", user_id=user_id, role="OWNER", **ours)
    tenant.insert("invitations", id=invitation_id, email=ADDRESS, tries=0, expires_at=at, **ours)
    tenant.insert("invitation_tokens", token_hash=uuid4().bytes, invitation_id=invitation_id, created_at=at)
    tenant.insert("jobs", id=job_id, title=NAME, description=WORDS, external_id=ADDRESS, status="OPEN", **ours)
    key = {"id": uuid4(), "principal_id": tenant.company_id, "key_hash": uuid4().bytes, "kind": "REGULAR"}
    tenant.insert("api_keys", **key, name=NAME, scopes=[], per_minute=1, per_hour=1, **ours)
    failed = {"failures": 1, "trials": 0, "cause": "HTTP_500", "is_asked": False, "others_work": False}
    tenant.insert("carrier_backoffs", account_id=tenant.account_id, caller=OURS, **failed, **ours)
    tenant.insert("stray_calls", call_sid=f"CA{uuid4().hex}", attempt_id=called.id, seen_at=at)
    # A callback's row with its form: not applied yet, or applied by the previous release, which kept it.
    for number, heard_at in zip(NUMBERS, (None, at), strict=False):
        tenant.insert(
            "carrier_events",
            id=uuid4(),
            token=called.token,
            fingerprint=uuid4().bytes,
            raw=f'{{"To": "{number}"}}',
            received_at=called.created_at,
            rung_at=called.created_at,
            heard_at=heard_at,
        )
    tenant.change(
        "INSERT INTO assignments (candidate_id, job_id, company_id, created_at)"
        " SELECT id, :job_id, company_id, created_at FROM candidates WHERE company_id = :id",
        job_id=job_id,
        id=tenant.company_id,
    )
    of_day = {"day": at, "calls": 1, "answered": 1, "declined": 0, "blocked": 0}
    [[number_id]] = tenant.ask("SELECT id FROM phone_numbers WHERE company_id = :id", id=tenant.company_id)
    tenant.insert("caller_days", company_id=tenant.company_id, phone_number_id=number_id, **of_day)
    _for_partners(tenant)
    batch = {"id": uuid4(), "principal_id": tenant.company_id, "key_id": uuid4(), "name": NAME, "state": "PAUSED"}
    tenant.insert("batches", **batch, total=1, work_at=at, **ours)
    item = {"batch_id": batch["id"], "index": 0, "company_id": tenant.company_id, "state": "WAITING"}
    tenant.insert("batch_items", **item, external_id=ADDRESS, body=f'{{"number": "{NUMBERS[0]}"}}')
    with tenant.database.transaction() as stores:
        stores.schedule_recomputations.ask(tenant.company_id, None, at)


def _for_partners(tenant: Tenant) -> None:
    """Insert an event of each interview, and a webhook with its deliveries.

    It is disabled, so that it makes the company no reader.
    """
    at = tenant.now()
    of_company = "FROM interviews WHERE company_id = :id"
    tenant.change(
        "INSERT INTO events (id, company_id, interview_id, type, occurred_at, data)"
        f" SELECT gen_random_uuid(), company_id, id, 'interview.scheduled', created_at, '{{}}' {of_company}",
        id=tenant.company_id,
    )
    tenant.change(
        f"INSERT INTO interview_sequences (interview_id, last) SELECT id, 1 {of_company}", id=tenant.company_id
    )
    endpoint_id = uuid4()
    tenant.insert(
        "webhook_endpoints",
        id=endpoint_id,
        principal_id=tenant.company_id,
        api_key_id=uuid4(),
        company_id=tenant.company_id,
        url=f"https://example.com/{WORDS}",
        name=NAME,
        events=[],
        max_retries=3,
        timeout_ms=15_000,
        secret=b"a secret",
        disabled_at=at,
        disabled_cause="A_TEST",
        created_at=at,
        updated_at=at,
    )
    tenant.change(
        "INSERT INTO webhook_deliveries (event_id, endpoint_id, place, state, send_at, created_at)"
        " SELECT id, :endpoint_id, 1, 'WAITING', occurred_at, occurred_at FROM events WHERE company_id = :id",
        endpoint_id=endpoint_id,
        id=tenant.company_id,
    )


_TABLES_WITH_COMPANY = (
    *("interviews", "attempts", "candidates", "assignments", "jobs", "agents"),
    *("reresolutions", "invitations", "memberships", "batches"),
)


def counts(tenant: Tenant) -> dict[str, int]:
    """Count the company's rows of each kind, under the names that an erasure certificate uses."""
    queries = {
        "strayCalls": "stray_calls s JOIN attempts a ON a.id = s.attempt_id WHERE a.company_id",
        "carrierEvents": "carrier_events e JOIN attempt_tokens t ON t.token = e.token"
        " JOIN attempts a ON a.id = t.attempt_id WHERE a.company_id",
        "tokens": "attempt_tokens t JOIN attempts a ON a.id = t.attempt_id WHERE a.company_id",
        "history": "attempt_history h JOIN attempts a ON a.id = h.attempt_id WHERE a.company_id",
        "commands": "inbox WHERE company_id",
        "keys": "api_keys WHERE company_id",
        "phoneNumbers": "phone_numbers WHERE company_id",
        "callerDays": "caller_days WHERE company_id",
        "callerResults": "caller_results r JOIN phone_numbers n ON n.id = r.phone_number_id WHERE n.company_id",
        "carrierBackoffs": "carrier_backoffs WHERE company_id",
        "events": "events WHERE company_id",
        "sequences": "interview_sequences s JOIN interviews i ON i.id = s.interview_id WHERE i.company_id",
        "webhooks": "webhook_endpoints WHERE company_id",
        "deliveries": "webhook_deliveries d JOIN events e ON e.id = d.event_id WHERE e.company_id",
        "batchItems": "batch_items WHERE company_id",
        "users": "users u JOIN memberships m ON m.user_id = u.id WHERE m.company_id",
        **{table: f"{table} WHERE company_id" for table in _TABLES_WITH_COMPANY},
    }
    return {
        kind: tenant.ask(f"SELECT count(*) FROM {query} = :id", id=tenant.company_id)[0][0]
        for kind, query in queries.items()
    }


# ---- searching


def tables(postgres_url: str) -> list[str]:
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        return [name for (name,) in rows]


def _in(text: str, canaries: Sequence[str]) -> set[str]:
    # Ignore the plus sign, because a form may encode it.
    return {each for each in canaries if each.lstrip("+") in text}


def in_dump(postgres_url: str, canaries: Sequence[str] = CANARIES) -> dict[str, set[str]]:
    """Find the canaries in a dump of each table. Tables without canaries are omitted."""
    found: dict[str, set[str]] = {}
    with psycopg.connect(postgres_url) as connection:
        for table in tables(postgres_url):
            statement = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))
            with connection.cursor().copy(statement) as copy:
                found[table] = _in(b"".join(copy).decode(), canaries)
    return {table: contained for table, contained in found.items() if contained}


def in_redis(redis_url: str, canaries: Sequence[str] = CANARIES) -> dict[bytes, set[str]]:
    """Find the canaries in each value in Redis. Message bodies are decoded from base64."""
    with redis.Redis.from_url(redis_url) as broker:
        found = {key: _in("\n".join(_values(broker, key)), canaries) for key in broker.scan_iter()}
    return {key: contained for key, contained in found.items() if contained}


def _values(broker: Any, key: bytes) -> Iterator[str]:
    kind = broker.type(key).decode()
    values: Callable[[], Any] = {
        "string": lambda: [broker.get(key)],
        "list": lambda: broker.lrange(key, 0, -1),
        "set": lambda: broker.smembers(key),
        "zset": lambda: broker.zrange(key, 0, -1),
        "hash": lambda: [part for pair in broker.hgetall(key).items() for part in pair],
        "none": list,  # it has expired since the scan
    }[kind]
    yield key.decode()
    for value in values():
        text = (value or b"").decode("utf-8", "replace")
        yield text
        yield from _bodies(text)


def _bodies(text: str) -> Iterator[str]:
    try:
        decoded = json.loads(text)
    except ValueError:
        return
    for message in decoded if isinstance(decoded, list) else [decoded]:
        if isinstance(message, dict) and isinstance(message.get("body"), str):
            yield base64.b64decode(message["body"]).decode("utf-8", "replace")
