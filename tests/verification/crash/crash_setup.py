"""The system around the crashing processes: carrier, callbacks, workers, clock, dialler and settling."""

import multiprocessing
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from scheduler.carriers.interface import NotACallback
from scheduler.carriers.twilio_callbacks import TwilioCallbacks
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.settings import Settings
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.erase import Erase
from scheduler.use_cases.operations.recompute_schedules import ScheduleRecomputer
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import real_now, seed, wait_until
from tests.support.builders import ALWAYS, Tenant, a_house
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier, a_carrier, a_door, address_of, serving
from tests.verification.crash import dial_process, step_process
from tests.verification.crash.wrong_clock import WrongClock
from tests.verification.races.processes import dial_as_told

PEPPER = "a pepper for tests"
CPS = 50.0
TIMES = {
    "DIAL_LEASE_S": "3",
    "SETTLE_S": "5",
    "SWEEP_S": "0.5",
    "CARRIER_TOTAL_TIMEOUT_S": "1",
    "CARRIER_CONNECT_TIMEOUT_S": "0.5",
    "RING_TIMEOUT_S": "2",
    "LINE_GAP_S": "1",
}
"""The protocol's times, all scaled down. `Policy` rejects combinations in an unsafe order."""
LONGER = {"DIAL_LEASE_S": "5", "SETTLE_S": "8", "CARRIER_TOTAL_TIMEOUT_S": "1.5"}
"""Longer times for many parallel cells, because a dialler that gets no CPU for a whole lease ends itself."""

_AT_ANY_TIME = nullcontext()
CALLBACK, CLOCK = "callback", "clock"
"""Steps of `CrashSetup` that are not tasks."""

# A clean process that has imported the modules once. Each process here is forked from it within milliseconds.
nursery = multiprocessing.get_context("forkserver")
nursery.set_forkserver_preload(
    [
        "tests.verification.crash.dial_process",
        "tests.verification.crash.step_process",
        "tests.verification.races.processes",
    ]
)


@dataclass
class QueueHints:
    """Send hints through a queue in this process instead of Redis."""

    rung: SimpleQueue[tuple[str, UUID]] = field(default_factory=SimpleQueue)

    def send(self, task: str, ids: Sequence[UUID] = ()) -> None:
        for each in ids:
            self.rung.put((task, each))

    def answered(self, command_id: UUID) -> None:
        """Do nothing, because no caller waits for the answer."""


class Dialler:
    """A dial worker that gets its hints through a pipe. A hint starts it if it is not running."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: ForkServerProcess | None = None
        self._pipe, _ = nursery.Pipe()
        self.deaths = 0

    def hand(self, attempt_id: UUID) -> None:
        if self._process is not None and has_ended(self._process):
            self.deaths += 1
            self._process = None
        if self._process is None:
            self._start()
        self._pipe.send((0.0, (attempt_id,)))

    def _start(self) -> None:
        self._pipe, theirs = nursery.Pipe()
        self._process = nursery.Process(target=dial_as_told, args=(self._environment, theirs), daemon=True)
        begun(self._process)

    def stop(self) -> None:
        """Stop after recording the calls already sent. The next hint starts a new process."""
        if self._process is not None and not has_ended(self._process):
            self._pipe.send(None)
            ended(self._process, within_s=60)
            self._process = None


@dataclass(frozen=True, kw_only=True)
class CrashSetup:
    tenant: Tenant
    carrier: SimulatedCarrier
    environment: dict[str, str]
    dialler: "Dialler"
    """Dialler of the installation itself. It stays idle unless the clock sends hints for due attempts."""
    turns: dict[str, Lock] = field(default_factory=lambda: defaultdict(Lock))
    """One lock per step, held while the step runs."""
    received: list[tuple[Any, ...]] = field(default_factory=list)
    """Token, path, form and signature of every callback, in order of arrival."""

    @contextmanager
    def leave(self, *steps: str) -> Iterator[None]:
        """Suspend these steps inside the block, so that only the test's own processes run them. Due work waits."""
        with ExitStack() as stack:
            for step in steps:
                stack.enter_context(self.turns[step])
            yield

    def dialling(self, ids: Sequence[UUID], clock: WrongClock | None = None, **settings: str) -> ForkServerProcess:
        """Start a dial process with hints for these attempts."""
        can_be_told = nursery.Event()
        process = nursery.Process(
            target=dial_process.run, args=(self.environment | settings, list(ids), can_be_told, clock), daemon=True
        )
        begun(process)
        assert can_be_told.wait(60)
        return process

    def doing(self, step: str, *words: Any, clock: WrongClock | None = None, **settings: str) -> ForkServerProcess:
        """Start a process that runs this step and exits."""
        process = nursery.Process(
            target=step_process.run,
            args=(self.environment | settings, step, *words),
            kwargs={"clock": clock},
            daemon=True,
        )
        return begun(process)

    def requests(self, to: str) -> list[dict[str, Any]]:
        return self.carrier.requests(to)


_one_thread = Lock()
"""Starting a process polls all earlier ones, and two threads that poll one process read its exit code twice."""


def begun(process: ForkServerProcess) -> ForkServerProcess:
    with _one_thread:
        process.start()
    return process


def has_ended(process: ForkServerProcess) -> bool:
    with _one_thread:
        return process.exitcode is not None


def ended(process: ForkServerProcess, *, within_s: float = 20.0) -> int:
    """Wait until the process ends by itself. Return its exit code, negative for the signal that ended it."""
    wait([process.sentinel], within_s)
    with _one_thread:
        code = process.exitcode
    assert code is not None, f"process {process.pid} has not ended in {within_s} s"
    return code


def stopped(*processes: ForkServerProcess) -> list[int]:
    """Send SIGTERM to all processes, then wait for each. Return their exit codes."""
    for process in processes:
        process.terminate()
    return [ended(process) for process in processes]


def killed(process: ForkServerProcess) -> int:
    process.kill()
    return ended(process)


@contextmanager
def working(postgres_url: str, *, settling: bool = True, **settings: str) -> Iterator[CrashSetup]:
    """Run a company on the machine's clock, with workers that hear and settle only: none applies, releases or dials."""
    with a_carrier() as carrier, _at_work(postgres_url, carrier, settings, settling=settling) as setup:
        yield setup


@contextmanager
def all_working(postgres_url: str, carrier: SimulatedCarrier, company: Mapping[str, Any]) -> Iterator[CrashSetup]:
    """Run a company with workers for every hint, a clock and a dialler. `company` contains the company's settings."""
    with _at_work(postgres_url, carrier, LONGER, everything=True, company=company) as setup:
        yield setup


@contextmanager
def _at_work(
    postgres_url: str,
    carrier: SimulatedCarrier,
    settings: Mapping[str, str],
    *,
    settling: bool = True,
    everything: bool = False,
    company: Mapping[str, Any] | None = None,
) -> Iterator[CrashSetup]:
    door = a_door()
    with ExitStack() as stack:
        environment = {
            **TIMES,
            "DATABASE_URL": postgres_url,
            "DATABASE_WORKER_URL": postgres_url,
            "TWILIO_API_URL": carrier.url,
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": PRIMARY,
            "TWILIO_VOICE_URL": "https://example.com/voice",
            "TWILIO_CPS": str(CPS),
            "TWILIO_MAX_CALLS": "1000",
            "PUBLIC_URL": address_of(door),
            "KEY_PEPPER": PEPPER,
            "DUECALL_FAILPOINT": "",
            **settings,
        }
        policy = Settings(**{name.lower(): value for name, value in environment.items()}).policy  # type: ignore[arg-type]
        database = Database(postgres_url, pool_size=16)
        stack.callback(database.close)
        account = carrier.account(public_url=address_of(door))
        hints = QueueHints()
        tenant = a_house(
            database,
            seed(database, real_now(), intervals=ALWAYS, **(company or {})),
            Hasher(PEPPER),
            real_now,
            policy=policy,
            account_sid=ACCOUNT_SID,
            calls_per_second=float(environment["TWILIO_CPS"]),
        )
        setup = CrashSetup(tenant=tenant, carrier=carrier, environment=environment, dialler=Dialler(environment))
        hear = Hear(tenant.context, hints, TwilioCallbacks(account))
        verbs: dict[str, Callable[[UUID], None]] = {tasks.HEAR: hear.event}
        settle = Settle(tenant.context, TwilioQueries(account, policy), tenant.account_id)
        release = Release(tenant.context, hints, tenant.account_id)
        records = ScheduleRecomputer(tenant.context, hints)

        def look() -> None:
            release.due()
            release.resend_hints()
            records.reresolve()

        if everything:
            stack.callback(setup.dialler.stop)
            verbs |= {
                tasks.APPLY: Apply(tenant.context, hints).command,
                tasks.DIAL: setup.dialler.hand,
                tasks.ERASE: Erase(tenant.context, hints).company,
            }

        def store(*received: Any) -> None:
            setup.received.append(received)
            with setup.turns[CALLBACK]:
                hear.callback(*received)

        stack.enter_context(serving(_callbacks(store), door))
        stack.enter_context(_repeated(lambda: _do_one(hints, verbs, setup), pause_s=0))
        if everything:
            stack.enter_context(_repeated(look, pause_s=0.4, turn=setup.turns[CLOCK]))
        if settling:
            stack.enter_context(_repeated(settle.round, pause_s=0.4, turn=setup.turns[tasks.SETTLE]))
        yield setup


@contextmanager
def without_a_breaker(change: Callable[[str], None]) -> Iterator[None]:
    """Keep the carrier's breaker closed, so that a failed call does not stop others. `change` executes a statement."""
    change(
        "CREATE FUNCTION keep_closed() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN NEW.failures := 0; NEW.down_until := NULL; RETURN NEW; END $$"
    )
    change("CREATE TRIGGER keep_closed BEFORE UPDATE ON carrier_accounts FOR EACH ROW EXECUTE FUNCTION keep_closed()")
    try:
        yield
    finally:
        change("DROP TRIGGER keep_closed ON carrier_accounts")
        change("DROP FUNCTION keep_closed")


def _do_one(hints: QueueHints, verbs: Mapping[str, Callable[[UUID], None]], setup: CrashSetup) -> None:
    try:
        task, each = hints.rung.get(timeout=0.1)
    except Empty:
        return
    turn = setup.turns[task]
    if not turn.acquire(timeout=0.05):
        hints.rung.put((task, each))  # suspended: the hints behind it need not wait
        return
    try:
        verbs[task](each)
    finally:
        turn.release()


def _callbacks(store: Callable[[str, str, list[tuple[str, str]], str], None]) -> FastAPI:
    """Build an app that receives the carrier's callbacks like the API's route, without the API."""
    app = FastAPI(openapi_url=None)

    @app.post("/carrier/twilio/{token}")
    async def callback(token: str, request: Request) -> Response:
        form = [(name, str(value)) for name, value in (await request.form()).multi_items()]
        signature = request.headers.get("x-twilio-signature", "")
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        try:
            await run_in_threadpool(store, token, path, form, signature)
        except NotACallback:
            return Response(status_code=403)
        except DatabaseAway:
            return Response(status_code=503)
        return Response(status_code=204)

    return app


@contextmanager
def _repeated(
    step: Callable[[], None], *, pause_s: float, turn: AbstractContextManager[Any] = _AT_ANY_TIME
) -> Iterator[None]:
    """Repeat `step` in a separate thread, holding the lock `turn`. Raises its first failure at the end of the block."""
    over = threading.Event()
    failures: list[Exception] = []

    def run() -> None:
        while not over.is_set():
            try:
                with turn:
                    step()
            except DatabaseAway:
                pass
            except Exception as failure:  # noqa: BLE001 - raised below, in the test's own thread
                failures.append(failure)
            over.wait(pause_s)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


def instant(text: str | None) -> datetime | None:
    """Parse an instant from the carrier's ledger."""
    return None if text is None else datetime.fromisoformat(text)


def is_stopped(pid: int) -> bool:
    """Return True if the kernel has stopped this process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123 - one line of the kernel's
        return stat.read().rpartition(")")[2].split()[0] == "T"


def threads_that_take(number: signal.Signals, pid: int) -> set[int]:
    """Return the ids of the threads of process `pid` that do not block the signal."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        [blocked] = [line for line in (thread / "status").read_text().splitlines() if line.startswith("SigBlk:")]
        if not int(blocked.split()[1], 16) >> (number - 1) & 1:
            found.add(int(thread.name))
    return found


def frozen(process: ForkServerProcess) -> None:
    assert process.pid is not None
    pid = process.pid
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(pid), says="the process is frozen")


def thawed(process: ForkServerProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)
