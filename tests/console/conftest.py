"""Fixtures: the console on the servers of all tests, as the role of its connections in production."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

import httpx
import pytest
from pydantic import SecretStr

from console.app import create_app
from console.assembly import ConsoleContext, ConsoleUseCases
from console.sessions import ConsoleSessions
from scheduler.domain.principal import OperatorRole
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from scheduler.settings import Settings
from scheduler.use_cases.operations.pauses import Pauses
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.api_shim.conftest import api, intake, lines, premises, tenant, waiting, worker, workers_database  # noqa: F401 - fixtures
from tests.api_shim.patience import patient_with_redis
from tests.conftest import real_now
from tests.support.builders import RecordingHints
from tests.support.servers import a_door, a_server, address_of

PEPPER = "a pepper for tests"


@dataclass(frozen=True, kw_only=True)
class Console:
    """A running console, and the use cases of the person who runs Duecall."""

    url: str
    database: Database
    sessions: ConsoleSessions
    pauses: Pauses

    def link(self, role: OperatorRole = OperatorRole.OPERATOR) -> str:
        _, secret = self.sessions.make_link(role, "cli:ada@host")
        return f"{self.url}/sign-in/link/{secret}"

    def client(self, **headers: str) -> httpx.Client:
        """A browser without a session that sends the headers of a page of the console."""
        own = {"Sec-Fetch-Site": "same-origin", **headers}
        # Without TLS: reading the certificates of all authorities takes longer than most pages.
        return httpx.Client(base_url=self.url, headers=own, timeout=30, verify=False)

    @contextmanager
    def signed_in(self, role: OperatorRole = OperatorRole.OPERATOR) -> Iterator[httpx.Client]:
        with self.client() as client:
            assert client.post(self.link(role)).status_code == httpx.codes.SEE_OTHER
            yield client


def settings_of_console(logins: Logins, redis_url: str, url: str) -> Settings:
    assert logins.operator is not None
    return Settings(
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nothing"),
        database_operator_url=SecretStr(logins.operator),
        redis_url=SecretStr(redis_url),
        key_pepper=SecretStr(PEPPER),
        console_url=url,
        twilio_account_sid="",
    )


@pytest.fixture(scope="session")
def console_context(
    broker: None, logins: Logins, valkey: EmbeddedValkey, cleaner: Callable[[], object]
) -> Iterator[ConsoleContext]:
    """The resources of one running console for all tests, because starting it takes longer than most of them."""
    cleaner()  # a process of an earlier test may have left the marks of its settings
    door = a_door()
    app = create_app(settings_of_console(logins, valkey.url, address_of(door)))
    with ExitStack() as running:
        with patient_with_redis():  # a fixture of a session begins before that of a test
            running.enter_context(a_server(app, door))
        yield cast("ConsoleContext", app.state.console_context)


@pytest.fixture(scope="session")
def console_url(console_context: ConsoleContext) -> str:
    return console_context.address.origin


@pytest.fixture
def console(console_url: str, redis_url: str, database: Database) -> Console:
    return Console(
        url=console_url,
        database=database,
        sessions=ConsoleSessions(database, Hasher(PEPPER), real_now),
        pauses=Pauses(database, real_now, "cli:ada@host"),
    )


@pytest.fixture
def viewer(console: Console) -> Iterator[httpx.Client]:
    with console.signed_in(OperatorRole.VIEWER) as client:
        yield client


@pytest.fixture
def operator(console: Console) -> Iterator[httpx.Client]:
    with console.signed_in() as client:
        yield client


@pytest.fixture(scope="session")
def operators_database(logins: Logins) -> Iterator[Database]:
    """A database as the console connects to it, for statements that are counted."""
    assert logins.operator is not None
    database = Database(logins.operator, pool_size=1, operates=True)
    yield database
    database.close()


@pytest.fixture
def admin(console: Console) -> Iterator[httpx.Client]:
    with console.signed_in(OperatorRole.ADMIN) as client:
        yield client


@pytest.fixture
def account(database: Database) -> Callable[[], None]:
    """Create the carrier account, as the first worker does."""

    def create() -> None:
        with database.transaction() as stores:
            stores.carrier_accounts.ensure("AC1", 1.0, 50, real_now())

    return create


@pytest.fixture
def use_cases(logins: Logins, redis_url: str) -> Iterator[ConsoleUseCases]:
    """The use cases of the console, as the role of its connections."""
    made = ConsoleUseCases(settings_of_console(logins, redis_url, "http://console.test"), RecordingHints())
    yield made
    made.database.close()
