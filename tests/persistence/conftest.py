"""Fixtures: a database with many calls, filled once for the files of tests that read its lists."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from scheduler.domain.principal import KeyKind, Principal
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, Seeded, seed
from tests.support.big_tables import add_finished_calls, add_pending_calls, search_index_made_last
from tests.support.separate_database import SeparateDatabase, separate_database

COUNT = int(os.environ.get("DUECALL_PENDING", "40000"))
COUNT_OF_OTHER = COUNT // 8


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A database with many pending and finished calls of one company, and fewer of another, both of one ATS."""

    database: SeparateDatabase
    one: Seeded
    other: Seeded
    ats_id: UUID


@dataclass(frozen=True, kw_only=True)
class Big:
    """A database with many calls, seen as the API, the workers and the console see it."""

    api: Database
    worker: Database
    console: Database
    one: Seeded
    other: Seeded
    ats_id: UUID

    def principal(self, kind: KeyKind) -> Principal:
        is_ats = kind is KeyKind.ATS
        return Principal(
            id=self.ats_id if is_ats else uuid4(),
            key_id=uuid4(),
            kind=kind,
            company_id=None if is_ats else self.one.company_id,
            scopes=frozenset(),
        )


@pytest.fixture(scope="session")
def many_calls(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[Filled]:
    with separate_database(postgres, logins) as made:
        one, other, ats_id = seed(made.owner, NOON), seed(made.owner, NOON), uuid4()
        with made.owner.transaction() as stores:
            stores.connection.execute(text("UPDATE companies SET ats_principal_id = :id"), {"id": ats_id})
        with search_index_made_last(made.url):
            add_pending_calls(made.url, one, NOON, COUNT)
            add_pending_calls(made.url, other, NOON, COUNT_OF_OTHER)
            add_finished_calls(made.url, one)
        made.owner.close()
        yield Filled(database=made, one=one, other=other, ats_id=ats_id)


@contextmanager
def a_copy(postgres: EmbeddedPostgres, logins: schema.Logins, filled: Filled) -> Iterator[tuple[Big, str]]:
    """Copy a filled database. Yields the copy, and its superuser's URL."""
    with separate_database(postgres, logins, copied=filled.database) as own:
        databases = {"api": own.api, "worker": own.worker, "console": own.console}
        yield Big(**databases, one=filled.one, other=filled.other, ats_id=filled.ats_id), own.url
