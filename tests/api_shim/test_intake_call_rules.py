"""The rules F4 over HTTP that need a dialler or a carrier. `test_intake_attempts.py` has the rules by state."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.domain.attempt import Attempt, Ended, ProofMissing, Reason
from scheduler.domain.call import Accepted, AnswerUnknown
from tests.api_shim.answers import data, refused
from tests.api_shim.bodies import TOMORROW, candidate
from tests.api_shim.calls import Call, a_call, call_of
from tests.api_shim.carrier_callbacks import call_back, changed, hear_all, path_of, token_of
from tests.api_shim.intake import Intake
from tests.architecture.rules import does, does_not
from tests.support.builders import Tenant, a_number, a_placed_attempt, a_sid
from tests.support.servers import SimulatedCarrier, serving

pytestmark = pytest.mark.usefixtures("worker")
NOW = None
"""No time is requested: as soon as allowed."""


def dialled(tenant: Tenant, call: Call) -> Attempt | None:
    """Claim the attempt like a dialler. None if it cannot be claimed."""
    claims = tenant.dial.claim([call.attempt_id])
    return claims.claimed[0].attempt if claims.claimed else None


def ringing(tenant: Tenant, call: Call) -> Attempt:
    """Dial the attempt; the carrier has returned a call id."""
    attempt = dialled(tenant, call)
    assert attempt is not None
    tenant.dial.record([(attempt, Accepted(call_sid=a_sid()))])
    return tenant.attempt(attempt.id)


def ended(tenant: Tenant, call: Call, reason: Reason) -> Attempt:
    """Let the phone ring and the call end with this reason."""
    return tenant.take(ringing(tenant, call), Ended(reason=reason, ended_at=tenant.now()))


def given_up(tenant: Tenant, call: Call) -> Attempt:
    """Dial the attempt, lose the response and give it up without proof of its outcome."""
    attempt = dialled(tenant, call)
    assert attempt is not None
    tenant.dial.record([(attempt, AnswerUnknown(cause="A_TEST"))])
    return tenant.take(tenant.attempt(attempt.id), ProofMissing())


def attempts(intake: Intake, call: Call) -> list[dict[str, Any]]:
    """The attempts of its interview, oldest first."""
    return list(data(intake.get(call.interview))["callAttempts"])


def invoked(intake: Intake, call: Call, **body: Any) -> Call:
    attempt = intake.made(call.attempts, body)
    return Call(interview_id=call.interview_id, attempt_id=attempt["id"])


def retries(intake: Intake, most: int = 3, **delays: list[int]) -> None:
    assert intake.set_settings(retryPolicy={"maxRetries": most, "delays": delays}).status_code == 200


# ---- F4-3: no phone rings after the 204


@does("F4-3")
def test_deleted_attempt_is_not_claimed(intake: Intake, tenant: Tenant) -> None:
    call = a_call(intake, scheduledAt=NOW)
    assert intake.delete(call.attempt).status_code == 204
    assert dialled(tenant, call) is None
    assert attempts(intake, call) == []
    again = invoked(intake, call)
    assert dialled(tenant, again) is not None, "the interview stays, and can be called"


@does_not("F4-3")
def test_deleted_attempt_still_counts_and_deletes_no_other(intake: Intake, tenant: Tenant) -> None:
    retries(intake, most=1, BUSY=[60])
    call = a_call(intake, scheduledAt=NOW)
    ended(tenant, call, Reason.BUSY)
    _, retry = attempts(intake, call)
    assert intake.delete(call.attempt).status_code == 204
    assert [each["id"] for each in attempts(intake, call)] == [retry["id"]]
    of_retry = Call(interview_id=call.interview_id, attempt_id=retry["id"])
    intake.change("UPDATE attempts SET due_at = :at WHERE state = 'PENDING'", at=intake.now())
    ended(tenant, of_retry, Reason.BUSY)
    assert [each["status"] for each in attempts(intake, call)] == ["FAILED"], "only one retry was allowed"
    assert data(intake.get(call.interview))["status"] == "FAILED"


# ---- F4-4: while its phone may be ringing


@does_not("F4-4")
def test_call_in_progress_is_not_moved_deleted_or_doubled(intake: Intake, tenant: Tenant) -> None:
    call = a_call(intake, scheduledAt=NOW)
    attempt = dialled(tenant, call)
    assert attempt is not None
    for _ in ("in a dialler's hand", "named by the carrier"):
        for method, path, body in (
            ("PATCH", call.attempt, {"scheduledAt": TOMORROW}),
            ("DELETE", call.attempt, {}),
            ("POST", call.attempts, {}),
        ):
            refused(intake.send(method, path, json=body), 409, "CALL_ATTEMPT_IN_PROGRESS")
        tenant.dial.record([(attempt, Accepted(call_sid=a_sid()))])
    assert [each["status"] for each in attempts(intake, call)] == ["IN_PROGRESS"]


@does("F4-4")
@pytest.mark.parametrize("verb", ["DELETE", "POST"])
def test_finished_attempt_is_deleted_and_another_is_created(intake: Intake, tenant: Tenant, verb: str) -> None:
    call = a_call(intake, scheduledAt=NOW)
    ended(tenant, call, Reason.DECLINED)
    path, status = (call.attempt, 204) if verb == "DELETE" else (call.attempts, 201)
    assert intake.send(verb, path).status_code == status


# ---- F4-6: one call a number


@does("F4-6")
def test_next_call_to_a_number_waits_for_the_gap_after_the_first(intake: Intake, tenant: Tenant) -> None:
    number = a_number()
    first, second = (a_call(intake, scheduledAt=NOW, candidate=candidate(phoneNumber=number)) for _ in range(2))
    attempt = ringing(tenant, first)
    assert dialled(tenant, second) is None
    assert blocks(intake, second) == ["NUMBER_BUSY"]
    over = tenant.take(attempt, Ended(reason=Reason.ANSWERED, ended_at=tenant.now()))
    assert dialled(tenant, second) is None
    until = data(intake.get(second.explanation))["nextPossibleAt"]
    assert over.ended_at is not None
    assert abs(datetime.fromisoformat(until) - (over.ended_at + timedelta(seconds=600))) < timedelta(seconds=1)
    intake.change("UPDATE lines SET free_at = :at", at=intake.now())
    assert blocks(intake, second) == []
    assert dialled(tenant, second) is not None


@does_not("F4-6")
def test_same_interview_waits_only_after_an_unknown_outcome(intake: Intake, tenant: Tenant) -> None:
    call = a_call(intake, scheduledAt=NOW)
    ended(tenant, call, Reason.DECLINED)
    again = invoked(intake, call)
    assert blocks(intake, again) == []
    given_up(tenant, again)  # claimed although the gap after the first call is not over
    third = invoked(intake, call)
    assert dialled(tenant, third) is None
    assert blocks(intake, third) == ["NUMBER_BUSY"]


@does("F4-6")
def test_open_interview_of_the_candidate_causes_a_warning(intake: Intake) -> None:
    known = data(intake.get(a_call(intake).interview))["candidateId"]
    body = intake.body(candidate=..., candidateId=known, scheduledAt=TOMORROW)
    [second] = data(intake.create(body), 201)["callAttempts"]
    assert second["warnings"] == ["CANDIDATE_HAS_OPEN_INTERVIEW"]
    alone = a_call(intake, candidate=candidate(phoneNumber=a_number()))
    assert data(intake.get(alone.attempt))["warnings"] == []


def blocks(intake: Intake, call: Call) -> list[str]:
    """The rules that block the call now."""
    return [each["rule"] for each in data(intake.get(call.explanation))["blocks"]]


# ---- F4-7: retries


@does("F4-7")
@pytest.mark.parametrize("reason", ["NO_ANSWER", "CARRIER_ERROR"])
def test_temporary_failure_is_retried_as_the_policy_says(intake: Intake, tenant: Tenant, reason: str) -> None:
    retries(intake, most=2, **{reason: [60, 3600]})
    call = a_call(intake, scheduledAt=NOW)
    for number, delay in ((1, 60), (2, 3600)):
        over = ended(tenant, call, Reason(reason))
        retry = attempts(intake, call)[-1]
        assert (retry["status"], retry["retryNumber"]) == ("PENDING", number)
        assert over.ended_at is not None
        assert datetime.fromisoformat(retry["scheduledAt"]) - over.ended_at == timedelta(seconds=delay)
        assert data(intake.get(call.interview))["status"] == "SCHEDULED"
        call = Call(interview_id=call.interview_id, attempt_id=retry["id"])
        intake.change("UPDATE attempts SET due_at = :at WHERE state = 'PENDING'", at=intake.now())
    ended(tenant, call, Reason(reason))
    assert [each["status"] for each in attempts(intake, call)] == ["FAILED"] * 3
    assert data(intake.get(call.interview))["status"] == "FAILED"
    assert data(intake.get(invoked(intake, call).attempt))["retryNumber"] == 0, "a request starts a new chain"


@does_not("F4-7")
@pytest.mark.parametrize("reason", ["DECLINED", "OUTCOME_UNKNOWN"])
def test_permanent_failure_is_never_retried_automatically(intake: Intake, tenant: Tenant, reason: str) -> None:
    retries(intake, BUSY=[60])
    call = a_call(intake, scheduledAt=NOW)
    over = given_up(tenant, call) if reason == "OUTCOME_UNKNOWN" else ended(tenant, call, Reason(reason))
    assert over.reason is Reason(reason)
    [only] = attempts(intake, call)
    assert (only["status"], only["reasonCode"]) == ("FAILED", reason)
    assert data(intake.get(call.interview))["status"] == "FAILED"


# ---- F4-8: effects of a deletion on calls. `test_intake_changes.py` has the rest


@does_not("F4-8")
def test_live_call_of_a_deleted_interview_ends_without_follow_up(intake: Intake, tenant: Tenant) -> None:
    retries(intake, BUSY=[60])
    call = a_call(intake, scheduledAt=NOW)
    attempt = ringing(tenant, call)
    assert data(intake.delete(call.interview)) is True
    over = tenant.take(attempt, Ended(reason=Reason.BUSY, ended_at=tenant.now()))
    assert over.reason is Reason.BUSY
    assert intake.count("attempts") == 1
    assert intake.get(call.interview).status_code == 404


# ---- F4-9: the call itself


@pytest.fixture
def orders() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A carrier that accepts every order, and the list of these orders."""
    asked: list[dict[str, str]] = []

    async def take(request: Request) -> JSONResponse:
        asked.append({name: str(value) for name, value in (await request.form()).items()})
        return JSONResponse({"sid": a_sid(), "queue_time": "0"}, 201)

    with serving(Starlette(routes=[Route("/{path:path}", take, methods=["POST"])])) as url:
        yield url, asked


@does("F4-9")
def test_call_lasts_two_minutes_longer_than_its_agent(
    intake: Intake, tenant: Tenant, orders: tuple[str, list[dict[str, str]]]
) -> None:
    attempt, form = sent(intake, tenant, orders)
    assert form["TimeLimit"] == "720", "ten minutes and two"
    assert form["MachineDetection"] == "Enable"
    assert form["Url"] == f"https://example.com/voice?attempt={attempt.token}"


@does_not("F4-9")
def test_machine_detection_is_off_where_the_company_disables_it(
    intake: Intake, tenant: Tenant, orders: tuple[str, list[dict[str, str]]]
) -> None:
    assert intake.set_settings(machineDetection=False).status_code == 200
    _, form = sent(intake, tenant, orders)
    assert "MachineDetection" not in form
    assert form["TimeLimit"] == "720"


def sent(intake: Intake, tenant: Tenant, orders: tuple[str, list[dict[str, str]]]) -> tuple[Attempt, dict[str, str]]:
    """The form of the single POST for a call requested over HTTP."""
    url, asked = orders
    attempt = dialled(tenant, a_call(intake, scheduledAt=NOW))
    assert attempt is not None
    order = tenant.dial.last_look(attempt)
    assert order is not None

    async def place() -> None:
        line = TwilioCallPlacer(SimulatedCarrier(url=url).account(), tenant.policy)
        assert isinstance(await line.place(order), Accepted)
        await line.close()

    asyncio.run(place())
    [form] = asked
    return attempt, form


@does("F4-9")
@pytest.mark.parametrize("heard", ["human", "unknown"])
def test_possible_person_counts_as_a_person(intake: Intake, tenant: Tenant, heard: str) -> None:
    assert outcome_of(intake, tenant, heard) == ("COMPLETED", "ANSWERED")


@does_not("F4-9")
@pytest.mark.parametrize("heard", ["machine_start", "fax"])
def test_machine_does_not_count_as_a_person(intake: Intake, tenant: Tenant, heard: str) -> None:
    assert outcome_of(intake, tenant, heard) == ("FAILED", "VOICEMAIL")


# ---- F9-1: a call without instructions


def end_without_instructions(intake: Intake, placed: Attempt, *, signature: str | None = "right") -> int:
    """Request the fallback of a call over HTTP, then report its end. Return the status of the fallback's response."""
    assert placed.call_sid is not None
    token = token_of(placed)
    form = changed(CallSid=placed.call_sid, CallStatus="in-progress", ErrorCode="11200")
    fallback = call_back(intake, token, form, path=f"{path_of(token)}/fallback", signature=signature)
    over = changed(CallSid=placed.call_sid, CallStatus="completed", CallDuration="61")
    assert call_back(intake, token, over).status_code == 204
    return fallback.status_code


@does("F9-1", "F4-7")
def test_call_without_instructions_is_retried_and_not_booked(intake: Intake, tenant: Tenant) -> None:
    retries(intake, BUSY=[60])
    placed = a_placed_attempt(tenant)
    assert end_without_instructions(intake, placed) == 200
    hear_all(intake, tenant)
    attempt = data(intake.get(call_of(placed).attempt))
    assert (attempt["status"], attempt["reasonCode"]) == ("FAILED", "INSTRUCTIONS_FAILED")
    interview = data(intake.get(call_of(placed).interview))
    assert (interview["status"], interview["callAttemptsTotal"]) == ("SCHEDULED", 2)
    assert intake.count("usage") == 0


@does_not("F9-1")
def test_forged_or_late_fallback_changes_nothing(intake: Intake, tenant: Tenant) -> None:
    forged, late = a_placed_attempt(tenant), a_placed_attempt(tenant)
    assert end_without_instructions(intake, forged, signature="forged") == 403
    assert late.call_sid is not None
    over = changed(CallSid=late.call_sid, CallStatus="completed", CallDuration="61")
    call_back(intake, token_of(late), over)
    hear_all(intake, tenant)
    for _ in range(2):
        form = changed(CallSid=late.call_sid, CallStatus="in-progress", ErrorCode="11200")
        assert call_back(intake, token_of(late), form, path=f"{path_of(token_of(late))}/fallback").status_code == 200
        hear_all(intake, tenant)
    for each in (forged, late):
        assert data(intake.get(call_of(each).attempt))["reasonCode"] == "ANSWERED"


def outcome_of(intake: Intake, tenant: Tenant, answered_by: str) -> tuple[str, str]:
    """Report over HTTP what answered, and read how the attempt ends."""
    placed = a_placed_attempt(tenant)
    assert placed.call_sid is not None
    over = changed(CallSid=placed.call_sid, CallStatus="completed", CallDuration="20", AnsweredBy=answered_by)
    assert call_back(intake, token_of(placed), over).status_code == 204
    hear_all(intake, tenant)
    attempt = data(intake.get(call_of(placed).attempt))
    return attempt["status"], attempt["reasonCode"]
