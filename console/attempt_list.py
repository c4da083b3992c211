"""Lists of attempts: filters in the address, the rows of a list, and the place where a page ends."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from uuid import UUID

from console.attempt_words import RULES, reason_words
from console.lists import place_in, place_text
from scheduler.domain.attempt import AttemptState, ConversationOutcome, Decision, Phase, Reason
from scheduler.domain.call import Schedule
from scheduler.domain.refusals import InvalidFields, InvalidTimezone
from scheduler.ids import id_or_none
from scheduler.timing.zone_names import check_zone


class ListState(StrEnum):
    """The states of attempts as operators see them."""

    DUE = "due"
    WAITING = "waiting"
    """Pending, and not due yet."""
    PENDING = "pending"
    """Due or waiting."""
    IN_PROGRESS = "in-progress"
    FINISHED = "finished"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    COMPLETED_OR_FAILED = "completed-or-failed"
    COMPLETED_OR_CANCELLED = "completed-or-cancelled"
    FAILED_OR_CANCELLED = "failed-or-cancelled"
    UNKNOWN = "unknown"
    """Ended with an unknown outcome about which no operator has decided yet."""


PENDING_STATES = frozenset({ListState.DUE, ListState.WAITING, ListState.PENDING})
END_STATES: Mapping[ListState, Sequence[AttemptState]] = {
    ListState.FINISHED: (AttemptState.COMPLETED, AttemptState.FAILED, AttemptState.CANCELLED),
    ListState.COMPLETED: (AttemptState.COMPLETED,),
    ListState.FAILED: (AttemptState.FAILED,),
    ListState.CANCELLED: (AttemptState.CANCELLED,),
    ListState.COMPLETED_OR_FAILED: (AttemptState.COMPLETED, AttemptState.FAILED),
    ListState.COMPLETED_OR_CANCELLED: (AttemptState.COMPLETED, AttemptState.CANCELLED),
    ListState.FAILED_OR_CANCELLED: (AttemptState.FAILED, AttemptState.CANCELLED),
}


class ListOrder(StrEnum):
    DUE_TIME = "due time"
    """Pending attempts, or finished ones of one company in a range of due times, the earliest due time first."""
    INTERVIEW = "interview"
    """All attempts of one company, the newest interview first."""
    END = "end"
    """Finished attempts, the latest end first."""
    NEWEST = "newest"
    """The newest attempt first."""


@dataclass(frozen=True, kw_only=True)
class AttemptFilter:
    """Conditions that all attempts of a list meet. None matches all."""

    state: ListState | None = None
    rule: str | None = None
    """The first rule that holds the attempt, or PACE. Only of due attempts."""
    company_id: UUID | None = None
    zone: str | None = None
    """A canonical IANA name of the callee's zones, or an offset like +10:30. Only of pending attempts."""
    due_from: datetime | None = None
    """The first instant of a range. Only of pending or finished attempts."""
    due_to: datetime | None = None
    """The first instant after the range."""
    created_from: datetime | None = None
    """The first instant of a range of creations. Only of one company."""
    created_to: datetime | None = None
    """The first instant after the range."""
    changed_from: datetime | None = None
    """The earliest last change. Only of one company."""
    reason: Reason | None = None
    """The end reason. Only of finished attempts."""
    outcome: ConversationOutcome | None = None
    """The outcome that the conversation reported, or that was assumed. Only of finished attempts."""
    cause_lost: bool = False
    """Only attempts that failed without a known cause."""

    @property
    def is_pending(self) -> bool:
        return self.state in PENDING_STATES

    @property
    def is_ended(self) -> bool:
        return self.state in END_STATES

    @property
    def has_history(self) -> bool:
        """True with a condition on creation or change, which no index serves."""
        return self.created_from is not None or self.created_to is not None or self.changed_from is not None

    @property
    def is_short(self) -> bool:
        """True for a list that is short, because the carrier or an operator ends each of its attempts."""
        return self.cause_lost or self.state in {ListState.IN_PROGRESS, ListState.UNKNOWN}

    @property
    def order(self) -> ListOrder:
        if self.is_pending:
            return ListOrder.DUE_TIME
        if self.is_short:
            return ListOrder.NEWEST
        if self.company_id is not None:
            has_range = self.due_from is not None or self.due_to is not None
            return ListOrder.DUE_TIME if self.is_ended and has_range else ListOrder.INTERVIEW
        return ListOrder.NEWEST if self.state is None else ListOrder.END


@dataclass(frozen=True, kw_only=True)
class ListedAttempt:
    """A row of a list, without personal data."""

    id: UUID
    interview_id: UUID
    company_id: UUID
    company_name: str
    state: AttemptState
    phase: Phase | None
    reason: Reason | None
    outcome: ConversationOutcome | None
    cause_is_lost: bool
    decision: Decision | None
    retry_number: int
    manual: bool
    due_at: datetime
    created_at: datetime
    ended_at: datetime | None
    deleted_at: datetime | None
    schedule: Schedule
    command_waits: bool
    """A command for its interview was accepted and not applied yet."""
    rule: str | None
    """The first rule that holds a due attempt, or PACE. None without such a rule, and for all other attempts."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place in a list, after which the next page begins."""

    attempt_id: UUID
    at: datetime | None = None
    """The due time in a list of pending attempts, the creation of the interview in the list of one company."""
    interview_id: UUID | None = None
    event_id: int | None = None
    """The event that ended the attempt, in a list by ends."""


@dataclass(frozen=True, kw_only=True)
class FoundAttempt:
    """An attempt that meets a filter."""

    id: UUID
    company_id: UUID
    due_at: datetime
    rule: str | None = None


@dataclass(frozen=True, kw_only=True)
class FoundPart:
    """One part of a list."""

    attempts: Sequence[FoundAttempt]
    next: Place | None
    """None: nothing follows."""
    is_cut: bool = False
    """The search ended before the part was full, because it had looked at as many rows as one part may."""


# --- Filters of lists of attempts: the fields of an address, and their meanings


FIELDS = (
    *("state", "rule", "company", "zone", "due_from", "due_to", "created_from", "created_to", "changed_from"),
    *("reason", "outcome"),
)
STATES: Mapping[str, str] = {
    ListState.DUE: "Due",
    ListState.WAITING: "Waiting for their time",
    ListState.PENDING: "Due or waiting",
    ListState.IN_PROGRESS: "In progress",
    ListState.FINISHED: "Finished",
    ListState.COMPLETED: "Completed",
    ListState.FAILED: "Failed",
    ListState.CANCELLED: "Cancelled",
    ListState.COMPLETED_OR_FAILED: "Completed or failed",
    ListState.COMPLETED_OR_CANCELLED: "Completed or cancelled",
    ListState.FAILED_OR_CANCELLED: "Failed or cancelled",
    ListState.UNKNOWN: "Unknown, to decide",
}
CAUSE_LOST = "cause-lost"
REASONS: Mapping[str, str] = {
    CAUSE_LOST: "Failed, cause lost",
    **{each.value.lower().replace("_", "-"): reason_words(each) for each in Reason},
}
OUTCOMES: Mapping[str, str] = {
    each.value.lower().replace("_", "-"): each.value.capitalize().replace("_", " ") for each in ConversationOutcome
}
"""Texts by the values of the field, as are the reasons above."""
_TIME = re.compile(r"[0-9]{1,2}:[0-9]{2}")
_OFFSET = re.compile(r"[+-](?:0\d|1[0-8]):[0-5]\d")


def filter_of(fields: Mapping[str, str], now: datetime | None = None) -> AttemptFilter:
    """Read the filter in the fields of an address. Raises InvalidFields for an impossible filter.

    With `now`, a due time may be a time of this day in UTC. Never without it: an act would mean other calls tomorrow.
    """
    rule, zone = _rule(fields.get("rule")), _zone(fields.get("zone"))
    due_from, due_to = _range(fields, "due", now)
    created_from, created_to = _range(fields, "created", now)
    cause_lost, reason = _reason(fields.get("reason"))
    outcome = _outcome(fields.get("outcome"))
    asks_for_range = due_from is not None or due_to is not None
    state = _state(fields.get("state"))
    if state is None:
        ended = reason is not None or outcome is not None
        pending = bool(zone) or (asks_for_range and not ended)
        state = _implied(rule=rule is not None, pending=pending, ended=ended)
    only = AttemptFilter(
        state=state,
        rule=rule,
        company_id=_company(fields.get("company")),
        zone=zone,
        due_from=due_from,
        due_to=due_to,
        created_from=created_from,
        created_to=created_to,
        changed_from=_instant(fields.get("changed_from"), now, words="times"),
        reason=reason,
        outcome=outcome,
        cause_lost=cause_lost,
    )
    _check(only)
    return only


def fields_of(only: AttemptFilter) -> dict[str, str]:
    """Write the fields of this filter, without empty ones."""
    reason = CAUSE_LOST if only.cause_lost else "" if only.reason is None else only.reason.lower().replace("_", "-")
    values = {
        "state": only.state or "",
        "rule": only.rule or "",
        "company": str(only.company_id or ""),
        "zone": only.zone or "",
        "due_from": _text(only.due_from),
        "due_to": _text(only.due_to),
        "created_from": _text(only.created_from),
        "created_to": _text(only.created_to),
        "changed_from": _text(only.changed_from),
        "reason": reason,
        "outcome": "" if only.outcome is None else only.outcome.lower().replace("_", "-"),
    }
    return {name: str(value) for name, value in values.items() if value}


def described(fields: Mapping[str, str]) -> str:
    """Describe the conditions of a filter's fields in words."""
    return ", ".join(f"{_NAMES.get(name, name)} {value}" for name, value in fields.items())


def place_of(only: AttemptFilter, query: Mapping[str, str]) -> Place | None:
    """Read the place after which a page begins. Raises WrongFilter for a place of another list."""
    values = place_in(query, *(_TYPES[name] for name in _PLACES[only.order]))
    return None if values is None else Place(**dict(zip(_PLACES[only.order], values, strict=True)))


def text_of(only: AttemptFilter, place: Place) -> str:
    """Write a place of this list in the form that `place_of` reads."""
    return place_text(*(getattr(place, name) for name in _PLACES[only.order]))


_PLACES: Mapping[ListOrder, tuple[str, ...]] = {
    ListOrder.NEWEST: ("attempt_id",),
    ListOrder.DUE_TIME: ("attempt_id", "at"),
    ListOrder.END: ("attempt_id", "event_id"),
    ListOrder.INTERVIEW: ("attempt_id", "at", "interview_id"),
}
"""Fields of a place by the order of its list."""
_TYPES: Mapping[str, type] = {"attempt_id": UUID, "at": datetime, "interview_id": UUID, "event_id": int}


_NAMES = {
    "due_from": "due from",
    "due_to": "due before",
    "created_from": "created from",
    "created_to": "created before",
    "changed_from": "changed from",
    "zone": "time zone",
}
_RANGES = {"due": "due times", "created": "creation times"}


def _implied(*, rule: bool, pending: bool, ended: bool) -> ListState | None:
    if rule:
        return ListState.DUE
    if pending:
        return ListState.PENDING
    return ListState.FINISHED if ended else None


def _check(only: AttemptFilter) -> None:
    """Raise InvalidFields for conditions that no attempt meets together."""
    if only.rule is not None and only.state is not ListState.DUE:
        raise InvalidFields("A rule holds only due calls. Choose the state Due, or no rule.")
    if only.zone and not only.is_pending:
        raise InvalidFields("Time zones are searched only among pending calls. Choose the state Due, Waiting or both.")
    if (only.due_from or only.due_to) and not only.is_pending and (only.cause_lost or not only.is_ended):
        raise InvalidFields(
            "Due times are searched only among pending or finished calls. Choose such a state, or no due times."
        )
    if only.has_history and only.company_id is None:
        raise InvalidFields("Creation and change are searched only among the calls of one company. Add a company id.")
    if only.reason is not None and not only.is_ended:
        raise InvalidFields("Only finished calls have an end reason. Choose the state Finished, or no reason.")
    if only.outcome is not None and (only.cause_lost or not only.is_ended):
        raise InvalidFields("Only finished calls have an outcome. Choose the state Finished, or no outcome.")
    if only.cause_lost and only.state not in {None, ListState.FINISHED, ListState.FAILED}:
        raise InvalidFields("The cause is lost only of failed calls. Choose the state Failed, or no reason.")


def _state(text: str | None) -> ListState | None:
    if not text:
        return None
    try:
        return ListState(text)
    except ValueError:
        raise InvalidFields(f"There is no such state of a call. Choose one of {', '.join(ListState)}.") from None


def _rule(text: str | None) -> str | None:
    if not text:
        return None
    rule = text.upper().replace("-", "_")
    if rule not in RULES:
        raise InvalidFields(f"There is no such rule. Choose one of {', '.join(RULES)}.")
    return rule


def _reason(text: str | None) -> tuple[bool, Reason | None]:
    """Read the end reason of a filter, and whether its cause is lost."""
    if not text or text == CAUSE_LOST:
        return bool(text), None
    try:
        return False, Reason(text.upper().replace("-", "_"))
    except ValueError:
        raise InvalidFields(f"There is no such end reason. Choose one of {', '.join(REASONS)}.") from None


def _outcome(text: str | None) -> ConversationOutcome | None:
    if not text:
        return None
    try:
        return ConversationOutcome(text.upper().replace("-", "_"))
    except ValueError:
        raise InvalidFields(f"There is no such outcome. Choose one of {', '.join(OUTCOMES)}.") from None


def _company(text: str | None) -> UUID | None:
    found = id_or_none(text or "")
    if text and found is None:
        raise InvalidFields("The company is named by its id, for example from the page Companies.")
    return found


def _zone(text: str | None) -> str | None:
    """Read the canonical name of a zone, or an offset like +10:30, for calls whose request has one."""
    if text and _OFFSET.fullmatch(text):
        return text
    try:
        return check_zone(text) if text else None
    except InvalidTimezone:
        raise InvalidFields(
            "There is no such time zone. Write an IANA name such as Europe/Bratislava, or an offset such as +10:30."
        ) from None


def _range(fields: Mapping[str, str], name: str, now: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Read the two times of a range. Raises InvalidFields for a range that ends before it begins."""
    words = _RANGES[name]
    since = _instant(fields.get(f"{name}_from"), now, words=words)
    until = _instant(fields.get(f"{name}_to"), now, words=words, after=since)
    if since is not None and until is not None and since >= until:
        raise InvalidFields(f"The range of {words} ends before it begins. Exchange its two times.")
    return since, until


def _instant(text: str | None, now: datetime | None, *, words: str, after: datetime | None = None) -> datetime | None:
    """Read an instant in UTC. A time without an offset is in UTC.

    A time without a day is of today, or the first one after the beginning of a range: from 22:00 to 06:00 is a night.
    """
    if not text:
        return None
    try:
        if now is not None and _TIME.fullmatch(text):
            at = datetime.combine((after or now).astimezone(UTC), time.fromisoformat(text.zfill(5)), UTC)
            return at if after is None or at > after else at + timedelta(days=1)
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        raise InvalidFields(f"Write {words} in UTC like 2030-01-31T09:00, or 09:00 for today.") from None


def _text(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
