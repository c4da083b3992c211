"""Blocks: the rules that forbid an attempt to ring now. Used by the last look before dialling and by explanations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome
from scheduler.domain.explanation import Block, Rule
from scheduler.domain.refusals import NumberNotAllowed, TimezoneUnknown
from scheduler.lifecycle import voice_server
from scheduler.lifecycle.backoffs import Backoff
from scheduler.lifecycle.breaker import Breaker
from scheduler.lifecycle.capacity import kept_places, leaves_kept_places
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.scheduling import Callee, consent_is_over_on_any, deciding_clocks, next_opening
from scheduler.timing import callee_zones
from scheduler.timing.time_texts import span_text


@dataclass(frozen=True, kw_only=True)
class Line:
    """The current state of the attempt's line."""

    mine: bool
    """Whether this attempt holds the line and it is that of the candidate's current number."""
    held_by_another: bool = False
    free_at: datetime | None = None
    """The time from which another call to this number may begin. None for the same interview, which need not wait."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Calls in progress, and their limits."""

    company_calls: int
    company_limit: int
    account_calls: int
    account_limit: int

    @property
    def leaves_kept_places(self) -> bool:
        """False: all free places are kept for companies without a call in progress."""
        free = self.account_limit - self.account_calls
        return leaves_kept_places(self.company_calls, free, kept_places(self.account_limit))


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The data that decides whether an attempt may ring, read by one query."""

    attempt: Attempt
    callee: Callee
    line: Line
    command_waiting: bool
    account_paused: str | None
    """The reason of an operator's pause of all calls, or None."""
    company_paused: str | None
    company_deleted: bool
    interview_over: bool
    breaker: Breaker
    refused_by: ConversationOutcome | None = None
    """WRONG_PERSON or OPTED_OUT, if an earlier conversation has reported that for this number."""
    refusal_waiting_since: datetime | None = None
    """The receipt of an accepted refusal of this number that is not applied yet, in any interview of the company."""
    backoff: Backoff | None = None
    """The back-off of its caller number or country, or None."""
    database_skew: timedelta = timedelta()
    """The database's clock minus ours, without the configured offset."""
    load: Load | None = None
    """None for a claimed attempt, which already has its place."""


def blocks(situation: Situation, now: datetime, policy: Policy) -> tuple[Block, ...]:
    """List the rules that block the attempt now, in the order of the checks. Empty: it may ring."""
    return (*_stops(situation, now), *_times(situation, now, policy), *_places(situation, now, policy))


def of_number(callee: Callee) -> Block | None:
    """Find why this number is not called at any time, or None if it may be called."""
    if callee.number is None:
        return Block(rule=Rule.NUMBER_MISSING, detail="The candidate has no number that may be called.")
    try:
        callee_zones.check_allowed(callee.number, callee.settings.allowed_countries)
    except NumberNotAllowed as refused:
        return Block(rule=Rule.NUMBER_NOT_ALLOWED, detail=refused.message)
    return None


_REFUSED = {
    ConversationOutcome.WRONG_PERSON: Block(
        rule=Rule.WRONG_NUMBER,
        detail="An earlier call to this number has reached another person. Correct the candidate's number.",
    ),
    ConversationOutcome.OPTED_OUT: Block(
        rule=Rule.OPTED_OUT,
        detail="The person at this number has asked for no further calls. No later command removes this rule.",
    ),
}
_WAITS_FOR = {
    Rule.ACCOUNT_PAUSED: "the end of the pause",
    Rule.CARRIER_DOWN: "the carrier",
    Rule.VOICE_SERVER_DOWN: "the voice server",
    Rule.CARRIER_REFUSES_COUNTRY: "the carrier's permission for the country",
    Rule.CARRIER_REFUSES_CALLER: "the carrier's permission for the caller id",
    Rule.CARRIER_FAILS_CALLER: "the carrier",
    Rule.COMPANY_PAUSED: "the end of the pause",
    Rule.COMPANY_DELETED: "its end",
    Rule.INTERVIEW_OVER: "its end",
    Rule.COMMAND_WAITING: "a command",
    Rule.EXPIRED: "its end",
    Rule.NUMBER_MISSING: "a number that may be called",
    Rule.NUMBER_NOT_ALLOWED: "a number that may be called",
    Rule.WRONG_NUMBER: "another number of the candidate",
    Rule.OPTED_OUT: "another number of the candidate",
    Rule.TIMEZONE_UNKNOWN: "a time zone",
    Rule.CONSENT_EXPIRED: "its end",
    Rule.NOT_DUE: "its time",
    Rule.WINDOW_CLOSED: "an opening",
    Rule.NUMBER_BUSY: "its number",
    Rule.COMPANY_LIMIT: "a place",
    Rule.ACCOUNT_LIMIT: "a place",
}


def waits_for(situation: Situation, blocking: Sequence[Block]) -> str:
    """Describe in a few words the first block of a pending attempt, for whose end it waits."""
    if not blocking:
        return "its turn"
    first = blocking[0].rule
    reasons = {Rule.ACCOUNT_PAUSED: situation.account_paused, Rule.COMPANY_PAUSED: situation.company_paused}
    reason = reasons.get(first)
    return f"{_WAITS_FOR[first]}: {reason}" if reason else _WAITS_FOR[first]


def next_possible_at(situation: Situation, now: datetime, policy: Policy) -> datetime | None:
    """Find the first instant at which the attempt may ring, as far as known, or None.

    It is unknown while a block has no known end, such as a pause or a waiting command. A missing place counts only if
    there is no other block, because places may be free or taken again some hours later.
    """
    attempt = situation.attempt
    blocking = [*_stops(situation, now), *_times(situation, now, policy)] or [*_places(situation, now, policy)][:1]
    ends = [block.until for block in blocking if block.until is not None]
    if len(ends) < len(blocking):
        return None
    start = max(now, attempt.due_at, situation.line.free_at or now, *ends)
    try:
        clocks = deciding_clocks(attempt, situation.callee, start)
        opening = next_opening(clocks, situation.callee.settings, start, policy)
        if opening is None or opening >= attempt.expires_at:
            return None
        return None if consent_is_over_on_any(clocks, situation.callee.consent_until, opening) else opening
    except TimezoneUnknown:
        return None


def _stops(situation: Situation, now: datetime) -> Iterator[Block]:
    """Yield the blocks by operators, clients and the carrier."""
    breaker = situation.breaker
    if situation.account_paused is not None:
        yield Block(rule=Rule.ACCOUNT_PAUSED, detail=f"All calls are paused: {situation.account_paused}")
    if breaker.is_down:
        probed_at = breaker.down_until
        is_voice = voice_server.is_down(breaker)
        why = (
            "The voice server gives no instructions" if is_voice else f"The carrier accepts no calls ({breaker.cause})"
        )
        yield Block(
            rule=Rule.VOICE_SERVER_DOWN if is_voice else Rule.CARRIER_DOWN,
            until=probed_at if probed_at is not None and probed_at > now else None,
            detail=f"{why}. It is checked again at that time.",
        )
    if situation.backoff is not None and situation.backoff.breaker.is_down:  # guard: look_backoff
        yield _waits_by_itself(situation.backoff, now)
    if situation.company_paused is not None:
        yield Block(rule=Rule.COMPANY_PAUSED, detail=f"The company is paused: {situation.company_paused}")
    if situation.company_deleted:
        yield Block(rule=Rule.COMPANY_DELETED, detail="The company is deleted.")
    if situation.interview_over:
        yield Block(rule=Rule.INTERVIEW_OVER, detail="The interview is deleted or cancelled.")
    if situation.command_waiting:  # guard: look_command
        yield Block(
            rule=Rule.COMMAND_WAITING,
            detail="A command for this interview was accepted but not applied yet.",
        )
    if situation.refusal_waiting_since is not None and not situation.command_waiting:  # guard: accepted_refusal
        yield Block(
            rule=Rule.COMMAND_WAITING,
            detail="A report was accepted but not applied yet: the person at this number wants no further calls.",
        )


def _waits_by_itself(backoff: Backoff, now: datetime) -> Block:
    tried_at = backoff.breaker.down_until
    until = tried_at if tried_at is not None and tried_at > now else None
    if backoff.scope.country is not None:
        rule, why = Rule.CARRIER_REFUSES_COUNTRY, f"The carrier account may not call {backoff.scope.country}"
    elif backoff.is_permission:
        rule, why = Rule.CARRIER_REFUSES_CALLER, "The carrier account may not call from the company's number"
    else:
        rule, why = (
            Rule.CARRIER_FAILS_CALLER,
            f"The carrier has failed the company's calls from this number ({backoff.cause})",
        )
    return Block(rule=rule, until=until, detail=f"{why}. One call is tried at that time.")


def _times(situation: Situation, now: datetime, policy: Policy) -> Iterator[Block]:
    attempt, callee = situation.attempt, situation.callee
    if attempt.expires_at <= now:
        yield Block(rule=Rule.EXPIRED, detail="The interview has expired. Send a later expiresAt.")
    number_block = of_number(callee)
    if number_block is not None:
        yield number_block
    if situation.refused_by is not None:  # guard: look_refused
        yield _REFUSED[situation.refused_by]
    try:
        clocks = deciding_clocks(attempt, callee, now)
        consent_over = consent_is_over_on_any(clocks, callee.consent_until, now)
        opening = next_opening(clocks, callee.settings, now, policy)
    except TimezoneUnknown:
        yield Block(rule=Rule.TIMEZONE_UNKNOWN, detail="The time zone is unknown. Set the candidate's timezone.")
        return
    if consent_over:  # guard: consent
        yield Block(
            rule=Rule.CONSENT_EXPIRED,
            detail=f"The candidate's consent ended on {callee.consent_until.isoformat()}.",
        )
    if attempt.due_at > now:
        yield Block(rule=Rule.NOT_DUE, until=attempt.due_at, detail="The call is not due yet.")
    if opening != now:  # guard: window
        yield Block(
            rule=Rule.WINDOW_CLOSED,
            until=opening,
            detail="This person may not be called now, or not for as long as a call rings.",
        )


def _places(situation: Situation, now: datetime, policy: Policy) -> Iterator[Block]:
    """Yield the blocks by the line and by the limits of the company and the carrier account."""
    line, load = situation.line, situation.load
    if situation.attempt.state is AttemptState.IN_PROGRESS:
        if not line.mine:
            yield Block(rule=Rule.NUMBER_BUSY, detail="The attempt does not hold the line of the current number.")
        elif line.free_at is not None and line.free_at > now:
            yield _line_is_resting(line, policy)  # another call to it was seen after the claim
        return
    if line.held_by_another:
        yield Block(rule=Rule.NUMBER_BUSY, detail="Another call to this number is in progress.")
    elif line.free_at is not None and line.free_at > now:
        yield _line_is_resting(line, policy)
    if load is not None and load.company_calls >= load.company_limit:
        yield Block(
            rule=Rule.COMPANY_LIMIT,
            detail=f"The company has {load.company_calls} calls in progress (limit {load.company_limit}).",
        )
    if load is not None and load.account_calls >= load.account_limit:
        yield Block(
            rule=Rule.ACCOUNT_LIMIT,
            detail=f"The carrier account has {load.account_calls} calls in progress (limit {load.account_limit}).",
        )
    elif load is not None and not load.leaves_kept_places:
        yield Block(
            rule=Rule.ACCOUNT_LIMIT,
            detail=f"The carrier account has {load.account_calls} calls in progress (limit {load.account_limit}). The"
            f" last places ({kept_places(load.account_limit)}) are kept for companies without a call in progress.",
        )


def _line_is_resting(line: Line, policy: Policy) -> Block:
    return Block(
        rule=Rule.NUMBER_BUSY,
        until=line.free_at,
        detail=f"The number rests for {span_text(policy.line_gap)} (LINE_GAP_S) after another call to it is known to be"
        " over.",
    )
