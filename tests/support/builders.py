"""Builders of attempts in each state. They call the product's own use cases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from scheduler.domain.attempt import Attempt, AttemptState, Created, Event, Phase, ProofMissing, Reason
from scheduler.domain.call import Accepted, AnswerUnknown, CalleeClock, Schedule, TimezoneSource
from scheduler.domain.command import Command, CommandKind
from scheduler.domain.company import EVERY_DAY, CallTimeInterval, CompanySettings
from scheduler.domain.interview import Candidate, Interview, InterviewStatus
from scheduler.domain.principal import VOICE, KeyKind, Principal
from scheduler.hashing import Hasher
from scheduler.ids import new_id
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.database import Database
from scheduler.persistence.tables import attempts
from scheduler.rules.tallies import Sent
from scheduler.timing import callee_zones, zone_names
from scheduler.timing.callee_zones import number_facts
from scheduler.use_cases.dial import Dial
from scheduler.use_cases.operations.stale_times import ScheduleRecomputer
from scheduler.use_cases.resources.candidates import Candidates
from scheduler.use_cases.resources.companies import Companies
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.effects import Effects

ALWAYS = (CallTimeInterval(days=EVERY_DAY, start=timedelta(0), end=timedelta(hours=24)),)
"""Calling hours for tests that run on the machine's clock, at any time of day."""
FOREVER = date(2099, 12, 31)
BRATISLAVA = CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=("Europe/Bratislava",))

_numbers = count(14_200_000)
_sids = count(1)


def a_number() -> str:
    """Build a Slovak mobile number that is unique in this run."""
    return f"+4219{next(_numbers)}"


def a_sid() -> str:
    """Build a call id in the carrier's form."""
    return f"CA{next(_sids):032x}"


@dataclass
class RecordingHints:
    """Hints that are recorded instead of sent."""

    rung: list[tuple[str, UUID]] = field(default_factory=list)
    rings: list[tuple[str, tuple[UUID, ...]]] = field(default_factory=list)
    put_off: list[tuple[str, tuple[UUID, ...], float]] = field(default_factory=list)
    """Hints for items with locked rows, with their delays."""
    answers: list[UUID] = field(default_factory=list)
    due_at: dict[UUID, datetime] = field(default_factory=dict)
    """The due times in the hints that were sent early."""

    def send(self, task: str, ids: Sequence[UUID] = (), due_at: Mapping[UUID, datetime] | None = None) -> None:
        self.rings.append((task, tuple(ids)))
        self.due_at.update(due_at or {})
        self.rung.extend((task, each) for each in ids)

    def send_again(self, task: str, ids: Sequence[UUID], after_s: float) -> None:
        self.put_off.append((task, tuple(ids), after_s))

    def answered(self, command_id: UUID) -> None:
        self.answers.append(command_id)

    def ids(self, task: str) -> list[UUID]:
        return [each for rung, each in self.rung if rung == task]


NO_SHORT_CALLS = Policy(short_call=timedelta())
"""The default times, without polls about the notifications of short calls."""


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """One company in one database, and the carrier account that calls for it."""

    database: Database
    company_id: UUID
    agent_id: UUID
    caller: str
    hasher: Hasher
    now: Callable[[], datetime]
    policy: Policy
    account_id: int

    @property
    def dial(self) -> Dial:
        return Dial(self.context, self.account_id)

    @property
    def effects(self) -> Effects:
        return self.context.effects

    @property
    def context(self) -> Context:
        return Context(database=self.database, hasher=self.hasher, policy=self.policy, now=self.now)

    @property
    def principal(self) -> Principal:
        """A principal with a regular API key of this company."""
        return Principal(
            id=self.company_id,
            kind=KeyKind.REGULAR,
            key_id=self.company_id,
            scopes=frozenset(),
            company_id=self.company_id,
        )

    def interview(self, interview_id: UUID) -> Interview:
        """Read the stored interview, deleted or not."""
        with self.database.transaction() as stores:
            return stores.interviews.lock(interview_id)

    def attempts(self, interview_id: UUID) -> list[Attempt]:
        """List all attempts of an interview, including deleted ones, oldest first."""
        rows = self.ask(
            "SELECT id FROM attempts WHERE interview_id = :id ORDER BY created_at, retry_number, id", id=interview_id
        )
        return [self.attempt(row[0]) for row in rows]

    def attempt(self, attempt_id: UUID) -> Attempt:
        """Read the stored attempt."""
        with self.database.transaction() as stores:
            return stores.attempts.lock(attempt_id)

    def interview_status(self, attempt: Attempt) -> InterviewStatus:
        return self.interview(attempt.interview_id).status

    def history(self, attempt_id: UUID) -> list[str]:
        """List the events of an attempt in order."""
        rows = self.ask("SELECT event FROM attempt_history WHERE attempt_id = :id ORDER BY id", id=attempt_id)
        return [row[0] for row in rows]

    def line(self, attempt: Attempt) -> tuple[UUID | None, UUID | None, datetime]:
        """Read the line's holder, the interview that may skip its gap, and the instant from which it is free."""
        rows = self.ask(
            "SELECT attempt_id, interview_id, free_at FROM lines WHERE number_hash = :hash", hash=attempt.number_hash
        )
        return rows[0][0], rows[0][1], rows[0][2]

    def ask(self, query: str, **parameters: Any) -> list[Any]:
        with self.database.transaction() as stores:
            return list(stores.connection.execute(text(query), parameters))

    def change(self, statement: str, **parameters: Any) -> None:
        """Execute a statement in a transaction of its own, as another process would."""
        with self.database.transaction() as stores:
            stores.connection.execute(text(statement), parameters)

    def insert(self, table: str, **values: Any) -> None:
        """Insert a row for which there is no builder."""
        names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        self.change(f"INSERT INTO {table} ({names}) VALUES ({places})", **values)

    def take(self, attempt: Attempt, *events: Event, actor: str = "a test") -> Attempt:
        """Apply events to the attempt, save all effects and return the attempt."""
        with self.database.transaction() as stores:
            interview = stores.interviews.lock(attempt.interview_id)
            locked = stores.attempts.lock(attempt.id)
            return self.effects.apply_events(Batch(stores, [interview]), locked, events, actor, self.now())


class WasRefused(Exception):
    """A refused write. The message is the refusal's code."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """A candidate's number and time zone."""

    phone_number: str | None
    timezone: str | None


@dataclass(frozen=True, kw_only=True)
class ApiWriter:
    """Performs the API's own writes and recomputes the schedules that they change, as a worker does."""

    tenant: Tenant
    hints: RecordingHints

    def change_settings(self, principal: Principal, settings: CompanySettings) -> None:
        companies = Companies(self.tenant.database, self._writes, self.hints, None)
        company_id = principal.company_id
        assert company_id is not None
        changes = {"settings": {each.name: getattr(settings, each.name) for each in fields(settings)}}
        _done(companies.change(a_write(CommandKind.UPDATE_COMPANY, principal), company_id, changes))

    def change_reach(self, principal: Principal, candidate_id: UUID, reach: Reach) -> None:
        sent = a_write(CommandKind.UPDATE_CANDIDATE, principal)
        changes = {"phone_number": reach.phone_number, "timezone": reach.timezone}
        _done(self._candidates.change(sent, None, candidate_id, changes))

    def delete_candidate(self, principal: Principal, candidate_id: UUID) -> None:
        _done(self._candidates.delete(a_write(CommandKind.DELETE_CANDIDATE, principal), None, candidate_id))

    def delete_company(self, principal: Principal, company_id: UUID) -> None:
        companies = Companies(self.tenant.database, self._writes, self.hints, None)
        _done(companies.delete(a_write(CommandKind.DELETE_COMPANY, principal), company_id))

    def recompute(self) -> None:
        tenant = self.tenant
        records = ScheduleRecomputer(tenant.context, self.hints)
        while records.recompute():
            pass

    @property
    def _candidates(self) -> Candidates:
        return Candidates(self.tenant.database, self._writes, self.hints)

    @property
    def _writes(self) -> IdempotentWrites:
        return IdempotentWrites(self.tenant.database, self.tenant.now)


def a_write(
    kind: CommandKind,
    principal: Principal,
    *,
    key: str | None = None,
    request_hash: bytes = b"",
    trace_id: str | None = None,
) -> WriteRequest:
    """Build a request that the API performs itself, as it is sent by the principal."""
    return WriteRequest(
        kind=kind,
        principal=principal,
        idempotency_key=key,
        request_hash=request_hash,
        command_id=uuid4(),
        trace_id=trace_id,
    )


def _done(written: WriteResult) -> None:
    if written.refusal is not None:
        raise WasRefused(written.refusal.code)


def a_tenant(
    database: Database,
    seeded: Any,
    hasher: Hasher,
    now: Callable[[], datetime],
    *,
    policy: Policy | None = None,
    account_sid: str = "AC" + "0" * 32,
    calls_per_second: float = 1000.0,
    max_calls: int = 1000,
) -> Tenant:
    with database.transaction() as stores:
        account_id = stores.carrier_accounts.ensure(account_sid, calls_per_second, max_calls, now())
    return Tenant(
        database=database,
        company_id=seeded.company_id,
        agent_id=seeded.agent_id,
        caller="+421221020001",
        hasher=hasher,
        now=now,
        policy=policy or NO_SHORT_CALLS,
        account_id=account_id,
    )


def of_company(tenant: Tenant, seeded: Any) -> Tenant:
    """Build a tenant of another company in the same database."""
    return replace(tenant, company_id=seeded.company_id, agent_id=seeded.agent_id)


def a_candidate(tenant: Tenant, number: str | None = None, *, consent_until: date = FOREVER) -> Candidate:
    now = tenant.now()
    candidate = Candidate(
        id=uuid4(),
        company_id=tenant.company_id,
        first_name="Ada",
        last_name="Byron",
        phone_number=number or a_number(),
        gdpr_expiry_date=consent_until,
        created_at=now,
        updated_at=now,
    )
    with tenant.database.transaction() as stores:
        stores.candidates.add(candidate)
    return candidate


def a_pending_attempt(
    tenant: Tenant,
    number: str | None = None,
    *,
    due_at: datetime | None = None,
    expires_at: datetime | None = None,
    manual: bool = True,
    consent_until: date = FOREVER,
    clock: CalleeClock = BRATISLAVA,
    interview_id: UUID | None = None,
) -> Attempt:
    """Create the first attempt of a new interview, or a further one of `interview_id`. Default: due now."""
    now = tenant.now()
    due_at = due_at or now
    expires_at = expires_at or due_at + timedelta(days=7)
    number = number or a_number()
    made = interview_id or _an_interview(tenant, number, expires_at, consent_until)
    attempt = an_unsaved_attempt(
        tenant, made, number, schedule=a_schedule(due_at, clock, number), expires_at=expires_at, manual=manual
    )
    with tenant.database.transaction() as stores:
        stores.lines.ensure(tenant.hasher.number(number))
        return stores.attempts.add(attempt, Created(), "a test")


def add_replaced_attempts(tenant: Tenant, attempt: Attempt, count: int, *, deleted: bool = False) -> None:
    """Add cancelled attempts to the interview of an attempt, all of them older."""
    values = {
        "id": "gen_random_uuid()",
        "state": "'CANCELLED'",
        "reason": "'REPLACED'",
        "phase": "NULL",
        "lease_until": "NULL",
        "call_sid": "NULL",
        "look_at": "NULL",
        "token": "NULL",
        "ended_at": "a.created_at",
        "created_at": "a.created_at - n * interval '1 minute'",
        "deleted_at": "a.created_at" if deleted else "NULL",
    }
    columns = ", ".join(column.name for column in attempts.c)
    selected = ", ".join(values.get(column.name, f"a.{column.name}") for column in attempts.c)
    tenant.change(
        f"INSERT INTO attempts ({columns}) SELECT {selected} FROM attempts a, generate_series(1, :count) n"
        " WHERE a.id = :id",
        id=attempt.id,
        count=count,
    )


def a_schedule(due_at: datetime, clock: CalleeClock = BRATISLAVA, number: str | None = None) -> Schedule:
    return Schedule(
        requested=None,
        clock=clock,
        due_at=due_at,
        earliest_at=due_at,
        tzdata_version=zone_names.TZDATA_VERSION,
        number=None if number is None else number_facts(clock, callee_zones.read_number(number), None),
    )


def an_unsaved_attempt(
    tenant: Tenant,
    interview_id: UUID,
    number: str,
    *,
    schedule: Schedule,
    expires_at: datetime,
    manual: bool,
    retry_number: int = 0,
) -> Attempt:
    """Build a pending attempt that begins a chain. Its due time is that of its schedule."""
    now = tenant.now()
    attempt_id = new_id(now)
    return Attempt(
        id=attempt_id,
        interview_id=interview_id,
        company_id=tenant.company_id,
        chain_id=attempt_id,
        retry_number=retry_number,
        manual=manual,
        state=AttemptState.PENDING,
        schedule=schedule,
        due_at=schedule.due_at,
        expires_at=expires_at,
        number_hash=tenant.hasher.number(number),
        created_at=now,
        updated_at=now,
    )


def _an_interview(tenant: Tenant, number: str, expires_at: datetime, consent_until: date) -> UUID:
    now = tenant.now()
    candidate = a_candidate(tenant, number, consent_until=consent_until)
    with tenant.database.transaction() as stores:
        agent = stores.agents.get(tenant.company_id, tenant.agent_id)
        assert agent is not None
        interview = Interview(
            id=uuid4(),
            company_id=tenant.company_id,
            candidate_id=candidate.id,
            agent_id=agent.id,
            type=agent.type,
            focus=agent.focus,
            duration=agent.duration,
            caller_number=agent.caller_number,
            status=InterviewStatus.SCHEDULED,
            expires_at=expires_at,
            created_at=now,
            updated_at=now,
        )
        stores.interviews.add(interview)
    return interview.id


def a_claimed_attempt(tenant: Tenant, number: str | None = None, **wishes: Any) -> Attempt:
    """Create an attempt that a dialler has claimed. Its line is busy and its POST is not sent yet."""
    pending = a_pending_attempt(tenant, number, **wishes)
    claims = tenant.dial.claim([pending.id])
    assert [each.attempt.id for each in claims.claimed] == [pending.id]
    return claims.claimed[0].attempt


def a_placed_attempt(
    tenant: Tenant, number: str | None = None, *, call_sid: str | None = None, **wishes: Any
) -> Attempt:
    """Create an attempt whose call the carrier has accepted and not ended."""
    claimed = a_claimed_attempt(tenant, number, **wishes)
    tenant.dial.record([(claimed, Accepted(call_sid=call_sid or a_sid()))])
    placed = tenant.attempt(claimed.id)
    assert placed.phase is Phase.PLACED
    return placed


def a_call_with_its_look(tenant: Tenant, number: str | None = None) -> Attempt:
    """Place a call and record its last look, as a dial worker does."""
    attempt = a_claimed_attempt(tenant, number)
    tenant.dial.record([(attempt, Accepted(call_sid=a_sid()))], last_look_of(tenant, attempt))
    return tenant.attempt(attempt.id)


def last_look_of(tenant: Tenant, claimed: Attempt) -> dict[UUID, Sent]:
    """Look a last time at the attempt. Return the times of its POST, with the record of the look."""
    order = tenant.dial.last_look(claimed)
    assert order is not None
    return {claimed.id: Sent(lateness=timedelta(), answered_after=0.1, look=order.look)}


def an_unknown_attempt(tenant: Tenant, number: str | None = None, **wishes: Any) -> Attempt:
    """Create an attempt whose POST got no answer, so the carrier is polled."""
    claimed = a_claimed_attempt(tenant, number, **wishes)
    tenant.dial.record([(claimed, AnswerUnknown(cause="A_TEST"))])
    unknown = tenant.attempt(claimed.id)
    assert unknown.phase is Phase.UNKNOWN
    return unknown


def an_attempt_of_unknown_outcome(tenant: Tenant, number: str | None = None, **wishes: Any) -> Attempt:
    """Create an attempt that ended as OUTCOME_UNKNOWN."""
    given_up = tenant.take(an_unknown_attempt(tenant, number, **wishes), ProofMissing())
    assert given_up.reason is Reason.OUTCOME_UNKNOWN
    return given_up


def a_waiting_command(tenant: Tenant, interview_id: UUID | None, body: dict[str, Any] | None = None) -> Command:
    """Submit a command without applying it."""
    command = Command(
        id=uuid4(),
        kind=CommandKind.CREATE_INTERVIEW,
        principal_id=uuid4(),
        company_id=tenant.company_id,
        idempotency_key=None,
        request_hash=b"hash",
        received_at=tenant.now(),
        body=body or {},
        interview_id=interview_id,
    )
    with tenant.database.transaction() as stores:
        assert stores.inbox.add(command)
    return command


def a_stored_callback(tenant: Tenant, **columns: Any) -> UUID:
    """Store a callback as it is before a worker hears it. The columns replace the usual ones."""
    event_id = uuid4()
    times = dict.fromkeys(("received_at", "rung_at"), tenant.now())
    usual = {"id": event_id, "token": "a token", "fingerprint": event_id.bytes, "raw": "{}"}
    tenant.insert("carrier_events", **(usual | times | columns))
    return event_id


def a_quarantined_callback(tenant: Tenant, token: str) -> UUID:
    """A callback with this token that failed five times."""
    return a_stored_callback(tenant, token=token, quarantined_at=tenant.now())


def a_voice_key(tenant: Tenant) -> str:
    """Create a key by which the voice server of the company reports outcomes. Return its secret."""
    _, secret = Keys(tenant.database, tenant.hasher, tenant.now).create(
        kind=KeyKind.REGULAR, name="voice", company_id=tenant.company_id, scopes=frozenset({VOICE})
    )
    return secret


def an_operator(tenant: Tenant, actor: str = "link:a test") -> str:
    """Store a session of an operator, whose acts the role of the console may sign. Return the actor."""
    now = tenant.now()
    times = {"created_at": now, "last_used_at": now, "expires_at": now + timedelta(days=10_000)}
    tenant.insert("console_sessions", id=uuid4(), token_hash=uuid4().bytes, actor=actor, role="admin", **times)
    return actor
