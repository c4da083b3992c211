"""Races between a caller and a dialler: the caller's answer is true, and no phone rings early, afterwards or twice."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt
from tests.verification.histories.judge import History, Verb, violations
from tests.verification.races.race_setup import RACES, WAITS, RaceSetup, a_race_setup, one_attempt_each, some_attempts

FAIR = (0.10, 0.90)


Say = Callable[[str], None]


def judged(
    setup: RaceSetup, kind: str, attempts: Sequence[Attempt], dialler_won: int, began: float, aloud: Say
) -> History:
    """Return the history. Fails if it contains a violation, or if either side won too few races."""
    setup.settle_down()
    history = setup.history()
    rang = sum(bool(history.rings_of.get(attempt.id)) for attempt in attempts)
    deferred = sum(happening.event == "deferred" for row in history.attempts for happening in row.happenings)
    seconds = monotonic() - began
    aloud(
        f"{kind}: {len(attempts)} races, the dialler won {dialler_won / len(attempts):.0%}, {rang} of them rang,"
        f" {len(history.rings)} rings in all, {deferred} deferred, {seconds:.1f} s, seed {setup.seed}"
    )
    assert violations(history) == []
    assert setup.carrier.verdict()["tokens_posted_twice"] == []
    assert FAIR[0] < dialler_won / len(attempts) < FAIR[1], "one side won nearly every race"
    return history


def rung(history: History, attempts: Sequence[Attempt]) -> int:
    return sum(len(history.rings_of.get(attempt.id, ())) for attempt in attempts)


def test_attempt_moved_while_dialled_rings_or_is_moved(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_race_setup(postgres_url) as setup:
        attempts = some_attempts(setup.tenant, RACES)
        dialler_won = setup.run(attempts, setup.move)
        setup.hint_again(attempts)
        history = judged(setup, "PATCH", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won


def test_attempt_deleted_while_dialled_rings_or_is_deleted(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_race_setup(postgres_url) as setup:
        attempts = some_attempts(setup.tenant, RACES)
        dialler_won = setup.run(attempts, setup.delete)
        setup.hint_again(attempts)
        history = judged(setup, "DELETE", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won


def test_attempt_replaced_while_dialled_or_its_successor_rings(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_race_setup(postgres_url) as setup:
        attempts = some_attempts(setup.tenant, RACES)
        dialler_won = setup.run(attempts, setup.invoke)
        made = [asked.attempt_id for asked in setup.asked if asked.verb is Verb.INVOKE and asked.attempt_id]
        setup.release_until(lambda: not setup.count(WAITS), "all phones have rung")
        history = judged(setup, "invoke", attempts, dialler_won, began, aloud)
        rings = Counter(row.interview_id for row in history.attempts for _ in history.rings_of.get(row.id, ()))
        assert {rings[attempt.interview_id] for attempt in attempts} == {1}
        assert rung(history, attempts) == dialler_won == len(attempts) - len(made)


def test_attempt_paused_while_dialled_rings_before_or_after(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_race_setup(postgres_url) as setup:
        attempts = one_attempt_each(setup.tenant, RACES)
        dialler_won = setup.run(attempts, setup.pause)
        setup.settle_down()
        waiting = setup.count("state = 'PENDING'")
        setup.hint_again(attempts)
        setup.settle_down()
        assert setup.count("state = 'PENDING'") == waiting, "no attempt is claimed during a pause"
        for attempt in attempts:
            setup.resume(attempt.company_id)
        setup.release_until(lambda: not setup.count(WAITS), "all phones have rung")
        history = judged(setup, "pause", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == len(attempts)
        deferred = [row for row in history.attempts if any(each.event == "deferred" for each in row.happenings)]
        assert deferred, "a pause between a claim and its last look defers the attempt"


@pytest.mark.parametrize("verb", [Verb.MOVE, Verb.DELETE])
def test_no_phone_rings_after_acceptance_without_a_worker(postgres_url: str, verb: Verb, aloud: Say) -> None:
    began = monotonic()
    with a_race_setup(postgres_url, workers_run=False) as setup:
        attempts = some_attempts(setup.tenant, RACES)
        dialler_won = setup.run(attempts, setup.move if verb is Verb.MOVE else setup.delete)
        setup.hint_again(attempts)
        history = judged(setup, f"{verb}, no workers", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won
        assert {asked.told.status for asked in setup.asked} == {202, 409}
        setup.let_the_workers_run()
        setup.hint_again(attempts)
        history = judged(setup, f"{verb}, applied afterwards", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won
        assert {asked.outcome.status for asked in setup.asked} == {204, 409}
