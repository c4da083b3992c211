"""The database fails between a COMMIT and its response: the API never claims that nothing was changed."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import httpx
import pytest

from scheduler.domain.principal import KeyKind
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from tests.api_shim.answers import data, refusal, refused
from tests.api_shim.bodies import JOB
from tests.api_shim.carrier_callbacks import call_back, token_of
from tests.api_shim.intake import ASYNC, KEY, PEPPER, Intake, an_intake, settings_for, slow_acceptance
from tests.api_shim.owners import UNKNOWN, accept, make, roles
from tests.conftest import Seeded, wait_until
from tests.support.builders import a_placed_attempt, a_tenant
from tests.support.servers import Wire, wired

WITH_AND_WITHOUT_A_KEY: tuple[dict[str, str], ...] = ({}, KEY)


@dataclass
class NextCommit:
    """Matches the COMMIT of the next transaction that writes `table`, and then all traffic of any connection.

    The wire has a thread for each connection. Counts of requests are added over another one at the same time.
    """

    table: bytes
    writer: int | None = None
    was_sent: bool = False

    def __call__(self, sent: bytes) -> bool:
        if b"INTO " + self.table in sent or b"UPDATE " + self.table in sent:
            self.writer = get_ident()
            return False
        if self.writer == get_ident() and not self.was_sent and b"COMMIT" in sent:
            self.was_sent = True
            return True
        return False

    def everything_after(self, _: bytes) -> bool:
        return self.was_sent


@pytest.fixture
def wire_and_intake(
    broker: None, logins: Logins, redis_url: str, database: Database, seeded: Seeded
) -> Iterator[tuple[Wire, Intake]]:
    """The API with a database connection over a wire that can fail."""
    with wired(logins.api) as (wire, url):
        settings = settings_for(Logins(api=url, worker=logins.worker), redis_url)
        with an_intake(settings, database, seeded) as intake:
            assert intake.get("/jobs").status_code == 200  # the last use of this key is stored by now
            wait_until(lambda: intake.ask("SELECT 1 FROM api_keys WHERE last_used_at IS NOT NULL"))
            yield wire, intake


@pytest.fixture
def wire(wire_and_intake: tuple[Wire, Intake]) -> Wire:
    return wire_and_intake[0]


@pytest.fixture
def cut(wire_and_intake: tuple[Wire, Intake]) -> Intake:
    return wire_and_intake[1]


def test_command_with_a_lost_commit_is_answered_202(wire: Wire, cut: Intake) -> None:
    for before, headers in enumerate(WITH_AND_WITHOUT_A_KEY):
        wire.cut_after = NextCommit(b"inbox")
        answer = cut.create(headers={**headers, **ASYNC})
        assert answer.status_code == 202, answer.text
        assert data(cut.get(answer.headers["Location"]))["status"] == "WAITING"
        assert cut.count("inbox") == before + 1
        assert "Idempotent-Replayed" not in answer.headers


def test_replay_with_a_lost_commit_finds_the_first_command(wire: Wire, cut: Intake) -> None:
    first = cut.create(headers={**KEY, **ASYNC})
    wire.cut_after = NextCommit(b"inbox")
    second = cut.create(headers={**KEY, **ASYNC})
    assert second.status_code == 202, second.text
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert cut.count("inbox") == 1


def test_command_whose_commit_never_arrived_is_refused(wire: Wire, cut: Intake) -> None:
    wire.cut_before = NextCommit(b"inbox")
    nothing_was_changed(cut.create(), cut)
    assert cut.create(headers=ASYNC).status_code == 202


def test_command_whose_commit_is_not_answered_in_time_is_202(wire: Wire, cut: Intake) -> None:
    wire.mute_after = NextCommit(b"inbox")
    answer = cut.create(headers=ASYNC)
    assert answer.status_code == 202, answer.text
    assert cut.get(answer.headers["Location"]).status_code == 200
    assert cut.count("inbox") == 1


def test_command_is_uncertain_while_the_database_is_away(wire: Wire, cut: Intake) -> None:
    for before, headers in enumerate(WITH_AND_WITHOUT_A_KEY):
        with lost(wire, NextCommit(b"inbox")):
            answer = cut.create(headers=headers)
        check = uncertain(answer)["check"]
        assert check == f"/commands/{uncertain(answer)['commandId']}"
        assert f"GET {check}" in answer.json()["error"]["message"]
        assert ("Retry-After" in answer.headers) is bool(headers)
        is_found_at(check, cut)
        assert cut.count("inbox") == before + 1
    again = cut.create(headers={**KEY, **ASYNC})
    assert again.headers["Location"] == check


def test_command_whose_commit_is_in_flight_is_uncertain(wire: Wire, cut: Intake) -> None:
    wire.dead = NextCommit(b"inbox")
    uncertain(cut.create())


def test_write_with_a_lost_commit_is_answered_as_done(wire: Wire, cut: Intake) -> None:
    for headers, made_now, made_in_all in (({}, 1, 2), (KEY, 3, 3)):
        wire.cut_after = NextCommit(b"jobs")
        made = cut.made("/jobs", JOB, headers=headers)
        assert cut.count("jobs") == made_now
        assert data(cut.get(f"/jobs/{made['id']}"))["title"] == JOB["title"]
        assert cut.post("/jobs", JOB, headers=headers).status_code == 201
        assert cut.count("jobs") == made_in_all


def test_write_whose_commit_is_not_answered_in_time_is_done(wire: Wire, cut: Intake) -> None:
    wire.mute_after = NextCommit(b"jobs")
    cut.made("/jobs", JOB)
    assert cut.count("jobs") == 1


def test_write_whose_commit_never_arrived_is_refused(wire: Wire, cut: Intake) -> None:
    wire.cut_before = NextCommit(b"jobs")
    nothing_was_changed(cut.post("/jobs", JOB), cut, table="jobs")


def test_write_is_uncertain_while_the_database_is_away(wire: Wire, cut: Intake) -> None:
    for headers in WITH_AND_WITHOUT_A_KEY:
        with lost(wire, NextCommit(b"jobs")):
            answer = cut.post("/jobs", JOB, headers=headers)
        details = uncertain(answer)
        assert ("Retry-After" in answer.headers) is ("commandId" in details) is bool(headers)
        is_found_at(details["check"], cut)
    assert data(cut.get(f"/commands/{details['commandId']}"))["status"] == "APPLIED"


def test_change_is_uncertain_while_the_database_is_away(wire: Wire, cut: Intake) -> None:
    job = f"/jobs/{cut.made('/jobs', JOB)['id']}"
    with lost(wire, NextCommit(b"jobs")):
        answer = cut.patch(job, {"title": "Pastry cook"})
    assert uncertain(answer)["check"] == job
    is_found_at(job, cut)
    assert data(cut.get(job))["title"] == "Pastry cook"


def test_acceptance_with_a_lost_commit_is_answered_as_done(wire: Wire, cut: Intake) -> None:
    token, company = an_invitation(cut)
    wire.cut_after = NextCommit(b"memberships")
    data(accept(cut, token))
    assert roles(cut, company) == {UNKNOWN: "OWNER"}
    assert accept(cut, token).status_code == 410, "it was used once"


def test_acceptance_whose_commit_never_arrived_is_refused(wire: Wire, cut: Intake) -> None:
    token, company = an_invitation(cut)
    wire.cut_before = NextCommit(b"memberships")
    nothing_was_changed(accept(cut, token), cut, table="memberships")
    assert accept(cut, token).status_code == 200
    assert roles(cut, company) == {UNKNOWN: "OWNER"}


def test_acceptance_is_uncertain_while_the_database_is_away(wire: Wire, cut: Intake) -> None:
    token, company = an_invitation(cut)
    with lost(wire, NextCommit(b"memberships")):
        answer = accept(cut, token)
    error = refused(answer, 503, "COMMIT_UNKNOWN")
    assert "may have been accepted" in error["message"]
    assert answer.headers["Retry-After"] == "1"
    again = wait_until(lambda: answered(accept(cut, token)), says="the database is back")
    assert again.status_code == 410, "it was accepted, as the message explains"
    assert roles(cut, company) == {UNKNOWN: "OWNER"}


def test_callback_with_a_lost_commit_is_asked_for_again(wire: Wire, cut: Intake, hasher: Hasher) -> None:
    token = token_of(a_placed_attempt(a_tenant(cut.database, cut.seeded, hasher, cut.now)))
    wire.cut_after = NextCommit(b"carrier_events")
    assert call_back(cut, token).json()["error"]["code"] == "COMMIT_UNKNOWN"
    assert call_back(cut, token).status_code == 204
    assert cut.count("carrier_events") == 1


def test_read_with_a_lost_commit_changes_nothing(wire: Wire, cut: Intake) -> None:
    wire.cut_after = lambda sent: b"SELECT" in sent and b"FROM jobs" in sent
    assert refusal(cut.get("/jobs")) == (503, "DATABASE_AWAY")


def test_late_command_is_not_accepted_afterwards(intake: Intake) -> None:
    """More slow requests than threads: the last one gets a thread after half of its time."""
    with slow_acceptance(intake), ThreadPoolExecutor(9) as clients:
        answers = list(clients.map(lambda _: intake.create(headers=ASYNC), range(9)))
        late = [each for each in answers if each.status_code == 503]
        assert {refusal(each) for each in late} == {(503, "DATABASE_AWAY")}
        wait_until(lambda: not intake.ask(_AT_WORK), seconds=30, says="all work has ended")
        assert intake.count("inbox") == len(answers) - len(late)


_AT_WORK = "SELECT 1 FROM pg_stat_activity WHERE usename = 'api' AND state <> 'idle' AND pid <> pg_backend_pid()"


@contextmanager
def lost(wire: Wire, commit: NextCommit) -> Iterator[None]:
    """Drop all traffic after that COMMIT was sent, also on new connections."""
    wire.cut_after, wire.cut_before = commit, commit.everything_after
    yield
    wire.cut_before = wire.cut_after = lambda _: False


def an_invitation(intake: Intake) -> tuple[str, dict[str, Any]]:
    """The token of an invitation, and its company."""
    company = make(intake.with_new_key(kind=KeyKind.ATS), ownerEmail=UNKNOWN)
    token = "a token of a mail"
    [(invitation_id,)] = intake.ask("SELECT id FROM invitations")
    with intake.database.transaction() as stores:
        stores.invitations.add_token(invitation_id, Hasher(PEPPER).invitation(token), intake.now())
    return token, company


def answered(answer: httpx.Response) -> httpx.Response | None:
    return None if answer.status_code == 503 else answer


def is_found_at(url: str, intake: Intake) -> None:
    wait_until(lambda: intake.get(url).status_code == 200, says="the result is found at the URL")


def uncertain(answer: httpx.Response) -> dict[str, Any]:
    """Read the details of a COMMIT_UNKNOWN response."""
    error = refused(answer, 503, "COMMIT_UNKNOWN")
    assert re.search(r"may have been (accepted|applied)", error["message"])
    assert "Nothing was changed" not in error["message"]
    return dict(error["details"])


def nothing_was_changed(answer: httpx.Response, intake: Intake, table: str = "inbox") -> None:
    error = refused(answer, 503, "DATABASE_AWAY")
    assert "Nothing was changed" in error["message"]
    assert answer.headers["Retry-After"] == "1"
    assert intake.count(table) == 0
