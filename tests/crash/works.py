"""All that goes on around the dial processes of the crash tests: carrier, callbacks, hearing, settling."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.context import ForkServerProcess
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from scheduler.carriers.interface import NotACallback
from scheduler.carriers.twilio import TwilioCallbacks, TwilioDesk
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database, DatabaseAway
from scheduler.settings import Settings
from scheduler.use_cases import bell as tasks
from scheduler.use_cases.consequences import Consequences
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.settle import Settle
from tests.builders import ALWAYS, House, a_house
from tests.conftest import real_now, seed, wait_until
from tests.crash import dial_process
from tests.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier, a_carrier, a_door, address_of, serving

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
"""The protocol's times, scaled down together; `Policy` refuses an order among them that would not be safe."""

# A clean process that has read the modules once: each process here is a fork of it, made in milliseconds.
nursery = multiprocessing.get_context("forkserver")
nursery.set_forkserver_preload(["tests.crash.dial_process", "tests.crash.erase_process"])


@dataclass
class QueueBell:
    """Rings in a queue of this process; a ring is a hint, as over Redis."""

    heard: SimpleQueue[UUID] = field(default_factory=SimpleQueue)

    def ring(self, task: str, ids: Sequence[UUID] = ()) -> None:
        if task == tasks.HEAR:
            for each in ids:
                self.heard.put(each)

    def answered(self, command_id: UUID) -> None:
        """Nobody waits."""


@dataclass(frozen=True, kw_only=True)
class Works:
    house: House
    carrier: SimulatedCarrier
    environment: dict[str, str]

    def dialling(self, ids: Sequence[UUID], **settings: str) -> ForkServerProcess:
        """A dial process with these ids in its hand."""
        can_be_told = nursery.Event()
        process = nursery.Process(
            target=dial_process.run, args=(self.environment | settings, list(ids), can_be_told), daemon=True
        )
        process.start()
        assert can_be_told.wait(20)
        return process

    def requests(self, to: str) -> list[dict[str, Any]]:
        return self.carrier.requests(to)


def ended(process: ForkServerProcess, *, within_s: float = 20.0) -> int:
    """The exit code of a process that ends by itself; negative: the signal that ended it."""
    process.join(within_s)
    assert process.exitcode is not None, f"process {process.pid} has not ended in {within_s} s"
    return process.exitcode


def stopped(*processes: ForkServerProcess) -> list[int]:
    """Their exit codes after SIGTERM, sent to all before any is waited for."""
    for process in processes:
        process.terminate()
    return [ended(process) for process in processes]


def killed(process: ForkServerProcess) -> int:
    process.kill()
    return ended(process)


@contextmanager
def working(postgres_url: str, *, settling: bool = True, **settings: str) -> Iterator[Works]:
    """A company at work on the machine's clock: everything but the dialling."""
    door = a_door()
    with ExitStack() as stack:
        carrier = stack.enter_context(a_carrier())
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
        bell = QueueBell()
        consequences = Consequences(database, Hasher(PEPPER), policy, real_now)
        hear = Hear(database, bell, TwilioCallbacks(account), consequences, real_now)
        stack.enter_context(serving(_callbacks(hear), door))
        stack.enter_context(_repeated(lambda: _hear_one(hear, bell), pause_s=0))
        house = a_house(
            database,
            seed(database, real_now(), intervals=ALWAYS),
            Hasher(PEPPER),
            real_now,
            policy=policy,
            account_sid=ACCOUNT_SID,
            calls_per_second=float(environment["TWILIO_CPS"]),
        )
        settle = Settle(database, TwilioDesk(account, policy), house.account_id, consequences, policy, real_now)
        if settling:
            stack.enter_context(_repeated(settle.round, pause_s=0.25))
        yield Works(house=house, carrier=carrier, environment=environment)


@contextmanager
def without_a_breaker(house: House) -> Iterator[None]:
    """What goes wrong with one call here stops no other: each is a world of its own."""
    house.change(
        "CREATE FUNCTION keep_closed() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN NEW.failures := 0; NEW.down_until := NULL; RETURN NEW; END $$"
    )
    house.change(
        "CREATE TRIGGER keep_closed BEFORE UPDATE ON carrier_accounts FOR EACH ROW EXECUTE FUNCTION keep_closed()"
    )
    try:
        yield
    finally:
        house.change("DROP TRIGGER keep_closed ON carrier_accounts")
        house.change("DROP FUNCTION keep_closed")


def _hear_one(hear: Hear, bell: QueueBell) -> None:
    try:
        event_id = bell.heard.get(timeout=0.1)
    except Empty:
        return
    hear.event(event_id)


def _callbacks(hear: Hear) -> FastAPI:
    """Where the carrier reports; as the API's route does it, without the API."""
    app = FastAPI(openapi_url=None)

    @app.post("/carrier/twilio/{token}")
    async def callback(token: str, request: Request) -> Response:
        form = [(name, str(value)) for name, value in (await request.form()).multi_items()]
        signature = request.headers.get("x-twilio-signature", "")
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        try:
            await run_in_threadpool(hear.callback, token, path, form, signature)
        except NotACallback:
            return Response(status_code=403)
        except DatabaseAway:
            return Response(status_code=503)
        return Response(status_code=204)

    return app


@contextmanager
def _repeated(step: Callable[[], None], *, pause_s: float) -> Iterator[None]:
    """`step` again and again in a thread of its own; its failures are raised at the end."""
    over = threading.Event()
    failures: list[Exception] = []

    def run() -> None:
        while not over.is_set():
            try:
                step()
            except DatabaseAway:
                continue
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
    """One of the ledger's instants."""
    return None if text is None else datetime.fromisoformat(text)


def is_stopped(pid: int) -> bool:
    """Whether the kernel has frozen this process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123 - one line of the kernel's
        return stat.read().rpartition(")")[2].split()[0] == "T"


def frozen(process: ForkServerProcess) -> None:
    assert process.pid is not None
    pid = process.pid
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(pid), says="it stands still")
