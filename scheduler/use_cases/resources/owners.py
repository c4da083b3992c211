"""Owners: named by their address, invited by mail when nobody is known by it, and what accepting makes of them."""

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from secrets import token_urlsafe
from uuid import uuid4

from scheduler.clock import Now
from scheduler.domain.company import Company
from scheduler.domain.owner import Invitation, Owner, User
from scheduler.domain.refusals import InvitationGone
from scheduler.hashing import Hasher
from scheduler.logs import log
from scheduler.mail import Mail, MailAway, Mailer, MailRefused, NotSent, UnsafeMail
from scheduler.persistence.commits import Commit
from scheduler.persistence.database import Database, Stores
from scheduler.rules.display_names import shown
from scheduler.rules.invitation_timing import LIFE, try_again_at

_log = log(__name__)
_TOKEN_BYTES = 32
_A_TRY_TAKES = timedelta(minutes=5)
"""More than a mailer may need: whoever began a try and has recorded nothing by then has died."""
_LONGEST_NAME = 60

_SUBJECT = "Invitation to become the owner of {company}"
_TEXT = """\
You are invited to become the owner of this company on Duecall:

    {company}

To accept, open this link and give your name:

{link}

The link works once, until {until:%Y-%m-%d %H:%M} UTC.
If you did not expect this mail, do nothing, and nothing happens.
"""


class Owners:
    """Raises DatabaseAway."""

    def __init__(self, database: Database, hasher: Hasher, now: Now) -> None:
        self._database = database
        self._hasher = hasher
        self._now = now

    def accept(self, token: str, name: str, *, commit: Commit | None = None) -> Owner:
        """Whoever has the token of an open invitation owns its company; once.

        Raises InvitationGone, alike for one that was used, revoked or replaced, has expired, or never was. Raises
        CommitInDoubt; the result of `commit` is what would have been returned.
        """
        token_hash = self._hasher.invitation(token)
        with self._database.transaction(commit=commit) as stores:
            company_id = stores.invitations.company_of(token_hash)
            if company_id is not None:
                stores.act_for_company(company_id)
            company = None if company_id is None else stores.companies.lock(company_id)
            # After the lock, under which invitations end: of two who accept at once, the second sees that it is used.
            invitation = stores.invitations.by_token(token_hash)
            now = stores.instant(self._now)
            if company is None or invitation is None or not invitation.is_open(now):
                raise InvitationGone
            user_id = stores.users.add(User(id=uuid4(), email=invitation.email, name=name), now)
            stores.memberships.make_owner(company.id, user_id, now)
            stores.invitations.accept(invitation.id, now)
            user = stores.users.get(user_id)
            owner = Owner(user=user, company_id=company.id, company_name=company.name)
            if commit is not None:
                commit.result = owner
        return owner


def name_owner(stores: Stores, company: Company, email: str | None, now: datetime) -> Company:
    """The company with this owner: whoever is known by the address at once, else whoever accepts the invitation.

    The same address again changes nothing, unless its invitation has expired: then there is a new one. Only for a
    company that the caller has locked, or is making.
    """
    standing = stores.invitations.standing_of(company.id)
    if email == company.owner_email and (standing is None or standing.is_open(now)):
        return company
    stores.memberships.demote_owner(company.id, now)
    stores.invitations.revoke(company.id, now)
    if email is not None:
        user_id = stores.users.id_of(email)
        if user_id is not None:
            stores.memberships.make_owner(company.id, user_id, now)
        else:
            invitation = Invitation(id=uuid4(), company_id=company.id, email=email, expires_at=now + LIFE)
            stores.invitations.add(invitation, now)
    return replace(company, owner_email=email)


@dataclass(frozen=True, kw_only=True)
class _Try:
    invitation: Invitation
    token_hash: bytes
    mail: Mail


class Invitations:
    """Mails of invitations. `app_url` is where somebody gives their name and sends it on with the token.

    At least once: whoever dies between the mail and its record leaves one that is sent again. Each try has a token of
    its own, which is kept before the mail goes out, so that whichever of them arrives can be used.
    """

    def __init__(self, database: Database, hasher: Hasher, mailer: Mailer, app_url: str, now: Now) -> None:
        self._database = database
        self._hasher = hasher
        self._mailer = mailer
        self._app_url = app_url
        self._now = now
        self._sending = threading.Lock()

    def send(self) -> None:
        """Send what is due, until nothing is or the server is away. Raises DatabaseAway.

        Any number of processes may do it at once; in each of them one thread, so that a slow mail server does not keep
        the others of a worker from their work.
        """
        if not self._sending.acquire(blocking=False):
            return
        try:
            while (begun := self._begin()) is not None:
                if not self._is_taken_on(begun):
                    return
        finally:
            self._sending.release()

    def _begin(self) -> _Try | None:
        """Take one and keep the hash of its new token; the token itself is in the mail alone."""
        token = token_urlsafe(_TOKEN_BYTES)
        token_hash = self._hasher.invitation(token)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            invitation = stores.invitations.take_due(now, now + _A_TRY_TAKES)
            if invitation is None:
                return None
            stores.invitations.add_token(invitation.id, token_hash, now)
            company = stores.companies.get(invitation.company_id)
        mail = _mail(invitation, company, f"{self._app_url}/invitations/accept#token={token}", now)
        return _Try(invitation=invitation, token_hash=token_hash, mail=mail)

    def _is_taken_on(self, begun: _Try) -> bool:
        """Send it and record what became of it. False when the server takes nothing now."""
        try:
            self._mailer.send(begun.mail)
        except NotSent as error:
            self._not_sent(begun, error)
            return not isinstance(error, MailAway)
        except UnsafeMail:
            _log.exception("an invitation cannot be written", alarm="MAIL", invitation_id=str(begun.invitation.id))
            self._record_failure(begun, None, is_known=True)
            return True
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            stores.invitations.sent(begun.invitation, now)
        _log.info("an invitation was sent", invitation_id=str(begun.invitation.id))
        return True

    def _not_sent(self, begun: _Try, error: NotSent) -> None:
        invitation = begun.invitation
        again_at = None
        if not isinstance(error, MailRefused):
            again_at = try_again_at(invitation.tries, self._now(), invitation.expires_at)
        self._record_failure(begun, again_at, is_known=not isinstance(error, MailAway) or error.surely_not)
        _log.warning(
            "an invitation was not sent, and is not tried again"
            if again_at is None
            else "an invitation was not sent yet",
            invitation_id=str(invitation.id),
            company_id=str(invitation.company_id),
            status=error.status,
            count=invitation.tries,
        )

    def _record_failure(self, begun: _Try, again_at: datetime | None, *, is_known: bool) -> None:
        """`is_known`: the mail surely did not go out, and so its token can be in nobody's hands."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            stores.invitations.not_sent(begun.invitation, again_at, now)
            if is_known:
                stores.invitations.forget_token(begun.token_hash)


def _mail(invitation: Invitation, company: Company | None, link: str, now: datetime) -> Mail:
    name = shown(None if company is None else company.name, _LONGEST_NAME) or "a company"
    return Mail(
        name=str(invitation.id),
        to=invitation.email,
        subject=_SUBJECT.format(company=name),
        text=_TEXT.format(company=name, link=link, until=invitation.expires_at),
        written_at=now,
    )
