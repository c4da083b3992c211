"""The carrier takes no connections for a while: all calls wait; afterwards each of them rings, and none was spent."""

import json

from tests.acceptance.conftest import WholeSystem

NUMBERS = [f"+4219154000{number:02d}" for number in range(8)]


def test_an_outage_of_the_carrier_burns_nothing(whole: WholeSystem) -> None:
    for number in NUMBERS:
        whole.client.plan(to=number, outcome="answered", ring_s=0.3, talk_s=0.3)
    whole.client.session.post(
        f"{whole.running.simulatorUrl}/outage", json={"kind": "refuse", "for_s": 12}, timeout=5
    ).raise_for_status()
    interviews = [
        whole.client.post(whole.client.interview(number), Prefer="wait=20").json()["data"]["id"] for number in NUMBERS
    ]
    whole.wait_until(
        lambda: whole.rows("SELECT 1 FROM carrier_accounts WHERE down_until IS NOT NULL"),
        seconds=20,
        says="the breaker opens",
    )
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
    assert not_placed >= 5, "the outage was over before anybody was called"
    assert "Carrier   takes calls" in whole.duecall("status")
