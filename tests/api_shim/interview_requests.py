"""Bodies of requests for interviews, and the resources that they name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.api_shim.answers import data
from tests.api_shim.bodies import JOB, candidate
from tests.api_shim.intake import Intake

AT_NIGHT = "2026-04-03T01:00:00Z"
AGENT_NAME = "Confidential interviewer"
AGENT = {"name": AGENT_NAME, "type": "PHONE", "focus": "SCREENING", "language": "SK", "duration": 15}
MADE_WITH_IT = ("candidates", "agents", "jobs", "assignments", "interviews", "attempts", "attempt_history", "lines")


@dataclass(frozen=True)
class Resources:
    """Resources of a company for requests. Most methods create one over HTTP and return its id."""

    intake: Intake

    def job(self, **changes: Any) -> str:
        return self._made("/jobs", JOB | changes)

    def closed(self, job_id: str) -> str:
        """Close this job and return its id."""
        return str(data(self.intake.patch(f"/jobs/{job_id}", {"status": "CLOSED"}))["id"])

    def person(self, *job_ids: str, **changes: Any) -> str:
        return self._made("/candidates", candidate(**({"jobIds": list(job_ids)} if job_ids else {}), **changes))

    def agent(self, focus: str = "SCREENING", **changes: Any) -> str:
        return self._made("/agents", self.an_agent(focus=focus) | changes)

    def an_agent(self, **changes: Any) -> dict[str, Any]:
        """An agent as a request describes it. `...` omits a field."""
        agent = AGENT | {"companyPhoneNumberId": str(self.intake.seeded.phone_number_id)} | changes
        return {name: value for name, value in agent.items() if value is not ...}

    def with_settings(self, **settings: Any) -> "Resources":
        """Change settings of the company and return these resources."""
        assert self.intake.set_settings(**settings).status_code == 200
        return self

    def stranger(self) -> "Resources":
        """Resources of another company."""
        return Resources(self.intake.with_key_of_another_company())

    def rows(self) -> dict[str, int]:
        """Count the rows that a request may create, outside the inbox."""
        return {table: self.intake.count(table) for table in MADE_WITH_IT}

    def _made(self, path: str, body: dict[str, Any]) -> str:
        return str(self.intake.made(path, body)["id"])


Ask = Callable[[Resources], dict[str, Any]]
"""Returns the body of a request, after creating the resources that it needs."""


def known(api: Resources, *job_ids: str, focus: str = "SCREENING", **more: Any) -> dict[str, Any]:
    """With a candidate who is assigned to these jobs, by an agent of this focus."""
    return {"candidateId": api.person(*job_ids), "agentId": api.agent(focus), **more}


def new(api: Resources, *, focus: str = "SCREENING", **more: Any) -> dict[str, Any]:
    """With a new candidate."""
    return {"candidate": candidate(), "agentId": api.agent(focus), **more}


def all_new(api: Resources, **more: Any) -> dict[str, Any]:
    return {"candidate": candidate(), "agent": api.an_agent(), "job": JOB, **more}


def online(api: Resources, **more: Any) -> dict[str, Any]:
    """By an agent who talks over the web, with a candidate without a number."""
    agent = api.an_agent(type="ONLINE", focus="GENERIC", companyPhoneNumberId=...)
    return {"candidate": candidate(phoneNumber=...), "agent": agent, **more}
