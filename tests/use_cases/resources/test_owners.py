"""Invitation e-mails: sent once, retried when a server fails, always with a valid token."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from scheduler.domain.company import Company, User
from scheduler.domain.refusals import InvitationGone
from scheduler.hashing import Hasher
from scheduler.mail import Mail, Mailer, MailSender, SmtpMailer, SmtpServer
from scheduler.persistence.database import Database
from scheduler.persistence.errors import ClockWrong
from scheduler.rules.owners import LIFE
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.owners import Invitations, Owners, name_owner
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import NOON, Seeded, TestClock, seed, wait_until
from tests.support.builders import RecordingHints
from tests.support.smtp_server import HANG_UP, PostOffice, a_closed_door, a_post_office
from tests.support.statements import statements_of

TO = "owner@example.com"
SENDER = MailSender(name="Duecall", address="mail@duecall.example")
A_MOMENT = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class OwnedCompany:
    """A company to be owned, the sender of its e-mail, and the page for accepting."""

    database: Database
    company_id: UUID
    hasher: Hasher
    now: TestClock
    office: PostOffice

    def name(self, email: str | None, company_id: UUID | None = None) -> None:
        with self.database.transaction() as stores:
            company = stores.companies.lock(company_id or self.company_id)
            assert company is not None
            name_owner(stores, company, email, self.now())

    def invitations(self, mailer: Mailer | None = None, url: str | None = None) -> Invitations:
        mailer = mailer or SmtpMailer(SmtpServer.of(url or self.office.url), SENDER)
        return Invitations(self.database, self.hasher, mailer, "https://app.example.com", self.now)

    def send(self) -> None:
        self.invitations().send()

    def accept(self, token: str) -> UUID:
        return Owners(self.database, self.hasher, self.now).accept(token, "Jana").user.id

    def company(self) -> Company:
        with self.database.transaction() as stores:
            company = stores.companies.get(self.company_id)
        assert company is not None
        return company

    def roles(self) -> dict[str, str]:
        """The role of each user by address."""
        rows = self.rows("SELECT u.email, m.role FROM memberships m JOIN users u ON u.id = m.user_id")
        return {row.email: row.role for row in rows}

    def rows(self, query: str) -> list[Any]:
        with self.database.transaction() as stores:
            return list(stores.connection.execute(text(query)))

    @property
    def tokens(self) -> list[str]:
        return [each.token for each in self.office.mails]


@pytest.fixture
def office() -> Iterator[PostOffice]:
    with a_post_office() as office:
        yield office


@pytest.fixture
def owned(database: Database, seeded: Seeded, hasher: Hasher, now: TestClock, office: PostOffice) -> OwnedCompany:
    return OwnedCompany(database=database, company_id=seeded.company_id, hasher=hasher, now=now, office=office)


def a_user(owned: OwnedCompany, email: str) -> UUID:
    user = User(id=uuid4(), email=email, name="Known")
    with owned.database.transaction() as stores:
        return stores.users.add(user, owned.now())


# ---- one mail, to one person


def test_invitation_is_mailed_once_to_its_recipient(owned: OwnedCompany) -> None:
    """F3-2."""
    owned.name(TO)
    for _ in range(3):
        owned.send()
    [mail] = owned.office.mails
    assert (mail.recipients, mail.sender) == ((TO,), SENDER.address)
    assert "https://app.example.com/invitations/accept#token=" in mail.text
    assert "Acme" in mail.text
    assert "until 2026-04-09 12:00 UTC" in mail.text
    owned.accept(mail.token)
    assert owned.roles() == {TO: "OWNER"}


def test_known_user_is_the_owner_at_once_without_mail(owned: OwnedCompany) -> None:
    """F3-2."""
    a_user(owned, TO)
    owned.name(TO)
    owned.send()
    assert owned.roles() == {TO: "OWNER"}
    assert not owned.office.asked
    assert not owned.rows("SELECT FROM invitations")


def test_known_and_unknown_addresses_cost_the_same_statements(owned: OwnedCompany) -> None:
    """F3-2: how long an answer takes does not tell either."""
    a_user(owned, TO)

    def statements(email: str) -> int:
        with owned.database.transaction() as stores:
            company = stores.companies.lock(owned.company_id)
            assert company is not None
            with statements_of(owned.database) as asked:
                name_owner(stores, company, email, owned.now())
        return len(asked)

    assert statements(TO) == statements("second@example.com") == statements(TO) == 5


def test_only_a_hash_of_a_256_bit_token_is_stored(owned: OwnedCompany) -> None:
    """F3-4."""
    owned.name(TO)
    owned.send()
    [token] = owned.tokens
    assert len(token) == 43
    kept = owned.rows("SELECT token_hash FROM invitation_tokens")
    assert [bytes(row.token_hash) for row in kept] == [owned.hasher.invitation(token)]
    assert owned.hasher.invitation(token) != owned.hasher.key(token)
    everything = str([owned.rows(f"SELECT * FROM {table}") for table in ("invitations", "invitation_tokens", "inbox")])
    assert token not in everything


def test_concurrent_senders_send_each_mail_once(owned: OwnedCompany) -> None:
    companies = [seed(owned.database, NOON).company_id for _ in range(12)]
    for place, company_id in enumerate(companies):
        owned.name(f"owner{place}@example.com", company_id)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: owned.invitations().send(), range(4)))
    assert sorted(owned.office.asked) == sorted(f"owner{place}@example.com" for place in range(12))


def test_slow_mail_server_occupies_one_thread_of_a_process(owned: OwnedCompany) -> None:
    owned.name(TO)
    came, go = threading.Event(), threading.Event()

    def slowly(_: bytes) -> str:
        came.set()
        go.wait(60)
        return "250 OK"

    owned.office.to_mail = slowly
    invitations = owned.invitations()
    sending = threading.Thread(target=invitations.send)
    sending.start()
    assert came.wait(60)
    owned.name("second@example.com", seed(owned.database, NOON).company_id)
    invitations.send()
    assert owned.office.asked == [TO]
    go.set()
    sending.join()
    assert owned.office.asked == [TO, "second@example.com"], "the worker that began it goes on"


def test_machine_with_a_wrong_clock_sends_no_mail(
    owned: OwnedCompany, postgres_url: str, hasher: Hasher, now: TestClock
) -> None:
    owned.name(TO)
    wrong = Database(postgres_url, machine=lambda: NOON)
    mailer = SmtpMailer(SmtpServer.of(owned.office.url), SENDER)
    with pytest.raises(ClockWrong):
        Invitations(wrong, hasher, mailer, "https://app.example.com", now).send()
    wrong.close()
    assert not owned.office.asked
    owned.send()
    assert owned.office.asked == [TO]


def test_revoked_invitation_is_not_sent(owned: OwnedCompany) -> None:
    for end in (
        lambda: owned.name(None),
        lambda: owned.now.move(LIFE),
        lambda: owned.rows("UPDATE companies SET deleted_at = updated_at RETURNING id"),
    ):
        owned.name(TO)
        end()
        owned.send()
    assert not owned.office.asked


# ---- when it does not go well


def test_mail_server_that_was_down_gets_each_mail_once(owned: OwnedCompany) -> None:
    """F3-2."""
    owned.name(TO)
    door = a_closed_door()
    url = f"smtp://127.0.0.1:{door.getsockname()[1]}?starttls=never"
    for seconds in (0, 10, 60, 300, 1800):
        owned.now.move(timedelta(seconds=seconds) - A_MOMENT)
        owned.invitations(url=url).send()
        owned.now.move(A_MOMENT)
        owned.invitations(url=url).send()
    assert [row.tries for row in owned.rows("SELECT tries FROM invitations")] == [5], "and none before its time"
    assert not owned.rows("SELECT FROM invitation_tokens"), "no token of a mail that never went out"
    door.listen()
    with a_post_office(PostOffice(door)) as back:
        owned.now.move(timedelta(hours=1))
        for _ in range(2):
            owned.invitations(url=url).send()
        [mail] = back.mails
    owned.accept(mail.token)
    assert owned.roles() == {TO: "OWNER"}


def test_invitation_is_retried_until_it_expires(owned: OwnedCompany) -> None:
    owned.name(TO)
    owned.office.to_recipient = lambda _: "450 busy"
    for hours in (*[24] * 6, 23, 1):
        owned.send()
        owned.now.move(timedelta(hours=hours))
    owned.send()
    assert len(owned.office.asked) == 8, "the last try is an hour before the expiry"
    [row] = owned.rows("SELECT send_at, sent_at FROM invitations")
    assert (row.send_at, row.sent_at) == (None, None)


@pytest.mark.parametrize("place", ["to_recipient", "to_mail"])
def test_temporary_rejection_is_retried_and_a_permanent_one_not(owned: OwnedCompany, place: str) -> None:
    """F3-2."""
    other = seed(owned.database, NOON).company_id
    owned.name(TO)
    owned.name("second@example.com", other)
    answers = {TO: "451 greylisted", "second@example.com": "550 no such user"}
    if place == "to_recipient":
        owned.office.to_recipient = answers.__getitem__
    else:
        owned.office.to_mail = lambda raw: answers[TO if f"To: {TO}".encode() in raw else "second@example.com"]
    owned.send()
    assert set(owned.office.asked) == {TO, "second@example.com"}, "one rejection delays no other e-mail"
    owned.office.to_recipient = lambda _: "250 OK"
    owned.office.to_mail = lambda _: "250 OK"
    owned.now.move(timedelta(seconds=10))
    owned.send()
    owned.now.move(timedelta(hours=2))
    owned.send()
    assert [each.recipients for each in owned.office.mails] == [(TO,)]
    with owned.database.transaction() as stores:
        [unsent] = stores.invitations.unsent(owned.now())
    assert (unsent.company_id, unsent.tries, unsent.try_at) == (other, 1, None)


def test_unavailable_mail_server_ends_the_round(owned: OwnedCompany) -> None:
    for place in range(5):
        owned.name(f"owner{place}@example.com", seed(owned.database, NOON).company_id)
    with a_closed_door() as door:
        owned.invitations(url=f"smtp://127.0.0.1:{door.getsockname()[1]}").send()
    assert sorted(row.tries for row in owned.rows("SELECT tries FROM invitations")) == [0, 0, 0, 0, 1]


class _DiesAfterIt:
    """Sends the e-mail, then crashes before recording it."""

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer

    def send(self, mail: Mail) -> None:
        self._mailer.send(mail)
        raise KeyboardInterrupt


def test_crash_between_mail_and_record_leaves_valid_tokens(owned: OwnedCompany) -> None:
    """F3-4: it is mailed once more, and whichever of the two is opened works; once."""
    owned.name(TO)
    dying = _DiesAfterIt(SmtpMailer(SmtpServer.of(owned.office.url), SENDER))
    with pytest.raises(KeyboardInterrupt):
        owned.invitations(dying).send()
    owned.send()
    assert len(owned.office.mails) == 1, "the worker that began it may still be running"
    owned.now.move(timedelta(minutes=5))
    owned.send()
    first, second = owned.tokens
    assert first != second
    assert len({each.message["Message-ID"] for each in owned.office.mails}) == 1
    owned.accept(first)
    for token in (first, second):
        with pytest.raises(InvitationGone):
            owned.accept(token)


def test_mail_that_may_have_been_sent_keeps_its_token(owned: OwnedCompany) -> None:
    owned.name(TO)
    owned.office.to_mail = lambda _: HANG_UP
    owned.send()
    [token] = owned.tokens
    owned.accept(token)
    assert owned.roles() == {TO: "OWNER"}
    owned.office.to_mail = lambda _: "250 OK"
    owned.now.move(timedelta(hours=1))
    owned.send()
    assert len(owned.office.mails) == 1, "an accepted invitation is not mailed again"


def test_overtaken_try_records_nothing(owned: OwnedCompany) -> None:
    owned.name(TO)
    with owned.database.transaction() as stores:
        slow = stores.invitations.take_due(NOON, NOON + A_MOMENT)
    owned.now.move(A_MOMENT)
    with owned.database.transaction() as stores:
        quick = stores.invitations.take_due(owned.now(), NOON + timedelta(minutes=5))
    assert slow is not None
    assert quick == replace(slow, tries=2)
    with owned.database.transaction() as stores:
        stores.invitations.not_sent(slow, None, owned.now())
    assert owned.rows("SELECT FROM invitations WHERE send_at IS NOT NULL")
    with owned.database.transaction() as stores:
        stores.invitations.sent(quick, owned.now())
    assert owned.rows("SELECT FROM invitations WHERE send_at IS NULL AND sent_at IS NOT NULL")


# ---- whose it is


def test_same_address_keeps_its_invitation_until_it_expires(owned: OwnedCompany) -> None:
    """F3-3."""
    owned.name(TO)
    owned.send()
    owned.now.move(LIFE - A_MOMENT)
    owned.name(TO)
    owned.send()
    assert len(owned.office.mails) == 1
    owned.now.move(A_MOMENT)
    assert owned.company().owner_email == TO, "an expired invitation looks the same as an owner"
    owned.name(TO)
    owned.send()
    assert len(owned.office.mails) == 2
    expired, fresh = owned.tokens
    with pytest.raises(InvitationGone):
        owned.accept(expired)
    owned.accept(fresh)
    assert owned.roles() == {TO: "OWNER"}


def test_ownership_can_move_and_return(owned: OwnedCompany) -> None:
    """F3-3."""
    first, second = "first@example.com", "second@example.com"
    for email in (first, second):
        a_user(owned, email)
    owned.name(first)
    owned.name(second)
    assert owned.roles() == {first: "ADMIN", second: "OWNER"}
    owned.name(first)
    assert owned.roles() == {first: "OWNER", second: "ADMIN"}
    owned.name("third@example.com")
    assert owned.roles() == {first: "ADMIN", second: "ADMIN"}
    assert owned.company().owner_email == "third@example.com"
    owned.name(None)
    assert owned.roles() == {first: "ADMIN", second: "ADMIN"}
    assert owned.company().owner_email is None
    assert not owned.rows("SELECT FROM invitations WHERE revoked_at IS NULL")


def test_owner_of_two_companies_keeps_their_name(owned: OwnedCompany) -> None:
    other = seed(owned.database, NOON).company_id
    owned.name(TO)
    owned.name(TO, other)
    owned.send()
    first, second = owned.tokens
    assert owned.accept(first) == owned.accept(second)
    assert [row.role for row in owned.rows("SELECT role FROM memberships")] == ["OWNER", "OWNER"]


def test_invitation_replaced_during_acceptance_is_used_or_gone(owned: OwnedCompany) -> None:
    """F3-3, F3-4: under the company's lock; never an owner whose invitation was revoked."""
    owned.name(TO)
    owned.send()
    [token] = owned.tokens
    outcomes: list[str] = []

    def accept() -> None:
        try:
            owned.accept(token)
            outcomes.append("accepted")
        except InvitationGone:
            outcomes.append("gone")

    with owned.database.transaction() as stores:
        company = stores.companies.lock(owned.company_id)
        assert company is not None
        thread = threading.Thread(target=accept)
        thread.start()
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: owned.rows(waits), says="it waits for us")
        name_owner(stores, company, "second@example.com", owned.now())
    thread.join()
    assert outcomes == ["gone"]
    assert owned.roles() == {}
    assert owned.company().owner_email == "second@example.com"


def test_clock_sends_hints_only_for_due_mail(owned: OwnedCompany, release: Release, hints: RecordingHints) -> None:
    def is_rung() -> bool:
        hints.rings.clear()
        release.hint_sweep()
        assert (tasks.SETTLE, ()) in hints.rings
        return (tasks.INVITE, ()) in hints.rings

    assert not is_rung()
    owned.name(TO)
    assert is_rung()
    owned.office.to_recipient = lambda _: "450 busy"
    owned.send()
    assert not is_rung()
    owned.now.move(timedelta(seconds=10))
    assert is_rung()
    owned.office.to_recipient = lambda _: "250 OK"
    owned.send()
    assert not is_rung()
