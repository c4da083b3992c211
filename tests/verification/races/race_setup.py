"""Races: a caller moves, deletes, replaces or pauses a due attempt at the moment when a dialler takes it."""

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.command import Command, InvokeAttempt, Request
from scheduler.domain.company import CallLimits
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.operations.unknown_outcomes import OperatorCommands
from scheduler.use_cases.release import Release
from tests.conftest import seed, wait_until
from tests.support.builders import ALWAYS, RecordingHints, a_pending_attempt, of_company
from tests.verification.carrier.apart import a_carrier_apart
from tests.verification.judge.evidence import rings_from, rows_of
from tests.verification.judge.history import ClientRequest, ClientResponse, History, Patience, Verb
from tests.verification.judge.violations import violations
from tests.verification.world.bulk_attempts import INVOKE, bulk_attempts
from tests.verification.world.installation import (
    Dialler,
    Installation,
    a_company,
    about,
    deleting,
    dialling,
    environment_of,
    moving,
    status_of,
)

RACES = int(os.environ.get("DUECALL_RACES", "100"))
"""Number of races of each kind. `make proof` runs a thousand."""
AT_ONCE = 12
AHEAD_S = 0.5
"""Seconds between handing a hint to the dialler and its due time, so that a caller can be earlier."""
SPREAD_S = 0.015
STEP_S, GROWTH = 0.002, 1.15
LIMITS = CallLimits(concurrent_calls=100_000, calls_per_second=1000.0)
IN_FLIGHT = Patience(in_flight=timedelta(seconds=2), lateness=timedelta(0))
"""A call whose last look preceded a pause is sent within 200 ms and rings when the carrier reaches it."""
FAIR = (0.10, 0.90)
NOT_A_COMMAND = 204
WAITS = "state = 'PENDING' OR phase = 'DIALLING'"
_IDS_A_RING = 50
_NEVER = threading.Event()
_PUT_BACK = """
    SELECT a.id FROM attempts a JOIN companies c ON c.id = a.company_id
    WHERE a.state = 'PENDING' AND a.due_at < :soon AND c.paused_at IS NULL
      AND EXISTS (
        SELECT FROM attempt_history WHERE attempt_id = a.id AND detail ->> 'cause' IN ('SLOW_LOOK', 'TOO_SLOW')
      )
      AND NOT EXISTS (SELECT FROM inbox WHERE interview_id = a.interview_id AND applied_at IS NULL)
"""
"""Calls that the dialler has put back because the machine was too busy. The clock would send their hints again."""


@dataclass
class Aim:
    """The delay between the dialler's hint and the caller's request, adjusted so that each side wins half of the races.

    The duration of a claim differs tenfold between machines, so one side would win every race with a fixed delay. The
    steps of the adjustment grow while one side wins, because a busy machine may need a delay of half a second.
    """

    random: random.Random
    middle_s: float = 0.01
    step_s: float = STEP_S
    lock: Lock = field(default_factory=Lock)

    def delay_s(self) -> float:
        with self.lock:
            return self.middle_s + self.random.uniform(-SPREAD_S, SPREAD_S)

    def learn(self, *, dialler_won: bool) -> None:
        with self.lock:
            towards = -1 if dialler_won else 1
            self.step_s = towards * (GROWTH * abs(self.step_s) if self.step_s * towards > 0 else STEP_S)
            self.middle_s = max(-AHEAD_S, self.middle_s + self.step_s)


@dataclass(frozen=True, kw_only=True)
class RaceSetup(Installation):
    """The systems that take part in a race, and the answers to callers."""

    dialler: Dialler
    say: Callable[[str], None]
    seed: int
    workers_run: bool
    began: float = field(default_factory=monotonic)
    asked: list[ClientRequest] = field(default_factory=list)
    commands: list[tuple[int, Command]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def some_attempts(self, count: int) -> list[Attempt]:
        """Create due attempts, each with a separate interview and number."""
        url, now = self.environment["DATABASE_URL"], self.tenant.now()
        ids = bulk_attempts(url, self.tenant, count, due_at=now, kinds=[INVOKE])
        with self.tenant.database.transaction() as stores:
            return stores.attempts.lock_free(ids)

    def one_attempt_each(self, count: int) -> list[Attempt]:
        """Create due attempts, each in a separate company that can be paused alone."""
        database, now = self.tenant.database, self.tenant.now
        companies = [seed(database, now(), intervals=ALWAYS, limits=LIMITS) for _ in range(count)]
        return [a_pending_attempt(of_company(self.tenant, company)) for company in companies]

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

    def in_an_hour(self) -> datetime:
        return (self.tenant.now() + timedelta(hours=1)).replace(microsecond=0)

    def move(self, attempt: Attempt) -> bool:
        due_at = self.in_an_hour()
        return self._command(Verb.MOVE, attempt, moving(attempt, due_at), due_at=due_at)

    def delete(self, attempt: Attempt) -> bool:
        return self._command(Verb.DELETE, attempt, deleting(attempt))

    def cancel_as_operator(self, attempt: Attempt) -> bool:
        asked_at = self.tenant.now()
        accepted = OperatorCommands(self.tenant.database, self.tenant.now).cancel([attempt.id], "a race")
        return self.note(asked_at, 202 if accepted else 409, **about(Verb.DELETE, attempt))

    def invoke(self, attempt: Attempt) -> bool:
        return self._command(Verb.INVOKE, attempt, InvokeAttempt(interview_id=attempt.interview_id))

    def pause(self, attempt: Attempt) -> bool:
        asked_at = self.tenant.now()
        self._pauses.pause(attempt.company_id, "a race")
        self.note(asked_at, NOT_A_COMMAND, verb=Verb.PAUSE, company_id=attempt.company_id)
        return bool(self.count(f"id = '{attempt.id}' AND claimed_at IS NOT NULL"))

    def resume(self, attempt: Attempt) -> None:
        asked_at = self.tenant.now()
        self._pauses.resume(attempt.company_id)
        self.note(asked_at, NOT_A_COMMAND, verb=Verb.RESUME, company_id=attempt.company_id)

    @property
    def _pauses(self) -> Pauses:
        return Pauses(self.tenant.database, self.tenant.now)

    def _command(self, verb: Verb, attempt: Attempt, request: Request, **more: Any) -> bool:
        """Accept and apply a command, like the intake and a worker. Return True if it came too late."""
        asked_at = self.tenant.now()
        command = self.accept(request)
        if self.workers_run and command.applied_at is None:
            command = self._applied(command)
        return self.note(asked_at, _status(verb, command), command, **about(verb, attempt, command), **more)

    def _applied(self, command: Command) -> Command:
        """Apply the command as a worker does, which gets its hint again while another transaction holds a row."""

        def applied() -> Command | None:
            Apply(self.tenant.context, RecordingHints()).command(command.id)
            found = self.command(str(command.id))
            return None if found.applied_at is None else found

        return wait_until(applied, says="the command is applied")

    def note(self, asked_at: datetime, status: int, command: Command | None = None, **asked: Any) -> bool:
        """Note a request and its response, which has just arrived. Return True if the request came too late."""
        told = ClientResponse(status=status, at=self.tenant.now())
        with self.lock:
            if command is not None and command.applied_at is None:
                self.commands.append((len(self.asked), command))
            self.asked.append(ClientRequest(asked_at=asked_at, told=told, **asked))
        return status >= 400

    def let_the_workers_run(self) -> None:
        """Apply all waiting commands."""
        for place, command in self.commands:
            asked = self.asked[place]
            applied = self._applied(command)
            told = ClientResponse(status=_status(asked.verb, applied), at=self.tenant.now())
            self.asked[place] = replace(asked, applied=told)

    def apply_all(self) -> None:
        """Apply the commands of operators, which no caller waits for."""
        apply = Apply(self.tenant.context, RecordingHints())
        for row in self.tenant.ask("SELECT id FROM inbox WHERE applied_at IS NULL ORDER BY seq"):
            apply.command(row.id)

    # ---- results

    def release_until_all_rang(self) -> None:
        """Send hints for due attempts until no attempt waits, as the clock does."""
        hints = RecordingHints()
        release = Release(self.tenant.context, hints, self.tenant.account_id)

        def all_rang() -> bool:
            release.round(resends=False)
            for _, ids in hints.rings:
                self.dialler.hand(*ids)
            hints.rings.clear()
            return not self.count(WAITS)

        wait_until(all_rang, seconds=90, says="all phones have rung")

    def hint_again(self, attempts: Sequence[Attempt]) -> None:
        """Send a second, late hint for each attempt."""
        for start in range(0, len(attempts), _IDS_A_RING):
            self.dialler.hand(*(attempt.id for attempt in attempts[start : start + _IDS_A_RING]))

    def count(self, condition: str) -> int:
        return int(self.tenant.ask(f"SELECT count(*) FROM attempts WHERE {condition}")[0][0])

    def settle_down(self) -> None:
        """Wait until every claim is recorded and every call has ended."""
        [last] = self.some_attempts(1)

        def is_placed() -> bool:
            put_back = [row.id for row in self.tenant.ask(_PUT_BACK, soon=self.tenant.now() + timedelta(minutes=1))]
            self.dialler.hand(last.id, *put_back)
            # Count without locks, because a claim skips locked rows and drops their hints.
            return not put_back and bool(self.count(f"id = '{last.id}' AND call_sid IS NOT NULL"))

        wait_until(is_placed, seconds=60, says="the last call is placed, and all that were put back")
        wait_until(lambda: not self.count("phase = 'DIALLING'"), seconds=60, says="all calls are recorded")
        wait_until(lambda: not self.carrier.verdict()["alive"], seconds=60, says="all calls have ended")

    def judged(
        self, kind: str, attempts: Sequence[Attempt], dialler_won: int, fair: tuple[float, float] = FAIR
    ) -> History:
        """Return the history. Fails if it contains a violation, or if either side won too few races."""
        self.settle_down()
        history = History(
            attempts=rows_of(self.environment["DATABASE_URL"]),
            rings=rings_from(self.carrier.rings()),
            asked=tuple(self.asked),
            until=self.tenant.now(),
            patience=replace(IN_FLIGHT, line_gap=self.tenant.policy.line_gap),
        )
        rang = sum(bool(history.rings_of.get(attempt.id)) for attempt in attempts)
        deferred = sum(happening.event == "deferred" for row in history.attempts for happening in row.happenings)
        self.say(
            f"{kind}: {len(attempts)} races, the dialler won {dialler_won / len(attempts):.0%}, {rang} of them rang,"
            f" {len(history.rings)} rings in all, {deferred} deferred, {monotonic() - self.began:.1f} s,"
            f" seed {self.seed}"
        )
        assert violations(history) == []
        assert self.carrier.verdict()["tokens_posted_twice"] == []
        assert fair[0] < dialler_won / len(attempts) < fair[1], "one side won nearly every race"
        return history


@contextmanager
def a_race_setup(
    postgres_url: str, say: Callable[[str], None] = print, *, workers_run: bool = True
) -> Iterator[RaceSetup]:
    chosen = int(os.environ.get("DUECALL_SEED") or random.SystemRandom().randrange(10**6))
    # No callbacks are needed, because a race ends when the phone rings.
    with a_carrier_apart({"ring_s": 0.05, "talk_s": 0.05, "callbacks": "none"}) as carrier:
        environment = environment_of(postgres_url, carrier)
        with a_company(environment, pool_size=AT_ONCE, limits=LIMITS) as tenant, dialling(environment) as dialler:
            yield RaceSetup(
                tenant=tenant,
                carrier=carrier,
                environment=environment,
                dialler=dialler,
                say=say,
                seed=chosen,
                workers_run=workers_run,
            )


def _status(verb: Verb, command: Command) -> int:
    """Read the client's status. Only a call in progress may refuse a request of a race."""
    if command.answer is not None and command.answer.refusal is not None:
        assert command.answer.refusal.code == "CALL_ATTEMPT_IN_PROGRESS", command.answer.refusal
    return status_of(verb, command)
