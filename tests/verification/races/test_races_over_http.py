"""Races over HTTP: after a 202 the phone does not ring, even if no worker ever applies the command."""

from collections.abc import Callable
from datetime import UTC

import pytest

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt
from scheduler.persistence.schema import Logins
from tests.api_shim.intake import ASYNC, Intake, an_intake, settings_for
from tests.conftest import Seeded
from tests.verification.histories.judge import ClientRequest, ClientResponse, Verb, violations
from tests.verification.races.race_setup import AN_HOUR, RACES, RaceSetup, a_race_setup, some_attempts

OVER_HTTP = max(50, RACES // 5)


def asks(setup: RaceSetup, intake: Intake, verb: Verb, attempt: Attempt) -> bool:
    """Send the request. Return True if it came too late."""
    path = f"/interviews/{attempt.interview_id}/call-attempts/{attempt.id}"
    asked_at = setup.tenant.now()
    due_at = (asked_at + AN_HOUR).replace(microsecond=0) if verb is Verb.MOVE else None
    body = {} if due_at is None else {"json": {"scheduledAt": f"{due_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"}}
    answer = intake.send("DELETE" if due_at is None else "PATCH", path, headers=ASYNC, **body)
    told = ClientResponse(status=answer.status_code, at=setup.tenant.now())
    setup.note(
        ClientRequest(
            verb=verb,
            asked_at=asked_at,
            told=told,
            company_id=attempt.company_id,
            interview_id=attempt.interview_id,
            attempt_id=attempt.id,
            due_at=due_at,
        )
    )
    assert told.status in {202, 409}, answer.text
    return told.status == 409


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("verb", [Verb.MOVE, Verb.DELETE])
def test_no_phone_rings_after_a_202_over_http(
    postgres_url: str, logins: Logins, redis_url: str, verb: Verb, aloud: Callable[[str], None]
) -> None:
    began = monotonic()
    settings = settings_for(logins, redis_url).model_copy(update={"duecall_clock_offset_s": 0.0})
    with a_race_setup(postgres_url, workers_run=False) as setup:
        tenant = setup.tenant
        seeded = Seeded(company_id=tenant.company_id, agent_id=tenant.agent_id, phone_number_id=tenant.agent_id)
        with an_intake(settings, tenant.database, seeded) as intake:
            attempts = some_attempts(tenant, OVER_HTTP)
            dialler_won = setup.run(attempts, lambda attempt: asks(setup, intake, verb, attempt))
        setup.hint_again(attempts)
        setup.settle_down()
        history = setup.history()
        aloud(
            f"{verb} over HTTP: {len(attempts)} races, the dialler won {dialler_won / len(attempts):.0%},"
            f" {monotonic() - began:.1f} s, seed {setup.seed}"
        )
        assert violations(history) == []
        assert sum(len(history.rings_of.get(attempt.id, ())) for attempt in attempts) == dialler_won
        assert 0 < dialler_won < len(attempts)
