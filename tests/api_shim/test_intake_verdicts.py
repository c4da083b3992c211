"""Asynchronous machine detection over HTTP: the verdict of a call, before or after its end, in its own callback."""

from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.domain.attempt import Attempt
from scheduler.lifecycle.policy import VERDICT_WAIT
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.settle import Settle
from tests.api_shim.answers import data
from tests.api_shim.calls import call_of
from tests.api_shim.carrier_callbacks import call_back, changed, hear_all, token_of
from tests.api_shim.intake import Intake
from tests.architecture.rules import does, does_not
from tests.support.builders import RecordingHints, Tenant, a_placed_attempt, a_sid, an_attempt_of_unknown_outcome
from tests.support.servers import ACCOUNT_SID
from tests.verification.carrier.scripted import ACCOUNT, Leg, ScriptedCarrier, Way, carrier_queries

Form = list[tuple[str, str]]
STATUSES = ("queued", "initiated", "ringing", "in-progress", "completed")


@pytest.fixture
def asynchronous(intake: Intake) -> None:
    assert intake.set_settings(machineDetection="ASYNC").is_success


def a_verdict(call: Attempt, answered_by: str) -> Form:
    assert call.call_sid is not None
    return [
        ("CallSid", call.call_sid),
        ("AccountSid", ACCOUNT_SID),
        ("AnsweredBy", answered_by),
        ("MachineDetectionDuration", "2150"),
    ]


def a_status(call: Attempt, status: str) -> Form:
    assert call.call_sid is not None
    more = {"CallDuration": "20"} if status == "completed" else {}
    return changed(CallSid=call.call_sid, CallStatus=status, **more)


def told(intake: Intake, tenant: Tenant, call: Attempt, *forms: Form) -> dict[str, Any]:
    """Send callbacks, each heard before the next one comes. Return the attempt as the API shows it."""
    for form in forms:
        assert call_back(intake, token_of(call), form).status_code == 204
        hear_all(intake, tenant)
    return dict(data(intake.get(call_of(call).attempt)))


def booked(tenant: Tenant, call: Attempt) -> int:
    return int(tenant.ask("SELECT count(*) FROM usage WHERE attempt_id = :id", id=call.id)[0][0])


def poll(tenant: Tenant, call: Attempt, answered_by: str = "", *, after: timedelta = VERDICT_WAIT) -> None:
    """Settle after this time, when the carrier shows the completed call."""
    began = tenant.now
    tenant = replace(tenant, now=lambda: began() + after)
    assert call.call_sid is not None
    carrier = ScriptedCarrier()
    leg = Leg(sid=call.call_sid, token="", to="+421915123456", caller=tenant.caller, created_at=tenant.now())
    carrier.legs[leg.sid] = leg
    carrier.goes_on(leg, Way(status="completed", answered_by=answered_by), tenant.now())
    Settle(tenant.context, carrier_queries(carrier, tenant.now), tenant.account_id).round()


@does("F9-4")
@pytest.mark.usefixtures("asynchronous")
@pytest.mark.parametrize("heard", ["machine_start", "machine_end_beep", "fax"])
def test_verdict_of_a_machine_ends_a_connected_call_as_voicemail(intake: Intake, tenant: Tenant, heard: str) -> None:
    for order in ("before", "after"):
        call = a_placed_attempt(tenant)
        end, verdict = a_status(call, "completed"), a_verdict(call, heard)
        forms = (verdict, end) if order == "before" else (end, verdict)
        shown = told(intake, tenant, call, a_status(call, "in-progress"), *forms)
        assert (shown["status"], shown["reasonCode"]) == ("FAILED", "VOICEMAIL"), order
        assert booked(tenant, call) == 0


@does_not("F9-4")
@pytest.mark.usefixtures("asynchronous")
@pytest.mark.parametrize("heard", ["human", "unknown"])
def test_verdict_of_a_person_is_no_voicemail(intake: Intake, tenant: Tenant, heard: str) -> None:
    call = a_placed_attempt(tenant)
    shown = told(intake, tenant, call, a_status(call, "completed"), a_verdict(call, heard), a_verdict(call, heard))
    assert (shown["status"], shown["reasonCode"]) == ("COMPLETED", "ANSWERED")
    assert booked(tenant, call) == 1


@does("F9-4")
@pytest.mark.usefixtures("asynchronous")
def test_end_waits_for_its_verdict_and_then_counts_as_a_person(intake: Intake, tenant: Tenant) -> None:
    call = a_placed_attempt(tenant)
    shown = told(intake, tenant, call, *(a_status(call, status) for status in STATUSES))
    assert (shown["status"], booked(tenant, call)) == ("IN_PROGRESS", 0)
    poll(tenant, call, after=timedelta(0))
    assert tenant.attempt(call.id).reason is None, "it is polled when the wait is over"
    poll(tenant, call)
    ended = tenant.attempt(call.id)
    shown = told(intake, tenant, call, a_verdict(call, "machine_start"))
    assert (shown["status"], shown["reasonCode"], booked(tenant, call)) == ("COMPLETED", "ANSWERED", 1)
    assert tenant.attempt(call.id) == ended, "the late verdict changes nothing"
    assert ended.ended_at is not None
    assert ended.ended_at <= tenant.now(), "it ended when it was hung up, before the wait"


@does_not("F9-4")
@pytest.mark.usefixtures("asynchronous")
def test_lost_verdict_does_not_make_a_machine_a_person(intake: Intake, tenant: Tenant) -> None:
    call = a_placed_attempt(tenant)
    told(intake, tenant, call, a_status(call, "completed"))
    poll(tenant, call, answered_by="machine_start")
    assert (tenant.attempt(call.id).reason, booked(tenant, call)) == ("VOICEMAIL", 0)


@does_not("F9-4")
@pytest.mark.usefixtures("asynchronous")
def test_forged_verdict_or_one_of_no_call_changes_nothing(intake: Intake, tenant: Tenant) -> None:
    call, other = a_placed_attempt(tenant), a_placed_attempt(tenant)
    verdict = a_verdict(call, "machine_start")
    assert call_back(intake, token_of(call), verdict, signature="a guess").status_code == 403
    of_another = call_back(intake, token_of(call), verdict, signed=f"/carrier/twilio/{token_of(other)}")
    assert of_another.status_code == 403
    of_no_kind = a_verdict(call, "")
    assert call_back(intake, token_of(call), of_no_kind).status_code == 403
    assert call_back(intake, "t" * 32, verdict).status_code == 204, "so that the carrier stops"
    assert intake.count("carrier_events") == 0
    assert tenant.attempt(call.id) == call


@pytest.mark.usefixtures("asynchronous")
def test_repeated_verdict_is_stored_once(intake: Intake, tenant: Tenant) -> None:
    call = a_placed_attempt(tenant)
    for _ in range(3):
        assert call_back(intake, token_of(call), a_verdict(call, "machine_start")).status_code == 204
    assert intake.count("carrier_events") == 1
    hear_all(intake, tenant)
    assert tenant.history(call.id)[-1] == "progressed"
    told(intake, tenant, call, changed(CallSid=str(call.call_sid), CallStatus="in-progress"))
    assert tenant.history(call.id)[-1] == "progressed"


@pytest.mark.usefixtures("asynchronous")
def test_verdict_after_the_erasure_of_the_call_is_ignored(intake: Intake, tenant: Tenant) -> None:
    call = a_placed_attempt(tenant)
    told(intake, tenant, call, a_verdict(call, "human"), a_status(call, "completed"))
    for table in ("attempt_tokens", "usage", "attempt_history"):
        tenant.change(f"DELETE FROM {table} WHERE attempt_id = :id", id=call.id)
    tenant.change("UPDATE lines SET attempt_id = NULL WHERE attempt_id = :id", id=call.id)
    tenant.change("DELETE FROM attempts WHERE id = :id", id=call.id)
    before = intake.count("carrier_events")
    assert call_back(intake, token_of(call), a_verdict(call, "fax")).status_code == 204
    assert (intake.count("carrier_events"), intake.count("attempts")) == (before, 0)


@pytest.mark.usefixtures("asynchronous")
def test_stored_calls_end_the_same_in_many_orders(intake: Intake, tenant: Tenant) -> None:
    """The 720 orders are in `tests/lifecycle/test_verdicts.py`. Each of these is heard in one batch or one by one."""
    callbacks = TwilioCallbacks(ACCOUNT)
    hear = Hear(tenant.context, RecordingHints(), callbacks)
    ends = set()
    for number, order in enumerate(list(permutations((*STATUSES, "verdict")))[::48]):
        call = a_placed_attempt(tenant)
        forms = {status: a_status(call, status) for status in STATUSES} | {"verdict": a_verdict(call, "fax")}
        if number % 2:
            told(intake, tenant, call, *(forms[name] for name in order))
        else:
            for name in order:
                assert call_back(intake, token_of(call), forms[name]).status_code == 204
            unheard = [row[0] for row in intake.ask("SELECT id FROM carrier_events WHERE heard_at IS NULL")]
            assert hear.batch(unheard) == []
        end = tenant.attempt(call.id)
        events = tenant.history(call.id)
        ends.add((end.state, end.reason, end.answered_by, end.duration, end.hung_up_at, events.count("ended")))
        assert (booked(tenant, call), tenant.line(end)[0]) == (0, None)
    assert ends == {("FAILED", "VOICEMAIL", "FAX", timedelta(seconds=20), None, 1)}


@pytest.mark.usefixtures("asynchronous")
@pytest.mark.parametrize("answered_by", ["", "fax"])
def test_call_that_is_proven_late_waits_for_its_verdict(intake: Intake, tenant: Tenant, answered_by: str) -> None:
    lost = replace(an_attempt_of_unknown_outcome(tenant), call_sid=a_sid())
    told(intake, tenant, lost, a_status(lost, "completed"))
    waiting = tenant.attempt(lost.id)
    assert (waiting.reason, waiting.call_sid, booked(tenant, lost)) == ("OUTCOME_UNKNOWN", lost.call_sid, 0)
    holder, _, free_at = tenant.line(waiting)
    rests = free_at - tenant.now()
    assert holder is None
    assert timedelta(0) < rests <= tenant.policy.line_gap, "the gap counts from the end of the call"
    poll(tenant, lost, answered_by)
    if not answered_by:
        assert tenant.attempt(lost.id).reason == "OUTCOME_UNKNOWN", "its conversation may report an outcome"
        poll(tenant, lost, after=tenant.policy.outcome_wait)
    proven = tenant.attempt(lost.id)
    expected = ("FAILED", "VOICEMAIL", 0) if answered_by else ("COMPLETED", "ANSWERED", 1)
    assert (proven.state, proven.reason, booked(tenant, lost)) == expected
    assert tenant.line(proven)[0] is None


@does("F9-4")
@pytest.mark.usefixtures("asynchronous")
def test_voice_server_asks_who_answered(intake: Intake, tenant: Tenant) -> None:
    call = a_placed_attempt(tenant)
    address = f"/call-attempts/by-token/{token_of(call)}"
    told(intake, tenant, call, a_status(call, "in-progress"))
    shown = data(intake.get(address))
    assert (shown["machineDetection"], shown["answeredBy"]) == ("ASYNC", None)
    told(intake, tenant, call, a_verdict(call, "machine_start"))
    assert data(intake.get(address))["answeredBy"] == "MACHINE"


def test_verdict_is_ignored_where_another_call_has_the_token(intake: Intake, tenant: Tenant) -> None:
    """As any news of a second call for one token, it raises an alarm."""
    assert intake.set_settings(machineDetection="ASYNC").is_success
    call = a_placed_attempt(tenant)
    stray = [(name, a_sid() if name == "CallSid" else value) for name, value in a_verdict(call, "fax")]
    told(intake, tenant, call, stray)
    assert tenant.attempt(call.id).answered_by is None
    assert tenant.ask("SELECT pause_reason FROM companies WHERE id = :id", id=tenant.company_id)[0][0] is not None
