"""The two others of a race, each a process of its own: who dials, and the carrier that rings."""

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

# A clean process that has read the modules once: each of ours is a fork of it. The tests of crashes use the same one.
_nursery = multiprocessing.get_context("forkserver")
_nursery.set_forkserver_preload(["tests.verification.crash.dial_process", "tests.verification.races.processes"])
_LONG_S = 3600.0


class Dialling:
    """A dial worker that is handed attempts at given instants, as a broker hands it hints."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        # A pipe's end is for one thread at a time.
        self._lock = Lock()

    def hand(self, *ids: UUID, at: float = 0.0) -> None:
        """At `at` on the monotonic clock, which is the same for all processes of a machine; at once when it is over."""
        with self._lock:
            self._pipe.send((at, ids))


@contextmanager
def dialling(environment: Mapping[str, str]) -> Iterator[Dialling]:
    """The product's own dialler: its event loop, its threads, its client."""
    ours, theirs = _nursery.Pipe()
    process = _nursery.Process(target=dial_as_told, args=(dict(environment), theirs))
    process.start()
    assert ours.poll(30), "the dialler has started"
    ours.recv()
    try:
        yield Dialling(ours)
    finally:
        ours.send(None)
        process.join(30)
    assert process.exitcode == 0


@contextmanager
def a_carrier_apart(plan: Mapping[str, Any]) -> Iterator[SimulatedCarrier]:
    """The simulated carrier, where it waits for nobody else's interpreter; all its calls go by one plan."""
    ours, theirs = _nursery.Pipe()
    process = _nursery.Process(target=_be_the_carrier, args=(theirs,))
    process.start()
    assert ours.poll(30), "the carrier has started"
    carrier = SimulatedCarrier(url=ours.recv())
    carrier.plan(**plan)
    try:
        yield carrier
    finally:
        ours.send(None)
        process.join(30)


def dial_as_told(environment: Mapping[str, str], pipe: Connection) -> None:
    """A dial worker that is told over `pipe`: when, and which ids; it says when it is ready, and None ends it."""
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
        told = pipe.recv()
        if told is None:
            break
        received += 1
        heapq.heappush(hints, (told[0], received, told[1]))
    dialler.stop()


def _be_the_carrier(pipe: Connection) -> None:
    with a_carrier() as carrier:
        pipe.send(carrier.url)
        pipe.recv()
