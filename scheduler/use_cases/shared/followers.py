"""Followers: the attempt that follows an ended one by itself, as a retry or at the time that the person named."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from scheduler.domain.attempt import Attempt, AttemptState, Cancelled, Reason
from scheduler.domain.call import Schedule, ScheduleWarning
from scheduler.domain.interview import Interview, InterviewStatus
from scheduler.hashing import Hasher
from scheduler.ids import new_id
from scheduler.lifecycle import conversations, retries
from scheduler.lifecycle.policy import Policy
from scheduler.use_cases.shared.batch import Batch, callee_from


class Followers:
    def __init__(self, hasher: Hasher, policy: Policy) -> None:
        self._hasher = hasher
        self._policy = policy

    def add(self, batch: Batch, ended: Attempt, actor: str, now: datetime) -> bool:
        """Create the attempt that follows `ended`. Return False if none follows."""
        interview = batch.interviews[ended.interview_id]
        calls_back = conversations.calls_back(ended)
        if not (calls_back or retries.is_retried(conversations.cause_of_retry(ended))):
            return False
        may_go_on = retries.may_call_back(interview) if calls_back else retries.may_go_on(interview)
        if not may_go_on or not batch.has_company(interview.id):
            return False
        if ended.reason is Reason.ANSWERED and batch.has_open(interview.id):  # guard: one_follows
            return True
        schedule, warnings = self._planned(batch, ended, interview, now, calls_back=calls_back)
        if schedule is None or not batch.takes_another_attempt(interview.id):
            return False
        number = callee_from(batch.callee_of(interview.id)).number
        assert number is not None
        number_hash = self._hasher.number(number.e164)
        chain = batch.chain_of(ended)
        if conversations.is_refused(chain, number_hash):  # guard: refused_in_chain
            return False
        if _was_invoked(chain) and conversations.is_refused_meanwhile(  # guard: refused_in_interview
            batch.refusals_of(interview.id), chain, number_hash
        ):
            return False
        following = _following(ended, schedule, number_hash, interview, now)
        if calls_back:
            following = replace(
                following,
                call_backs=ended.call_backs + 1,
                warnings=(*_lasting(following.warnings), *warnings),
            )
        batch.add(following, actor, retry_of=ended.id)
        return True

    def add_late(self, batch: Batch, proven: Attempt, actor: str, now: datetime) -> bool:
        """Create the call at the named time that follows from late proof. Return False if none follows.

        A newer call of the interview knows better what the person wants. A client or an operator may have decided that
        no call follows. A call that was found after the decision does not change that.
        """
        callee = callee_from(batch.callee_of(proven.interview_id))
        if not conversations.is_proven_in_time(proven, callee, now):  # guard: named_time_over
            return False
        with batch.stores.connection.beside():
            stored = batch.stores.attempts.find_of_interview(proven.interview_id)
            history = batch.stores.evidence.history(proven.id).happenings
        if any(map(retries.rules_out_call_back, retries.newer_than(proven, stored))):  # guard: newer_call
            return False
        if retries.was_left(history):  # guard: decided_outcome
            return False
        return self.add(batch, proven, actor, now)

    def cancel_refused(self, batch: Batch, returned: Attempt, actor: str, now: datetime) -> Attempt:
        """Cancel an attempt that has returned to PENDING if the person has opted out since it was planned. Return it.

        The report could not cancel it during its claim, and the next look permits another number. A client who invoked
        it after the opt-out has decided to call another number. Only retries and invoked attempts cost a statement.
        """
        interview = batch.interviews[returned.interview_id]
        refusals = batch.refusals_of(interview.id) if conversations.may_be_refused_meanwhile(returned) else ()
        if conversations.has_opted_out_since(refusals, returned.created_at):  # guard: returned_refused
            returned = batch.save(returned, Cancelled(reason=Reason.REPLACED), actor, now)
            batch.set_status(interview, InterviewStatus.FAILED, now, returned)
        return returned

    def _planned(
        self, batch: Batch, ended: Attempt, interview: Interview, now: datetime, *, calls_back: bool
    ) -> tuple[Schedule | None, tuple[ScheduleWarning, ...]]:
        callee = callee_from(batch.callee_of(interview.id))
        if calls_back:
            planned = conversations.next_call_back(ended, callee, interview.expires_at, now, self._policy)
            return planned or (None, ())
        chain = batch.chain_of(ended)
        return retries.next_attempt(ended, chain, callee, interview.expires_at, self._policy), ()


def _was_invoked(chain: Collection[Attempt]) -> bool:
    """Return whether the interview may have an earlier chain, of which a refusal may be reported late."""
    return any(each.manual for each in chain)


def _following(ended: Attempt, schedule: Schedule, number_hash: bytes, interview: Interview, now: datetime) -> Attempt:
    return Attempt(
        id=new_id(now),
        interview_id=interview.id,
        company_id=interview.company_id,
        chain_id=ended.chain_id,
        retry_number=ended.retry_number + 1,
        manual=False,
        state=AttemptState.PENDING,
        schedule=schedule,
        due_at=schedule.due_at,
        expires_at=interview.expires_at,
        number_hash=number_hash,
        warnings=tuple(each for each in ended.warnings if each is not ScheduleWarning.MOVED_BY_SETTINGS),
        created_at=now,
        updated_at=now,
        call_backs=ended.call_backs,
    )


def _lasting(warnings: tuple[ScheduleWarning, ...]) -> tuple[ScheduleWarning, ...]:
    """List the warnings that do not depend on the requested time."""
    return tuple(each for each in warnings if each is not ScheduleWarning.OFFSET_DIFFERS_FROM_PHONE_NUMBER)
