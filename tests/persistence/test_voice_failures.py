"""Verdicts about the voice server read the last minutes by an index, however many calls there were before."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest

from scheduler.lifecycle.voice_server import WITHIN
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, seed
from tests.persistence.rows_read import rows_read
from tests.support.big_tables import add_answered_calls
from tests.support.separate_database import separate_database

COUNT = 20_000
"""One booked call in a second."""
A_MINUTE = timedelta(minutes=1)
LASTED = timedelta(minutes=5)
_ROWS = (
    "SET session_replication_role = replica",
    """
    UPDATE attempts SET claimed_at = claimed_at - %(lasted)s
    WHERE id = (SELECT attempt_id FROM usage ORDER BY booked_at DESC LIMIT 1)
    """,
    """
    UPDATE attempts SET state = 'FAILED', reason = 'VOICEMAIL'
    WHERE claimed_at < %(past)s AND hashtext(id::text) %% 2 = 0
    """,
    "VACUUM ANALYZE",
)
READS: dict[str, tuple[Callable[[Stores], object], timedelta]] = {
    "failures in a row": (lambda stores: stores.voice_failures.in_a_row(1, NOON - WITHIN), LASTED),
    "trial": (lambda stores: stores.voice_failures.trial(1, NOON - A_MINUTE, NOON, A_MINUTE), A_MINUTE),
}
"""What is read, and how many minutes of bookings, each with its call."""


@pytest.fixture(scope="module")
def worker(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[Database]:
    """The call that ended last lasted five minutes. Machines answered half of the earlier ones."""
    with separate_database(postgres, logins) as made:
        add_answered_calls(made.url, seed(made.owner, NOON), NOON, COUNT, account_id=1)
        with psycopg.connect(made.url, autocommit=True) as connection:
            for statement in _ROWS:
                values = {"lasted": LASTED, "past": NOON - 2 * WITHIN} if "%(" in statement else None
                connection.execute(statement.encode(), values)
        yield made.worker


@pytest.mark.parametrize("name", READS)
def test_verdict_reads_the_last_minutes_by_an_index(worker: Database, name: str) -> None:
    act, reaches = READS[name]
    read = rows_read(worker, worker.transaction(), act, frozenset({"attempts", "usage"}))
    assert read <= 2 * reaches.total_seconds() + 10
