"""Dial workers on a slow machine, or far from the database: they return calls and leave no outcome unknown."""

import contextlib
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from scheduler.lifecycle.policy import RELEASE_SPAN
from tests.conftest import wait_until
from tests.support.servers import wired
from tests.verification.world.bulk_attempts import bulk_attempts
from tests.verification.world.installation import Dialler, dialling
from tests.verification.world.workers import CrashSetup, let_time_pass, stopped, working

pytestmark = pytest.mark.crash
RUNS_S, STANDS_S = 0.02, 0.14


@contextmanager
def starved(process: ForkServerProcess) -> Iterator[None]:
    """Inside the block, give the process an eighth of a CPU, in slices, as on an overcommitted machine."""
    assert process.pid is not None
    pid, over = process.pid, threading.Event()

    def run() -> None:
        with contextlib.suppress(ProcessLookupError):  # the process has ended, and the test checks its exit code
            while not over.wait(RUNS_S):
                os.kill(pid, signal.SIGSTOP)
                over.wait(STANDS_S)
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def events(setup: CrashSetup, event: str) -> int:
    return int(setup.tenant.ask("SELECT count(*) FROM attempt_history WHERE event = :event", event=event)[0][0])


def undecided_and_never_sent(setup: CrashSetup) -> list[UUID]:
    """List attempts whose lease lapsed although the carrier received no request for them."""
    sent = {request["token"] for request in setup.carrier.requests()}
    rows = setup.tenant.ask(
        "SELECT h.attempt_id, t.token FROM attempt_history h JOIN attempt_tokens t ON t.attempt_id = h.attempt_id"
        " WHERE h.event = 'answer_lost'"
    )
    tokens: dict[UUID, set[str]] = defaultdict(set)
    for attempt_id, token in rows:
        tokens[attempt_id].add(token)
    return [attempt_id for attempt_id, theirs in tokens.items() if not theirs & sent]


def is_dialling(setup: CrashSetup) -> bool:
    return bool(setup.tenant.ask("SELECT count(*) FROM attempts WHERE phase = 'DIALLING'")[0][0])


def hinted(dialler: Dialler, ids: list[UUID], what: Callable[[], bool]) -> bool:
    """Send hints again, as the clock does: on a busy machine a lock times out, or a call is put back."""
    dialler.hand(*ids)
    return what()


@pytest.mark.timeout(180)
def test_starved_dialler_leaves_no_unsent_call_undecided(postgres_url: str) -> None:
    """Each call is returned after three looks that were too old, long before its time to be sent is over."""
    with working(postgres_url, DIAL_LEASE_S="12", SETTLE_S="14", TWILIO_CPS="200") as setup:
        setup.carrier.plan(ring_s=0, talk_s=0, callbacks="none")
        process = setup.dialling(bulk_attempts(postgres_url, setup.tenant, 300, due_at=setup.tenant.now()))
        wait_until(lambda: events(setup, "claimed"), says="the dialler has started claiming")
        with starved(process):
            let_time_pass(RELEASE_SPAN, says="the hints have expired")
        wait_until(lambda: not is_dialling(setup), seconds=60, says="no call is being dialled")
        assert stopped(process) == [0]
        assert undecided_and_never_sent(setup) == []


@pytest.mark.timeout(180)
def test_slow_database_raises_alarm_and_leaves_no_call_undecided(postgres_url: str, tmp_path: Path) -> None:
    with working(postgres_url, DIAL_LEASE_S="20", SETTLE_S="60") as setup, wired(postgres_url) as (wire, url):
        wire.delay_s = 0.12
        ids = bulk_attempts(postgres_url, setup.tenant, 30, due_at=setup.tenant.now())
        log = tmp_path / "log"
        log.touch()
        process = setup.dialling(ids, DATABASE_URL=url, DATABASE_WORKER_URL=url, LOG_TO=str(log))
        wait_until(lambda: "DATABASE_SLOW" in log.read_text(), seconds=60, says="the alarm names the cause")
        let_time_pass(RELEASE_SPAN, says="the hints have expired")
        wait_until(lambda: not is_dialling(setup), seconds=60, says="no call is being dialled")
        assert stopped(process) == [0]
        assert setup.carrier.requests() == []
        assert events(setup, "answer_lost") == 0
        assert events(setup, "claimed") == events(setup, "deferred")


@pytest.mark.timeout(180)
def test_dialler_with_a_distant_database_places_calls(postgres_url: str) -> None:
    with working(postgres_url, DIAL_LEASE_S="30", SETTLE_S="60") as setup, wired(postgres_url) as (wire, url):
        wire.delay_s = 0.05
        setup.carrier.plan(ring_s=0, talk_s=0, callbacks="none")
        ids = bulk_attempts(postgres_url, setup.tenant, 3, due_at=setup.tenant.now())
        with dialling(setup.environment | {"DATABASE_URL": url, "DATABASE_WORKER_URL": url}) as dialler:
            wait_until(
                lambda: hinted(dialler, ids, lambda: events(setup, "placed") == len(ids)),
                seconds=60,
                says="every call is placed",
            )


def test_calls_of_a_late_claim_are_sent_one_after_the_other(postgres_url: str) -> None:
    step = timedelta(seconds=0.5)
    with working(postgres_url, DIAL_LEASE_S="20", SETTLE_S="60", TWILIO_CPS="2") as setup:
        setup.carrier.plan(ring_s=0, talk_s=0, callbacks="none")
        with dialling(setup.environment) as dialler:
            with psycopg.connect(postgres_url) as connection:
                connection.execute("SELECT FROM carrier_accounts FOR UPDATE")
                ids = bulk_attempts(postgres_url, setup.tenant, 2, due_at=setup.tenant.now())
                dialler.hand(*ids)
                blocked = "SELECT FROM pg_locks WHERE NOT granted"
                wait_until(lambda: setup.tenant.ask(blocked), says="a claim waits for its lock")
                let_time_pass(2 * step, says="the claim is late, but its lock has not timed out")
            wait_until(
                lambda: hinted(dialler, ids, lambda: len(setup.carrier.requests()) == 2),
                seconds=60,
                says="both calls are sent",
            )
        first, second = sorted(datetime.fromisoformat(request["at"]) for request in setup.carrier.requests())
        assert second - first > step / 2
