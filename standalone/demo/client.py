"""The demo's client: its companies, their requests to the API, and a comparison with the carrier's ledger."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import requests

from scheduler.clock import Now
from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.explanation import Rule
from scheduler.domain.principal import VOICE, KeyKind
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.timing import call_windows
from scheduler.use_cases.operations.installation import Installation
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.resources.keys import Keys
from standalone.demo.sample_calls import BUSY_RETRY_AFTER, FULL_DAY, SampleCall, Then, moved_to
from standalone.demo.voice_server import Talk, VoiceServer
from standalone.run_file import Running

PAUSE_REASON = "the demo shows a pause"
_CALLED_BACK_WITHIN = timedelta(seconds=10)
"""Also on a slow machine, and after a wait for another call's trial."""
_REQUESTS_PER_MINUTE = 6000


@dataclass(frozen=True, kw_only=True)
class Company:
    """A company with the ids and the key that its client uses."""

    company_id: UUID
    agent_id: UUID
    key: str
    voice_key: str | None = None


@dataclass
class DemoCall:
    """A sample call and its current state."""

    sample: SampleCall
    company: Company
    scheduled_at: str | None = None
    moved_to: str | None = None
    due_at: datetime | None = None
    """The scheduled time of a deleted call."""
    not_before: datetime | None = None
    """It must not ring earlier: the time to which it was moved, or at which its company was resumed."""
    asked_for: datetime | None = None
    """The time at which the person asked to be called again."""
    interview_id: str | None = None
    refusal: dict[str, Any] | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    deleted: bool = False
    block: Rule | None = None
    """The first rule that blocks it, from the explanation."""
    problem: str | None = None
    """A contradiction with the carrier's ledger, or an unexpected response of the API."""

    @property
    def newest(self) -> dict[str, Any]:
        return self.attempts[-1] if self.attempts else {}

    @property
    def result(self) -> str:
        """Its state, in the form of `SampleCall.expected`."""
        if self.refusal is not None:
            return f"REFUSED {self.refusal['code']}"
        if self.deleted:
            return "DELETED"
        return ", then ".join(_state_text(attempt) for attempt in self.attempts) or "NOT SENT YET"

    @property
    def is_as_expected(self) -> bool:
        return self.result == self.sample.expected and self.problem is None

    @property
    def difference(self) -> str:
        """The expected and the actual result, the rule that blocks the call, and the contradiction, if any."""
        blocked = "" if self.block is None else f", blocked by {self.block}"
        problem = "" if self.problem is None else f" ({self.problem})"
        return f"expected {self.sample.expected}, got {self.result}{blocked}{problem}"

    def is_over(self, now: datetime) -> bool:
        """Check whether its state is final."""
        if self.refusal is not None or self.problem is not None:
            return True
        if self.deleted:
            return self.due_at is not None and now > self.due_at + _SILENT_FOR
        return self.newest.get("status") in {"COMPLETED", "FAILED", "CANCELLED"}


_SILENT_FOR = timedelta(seconds=4)
"""A deleted call is observed for this long after it was due."""


def _state_text(attempt: dict[str, Any]) -> str:
    if attempt["outcome"] not in {None, "FINISHED"}:
        return f"{attempt['status']} {attempt['outcome']}"
    if attempt["status"] != "PENDING":
        return f"{attempt['status']} {attempt['reasonCode'] or ''}".strip()
    if attempt["retryNumber"]:
        return "PENDING again"
    schedule = attempt["schedule"]
    zones = (schedule["timezone"] or schedule["utcOffset"]).split(", ")
    if len(zones) > 1:
        return "PENDING until all its zones are open"
    return f"PENDING until {schedule['localTime'][11:16]} {zones[0]}"


class DemoClient:
    def __init__(self, running: Running, hasher: Hasher, now: Now, voice_server: VoiceServer | None = None) -> None:
        """`voice_server`: the outcomes of its conversations are reported."""
        self._running = running
        self._now = now
        self._voice_server = voice_server
        self._database = Database(running.databaseUrl, pool_size=1)
        self._keys = Keys(self._database, hasher, now)
        self._pauses = Pauses(self._database, now)
        self._session = requests.Session()
        self._session.trust_env = False
        self._voice_key_ids: list[UUID] = []

    def close(self) -> None:
        """Revoke the keys of the voice server: later calls wait for no report."""
        for key_id in self._voice_key_ids:
            self._keys.revoke(key_id)
        self._session.close()
        self._database.close()

    # ---- the companies

    def first_company(self) -> Company:
        """Find the installation's first company, with a short retry delay for busy lines."""
        running = self._running
        company_id = UUID(running.companyId)
        company = Company(
            company_id=company_id,
            agent_id=UUID(running.agentId),
            key=running.companyKey,
            voice_key=self._voice_key(company_id),
        )
        changes = {"settings": {"retryPolicy": {"delays": {"BUSY": [BUSY_RETRY_AFTER // timedelta(seconds=1)]}}}}
        self._api("PATCH", company, f"/company/{company.company_id}", json=changes).raise_for_status()
        return company

    def another_company(self, name: str, caller_id: str) -> Company:
        """Create another company with its own number, agent and key."""
        installation = Installation(self._database, self._keys, self._now)
        company_id, agent_id = installation.add_company(name, caller_id)
        _, key = self._keys.create(
            kind=KeyKind.REGULAR,
            name="demo",
            company_id=company_id,
            principal_id=company_id,
            per_minute=_REQUESTS_PER_MINUTE,
        )
        return Company(company_id=company_id, agent_id=agent_id, key=key, voice_key=self._voice_key(company_id))

    def _voice_key(self, company_id: UUID) -> str | None:
        """Create a key with which the voice server finds its calls and reports their outcomes."""
        if self._voice_server is None:
            return None
        principal, key = self._keys.create(
            kind=KeyKind.REGULAR,
            name="demo's voice server",
            company_id=company_id,
            scopes=frozenset({VOICE}),
            per_minute=_REQUESTS_PER_MINUTE,
        )
        self._voice_key_ids.append(principal.key_id)
        return key

    def pause(self, company: Company) -> None:
        """Do the same as `duecall pause COMPANY_ID`."""
        self._pauses.pause(company.company_id, PAUSE_REASON)

    def resume(self, call: DemoCall) -> None:
        """Do the same as `duecall resume COMPANY_ID`. The call must not ring earlier."""
        call.not_before = self._now()
        self._pauses.resume(call.company.company_id)

    # ---- the API

    def submit(self, call: DemoCall) -> None:
        """POST the interview. After a 202, `refresh` follows it."""
        call.scheduled_at = call.sample.scheduled_at(self._now())
        answer = self._interview(call.company, call.sample.number, call.scheduled_at)
        if answer["success"]:
            call.interview_id = answer["data"]["id"]
            call.attempts = answer["data"]["callAttempts"]
        else:
            call.refusal = answer["error"]

    def submit_full_day(self, company: Company) -> int:
        """POST interviews for the next 24 hours, and return the number of those that were accepted."""
        planned = [each for place in FULL_DAY for each in place.all()]
        return sum(self._interview(company, number, at)["success"] for number, at in planned)

    def _interview(self, company: Company, number: str, scheduled_at: str | None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "agentId": str(company.agent_id),
            "candidate": {
                "firstName": "Sample",
                "lastName": "Candidate",
                "phoneNumber": number,
                "gdprExpiryDate": "2030-01-01",
            },
        }
        if scheduled_at is not None:
            body["scheduledAt"] = scheduled_at
        answer: dict[str, Any] = self._api("POST", company, "/interviews", json=body).json()
        return answer

    def change(self, call: DemoCall) -> None:
        """PATCH or DELETE its attempt, if the sample call requires it."""
        path = f"/interviews/{call.interview_id}/call-attempts/{call.newest.get('id')}"
        if call.sample.then is Then.MOVED and call.scheduled_at is not None:
            call.moved_to = moved_to(call.scheduled_at)
            call.not_before = datetime.fromisoformat(call.moved_to)
            answer = self._api("PATCH", call.company, path, json={"scheduledAt": call.moved_to})
        elif call.sample.then is Then.DELETED and call.scheduled_at is not None:
            call.due_at = datetime.fromisoformat(call.scheduled_at)
            answer = self._api("DELETE", call.company, path)
            call.deleted = answer.ok
        else:
            return
        if not answer.ok:
            call.problem = f"{call.sample.then.name.lower()}: the API refused with {answer.json()['error']['code']}"

    def refresh(self, call: DemoCall) -> None:
        """Read its state from the API, and for a waiting call the first rule that blocks it."""
        if call.interview_id is None or call.deleted:
            return
        try:
            answer = self._api("GET", call.company, f"/interviews/{call.interview_id}").json()
            if answer["success"]:
                call.attempts = answer["data"]["callAttempts"]
            call.block = self._block(call) if call.newest.get("status") == "PENDING" else None
        except requests.RequestException:
            return  # the API restarts; the next refresh reads the state

    def report_outcomes(self, calls: Sequence[DemoCall]) -> None:
        """Report the outcome of each conversation of the voice server. One that is refused now is reported later."""
        if self._voice_server is None:
            return
        of_number = {call.sample.number: call for call in calls}
        for _ in range(len(self._voice_server.unreported)):
            talk = self._voice_server.unreported.popleft()
            call = of_number.get(talk.number)
            if call is not None and not self._report(call, talk):
                self._voice_server.unreported.append(talk)

    def _report(self, call: DemoCall, talk: Talk) -> bool:
        path = f"/call-attempts/by-token/{talk.token}"
        try:
            found = self._api("GET", call.company, path, key=call.company.voice_key).json()
            if not found["success"]:
                return False
            report, asked_for = self._outcome(call, found["data"])
            stored = self._api("POST", call.company, f"{path}/outcome", key=call.company.voice_key, json=report)
        except requests.RequestException:
            return False  # the API restarts
        if not stored.ok:
            return False  # its answer was not heard yet
        call.asked_for = asked_for or call.asked_for
        return True

    def _outcome(self, call: DemoCall, found: dict[str, Any]) -> tuple[dict[str, Any], datetime | None]:
        """Decide the report of a conversation, and the time that the person named, as a text of their own clock."""
        wait = call.sample.asks_for_call_in
        if wait is None or found["retryNumber"]:
            return {"outcome": "FINISHED"}, None
        asked_for = (self._now() + wait).replace(microsecond=0)
        clock = CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=(found["schedule"]["timezone"],))
        [local] = call_windows.local_times(clock, asked_for)
        return {"outcome": "CALL_BACK", "callBackAt": f"{local:%Y-%m-%dT%H:%M:%S}"}, asked_for

    def _block(self, call: DemoCall) -> Rule | None:
        path = f"/interviews/{call.interview_id}/call-attempts/{call.newest['id']}/explanation"
        answer = self._api("GET", call.company, path).json()
        if not answer["success"] or not answer["data"]["blocks"]:
            return None
        return Rule(answer["data"]["blocks"][0]["rule"])

    def _api(
        self,
        method: str,
        client: Company,
        path: str,
        *,
        key: str | None = None,
        **options: Any,  # noqa: ANN401 - JSON
    ) -> requests.Response:
        headers = {"Authorization": f"Bearer {key or client.key}"}
        return self._session.request(method, f"{self._running.apiUrl}{path}", headers=headers, timeout=35, **options)

    # ---- the carrier

    def plan(self, samples: Sequence[SampleCall], for_all: dict[str, Any] | None) -> None:
        """Configure the simulated carrier for each call, or with `for_all` the same for all."""
        for sample in samples:
            plans = [dict(for_all)] if for_all else [dict(plan) for plan in sample.plans]
            for attempt, plan in enumerate(plans, start=1):
                selector = {"attempt": attempt} if len(plans) > 1 else {}
                self._carrier("POST", "/plans", json={"to": sample.number, **selector, **plan})

    def judge(self, calls: Sequence[DemoCall]) -> list[str]:
        """Compare each call with the carrier's independent ledger. Return violations that must never occur."""
        rings = self._carrier("GET", "/ledger").json()["rings"]
        for call in calls:
            own_rings = [ring for ring in rings if ring["to"] == call.sample.number]
            call.problem = call.problem or _contradiction(call, own_rings)
        verdict = self._carrier("GET", "/verdict").json()
        never = ("tokens_posted_twice", "tokens_with_two_calls", "calls_at_once", "unlike_twilio")
        return [f"{name.replace('_', ' ')}: {len(verdict[name])}" for name in never if verdict[name]]

    def _carrier(self, method: str, path: str, **options: Any) -> requests.Response:  # noqa: ANN401 - JSON
        answer = self._session.request(method, f"{self._running.simulatorUrl}{path}", timeout=5, **options)
        answer.raise_for_status()
        return answer


def _contradiction(call: DemoCall, rings: Sequence[dict[str, Any]]) -> str | None:
    if len(rings) != call.sample.carrier_calls:
        return f"the carrier accepted {len(rings)} calls for it, not {call.sample.carrier_calls}"
    rang_at = [datetime.fromisoformat(ring["accepted_at"]).astimezone(UTC) for ring in rings]
    for at in rang_at:
        if call.not_before is not None and at < call.not_before:
            return f"it rang at {at:%H:%M:%S} UTC, before {call.not_before:%H:%M:%S}"
    is_called_back = call.sample.asks_for_call_in is not None
    return _contradiction_of_call_back(call.asked_for, rang_at[-1]) if is_called_back else None


def _contradiction_of_call_back(asked_for: datetime | None, at: datetime) -> str | None:
    if asked_for is None:
        return "no person asked for its second call"
    if asked_for <= at < asked_for + _CALLED_BACK_WITHIN:
        return None
    return f"it rang again at {at:%H:%M:%S} UTC, asked for {asked_for:%H:%M:%S}"
