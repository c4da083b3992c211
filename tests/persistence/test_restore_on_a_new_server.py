"""A dump is restored on a new server by the steps of docs/operations.md, with its roles, policies and grants."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from scheduler.hashing import Hasher
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.persistence.errors import WrongRole
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, TestClock, seed
from tests.docs.pages import read
from tests.support.builders import a_pending_attempt, a_tenant
from tests.support.dumps import dump, restore

CATALOG = {
    "policies": "SELECT tablename, policyname, roles::text, cmd, qual, with_check FROM pg_policies",
    "row security": (
        "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    ),
    "grants": "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "grants of columns": (
        "SELECT attrelid::regclass::text, attname, attacl::text FROM pg_attribute"
        " WHERE attacl IS NOT NULL AND attrelid > 16383"
    ),
    "grants of functions": (
        "SELECT proname, unnest(coalesce(proacl, acldefault('f', proowner)))::text FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace"
    ),
    "roles": (
        "SELECT rolname, rolinherit, rolcanlogin, rolsuper, rolbypassrls FROM pg_roles WHERE rolname NOT LIKE 'pg%'"
    ),
    "members": (
        "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members"
        " WHERE roleid > 16383 AND member <> current_user::regrole"
    ),
}
"""Everything that separates tenants, by what it is."""


def catalog(url: str) -> dict[str, set[tuple[object, ...]]]:
    with psycopg.connect(url) as connection:
        return {what: set(connection.execute(query.encode()).fetchall()) for what, query in CATALOG.items()}


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Two servers: one with data, and a new one. The logins have the same names on both."""

    old: EmbeddedPostgres
    new: EmbeddedPostgres
    logins: schema.Logins
    """Those of the new server."""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    old, new = (EmbeddedPostgres(tmp_path / name, durable=False) for name in ("old", "new"))
    with old, new:
        schema.upgrade(old.url)
        schema.make_logins(old.url)
        logins = {
            name: _with(new.url, user) for name, user in (("api", "api"), ("worker", "worker"), ("operator", "console"))
        }
        yield Servers(old=old, new=new, logins=schema.Logins(**logins))


def _with(url: str, user: str) -> str:
    return make_url(url).set(username=user, password="a-password").render_as_string(hide_password=False)


OPTIONS = ("--single-transaction",)


def test_documented_restore_keeps_what_separates_tenants(servers: Servers, tmp_path: Path, hasher: Hasher) -> None:
    with closing(Database(servers.old.url)) as database:
        tenants = [a_tenant(database, seed(database, NOON), hasher, TestClock(NOON)) for _ in range(2)]
        for tenant in tenants:
            a_pending_attempt(tenant)
    dump(servers.old.url, tmp_path / "duecall.dump")

    schema.set_logins(servers.new.url, servers.logins)
    restore(servers.new.url, tmp_path / "duecall.dump", *OPTIONS)
    schema.upgrade(servers.new.url)
    schema.set_logins(servers.new.url, servers.logins)

    before, after = catalog(servers.old.url), catalog(servers.new.url)
    assert {what: (before[what] - after[what], after[what] - before[what]) for what in CATALOG} == {
        what: (set(), set()) for what in CATALOG
    }
    assert len(before["policies"]) > 100
    schema.check(servers.new.url)
    with closing(Database(servers.logins.api, bound=True)) as api, psycopg.connect(servers.logins.api) as connection:
        api.check_start()
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,), "no principal is set"
    with closing(Database(servers.logins.worker, bound=False)) as worker:
        worker.check_start()
        with pytest.raises(WrongRole), closing(Database(servers.logins.worker, bound=True)) as wrong:
            wrong.check_start()
    with psycopg.connect(servers.logins.worker) as connection:
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (2,)


def test_restore_without_roles_stops_and_leaves_nothing(servers: Servers, tmp_path: Path) -> None:
    dump(servers.old.url, tmp_path / "duecall.dump")
    with pytest.raises(AssertionError, match='role "duecall_'):
        restore(servers.new.url, tmp_path / "duecall.dump", *OPTIONS)
    with psycopg.connect(servers.new.url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_page_restores_with_the_options_that_are_tested() -> None:
    steps = re.findall(r"pg_restore (.*?)(?: <|$)", read("docs/operations.md"), re.MULTILINE)
    assert steps
    assert all(option in step for option in OPTIONS for step in steps if "--dbname" in step)
