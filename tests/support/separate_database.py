"""A database for one module, in the server of the other tests: its large tables slow no other test down."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from uuid import uuid4

import psycopg
from sqlalchemy import make_url

from scheduler.persistence import schema
from scheduler.persistence.database import Database
from standalone.valkey_and_postgres import EmbeddedPostgres


@dataclass(frozen=True, kw_only=True)
class SeparateDatabase:
    """A database at this release's schema, as its owner, the API, the workers and the console see it."""

    url: str
    """The superuser's."""
    owner: Database
    api: Database
    worker: Database
    console: Database

    @property
    def name(self) -> str:
        return make_url(self.url).database or ""


@contextmanager
def separate_database(
    postgres: EmbeddedPostgres, logins: schema.Logins, *, copied: SeparateDatabase | None = None
) -> Iterator[SeparateDatabase]:
    """Create an empty database, or a copy of one to which no connection is open, and drop it at the end."""
    name, template = f"separate_{uuid4().hex}", _upgraded(postgres.url) if copied is None else copied.name
    assert logins.operator is not None
    url, api_url, worker_url, console_url = (
        make_url(each).set(database=name).render_as_string(hide_password=False)
        for each in (postgres.url, logins.api, logins.worker, logins.operator)
    )
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        try:
            with (
                closing(Database(url)) as owner,
                closing(Database(api_url, bound=True)) as api,
                closing(Database(worker_url, bound=False)) as worker,
                closing(Database(console_url, operates=True)) as console,
            ):
                yield SeparateDatabase(url=url, owner=owner, api=api, worker=worker, console=console)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@cache
def _upgraded(url: str) -> str:
    """Create a database at this release's schema, once for each server. Return its name."""
    name = "upgraded"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
    schema.upgrade(make_url(url).set(database=name).render_as_string(hide_password=False))
    return name
