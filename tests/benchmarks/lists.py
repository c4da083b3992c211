"""Server times of the lists of the API at many rows: each filter, sort and page, and frequent and rare values."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg

from api_shim.list_queries import LATEST_FIRST
from api_shim.schemas.envelope import cursor_text, place_text
from console.sessions import ConsoleSessions
from scheduler.domain.attempt import AttemptState
from scheduler.domain.principal import OperatorRole
from scheduler.domain.resource import NEWEST_FIRST, Cursor
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.setting_values import DEVELOPMENT_PEPPER
from standalone.run_file import Running
from tests.conftest import Seeded, real_now, seed
from tests.support.big_tables import add_finished_calls, add_pending_calls, new_id_sql

BOUND_MS = 30.0
_TIMES = 20
_FILLED = ("candidates", "interviews", "attempts", "attempt_history", "lines", "inbox", "events", "webhook_deliveries")
_ENDPOINT, _BATCH = UUID(int=1), UUID(int=2)
_ITEMS = 10_000


def fill(running: Running, url: str, count: int, progress: Callable[[str], None]) -> datetime:
    """Add `count` candidates with an interview and two attempts each, and a tenth of them in three other companies.

    Return the instant at which the newest one was created. A candidate is created each second before it.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    one = Seeded(
        company_id=UUID(running.companyId),
        agent_id=UUID(running.agentId),
        phone_number_id=UUID(running.phoneNumberId),
    )
    database = Database(url, pool_size=1)
    others = [seed(database, now) for _ in range(3)]
    database.close()
    with psycopg.connect(url, autocommit=True) as connection, _without_indexes(connection):
        # The interview that was made at the start would get a second open attempt.
        connection.execute("TRUNCATE candidates, interviews CASCADE")
        for seeded, size in [(one, count), *((each, count // 30) for each in others)]:
            progress(f"adding {size:,} interviews")
            add_pending_calls(url, seeded, now, size)
            add_finished_calls(url, seeded)
        progress("naming them, and adding events and items")
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE api_keys SET scopes = array_append(scopes, 'read:webhooks')")
        for statement in _MORE:
            values = {"company": one.company_id, "now": now, "count": count, "endpoint": _ENDPOINT, "batch": _BATCH}
            connection.execute(statement.encode(), {**values, "items": _ITEMS})
        progress("building the indexes")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return now


@contextmanager
def _without_indexes(connection: psycopg.Connection) -> Iterator[None]:
    """Drop the indexes of large tables, except those of constraints, and build them at the end: that is faster."""
    found = connection.execute(
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i"
        " WHERE i.indrelid = ANY (%s::regclass[])"
        " AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)",
        [list(_FILLED)],
    ).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX {name}".encode())
    yield
    connection.execute("SET maintenance_work_mem = '1GB'")
    for _, definition in found:
        connection.execute(definition.encode())


_NAMES = "('{Nov,Hor,Kov,Var,Tot,Bar,Nem,Sza,Mol,Kra,Pol,Ba,Lu,Gre,Zem}'::text[])"
_ENDINGS = "('{ak,vath,ac,ga,th,tos,eth,bo,nar,lik,an,laz,kac,gor,ova}'::text[])"
_MORE = (
    # Some hundred names that are frequent, and one of which there are fifty.
    f"""
    UPDATE candidates
    SET last_name = CASE WHEN n %% greatest(%(count)s / 50, 1) = 7 THEN 'Quillfeather' ELSE
                    {_NAMES}[1 + n %% 15] || {_ENDINGS}[1 + n / 15 %% 15] || {_ENDINGS}[1 + n / 225 %% 15] END,
        email = 'person' || n || '@example.com', external_id = 'ats ' || n,
        status = (ARRAY['APPLIED', 'IN_PROCESS', 'ACCEPTED', 'APPLIED'])[1 + n %% 4],
        updated_at = created_at + interval '1 hour'
    FROM (SELECT id AS of, round(extract(epoch FROM %(now)s - created_at))::int AS n FROM candidates) AS numbered
    WHERE of = id AND company_id = %(company)s
    """,
    """
    UPDATE interviews
    SET status = CASE WHEN n %% 2 = 0 THEN 'COMPLETED' ELSE 'SCHEDULED' END,
        finished_at = CASE WHEN n %% 2 = 0 THEN updated_at END, external_id = 'ats ' || n
    FROM (SELECT id AS of, round(extract(epoch FROM %(now)s - created_at))::int AS n FROM interviews) AS numbered
    WHERE of = id AND company_id = %(company)s
    """,
    # A pending attempt of an interview that is over does not exist.
    """
    UPDATE attempts SET state = 'COMPLETED', reason = 'ANSWERED', ended_at = attempts.updated_at, lease_until = NULL
    FROM interviews i
    WHERE i.id = interview_id AND attempts.company_id = %(company)s AND i.status = 'COMPLETED' AND state = 'PENDING'
    """,
    """
    INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,
                                   secret, is_active, created_at, updated_at)
    SELECT %(endpoint)s, principal_id, id, company_id, 'http://127.0.0.1:9/', ARRAY['interview.scheduled'], 3, 1000, '',
           false, %(now)s, %(now)s
    FROM api_keys WHERE company_id = %(company)s LIMIT 1
    """,
    f"""
    INSERT INTO events (id, company_id, interview_id, type, occurred_at, data, place, sequence)
    SELECT {new_id_sql("created_at")}, company_id, id,
           CASE WHEN status = 'COMPLETED' THEN 'call_attempt.ended' ELSE 'interview.scheduled' END, created_at, '{{}}',
           row_number() OVER (ORDER BY created_at), 1
    FROM interviews WHERE company_id = %(company)s
    """,
    """
    INSERT INTO webhook_deliveries (event_id, endpoint_id, place, interview_id, sequence, state, send_at, created_at,
                                    last_tried_at, last_error_kind, finished_at)
    SELECT id, %(endpoint)s, place, interview_id, sequence,
           CASE WHEN place %% 1000 = 1 THEN 'FAILED' ELSE 'DELIVERED' END, occurred_at, occurred_at, occurred_at,
           CASE WHEN place %% 1000 = 1 THEN 'TIMEOUT' END, occurred_at
    FROM events WHERE company_id = %(company)s
    """,
    "SELECT setval('event_places', (SELECT max(place) FROM events))",
    """
    INSERT INTO batches (id, company_id, principal_id, key_id, state, total, applied, work_at, finished_at, created_at,
                         updated_at)
    SELECT CASE n WHEN 1 THEN %(batch)s::uuid ELSE gen_random_uuid() END, company_id, principal_id, id, 'COMPLETED',
           %(items)s, %(items)s, %(now)s, %(now)s, %(now)s - n * interval '1 hour', %(now)s
    FROM (SELECT * FROM api_keys WHERE company_id = %(company)s LIMIT 1) k,
         generate_series(1, greatest(%(count)s / %(items)s, 1)) n
    """,
    """
    INSERT INTO batch_items (batch_id, index, company_id, state, interview_id, failures)
    SELECT b.id, i.n - 1, b.company_id, 'APPLIED', i.id, 0
    FROM (SELECT id, company_id, row_number() OVER (ORDER BY created_at DESC) - 1 AS nth FROM batches
          WHERE company_id = %(company)s) b
    JOIN (SELECT id, row_number() OVER (ORDER BY created_at DESC) AS place FROM interviews
          WHERE company_id = %(company)s) p ON (p.place - 1) / %(items)s = b.nth
    CROSS JOIN LATERAL (SELECT p.id, (p.place - 1) %% %(items)s + 1 AS n) i
    """,
)


def measure(
    running: Running, connection: psycopg.Connection, now: datetime, count: int, progress: Callable[[str], None]
) -> dict[str, str]:
    """Measure the median and the maximum of each list's times in ms, which include those of the client.

    A median above `BOUND_MS` is marked.
    """
    with _console(running) as console:
        company = {"Authorization": f"Bearer {running.companyKey}"}
        with httpx.Client(base_url=running.apiUrl, headers=company, timeout=60) as api:
            cases = {name: (api, *asked) for name, asked in _lists(connection, running, now, count).items()}
            cases |= {name: (console, *asked) for name, asked in _pages(running, now, count).items()}
            progress(f"timing {len(cases)} lists")
            return {name: _times(*case) for name, case in cases.items()}


@contextmanager
def _console(running: Running) -> Iterator[httpx.Client]:
    """Open a client of the console that has signed in."""
    database = Database(running.databaseUrl, pool_size=1)
    _, secret = ConsoleSessions(database, Hasher(DEVELOPMENT_PEPPER), real_now).make_link(
        OperatorRole.VIEWER, "cli:bench@bench"
    )
    database.close()
    with httpx.Client(base_url=running.consoleUrl, headers={"Sec-Fetch-Site": "same-origin"}, timeout=60) as client:
        assert client.post(f"/sign-in/link/{secret}").status_code == httpx.codes.SEE_OTHER
        yield client


def _times(client: httpx.Client, path: str, parameters: Mapping[str, Any]) -> str:
    taken = []
    for _ in range(_TIMES):
        began = time.monotonic()
        client.get(path, params=parameters).raise_for_status()
        taken.append(1000 * (time.monotonic() - began))
    median = statistics.median(taken)
    return f"{median:.1f} ms, max {max(taken):.1f}" + (f", above {BOUND_MS:.0f}" if median > BOUND_MS else "")


Lists = dict[str, tuple[str, dict[str, Any]]]


def _lists(connection: psycopg.Connection, running: Running, now: datetime, count: int) -> Lists:
    middle = now - timedelta(seconds=count // 2)
    created = {"createdFrom": _text(middle - timedelta(hours=1)), "createdTo": _text(middle)}
    soon, week = now + timedelta(days=2), now + timedelta(days=9)
    scheduled = {"scheduledFrom": _text(soon), "scheduledTo": _text(week)}
    candidate, interview = _ids(connection, running, middle)
    deep = {
        name: {"cursor": cursor_text(name, Cursor(sort=sort, at=at, id=UUID(int=0)))}
        for name, sort, at in (
            ("candidates", NEWEST_FIRST, middle),
            ("interviews", NEWEST_FIRST, middle),
            ("call-attempts", LATEST_FIRST, now + timedelta(days=14)),
        )
    }
    searched: dict[str, dict[str, Any]] = {
        "": {},
        ", oldest": {"sort": "createdAt:asc"},
        ", created in an hour": created,
        ", changed": {"updatedSince": _text(middle)},
        ", of two statuses": {"status": ["APPLIED", "ACCEPTED"]},
    }
    return {
        **_of_records("candidates", created, now, middle, ["APPLIED", "ACCEPTED"], "REJECTED", deep["candidates"]),
        **_of_records("interviews", created, now, middle, ["SCHEDULED", "COMPLETED"], "CANCELLED", deep["interviews"]),
        **{
            f"candidates named {text!r}{words}": ("/candidates", {"search": text, **more})
            for text in _SEARCHES
            for words, more in searched.items()
        },
        "interviews scheduled": ("/interviews", scheduled),
        "interviews scheduled, of a status": ("/interviews", {**scheduled, "status": "COMPLETED"}),
        "interviews scheduled, of a rare status": ("/interviews", {**scheduled, "status": "CANCELLED"}),
        "interviews scheduled, latest": ("/interviews", {"sort": "scheduledAt:desc"}),
        "interviews scheduled, latest of a rare status": (
            "/interviews",
            {"sort": "scheduledAt:desc", "status": "CANCELLED"},
        ),
        "interviews scheduled later than all": ("/interviews", {"scheduledFrom": _text(now + timedelta(days=90))}),
        "interviews scheduled, created in an hour": ("/interviews", {**scheduled, **created}),
        "interviews scheduled, newest": ("/interviews", {**scheduled, "sort": "createdAt:desc"}),
        "interviews in progress": ("/interviews", {"status": "IN_PROGRESS"}),
        "interviews in progress or failed": ("/interviews", {"status": ["IN_PROGRESS", "FAILED"]}),
        "interviews of the agent": ("/interviews", {"agentId": running.agentId}),
        "interviews of the agent, oldest": ("/interviews", {"agentId": running.agentId, "sort": "createdAt:asc"}),
        "interviews of the agent, changed": (
            "/interviews",
            {"agentId": running.agentId, "updatedSince": _text(middle)},
        ),
        "interviews of an unused agent": ("/interviews", {"agentId": str(uuid4())}),
        "interviews of a candidate": ("/interviews", {"candidateId": candidate}),
        "interviews of a candidate, changed": ("/interviews", {"candidateId": candidate, "sort": "updatedAt:asc"}),
        "interviews of an unused job": ("/interviews", {"jobId": str(uuid4())}),
        "candidates of an unused job": ("/candidates", {"jobId": str(uuid4()), "sort": "createdAt:asc"}),
        "attempts": ("/call-attempts", {}),
        "attempts, earliest": ("/call-attempts", {"sort": "scheduledAt:asc"}),
        "attempts, deep cursor": ("/call-attempts", deep["call-attempts"]),
        "attempts scheduled": ("/call-attempts", scheduled),
        "attempts scheduled, pending": ("/call-attempts", {**scheduled, "status": "PENDING"}),
        "attempts scheduled, of two statuses": ("/call-attempts", {**scheduled, "status": ["PENDING", "COMPLETED"]}),
        "attempts scheduled, cancelled": ("/call-attempts", {**scheduled, "status": "CANCELLED"}),
        "attempts scheduled later than all": ("/call-attempts", {"scheduledFrom": _text(now + timedelta(days=90))}),
        "attempts of all statuses": ("/call-attempts", {"status": list(AttemptState)}),
        "attempts in progress": ("/call-attempts", {"status": "IN_PROGRESS"}),
        "attempts cancelled": ("/call-attempts", {"status": "CANCELLED"}),
        "attempts created in an hour": ("/call-attempts", created),
        "attempts changed": ("/call-attempts", {"updatedSince": _text(middle)}),
        "attempts changed, none": ("/call-attempts", {"updatedSince": _text(now + timedelta(days=1))}),
        "attempts of an interview": ("/call-attempts", {"interviewId": interview}),
        "attempts to call a candidate": ("/call-attempts", {"candidateId": candidate}),
        "attempts of an external id": ("/call-attempts", {"externalId": "ats 4711"}),
        "attempts of an unused external id": ("/call-attempts", {"externalId": "none"}),
        **_of_partners(count, middle),
    }


def _of_records(
    name: str,
    created: dict[str, str],
    now: datetime,
    middle: datetime,
    statuses: list[str],
    rare: str,
    deep: dict[str, str],
) -> Lists:
    path = f"/{name}"
    found: dict[str, dict[str, Any]] = {
        "": {},
        ", page 100": {"page": 100},
        ", page 500": {"page": 500},
        ", page 10,000": {"page": 10_000},
        ", oldest": {"sort": "createdAt:asc"},
        ", deep cursor": deep,
        ", deep cursor, of a rare status": {**deep, "status": rare},
        ", created in an hour": created,
        ", created before": {"createdTo": created["createdTo"]},
        ", created since, oldest": {"createdFrom": created["createdFrom"], "sort": "createdAt:asc"},
        ", created later than all": {"createdFrom": _text(now + timedelta(days=1))},
        ", changed": {"updatedSince": _text(middle)},
        ", changed, newest change": {"updatedSince": _text(middle), "sort": "updatedAt:desc"},
        ", changed, newest": {"updatedSince": _text(middle), "sort": "createdAt:desc"},
        ", changed, none": {"updatedSince": _text(now + timedelta(days=1))},
        ", changed, of a status": {"updatedSince": _text(middle), "status": statuses[1]},
        ", changed, of a rare status": {"updatedSince": _text(middle), "status": rare},
        ", changed, created in an hour": {"updatedSince": _text(middle), **created},
        ", of a status": {"status": statuses[0]},
        ", of a status, page 500": {"status": statuses[0], "page": 500},
        ", of a rare status": {"status": rare},
        ", of two statuses": {"status": statuses},
        ", of two statuses, created before": {"status": statuses, "createdTo": created["createdTo"]},
        ", of an external id": {"externalId": "ats 4711"},
        ", of an external id, by change": {"externalId": "ats 4711", "sort": "updatedAt:desc"},
        ", of an unused external id": {"externalId": "none"},
    }
    return {f"{name}{words}": (path, parameters) for words, parameters in found.items()}


_SEARCHES = (
    *("Ada", "Horak", "Horakova", "Quillfeather", "person471147@"),
    *("Zzyzx at all", "ovakova hor", "Ada Quillfeather 7", "x@", "qz"),
)
"""A third of all candidates has the first name, thousands the second one, hundreds the third one, fifty the fourth one
and one the fifth one. No candidate has the others. One of these has frequent letters only, and two are too short for
keys."""


def _of_partners(count: int, middle: datetime) -> Lists:
    period = {"from": _text(middle - timedelta(hours=1)), "to": _text(middle)}
    webhook, batch = f"/webhooks/{_ENDPOINT}/deliveries", f"/batches/{_BATCH}/items"
    return {
        "events": ("/events", {}),
        "events after half of them": ("/events", {"after": count // 2}),
        "events of a period": ("/events", period),
        "events of a type": ("/events", {"types": "interview.scheduled"}),
        "events of an unused type": ("/events", {"types": "interview.failed"}),
        "events delivered": ("/events", {"deliverySuccess": "true"}),
        "events not delivered": ("/events", {"deliverySuccess": "false"}),
        "events not delivered, of a period": ("/events", {"deliverySuccess": "false", **period}),
        "deliveries": (webhook, {}),
        "deliveries, deep cursor": (webhook, {"cursor": place_text(f"deliveries-{_ENDPOINT}", count // 2)}),
        "deliveries failed": (webhook, {"state": "FAILED"}),
        "deliveries waiting": (webhook, {"state": "WAITING"}),
        "deliveries of a period": (webhook, period),
        "deliveries of an unused type": (webhook, {"types": "interview.failed"}),
        "batches": ("/batches", {}),
        "items": (batch, {}),
        "items, deep cursor": (batch, {"cursor": place_text(f"items-{_BATCH}", _ITEMS // 2)}),
        "items applied": (batch, {"state": "APPLIED"}),
        "items refused": (batch, {"state": "REFUSED"}),
    }


def _pages(running: Running, now: datetime, count: int) -> Lists:
    middle, company = now - timedelta(seconds=count // 2), running.companyId
    created = {"created_from": _minute(middle - timedelta(hours=1)), "created_to": _minute(middle)}
    due = {"due_from": _minute(now + timedelta(days=2)), "due_to": _minute(now + timedelta(days=9))}
    found: dict[str, dict[str, str]] = {
        "": {},
        " of a company": {"company": company},
        " pending": {"state": "pending"},
        " pending, of a company": {"state": "pending", "company": company},
        " pending, due in a week": {"state": "pending", **due},
        " pending, due in a week, of a company": {"state": "pending", "company": company, **due},
        " pending, in a zone": {"state": "pending", "zone": "Asia/Tokyo"},
        " finished": {"state": "finished"},
        " finished, of a company": {"state": "finished", "company": company},
        " finished, due in a week, of a company": {"state": "finished", "company": company, **due},
        " cancelled": {"state": "cancelled"},
        " cancelled, of a company": {"state": "cancelled", "company": company},
        " busy": {"reason": "busy"},
        " busy, of a company": {"reason": "busy", "company": company},
        " in progress": {"state": "in-progress"},
        " created in an hour": {"company": company, **created},
        " changed": {"company": company, "changed_from": _minute(middle)},
        " pending, created in an hour": {"state": "pending", "company": company, **created},
    }
    return {
        **{f"console: attempts{words}": ("/attempts", parameters) for words, parameters in found.items()},
        "console: batches": ("/batches", {}),
        "console: webhooks": ("/webhooks", {}),
        "console: the webhook": (f"/webhooks/{_ENDPOINT}", {}),
        "console: companies": ("/companies", {}),
    }


def _ids(connection: psycopg.Connection, running: Running, middle: datetime) -> tuple[str, str]:
    """Find a candidate and an interview of the middle of the list."""
    found = connection.execute(
        "SELECT candidate_id::text, id::text FROM interviews WHERE company_id = %s AND created_at <= %s"
        " ORDER BY created_at DESC LIMIT 1",
        [running.companyId, middle],
    ).fetchone()
    assert found is not None
    return found


def _text(at: datetime) -> str:
    return at.isoformat()


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
