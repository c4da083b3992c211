"""Races between a caller and a dialler: the caller's answer is true, and no phone rings early, afterwards or twice."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from scheduler.domain.attempt import Attempt
from tests.verification.judge.history import History, Verb
from tests.verification.races.race_setup import RACES, a_race_setup

FULL = 400
"""More attempts than a dialler can check within 200 ms."""
ANSWER_S = 0.2
"""The time that the overloaded dialler's carrier takes for each answer."""
Say = Callable[[str], None]
MOVE_OR_DELETE = pytest.mark.parametrize("verb", [Verb.MOVE, Verb.DELETE])


def rung(history: History, attempts: Sequence[Attempt]) -> int:
    return sum(len(history.rings_of.get(attempt.id, ())) for attempt in attempts)


@MOVE_OR_DELETE
def test_attempt_changed_while_dialled_rings_or_is_changed(postgres_url: str, verb: Verb, aloud: Say) -> None:
    with a_race_setup(postgres_url, aloud) as setup:
        attempts = setup.some_attempts(RACES)
        dialler_won = setup.run(attempts, setup.move if verb is Verb.MOVE else setup.delete)
        setup.hint_again(attempts)
        history = setup.judged(verb, attempts, dialler_won)
        assert rung(history, attempts) == dialler_won


def test_attempt_replaced_while_dialled_or_its_successor_rings(postgres_url: str, aloud: Say) -> None:
    with a_race_setup(postgres_url, aloud) as setup:
        attempts = setup.some_attempts(RACES)
        dialler_won = setup.run(attempts, setup.invoke)
        made = [asked.attempt_id for asked in setup.asked if asked.verb is Verb.INVOKE and asked.attempt_id]
        setup.release_until_all_rang()
        history = setup.judged("invoke", attempts, dialler_won)
        rings = Counter(row.interview_id for row in history.attempts for _ in history.rings_of.get(row.id, ()))
        assert {rings[attempt.interview_id] for attempt in attempts} == {1}
        assert rung(history, attempts) == dialler_won == len(attempts) - len(made)


def test_attempt_paused_while_dialled_rings_before_or_after(postgres_url: str, aloud: Say) -> None:
    with a_race_setup(postgres_url, aloud) as setup:
        attempts = setup.one_attempt_each(RACES)
        dialler_won = setup.run(attempts, setup.pause)
        setup.settle_down()
        waiting = setup.count("state = 'PENDING'")
        setup.hint_again(attempts)
        setup.settle_down()
        assert setup.count("state = 'PENDING'") == waiting, "no attempt is claimed during a pause"
        for attempt in attempts:
            setup.resume(attempt)
        setup.release_until_all_rang()
        history = setup.judged("pause", attempts, dialler_won)
        assert rung(history, attempts) == len(attempts)
        deferred = [row for row in history.attempts if any(each.event == "deferred" for each in row.happenings)]
        assert deferred, "a pause between a claim and its last look defers the attempt"


@MOVE_OR_DELETE
def test_no_phone_rings_after_acceptance_without_a_worker(postgres_url: str, verb: Verb, aloud: Say) -> None:
    with a_race_setup(postgres_url, aloud, workers_run=False) as setup:
        attempts = setup.some_attempts(RACES)
        dialler_won = setup.run(attempts, setup.move if verb is Verb.MOVE else setup.delete)
        setup.hint_again(attempts)
        history = setup.judged(f"{verb}, no workers", attempts, dialler_won)
        assert rung(history, attempts) == dialler_won
        assert {asked.told.status for asked in setup.asked} == {202, 409}
        setup.let_the_workers_run()
        setup.hint_again(attempts)
        history = setup.judged(f"{verb}, applied afterwards", attempts, dialler_won)
        assert rung(history, attempts) == dialler_won
        assert {asked.outcome.status for asked in setup.asked} == {204, 409}


def test_no_phone_rings_after_an_operator_cancelled_its_call(postgres_url: str, aloud: Say) -> None:
    with a_race_setup(postgres_url, aloud, workers_run=False) as setup:
        attempts = setup.some_attempts(RACES)
        dialler_won = setup.run(attempts, setup.cancel_as_operator)
        setup.hint_again(attempts)
        history = setup.judged("an operator's cancel, no workers", attempts, dialler_won)
        assert rung(history, attempts) == dialler_won
        setup.apply_all()
        setup.hint_again(attempts)
        history = setup.judged("an operator's cancel, applied afterwards", attempts, dialler_won)
        assert rung(history, attempts) == dialler_won
        assert setup.count("state = 'CANCELLED'") == len(attempts) - dialler_won


def test_overloaded_dialler_posts_each_call_once(postgres_url: str) -> None:
    with a_race_setup(postgres_url) as setup:
        setup.carrier.clear()
        setup.carrier.plan(fault="slow", delay_s=ANSWER_S, ring_s=0.05, talk_s=0.05, callbacks="none")
        attempts = setup.some_attempts(FULL)
        setup.hint_again(attempts)
        setup.release_until_all_rang()
        setup.settle_down()
        events = [row.event for row in setup.tenant.ask("SELECT event FROM attempt_history")]
        assert events.count("placed") == FULL + 1, "and the last call, by which the end is known"
        assert events.count("deferred") < FULL / 10
        assert "answer_lost" not in events, "no lease ends over an unrecorded call"
        posted = Counter(request["to"] for request in setup.carrier.requests())
        assert set(posted.values()) == {1}
        assert len(posted) == FULL + 1
