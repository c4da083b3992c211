"""Operator commands for the console: a link to sign in, and sessions listed and revoked."""

from uuid import uuid4

import pytest

from console.sessions import ConsoleSessions
from scheduler.domain.principal import OperatorRole
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from tests.command_line.conftest import Duecall
from tests.conftest import TestClock


@pytest.fixture
def sessions(database: Database, hasher: Hasher, now: TestClock) -> ConsoleSessions:
    return ConsoleSessions(database, hasher, now)


@pytest.mark.parametrize("role", list(OperatorRole))
def test_console_login_prints_a_link_of_its_role(duecall: Duecall, sessions: ConsoleSessions, role: str) -> None:
    said = duecall(f"console login --role {role}")
    url, secret = said.out.strip().rsplit("/", 1)
    assert (said.code, url) == (0, "http://127.0.0.1:8001/sign-in/link")
    assert secret not in said.err
    link = sessions.link(secret)
    assert link is not None
    assert link.role == role
    assert link.created_by.startswith("cli:")
    assert "@" in link.created_by


def test_console_login_uses_the_consoles_address(duecall: Duecall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_URL", "https://console.example.com/")
    said = duecall("console login --json")
    assert said.data["url"].startswith("https://console.example.com/sign-in/link/")
    assert said.data["role"] == "operator"


def test_console_sessions_are_listed_and_revoked(duecall: Duecall, sessions: ConsoleSessions) -> None:
    assert "no operator is signed in" in duecall("console sessions list").err
    found = [sessions.sign_in(sessions.make_link(OperatorRole.VIEWER, "cli:x")[1]) for _ in range(3)]
    cookies = [each[1] for each in found if each is not None]
    ids = [each["sessionId"] for each in duecall("console sessions list --json").data]
    assert len(ids) == 3
    assert duecall(f"console sessions revoke {ids[0]}").code == 0
    assert sorted(sessions.current(each) is None for each in cookies) == [False, False, True]
    assert str(ids[0]) not in duecall("console sessions list").out
    again = duecall(f"console sessions revoke {ids[0]}")
    assert (again.code, "duecall console sessions list" in again.err) == (1, True)
    assert "2 sessions were revoked" in duecall("console sessions revoke --all").err
    assert all(sessions.current(each) is None for each in cookies)


def test_console_sessions_revoke_needs_one_target(duecall: Duecall) -> None:
    for words in ("", f"{uuid4()} --all"):
        said = duecall(f"console sessions revoke {words}")
        assert (said.code, said.out) == (2, "")
        assert "Give either SESSION_ID or --all." in said.err
