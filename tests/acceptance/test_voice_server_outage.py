"""The voice server is down for a while: calls wait, none counts as a conversation, and all are placed afterwards."""

import json

from tests.acceptance.conftest import WholeSystem
from tests.acceptance.test_carrier_outage import ask_for

FAILING = [f"+4219154010{number:02d}" for number in range(2)]
WAITING = [f"+4219154011{number:02d}" for number in range(4)]


def at_voice_server(whole: WholeSystem, method: str) -> None:
    url = f"{whole.running.simulatorUrl}/voice/outage"
    whole.client.session.request(method, url, timeout=40).raise_for_status()


def test_calls_wait_while_the_voice_server_is_down(whole: WholeSystem) -> None:
    at_voice_server(whole, "POST")
    failed = ask_for(whole, FAILING)
    whole.wait_until(
        lambda: whole.rows(
            "SELECT 1 FROM carrier_accounts WHERE down_cause = 'VOICE_SERVER' AND down_until IS NOT NULL"
        ),
        seconds=60,
        says="the breaker opens",
    )
    waiting = ask_for(whole, WAITING)
    explained = json.loads(whole.duecall("explain", whole.client.newest(waiting[0])["id"], "--json"))
    assert "VOICE_SERVER_DOWN" in json.dumps(explained)
    assert not any(whole.client.rings_of(number) for number in WAITING)
    at_voice_server(whole, "DELETE")
    whole.wait_until(
        lambda: all(whole.client.shown(each)["status"] == "COMPLETED" for each in waiting),
        seconds=90,
        says="every waiting call has been answered",
    )
    for number in WAITING:
        assert len(whole.client.rings_of(number)) == 1
    for interview_id in failed:
        ended, retry = whole.client.attempts(interview_id)
        assert (ended["status"], ended["reasonCode"], retry["status"]) == ("FAILED", "INSTRUCTIONS_FAILED", "PENDING")
    assert whole.rows("SELECT count(*) FROM usage") == [(len(WAITING),)]
