"""An outage of the carrier: all calls wait, and afterwards each of them rings.

Where the carrier accepts requests and then fails, only calls that were in flight at its start are lost.
"""

import json
from collections.abc import Sequence

from tests.acceptance.conftest import WholeSystem

NUMBERS = [f"+4219154000{number:02d}" for number in range(8)]
OTHERS = [f"+4219154001{number:02d}" for number in range(8)]


def ask_for(whole: WholeSystem, numbers: Sequence[str]) -> list[str]:
    """Request interviews with these numbers and return their ids."""
    for number in numbers:
        whole.client.plan(to=number, outcome="answered", ring_s=0.3, talk_s=0.3)
    return [whole.client.created(number)["id"] for number in numbers]


def at_outage(whole: WholeSystem, method: str, **outage: object) -> None:
    url = f"{whole.running.simulatorUrl}/outage"
    whole.client.session.request(method, url, json=outage or None, timeout=40).raise_for_status()


def wait_for_breaker(whole: WholeSystem) -> None:
    whole.wait_until(
        lambda: whole.rows("SELECT 1 FROM carrier_accounts WHERE down_until IS NOT NULL"),
        seconds=40,
        says="the breaker opens",
    )


def test_an_outage_of_the_carrier_burns_nothing(whole: WholeSystem) -> None:
    # A pause lets all calls be due within the outage, however long their requests take.
    whole.duecall("pause", "--all", "--reason", "a drill")
    interviews = ask_for(whole, NUMBERS)
    at_outage(whole, "POST", kind="refuse", for_s=20)
    whole.duecall("resume", "--all")
    wait_for_breaker(whole)
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
    at_outage(whole, "POST", kind="503")
    # The first call opens the breaker. Further calls would also be in flight if they came before.
    interviews = ask_for(whole, OTHERS[:1])
    wait_for_breaker(whole)
    interviews += ask_for(whole, OTHERS[1:])
    at_outage(whole, "DELETE")
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
