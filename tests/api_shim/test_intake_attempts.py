"""Call attempts over HTTP: shown, created, moved and deleted, as their state allows."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from scheduler.domain.attempt import Attempt, Cancelled, LegSeen, NotReported, Reason
from scheduler.domain.call import CallProgress
from tests.api_shim.answers import data, refused
from tests.api_shim.bodies import AN_HOUR_LATER, NUMBER, TOMORROW
from tests.api_shim.calls import Call, a_call, call_of, ended, talk
from tests.api_shim.intake import ASYNC, KEY, Intake, Worker, a_worker, applied
from tests.architecture.rules import does, does_not
from tests.support.builders import (
    Tenant,
    a_claimed_attempt,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
)

# ---- operations by state


def waiting(tenant: Tenant) -> Attempt:
    return a_pending_attempt(tenant, due_at=tenant.now() + timedelta(hours=20))


def answered(tenant: Tenant) -> Attempt:
    """End an answered call whose duration the carrier does not report."""
    return ended(tenant, Reason.ANSWERED)


def finished(tenant: Tenant) -> Attempt:
    """End an answered call without a report of its outcome in time."""
    return tenant.take(talk(tenant), NotReported())


def declined(tenant: Tenant) -> Attempt:
    return ended(tenant, Reason.DECLINED)


def cancelled(tenant: Tenant) -> Attempt:
    return tenant.take(waiting(tenant), Cancelled(reason=Reason.CANCELLED_BY_USER))


def seen_to_be_live(tenant: Tenant) -> Attempt:
    given_up = an_attempt_of_unknown_outcome(tenant)
    look_at = tenant.now() + timedelta(minutes=1)
    return tenant.take(given_up, LegSeen(call_sid=a_sid(), rank=CallProgress.RINGING, look_at=look_at))


IN_PROGRESS, NOT_PENDING, FINISHED = "CALL_ATTEMPT_IN_PROGRESS", "CALL_ATTEMPT_NOT_PENDING", "INTERVIEW_FINISHED"
Answer = int | str
"""The status of a success, or the code of a refusal."""


@dataclass(frozen=True)
class State:
    """A builder of an attempt in one state, its shown status, and the answers to three operations on it."""

    make: Callable[[Tenant], Attempt]
    status: str
    move: Answer
    delete: Answer
    invoke: Answer


STATES = (
    State(waiting, "PENDING", 204, 204, 201),
    State(a_claimed_attempt, "IN_PROGRESS", IN_PROGRESS, IN_PROGRESS, IN_PROGRESS),
    State(a_placed_attempt, "IN_PROGRESS", IN_PROGRESS, IN_PROGRESS, IN_PROGRESS),
    State(an_unknown_attempt, "IN_PROGRESS", IN_PROGRESS, IN_PROGRESS, IN_PROGRESS),
    # A key of this company may report outcomes, so its answered calls wait for a report.
    State(talk, "COMPLETED", NOT_PENDING, 204, IN_PROGRESS),
    State(answered, "COMPLETED", NOT_PENDING, 204, IN_PROGRESS),
    State(finished, "COMPLETED", NOT_PENDING, 204, FINISHED),
    State(declined, "FAILED", NOT_PENDING, 204, 201),
    State(an_attempt_of_unknown_outcome, "FAILED", NOT_PENDING, 204, 201),
    State(seen_to_be_live, "FAILED", NOT_PENDING, 204, IN_PROGRESS),
    State(cancelled, "CANCELLED", NOT_PENDING, 204, 201),
)


@does_not("F4-2")
def test_attempt_is_shown_in_every_state_and_moved_if_pending(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    for state in STATES:
        attempt = state.make(tenant)
        call = call_of(attempt)
        shown = data(intake.get(call.attempt))
        assert (shown["id"], shown["status"]) == (str(attempt.id), state.status), state
        assert data(intake.get(call.attempts))["items"] == [shown]
        answer = moved(intake, call, AN_HOUR_LATER)
        assert_answered(answer, state.move)
        assert (tenant.attempt(attempt.id).due_at != attempt.due_at) is (answer.status_code == 204), state


@does("F4-3")
def test_attempt_is_deleted_unless_its_phone_may_be_ringing(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    for state in STATES:
        call = call_of(state.make(tenant))
        answer = intake.delete(call.attempt)
        assert_answered(answer, state.delete)
        gone = answer.status_code == 204
        assert (intake.get(call.attempt).status_code == 404) is gone, state
        assert (intake.get(call.explanation).status_code == 404) is gone
        assert (data(intake.get(call.attempts))["items"] == []) is gone
        assert (data(intake.get(call.interview))["callAttempts"] == []) is gone


@does_not("F4-1", "F4-5")
def test_invoke_creates_an_attempt_unless_one_is_in_progress(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    for state in STATES:
        call = call_of(state.make(tenant))
        answer = invoked(intake, call, {"scheduledAt": TOMORROW})
        assert_answered(answer, state.invoke)
        expected = 2 if answer.status_code == 201 else 1
        assert len(data(intake.get(call.attempts))["items"]) == expected, state


@does("F4-3")
def test_deleted_attempt_is_not_shown_moved_or_deleted_again(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    assert intake.delete(call.attempt).status_code == 204
    for answer in everything(intake, call):
        assert_answered(answer, "RESOURCE_NOT_FOUND")
        assert answer.json()["error"]["details"] == {"resourceType": "callAttempt", "resourceId": str(call.attempt_id)}


@does_not("F4-3")
def test_deleting_an_attempt_leaves_the_others_and_the_interview(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    second = invoked(intake, call, {"scheduledAt": AN_HOUR_LATER}).json()["data"]
    assert intake.delete(call.attempt).status_code == 204
    interview = data(intake.get(call.interview))
    assert [(each["id"], each["status"]) for each in interview["callAttempts"]] == [(second["id"], "PENDING")]
    assert interview["status"] == "SCHEDULED"
    assert intake.delete(f"{call.attempts}/{second['id']}").status_code == 204
    empty = data(intake.get(call.interview))
    assert (empty["callAttempts"], empty["scheduledAt"], empty["status"]) == ([], None, "SCHEDULED")
    assert_answered(invoked(intake, call), 201)


# ---- access


def test_an_attempt_is_found_at_its_own_interview_only(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    mine, another = call_of(waiting(tenant)), call_of(waiting(tenant))
    elsewhere = Call(interview_id=another.interview_id, attempt_id=mine.attempt_id)
    nowhere = Call(interview_id=mine.interview_id, attempt_id=uuid4())
    for call in (elsewhere, nowhere):
        for answer in everything(intake, call):
            assert_answered(answer, "RESOURCE_NOT_FOUND")
            assert answer.json()["error"]["details"]["resourceType"] == "callAttempt"
    assert data(intake.get(mine.attempt))["status"] == "PENDING"


def test_attempt_contains_no_number(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    content = "".join(intake.get(path).text for path in (call.attempt, call.attempts, call.explanation))
    assert NUMBER[1:] not in content


# ---- invoke


@does("F2-7", "F4-1")
def test_call_without_a_time_rings_as_soon_as_allowed(intake: Intake, worker: Worker) -> None:
    forms: tuple[dict[str, Any], ...] = (
        {},
        {"headers": {"Content-Length": "0"}},
        {"headers": {"Content-Type": "application/json"}},
        {"json": {}},
        {"json": {"scheduledAt": None}},
    )
    for more in forms:
        call = a_call(intake)
        attempt = data(intake.post(call.attempts, **more), 201)
        assert attempt["id"] != str(call.attempt_id), more
        assert attempt["schedule"]["requested"] is None
        assert attempt["scheduledAt"].startswith("2026-04-02T12:0")


@does("F4-1")
@pytest.mark.parametrize("name", ["scheduledAt", "scheduleTime"])
def test_new_call_replaces_the_pending_attempt(intake: Intake, worker: Worker, name: str) -> None:
    call = a_call(intake)
    attempt = data(invoked(intake, call, {name: AN_HOUR_LATER}), 201)
    assert (attempt["status"], attempt["retryNumber"]) == ("PENDING", 0)
    assert attempt["scheduledAt"] == attempt["schedule"]["requested"] == AN_HOUR_LATER
    newest, oldest = data(intake.get(call.attempts))["items"]
    assert newest["id"] == attempt["id"]
    assert (oldest["status"], oldest["reasonCode"]) == ("CANCELLED", "REPLACED")
    assert data(intake.get(call.interview))["scheduledAt"] == AN_HOUR_LATER


@does("F4-5")
def test_failed_interview_is_scheduled_when_called_again(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    call = call_of(declined(tenant))
    assert data(intake.get(call.interview))["status"] == "FAILED"
    assert_answered(invoked(intake, call), 201)
    assert data(intake.get(call.interview))["status"] == "SCHEDULED"


# ---- move


@does("F4-2", "F2-3")
def test_a_moved_attempt_is_the_same_attempt(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    before = data(intake.get(call.attempt))
    answer = moved(intake, call, "2026-04-03T10:00:00+10:30")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "Content-Type" not in answer.headers
    assert answer.headers["X-Trace-Id"]
    after = data(intake.get(call.attempt))
    assert after["id"] == before["id"]
    assert after["scheduledAt"] == "2026-04-02T23:30:00Z"
    assert after["schedule"]["timezoneSource"] == "OFFSET"
    assert after["warnings"] == ["OFFSET_DIFFERS_FROM_PHONE_NUMBER"]
    assert after["createdAt"] == before["createdAt"]
    assert len(data(intake.get(call.attempts))["items"]) == 1


UNREADABLE = {"field", "value", "reason", "position"}
CLOSED = {"field", "localTime", "timezone", "timezoneSource", "callTimeIntervals"}
CLOSED |= {"nextAllowedAt", "nextAllowedScheduledAt", "reason"}
TIMES = [
    ("", "INVALID_DATE_FORMAT", UNREADABLE),
    ("2026-04-02T11:00:00Z", "SCHEDULE_IN_PAST", {"field", "scheduledAt", "receivedAt"}),
    ("2026-06-01T09:00:00Z", "SCHEDULE_TOO_FAR", {"field", "scheduledAt", "latest"}),
    ("2026-04-03T02:00:00Z", "OUTSIDE_CALL_TIME_INTERVAL", CLOSED),
    ("2026-04-03T19:59:50+02:00", "OUTSIDE_CALL_TIME_INTERVAL", CLOSED),  # ten seconds before closing
]


@does_not("F2-1", "F2-6", "F4-1", "F4-2")
def test_invalid_time_is_refused_with_the_reason(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    before = data(intake.get(call.attempts))
    for text, code, details in TIMES:
        for method, path in (("POST", call.attempts), ("PATCH", call.attempt)):
            error = refused(intake.send(method, path, json={"scheduledAt": text}), 400, code)
            assert set(error["details"]) == details, text
    assert data(intake.get(call.attempts)) == before


# ---- conditions


@does("F4-2")
def test_the_etag_changes_with_the_attempt_and_only_with_it(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    first, again = intake.get(call.attempt), intake.get(call.attempt)
    assert first.headers["ETag"] == again.headers["ETag"]
    assert first.headers["ETag"].startswith('"')
    assert moved(intake, call, AN_HOUR_LATER).status_code == 204
    assert intake.get(call.attempt).headers["ETag"] != first.headers["ETag"]


@does("F4-2")
def test_moving_an_attempt_returns_its_new_etag(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    first = intake.patch(call.attempt, {"scheduledAt": AN_HOUR_LATER}, headers=KEY)
    assert (first.status_code, first.content) == (204, b"")
    assert first.headers["ETag"] == intake.get(call.attempt).headers["ETag"]
    condition = {"If-Match": first.headers["ETag"]}
    second = intake.patch(call.attempt, {"scheduledAt": TOMORROW}, headers=condition)
    assert second.status_code == 204
    assert second.headers["ETag"] == intake.get(call.attempt).headers["ETag"] != first.headers["ETag"]
    replayed = intake.patch(call.attempt, {"scheduledAt": AN_HOUR_LATER}, headers=KEY)
    assert (replayed.status_code, replayed.headers["Idempotent-Replayed"]) == (204, "true")
    assert replayed.headers["ETag"] == first.headers["ETag"], "the ETag after that move"


@does_not("F4-2")
def test_refused_deleted_or_unapplied_change_has_no_new_etag(intake: Intake) -> None:
    with a_worker(intake.settings):
        call = a_call(intake)
        assert "ETag" not in moved(intake, call, "2026-04-03T03:00:00").headers
    later = intake.patch(call.attempt, {"scheduledAt": AN_HOUR_LATER}, headers={**ASYNC, **KEY})
    assert later.status_code == 202
    assert "ETag" not in later.headers
    with a_worker(intake.settings):
        applied(intake, later)
        content = intake.patch(call.attempt, {"scheduledAt": AN_HOUR_LATER}, headers=KEY)
        assert content.headers["ETag"] == intake.get(call.attempt).headers["ETag"]
        assert "ETag" not in intake.delete(call.attempt).headers


MATCHING = [
    ["{etag}"],
    ["*"],
    ['"other", {etag}'],
    [',"other",,{etag} ,'],
    ['"other"', "{etag}"],
    ['"a,b", {etag}'],
]
"""Values of the header If-Match, or of several of them, that an attempt with this tag meets."""
DIFFERING = ['"other"', '""', '"other", "still-another"', "W/{etag}"]


@does_not("F4-2")
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_if_match_is_honoured(intake: Intake, worker: Worker, method: str) -> None:
    def sent(path: str, *conditions: str) -> httpx.Response:
        etag = intake.get(path).headers["ETag"]
        headers = [("If-Match", each.format(etag=etag)) for each in conditions]
        body: dict[str, Any] = {"json": {"scheduledAt": AN_HOUR_LATER}} if method == "PATCH" else {}
        return intake.client.request(
            method, path, headers=[("Authorization", f"Bearer {intake.key}"), *headers], **body
        )

    call = a_call(intake)
    before = data(intake.get(call.attempt))
    for condition in DIFFERING:
        assert_answered(sent(call.attempt, condition), "PRECONDITION_FAILED")
    assert data(intake.get(call.attempt)) == before
    for conditions in MATCHING:
        attempt = call.attempt if method == "PATCH" else a_call(intake).attempt
        assert_answered(sent(attempt, *conditions), 204)


@does_not("F4-2")
def test_a_condition_is_judged_when_the_command_is_applied(intake: Intake) -> None:
    with a_worker(intake.settings):
        call = a_call(intake)
    headers = {**ASYNC, "If-Match": intake.get(call.attempt).headers["ETag"]}
    accepted = [
        intake.patch(call.attempt, {"scheduledAt": text}, headers=headers)
        for text in (AN_HOUR_LATER, "2026-04-03T09:00:00Z")
    ]
    assert [answer.status_code for answer in accepted] == [202, 202]
    with a_worker(intake.settings):
        first, second = [applied(intake, answer) for answer in accepted]
    assert (first["statusCode"], first["result"]) == (204, None)
    assert (second["statusCode"], second["result"]["code"]) == (412, "PRECONDITION_FAILED")
    assert data(intake.get(call.attempt))["scheduledAt"] == AN_HOUR_LATER


def test_a_delete_needs_no_body(intake: Intake, worker: Worker) -> None:
    no_length = {"Content-Length": "0", "Content-Type": "application/json"}
    forms: tuple[dict[str, Any], ...] = ({}, {"headers": no_length}, {"json": {}})
    for more in forms:
        answer = intake.delete(a_call(intake).attempt, **more)
        assert (answer.status_code, answer.content) == (204, b""), more


# ---- helpers


def moved(intake: Intake, call: Call, text: str) -> httpx.Response:
    return intake.patch(call.attempt, {"scheduledAt": text})


def invoked(intake: Intake, call: Call, body: dict[str, Any] | None = None) -> httpx.Response:
    return intake.post(call.attempts, body or {})


def everything(intake: Intake, call: Call) -> list[httpx.Response]:
    """Every operation on one attempt."""
    return [
        intake.get(call.attempt),
        intake.get(call.explanation),
        moved(intake, call, AN_HOUR_LATER),
        intake.delete(call.attempt),
    ]


def assert_answered(answer: httpx.Response, what: int | str) -> None:
    """Check that the request succeeded with that status or was refused with that code."""
    if isinstance(what, int):
        assert answer.status_code == what, answer.text
        return
    assert answer.json()["error"]["code"] == what
    expected = {"RESOURCE_NOT_FOUND": 404, "PRECONDITION_FAILED": 412}
    conflicts = dict.fromkeys((IN_PROGRESS, NOT_PENDING, FINISHED), 409)
    assert answer.status_code == (expected | conflicts).get(what, 400)
