"""The commit of a write that a client waits for: never after its deadline, and with a known outcome."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text

from scheduler.clock import deadline_in
from scheduler.domain.interview import Job, JobStatus
from scheduler.persistence.database import Database
from scheduler.persistence.errors import Commit, CommitInDoubt, DatabaseAway, Outcome
from scheduler.persistence.stores import Stores
from tests.architecture.guards import guards
from tests.conftest import NOON, Seeded, wait_until
from tests.support.servers import Wire, wired


@pytest.fixture
def over_wire(postgres_url: str) -> Iterator[tuple[Wire, Database]]:
    with wired(postgres_url) as (wire, url):
        database = Database(url, pool_size=1)
        database.check_start()  # connects, which commits too
        yield wire, database
        database.close()


@guards("deadline")
def test_transaction_is_not_committed_after_its_deadline(database: Database, seeded: Seeded) -> None:
    written: list[UUID] = []

    def write_late() -> None:
        with ExitStack() as opened:
            written.append(write(opened.enter_context(database.transaction()), seeded))
            with deadline_in(0):
                opened.close()

    with pytest.raises(DatabaseAway):
        write_late()
    assert not job_exists(database, written[0])


def test_transaction_is_committed_before_its_deadline(database: Database, seeded: Seeded) -> None:
    with deadline_in(60), database.transaction() as stores:
        job_id = write(stores, seeded)
    assert job_exists(database, job_id)


def test_transaction_does_not_begin_after_its_deadline(database: Database, seeded: Seeded) -> None:
    with pytest.raises(DatabaseAway), deadline_in(0), database.transaction() as stores:
        write(stores, seeded)


def test_statement_and_lock_wait_end_with_the_deadline(database: Database) -> None:
    with deadline_in(1.5), database.transaction() as stores:
        assert limits(stores) == (True, True)
    with deadline_in(60), database.transaction() as stores:
        assert limits(stores) == (False, False)


@guards("given_up")
def test_transaction_is_not_committed_once_given_up(database: Database, seeded: Seeded) -> None:
    commit = Commit()
    written: list[UUID] = []

    def write_and_give_up() -> None:
        with database.transaction(commit=commit) as stores:
            written.append(write(stores, seeded))
            assert commit.give_up()

    with pytest.raises(DatabaseAway):
        write_and_give_up()
    assert not job_exists(database, written[0])
    assert commit.transaction_id is not None
    assert database.outcome_of(commit.transaction_id) is Outcome.ABORTED


def test_commit_cannot_be_given_up_once_it_was_sent(database: Database, seeded: Seeded) -> None:
    commit = Commit()
    with database.transaction(commit=commit) as stores:
        job_id = write(stores, seeded)
    assert not commit.give_up()
    assert job_exists(database, job_id)


@pytest.mark.parametrize(
    ("lost", "outcome"),
    [
        pytest.param("cut_after", Outcome.COMMITTED, marks=guards("commit_in_doubt"), id="it arrived"),
        pytest.param("cut_before", Outcome.ABORTED, id="it never arrived"),
    ],
)
def test_commit_without_an_answer_is_in_doubt(
    over_wire: tuple[Wire, Database], database: Database, seeded: Seeded, lost: str, outcome: Outcome
) -> None:
    wire, cut = over_wire
    commit = Commit()
    setattr(wire, lost, is_commit)
    with pytest.raises(CommitInDoubt), cut.transaction(commit=commit) as stores:
        job_id = write(stores, seeded)
    assert commit.transaction_id is not None
    wait_until(lambda: settled(database, commit), says="PostgreSQL has finished it")
    assert database.outcome_of(commit.transaction_id) is outcome
    assert job_exists(database, job_id) is (outcome is Outcome.COMMITTED)


def test_error_before_the_commit_leaves_no_doubt(
    over_wire: tuple[Wire, Database], database: Database, seeded: Seeded
) -> None:
    wire, cut = over_wire
    wire.cut_after = lambda sent: b"INSERT INTO jobs" in sent
    with pytest.raises(DatabaseAway) as away, cut.transaction(commit=Commit()) as stores:
        write(stores, seeded)
    assert not isinstance(away.value, CommitInDoubt)


def test_open_transaction_has_no_outcome_yet(postgres_url: str, database: Database) -> None:
    with psycopg.connect(postgres_url) as other:
        row: Any = other.execute("SELECT CAST(pg_current_xact_id() AS text)").fetchone()
        assert database.outcome_of(row[0]) is Outcome.UNKNOWN
    assert database.outcome_of("9000000000000") is Outcome.UNKNOWN, "an id of another server"


def write(stores: Stores, seeded: Seeded) -> UUID:
    job = Job(
        id=uuid4(),
        company_id=seeded.company_id,
        title="Baker",
        description="Bakes.",
        status=JobStatus.OPEN,
        created_at=NOON,
        updated_at=NOON,
    )
    stores.jobs.add(job)
    return job.id


def job_exists(database: Database, job_id: UUID) -> bool:
    with database.reading() as stores:
        row = stores.connection.execute(text("SELECT count(*) FROM jobs WHERE id = :id"), {"id": job_id}).one()
    return bool(row[0])


def limits(stores: Stores) -> tuple[bool, bool]:
    """Check whether the statement timeout and the lock timeout are below their usual values."""
    row: Any = stores.connection.execute(
        text(
            "SELECT CAST(current_setting('statement_timeout') AS interval) < '5 s' AS statement,"
            " CAST(current_setting('lock_timeout') AS interval) < '2 s' AS lock"
        )
    ).one()
    return bool(row[0]), bool(row[1])


def settled(database: Database, commit: Commit) -> bool:
    assert commit.transaction_id is not None
    return database.outcome_of(commit.transaction_id) is not Outcome.UNKNOWN


def is_commit(sent: bytes) -> bool:
    return b"COMMIT" in sent
