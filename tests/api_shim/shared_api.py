"""One running API for many tests."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import MethodType
from typing import cast
from uuid import uuid4

import httpx
import uvicorn
from sqlalchemy import QueuePool

from api_shim.app import create_app
from api_shim.assembly import AppContext
from api_shim.http_metrics import HttpTallies
from scheduler.logs import _Watches, configure, watch_alarms
from scheduler.persistence.database import Database
from scheduler.settings import Settings
from scheduler.use_cases.shared.alarms import AlarmStore
from tests.api_shim.intake import Intake, with_a_key
from tests.conftest import NOON, Seeded, wait_until
from tests.support.servers import a_door, a_server, address_of
from workers.alarm_writer import AlarmWriter


class SharedApi:
    """One running API for many consecutive tests, because starting it takes longer than most of them.

    Each test finds it as if it had just been started. Its state is stored by key or command id, and each test creates
    its own ids. It is restarted if its clock is past noon or it found Redis unavailable. Nothing of the previous test
    continues: no request, no database query, no unsent hint.
    """

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._open = contextlib.ExitStack()
        self._served: _Served | None = None

    @contextmanager
    def intake(self, database: Database, seeded: Seeded) -> Iterator[Intake]:
        configure()  # like every start
        served = self._at_noon()
        # Other tests ran since the last one, and may have kept this process from answering Redis in time.
        wait_until(lambda: not served.misses_redis, says="the API reaches Redis")
        served.app_context.counted._last = None  # its age is that of the process, and the rows are other ones
        # Only during the test: the alarms that other tests of this process log are not those of the API.
        watch_alarms(served.alarms.take)
        yield with_a_key(served.client, database, seeded, served.settings)
        watch_alarms(None)
        served.forget_counts()
        try:
            wait_until(served.is_quiet, says="the work of the test ends")
            served.hear_its_bell()
        except BaseException:
            self.close()
            raise
        if served.misses_redis:
            self.close()

    def close(self) -> None:
        self._served = None
        self._open.close()

    def _at_noon(self) -> "_Served":
        if self._served is None or self._served.past_noon > _NOON_LASTS:
            self.close()
            self._served = self._open.enter_context(_serve(self._settings()))
        return self._served


_NOON_LASTS = timedelta(seconds=20)
"""Less than a minute: a test that counts requests per minute has most of it left."""


@dataclass(frozen=True, kw_only=True)
class _Served:
    settings: Settings
    client: httpx.Client
    server: uvicorn.Server
    app_context: AppContext
    tallies: HttpTallies
    alarms: AlarmWriter

    @property
    def past_noon(self) -> timedelta:
        return self.app_context.use_cases.now() - NOON

    def is_quiet(self) -> bool:
        """Check whether no request, no background write and no query is running."""
        databases = (*self.app_context.use_cases.databases, cast("AlarmStore", self.alarms._store)._database)
        out = sum(cast("QueuePool", each._engine.pool).checkedout() for each in databases)
        waiting = (self.server.server_state.tasks, self.app_context.notes, self.alarms._waiting)
        return not any(waiting) and out == 0

    def forget_counts(self) -> None:
        """Drop the counts of this test's requests. They would be added within seconds, to the rows of another test."""
        self.tallies._amounts = {}

    def hear_its_bell(self) -> None:
        """Wait for a last hint. Hints are sent in order, so all earlier ones have been sent."""
        last = uuid4()
        self.app_context.use_cases.submit._hints.answered(last)
        wait_until(lambda: self.misses_redis or last in self.app_context.waiter._answered, says="the last hint arrives")

    @property
    def misses_redis(self) -> bool:
        """True while it works without Redis because Redis was unavailable or slow."""
        limits = self.app_context.rate_limits
        return self.app_context.waiter.is_away or limits._is_away or time.monotonic() < limits._try_again_at


@contextmanager
def _serve(settings: Settings) -> Iterator[_Served]:
    app, door = create_app(settings), a_door()
    with a_server(app, door) as server, httpx.Client(base_url=address_of(door), timeout=60) as client:
        taken = _Watches.alarms
        watch_alarms(None)
        alarms = cast("AlarmWriter", cast("MethodType", taken).__self__)
        [tallies] = [each.kwargs["tallies"] for each in app.user_middleware if "tallies" in each.kwargs]
        yield _Served(
            settings=settings,
            client=client,
            server=server,
            app_context=app.state.app_context,
            tallies=cast("HttpTallies", tallies),
            alarms=alarms,
        )
