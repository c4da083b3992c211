"""Interviews with many attempts over HTTP: how many there may be, and which are shown."""

from typing import Any

from scheduler.domain.interview import SHOWN_ATTEMPTS
from scheduler.lifecycle.retries import MOST_ATTEMPTS
from tests.api_shim.answers import data, refused
from tests.api_shim.calls import call_of
from tests.api_shim.intake import KEY, Intake, Worker, applied
from tests.architecture.rules import does, does_not
from tests.support.builders import Tenant, a_pending_attempt, add_replaced_attempts


def invoked(intake: Intake, path: str, **more: Any) -> Any:
    return intake.post(path, {}, **more)


@does_not("F4-1")
def test_interview_gets_no_more_attempts_than_200(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    """Deleted attempts count too. A refused invoke replaces nothing."""
    pending = a_pending_attempt(tenant)
    call = call_of(pending)
    add_replaced_attempts(tenant, pending, MOST_ATTEMPTS - 3)
    add_replaced_attempts(tenant, pending, 1, deleted=True)
    last = data(invoked(intake, call.attempts), 201)
    error = refused(invoked(intake, call.attempts), 409, "TOO_MANY_ATTEMPTS")
    assert str(MOST_ATTEMPTS) in error["message"]
    assert data(intake.get(f"{call.attempts}/{last['id']}"))["status"] == "PENDING"


@does("F4-1")
def test_interview_shows_its_newest_attempts_and_their_total(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    pending = a_pending_attempt(tenant)
    call = call_of(pending)
    add_replaced_attempts(tenant, pending, 60)
    add_replaced_attempts(tenant, pending, 5, deleted=True)
    shown = data(intake.get(call.interview))
    [listed] = data(intake.get("/interviews"))["items"]
    changed = data(intake.patch(call.interview, {"metadata": {"a": 1}}))
    for each in (shown, listed, changed):
        assert each["callAttemptsTotal"] == 61
        assert len(each["callAttempts"]) == SHOWN_ATTEMPTS
        assert each["callAttempts"][-1]["id"] == str(pending.id), "the newest is last"
        created = [attempt["createdAt"] for attempt in each["callAttempts"]]
        assert created == sorted(created)


@does("F4-1")
def test_list_of_attempts_pages_through_all(intake: Intake, tenant: Tenant) -> None:
    pending = a_pending_attempt(tenant)
    add_replaced_attempts(tenant, pending, 60)
    pages = [data(intake.get(call_of(pending).attempts, limit=25, page=number)) for number in (1, 2, 3)]
    ids = [each["id"] for page in pages for each in page["items"]]
    assert len(set(ids)) == len(ids) == 61
    assert ids[0] == str(pending.id)
    assert [page["pagination"]["total"] for page in pages] == [61, 61, 61]


def test_attempt_beyond_the_shown_ones_is_found(intake: Intake, tenant: Tenant) -> None:
    pending = a_pending_attempt(tenant)
    call = call_of(pending)
    add_replaced_attempts(tenant, pending, 60)
    oldest = data(intake.get(call.attempts, limit=100))["items"][-1]["id"]
    assert data(intake.get(f"{call.attempts}/{oldest}"))["id"] == oldest
    assert data(intake.get(f"{call.attempts}/{oldest}/explanation"))["attemptId"] == oldest


def test_stored_answers_contain_only_the_newest_attempts(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    pending = a_pending_attempt(tenant)
    call = call_of(pending)
    add_replaced_attempts(tenant, pending, 150)
    first, again = (invoked(intake, call.attempts, headers=KEY) for _ in range(2))
    assert data(first, 201) == data(again, 201)
    later = applied(intake, invoked(intake, call.attempts, headers={"Prefer": "respond-async"}))
    assert later["result"]["status"] == "PENDING"
    assert intake.patch(call.interview, {"metadata": {"a": 1}}).status_code == 200
    [(largest,)] = tenant.ask("SELECT max(pg_column_size(answer)) FROM inbox")
    assert largest < 4096
