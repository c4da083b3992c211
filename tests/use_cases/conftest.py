"""Fixtures: the use cases of one company, with a clock that only a test moves and a carrier that works."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from typing import Any
from uuid import UUID

import psycopg
import pytest
import requests

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, Ended, LegSeen, Progressed, Reason
from scheduler.domain.call import Accepted, CallNews, CallOrder, CallProgress, CallStatus
from scheduler.domain.command import Command, Request
from scheduler.domain.company import RetryPolicy
from scheduler.domain.explanation import Explanation
from scheduler.domain.principal import KeyKind
from scheduler.domain.webhook import READ_WEBHOOKS
from scheduler.hashing import Hasher
from scheduler.lifecycle.breaker import Breaker
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.dial import Dial, Dialler
from scheduler.use_cases.dialling import sender
from scheduler.use_cases.dialling.claim import Claims
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.operations.stale_times import Correct
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.batches import Batches
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.conflicts import again_at_once
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.submit import Submit
from tests.conftest import Seeded, TestClock, seed, wait_until
from tests.support.builders import (
    ApiWriter,
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_placed_attempt,
    a_sid,
    a_tenant,
    a_voice_key,
    an_unknown_attempt,
    of_company,
)
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier, a_carrier, a_closed_port
from tests.use_cases.webhooks.endpoints import Webhooks

Perform = Callable[[Request], Command]
Released = Callable[[], list[UUID]]
PUBLIC_URL = "https://calls.example.com"
FOR_HOURS = 7200.0
"""Seconds of ringing or talking that no test waits for."""
A_LONG_ROUND = timedelta(minutes=10)
"""No round of settling ends before its work, however busy the machine is."""
PAUSED = "paused_at = :at, pause_reason = 'a test'"
"""Columns of a paused company or carrier account."""
IN_PROGRESS = [
    pytest.param(a_claimed_attempt, id="claimed"),
    pytest.param(a_placed_attempt, id="placed"),
    pytest.param(an_unknown_attempt, id="answer lost"),
]
"""Builders of an attempt whose call may be live."""
EMPTY_LIST = b'{"calls": []}'


@pytest.fixture(scope="session")
def the_carrier() -> Iterator[SimulatedCarrier]:
    with a_carrier() as carrier:
        yield carrier


@pytest.fixture
def carrier(the_carrier: SimulatedCarrier, now: TestClock) -> SimulatedCarrier:
    """On the test's own clock; each test calls numbers of its own."""
    the_carrier.clock = now
    the_carrier.clear()
    return the_carrier


@pytest.fixture
def tenant(database: Database, seeded: Seeded, hasher: Hasher, now: TestClock) -> Tenant:
    return a_tenant(database, seeded, hasher, now, account_sid=ACCOUNT_SID)


@pytest.fixture
def other(tenant: Tenant) -> Tenant:
    """Another company of the same installation."""
    return of_company(tenant, seed(tenant.database, tenant.now()))


@pytest.fixture
def retrying(tenant: Tenant) -> Tenant:
    """A company with the default retries."""
    return of_company(tenant, seed(tenant.database, tenant.now(), retry_policy=RetryPolicy()))


@pytest.fixture
def voice(retrying: Tenant) -> Tenant:
    """A company whose voice server reports outcomes."""
    a_voice_key(retrying)
    return retrying


@pytest.fixture
def read(tenant: Tenant) -> Tenant:
    """A company with a reader."""
    return with_reader(tenant)


def with_reader(tenant: Tenant) -> Tenant:
    Keys(tenant.database, tenant.hasher, tenant.now).create(
        kind=KeyKind.REGULAR, name="events", company_id=tenant.company_id, scopes=frozenset({READ_WEBHOOKS})
    )
    return tenant


def reads_notifications(tenant: Tenant) -> Tenant:
    """The tenant, with times by which the notifications of failed and short calls are read."""
    return replace(tenant, policy=Policy())


def with_account(tenant: Tenant, sid: str, **limits: Any) -> Tenant:
    """Build the tenant with another carrier account. The limits are `calls_per_second` and `max_calls`."""
    return a_tenant(tenant.database, tenant, tenant.hasher, tenant.now, account_sid=sid, **limits)


@pytest.fixture
def release(tenant: Tenant, hints: RecordingHints) -> Release:
    return Release(tenant.context, hints, tenant.account_id)


@pytest.fixture
def released(release: Release, hints: RecordingHints) -> Released:
    """Release what is due, and return the ids of the hints."""

    def ids() -> list[UUID]:
        hints.rung.clear()
        release.round(resends=False)
        return hints.ids(tasks.DIAL)

    return ids


@pytest.fixture
def apply(tenant: Tenant, hints: RecordingHints) -> Apply:
    return Apply(tenant.context, hints)


@pytest.fixture
def submit(tenant: Tenant, hints: RecordingHints) -> Submit:
    return Submit(tenant.database, hints, tenant.now)


@pytest.fixture
def accept(tenant: Tenant, submit: Submit) -> Perform:
    return accepting(tenant, submit)


def accepting(tenant: Tenant, submit: Submit) -> Perform:
    """Accept requests of the company, which are not applied yet."""

    def accepted(request: Request) -> Command:
        return submit.command(tenant.principal, None, request, idempotency_key=None, request_hash=b"hash").command

    return accepted


def performing(tenant: Tenant, submit: Submit, apply: Apply) -> Perform:
    """Accept requests of the company, apply each, and return the command with its answer."""
    accept = accepting(tenant, submit)

    def performed(request: Request) -> Command:
        command = accept(request)
        apply.command(command.id)
        return submit.find(tenant.principal, str(command.id))

    return performed


@pytest.fixture
def records(tenant: Tenant, hints: RecordingHints) -> ApiWriter:
    return ApiWriter(tenant=tenant, hints=hints)


@pytest.fixture
def batches(tenant: Tenant, hints: RecordingHints) -> Batches:
    return Batches(tenant.database, IdempotentWrites(tenant.database, tenant.now), hints)


@pytest.fixture
def correct(tenant: Tenant) -> Correct:
    return Correct(tenant.database, tenant.policy, tenant.now)


@pytest.fixture
def webhooks(tenant: Tenant, hints: RecordingHints) -> Webhooks:
    return Webhooks(tenant=tenant, hints=hints)


@pytest.fixture
def pauses(tenant: Tenant) -> Pauses:
    return Pauses(tenant.database, tenant.now)


class ExplainToBoth(Explain):
    """Explains to the API, and asserts that the console, which may read no number, explains the same."""

    def __init__(self, context: Context, console: Database) -> None:
        super().__init__(context)
        self._console = Explain(replace(context, database=console))

    def explanation_of(self, attempt_id: UUID) -> Explanation:
        explanation = super().explanation_of(attempt_id)
        assert self._console.explanation_of(attempt_id) == explanation
        return explanation


@pytest.fixture(scope="session")
def operators_database(logins: Logins) -> Iterator[Database]:
    assert logins.operator is not None
    database = Database(logins.operator, pool_size=1, operates=True)
    yield database
    database.close()


@pytest.fixture
def explain(tenant: Tenant, operators_database: Database) -> Explain:
    return ExplainToBoth(tenant.context, operators_database)


@pytest.fixture
def hear(tenant: Tenant, hints: RecordingHints, carrier: SimulatedCarrier) -> Hear:
    return Hear(tenant.context, hints, TwilioCallbacks(carrier.account(public_url=PUBLIC_URL)))


@pytest.fixture
def settle(tenant: Tenant, carrier: SimulatedCarrier) -> Iterator[Settle]:
    queries = TwilioQueries(carrier.account(), tenant.policy)
    yield Settle(tenant.context, queries, tenant.account_id, longest_round=A_LONG_ROUND)
    queries._client.http_client.session.close()


def a_dialler(tenant: Tenant, carrier: SimulatedCarrier) -> Dialler:
    """Build a dialler whose loop a test runs step by step."""
    return Dialler(tenant.dial, TwilioCallPlacer(carrier.account(), tenant.policy), tenant.now)


@pytest.fixture
def dialler(tenant: Tenant, carrier: SimulatedCarrier) -> Iterator[Dialler]:
    dialler = a_dialler(tenant, carrier)
    yield dialler
    dialler._loop.close()


@dataclass
class MonotonicClock:
    """A monotonic clock that only a test moves, so that no stall of the test counts."""

    at: float

    def __call__(self) -> float:
        return self.at


@pytest.fixture(autouse=True)
def long_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of workers end with their work. A busy machine would end them before, after seconds of real time."""
    monkeypatch.setattr(tasks, "monotonic", partial(float, monotonic()))


@pytest.fixture
def short_turns(long_turns: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of workers are over after their first batch: an hour passes between two readings of the clock."""
    monkeypatch.setattr(tasks, "monotonic", count(step=3600).__next__)


@pytest.fixture
def fresh_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Last looks do not age on the monotonic clock, so that no stall makes them too old for their calls."""
    monkeypatch.setattr(sender, "monotonic", partial(float, monotonic()))


@pytest.fixture
def offline(tenant: Tenant) -> Settle:
    """Settle in a process that cannot reach the carrier."""
    return settle_at(tenant, a_closed_port())


def settle_at(tenant: Tenant, url: str, **options: Any) -> Settle:
    """Build a `Settle` whose carrier is the server at this address."""
    queries = TwilioQueries(SimulatedCarrier(url).account(), tenant.policy)
    return Settle(tenant.context, queries, tenant.account_id, **({"longest_round": A_LONG_ROUND} | options))


def settle_with_an_empty_list(tenant: Tenant) -> None:
    """Run a round whose carrier lists no calls."""
    with answering(200, EMPTY_LIST) as url:
        settle_at(tenant, url).round()


def answering(status: int, body: bytes, paths: list[str] | None = None) -> AbstractContextManager[str]:
    """Run a server that answers each GET with this status and body, and adds its path to `paths`."""

    def answer(path: str) -> tuple[int, bytes]:
        if paths is not None:
            paths.append(path)
        return status, body

    return answering_by_path(answer)


@contextmanager
def answering_by_path(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    """Run a server that answers each GET with the status and body that `answer` returns for its path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Calls:
    """Calls of a tenant at the simulated carrier."""

    tenant: Tenant
    carrier: SimulatedCarrier

    def place(self, order: CallOrder) -> Accepted:
        """Send the POST of an order, which the carrier accepts."""

        async def placed() -> Accepted:
            line = TwilioCallPlacer(self.carrier.account(), self.tenant.policy)
            answer = await line.place(order)
            await line.close()
            assert isinstance(answer, Accepted)
            return answer

        return asyncio.run(placed())

    def ring(self, attempt: Attempt, **plan: Any) -> str:
        """Send the attempt's one POST; the sid of its call, as only the carrier's ledger shows it."""
        order = self.tenant.dial.last_look(attempt)
        assert order is not None
        self.carrier.plan(to=order.to, **({"callbacks": "none", "ring_s": FOR_HOURS} | plan))
        self.place(order)
        [leg] = self.carrier.rings(order.to)
        return str(leg["sid"])

    def ring_and_record(self, attempt: Attempt, *, until: str | None = None, **plan: Any) -> str:
        """Send the attempt's one POST, record its answer and wait for this status of its call. Return the sid."""
        sid = self.ring(attempt, **plan)
        self.tenant.dial.record([(attempt, Accepted(call_sid=sid))])
        if until is not None:
            self.wait_for(sid, until)
        return sid

    def post_late(self, attempt: Attempt) -> str:
        """Place a call to the attempt's number as a POST that arrives late does. Return its sid."""
        form = {"To": attempt.called_number, "From": self.tenant.caller, "Url": "https://example.com/voice"}
        answer = self._post("Calls.json", form)
        assert answer.status_code == requests.codes.created
        return str(answer.json()["sid"])

    def end(self, sid: str) -> None:
        """Hang up in any state of the call."""
        assert self._post(f"Calls/{sid}.json", {"Status": "completed"}).status_code == requests.codes.ok

    def wait_for(self, sid: str, status: str) -> None:
        def has_status() -> bool:
            return any(leg["status"] == status for leg in self.carrier.rings() if leg["sid"] == sid)

        wait_until(has_status, says=f"the call is {status}")

    def _post(self, path: str, form: dict[str, Any]) -> requests.Response:
        url = f"{self.carrier.url}/2010-04-01/Accounts/{ACCOUNT_SID}/{path}"
        return requests.post(url, data=form, auth=(ACCOUNT_SID, PRIMARY), timeout=30)


@pytest.fixture
def calls(tenant: Tenant, carrier: SimulatedCarrier) -> Calls:
    return Calls(tenant, carrier)


@contextmanager
def refusing(tenant: Tenant, change: str, when: str = "true", code: str = "raise_exception") -> Iterator[None]:
    """Make the database refuse a change inside the block, for example `UPDATE ON attempts`, with this SQLSTATE.

    `when` limits it to rows with this condition about `OLD` or `NEW`.
    """
    tenant.change(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$"
    )
    tenant.change(f"CREATE TRIGGER refuse BEFORE {change} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION refuse()")
    try:
        yield
    finally:
        tenant.change("DROP FUNCTION refuse CASCADE")


def breaker_of(tenant: Tenant) -> Breaker:
    with tenant.database.transaction() as stores:
        return stores.carrier_accounts.get(tenant.account_id).breaker


def close_breaker(tenant: Tenant) -> None:
    tenant.change("UPDATE carrier_accounts SET failures = 0, down_until = NULL, down_cause = NULL")


def a_backoff(tenant: Tenant, *, down_until: datetime, cause: str = "HTTP_500", **columns: Any) -> None:
    """Let the company's orders wait, or those to the country that is named."""
    at = tenant.now()
    own = {"account_id": tenant.account_id, "failures": 5, "trials": 0, "is_asked": False, "others_work": False}
    times = {"down_until": down_until, "created_at": at, "updated_at": at}
    scope = {} if "country" in columns else {"company_id": tenant.company_id, "caller": tenant.caller}
    tenant.insert("carrier_backoffs", **(own | times | scope | columns), cause=cause)


def pause_reason(tenant: Tenant) -> str | None:
    reason: str | None = tenant.ask("SELECT pause_reason FROM companies WHERE id = :id", id=tenant.company_id)[0][0]
    return reason


def candidate_of(tenant: Tenant, attempt: Attempt) -> UUID:
    return tenant.interview(attempt.interview_id).candidate_id


def order_to(tenant: Tenant, claimed: Attempt) -> str:
    """Return the number of the order after a last look."""
    order = tenant.dial.last_look(claimed)
    assert order is not None
    return order.to


def change_now(tenant: Tenant, statement: str) -> None:
    """Execute a statement in which `:at`, if it occurs, is the current time."""
    tenant.change(statement, **({"at": tenant.now()} if ":at" in statement else {}))


def apply_news(tenant: Tenant, attempt: Attempt, status: CallStatus, **fields: Any) -> None:
    """Apply the carrier's news of the attempt's call. The fields may name another call. Raises InvariantViolated."""
    with tenant.database.transaction() as stores:
        interview = stores.interviews.lock(attempt.interview_id)
        locked = stores.attempts.lock(attempt.id)
        own: dict[str, Any] = {"call_sid": locked.call_sid or a_sid(), "token": locked.token}
        news = CallNews(status=status, **(own | fields))
        tenant.effects.hear(Batch(stores, [interview]), locked, news, "a test", tenant.now())


def finish(tenant: Tenant, attempt: Attempt, reason: Reason = Reason.BUSY) -> Attempt:
    """End the attempt's call now."""
    return tenant.take(attempt, Ended(reason=reason, ended_at=tenant.now()))


def an_ended_attempt(tenant: Tenant, number: str | None = None, reason: Reason = Reason.BUSY) -> Attempt:
    """Create an attempt whose call has just ended."""
    return finish(tenant, a_placed_attempt(tenant, number), reason)


def answered(tenant: Tenant, attempt: Attempt | None = None, **facts: Any) -> Attempt:
    """A call that was answered, with other facts of that news."""
    return tenant.take(attempt or a_placed_attempt(tenant), Progressed(rank=CallProgress.ANSWERED, **facts))


def end(tenant: Tenant, attempt: Attempt, status: CallStatus = CallStatus.COMPLETED) -> Attempt:
    apply_news(tenant, attempt, status, duration=timedelta(seconds=30))
    return tenant.attempt(attempt.id)


def see_leg(tenant: Tenant, attempt: Attempt, rank: CallProgress = CallProgress.RINGING) -> Attempt:
    """Record the carrier's first report that a call of the attempt is live."""
    sid = attempt.call_sid or a_sid()
    return tenant.take(attempt, LegSeen(call_sid=sid, rank=rank, look_at=tenant.now()))


def claimed(tenant: Tenant, *attempts: Attempt) -> list[Attempt]:
    """Claim these and return them in the order of sending."""
    claims = tenant.dial.claim([attempt.id for attempt in attempts])
    return [each.attempt for each in claims.claimed]


def is_claimed(tenant: Tenant, attempt: Attempt) -> bool:
    """Claim the attempt. Return True if it was claimed."""
    ids = [each.id for each in claimed(tenant, attempt)]
    assert ids in ([], [attempt.id])
    return ids != []


def wait_for_a_lock(tenant: Tenant) -> None:
    """Wait until a transaction waits for a lock of another one."""
    wait_until(lambda: tenant.ask("SELECT 1 FROM pg_locks WHERE NOT granted"), says="a transaction waits")


def claim_behind(
    lock: str, dial: Dial, tenant: Tenant, url: str, attempt: Attempt, meanwhile: Callable[[], object]
) -> Claims:
    """Claim the attempt while another session holds this lock. `meanwhile` is called during the wait.

    Like the dialler, a test that stalls for the lock timeout tries again.
    """
    with psycopg.connect(url) as other, ThreadPoolExecutor(1) as pool:
        other.execute(lock.encode())
        claims = pool.submit(again_at_once, lambda: dial.claim([attempt.id]))
        wait_for_a_lock(tenant)
        meanwhile()
        other.rollback()
        return claims.result()


ACCOUNT_LOCK = "SELECT 1 FROM carrier_accounts FOR UPDATE"
"""The first lock of a claim."""
