"""A database for one module, in the server of the other tests: its large tables slow no other test down."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
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


@contextmanager
def separate_database(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[SeparateDatabase]:
    """Create an empty database, and drop it at the end."""
    name = f"separate_{uuid4().hex}"
    assert logins.operator is not None
    url, api_url, worker_url, console_url = (
        make_url(each).set(database=name).render_as_string(hide_password=False)
        for each in (postgres.url, logins.api, logins.worker, logins.operator)
    )
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
        try:
            schema.upgrade(url)
            with (
                closing(Database(url)) as owner,
                closing(Database(api_url, bound=True)) as api,
                closing(Database(worker_url, bound=False)) as worker,
                closing(Database(console_url, operates=True)) as console,
            ):
                yield SeparateDatabase(url=url, owner=owner, api=api, worker=worker, console=console)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
