"""Overload: a dialler with more attempts than it can check within 200 ms continues and returns hardly any."""

from tests.verification.races.course import WAITS, a_course, some_attempts

FULL = 400


def test_overloaded_dialler_places_all_calls(postgres_url: str) -> None:
    with a_course(postgres_url) as course:
        attempts = some_attempts(course.tenant, FULL)
        course.hint_again(attempts)
        course.release_until(lambda: not course.count(WAITS), "all phones have rung")
        course.settle_down()
        events = [event for attempt in attempts for event in course.tenant.history(attempt.id)]
        assert events.count("placed") == FULL
        assert events.count("deferred") < FULL / 10
