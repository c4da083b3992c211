"""The page Find: rows by id, call SID, phone number or external id. The last two are neither shown nor logged."""

import logging
import re
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from console.reads import find as find_module
from console.reads.find import MAX_LISTED, MOST_SEARCHES, Find, SearchLimit
from scheduler.domain.attempt import Ended, Reason
from scheduler.domain.principal import OperatorRole
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from tests.conftest import seed
from tests.console.conftest import Console
from tests.support.builders import (
    Tenant,
    a_candidate,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_waiting_command,
    of_company,
)

OK, SEE_OTHER, UNPROCESSABLE, TOO_MANY = 200, 303, 422, 429


@pytest.fixture
def find(tenant: Tenant, operators_database: Database) -> Find:
    return Find(operators_database, tenant.hasher)


def found(client: httpx.Client, wanted: object) -> httpx.Response:
    return client.post("/find", data={"wanted": str(wanted)})


def found_by_external_id(client: httpx.Client, wanted: str) -> httpx.Response:
    return client.post("/find", data={"wanted": wanted, "by": "external-id"})


def attempts_in(answer: httpx.Response) -> list[str]:
    assert answer.status_code == OK
    return re.findall(r'href="/attempts/([0-9a-f-]{36})"', answer.text)


def test_attempt_is_found_by_each_id(tenant: Tenant, viewer: httpx.Client) -> None:
    attempt = a_placed_attempt(tenant)
    a_placed_attempt(tenant)
    [[candidate_id]] = tenant.ask("SELECT candidate_id FROM interviews WHERE id = :id", id=attempt.interview_id)
    for wanted, shown_as in (
        (attempt.id, None),
        (attempt.interview_id, "Interview"),
        (candidate_id, "Candidate"),
        (a_waiting_command(tenant, attempt.interview_id).id, "Command"),
        (attempt.call_sid, None),
    ):
        answer = found(viewer, f"  {wanted} ")
        assert attempts_in(answer) == [str(attempt.id)]
        assert shown_as is None or f"{shown_as} <code>{wanted}</code>" in answer.text


def test_company_and_key_are_found(tenant: Tenant, viewer: httpx.Client) -> None:
    key_id, principal_id = uuid4(), uuid4()
    tenant.insert(
        "api_keys",
        id=key_id,
        principal_id=principal_id,
        kind="REGULAR",
        company_id=tenant.company_id,
        name="a key",
        key_hash=b"h" * 32,
        scopes=[],
        per_minute=1,
        per_hour=1,
        created_at=tenant.now(),
        updated_at=tenant.now(),
    )
    page = found(viewer, tenant.company_id).text
    assert f'Company <a href="/companies/{tenant.company_id}"><code>{tenant.company_id}</code></a>' in page
    for wanted in (key_id, principal_id):
        assert f'Key <a href="/keys/{key_id}"><code>{key_id}</code></a>' in found(viewer, wanted).text


# ---- phone numbers


def test_number_finds_its_calls_and_appears_nowhere(
    tenant: Tenant, viewer: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    number = a_number()
    over = a_placed_attempt(tenant, number)
    tenant.take(over, Ended(reason=Reason.BUSY, ended_at=tenant.now()))
    waiting = a_pending_attempt(tenant, number)
    a_pending_attempt(tenant)
    spaced = f"+421 {number[4:7]} {number[7:]}"
    for spelled in (number, spaced):
        answer = found(viewer, spelled)
        assert set(attempts_in(answer)) == {str(over.id), str(waiting.id)}
        assert "Found by phone number" in answer.text
        for secret in (number, number[4:], spaced, number.removeprefix("+")):
            assert secret not in answer.text
            assert secret not in caplog.text
            assert secret not in str(answer.request.url)
    assert "console_answered" in caplog.text


def test_open_call_to_an_earlier_number_is_found(tenant: Tenant, viewer: httpx.Client) -> None:
    number = a_number()
    attempts = [a_placed_attempt(tenant, number), a_pending_attempt(tenant, number)]
    tenant.change("UPDATE candidates SET phone_number = :number", number=a_number())
    assert set(attempts_in(found(viewer, number))) == {str(each.id) for each in attempts}


def test_unknown_number_is_named_by_its_kind(tenant: Tenant, viewer: httpx.Client) -> None:
    number = a_number()
    answer = found(viewer, number)
    assert answer.status_code == OK
    assert "No candidate has this phone number" in answer.text
    assert number[4:] not in answer.text
    for wanted, words in ((uuid4(), "has this id"), ("CA" + "0" * 32, "No attempt has this call SID")):
        answer = found(viewer, wanted)
        assert words in answer.text
        assert str(wanted) not in answer.text


def test_unreadable_text_is_refused_without_quoting_it(viewer: httpx.Client) -> None:
    for find_by, wanted, problem in (
        (found, "", "Enter what to look for."),
        (found, "Ada Byron", "Enter a whole id"),
        (found, "ada@example.com", "Enter a whole id"),
        (found, "+421 1", "The phone number is invalid"),
        (found, "0905 123 456", "The phone number is invalid"),
        (found, "+421'; DROP TABLE x", "Enter a whole id"),
        (found_by_external_id, "", "Enter what"),
        (found_by_external_id, " ", "Enter what"),
        (found_by_external_id, "x" * 256, "at most 255"),
    ):
        answer = find_by(viewer, wanted)
        assert answer.status_code == UNPROCESSABLE
        assert problem in answer.text
        assert not wanted.strip() or wanted not in answer.text


def test_text_in_the_address_is_ignored(tenant: Tenant, viewer: httpx.Client) -> None:
    attempt = a_pending_attempt(tenant)
    answer = viewer.get("/find", params={"wanted": str(attempt.id)})
    assert attempts_in(answer) == []
    assert 'method="post"' in answer.text


def test_find_needs_a_session_and_a_page_of_the_console(console_url: str, viewer: httpx.Client) -> None:
    with httpx.Client(base_url=console_url, headers={"Sec-Fetch-Site": "same-origin"}, timeout=30) as stranger:
        assert stranger.get("/find").status_code == SEE_OTHER
        assert stranger.post("/find", data={"wanted": str(uuid4())}).status_code == httpx.codes.UNAUTHORIZED
    other_site = viewer.post("/find", data={"wanted": str(uuid4())}, headers={"Sec-Fetch-Site": "cross-site"})
    assert other_site.status_code == httpx.codes.FORBIDDEN


def test_only_the_newest_attempts_are_listed(tenant: Tenant, find: Find) -> None:
    number = a_number()
    for _ in range(MAX_LISTED + 1):
        a_pending_attempt(tenant, number)
    findings = find.text(number)
    assert len(findings.attempts) == MAX_LISTED
    assert findings.is_cut


# ---- external ids


def identify(tenant: Tenant, table: str, row_id: object, external_id: str) -> None:
    tenant.change(f"UPDATE {table} SET external_id = :text WHERE id = :id", text=external_id, id=row_id)


def test_external_id_finds_its_resources_and_appears_nowhere(
    tenant: Tenant, viewer: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    other = of_company(tenant, seed(tenant.database, tenant.now()))
    secret = "ada.byron@example.com"
    mine, theirs, third = a_pending_attempt(tenant), a_pending_attempt(other), a_pending_attempt(tenant)
    identify(tenant, "interviews", mine.interview_id, secret)
    identify(tenant, "interviews", theirs.interview_id, secret)
    identify(tenant, "interviews", third.interview_id, secret.upper())
    person = a_candidate(tenant)
    identify(tenant, "candidates", person.id, secret)
    for wanted in (secret, f" {secret}\t"):
        answer = found_by_external_id(viewer, wanted)
        assert set(attempts_in(answer)) == {str(mine.id), str(theirs.id)}
        assert "Found by external id" in answer.text
        assert f"Candidate <code>{person.id}</code> of company" in answer.text
        for text_ in (answer.text, caplog.text, str(answer.request.url)):
            assert secret not in text_
            assert "ada.byron" not in text_
    assert attempts_in(found_by_external_id(viewer, secret.upper())) == [str(third.id)]


def test_external_id_may_look_like_an_id_or_a_number(tenant: Tenant, viewer: httpx.Client) -> None:
    attempt = a_pending_attempt(tenant)
    for external_id in (str(uuid4()), a_number(), "4711", "CA" + "0" * 32, "x" * 255, "ﬁ 💬"):
        identify(tenant, "interviews", attempt.interview_id, external_id)
        assert attempts_in(found_by_external_id(viewer, external_id)) == [str(attempt.id)], external_id
        assert str(attempt.id) not in found(viewer, external_id).text


def test_external_id_of_a_deleted_resource_is_not_found(tenant: Tenant, viewer: httpx.Client) -> None:
    attempt = a_pending_attempt(tenant)
    identify(tenant, "interviews", attempt.interview_id, "ats-4711")
    tenant.change("UPDATE interviews SET deleted_at = updated_at")
    for wanted in ("ats-4711", "ats-471", "%", "ats_4711", "ats-4711' OR true --"):
        answer = found_by_external_id(viewer, wanted)
        assert attempts_in(answer) == []
        assert "No interview, candidate or job of any company has this external id." in answer.text


def test_external_id_of_many_companies_is_cut(tenant: Tenant, find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_module, "MAX_LISTED", 2)
    for table in ("interviews", "candidates"):
        a_pending_attempt(tenant)
        tenant.change(f"UPDATE {table} SET external_id = 'a' WHERE id = (SELECT max(id::text)::uuid FROM {table})")
    findings = find.external_id("a")
    assert len(findings.rows) == 2
    assert findings.are_rows_cut
    assert not find.external_id("b").are_rows_cut


# ---- the functions


def test_function_matches_whole_numbers_only(tenant: Tenant, operators_database: Database) -> None:
    number = a_number()
    candidate = a_candidate(tenant, number)
    a_candidate(tenant)
    query = text("SELECT candidates_of_number(:numbers, 50)")

    def matches(*numbers: str) -> list[object]:
        with operators_database.reading() as stores:
            return list(stores.connection.execute(query, {"numbers": list(numbers)}).scalars())

    assert matches(number) == [candidate.id]
    for part in ("", "%", number[:-1], number[:-1] + "_", number + "0", "+421%"):
        assert matches(part) == [], part


def test_other_roles_may_not_search_numbers(logins: Logins) -> None:
    api = Database(logins.api, pool_size=1, bound=True)
    with pytest.raises(ProgrammingError, match="permission denied"), api.reading() as stores:
        stores.connection.execute(text("SELECT candidates_of_number('{}', 1)"))
    with pytest.raises(ProgrammingError, match="permission denied"), api.reading() as stores:
        stores.connection.execute(text("SELECT resources_of_external_id('{}', 1)"))
    api.close()


def test_operator_cannot_try_all_numbers(
    operator: httpx.Client, viewer: httpx.Client, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = a_pending_attempt(tenant)
    answers = [found(operator, f"+4219055{number:05}").status_code for number in range(MOST_SEARCHES)]
    assert answers == [OK] * MOST_SEARCHES
    answer = found(operator, attempt.id)
    assert answer.status_code == TOO_MANY
    assert "You have searched 30 times within a minute." in answer.text
    assert str(attempt.id) not in answer.text
    assert "console_searches_limited" in caplog.text
    assert attempts_in(found(viewer, attempt.id)) == [str(attempt.id)]


def test_search_is_counted_for_a_minute_and_by_operator(console: Console) -> None:
    times = iter([0.0, 30.0, *[59.0] * (MOST_SEARCHES - 2), 59.9, 60.0, 60.0])
    limit = SearchLimit(monotonic=lambda: next(times))
    _, secret = console.sessions.make_link(OperatorRole.VIEWER, "cli:ada@host")
    signed_in = console.sessions.sign_in(secret)
    assert signed_in is not None
    session = signed_in[0]
    assert [limit.take(session) for _ in range(MOST_SEARCHES)] == [True] * MOST_SEARCHES
    assert not limit.take(replace(session, id=uuid4()))  # another session of the same operator
    assert limit.take(session)
    assert not limit.take(session)
