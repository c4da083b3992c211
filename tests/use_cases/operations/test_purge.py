"""Retention: old rows are deleted, needed rows are kept however old."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from scheduler.domain.webhook import DisabledCause
from scheduler.lifecycle.policy import Policy
from scheduler.rules import retention
from scheduler.rules.tallies import WEBHOOK_DELIVERIES, key_of
from scheduler.use_cases.operations import erase as purging
from scheduler.use_cases.operations.erase import Purge
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_stored_callback,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
)
from tests.use_cases.conftest import an_ended_attempt, is_claimed, see_leg
from tests.use_cases.webhooks.endpoints import Webhooks

A_MOMENT = timedelta(microseconds=1)
Made = Callable[[Tenant], object]


@pytest.fixture
def purge(tenant: Tenant, hints: RecordingHints) -> Purge:
    return Purge(tenant.database, hints, tenant.now)


def count(tenant: Tenant, table: str) -> int:
    return int(tenant.ask(f"SELECT count(*) FROM {table}")[0][0])


def a_heard_callback(tenant: Tenant) -> None:
    a_stored_callback(tenant, heard_at=tenant.now())


def a_partner_event(tenant: Tenant, place: int | None = 1) -> None:
    times = {"occurred_at": tenant.now(), "place": place}
    tenant.insert("events", id=uuid4(), company_id=tenant.company_id, type="company.paused", data="{}", **times)


def an_answered_command(tenant: Tenant) -> None:
    command = a_waiting_command(tenant, None)
    answer = "UPDATE inbox SET applied_at = :at, answer = '{}', body = NULL WHERE id = :id"
    tenant.change(answer, at=tenant.now(), id=command.id)


def an_invitation(tenant: Tenant, **columns: Any) -> None:
    times = dict.fromkeys(("expires_at", "created_at", "updated_at"), tenant.now())
    usual = {"id": uuid4(), "company_id": tenant.company_id, "email": "a@example.com", "tries": 0}
    tenant.insert("invitations", **(usual | times | columns))


def an_accepted_invitation(tenant: Tenant) -> None:
    an_invitation(tenant, accepted_at=tenant.now(), expires_at=tenant.now() + timedelta(days=400))


def a_revoked_invitation(tenant: Tenant) -> None:
    an_invitation(tenant, revoked_at=tenant.now(), expires_at=tenant.now() + timedelta(days=400))


def a_session(tenant: Tenant) -> None:
    times = dict.fromkeys(("created_at", "expires_at", "last_used_at"), tenant.now())
    tenant.insert("console_sessions", id=uuid4(), token_hash=b"x", actor="link:x", role="viewer", **times)


def a_caller_day(tenant: Tenant) -> None:
    tenant.change(
        "INSERT INTO caller_days (company_id, phone_number_id, day, calls, answered, declined, blocked)"
        " SELECT company_id, id, :day, 1, 0, 0, 0 FROM phone_numbers",
        day=tenant.now().date(),
    )


def a_link(tenant: Tenant, **used: datetime) -> None:
    times = dict.fromkeys(("created_at", "expires_at"), tenant.now())
    tenant.insert("sign_in_links", id=uuid4(), token_hash=b"x", created_by="cli:x", role="viewer", **times, **used)


def test_waiting_delivery_fails_with_its_old_event(tenant: Tenant, purge: Purge, now: TestClock) -> None:
    webhooks = Webhooks(tenant=tenant)
    webhooks.endpoint()
    webhooks.numbered_event()
    now.move(retention.EVENTS + A_MOMENT)
    purge.round()
    assert (count(tenant, "events"), count(tenant, "webhook_deliveries")) == (0, 0)
    with tenant.database.reading() as stores:
        assert stores.tallies.totals()[key_of(WEBHOOK_DELIVERIES, "FAILED")].n == 1


@pytest.mark.parametrize(
    ("make", "table", "kept"),
    [
        pytest.param(an_answered_command, "inbox", retention.ANSWERS, id="an answer"),
        pytest.param(a_heard_callback, "carrier_events", retention.CARRIER_EVENTS, id="a callback that was heard"),
        pytest.param(a_partner_event, "events", retention.EVENTS, id="a partner event"),
        pytest.param(an_invitation, "invitations", retention.INVITATIONS, id="an invitation that has expired"),
        pytest.param(an_accepted_invitation, "invitations", retention.INVITATIONS, id="an accepted invitation"),
        pytest.param(a_revoked_invitation, "invitations", retention.INVITATIONS, id="a revoked invitation"),
        pytest.param(
            an_ended_attempt,
            "lines",
            Policy().line_gap + retention.LINES - A_MOMENT,
            id="a line that became free",
        ),
        pytest.param(a_session, "console_sessions", retention.CONSOLE_SESSIONS, id="an expired session"),
        pytest.param(a_link, "sign_in_links", retention.CONSOLE_SESSIONS, id="an expired sign-in link"),
        pytest.param(
            a_caller_day,
            "caller_days",
            # The tests begin at noon, and the day ends at midnight.
            retention.CALLER_DAYS + timedelta(hours=12) - A_MOMENT,
            id="a day of a caller id",
        ),
        pytest.param(a_pending_attempt, "attempt_history", retention.HISTORY, id="an entry of an attempt's history"),
    ],
)
def test_row_is_deleted_after_its_retention(
    tenant: Tenant, purge: Purge, now: TestClock, make: Made, table: str, kept: timedelta
) -> None:
    make(tenant)
    now.move(kept)
    purge.round()
    assert count(tenant, table) == 1
    now.move(A_MOMENT)
    purge.round()
    assert count(tenant, table) == 0


@pytest.mark.parametrize(
    ("make", "table"),
    [
        pytest.param(lambda tenant: a_waiting_command(tenant, None), "inbox", id="an unanswered command"),
        pytest.param(a_stored_callback, "carrier_events", id="an unapplied callback"),
        pytest.param(lambda tenant: a_partner_event(tenant, None), "events", id="an event without a place"),
        pytest.param(a_placed_attempt, "attempt_tokens", id="a token, which leads late news to its attempt"),
        pytest.param(a_placed_attempt, "attempts", id="an attempt"),
        pytest.param(
            lambda tenant: a_link(tenant, used_at=tenant.now()),
            "sign_in_links",
            id="a used link, an actor of the audit",
        ),
        pytest.param(a_placed_attempt, "lines", id="the line of a call in progress"),
        pytest.param(a_pending_attempt, "lines", id="a line that an attempt waits for"),
        pytest.param(
            lambda tenant: an_invitation(tenant, expires_at=tenant.now() + timedelta(days=20_000)),
            "invitations",
            id="an invitation that can be accepted",
        ),
    ],
)
def test_needed_row_is_kept_however_old(tenant: Tenant, purge: Purge, now: TestClock, make: Made, table: str) -> None:
    make(tenant)
    now.move(timedelta(days=10_000))
    purge.round()
    assert count(tenant, table) == 1


def test_late_callback_finds_its_attempt_after_a_purge(tenant: Tenant, purge: Purge, now: TestClock) -> None:
    mine = an_attempt_of_unknown_outcome(tenant)
    now.move(timedelta(days=1000))
    purge.round()
    assert mine.token is not None
    with tenant.database.transaction() as stores:
        claim = stores.carrier_events.claim_of(mine.token)
    assert claim is not None
    assert claim.attempt_id == mine.id
    seen = see_leg(tenant, mine)
    assert tenant.line(seen)[0] == mine.id, "its line had gone, and is there again"


def test_number_is_called_normally_after_its_line_was_deleted(tenant: Tenant, purge: Purge, now: TestClock) -> None:
    number = a_number()
    an_ended_attempt(tenant, number)
    now.move(timedelta(days=30))
    purge.round()
    again = a_pending_attempt(tenant, number)
    assert is_claimed(tenant, again)


def test_purge_works_in_batches_and_sends_a_hint_for_the_rest(
    tenant: Tenant, purge: Purge, hints: RecordingHints, now: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "_BATCH_SIZE", 2)
    monkeypatch.setattr(purging, "_MAX_BATCHES", 2)
    for _ in range(5):
        a_heard_callback(tenant)
        an_ended_attempt(tenant)
    now.move(timedelta(days=40))
    purge.round()
    assert count(tenant, "carrier_events") == 1
    assert count(tenant, "lines") == 0
    assert hints.rings == [(tasks.PURGE, ())]
    purge.round()
    assert count(tenant, "carrier_events") == 0
    assert hints.rings == [(tasks.PURGE, ())]


def test_clock_sends_the_purge_hint(release: Release, hints: RecordingHints) -> None:
    release.hint_purge()
    assert hints.rings == [(tasks.PURGE, ())]


def test_command_in_quarantine_for_a_month_is_dropped(tenant: Tenant, purge: Purge, now: TestClock) -> None:
    forgotten, held = a_waiting_command(tenant, None, {"number": "+421915123456"}), a_waiting_command(tenant, uuid4())
    waiting = a_waiting_command(tenant, None)
    tenant.change(
        "UPDATE inbox SET quarantined_at = :at, failures = 5 WHERE id <> :waiting", at=tenant.now(), waiting=waiting.id
    )
    now.move(retention.ANSWERS)
    purge.round()
    assert tenant.ask("SELECT count(*) FROM inbox WHERE answer IS NOT NULL") == [(0,)]
    now.move(A_MOMENT)
    purge.round()
    assert tenant.ask("SELECT id, body, answer -> 'refusal' ->> 'code' FROM inbox WHERE answer IS NOT NULL") == [
        (forgotten.id, None, "COMMAND_DROPPED")
    ]
    assert tenant.ask("SELECT id FROM inbox WHERE quarantined_at IS NOT NULL AND answer IS NULL") == [(held.id,)]


def a_webhook(tenant: Tenant, deliveries: int, cause: DisabledCause) -> None:
    """Insert a disabled endpoint with deliveries that no process sends."""
    webhooks, at = Webhooks(tenant=tenant), tenant.now()
    endpoint_id = webhooks.endpoint(disabled_at=at, disabled_cause=cause.value)
    for place in range(deliveries):
        ids = {"event_id": webhooks.event(), "endpoint_id": endpoint_id}
        tenant.insert("webhook_deliveries", **ids, place=place, state="WAITING", send_at=at, created_at=at)


def test_deleted_webhook_is_purged_in_batches(
    tenant: Tenant, purge: Purge, hints: RecordingHints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "_BATCH_SIZE", 2)
    monkeypatch.setattr(purging, "_MAX_BATCHES", 2)
    a_webhook(tenant, 5, DisabledCause.DELETED)
    a_webhook(tenant, 1, DisabledCause.GONE)
    purge.round()
    assert (count(tenant, "webhook_deliveries"), count(tenant, "webhook_endpoints")) == (2, 2)
    assert hints.rings == [(tasks.PURGE, ())]
    purge.round()
    assert (count(tenant, "webhook_deliveries"), count(tenant, "webhook_endpoints")) == (1, 1)
