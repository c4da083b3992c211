"""Sessions of the operators' console: sign in, sign out, list and revoke."""

from collections.abc import Sequence
from datetime import timedelta
from secrets import token_urlsafe
from uuid import UUID

from console.stores.sessions import LINK_LASTS, SESSION_LASTS, ConsoleSession, SessionStore, SignInLink
from scheduler.clock import Now
from scheduler.domain.principal import OperatorRole, of_link
from scheduler.domain.refusals import NotFound
from scheduler.hashing import Hasher
from scheduler.ids import new_id
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores

_SECRET_BYTES = 32
_USE_IS_STORED_AFTER = timedelta(minutes=1)


class ConsoleSessions:
    """Links and sessions are found by the keyed hash of their secret, so no comparison reveals its characters."""

    def __init__(self, database: Database, hasher: Hasher, now: Now) -> None:
        self._database = database
        self._hasher = hasher
        self._now = now

    def make_link(self, role: OperatorRole, created_by: str) -> tuple[SignInLink, str]:
        """Create a link that signs one operator in. Return it with its secret, which is not stored.

        Raises ClockWrong, DatabaseAway.
        """
        secret = token_urlsafe(_SECRET_BYTES)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            link = SignInLink(
                id=new_id(now), role=role, created_by=created_by, created_at=now, expires_at=now + LINK_LASTS
            )
            SessionStore(stores.connection).add_link(link, self._hasher.sign_in_link(secret))
        return link, secret

    def link(self, secret: str) -> SignInLink | None:
        """Find a link that can be used, and do not use it. None: unknown, used or expired. Raises DatabaseAway."""
        with self._database.reading() as stores:
            link = SessionStore(stores.connection).link(self._hasher.sign_in_link(secret))
        return link if link is not None and link.is_valid(self._now()) else None

    def sign_in(self, link_secret: str) -> tuple[ConsoleSession, str] | None:
        """Use the link, and return a new session with the secret of its cookie. None: unknown, used or expired.

        Raises ClockWrong, DatabaseAway.
        """
        with self._database.transaction() as stores:
            link = SessionStore(stores.connection).lock_link(self._hasher.sign_in_link(link_secret))
            now = stores.instant(self._now)
            if link is None or not link.is_valid(now):
                return None
            SessionStore(stores.connection).use_link(link.id, now)
            return self._add(stores, of_link(link.id), link.role)

    def open(self, actor: str, role: OperatorRole, sign_in: str) -> tuple[ConsoleSession, str] | None:
        """Open a new session of an operator whom an identity provider has named, with the secret of its cookie.

        `sign_in` identifies the sign-in. None: it has opened a session before. Raises ClockWrong, DatabaseAway.
        """
        with self._database.transaction() as stores:
            if not SessionStore(stores.connection).take_act(f"sign-in:{sign_in}", stores.instant(self._now)):
                return None
            return self._add(stores, actor, role)

    def current(self, secret: str) -> ConsoleSession | None:
        """Find the valid session of a cookie. Read at each request, so that a revocation is effective at once.

        Raises DatabaseAway.
        """
        with self._database.reading() as stores:
            session = SessionStore(stores.connection).find(self._hasher.console_session(secret))
        now = self._now()
        if session is None or not session.is_valid(now):
            return None
        if now - session.last_used_at >= _USE_IS_STORED_AFTER:
            self._touch(session.id)
        return session

    def all(self) -> Sequence[ConsoleSession]:
        """List the valid sessions, newest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return SessionStore(stores.connection).valid(self._now())

    def take_act(self, token: str) -> bool:
        """Record that the form with this token was sent, before its act. False: it was sent before.

        Raises ClockWrong, DatabaseAway.
        """
        with self._database.transaction() as stores:
            return SessionStore(stores.connection).take_act(token, stores.instant(self._now))

    def revoke(self, session_id: UUID) -> None:
        """End a session. Its next request is refused. Raises NotFound, ClockWrong, DatabaseAway."""
        with self._database.transaction() as stores:
            if not SessionStore(stores.connection).revoke([session_id], stores.instant(self._now)):
                raise NotFound(
                    "There is no such session; `duecall console sessions list` has their ids.",
                    resourceType="consoleSession",
                    resourceId=str(session_id),
                )

    def revoke_all(self) -> int:
        """End all sessions, and return their number. Raises ClockWrong, DatabaseAway."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            valid = SessionStore(stores.connection).valid(now)
            return SessionStore(stores.connection).revoke([each.id for each in valid], now)

    def _touch(self, session_id: UUID) -> None:
        with self._database.transaction() as stores:
            SessionStore(stores.connection).touch(session_id, stores.instant(self._now))

    def _add(self, stores: Stores, actor: str, role: OperatorRole) -> tuple[ConsoleSession, str]:
        now = stores.instant(self._now)
        secret = token_urlsafe(_SECRET_BYTES)
        session = ConsoleSession(
            id=new_id(now),
            actor=actor,
            role=role,
            created_at=now,
            expires_at=now + SESSION_LASTS,
            last_used_at=now,
        )
        SessionStore(stores.connection).add(session, self._hasher.console_session(secret))
        return session, secret
