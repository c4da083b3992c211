"""Where the demo plays: its two companies, the API as their clients see it, and the carrier's ledger that judges."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import requests

from scheduler.clock import Now
from scheduler.demo.sample_calls import BUSY_RETRY_AFTER, SampleCall, Then, moved_to
from scheduler.domain.principal import KeyKind
from scheduler.hashing import Hasher
from scheduler.local.run_file import Running
from scheduler.persistence.database import Database
from scheduler.use_cases.operations.installation import Installation
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.resources.keys import Keys

PAUSE_REASON = "the demo shows a pause"
_SECOND_CALLER_ID = "+421221020002"


@dataclass(frozen=True, kw_only=True)
class Client:
    """A company as one of its own clients knows it."""

    company_id: UUID
    agent_id: UUID
    key: str


@dataclass
class Row:
    """What is known of one sample call."""

    call: SampleCall
    client: Client
    asked: str | None = None
    moved_to: str | None = None
    due_at: datetime | None = None
    """When it was to ring, of one that is deleted before."""
    not_before: datetime | None = None
    """It must not ring earlier: to this it was moved, or then its company was resumed."""
    interview_id: str | None = None
    refusal: dict[str, Any] | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    deleted: bool = False
    block: str | None = None
    """The first rule that keeps it from ringing, as the explanation says."""
    problem: str | None = None
    """What the carrier's ledger holds against it, or the API answered otherwise than it must."""

    @property
    def newest(self) -> dict[str, Any]:
        return self.attempts[-1] if self.attempts else {}

    @property
    def stands(self) -> str:
        """How it stands, in the words of `SampleCall.ends`."""
        if self.refusal is not None:
            return f"REFUSED {self.refusal['code']}"
        if self.deleted:
            return "DELETED"
        return ", then ".join(_words(attempt) for attempt in self.attempts) or "NOT SENT YET"

    @property
    def is_as_expected(self) -> bool:
        return self.stands == self.call.ends and self.problem is None

    def is_over(self, now: datetime) -> bool:
        """Nothing more will become of it."""
        if self.refusal is not None or self.problem is not None:
            return True
        if self.deleted:
            return self.due_at is not None and now > self.due_at + _SILENT_FOR
        return self.newest.get("status") in {"COMPLETED", "FAILED", "CANCELLED"}


_SILENT_FOR = timedelta(seconds=4)
"""A deleted call is watched so much longer than it was due."""


def _words(attempt: dict[str, Any]) -> str:
    if attempt["status"] != "PENDING":
        return f"{attempt['status']} {attempt['reasonCode'] or ''}".strip()
    if attempt["retryNumber"]:
        return "PENDING again"
    schedule = attempt["schedule"]
    zones = (schedule["timezone"] or schedule["utcOffset"]).split(", ")
    if len(zones) > 1:
        return "PENDING until all its zones are open"
    return f"PENDING until {schedule['localTime'][11:16]} {zones[0]}"


class Stage:
    def __init__(self, running: Running, hasher: Hasher, now: Now) -> None:
        self._running = running
        self._now = now
        self._database = Database(running.databaseUrl, pool_size=1)
        self._keys = Keys(self._database, hasher, now)
        self._pauses = Pauses(self._database, now)
        self._session = requests.Session()
        self._session.trust_env = False

    def close(self) -> None:
        self._session.close()
        self._database.close()

    # ---- the companies

    def first_client(self) -> Client:
        """The installation's first company; it calls again soon after a busy line."""
        running = self._running
        soon = {"settings": {"retryPolicy": {"delays": {"BUSY": [BUSY_RETRY_AFTER // timedelta(seconds=1)]}}}}
        answer = self._session.patch(
            f"{running.apiUrl}/company/{running.companyId}",
            json=soon,
            headers={"Authorization": f"Bearer {running.companyKey}"},
            timeout=10,
        )
        answer.raise_for_status()
        company_id = UUID(running.companyId)
        return Client(company_id=company_id, agent_id=UUID(self._running.agentId), key=self._running.companyKey)

    def second_client(self) -> Client:
        """Another company, with an agent and a key of its own."""
        installation = Installation(self._database, self._keys, self._now)
        company_id, agent_id = installation.add_company("Second company", _SECOND_CALLER_ID)
        _, key = self._keys.create(kind=KeyKind.REGULAR, name="demo", company_id=company_id, principal_id=company_id)
        return Client(company_id=company_id, agent_id=agent_id, key=key)

    def pause(self, client: Client) -> None:
        """What `duecall pause COMPANY_ID` does."""
        self._pauses.pause(client.company_id, PAUSE_REASON)

    def resume(self, row: Row) -> None:
        """What `duecall resume COMPANY_ID` does; before it the call must not have rung."""
        row.not_before = self._now()
        self._pauses.resume(row.client.company_id)

    # ---- the API, as a client sees it

    def ask(self, row: Row) -> None:
        """POST the interview. A 202 is followed to its end by `look`."""
        row.asked = row.call.asked(self._now())
        body: dict[str, Any] = {
            "agentId": str(row.client.agent_id),
            "candidate": {
                "firstName": "Sample",
                "lastName": "Candidate",
                "phoneNumber": row.call.number,
                "gdprExpiryDate": "2030-01-01",
            },
        }
        if row.asked is not None:
            body["scheduledAt"] = row.asked
        answer = self._api("POST", row, "/interviews", json=body).json()
        if answer["success"]:
            row.interview_id = answer["data"]["id"]
            row.attempts = answer["data"]["callAttempts"]
        else:
            row.refusal = answer["error"]

    def change(self, row: Row) -> None:
        """PATCH or DELETE its attempt, as the sample call says."""
        path = f"/interviews/{row.interview_id}/call-attempts/{row.newest.get('id')}"
        if row.call.then is Then.MOVED and row.asked is not None:
            row.moved_to = moved_to(row.asked)
            row.not_before = datetime.fromisoformat(row.moved_to)
            answer = self._api("PATCH", row, path, json={"scheduledAt": row.moved_to})
        elif row.call.then is Then.DELETED and row.asked is not None:
            row.due_at = datetime.fromisoformat(row.asked)
            answer = self._api("DELETE", row, path)
            row.deleted = answer.ok
        else:
            return
        if not answer.ok:
            row.problem = f"{row.call.then.name.lower()}: the API said no, {answer.json()['error']['code']}"

    def look(self, row: Row) -> None:
        """Ask what became of it, and of one that waits, what for."""
        if row.interview_id is None or row.deleted:
            return
        try:
            answer = self._api("GET", row, f"/interviews/{row.interview_id}").json()
            if answer["success"]:
                row.attempts = answer["data"]["callAttempts"]
            row.block = self._block(row) if row.newest.get("status") == "PENDING" else None
        except requests.RequestException:
            return  # the API is being started again; the next look sees it

    def _block(self, row: Row) -> str | None:
        path = f"/interviews/{row.interview_id}/call-attempts/{row.newest['id']}/explanation"
        answer = self._api("GET", row, path).json()
        if not answer["success"] or not answer["data"]["blocks"]:
            return None
        rule: str = answer["data"]["blocks"][0]["rule"]
        return rule

    def _api(self, method: str, row: Row, path: str, **more: Any) -> requests.Response:  # noqa: ANN401 - JSON
        headers = {"Authorization": f"Bearer {row.client.key}"}
        return self._session.request(method, f"{self._running.apiUrl}{path}", headers=headers, timeout=35, **more)

    # ---- the carrier

    def plan(self, calls: Sequence[SampleCall], for_all: dict[str, Any] | None) -> None:
        """Tell the simulated carrier what to do with each call; or the same with all."""
        for call in calls:
            plans = [dict(for_all)] if for_all else [dict(plan) for plan in call.plans]
            for attempt, plan in enumerate(plans, start=1):
                which = {"attempt": attempt} if len(plans) > 1 else {}
                self._carrier("POST", "/plans", json={"to": call.number, **which, **plan})

    def judge(self, rows: Sequence[Row]) -> list[str]:
        """Hold the carrier's ledger, which nothing here writes, against each call; and say what it never may show."""
        rings = self._carrier("GET", "/ledger").json()["rings"]
        for row in rows:
            row.problem = row.problem or _held_against(row, [ring for ring in rings if ring["to"] == row.call.number])
        verdict = self._carrier("GET", "/verdict").json()
        never = ("tokens_posted_twice", "tokens_with_two_calls", "calls_at_once")
        return [f"{name.replace('_', ' ')}: {len(verdict[name])}" for name in never if verdict[name]]

    def _carrier(self, method: str, path: str, **more: Any) -> requests.Response:  # noqa: ANN401 - JSON
        answer = self._session.request(method, f"{self._running.simulatorUrl}{path}", timeout=5, **more)
        answer.raise_for_status()
        return answer


def _held_against(row: Row, rings: Sequence[dict[str, Any]]) -> str | None:
    if len(rings) != row.call.calls:
        return f"the carrier took {len(rings)} calls for it, not {row.call.calls}"
    for ring in rings:
        at = datetime.fromisoformat(ring["accepted_at"]).astimezone(UTC)
        if row.not_before is not None and at < row.not_before:
            return f"it rang at {at:%H:%M:%S} UTC, before {row.not_before:%H:%M:%S}"
    return None
