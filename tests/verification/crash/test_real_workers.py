"""Crash matrix with real processes: API, clock and Celery workers over Redis, as in the Procfile.

A process takes the calls or commands of four people, each with a different carrier behaviour, and is killed at its
failpoint. It is started again, and its hints are sent twice. One kill covers four cells, because a real process takes
seconds to start.
"""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from celery import Celery

from scheduler.clock import monotonic
from scheduler.persistence.database import Database
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.shared import hints as tasks
from standalone.fork_server import bound_to_parent
from standalone.supervisor import Process, Program
from tests.acceptance.conftest import WholeSystem, running_system
from tests.conftest import wait_until
from tests.support.builders import a_number
from tests.verification.crash.behaviours import BEHAVIOURS, OUTCOME_UNPROVEN
from tests.verification.crash.matrix import (
    COMPANY,
    OTHER,
    WHOLE,
    Fault,
    Judged,
    faults_of,
    hours_of,
    is_chosen,
    line,
    table,
)
from tests.verification.crash.stories import Cell
from tests.verification.judge.violations import DOUBLE, LOST

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not WHOLE, reason="`make crash` runs it: `tests/acceptance/test_killed_processes.py` kills each real process"
    ),
]

ACCEPTED = {201, 202, 409}
"""409: another process is answering the same request."""
ANY = ("answered", "accept_and_silence", "accept_then_500", "busy")
REFUSING = ("slow", "late_accept", "bad_number", "drop")
OF_THE_LIST = ("accept_and_silence", "accept_then_500", "late_accept", "drop")


@dataclass(kw_only=True)
class Group:
    """Four people whose calls a process has in hand when it dies."""

    whole: WholeSystem
    hints: Celery
    failpoint: str
    behaviours: Sequence[str]
    numbers: dict[str, str] = field(default_factory=dict)
    candidates: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    exit: int | None = None
    """Exit code of the process that handled them."""

    def begin(self) -> None:
        """Create four people without interviews."""
        for behaviour in self.behaviours:
            number = self.numbers[behaviour] = a_number()
            self.keys[behaviour] = str(uuid4())
            for turn, rule in enumerate(BEHAVIOURS[behaviour].rules, start=1):
                self.whole.client.plan(to=number, attempt=turn, **rule)
            body = {"firstName": "Ada", "lastName": "Byron", "gdprExpiryDate": "2030-01-01", "phoneNumber": number}
            made = self.whole.client.send("POST", "/candidates", body)
            assert made.status_code == 201, made.text
            self.candidates[behaviour] = made.json()["data"]["id"]

    def body(self, behaviour: str) -> dict[str, Any]:
        return {"agentId": self.whole.running.agentId, "candidateId": self.candidates[behaviour]}

    def post(self, behaviour: str) -> int | None:
        """Return the status, or None without an answer. A repetition is the same request."""
        headers = {"Idempotency-Key": self.keys[behaviour], "Prefer": "respond-async"}
        try:
            return self.whole.client.post(self.body(behaviour), **headers).status_code
        except requests.RequestException:
            return None

    def post_all(self, times: int = 1) -> set[int | None]:
        """Send each request this many times in parallel. Return the statuses."""
        with ThreadPoolExecutor(len(self.behaviours) * times) as pool:
            return set(pool.map(self.post, [*self.behaviours] * times))

    def post_until_accepted(self, times: int = 1) -> None:
        """Repeat the requests until each is accepted, as a client without an answer does."""
        wait_until(lambda: self.post_all(times) <= ACCEPTED, seconds=60, says="all requests are accepted")

    def post_due_together(self) -> None:
        """Pause the company until all commands are applied, so that all attempts become due at the same moment."""
        company_id = UUID(self.whole.running.companyId)
        with closing(Database(self.whole.running.databaseUrl, pool_size=1)) as database:
            pauses = Pauses(database, self.whole.now)
            pauses.pause(company_id, "a test")
            self.post_until_accepted()
            wait_until(
                lambda: len(self.attempts()) == len(self.behaviours), seconds=60, says="all commands are applied"
            )
            pauses.resume(company_id)

    def send_all(self) -> None:
        """Send all requests as messages."""
        [[key_id]] = self.whole.rows("SELECT id FROM api_keys WHERE kind = 'REGULAR' LIMIT 1")
        for behaviour in self.behaviours:
            message = {
                "apiKeyId": str(key_id),
                "idempotencyKey": self.keys[behaviour],
                "kind": "create_interview",
                "body": self.body(behaviour),
            }
            self.hints.send_task(tasks.SUBMIT, kwargs=message, queue=tasks.QUEUES[tasks.SUBMIT], ignore_result=True)

    def hint(self, task: str, ids: Sequence[Any] = ()) -> None:
        self.hints.send_task(task, args=[[str(each) for each in ids]], queue=tasks.QUEUES[task], ignore_result=True)

    def hint_to_dial(self) -> None:
        self.hint(tasks.DIAL, self.attempts())

    def ids(self, query: str) -> list[Any]:
        return [row[0] for row in self.whole.rows(f"SELECT id FROM {query}")]

    def of_these(self) -> str:
        """Build a subquery for the group's interviews."""
        return f"SELECT id FROM interviews WHERE candidate_id IN ({_quoted(self.candidates)})"

    def attempts(self) -> list[Any]:
        return self.ids(f"attempts WHERE interview_id IN ({self.of_these()})")

    def commands(self) -> list[Any]:
        return self.ids(f"inbox WHERE idempotency_key IN ({_quoted(self.keys)})")

    def standing(self) -> list[tuple[Any, ...]]:
        """Return the group's rows, to show why it has not finished."""
        return [
            *self.whole.rows(
                "SELECT state, phase, reason, due_at, released_until, lease_until, look_at, retry_number"
                f" FROM attempts WHERE interview_id IN ({self.of_these()})"
            ),
            *self.whole.rows("SELECT kind, received_at, rung_at, failures FROM inbox WHERE applied_at IS NULL"),
            *self.whole.rows("SELECT received_at, rung_at, failures FROM carrier_events WHERE heard_at IS NULL"),
            *self.whole.rows("SELECT pause_reason FROM companies WHERE paused_at IS NOT NULL"),
            (self.whole.now(),),
        ]

    def is_answered(self) -> bool:
        try:
            return self.whole.client.get("/readyz").ok
        except requests.RequestException:
            return False

    def is_over(self) -> bool:
        ended = self.whole.rows(
            f"SELECT count(DISTINCT interview_id), count(*) FILTER (WHERE state IN ('PENDING', 'IN_PROGRESS'))"
            f" FROM attempts WHERE interview_id IN ({self.of_these()})"
        )
        waits = self.whole.rows("SELECT 1 FROM inbox WHERE applied_at IS NULL")
        rings = [ring for number in self.numbers.values() for ring in self.whole.client.rings_of(number)]
        return ended == [(len(self.behaviours), 0)] and not waits and all(ring["ended_at"] for ring in rings)


def _quoted(ids: Mapping[str, str]) -> str:
    return ", ".join(f"'{each}'" for each in ids.values())


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process of the Procfile: its work, its failpoints, and a function that repeats the work."""

    process: str
    failpoints: Sequence[str]
    behaviours: Sequence[str]
    give: Callable[[Group], object]
    again: Callable[[Group], object]


PARTS = (
    Part(
        process="dial",
        failpoints=["dial.recorded", "dial.claiming", "dial.claimed", "dial.sent"],
        behaviours=ANY,
        give=Group.post_due_together,
        again=Group.hint_to_dial,
    ),
    Part(
        process="dial",
        failpoints=["dial.answered", "dial.recording"],
        behaviours=REFUSING,
        give=Group.post_due_together,
        again=Group.hint_to_dial,
    ),
    Part(
        process="intake",
        failpoints=["apply.doing", "apply.applied"],
        behaviours=ANY,
        give=Group.post_until_accepted,
        again=lambda group: group.hint(tasks.APPLY, group.commands()),
    ),
    Part(
        process="intake", failpoints=["message.taken"], behaviours=REFUSING, give=Group.send_all, again=Group.send_all
    ),
    Part(
        process="callbacks",
        failpoints=["hear.hearing", "hear.heard"],
        behaviours=("answered", "busy", "declined", "reordered"),
        give=Group.post_until_accepted,
        again=lambda group: group.hint(tasks.HEAR, group.ids("carrier_events WHERE heard_at IS NULL")),
    ),
    Part(
        process="settle",
        failpoints=["settle.asked", "settle.settled"],
        behaviours=OF_THE_LIST,
        give=Group.post_until_accepted,
        again=lambda group: group.hint(tasks.SETTLE),
    ),
    Part(
        process="clock",
        failpoints=["release.released"],
        behaviours=ANY,
        give=Group.post_due_together,
        again=Group.hint_to_dial,
    ),
    Part(
        process="api",
        failpoints=["submit.accepting", "submit.accepted"],
        behaviours=REFUSING,
        give=Group.post_all,
        again=lambda group: group.post_until_accepted(times=2),
    ),
)


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    with running_system(tmp_path_factory.mktemp("real")) as whole:
        whole.raise_limits()
        # Keep the carrier's breaker closed, so that a failed call does not stop others.
        whole.change(
            "CREATE FUNCTION keep_closed() RETURNS trigger LANGUAGE plpgsql AS $$"
            " BEGIN NEW.failures := 0; NEW.down_until := NULL; RETURN NEW; END $$"
        )
        whole.change(
            "CREATE TRIGGER keep_closed BEFORE UPDATE ON carrier_accounts FOR EACH ROW EXECUTE FUNCTION keep_closed()"
        )
        whole.set_settings(retry_policy=COMPANY["retry_policy"])
        whole.change("UPDATE api_keys SET per_minute = 100000, per_hour = 100000")
        yield whole


def test_killed_real_process_loses_no_call_and_rings_none_twice(
    whole: WholeSystem, aloud: Callable[[str], None]
) -> None:
    started, results = monotonic(), []
    hints = Celery(broker=whole.running.redisUrl, set_as_current=False)
    hints.conf.broker_transport_options = {"global_keyprefix": "duecall:"}
    for part in PARTS:
        with taken_out(whole, part.process) as program:
            for failpoint in filter(is_chosen, part.failpoints):
                group = Group(whole=whole, hints=hints, failpoint=failpoint, behaviours=part.behaviours)
                began = monotonic()
                play(group, part, program)
                for result in judged(group, part, monotonic() - began):
                    results.append(result)
                    aloud(line(result))
    aloud(table(results))
    aloud(f"{len(results)} cells through real processes, {monotonic() - started:.0f} s")
    assert not [fault for result in results for fault in result.faults]
    assert len({str(result.cell) for result in results}) == len(results)


@contextmanager
def taken_out(whole: WholeSystem, name: str) -> Iterator[Program]:
    """Stop the process and hide it from the supervisor inside the block."""
    supervisor = whole.system.supervisor
    entry = supervisor._programs.pop(name)
    assert entry.process is not None
    stopped(entry.process)
    yield entry.program
    supervisor.start(entry.program)


def started(program: Program, turn: int = 1, **variables: str) -> subprocess.Popen[bytes]:
    """Start the program. `turn` distinguishes instances that run at the same time."""
    argv = [word.replace("@%h", f"{turn}@%h") for word in program.argv]
    with program.log.open("ab") as log:
        return subprocess.Popen(
            bound_to_parent(signal.SIGTERM, *argv),
            env={**program.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def stopped(*processes: Process) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(60)


def play(group: Group, part: Part, program: Program) -> None:
    """Give four cells to the process, let it die, start two new ones (but one API), and repeat the work twice."""
    victim = started(program, DUECALL_FAILPOINT=group.failpoint)
    wait_until(group.is_answered, seconds=60, says="the API answers")
    group.begin()
    part.give(group)
    group.exit = victim.wait(60)
    healthy = [started(program, turn) for turn in ((1,) if part.process == "api" else (1, 2))]
    try:
        wait_until(group.is_answered, seconds=60, says="the API answers again")
        for _ in range(2):
            part.again(group)
        group.whole.wait_until(group.is_over, seconds=120, says=f"{group.failpoint}: all calls are finished")
    except pytest.fail.Exception:
        print(*group.standing(), sep="\n")
        raise
    finally:
        stopped(*healthy)


def judged(group: Group, part: Part, seconds: float) -> Iterator[Judged]:
    """Judge each person's calls separately. It is unknown which of the four the process handled when it died."""
    url = group.whole.running.databaseUrl
    for behaviour in group.behaviours:
        rows = group.whole.rows(
            "SELECT i.id, a.reason FROM interviews i JOIN attempts a ON a.interview_id = i.id"
            f" WHERE i.candidate_id = '{group.candidates[behaviour]}' ORDER BY a.created_at, a.retry_number"
        )
        interviews, reasons = {interview_id for interview_id, _ in rows}, [reason for _, reason in rows]
        rings = group.whole.client.rings_of(group.numbers[behaviour])
        faults = [
            *faults_of(url, interviews, 1, rings, hours_of(rings), until=group.whole.now()),
            *_of_ending(part, behaviour, len(rings), reasons),
        ]
        if group.exit != -signal.SIGKILL:
            faults.append(Fault(heading=OTHER, why=f"the process ended with {group.exit}, not at its failpoint"))
        cell = Cell(story=f"real {part.process}", failpoint=group.failpoint, behaviour=behaviour)
        yield Judged(cell=cell, rings=len(rings), reasons=reasons, faults=faults, seconds=seconds)


def _of_ending(part: Part, behaviour: str, rings: int, reasons: Sequence[str]) -> Iterator[Fault]:
    """Compare with the ordinary ending. After the death of a dialler, also allow an unrecorded or unknown one."""
    ordinary = BEHAVIOURS[behaviour].ending
    allowed = [ordinary]
    if part.process == "dial":
        allowed += [BEHAVIOURS[behaviour].when_unrecorded, OUTCOME_UNPROVEN]
    if (rings, list(reasons)) not in [(each.rings, [str(reason) for reason in each.reasons]) for each in allowed]:
        heading = DOUBLE if rings > ordinary.rings else LOST if rings < ordinary.rings else OTHER
        yield Fault(heading=heading, why=f"{rings} rings, ended as {reasons}")
