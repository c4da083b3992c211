"""Round trips of a transaction, and connections of the pool that the server has closed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from scheduler.domain.principal import KeyKind, Principal
from scheduler.persistence import sessions
from scheduler.persistence.database import Database, concerns_no_item, is_conflict
from scheduler.persistence.errors import Commit, DatabaseAway, LockTaken, SchemaNotReady, StatementFailed
from scheduler.persistence.stores import Stores
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.architecture.guards import guards
from tests.support.servers import Wire, wired

POOL = 3
PRINCIPAL = Principal(id=uuid4(), kind=KeyKind.REGULAR, key_id=uuid4(), scopes=frozenset(), company_id=uuid4())
Opened = Callable[..., AbstractContextManager[Stores]]
_BACKEND = text("SELECT pg_backend_pid()")
_PRINCIPAL = text(
    "SELECT coalesce(current_setting('duecall.principal_id', true), '') AS principal_id,"
    " coalesce(current_setting('duecall.company_id', true), '') AS company_id"
)


def backend(stores: Stores) -> int:
    pid: int = stores.connection.execute(_BACKEND).scalar_one()
    return pid


def write(database: Database) -> int:
    with database.transaction() as stores:
        return backend(stores)


def read(database: Database) -> int:
    with database.reading() as stores:
        return backend(stores)


def ask(database: Database) -> int:
    with database.statement() as stores:
        return backend(stores)


Way = Callable[[Database], int]
WAYS: list[Way] = [write, read, ask]


@pytest.fixture
def pooled(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url, pool_size=POOL)
    yield database
    database.close()


@pytest.fixture
def over_wire(postgres_url: str) -> Iterator[tuple[Wire, Database]]:
    with wired(postgres_url) as (wire, url):
        database = Database(url, pool_size=1)
        ask(database)  # connects
        yield wire, database
        database.close()


def fill(database: Database) -> set[int]:
    """Open all connections of the pool at once, and return the processes at their other ends."""
    with ExitStack() as open_at_once:
        return {backend(open_at_once.enter_context(database.reading())) for _ in range(POOL)}


def terminate(url: str, pids: set[int]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for pid in pids:
            assert connection.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone() == (True,)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_connections_closed_by_the_server_are_replaced(postgres_url: str, pooled: Database, way: Way) -> None:
    closed = fill(pooled)
    terminate(postgres_url, closed)
    assert way(pooled) not in closed
    assert not fill(pooled) & closed


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_open_connections_are_used_again(pooled: Database, way: Way) -> None:
    opened = fill(pooled)
    assert {way(pooled) for _ in range(2 * POOL)} == opened


def test_restarted_server_is_used_at_once(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, durable=False)
    url = server.start()
    pools = {way: Database(url, pool_size=POOL) for way in WAYS}
    try:
        for pool in pools.values():
            fill(pool)
        server.restart()
        for way, pool in pools.items():
            way(pool)
    finally:
        for pool in pools.values():
            pool.close()
        server.stop()


def test_connection_closed_within_a_transaction_is_not_replaced(postgres_url: str, pooled: Database) -> None:
    entered: list[int] = []

    def lose_it() -> None:
        with pooled.transaction() as stores:
            entered.append(backend(stores))
            terminate(postgres_url, set(entered))
            backend(stores)

    with pytest.raises(DatabaseAway):
        lose_it()
    assert len(entered) == 1


@pytest.mark.parametrize(
    ("way", "trips"), [pytest.param(way, trips, id=way.__name__) for way, trips in ((write, 3), (read, 3), (ask, 1))]
)
def test_round_trips_with_one_statement(over_wire: tuple[Wire, Database], way: Way, trips: int) -> None:
    assert len(sent_by(over_wire, way)) == trips


def test_empty_transaction_takes_two_round_trips(over_wire: tuple[Wire, Database]) -> None:
    def empty(database: Database) -> None:
        with database.transaction():
            pass

    assert len(sent_by(over_wire, empty)) == 2


def test_principal_and_id_cost_no_round_trip(over_wire: tuple[Wire, Database]) -> None:
    commit = Commit()

    def name_it(database: Database) -> None:
        with database.transaction(PRINCIPAL, commit=commit):
            pass

    assert len(sent_by(over_wire, name_it)) == 2
    assert commit.transaction_id is not None


@pytest.mark.parametrize("opened", [Database.transaction, Database.reading], ids=["transaction", "reading"])
def test_principal_is_set_for_one_transaction_only(over_wire: tuple[Wire, Database], opened: Opened) -> None:
    _, database = over_wire
    with opened(database, PRINCIPAL) as stores:
        assert principal_in(stores) == (str(PRINCIPAL.id), str(PRINCIPAL.company_id))
    with opened(database) as stores:
        assert principal_in(stores) == ("", "")


def principal_in(stores: Stores) -> tuple[str, str]:
    principal_id, company_id = stores.connection.execute(_PRINCIPAL).one()
    return principal_id, company_id


def sent_by(over_wire: tuple[Wire, Database], act: Callable[[Database], object]) -> list[bytes]:
    """Return the messages that the server receives meanwhile. Each is answered before the next."""
    wire, database = over_wire
    sent: list[bytes] = []

    def note(message: bytes) -> bool:
        sent.append(message)
        return False

    wire.dead = note
    act(database)
    return sent


RAISED = "DO $$ BEGIN RAISE EXCEPTION 'a test' USING ERRCODE = '{}'; END $$"


@pytest.mark.parametrize(
    ("statement", "is_ones", "is_a_conflict"),
    [
        pytest.param(RAISED.format("55P03"), False, True, id="lock timeout"),
        pytest.param(RAISED.format("40P01"), False, True, id="deadlock"),
        pytest.param(RAISED.format("57014"), False, False, id="statement timeout"),
        pytest.param(RAISED.format("53100"), False, False, id="full disk"),
        pytest.param(RAISED.format("57P01"), False, False, id="shutdown"),
        pytest.param("SELECT 1 / 0", True, False, id="division by zero"),
        pytest.param("SELECT '\\u0000'::jsonb", True, False, id="a character that cannot be stored"),
        pytest.param("SELECT 1 FROM no_such_table", True, False, id="missing table"),
    ],
)
def test_error_says_whether_it_belongs_to_an_item(
    pooled: Database, statement: str, is_ones: bool, is_a_conflict: bool
) -> None:
    with pooled.reading() as stores:
        with pytest.raises(DBAPIError) as raised:
            stores.connection.execute(text(statement))
        assert concerns_no_item(raised.value) is not is_ones
        assert is_conflict(raised.value) is is_a_conflict
        stores.connection.execute(text("ROLLBACK"))


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        pytest.param(RAISED.format("57014"), StatementFailed, id="statement timeout"),
        pytest.param(RAISED.format("54000"), StatementFailed, id="limit"),
        pytest.param(RAISED.format("58030"), StatementFailed, id="damaged file"),
        pytest.param(RAISED.format("55P03"), LockTaken, id="lock timeout"),
        pytest.param(RAISED.format("53100"), DatabaseAway, id="full disk"),
        pytest.param(RAISED.format("57P01"), DatabaseAway, id="shutdown"),
    ],
)
def test_error_of_a_statement_is_translated(pooled: Database, statement: str, error: type[DatabaseAway]) -> None:
    def fail() -> None:
        with pooled.reading() as stores:
            stores.connection.execute(text(statement))

    with pytest.raises(DatabaseAway) as raised:
        fail()
    assert type(raised.value) is error


def test_statement_over_its_limit_is_not_a_lost_connection(pooled: Database) -> None:
    def count_slowly() -> None:
        with pooled.reading() as stores:
            stores.connection.execute(text("SET LOCAL statement_timeout = 1"))
            stores.connection.execute(text("SELECT count(*) FROM generate_series(1, 100000000)"))

    with pytest.raises(StatementFailed):
        count_slowly()


def set_revision(url: str, revision: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", [revision])


@guards("schema_not_ready")
def test_start_is_refused_on_an_older_schema_only(postgres_url: str, pooled: Database) -> None:
    try:
        set_revision(postgres_url, "0001")
        with pytest.raises(SchemaNotReady, match="the schema 0001 of an older version; run `duecall db upgrade`"):
            pooled.check_start()
        set_revision(postgres_url, "9999")
        pooled.check_start()
    finally:
        set_revision(postgres_url, sessions.head())
    pooled.check_start()
