"""Whoever wins, caller or dialler: what the caller was told is true, and no phone rings early, afterwards or twice."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt
from tests.verification.histories.judge import History, Verb, violations
from tests.verification.races.course import RACES, WAITS, Course, a_course, one_attempt_each, some_attempts

FAIR = (0.10, 0.90)


Say = Callable[[str], None]


def judged(
    course: Course, kind: str, attempts: Sequence[Attempt], dialler_won: int, began: float, aloud: Say
) -> History:
    """The history, when nothing in it must not have happened and each of the two has won its share."""
    course.settle_down()
    history = course.history()
    rang = sum(bool(history.rings_of.get(attempt.id)) for attempt in attempts)
    given_back = sum(happening.event == "deferred" for row in history.attempts for happening in row.happenings)
    seconds = monotonic() - began
    aloud(
        f"{kind}: {len(attempts)} races, the dialler won {dialler_won / len(attempts):.0%}, {rang} of them rang,"
        f" {len(history.rings)} rings in all, {given_back} given back, {seconds:.1f} s, seed {course.seed}"
    )
    assert violations(history) == []
    assert course.carrier.verdict()["tokens_posted_twice"] == []
    assert FAIR[0] < dialler_won / len(attempts) < FAIR[1], "no race, but a procession"
    return history


def rung(history: History, attempts: Sequence[Attempt]) -> int:
    return sum(len(history.rings_of.get(attempt.id, ())) for attempt in attempts)


def test_an_attempt_that_is_moved_while_it_is_dialled_rings_or_is_moved(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_course(postgres_url) as course:
        attempts = some_attempts(course.tenant, RACES)
        dialler_won = course.run(attempts, course.move)
        course.hint_again(attempts)
        history = judged(course, "PATCH", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won


def test_an_attempt_that_is_deleted_while_it_is_dialled_rings_or_is_deleted(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_course(postgres_url) as course:
        attempts = some_attempts(course.tenant, RACES)
        dialler_won = course.run(attempts, course.delete)
        course.hint_again(attempts)
        history = judged(course, "DELETE", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won


def test_an_attempt_that_is_replaced_while_it_is_dialled_rings_or_its_successor_does(
    postgres_url: str, aloud: Say
) -> None:
    began = monotonic()
    with a_course(postgres_url) as course:
        attempts = some_attempts(course.tenant, RACES)
        dialler_won = course.run(attempts, course.invoke)
        made = [asked.attempt_id for asked in course.asked if asked.verb is Verb.INVOKE and asked.attempt_id]
        course.release_until(lambda: not course.count(WAITS), "all have rung")
        history = judged(course, "invoke", attempts, dialler_won, began, aloud)
        rings = Counter(row.interview_id for row in history.attempts for _ in history.rings_of.get(row.id, ()))
        assert {rings[attempt.interview_id] for attempt in attempts} == {1}
        assert rung(history, attempts) == dialler_won == len(attempts) - len(made)


def test_an_attempt_whose_company_is_paused_while_it_is_dialled_rings_before_or_after(
    postgres_url: str, aloud: Say
) -> None:
    began = monotonic()
    with a_course(postgres_url) as course:
        attempts = one_attempt_each(course.tenant, RACES)
        dialler_won = course.run(attempts, course.pause)
        course.settle_down()
        waiting = course.count("state = 'PENDING'")
        course.hint_again(attempts)
        course.settle_down()
        assert course.count("state = 'PENDING'") == waiting, "while paused nothing is claimed"
        for attempt in attempts:
            course.resume(attempt.company_id)
        course.release_until(lambda: not course.count(WAITS), "all have rung")
        history = judged(course, "pause", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == len(attempts)
        put_back = [row for row in history.attempts if any(each.event == "deferred" for each in row.happenings)]
        assert put_back, "a pause between a claim and its last look puts the attempt back"


@pytest.mark.parametrize("verb", [Verb.MOVE, Verb.DELETE])
def test_from_an_acceptance_on_nothing_rings_though_nobody_applies_it(
    postgres_url: str, verb: Verb, aloud: Say
) -> None:
    began = monotonic()
    with a_course(postgres_url, workers_run=False) as course:
        attempts = some_attempts(course.tenant, RACES)
        dialler_won = course.run(attempts, course.move if verb is Verb.MOVE else course.delete)
        course.hint_again(attempts)
        history = judged(course, f"{verb}, no workers", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won
        assert {asked.told.status for asked in course.asked} == {202, 409}
        course.let_the_workers_run()
        course.hint_again(attempts)
        history = judged(course, f"{verb}, applied at last", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won
        assert {asked.outcome.status for asked in course.asked} == {204, 409}
