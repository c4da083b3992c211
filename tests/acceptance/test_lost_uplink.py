"""Loss of the network after the carrier accepted a call: the number is not called again until the call is over."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import requests

from tests.acceptance.conftest import WholeSystem, running_system

GAP_S = 2
NUMBER = "+421915000077"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    """A system with a gap of two seconds between two calls to a number."""
    with running_system(tmp_path_factory.mktemp("the system"), LINE_GAP_S=str(GAP_S)) as whole:
        whole.raise_limits()
        yield whole


def legs(whole: WholeSystem) -> list[dict[str, Any]]:
    return whole.client.rings_of(NUMBER)


def test_number_is_not_called_twice_while_the_uplink_is_lost(whole: WholeSystem) -> None:
    outage = f"{whole.running.simulatorUrl}/outage"
    whole.client.plan(to=NUMBER, ring_s=0.1, talk_s=7200)
    requests.post(outage, json={"kind": "uplink"}, timeout=40).raise_for_status()
    first = whole.client.created(NUMBER)["id"]
    whole.wait_until(
        lambda: [leg["status"] for leg in legs(whole)] == ["in-progress"], seconds=40, says="a person has answered"
    )
    second = whole.client.created(NUMBER)["id"]
    # Polls run at once and after ten seconds. SETTLE_S and the gap are over by then.
    asked = f"SELECT FROM attempts WHERE interview_id = '{first}' AND (looks >= 2 OR reason IS NOT NULL)"
    whole.wait_until(lambda: whole.rows(asked), seconds=60, says="the carrier was polled repeatedly without an answer")
    requests.delete(outage, timeout=40).raise_for_status()
    whole.wait_until(
        lambda: whole.client.newest(first)["waitingFor"] == "the call's end" or len(legs(whole)) > 1,
        seconds=60,
        says="the call is found, or another call rings there",
    )
    assert len(legs(whole)) == 1, "the first call is still in progress"
    assert whole.client.newest(second)["status"] == "PENDING"
    whole.hang_up(legs(whole)[0]["sid"])
    whole.wait_until(
        lambda: whole.client.newest(first)["status"] == "COMPLETED", seconds=90, says="the first call is over"
    )
    whole.wait_until(lambda: len(legs(whole)) == 2 and legs(whole)[1]["rang_at"], seconds=60, says="then the second")
    over, rings = (datetime.fromisoformat(at) for at in (legs(whole)[0]["ended_at"], legs(whole)[1]["rang_at"]))
    assert (rings - over).total_seconds() >= GAP_S
    assert whole.rows(f"SELECT count(*) FROM usage WHERE interview_id = '{first}'") == [(1,)], "it is booked"
