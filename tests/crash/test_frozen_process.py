"""A dial process that stood still for longer than its lease never sends late."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from typing import Any
from uuid import UUID

import psycopg
import pytest

from scheduler.domain.attempt import AttemptState, Reason
from tests.builders import a_number, a_pending_attempt
from tests.conftest import wait_until
from tests.crash.works import Works, ended, frozen, stopped, working
from tests.guards import guards

pytestmark = pytest.mark.crash

_CLOCK = """
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        IF current_query() LIKE '%AS database_clock%' THEN {meanwhile}; END IF;
        RETURN pg_catalog.clock_timestamp();
    END $$
"""


@contextmanager
def asking_the_clock(url: str, meanwhile: str) -> Iterator[psycopg.Connection[Any]]:
    """For processes that connect while this lasts, a last look does `meanwhile` when it asks the database's clock.

    A function of that name comes before the system's own. Claims go through: they do not ask.
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
    """Until the end a claim goes through, and the look that follows it waits."""
    with asking_the_clock(url, "PERFORM pg_advisory_xact_lock_shared(4711)") as connection:
        connection.execute("SELECT pg_advisory_lock(4711)")
        try:
            yield
        finally:
            connection.execute("SELECT pg_advisory_unlock(4711)")


def claimed_and_frozen(works: Works, url: str, number: str) -> tuple[UUID, ForkServerProcess]:
    attempt_id = a_pending_attempt(works.house, number).id
    with no_last_look(url):
        process = works.dialling([attempt_id])
        wait_until(lambda: works.house.attempt(attempt_id).state is AttemptState.IN_PROGRESS, says="it is claimed")
        frozen(process)
    return attempt_id, process


def thawed(process: ForkServerProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)


@guards("frozen")
def test_a_process_frozen_past_its_lease_dies_instead_of_ringing(postgres_url: str) -> None:
    with working(postgres_url) as works:
        number = a_number()
        attempt_id, process = claimed_and_frozen(works, postgres_url, number)
        wait_until(lambda: "answer_lost" in works.house.history(attempt_id), says="the lease was settled")
        thawed(process)
        assert ended(process, within_s=10) == -signal.SIGALRM
        assert works.requests(number) == []
        assert {"placed", "deferred", "not_placed"}.isdisjoint(works.house.history(attempt_id)), "nor has it written"


def test_a_process_frozen_for_less_than_its_lease_rings(postgres_url: str) -> None:
    with working(postgres_url, DIAL_LEASE_S="30", SETTLE_S="60") as works:
        number = a_number()
        works.carrier.plan(to=number, ring_s=0.1, talk_s=0.1)
        attempt_id, process = claimed_and_frozen(works, postgres_url, number)
        thawed(process)
        wait_until(lambda: works.house.attempt(attempt_id).reason is Reason.ANSWERED, says="it rang")
        assert stopped(process) == [0]
        assert len(works.requests(number)) == 1


@guards("look_age")
def test_a_last_look_that_is_old_when_it_comes_is_none(postgres_url: str) -> None:
    with working(postgres_url) as works:
        number = a_number()
        attempt_id = a_pending_attempt(works.house, number).id
        with asking_the_clock(postgres_url, "PERFORM pg_sleep(0.3)"):
            process = works.dialling([attempt_id])
            wait_until(lambda: len(works.house.history(attempt_id)) > 2, says="it is given back")
        assert stopped(process) == [0]
        assert works.house.history(attempt_id) == ["created", "claimed", "deferred"]
        assert works.requests(number) == []


def test_a_last_look_that_breaks_off_gives_the_attempt_back(postgres_url: str) -> None:
    with working(postgres_url) as works:
        number = a_number()
        attempt_id = a_pending_attempt(works.house, number).id
        with asking_the_clock(postgres_url, "RAISE EXCEPTION 'a test'"):
            process = works.dialling([attempt_id])
            wait_until(lambda: "not_placed" in works.house.history(attempt_id), says="it is given back")
        assert stopped(process) == [0]
        assert works.house.attempt(attempt_id).state is AttemptState.PENDING
        assert works.requests(number) == []


def test_a_last_look_that_the_database_keeps_waiting_gives_the_attempt_back(postgres_url: str) -> None:
    with working(postgres_url) as works:
        number = a_number()
        attempt_id = a_pending_attempt(works.house, number).id
        with no_last_look(postgres_url):
            process = works.dialling([attempt_id], DIAL_LEASE_S="10", SETTLE_S="20")
            wait_until(lambda: "not_placed" in works.house.history(attempt_id), says="it is given back")
        assert stopped(process) == [0]
        assert works.requests(number) == []
