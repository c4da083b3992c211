"""Erasures: deleted companies that are being erased, and the progress of each.

A company's usage stays, which names no person, and its row here: the certificate of the erased rows and the time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import Table, and_, any_, func, insert, literal, not_, or_, select, tuple_

from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.webhook import EventType
from scheduler.persistence.attempts import MAY_BE_RINGING
from scheduler.persistence.backoffs import CarrierBackoffs
from scheduler.persistence.connection import Fixed, among, given_instant
from scheduler.persistence.last_looks import Lines
from scheduler.persistence.quarantine import HintedStore, is_from_the_future, taking
from scheduler.persistence.rows import from_row
from scheduler.persistence.tables import (
    agents,
    api_keys,
    assignments,
    attempt_history,
    attempt_tokens,
    attempts,
    batch_items,
    batches,
    caller_days,
    caller_results,
    candidates,
    carrier_events,
    companies,
    erasures,
    events,
    inbox,
    interview_sequences,
    interviews,
    invitations,
    jobs,
    memberships,
    phone_numbers,
    recomputations,
    stray_calls,
    users,
    webhook_deliveries,
    webhook_endpoints,
)

Counts = Mapping[str, int]
"""Deleted rows by kind, without zeros."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The request of an erasure, its end and its deleted rows."""

    company_id: UUID
    asked_at: datetime
    finished_at: datetime | None
    """None: not everything is erased yet."""
    erased: Counts


_COUNT_OPEN = Fixed(select(func.count(), func.min(erasures.c.asked_at)).where(erasures.c.finished_at.is_(None)))
_CERTIFICATES = select(*(erasures.c[name] for name in Certificate.__dataclass_fields__))
_certificate = partial(from_row, Certificate)
CertificatePlace: TypeAlias = tuple[datetime, UUID]
"""The place of a certificate in the list: when the erasure was requested, and the id of the company."""


class Erasures(HintedStore):
    _due = taking(
        erasures.c.company_id,
        and_(
            erasures.c.finished_at.is_(None),
            or_(erasures.c.rung_at <= given_instant("rung_before"), is_from_the_future(erasures)),
        ),
    )

    def ask(self, company_id: UUID, now: datetime) -> None:
        """Request the erasure of the company by adding its certificate."""
        self._connection.execute(
            insert(erasures).from_select(
                ["company_id", "ats_principal_id", "asked_at", "rung_at", "erased"],
                select(
                    companies.c.id,
                    companies.c.ats_principal_id,
                    literal(now),
                    literal(now),
                    literal({}, erasures.c.erased.type),
                ).where(companies.c.id == company_id),
            )
        )

    def was_reached(self, principal: Principal, company_id: UUID) -> bool:
        """Return True if this ATS key had created the company and it was deleted."""
        query = select(erasures.c.company_id).where(
            erasures.c.company_id == company_id, erasures.c.ats_principal_id == principal.id
        )
        return principal.kind is KeyKind.ATS and self._connection.execute(query).first() is not None

    def lock_open(self, company_id: UUID) -> Certificate | None:
        """Lock the erasure, unless it is finished or another worker has locked it."""
        query = _CERTIFICATES.where(erasures.c.company_id == company_id, erasures.c.finished_at.is_(None))
        return self._one(_certificate, query.with_for_update(skip_locked=True))

    def count_open(self) -> tuple[int, datetime | None]:
        """Count the unfinished erasures, and return the instant of the oldest request."""
        count, oldest_at = self._connection.execute(_COUNT_OPEN).one()
        return count, oldest_at

    def newest(
        self, limit: int, after: CertificatePlace | None = None, *, is_finished: bool | None = None
    ) -> Sequence[Certificate]:
        """List up to `limit` certificates, the last request first. `is_finished`: only those, or only the others.

        `after`: only certificates after this place.
        """
        query = _CERTIFICATES.order_by(erasures.c.asked_at.desc(), erasures.c.company_id.desc()).limit(limit)
        if is_finished is not None:
            query = query.where(
                erasures.c.finished_at.is_not(None) if is_finished else erasures.c.finished_at.is_(None)
            )
        if after is not None:
            query = query.where(tuple_(erasures.c.asked_at, erasures.c.company_id) < tuple_(*after))
        return self._all(_certificate, query)

    def find(self, company_id: UUID) -> Certificate | None:
        return self._one(_certificate, _CERTIFICATES.where(erasures.c.company_id == company_id))

    def erase_some(self, erasure: Certificate, limit: int, now: datetime) -> bool:
        """Erase up to `limit` rows of the next kind, with their dependent rows. False: it is finished, or must wait.

        The order of the kinds respects the foreign keys. It waits for a live call.
        """
        counts = self._erase_next(erasure.company_id, limit, now)
        if counts == {}:
            # Transactions that were writing for it during the deletion have ended once we have this lock, and no new
            # one begins. Also erase the rows that they left.
            self._lock_company(erasure.company_id)
            counts = self._erase_next(erasure.company_id, limit, now)
        if counts is None:
            return False
        if not counts:
            self._delete(companies, companies.c.id == erasure.company_id)
        kinds = {*erasure.erased, *counts}
        erased = {kind: erasure.erased.get(kind, 0) + counts.get(kind, 0) for kind in sorted(kinds)}
        self._update(
            erasures, erasures.c.company_id == erasure.company_id, erased=erased, finished_at=None if counts else now
        )
        return bool(counts)

    def _lock_company(self, company_id: UUID) -> None:
        self._connection.execute(select(companies.c.id).where(companies.c.id == company_id).with_for_update())

    def _erase_next(self, company_id: UUID, limit: int, now: datetime) -> Counts | None:
        """Erase rows of the first kind that is left. Empty: nothing is left. None: it must wait."""
        steps: Sequence[Callable[[], Counts | None]] = (
            lambda: self._events_of_company(company_id, limit),
            lambda: self._batch_items(company_id, limit),
            lambda: self._of(batches, "batches", company_id, limit),
            lambda: self._interviews(company_id, limit, now),
            lambda: self._candidates(company_id, limit),
            lambda: self._of(jobs, "jobs", company_id, limit),
            lambda: self._of(agents, "agents", company_id, limit),
            lambda: self._caller_days(company_id, limit),
            lambda: self._caller_results(company_id, limit),
            lambda: self._of(phone_numbers, "phoneNumbers", company_id, limit),
            lambda: _some({"carrierBackoffs": CarrierBackoffs(self._connection).forget_company(company_id)}),
            lambda: self._webhooks(company_id, limit),
            lambda: self._of(recomputations, "reresolutions", company_id, limit),
            lambda: self._of(invitations, "invitations", company_id, limit),
            lambda: self._members(company_id, limit),
            lambda: self._of(inbox, "commands", company_id, limit),
            lambda: self._of(api_keys, "keys", company_id, limit),
        )
        for step in steps:
            counts = step()
            if counts != {}:
                return counts
        return {}

    def _interviews(self, company_id: UUID, limit: int, now: datetime) -> Counts | None:
        """Erase interviews with their attempts and the rows of their calls. None: one of the calls is live."""
        ids = self._locked(interviews, company_id, limit)
        calls = self._connection.execute(
            select(attempts.c.id, attempts.c.number_hash, MAY_BE_RINGING.label("busy"))
            .where(among(attempts.c.interview_id, ids))
            .order_by(attempts.c.id)
            .with_for_update()
        ).all()
        if any(call.busy for call in calls):
            return None
        attempt_ids = [call.id for call in calls]
        counts = {
            "strayCalls": self._delete(stray_calls, among(stray_calls.c.attempt_id, attempt_ids)),
            "carrierEvents": self._events(attempt_ids),
            "tokens": self._delete(attempt_tokens, among(attempt_tokens.c.attempt_id, attempt_ids)),
            "history": self._delete(attempt_history, among(attempt_history.c.attempt_id, attempt_ids)),
            "sequences": self._delete(interview_sequences, among(interview_sequences.c.interview_id, ids)),
            "attempts": self._delete(attempts, among(attempts.c.id, attempt_ids)),
            "interviews": self._delete(interviews, among(interviews.c.id, ids)),
        }
        # A line whose gap still runs must stay: it blocks other calls to that phone. The purge deletes it later.
        hashes = [call.number_hash for call in calls if call.number_hash is not None]
        return _some({**counts, "lines": Lines(self._connection).forget_free(hashes, now)})

    def _events_of_company(self, company_id: UUID, limit: int) -> Counts:
        """Erase partner events with their deliveries. Only the deletion itself is kept, for the ATS."""
        of_company = events.c.company_id.between(company_id, company_id)
        is_kept = and_(events.c.type == EventType.COMPANY_DELETED.value, events.c.ats_principal_id.is_not(None))
        some = select(events.c.id).where(of_company, not_(is_kept)).order_by(events.c.company_id).limit(limit)
        ids = self._connection.execute(some).scalars()
        return _some(
            {
                "deliveries": self._delete(webhook_deliveries, among(webhook_deliveries.c.event_id, ids)),
                "events": self._delete(events, among(events.c.id, ids)),
            }
        )

    def _webhooks(self, company_id: UUID, limit: int) -> Counts:
        ids = self._locked(webhook_endpoints, company_id, limit)
        return _some(
            {
                "deliveries": self._delete(webhook_deliveries, among(webhook_deliveries.c.endpoint_id, ids)),
                "webhooks": self._delete(webhook_endpoints, among(webhook_endpoints.c.id, ids)),
            }
        )

    def _batch_items(self, company_id: UUID, limit: int) -> Counts:
        key = tuple_(batch_items.c.batch_id, batch_items.c.index)
        of_company = batch_items.c.company_id == company_id
        some = select(batch_items.c.batch_id, batch_items.c.index).where(of_company).limit(limit)
        return _some({"batchItems": self._delete(batch_items, key.in_(some))})

    def _caller_days(self, company_id: UUID, limit: int) -> Counts:
        key = tuple_(caller_days.c.phone_number_id, caller_days.c.day)
        of_company = caller_days.c.company_id == company_id
        some = select(caller_days.c.phone_number_id, caller_days.c.day).where(of_company).limit(limit)
        return _some({"callerDays": self._delete(caller_days, of_company, key.in_(some))})

    def _caller_results(self, company_id: UUID, limit: int) -> Counts:
        """Delete results that the clock has not added to a day yet."""
        numbers = select(phone_numbers.c.id).where(phone_numbers.c.company_id == company_id)
        some = select(caller_results.c.id).where(caller_results.c.phone_number_id.in_(numbers)).limit(limit)
        return _some({"callerResults": self._delete(caller_results, caller_results.c.id.in_(some))})

    def _events(self, attempt_ids: Sequence[UUID]) -> int:
        # Skip locked events: their worker waits for the interview that we have locked. Once their token is deleted
        # they belong to no attempt, and the worker empties them.
        tokens = select(attempt_tokens.c.token).where(among(attempt_tokens.c.attempt_id, attempt_ids))
        events = select(carrier_events.c.id).where(carrier_events.c.token.in_(tokens)).with_for_update(skip_locked=True)
        ids = self._connection.execute(events).scalars()
        return self._delete(carrier_events, among(carrier_events.c.id, ids))

    def _candidates(self, company_id: UUID, limit: int) -> Counts:
        ids = self._locked(candidates, company_id, limit)
        return _some(
            {
                "assignments": self._delete(assignments, among(assignments.c.candidate_id, ids)),
                "candidates": self._delete(candidates, among(candidates.c.id, ids)),
            }
        )

    def _members(self, company_id: UUID, limit: int) -> Counts:
        """Erase memberships, and users without another company. A lock keeps them from joining one."""
        of_company = memberships.c.company_id == company_id
        member = select(memberships.c.user_id).where(of_company).limit(limit)
        ids = self._connection.execute(
            select(users.c.id).where(users.c.id.in_(member)).order_by(users.c.id).with_for_update()
        ).scalars()
        elsewhere = select(memberships.c.user_id).where(memberships.c.user_id == users.c.id).exists()
        return _some(
            {
                "memberships": self._delete(memberships, of_company & among(memberships.c.user_id, ids)),
                "users": self._delete(users, among(users.c.id, ids) & ~elsewhere),
            }
        )

    def _of(self, table: Table, kind: str, company_id: UUID, limit: int) -> Counts:
        return _some({kind: self._delete(table, among(table.c.id, self._locked(table, company_id, limit)))})

    def _locked(self, table: Table, company_id: UUID, limit: int) -> Sequence[Any]:
        # Only an index of companies has the order of this range, which is one company. For an equality, PostgreSQL
        # might read the table or its ids from the beginning, with all rows of earlier companies.
        is_of_company = table.c.company_id.between(company_id, company_id)
        some = select(table.c.id).where(is_of_company).order_by(table.c.company_id).limit(limit).scalar_subquery()
        chosen = select(table.c.id).where(table.c.id == any_(func.array(some))).order_by(table.c.id)
        return self._connection.execute(chosen.with_for_update()).scalars()


def _some(counts: Counts) -> Counts:
    return {kind: count for kind, count in counts.items() if count}
