"""Races of a report with callbacks, the end of the wait, an invoke, a deletion and another report: one follows."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Progressed, Reason
from scheduler.domain.call import CallNews, CallProgress, CallStatus
from scheduler.domain.command import Command, DeleteInterview, InvokeAttempt, ReportOutcome, Request
from scheduler.domain.company import RetryPolicy
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.principal import KeyKind
from scheduler.persistence.errors import LockTaken
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.outcome_waits import OutcomeWaits
from scheduler.use_cases.submit import Submit
from tests.conftest import seed
from tests.support.builders import RecordingHints, Tenant, a_placed_attempt, of_company
from tests.verification.races.race_setup import RACES

TOMORROW_AT_SIX = "2026-04-03T18:00:00"
PARTIES = 4
Act = Callable[[], object]


class Race:
    """One answered call, and everything that may happen to it at once."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.attempt = tenant.take(a_placed_attempt(tenant), Progressed(rank=CallProgress.ANSWERED))
        self.hints = RecordingHints()
        self.refused_with: list[str | None] = []
        """The codes with which its reports were refused. None: stored."""

    def perform(self, request: Request) -> Command:
        tenant = self.tenant
        submit, apply = Submit(tenant.database, self.hints, tenant.now), Apply(tenant.context, self.hints)
        principal = tenant.principal
        command = submit.command(principal, None, request, idempotency_key=None, request_hash=b"hash").command
        while command.applied_at is None:
            # Another transaction may hold its rows. A later hint applies it.
            apply.command(command.id)
            command = submit.find(principal, str(command.id))
        return command

    def report(self, outcome: ConversationOutcome) -> None:
        at = TOMORROW_AT_SIX if outcome is ConversationOutcome.CALL_BACK else None
        answer = self.perform(
            ReportOutcome(
                interview_id=self.attempt.interview_id, attempt_id=self.attempt.id, outcome=outcome, call_back_at=at
            )
        ).answer
        assert answer is not None
        self.refused_with.append(None if answer.refusal is None else answer.refusal.code)

    def end(self) -> None:
        """Hear that the call has ended, and then callbacks that come late or again."""
        for status in (CallStatus.COMPLETED, CallStatus.ANSWERED, CallStatus.COMPLETED):
            self._hear(status)

    def _hear(self, status: CallStatus) -> None:
        """Hear the callback repeatedly while its rows are locked."""
        tenant = self.tenant
        while True:
            try:
                with tenant.database.transaction() as stores:
                    interview = stores.interviews.lock(self.attempt.interview_id)
                    attempt = stores.attempts.lock(self.attempt.id)
                    assert attempt.call_sid is not None
                    news = CallNews(
                        status=status,
                        call_sid=attempt.call_sid,
                        token=attempt.token,
                        duration=timedelta(seconds=30),
                    )
                    tenant.effects.hear(Batch(stores, [interview]), attempt, news, "a test", tenant.now())
            except LockTaken:
                continue
            return

    def end_wait(self) -> None:
        """End the wait as if its time were over."""
        later = self.tenant.policy.outcome_wait + timedelta(seconds=1)
        OutcomeWaits(replace(self.tenant.context, now=lambda: self.tenant.now() + later)).end()

    def attempts(self) -> Sequence[Attempt]:
        return self.tenant.attempts(self.attempt.interview_id)


@pytest.fixture
def voice(tenant: Tenant) -> Tenant:
    company = of_company(tenant, seed(tenant.database, tenant.now(), retry_policy=RetryPolicy()))
    Keys(company.database, company.hasher, company.now).create(
        kind=KeyKind.REGULAR, name="voice", company_id=company.company_id, scopes=frozenset({"voice"})
    )
    return company


def at_once(pool: ThreadPoolExecutor, acts: Sequence[Act]) -> list[Any]:
    barrier = Barrier(len(acts))

    def run(act: Act) -> object:
        barrier.wait()
        return act()

    return [each.result() for each in [pool.submit(run, act) for act in acts]]


RIVALS: Mapping[str, Callable[[Race], object]] = {
    "callbacks only": lambda race: race.end(),
    "an invoke": lambda race: race.perform(InvokeAttempt(interview_id=race.attempt.interview_id)),
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
