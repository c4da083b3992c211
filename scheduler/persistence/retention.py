"""Retention: deletes old rows, some at a time. Each method returns the number of deleted rows."""

from datetime import datetime

from sqlalchemy import delete, or_, select

from scheduler.persistence.many import among
from scheduler.persistence.store import Store
from scheduler.persistence.tables import (
    attempt_history,
    carrier_events,
    console_acts,
    console_sessions,
    inbox,
    invitations,
    sign_in_links,
)


class Retention(Store):
    def forget_answers(self, before: datetime, limit: int) -> int:
        """Delete commands that were answered before then. Unanswered commands stay, however old they are."""
        old = select(inbox.c.id).where(inbox.c.applied_at < before).order_by(inbox.c.applied_at).limit(limit)
        ids = self._connection.execute(old.with_for_update(skip_locked=True)).scalars()
        return self._connection.execute(delete(inbox).where(among(inbox.c.id, ids))).rowcount

    def forget_carrier_events(self, before: datetime, limit: int) -> int:
        """Delete callbacks that were processed before then. Unprocessed callbacks stay, however old they are."""
        old = (
            select(carrier_events.c.id)
            .where(carrier_events.c.heard_at < before)
            .order_by(carrier_events.c.heard_at)
            .limit(limit)
        )
        ids = self._connection.execute(old.with_for_update(skip_locked=True)).scalars()
        return self._connection.execute(delete(carrier_events).where(among(carrier_events.c.id, ids))).rowcount

    def forget_history(self, before: datetime, limit: int) -> int:
        """Delete history before then. Rows are numbered as they are written, so the oldest have the lowest ids."""
        entries = select(attempt_history.c.id, attempt_history.c.at)
        oldest = entries.order_by(attempt_history.c.id).limit(limit).subquery()
        old = select(oldest.c.id).where(oldest.c.at < before)
        return self._connection.execute(delete(attempt_history).where(attempt_history.c.id.in_(old))).rowcount

    def forget_invitations(self, before: datetime, limit: int) -> int:
        """Delete invitations that were accepted, revoked or expired before then."""
        old = (
            select(invitations.c.id)
            .where(
                or_(
                    invitations.c.accepted_at < before,
                    invitations.c.revoked_at < before,
                    invitations.c.expires_at < before,
                )
            )
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        ids = self._connection.execute(old).scalars()
        return self._connection.execute(delete(invitations).where(among(invitations.c.id, ids))).rowcount

    def forget_console_sessions(self, before: datetime, limit: int) -> int:
        """Delete sessions, unused links and tokens of forms of before then. Returns the number of the largest kind.

        The audit names the actor of a used link by its id, so only the link tells who created it.
        """
        deleted = []
        for key, ended_at in (
            (console_sessions.c.id, console_sessions.c.expires_at),
            (sign_in_links.c.id, sign_in_links.c.expires_at),
            (console_acts.c.token, console_acts.c.sent_at),
        ):
            old = select(key).where(ended_at < before).order_by(ended_at).limit(limit)
            if key.table is sign_in_links:
                old = old.where(sign_in_links.c.used_at.is_(None))
            deleted.append(self._connection.execute(delete(key.table).where(key.in_(old))).rowcount)
        return max(deleted)
