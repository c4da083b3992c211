"""A platform's backend under load, in its own process: it sends requests, repeats unanswered ones and records results.

Run by the soak: `python -m tests.verification.soak.callers ORDER`, where ORDER is a file with an `Order` as JSON. It
appends a line of JSON to `said` for each finished `Question` and for each request's `Sample`. It ends when every
question has its final response, or `patience_s` after the load ends. Unanswered questions then have no status.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Literal
from uuid import uuid4

import aiohttp
from pydantic import BaseModel, TypeAdapter

from scheduler.clock import clock, monotonic
from tests.verification.soak.people import Person, alike, people

ACCEPTED, NO_BODY = 202, 204
_ASK_AGAIN_S, _AT_THE_LATEST_S = 0.5, 8.0
"""First delay before a repetition, and the limit up to which it doubles."""
_LOOK_AGAIN_S = 2.0
_GIVE_UP_A_REQUEST_S = 20.0


class Order(BaseModel):
    """The load to create, and the API that receives it."""

    api_url: str
    keys: Mapping[Literal["usual", "late"], str]
    """Key of the company with the usual hours, and of the company whose hours begin in the middle of the soak."""
    agents: Mapping[Literal["usual", "late"], str]
    seed: int
    rate: float
    seconds: float
    first: int = 0
    """The turn of the first person. Different loads have different people."""
    all_alike: str = ""
    """The carrier's behaviour for every call. Default: behaviours vary."""
    at_once: int | None = None
    """Most requests without a final response at a time. Further people wait for their turn. Default: no limit."""
    at_least: int | None = None
    """Number of people after whom the load ends with its time, although others still wait for their turn. Default: all
    people are served."""
    clock_offset_s: float
    patience_s: float
    said: Path

    def people(self) -> Iterator[Person]:
        if self.all_alike:
            return alike(self.all_alike, rate=self.rate, seconds=self.seconds, first=self.first)
        return people(seed=self.seed, rate=self.rate, seconds=self.seconds, first=self.first)


class Question(BaseModel):
    """A request and its result. Instants are on the system's clock."""

    kind: Literal["question"] = "question"
    person: int
    verb: str
    asked_at: datetime
    tries: int = 1
    status: int | None = None
    """Status of the final response, or None without a response."""
    told_at: datetime | None = None
    code: str = ""
    """Error code, if the request was refused."""
    applied: int | None = None
    """Status of an applied command, after a 202. None if it was not applied, or was not accepted with 202."""
    applied_at: datetime | None = None
    interview_id: str | None = None
    attempt_id: str | None = None
    due_at: datetime | None = None


class Sample(BaseModel):
    """The duration of one HTTP request, answered or not."""

    kind: Literal["sample"] = "sample"
    at: datetime
    took_s: float
    status: int | None
    waits: bool


RECORDS: TypeAdapter[Question | Sample] = TypeAdapter(Question | Sample)


@dataclass
class Backend:
    order: Order
    session: aiohttp.ClientSession
    said: IO[str]

    def __post_init__(self) -> None:
        self.now = clock(self.order.clock_offset_s)
        self.last_patience_s = monotonic() + self.order.seconds + self.order.patience_s
        self.over_at_s = monotonic() + self.order.seconds
        self.turns = asyncio.Semaphore(self.order.at_once or sys.maxsize)
        self.served = 0

    def say(self, record: BaseModel) -> None:
        self.said.write(record.model_dump_json() + "\n")
        self.said.flush()

    async def serve(self, person: Person, begins_at: float) -> None:
        """Create the person's interview, then send their follow-up request."""
        await asyncio.sleep(max(0.0, begins_at + person.asks_after_s - monotonic()))
        async with self.turns:
            if self.order.at_least is not None and self.served >= self.order.at_least and monotonic() > self.over_at_s:
                return
            self.served += 1
            created = await self._create(person)
        if created.interview_id is None or not person.then:
            return
        await asyncio.sleep(person.then_after_s)
        async with self.turns:
            await self._follow_up(person, created, created.interview_id)

    async def _create(self, person: Person) -> Question:
        # Without a time in the request their calls are due when the hours begin, so no due time is expected.
        asks_for_a_time = person.due_in_s is not None and not person.opens_late
        due_at = _whole(self.now() + timedelta(seconds=person.due_in_s or 0)) if asks_for_a_time else None
        candidate = {"firstName": "Ferdinand", "lastName": "Canary", "gdprExpiryDate": "2030-01-01"}
        body: dict[str, Any] = {
            "agentId": self.order.agents[_company_of(person)],
            "candidate": {**candidate, "phoneNumber": person.number},
        }
        if due_at is not None:
            body["scheduledAt"] = _text(due_at)
        return await self._ask(person, "POST /interviews", "/interviews", body, due_at)

    async def _follow_up(self, person: Person, created: Question, interview_id: str) -> None:
        attempts = f"/interviews/{interview_id}/call-attempts"
        path = f"{attempts}/{created.attempt_id}"
        if person.then == "invoke":
            await self._ask(person, "POST .../call-attempts", attempts, {})
        elif created.attempt_id is None:
            return
        elif person.then == "delete":
            await self._ask(person, "DELETE .../call-attempts/{id}", path, about=created)
        else:
            moved_to = _whole(self.now() + timedelta(seconds=5))
            body = {"scheduledAt": _text(moved_to)}
            await self._ask(person, "PATCH .../call-attempts/{id}", path, body, moved_to, about=created)

    async def _ask(
        self,
        person: Person,
        verb: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        due_at: datetime | None = None,
        *,
        about: Question | None = None,
    ) -> Question:
        """Repeat a request under one key until it has its final response, then record it."""
        question = Question(person=person.turn, verb=verb, asked_at=self.now(), due_at=due_at)
        if about is not None:
            question.interview_id, question.attempt_id = about.interview_id, about.attempt_id
        elif verb == "POST .../call-attempts":
            question.interview_id = path.split("/")[2]
        key, method = str(uuid4()), verb.split(maxsplit=1)[0]
        headers = {
            "Authorization": f"Bearer {self.order.keys[_company_of(person)]}",
            "Idempotency-Key": key,
            "Prefer": "wait=10" if person.waits else "respond-async",
        }
        while monotonic() < self.last_patience_s:
            answer = await self._sent(method, path, body, headers, waits=person.waits)
            if answer is not None:
                question.status, question.told_at, data, question.code = answer
                if question.status == ACCEPTED:
                    data = await self._result(question, key, headers)
                self._note_ids(question, data)
                break
            await asyncio.sleep(min(_ASK_AGAIN_S * 2 ** (question.tries - 1), _AT_THE_LATEST_S))
            question.tries += 1
        self.say(question)
        return question

    async def _sent(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str], *, waits: bool
    ) -> tuple[int, datetime, Any, str] | None:
        """Send a request. Return None if it must be repeated: no response, 5xx, 429, or already in progress."""
        began, at, status = monotonic(), self.now(), None
        try:
            async with self.session.request(
                method, f"{self.order.api_url}{path}", json=body, headers=headers
            ) as response:
                status = response.status
                told = {} if status == NO_BODY else await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        finally:
            self.say(Sample(at=at, took_s=monotonic() - began, status=status, waits=waits))
        code = (told.get("error") or {}).get("code", "")
        if status >= 500 or status == 429 or code == "IDEMPOTENCY_IN_PROGRESS":
            return None
        return status, self.now(), told.get("data"), code

    async def _result(self, question: Question, key: str, headers: Mapping[str, str]) -> Any:
        """Wait for an accepted command and return its result, or None if the patience ends first."""
        read = {"Authorization": headers["Authorization"]}
        while monotonic() < self.last_patience_s:
            await asyncio.sleep(_LOOK_AGAIN_S)
            try:
                async with self.session.get(f"{self.order.api_url}/commands/{key}", headers=read) as response:
                    told = await response.json() if response.status == 200 else None
            except (aiohttp.ClientError, TimeoutError, ValueError):
                continue
            if told is not None and told["data"]["status"] == "APPLIED":
                data = told["data"]
                question.applied = data["statusCode"]
                question.applied_at = datetime.fromisoformat(data["appliedAt"])
                question.code = question.code or (data["result"] or {}).get("code", "")
                return data["result"]
        return None

    def _note_ids(self, question: Question, data: Any) -> None:
        if not isinstance(data, dict):
            return
        if question.verb == "POST /interviews" and "callAttempts" in data:
            question.interview_id = data["id"]
            question.attempt_id = next((each["id"] for each in data["callAttempts"]), None)
        elif question.verb == "POST .../call-attempts" and "id" in data:
            question.attempt_id = data["id"]


def _company_of(person: Person) -> Literal["usual", "late"]:
    return "late" if person.opens_late else "usual"


def _whole(at: datetime) -> datetime:
    return at.replace(microsecond=0)


def _text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"


async def ask_all(order: Order) -> None:
    timeout = aiohttp.ClientTimeout(total=_GIVE_UP_A_REQUEST_S, sock_connect=5)
    with order.said.open("a", encoding="utf-8") as said:
        connector = aiohttp.TCPConnector(limit=200)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as session:
            backend = Backend(order=order, session=session, said=said)
            begins_at = monotonic()
            async with asyncio.TaskGroup() as group:
                for person in order.people():
                    group.create_task(backend.serve(person, begins_at))


if __name__ == "__main__":
    asyncio.run(ask_all(Order.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))))
