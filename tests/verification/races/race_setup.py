"""Races: a caller moves, deletes, replaces or pauses a due attempt at the moment when a dialler takes it."""

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from uuid import UUID, uuid4

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, AttemptState, Created
from scheduler.domain.candidate import Candidate
from scheduler.domain.command import Command, DeleteAttempt, InvokeAttempt, Request, RescheduleAttempt
from scheduler.domain.company import CallLimits
from scheduler.domain.interview import Interview, InterviewStatus
from scheduler.domain.schedule import Schedule
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.settings import Settings
from scheduler.timing import callee_zones
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.release import Release
from scheduler.use_cases.submit import Submit
from tests.conftest import real_now, seed, wait_until
from tests.support.builders import ALWAYS, BRATISLAVA, FOREVER, RecordingHints, Tenant, a_house, a_number, of_company
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier
from tests.verification.histories.evidence import rings_from, rows_of
from tests.verification.histories.judge import ClientRequest, ClientResponse, History, Patience, Verb
from tests.verification.races.processes import Dialling, a_carrier_apart, dialling

PEPPER = "a pepper for tests"
RACES = int(os.environ.get("DUECALL_RACES", "100"))
"""Number of races of each kind. `make proof` runs a thousand."""
AT_ONCE = 12
AHEAD_S = 0.1
"""Seconds between handing a hint to the dialler and its due time, so that a caller can be earlier."""
SPREAD_S = 0.015
STEP_S = 0.002
AN_HOUR = timedelta(hours=1)
LIMITS = CallLimits(concurrent_calls=100_000, calls_per_second=1000.0)
IN_FLIGHT = Patience(in_flight=timedelta(seconds=2), lateness=timedelta(0))
"""A call whose last look preceded a pause is sent within 200 ms and rings when the carrier reaches it."""
NOT_A_COMMAND = 204
WAITS = "state = 'PENDING' OR phase = 'DIALLING'"
_IDS_A_RING = 50
_NEVER = threading.Event()


@dataclass
class Aim:
    """The delay between the dialler's hint and the caller's request, adjusted so that each side wins half of the races.

    The duration of a claim differs tenfold between machines, so one side would win every race with a fixed delay.
    """

    random: random.Random
    middle_s: float = 0.01
    lock: Lock = field(default_factory=Lock)

    def delay_s(self) -> float:
        with self.lock:
            return self.middle_s + self.random.uniform(-SPREAD_S, SPREAD_S)

    def learn(self, *, dialler_won: bool) -> None:
        with self.lock:
            self.middle_s += -STEP_S if dialler_won else STEP_S


@dataclass
class RaceSetup:
    """The systems that take part in a race, and the answers to callers."""

    tenant: Tenant
    url: str
    carrier: SimulatedCarrier
    dialler: Dialling
    seed: int
    workers_run: bool = True
    asked: list[ClientRequest] = field(default_factory=list)
    commands: list[tuple[int, Command]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    @property
    def submit(self) -> Submit:
        return Submit(self.tenant.database, RecordingHints(), self.tenant.now)

    @property
    def apply(self) -> Apply:
        tenant = self.tenant
        return Apply(tenant.context, RecordingHints())

    @property
    def pauses(self) -> Pauses:
        return Pauses(self.tenant.database, self.tenant.now)

    def run(self, attempts: Sequence[Attempt], ask: Callable[[Attempt], bool]) -> int:
        """Race for each attempt, several at once. `ask` returns True if the dialler was first. Return how often."""
        aim = Aim(random.Random(self.seed))

        def race(attempt: Attempt) -> bool:
            hinted_at = monotonic() + AHEAD_S
            self.dialler.hand(attempt.id, at=hinted_at)
            _NEVER.wait(max(0.0, hinted_at + aim.delay_s() - monotonic()))
            dialler_won = ask(attempt)
            aim.learn(dialler_won=dialler_won)
            return dialler_won

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return sum(pool.map(race, attempts))

    # ---- callers

    def move(self, attempt: Attempt) -> bool:
        due_at = (self.tenant.now() + AN_HOUR).replace(microsecond=0)
        request = RescheduleAttempt(
            interview_id=attempt.interview_id,
            attempt_id=attempt.id,
            scheduled_at=f"{due_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z",
        )
        return self._command(Verb.MOVE, attempt, request, due_at)

    def delete(self, attempt: Attempt) -> bool:
        request = DeleteAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id)
        return self._command(Verb.DELETE, attempt, request)

    def invoke(self, attempt: Attempt) -> bool:
        return self._command(Verb.INVOKE, attempt, InvokeAttempt(interview_id=attempt.interview_id))

    def pause(self, attempt: Attempt) -> bool:
        asked_at = self.tenant.now()
        self.pauses.pause(attempt.company_id, "a race")
        told = ClientResponse(status=NOT_A_COMMAND, at=self.tenant.now())
        self.note(ClientRequest(verb=Verb.PAUSE, company_id=attempt.company_id, asked_at=asked_at, told=told))
        return bool(self.count(f"id = '{attempt.id}' AND claimed_at IS NOT NULL"))

    def resume(self, company_id: UUID) -> None:
        asked_at = self.tenant.now()
        self.pauses.resume(company_id)
        told = ClientResponse(status=NOT_A_COMMAND, at=self.tenant.now())
        self.note(ClientRequest(verb=Verb.RESUME, company_id=company_id, asked_at=asked_at, told=told))

    def _command(self, verb: Verb, attempt: Attempt, request: Request, due_at: datetime | None = None) -> bool:
        """Submit and apply a command, like the intake and a worker. Return True if it came too late."""
        asked_at = self.tenant.now()
        command = self.submit.command(
            self.tenant.principal, None, request, idempotency_key=None, request_hash=b"a race"
        ).command
        if self.workers_run and command.applied_at is None:
            command = self._applied(command)
        told = ClientResponse(status=_status(verb, command), at=self.tenant.now())
        made = command.answer.attempt_id if command.answer is not None else None
        self.note(
            ClientRequest(
                verb=verb,
                asked_at=asked_at,
                told=told,
                company_id=attempt.company_id,
                interview_id=attempt.interview_id,
                attempt_id=made if verb is Verb.INVOKE else attempt.id,
                due_at=due_at,
            ),
            command,
        )
        return told.status >= 400

    def _applied(self, command: Command) -> Command:
        self.apply.command(command.id)
        return self.submit.find(self.tenant.principal, str(command.id))

    def note(self, asked: ClientRequest, command: Command | None = None) -> None:
        with self.lock:
            if command is not None and command.applied_at is None:
                self.commands.append((len(self.asked), command))
            self.asked.append(asked)

    def let_the_workers_run(self) -> None:
        """Apply all waiting commands."""
        for place, command in self.commands:
            asked = self.asked[place]
            applied = self._applied(command)
            told = ClientResponse(status=_status(asked.verb, applied), at=self.tenant.now())
            self.asked[place] = replace(asked, applied=told)

    # ---- results

    def release_until(self, is_over: Callable[[], bool], says: str) -> None:
        """Send hints for due attempts until `is_over` returns True, as the clock does."""
        hints = RecordingHints()
        release = Release(self.tenant.context, hints, self.tenant.account_id)

        def again() -> bool:
            if is_over():
                return True
            release.due()
            for _, ids in hints.rings:
                self.dialler.hand(*ids)
            hints.rings.clear()
            return False

        wait_until(again, seconds=60, says=says)

    def hint_again(self, attempts: Sequence[Attempt]) -> None:
        """Send a second, late hint for each attempt."""
        for start in range(0, len(attempts), _IDS_A_RING):
            self.dialler.hand(*(attempt.id for attempt in attempts[start : start + _IDS_A_RING]))

    def count(self, condition: str) -> int:
        return int(self.tenant.ask(f"SELECT count(*) FROM attempts WHERE {condition}")[0][0])

    def settle_down(self) -> None:
        """Wait until every claim is recorded and every call has ended."""
        last = some_attempts(self.tenant, 1)[0]
        self.dialler.hand(last.id)
        # Count without locks, because a claim skips locked rows and drops their hints.
        wait_until(lambda: self.count(f"id = '{last.id}' AND call_sid IS NOT NULL"), says="the last call is placed")
        wait_until(lambda: not self.count("phase = 'DIALLING'"), says="all calls are recorded")
        wait_until(lambda: not self.carrier.verdict()["alive"], says="all calls have ended")

    def history(self) -> History:
        rings = rings_from(self.carrier.rings())
        rows = rows_of(self.url)
        patience = replace(IN_FLIGHT, line_gap=self.tenant.policy.line_gap)
        return History(attempts=rows, rings=rings, asked=tuple(self.asked), until=self.tenant.now(), patience=patience)


@contextmanager
def a_race_setup(postgres_url: str, *, workers_run: bool = True) -> Iterator[RaceSetup]:
    with ExitStack() as stack:
        # No callbacks are needed, because a race ends when the phone rings.
        carrier = stack.enter_context(a_carrier_apart({"ring_s": 0.05, "talk_s": 0.05, "callbacks": "none"}))
        environment = {
            "DATABASE_URL": postgres_url,
            "DATABASE_WORKER_URL": postgres_url,
            "TWILIO_API_URL": carrier.url,
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": PRIMARY,
            "TWILIO_VOICE_URL": "https://example.com/voice",
            "TWILIO_CPS": "1000",
            "TWILIO_MAX_CALLS": "100000",
            "KEY_PEPPER": PEPPER,
        }
        settings = Settings(**{name.lower(): value for name, value in environment.items()})  # type: ignore[arg-type]
        database = Database(postgres_url, pool_size=AT_ONCE)
        stack.callback(database.close)
        tenant = a_house(
            database,
            seed(database, real_now(), intervals=ALWAYS, limits=LIMITS),
            Hasher(PEPPER),
            real_now,
            policy=settings.policy,
            account_sid=ACCOUNT_SID,
            max_calls=100_000,
        )
        dialler = stack.enter_context(dialling(environment))
        chosen = int(os.environ.get("DUECALL_SEED") or random.SystemRandom().randrange(10**6))
        yield RaceSetup(
            tenant=tenant, url=postgres_url, carrier=carrier, dialler=dialler, seed=chosen, workers_run=workers_run
        )


def some_attempts(tenant: Tenant, count: int) -> list[Attempt]:
    """Create due attempts, each with a separate interview and number."""
    with tenant.database.transaction() as stores:
        return [_an_attempt(tenant, stores, a_number()) for _ in range(count)]


def one_attempt_each(tenant: Tenant, count: int) -> list[Attempt]:
    """Create due attempts, each in a separate company that can be paused alone."""
    made = []
    for _ in range(count):
        company = seed(tenant.database, tenant.now(), intervals=ALWAYS, limits=LIMITS)
        made += some_attempts(of_company(tenant, company), 1)
    return made


def _an_attempt(tenant: Tenant, stores: Stores, number: str) -> Attempt:
    now, attempt_id = tenant.now(), uuid4()
    agent = stores.agents.get(tenant.company_id, tenant.agent_id)
    assert agent is not None
    candidate = Candidate(
        id=uuid4(),
        company_id=tenant.company_id,
        first_name="Ada",
        last_name="Byron",
        phone_number=number,
        gdpr_expiry_date=FOREVER,
        created_at=now,
        updated_at=now,
    )
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
        expires_at=now + timedelta(days=7),
        created_at=now,
        updated_at=now,
    )
    schedule = Schedule(
        requested=None, clock=BRATISLAVA, due_at=now, earliest_at=now, tzdata_version=callee_zones.TZDATA_VERSION
    )
    attempt = Attempt(
        id=attempt_id,
        interview_id=interview.id,
        company_id=tenant.company_id,
        chain_id=attempt_id,
        retry_number=0,
        manual=True,
        state=AttemptState.PENDING,
        schedule=schedule,
        due_at=now,
        expires_at=interview.expires_at,
        number_hash=tenant.hasher.number(number),
        created_at=now,
        updated_at=now,
    )
    stores.candidates.add(candidate)
    stores.interviews.add(interview)
    assert attempt.number_hash is not None
    stores.lines.ensure(attempt.number_hash)
    stores.attempts.add(attempt, Created(), "a test")
    return attempt


def _status(verb: Verb, command: Command) -> int:
    if command.applied_at is None:
        return 202
    assert command.answer is not None
    if command.answer.refusal is not None:
        assert command.answer.refusal.code == "CALL_ATTEMPT_IN_PROGRESS", command.answer.refusal
        return 409
    return 201 if verb is Verb.INVOKE else 204
