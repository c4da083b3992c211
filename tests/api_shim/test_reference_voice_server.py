"""The voice server of docs/how-to/voice-server.md, exactly as the page shows it, with the API."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import requests
from twilio.request_validator import RequestValidator

from scheduler.domain.attempt import Attempt, ConversationOutcome, Ended, Progressed, Reason
from scheduler.domain.call import CallProgress
from standalone.private_server import free_port
from tests.api_shim.answers import data
from tests.api_shim.calls import call_of, talk
from tests.api_shim.intake import Intake, Worker
from tests.conftest import wait_until
from tests.docs.pages import read
from tests.support.builders import Tenant, a_placed_attempt, a_voice_key
from tests.support.servers import ACCOUNT_SID, PRIMARY, a_closed_port

ORIGIN = "https://voice.example.com"
FORM = {"CallSid": f"CA{1:032x}", "AccountSid": ACCOUNT_SID, "CallStatus": "in-progress", "From": "+421221020001"}


@contextmanager
def a_voice_server(folder: Path, *, duecall_url: str, key: str) -> Iterator[str]:
    """Run the file of the page."""
    [text] = re.findall(r"^```python\n(.*?)^```", read("docs/how-to/voice-server.md"), re.MULTILINE | re.DOTALL)
    (folder / "voice_server.py").write_text(text, encoding="utf-8")
    named = {"DUECALL_URL": duecall_url, "VOICE_KEY": key, "VOICE_ORIGIN": ORIGIN, "TWILIO_AUTH_TOKEN": PRIMARY}
    port = free_port()
    command = [sys.executable, str(folder / "voice_server.py"), str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=named, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), says="the voice server answers")
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return bool(requests.get(url, timeout=10).ok)
    except requests.ConnectionError:
        return False


@pytest.fixture
def server(tmp_path: Path, intake: Intake) -> Iterator[str]:
    key = intake.with_new_key("voice").key
    with a_voice_server(tmp_path, duecall_url=str(intake.client.base_url).rstrip("/"), key=key) as url:
        yield url


def ask(
    url: str, token: str | None, form: Mapping[str, str] = FORM, *, key: str = PRIMARY, page: str = "twiml"
) -> requests.Response:
    """Request instructions as the carrier does, signed for the public address."""
    path = f"/{page}?attempt={token}"
    signature = RequestValidator(key).compute_signature(ORIGIN + path, dict(form))
    return requests.post(url + path, data=dict(form), headers={"X-Twilio-Signature": signature}, timeout=30)


def verbs(answer: requests.Response) -> list[str]:
    assert answer.status_code == requests.codes.ok
    root = ET.fromstring(answer.content)
    assert root.tag == "Response"
    return [verb.tag for verb in root]


def test_live_call_gets_instructions_in_its_language(server: str, intake: Intake, tenant: Tenant) -> None:
    assert intake.set_settings(locale="sk-SK").is_success
    answer = ask(server, a_placed_attempt(tenant).token)
    assert verbs(answer) == ["Gather"]
    assert 'language="sk-SK"' in answer.text


@pytest.mark.parametrize(
    ("digits", "outcome", "follows"),
    [
        ("1", ConversationOutcome.CALL_BACK, True),
        ("9", ConversationOutcome.OPTED_OUT, False),
        ("", ConversationOutcome.FINISHED, False),
    ],
)
def test_person_is_called_again_at_six_if_asked_for(
    server: str,
    intake: Intake,
    tenant: Tenant,
    worker: Worker,
    digits: str,
    outcome: ConversationOutcome,
    follows: bool,
) -> None:
    attempt = tenant.take(a_placed_attempt(tenant), Progressed(rank=CallProgress.ANSWERED))
    assert verbs(ask(server, attempt.token, FORM | {"Digits": digits}, page="said")) == ["Hangup"]
    ended = tenant.take(tenant.attempt(attempt.id), Ended(reason=Reason.ANSWERED, ended_at=tenant.now()))
    assert ended.outcome is outcome
    pending = [
        each["schedule"]["localTime"][11:]
        for each in data(intake.get(call_of(attempt).interview))["callAttempts"]
        if each["status"] == "PENDING"
    ]
    assert pending == ["18:00:00"] * follows


def test_key_of_the_page_suffices_for_a_call_each_second(
    tmp_path: Path, intake: Intake, tenant: Tenant, worker: Worker
) -> None:
    """Half of the calls of a minute at TWILIO_CPS=1 are answered, and each takes three requests."""
    key, reported = a_voice_key(tenant), 0
    with a_voice_server(tmp_path, duecall_url=str(intake.client.base_url).rstrip("/"), key=key) as url:
        for _ in range(30):
            attempt = tenant.take(a_placed_attempt(tenant), Progressed(rank=CallProgress.ANSWERED))
            assert verbs(ask(url, attempt.token)) == ["Gather"]
            assert verbs(ask(url, attempt.token, page="said")) == ["Hangup"]
            reported += tenant.attempt(attempt.id).outcome is not None
    assert reported == 30


def test_call_goes_on_to_its_end_if_its_report_is_refused(server: str, intake: Intake, tenant: Tenant) -> None:
    """No fallback: the conversation took place. Here a report would come before the answer."""
    placed = a_placed_attempt(tenant)
    assert verbs(ask(server, placed.token, FORM | {"Digits": "1"}, page="said")) == ["Hangup"]
    assert tenant.attempt(placed.id).outcome is None


def test_finished_call_is_hung_up(server: str, tenant: Tenant) -> None:
    finished: Attempt = talk(tenant)
    assert verbs(ask(server, finished.token)) == ["Hangup"]


@pytest.mark.parametrize("token", ["a" * 32, "a.b", ""])
def test_unknown_call_needs_the_fallback(server: str, token: str) -> None:
    """The carrier knows it, so the key is that of another company: a silent end would count as a conversation."""
    assert ask(server, token).status_code == requests.codes.server_error


def test_forged_request_learns_nothing(server: str, tenant: Tenant) -> None:
    token = a_placed_attempt(tenant).token
    assert ask(server, token, key="another token").status_code == requests.codes.forbidden
    assert requests.post(f"{server}/twiml?attempt={token}", timeout=30).status_code == requests.codes.forbidden


def test_answer_is_an_error_while_duecall_is_away(tmp_path: Path) -> None:
    """The carrier then requests the fallback."""
    with a_voice_server(tmp_path, duecall_url=a_closed_port(), key="a key") as url:
        assert ask(url, "a" * 32).status_code == requests.codes.server_error


def test_log_contains_no_token(server: str, tenant: Tenant, tmp_path: Path) -> None:
    token = a_placed_attempt(tenant).token
    assert token is not None
    ask(server, token)
    assert token not in (tmp_path / "log").read_text(encoding="utf-8")
