"""A hostile company delays nothing of another company by more than a second, whatever it floods, breaks or locks.

Each task has a probe: a thing that the other company does, and the seconds until the task has done its part. The probes
run first next to a harmless neighbour, and then twice or more next to each hostile one. A machine that is busy with
other work delays a single run, and a hostile neighbour delays them all. So the runs go on until each probe was on time
in two runs more than it was late, and the test fails as soon as one was late in four runs more.
"""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import requests
from celery import Celery

from scheduler.clock import monotonic
from scheduler.use_cases.shared import hints
from scheduler.webhooks.sending import new_secret, secret_place
from tests.acceptance.conftest import Client, WholeSystem, running_system
from tests.conftest import Seeded, wait_until
from tests.support import exhaustive
from tests.support.big_tables import add_pending_calls, new_id_sql
from tests.support.webhook_receivers import Visit, WebhookReceiver, a_webhook_receiver, answers
from tests.use_cases.webhooks.endpoints import ENCRYPTION

AT_MOST_LATER_S = 1.0
"""Probes of calls, commands, callbacks, batches and events."""
UPKEEP_LATER_S = 5.0
"""Probes of mails, alarms, erasures and the deletion of old rows, for which no person waits."""
ON_TIME, LATE, MOST_RUNS = 2, -4, 10
"""The lead of the runs on time over the late ones that decides about a probe, and the runs after which it is late."""
DUE_CALLS = exhaustive.cases(100_000, 30_000)
INTERVIEWS = exhaustive.cases(10_000, 3_000)
_numbers = count(100_000)
_owners = count()


def a_number() -> str:
    return f"+421917{next(_numbers)}"


@dataclass(kw_only=True)
class Company:
    """One company of the system, as its own backend sees it."""

    whole: WholeSystem
    id: str
    agent_id: str
    client: Client

    def post(self, path: str, body: Any, status: int = 201, **headers: str) -> Any:
        url = f"{self.whole.running.apiUrl}{path}"
        answer = self.client.session.post(url, json=body, headers=headers, timeout=40)
        assert answer.status_code == status, answer.text
        return answer.json()["data"]

    def an_interview(self, **more: Any) -> dict[str, Any]:
        candidate = {"firstName": "Ada", "lastName": "Canary", "gdprExpiryDate": "2030-01-01"}
        return {"agentId": self.agent_id, "candidate": {**candidate, "phoneNumber": a_number()}, **more}

    def book(self, seconds: float = 3600) -> dict[str, Any]:
        """Create an interview whose call is due in this many seconds, and return it."""
        body = self.an_interview(scheduledAt=self.whole.in_seconds(seconds))
        return dict(self.post("/interviews", body, Prefer="wait=20"))

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute a statement over a connection of its own, because the probes run side by side."""
        with psycopg.connect(self.whole.running.databaseUrl, autocommit=True) as connection:
            found = connection.execute(query.encode(), values)
            return found.fetchall() if found.description else []

    def until(self, query: str, *values: object) -> None:
        wait_until(lambda: self.rows(query, *values), seconds=60, says=query)


@dataclass(kw_only=True)
class Neighbours:
    whole: WholeSystem
    innocent: Company
    hostile: Company
    receiver: WebhookReceiver
    """Of the innocent company's events."""
    celery: Celery


# ---- probes: the seconds until the innocent company's work is done


def command(near: Neighbours) -> float:
    began = monotonic()
    near.innocent.book()
    return monotonic() - began


def message(near: Neighbours) -> float:
    candidate = {"firstName": "Ada", "lastName": "Canary", "gdprExpiryDate": "2030-01-01", "phoneNumber": a_number()}
    candidate_id = near.innocent.post("/candidates", candidate)["id"]
    [[key]] = near.innocent.rows("SELECT id FROM api_keys WHERE company_id = %s LIMIT 1", near.innocent.id)
    body = {"candidateId": candidate_id, "agentId": near.innocent.agent_id, "scheduledAt": near.whole.in_seconds(3600)}
    words = {"apiKeyId": str(key), "idempotencyKey": str(uuid4()), "kind": "create_interview", "body": body}
    began = monotonic()
    near.celery.send_task(hints.SUBMIT, kwargs=words, queue="intake", ignore_result=True)
    near.innocent.until(
        "SELECT 1 FROM inbox WHERE idempotency_key = %s AND applied_at > 'epoch'", words["idempotencyKey"]
    )
    return monotonic() - began


def call(near: Neighbours) -> float:
    """Measure how late a call rings, and wait until it is over."""
    attempt = near.innocent.book(seconds=3)["callAttempts"][0]
    near.innocent.until("SELECT 1 FROM attempts WHERE id = %s AND state = 'COMPLETED'", attempt["id"])
    [[token]] = near.innocent.rows("SELECT token FROM attempt_tokens WHERE attempt_id = %s", attempt["id"])
    [ring] = [each for each in near.whole.client.rings() if each["token"] == token]
    return (_instant(ring["rang_at"]) - _instant(attempt["scheduledAt"])).total_seconds()


def callback(near: Neighbours) -> float:
    """Measure the time between the end of a call at the carrier and its end here."""
    attempt = near.innocent.book(seconds=2)["callAttempts"][0]
    near.innocent.until("SELECT 1 FROM attempts WHERE id = %s AND state = 'COMPLETED'", attempt["id"])
    [[seconds]] = near.innocent.rows(
        "SELECT extract(epoch FROM a.ended_at - max(e.received_at))::float FROM attempts a"
        " JOIN carrier_events e USING (token) WHERE a.id = %s GROUP BY a.ended_at",
        attempt["id"],
    )
    return float(seconds)


def expiry(near: Neighbours) -> float:
    attempt = near.innocent.book()["callAttempts"][0]
    began = monotonic()
    near.innocent.rows("UPDATE attempts SET expires_at = created_at WHERE id = %s", attempt["id"])
    near.innocent.until("SELECT 1 FROM attempts WHERE id = %s AND reason = 'EXPIRED'", attempt["id"])
    return monotonic() - began


def batch(near: Neighbours) -> float:
    began = monotonic()
    items = [near.innocent.an_interview(scheduledAt=near.whole.in_seconds(3600))]
    made = near.innocent.post("/batches", {"items": items}, status=202)
    near.innocent.until("SELECT 1 FROM batches WHERE id = %s AND state = 'COMPLETED'", made["id"])
    return monotonic() - began


def event(near: Neighbours) -> float:
    interview = near.innocent.book()
    began = monotonic()
    wait_until(
        lambda: any(interview["id"] in visit.body.decode() for visit in tuple(near.receiver.visits)),
        seconds=60,
        says="the event is delivered",
    )
    return monotonic() - began


def recomputation(near: Neighbours) -> float:
    interview = near.innocent.book()
    began = monotonic()
    url = f"{near.whole.running.apiUrl}/candidates/{interview['candidateId']}"
    answer = near.innocent.client.session.patch(url, json={"timezone": "Europe/Prague"}, timeout=40)
    assert answer.status_code == requests.codes.ok, answer.text
    near.innocent.until(
        "SELECT 1 FROM attempts WHERE id = %s AND schedule::text LIKE '%%Europe/Prague%%'",
        interview["callAttempts"][0]["id"],
    )
    return monotonic() - began


def invitation(near: Neighbours) -> float:
    before = len(list((near.whole.home / "mail").glob("*")))
    began = monotonic()
    url = f"{near.whole.running.apiUrl}/company/{near.innocent.id}"
    answer = near.innocent.client.session.patch(url, json={"ownerEmail": f"o{next(_owners)}@example.com"}, timeout=40)
    assert answer.status_code == requests.codes.ok, answer.text
    wait_until(lambda: len(list((near.whole.home / "mail").glob("*"))) > before, seconds=60, says="a mail is sent")
    return monotonic() - began


def alarm(near: Neighbours) -> float:
    began = monotonic()
    alarm_id = str(uuid4())
    near.innocent.rows(
        "INSERT INTO alarms (id, kind, subjects, first_seen_at, last_seen_at, count, tries, post_at)"
        " VALUES (%s, 'OF_A_PROBE', %s, %s, %s, 1, 0, %s)",
        *(alarm_id, json.dumps({"probe": alarm_id}), *[near.whole.now()] * 3),
    )
    near.innocent.until("SELECT 1 FROM alarms WHERE id = %s AND posted_at > 'epoch'", alarm_id)
    return monotonic() - began


def notice(near: Neighbours) -> float:
    began = monotonic()
    endpoint_id = str(uuid4())
    near.innocent.rows(
        "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,"
        " secret, created_at, updated_at, is_active, disabled_at, disabled_cause, notice_at)"
        " SELECT %s, principal_id, id, company_id, 'https://example.com', '{interview.failed}', 9, 15000, '', %s, %s,"
        " false, %s, 'GONE', %s FROM api_keys WHERE company_id = %s LIMIT 1",
        *(endpoint_id, *[near.whole.now()] * 4, near.innocent.id),
    )
    near.innocent.until("SELECT 1 FROM webhook_endpoints WHERE id = %s AND notice_at IS NULL", endpoint_id)
    return monotonic() - began


def purge(near: Neighbours) -> float:
    interview = near.innocent.book()
    [[row]] = near.innocent.rows("SELECT id FROM inbox WHERE interview_id = %s", interview["id"])
    near.innocent.rows("UPDATE inbox SET applied_at = applied_at - interval '60 days' WHERE id = %s", row)
    began = monotonic()
    near.celery.send_task(hints.PURGE, args=[[]], queue=hints.QUEUES[hints.PURGE], ignore_result=True)
    near.innocent.until("SELECT 1 WHERE NOT EXISTS (SELECT FROM inbox WHERE id = %s)", row)
    return monotonic() - began


def erasure(near: Neighbours) -> float:
    company = _another_company(near.whole, "A short one")
    began = monotonic()
    url = f"{near.whole.running.apiUrl}/company/{company.id}"
    assert company.client.session.delete(url, timeout=40).status_code == requests.codes.ok
    near.innocent.until("SELECT 1 FROM erasures WHERE company_id = %s AND finished_at > 'epoch'", company.id)
    return monotonic() - began


def person(near: Neighbours) -> float:
    """Measure the time until the interviews of a deleted person are cancelled, of which a worker cancels some."""
    candidate_id = _person_with(near.innocent, 150)
    began = monotonic()
    _delete_person(near.innocent, candidate_id)
    near.innocent.until(
        "SELECT 1 WHERE NOT EXISTS (SELECT FROM interviews WHERE candidate_id = %s AND status <> 'CANCELLED')",
        candidate_id,
    )
    return monotonic() - began


def readiness(near: Neighbours) -> float:
    began = monotonic()
    wait_until(
        lambda: near.innocent.client.get("/readyz").json()["data"]["degraded"] == [],
        seconds=60,
        says="each queue has a live worker",
    )
    return monotonic() - began


PROBES: dict[str, Callable[[Neighbours], float]] = {
    hints.APPLY: command,
    hints.SUBMIT: message,
    hints.DIAL: call,
    hints.HEAR: callback,
    hints.SETTLE: expiry,
    hints.BATCHES: batch,
    hints.DELIVER: event,
    hints.NUMBER_EVENTS: event,
    hints.RECOMPUTE: recomputation,
    hints.INVITE: invitation,
    hints.POST_ALARMS: alarm,
    hints.NOTIFY_OWNERS: notice,
    hints.PURGE: purge,
    hints.ERASE: erasure,
    hints.ERASE_PEOPLE: person,
    hints.LIVENESS: readiness,
}


PROBED = {each.__name__ for each in PROBES.values()}
UPKEEP = {each.__name__ for each in (recomputation, invitation, alarm, notice, purge, erasure, person)}


def probed(near: Neighbours) -> dict[str, float]:
    """Run each probe once, side by side, and return its seconds."""
    probes = {probe.__name__: probe for probe in PROBES.values()}
    with ThreadPoolExecutor(len(probes)) as threads:
        running = {name: threads.submit(probe, near) for name, probe in probes.items()}
        return {name: each.result() for name, each in running.items()}


def _instant(value: str) -> datetime:
    return datetime.fromisoformat(value)


# ---- hostile neighbours


@contextmanager
def rows_of_a_later_release(near: Neighbours) -> Iterator[None]:
    """Attempts that this release cannot read: pending and due, pending and expired, and with a call."""
    hostile = near.hostile
    due, expired, live = (
        [hostile.book(seconds)["callAttempts"][0]["id"] for _ in range(10)] for seconds in (3600, 3600, 1)
    )
    hostile.rows("UPDATE attempts SET due_at = created_at WHERE id = ANY(%s)", due)
    hostile.rows("UPDATE attempts SET expires_at = created_at WHERE id = ANY(%s)", expired)
    hostile.rows("UPDATE attempts SET warnings = '{OF_A_LATER_RELEASE}' WHERE id = ANY(%s)", [*due, *expired, *live])
    yield
    hostile.rows("UPDATE attempts SET warnings = '{}' WHERE company_id = %s", hostile.id)


@contextmanager
def held_locks(near: Neighbours) -> Iterator[None]:
    """A forgotten transaction holds rows that commands, callbacks and a batch of the hostile company need."""
    hostile = near.hostile
    people = [hostile.book(each)["candidateId"] for each in [2] * 20 + [3600] * 20]
    named = [{"agentId": hostile.agent_id, "candidateId": each} for each in people]
    with psycopg.connect(near.whole.running.databaseUrl) as forgotten:
        forgotten.execute("SET idle_in_transaction_session_timeout = 0")
        forgotten.execute(
            "SELECT 1 FROM candidates c JOIN interviews i ON i.candidate_id = c.id JOIN attempts a"
            " ON a.interview_id = i.id WHERE c.id = ANY(%s) FOR UPDATE",
            [people],
        )
        for each in named:
            # Without a wait. A command about a locked interview would not even be stored.
            hostile.post("/interviews", each, status=202, Prefer="respond-async")
        hostile.post("/batches", {"items": named * 2}, status=202)
        yield
        forgotten.rollback()


@contextmanager
def due_calls_that_wait(near: Neighbours) -> Iterator[None]:
    """Due calls of a paused company."""
    hostile, now = _with_a_key(near.whole, _another_company(near.whole, "With due calls")), near.whole.now()
    number_id = UUID(near.whole.running.phoneNumberId)
    seeded = Seeded(company_id=UUID(hostile.id), agent_id=UUID(hostile.agent_id), phone_number_id=number_id)
    url = near.whole.running.databaseUrl
    hostile.rows("UPDATE companies SET paused_at = %s, pause_reason = 'A test' WHERE id = %s", now, hostile.id)
    add_pending_calls(url, seeded, now - timedelta(days=2), DUE_CALLS, named=False)
    hostile.rows("UPDATE attempts SET due_at = %s WHERE company_id = %s AND state = 'PENDING'", now, hostile.id)
    yield


@contextmanager
def flood(near: Neighbours) -> Iterator[None]:
    """Requests of a key with the default limits, from eight connections, and a batch."""
    ended = threading.Event()
    hostile = _with_a_key(near.whole, near.hostile, per_minute=60)
    near.hostile.post("/batches", {"items": [near.hostile.an_interview() for _ in range(40)]}, status=202)

    def send() -> None:
        with requests.Session() as session:
            session.headers.update(hostile.client.session.headers)
            while not ended.is_set():
                body = near.hostile.an_interview(scheduledAt=near.whole.in_seconds(3600))
                url = f"{near.whole.running.apiUrl}/interviews"
                session.post(url, json=body, headers={"Prefer": "respond-async"}, timeout=40)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        ended.set()
        for each in threads:
            each.join()


@contextmanager
def dead_webhook(near: Neighbours) -> Iterator[None]:
    """Receivers that accept each connection and never answer, with events that wait for them."""
    with a_webhook_receiver(Visit.wait_until_left) as dead:
        for _ in range(5):
            register(near.hostile, dead.url)
        for _ in range(20):
            near.hostile.book()
        yield


@contextmanager
def one_person_with_many_interviews(near: Neighbours) -> Iterator[None]:
    """Thousands of interviews of one person, who is deleted."""
    _delete_person(near.hostile, _person_with(near.hostile, INTERVIEWS))
    yield


def _person_with(company: Company, interviews: int) -> str:
    """Create a person with this number of interviews, each with a pending call, and return the person's id."""
    interview = company.book()
    created_at = "(a.created_at - n * interval '1 millisecond')"
    company.rows(
        "INSERT INTO interviews (id, company_id, candidate_id, agent_id, type, focus, duration, caller_number, status,"
        f" is_test, metadata, expires_at, created_at, updated_at) SELECT {new_id_sql(created_at)}, company_id,"
        " candidate_id, agent_id, type, focus, duration, caller_number, 'SCHEDULED', false, '{}', expires_at,"
        f" {created_at}, updated_at FROM interviews a, generate_series(2, %s) AS n WHERE a.id = %s",
        *(interviews, interview["id"]),
    )
    company.rows(
        "INSERT INTO attempts (id, interview_id, company_id, chain_id, retry_number, manual, state, due_at, expires_at,"
        " schedule, warnings, number_hash, epoch, heard_rank, looks, not_placed, created_at, updated_at)"
        " SELECT i.id, i.id, i.company_id, i.id, 0, true, 'PENDING', a.due_at, a.expires_at, a.schedule, '{}',"
        " a.number_hash, 0, -1, 0, 0, i.created_at, i.updated_at FROM interviews i, attempts a"
        " WHERE i.candidate_id = %s AND a.interview_id = %s AND i.id <> a.interview_id",
        *(interview["candidateId"], interview["id"]),
    )
    return str(interview["candidateId"])


def _delete_person(company: Company, candidate_id: str) -> None:
    url = f"{company.whole.running.apiUrl}/candidates/{candidate_id}"
    answer = company.client.session.delete(url, timeout=40)
    assert answer.status_code == requests.codes.ok, answer.text


@contextmanager
def quiet_neighbours(near: Neighbours) -> Iterator[None]:
    """Those that use hardly any CPU, all at the same time."""
    with ExitStack() as stack:
        for each in (rows_of_a_later_release, dead_webhook, held_locks):
            stack.enter_context(each(near))
        yield


HOSTILE: list[Callable[[Neighbours], AbstractContextManager[None]]] = [
    quiet_neighbours,
    flood,
    one_person_with_many_interviews,
    due_calls_that_wait,
]


# ---- the system


def register(company: Company, url: str) -> str:
    """Store a webhook of the company, and return its secret."""
    endpoint_id, secret = str(uuid4()), new_secret()
    company.rows(
        "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,"
        " secret, created_at, updated_at) SELECT %s, principal_id, id, company_id, %s, '{interview.scheduled}', 9,"
        " 15000, %s, created_at, created_at FROM api_keys WHERE company_id = %s LIMIT 1",
        *(endpoint_id, url, ENCRYPTION.encrypt(secret, secret_place(UUID(endpoint_id))), company.id),
    )
    return secret


def _another_company(whole: WholeSystem, name: str) -> Company:
    client = Client(whole.running)
    client.session.headers["Authorization"] = f"Bearer {whole.running.atsKey}"
    company = Company(whole=whole, id="", agent_id="", client=client)
    company.id = company.post("/company", {"name": name})["id"]
    return company


def _with_a_key(whole: WholeSystem, company: Company, *, per_minute: int = 6000) -> Company:
    """Give the company another agent and a key of its own."""
    made = json.loads(
        whole.duecall("keys", "create", "--company", company.id, "--per-minute", str(per_minute), "--json")
    )
    client = Client(whole.running)
    client.session.headers["Authorization"] = f"Bearer {made['key']}"
    [[number]] = company.rows("SELECT id FROM phone_numbers WHERE company_id = %s", company.id)
    mine = Company(whole=whole, id=company.id, agent_id="", client=client)
    agent = {"name": "Caller", "type": "PHONE", "focus": "GENERIC", "language": "EN", "duration": 10}
    mine.agent_id = mine.post("/agents", {**agent, "companyPhoneNumberId": str(number)})["id"]
    return mine


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    home = tmp_path_factory.mktemp("neighbours")
    with (
        a_webhook_receiver(answers(200)) as alarms,
        a_webhook_receiver(answers(200)) as receiver,
        running_system(home, ALERT_WEBHOOK_URL=alarms.url, ALERT_WEBHOOK_SECRET=new_secret()) as whole,
    ):
        running = whole.running
        innocent = Company(whole=whole, id=running.companyId, agent_id=running.agentId, client=whole.client)
        hostile = _with_a_key(whole, _another_company(whole, "Hostile"))
        whole.raise_limits()
        whole.client.plan(ring_s=0.2, talk_s=0.2)
        register(innocent, receiver.url)
        celery = Celery(broker=running.redisUrl, set_as_current=False)
        celery.conf.broker_transport_options = {"global_keyprefix": "duecall:"}
        yield Neighbours(
            whole=whole,
            innocent=innocent,
            hostile=hostile,
            receiver=receiver,
            celery=celery,
        )


@pytest.fixture(scope="module")
def usual(near: Neighbours) -> dict[str, float]:
    """The seconds of each probe next to a harmless neighbour. The first run also warms the processes up."""
    probed(near)
    return probed(near)


def slower(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Return the longer time of each probe. Where a task looks at intervals, one run may be short by chance."""
    return {name: max(one[name], other[name]) for name in PROBED}


def test_every_task_has_a_probe() -> None:
    assert set(PROBES) == {*hints.QUEUES, hints.LIVENESS}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda each: each.__name__)
def test_hostile_company_delays_no_other(
    near: Neighbours,
    usual: dict[str, float],
    hostile: Callable[[Neighbours], AbstractContextManager[None]],
) -> None:
    leads = dict.fromkeys(PROBED, 0)
    runs: list[dict[str, float]] = []
    usual = slower(usual, probed(near))  # the machine may be busier now than at the beginning
    with hostile(near):
        while min(leads.values()) in range(LATE + 1, ON_TIME) and len(runs) < MOST_RUNS:
            runs.append(late(near, usual))
            undecided = [name for name, lead in leads.items() if lead < ON_TIME]
            leads |= {name: leads[name] + (-1 if name in runs[-1] else 1) for name in undecided}
    assert {name: [run.get(name) for run in runs] for name, lead in leads.items() if lead < ON_TIME} == {}


def late(near: Neighbours, usual: dict[str, float]) -> dict[str, float]:
    """Run each probe, and return by how many seconds those are later that are later than allowed."""
    later = {name: round(each - usual[name], 2) for name, each in probed(near).items()}
    return {name: by for name, by in later.items() if by > (UPKEEP_LATER_S if name in UPKEEP else AT_MOST_LATER_S)}
