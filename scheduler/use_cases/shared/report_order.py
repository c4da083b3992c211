"""Reports and ends of calls: the wait for a report after the end, and the end that waits for an accepted report."""

from collections.abc import Sequence
from datetime import datetime

from scheduler.domain.attempt import Attempt, Ended, Event, Reason
from scheduler.lifecycle import conversations, retries
from scheduler.use_cases.shared.batch import Batch


class ReportFirst:
    """The end of the call must be applied later: an accepted report of its conversation would be refused after it."""


def may_be_reported(batch: Batch, attempt: Attempt, now: datetime) -> bool:
    """Return True if an answered call that has just ended may still be reported."""
    return (
        attempt.outcome is None
        and retries.may_go_on(batch.interviews[attempt.interview_id])
        and batch.may_report(attempt.company_id, now)  # guard: awaited_with_a_key
    )


def report_comes_first(batch: Batch, attempt: Attempt, happened: Sequence[Event], now: datetime) -> bool:
    """Return True if these events end a call, and an accepted report that is not applied yet would be lost by them.

    An end after which reports are accepted loses none, so it does not wait.
    """
    if not conversations.ends_unreported(attempt, happened):
        return False
    is_answered = any(isinstance(each, Ended) and each.reason is Reason.ANSWERED for each in happened)
    if is_answered and may_be_reported(batch, attempt, now):
        return False
    return batch.report_waits(batch.interviews[attempt.interview_id], now)  # guard: report_first
