"""Frozen or slow dial processes: they send no call after their lease or after closing time."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import psycopg
import pytest

from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.company import EVERY_DAY, CallTimeInterval
from scheduler.lifecycle.policy import LOOK_TO_END, RING_MARGIN
from tests.architecture.guards import guards
from tests.conftest import real_now, seed, wait_until
from tests.support.builders import of_company
from tests.support.servers import Wire, a_crowded_door, address_of, is_connecting_to
from tests.verification.world.installation import begun, ended
from tests.verification.world.workers import (
    CrashSetup,
    Dialled,
    dialled,
    frozen,
    is_stopped,
    let_time_pass,
    stopped,
    thawed,
    threads_that_take,
    working,
)

pytestmark = pytest.mark.crash
_BRATISLAVA = ZoneInfo("Europe/Bratislava")

_LONG: dict[str, Any] = {"DIAL_LEASE_S": "40", "SETTLE_S": "60"}
_SLOW_TO_CONNECT: dict[str, Any] = {**_LONG, "CARRIER_CONNECT_TIMEOUT_S": "20", "CARRIER_TOTAL_TIMEOUT_S": "25"}
_CLOCK = """
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        IF current_query() LIKE '%AS command_waiting%AS database_clock%' THEN {meanwhile}; END IF;
        RETURN pg_catalog.clock_timestamp();
    END $$
"""
_A_LOOK_WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"


@contextmanager
def asking_the_clock(url: str, meanwhile: str) -> Iterator[psycopg.Connection[Any]]:
    """Make every last look run the statement `meanwhile` when it reads the database's clock.

    A function of ours hides the clock of the system from processes that connect inside. Other statements do not wait.
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


def claimed_and_frozen(setup: CrashSetup, url: str) -> Dialled:
    with no_last_look(url):
        call = dialled(setup)
        # Right after the commit the lease timer is not set yet. Once the last look waits, it is.
        wait_until(lambda: setup.tenant.ask(_A_LOOK_WAITS), says="the attempt is claimed and its last look waits")
        assert call.attempt.state is AttemptState.IN_PROGRESS
        frozen(call.process)
    return call


def dialled_until_frozen(setup: CrashSetup, **settings: Any) -> Dialled:
    """Dial until a process is frozen at its failpoint. On a busy machine a last look takes too long at times."""
    while True:
        call = dialled(setup, **settings)
        wait_until(
            lambda call=call: is_stopped(call.process) or len(call.history) > 2,  # type: ignore[misc]
            seconds=60,
            says="the process is frozen, or has put the call back",
        )
        if is_stopped(call.process):
            return call
        stopped(call.process)


@guards("frozen")
def test_process_frozen_past_its_lease_dies_instead_of_ringing(postgres_url: str) -> None:
    with working(postgres_url, DIAL_LEASE_S="6", SETTLE_S="8") as setup:
        call = claimed_and_frozen(setup, postgres_url)
        wait_until(lambda: "answer_lost" in call.history, says="the lease was settled", seconds=60)
        thawed(call.process)
        assert ended(call.process) == -signal.SIGALRM
        assert call.requests == []
        assert {"placed", "deferred", "not_placed"}.isdisjoint(call.history), "the process has recorded nothing"


def test_process_frozen_past_its_time_to_send_returns_the_call(postgres_url: str) -> None:
    """The rest of the lease is for the POST, and for the return of unsent calls."""
    with working(postgres_url, DIAL_LEASE_S="40", SETTLE_S="60", CARRIER_TOTAL_TIMEOUT_S="36") as setup:
        call = claimed_and_frozen(setup, postgres_url)
        let_time_pass(setup.tenant.policy.send_within, says="its time to be sent is over")
        thawed(call.process)
        wait_until(lambda: len(call.history) > 2, says="the attempt has a result")
        assert stopped(call.process) == [0]
        assert call.requests == []
        assert call.history == ["created", "claimed", "deferred"]


def test_process_frozen_for_less_than_its_lease_rings(postgres_url: str) -> None:
    with working(postgres_url, DIAL_LEASE_S="30", SETTLE_S="60") as setup:
        setup.carrier.plan(ring_s=0.1, talk_s=0.1)
        call = claimed_and_frozen(setup, postgres_url)
        thawed(call.process)
        wait_until(lambda: call.attempt.reason is Reason.ANSWERED, says="the call is answered")
        assert stopped(call.process) == [0]
        assert len(call.requests) == 1


def test_last_look_that_answers_too_late_defers_the_attempt(postgres_url: str) -> None:
    with working(postgres_url) as setup:
        with asking_the_clock(postgres_url, "PERFORM pg_sleep(0.3)"):
            call = dialled(setup)
            wait_until(lambda: len(call.history) > 2, says="the attempt is returned")
        assert stopped(call.process) == [0]
        assert call.history == ["created", "claimed", "deferred"]
        assert call.requests == []


@pytest.mark.parametrize("is_frozen", [True, False], ids=["frozen", "slow"])
def test_call_that_connects_after_closing_time_is_not_sent(postgres_url: str, is_frozen: bool) -> None:
    assert ended(begun(int)) == 0, "later processes start at once, because the fork server runs"
    now = real_now()
    # The kernel retries a connection 7 s after the first attempt and gives up 3 s later.
    last_start = now + timedelta(seconds=6)
    # The calling hours end soon, and the ring timeout allows no call to start after `last_start`.
    closes = now.astimezone(_BRATISLAVA).replace(second=0, microsecond=0) + timedelta(minutes=2)
    start = (timedelta(hours=closes.hour, minutes=closes.minute) - timedelta(hours=2)) % timedelta(hours=24)
    hours = CallTimeInterval(days=EVERY_DAY, start=start, end=start + timedelta(hours=2))
    ring_timeout_s = (closes - last_start - RING_MARGIN).total_seconds()
    times: dict[str, Any] = {**_SLOW_TO_CONNECT, "RING_TIMEOUT_S": f"{ring_timeout_s:.3f}"}
    with a_crowded_door() as door, working(postgres_url, TWILIO_API_URL=address_of(door), **times) as setup:
        company = of_company(setup.tenant, seed(setup.tenant.database, real_now(), intervals=(hours,)))
        call = dialled(setup, company)
        wait_until(lambda: is_connecting_to(door), seconds=60, says="its last look has allowed the call")
        if is_frozen:
            frozen(call.process)
        wait_until(lambda: real_now() > last_start, says="it is too late for a call to start")
        with closing(Wire(urlsplit(setup.carrier.url).port or 0, door)):
            if is_frozen:
                thawed(call.process)
            wait_until(lambda: len(call.history) > 2, says="the attempt has a result")
            assert stopped(call.process) == [0]
            assert call.requests == []
            assert call.history == ["created", "claimed", "deferred"]


def test_call_that_connects_late_within_calling_hours_is_sent(postgres_url: str) -> None:
    with a_crowded_door() as door, working(postgres_url, TWILIO_API_URL=address_of(door), **_SLOW_TO_CONNECT) as setup:
        call = dialled(setup)
        wait_until(lambda: is_connecting_to(door), seconds=60, says="its last look has allowed the call")
        with closing(Wire(urlsplit(setup.carrier.url).port or 0, door)):
            wait_until(lambda: "placed" in call.history, says="the call is placed")
            assert stopped(call.process) == [0]
            assert len(call.requests) == 1


@guards("frozen", "frozen_unsent")
def test_process_frozen_right_before_the_first_byte_ends(postgres_url: str) -> None:
    with working(postgres_url, **_LONG) as setup:
        call = dialled_until_frozen(setup, DUECALL_FAILPOINT="dial.permitted:stop")
        let_time_pass(LOOK_TO_END, says="the last look is too old")
        assert call.requests == [], "the process was frozen before the first byte"
        thawed(call.process)
        assert ended(call.process) == -signal.SIGALRM
        assert call.requests == []


@guards("alarm_thread")
def test_only_the_sending_thread_takes_the_alarm_signal(postgres_url: str) -> None:
    with working(postgres_url, **_LONG) as setup:
        by_name = setup.carrier.url.replace("127.0.0.1", "localhost")  # a thread looks up the name
        # At the failpoint all threads that a call needs have started.
        call = dialled_until_frozen(setup, TWILIO_API_URL=by_name, DUECALL_FAILPOINT="dial.sent:stop")
        taking = threads_that_take(signal.SIGALRM, call.process)
        thawed(call.process)  # before any assertion, because a frozen process would outlive a failed test
        wait_until(lambda: "placed" in call.history, says="the carrier's answer is recorded")
        assert stopped(call.process) == [0]
        assert len(taking) == 1
        assert call.process.pid not in taking, "the main thread sends nothing"


def test_process_frozen_after_sending_its_post_goes_on(postgres_url: str) -> None:
    with working(postgres_url, **_LONG) as setup:
        call = dialled_until_frozen(setup, DUECALL_FAILPOINT="dial.sent:stop")
        let_time_pass(LOOK_TO_END, says="an unsent call would be too late now")
        thawed(call.process)
        wait_until(lambda: "placed" in call.history, says="the carrier's answer is recorded")
        assert stopped(call.process) == [0]
        assert len(call.requests) == 1


def test_last_look_that_fails_returns_the_attempt(postgres_url: str) -> None:
    with working(postgres_url) as setup:
        with asking_the_clock(postgres_url, "RAISE EXCEPTION 'a test'"):
            call = dialled(setup)
            wait_until(lambda: "not_placed" in call.history, says="the attempt is returned")
        assert stopped(call.process) == [0]
        assert call.attempt.state is AttemptState.PENDING
        assert call.requests == []


def test_last_look_that_times_out_returns_the_attempt(postgres_url: str) -> None:
    with working(postgres_url) as setup:
        with no_last_look(postgres_url):
            call = dialled(setup, DIAL_LEASE_S="10", SETTLE_S="20")
            wait_until(lambda: "not_placed" in call.history, says="the attempt is returned")
        assert stopped(call.process) == [0]
        assert call.requests == []
