"""The simulated carrier in a process of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from tests.support.servers import SimulatedCarrier, a_carrier
from tests.verification.world.installation import begun, nursery


@contextmanager
def a_carrier_apart(plan: Mapping[str, Any]) -> Iterator[SimulatedCarrier]:
    """Run the simulated carrier in a separate process, with one plan for all calls. It shares no interpreter lock."""
    ours, theirs = nursery.Pipe()
    process = begun(_be_the_carrier, theirs)
    assert ours.poll(60), "the carrier has not started"
    carrier = SimulatedCarrier(url=ours.recv())
    carrier.plan(**plan)
    try:
        yield carrier
    finally:
        ours.send(None)
        process.join(30)


def _be_the_carrier(pipe: Connection) -> None:
    with a_carrier() as carrier:
        pipe.send(carrier.url)
        pipe.recv()
