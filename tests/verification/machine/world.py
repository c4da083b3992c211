"""Two companies, a few candidates and a carrier over the real stores. Requests are recorded with their answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from scheduler.carriers.twilio_callbacks import TwilioCallbacks
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import Accepted, CarrierAnswer
from scheduler.domain.candidate import NewCandidate
from scheduler.domain.command import (
    Command,
    CommandKind,
    CreateInterview,
    DeleteAttempt,
    InvokeAttempt,
    Request,
    RescheduleAttempt,
)
from scheduler.domain.company import EVERY_DAY, CallLimits, CallTimeInterval, CompanySettings, RetryPolicy
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.dial import Dial
from scheduler.use_cases.dialling.claims import ToSend
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.submit import Submit
from tests.conftest import NOON, TestClock, seed
from tests.support.builders import ALWAYS, FOREVER, ApiWriter, RecordingHints, Tenant, a_house, a_number, of_company
from tests.support.servers import ACCOUNT_SID
from tests.verification.histories.judge import ClientRequest, ClientResponse, History, Patience, Ring, Verb
from tests.verification.machine.invariants import Snapshot, read_snapshot
from tests.verification.machine.scripted_carrier import ACCOUNT, Callback, ScriptedCarrier, carrier_queries

A_TICK = timedelta(milliseconds=1)
"""Time between two events, so that their order is certain."""
DAYTIME = (CallTimeInterval(days=EVERY_DAY, start=timedelta(hours=9), end=timedelta(hours=17)),)
LIMITS = CallLimits(concurrent_calls=1000, calls_per_second=1000.0)
A_LONG_TIME = timedelta(days=10_000)
VERBS: dict[type[Request], Verb] = {
    CreateInterview: Verb.CREATE,
    InvokeAttempt: Verb.INVOKE,
    RescheduleAttempt: Verb.MOVE,
    DeleteAttempt: Verb.DELETE,
}


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Database that all examples share, with a connection for snapshots and for clearing it."""

    database: Database
    looking: psycopg.Connection[dict[str, Any]]

    def clear(self) -> None:
        names = [
            row["tablename"]
            for row in self.looking.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            if row["tablename"] not in {"arrows", "alembic_version"}
        ]
        # Faster than TRUNCATE for nearly empty tables. Without foreign key triggers the order does not matter.
        self.looking.execute("SET session_replication_role = replica")
        self.looking.execute("; ".join(f"DELETE FROM {name}" for name in names).encode())
        self.looking.execute("SET session_replication_role = DEFAULT")


@contextmanager
def a_ground(postgres_url: str) -> Iterator[Ground]:
    database = Database(postgres_url, pool_size=2)
    with psycopg.connect(postgres_url, autocommit=True, row_factory=dict_row) as looking:
        yield Ground(database=database, looking=looking)
    database.close()


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A POST's answer on its way back to the dialler."""

    attempt: Attempt
    answer: CarrierAnswer


@dataclass
class World:
    ground: Ground
    now: TestClock = field(default_factory=lambda: TestClock(NOON))
    hints: RecordingHints = field(default_factory=RecordingHints)
    carrier: ScriptedCarrier = field(default_factory=ScriptedCarrier)
    houses: list[Tenant] = field(default_factory=list)
    numbers: list[str] = field(default_factory=lambda: [a_number() for _ in range(4)])
    asked: list[ClientRequest] = field(default_factory=list)
    waiting: list[tuple[int, Command]] = field(default_factory=list)
    """Commands that are accepted and not applied, with their indexes in `asked`."""
    held: list[ToSend] = field(default_factory=list)
    """Claimed attempts before their last look."""
    sent: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ground.clear()
        database, hasher = self.ground.database, Hasher("a pepper for tests")
        first = seed(database, self.now(), intervals=ALWAYS, retry_policy=RetryPolicy(max_retries=2))
        tenant = a_house(database, first, hasher, self.now, account_sid=ACCOUNT_SID)
        second = seed(database, self.now(), intervals=ALWAYS, retry_policy=RetryPolicy(max_retries=1))
        self.houses = [tenant, of_company(tenant, second)]
        context, queries = tenant.context, carrier_queries(self.carrier, self.now)
        self.dial = Dial(context, tenant.account_id)
        self.submit = Submit(database, self.hints, self.now)
        self.apply = Apply(context, self.hints)
        self.hear = Hear(context, self.hints, TwilioCallbacks(ACCOUNT))
        self.settle = Settle(context, queries, tenant.account_id)
        self.release = Release(context, self.hints, tenant.account_id)
        self.records = ApiWriter(tenant=tenant, hints=self.hints)
        self.pauses = Pauses(database, self.now)

    def read_snapshot(self) -> Snapshot:
        return read_snapshot(self.ground.looking, self.now())

    def tick(self) -> None:
        self.now.move(A_TICK)

    # ---- callers

    def ask(self, tenant: Tenant, request: Request, *, due_at: datetime | None = None, applied: bool = True) -> None:
        """Submit a request and, if `applied`, apply it as a worker does."""
        asked_at = self.now()
        accepted = self.submit.command(
            tenant.principal, None, request, idempotency_key=None, request_hash=b"a step"
        ).command
        self.tick()
        verb = VERBS.get(type(request))
        asked = ClientRequest(
            verb=verb or Verb.CREATE,
            asked_at=asked_at,
            told=ClientResponse(status=_status(accepted), at=self.now()),
            company_id=tenant.company_id,
            # The judge has no rules for other requests, so they name no interview.
            interview_id=getattr(request, "interview_id", None) if verb else None,
            attempt_id=getattr(request, "attempt_id", None),
            due_at=due_at,
        )
        self.asked.append(asked)
        if accepted.applied_at is None:
            self.waiting.append((len(self.asked) - 1, accepted))
            if applied:
                self.apply_waiting(len(self.waiting) - 1)

    def apply_waiting(self, place: int) -> None:
        """Apply a command as a worker does. It is left waiting if it is not its turn."""
        index, command = self.waiting[place]
        tenant = next(each for each in self.houses if each.company_id == command.company_id)
        self.apply.command(command.id)
        done = self.submit.find(tenant.principal, str(command.id))
        if done.applied_at is None:
            return
        self.waiting.pop(place)
        self.tick()
        asked, answer = self.asked[index], done.answer
        assert answer is not None
        attempt_id = asked.attempt_id
        interview_id = asked.interview_id
        creates_attempt = command.kind in {CommandKind.CREATE_INTERVIEW, CommandKind.INVOKE_ATTEMPT}
        if creates_attempt and answer.snapshot is not None:
            attempt_id = answer.attempt_id or UUID(answer.snapshot["attempts"][-1]["id"])
            interview_id = done.interview_id
        self.asked[index] = replace(
            asked,
            applied=ClientResponse(status=_status(done), at=self.now()),
            attempt_id=attempt_id,
            interview_id=interview_id,
        )

    def create(self, tenant: Tenant, number: str, at: datetime | None, *, applied: bool) -> None:
        candidate = NewCandidate(
            first_name="Ada",
            last_name="Byron",
            email="ada@example.com",
            gdpr_expiry_date=FOREVER,
            phone_number=number,
        )
        request = CreateInterview(agent_id=tenant.agent_id, candidate=candidate, scheduled_at=as_text(at))
        self.ask(tenant, request, due_at=at, applied=applied)

    def pause(self, company_id: UUID | None) -> None:
        asked_at = self.now()
        self.tick()
        self.pauses.pause(company_id, "a step")
        self._note_pause(Verb.PAUSE, company_id, asked_at)

    def resume(self, company_id: UUID | None) -> None:
        asked_at = self.now()
        self.tick()
        self.pauses.resume(company_id)
        self._note_pause(Verb.RESUME, company_id, asked_at)

    def _note_pause(self, verb: Verb, company_id: UUID | None, asked_at: datetime) -> None:
        self.tick()
        told = ClientResponse(status=204, at=self.now())
        self.asked.append(ClientRequest(verb=verb, company_id=company_id, asked_at=asked_at, told=told))

    def settings(self, tenant: Tenant, *, always: bool, max_retries: int) -> None:
        changed = CompanySettings(
            intervals=ALWAYS if always else DAYTIME,
            retry_policy=RetryPolicy(max_retries=max_retries),
            limits=LIMITS,
        )
        self.records.change_settings(tenant.principal, changed)

    # ---- the carrier

    def deliver(self, callback: Callback) -> None:
        self.hear.callback(callback.token, callback.path, callback.form, callback.signature)

    def unheard(self) -> list[UUID]:
        return self.hints.ids(tasks.HEAR)

    def history(self, snapshot: Snapshot) -> History:
        rings = tuple(
            Ring(
                token=leg.token,
                number=leg.to,
                accepted_at=leg.created_at,
                rang_at=leg.started_at,
                ended_at=leg.ended_at,
            )
            for leg in self.carrier.legs.values()
            if not leg.is_stray
        )
        # A lost attempt is found when all are brought to an end. Waiting times mean nothing on a clock that leaps.
        patience = Patience(lateness=A_LONG_TIME, line_gap=self.houses[0].policy.line_gap)
        return History(
            attempts=snapshot.rows, rings=rings, asked=tuple(self.asked), until=self.now(), patience=patience
        )


def as_text(instant: datetime | None) -> str | None:
    return None if instant is None else f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"


def accepted(sid: str, queued: timedelta = timedelta()) -> Accepted:
    return Accepted(call_sid=sid, queue_time=queued)


def _status(command: Command) -> int:
    if command.applied_at is None:
        return 202
    assert command.answer is not None
    return 409 if command.answer.refusal is not None else 200
