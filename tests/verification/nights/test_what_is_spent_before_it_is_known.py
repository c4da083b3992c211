"""Calls that are lost until a dial worker, in real time, learns that the carrier accepts none.

It dials fifty calls a second, and the carrier reads every request. The numbers are printed. The assertions do not
depend on the speed of the machine.
"""

from collections.abc import Callable

import pytest

from tests.conftest import wait_until
from tests.verification.world.bulk_attempts import bulk_attempts
from tests.verification.world.real_time import put_back
from tests.verification.world.workers import CPS, CrashSetup, stopped, working

PEOPLE = 200
IN_A_SECOND = int(CPS)
TIMES = {"DIAL_LEASE_S": "20", "SETTLE_S": "60", "CARRIER_TOTAL_TIMEOUT_S": "4", "CARRIER_CONNECT_TIMEOUT_S": "1"}


def is_known(setup: CrashSetup) -> bool:
    """Check whether the breaker is open and no attempt is being dialled."""
    [[down_until]] = setup.tenant.ask("SELECT down_until FROM carrier_accounts")
    [[dialling]] = setup.tenant.ask("SELECT count(*) FROM attempts WHERE phase = 'DIALLING'")
    return down_until is not None and dialling == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("kind", "at_most"),
    [
        # Calls under way while the first answer travels and is recorded.
        pytest.param("503", IN_A_SECOND // 5, id="it answers 503"),
        pytest.param("drop", IN_A_SECOND // 5, id="it hangs up"),
        # Calls of the second after which silence is noticed, not of the four until the first timeout.
        pytest.param("hang", IN_A_SECOND * 3 // 2, id="it hangs"),
    ],
)
def test_outage_loses_only_calls_under_way(
    postgres_url: str, kind: str, at_most: int, aloud: Callable[[str], None]
) -> None:
    with working(postgres_url, settling=False, **TIMES) as setup:
        setup.carrier.down(kind)
        process = setup.dialling(bulk_attempts(postgres_url, setup.tenant, PEOPLE, due_at=setup.tenant.now()))
        wait_until(lambda: is_known(setup), seconds=60, says="dialling stopped")
        assert stopped(process) == [0]
        [[unknown]] = setup.tenant.ask("SELECT count(*) FROM attempts WHERE phase = 'UNKNOWN'")
        [[pending]] = setup.tenant.ask("SELECT count(*) FROM attempts WHERE state = 'PENDING'")
        aloud(f"  {kind}: {unknown} of {PEOPLE} at {CPS:g} a second")
        assert unknown == len(setup.carrier.requests())
        assert unknown + pending == PEOPLE
        assert 0 < unknown <= at_most


@pytest.mark.timeout(120)
def test_hanging_call_does_not_delay_other_calls(postgres_url: str) -> None:
    # The call hangs until all others are placed, which takes four seconds: its timeout would open the breaker.
    with working(postgres_url, settling=False, **TIMES | {"CARRIER_TOTAL_TIMEOUT_S": "8"}) as setup:
        hanging, *others = bulk_attempts(postgres_url, setup.tenant, PEOPLE, due_at=setup.tenant.now())
        setup.carrier.plan(ring_s=0, talk_s=0, callbacks="none")
        [[number]] = setup.tenant.ask(
            "SELECT phone_number FROM attempts a JOIN interviews i ON i.id = a.interview_id"
            " JOIN candidates p ON p.id = i.candidate_id WHERE a.id = :id",
            id=hanging,
        )
        setup.carrier.plan(to=number, fault="accept_and_silence", ring_s=60, callbacks="none")
        process = setup.dialling([hanging, *others])
        wait_until(
            lambda: len(setup.carrier.rings()) + sum(put_back(setup.tenant).values()) == PEOPLE,
            seconds=60,
            says="each call was placed, or put back because this machine is slow",
        )
        assert stopped(process) == [0]
        assert "CARRIER_IN_DOUBT" not in put_back(setup.tenant)
