"""An installation under test: one company on the machine's clock, the settings of its processes, and the processes."""

import heapq
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from threading import Lock
from typing import Any
from uuid import UUID

from scheduler import assembly
from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.command import Command, DeleteAttempt, Request, RescheduleAttempt
from scheduler.hashing import Hasher
from scheduler.logs import configure
from scheduler.persistence.database import Database
from scheduler.settings import Settings
from scheduler.use_cases.submit import Submit
from tests.conftest import real_now, seed
from tests.support.builders import ALWAYS, RecordingHints, Tenant, a_tenant
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier
from tests.verification.judge.history import Verb
from tests.verification.world import step_process
from tests.verification.world.wrong_clock import WrongClock

PEPPER = "a pepper for tests"
_LONG_S = 3600.0

# A clean process that has imported the modules once. Each process here is forked from it within milliseconds.
nursery = multiprocessing.get_context("forkserver")
nursery.set_forkserver_preload(
    [
        "tests.verification.world.step_process",
        "tests.verification.world.installation",
        # The assembly imports these only when it builds a dialler or a worker.
        "scheduler.carriers.twilio_calls",
        "scheduler.carriers.twilio_queries",
    ]
)


def environment_of(postgres_url: str, carrier: SimulatedCarrier, **settings: str) -> dict[str, str]:
    """Build the environment of an installation's processes. The limits of its account delay no call by default."""
    return {
        "DATABASE_URL": postgres_url,
        "DATABASE_WORKER_URL": postgres_url,
        "TWILIO_API_URL": carrier.url,
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": PRIMARY,
        "TWILIO_VOICE_URL": "https://example.com/voice",
        "TWILIO_CPS": "1000",
        "TWILIO_MAX_CALLS": "100000",
        "KEY_PEPPER": PEPPER,
        "DUECALL_FAILPOINT": "",
        **settings,
    }


@contextmanager
def a_company(environment: Mapping[str, str], *, pool_size: int = 8, **company: Any) -> Iterator[Tenant]:
    """Create a company that may call at any time. `company` contains its other settings."""
    settings = Settings(**{name.lower(): value for name, value in environment.items()})  # type: ignore[arg-type]
    key = Hasher(PEPPER).history_key()
    with closing(Database(environment["DATABASE_URL"], pool_size=pool_size, history_key=key)) as database:
        yield a_tenant(
            database,
            seed(database, real_now(), intervals=ALWAYS, **company),
            Hasher(PEPPER),
            real_now,
            policy=settings.policy,
            account_sid=ACCOUNT_SID,
            calls_per_second=settings.twilio_cps,
            max_calls=settings.twilio_max_calls,
        )


@dataclass(frozen=True, kw_only=True)
class Installation:
    tenant: Tenant
    carrier: SimulatedCarrier
    environment: dict[str, str]

    def dialling(self, ids: Sequence[UUID], clock: WrongClock | None = None, **settings: str) -> ForkServerProcess:
        """Start a dial process with hints for these attempts."""
        can_be_told = nursery.Event()
        process = begun(_dial, self.environment | settings, list(ids), can_be_told, clock)
        assert can_be_told.wait(60)
        return process

    def doing(self, step: str, *words: Any, clock: WrongClock | None = None, **settings: str) -> ForkServerProcess:
        """Start a process that runs this step and exits."""
        return begun(step_process.run, self.environment | settings, step, words, clock)

    def accept(self, request: Request, *, idempotency_key: str | None = None) -> Command:
        """Accept a request of the company, without applying its command."""
        return self._submit.command(
            self.tenant.principal, None, request, idempotency_key=idempotency_key, request_hash=b"the same"
        ).command

    def command(self, reference: str) -> Command:
        """Find the command with this id or idempotency key. Raises NotFound."""
        return self._submit.find(self.tenant.principal, reference)

    @property
    def _submit(self) -> Submit:
        return Submit(self.tenant.database, RecordingHints(), self.tenant.now)


def about(verb: Verb, attempt: Attempt, command: Command | None = None) -> dict[str, Any]:
    """Build the fields of a `ClientRequest` that name verb and attempt. INVOKE names the attempt that it created."""
    attempt_id: UUID | None = attempt.id
    if verb is Verb.INVOKE:
        attempt_id = command.answer.attempt_id if command is not None and command.answer is not None else None
    names = {"company_id": attempt.company_id, "interview_id": attempt.interview_id, "attempt_id": attempt_id}
    return {"verb": verb, **names}


def status_of(verb: Verb, command: Command) -> int:
    """Choose the status that a client receives for a command: 202 until it is applied, and 409 if it was refused."""
    if command.applied_at is None:
        return 202
    assert command.answer is not None
    if command.answer.refusal is not None:
        return 409
    return 201 if verb in {Verb.CREATE, Verb.INVOKE} else 204


def moving(attempt: Attempt, due_at: datetime) -> RescheduleAttempt:
    return RescheduleAttempt(
        interview_id=attempt.interview_id, attempt_id=attempt.id, scheduled_at=f"{due_at:%Y-%m-%dT%H:%M:%SZ}"
    )


def deleting(attempt: Attempt) -> DeleteAttempt:
    return DeleteAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id)


# ---- processes

_one_thread = Lock()
"""Starting a process polls all earlier ones, and two threads that poll one process read its exit code twice."""


def begun(target: Any, *args: Any) -> ForkServerProcess:
    process = nursery.Process(target=target, args=args, daemon=True)
    with _one_thread:
        process.start()
    return process


def has_ended(process: ForkServerProcess) -> bool:
    with _one_thread:
        return process.exitcode is not None


def ended(process: ForkServerProcess, *, within_s: float = 60.0) -> int:
    """Wait until the process ends by itself. Return its exit code, negative for the signal that ended it."""
    wait([process.sentinel], within_s)
    with _one_thread:
        code = process.exitcode
    assert code is not None, f"process {process.pid} has not ended in {within_s} s"
    return code


class Dialler:
    """A dial worker that gets its hints through a pipe. A hint starts it if it is not running."""

    pipe: Connection

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: ForkServerProcess | None = None
        # Only one thread at a time may use an end of a pipe.
        self._lock = Lock()
        self.deaths = 0

    def hand(self, *ids: UUID, at: float = 0.0, due_at: Mapping[UUID, datetime] | None = None) -> None:
        """Send the hints at `at` on the monotonic clock, which all processes share, or immediately if `at` is past.

        `due_at` contains the due times of hints that come early.
        """
        with self._lock:
            if self._process is not None and has_ended(self._process):
                self.deaths += 1
                self._process = None
            if self._process is None:
                self.start()
            self.pipe.send((at, ids, due_at))

    def start(self) -> None:
        self.pipe, theirs = nursery.Pipe()
        self._process = begun(_dial_as_told, self._environment, theirs)

    def stop(self, *, within_s: float = 60.0) -> int:
        """Stop after recording the calls already sent. Return the exit code. The next hint starts a new process."""
        process = self._process
        if process is None:
            return 0
        is_running = not has_ended(process)
        if is_running:
            self.pipe.send(None)
        code = ended(process, within_s=within_s)
        if is_running:  # otherwise the next hint counts its death
            self._process = None
        return code


@contextmanager
def dialling(environment: Mapping[str, str]) -> Iterator[Dialler]:
    """Run one dial worker, with its event loop, threads and client, until the end of the block."""
    dialler = Dialler(environment)
    dialler.start()
    assert dialler.pipe.poll(60), "the dialler has not started"
    try:
        yield dialler
    finally:
        code = dialler.stop()
    assert (code, dialler.deaths) == (0, 0)


# ---- inside the processes


def _dial(environment: Mapping[str, str], ids: Sequence[UUID], can_be_told: Event, clock: WrongClock | None) -> None:
    """Dial these attempts until SIGTERM. `LOG_TO` in the environment names a file for the log.

    `can_be_told` is set as soon as SIGTERM no longer ends the process by itself.
    """
    # Block SIGTERM in every thread, so that it stays pending until `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    can_be_told.set()
    os.environ.update(environment)
    if "LOG_TO" in environment:
        os.dup2(os.open(environment["LOG_TO"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    configure()
    if clock is not None:
        clock.begin()
    dialler = assembly.dialler(Settings())
    dialler.start()
    dialler.take(ids)
    signal.sigwait({signal.SIGTERM})
    dialler.stop()


def _dial_as_told(environment: Mapping[str, str], pipe: Connection) -> None:
    """Run a dial worker. It sends "ready", then receives an instant, attempt ids and due times. None stops it."""
    os.environ.update(environment)
    configure()
    dialler = assembly.dialler(Settings())
    dialler.start()
    pipe.send("ready")
    hints: list[tuple[float, int, Any]] = []
    received = 0
    while True:
        while hints and hints[0][0] <= monotonic():
            dialler.take(*heapq.heappop(hints)[2])
        if not pipe.poll(max(0.0, hints[0][0] - monotonic()) if hints else _LONG_S):
            continue
        order = pipe.recv()
        if order is None:
            break
        received += 1
        heapq.heappush(hints, (order[0], received, order[1:]))
    dialler.stop()
