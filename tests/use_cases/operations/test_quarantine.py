"""Quarantine of commands and callbacks: listed with the place of the error, retried or dropped."""

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.call import CallNews, CallStatus
from scheduler.domain.refusals import NotFound
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, a_number, a_placed_attempt, a_waiting_command
from tests.use_cases.test_hear import a_form, deliver
from tests.use_cases.test_settle import settle_during

JANA = "cli:jana@ops-1"
WHY = "a test"


@pytest.fixture
def quarantine(tenant: Tenant) -> Quarantine:
    return Quarantine(tenant.database, tenant.now, JANA)


class FailingCallback:
    """The last callback of a call, which fails because the company's settings cannot be read."""

    def __init__(self, tenant: Tenant, hear: Hear, hints: RecordingHints, now: TestClock) -> None:
        self._tenant = tenant
        [[self._settings]] = tenant.ask("SELECT settings FROM companies WHERE id = :id", id=tenant.company_id)
        self.attempt = a_placed_attempt(tenant)
        self._change({})
        deliver(hear, self.attempt, a_form(self.attempt, "busy", To="+421915000000"))
        self.id: UUID = hints.ids(tasks.HEAR)[-1]
        self.first_failed_at = now()
        for _ in range(5):
            with pytest.raises(KeyError):
                hear.event(self.id)
            now.move(timedelta(seconds=1))

    def fix(self) -> None:
        self._change(self._settings)

    def ended(self) -> Attempt:
        return self._tenant.attempt(self.attempt.id)

    def _change(self, settings: Any) -> None:
        change = "UPDATE companies SET settings = CAST(:settings AS jsonb) WHERE id = :id"
        self._tenant.change(change, settings=json.dumps(settings), id=self._tenant.company_id)


@pytest.fixture
def callback(tenant: Tenant, hear: Hear, hints: RecordingHints, now: TestClock) -> FailingCallback:
    return FailingCallback(tenant, hear, hints, now)


def test_list_shows_the_place_of_the_error_and_no_body(
    tenant: Tenant, quarantine: Quarantine, apply: Apply, callback: FailingCallback, now: TestClock
) -> None:
    command = a_waiting_command(tenant, callback.attempt.interview_id, {"no": "sense", "phone": a_number()})
    for _ in range(5):
        with pytest.raises(Exception):  # noqa: B017, PT011 - any unexpected error
            apply.command(command.id)
    heard, applied = quarantine.page()
    assert (heard.id, heard.kind, heard.command) == (callback.id, "callback", None)
    assert (heard.company_id, heard.interview_id, heard.attempt_id) == (
        tenant.company_id,
        callback.attempt.interview_id,
        callback.attempt.id,
    )
    assert (heard.first_failed_at, heard.quarantined_at) == (callback.first_failed_at, now() - timedelta(seconds=1))
    assert heard.failed_with is not None
    assert heard.failed_with.startswith("builtins.KeyError at ")
    assert (applied.id, applied.kind, applied.command) == (command.id, "command", "create_interview")
    assert (applied.interview_id, applied.first_failed_at) == (callback.attempt.interview_id, now())
    assert applied.failed_with is not None
    assert ".py:" in applied.failed_with
    assert "+421" not in f"{asdict(heard)}{asdict(applied)}"


def test_callback_can_be_retried_after_a_fix(
    quarantine: Quarantine, callback: FailingCallback, release: Release, hear: Hear, hints: RecordingHints
) -> None:
    callback.fix()
    assert quarantine.requeue(callback.id, WHY) == "callback"
    assert quarantine.page() == []
    hints.rung.clear()
    release.round(resends=True)
    assert hints.ids(tasks.HEAR) == [callback.id]
    hear.event(callback.id)
    assert callback.ended().reason is Reason.BUSY


def test_call_of_a_dropped_callback_is_polled(
    tenant: Tenant, quarantine: Quarantine, callback: FailingCallback, hear: Hear, now: TestClock
) -> None:
    callback.fix()
    before = callback.ended()
    dropped = quarantine.drop(callback.id, WHY)
    assert (dropped.kind, dropped.attempt_id, dropped.next_poll_at) == ("callback", before.id, before.look_at)
    assert callback.ended() == before
    assert before.state is AttemptState.IN_PROGRESS
    [[body]] = tenant.ask("SELECT raw FROM carrier_events")
    assert body == {}
    hear.event(callback.id)
    assert callback.ended() == before, "it is never applied"
    assert before.look_at is not None
    assert before.call_sid is not None
    now.instant = before.look_at
    settle_during(tenant, lambda: None, CallNews(call_sid=before.call_sid, status=CallStatus.BUSY)).round()
    assert callback.ended().reason is Reason.BUSY


def test_only_what_is_in_quarantine_is_dropped_or_retried(
    tenant: Tenant, quarantine: Quarantine, callback: FailingCallback
) -> None:
    quarantine.drop(callback.id, WHY)
    for unknown in (callback.id, a_waiting_command(tenant, None).id, uuid4()):
        for act in (quarantine.drop, quarantine.requeue):
            with pytest.raises(NotFound, match="duecall quarantine list"):
                act(unknown, WHY)
