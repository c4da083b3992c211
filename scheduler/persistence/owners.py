"""Owners: users, who of them owns which company, and who has been invited to.

Whoever writes a membership or ends an invitation has locked the company first.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, ScalarSelect, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.domain.owner import Invitation, Mails, Role, User
from scheduler.lifecycle.invitations import latest_try
from scheduler.persistence.tables import companies, invitation_tokens, invitations, memberships, users


class Users:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def id_of(self, email: str) -> UUID | None:
        """Who is known by that address, of whichever company; no more of them is told than that."""
        found: UUID | None = self._connection.execute(select(func.user_of_email(email))).scalar_one()
        return found

    def get(self, user_id: UUID) -> User:
        """A user of a company that whoever asks reaches."""
        row = self._connection.execute(select(users).where(users.c.id == user_id)).one()
        return User(id=row.id, email=row.email, name=row.name)

    def add(self, user: User, now: datetime) -> UUID:
        """The user's id; or of whoever is known by that address already, also when it was made this very moment."""
        self._connection.execute(
            insert(users)
            .values(id=user.id, email=user.email, name=user.name, created_at=now, updated_at=now)
            # Which constraint is not said: PostgreSQL would want to show the row, and whoever asks may not see it yet.
            .on_conflict_do_nothing()
        )
        known = self.id_of(user.email)
        assert known is not None
        return known


class Memberships:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def demote_owner(self, company_id: UUID, now: datetime) -> None:
        """Whoever owns the company is its admin from now on."""
        self._connection.execute(
            update(memberships)
            .where(memberships.c.company_id == company_id, memberships.c.role == Role.OWNER.value)
            .values(role=Role.ADMIN.value, updated_at=now)
        )

    def make_owner(self, company_id: UUID, user_id: UUID, now: datetime) -> None:
        """Of a company that has none."""
        self._connection.execute(
            insert(memberships)
            .values(company_id=company_id, user_id=user_id, role=Role.OWNER.value, created_at=now, updated_at=now)
            .on_conflict_do_update(
                index_elements=["company_id", "user_id"], set_={"role": Role.OWNER.value, "updated_at": now}
            )
        )


class Invitations:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, invitation: Invitation, now: datetime) -> None:
        """Its mail is due at once."""
        self._connection.execute(
            insert(invitations).values(
                id=invitation.id,
                company_id=invitation.company_id,
                email=invitation.email,
                expires_at=invitation.expires_at,
                tries=invitation.tries,
                send_at=now,
                created_at=now,
                updated_at=now,
            )
        )

    def standing_of(self, company_id: UUID) -> Invitation | None:
        """The company's invitation that was neither accepted nor revoked; it may have expired."""
        row = self._connection.execute(
            select(invitations).where(invitations.c.company_id == company_id, _NOT_ENDED)
        ).one_or_none()
        return None if row is None else _invitation(row)

    def company_of(self, token_hash: bytes) -> UUID | None:
        """Whose invitation that token is for; the company is to be locked before the invitation is looked at."""
        company_id: UUID | None = self._connection.execute(select(func.company_of_invitation(token_hash))).scalar_one()
        return company_id

    def by_token(self, token_hash: bytes) -> Invitation | None:
        row = self._connection.execute(
            select(invitations)
            .join(invitation_tokens, invitation_tokens.c.invitation_id == invitations.c.id)
            .where(invitation_tokens.c.token_hash == token_hash)
        ).one_or_none()
        return None if row is None else _invitation(row)

    def revoke(self, company_id: UUID, now: datetime) -> None:
        """The company's invitation that stands, if there is one, can be accepted no more, and its mail is not sent."""
        self._end(invitations.c.company_id == company_id, "revoked_at", now)

    def accept(self, invitation_id: UUID, now: datetime) -> None:
        self._end(invitations.c.id == invitation_id, "accepted_at", now)

    def _end(self, which: ColumnElement[bool], how: str, now: datetime) -> None:
        self._connection.execute(
            update(invitations).where(which, _NOT_ENDED).values({how: now, "send_at": None, "updated_at": now})
        )

    # ---- their mail

    def is_one_due(self, now: datetime) -> bool:
        due: bool = self._connection.execute(select(select(invitations.c.id).where(_is_due(now)).exists())).scalar_one()
        return due

    def take_due(self, now: datetime, until: datetime) -> Invitation | None:
        """The one whose mail has been due the longest and that nobody is at, for one try.

        Nobody else tries before `until`.
        """
        longest = (
            select(invitations.c.id)
            .where(_is_due(now))
            .order_by(invitations.c.send_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = self._connection.execute(
            update(invitations)
            .where(invitations.c.id == longest.scalar_subquery())
            .values(tries=invitations.c.tries + 1, send_at=until, updated_at=now)
            .returning(*invitations.c)
        ).one_or_none()
        return None if row is None else _invitation(row)

    def add_token(self, invitation_id: UUID, token_hash: bytes, now: datetime) -> None:
        """Before the mail with it goes out."""
        self._connection.execute(
            insert(invitation_tokens).values(token_hash=token_hash, invitation_id=invitation_id, created_at=now)
        )

    def forget_token(self, token_hash: bytes) -> None:
        """The mail with it surely did not go out."""
        self._connection.execute(delete(invitation_tokens).where(invitation_tokens.c.token_hash == token_hash))

    def sent(self, taken: Invitation, now: datetime) -> None:
        self._tried(taken, now, {"sent_at": now, "send_at": None})

    def not_sent(self, taken: Invitation, again_at: datetime | None, now: datetime) -> None:
        """`again_at` None: it is not tried again."""
        self._tried(taken, now, {"send_at": again_at})

    def _tried(self, taken: Invitation, now: datetime, values: dict[str, datetime | None]) -> None:
        """Nothing, when somebody else has begun another try since, or it has ended."""
        self._connection.execute(
            update(invitations)
            .where(invitations.c.id == taken.id, invitations.c.tries == taken.tries, _NOT_ENDED)
            .values({**values, "updated_at": now})
        )

    def unsent(self, now: datetime) -> Sequence[Mails]:
        """Of every company whose invitation is open and was not sent: how its mail stands."""
        rows = self._connection.execute(
            select(invitations.c.company_id, invitations.c.tries, invitations.c.send_at)
            .join(companies)
            .where(_NOT_ENDED, invitations.c.sent_at.is_(None), invitations.c.expires_at > now, _COMPANY_LIVES)
            .order_by(invitations.c.company_id)
        )
        return [Mails(company_id=row.company_id, tries=row.tries, try_at=row.send_at) for row in rows]


_NOT_ENDED = and_(invitations.c.accepted_at.is_(None), invitations.c.revoked_at.is_(None))
_COMPANY_LIVES = companies.c.deleted_at.is_(None)


def _is_due(now: datetime) -> ColumnElement[bool]:
    lives = select(companies.c.id).where(companies.c.id == invitations.c.company_id, _COMPANY_LIVES).exists()
    # A later time was set by a wrong clock.
    has_come = or_(invitations.c.send_at <= now, invitations.c.send_at > latest_try(now))
    return and_(has_come, invitations.c.expires_at > now, _NOT_ENDED, lives)


def email_of_owner_or_invited(company_id: ColumnElement[UUID]) -> ColumnElement[str | None]:
    """The address of the company's owner, else of whoever is invited to be it, expired or not.

    Which of the two is not told, and so an invitation that expires must not change what is.
    """
    owner: ScalarSelect[str] = (
        select(users.c.email)
        .join(memberships, memberships.c.user_id == users.c.id)
        .where(memberships.c.company_id == company_id, memberships.c.role == Role.OWNER.value)
        .scalar_subquery()
    )
    invited: ScalarSelect[str] = (
        select(invitations.c.email).where(invitations.c.company_id == company_id, _NOT_ENDED).scalar_subquery()
    )
    return func.coalesce(owner, invited)


def _invitation(row: Row[tuple[object, ...]]) -> Invitation:
    return Invitation(
        id=row.id,
        company_id=row.company_id,
        email=row.email,
        expires_at=row.expires_at,
        accepted_at=row.accepted_at,
        revoked_at=row.revoked_at,
        tries=row.tries,
    )
