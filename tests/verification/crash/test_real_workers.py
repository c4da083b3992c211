"""The same with everybody real: API, clock and Celery workers over Redis, as the Procfile has them.

A process takes four people's calls or commands in hand, each with another behaviour of the carrier, and dies by kill -9
at its failpoint; it is started again, and what it was hinted at is hinted at twice. Four cells a kill, because a real
process takes seconds to start.
"""

import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from celery import Celery

from scheduler.clock import monotonic
from scheduler.local.child_process import bound_to_parent
from scheduler.local.supervisor import Program
from scheduler.persistence.database import Database
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.shared import hints as tasks
from tests.acceptance.conftest import WholeSystem, running_system
from tests.conftest import wait_until
from tests.support.builders import a_number
from tests.verification.crash.behaviours import BEHAVIOURS, NOBODY_KNOWS
from tests.verification.crash.matrix import (
    COMPANY,
    DOUBLE,
    LOST,
    OTHER,
    WHOLE,
    Fault,
    Judged,
    faults_of_history,
    faults_of_hours,
    is_chosen,
    line,
    table,
)
from tests.verification.crash.stories import Cell
from tests.verification.crash.works import without_a_breaker

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]

ACCEPTED = {201, 202, 409}
"""409: the same request is being answered somewhere else."""
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
    """Of the process that had them in hand."""

    def begin(self) -> None:
        """Four people, whom nobody has asked to call yet."""
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
        """The status; None: nobody answered. Sent again, it is the same request."""
        headers = {"Idempotency-Key": self.keys[behaviour], "Prefer": "respond-async"}
        try:
            return self.whole.client.post(self.body(behaviour), **headers).status_code
        except requests.RequestException:
            return None

    def post_all(self, times: int = 1) -> list[int | None]:
        with ThreadPoolExecutor(len(self.behaviours) * times) as pool:
            return list(pool.map(self.post, [*self.behaviours] * times))

    def begin_to_post(self) -> None:
        """Whatever comes of it."""
        self.post_all()

    def send_all(self) -> None:
        """As messages."""
        [[key_id]] = self.rows("SELECT id FROM api_keys WHERE kind = 'REGULAR' LIMIT 1")
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

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.whole.rows(query)

    @contextmanager
    def nobody_is_called(self) -> Iterator[None]:
        """All become due in one moment: when this ends."""
        database = Database(self.whole.running.databaseUrl, pool_size=1)
        pauses, company_id = Pauses(database, self.whole.now), UUID(self.whole.running.companyId)
        pauses.pause(company_id, "a test")
        yield
        pauses.resume(company_id)
        database.close()

    def of_these(self) -> str:
        """The group's interviews, for a query."""
        ids = ", ".join(f"'{each}'" for each in self.candidates.values())
        return f"SELECT id FROM interviews WHERE candidate_id IN ({ids})"

    def attempts(self) -> list[Any]:
        return [row[0] for row in self.rows(f"SELECT id FROM attempts WHERE interview_id IN ({self.of_these()})")]

    def commands(self) -> list[Any]:
        keys = ", ".join(f"'{each}'" for each in self.keys.values())
        return [row[0] for row in self.rows(f"SELECT id FROM inbox WHERE idempotency_key IN ({keys})")]

    def unheard(self) -> list[Any]:
        return [row[0] for row in self.rows("SELECT id FROM carrier_events WHERE heard_at IS NULL")]

    def standing(self) -> list[tuple[Any, ...]]:
        """What there is of it, for whoever asks why it is not over."""
        return [
            *self.rows(
                "SELECT state, phase, reason, due_at, released_until, lease_until, look_at, retry_number"
                f" FROM attempts WHERE interview_id IN ({self.of_these()})"
            ),
            *self.rows("SELECT kind, received_at, rung_at, failures FROM inbox WHERE applied_at IS NULL"),
            *self.rows("SELECT received_at, rung_at, failures FROM carrier_events WHERE heard_at IS NULL"),
            *self.rows("SELECT pause_reason FROM companies WHERE paused_at IS NOT NULL"),
            (self.whole.now(),),
        ]

    def is_answered(self) -> bool:
        try:
            return self.whole.client.get("/readyz").ok
        except requests.RequestException:
            return False

    def is_over(self) -> bool:
        ended = self.rows(
            f"SELECT count(DISTINCT interview_id), count(*) FILTER (WHERE state IN ('PENDING', 'IN_PROGRESS'))"
            f" FROM attempts WHERE interview_id IN ({self.of_these()})"
        )
        waits = self.rows("SELECT 1 FROM inbox WHERE applied_at IS NULL")
        rings = [ring for number in self.numbers.values() for ring in self.whole.client.rings_of(number)]
        return ended == [(len(self.behaviours), 0)] and not waits and all(ring["ended_at"] for ring in rings)


def _post_due_together(group: Group) -> None:
    with group.nobody_is_called():
        _post(group)
        wait_until(lambda: len(group.attempts()) == len(group.behaviours), says="all are applied")


def _post(group: Group) -> None:
    """Each until it was accepted, as a backend does it."""
    wait_until(lambda: set(group.post_all()) <= ACCEPTED, seconds=60, says="all are accepted")


def _told_again(group: Group) -> None:
    """Whoever was not answered sends it again, from two sides at once."""
    wait_until(lambda: set(group.post_all(times=2)) <= ACCEPTED, seconds=60, says="all are accepted")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of the Procfile: what it is given, where it dies, and how that is given again."""

    process: str
    failpoints: Sequence[str]
    behaviours: Sequence[str]
    give: Callable[[Group], None]
    again: Callable[[Group], None]


PARTS = (
    Part(
        process="dial",
        failpoints=["dial.recorded", "dial.claiming", "dial.claimed", "dial.sent"],
        behaviours=ANY,
        give=_post_due_together,
        again=lambda group: group.hint(tasks.DIAL, group.attempts()),
    ),
    Part(
        process="dial",
        failpoints=["dial.answered", "dial.recording"],
        behaviours=REFUSING,
        give=_post_due_together,
        again=lambda group: group.hint(tasks.DIAL, group.attempts()),
    ),
    Part(
        process="intake",
        failpoints=["apply.doing", "apply.applied"],
        behaviours=ANY,
        give=_post,
        again=lambda group: group.hint(tasks.APPLY, group.commands()),
    ),
    Part(
        process="intake",
        failpoints=["message.taken"],
        behaviours=REFUSING,
        give=Group.send_all,
        again=Group.send_all,
    ),
    Part(
        process="callbacks",
        failpoints=["hear.hearing", "hear.heard"],
        behaviours=("answered", "busy", "declined", "reordered"),
        give=_post,
        again=lambda group: group.hint(tasks.HEAR, group.unheard()),
    ),
    Part(
        process="settle",
        failpoints=["settle.asked", "settle.settled"],
        behaviours=OF_THE_LIST,
        give=_post,
        again=lambda group: group.hint(tasks.SETTLE),
    ),
    Part(
        process="clock",
        failpoints=["release.released"],
        behaviours=ANY,
        give=_post_due_together,
        again=lambda group: group.hint(tasks.DIAL, group.attempts()),
    ),
    Part(
        process="api",
        failpoints=["submit.accepting", "submit.accepted"],
        behaviours=REFUSING,
        give=Group.begin_to_post,
        again=_told_again,
    ),
)


def _part_of(parts: Sequence[Part]) -> Sequence[tuple[Part, Sequence[str]]]:
    """Everything by `make crash`; otherwise the first kill."""
    if not WHOLE:
        return [(parts[0], parts[0].failpoints[:1])]
    return [(part, some) for part in parts if (some := [each for each in part.failpoints if is_chosen(each)])]


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    with running_system(tmp_path_factory.mktemp("real")) as whole, without_a_breaker(whole.change):
        whole.raise_limits()
        whole.set_settings(retry_policy=COMPANY["retry_policy"])
        whole.change("UPDATE api_keys SET per_minute = 100000, per_hour = 100000")
        yield whole


def test_a_real_process_that_dies_with_calls_in_hand_loses_none_and_rings_none_twice(
    whole: WholeSystem, aloud: Callable[[str], None]
) -> None:
    started, results = monotonic(), []
    hints = Celery(broker=whole.running.redisUrl, set_as_current=False)
    hints.conf.broker_transport_options = {"global_keyprefix": "duecall:"}
    for part, failpoints in _part_of(PARTS):
        with taken_out(whole, part.process) as program:
            for failpoint in failpoints:
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
    """Nobody looks after this process meanwhile, and none of it runs."""
    supervisor = whole.system.supervisor
    kept = supervisor._programs.pop(name)
    assert kept.process is not None
    stopped(kept.process)
    yield kept.program
    supervisor.start(kept.program)


def started(program: Program, turn: int = 1, **variables: str) -> subprocess.Popen[bytes]:
    """`turn` tells those apart that run at the same time."""
    argv = [word.replace("@%h", f"{turn}@%h") for word in program.argv]
    with program.log.open("ab") as log:
        return subprocess.Popen(
            bound_to_parent(signal.SIGTERM, *argv),
            env={**program.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def stopped(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(60)


def play(group: Group, part: Part, program: Program) -> None:
    """Give the process its four, let it die with them, start two of it, and give them the same twice."""
    is_the_door = part.process == "api"
    if not is_the_door:
        group.begin()
    victim = started(program, DUECALL_FAILPOINT=group.failpoint)
    if is_the_door:
        wait_until(group.is_answered, seconds=60, says="the API answers")
        group.begin()
    part.give(group)
    group.exit = victim.wait(60)
    healthy = [started(program, turn) for turn in ((1,) if is_the_door else (1, 2))]
    try:
        if is_the_door:
            wait_until(group.is_answered, seconds=60, says="the API answers again")
        for _ in range(2):
            part.again(group)
        group.whole.wait_until(group.is_over, seconds=120, says=f"{group.failpoint}: all is over")
    except pytest.fail.Exception:
        print(*group.standing(), sep="\n")
        raise
    finally:
        stopped(*healthy)


def judged(group: Group, part: Part, seconds: float) -> Iterator[Judged]:
    """Each person's calls by themselves; which of the four the process was busy with when it died nobody can tell."""
    reasons = defaultdict(list)
    of_candidate = {candidate: behaviour for behaviour, candidate in group.candidates.items()}
    rows = group.rows(
        f"SELECT i.candidate_id, i.id, a.reason FROM interviews i JOIN attempts a ON a.interview_id = i.id"
        f" WHERE i.id IN ({group.of_these()}) ORDER BY a.created_at, a.retry_number"
    )
    interviews = defaultdict(set)
    for candidate_id, interview_id, reason in rows:
        reasons[of_candidate[str(candidate_id)]].append(reason)
        interviews[of_candidate[str(candidate_id)]].add(interview_id)
    url = group.whole.running.databaseUrl
    for behaviour in group.behaviours:
        rings = group.whole.client.rings_of(group.numbers[behaviour])
        faults = [
            *faults_of_history(url, interviews[behaviour], 1, rings, (), group.whole.now()),
            *faults_of_hours(url, rings),
            *_of_ending(part, behaviour, len(rings), reasons[behaviour]),
        ]
        if group.exit != -signal.SIGKILL:
            faults.append(Fault(heading=OTHER, why=f"the process ended with {group.exit}, not at its failpoint"))
        yield Judged(
            cell=Cell(story=f"real {part.process}", failpoint=group.failpoint, behaviour=behaviour),
            rings=len(rings),
            unknown=reasons[behaviour].count("OUTCOME_UNKNOWN"),
            reasons=reasons[behaviour],
            faults=faults,
            seconds=seconds,
        )


def _of_ending(part: Part, behaviour: str, rings: int, reasons: Sequence[str]) -> Iterator[Fault]:
    """As it ends ordinarily; where a dialler died, also as nobody can know any better."""
    ordinary = BEHAVIOURS[behaviour].ending
    allowed = [ordinary]
    if part.process == "dial":
        allowed += [BEHAVIOURS[behaviour].when_unrecorded, NOBODY_KNOWS]
    if (rings, list(reasons)) not in [(each.rings, [str(reason) for reason in each.reasons]) for each in allowed]:
        heading = DOUBLE if rings > ordinary.rings else LOST if rings < ordinary.rings else OTHER
        yield Fault(heading=heading, why=f"{rings} rings, ended as {reasons}")
