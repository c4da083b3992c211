"""Notices: mails to the owner of a company whose webhook was disabled. Each is sent at least once."""

import threading
from datetime import timedelta

from scheduler.clock import Now
from scheduler.domain.webhook import Notice
from scheduler.logs import log
from scheduler.mail import Mail, MailAway, Mailer, MailRefused, NotSent, UnsafeMail
from scheduler.persistence.database import Database
from scheduler.rules.operators import try_again_at
from scheduler.rules.owners import texts_for
from scheduler.rules.resources import shown

_log = log(__name__)
_TRY_TIMEOUT = timedelta(minutes=5)
"""Longer than any mailer needs. A worker that has recorded nothing by then has crashed."""
_LONGEST_NAME = 60


class Notices:
    """Sends due notices. Any number of processes may run it at once, with one thread in each."""

    def __init__(self, database: Database, mailer: Mailer, now: Now) -> None:
        self._database = database
        self._mailer = mailer
        self._now = now
        self._sending = threading.Lock()

    def send(self) -> None:
        """Send due notices until none is left or the mail server is unavailable. Raises DatabaseAway."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            while (notice := self._take()) is not None:
                if not self._send_one(notice):
                    return
        finally:
            self._sending.release()

    def _take(self) -> Notice | None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            return stores.webhook_notices.take_due(now, now + _TRY_TIMEOUT)

    def _send_one(self, notice: Notice) -> bool:
        """Send one mail and record the outcome. False: the mail server is unavailable."""
        if notice.email is None:
            # The key of an ATS has no owner. Its other webhooks and GET /events have the event.
            self._record(notice, is_over=True)
            return True
        try:
            self._mailer.send(_mail(notice, notice.email))
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
            stores.webhook_notices.tried(notice, None if is_over else try_again_at(notice.tries, now))


def _mail(notice: Notice, email: str) -> Mail:
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
