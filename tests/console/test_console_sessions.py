"""Sessions of the operators' console: links work once and for ten minutes, sessions end when they are revoked."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from console.sessions import ConsoleSessions
from scheduler.domain.principal import OperatorRole
from scheduler.domain.refusals import NotFound
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from tests.conftest import TestClock


@pytest.fixture
def sessions(database: Database, hasher: Hasher, now: TestClock) -> ConsoleSessions:
    return ConsoleSessions(database, hasher, now)


def a_secret(sessions: ConsoleSessions, role: OperatorRole = OperatorRole.OPERATOR) -> str:
    _, secret = sessions.make_link(role, "cli:ada@host")
    return secret


def signed_in(sessions: ConsoleSessions) -> str:
    found = sessions.sign_in(a_secret(sessions))
    assert found is not None
    return found[1]


@pytest.mark.parametrize("role", list(OperatorRole))
def test_link_signs_in_with_its_role(sessions: ConsoleSessions, role: OperatorRole) -> None:
    link, secret = sessions.make_link(role, "cli:ada@host")
    found = sessions.sign_in(secret)
    assert found is not None
    session, cookie = found
    assert (session.role, session.actor) == (role, f"link:{link.id}")
    assert sessions.current(cookie) == session


def test_link_works_once(sessions: ConsoleSessions) -> None:
    secret = a_secret(sessions)
    assert sessions.link(secret) is not None
    assert sessions.link(secret) is not None, "looking at a link uses it up"
    assert sessions.sign_in(secret) is not None
    assert sessions.link(secret) is None
    assert sessions.sign_in(secret) is None


def test_one_of_two_concurrent_sign_ins_succeeds(sessions: ConsoleSessions) -> None:
    secret = a_secret(sessions)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(sessions.sign_in, [secret] * 4))
    assert sum(each is not None for each in found) == 1


@pytest.mark.parametrize(
    ("after", "works"), [(timedelta(minutes=10, seconds=-1), True), (timedelta(minutes=10), False)]
)
def test_link_expires_after_ten_minutes(
    sessions: ConsoleSessions, now: TestClock, after: timedelta, works: bool
) -> None:
    secret = a_secret(sessions)
    now.move(after)
    assert (sessions.link(secret) is not None) is works
    assert (sessions.sign_in(secret) is not None) is works


@pytest.mark.parametrize(("after", "works"), [(timedelta(hours=8, seconds=-1), True), (timedelta(hours=8), False)])
def test_session_expires_after_eight_hours(
    sessions: ConsoleSessions, now: TestClock, after: timedelta, works: bool
) -> None:
    cookie = signed_in(sessions)
    now.move(after)
    assert (sessions.current(cookie) is not None) is works
    assert bool(sessions.all()) is works


def test_unknown_secret_is_no_session(sessions: ConsoleSessions) -> None:
    cookie = signed_in(sessions)
    secret = a_secret(sessions)
    for wrong in ("", "x", cookie[:-1], cookie + "x", secret):
        assert sessions.current(wrong) is None
    assert sessions.sign_in(cookie) is None


def test_revoked_session_is_refused_everywhere_at_once(
    sessions: ConsoleSessions, database: Database, hasher: Hasher, now: TestClock
) -> None:
    other_process = ConsoleSessions(database, hasher, now)
    cookie, kept = signed_in(sessions), signed_in(sessions)
    session = other_process.current(cookie)
    assert session is not None
    sessions.revoke(session.id)
    assert other_process.current(cookie) is None
    assert other_process.current(kept) is not None
    with pytest.raises(NotFound):
        sessions.revoke(session.id)
    assert sessions.revoke_all() == 1
    assert other_process.current(kept) is None


def test_only_hashes_are_stored(sessions: ConsoleSessions, database: Database) -> None:
    secret = a_secret(sessions)
    found = sessions.sign_in(secret)
    assert found is not None
    with database.reading() as stores:
        for table in ("console_sessions", "sign_in_links"):
            rows = stores.connection.execute(text(f"SELECT {table}::text AS row FROM {table}")).scalars()
            assert rows
            for row in rows:
                for each in (secret, found[1]):
                    assert each not in row
                    assert each.encode().hex() not in row


def test_last_use_is_stored_at_most_once_a_minute(sessions: ConsoleSessions, now: TestClock) -> None:
    cookie = signed_in(sessions)
    began = now()
    now.move(timedelta(seconds=59))
    sessions.current(cookie)
    assert [each.last_used_at for each in sessions.all()] == [began]
    now.move(timedelta(seconds=1))
    sessions.current(cookie)
    assert [each.last_used_at for each in sessions.all()] == [now()]


@pytest.mark.parametrize("role", list(OperatorRole))
def test_role_includes_the_lower_ones(role: OperatorRole) -> None:
    roles = list(OperatorRole)
    assert [role.may(each) for each in roles] == [roles.index(each) <= roles.index(role) for each in roles]
