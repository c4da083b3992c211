"""Invitation e-mails: sent once, retried when a server fails, always with a valid token."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text

from scheduler.domain.company import Company
from scheduler.domain.owner import User
from scheduler.domain.refusals import InvitationGone
from scheduler.hashing import Hasher
from scheduler.mail import Mail, Mailer, MailSender, SmtpMailer, SmtpServer
from scheduler.persistence.database import Database
from scheduler.persistence.errors import ClockWrong
from scheduler.rules.invitation_timing import LIFE
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.owners import Invitations, Owners, name_owner
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import NOON, Seeded, TestClock, seed, wait_until
from tests.support.builders import RecordingHints
from tests.support.smtp_server import HANG_UP, PostOffice, a_closed_door, a_post_office

TO = "owner@example.com"
SENDER = MailSender(name="Duecall", address="mail@duecall.example")
A_MOMENT = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class TwoTenants:
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
def town(database: Database, seeded: Seeded, hasher: Hasher, now: TestClock, office: PostOffice) -> TwoTenants:
    return TwoTenants(database=database, company_id=seeded.company_id, hasher=hasher, now=now, office=office)


def a_user(town: TwoTenants, email: str) -> UUID:
    user = User(id=uuid4(), email=email, name="Known")
    with town.database.transaction() as stores:
        return stores.users.add(user, town.now())


# ---- one mail, to one person


def test_invitation_is_mailed_once_to_its_recipient(town: TwoTenants) -> None:
    """F3-2."""
    town.name(TO)
    for _ in range(3):
        town.send()
    [mail] = town.office.mails
    assert (mail.recipients, mail.sender) == ((TO,), SENDER.address)
    assert "https://app.example.com/invitations/accept#token=" in mail.text
    assert "Acme" in mail.text
    assert "until 2026-04-09 12:00 UTC" in mail.text
    town.accept(mail.token)
    assert town.roles() == {TO: "OWNER"}


def test_known_user_is_the_owner_at_once_without_mail(town: TwoTenants) -> None:
    """F3-2."""
    a_user(town, TO)
    town.name(TO)
    town.send()
    assert town.roles() == {TO: "OWNER"}
    assert not town.office.asked
    assert not town.rows("SELECT FROM invitations")


def test_known_and_unknown_addresses_cost_the_same_statements(town: TwoTenants) -> None:
    """F3-2: how long an answer takes does not tell either."""
    a_user(town, TO)

    def statements(email: str) -> int:
        with town.database.transaction() as stores:
            company = stores.companies.lock(town.company_id)
            assert company is not None
            asked: list[str] = []
            event.listen(stores.connection, "before_cursor_execute", lambda *seen: asked.append(seen[2]))
            name_owner(stores, company, email, town.now())
        return len(asked)

    assert statements(TO) == statements("second@example.com") == statements(TO) == 5


def test_only_a_hash_of_a_256_bit_token_is_stored(town: TwoTenants) -> None:
    """F3-4."""
    town.name(TO)
    town.send()
    [token] = town.tokens
    assert len(token) == 43
    kept = town.rows("SELECT token_hash FROM invitation_tokens")
    assert [bytes(row.token_hash) for row in kept] == [town.hasher.invitation(token)]
    assert town.hasher.invitation(token) != town.hasher.key(token)
    everything = str([town.rows(f"SELECT * FROM {table}") for table in ("invitations", "invitation_tokens", "inbox")])
    assert token not in everything


def test_concurrent_senders_send_each_mail_once(town: TwoTenants) -> None:
    companies = [seed(town.database, NOON).company_id for _ in range(12)]
    for place, company_id in enumerate(companies):
        town.name(f"owner{place}@example.com", company_id)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: town.invitations().send(), range(4)))
    assert sorted(town.office.asked) == sorted(f"owner{place}@example.com" for place in range(12))


def test_slow_mail_server_occupies_one_thread_of_a_process(town: TwoTenants) -> None:
    town.name(TO)
    came, go = threading.Event(), threading.Event()

    def slowly(_: bytes) -> str:
        came.set()
        go.wait(20)
        return "250 OK"

    town.office.to_mail = slowly
    invitations = town.invitations()
    sending = threading.Thread(target=invitations.send)
    sending.start()
    assert came.wait(20)
    town.name("second@example.com", seed(town.database, NOON).company_id)
    invitations.send()
    assert town.office.asked == [TO]
    go.set()
    sending.join()
    assert town.office.asked == [TO, "second@example.com"], "the worker that began it goes on"


def test_machine_with_a_wrong_clock_sends_no_mail(
    town: TwoTenants, postgres_url: str, hasher: Hasher, now: TestClock
) -> None:
    town.name(TO)
    wrong = Database(postgres_url, machine=lambda: NOON)
    mailer = SmtpMailer(SmtpServer.of(town.office.url), SENDER)
    with pytest.raises(ClockWrong):
        Invitations(wrong, hasher, mailer, "https://app.example.com", now).send()
    wrong.close()
    assert not town.office.asked
    town.send()
    assert town.office.asked == [TO]


def test_revoked_invitation_is_not_sent(town: TwoTenants) -> None:
    for end in (
        lambda: town.name(None),
        lambda: town.now.move(LIFE),
        lambda: town.rows("UPDATE companies SET deleted_at = updated_at RETURNING id"),
    ):
        town.name(TO)
        end()
        town.send()
    assert not town.office.asked


# ---- when it does not go well


def test_mail_server_that_was_down_gets_each_mail_once(town: TwoTenants) -> None:
    """F3-2."""
    town.name(TO)
    door = a_closed_door()
    url = f"smtp://127.0.0.1:{door.getsockname()[1]}?starttls=never"
    for seconds in (0, 10, 60, 300, 1800):
        town.now.move(timedelta(seconds=seconds) - A_MOMENT)
        town.invitations(url=url).send()
        town.now.move(A_MOMENT)
        town.invitations(url=url).send()
    assert [row.tries for row in town.rows("SELECT tries FROM invitations")] == [5], "and none before its time"
    assert not town.rows("SELECT FROM invitation_tokens"), "no token of a mail that never went out"
    door.listen()
    with a_post_office(PostOffice(door)) as back:
        town.now.move(timedelta(hours=1))
        for _ in range(2):
            town.invitations(url=url).send()
        [mail] = back.mails
    town.accept(mail.token)
    assert town.roles() == {TO: "OWNER"}


def test_invitation_is_retried_hourly_until_it_expires(town: TwoTenants) -> None:
    town.name(TO)
    town.office.to_recipient = lambda _: "450 busy"
    for _ in range(24 * 8):
        town.send()
        town.now.move(timedelta(hours=1))
    assert len(town.office.asked) == 24 * 7
    [row] = town.rows("SELECT send_at, sent_at FROM invitations")
    assert (row.send_at, row.sent_at) == (None, None)


@pytest.mark.parametrize("place", ["to_recipient", "to_mail"])
def test_temporary_rejection_is_retried_and_a_permanent_one_not(town: TwoTenants, place: str) -> None:
    """F3-2."""
    other = seed(town.database, NOON).company_id
    town.name(TO)
    town.name("second@example.com", other)
    answers = {TO: "451 greylisted", "second@example.com": "550 no such user"}
    if place == "to_recipient":
        town.office.to_recipient = answers.__getitem__
    else:
        town.office.to_mail = lambda raw: answers[TO if f"To: {TO}".encode() in raw else "second@example.com"]
    town.send()
    assert set(town.office.asked) == {TO, "second@example.com"}, "one rejection delays no other e-mail"
    town.office.to_recipient = lambda _: "250 OK"
    town.office.to_mail = lambda _: "250 OK"
    town.now.move(timedelta(seconds=10))
    town.send()
    town.now.move(timedelta(hours=2))
    town.send()
    assert [each.recipients for each in town.office.mails] == [(TO,)]
    with town.database.transaction() as stores:
        [unsent] = stores.invitations.unsent(town.now())
    assert (unsent.company_id, unsent.tries, unsent.try_at) == (other, 1, None)


def test_unavailable_mail_server_ends_the_round(town: TwoTenants) -> None:
    for place in range(5):
        town.name(f"owner{place}@example.com", seed(town.database, NOON).company_id)
    with a_closed_door() as door:
        town.invitations(url=f"smtp://127.0.0.1:{door.getsockname()[1]}").send()
    assert sorted(row.tries for row in town.rows("SELECT tries FROM invitations")) == [0, 0, 0, 0, 1]


class _DiesAfterIt:
    """Sends the e-mail, then crashes before recording it."""

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer

    def send(self, mail: Mail) -> None:
        self._mailer.send(mail)
        raise KeyboardInterrupt


def test_crash_between_mail_and_record_leaves_valid_tokens(town: TwoTenants) -> None:
    """F3-4: it is mailed once more, and whichever of the two is opened works; once."""
    town.name(TO)
    dying = _DiesAfterIt(SmtpMailer(SmtpServer.of(town.office.url), SENDER))
    with pytest.raises(KeyboardInterrupt):
        town.invitations(dying).send()
    town.send()
    assert len(town.office.mails) == 1, "the worker that began it may still be running"
    town.now.move(timedelta(minutes=5))
    town.send()
    first, second = town.tokens
    assert first != second
    assert len({each.message["Message-ID"] for each in town.office.mails}) == 1
    town.accept(first)
    for token in (first, second):
        with pytest.raises(InvitationGone):
            town.accept(token)


def test_mail_that_may_have_been_sent_keeps_its_token(town: TwoTenants) -> None:
    town.name(TO)
    town.office.to_mail = lambda _: HANG_UP
    town.send()
    [token] = town.tokens
    town.accept(token)
    assert town.roles() == {TO: "OWNER"}
    town.office.to_mail = lambda _: "250 OK"
    town.now.move(timedelta(hours=1))
    town.send()
    assert len(town.office.mails) == 1, "an accepted invitation is not mailed again"


def test_overtaken_try_records_nothing(town: TwoTenants) -> None:
    town.name(TO)
    with town.database.transaction() as stores:
        slow = stores.invitations.take_due(NOON, NOON + A_MOMENT)
    town.now.move(A_MOMENT)
    with town.database.transaction() as stores:
        quick = stores.invitations.take_due(town.now(), NOON + timedelta(minutes=5))
    assert slow is not None
    assert quick == replace(slow, tries=2)
    with town.database.transaction() as stores:
        stores.invitations.not_sent(slow, None, town.now())
    assert town.rows("SELECT FROM invitations WHERE send_at IS NOT NULL")
    with town.database.transaction() as stores:
        stores.invitations.sent(quick, town.now())
    assert town.rows("SELECT FROM invitations WHERE send_at IS NULL AND sent_at IS NOT NULL")


# ---- whose it is


def test_same_address_keeps_its_invitation_until_it_expires(town: TwoTenants) -> None:
    """F3-3."""
    town.name(TO)
    town.send()
    town.now.move(LIFE - A_MOMENT)
    town.name(TO)
    town.send()
    assert len(town.office.mails) == 1
    town.now.move(A_MOMENT)
    assert town.company().owner_email == TO, "an expired invitation looks the same as an owner"
    town.name(TO)
    town.send()
    assert len(town.office.mails) == 2
    expired, fresh = town.tokens
    with pytest.raises(InvitationGone):
        town.accept(expired)
    town.accept(fresh)
    assert town.roles() == {TO: "OWNER"}


def test_ownership_can_move_and_return(town: TwoTenants) -> None:
    """F3-3."""
    first, second = "first@example.com", "second@example.com"
    for email in (first, second):
        a_user(town, email)
    town.name(first)
    town.name(second)
    assert town.roles() == {first: "ADMIN", second: "OWNER"}
    town.name(first)
    assert town.roles() == {first: "OWNER", second: "ADMIN"}
    town.name("third@example.com")
    assert town.roles() == {first: "ADMIN", second: "ADMIN"}
    assert town.company().owner_email == "third@example.com"
    town.name(None)
    assert town.roles() == {first: "ADMIN", second: "ADMIN"}
    assert town.company().owner_email is None
    assert not town.rows("SELECT FROM invitations WHERE revoked_at IS NULL")


def test_owner_of_two_companies_keeps_their_name(town: TwoTenants) -> None:
    other = seed(town.database, NOON).company_id
    town.name(TO)
    town.name(TO, other)
    town.send()
    first, second = town.tokens
    assert town.accept(first) == town.accept(second)
    assert [row.role for row in town.rows("SELECT role FROM memberships")] == ["OWNER", "OWNER"]


def test_invitation_replaced_during_acceptance_is_used_or_gone(town: TwoTenants) -> None:
    """F3-3, F3-4: under the company's lock; never an owner whose invitation was revoked."""
    town.name(TO)
    town.send()
    [token] = town.tokens
    outcomes: list[str] = []

    def accept() -> None:
        try:
            town.accept(token)
            outcomes.append("accepted")
        except InvitationGone:
            outcomes.append("gone")

    with town.database.transaction() as stores:
        company = stores.companies.lock(town.company_id)
        assert company is not None
        thread = threading.Thread(target=accept)
        thread.start()
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: town.rows(waits), says="it waits for us")
        name_owner(stores, company, "second@example.com", town.now())
    thread.join()
    assert outcomes == ["gone"]
    assert town.roles() == {}
    assert town.company().owner_email == "second@example.com"


def test_clock_sends_hints_only_for_due_mail(town: TwoTenants, release: Release, hints: RecordingHints) -> None:
    def is_rung() -> bool:
        hints.rings.clear()
        release.hint_sweep()
        assert (tasks.SETTLE, ()) in hints.rings
        return (tasks.INVITE, ()) in hints.rings

    assert not is_rung()
    town.name(TO)
    assert is_rung()
    town.office.to_recipient = lambda _: "450 busy"
    town.send()
    assert not is_rung()
    town.now.move(timedelta(seconds=10))
    assert is_rung()
    town.office.to_recipient = lambda _: "250 OK"
    town.send()
    assert not is_rung()
