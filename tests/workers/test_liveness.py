"""Liveness: a worker is unresponsive, or only busy, or Redis is away."""

import threading
from collections.abc import Callable

import pytest

from tests.conftest import wait_until
from workers.liveness import LivenessProbe

A_MOMENT_S = 0.01


class Worker:
    """A worker that counts the pings of its probe, and may receive them."""

    def __init__(self) -> None:
        self.pings = 0
        self.receive: Callable[[], None] = lambda: None
        self.is_away = False
        self.unresponsive = threading.Event()
        self.announced = 0
        self.withdrawn = 0
        self.is_full = False
        self.probe = LivenessProbe(
            self.ping,
            is_full=lambda: self.is_full,
            on_unresponsive=self.unresponsive.set,
            announce=self.announce,
            withdraw=self.withdraw,
            every_s=A_MOMENT_S,
            max_missed=4,
        )

    def stop(self) -> None:
        """Stop the probe and wait for its end. The product itself waits for 2 s only."""
        self.probe.stop()
        self.probe.join()
        self.probe._thread.join()

    def ping(self) -> None:
        self.pings += 1
        if self.is_away:
            raise OSError
        self.receive()

    def works(self) -> None:
        self.probe.heard()
        self.probe.worked()

    def announce(self) -> None:
        self.announced += 1
        if self.is_away:
            raise OSError

    def withdraw(self) -> None:
        self.withdrawn += 1
        if self.is_away:
            raise OSError


@pytest.fixture
def worker(broker: None) -> Worker:
    return Worker()


def keeps_pinging(worker: Worker) -> None:
    before = worker.pings
    wait_until(lambda: worker.pings > before + 20, says="it keeps sending pings")


def test_worker_that_misses_four_pings_is_unresponsive(worker: Worker) -> None:
    worker.probe.start()
    assert worker.unresponsive.wait(60)
    assert worker.pings == 4


def test_worker_that_receives_some_pings_is_responsive(worker: Worker) -> None:
    worker.receive = lambda: worker.probe.heard() if worker.pings % 3 == 0 else None
    worker.probe.start()
    keeps_pinging(worker)
    worker.stop()
    assert not worker.unresponsive.is_set()


def test_worker_is_not_unresponsive_while_redis_is_away(worker: Worker) -> None:
    worker.is_away = True
    worker.probe.start()
    keeps_pinging(worker)
    assert not worker.unresponsive.is_set()
    # It is unresponsive if it misses the pings afterwards.
    worker.is_away = False
    assert worker.unresponsive.wait(60)


def test_busy_worker_is_not_unresponsive(worker: Worker) -> None:
    worker.is_full = True
    worker.probe.start()
    keeps_pinging(worker)
    worker.stop()
    assert not worker.unresponsive.is_set()


def test_stopped_probe_judges_no_worker(worker: Worker) -> None:
    worker.probe.stop()
    worker.probe.start()
    assert not worker.unresponsive.wait(20 * A_MOMENT_S)


def test_working_worker_is_announced_repeatedly(worker: Worker) -> None:
    worker.receive = worker.works
    worker.probe.start()
    wait_until(lambda: worker.announced > 20, says="it keeps announcing")
    before = worker.withdrawn
    worker.stop()
    assert (before, worker.withdrawn) == (0, 1)


def test_worker_without_successful_work_is_not_announced(worker: Worker) -> None:
    worker.receive = worker.probe.heard
    worker.probe.start()
    keeps_pinging(worker)
    worker.stop()
    assert (worker.announced, worker.withdrawn) == (0, 1)
    assert not worker.unresponsive.is_set(), "a restart would not help, for example while the database is away"


def test_unresponsive_worker_is_not_announced(worker: Worker) -> None:
    worker.probe.start()
    assert worker.unresponsive.wait(60)
    wait_until(lambda: worker.withdrawn == 1, says="it is withdrawn")
    assert worker.announced == 0


def test_busy_worker_is_announced_while_its_tasks_succeed(worker: Worker) -> None:
    worker.is_full = True
    worker.probe.start()
    for announced in range(5):
        worker.probe.worked()
        wait_until(lambda announced=announced: worker.announced > announced, says="it is announced")  # type: ignore[misc]
    worker.stop()
    assert not worker.unresponsive.is_set()


def test_worker_is_announced_again_after_redis_was_away(worker: Worker) -> None:
    worker.is_away = True
    worker.receive = worker.works
    worker.probe.start()
    keeps_pinging(worker)
    before = worker.announced
    worker.is_away = False
    wait_until(lambda: worker.announced > before + 20, says="it keeps announcing")
    worker.is_away = True
    worker.stop()
    assert worker.withdrawn == 1
