"""Round trips of the clock's tick, and its hints for unfinished work."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from scheduler.clock import monotonic
from scheduler.persistence.database import Database
from scheduler.rules.tallies import CALLS, ONE, Amount, key_of
from scheduler.use_cases.operations.counts import Tallies
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests.support.builders import RecordingHints, Tenant, a_pending_attempt, a_waiting_command
from tests.support.servers import wired
from tests.verification.world.moved_clock import a_clock
from workers.clock import Clock

WITHOUT_RESENDING = 9
"""BEGIN, account, back-offs, count of released attempts, ends of holds, blocked, release, next due time, COMMIT."""
WITH_RESENDING = WITHOUT_RESENDING + 6
"""Also commands, callbacks, changed settings, erasures."""


@dataclass
class Watched:
    clock: Clock
    sent: list[bytes] = field(default_factory=list)
    """The messages that the server received in the last tick."""

    def note(self, message: bytes) -> bool:
        self.sent.append(message)
        return False

    def tick(self, *, resends: bool) -> float:
        """Run one tick without the wait, and return the seconds to wait."""
        self.sent.clear()
        self.clock._next_resend = 0.0 if resends else math.inf
        return self.clock._work()

    @property
    def transactions(self) -> int:
        return sum(b"COMMIT" in message for message in self.sent)


@pytest.fixture
def watched(broker: None, postgres_url: str, tenant: Tenant, hints: RecordingHints) -> Iterator[Watched]:
    with wired(postgres_url) as (wire, url):
        database = Database(url, pool_size=1)
        watched = Watched(a_clock(Release(replace(tenant, database=database).context, hints, tenant.account_id)))
        watched.tick(resends=True)  # connects
        hints.rings.clear()
        watched.clock._next_sweep = watched.clock._next_purge = watched.clock._next_numbering = math.inf
        wire.dead = watched.note
        yield watched
        database.close()


@pytest.mark.parametrize(
    ("resends", "trips"),
    [pytest.param(False, WITHOUT_RESENDING, id="no"), pytest.param(True, WITH_RESENDING, id="yes")],
)
def test_idle_tick_is_one_transaction(watched: Watched, hints: RecordingHints, *, resends: bool, trips: int) -> None:
    watched.tick(resends=resends)
    assert (watched.transactions, len(watched.sent)) == (1, trips)
    assert hints.rings == []


def test_tick_releases_due_calls_in_one_transaction(watched: Watched, tenant: Tenant, hints: RecordingHints) -> None:
    due = {a_pending_attempt(tenant).id for _ in range(3)}
    assert watched.tick(resends=False) > 0, "nothing more is due at once"
    assert (watched.transactions, len(watched.sent)) == (1, WITHOUT_RESENDING)
    assert set(hints.ids(tasks.DIAL)) == due


def test_unfinished_work_is_hinted_once_a_second(watched: Watched, tenant: Tenant, hints: RecordingHints) -> None:
    command = a_waiting_command(tenant, None)
    tenant.change("UPDATE inbox SET rung_at = rung_at - interval '1 minute'")
    watched.tick(resends=False)
    assert hints.rings == []
    begun = monotonic()
    watched.tick(resends=True)
    assert hints.rings == [(tasks.APPLY, (command.id,))]
    assert begun + 1 <= watched.clock._next_resend <= monotonic() + 1


def test_hints_are_sent_after_the_commit(broker: None, tenant: Tenant) -> None:
    seen: list[bool] = []

    class Looking(RecordingHints):
        def send(self, task: str, ids: Sequence[UUID] = (), due_at: Mapping[UUID, datetime] | None = None) -> None:
            super().send(task, ids, due_at)
            seen.extend(tenant.attempt(each).released_until is not None for each in ids if task == tasks.DIAL)

    a_pending_attempt(tenant)
    Release(tenant.context, Looking(), tenant.account_id).round(resends=True)
    assert seen == [True]


def test_failing_hints_do_not_stop_the_releases(
    watched: Watched, tenant: Tenant, hints: RecordingHints, postgres_url: str
) -> None:
    due = a_pending_attempt(tenant, due_at=tenant.now() - timedelta(seconds=1))
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE erasures IN ACCESS EXCLUSIVE MODE")
        watched.tick(resends=True)
        assert hints.ids(tasks.DIAL) == [due.id], "released in the same round"
    watched.tick(resends=True)
    assert len(watched.sent) == WITH_RESENDING, "and they are tried again"


def test_sweep_folds_the_tallies(watched: Watched, tenant: Tenant) -> None:
    Tallies(tenant.database).add({key_of(CALLS, "BUSY"): ONE})
    watched.clock._next_sweep = 0.0
    watched.tick(resends=False)
    assert tenant.ask("SELECT count(*) FROM tally_entries") == [(0,)]
    assert tenant.ask("SELECT name, label, n FROM tallies") == [("duecall_calls", "BUSY", 1)]


def test_tick_numbers_events_once_a_second(watched: Watched, tenant: Tenant) -> None:
    event = {"id": uuid4(), "company_id": tenant.company_id, "type": "company.paused", "data": "{}"}
    tenant.insert("events", **event, occurred_at=tenant.now())
    begun = monotonic()
    watched.clock._next_numbering = 0.0
    watched.tick(resends=False)
    assert watched.transactions == 2, "the release, and then the numbers"
    assert tenant.ask("SELECT count(*) FROM events WHERE place IS NULL") == [(0,)]
    assert begun + 1 <= watched.clock._next_numbering <= monotonic() + 1


def test_tick_without_new_events_sends_one_query_more(watched: Watched) -> None:
    watched.clock._next_numbering = 0.0
    watched.tick(resends=False)
    assert (watched.transactions, len(watched.sent)) == (1, WITHOUT_RESENDING + 1)


def test_events_that_cannot_be_numbered_stop_no_release(
    watched: Watched, tenant: Tenant, hints: RecordingHints, postgres_url: str
) -> None:
    due = a_pending_attempt(tenant)
    watched.clock._next_numbering = 0.0
    with psycopg.connect(postgres_url) as other, capture_logs() as logs:
        other.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        watched.tick(resends=False)
        other.rollback()
    assert [each["event"].partition(":")[0] for each in logs] == ["events_not_numbered"]
    assert hints.ids(tasks.DIAL) == [due.id]


def test_tallies_that_cannot_be_folded_stop_no_release(watched: Watched, tenant: Tenant, hints: RecordingHints) -> None:
    due = a_pending_attempt(tenant)
    for _ in range(2):  # together more than a column can hold
        Tallies(tenant.database).add({key_of(CALLS, "BUSY"): Amount(n=2**63 - 1)})
    watched.clock._next_sweep = 0.0
    with capture_logs() as logs:
        watched.tick(resends=False)
    assert [each["event"].partition(":")[0] for each in logs] == ["tallies_not_folded"]
    assert hints.ids(tasks.DIAL) == [due.id]
