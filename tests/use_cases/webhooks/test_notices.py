"""Mails to owners whose webhook was disabled: sent once it is, again after a failure, and never to another person."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.mail import MailSender, SmtpMailer, SmtpServer
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.owners import Notices
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant
from tests.support.smtp_server import TAKEN, PostOffice, a_post_office
from tests.use_cases.webhooks.endpoints import Webhooks

OWNER = "owner@example.com"
SENDER = MailSender(name="Duecall", address="mail@duecall.example")


@pytest.fixture
def office() -> Iterator[PostOffice]:
    with a_post_office() as office:
        yield office


@pytest.fixture
def webhooks(tenant: Tenant, hints: RecordingHints) -> Webhooks:
    times = dict.fromkeys(("created_at", "updated_at"), tenant.now())
    user_id = uuid4()
    tenant.insert("users", id=user_id, email=OWNER, name="Ada", **times)
    tenant.insert("memberships", company_id=tenant.company_id, user_id=user_id, role="OWNER", **times)
    return Webhooks(tenant=tenant, hints=hints)


def disabled(webhooks: Webhooks, cause: str = "FAILING", **given: Any) -> UUID:
    now = webhooks.tenant.now()
    return webhooks.endpoint(disabled_at=now, disabled_cause=cause, notice_at=now, **given)


def notices(webhooks: Webhooks, office: PostOffice) -> Notices:
    return Notices(webhooks.tenant.database, SmtpMailer(SmtpServer.of(office.url), SENDER), webhooks.tenant.now)


@pytest.mark.parametrize(("cause", "words"), [("GONE", "410 Gone"), ("FAILING", "five days")])
def test_owner_is_told_once(webhooks: Webhooks, office: PostOffice, cause: str, words: str) -> None:
    endpoint_id = disabled(webhooks, cause, url="https://example.com/canary")
    for _ in range(2):
        notices(webhooks, office).send()
    [mail] = office.mails
    assert mail.message["To"] == OWNER
    assert "was disabled" in mail.message["Subject"]
    assert words in mail.text
    assert str(endpoint_id) in mail.text
    assert "canary" not in mail.text
    assert webhooks.row(endpoint_id).notice_at is None


def test_mail_is_in_the_language_of_the_company(webhooks: Webhooks, office: PostOffice) -> None:
    disabled(webhooks)
    webhooks.tenant.change("""UPDATE companies SET settings = settings || '{"locale": "de-AT"}'""")
    notices(webhooks, office).send()
    [mail] = office.mails
    assert "wurde abgeschaltet" in mail.message["Subject"]
    assert "fünf Tagen" in mail.text


def test_mail_is_tried_again(webhooks: Webhooks, office: PostOffice, now: TestClock) -> None:
    endpoint_id = disabled(webhooks)
    office.to_recipient = lambda _: "450 4.2.1 later"
    notices(webhooks, office).send()
    row = webhooks.row(endpoint_id)
    assert row.notice_at > now()
    assert office.mails == []
    office.to_recipient = lambda _: TAKEN
    now.move(row.notice_at - now())
    notices(webhooks, office).send()
    assert webhooks.row(endpoint_id).notice_at is None
    assert {mail.message["To"] for mail in office.mails} == {OWNER}


@pytest.mark.parametrize("cause", ["DELETED", "KEY_REVOKED"])
def test_partners_own_end_of_a_webhook_sends_no_mail(webhooks: Webhooks, office: PostOffice, cause: str) -> None:
    disabled(webhooks, cause)
    notices(webhooks, office).send()
    assert office.mails == []


def test_webhook_of_an_ats_sends_no_mail_to_the_company(webhooks: Webhooks, office: PostOffice) -> None:
    ats_id, now = uuid4(), webhooks.tenant.now()
    key = {"id": uuid4(), "principal_id": ats_id, "kind": "ATS", "name": "an ATS", "key_hash": b"x", "scopes": []}
    webhooks.tenant.insert("api_keys", **key, per_minute=1, per_hour=1, created_at=now, updated_at=now)
    ids = [disabled(webhooks, principal_id=ats_id), disabled(webhooks, principal_id=ats_id, company_id=None)]
    notices(webhooks, office).send()
    assert office.mails == []
    assert [webhooks.row(each).notice_at for each in ids] == [None, None]


def test_clock_hints_due_notices(webhooks: Webhooks, release: Release, hints: RecordingHints) -> None:
    release.hint_sweep()
    assert (tasks.NOTIFY_OWNERS, ()) not in hints.rings
    disabled(webhooks)
    release.hint_sweep()
    assert (tasks.NOTIFY_OWNERS, ()) in hints.rings


def test_enabled_webhook_sends_no_mail(webhooks: Webhooks, office: PostOffice) -> None:
    endpoint_id = disabled(webhooks)
    webhooks.change(endpoint_id, "disabled_at = NULL, disabled_cause = NULL")
    notices(webhooks, office).send()
    assert office.mails == []
