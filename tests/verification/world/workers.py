"""The system around the crashing processes: carrier, callbacks, workers, clock, dialler and settling."""

import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from scheduler.carriers.interface import NotACallback
from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.attempt import Attempt
from scheduler.persistence.errors import DatabaseAway
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.erase import Erase, ErasePeople
from scheduler.use_cases.operations.stale_times import ScheduleRecomputer
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import real_now, wait_until
from tests.support.builders import Tenant, a_number, a_pending_attempt
from tests.support.servers import SimulatedCarrier, a_carrier, a_door, address_of, serving
from tests.verification.world.installation import Dialler, Installation, a_company, ended, environment_of

CPS = 50.0
SETTINGS = {
    "TWILIO_CPS": str(CPS),
    "TWILIO_MAX_CALLS": "1000",
    "DIAL_LEASE_S": "3",
    "SETTLE_S": "5",
    "SWEEP_S": "0.5",
    "CARRIER_TOTAL_TIMEOUT_S": "1",
    "CARRIER_CONNECT_TIMEOUT_S": "0.5",
    "RING_TIMEOUT_S": "2",
    "LINE_GAP_S": "1",
    "SHORT_CALL_S": "0",
    "OUTCOME_WAIT_S": "5",
    "VOICE_PROBE": "0",
}
"""The account's limits, and the protocol's times, all scaled down. `Policy` rejects combinations in an unsafe order."""
LONGER = {"DIAL_LEASE_S": "5", "SETTLE_S": "8", "CARRIER_TOTAL_TIMEOUT_S": "1.5"}
"""Longer times for many parallel cells, because a dialler that gets no CPU for a whole lease ends itself."""

CALLBACK, CLOCK = "callback", "clock"
"""Steps of `CrashSetup` that are not tasks."""
_NO_TURN = nullcontext()


@dataclass
class QueueHints:
    """Send hints through a queue in this process instead of Redis."""

    rung: SimpleQueue[tuple[str, UUID]] = field(default_factory=SimpleQueue)

    def send(self, task: str, ids: Sequence[UUID] = (), due_at: Mapping[UUID, datetime] | None = None) -> None:
        assert not due_at, "its clock releases nothing early"
        for each in ids:
            self.rung.put((task, each))

    def send_again(self, task: str, ids: Sequence[UUID], after_s: float) -> None:
        """Do nothing, because the clock sends the hints again."""

    def answered(self, command_id: UUID) -> None:
        """Do nothing, because no caller waits for the answer."""


@dataclass(frozen=True, kw_only=True)
class CrashSetup(Installation):
    dialler: Dialler
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


@dataclass(frozen=True, kw_only=True)
class Dialled:
    """An attempt and the process that dials it."""

    setup: CrashSetup
    id: UUID
    number: str
    process: ForkServerProcess

    @property
    def attempt(self) -> Attempt:
        return self.setup.tenant.attempt(self.id)

    @property
    def history(self) -> list[str]:
        return self.setup.tenant.history(self.id)

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self.setup.carrier.requests(self.number)


def dialled(setup: CrashSetup, tenant: Tenant | None = None, **settings: Any) -> Dialled:
    """Create a due attempt and start a process that dials it."""
    number = a_number()
    attempt_id = a_pending_attempt(tenant or setup.tenant, number).id
    return Dialled(setup=setup, id=attempt_id, number=number, process=setup.dialling([attempt_id], **settings))


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
    with a_carrier() as carrier, at_work(postgres_url, carrier, settings, settling=settling) as setup:
        yield setup


@contextmanager
def at_work(
    postgres_url: str,
    carrier: SimulatedCarrier,
    settings: Mapping[str, str],
    *,
    settling: bool = True,
    everything: bool = False,
    between_rounds_s: float = 0.4,
    **company: Any,
) -> Iterator[CrashSetup]:
    """Run a company with the settings in `company`. `everything` adds workers for every hint, a clock and a dialler.

    Clock and settler pause between two rounds.
    """
    door = a_door()
    account = carrier.account(public_url=address_of(door))
    environment = environment_of(postgres_url, carrier, PUBLIC_URL=address_of(door), **{**SETTINGS, **settings})
    with ExitStack() as stack:
        tenant = stack.enter_context(a_company(environment, pool_size=16, **company))
        hints = QueueHints()
        setup = CrashSetup(tenant=tenant, carrier=carrier, environment=environment, dialler=Dialler(environment))
        hear = Hear(tenant.context, hints, TwilioCallbacks(account))
        verbs: dict[str, Callable[[UUID], None]] = {tasks.HEAR: hear.event}
        settle = Settle(tenant.context, TwilioQueries(account, tenant.policy), tenant.account_id)
        release = Release(tenant.context, hints, tenant.account_id)
        records = ScheduleRecomputer(tenant.context, hints)
        people = ErasePeople(tenant.context, hints)

        def look() -> None:
            release.round(resends=True)
            records.recompute()
            people.turn()

        if everything:
            stack.callback(setup.dialler.stop)
            verbs |= {
                tasks.APPLY: Apply(tenant.context, hints).command,
                tasks.DIAL: setup.dialler.hand,
                tasks.ERASE: Erase(tenant.context, hints).company,
            }

        def store(*received: Any, is_fallback: bool) -> None:
            setup.received.append(received)
            with setup.turns[CALLBACK]:
                hear.store([hear.genuine(*received, is_fallback=is_fallback)])

        stack.enter_context(serving(callbacks_to(store), door))
        stack.enter_context(repeated(lambda: _do_one(hints, verbs, setup)))
        if everything:
            stack.enter_context(repeated(look, between_rounds_s, setup.turns[CLOCK]))
        if settling:
            stack.enter_context(repeated(settle.round, between_rounds_s, setup.turns[tasks.SETTLE]))
        yield setup


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


def callbacks_to(store: Callable[..., None]) -> FastAPI:
    """Build an app that receives the carrier's callbacks like the API's routes, without the API.

    `store` gets token, path, form and signature of each, and whether it requests other instructions (`is_fallback`).
    """
    app = FastAPI(openapi_url=None)

    async def stored(request: Request, token: str, *, is_fallback: bool) -> Response:
        form = [(name, str(value)) for name, value in (await request.form()).multi_items()]
        signature = request.headers.get("x-twilio-signature", "")
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        try:
            await run_in_threadpool(store, token, path, form, signature, is_fallback=is_fallback)
        except NotACallback:
            return Response(status_code=403)
        except DatabaseAway:
            return Response(status_code=503)
        return Response(status_code=204)

    @app.post("/carrier/twilio/{token}")
    async def callback(token: str, request: Request) -> Response:
        return await stored(request, token, is_fallback=False)

    @app.post("/carrier/twilio/{token}/fallback")
    async def fallback(token: str, request: Request) -> Response:
        return await stored(request, token, is_fallback=True)

    return app


@contextmanager
def repeated(
    step: Callable[[], object], pause_s: float = 0, turn: AbstractContextManager[Any] = _NO_TURN
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


def is_stopped(process: ForkServerProcess) -> bool:
    """Check that the kernel has stopped this process."""
    stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii")
    return stat.rpartition(")")[2].split()[0] == "T"


def threads_that_take(number: signal.Signals, process: ForkServerProcess) -> set[int]:
    """List the ids of the threads of the process that do not block the signal."""
    found = set()
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        [blocked] = [line for line in (thread / "status").read_text().splitlines() if line.startswith("SigBlk:")]
        if not int(blocked.split()[1], 16) >> (number - 1) & 1:
            found.add(int(thread.name))
    return found


def frozen(process: ForkServerProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(process), says="the process is frozen")


def thawed(process: ForkServerProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)


def let_time_pass(span: timedelta, *, says: str) -> None:
    since = real_now()
    wait_until(lambda: real_now() > since + span, seconds=60, says=says)
