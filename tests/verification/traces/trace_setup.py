"""Player of traces in a scripted world, with the stored end of each call."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from scheduler.domain.attempt import Attempt, Phase, ProofMissing
from scheduler.domain.call import Accepted, AnswerUnknown
from scheduler.lifecycle.breaker import Breaker
from scheduler.lifecycle.state_machine import is_busy
from scheduler.use_cases.shared import hints as tasks
from tests.support.builders import a_claimed_attempt
from tests.verification.machine.scripted_carrier import ENDS, Leg
from tests.verification.machine.scripted_world import ScriptedWorld
from tests.verification.traces.trace import Answered, Callback, Kind, Poll, Trace

A_MOMENT = timedelta(seconds=1)
"""Time between two events."""
_FOR_YEARS = timedelta(days=3650)
_QUESTIONS = 20
"""Number of polls after which a call must be finished."""
_ENDS = """
    SELECT a.id, a.state, a.reason, a.answered_by, a.duration, a.heard_rank, a.call_sid, i.status,
        num_nonnulls(a.phase, a.look_at, a.lease_until, a.called_number, a.hang_up) > 0 AS is_expected,
        (SELECT ARRAY[event, from_state, to_state, reason] FROM attempt_history WHERE attempt_id = a.id
            ORDER BY id DESC LIMIT 1) AS last_arrow,
        (SELECT count(*) FROM attempt_history WHERE attempt_id = a.id AND event IN ('ended', 'proven')) AS times_ended,
        (SELECT coalesce(bool_or(rank <= before), false) FROM (
            SELECT (detail->>'rank')::int AS rank, lag((detail->>'rank')::int) OVER (ORDER BY id) AS before
            FROM attempt_history WHERE attempt_id = a.id AND event IN ('progressed', 'leg_seen')) AS heard
        ) AS went_back,
        l.attempt_id IS NOT NULL AS is_held, l.interview_id IS NOT DISTINCT FROM a.interview_id AS lets_its_own,
        l.free_at - a.ended_at AS rests,
        (SELECT array_agg(ARRAY[retry_number::text, state, reason, (due_at - a.ended_at)::text] ORDER BY retry_number)
            FROM attempts WHERE interview_id = a.interview_id AND id <> a.id) AS follows,
        (SELECT array_agg(ARRAY[billing_system, cost_key, talked::text]) FROM usage WHERE attempt_id = a.id) AS usage,
        (SELECT count(*) FROM carrier_events JOIN attempt_tokens USING (token)
            WHERE attempt_id = a.id AND heard_at IS NULL) AS unheard
    FROM attempts a JOIN interviews i ON i.id = a.interview_id JOIN lines l ON l.number_hash = a.number_hash
"""


@dataclass(frozen=True, kw_only=True)
class End:
    """All stored data of a finished call. Spans count from its end."""

    state: str
    reason: str | None
    answered_by: str | None
    duration: timedelta | None
    heard_rank: int
    is_expected: bool
    """A phase, a poll, a lease, a called number or a hang-up is still stored."""
    is_the_right_call: bool
    last_arrow: tuple[str, ...]
    times_ended: int
    """Number of arrows that gave its end. The verdict that the outcome is unknown does not count."""
    went_back: bool
    """Known progress was recorded again as new."""
    interview: str
    line: tuple[Any, ...]
    """Held by an attempt, free at once for its own interview, and the span for which others wait."""
    follows: tuple[tuple[Any, ...], ...]
    """Other attempts of its interview: retry number, state, reason, and the span until they are due."""
    usage: tuple[tuple[Any, ...], ...]
    unheard: int


@dataclass
class TraceSetup(ScriptedWorld):
    calls: dict[UUID, str] = field(default_factory=dict)
    """The call SID of each played attempt."""
    callbacks: int = 0
    """Number of delivered callbacks."""
    questions: int = 0

    def play(self, kind: Kind, trace: Trace) -> UUID:
        """Dial, follow the trace, poll until the call is finished, and return the attempt's id."""
        self.now.move(A_MOMENT)
        attempt = a_claimed_attempt(self.tenant, expires_at=self.now() + _FOR_YEARS)
        order = self.tenant.dial.last_look(attempt)
        assert order is not None
        leg = self.carrier.ring(order, self.now(), is_listed=not kind.given_up)
        if kind.given_up:
            self._record(attempt, None)
            self.now.move(self.tenant.policy.settle)
            self.tenant.take(attempt, ProofMissing())
        for step in trace:
            self.now.move(A_MOMENT)
            match step:
                case Callback():
                    self._comes_to(leg, kind, step.way)
                    self._tell(step)
                case Poll():
                    self._comes_to(leg, kind, step.way)
                    self._ask(attempt)
                case Answered():
                    self._record(attempt, None if step.is_lost else leg.sid)
        self._comes_to(leg, kind, kind.last)
        for _ in range(_QUESTIONS):
            if not self._ask(attempt):
                break
        self.carrier.callbacks.clear()
        del self.carrier.legs[leg.sid]
        self.calls[attempt.id] = leg.sid
        return attempt.id

    def _comes_to(self, leg: Leg, kind: Kind, way: int) -> None:
        """Advance the call to this status change, never back."""
        ways = ENDS[kind.end]
        while len(self.carrier.callbacks) <= way:
            self.carrier.goes_on(self.carrier.legs[leg.sid], ways[len(self.carrier.callbacks)], self.now())

    def _tell(self, step: Callback) -> None:
        self.callbacks += 1
        callback = self.carrier.callbacks[step.way]
        if step.is_distinct:
            callback = replace(callback, form=(*callback.form, ("Addition", str(self.callbacks))))
        self.hints.rung.clear()
        self.deliver(callback)
        for event_id in self.hints.ids(tasks.HEAR):
            for _ in range(2 if step.is_distinct else 1):  # a hint may arrive twice
                self.hear.event(event_id)

    def _record(self, attempt: Attempt, sid: str | None) -> None:
        """Record the answer to the POST. Without a SID the outcome is unknown."""
        answer = AnswerUnknown(cause="A_TRACE") if sid is None else Accepted(call_sid=sid)
        self.tenant.dial.record([(attempt, answer)])
        if sid is None:
            # In production, other calls would close the breaker. Close it here, so that the next trace need not wait.
            with self.database.transaction() as stores:
                stores.carrier_accounts.lock(self.tenant.account_id)
                stores.carrier_accounts.set_breaker(self.tenant.account_id, Breaker(), self.now())
                stores.backoffs.save(self.tenant.account_id, {}, self.now())

    def _ask(self, attempt: Attempt) -> bool:
        """Wait for the next poll and run it. Return False when the attempt no longer waits for the carrier."""
        present = self.tenant.attempt(attempt.id)
        if not is_busy(present):
            return False
        due_at = present.lease_until if present.phase is Phase.DIALLING else present.look_at
        assert due_at is not None
        self.now.instant = max(self.now(), due_at)
        self.questions += 1
        self.settle.round()
        return True

    # ---- results

    def ends(self) -> dict[UUID, End]:
        """Return the stored end of each played call."""
        return {row.id: self._end(row) for row in self.tenant.ask(_ENDS) if row.id in self.calls}

    def _end(self, row: Any) -> End:
        return End(
            state=row.state,
            reason=row.reason,
            answered_by=row.answered_by,
            duration=row.duration,
            heard_rank=row.heard_rank,
            is_expected=row.is_expected,
            is_the_right_call=row.call_sid == self.calls[row.id],
            last_arrow=tuple(row.last_arrow),
            times_ended=row.times_ended,
            went_back=row.went_back,
            interview=row.status,
            line=(row.is_held, row.lets_its_own, row.rests),
            follows=tuple(tuple(each) for each in row.follows or ()),
            usage=tuple(tuple(each) for each in row.usage or ()),
            unheard=row.unheard,
        )

    def troubles(self) -> list[Any]:
        """Return what no trace may cause: a company paused by an alarm, or a stray call."""
        return [
            *self.tenant.ask("SELECT pause_reason FROM companies WHERE pause_reason IS NOT NULL"),
            *self.tenant.ask("SELECT call_sid FROM stray_calls"),
        ]
