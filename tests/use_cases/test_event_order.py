"""The order of partner events with several writers, numberers and readers at once, of which some are killed."""

import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from scheduler.domain.attempt import Cancelled, Reason
from scheduler.domain.call import CallStatus
from scheduler.domain.webhook import PartnerEvent
from scheduler.persistence.errors import DatabaseAway
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.resources.webhooks import Events
from tests.support.builders import RecordingHints, Tenant, a_pending_attempt, a_placed_attempt
from tests.use_cases.conftest import apply_news, with_reader
from tests.use_cases.test_partner_events import OVER

_CALLS = 12


class Order:
    """Writes, numbers and reads the events of one company."""

    def __init__(self, tenant: Tenant, seed: int) -> None:
        self.tenant = tenant
        self.chosen = random.Random(seed)
        self.numbering = NumberEvents(tenant.database, RecordingHints(), tenant.now)

    def write(self) -> None:
        attempt = a_placed_attempt(self.tenant)
        apply_news(self.tenant, attempt, CallStatus.ANSWERED)
        apply_news(self.tenant, attempt, CallStatus.COMPLETED, **OVER)

    def write_late(self) -> None:
        """Write an event that is older than events with a place when it is committed."""
        attempt = a_pending_attempt(self.tenant)
        with self.tenant.database.transaction() as stores:
            locked = stores.attempts.lock(attempt.id)
            with stores.connection.gathering():
                stores.attempts.save(locked, Cancelled(reason=Reason.CANCELLED_BY_USER), "a test", self.tenant.now())
            self.write()
            self.numbering.all()

    def number_and_die(self) -> None:
        """Number some events and lose the connection before the commit."""
        with suppress(DatabaseAway), self.tenant.database.transaction() as stores:
            stores.events.number(3, self.tenant.now())
            stores.connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    def purge(self) -> None:
        with self.tenant.database.transaction() as stores:
            stores.events.forget(self.tenant.now() - timedelta(days=1), 5)


class Reader:
    """Follows `after` and keeps each event that it reads."""

    def __init__(self, tenant: Tenant, page: int) -> None:
        self._tenant = tenant
        self._page = page
        self._after = 0
        self.read: list[PartnerEvent] = []

    def read_on(self) -> None:
        part = Events(self._tenant.database).after(self._tenant.principal, None, after=self._after, limit=self._page)
        self.read += part.events
        self._after = part.after

    def read_until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            self.read_on()


@pytest.mark.parametrize("seed", range(2))
def test_reader_misses_nothing_while_events_are_written(tenant: Tenant, seed: int) -> None:
    order = Order(with_reader(tenant), seed)
    readers = [Reader(tenant, page) for page in (1, 7)]
    steps = [order.write] * _CALLS + [order.write_late] * 3 + [order.number_and_die] * 6 + [order.numbering.all] * 12
    order.chosen.shuffle(steps)
    running: list[Future[None]] = []
    with ThreadPoolExecutor(7) as pool:
        running += [pool.submit(step) for step in steps]
        following = [pool.submit(each.read_until, lambda: all(step.done() for step in running)) for each in readers]
        for each in (*running, *following):
            each.result()
    order.numbering.all()
    rows = tenant.ask("SELECT id, place, sequence, interview_id, entry FROM events ORDER BY place")
    assert all(row.place is not None for row in rows)
    for reader in readers:
        while len(reader.read) < len(rows):
            before = len(reader.read)
            reader.read_on()
            assert len(reader.read) > before, "an event was skipped"
        assert [each.id for each in reader.read] == [row.id for row in rows]
    assert_gapless([(row.interview_id, row.sequence, row.entry) for row in rows])


def test_sequence_has_no_gap_when_old_events_are_deleted(tenant: Tenant) -> None:
    order = Order(with_reader(tenant), 0)
    attempt = a_placed_attempt(tenant)
    order.numbering.all()
    seen = [tuple(row) for row in tenant.ask("SELECT interview_id, sequence, entry FROM events ORDER BY place")]
    tenant.change("UPDATE events SET occurred_at = occurred_at - interval '40 days'")
    order.purge()
    assert tenant.ask("SELECT count(*) FROM events") == [(0,)]
    apply_news(tenant, attempt, CallStatus.COMPLETED, **OVER)
    order.numbering.all()
    seen += [tuple(row) for row in tenant.ask("SELECT interview_id, sequence, entry FROM events ORDER BY place")]
    assert_gapless(seen)


def assert_gapless(numbered: list[tuple[UUID, int, int]]) -> None:
    """In the order of places, each interview's sequence rises by one, in the order in which it was written."""
    of_interviews: dict[UUID, list[tuple[int, int]]] = {}
    for interview_id, sequence, entry in numbered:
        of_interviews.setdefault(interview_id, []).append((sequence, entry))
    for each in of_interviews.values():
        assert [sequence for sequence, _ in each] == list(range(1, len(each) + 1))
        assert [entry for _, entry in each] == sorted(entry for _, entry in each)
