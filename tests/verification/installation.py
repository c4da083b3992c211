"""The two helper processes of a race: a dialler and a simulated carrier."""

import heapq
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any
from uuid import UUID

from scheduler import assembly
from scheduler.clock import monotonic
from scheduler.logs import configure
from scheduler.settings import Settings
from tests.support.servers import SimulatedCarrier, a_carrier

# A clean process that has imported the modules once. Our processes, and those of the crash tests, are forks of it.
_nursery = multiprocessing.get_context("forkserver")
_nursery.set_forkserver_preload(["tests.verification.crash.dial_process", "tests.verification.races.processes"])
_LONG_S = 3600.0


class Dialling:
    """A dial worker that receives attempts at given instants, as a broker delivers hints."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        # Only one thread at a time may use an end of a pipe.
        self._lock = Lock()

    def hand(self, *ids: UUID, at: float = 0.0) -> None:
        """Send the hints at `at` on the monotonic clock, which all processes share, or immediately if `at` is past."""
        with self._lock:
            self._pipe.send((at, ids))


@contextmanager
def dialling(environment: Mapping[str, str]) -> Iterator[Dialling]:
    """Run the product's real dialler, with its event loop, threads and client."""
    ours, theirs = _nursery.Pipe()
    process = _nursery.Process(target=dial_as_told, args=(dict(environment), theirs))
    process.start()
    assert ours.poll(30), "the dialler has not started"
    ours.recv()
    try:
        yield Dialling(ours)
    finally:
        ours.send(None)
        process.join(30)
    assert process.exitcode == 0


@contextmanager
def a_carrier_apart(plan: Mapping[str, Any]) -> Iterator[SimulatedCarrier]:
    """Run the simulated carrier in a separate process, with one plan for all calls. It shares no interpreter lock."""
    ours, theirs = _nursery.Pipe()
    process = _nursery.Process(target=_be_the_carrier, args=(theirs,))
    process.start()
    assert ours.poll(30), "the carrier has not started"
    carrier = SimulatedCarrier(url=ours.recv())
    carrier.plan(**plan)
    try:
        yield carrier
    finally:
        ours.send(None)
        process.join(30)


def dial_as_told(environment: Mapping[str, str], pipe: Connection) -> None:
    """Run a dial worker. It sends "ready", then receives pairs of an instant and attempt ids. None stops it."""
    os.environ.update(environment)
    configure()
    dialler = assembly.dialler(Settings())
    dialler.start()
    pipe.send("ready")
    hints: list[tuple[float, int, Sequence[UUID]]] = []
    received = 0
    while True:
        while hints and hints[0][0] <= monotonic():
            dialler.take(heapq.heappop(hints)[2])
        if not pipe.poll(max(0.0, hints[0][0] - monotonic()) if hints else _LONG_S):
            continue
        order = pipe.recv()
        if order is None:
            break
        received += 1
        heapq.heappush(hints, (order[0], received, order[1]))
    dialler.stop()


def _be_the_carrier(pipe: Connection) -> None:
    with a_carrier() as carrier:
        pipe.send(carrier.url)
        pipe.recv()
