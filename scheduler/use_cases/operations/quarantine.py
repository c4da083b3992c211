"""Quarantine: commands and callbacks that failed five times with an unexpected error. An operator decides each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from scheduler.domain.command import OF_OPERATORS
from scheduler.domain.principal import Act, TargetKind, Verb
from scheduler.domain.refusals import CommandDropped, NotFound
from scheduler.lifecycle import partner_events
from scheduler.persistence.quarantine import Quarantined, QuarantineKind, QuarantinePlace
from scheduler.persistence.stores import Stores
from scheduler.rules import operators
from scheduler.use_cases.shared.access import OperatorUseCase


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A dropped command or callback."""

    kind: QuarantineKind
    attempt_id: UUID | None = None
    """The attempt of a callback, unless it was erased."""
    next_poll_at: datetime | None = None
    """The next poll or search of the carrier about that attempt. None: its outcome is known, or the search is over."""


class Quarantine(OperatorUseCase):
    def page(
        self,
        kind: QuarantineKind | None = None,
        after: QuarantinePlace | None = None,
        limit: int | None = None,
        company_id: UUID | None = None,
    ) -> Sequence[Quarantined]:
        """List all or up to `limit` items, oldest first. `after`: only items after this place. Raises DatabaseAway.

        `company_id`: only commands of this company, and callbacks about its calls.
        """
        with self._database.reading() as stores:
            return stores.quarantine.page(kind, after, limit, company_id)

    def find(self, quarantined_id: UUID) -> Quarantined:
        """Find a command or a callback in quarantine. Raises NotFound, DatabaseAway."""
        with self._database.reading() as stores:
            return _found(stores.quarantine.find(quarantined_id), quarantined_id)

    def next_poll(self, quarantined: Quarantined) -> datetime | None:
        """Find the next poll or search of the carrier about the attempt of a callback. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return _next_poll(stores, quarantined)

    def requeue(self, quarantined_id: UUID, reason: str) -> QuarantineKind:
        """Retry a command or a callback. The clock sends its hint within a sweep.

        A command is judged as of its receipt. Raises InvalidPauseReason, NotFound, DatabaseAway.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            found = _found(stores.quarantine.lock(quarantined_id), quarantined_id)
            act, now = _act("retry", found, reason, "WAITING"), stores.instant(self._now)
            stores.audit.add(self._actor, [act], now)
            if found.kind is QuarantineKind.COMMAND:
                stores.inbox.requeue(found.id)
            else:
                stores.carrier_events.requeue(found.id)
            return found.kind

    def drop(self, quarantined_id: UUID, reason: str) -> Dropped:
        """Drop a command or a callback. Its body is deleted.

        A command gets the answer COMMAND_DROPPED, and later commands of its interview are applied. The attempt of a
        callback is left to the polls of the carrier, as if the callback had never come. Raises InvalidPauseReason,
        NotFound, DatabaseAway.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            found = _found(stores.quarantine.lock(quarantined_id), quarantined_id)
            act, now = _act("drop", found, reason, "DROPPED"), stores.instant(self._now)
            stores.audit.add(self._actor, [act], now)
            if found.kind is QuarantineKind.COMMAND:
                stores.inbox.drop([found.id], now)
                # An operator's command is the operator's own affair, and its effects are reported.
                if found.company_id is not None and found.command not in OF_OPERATORS:
                    dropped = partner_events.of_result(
                        found.id, found.company_id, found.interview_id, CommandDropped.code, now
                    )
                    stores.events.note([dropped])
                return Dropped(kind=found.kind)
            stores.carrier_events.heard([found.id], now)
            return Dropped(kind=found.kind, attempt_id=found.attempt_id, next_poll_at=_next_poll(stores, found))


def _next_poll(stores: Stores, quarantined: Quarantined) -> datetime | None:
    if quarantined.kind is QuarantineKind.COMMAND or quarantined.attempt_id is None:
        return None
    attempt = stores.attempts.find(quarantined.attempt_id)
    return None if attempt is None else attempt.look_at or attempt.search_at


def _act(what: str, found: Quarantined, reason: str, state: str) -> Act:
    kind = TargetKind(found.kind.value)
    command = {} if found.command is None else {"kind": found.command}
    return Act(
        verb=Verb(f"{kind.value}.{what}"),
        target_kind=kind,
        target_id=found.id,
        company_id=found.company_id,
        reason=reason,
        before={"state": "QUARANTINED", **command},
        after={"state": state},
    )


def _found(found: Quarantined | None, quarantined_id: UUID) -> Quarantined:
    if found is None:
        raise NotFound(
            "Nothing with this id is in quarantine: it was retried or dropped before, or the id is wrong. The page"
            " Quarantine and `duecall quarantine list` have the ids.",
            resourceType="quarantine",
            resourceId=str(quarantined_id),
        )
    return found
