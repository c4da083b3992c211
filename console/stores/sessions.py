"""Sessions of the operators' console, sign-in links, and their statements. Secrets are stored as keyed hashes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from scheduler.domain.principal import OperatorRole
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import console_acts, console_sessions, sign_in_links

SESSION_LASTS = timedelta(hours=8)
LINK_LASTS = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class ConsoleSession:
    """A signed-in operator. The cookie's secret is not known here."""

    id: UUID
    actor: str
    """The operator, as `kind:id`: `link:…` of a sign-in link, `oidc:…` of an identity provider."""
    role: OperatorRole
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime
    """Accurate to the minute."""
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, kw_only=True)
class SignInLink:
    """A link that signs one operator in, once. Its secret is not known here."""

    id: UUID
    role: OperatorRole
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.used_at is None and now < self.expires_at


class SessionStore(Store):
    def add_link(self, link: SignInLink, token_hash: bytes) -> None:
        self._insert(sign_in_links, **as_columns(link, token_hash=token_hash))

    def link(self, token_hash: bytes) -> SignInLink | None:
        return self._one(_link, select(*_LINK).where(sign_in_links.c.token_hash == token_hash))

    def lock_link(self, token_hash: bytes) -> SignInLink | None:
        """Lock the link: another transaction that uses it waits until we commit."""
        query = select(*_LINK).where(sign_in_links.c.token_hash == token_hash).with_for_update()
        return self._one(_link, query)

    def use_link(self, link_id: UUID, now: datetime) -> None:
        self._update(sign_in_links, sign_in_links.c.id == link_id, used_at=now)

    def add(self, session: ConsoleSession, token_hash: bytes) -> None:
        self._insert(console_sessions, **as_columns(session, token_hash=token_hash))

    def find(self, token_hash: bytes) -> ConsoleSession | None:
        return self._one(_session, select(*_SESSION).where(console_sessions.c.token_hash == token_hash))

    def touch(self, session_id: UUID, now: datetime) -> None:
        """Store that the session is used now."""
        self._update(console_sessions, console_sessions.c.id == session_id, last_used_at=now)

    def valid(self, now: datetime) -> Sequence[ConsoleSession]:
        """List the sessions that are neither expired nor revoked, newest first."""
        return self._all(
            _session,
            select(*_SESSION)
            .where(console_sessions.c.expires_at > now, console_sessions.c.revoked_at.is_(None))
            .order_by(console_sessions.c.created_at.desc(), console_sessions.c.id),
        )

    def revoke(self, session_ids: Sequence[UUID], now: datetime) -> int:
        """End these sessions. Returns the number of sessions that were not revoked before."""
        is_valid = (console_sessions.c.id.in_(session_ids), console_sessions.c.revoked_at.is_(None))
        return self._update(console_sessions, *is_valid, revoked_at=now)

    def take_act(self, token: str, now: datetime) -> bool:
        """Record that the form with this token was sent. False: it was sent before."""
        new = insert(console_acts).values(token=token, sent_at=now).on_conflict_do_nothing()
        return self._connection.execute(new.returning(console_acts.c.token)).one_or_none() is not None


# Without the hashes.
_SESSION = tuple(column for column in console_sessions.c if column.name != "token_hash")
_LINK = tuple(column for column in sign_in_links.c if column.name != "token_hash")


_session, _link = partial(from_row, ConsoleSession), partial(from_row, SignInLink)
