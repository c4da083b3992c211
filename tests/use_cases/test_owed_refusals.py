"""Refusals that a request may return as its response: reported to partners only if it did not."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from scheduler.domain.command import InvokeAttempt
from scheduler.lifecycle.policy import MAX_AWAITED, OWED_AFTER
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, an_operator
from tests.use_cases.test_apply import a_wish
from tests.use_cases.test_intake_statements import apply_all
from tests.use_cases.test_partner_events import noted
from tests.use_cases.test_submit_and_apply import TOMORROW

WAIT = timedelta(seconds=11)
A_MOMENT = timedelta(seconds=1)
Sweep = Callable[[], list[str]]


def accepted(tenant: Tenant, awaited_for: timedelta = WAIT, *, is_refused: bool = True) -> UUID:
    """Accept a request for an interview, which a worker refuses because there is no such agent."""
    request = a_wish(tenant, **({"agent_id": uuid4()} if is_refused else {}))
    submit = Submit(tenant.database, RecordingHints(), tenant.now)
    return submit.command(
        tenant.principal, None, request, idempotency_key=None, request_hash=b"", awaited_for=awaited_for
    ).command.id


def refused_while_awaited(tenant: Tenant, apply: Apply) -> UUID:
    command_id = accepted(tenant)
    apply_all(apply, [command_id])
    return command_id


@pytest.fixture
def swept(read: Tenant, now: TestClock) -> Sweep:
    """Let the clock and a worker do what they do at each sweep, and return the events."""

    def sweep() -> list[str]:
        hints = RecordingHints()
        Release(read.context, hints, read.account_id).hint_sweep()
        if (tasks.NUMBER_EVENTS, ()) in hints.rings:
            NumberEvents(read.database, hints, now).all()
        return noted(read)

    return sweep


@guards("owed_refusal")
def test_refusal_that_no_request_returned_is_reported_once(
    read: Tenant, apply: Apply, swept: Sweep, now: TestClock
) -> None:
    """The API process died while the request waited."""
    command_id = refused_while_awaited(read, apply)
    assert swept() == []
    now.move(WAIT + OWED_AFTER - A_MOMENT)
    assert swept() == [], "the request may still return it"
    now.move(A_MOMENT)
    Release(read.context, RecordingHints(), read.account_id).hint_sweep()
    NumberEvents(read.database, RecordingHints(), now).all()
    [(data, interview_id, occurred_at)] = read.ask("SELECT data, interview_id, occurred_at FROM events")
    assert data == {"commandId": str(command_id), "status": "REFUSED", "reasonCode": "RESOURCE_NOT_FOUND"}
    assert (interview_id, occurred_at) == (None, now())
    assert swept() == ["command.applied"]
    assert swept() == []


def test_returned_refusal_is_not_reported(
    read: Tenant, apply: Apply, submit: Submit, swept: Sweep, now: TestClock
) -> None:
    submit.returned(read.principal, refused_while_awaited(read, apply))
    now.move(timedelta(hours=1))
    assert swept() == []


@pytest.mark.parametrize("awaited_for", [timedelta(), WAIT], ids=["not awaited", "no longer awaited"])
def test_refusal_is_reported_at_once_after_the_wait(
    read: Tenant, apply: Apply, now: TestClock, awaited_for: timedelta
) -> None:
    command_id = accepted(read, awaited_for)
    now.move(awaited_for)
    apply_all(apply, [command_id])
    assert noted(read) == ["command.applied"]


def test_wait_of_a_202_ends_once_before_the_command_is_applied(
    read: Tenant, apply: Apply, submit: Submit, swept: Sweep, now: TestClock
) -> None:
    command_id = accepted(read)
    assert submit.end_wait(read.principal, command_id)
    apply_all(apply, [command_id])
    assert noted(read) == ["command.applied"]
    assert not submit.end_wait(read.principal, command_id), "the answer is there, and is returned instead of 202"
    now.move(timedelta(hours=1))
    assert swept() == []


def test_applied_command_is_reported_although_it_is_awaited(
    read: Tenant, apply: Apply, swept: Sweep, now: TestClock
) -> None:
    apply_all(apply, [accepted(read, is_refused=False)])
    assert "command.applied" in noted(read)
    now.move(timedelta(hours=1))
    assert swept() == []


def test_refusal_at_the_acceptance_is_not_owed(read: Tenant, submit: Submit, swept: Sweep, now: TestClock) -> None:
    request = InvokeAttempt(interview_id=uuid4(), scheduled_at=TOMORROW)
    found = submit.command(
        read.principal, None, request, idempotency_key=None, request_hash=b"", awaited_for=WAIT
    ).command
    assert found.is_refused
    now.move(timedelta(hours=1))
    assert swept() == []


def test_command_dropped_while_awaited_is_reported_once(read: Tenant, swept: Sweep, now: TestClock) -> None:
    command_id = accepted(read)
    read.change("UPDATE inbox SET quarantined_at = :now", now=now())
    Quarantine(read.database, now, an_operator(read)).drop(command_id, "a test")
    assert noted(read) == ["command.applied"]
    now.move(timedelta(hours=1))
    assert swept() == []


def test_wait_is_bounded(read: Tenant) -> None:
    command_id = accepted(read, timedelta(days=1))
    [(until,)] = read.ask("SELECT awaited_until FROM inbox WHERE id = :id", id=command_id)
    assert until == read.now() + MAX_AWAITED
