"""Reports and callbacks: the wait for a report after the end of its call, and which of them is applied first.

An end waits for an accepted report that it would lose, a report for the stored callback of the answer, and a refusal of
the number for any news of its call.
"""

from collections.abc import Sequence
from datetime import datetime

from scheduler.domain.attempt import Attempt, ConversationOutcome, Ended, Event, Reason
from scheduler.lifecycle import conversations, retries
from scheduler.lifecycle.conversations import ProofWait
from scheduler.lifecycle.policy import Policy
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.turn import Turn


class ReportFirst:
    """The end of the call must be applied later: an accepted report of its conversation would be refused after it."""


class NewsFirst(Exception):
    """The report must be applied later: news of its call may still say that it was answered."""

    def __init__(self, turn: Turn, to_poll: Attempt | None) -> None:
        super().__init__()
        self.received_at = turn.requested_at
        self.now = turn.now
        self.to_poll = to_poll
        """The attempt whose callbacks may be lost. None: a callback is stored."""


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


def is_accepted_unheard(turn: Turn, attempt: Attempt, outcome: ConversationOutcome) -> bool:
    """Return True if a report whose call was not answered, as far as is known, is accepted nevertheless.

    That is a refusal of the number, an hour after its receipt. False: it is refused. Raises NewsFirst while news of the
    call is awaited. The caller has locked the attempt before, as a worker does that applies a callback, so no stored
    one is missed. One in quarantine does not count.
    """
    may_wait = conversations.may_wait(turn.requested_at, turn.now)  # guard: report_waits_an_hour
    if may_wait and turn.stores.carrier_events.is_one_unheard(attempt.token or ""):  # guard: callback_first
        raise NewsFirst(turn, to_poll=None)
    if not conversations.may_be_unheard(attempt, outcome):
        return False
    if may_wait:
        raise NewsFirst(turn, to_poll=attempt)
    return True


def proof_waits(
    batch: Batch, attempt: Attempt, happened: Sequence[Event], now: datetime, policy: Policy
) -> ProofWait | None:
    """Let late proof wait for a report, if the company can report outcomes and a call may follow. None: it is written.

    The attempt stays one with a live call meanwhile: the interview is not invoked, and an operator cannot decide. An
    open attempt of the interview is not kept waiting. The proof replaces it.
    """
    wait = conversations.wait_for_report(attempt, happened, now, policy)
    if wait is None or not retries.may_call_back(batch.interviews[attempt.interview_id]):
        return None
    if not batch.may_report(attempt.company_id, now):  # guard: late_wait_with_a_key
        return None
    if batch.has_open(attempt.interview_id):  # guard: late_wait_alone
        return None
    return wait
