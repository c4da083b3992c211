"""Overload: a dialler with more attempts than it can check within 200 ms continues and returns hardly any."""

from tests.verification.races.race_setup import WAITS, a_race_setup, some_attempts

FULL = 400


def test_overloaded_dialler_places_all_calls(postgres_url: str) -> None:
    with a_race_setup(postgres_url) as setup:
        attempts = some_attempts(setup.tenant, FULL)
        setup.hint_again(attempts)
        setup.release_until(lambda: not setup.count(WAITS), "all phones have rung")
        setup.settle_down()
        events = [event for attempt in attempts for event in setup.tenant.history(attempt.id)]
        assert events.count("placed") == FULL
        assert events.count("deferred") < FULL / 10
