"""Verdicts of asynchronous machine detection: news of their own, before or after the end of their calls."""

from datetime import datetime

from scheduler.domain.attempt import Attempt, Event, VerdictAwaited, VerdictHeard
from scheduler.domain.call import CallNews, CallStatus, MachineDetection
from scheduler.lifecycle.policy import VERDICT_WAIT, latest_written


def heard(attempt: Attempt, news: CallNews) -> tuple[Event, ...]:
    """Decide on the verdict in news of a call that is known to be connected. The first verdict counts."""
    if attempt.machine_detection is not MachineDetection.ASYNC or attempt.answered_by is not None:
        return ()
    return () if news.answered_by is None else (VerdictHeard(answered_by=news.answered_by),)


def awaits(attempt: Attempt, news: CallNews, now: datetime) -> bool:
    """Return whether the end of this call waits for the verdict. `news` contains everything that is known of the call.

    A wait that begins later than now was written by a wrong clock, and is over. A call that we end has no verdict,
    and a conversation that has reported its outcome needs none.
    """
    if attempt.machine_detection is not MachineDetection.ASYNC or attempt.hang_up is not None:
        return False
    if attempt.outcome is not None:
        return False
    if news.status is not CallStatus.COMPLETED or news.answered_by is not None or news.instructions_failed:
        return False
    since = now if attempt.hung_up_at is None else attempt.hung_up_at
    return now < since + VERDICT_WAIT and since <= latest_written(now)


def awaited(news: CallNews, look_at: datetime) -> VerdictAwaited:
    return VerdictAwaited(call_sid=news.call_sid, look_at=look_at, duration=news.duration)


def heard_end(attempt: Attempt, later: CallNews | None = None) -> CallNews:
    """Repeat the news of an end that waits for its verdict, with the facts in `later` news."""
    assert attempt.call_sid is not None
    return CallNews(
        call_sid=attempt.call_sid,
        status=CallStatus.COMPLETED,
        duration=attempt.duration,
        answered_by=None if later is None else later.answered_by,
        instructions_failed=None if later is None else later.instructions_failed,
    )
