"""Frozen or slow dial processes: they send no call after their lease or after closing time."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.context import ForkServerProcess
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest

from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.company import EVERY_DAY, CallTimeInterval
from scheduler.lifecycle.policy import LOOK_TO_END, RING_MARGIN
from tests.architecture.guards import guards
from tests.conftest import real_now, seed, wait_until
from tests.support.builders import a_number, a_pending_attempt, of_company
from tests.support.servers import Wire, a_crowded_door, address_of, is_connecting_to
from tests.verification.crash.crash_setup import (
    CrashSetup,
    ended,
    frozen,
    is_stopped,
    stopped,
    thawed,
    threads_that_take,
    working,
)

pytestmark = pytest.mark.crash
_BRATISLAVA = ZoneInfo("Europe/Bratislava")

_CLOCK = """
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        IF current_query() LIKE '%AS database_clock%' THEN {meanwhile}; END IF;
        RETURN pg_catalog.clock_timestamp();
    END $$
"""


_A_LOOK_WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"


@contextmanager
def asking_the_clock(url: str, meanwhile: str) -> Iterator[psycopg.Connection[Any]]:
    """Make every last look run the statement `meanwhile` when it reads the database's clock.

    A function of ours hides the system's clock from processes that connect inside the block. Claims do not call it.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_CLOCK.format(meanwhile=meanwhile).encode())
        connection.execute("ALTER ROLE CURRENT_USER SET search_path = public, pg_catalog")
        try:
            yield connection
        finally:
            connection.execute("ALTER ROLE CURRENT_USER RESET search_path")
            connection.execute("DROP FUNCTION public.clock_timestamp()")


@contextmanager
def no_last_look(url: str) -> Iterator[None]:
    """Inside the block, let claims pass and block the last look that follows."""
    with asking_the_clock(url, "PERFORM pg_advisory_xact_lock_shared(4711)") as connection:
        connection.execute("SELECT pg_advisory_lock(4711)")
        try:
            yield
        finally:
            connection.execute("SELECT pg_advisory_unlock(4711)")


def claimed_and_frozen(setup: CrashSetup, url: str, number: str) -> tuple[UUID, ForkServerProcess]:
    attempt_id = a_pending_attempt(setup.tenant, number).id
    with no_last_look(url):
        process = setup.dialling([attempt_id])
        # Right after the commit the lease timer is not set yet. Once the last look waits, it is.
        wait_until(lambda: setup.tenant.ask(_A_LOOK_WAITS), says="the attempt is claimed and its last look waits")
        assert setup.tenant.attempt(attempt_id).state is AttemptState.IN_PROGRESS
        frozen(process)
    return attempt_id, process


@guards("frozen")
def test_process_frozen_past_its_lease_dies_instead_of_ringing(postgres_url: str) -> None:
    with working(postgres_url, DIAL_LEASE_S="6", SETTLE_S="8") as setup:
        number = a_number()
        attempt_id, process = claimed_and_frozen(setup, postgres_url, number)
        wait_until(lambda: "answer_lost" in setup.tenant.history(attempt_id), says="the lease was settled")
        thawed(process)
        assert ended(process, within_s=10) == -signal.SIGALRM
        assert setup.requests(number) == []
        assert {"placed", "deferred", "not_placed"}.isdisjoint(setup.tenant.history(attempt_id)), (
            "the process has recorded nothing"
        )


def test_process_frozen_for_less_than_its_lease_rings(postgres_url: str) -> None:
    with working(postgres_url, DIAL_LEASE_S="30", SETTLE_S="60") as setup:
        number = a_number()
        setup.carrier.plan(to=number, ring_s=0.1, talk_s=0.1)
        attempt_id, process = claimed_and_frozen(setup, postgres_url, number)
        thawed(process)
        wait_until(lambda: setup.tenant.attempt(attempt_id).reason is Reason.ANSWERED, says="the call is answered")
        assert stopped(process) == [0]
        assert len(setup.requests(number)) == 1


def test_last_look_that_answers_too_late_defers_the_attempt(postgres_url: str) -> None:
    with working(postgres_url) as setup:
        number = a_number()
        attempt_id = a_pending_attempt(setup.tenant, number).id
        with asking_the_clock(postgres_url, "PERFORM pg_sleep(0.3)"):
            process = setup.dialling([attempt_id])
            wait_until(lambda: len(setup.tenant.history(attempt_id)) > 2, says="the attempt is returned")
        assert stopped(process) == [0]
        assert setup.tenant.history(attempt_id) == ["created", "claimed", "deferred"]
        assert setup.requests(number) == []


@dataclass(frozen=True, kw_only=True)
class Closing:
    """Calling hours that end soon, and a ring timeout that allows the last call to start seconds from now."""

    hours: CallTimeInterval
    ring_timeout_s: float
    last_start: datetime

    @classmethod
    def soon(cls) -> "Closing":
        now = real_now()
        closes = now.astimezone(_BRATISLAVA).replace(second=0, microsecond=0) + timedelta(minutes=2)
        start = timedelta(hours=closes.hour, minutes=closes.minute) - timedelta(hours=2)
        start %= timedelta(hours=24)
        # The kernel retries a connection 7 s after the first attempt and gives up 3 s later.
        last_start = now + timedelta(seconds=6)
        return cls(
            hours=CallTimeInterval(days=EVERY_DAY, start=start, end=start + timedelta(hours=2)),
            ring_timeout_s=(closes - last_start - RING_MARGIN).total_seconds(),
            last_start=last_start,
        )


@pytest.mark.parametrize("is_frozen", [True, False], ids=["frozen", "slow"])
def test_call_that_connects_after_closing_time_is_not_sent(postgres_url: str, is_frozen: bool) -> None:
    closing = Closing.soon()
    with a_crowded_door() as door, ExitStack() as stack:
        times: dict[str, Any] = {
            "CARRIER_CONNECT_TIMEOUT_S": "20",
            "CARRIER_TOTAL_TIMEOUT_S": "25",
            "DIAL_LEASE_S": "40",
            "SETTLE_S": "60",
            "RING_TIMEOUT_S": f"{closing.ring_timeout_s:.3f}",
            "TWILIO_API_URL": address_of(door),
        }
        setup = stack.enter_context(working(postgres_url, **times))
        company = of_company(setup.tenant, seed(setup.tenant.database, real_now(), intervals=(closing.hours,)))
        number = a_number()
        attempt_id = a_pending_attempt(company, number).id
        process = setup.dialling([attempt_id])
        wait_until(lambda: is_connecting_to(door), says="its last look has allowed the call")
        if is_frozen:
            frozen(process)
        wait_until(lambda: real_now() > closing.last_start, says="it is too late for a call to start")
        wire = Wire(urlsplit(setup.carrier.url).port or 0, door)
        stack.callback(wire.close)
        if is_frozen:
            thawed(process)
        wait_until(lambda: len(setup.tenant.history(attempt_id)) > 2, says="the attempt has a result")
        assert stopped(process) == [0]
        assert setup.requests(number) == []
        assert setup.tenant.history(attempt_id) == ["created", "claimed", "deferred"]


def test_call_that_connects_late_within_calling_hours_is_sent(postgres_url: str) -> None:
    with a_crowded_door() as door, ExitStack() as stack:
        times: dict[str, Any] = {
            "CARRIER_CONNECT_TIMEOUT_S": "20",
            "CARRIER_TOTAL_TIMEOUT_S": "25",
            "DIAL_LEASE_S": "40",
        }
        setup = stack.enter_context(working(postgres_url, SETTLE_S="60", TWILIO_API_URL=address_of(door), **times))
        number = a_number()
        attempt_id = a_pending_attempt(setup.tenant, number).id
        process = setup.dialling([attempt_id])
        wait_until(lambda: is_connecting_to(door), says="its last look has allowed the call")
        wire = Wire(urlsplit(setup.carrier.url).port or 0, door)
        stack.callback(wire.close)
        wait_until(lambda: "placed" in setup.tenant.history(attempt_id), says="the call is placed")
        assert stopped(process) == [0]
        assert len(setup.requests(number)) == 1


@guards("frozen", "frozen_unsent")
def test_process_frozen_right_before_the_first_byte_ends(postgres_url: str) -> None:
    with working(postgres_url, DIAL_LEASE_S="40", SETTLE_S="60") as setup:
        number = a_number()
        attempt_id = a_pending_attempt(setup.tenant, number).id
        process = setup.dialling([attempt_id], DUECALL_FAILPOINT="dial.permitted:stop")
        assert process.pid is not None
        pid = process.pid
        wait_until(lambda: is_stopped(pid), says="the process is about to send")
        since = real_now()
        wait_until(lambda: real_now() > since + LOOK_TO_END, says="the last look is too old")
        assert setup.requests(number) == [], "the process was frozen before the first byte"
        thawed(process)
        assert ended(process, within_s=10) == -signal.SIGALRM
        assert setup.requests(number) == []


@guards("alarm_thread")
def test_only_the_sending_thread_takes_the_alarm_signal(postgres_url: str) -> None:
    with working(postgres_url, DIAL_LEASE_S="40", SETTLE_S="60") as setup:
        attempt_id = a_pending_attempt(setup.tenant).id
        by_name = setup.carrier.url.replace("127.0.0.1", "localhost")  # a thread looks up the name
        process = setup.dialling([attempt_id], TWILIO_API_URL=by_name, DUECALL_FAILPOINT="dial.sent:stop")
        assert process.pid is not None
        pid = process.pid
        wait_until(lambda: is_stopped(pid), says="all threads that a call needs have started")
        taking = threads_that_take(signal.SIGALRM, pid)
        thawed(process)  # before any assertion, because a frozen process would outlive a failed test
        wait_until(lambda: "placed" in setup.tenant.history(attempt_id), says="the carrier's answer is recorded")
        assert stopped(process) == [0]
        assert len(taking) == 1
        assert pid not in taking, "the main thread sends nothing"


def test_process_frozen_after_sending_its_post_goes_on(postgres_url: str) -> None:
    with working(postgres_url, DIAL_LEASE_S="40", SETTLE_S="60") as setup:
        number = a_number()
        attempt_id = a_pending_attempt(setup.tenant, number).id
        process = setup.dialling([attempt_id], DUECALL_FAILPOINT="dial.sent:stop")
        assert process.pid is not None
        pid = process.pid
        wait_until(lambda: is_stopped(pid), says="the POST is sent")
        since = real_now()
        wait_until(lambda: real_now() > since + LOOK_TO_END, says="an unsent call would be too late now")
        thawed(process)
        wait_until(lambda: "placed" in setup.tenant.history(attempt_id), says="the carrier's answer is recorded")
        assert stopped(process) == [0]
        assert len(setup.requests(number)) == 1


def test_last_look_that_fails_returns_the_attempt(postgres_url: str) -> None:
    with working(postgres_url) as setup:
        number = a_number()
        attempt_id = a_pending_attempt(setup.tenant, number).id
        with asking_the_clock(postgres_url, "RAISE EXCEPTION 'a test'"):
            process = setup.dialling([attempt_id])
            wait_until(lambda: "not_placed" in setup.tenant.history(attempt_id), says="the attempt is returned")
        assert stopped(process) == [0]
        assert setup.tenant.attempt(attempt_id).state is AttemptState.PENDING
        assert setup.requests(number) == []


def test_last_look_that_times_out_returns_the_attempt(postgres_url: str) -> None:
    with working(postgres_url) as setup:
        number = a_number()
        attempt_id = a_pending_attempt(setup.tenant, number).id
        with no_last_look(postgres_url):
            process = setup.dialling([attempt_id], DIAL_LEASE_S="10", SETTLE_S="20")
            wait_until(lambda: "not_placed" in setup.tenant.history(attempt_id), says="the attempt is returned")
        assert stopped(process) == [0]
        assert setup.requests(number) == []
