"""Histories: the requests and responses of clients, the carrier's ledger, and the attempts' rows with their histories.

With these, and the hours in which each person may be called, the judge can judge any run of the system. Nothing here
shares code with the system.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from uuid import UUID

from tests.verification.judge.hours import RingHours

NOTHING = timedelta()
DONE = frozenset({200, 201, 204})
ACCEPTED = 202


class Verb(StrEnum):
    """The operation that a client requested."""

    CREATE = "POST /interviews"
    INVOKE = "POST .../call-attempts"
    MOVE = "PATCH .../call-attempts/{id}"
    DELETE = "DELETE .../call-attempts/{id}"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, kw_only=True)
class ClientResponse:
    """A response's status, and the time at which the client received it."""

    status: int
    at: datetime


@dataclass(frozen=True, kw_only=True)
class ClientRequest:
    """A client's request and its result."""

    verb: Verb
    asked_at: datetime
    told: ClientResponse
    applied: ClientResponse | None = None
    """Result of a command that was accepted with 202, or None if it has not been applied."""
    company_id: UUID | None = None
    """The paused company, or None for all companies."""
    interview_id: UUID | None = None
    attempt_id: UUID | None = None
    """The attempt that the request names or created."""
    due_at: datetime | None = None
    """The requested time."""

    @property
    def outcome(self) -> ClientResponse:
        return self.applied or self.told

    @property
    def is_done(self) -> bool:
        return self.outcome.status in DONE

    def waits_at(self, instant: datetime) -> bool:
        """Check whether the command was accepted, as the client knows, and not yet applied."""
        if self.told.status != ACCEPTED or instant <= self.told.at:
            return False
        return self.applied is None or instant < self.applied.at


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A call that the carrier accepted. From then on the phone will ring, whatever the API responds."""

    token: str | None
    number: str
    accepted_at: datetime
    rang_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None

    def overlaps(self, later: "Ring") -> bool:
        return self.ended_at is None or later.accepted_at < self.ended_at


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """A row of an attempt's history, with '' for none."""

    seq: int
    at: datetime
    event: str
    from_state: str
    to_state: str
    reason: str
    epoch: int
    expires_at: datetime | None = None
    """The new expiry, if the event sets one."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    token: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Row:
    """The final state of an attempt, with its history."""

    id: UUID
    interview_id: UUID
    company_id: UUID
    line: str
    """Identifies the number that the attempt calls."""
    state: str
    reason: str
    epoch: int
    due_at: datetime
    expires_at: datetime
    happenings: tuple[HistoryEntry, ...]
    """In chronological order."""
    claims: tuple[Claim, ...] = ()
    """In chronological order."""

    def fate_of(self, token: str) -> str | None:
        """Find the event that ended the claim of a token, or None if it is open or not in the history."""
        turn = [claim.token for claim in self.claims].index(token)
        claimed = [place for place, happening in enumerate(self.happenings) if happening.event == "claimed"]
        if turn >= len(claimed):
            return None
        following = self.happenings[claimed[turn] + 1 :]
        return next((each.event for each in following if each.to_state != "IN_PROGRESS"), None)

    def expires_as_of(self, instant: datetime) -> datetime:
        """Compute the expiry at an instant. Before the first recorded change, that is the current expiry."""
        known = [each.expires_at for each in self.happenings if each.expires_at is not None and each.at <= instant]
        return known[-1] if known else self.expires_at


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Tolerances for events that overlap, by the times that the judged system ran with."""

    in_flight: timedelta = NOTHING
    """From a dialler's last look to the carrier's ledger: an event in this span is too late to stop the call."""
    lateness: timedelta = timedelta(minutes=1)
    """Longest wait of an attempt that is due and free."""
    line_gap: timedelta = NOTHING


@dataclass(frozen=True, kw_only=True)
class History:
    attempts: tuple[Row, ...]
    rings: tuple[Ring, ...] = ()
    asked: tuple[ClientRequest, ...] = ()
    hours: tuple[RingHours, ...] = ()
    """The hours that must hold at each of these rings."""
    clocks: str = ""
    """URL of the PostgreSQL server whose wall clocks judge the hours."""
    until: datetime
    """The time at which the rows and the ledger were read."""
    patience: Patience = field(default_factory=Patience)

    @cached_property
    def attempt_of(self) -> dict[str, Row]:
        return {claim.token: row for row in self.attempts for claim in row.claims}

    @cached_property
    def rings_of(self) -> dict[UUID, list[Ring]]:
        found = defaultdict(list)
        for ring in self.rings:
            row = self.attempt_of.get(ring.token or "")
            if row is not None:
                found[row.id].append(ring)
        return found

    @cached_property
    def rings_to(self) -> dict[str, list[Ring]]:
        found = defaultdict(list)
        for ring in sorted(self.rings, key=lambda ring: ring.accepted_at):
            found[ring.number].append(ring)
        return found

    @cached_property
    def numbers_of_line(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for row in self.attempts:
            found[row.line].update(ring.number for ring in self.rings_of.get(row.id, ()))
        return found

    @cached_property
    def asked_of_interview(self) -> dict[UUID, list[ClientRequest]]:
        found = defaultdict(list)
        for asked in self.asked:
            if asked.interview_id is not None:
                found[asked.interview_id].append(asked)
        return found

    @cached_property
    def pauses(self) -> dict[UUID | None, list[tuple[datetime, datetime | None]]]:
        """Pauses per company (None: of all companies), from the response to the pause to the request to resume."""
        found: dict[UUID | None, list[tuple[datetime, datetime | None]]] = defaultdict(list)
        for asked in sorted(self.asked, key=lambda each: each.asked_at):
            spans = found[asked.company_id]
            is_paused = bool(spans) and spans[-1][1] is None
            if asked.verb is Verb.PAUSE and asked.is_done and not is_paused:
                spans.append((asked.told.at, None))
            elif asked.verb is Verb.RESUME and asked.is_done and is_paused:
                spans[-1] = (spans[-1][0], asked.asked_at)
        return found

    def pauses_of(self, row: Row) -> list[tuple[datetime, datetime | None]]:
        return [*self.pauses.get(None, ()), *self.pauses.get(row.company_id, ())]
