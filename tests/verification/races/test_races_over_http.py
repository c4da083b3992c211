"""Races over HTTP: after a 202 the phone does not ring, even if no worker ever applies the command."""

from collections.abc import Callable

import pytest

from scheduler.domain.attempt import Attempt
from scheduler.persistence.schema import Logins
from tests.api_shim.intake import ASYNC, Intake, an_intake, settings_for
from tests.conftest import Seeded
from tests.verification.judge.history import Verb
from tests.verification.races.race_setup import RACES, RaceSetup, a_race_setup
from tests.verification.world.installation import about

OVER_HTTP = max(50, RACES // 5)


def asks(setup: RaceSetup, intake: Intake, verb: Verb, attempt: Attempt) -> bool:
    """Send the request. Return True if it came too late."""
    path = f"/interviews/{attempt.interview_id}/call-attempts/{attempt.id}"
    asked_at, due_at = setup.tenant.now(), setup.in_an_hour() if verb is Verb.MOVE else None
    body = {} if due_at is None else {"json": {"scheduledAt": f"{due_at:%Y-%m-%dT%H:%M:%SZ}"}}
    answer = intake.send("DELETE" if due_at is None else "PATCH", path, headers=ASYNC, **body)
    assert answer.status_code in {202, 409}, answer.text
    return setup.note(asked_at, answer.status_code, due_at=due_at, **about(verb, attempt))


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("verb", [Verb.MOVE, Verb.DELETE])
def test_no_phone_rings_after_a_202_over_http(
    postgres_url: str, logins: Logins, redis_url: str, verb: Verb, aloud: Callable[[str], None]
) -> None:
    settings = settings_for(logins, redis_url).model_copy(update={"duecall_clock_offset_s": 0.0})
    with a_race_setup(postgres_url, aloud, workers_run=False) as setup:
        tenant = setup.tenant
        seeded = Seeded(company_id=tenant.company_id, agent_id=tenant.agent_id, phone_number_id=tenant.agent_id)
        with an_intake(settings, tenant.database, seeded) as intake:
            attempts = setup.some_attempts(OVER_HTTP)
            dialler_won = setup.run(attempts, lambda attempt: asks(setup, intake, verb, attempt))
        setup.hint_again(attempts)
        history = setup.judged(f"{verb} over HTTP", attempts, dialler_won, fair=(0, 1))
        assert sum(len(history.rings_of.get(attempt.id, ())) for attempt in attempts) == dialler_won
