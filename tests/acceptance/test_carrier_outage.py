"""An outage of the carrier: all calls wait, and afterwards each of them rings.

Where the carrier accepts requests and then fails, only calls that were in flight at its start are lost.
"""

import json
from collections.abc import Sequence

from tests.acceptance.conftest import WholeSystem

NUMBERS = [f"+4219154000{number:02d}" for number in range(8)]
OTHERS = [f"+4219154001{number:02d}" for number in range(8)]


def ask_for(whole: WholeSystem, numbers: Sequence[str], **outage: object) -> list[str]:
    """Request interviews with these numbers while the carrier is down, and wait until the breaker opens."""
    for number in numbers:
        whole.client.plan(to=number, outcome="answered", ring_s=0.3, talk_s=0.3)
    whole.client.session.post(f"{whole.running.simulatorUrl}/outage", json=outage, timeout=5).raise_for_status()
    interviews = [whole.client.created(number, headers={"Prefer": "wait=20"})["id"] for number in numbers]
    whole.wait_until(
        lambda: whole.rows("SELECT 1 FROM carrier_accounts WHERE down_until IS NOT NULL"),
        seconds=20,
        says="the breaker opens",
    )
    return interviews


def test_an_outage_of_the_carrier_burns_nothing(whole: WholeSystem) -> None:
    interviews = ask_for(whole, NUMBERS, kind="refuse", for_s=12)
    down = json.loads(whole.duecall("status", "--json"))["carriers"][0]
    assert down["downCause"] == "NEVER_CONNECTED"
    whole.wait_until(
        lambda: not whole.rows("SELECT 1 FROM attempts WHERE state IN ('PENDING', 'IN_PROGRESS')"),
        seconds=90,
        says="every call has ended",
    )
    for number, interview_id in zip(NUMBERS, interviews, strict=True):
        (attempt,) = whole.client.attempts(interview_id)
        assert (attempt["status"], attempt["retryNumber"]) == ("COMPLETED", 0)
        assert len(whole.client.rings_of(number)) == 1
    ((not_placed,),) = whole.rows("SELECT count(*) FROM attempt_history WHERE event = 'not_placed'")
    assert not_placed >= 5, "the outage was over before any call"
    assert "Carrier   takes calls" in whole.duecall("status")


def test_outage_with_answers_loses_only_calls_in_flight(whole: WholeSystem) -> None:
    interviews = ask_for(whole, OTHERS, kind="503", for_s=8)
    whole.wait_until(
        lambda: not whole.rows("SELECT 1 FROM attempts WHERE state = 'PENDING' OR phase IN ('DIALLING', 'PLACED')"),
        seconds=90,
        says="every other call has ended",
    )
    lost = whole.rows(
        "SELECT a.interview_id FROM attempts a JOIN attempt_history h ON h.attempt_id = a.id"
        " WHERE h.event = 'answer_lost'"
    )
    assert 1 <= len(lost) <= 2
    unspent = set(interviews) - {str(interview_id) for (interview_id,) in lost}
    assert len(unspent) == len(OTHERS) - len(lost)
    for interview_id in unspent:
        (attempt,) = whole.client.attempts(interview_id)
        assert (attempt["status"], attempt["retryNumber"]) == ("COMPLETED", 0)
    assert "Carrier   takes calls" in whole.duecall("status")
