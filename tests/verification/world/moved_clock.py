"""Dial worker on a clock that a test moves. It records the times of its claims and POSTs.

It runs the product's own steps and sends its POSTs over HTTP. Where a dialler would wait, it moves the clock.
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from uuid import UUID

from scheduler.carriers.twilio import TwilioAccount
from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CarrierAnswer
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION
from scheduler.use_cases.dialling.claim import ToSend
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant
from workers.app import app
from workers.clock import Clock

UNDER_WAY = 3
"""POSTs sent before the first answer is recorded: at 50 a second, one takes about 60 ms."""
WORKERS = 3
"""Diallers that claim at the same time."""


@dataclass
class WorkerHand:
    tenant: Tenant
    now: TestClock
    release: Release
    hints: RecordingHints
    runner: asyncio.Runner
    threads: ThreadPoolExecutor
    line: TwilioCallPlacer
    settle: Settle = field(init=False)
    """Set by tests that also settle."""
    claims: list[tuple[datetime, int]] = field(default_factory=list)
    """Times of the claims, each with its number of attempts."""
    posts: list[datetime] = field(default_factory=list)

    def look(self) -> None:
        """Release due attempts and dial them, until none is left."""
        while self.release.round(resends=False).released:
            ids = self.hints.ids(tasks.DIAL)
            self.hints.rung.clear()
            self.dial(ids)

    def dial(self, ids: Sequence[UUID]) -> None:
        for start in range(0, len(ids), AT_MOST_A_TRANSACTION):
            self._dial_some(ids[start : start + AT_MOST_A_TRANSACTION])

    def _dial_some(self, ids: Sequence[UUID]) -> None:
        results = self.threads.map(self.tenant.dial.claim, [ids] * WORKERS)
        claimed = sorted((each for claims in results for each in claims.claimed), key=lambda each: each.send_at)
        if claimed:
            self.claims.append((self.now(), len(claimed)))
        under_way = iter(claimed)
        while batch := list(islice(under_way, UNDER_WAY)):
            self.now.instant = max(self.now(), batch[-1].send_at)
            self.tenant.dial.record(self.runner.run(self._send(batch)))

    async def _send(self, batch: Sequence[ToSend]) -> list[tuple[Attempt, CarrierAnswer]]:
        sent = []
        for each in batch:
            order = self.tenant.dial.last_look(each.attempt)
            if order is not None:
                sent.append((each.attempt, order))
        self.posts += [self.now()] * len(sent)
        answers = await asyncio.gather(*(self.line.place(order) for _, order in sent))
        return [(attempt, answer) for (attempt, _), answer in zip(sent, answers, strict=True)]

    def close_line(self) -> None:
        self.runner.run(self.line.close())


@contextmanager
def a_worker_hand(
    tenant: Tenant, now: TestClock, release: Release, hints: RecordingHints, line: TwilioCallPlacer
) -> Iterator[WorkerHand]:
    with asyncio.Runner() as runner, ThreadPoolExecutor(WORKERS) as threads:
        hand = WorkerHand(tenant, now, release, hints, runner, threads, line)
        yield hand
        hand.close_line()


@contextmanager
def settling(account: TwilioAccount, tenant: Tenant) -> Iterator[Settle]:
    """Yield the settler of a tenant that polls this account."""
    queries = TwilioQueries(account, tenant.policy)
    yield Settle(tenant.context, queries, tenant.account_id)
    queries._client.http_client.session.close()


def a_clock(release: Release, sweep_every_s: float = 10.0) -> Clock:
    """Build the product's clock over this release, without a thread."""
    clock = Clock(app, lazy=True)
    clock._release, clock._sweep_every = release, sweep_every_s
    return clock
