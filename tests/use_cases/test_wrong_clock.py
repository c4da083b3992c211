"""A process whose clock differs from the database's writes no time and logs it once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.clock import machine_now
from scheduler.domain.attempt import AttemptState, Phase
from scheduler.domain.call import NeverTaken
from scheduler.domain.command import RescheduleAttempt
from scheduler.domain.company import CompanySettings
from scheduler.persistence.database import Database
from scheduler.persistence.errors import ClockWrong
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.erase import Purge
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    ApiWriter,
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_pending_attempt,
    a_placed_attempt,
    a_waiting_command,
)
from tests.support.servers import SimulatedCarrier
from tests.use_cases.conftest import ACCOUNT_LOCK, PUBLIC_URL, claim_behind, settle_at
from tests.use_cases.test_apply import a_wish, sent
from tests.use_cases.test_hear import a_form, deliver

SPANS = [timedelta(seconds=10), -timedelta(seconds=10), timedelta(hours=1)]
AN_HOUR = timedelta(hours=1)


@dataclass
class Machine:
    """The wall clock of a machine, `ahead` of the real one; a test may set it."""

    ahead: timedelta

    def __call__(self) -> datetime:
        return machine_now() + self.ahead


@contextmanager
def seen_from(url: str, machine: Machine) -> Iterator[Database]:
    """Return the database in a process of this machine."""
    database = Database(url, machine=machine)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def on_a_wrong_clock(tenant: Tenant, url: str, span: timedelta) -> Iterator[Tenant]:
    """Return the company in a process whose clock is `span` ahead."""
    with seen_from(url, Machine(span)) as database:
        yield replace(tenant, database=database, now=lambda: tenant.now() + span)


@pytest.fixture(params=[AN_HOUR, -AN_HOUR], ids=str)
def wrong_tenant(request: pytest.FixtureRequest, tenant: Tenant, postgres_url: str) -> Iterator[Tenant]:
    """Return the company in a process whose clock is an hour ahead, or behind."""
    with on_a_wrong_clock(tenant, postgres_url, request.param) as wrong_tenant:
        yield wrong_tenant


@pytest.mark.parametrize("span", SPANS, ids=str)
@guards("clock")
def test_clock_that_is_seconds_off_is_wrong(postgres_url: str, span: timedelta) -> None:
    with seen_from(postgres_url, Machine(span)) as database:
        assert not database.clock_is_right()


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_wrong_clock_releases_and_claims_nothing(
    postgres_url: str, tenant: Tenant, hints: RecordingHints, span: timedelta
) -> None:
    due = a_pending_attempt(tenant)
    with seen_from(postgres_url, Machine(span)) as database:
        wrong_tenant = replace(tenant, database=database)
        with pytest.raises(ClockWrong):
            Release(wrong_tenant.context, hints, tenant.account_id).round(resends=False)
        claims = wrong_tenant.dial.claim([due.id])
        assert claims.claimed == ()
        assert claims.waiting == {due.id}, "the hint is kept until its release has lapsed"
    assert hints.rings == []
    assert tenant.attempt(due.id) == due


@guards("due_at")
def test_clock_slightly_ahead_claims_nothing_early(postgres_url: str, tenant: Tenant, now: TestClock) -> None:
    """It is within the tolerance, so the worker goes on. Its hint came before the due time."""
    due, ahead = a_pending_attempt(tenant, due_at=now()), timedelta(seconds=1.5)
    with seen_from(postgres_url, Machine(ahead)) as database:
        worker = replace(tenant, database=database)
        claims = worker.dial.claim([due.id])
        assert claims.claimed == ()
        assert abs(claims.early[due.id] - (now() + ahead)) < timedelta(seconds=0.5), "by the worker's own clock"
        now.move(timedelta(seconds=2))
        assert [each.attempt.id for each in worker.dial.claim([due.id]).claimed] == [due.id]


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_clock_set_while_a_claim_waits_claims_nothing(tenant: Tenant, postgres_url: str, span: timedelta) -> None:
    due, machine = a_pending_attempt(tenant), Machine(timedelta())
    with seen_from(postgres_url, machine) as database:
        dial = replace(tenant, database=database).dial
        claims = claim_behind(ACCOUNT_LOCK, dial, tenant, postgres_url, due, lambda: setattr(machine, "ahead", span))
    assert claims.claimed == ()
    assert claims.waiting == {due.id}
    assert tenant.attempt(due.id) == due


def test_clock_ahead_after_a_wait_claims_nothing_early(tenant: Tenant, postgres_url: str) -> None:
    """The clocks are compared again after the locks."""
    due, machine = a_pending_attempt(tenant, due_at=tenant.now() + timedelta(seconds=1.5)), Machine(timedelta())
    with seen_from(postgres_url, machine) as database:
        worker = replace(tenant, database=database, now=lambda: tenant.now() + machine.ahead)
        claims = claim_behind(
            *(ACCOUNT_LOCK, worker.dial, tenant, postgres_url, due),
            lambda: setattr(machine, "ahead", timedelta(seconds=1.9)),
        )
    assert claims.claimed == ()
    assert claims.early.keys() == {due.id}


def test_wrong_clock_lapses_no_lease(
    postgres_url: str, tenant: Tenant, carrier: SimulatedCarrier, settle: Settle, now: TestClock
) -> None:
    claimed = a_claimed_attempt(tenant)
    now.move(tenant.policy.lease)
    with seen_from(postgres_url, Machine(AN_HOUR)) as database, pytest.raises(ClockWrong):
        settle_at(replace(tenant, database=database), carrier.url).round()
    assert tenant.attempt(claimed.id).phase is Phase.DIALLING
    settle.round()
    assert tenant.attempt(claimed.id).phase is Phase.UNKNOWN


@guards("clock_step")
@pytest.mark.parametrize("step", [AN_HOUR, -AN_HOUR], ids=str)
def test_clock_set_within_a_transaction_writes_nothing(
    postgres_url: str, tenant: Tenant, now: TestClock, step: timedelta
) -> None:
    machine = Machine(timedelta())

    def pause(database: Database) -> None:
        with database.transaction() as stores:
            assert stores.instant(now) == now()
            machine.ahead = step
            stores.companies.pause(tenant.company_id, "a pause at a wrong time", stores.instant(now))

    with seen_from(postgres_url, machine) as database, pytest.raises(ClockWrong):
        pause(database)
    assert tenant.ask("SELECT 1 FROM companies WHERE paused_at IS NOT NULL") == []


@guards("clock")
def test_wrong_clock_begins_no_writing_transaction(postgres_url: str, tenant: Tenant) -> None:
    """Where the time is not asked for, the comparison at the beginning of the transaction counts."""
    command = a_waiting_command(tenant, None)
    tenant.change("UPDATE inbox SET failures = 5, quarantined_at = received_at")

    def requeue(database: Database) -> None:
        with database.transaction() as stores:
            stores.inbox.requeue(command.id)

    with seen_from(postgres_url, Machine(AN_HOUR)) as database, pytest.raises(ClockWrong):
        requeue(database)
    assert tenant.ask("SELECT failures FROM inbox") == [(5,)]
    with seen_from(postgres_url, Machine(timedelta())) as database:
        requeue(database)
    assert tenant.ask("SELECT failures FROM inbox") == [(0,)]


def test_clock_set_back_right_writes_again(postgres_url: str, now: TestClock) -> None:
    machine = Machine(AN_HOUR)
    with seen_from(postgres_url, machine) as database:
        assert not database.clock_is_right()
        machine.ahead = timedelta()
        with database.transaction() as stores:
            assert stores.instant(now) == now()


def test_wrong_clock_is_logged_once_and_again_after_a_change(postgres_url: str) -> None:
    machine = Machine(AN_HOUR)
    with seen_from(postgres_url, machine) as database, capture_logs() as logs:
        for ahead in (AN_HOUR, AN_HOUR, timedelta(), timedelta(), -AN_HOUR, -AN_HOUR):
            machine.ahead = ahead
            database.clock_is_right()
    assert [each.get("alarm") for each in logs] == ["CLOCK_SKEW", None, "CLOCK_SKEW"]
    assert "clock_right" in logs[1]["event"]


def test_reads_go_on_with_a_wrong_clock(postgres_url: str, tenant: Tenant) -> None:
    with seen_from(postgres_url, Machine(AN_HOUR)) as database, database.reading() as stores:
        assert stores.companies.is_there(tenant.company_id)


def test_unsent_claim_is_given_back_at_a_right_time(tenant: Tenant, wrong_tenant: Tenant) -> None:
    """The clock was set after the claim. Nothing was sent, and no other process knows that."""
    mine = a_claimed_attempt(tenant)
    wrong_tenant.dial.record([(mine, NeverTaken(cause="NOT_SENT"))])
    back = tenant.attempt(mine.id)
    assert back.state is AttemptState.PENDING
    assert abs(back.due_at - tenant.now()) < timedelta(seconds=30)
    assert abs(back.updated_at - tenant.now()) < timedelta(seconds=30)


def test_last_look_on_a_wrong_clock_defers_to_a_right_time(tenant: Tenant, wrong_tenant: Tenant) -> None:
    """Set an hour ahead after the claim, the last look put it back an hour late."""
    mine = a_claimed_attempt(tenant)
    assert wrong_tenant.dial.last_look(mine) is None
    back = tenant.attempt(mine.id)
    assert back.state is AttemptState.PENDING
    assert abs(back.due_at - tenant.now()) < timedelta(seconds=30)
    assert tenant.ask("SELECT detail ->> 'cause' FROM attempt_history WHERE event = 'deferred'") == [("CLOCK_SKEW",)]


# ---- every stop


def test_wrong_clock_accepts_no_command(tenant: Tenant, wrong_tenant: Tenant, hints: RecordingHints) -> None:
    mine = a_pending_attempt(tenant)
    request = RescheduleAttempt(interview_id=mine.interview_id, attempt_id=mine.id, scheduled_at="2026-04-03T12:00:00Z")
    with pytest.raises(ClockWrong):
        Submit(wrong_tenant.database, hints, wrong_tenant.now).command(
            tenant.principal, None, request, idempotency_key=None, request_hash=b""
        )
    assert tenant.ask("SELECT 1 FROM inbox") == []
    assert hints.rings == []


def test_wrong_clock_applies_no_command(
    tenant: Tenant, wrong_tenant: Tenant, hints: RecordingHints, apply: Apply
) -> None:
    given = sent(tenant, a_wish(tenant))
    with pytest.raises(ClockWrong):
        Apply(wrong_tenant.context, hints).command(given.id)
    assert tenant.ask("SELECT failures, applied_at FROM inbox") == [(0, None)], "no step towards quarantine"
    apply.command(given.id)
    assert tenant.ask("SELECT due_at FROM attempts") == [(tenant.now(),)]


def test_wrong_clock_hears_nothing(
    tenant: Tenant, wrong_tenant: Tenant, hints: RecordingHints, carrier: SimulatedCarrier
) -> None:
    """An hour behind, the retry of a busy call was due in the past; two hours ahead, its line was blocked."""
    callbacks = TwilioCallbacks(carrier.account(public_url=PUBLIC_URL))
    right = Hear(tenant.context, hints, callbacks)
    busy = a_placed_attempt(tenant)
    deliver(right, busy, a_form(busy, "busy"))
    [event_id] = hints.ids(tasks.HEAR)
    hear = Hear(wrong_tenant.context, hints, callbacks)
    with pytest.raises(ClockWrong):
        hear.event(event_id)
    with pytest.raises(ClockWrong):
        deliver(hear, busy, a_form(busy, "ringing"))
    assert tenant.ask("SELECT failures, heard_at FROM carrier_events") == [(0, None)]
    assert tenant.line(busy)[0] == busy.id
    right.event(event_id)
    assert tenant.attempt(busy.id).ended_at == tenant.now()


def test_wrong_clock_writes_no_record(tenant: Tenant, wrong_tenant: Tenant, hints: RecordingHints) -> None:
    with pytest.raises(ClockWrong):
        ApiWriter(tenant=wrong_tenant, hints=hints).change_settings(tenant.principal, CompanySettings())
    assert tenant.ask("SELECT updated_at FROM companies") == [(tenant.now(),)]


def test_wrong_clock_expires_and_purges_nothing(
    postgres_url: str, tenant: Tenant, hints: RecordingHints, carrier: SimulatedCarrier
) -> None:
    """Maintenance eight days ahead ended 126 attempts as expired, finally."""
    waiting = a_pending_attempt(tenant, due_at=tenant.now() + AN_HOUR)
    with on_a_wrong_clock(tenant, postgres_url, timedelta(days=400)) as wrong_tenant:
        with pytest.raises(ClockWrong):
            settle_at(wrong_tenant, carrier.url).round()
        with pytest.raises(ClockWrong):
            Purge(wrong_tenant.database, hints, wrong_tenant.now).round()
    assert tenant.attempt(waiting.id) == waiting
    assert tenant.history(waiting.id) == ["created"]


@guards("clock_step")
def test_clock_that_steps_within_a_round_expires_nothing(
    postgres_url: str, tenant: Tenant, carrier: SimulatedCarrier, now: TestClock
) -> None:
    """The round found nothing wrong with its clock when it began."""
    waiting = a_pending_attempt(tenant, due_at=tenant.now() + AN_HOUR)
    machine = Machine(timedelta())
    eight_days = timedelta(days=8)

    def step() -> datetime:
        machine.ahead = eight_days
        return tenant.now() + eight_days

    with seen_from(postgres_url, machine) as database, pytest.raises(ClockWrong):
        settle_at(replace(tenant, database=database, now=step), carrier.url).round()
    assert tenant.attempt(waiting.id) == waiting
