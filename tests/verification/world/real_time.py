"""The product's clock and a dial worker in its own process, in real time, over a company with workers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import psycopg

from scheduler.lifecycle.policy import Policy
from scheduler.persistence.stores import DUE_CHANNEL
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests.support.builders import Tenant
from tests.verification.world.installation import Dialler, dialling
from tests.verification.world.moved_clock import a_clock
from tests.verification.world.workers import CrashSetup, repeated

_POLICY = Policy()
TIMES = {
    name: f"{span.total_seconds():g}"
    for name, span in {
        "DIAL_LEASE_S": _POLICY.lease,
        "SETTLE_S": _POLICY.settle,
        "SWEEP_S": _POLICY.sweep,
        "CARRIER_TOTAL_TIMEOUT_S": _POLICY.total_timeout,
        "CARRIER_CONNECT_TIMEOUT_S": _POLICY.connect_timeout,
        "RING_TIMEOUT_S": _POLICY.ring_timeout,
        "LINE_GAP_S": _POLICY.line_gap,
    }.items()
} | {"SHORT_CALL_S": "0"}
"""The times of production, but for the polls of short calls: those of tests end at once. The settings of the tests are
shorter."""


@dataclass(frozen=True)
class DiallerHints:
    """Hints for one dial worker, in the order of sending."""

    dialler: Dialler
    early: list[int] = field(default_factory=list)
    """For each message, its number of hints that came before their attempts were due."""

    def send(self, task: str, ids: Sequence[UUID] = (), due_at: Mapping[UUID, datetime] | None = None) -> None:
        if task == tasks.DIAL:
            self.dialler.hand(*ids, due_at=due_at)
            self.early.append(len(due_at or {}))

    def send_again(self, task: str, ids: Sequence[UUID], after_s: float) -> None:
        """Do nothing: no row is locked for long."""

    def answered(self, command_id: UUID) -> None:
        """Do nothing: no client waits for an answer."""


@contextmanager
def clock_at_work(url: str, setup: CrashSetup) -> Iterator[DiallerHints]:
    """Run a dial worker and the clock."""
    tenant = setup.tenant
    with dialling(setup.environment) as dialler, psycopg.connect(url, autocommit=True) as listening:
        hints = DiallerHints(dialler)
        clock = a_clock(Release(tenant.context, hints, tenant.account_id), tenant.policy.sweep.total_seconds())
        listening.execute(f"LISTEN {DUE_CHANNEL}".encode())
        clock._listening = listening
        with repeated(clock.tick):
            yield hints
        clock.close()


def rung_at(setup: CrashSetup) -> dict[str, datetime]:
    return {ring["to"]: datetime.fromisoformat(ring["accepted_at"]) for ring in setup.carrier.rings()}


def put_back(tenant: Tenant) -> dict[str, int]:
    """List the causes for which claimed calls were put back without a POST, with their counts."""
    rows = tenant.ask(
        "SELECT detail ->> 'cause' AS cause, count(*) AS times FROM attempt_history"
        " WHERE event IN ('deferred', 'not_placed') GROUP BY 1"
    )
    return {row.cause: row.times for row in rows}
