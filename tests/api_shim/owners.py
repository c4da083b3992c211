"""Companies with owners: created over HTTP, invited by mail, accepted by a token."""

from typing import Any
from uuid import UUID

import httpx

from scheduler.hashing import Hasher
from scheduler.mail import MailSender, SmtpMailer, SmtpServer
from scheduler.use_cases.resources.owners import Invitations
from tests.api_shim.intake import PEPPER, Intake
from tests.support.smtp_server import PostOffice

UNKNOWN = "unknown@example.com"
NAME = "Jana Nováková"
ACCEPT = "/invitations/accept"


def make(ats: Intake, **fields: Any) -> dict[str, Any]:
    return dict(ats.made("/company", {"name": "Acme", **fields}))


def deliver(intake: Intake, office: PostOffice) -> None:
    """Send the mails, as the maintenance worker does after a hint."""
    mailer = SmtpMailer(SmtpServer.of(office.url), MailSender(name="Duecall", address="mail@duecall.example"))
    Invitations(intake.database, Hasher(PEPPER), mailer, "https://app.example.com", intake.now).send()


def accept(intake: Intake, token: str, name: str = NAME) -> httpx.Response:
    return intake.client.post(ACCEPT, json={"token": token, "name": name})


def roles(intake: Intake, company: dict[str, Any]) -> dict[str, str]:
    rows = intake.ask(
        "SELECT u.email, m.role FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.company_id = :id",
        id=UUID(company["id"]),
    )
    return {row.email: row.role for row in rows}
