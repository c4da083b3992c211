"""Races between a caller and a dialler: the caller's answer is true, and no phone rings early, afterwards or twice."""

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
    """Return the history. Fails if it contains a violation, or if either side won too few races."""
    course.settle_down()
    history = course.history()
    rang = sum(bool(history.rings_of.get(attempt.id)) for attempt in attempts)
    deferred = sum(happening.event == "deferred" for row in history.attempts for happening in row.happenings)
    seconds = monotonic() - began
    aloud(
        f"{kind}: {len(attempts)} races, the dialler won {dialler_won / len(attempts):.0%}, {rang} of them rang,"
        f" {len(history.rings)} rings in all, {deferred} deferred, {seconds:.1f} s, seed {course.seed}"
    )
    assert violations(history) == []
    assert course.carrier.verdict()["tokens_posted_twice"] == []
    assert FAIR[0] < dialler_won / len(attempts) < FAIR[1], "one side won nearly every race"
    return history


def rung(history: History, attempts: Sequence[Attempt]) -> int:
    return sum(len(history.rings_of.get(attempt.id, ())) for attempt in attempts)


def test_attempt_moved_while_dialled_rings_or_is_moved(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_course(postgres_url) as course:
        attempts = some_attempts(course.tenant, RACES)
        dialler_won = course.run(attempts, course.move)
        course.hint_again(attempts)
        history = judged(course, "PATCH", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won


def test_attempt_deleted_while_dialled_rings_or_is_deleted(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_course(postgres_url) as course:
        attempts = some_attempts(course.tenant, RACES)
        dialler_won = course.run(attempts, course.delete)
        course.hint_again(attempts)
        history = judged(course, "DELETE", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won


def test_attempt_replaced_while_dialled_or_its_successor_rings(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_course(postgres_url) as course:
        attempts = some_attempts(course.tenant, RACES)
        dialler_won = course.run(attempts, course.invoke)
        made = [asked.attempt_id for asked in course.asked if asked.verb is Verb.INVOKE and asked.attempt_id]
        course.release_until(lambda: not course.count(WAITS), "all phones have rung")
        history = judged(course, "invoke", attempts, dialler_won, began, aloud)
        rings = Counter(row.interview_id for row in history.attempts for _ in history.rings_of.get(row.id, ()))
        assert {rings[attempt.interview_id] for attempt in attempts} == {1}
        assert rung(history, attempts) == dialler_won == len(attempts) - len(made)


def test_attempt_paused_while_dialled_rings_before_or_after(postgres_url: str, aloud: Say) -> None:
    began = monotonic()
    with a_course(postgres_url) as course:
        attempts = one_attempt_each(course.tenant, RACES)
        dialler_won = course.run(attempts, course.pause)
        course.settle_down()
        waiting = course.count("state = 'PENDING'")
        course.hint_again(attempts)
        course.settle_down()
        assert course.count("state = 'PENDING'") == waiting, "no attempt is claimed during a pause"
        for attempt in attempts:
            course.resume(attempt.company_id)
        course.release_until(lambda: not course.count(WAITS), "all phones have rung")
        history = judged(course, "pause", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == len(attempts)
        deferred = [row for row in history.attempts if any(each.event == "deferred" for each in row.happenings)]
        assert deferred, "a pause between a claim and its last look defers the attempt"


@pytest.mark.parametrize("verb", [Verb.MOVE, Verb.DELETE])
def test_no_phone_rings_after_acceptance_without_a_worker(postgres_url: str, verb: Verb, aloud: Say) -> None:
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
        history = judged(course, f"{verb}, applied afterwards", attempts, dialler_won, began, aloud)
        assert rung(history, attempts) == dialler_won
        assert {asked.outcome.status for asked in course.asked} == {204, 409}
