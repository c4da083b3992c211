"""Effects of an event on an attempt's line, its interview and its retry, saved in the caller's transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from scheduler.domain import attempt as events
from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Event, HangUpCause, Reason
from scheduler.domain.call import CallNews, CallProgress, Schedule
from scheduler.domain.company import ALARM
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import Interview, InterviewStatus
from scheduler.domain.refusals import TimezoneUnknown
from scheduler.hashing import Hasher
from scheduler.lifecycle import conversations, decisions, partner_events, retries, scheduling, settling
from scheduler.lifecycle.backoffs import NO_COUNTRY
from scheduler.lifecycle.breaker import NUMBER_BLOCKED
from scheduler.lifecycle.decisions import Alarm, AskTheCarrier
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.scheduling import Callee
from scheduler.lifecycle.state_machine import REFUSALS, has_live_leg, is_busy, is_over
from scheduler.logs import log
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.persistence.unknown_outcomes import StrayCall
from scheduler.rules import pricing, reputation
from scheduler.timing.callee_zones import number_facts
from scheduler.use_cases.shared import report_order
from scheduler.use_cases.shared.alarms import raise_in
from scheduler.use_cases.shared.batch import Batch, callee_from
from scheduler.use_cases.shared.followers import Followers

_log = log(__name__)


class InvariantViolated(Exception):
    """An invariant was violated. Rolls back the caller's transaction, which has locked an attempt.

    `Effects.pause_for_alarm` then pauses the company in a new transaction: companies are locked before attempts.
    """

    def __init__(self, alarm: Alarm, attempt: Attempt) -> None:
        super().__init__(alarm.cause)
        self.alarm = alarm
        self.attempt = attempt


@dataclass(kw_only=True)
class _Change:
    """An attempt before and after its events, within the caller's transaction."""

    batch: Batch
    before: Attempt
    attempt: Attempt
    events: Sequence[Event]
    actor: str
    now: datetime

    @property
    def stores(self) -> Stores:
        return self.batch.stores

    @property
    def interview(self) -> Interview:
        return self.batch.interviews[self.attempt.interview_id]

    @property
    def has_company(self) -> bool:
        """Return True if the company has not been deleted."""
        return self.batch.has_company(self.attempt.interview_id)

    def save(self, event: Event) -> None:
        self.attempt = self.batch.save(self.attempt, event, self.actor, self.now)

    def lost_its_cause(self) -> bool:
        return self.attempt.cause_is_lost and not self.before.cause_is_lost

    def got_no_instructions(self) -> bool:
        """Return True if it became known that the call got no instructions."""
        return self.attempt.instructions_failed and not self.before.instructions_failed

    def is_named_late(self) -> bool:
        """Return True if the carrier has named a call that is in progress."""
        return self._has(events.Placed, events.LegSeen) and is_busy(self.attempt)

    def left_its_line(self) -> bool:
        return is_busy(self.before) and not is_busy(self.attempt)

    def ended_again(self) -> bool:
        """Return True if a call ended, as news or proof shows, after its attempt was given up."""
        awaits_verdict = self._has(events.VerdictAwaited) and is_over(self.attempt)
        return awaits_verdict or (self._has(events.Proven) and not self.left_its_line())

    def number_is_blocked(self) -> bool:
        return any(isinstance(event, events.NotPlaced) and event.cause == NUMBER_BLOCKED for event in self.events)

    def returned_to_pending(self) -> bool:
        return self.before.state is AttemptState.IN_PROGRESS and self.attempt.state is AttemptState.PENDING

    def is_ended(self) -> bool:
        return is_over(self.attempt)

    def is_answered(self) -> bool:
        return self.attempt.reason is Reason.ANSWERED and self.before.reason is not Reason.ANSWERED

    def has_just_ended_answered(self) -> bool:
        return self._has(events.Ended) and self.is_answered()

    def is_reported(self) -> bool:
        """Return True if the outcome of an answered call that has ended was reported."""
        return self._has(events.Reported) and is_over(self.attempt)

    def refuses_number(self) -> bool:
        """Return True if it was reported after the call that its number is not to be called again."""
        return self.is_reported() and self.attempt.outcome in REFUSALS

    def proves_call_back(self) -> bool:
        """Return True if it is proven late that a call was answered whose person has named another time."""
        return self._has(events.Proven) and conversations.calls_back(self.attempt)

    def is_live_or_proven(self) -> bool:
        return self._has(events.LegSeen, events.Proven)

    def is_finished(self) -> bool:
        return is_over(self.attempt) and not has_live_leg(self.attempt)

    def _has(self, *kinds: type) -> bool:
        return any(isinstance(event, kinds) for event in self.events)


class Effects:
    """Saves the events of an attempt together with their effects.

    The caller has locked the interview and then the attempt.
    """

    def __init__(self, database: Database, hasher: Hasher, policy: Policy, now: Callable[[], datetime]) -> None:
        self._database = database
        self._followers = Followers(hasher, policy)
        self._hasher = hasher
        self._policy = policy
        self._now = now

    def pause_for_alarm(self, alarmed: InvariantViolated) -> None:
        """Run `pause_for_alarm_in` in a new transaction, also on a wrong clock. Raises DatabaseAway."""
        with self._database.transaction(corrected=True) as stores:
            self.pause_for_alarm_in(stores, alarmed, stores.instant(self._now))

    def pause_for_alarm_in(self, stores: Stores, alarmed: InvariantViolated, now: datetime) -> None:
        """Pause the company until an operator resumes it, and track its stray calls.

        An unanswered stray call is cancelled. Their number is blocked until all stray calls have ended.
        """
        alarm, attempt = alarmed.alarm, alarmed.attempt
        if stores.companies.pause(attempt.company_id, f"{ALARM}{alarm.cause}", now):
            paused = partner_events.of_pause(attempt.company_id, Rule.COMPANY_PAUSED, now)
            stores.events.note([paused])
        strays = sorted({sid for sid in (alarm.stray_sid, *alarm.live_sids) if sid is not None})
        for sid in strays:
            stores.stray_calls.add(StrayCall(call_sid=sid, attempt_id=attempt.id, seen_at=now))
        if strays and attempt.number_hash is not None:
            stores.lines.block_until(attempt.number_hash, now + self._policy.line_gap)
        raise_in(stores, alarm.cause, now, attempt_id=attempt.id, company_id=attempt.company_id)
        _log.error(
            "company_paused: an invariant was violated, so the company is paused until an operator resumes it",
            alarm=alarm.cause,
            is_stored=True,
            attempt_id=str(attempt.id),
            company_id=str(attempt.company_id),
        )

    def track_stray(self, stray: StrayCall, news: CallNews | None) -> None:
        """Block the number of a stray call until the call has ended. `news` is the carrier's answer, if any.

        Raises DatabaseAway.
        """
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            next_poll_at = settling.next_stray_poll_at(stray.seen_at, news, now, self._policy)
            attempt = stores.attempts.find(stray.attempt_id)
            # The called number, even if the candidate's number has changed since.
            called_hash = self._hasher.number(news.to) if news is not None and news.to else None
            number_hash = called_hash or (attempt.number_hash if attempt is not None else None)
            if number_hash is not None:
                stores.lines.block_until(number_hash, (next_poll_at or now) + self._policy.line_gap)
            if next_poll_at is None:
                stores.stray_calls.ended(stray.call_sid)
            else:
                stores.stray_calls.reschedule_poll(stray.call_sid, next_poll_at)

    def hear(
        self, batch: Batch, attempt: Attempt, news: CallNews, actor: str, now: datetime
    ) -> Attempt | AskTheCarrier | report_order.ReportFirst:
        """Apply the carrier's news to the attempt. Raises InvariantViolated."""
        # Only for news that needs it: parsing a number takes longer than everything else here.
        needs_callee = attempt.reason is None and news.is_about_queue
        callee = callee_from(batch.callee_of(attempt.interview_id)) if needs_callee else None
        heard = decisions.on_news(attempt, news, callee, now, self._policy)
        if isinstance(heard, Alarm):
            raise InvariantViolated(heard, attempt)
        if isinstance(heard, AskTheCarrier):
            return heard
        if report_order.report_comes_first(batch, attempt, heard, now):
            return report_order.ReportFirst()
        wait = report_order.proof_waits(batch, attempt, heard, now, self._policy)
        if wait is not None:  # guard: late_report
            return self._wait_for_report(batch, attempt, wait, actor, now)
        return self.apply_events(batch, attempt, heard, actor, now)

    def _wait_for_report(
        self, batch: Batch, attempt: Attempt, wait: conversations.ProofWait, actor: str, now: datetime
    ) -> Attempt:
        if not wait.events and attempt.look_at != wait.look_at:
            batch.stores.attempt_polls.reschedule_poll(attempt.id, attempt.epoch, wait.look_at)
        return self.apply_events(batch, attempt, wait.events, actor, now)

    def apply_events(
        self, batch: Batch, attempt: Attempt, happened: Sequence[Event], actor: str, now: datetime
    ) -> Attempt:
        """Save the events that `happened` with their effects on line, interview and retry. Return the attempt.

        News may cause no event. Then nothing follows: a late callback must not end the wait for a report.
        Raises InvariantViolated.
        """
        if not happened:  # guard: nothing_happened
            return attempt
        change = _Change(batch=batch, before=attempt, attempt=attempt, events=happened, actor=actor, now=now)
        for event in happened:
            change.save(self._of_chain(change, event))
            if isinstance(event, events.LegSeen):  # guard: late_line
                self._hold_line(change)
        for applies, effect in self._EFFECTS:
            if applies(change):
                effect(self, change)
        return change.attempt

    def _of_chain(self, change: _Change, event: Event) -> Event:
        """Name the end INVALID_NUMBER if its number was unreachable in an earlier attempt of the chain, too."""
        if not isinstance(event, events.Ended | events.Proven) or event.reason is not Reason.UNREACHABLE:
            return event
        is_second = retries.is_second_unreachable(change.attempt, change.batch.chain_of(change.attempt))
        return replace(event, reason=Reason.INVALID_NUMBER) if is_second else event

    def _note_without_instructions(self, change: _Change) -> None:
        change.batch.without_instructions.append(change.attempt)

    def _report_lost_cause(self, change: _Change) -> None:
        """Raise an alarm for a call that failed without a known cause. It is not retried, and a person decides."""
        _log.error(
            "call_failed_without_cause: the carrier named no cause for a failed call, so no retry follows",
            alarm="CAUSE_LOST",
            attempt_id=str(change.attempt.id),
            company_id=str(change.attempt.company_id),
        )

    def _hold_line(self, change: _Change) -> None:
        attempt = change.attempt
        assert attempt.number_hash is not None
        if not change.stores.lines.hold(attempt.number_hash, attempt.id):
            # Another attempt is calling this number at the same time: two legs to one phone.
            assert attempt.call_sid is not None
            stray, live = (
                (attempt.call_sid, ()) if attempt.heard_rank < CallProgress.ANSWERED else (None, (attempt.call_sid,))
            )
            raise InvariantViolated(Alarm(cause="TWO_CALLS_TO_ONE_NUMBER", stray_sid=stray, live_sids=live), attempt)

    def _end_for_deleted_company(self, change: _Change) -> None:
        """Request the end of a call that the carrier names only now, if its company has been deleted."""
        if not change.has_company:
            change.save(events.HangUpWanted(cause=HangUpCause.COMPANY_DELETED))

    def _start_gap(self, change: _Change) -> None:
        """Start the gap between calls now, because the end of a call was proven after the attempt was given up."""
        attempt, lines = change.attempt, change.stores.lines
        assert attempt.number_hash is not None
        if lines.hold(attempt.number_hash, attempt.id):
            self._free_line(change)
        else:
            # The attempt that holds the line may not have been sent yet: its last look sees this block.
            lines.block_until(attempt.number_hash, change.now + self._policy.line_gap)

    def _rest_line(self, change: _Change) -> None:
        """Let the line rest whose number the carrier blocks. Two of a country count as a refused country."""
        number_hash = change.before.number_hash
        assert number_hash is not None
        number = callee_from(change.batch.callee_of(change.attempt.interview_id)).number
        is_called = number is not None and self._hasher.number(number.e164) == number_hash
        country = (number.region or NO_COUNTRY) if number is not None and is_called else None
        change.stores.lines.refused(number_hash, country, change.now, change.now + self._policy.line_gap)

    def _free_line(self, change: _Change) -> None:
        stores, attempt = change.stores, change.attempt
        if not is_over(attempt) or (attempt.call_sid is None and attempt.reason is not Reason.OUTCOME_UNKNOWN):
            stores.lines.give_back(attempt.id)
            return
        if attempt.search_at is not None:
            stores.attempt_polls.forget_number_of_erased(attempt.id)
        # After an unknown outcome the same interview waits too, because that phone may still be ringing.
        same = None if attempt.reason is Reason.OUTCOME_UNKNOWN else attempt.interview_id
        if attempt.hung_up_at is not None and has_live_leg(change.before):  # guard: gap_of_live_call
            same = attempt.interview_id  # it was live, and has ended
        free_at = settling.line_free_at(attempt, change.now, self._policy)
        stores.lines.start_gap(attempt.id, same, change.now, free_at)

    def _on_returned_to_pending(self, change: _Change) -> None:
        """Refresh an attempt that returned to PENDING, or cancel it if its interview has ended or it was refused."""
        interview = change.interview
        if change.has_company and retries.may_go_on(interview):
            change.attempt = self._followers.cancel_refused(change.batch, change.attempt, change.actor, change.now)
            if change.attempt.state is AttemptState.PENDING:
                self._refresh_schedule(change)
            return
        if not change.has_company:
            reason = Reason.COMPANY_DELETED
        elif interview.deleted_at is not None:
            reason = Reason.INTERVIEW_DELETED
        elif interview.status is InterviewStatus.CANCELLED:
            is_erased = callee_from(change.batch.callee_of(interview.id)).number is None
            # Otherwise its batch was cancelled.
            reason = Reason.CANDIDATE_DELETED if is_erased else Reason.CANCELLED_BY_USER
        else:  # an earlier call has reached the candidate after all
            reason = Reason.REPLACED
        change.save(events.Cancelled(reason=reason))

    def _refresh_schedule(self, change: _Change) -> None:
        """Reschedule after a change of number or zone, which skips attempts in progress."""
        attempt, callee = change.attempt, callee_from(change.batch.callee_of(change.attempt.interview_id))
        if callee.number is None:
            return  # the last look blocks it
        try:
            same_clock = scheduling.present_clock(attempt, callee) == attempt.schedule.clock
        except TimezoneUnknown:
            same_clock = True  # the last look blocks it
        if same_clock and self._hasher.number(callee.number.e164) == attempt.number_hash:
            return
        schedule = None if same_clock else scheduling.recomputed_schedule(attempt, callee, change.now, self._policy)
        change.attempt = self.move(change.stores, attempt, schedule, callee, change.now)
        change.batch.keep(change.attempt)

    def _count_for_caller(self, change: _Change) -> None:
        """Count the end of a call for the caller id that it was placed from."""
        result = reputation.result_of(change.before, change.attempt, change.interview.caller_number)
        if result is not None:
            change.stores.caller_days.add(result)

    def _book(self, change: _Change) -> None:
        """Book an answered call when it ends, with the company's current billing unit and prices."""
        interview, billing = change.interview, change.batch.billing_of(change.attempt.company_id, change.now)
        change.stores.usage.book(pricing.booking_of(change.attempt, interview, billing, change.now))

    def _cancel_successor(self, change: _Change) -> None:
        """Cancel the pending successor: this call turned out to be live, or to have finished the conversation."""
        if not has_live_leg(change.attempt) and conversations.is_unfinished(change.attempt):
            return
        successor = change.batch.lock_open(change.attempt.interview_id)
        if successor is not None and successor.state is AttemptState.PENDING:
            change.batch.save(successor, events.Cancelled(reason=Reason.REPLACED), change.actor, change.now)

    def _cancel_refused(self, change: _Change) -> None:
        """Cancel the interview's pending attempt to a number that is not to be called again."""
        pending, attempt = change.batch.lock_open(change.attempt.interview_id), change.attempt
        if pending is None or pending.state is not AttemptState.PENDING:
            return
        # After WRONG_PERSON the candidate may be called at another number.
        if attempt.outcome is ConversationOutcome.OPTED_OUT or pending.number_hash == attempt.number_hash:
            change.batch.save(pending, events.Cancelled(reason=Reason.REPLACED), change.actor, change.now)

    def _settle_interview(self, change: _Change) -> None:
        """Create the automatic retry if one follows, and set the interview's status.

        It waits for the report of an answered call, if the company can report outcomes.
        """
        if self._await_report(change):
            return
        interview, attempt = change.interview, change.attempt
        has_ended = not is_over(change.before) and all(
            each.cause_is_known for each in change.events if isinstance(each, events.Ended)
        )
        retried = has_ended or change.is_reported()
        goes_on = retried and self._followers.add(change.batch, attempt, change.actor, change.now)
        if change.proves_call_back():  # guard: late_call_back
            goes_on = self._followers.add_late(change.batch, attempt, change.actor, change.now)
        if not goes_on and conversations.is_unfinished(attempt):
            goes_on = change.batch.has_open(interview.id)
        status = retries.status_after(interview.status, attempt, goes_on=goes_on)
        if status is not interview.status:
            change.batch.set_status(interview, status, change.now, attempt)

    def _await_report(self, change: _Change) -> bool:
        """Wait for the report of an answered call that has just ended. Return True if its outcome is awaited."""
        if not change.has_just_ended_answered():
            return False
        if not report_order.may_be_reported(change.batch, change.attempt, change.now):
            return False
        change.save(events.OutcomeAwaited(until=change.now + self._policy.outcome_wait))
        return True

    _EFFECTS = (
        (_Change.lost_its_cause, _report_lost_cause),
        (_Change.got_no_instructions, _note_without_instructions),
        (_Change.is_named_late, _end_for_deleted_company),  # guard: company_gone
        (_Change.left_its_line, _free_line),
        (_Change.ended_again, _start_gap),
        (_Change.number_is_blocked, _rest_line),
        (_Change.returned_to_pending, _on_returned_to_pending),
        (_Change.is_ended, _count_for_caller),
        (_Change.is_answered, _book),
        (_Change.is_live_or_proven, _cancel_successor),  # guard: successor
        (_Change.refuses_number, _cancel_refused),  # guard: refused_number
        (_Change.is_finished, _settle_interview),
    )
    """What follows from a change, in this order. Each row sees what the rows before it saved."""

    def move(
        self,
        stores: Stores,
        attempt: Attempt,
        schedule: Schedule | None,
        callee: Callee,
        now: datetime,
        cause: str | None = None,
    ) -> Attempt:
        """Move a pending attempt to another time or number after changed settings.

        Without `schedule` it keeps its schedule and due time. `cause` is written to the history for other causes.
        """
        assert callee.number is not None
        number_hash = self._hasher.number(callee.number.e164)
        stores.lines.ensure(number_hash)
        event = events.MovedBySettings(
            schedule=schedule or _with_number(attempt.schedule, callee),
            due_at=schedule.due_at if schedule else attempt.due_at,
            number_hash=number_hash,
            cause=cause,
        )
        moved = stores.attempts.save(attempt, event, "settings", now)
        stores.notify_if_due_soon(event.due_at, now)
        return moved

    def note_number(self, stores: Stores, attempt: Attempt, callee: Callee) -> None:
        """Store changed facts about the number of a pending attempt that is not moved. No event happens to it."""
        schedule = _with_number(attempt.schedule, callee)
        if schedule != attempt.schedule:
            stores.schedule_recomputations.note_schedule(attempt.id, schedule)


def _with_number(schedule: Schedule, callee: Callee) -> Schedule:
    facts = number_facts(schedule.clock, callee.number, callee.timezone)
    return replace(schedule, number=facts or schedule.number)
