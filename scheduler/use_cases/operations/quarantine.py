"""Quarantine: commands and callbacks that failed five times with an unexpected error. An operator decides each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.actor import SYSTEM
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.command import Answer, Command, refusal_of
from scheduler.domain.refusals import CommandDropped, NotFound
from scheduler.persistence.carrier_events import CarrierEvent
from scheduler.persistence.database import Database
from scheduler.persistence.quarantine import Quarantined, QuarantineKind
from scheduler.persistence.stores import Stores
from scheduler.rules import pause_reasons


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A dropped command or callback."""

    kind: QuarantineKind
    attempt_id: UUID | None = None
    """The attempt of a callback, unless it was erased."""
    look_at: datetime | None = None
    """The next poll or search of the carrier about that attempt. None: its outcome is known, or the search is over."""


class Quarantine:
    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def all(self) -> Sequence[Quarantined]:
        """Return everything in quarantine, oldest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.quarantine.all()

    def requeue(self, quarantined_id: UUID, reason: str) -> QuarantineKind:
        """Retry a command or a callback. The clock sends its hint within a sweep.

        A command is judged as of its receipt. Raises InvalidPauseReason, NotFound, DatabaseAway.
        """
        reason = pause_reasons.checked(reason)
        with self._database.transaction() as stores:
            found = _locked(stores, quarantined_id)
            act, now = _act("retry", found, reason, "WAITING"), stores.instant(self._now)
            stores.audit.add(self._actor, [act], now)
            if isinstance(found, Command):
                stores.inbox.requeue(found.id)
                return QuarantineKind.COMMAND
            stores.carrier_events.requeue(found.id)
            return QuarantineKind.CALLBACK

    def drop(self, quarantined_id: UUID, reason: str) -> Dropped:
        """Drop a command or a callback. Its body is deleted.

        A command gets the answer COMMAND_DROPPED, and later commands of its interview are applied. The attempt of a
        callback is left to the polls of the carrier, as if the callback had never come. Raises InvalidPauseReason,
        NotFound, DatabaseAway.
        """
        reason = pause_reasons.checked(reason)
        with self._database.transaction() as stores:
            found = _locked(stores, quarantined_id)
            act, now = _act("drop", found, reason, "DROPPED"), stores.instant(self._now)
            stores.audit.add(self._actor, [act], now)
            if isinstance(found, Command):
                dropped(stores, found, now)
                return Dropped(kind=QuarantineKind.COMMAND)
            stores.carrier_events.heard([found.id], now)
            attempt = None if found.claim is None else stores.attempts.find(found.claim.attempt_id)
            if attempt is None:
                return Dropped(kind=QuarantineKind.CALLBACK)
            look_at = attempt.look_at or attempt.search_at
            return Dropped(kind=QuarantineKind.CALLBACK, attempt_id=attempt.id, look_at=look_at)


def dropped(stores: Stores, command: Command, now: datetime) -> None:
    """Store the answer of a dropped command and delete its body, which may contain personal data."""
    stores.inbox.answer(command, Answer(refusal=refusal_of(CommandDropped())), command.interview_id, now)


def _act(what: str, found: Command | CarrierEvent, reason: str, state: str) -> Act:
    kind = TargetKind.COMMAND if isinstance(found, Command) else TargetKind.CALLBACK
    before: dict[str, object] = {"state": "QUARANTINED"}
    company_id = None
    if isinstance(found, Command):
        before["kind"], company_id = found.kind, found.company_id
    return Act(
        verb=Verb(f"{kind.value}.{what}"),
        target_kind=kind,
        target_id=found.id,
        company_id=company_id,
        reason=reason,
        before=before,
        after={"state": state},
    )


def _locked(stores: Stores, quarantined_id: UUID) -> Command | CarrierEvent:
    found = stores.inbox.lock_quarantined(quarantined_id) or stores.carrier_events.lock_quarantined(quarantined_id)
    if found is None:
        raise NotFound(
            "Nothing with this id is in quarantine; `duecall quarantine list` has the ids.",
            resourceType="quarantine",
            resourceId=str(quarantined_id),
        )
    return found
