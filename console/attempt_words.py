"""Words and badges for attempts and for the rules that hold them, shared by every page."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.explanation import PACE, Rule

# --- Words for the rules that hold due calls


HOLDS: Mapping[str, str] = {
    Rule.ACCOUNT_PAUSED: "All calls are paused.",
    Rule.CARRIER_DOWN: "The carrier accepts no calls. It is asked again periodically.",
    Rule.VOICE_SERVER_DOWN: "The voice server gives calls no instructions. It is asked again periodically.",
    Rule.CARRIER_REFUSES_COUNTRY: "The carrier refuses calls to the country.",
    Rule.CARRIER_REFUSES_CALLER: "The carrier refuses calls from the company's number.",
    Rule.CARRIER_FAILS_CALLER: "The carrier fails calls from the company's number.",
    Rule.COMPANY_PAUSED: "The company is paused.",
    Rule.COMMAND_WAITING: "A command for the interview is not applied yet.",
    Rule.EXPIRED: "The interview has expired. A worker ends it.",
    Rule.NUMBER_BUSY: "The person's number has another call, or had one shortly before.",
    Rule.COMPANY_LIMIT: "The company has reached its limit of calls in progress.",
    Rule.ACCOUNT_LIMIT: "The carrier account has reached its limit of calls in progress.",
    PACE: "The calls per second of the company or of the account are used up.",
}
"""Sentences about the rules that hold due calls."""
RULES: Mapping[str, str] = {rule: sentence.partition(".")[0] for rule, sentence in HOLDS.items()}
"""The first sentences, as labels."""


# --- Words and badges for attempts, shared by every page that shows one


class _Shown(Protocol):
    """The part of an attempt that its badge depends on."""

    @property
    def state(self) -> AttemptState: ...
    @property
    def reason(self) -> Reason | None: ...
    @property
    def due_at(self) -> datetime: ...


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A state as a word and a shape. The level is its colour."""

    word: str
    mark: str
    level: str = ""


_BADGES = {
    AttemptState.PENDING: Badge(word="Waiting", mark="○"),
    AttemptState.IN_PROGRESS: Badge(word="In progress", mark="►", level="good"),
    AttemptState.COMPLETED: Badge(word="Completed", mark="✓", level="good"),
    AttemptState.FAILED: Badge(word="Failed", mark="✕", level="bad"),
    AttemptState.CANCELLED: Badge(word="Cancelled", mark="⊘"),
}
_DUE = Badge(word="Due", mark="●")
_UNKNOWN = Badge(word="Unknown", mark="?", level="warn")

_CANCELLED_BY_USER = "Cancelled by client or operator"


def badge_of(attempt: _Shown, now: datetime) -> Badge:
    """Choose the badge of an attempt. A failed attempt of unknown outcome has one of its own."""
    if attempt.reason is Reason.OUTCOME_UNKNOWN:
        return _UNKNOWN
    if attempt.state is AttemptState.PENDING and attempt.due_at <= now:
        return _DUE
    return _BADGES[attempt.state]


def reason_words(reason: Reason) -> str:
    """Put the reason of an end into words, the same on all pages."""
    return _CANCELLED_BY_USER if reason is Reason.CANCELLED_BY_USER else words_of(reason)


def end_of(attempt: _Shown, badge: Badge) -> str:
    """Put the reason of the end into words that follow the badge and do not repeat its word."""
    if attempt.reason is None or badge is _UNKNOWN:
        return ""
    return reason_words(attempt.reason).removeprefix(f"{badge.word} ")


def words_of(code: str) -> str:
    """Put a code such as OUTCOME_UNKNOWN into words."""
    return code.replace("_", " ").capitalize()
