"""A dialler that is handed more than it can look at within 200 ms goes on dialling, and gives hardly any back."""

from tests.verification.races.course import WAITS, a_course, some_attempts

FULL = 400


def test_a_hand_that_is_full_is_dialled_all_the_same(postgres_url: str) -> None:
    with a_course(postgres_url) as course:
        attempts = some_attempts(course.tenant, FULL)
        course.hint_again(attempts)
        course.release_until(lambda: not course.count(WAITS), "all have rung")
        course.settle_down()
        events = [event for attempt in attempts for event in course.tenant.history(attempt.id)]
        assert events.count("placed") == FULL
        assert events.count("deferred") < FULL / 10
