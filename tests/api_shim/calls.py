"""Calls over HTTP, with the paths of their attempts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from scheduler.domain.attempt import Attempt, Ended, Reason
from scheduler.domain.interview import Agent, AgentFocus, AgentType
from scheduler.hashing import Hasher
from tests.api_shim.answers import data
from tests.api_shim.bodies import TOMORROW
from tests.api_shim.intake import PEPPER, Intake
from tests.support.builders import Tenant, a_placed_attempt, a_tenant


@dataclass(frozen=True, kw_only=True)
class Call:
    """URLs of one attempt and its interview."""

    interview_id: UUID
    attempt_id: UUID

    @property
    def interview(self) -> str:
        return f"/interviews/{self.interview_id}"

    @property
    def attempts(self) -> str:
        return f"{self.interview}/call-attempts"

    @property
    def attempt(self) -> str:
        return f"{self.attempts}/{self.attempt_id}"

    @property
    def explanation(self) -> str:
        return f"{self.attempt}/explanation"


def call_of(attempt: Attempt) -> Call:
    return Call(interview_id=attempt.interview_id, attempt_id=attempt.id)


def call_to(attempt: Mapping[str, Any]) -> Call:
    """Find the call of an attempt that a response shows."""
    return Call(interview_id=UUID(attempt["interviewId"]), attempt_id=UUID(attempt["id"]))


def a_call(intake: Intake, **changes: Any) -> Call:
    """A call for tomorrow morning, requested over HTTP. A worker must apply it."""
    [attempt] = data(intake.create(intake.body(**{"scheduledAt": TOMORROW, **changes})), 201)["callAttempts"]
    return call_to(attempt)


def an_online_agent(intake: Intake) -> UUID:
    """An agent that talks over the web and makes no calls."""
    now = intake.now()
    agent = Agent(
        id=uuid4(),
        company_id=intake.seeded.company_id,
        name="Online",
        type=AgentType.ONLINE,
        focus=AgentFocus.GENERIC,
        language="EN",
        duration=timedelta(minutes=10),
        created_at=now,
        updated_at=now,
    )
    with intake.database.transaction() as stores:
        stores.agents.add(agent)
    return agent.id


def tenant_of(intake: Intake) -> Tenant:
    """Find the company of this client, with its clock."""
    return a_tenant(intake.database, intake.seeded, Hasher(PEPPER), intake.now)


def ended(tenant: Tenant, reason: Reason) -> Attempt:
    """Place a call and let it end with this reason."""
    return tenant.take(a_placed_attempt(tenant), Ended(reason=reason, ended_at=tenant.now()))


def talk(tenant: Tenant, seconds: int = 90) -> Attempt:
    """Complete a call in which a person talks for this many seconds."""
    ended = Ended(reason=Reason.ANSWERED, ended_at=tenant.now(), duration=timedelta(seconds=seconds))
    return tenant.take(a_placed_attempt(tenant), ended)
