"""Traces played over the real stores, with the stored end of each call."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from scheduler.domain.attempt import Attempt, Phase, ProofMissing
from scheduler.domain.call import Accepted, AnswerUnknown
from scheduler.lifecycle.breaker import Breaker
from scheduler.lifecycle.state_machine import is_busy
from scheduler.use_cases.shared import hints as tasks
from tests.support.builders import a_claimed_attempt
from tests.verification.carrier.scripted import Callback
from tests.verification.traces.play import FOR_YEARS, Play
from tests.verification.traces.trace import Kind, Outcome, Trace
from tests.verification.world.scripted_world import ScriptedWorld

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
class End(Outcome):
    """All stored data of a finished call. Spans count from its end."""

    interview: str
    line: tuple[Any, ...]
    """Held by an attempt, free at once for its own interview, and the span for which others wait."""
    follows: tuple[tuple[Any, ...], ...]
    """Other attempts of its interview: retry number, state, reason, and the span until they are due."""
    usage: tuple[tuple[Any, ...], ...]
    unheard: int


@dataclass
class StoredCall(Play):
    """A call whose attempt is stored."""

    world: ScriptedWorld
    attempt: Attempt

    def tell(self, callback: Callback, *, twice: bool) -> None:
        self.world.hints.rung.clear()
        self.world.deliver(callback)
        for event_id in self.world.hints.ids(tasks.HEAR):
            for _ in range(2 if twice else 1):
                self.world.hear.event(event_id)

    def record(self, sid: str | None) -> None:
        answer = AnswerUnknown(cause="A_TRACE") if sid is None else Accepted(call_sid=sid)
        self.world.tenant.dial.record([(self.attempt, answer)])
        if sid is None:
            # In production, other calls would close the breaker. Close it here, so that the next trace need not wait.
            account_id, now = self.world.tenant.account_id, self.now()
            with self.world.database.transaction() as stores:
                stores.carrier_accounts.lock(account_id)
                stores.carrier_accounts.set_breaker(account_id, Breaker(), now)
                stores.backoffs.save(account_id, {}, now)

    def give_up(self) -> None:
        self.now.move(self.world.tenant.policy.settle)
        self.world.tenant.take(self.attempt, ProofMissing())

    def ask(self) -> bool:
        present = self.world.tenant.attempt(self.attempt.id)
        if not is_busy(present):
            return False
        due_at = present.lease_until if present.phase is Phase.DIALLING else present.look_at
        assert due_at is not None
        self.now.instant = max(self.now(), due_at)
        self.world.settle.round()
        return True


@dataclass
class TraceSetup(ScriptedWorld):
    calls: dict[UUID, str] = field(default_factory=dict)
    """The call SID of each played attempt."""

    def play(self, kind: Kind, trace: Trace) -> UUID:
        """Play a trace and return the attempt's id."""
        self.now.move(timedelta(seconds=1))
        attempt = a_claimed_attempt(self.tenant, expires_at=self.now() + FOR_YEARS)
        order = self.tenant.dial.last_look(attempt)
        assert order is not None
        call = StoredCall(self.now, self.carrier, self, attempt)
        self.calls[attempt.id] = call.play(kind, trace, order)
        self.carrier.callbacks.clear()
        del self.carrier.legs[self.calls[attempt.id]]
        return attempt.id

    # ---- results

    def ends(self) -> dict[UUID, End]:
        """Read the stored end of each played call."""
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
        """List what no trace may cause: a company paused by an alarm, or a stray call."""
        return [
            *self.tenant.ask("SELECT pause_reason FROM companies WHERE pause_reason IS NOT NULL"),
            *self.tenant.ask("SELECT call_sid FROM stray_calls"),
        ]
