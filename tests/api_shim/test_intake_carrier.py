"""Carrier callbacks are stored once, and only with a valid signature."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from xml.etree import ElementTree as ET

import pytest

from tests.api_shim.answers import data, refusal
from tests.api_shim.calls import call_of
from tests.api_shim.carrier_callbacks import FORM, call_back, changed, hear_all, path_of, sign, token_of
from tests.api_shim.intake import Intake
from tests.support.builders import Tenant, a_claimed_attempt, a_placed_attempt
from tests.support.servers import ACCOUNT_SID


@pytest.fixture
def token(tenant: Tenant) -> str:
    """The token that names an attempt to the carrier."""
    return token_of(a_claimed_attempt(tenant))


def test_a_genuine_callback_is_stored_once(intake: Intake, token: str) -> None:
    assert call_back(intake, token).status_code == 204
    assert call_back(intake, token).status_code == 204
    [[stored, raw]] = intake.ask("SELECT token, raw FROM carrier_events")
    assert stored == token
    assert raw == dict(FORM)


def test_second_callback_of_a_call_is_a_second_row(intake: Intake, token: str) -> None:
    call_back(intake, token)
    call_back(intake, token, changed(CallStatus="in-progress"))
    assert intake.count("carrier_events") == 2


def test_signature_covers_the_raw_path_and_query(intake: Intake, token: str) -> None:
    path = f"/carrier/twilio/{token}?b=%2Fx&a=1"
    assert call_back(intake, token, path=path).status_code == 204
    assert call_back(intake, token, changed(SequenceNumber="2"), path=f"/v1{path}", signed=path).status_code == 204
    assert call_back(intake, token, path=path, signed=f"/carrier/twilio/{token}").status_code == 403


def test_fallback_is_stored_once_and_ends_the_call_politely(intake: Intake, token: str) -> None:
    form = changed(CallStatus="in-progress", ErrorCode="11200", ErrorUrl="https://voice.example/?attempt=x")
    for _ in range(2):
        answer = call_back(intake, token, form, path=f"{path_of(token)}/fallback")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
        assert [each.tag for each in ET.fromstring(answer.text)] == ["Say", "Hangup"]
    [[stored, raw]] = intake.ask("SELECT token, raw FROM carrier_events")
    assert (stored, raw) == (token, {**dict(form), "duecall-fallback": "true"})


def test_forged_fallback_is_rejected(intake: Intake, token: str) -> None:
    path = f"{path_of(token)}/fallback"
    refused = [
        call_back(intake, token, path=path, signature="x"),
        call_back(intake, token, path=path, signed=path_of(token)),
        call_back(intake, token, path=path_of(token), signed=path),
        call_back(intake, token, path=path, signed=f"{path_of('another')}/fallback"),
        call_back(intake, token, changed(CallSid="CA"), path=path),
    ]
    assert {refusal(each) for each in refused} == {(403, "NOT_A_CALLBACK")}
    assert intake.client.get(path).status_code in {404, 405}
    assert intake.count("carrier_events") == 0


def test_fallback_for_an_unknown_token_is_not_stored(intake: Intake) -> None:
    """The call still ends politely: a person is listening."""
    answer = call_back(intake, "unknown-token", path=f"{path_of('unknown-token')}/fallback")
    assert (answer.status_code, intake.count("carrier_events")) == (200, 0)


def test_unsigned_callback_is_rejected(intake: Intake, token: str) -> None:
    for signature in (None, "", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="):
        assert refusal(call_back(intake, token, signature=signature)) == (403, "NOT_A_CALLBACK"), signature
    assert intake.count("carrier_events") == 0


def test_signature_of_other_content_is_rejected(intake: Intake, token: str) -> None:
    lied = call_back(intake, token, changed(CallStatus="completed"), signature=sign(f"/carrier/twilio/{token}", FORM))
    moved = call_back(intake, token, signature=sign("/carrier/twilio/another", FORM))
    doubled = call_back(intake, token, [*FORM, ("CallStatus", "completed")], signature=sign(path_of(token), FORM))
    assert [lied.status_code, moved.status_code, doubled.status_code] == [403, 403, 403]
    assert intake.count("carrier_events") == 0


def test_callback_with_an_invalid_field_is_rejected(intake: Intake, token: str) -> None:
    forms = [changed(**each) for each in ({"CallSid": "CA"}, {"AccountSid": "AC"}, {"CallDuration": "-1"})]
    for form in (*forms, changed(CallStatus="sleeping"), [*FORM, ("CallStatus", "completed")]):
        assert call_back(intake, token, form).status_code == 403, form
    assert intake.count("carrier_events") == 0


def test_an_unknown_field_is_kept(intake: Intake, token: str) -> None:
    assert call_back(intake, token, changed(NewThing="è x")).status_code == 204
    assert intake.ask("SELECT raw->>'NewThing' FROM carrier_events") == [("è x",)]


def test_nul_in_a_callback_is_stored_as_a_replacement(intake: Intake, tenant: Tenant) -> None:
    """PostgreSQL cannot store NUL. The signature covers the original."""
    for fields in ({"NewThing": "a\0b"}, {"New\0Thing": "x"}, {"FromCity": "\0"}, {"To": "+421915123456\0"}):
        call = a_placed_attempt(tenant)
        form = changed(CallSid=str(call.call_sid), CallStatus="completed", CallDuration="30", **fields)
        assert call_back(intake, token_of(call), form).status_code == 204, fields
        assert call_back(intake, token_of(call), form).status_code == 204, fields
        [[raw]] = intake.ask("SELECT raw FROM carrier_events WHERE heard_at IS NULL")
        assert raw == {name.replace("\0", "\ufffd"): value.replace("\0", "\ufffd") for name, value in form}
        hear_all(intake, tenant)
        shown = data(intake.get(call_of(call).attempt))
        assert (shown["status"], shown["reasonCode"]) == ("COMPLETED", "ANSWERED"), fields


def test_nul_in_a_fallback_or_verdict_changes_no_result(intake: Intake, tenant: Tenant) -> None:
    call, machine = a_placed_attempt(tenant), a_placed_attempt(tenant)
    form = changed(CallSid=str(call.call_sid), CallStatus="in-progress", ErrorUrl="https://voice.example/\0")
    answer = call_back(intake, token_of(call), form, path=f"{path_of(token_of(call))}/fallback")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    verdict = {"CallSid": str(machine.call_sid), "AccountSid": ACCOUNT_SID, "AnsweredBy": "fax", "NewThing": "\0"}
    assert call_back(intake, token_of(machine), list(verdict.items())).status_code == 204
    for each in (call, machine):
        end = changed(CallSid=str(each.call_sid), CallStatus="completed", CallDuration="30")
        assert call_back(intake, token_of(each), end).status_code == 204
    hear_all(intake, tenant)
    reasons = [data(intake.get(call_of(each).attempt))["reasonCode"] for each in (call, machine)]
    assert reasons == ["INSTRUCTIONS_FAILED", "VOICEMAIL"]


def test_nul_in_a_field_that_is_read_is_refused_like_other_text(intake: Intake, token: str) -> None:
    sid = dict(FORM)["CallSid"]
    for fields in ({"CallSid": sid + "\0"}, {"CallStatus": "completed\0"}, {"AccountSid": ACCOUNT_SID + "\0"}):
        assert refusal(call_back(intake, token, changed(**fields))) == (403, "NOT_A_CALLBACK"), fields
    assert intake.count("carrier_events") == 0


def test_signature_covers_nul_and_not_its_replacement(intake: Intake, token: str) -> None:
    nul, replaced = changed(NewThing="a\0b"), changed(NewThing="a\ufffdb")
    for sent, signed in ((nul, replaced), (replaced, nul)):
        answer = call_back(intake, token, sent, signature=sign(path_of(token), signed))
        assert refusal(answer) == (403, "NOT_A_CALLBACK")
    assert intake.count("carrier_events") == 0


@pytest.mark.parametrize("suffix", ["", "/fallback"])
def test_token_with_nul_is_answered_as_an_unknown_token(intake: Intake, token: str, suffix: str) -> None:
    unknown = call_back(intake, "", path=path_of("unknown-token") + suffix)
    for path in (path_of("a%00b"), path_of("%00"), path_of(f"{token}%00")):
        answer = call_back(intake, "", path=path + suffix)
        assert (answer.status_code, answer.text) == (unknown.status_code, unknown.text), path
    assert unknown.status_code == (200 if suffix else 204)
    assert intake.count("carrier_events") == 0


def test_concurrent_callbacks_each_get_their_own_answer(intake: Intake, token: str) -> None:
    genuine = [(token, changed(SequenceNumber=str(number))) for number in range(30)]
    poison = (token, changed(NewThing="poison"))
    unknown = ("unknown-token", FORM)
    sent = [*genuine[:15], poison, *genuine[:15], unknown, *genuine[15:], poison]
    with poison_cannot_be_stored(intake), ThreadPoolExecutor(len(sent)) as clients:
        answers = list(clients.map(lambda each: call_back(intake, *each), sent))
    failed = [each for each, answer in zip(sent, answers, strict=True) if answer.status_code != 204]
    assert failed == [poison, poison]
    assert {answer.status_code for answer in answers} == {204, 500}
    numbers = [int(row[0]) for row in intake.ask("SELECT raw->>'SequenceNumber' FROM carrier_events")]
    assert sorted(numbers) == list(range(30))


@contextmanager
def poison_cannot_be_stored(intake: Intake) -> Iterator[None]:
    intake.change(
        "ALTER TABLE carrier_events ADD CONSTRAINT no_poison CHECK (raw->>'NewThing' IS DISTINCT FROM 'poison')"
    )
    try:
        yield
    finally:
        intake.change("ALTER TABLE carrier_events DROP CONSTRAINT no_poison")


def test_callback_with_an_unknown_token_is_not_stored(intake: Intake) -> None:
    assert call_back(intake, "unknown-token").status_code == 204
    assert intake.count("carrier_events") == 0


def test_callback_that_is_not_a_form_is_rejected(intake: Intake, token: str) -> None:
    for content in (b"", b"\xff\xfe", b"&" * 500, b'{"CallSid": "x"}'):
        answer = intake.client.post(path_of(token), content=content, headers={"X-Twilio-Signature": "x"})
        assert answer.status_code == 403, content
