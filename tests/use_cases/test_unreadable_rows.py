"""Rows that this release cannot read, because a later one wrote them: they stop no row of another company."""

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from console.attempt_list import AttemptFilter, ListState
from console.reads.attempts import AttemptLists
from scheduler.domain.attempt import Attempt, AttemptState, CompanyAttemptFilter, Phase, Reason
from scheduler.domain.call import Accepted
from scheduler.domain.interview import InterviewFilter
from scheduler.domain.resource import NEWEST_FIRST, KeysetSlice, Slice
from scheduler.lifecycle.policy import POLLS, UNREADABLE_FOR
from scheduler.use_cases.dialling.look import PutBack
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    ApiWriter,
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
)
from tests.use_cases.operations.test_recompute_schedules import change_hours
from tests.use_cases.test_batches import BUSY, stored
from tests.use_cases.test_hear import a_form
from tests.use_cases.webhooks.endpoints import ACCEPTED, EVERYTHING, ScriptedSender, Webhooks
from workers.tasks import _together

A_WARNING = "warnings = '{OF_A_LATER_RELEASE}'"
A_SCHEDULE = """schedule = '{"form": "of a later release"}'"""
NEWEST = KeysetSlice(limit=10, sort=NEWEST_FIRST)
Spoil = Callable[..., None]


@pytest.fixture
def spoil(tenant: Tenant, request: pytest.FixtureRequest) -> Spoil:
    """A later release writes the rows of these attempts, by default with a warning that this one does not know."""
    change = getattr(request, "param", A_WARNING)

    def spoiled(*attempts: Attempt) -> None:
        for each in attempts:
            tenant.change(f"UPDATE attempts SET {change} WHERE id = :id", id=each.id)

    return spoiled


def state_of(tenant: Tenant, attempt: Attempt) -> tuple[str, str | None, str | None]:
    [row] = tenant.ask("SELECT state, phase, reason FROM attempts WHERE id = :id", id=attempt.id)
    return tuple(row)


@guards("readable")
@pytest.mark.parametrize("spoil", [A_WARNING, A_SCHEDULE], ids=["warnings", "schedule"], indirect=True)
def test_unreadable_attempt_is_not_claimed_and_others_are(tenant: Tenant, other: Tenant, spoil: Spoil) -> None:
    later, mine = a_pending_attempt(other), a_pending_attempt(tenant)
    spoil(later)
    with capture_logs() as logs:
        claims = tenant.dial.claim([later.id, mine.id])
        assert tenant.dial.claim([later.id]).claimed == ()
    assert [each.attempt.id for each in claims.claimed] == [mine.id]
    assert claims.waiting == frozenset(), "the dialler does not try it again"
    assert state_of(other, later) == ("PENDING", None, None)
    [alarm] = [each for each in logs if "alarm" in each]
    named = {name: alarm[name] for name in ("alarm", "table", "attempt_id", "company_id")}
    assert named == {
        "alarm": "UNREADABLE_ROW",
        "table": "attempts",
        "attempt_id": str(later.id),
        "company_id": str(other.company_id),
    }


@guards("readable", "unreadable_put_off")
def test_unreadable_attempt_is_not_released_again_at_once(
    tenant: Tenant, other: Tenant, release: Release, hints: RecordingHints, now: TestClock, spoil: Spoil
) -> None:
    later = a_pending_attempt(other)
    spoil(later)
    release.round(resends=False)
    tenant.dial.claim([later.id])
    hints.rung.clear()
    mine = a_pending_attempt(tenant)
    now.move(UNREADABLE_FOR / 2)
    release.round(resends=False)
    assert hints.ids(tasks.DIAL) == [mine.id]
    now.move(UNREADABLE_FOR / 2 + timedelta(seconds=1))
    release.round(resends=False)
    assert later.id in hints.ids(tasks.DIAL), "a worker of the later release may read it"


def test_unreadable_attempt_does_not_block_its_number(tenant: Tenant, other: Tenant, spoil: Spoil) -> None:
    number = a_number()
    later = a_pending_attempt(other, number, due_at=tenant.now() - timedelta(minutes=1))
    mine = a_pending_attempt(tenant, number)
    spoil(later)
    claims = tenant.dial.claim([later.id, mine.id])
    assert [each.attempt.id for each in claims.claimed] == [mine.id]


def test_attempt_spoiled_after_its_claim_stops_no_look(tenant: Tenant, other: Tenant, spoil: Spoil) -> None:
    later, mine = a_claimed_attempt(other), a_claimed_attempt(tenant)
    spoil(later)
    facts = tenant.dial.look_all([later, mine])
    found = tenant.dial.verdict(mine, facts)
    assert found is not None
    assert not isinstance(found, PutBack)


def test_unreadable_attempt_stops_no_record_of_others(tenant: Tenant, other: Tenant, spoil: Spoil) -> None:
    later, mine = a_claimed_attempt(other), a_claimed_attempt(tenant)
    spoil(later)
    tenant.dial.record([(each, Accepted(call_sid=a_sid())) for each in (later, mine)])
    assert state_of(other, later) == ("IN_PROGRESS", "DIALLING", None)
    assert tenant.attempt(mine.id).phase is Phase.PLACED


def test_unreadable_attempts_stop_no_expiry_of_others(
    tenant: Tenant, other: Tenant, settle: Settle, now: TestClock, spoil: Spoil
) -> None:
    expires_at = tenant.now() + timedelta(hours=1)
    later = [a_pending_attempt(other, expires_at=expires_at) for _ in range(3)]
    mine = a_pending_attempt(tenant, expires_at=expires_at + timedelta(minutes=1))
    spoil(*later)
    now.move(timedelta(hours=2))
    with tenant.database.transaction() as stores:
        [found] = stores.attempt_polls.to_expire(tenant.now(), 1)
        assert found.id == mine.id, "they take no place of others"
    settle.round()
    assert tenant.attempt(mine.id).reason is Reason.EXPIRED
    assert {state_of(other, each)[0] for each in later} == {"PENDING"}


def test_unreadable_attempts_stop_no_lapse_of_others(
    tenant: Tenant, other: Tenant, settle: Settle, now: TestClock, spoil: Spoil
) -> None:
    later = [a_claimed_attempt(other) for _ in range(3)]
    now.move(timedelta(seconds=1))
    mine = a_claimed_attempt(tenant)
    spoil(*later)
    now.move(tenant.policy.lease)
    with tenant.database.transaction() as stores:
        assert [each.id for each in stores.attempt_polls.lapsed_leases(tenant.now(), 1)] == [mine.id]
    settle.round()
    assert tenant.attempt(mine.id).phase is Phase.UNKNOWN
    assert {state_of(other, each)[1] for each in later} == {"DIALLING"}


def test_unreadable_attempt_stops_no_poll_or_search(
    tenant: Tenant, other: Tenant, now: TestClock, spoil: Spoil
) -> None:
    later, mine = a_placed_attempt(other), a_placed_attempt(tenant)
    lost, searched = an_attempt_of_unknown_outcome(other), an_attempt_of_unknown_outcome(tenant)
    tenant.change("UPDATE attempts SET search_at = :at WHERE state = 'FAILED'", at=tenant.now())
    spoil(later, lost)
    now.move(max(POLLS))
    with tenant.database.transaction() as stores:
        hold = tenant.now() + timedelta(seconds=10)
        assert [each.id for each in stores.attempt_polls.due_polls(tenant.now(), hold, 10)] == [mine.id]
        assert [each.id for each in stores.attempt_polls.due_searches(tenant.now(), hold, 10)] == [searched.id]


def test_unreadable_attempt_stops_no_recomputation(
    tenant: Tenant, other: Tenant, records: ApiWriter, spoil: Spoil
) -> None:
    due_at = tenant.now() + timedelta(days=1)
    later, own = a_pending_attempt(tenant, due_at=due_at), a_pending_attempt(tenant, due_at=due_at)
    spoil(later)
    change_hours(tenant, records, 15)
    records.recompute()
    assert tenant.attempt(own.id).due_at > due_at
    # And newer zone data, over all companies.
    mine = a_pending_attempt(other, due_at=due_at)
    old = """UPDATE attempts SET schedule = schedule || '{"tzdata_version": "2000a"}' WHERE id = ANY (:ids)"""
    tenant.change(old, ids=[later.id, mine.id])
    records.recompute()
    [[version]] = tenant.ask("SELECT schedule->>'tzdata_version' FROM attempts WHERE id = :id", id=mine.id)
    assert version != "2000a"


def test_callback_of_an_unreadable_attempt_waits(
    tenant: Tenant, other: Tenant, hear: Hear, hints: RecordingHints, spoil: Spoil
) -> None:
    later, mine = a_placed_attempt(other), a_placed_attempt(tenant)
    event_ids = stored(hear, hints, [(each, a_form(each, **BUSY)) for each in (later, mine)])
    spoil(later)
    _together(event_ids, hear.batch, hear.event)
    assert tenant.attempt(mine.id).reason is Reason.BUSY
    waiting = tenant.ask("SELECT id, failures, quarantined_at FROM carrier_events WHERE heard_at IS NULL")
    assert waiting == [(event_ids[0], 0, None)], "for a worker of the later release"
    tenant.change("UPDATE attempts SET warnings = '{}' WHERE id = :id", id=later.id)


def test_unreadable_earlier_try_fails_only_its_own_chain(
    tenant: Tenant, retrying: Tenant, hear: Hear, hints: RecordingHints, spoil: Spoil
) -> None:
    """Without its row the chain would seem to have more retries left."""
    first = a_placed_attempt(retrying)
    _together(stored(hear, hints, [(first, a_form(first, **BUSY))]), hear.batch, hear.event)
    [[retry_id]] = retrying.ask("SELECT id FROM attempts WHERE retry_number = 1")
    retrying.change("UPDATE attempts SET due_at = :at WHERE id = :id", at=retrying.now(), id=retry_id)
    retrying.change("UPDATE lines SET free_at = :at", at=retrying.now())
    [claim] = retrying.dial.claim([retry_id]).claimed
    retrying.dial.record([(claim.attempt, Accepted(call_sid=a_sid()))])
    retry, mine = retrying.attempt(retry_id), a_placed_attempt(tenant)
    spoil(first)
    event_ids = stored(hear, hints, [(each, a_form(each, **BUSY)) for each in (retry, mine)])
    _together(event_ids, hear.batch, hear.event)
    assert tenant.attempt(mine.id).reason is Reason.BUSY
    assert retrying.attempt(retry_id).state is AttemptState.IN_PROGRESS
    assert retrying.ask("SELECT count(*) FROM attempts WHERE retry_number = 2") == [(0,)]


def test_unreadable_event_stops_no_delivery_of_others(tenant: Tenant, other: Tenant, hints: RecordingHints) -> None:
    theirs, mine = (Webhooks(tenant=each, hints=hints) for each in (other, tenant))
    stuck, free = theirs.endpoint(), mine.endpoint()
    later, known = theirs.numbered_event(uuid4()), mine.numbered_event(uuid4())
    tenant.change("UPDATE events SET type = 'a.type.of.a.later.release' WHERE id = :id", id=later)
    deliver = mine.deliver(ScriptedSender(ACCEPTED))
    with capture_logs() as logs:
        claims = deliver.claim(EVERYTHING)
    assert [each.delivery.event_id for each in claims] == [known]
    assert [each["alarm"] for each in logs if "alarm" in each] == ["UNREADABLE_ROW"]
    assert deliver.record([deliver.send(each) for each in claims]) == []
    [waiting], [sent] = mine.deliveries(stuck), mine.deliveries(free)
    assert (waiting.state, sent.state) == ("WAITING", "DELIVERED")
    assert waiting.send_at == tenant.now() + UNREADABLE_FOR, "it leaves the range that is read"


def test_lists_leave_out_unreadable_attempts(tenant: Tenant, spoil: Spoil) -> None:
    later, shown = a_pending_attempt(tenant), a_pending_attempt(tenant)
    spoil(later)
    explain = Explain(tenant.context)
    page = explain.attempts(tenant.principal, None, NEWEST, CompanyAttemptFilter())
    assert [each.id for each in page.items] == [shown.id]
    for asked in (Slice(page=1, limit=10), NEWEST):
        stories = explain.interviews(tenant.principal, None, asked, InterviewFilter()).items
        found = {each.interview.id: [attempt.id for attempt in each.attempts] for each in stories}
        assert found == {later.interview_id: [], shown.interview_id: [shown.id]}


def test_console_lists_go_on_with_an_unreadable_attempt(tenant: Tenant, spoil: Spoil) -> None:
    later, shown = a_pending_attempt(tenant), a_pending_attempt(tenant)
    spoil(later)
    lists = AttemptLists(tenant.database, tenant.now)
    page = lists.page(AttemptFilter(state=ListState.DUE), None)
    assert shown.id in {each.id for each in page.attempts}
