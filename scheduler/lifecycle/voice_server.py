"""The breaker of the voice server: while it gives no instructions, no call is placed.

It is the breaker of the carrier's account with another cause, so everything that waits for one waits for the other.
Both are closed by a probe and one trial call. The trial has succeeded if its instructions do not fail within
`TRIAL_LASTS` after the answer.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scheduler.lifecycle.breaker import BACK_OFF, OPENS_AFTER, Breaker, after_answer, not_placed_delay

CAUSE = "VOICE_SERVER"
"""The cause of the breaker. A worker of release 0.2.0 shows it as it is."""
WITHIN = timedelta(minutes=10)
"""Failures of calls that were claimed further apart are not in a row."""
TRIAL_LASTS = timedelta(seconds=10)
"""The time after its answer at which a trial call without failed instructions has succeeded.

A fallback that comes later counts as the first failure of the next row.
"""
_IN_A_ROW = 2


@dataclass(frozen=True, kw_only=True)
class Failures:
    """The calls without instructions that were claimed within `WITHIN`, and after the last conversation."""

    calls: int
    companies: int
    """The number of companies that they belong to."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The calls that were claimed after an answered probe, usually one."""

    is_open: bool
    """One of them rings, or was answered only now."""
    has_succeeded: bool
    """One was answered, also by a machine, and has not failed. A call without any news counts too: its fallback may be
    lost as well.

    A call that rings, waits in the carrier's queue or has an unknown answer shows nothing.
    """


def is_down(breaker: Breaker) -> bool:
    """Return whether calls wait for the voice server, or one of them is tried."""
    return breaker.down_until is not None and breaker.cause == CAUSE


def tried_since(breaker: Breaker) -> datetime | None:
    """Return the time from which claimed calls are the trial. None: no trial of the voice server may be claimed."""
    return breaker.answered_at if is_down(breaker) and breaker.is_on_trial else None


def claimed_at(breaker: Breaker, now: datetime) -> datetime:
    """Compute the time at which a call is claimed. A trial is not earlier than its probe, also on a clock behind."""
    since = tried_since(breaker)
    if since is not None:  # guard: trial_behind
        return max(now, since)
    return now


def awaits_verdict(breaker: Breaker) -> bool:
    """Return whether a trial call was placed, and it is not known yet if it got instructions."""
    return is_down(breaker) and not breaker.is_on_trial and breaker.answered_at is not None


def opens(failures: Failures, companies: int, *, answers: bool | None) -> bool:
    """Return whether the breaker opens for all companies. `companies` is 0, 1 or 2 (for more), as in `backoffs`.

    Failures of one company alone may be its own, so they open it only if the server does not answer a probe. `answers`
    is None if it cannot be probed: then nothing shows that the failures are not those of the company.
    """
    if companies > 1 and failures.companies <= 1 and answers is not False:  # guard: voice_alone
        return False
    return failures.calls >= _IN_A_ROW


def after_failure(
    breaker: Breaker, claimed_at: datetime, now: datetime, failed_companies: int | None = None
) -> Breaker:
    """Compute the breaker after calls without instructions, of which the latest was claimed at `claimed_at`.

    Calls that were placed before it opened, or before the trial, no longer count. Failed trials lengthen the wait, at
    most by a step for each of `failed_companies`, the companies whose calls have failed within `WITHIN`: the trials of
    one company must not keep the others waiting. None: there is only one.
    """
    if breaker.down_until is None:
        return Breaker(failures=OPENS_AFTER, down_until=now + BACK_OFF[0], cause=CAUSE)
    if breaker.cause != CAUSE or breaker.answered_at is None or claimed_at < breaker.answered_at:
        return breaker
    trials = breaker.trials + 1
    steps = trials
    if failed_companies is not None:  # guard: trials_of_one
        steps = min(trials, max(failed_companies, 1))
    return Breaker(failures=OPENS_AFTER + trials, down_until=now + not_placed_delay(steps), cause=CAUSE, trials=trials)


def after_trial_was_placed(breaker: Breaker, now: datetime) -> Breaker:
    """Compute the breaker while the trial call must show whether it gets instructions. No other call is placed."""
    return _waiting(breaker, TRIAL_LASTS, now)


def after_carrier_failure(before: Breaker, judged: Breaker) -> Breaker:
    """Compute the breaker after the carrier has failed a trial. It is `judged` without the cause.

    The outage of the voice server lasts until a verdict about the voice server, so the carrier's wait keeps its cause.
    """
    return replace(judged, cause=before.cause)


def while_probed(breaker: Breaker, now: datetime) -> Breaker:
    """Compute the breaker during a probe, and if it fails. The wait stays short: a probe costs no call."""
    return _waiting(breaker, BACK_OFF[0], now)


def _waiting(breaker: Breaker, wait: timedelta, now: datetime) -> Breaker:
    """Compute the breaker that is probed after `wait`. On a clock that was set back, its last answer is from now.

    A later answer would be one after the wait, so that the breaker would be half-open meanwhile.
    """
    answered_at = breaker.answered_at
    if answered_at is not None:
        answered_at = min(answered_at, now)  # guard: trial_set_back
    return replace(breaker, down_until=now + wait, answered_at=answered_at)


def after_probe(before: Breaker, now: datetime, trial: Trial | None = None) -> Breaker:
    """Compute the breaker after an answered probe. `trial` is that of a breaker that awaits its verdict, and not open.

    The trial has succeeded, or a call is tried. After the first unanswered trial another one follows at once. Each
    further one in a row lengthens the wait like a failed one: trials use up calls also if they show nothing.
    """
    if trial is not None and trial.has_succeeded:
        return Breaker()
    unanswered = unanswered_trials(before) + (trial is not None)
    failures = OPENS_AFTER + before.trials + unanswered
    if trial is not None and unanswered > 1:  # guard: unanswered_trials
        wait = not_placed_delay(unanswered - 1)
        return replace(before, failures=failures, down_until=now + wait, answered_at=None)
    return replace(after_answer(before, now), failures=failures)


def unanswered_trials(breaker: Breaker) -> int:
    """Count the trials in a row that were not answered. They are failures of the breaker, but not failed trials."""
    return max(breaker.failures - OPENS_AFTER - breaker.trials, 0) if is_down(breaker) else 0
