"""Races of a report with callbacks, the end of the wait, an invoke, a deletion and another report: one follows.

A refusal of the number that is reported late races with the claim of the planned retry, too: nothing rings after it.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from threading import Barrier
from typing import Any, TypeVar

import pytest

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Progressed, ProofMissing, Reason
from scheduler.domain.call import AnsweredBy, CallNews, CallProgress, CallStatus
from scheduler.domain.command import (
    Answer,
    Command,
    DeleteAttempt,
    DeleteInterview,
    InvokeAttempt,
    ReportOutcome,
    Request,
)
from scheduler.domain.company import RetryPolicy
from scheduler.domain.interview import InterviewStatus
from scheduler.persistence.errors import LockTaken
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.outcome_waits import OutcomeWaits
from scheduler.use_cases.submit import Submit
from tests.conftest import TestClock, seed
from tests.support.builders import ALWAYS, RecordingHints, Tenant, a_placed_attempt, a_voice_key, of_company
from tests.verification.races.race_setup import RACES

PARTIES = 5
_HINTS = 5
"""Hints that a dialler gets for an attempt. A claim skips locked rows and drops its hint."""
OPTED_OUT = ConversationOutcome.OPTED_OUT
Act = Callable[[], object]
T = TypeVar("T")


class Race:
    """One answered call, and everything that may happen to it at once."""

    def __init__(self, tenant: Tenant, answered_by: AnsweredBy | None = None) -> None:
        self.tenant = tenant
        answered = Progressed(rank=CallProgress.ANSWERED, answered_by=answered_by)
        self.attempt = tenant.take(a_placed_attempt(tenant), answered)
        self.hints = RecordingHints()
        self.refused_with: list[str | None] = []
        """The codes with which its reports were refused. None: stored."""
        self.opt_outs: list[tuple[float, Answer]] = []
        """When each report of an opt-out was accepted, and its answer."""
        self.permitted: list[float] = []
        """When each last look began that let a later attempt ring."""

    def perform(self, request: Request) -> Command:
        return self._applied(self._accepted(request))

    def _accepted(self, request: Request) -> Command:
        submit, principal = Submit(self.tenant.database, self.hints, self.tenant.now), self.tenant.principal
        accept = partial(submit.command, principal, None, request, idempotency_key=None, request_hash=b"hash")
        return unlocked(accept).command

    def _applied(self, command: Command) -> Command:
        """Apply a command. Another transaction may hold its rows, and a later hint applies it."""
        tenant = self.tenant
        submit, apply = Submit(tenant.database, self.hints, tenant.now), Apply(tenant.context, self.hints)
        while command.applied_at is None:
            apply.command(command.id)
            command = submit.find(tenant.principal, str(command.id))
        return command

    def report(self, outcome: ConversationOutcome) -> None:
        tomorrow_at_six = f"{self.tenant.now() + timedelta(days=1):%Y-%m-%d}T18:00:00"
        at = tomorrow_at_six if outcome is ConversationOutcome.CALL_BACK else None
        self._note(self.perform(self._reporting(outcome, at)))

    def opt_out(self) -> None:
        command = self._accepted(self._reporting(OPTED_OUT))
        accepted_at = monotonic()
        self.opt_outs.append((accepted_at, self._note(self._applied(command))))

    def _reporting(self, outcome: ConversationOutcome, at: str | None = None) -> ReportOutcome:
        interview_id, attempt_id = self.attempt.interview_id, self.attempt.id
        return ReportOutcome(interview_id=interview_id, attempt_id=attempt_id, outcome=outcome, call_back_at=at)

    def _note(self, command: Command) -> Answer:
        answer = command.answer
        assert answer is not None
        self.refused_with.append(None if answer.refusal is None else answer.refusal.code)
        return answer

    def claim(self) -> list[Attempt]:
        """Claim the pending attempts of the interview, as a dialler that has their hints."""
        query = "SELECT id FROM attempts WHERE interview_id = :interview_id AND id <> :id"
        later = self.tenant.ask(query, interview_id=self.attempt.interview_id, id=self.attempt.id)
        claims = unlocked(partial(self.tenant.dial.claim, [each.id for each in later]))
        return [each.attempt for each in claims.claimed]

    def look(self, claimed: Sequence[Attempt]) -> None:
        for each in claimed:
            unlocked(partial(self._look, each))

    def _look(self, claimed: Attempt) -> None:
        began_at = monotonic()
        if self.tenant.dial.last_look(claimed) is not None:
            self.permitted.append(began_at)

    def dial(self) -> None:
        for _ in range(_HINTS):
            self.look(self.claim())

    def end(self) -> None:
        """Hear that the call has ended, and then callbacks that come late or again."""
        for status in (CallStatus.COMPLETED, CallStatus.ANSWERED, CallStatus.COMPLETED):
            self._hear(status)

    def fall_back(self) -> None:
        """Hear that the voice server gave no instructions."""
        self._hear(CallStatus.ANSWERED, instructions_failed=True)

    def _hear(self, status: CallStatus, **facts: Any) -> None:
        unlocked(partial(self._hear_once, status, **facts))

    def _hear_once(self, status: CallStatus, **facts: Any) -> None:
        tenant = self.tenant
        with tenant.database.transaction() as stores:
            interview = stores.interviews.lock(self.attempt.interview_id)
            attempt = stores.attempts.lock(self.attempt.id)
            assert attempt.call_sid is not None
            news = CallNews(
                status=status,
                call_sid=attempt.call_sid,
                token=attempt.token,
                duration=timedelta(seconds=30),
                **facts,
            )
            tenant.effects.hear(Batch(stores, [interview]), attempt, news, "a test", tenant.now())

    def end_wait(self) -> None:
        """End the wait as if its time were over."""
        later = self.tenant.policy.outcome_wait + timedelta(seconds=1)
        OutcomeWaits(replace(self.tenant.context, now=lambda: self.tenant.now() + later)).end()

    def attempts(self) -> Sequence[Attempt]:
        return self.tenant.attempts(self.attempt.interview_id)


def unlocked(step: Callable[[], T]) -> T:
    """Repeat a step while another transaction has locked its rows."""
    while True:
        try:
            return step()
        except LockTaken:
            continue


@pytest.fixture
def voice(tenant: Tenant) -> Tenant:
    company = of_company(tenant, seed(tenant.database, tenant.now(), retry_policy=RetryPolicy()))
    a_voice_key(company)
    return company


def at_once(pool: ThreadPoolExecutor, acts: Sequence[Act]) -> list[Any]:
    barrier = Barrier(len(acts))

    def run(act: Act) -> object:
        barrier.wait()
        return act()

    return [each.result() for each in [pool.submit(run, act) for act in acts]]


RIVALS: Mapping[str, Callable[[Race], object]] = {
    "callbacks only": lambda race: race.end(),
    "an invoke": lambda race: invoke(race)(),
    "a deletion": lambda race: race.perform(DeleteInterview(interview_id=race.attempt.interview_id)),
    "another report": lambda race: race.report(ConversationOutcome.TECHNICAL),
}
"""Each race is one of a report with the callbacks of its call and the end of the wait. These take part in some."""


@pytest.mark.parametrize("rival", RIVALS)
def test_report_races_and_at_most_one_attempt_follows(voice: Tenant, rival: str) -> None:
    chosen = random.Random(RACES)
    results: Counter[str] = Counter()
    with ThreadPoolExecutor(PARTIES) as pool:
        for _ in range(RACES // len(RIVALS)):
            race = Race(voice)
            outcome = chosen.choice((ConversationOutcome.CALL_BACK, ConversationOutcome.SCREENED))
            acts: list[Act] = [partial(race.report, outcome), race.end, race.end_wait, partial(RIVALS[rival], race)]
            chosen.shuffle(acts)
            at_once(pool, acts)
            race.end_wait()
            race.end()
            results[judged(race)] += 1
    # After a deletion nothing follows any longer, whichever came first.
    assert results["deleted" if rival == "a deletion" else "followed"], results


def judged(race: Race) -> str:
    """Check what the race has left, and return the result of the report."""
    tenant = race.tenant
    first = tenant.attempt(race.attempt.id)
    later = [each for each in race.attempts() if each.id != first.id]
    assert (first.state, first.reason, first.outcome_until) == (AttemptState.COMPLETED, Reason.ANSWERED, None)
    booked = tenant.ask("SELECT count(*) FROM usage WHERE attempt_id = :id", id=first.id)
    assert booked[0][0] == 1
    history = tenant.history(first.id)
    assert history.count("reported") + history.count("not_reported") <= 1, history
    # An invoke after the decision replaces the attempt that followed.
    pending = [each for each in later if each.state is AttemptState.PENDING]
    assert {each.state for each in later} <= {AttemptState.PENDING, AttemptState.CANCELLED}
    status = tenant.interview(first.interview_id).status
    if first.outcome in {None, ConversationOutcome.FINISHED}:
        assert set(race.refused_with) <= {"OUTCOME_REPORTED", "RESOURCE_NOT_FOUND"}
        assert (status, later) in [(InterviewStatus.COMPLETED, []), (InterviewStatus.CANCELLED, [])]
        return "refused"
    assert race.refused_with.count(None) == 1, "one report is stored, and another one is refused"
    if status is InterviewStatus.CANCELLED:
        assert pending == []
        return "deleted"
    assert (status, len(pending), len(later) - len(pending) <= 1) == (InterviewStatus.SCHEDULED, 1, True)
    return "followed" if pending[0].chain_id == first.chain_id else "invoked"


# ---- refusals of the number that come late


_DELAY = timedelta(seconds=1)
Begin = Callable[[Tenant], Race]


def retried(tenant: Tenant) -> Race:
    """The carrier took the person for a machine, and a retry is due."""
    race = Race(tenant, AnsweredBy.MACHINE)
    race.end()
    return race


def given_up(tenant: Tenant) -> Race:
    """The end of the call is lost."""
    race = Race(tenant)
    tenant.take(race.attempt, ProofMissing())
    return race


def invoke(race: Race) -> Act:
    return partial(race.perform, InvokeAttempt(interview_id=race.attempt.interview_id))


def delete_retry(race: Race) -> Act:
    _, retry = race.attempts()
    return partial(race.perform, DeleteAttempt(interview_id=retry.interview_id, attempt_id=retry.id))


REFUSALS: Mapping[str, tuple[Begin, Callable[[Race], Sequence[Act]]]] = {
    "the claim of the retry": (retried, lambda race: [race.dial, race.end]),
    "the last look of the retry": (retried, lambda race: [partial(race.look, race.claim()), race.end]),
    "late callbacks": (given_up, lambda race: [race.end, race.dial]),
    "a late fallback": (Race, lambda race: [race.fall_back, race.end, race.dial]),
    "an invoke": (retried, lambda race: [invoke(race), race.dial]),
    "an invoke and a cancellation": (retried, lambda race: [invoke(race), delete_retry(race)]),
    "a named time": (Race, lambda race: [partial(race.report, ConversationOutcome.CALL_BACK), race.end]),
}
"""The state before each race, and what happens at once with the opt-out, which is reported twice."""


@pytest.mark.parametrize("kind", REFUSALS)
def test_late_opt_out_races_and_nothing_rings_after_it(tenant: Tenant, now: TestClock, kind: str) -> None:
    policy = RetryPolicy(delays={"VOICEMAIL": (_DELAY,)})
    voice = of_company(tenant, seed(tenant.database, tenant.now(), intervals=ALWAYS, retry_policy=policy))
    a_voice_key(voice)
    chosen, results = random.Random(RACES), Counter[str]()
    begin, rivals = REFUSALS[kind]
    with ThreadPoolExecutor(PARTIES) as pool:
        for _ in range(RACES // len(REFUSALS)):
            race = begin(voice)
            now.move(_DELAY)
            acts: list[Act] = [race.opt_out, race.opt_out, *rivals(race)]
            chosen.shuffle(acts)
            at_once(pool, acts)
            race.end()
            results[judged_refusal(race, now)] += 1
    assert set(results) <= RESULTS_OF.get(kind, {"cancelled"}), results


RESULTS_OF: Mapping[str, set[str]] = {
    "the claim of the retry": {"cancelled", "held", "rings"},
    "the last look of the retry": {"cancelled", "held", "rings"},
    "an invoke": {"cancelled", "held", "rings"},
    "an invoke and a cancellation": {"cancelled", "held"},
}
"""Possible states of the latest attempt after a race. One that was claimed first is on its way, or is put back
(and cancelled, if a look blocks it before the opt-out is applied)."""


def reports_of(race: Race) -> list[str]:
    query = "SELECT detail ->> 'outcome' AS outcome FROM attempt_history WHERE attempt_id = :id AND event = 'reported'"
    return [row.outcome for row in race.tenant.ask(query, id=race.attempt.id)]


def judged_refusal(race: Race, now: TestClock) -> str:
    """Check what the race has left, and that no attempt rings later. Return what the later attempts became."""
    first, *later = race.attempts()
    assert (first.id, first.outcome) == (race.attempt.id, OPTED_OUT)
    answers = [answer for _, answer in race.opt_outs]
    assert [each.refusal for each in answers] == [None, None], "an opt-out is always accepted"
    assert answers[0].snapshot == answers[1].snapshot, "the same report has the same answer"
    assert reports_of(race).count(OPTED_OUT) == 1
    accepted_at = min(at for at, _ in race.opt_outs)
    assert all(began_at < accepted_at for began_at in race.permitted), "a call was permitted after the report"
    is_open = [each for each in later if each.state in {AttemptState.PENDING, AttemptState.IN_PROGRESS}]
    assert len(is_open) <= 1
    is_ringing = bool(race.permitted)
    now.move(timedelta(days=1))
    race.dial()
    assert len(race.permitted) == is_ringing, "a call was permitted a day later"
    return "rings" if is_ringing else "held" if is_open else "cancelled"
