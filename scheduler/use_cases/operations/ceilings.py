"""Ceilings: an operator decides the highest limits that a company may set for itself."""

from dataclasses import dataclass
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.company import CallLimits, LimitCeiling
from scheduler.persistence.database import Database
from scheduler.rules import pause_reasons
from scheduler.use_cases.shared.access import not_found


@dataclass(frozen=True, kw_only=True)
class Limited:
    ceiling: LimitCeiling
    limits: CallLimits
    """The limits of the company, which its calls keep from now on."""


class Ceilings:
    def __init__(self, database: Database, now: Now, actor: str) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def set(
        self, company_id: UUID, named: LimitCeiling, *, drops_others: bool = False, reason: str | None = None
    ) -> Limited:
        """Set the named parts of a company's ceiling. Higher limits of the company are lowered to it at once.

        With `drops_others` the parts without a value are removed, and the limits of the account apply instead.
        `reason` is for the audit. Raises InvalidPauseReason, NotFound, DatabaseAway.
        """
        reason = pause_reasons.optional(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            # Locks the row, as each claim does: no claim uses the former limits once this is committed.
            if not stores.companies.lock_row(company_id):
                raise not_found("company", company_id)
            limits, ceiling = stores.companies.limits_of(company_id)
            kept = LimitCeiling() if drops_others else ceiling
            after = LimitCeiling(
                concurrent_calls=kept.concurrent_calls if named.concurrent_calls is None else named.concurrent_calls,
                calls_per_second=kept.calls_per_second if named.calls_per_second is None else named.calls_per_second,
            )
            lowered = after.applied_to(limits)
            if (after, lowered) != (ceiling, limits):
                stores.companies.limit(company_id, after, lowered, now)
                act = Act(
                    verb=Verb.CHANGE_CEILING,
                    target_kind=TargetKind.COMPANY,
                    target_id=company_id,
                    company_id=company_id,
                    reason=reason,
                    before=_fields(ceiling),
                    after=_fields(after),
                )
                stores.audit.add(self._actor, [act], now)
            return Limited(ceiling=after, limits=lowered)


def _fields(ceiling: LimitCeiling) -> dict[str, object]:
    return {"concurrentCalls": ceiling.concurrent_calls, "callsPerSecond": ceiling.calls_per_second}
