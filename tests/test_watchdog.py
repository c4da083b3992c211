"""Watchdog: a thread that hangs is reported and ends its process. One that goes on or waits for work is not."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from structlog.testing import capture_logs

from api_shim.thread_pools import ThreadPool
from scheduler import process
from scheduler.persistence.errors import Commit
from scheduler.persistence.sessions import ALLOWANCE_S, STATEMENT_S, BoundedConnection
from scheduler.process import EXIT_S, QUIET_DATABASE_S, QUIET_S, Watchdog, count_working, made_progress, watching
from scheduler.use_cases.shared.hints import QUEUES, SETTLE
from tests.architecture.guards import guards
from tests.conftest import wait_until
from workers.app import app
from workers.tasks import QuietTask

A_MOMENT_S = 0.01
FEW, SOME = 5, 50
"""Checks without a step after which a thread hangs."""


class Dog:
    def __init__(self) -> None:
        self.hung = threading.Event()
        self.alarms: Sequence[Mapping[str, object]] = []
        self.watchdog = Watchdog(self.hung.set, every_s=A_MOMENT_S)
        self.release = threading.Event()

    def in_thread(self, work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def hang(self, kind: str = SETTLE) -> None:
        with watching(kind, FEW):
            self.release.wait()


@pytest.fixture
def dog() -> Iterator[Dog]:
    dog = Dog()
    with capture_logs() as dog.alarms:
        yield dog
    dog.watchdog.stop()
    dog.release.set()


@guards("hung_thread")
def test_hanging_thread_is_reported_and_ends_the_process(dog: Dog) -> None:
    commit = Commit()
    assert commit._lock.acquire()

    def hang() -> None:
        with watching("settle.round", FEW):
            commit.send()

    dog.in_thread(hang)
    dog.watchdog.start()
    wait_until(lambda: dog.alarms, says="the hanging thread is reported")
    wait_until(dog.hung.is_set, says="the process is ended")
    commit._lock.release()
    [alarm] = dog.alarms
    assert (alarm["alarm"], alarm["kind"]) == ("THREAD_HUNG", "settle.round")
    assert re.fullmatch(r"scheduler/persistence/errors.py:\d+ send", str(alarm["cause"]))


def test_full_pool_of_hanging_threads_is_no_busy_one(dog: Dog) -> None:
    for _ in range(2):
        dog.in_thread(dog.hang)
    wait_until(lambda: count_working(QUEUES) == 2, says="both places are taken")
    dog.watchdog.start()
    wait_until(dog.hung.is_set, says="the process is ended")


def test_thread_that_makes_steps_does_not_hang(dog: Dog) -> None:
    def work() -> None:
        with watching("settle.round", SOME):
            while not dog.release.wait(A_MOMENT_S / 2):
                made_progress()

    thread = dog.in_thread(work)
    dog.watchdog.start()
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 3 * SOME * A_MOMENT_S, says="many checks have passed")
    assert thread.is_alive()
    assert not dog.hung.is_set()


def test_idle_thread_does_not_hang(dog: Dog) -> None:
    def work() -> None:
        with watching("settle.round", FEW):
            pass
        dog.release.wait()

    dog.in_thread(work)
    dog.watchdog.start()
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 3 * SOME * A_MOMENT_S, says="many checks have passed")
    assert not dog.hung.is_set()


def test_statement_is_a_step(postgres_url: str) -> None:
    with BoundedConnection.connect(postgres_url, autocommit=True) as connection, watching("settle.round", 1):
        work = process._working[threading.get_ident()]
        for _ in range(3):
            connection.execute("SELECT")
            assert not work.hangs()
        assert work.hangs(), "no statement since the last check"


@pytest.mark.usefixtures("broker")
def test_each_task_is_watched(dog: Dog) -> None:
    class Hang(QuietTask):
        name = "tests.hang"

        def run(self) -> None:
            dog.release.wait()

    thread = dog.in_thread(app.register_task(Hang()))
    wait_until(lambda: count_working({"tests.hang"}) == 1, says="the task is watched")
    dog.release.set()
    thread.join(60)
    assert count_working({"tests.hang"}) == 0


async def test_each_thread_of_the_api_is_watched(dog: Dog) -> None:
    pool = ThreadPool("requests", 1)
    with pytest.raises(TimeoutError):
        await pool.run(dog.release.wait, 0.05)
    assert count_working({"requests"}) == 1
    dog.release.set()
    wait_until(lambda: count_working({"requests"}) == 0, says="its work is over")
    pool.close()


def test_limits_are_longer_than_the_longest_wait() -> None:
    assert STATEMENT_S + ALLOWANCE_S < QUIET_DATABASE_S < QUIET_S
    assert QUIET_DATABASE_S + EXIT_S <= STATEMENT_S + ALLOWANCE_S + 30


def test_process_that_ignores_sigterm_ends_by_force() -> None:
    program = (
        "import signal, threading;"
        "from functools import partial;"
        "from scheduler.process import Watchdog, end_process, watching;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "Watchdog(partial(end_process, 0.2), every_s=0.01).start();"
        "lock = threading.Lock(); lock.acquire()\n"
        "with watching('settle.round', 5): lock.acquire()"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, capture_output=True, text=True)
    assert ended.returncode == 70
    assert "thread_hung" in ended.stdout + ended.stderr
