"""A client of the real API, and a worker that applies accepted commands in the tests that need one."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from api_shim.app import create_app
from scheduler.clock import clock, machine_now
from scheduler.domain.principal import KeyKind, Principal
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.schema import Logins
from scheduler.settings import Settings
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.resources.keys import ALL_SCOPES, Keys
from scheduler.use_cases.shared.context import Context
from tests.api_shim.answers import data
from tests.api_shim.bodies import candidate
from tests.conftest import NOON, Seeded, seed, wait_until
from tests.support.builders import NO_SHORT_CALLS
from tests.support.servers import ACCOUNT_SID, PRIMARY, serving
from workers.app import app as celery
from workers.hints import RedisHintPublisher

PUBLIC_URL = "https://duecall.example"
PEPPER = "a pepper for tests"
PLENTY = 1_000_000
ASYNC = {"Prefer": "respond-async"}
KEY = {"Idempotency-Key": "k"}


@dataclass(frozen=True, kw_only=True)
class Intake:
    """A client of the API with a key."""

    client: httpx.Client
    database: Database
    seeded: Seeded
    settings: Settings
    key: str

    @property
    def now(self) -> Callable[[], datetime]:
        return clock(self.settings.duecall_clock_offset_s)

    def with_key(self, key: str) -> "Intake":
        return replace(self, key=key)

    def with_new_key(self, *scopes: str, kind: KeyKind = KeyKind.REGULAR) -> "Intake":
        return self.with_key(self.new_key(*scopes, kind=kind)[1])

    def with_key_of_another_company(self) -> "Intake":
        return replace(self, seeded=seed(self.database, self.now())).with_new_key()

    def with_key_of_its_ats(self) -> "Intake":
        """Build a client with a new ATS key that is the creator of this company."""
        principal, key = self.new_key(kind=KeyKind.ATS)
        self.adopt(principal)
        return self.with_key(key)

    def adopt(self, principal: Principal) -> None:
        """Make an ATS key the creator of this company."""
        change = "UPDATE companies SET ats_principal_id = :id WHERE id = :company_id"
        self.change(change, id=principal.id, company_id=self.seeded.company_id)

    @property
    def keys(self) -> Keys:
        return Keys(self.database, Hasher(PEPPER), self.now)

    def new_key(
        self, *scopes: str, kind: KeyKind = KeyKind.REGULAR, per_minute: int = PLENTY, per_hour: int = PLENTY
    ) -> tuple[Principal, str]:
        return self.keys.create(
            kind=kind,
            name="a test",
            company_id=self.seeded.company_id if kind is KeyKind.REGULAR else None,
            scopes=frozenset(scopes) or ALL_SCOPES,
            per_minute=per_minute,
            per_hour=per_hour,
        )

    @property
    def company(self) -> str:
        """The path of its company."""
        return f"/company/{self.seeded.company_id}"

    def set_settings(self, **settings: Any) -> httpx.Response:
        """Change settings of its company."""
        return self.patch(self.company, {"settings": settings})

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **more)

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.send("GET", path, params=params)

    def post(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        return self.send("POST", path, json=json, **more)

    def patch(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        return self.send("PATCH", path, json=json, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return self.send("DELETE", path, **more)

    def ids(self, path: str, **params: Any) -> list[str]:
        """List the ids of the resources that a list shows."""
        return [each["id"] for each in data(self.get(path, **params))["items"]]

    def made(self, path: str, body: Any, **more: Any) -> Any:
        """Create a resource and return it."""
        return data(self.post(path, body, **more), 201)

    def create(
        self,
        body: Mapping[str, Any] | None = None,
        *,
        path: str = "/interviews",
        headers: Mapping[str, str] | None = None,
        **params: Any,
    ) -> httpx.Response:
        return self.send("POST", path, json=body or self.body(), headers=headers or {}, params=params)

    def interview(self, **changes: Any) -> dict[str, Any]:
        """Create an interview with a new candidate and return it. A worker must apply the command."""
        return dict(data(self.create(self.body(**changes)), 201))

    def body(self, **changes: Any) -> dict[str, Any]:
        """Build a valid request. `changes` replace fields, or remove them with `...`."""
        usual = {"agentId": str(self.seeded.agent_id), "candidate": candidate()}
        return {name: value for name, value in (usual | changes).items() if value is not ...}

    def count(self, table: str) -> int:
        return int(self.ask(f"SELECT count(*) FROM {table}")[0][0])

    def degraded(self) -> list[str]:
        """Read what `/readyz` reports as degraded."""
        return list(data(self.client.get("/readyz"))["degraded"])

    def is_untouched(self) -> bool:
        """Check whether there are no rows outside the inbox."""
        return not any(self.count(table) for table in ("candidates", "interviews", "attempts", "lines"))

    def ask(self, query: str, **parameters: Any) -> list[Any]:
        with self.database.transaction() as stores:
            return list(stores.connection.execute(text(query), parameters))

    def change(self, statement: str, **parameters: Any) -> None:
        with self.database.transaction() as stores:
            stores.connection.execute(text(statement), parameters)


def settings_for(logins: Logins, redis_url: str) -> Settings:
    """Settings of an API whose clock starts at noon of a Thursday."""
    return Settings(
        database_url=SecretStr(logins.api),
        database_worker_url=SecretStr(logins.worker),
        redis_url=SecretStr(redis_url),
        key_pepper=SecretStr(PEPPER),
        public_url=PUBLIC_URL,
        twilio_account_sid=ACCOUNT_SID,
        twilio_auth_token=SecretStr(PRIMARY),
        duecall_clock_offset_s=(NOON - machine_now()).total_seconds(),
    )


def environment_of(intake: Intake) -> dict[str, str]:
    """Environment of a separate process that uses the same servers and the same time of day."""
    return {
        "DATABASE_URL": intake.settings.database("api"),
        "DATABASE_WORKER_URL": intake.settings.database("worker"),
        "REDIS_URL": intake.settings.redis,
        "KEY_PEPPER": intake.settings.key_pepper.get_secret_value(),
        "PUBLIC_URL": intake.settings.public_url,
        "DUECALL_CLOCK_OFFSET_S": str(intake.settings.duecall_clock_offset_s),
        "TWILIO_ACCOUNT_SID": intake.settings.twilio_account_sid,
        "TWILIO_AUTH_TOKEN": intake.settings.twilio_auth_token.get_secret_value(),
    }


@contextmanager
def an_intake(settings: Settings, database: Database, seeded: Seeded) -> Iterator[Intake]:
    with serving(create_app(settings)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield with_a_key(client, database, seeded, settings)


def with_a_key(client: httpx.Client, database: Database, seeded: Seeded, settings: Settings) -> Intake:
    return Intake(client=client, database=database, seeded=seeded, settings=settings, key="").with_new_key()


@dataclass
class Worker:
    """Applies accepted commands with the product's use case and publishes the results over Redis."""

    apply: Apply
    database: Database
    over: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)

    def run(self) -> None:
        while not self.over.wait(0.01):
            with suppress(DatabaseAway):
                for command_id in self._waiting():
                    self._apply(command_id)

    def _apply(self, command_id: UUID) -> None:
        try:
            self.apply.command(command_id)
        except DatabaseAway:
            raise
        except Exception as error:  # noqa: BLE001 - reported at the end
            self.errors.append(error)

    def _waiting(self) -> list[UUID]:
        with self.database.transaction() as stores:
            rows = stores.connection.execute(
                text("SELECT id FROM inbox WHERE applied_at IS NULL AND quarantined_at IS NULL ORDER BY seq")
            )
            return [row[0] for row in rows]


@contextmanager
def a_worker(settings: Settings, redis_url: str | None = None, *, database: Database | None = None) -> Iterator[Worker]:
    """Run a worker, by default with a database of its own."""
    now = clock(settings.duecall_clock_offset_s)
    hints = RedisHintPublisher(celery, redis_url or settings.redis)
    hints.start()
    key = Hasher(PEPPER).history_key()
    with (
        closing(Database(settings.database("worker"), history_key=key)) if database is None else nullcontext(database)
    ) as connected:
        context = Context(database=connected, hasher=Hasher(PEPPER), policy=NO_SHORT_CALLS, now=now)
        worker = Worker(Apply(context, hints), connected)
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        try:
            yield worker
        finally:
            worker.over.set()
            thread.join()
            hints.stop()
    assert not worker.errors, worker.errors


def applied(intake: Intake, accepted: httpx.Response) -> dict[str, Any]:
    """Read the accepted command after a worker has applied it."""

    def look() -> dict[str, Any]:
        command: dict[str, Any] = intake.get(accepted.headers["Location"]).json()["data"]
        return command if command["status"] == "APPLIED" else {}

    return wait_until(look, says="the command is applied")


@contextmanager
def meanwhile(act: Callable[[], httpx.Response]) -> Iterator[Callable[[], httpx.Response]]:
    """Run `act` in the background. Yields a function that waits for its response."""
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(act()), daemon=True)
    thread.start()
    try:
        yield lambda: wait_until(lambda: answers, seconds=60, says="the response arrives")[0]
    finally:
        thread.join(30)


def slow_acceptance(intake: Intake) -> AbstractContextManager[None]:
    """Make each insert into the inbox take four seconds."""
    return slow_insert(intake, "inbox")


@contextmanager
def slow_insert(intake: Intake, table: str) -> Iterator[None]:
    """Make each insert of a row into the table take four seconds."""
    intake.change(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM pg_sleep_for('4 s'); RETURN NEW; END $$"
    )
    intake.change(f"CREATE TRIGGER slowly BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION slowly()")
    try:
        yield
    finally:
        # Until then it holds the table, also where its request was given up.
        wait_until(lambda: not intake.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
        intake.change(f"DROP TRIGGER slowly ON {table}")
        intake.change("DROP FUNCTION slowly()")


@contextmanager
def taking_less_than(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    if took >= seconds:
        pytest.fail(f"took {took:.2f} s instead of less than {seconds} s")
