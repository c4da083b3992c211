"""Owners: users, their memberships in companies, and invitations.

A transaction that writes a membership or ends an invitation locks the company first.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.domain.company import Invitation, Mails, Role, User
from scheduler.persistence.connection import Fixed, given_instant
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import companies, invitation_tokens, invitations, memberships, users
from scheduler.rules.owners import latest_try

_invitation = partial(from_row, Invitation)


class Users(Store):
    def id_of(self, email: str) -> UUID | None:
        """Find the id of the user with that address, of any company. Nothing else of the user is readable here."""
        user_id: UUID | None = self._connection.execute(select(func.user_of_email(email))).scalar_one()
        return user_id

    def get(self, user_id: UUID) -> User:
        """Read a user of a company that the caller can access."""
        row = self._connection.execute(select(users).where(users.c.id == user_id)).one()
        return from_row(User, row)

    def add(self, user: User, now: datetime) -> UUID:
        """Add the user, or return the id of the existing one with that address, even if it was created concurrently."""
        self._connection.execute(
            insert(users)
            .values(**as_columns(user, created_at=now, updated_at=now))
            # No constraint is named: for that PostgreSQL would need to read the row, which the caller may not see yet.
            .on_conflict_do_nothing()
        )
        known = self.id_of(user.email)
        assert known is not None
        return known


class Memberships(Store):
    def demote_owner(self, company_id: UUID, now: datetime) -> None:
        """Make the owner of the company an admin."""
        self._connection.execute(
            update(memberships)
            .where(memberships.c.company_id == company_id, memberships.c.role == Role.OWNER.value)
            .values(role=Role.ADMIN.value, updated_at=now)
        )

    def make_owner(self, company_id: UUID, user_id: UUID, now: datetime) -> None:
        """Make the user the owner of a company without an owner."""
        self._connection.execute(
            insert(memberships)
            .values(company_id=company_id, user_id=user_id, role=Role.OWNER.value, created_at=now, updated_at=now)
            .on_conflict_do_update(
                index_elements=["company_id", "user_id"], set_={"role": Role.OWNER.value, "updated_at": now}
            )
        )


class Invitations(Store):
    def add(self, invitation: Invitation, now: datetime) -> None:
        """Store the invitation. Its mail is due at once."""
        started = as_columns(invitation, without={"accepted_at", "revoked_at"})
        self._insert(invitations, **started, send_at=now, created_at=now, updated_at=now)

    def standing_of(self, company_id: UUID) -> Invitation | None:
        """Find the company's invitation that was neither accepted nor revoked. It may have expired."""
        query = select(invitations).where(invitations.c.company_id == company_id, _NOT_ENDED)
        return self._one(_invitation, query)

    def company_of(self, token_hash: bytes) -> UUID | None:
        """Find the company of the token's invitation. Lock it before reading the invitation."""
        company_id: UUID | None = self._connection.execute(select(func.company_of_invitation(token_hash))).scalar_one()
        return company_id

    def by_token(self, token_hash: bytes) -> Invitation | None:
        query = (
            select(invitations)
            .join(invitation_tokens, invitation_tokens.c.invitation_id == invitations.c.id)
            .where(invitation_tokens.c.token_hash == token_hash)
        )
        return self._one(_invitation, query)

    def revoke(self, company_id: UUID, now: datetime) -> None:
        """End the company's open invitation, if there is one. Its mail is no longer sent."""
        self._end(invitations.c.company_id == company_id, "revoked_at", now)

    def accept(self, invitation_id: UUID, now: datetime) -> None:
        self._end(invitations.c.id == invitation_id, "accepted_at", now)

    def _end(self, which: ColumnElement[bool], column: str, now: datetime) -> None:
        self._update(invitations, which, _NOT_ENDED, **{column: now, "send_at": None, "updated_at": now})

    def forget(self, before: datetime, limit: int) -> int:
        """Delete invitations that were accepted, revoked or expired before then."""
        ends = (invitations.c.accepted_at, invitations.c.revoked_at, invitations.c.expires_at)
        old = select(invitations.c.id).where(or_(*(each < before for each in ends))).limit(limit)
        return self._delete_free(invitations.c.id, old)

    # ---- their mail

    def is_one_due(self, now: datetime) -> bool:
        return bool(self._connection.execute(_IS_ONE_DUE, _instants(now)).scalar_one())

    def take_due(self, now: datetime, until: datetime) -> Invitation | None:
        """Take the invitation whose mail has been due longest, for one try. No other worker tries before `until`."""
        return self._one(_invitation, _TAKE_DUE, _instants(now) | {"until": until})

    def add_token(self, invitation_id: UUID, token_hash: bytes, now: datetime) -> None:
        """Store a token before the mail with it is sent."""
        self._insert(invitation_tokens, token_hash=token_hash, invitation_id=invitation_id, created_at=now)

    def forget_token(self, token_hash: bytes) -> None:
        """Delete the token of a mail that was certainly not sent."""
        self._delete(invitation_tokens, invitation_tokens.c.token_hash == token_hash)

    def sent(self, invitation: Invitation, now: datetime) -> None:
        self._tried(invitation, now, {"sent_at": now, "send_at": None})

    def not_sent(self, invitation: Invitation, again_at: datetime | None, now: datetime) -> None:
        """Record a failed try, and the instant of the next one, if any."""
        self._tried(invitation, now, {"send_at": again_at})

    def _tried(self, invitation: Invitation, now: datetime, values: dict[str, datetime | None]) -> None:
        """Write nothing if another worker has begun a later try, or the invitation has ended."""
        self._connection.execute(
            update(invitations)
            .where(invitations.c.id == invitation.id, invitations.c.tries == invitation.tries, _NOT_ENDED)
            .values({**values, "updated_at": now})
        )

    def unsent(self, now: datetime) -> Sequence[Mails]:
        """List the mail status of every open invitation that was not sent."""
        rows = self._connection.execute(
            select(invitations.c.company_id, invitations.c.tries, invitations.c.send_at)
            .join(companies)
            .where(_NOT_ENDED, invitations.c.sent_at.is_(None), invitations.c.expires_at > now, _COMPANY_LIVES)
            .order_by(invitations.c.company_id)
        )
        return [from_row(Mails, row, try_at=row.send_at) for row in rows]


_NOT_ENDED = and_(invitations.c.accepted_at.is_(None), invitations.c.revoked_at.is_(None))
_COMPANY_LIVES = companies.c.deleted_at.is_(None)


_IS_DUE = and_(
    # A later time was set by a wrong clock.
    or_(invitations.c.send_at <= given_instant("now"), invitations.c.send_at > given_instant("latest_try")),
    invitations.c.expires_at > given_instant("now"),
    _NOT_ENDED,
    select(companies.c.id).where(companies.c.id == invitations.c.company_id, _COMPANY_LIVES).exists(),
)
_IS_ONE_DUE = Fixed(select(select(invitations.c.id).where(_IS_DUE).exists()))
_OLDEST_DUE = (
    select(invitations.c.id).where(_IS_DUE).order_by(invitations.c.send_at).limit(1).with_for_update(skip_locked=True)
)
_TAKE_DUE = Fixed(
    update(invitations)
    .where(invitations.c.id == _OLDEST_DUE.scalar_subquery())
    .values(tries=invitations.c.tries + 1, send_at=given_instant("until"), updated_at=given_instant("now"))
    .returning(*invitations.c)
)


def _instants(now: datetime) -> dict[str, datetime]:
    return {"now": now, "latest_try": latest_try(now)}


def email_of_owner_or_invited(company_id: ColumnElement[UUID]) -> ColumnElement[str | None]:
    """Select the address of the company's owner, else of the invited owner, even if the invitation has expired.

    Readers cannot tell the two apart, so the address must not change when an invitation expires.
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
