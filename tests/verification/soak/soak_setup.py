"""The system under the soak: every process as `duecall up` runs it, two companies, and queries about its state."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import requests

from scheduler.clock import monotonic
from scheduler.domain.company import RetryPolicy, Weekday
from standalone.fork_server import bound_to_parent
from standalone.valkey_and_postgres import EmbeddedPostgres, EmbeddedValkey
from tests.acceptance.conftest import WholeSystem, running_system
from tests.verification.soak.callers import RECORDS, Order, Question, Sample
from tests.verification.soak.people import SHORT, Person

STARTS_AT = datetime(2026, 4, 2, 14, 26, tzinfo=UTC)
"""A Thursday: 16:26 in Bratislava, and in India 19:56, four minutes before the calling hours end."""
LATE_OPENING = "16:29"
"""Beginning of the hours of the company `late`, in Bratislava."""

TIMES = {
    "CARRIER_CONNECT_TIMEOUT_S": "1",
    "CARRIER_TOTAL_TIMEOUT_S": "3",
    "DIAL_LEASE_S": "8",
    "SETTLE_S": "16",
    "SWEEP_S": "1",
    "LINE_GAP_S": "1",
    "SHORT_CALL_S": "2",
}
"""The times of the dial protocol, shorter and in the same order. Phones ring for 30 s at most, the default.

Conversations last 1.7 s, which the carrier rounds to 2 s, so that they are not short. Errors of the voice server are.
"""
LEASE_S, SETTLE_S, SWEEP_S = (float(TIMES[name]) for name in ("DIAL_LEASE_S", "SETTLE_S", "SWEEP_S"))
_RETRIES = RetryPolicy(max_retries=1, delays=dict.fromkeys(("BUSY", "NO_ANSWER", "VOICEMAIL"), (timedelta(seconds=2),)))
_CALLS = {"TWILIO_CPS": "50", "TWILIO_MAX_CALLS": "1000"}


@dataclass(frozen=True, kw_only=True)
class Blow:
    """A fault, with its beginning and end on the system's clock."""

    what: str
    began_at: datetime
    healed_at: datetime
    hurts_diallers: bool
    """True if the fault may have ended a dialler between a claim and its record, or blocked that record."""


@dataclass
class Load:
    """People whose calls a separate process requests, and the responses so far."""

    order: Order
    people: list[Person]
    process: subprocess.Popen[bytes]

    @property
    def is_over(self) -> bool:
        """True if the process has ended. Raises RuntimeError if it failed."""
        status = self.process.poll()
        if status:
            raise RuntimeError(f"the process that sends requests ended with status {status}")
        return status is not None

    def told(self) -> tuple[list[Question], list[Sample]]:
        questions: list[Question] = []
        samples: list[Sample] = []
        for line in self.order.said.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last line may be incomplete
                record = RECORDS.validate_json(line)
                if isinstance(record, Question):
                    questions.append(record)
                else:
                    samples.append(record)
        return questions, samples


@dataclass
class SoakSetup:
    whole: WholeSystem
    late_key: str
    late_agent: str
    loads: list[Load] = field(default_factory=list)
    meanwhile: list[Callable[[], None]] = field(default_factory=list)
    """Functions called at each look, about ten times a second."""
    blows: list[Blow] = field(default_factory=list)

    def note(self, what: str, began_at: datetime, *, hurts_diallers: bool) -> None:
        """Record a fault that has ended now."""
        self.blows.append(Blow(what=what, began_at=began_at, healed_at=self.whole.now(), hurts_diallers=hurts_diallers))

    def pause(self, seconds: float) -> None:
        """Supervise the system for some seconds."""
        over_at = monotonic() + seconds
        self.until(lambda: monotonic() >= over_at, seconds=seconds + 1)

    def look(self) -> None:
        """Restart the processes that ended, and call the functions of `meanwhile`."""
        self.whole.system.restart_ended()
        for each in self.meanwhile:
            each()

    def begin(
        self,
        *,
        rate: float,
        seconds: float,
        seed: int = 0,
        all_alike: str = "",
        at_once: int | None = None,
        at_least: int | None = None,
        patience_s: float = 120,
    ) -> Load:
        """Start a load of new people, in addition to the loads that are running."""
        order = Order(
            api_url=self.whole.running.apiUrl,
            keys={"usual": self.whole.running.companyKey, "late": self.late_key},
            agents={"usual": self.whole.running.agentId, "late": self.late_agent},
            seed=seed,
            rate=rate,
            seconds=seconds,
            first=sum(len(load.people) for load in self.loads),
            all_alike=all_alike,
            at_once=at_once,
            at_least=at_least,
            clock_offset_s=self.whole.offset_s,
            patience_s=patience_s,
            said=self.whole.home / f"said-{len(self.loads)}.jsonl",
        )
        people = list(order.people())
        self._plan(people)
        order.said.touch()
        written = order.said.with_suffix(".order")
        written.write_text(order.model_dump_json(), encoding="utf-8")
        process = subprocess.Popen(
            bound_to_parent(signal.SIGTERM, sys.executable, "-m", "tests.verification.soak.callers", str(written)),
            stdin=subprocess.DEVNULL,
        )
        self.loads.append(Load(order=order, people=people, process=process))
        return self.loads[-1]

    def _plan(self, people: list[Person]) -> None:
        rules: list[dict[str, Any]] = [
            {"to": person.number, "attempt": turn, **rule}
            for person in people
            for turn, rule in enumerate(person.rules, start=1)
        ]
        self.at_carrier("POST", "/plans", rules)

    def at_carrier(self, method: str, path: str, order: object = None) -> requests.Response:
        """Send a request to the control API of the simulated carrier."""
        url = f"{self.whole.running.simulatorUrl}{path}"
        answer = self.whole.client.session.request(method, url, json=order, timeout=60)
        answer.raise_for_status()
        return answer

    @property
    def postgres(self) -> EmbeddedPostgres:
        assert self.whole.system.postgres is not None
        return self.whole.system.postgres

    @property
    def valkey(self) -> EmbeddedValkey:
        assert self.whole.system.valkey is not None
        return self.whole.system.valkey

    @property
    def account_sid(self) -> str:
        """Our account at the carrier."""
        return self.whole.system.supervisor.program("api").environment["TWILIO_ACCOUNT_SID"]

    def rows(self, query: str) -> list[tuple[Any, ...]] | None:
        """Read the rows of a query, or None if the database cannot be reached."""
        patience = {"connect_timeout": 2, "options": "-c statement_timeout=2000"}
        with (
            suppress(psycopg.Error),
            psycopg.connect(self.whole.running.databaseUrl, autocommit=True, **patience) as connection,  # type: ignore[arg-type]
        ):
            return connection.execute(query.encode()).fetchall()
        return None

    def is_quiet(self) -> bool:
        """Check that all loads have ended and no command, callback, due attempt or call in progress is left."""
        soon = self.whole.now() + timedelta(minutes=1)
        open_work = (
            "SELECT 1 FROM inbox WHERE applied_at IS NULL"
            " UNION ALL SELECT 1 FROM carrier_events WHERE heard_at IS NULL"
            f" UNION ALL SELECT 1 FROM attempts WHERE state = 'IN_PROGRESS' OR state = 'PENDING' AND due_at < '{soon}'"
            " LIMIT 1"
        )
        return all(load.is_over for load in self.loads) and self.rows(open_work) == []

    def until(self, what: Callable[[], object], *, seconds: float) -> bool:
        """Supervise the system until `what` is true or the time is over. Return the last value of `what`."""
        deadline = monotonic() + seconds
        self.whole.system.supervisor.run(lambda: self._looked(what) or monotonic() > deadline)
        return bool(what())

    def _looked(self, what: Callable[[], object]) -> bool:
        self.look()
        return bool(what())


def say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)


@contextmanager
def a_soak_setup(home: Path, say: Callable[[str], None], **variables: str) -> Iterator[SoakSetup]:
    times = {**TIMES, **_CALLS, "RING_TIMEOUT_S": "30", **variables}
    with running_system(home, None, starts_at=STARTS_AT, say=say, **times) as whole:
        whole.client.plan(to=None, **SHORT)
        whole.set_settings(retry_policy=_RETRIES)
        late_key, late_agent = _company_that_opens_late(whole)
        whole.raise_limits()
        whole.change("UPDATE api_keys SET per_minute = 1000000, per_hour = 1000000")
        yield SoakSetup(whole=whole, late_key=late_key, late_agent=late_agent)


def _company_that_opens_late(whole: WholeSystem) -> tuple[str, str]:
    """Create the company and return its key and its agent."""

    def ats(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = whole.client.session.request(
            method,
            f"{whole.running.apiUrl}{path}",
            json=body,
            headers={"Authorization": f"Bearer {whole.running.atsKey}"},
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json()["data"]

    hours = [{"days": [day.name for day in Weekday], "start": LATE_OPENING, "end": "20:00"}]
    company = ats("POST", "/company", {"name": "The late shift", "settings": {"callTimeIntervals": hours}})["id"]
    number = ats("GET", f"/phone-numbers?companyId={company}")["items"][0]["id"]
    agent = {"name": "By phone", "type": "PHONE", "focus": "GENERIC", "language": "SK", "duration": 15}
    made = ats("POST", f"/agents?companyId={company}", {**agent, "companyPhoneNumberId": number})
    key = json.loads(whole.duecall("keys", "create", "--company", company, "--name", "the soak", "--json"))
    return key["key"], made["id"]
