"""Two companies, a few candidates and a carrier over the real stores. Requests are recorded with their answers."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from scheduler.domain.attempt import Attempt, Decision
from scheduler.domain.call import CarrierAnswer
from scheduler.domain.command import (
    Command,
    CommandKind,
    CreateInterview,
    DeleteAttempt,
    InvokeAttempt,
    Request,
    RescheduleAttempt,
)
from scheduler.domain.interview import NewCandidate
from scheduler.domain.refusals import Conflict, NotFound
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.dialling.claim import ToSend
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.operations.unknown_outcomes import UnknownOutcomes
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.submit import Submit
from tests.support.builders import FOREVER, ApiWriter, Tenant, a_number, of_company
from tests.verification.judge.history import ClientRequest, ClientResponse, History, Patience, Ring, Verb
from tests.verification.judge.invariants import Snapshot, read_snapshot
from tests.verification.world.installation import status_of
from tests.verification.world.scripted_world import ScriptedWorld

A_TICK = timedelta(milliseconds=1)
"""Time between two events, so that their order is certain."""
A_LONG_TIME = timedelta(days=10_000)
VERBS: dict[type[Request], Verb] = {
    CreateInterview: Verb.CREATE,
    InvokeAttempt: Verb.INVOKE,
    RescheduleAttempt: Verb.MOVE,
    DeleteAttempt: Verb.DELETE,
}


@dataclass(kw_only=True)
class World(ScriptedWorld):
    looking: psycopg.Connection[dict[str, Any]]
    """Connection for snapshots."""
    max_retries: int = 2
    numbers: list[str] = field(default_factory=lambda: [a_number() for _ in range(4)])
    asked: list[ClientRequest] = field(default_factory=list)
    waiting: list[tuple[int, Command]] = field(default_factory=list)
    """Commands that are accepted and not applied, with their indexes in `asked`."""
    held: list[ToSend] = field(default_factory=list)
    """Claimed attempts before their last look."""
    sent: list[tuple[Attempt, CarrierAnswer]] = field(default_factory=list)
    """Answers to POSTs on their way back to the dialler."""

    def __post_init__(self) -> None:
        super().__post_init__()
        context = self.tenant.context
        self.tenants = [self.tenant, of_company(self.tenant, self.a_company(max_retries=1))]
        self.submit = Submit(self.database, self.hints, self.now)
        self.apply = Apply(context, self.hints)
        self.release = Release(context, self.hints, self.tenant.account_id)
        self.records = ApiWriter(tenant=self.tenant, hints=self.hints)
        self.pauses = Pauses(self.database, self.now)
        self.unknown_outcomes = UnknownOutcomes(self.database, self.now, "cli:a test")

    def read_snapshot(self) -> Snapshot:
        return read_snapshot(self.looking, self.now())

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
            told=ClientResponse(status=status_of(verb or Verb.CREATE, accepted), at=self.now()),
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
        self.apply.command(command.id)
        with self.database.reading() as stores:
            found = stores.inbox.find(command.principal_id, command.id)
        assert found is not None
        done = found.command
        if done.applied_at is None:
            return
        self.waiting.pop(place)
        self.tick()
        asked, answer = self.asked[index], done.answer
        assert answer is not None
        attempt_id, interview_id = asked.attempt_id, asked.interview_id
        creates_attempt = command.kind in {CommandKind.CREATE_INTERVIEW, CommandKind.INVOKE_ATTEMPT}
        if creates_attempt and answer.snapshot is not None:
            attempt_id = answer.attempt_id or UUID(answer.snapshot["attempts"][-1]["id"])
            interview_id = done.interview_id
        if command.kind is CommandKind.DECIDE_OUTCOME and asked.verb is Verb.INVOKE:
            # A repeated decision names the decided attempt, because no call follows it.
            attempt_id = None if answer.attempt_id == attempt_id else answer.attempt_id
        applied = ClientResponse(status=status_of(asked.verb, done), at=self.now())
        self.asked[index] = replace(asked, applied=applied, attempt_id=attempt_id, interview_id=interview_id)

    def decide(self, tenant: Tenant, attempt_id: UUID, decision: Decision, *, applied: bool) -> None:
        """Decide about an attempt as an operator does. Most decisions are refused: the outcome is known or decided."""
        asked_at = self.now()
        try:
            command_id = self.unknown_outcomes.decide(attempt_id, decision, "a step")
        except (Conflict, NotFound):
            return
        if command_id is None:
            return
        command = self.unknown_outcomes.command(command_id)
        self.tick()
        calls_again = decision is Decision.DID_NOT_RING
        asked = ClientRequest(
            verb=Verb.INVOKE if calls_again else Verb.CREATE,
            asked_at=asked_at,
            told=ClientResponse(status=202, at=self.now()),
            company_id=tenant.company_id,
            interview_id=command.interview_id if calls_again else None,
            attempt_id=attempt_id if calls_again else None,
        )
        self.asked.append(asked)
        self.waiting.append((len(self.asked) - 1, command))
        if applied:
            self.apply_waiting(len(self.waiting) - 1)

    def create(self, tenant: Tenant, number: str, at: datetime | None, *, applied: bool) -> None:
        candidate = NewCandidate(
            first_name="Ada", last_name="Byron", email="ada@example.com", gdpr_expiry_date=FOREVER, phone_number=number
        )
        scheduled_at = None if at is None else as_text(at)
        request = CreateInterview(agent_id=tenant.agent_id, candidate=candidate, scheduled_at=scheduled_at)
        self.ask(tenant, request, due_at=at, applied=applied)

    def pause_or_resume(self, verb: Verb, company_id: UUID | None) -> None:
        asked_at = self.now()
        self.tick()
        if verb is Verb.PAUSE:
            self.pauses.pause(company_id, "a step")
        else:
            self.pauses.resume(company_id)
        self.tick()
        told = ClientResponse(status=204, at=self.now())
        self.asked.append(ClientRequest(verb=verb, company_id=company_id, asked_at=asked_at, told=told))

    # ---- the carrier

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
        patience = Patience(lateness=A_LONG_TIME, line_gap=self.tenants[0].policy.line_gap)
        return History(
            attempts=snapshot.rows, rings=rings, asked=tuple(self.asked), until=self.now(), patience=patience
        )


def as_text(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
