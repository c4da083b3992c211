"""Owners by email over HTTP: named, invited, moved; accepted once. Responses do not reveal known users (F3)."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from scheduler.domain.company import User
from scheduler.domain.principal import KeyKind
from tests.api_shim.answers import data, refusal, wrong_fields
from tests.api_shim.intake import KEY, Intake
from tests.api_shim.owners import ACCEPT, NAME, UNKNOWN, accept, deliver, make, roles
from tests.architecture.rules import does, does_not
from tests.support.smtp_server import PostOffice, a_post_office
from tests.test_mail import BAD_ADDRESSES, HEADERS, HOSTILE_NAMES

KNOWN, OTHER = "known@example.com", "other@example.com"
GONE = {
    "code": "INVITATION_GONE",
    "message": "This invitation was used or withdrawn, has expired, or never existed. Ask for a new invitation.",
    "details": None,
}


@pytest.fixture(scope="module")
def post() -> Iterator[PostOffice]:
    with a_post_office() as office:
        yield office


@pytest.fixture
def office(post: PostOffice) -> PostOffice:
    post.mails.clear()
    post.asked.clear()
    return post


def change(asking: Intake, company: dict[str, Any], email: str | None) -> dict[str, Any]:
    return dict(data(asking.patch(f"/company/{company['id']}", {"ownerEmail": email})))


def invite(ats: Intake, office: PostOffice, email: str = UNKNOWN) -> tuple[dict[str, Any], str]:
    """Create a company with an unknown owner and return it with the token of the mail."""
    company = make(ats, ownerEmail=email)
    deliver(ats, office)
    return company, office.mails[-1].token


def know(intake: Intake, email: str) -> None:
    with intake.database.transaction() as stores:
        stores.users.add(User(id=uuid4(), email=email, name="Known"), intake.now())


# ---- F3-1


@does("F3-1")
def test_owner_named_at_creation_is_shown_by_get_and_list(ats: Intake) -> None:
    company = make(ats, ownerEmail="Owner.Name@Example.COM")
    assert company["ownerEmail"] == "owner.name@example.com"
    assert data(ats.get(f"/company/{company['id']}")) == company
    assert data(ats.get("/company"))["items"] == [company]
    for without in ({}, {"ownerEmail": None}):
        assert make(ats, **without)["ownerEmail"] is None


@does("F3-1")
def test_both_kinds_of_keys_may_change_the_owner(intake: Intake, ats: Intake) -> None:
    assert change(ats, make(ats), "Owner@Bücher.example.com")["ownerEmail"] == "owner@xn--bcher-kva.example.com"
    own = {"id": str(intake.seeded.company_id)}
    assert change(intake, own, OTHER)["ownerEmail"] == OTHER
    assert data(intake.get("/company"))["items"][0]["ownerEmail"] == OTHER


@does_not("F3-1")
def test_regular_key_cannot_name_an_owner_by_creating_a_company(intake: Intake) -> None:
    assert intake.post("/company", {"name": "Acme", "ownerEmail": OTHER}).status_code == 403
    assert (intake.count("companies"), intake.count("invitations")) == (1, 0)


@does_not("F3-1")
def test_invalid_address_is_refused_by_name_and_not_quoted(ats: Intake) -> None:
    for address in (*BAD_ADDRESSES[1:], f"{'a' * 243}@example.com", "", 7, ["owner@example.com"], {}):
        for method, path in (("POST", "/company"), ("PATCH", f"/company/{make(ats)['id']}")):
            answer = ats.send(method, path, json={"name": "Acme", "ownerEmail": address})
            assert wrong_fields(answer) == [("ownerEmail", _code_for(address))], address
            assert "victim" not in answer.text
    assert ats.count("invitations") == 0


def _code_for(address: Any) -> str:
    if not isinstance(address, str):
        return "WRONG_TYPE"
    if "\x00" in address:
        return "INVALID_CHARACTER"
    return "TOO_LONG" if len(address) > 254 else "INVALID_EMAIL"


# ---- F3-2


@does("F3-2")
def test_known_user_owns_at_once_and_unknown_user_gets_one_mail(
    intake: Intake, ats: Intake, office: PostOffice
) -> None:
    know(intake, KNOWN)
    known, unknown = make(ats, ownerEmail="KNOWN@example.com"), make(ats, ownerEmail=UNKNOWN)
    assert (roles(intake, known), roles(intake, unknown)) == ({KNOWN: "OWNER"}, {})
    assert not office.asked, "not during the request"
    deliver(intake, office)
    deliver(intake, office)
    assert [each.recipients for each in office.mails] == [(UNKNOWN,)]


@does_not("F3-2")
def test_answer_does_not_reveal_known_users(intake: Intake, office: PostOffice) -> None:
    """Body, headers and status are the same when created, changed, read, listed, repeated or refused."""
    know(intake, KNOWN)

    def story(email: str) -> list[Any]:
        ats = intake.with_new_key(kind=KeyKind.ATS)
        key = {"Idempotency-Key": str(uuid4())}
        body = {"name": "Acme", "ownerEmail": email}
        made = ats.post("/company", body, headers=key)
        address = f"/company/{made.json()['data']['id']}"
        again = ats.post("/company", body, headers=key)
        looked = ats.get(address)
        same = ats.patch(address, {"ownerEmail": email.upper()})
        listed = ats.get("/company", limit=1)
        deliver(intake, office)
        after = ats.get(address)
        intake.change("UPDATE invitations SET expires_at = created_at")
        long_after = ats.get(address)
        moved = ats.patch(address, {"ownerEmail": OTHER})
        back = ats.patch(address, {"ownerEmail": email})
        cleared = ats.patch(address, {"ownerEmail": None})
        answers = (made, again, looked, same, listed, after, long_after, moved, back, cleared)
        return [_without_what_differs_anyway(each, email) for each in answers]

    assert story(KNOWN) == story(UNKNOWN)


def _without_what_differs_anyway(answer: httpx.Response, email: str) -> tuple[int, Any, Any]:
    """Remove ids, times and the address itself."""

    def same(value: Any) -> Any:
        if isinstance(value, dict):
            left_out = {"id", "createdAt", "updatedAt", "timestamp", "traceId"}
            return {name: same(each) for name, each in value.items() if name not in left_out}
        if isinstance(value, list):
            return [same(each) for each in value]
        return "this very address" if value == email else value

    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-trace-id"}}
    headers["content-length"] = str(len(answer.content) - answer.text.count(email) * len(email))
    return answer.status_code, same(answer.json()), headers


# ---- F3-3


@does("F3-3")
def test_new_address_moves_ownership_and_revokes_the_invitation(
    intake: Intake, ats: Intake, office: PostOffice
) -> None:
    know(intake, KNOWN)
    company = make(ats, ownerEmail=KNOWN)
    change(ats, company, UNKNOWN)
    assert roles(intake, company) == {KNOWN: "ADMIN"}
    deliver(intake, office)
    change(ats, company, OTHER)
    deliver(intake, office)
    assert [each.recipients for each in office.mails] == [(UNKNOWN,), (OTHER,)]
    assert accept(intake, office.mails[0].token).status_code == 410
    assert accept(intake, office.mails[1].token).status_code == 200
    assert roles(intake, company) == {KNOWN: "ADMIN", OTHER: "OWNER"}
    change(ats, company, KNOWN)
    assert roles(intake, company) == {KNOWN: "OWNER", OTHER: "ADMIN"}


@does("F3-3")
def test_null_clears_the_owner_and_omission_does_not(intake: Intake, ats: Intake, office: PostOffice) -> None:
    know(intake, KNOWN)
    company = make(ats, ownerEmail=KNOWN)
    kept = data(ats.patch(f"/company/{company['id']}", {"name": "Other name"}))
    assert (kept["ownerEmail"], roles(intake, company)) == (KNOWN, {KNOWN: "OWNER"})
    assert change(ats, company, None)["ownerEmail"] is None
    assert roles(intake, company) == {KNOWN: "ADMIN"}
    change(ats, company, UNKNOWN)
    deliver(intake, office)
    assert change(ats, company, None)["ownerEmail"] is None
    assert accept(intake, office.mails[0].token).json()["error"] == GONE


@does_not("F3-3")
def test_refused_change_names_no_owner(intake: Intake, ats: Intake) -> None:
    company = make(ats)
    answer = ats.patch(f"/company/{company['id']}", {"ownerEmail": OTHER, "settings": {"timezone": "Europe/Atlantis"}})
    assert answer.status_code == 400
    assert intake.count("invitations") == 0
    stranger = intake.with_new_key(kind=KeyKind.ATS)
    assert stranger.patch(f"/company/{company['id']}", {"ownerEmail": OTHER}).status_code == 403
    assert intake.count("invitations") == 0


# ---- F3-4


@does("F3-4")
def test_accepting_creates_the_user_and_the_owner(intake: Intake, ats: Intake, office: PostOffice) -> None:
    company, token = invite(ats, office)
    owner = data(accept(intake, token, f"  {NAME} "))
    [user] = intake.ask("SELECT id, email, name FROM users")
    assert (user.email, user.name) == (UNKNOWN, NAME)
    assert owner == {
        "userId": str(user.id),
        "name": NAME,
        "email": UNKNOWN,
        "companyId": company["id"],
        "companyName": "Acme",
        "role": "OWNER",
    }
    assert roles(intake, company) == {UNKNOWN: "OWNER"}
    assert make(ats, ownerEmail=UNKNOWN)["ownerEmail"] == UNKNOWN
    deliver(intake, office)
    assert len(office.mails) == 1, "known from then on"


@does_not("F3-4")
def test_opening_the_link_consumes_no_invitation(intake: Intake, ats: Intake, office: PostOffice) -> None:
    """Mail scanners open links."""
    _, token = invite(ats, office)
    for _ in range(3):
        for method in ("GET", "HEAD", "OPTIONS"):
            assert intake.client.request(method, ACCEPT, params={"token": token}).status_code == 405
    assert accept(intake, token).status_code == 200


@does_not("F3-4")
def test_all_unusable_tokens_get_the_same_answer(intake: Intake, ats: Intake, office: PostOffice) -> None:
    ends: dict[str, Callable[[dict[str, Any], str], object]] = {
        "used": lambda _, token: accept(intake, token),
        "revoked": lambda company, _: change(ats, company, OTHER),
        "expired": lambda company, _: intake.change(
            "UPDATE invitations SET expires_at = :now WHERE company_id = :id", now=intake.now(), id=UUID(company["id"])
        ),
        "deleted": lambda company, _: intake.change(
            "UPDATE companies SET deleted_at = updated_at WHERE id = :id", id=UUID(company["id"])
        ),
    }
    responses = [accept(intake, token) for token in ("", "x", "x" * 43, "x" * 5000, "ž", "../../etc")]
    for place, end in enumerate(ends.values()):
        company, token = invite(ats, office, f"unknown{place}@example.com")
        end(company, token)
        responses.append(accept(intake, token))
    assert [each.status_code for each in responses] == [410] * 10
    assert all(each.json()["error"] == GONE for each in responses)
    assert len({tuple(sorted(set(each.headers))) for each in responses}) == 1
    assert [row.email for row in intake.ask("SELECT email FROM users")] == ["unknown0@example.com"]


@does_not("F3-4")
def test_acceptance_ignores_the_idempotency_key(intake: Intake, ats: Intake, office: PostOffice) -> None:
    """A used token always gets 410."""
    _, token = invite(ats, office)
    body = {"token": token, "name": NAME}
    kept = intake.count("inbox")
    responses = [intake.client.post(ACCEPT, json=body, headers=KEY) for _ in range(2)]
    assert [each.status_code for each in responses] == [200, 410]
    assert intake.count("inbox") == kept


@does("F3-4")
def test_concurrent_acceptances_succeed_once(intake: Intake, ats: Intake, office: PostOffice) -> None:
    for place in range(5):
        company, token = invite(ats, office, f"unknown{place}@example.com")
        with ThreadPoolExecutor(8) as several:
            responses = list(several.map(lambda each, token=token: accept(intake, token, f"Name {each}"), range(8)))
        assert sorted(each.status_code for each in responses) == [200] + [410] * 7
        [accepted] = [each for each in responses if each.status_code == 200]
        [user] = intake.ask("SELECT name FROM users WHERE email = :email", email=f"unknown{place}@example.com")
        assert data(accepted)["name"] == user.name
        assert roles(intake, company) == {f"unknown{place}@example.com": "OWNER"}


@does("F3-4")
def test_user_who_accepts_two_companies_at_once_owns_both(intake: Intake, ats: Intake, office: PostOffice) -> None:
    companies = [make(ats, ownerEmail=UNKNOWN) for _ in range(4)]
    deliver(intake, office)
    with ThreadPoolExecutor(4) as several:
        responses = list(several.map(lambda mail: accept(intake, mail.token), office.mails))
    assert [each.status_code for each in responses] == [200] * 4
    assert intake.count("users") == 1
    assert [roles(intake, each) for each in companies] == [{UNKNOWN: "OWNER"}] * 4


@does("F3-3", "F3-4")
def test_acceptance_during_a_move_leaves_one_owner_or_invitation(
    intake: Intake, ats: Intake, office: PostOffice
) -> None:
    know(intake, KNOWN)
    for place in range(8):
        email = f"unknown{place}@example.com"
        company, token = invite(ats, office, email)
        with ThreadPoolExecutor(2) as both:
            accepted = both.submit(accept, intake, token)
            both.submit(change, ats, company, KNOWN).result()
        # The move came after the acceptance, or the acceptance came too late. The move wins in both cases.
        expected = {KNOWN: "OWNER"} | ({email: "ADMIN"} if accepted.result().status_code == 200 else {})
        assert roles(intake, company) == expected


@does_not("F3-4")
def test_invalid_acceptance_consumes_no_invitation(intake: Intake, ats: Intake, office: PostOffice) -> None:
    _, token = invite(ats, office)
    named = {"token": token, "name": NAME}
    for body, field, code in (
        ({"token": token}, "name", "MISSING_FIELD"),
        ({"name": NAME}, "token", "MISSING_FIELD"),
        (named | {"token": 7}, "token", "WRONG_TYPE"),
        (named | {"name": ""}, "name", "TOO_SHORT"),
        (named | {"name": "   "}, "name", "TOO_SHORT"),
        (named | {"name": "x" * 101}, "name", "TOO_LONG"),
        (named | {"name": "a\r\nBcc: b@example.org"}, "name", "NOT_PRINTABLE"),
        (named | {"name": "a\u202eb"}, "name", "NOT_PRINTABLE"),
        (named | {"name": "\u200d"}, "name", "NOT_PRINTABLE"),
        (named | {"email": "me@example.org"}, "email", "UNKNOWN_FIELD"),
    ):
        assert wrong_fields(intake.client.post(ACCEPT, json=body)) == [(field, code)], body
    assert accept(intake, token, "x" * 100).status_code == 200


# ---- F3-5


@does_not("F3-5")
def test_no_name_of_a_company_adds_a_header_or_a_recipient(intake: Intake, ats: Intake, office: PostOffice) -> None:
    """Over HTTP, through the database and a worker's use case, to a real mail server."""
    accepted = []
    for place, name in enumerate(HOSTILE_NAMES):
        email = f"owner{place}@example.com"
        answer = ats.post("/company", {"name": name, "ownerEmail": email})
        if answer.status_code == 201:
            accepted.append(email)
        else:  # too short, too long, or with a character that cannot be stored
            assert answer.status_code == 400
    assert len(accepted) >= 40
    deliver(intake, office)
    assert sorted(each.recipients for each in office.mails) == sorted((email,) for email in accepted)
    assert sorted(office.asked) == sorted(accepted)
    assert {tuple(each.headers) for each in office.mails} == {tuple(HEADERS)}
    assert {each.message["From"] for each in office.mails} == {"Duecall <mail@duecall.example>"}
    assert all(str(each.message["To"]) == each.recipients[0] for each in office.mails)


@does("F3-5")
def test_harmless_company_name_is_in_the_mail(intake: Intake, ats: Intake, office: PostOffice) -> None:
    make(ats, name="Žluťoučký kůň, s. r. o.", ownerEmail=UNKNOWN)
    deliver(intake, office)
    [mail] = office.mails
    assert str(mail.message["Subject"]).strip() == "Invitation to become the owner of Žluťoučký kůň, s. r. o."
    assert "    Žluťoučký kůň, s. r. o.\n" in mail.text


def test_invitation_is_in_the_language_of_the_company(intake: Intake, ats: Intake, office: PostOffice) -> None:
    make(ats, name="Acme", ownerEmail=UNKNOWN, settings={"locale": "de"})
    deliver(intake, office)
    [mail] = office.mails
    assert "Einladung" in mail.message["Subject"]
    assert "eingeladen" in mail.text


# ---- stored answers and logs


def test_stored_answer_has_no_address_and_shows_the_current_one(intake: Intake, ats: Intake) -> None:
    body = {"name": "Acme", "ownerEmail": UNKNOWN}
    key = {"Idempotency-Key": "once"}
    made = ats.made("/company", body, headers=key)
    kept = intake.ask("SELECT body::text, answer::text FROM inbox")
    assert len(kept) == 1
    assert UNKNOWN not in str(kept)
    replayed = ats.post("/company", body, headers=key)
    assert (data(replayed, 201), replayed.headers["Idempotent-Replayed"]) == (made, "true")
    change(ats, made, OTHER)
    assert ats.made("/company", body, headers=key)["ownerEmail"] == OTHER
    assert intake.ask("SELECT count(*) FROM invitations")[0][0] == 2, "a repetition sends no invitation"
    intake.change("UPDATE companies SET deleted_at = updated_at WHERE id = :id", id=UUID(made["id"]))
    responses = ats.post("/company", body, headers=key)
    assert refusal(responses) == (410, "COMPANY_DELETED")
    assert not [each for each in (UNKNOWN, OTHER) if each in responses.text]


def test_no_log_line_names_an_owner_or_a_token(
    intake: Intake, ats: Intake, office: PostOffice, lines: list[dict[str, Any]]
) -> None:
    with _refusing(office, UNKNOWN):
        make(ats, ownerEmail=UNKNOWN)
        company = make(ats, ownerEmail=OTHER)
        deliver(intake, office)
    token = office.mails[0].token
    ats.patch(f"/company/{company['id']}", {"ownerEmail": f"{OTHER}, {UNKNOWN}"})
    accept(intake, token, "x\ny")
    accept(intake, token)
    accept(intake, token)
    said = {each["event"].partition(":")[0] for each in lines}
    assert {"invitation_sent", "invitation_failed", "request_answered"} <= said
    responses = json.dumps(lines, ensure_ascii=False)
    assert not [each for each in (UNKNOWN, OTHER, "example.com", NAME, "Acme", token) if each in responses]


@contextmanager
def _refusing(office: PostOffice, address: str) -> Iterator[None]:
    """Reject this recipient permanently and quote the address, as real servers do."""
    usual = office.to_recipient
    office.to_recipient = lambda asked: f"550 no such user: {asked}" if asked == address else "250 OK"
    yield
    office.to_recipient = usual
