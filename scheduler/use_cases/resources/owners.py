"""Company owners: named by e-mail address, invited by e-mail, and notified when a webhook is disabled."""

import math
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from secrets import token_urlsafe

from scheduler.clock import Now
from scheduler.domain.company import Company, Invitation, Owner, User
from scheduler.domain.refusals import InvitationGone
from scheduler.domain.webhook import Notice
from scheduler.hashing import Hasher
from scheduler.ids import new_id
from scheduler.logs import log
from scheduler.mail import Mail, MailAway, Mailer, MailRefused, NotSent, UnsafeMail
from scheduler.persistence.database import Database
from scheduler.persistence.errors import Commit
from scheduler.persistence.stores import Stores
from scheduler.rules import operators
from scheduler.rules.owners import LIFE, texts_for, try_again_at
from scheduler.rules.resources import shown
from scheduler.use_cases.shared.hints import take_turn

_log = log(__name__)
_TOKEN_BYTES = 32
_TRY_TIMEOUT = timedelta(minutes=5)
"""Longer than any mailer needs. A worker that began a try and has recorded nothing by then has crashed."""
_LONGEST_NAME = 60


class Owners:
    """Raises DatabaseAway."""

    def __init__(self, database: Database, hasher: Hasher, now: Now) -> None:
        self._database = database
        self._hasher = hasher
        self._now = now

    def accept(self, token: str, name: str, *, commit: Commit | None = None) -> Owner:
        """Accept an open invitation by its token, once: its user becomes the owner of the company.

        Raises InvitationGone for any invitation that was used, revoked, replaced, has expired or never existed. Raises
        CommitInDoubt; then `commit.result` is the owner.
        """
        token_hash = self._hasher.invitation(token)
        with self._database.transaction(commit=commit) as stores:
            company_id = stores.invitations.company_of(token_hash)
            if company_id is not None:
                stores.act_for_company(company_id)
            company = None if company_id is None else stores.companies.lock(company_id)
            # Read after the lock, under which invitations end: the second of two concurrent requests sees it used.
            invitation = stores.invitations.by_token(token_hash)
            now = stores.instant(self._now)
            if company is None or invitation is None or not invitation.is_open(now):
                raise InvitationGone
            user_id = stores.users.add(User(id=new_id(now), email=invitation.email, name=name), now)
            stores.memberships.make_owner(company.id, user_id, now)
            stores.invitations.accept(invitation.id, now)
            user = stores.users.get(user_id)
            owner = Owner(user=user, company_id=company.id, company_name=company.name)
            if commit is not None:
                commit.result = owner
        return owner


def name_owner(stores: Stores, company: Company, email: str | None, now: datetime) -> Company:
    """Name the owner of a company. A known user becomes the owner at once. Another address gets an invitation.

    The same address again changes nothing, unless its invitation has expired: then a new one is created. The caller has
    locked the company or is creating it.
    """
    current = stores.invitations.standing_of(company.id)
    if email == company.owner_email and (current is None or current.is_open(now)):
        return company
    stores.memberships.demote_owner(company.id, now)
    stores.invitations.revoke(company.id, now)
    if email is not None:
        user_id = stores.users.id_of(email)
        if user_id is not None:
            stores.memberships.make_owner(company.id, user_id, now)
        else:
            invitation = Invitation(id=new_id(now), company_id=company.id, email=email, expires_at=now + LIFE)
            stores.invitations.add(invitation, now)
    return replace(company, owner_email=email)


@dataclass(frozen=True, kw_only=True)
class _Try:
    invitation: Invitation
    token_hash: bytes
    mail: Mail


class Invitations:
    """Sends the e-mails of invitations, at least once each. `app_url` is the page on which the user accepts.

    After a crash between sending and recording, an e-mail is sent again. Each try stores its own token before sending,
    so the link in every delivered e-mail works.
    """

    def __init__(self, database: Database, hasher: Hasher, mailer: Mailer, app_url: str, now: Now) -> None:
        self._database = database
        self._hasher = hasher
        self._mailer = mailer
        self._app_url = app_url
        self._now = now
        self._sending = threading.Lock()

    def send(self) -> None:
        """Send due invitations until none is left or the mail server is unavailable. Raises DatabaseAway.

        Any number of processes may run this at once, with one thread in each, so that a slow mail server does not
        block a worker's other threads.
        """
        take_turn(self._send_next, alone=self._sending, seconds=math.inf)

    def _begin(self) -> _Try | None:
        """Take a due invitation and store the hash of its new token. Only the e-mail contains the token itself."""
        token = token_urlsafe(_TOKEN_BYTES)
        token_hash = self._hasher.invitation(token)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            invitation = stores.invitations.take_due(now, now + _TRY_TIMEOUT)
            if invitation is None:
                return None
            stores.invitations.add_token(invitation.id, token_hash, now)
            company = stores.companies.get(invitation.company_id)
        mail = _mail(invitation, company, f"{self._app_url}/invitations/accept#token={token}", now)
        return _Try(invitation=invitation, token_hash=token_hash, mail=mail)

    def _send_next(self) -> bool:
        """Send one e-mail and record the outcome. False: none is due, or the mail server is unavailable."""
        begun = self._begin()
        if begun is None:
            return False
        try:
            self._mailer.send(begun.mail)
        except NotSent as error:
            self._not_sent(begun, error)
            return not isinstance(error, MailAway)
        except UnsafeMail:
            _log.exception(
                "invitation_failed: no safe e-mail can be built for this company's name",
                alarm="MAIL",
                invitation_id=str(begun.invitation.id),
            )
            self._record_failure(begun, None, is_known=True)
            return True
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            stores.invitations.sent(begun.invitation, now)
        _log.info("invitation_sent: the mail server accepted an invitation", invitation_id=str(begun.invitation.id))
        return True

    def _not_sent(self, begun: _Try, error: NotSent) -> None:
        invitation = begun.invitation
        again_at = None
        if not isinstance(error, MailRefused):
            again_at = try_again_at(invitation.tries, self._now(), invitation.expires_at)
        self._record_failure(begun, again_at, is_known=not isinstance(error, MailAway) or error.surely_not)
        _log.warning(
            "invitation_failed: an invitation was not sent and will not be retried"
            if again_at is None
            else "invitation_delayed: an invitation was not sent and will be retried",
            invitation_id=str(invitation.id),
            company_id=str(invitation.company_id),
            status=error.status,
            count=invitation.tries,
        )

    def _record_failure(self, begun: _Try, again_at: datetime | None, *, is_known: bool) -> None:
        """Record a failed try. `is_known`: the e-mail was certainly not sent, so its token can be deleted."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            stores.invitations.not_sent(begun.invitation, again_at, now)
            if is_known:
                stores.invitations.forget_token(begun.token_hash)


def _mail(invitation: Invitation, company: Company | None, link: str, now: datetime) -> Mail:
    texts = texts_for(None if company is None else company.settings.locale)
    name = shown(None if company is None else company.name, _LONGEST_NAME) or texts.company
    return Mail(
        name=str(invitation.id),
        to=invitation.email,
        subject=texts.invitation_subject.format(company=name),
        text=texts.invitation.format(company=name, link=link, until=invitation.expires_at),
        written_at=now,
    )


# --- Notices: mails to the owner of a company whose webhook was disabled. Each is sent at least once


class Notices:
    """Sends due notices. Any number of processes may run it at once, with one thread in each."""

    def __init__(self, database: Database, mailer: Mailer, now: Now) -> None:
        self._database = database
        self._mailer = mailer
        self._now = now
        self._sending = threading.Lock()

    def send(self) -> None:
        """Send due notices until none is left or the mail server is unavailable. Raises DatabaseAway."""
        take_turn(self._send_next, alone=self._sending, seconds=math.inf)

    def _send_next(self) -> bool:
        """Send one mail and record the outcome. False: none is due, or the mail server is unavailable."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            notice = stores.webhook_notices.take_due(now, now + _TRY_TIMEOUT)
        if notice is None:
            return False
        if notice.email is None:
            # The key of an ATS has no owner. Its other webhooks and GET /events have the event.
            self._record(notice, is_over=True)
            return True
        try:
            self._mailer.send(_notice_mail(notice, notice.email))
        except (NotSent, UnsafeMail) as error:
            is_over = isinstance(error, MailRefused | UnsafeMail)
            self._record(notice, is_over=is_over)
            _log.warning(
                "notice_failed: the owner of a disabled webhook was not notified and will not be"
                if is_over
                else "notice_delayed: the owner of a disabled webhook is not notified yet; the mail is sent again",
                company_id=str(notice.company_id),
                count=notice.tries,
            )
            return not isinstance(error, MailAway)
        self._record(notice, is_over=True)
        return True

    def _record(self, notice: Notice, *, is_over: bool) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            stores.webhook_notices.tried(notice, None if is_over else operators.try_again_at(notice.tries, now))


def _notice_mail(notice: Notice, email: str) -> Mail:
    texts = texts_for(notice.locale)
    company = shown(notice.company_name, _LONGEST_NAME) or texts.company
    cause = texts.disabled_causes[notice.cause]
    return Mail(
        name=f"{notice.endpoint_id}-{int(notice.disabled_at.timestamp())}",
        to=email,
        subject=texts.disabled_subject.format(company=company),
        text=texts.disabled.format(company=company, id=notice.endpoint_id, cause=cause),
        written_at=notice.disabled_at,
    )
