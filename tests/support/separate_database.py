"""A database for one module, in the server of the other tests: its large tables slow no other test down."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from uuid import uuid4

import psycopg
from sqlalchemy import make_url

from scheduler.local.postgres import EmbeddedPostgres
from scheduler.persistence import schema
from scheduler.persistence.database import Database


@dataclass(frozen=True, kw_only=True)
class SeparateDatabase:
    """A database at this release's schema, as its owner, the API and the workers see it."""

    url: str
    """The superuser's."""
    owner: Database
    api: Database
    worker: Database


@contextmanager
def separate_database(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[SeparateDatabase]:
    """Create an empty database, and drop it at the end."""
    name = f"separate_{uuid4().hex}"
    url, api_url, worker_url = (
        make_url(each).set(database=name).render_as_string(hide_password=False)
        for each in (postgres.url, logins.api, logins.worker)
    )
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
        try:
            schema.upgrade(url)
            with (
                closing(Database(url)) as owner,
                closing(Database(api_url, bound=True)) as api,
                closing(Database(worker_url, bound=False)) as worker,
            ):
                yield SeparateDatabase(url=url, owner=owner, api=api, worker=worker)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
