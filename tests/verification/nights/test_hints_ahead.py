"""Hints ahead of time: the product's clock and a dial worker place each call when it is due, and never before."""

import statistics
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.conftest import wait_until
from tests.support.builders import a_number, a_pending_attempt
from tests.verification.world.real_time import TIMES, clock_at_work, put_back, rung_at
from tests.verification.world.workers import working

CALLS = 20
IN_A_WHILE = timedelta(seconds=12)
APART = timedelta(milliseconds=50)
MOST_MESSAGES = 4
"""The due times are within one second, which is one look of the clock, or two. Twice as many, for good measure."""


@pytest.mark.timeout(120)
def test_calls_due_soon_are_placed_when_they_are_due(
    broker: None, postgres_url: str, aloud: Callable[[str], None]
) -> None:
    with working(postgres_url, settling=False, **TIMES) as setup:
        setup.carrier.plan(ring_s=0, talk_s=0, callbacks="none")
        a_pending_attempt(setup.tenant)
        with clock_at_work(postgres_url, setup) as hints:
            wait_until(setup.carrier.rings, seconds=60, says="the dial worker has started")
            hints.early.clear()
            begin = setup.tenant.now() + IN_A_WHILE
            due = {a_number(): begin + n * APART for n in range(CALLS)}
            for number, due_at in due.items():
                a_pending_attempt(setup.tenant, number, due_at=due_at)
            wait_until(lambda: due.keys() <= rung_at(setup).keys(), seconds=60, says="each call was placed")
        late = [(rung_at(setup)[number] - due_at).total_seconds() for number, due_at in due.items()]
        aloud(
            f"  {CALLS} calls, 50 ms apart: median {1000 * statistics.median(late):.0f} ms late,"
            f" at most {1000 * max(late):.0f} ms; messages: {hints.early}"
        )
        assert min(late) >= 0
        assert len(setup.carrier.rings()) == 1 + CALLS, "one each"
        # A busy machine puts calls back whose last look takes too long, and their hints are sent again.
        again = sum(put_back(setup.tenant).values())
        assert again <= CALLS / 2, "most calls were put back: the dialler, or this machine, is too slow"
        assert len(hints.early) <= MOST_MESSAGES + again
