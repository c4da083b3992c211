"""Releases of attempts that are due within two seconds: their hints are sent early, and take no place from due ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.domain.attempt import MovedBySettings
from scheduler.lifecycle.policy import EARLY_RELEASE_LASTS, RELEASE_AHEAD, RELEASE_SPAN
from scheduler.use_cases.release import Release, Round
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, a_claimed_attempt, a_pending_attempt
from tests.use_cases.conftest import is_claimed
from tests.use_cases.test_release import another_company

A_MOMENT = timedelta(microseconds=1)


def released_ahead(tenant: Tenant, hints: RecordingHints) -> list[UUID]:
    """Release as the clock does, and return the ids of the hints."""
    hints.rung.clear()
    Release(tenant.context, hints, tenant.account_id).round(resends=False, ahead=RELEASE_AHEAD)
    return hints.ids(tasks.DIAL)


def due_in(tenant: Tenant, seconds: float) -> datetime:
    return tenant.now() + timedelta(seconds=seconds)


def test_attempt_due_within_two_seconds_is_released(tenant: Tenant, hints: RecordingHints) -> None:
    soon = a_pending_attempt(tenant, due_at=tenant.now() + RELEASE_AHEAD)
    due = a_pending_attempt(tenant)
    a_pending_attempt(tenant, due_at=tenant.now() + RELEASE_AHEAD + A_MOMENT)
    assert released_ahead(tenant, hints) == [due.id, soon.id]
    assert hints.due_at == {soon.id: soon.due_at}, "a due attempt is tried at once"
    assert released_ahead(tenant, hints) == []


@guards("due_at")
def test_early_hint_claims_nothing_before_it_is_due(tenant: Tenant, hints: RecordingHints, now: TestClock) -> None:
    soon = a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    [hinted] = released_ahead(tenant, hints)
    now.move(timedelta(seconds=1) - A_MOMENT)
    claims = tenant.dial.claim([hinted])
    assert (claims.claimed, claims.early) == ((), {soon.id: soon.due_at})
    now.move(A_MOMENT)
    assert is_claimed(tenant, soon)


def test_each_message_holds_the_due_times_of_its_ids(tenant: Tenant, now: TestClock) -> None:
    sent: list[tuple[set[UUID], set[UUID]]] = []

    class Looking(RecordingHints):
        def send(self, task: str, ids: Sequence[UUID] = (), due_at: Mapping[UUID, datetime] | None = None) -> None:
            assert task == tasks.DIAL
            sent.append((set(ids), set(due_at or {})))

    for _ in range(60):
        a_pending_attempt(tenant, due_at=now() + RELEASE_AHEAD)
    released_ahead(tenant, Looking())
    assert [len(ids) for ids, _ in sent] == [50, 10]
    assert all(ids == early for ids, early in sent)


def test_early_attempts_take_two_seconds_of_calls(tenant: Tenant, hints: RecordingHints, now: TestClock) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 2.0")
    due_at = due_in(tenant, 1)
    for _ in range(40):
        a_pending_attempt(tenant, due_at=due_at)
    assert len(released_ahead(tenant, hints)) == 2 * 2
    assert released_ahead(tenant, hints) == []
    round_ = Release(tenant.context, hints, tenant.account_id).round(resends=False, ahead=RELEASE_AHEAD)
    assert round_.next_due == due_at, "the clock wakes for the others"
    now.instant = due_at
    assert len(released_ahead(tenant, hints)) == 2 * 14 - 2 * 2


def test_account_of_one_call_in_three_seconds_has_no_early_ones(tenant: Tenant, hints: RecordingHints) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 0.3")
    a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    assert released_ahead(tenant, hints) == []


def test_early_attempts_and_due_ones_share_the_room(tenant: Tenant, hints: RecordingHints) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 1.0")
    a_pending_attempt(another_company(tenant), due_at=due_in(tenant, 1))
    for _ in range(30):
        a_pending_attempt(tenant)
        a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    assert len(released_ahead(tenant, hints)) == 14, "one second is kept for the first calls of companies"
    assert hints.due_at == {}, "due ones go first, also those of another company"
    assert released_ahead(tenant, hints) == [], "an early one does not take it"


def test_early_attempts_leave_the_room_to_a_call_due_at_once(tenant: Tenant, hints: RecordingHints) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 1.0")
    for _ in range(30):
        a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    assert len(released_ahead(tenant, hints)) == 2
    at_once = a_pending_attempt(tenant)
    assert released_ahead(tenant, hints) == [at_once.id]


def test_early_attempt_leaves_its_companys_place_to_a_due_one(tenant: Tenant, hints: RecordingHints) -> None:
    """The claim gives the place to the call that is due first, as if nothing had been released early."""
    tenant.change("UPDATE companies SET concurrent_calls = 1")
    soon = a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    assert released_ahead(tenant, hints) == [soon.id]
    a_pending_attempt(tenant, due_at=due_in(tenant, 1.5))
    assert released_ahead(tenant, hints) == [], "it has room for one early attempt"
    at_once = a_pending_attempt(tenant)
    assert released_ahead(tenant, hints) == [at_once.id]
    assert is_claimed(tenant, at_once)


def test_full_company_has_no_early_attempts(tenant: Tenant, hints: RecordingHints) -> None:
    tenant.change("UPDATE companies SET concurrent_calls = 1")
    a_claimed_attempt(tenant)
    soon = a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    assert released_ahead(tenant, hints) == []
    done = Release(tenant.context, hints, tenant.account_id).round(resends=False, ahead=RELEASE_AHEAD)
    assert done.next_due == soon.due_at


def test_first_due_call_does_not_wait_for_an_early_one(tenant: Tenant, hints: RecordingHints) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 1.0")
    other = another_company(tenant)
    soon = a_pending_attempt(other, due_at=due_in(tenant, 1))
    assert released_ahead(tenant, hints) == [soon.id]
    for _ in range(30):
        a_pending_attempt(tenant, due_at=due_in(tenant, -3600))
    assert len(released_ahead(tenant, hints)) == 13
    first = a_pending_attempt(other)
    assert released_ahead(tenant, hints) == [first.id], "its early one does not count"


def test_invoke_due_soon_is_released_after_due_attempts(tenant: Tenant, hints: RecordingHints) -> None:
    tenant.change("UPDATE companies SET concurrent_calls = 1")
    a_pending_attempt(tenant, manual=True, due_at=due_in(tenant, 1))
    due = a_pending_attempt(tenant, manual=False)
    assert released_ahead(tenant, hints) == [due.id]


def test_early_invoke_takes_no_turn_from_a_due_attempt(tenant: Tenant, hints: RecordingHints) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 1.0")
    for _ in range(12):
        a_pending_attempt(tenant)
    assert len(released_ahead(tenant, hints)) == 12
    for _ in range(30):
        a_pending_attempt(tenant, due_at=due_in(tenant, -3600))
    other = another_company(tenant)
    a_pending_attempt(other, manual=True, due_at=due_in(tenant, 1))
    due = a_pending_attempt(other, manual=False)
    assert due.id in released_ahead(tenant, hints)


def test_companies_share_the_early_places(tenant: Tenant, hints: RecordingHints) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 1.0")
    for _ in range(10):
        a_pending_attempt(tenant, due_at=due_in(tenant, 0.5))
    other = a_pending_attempt(another_company(tenant), due_at=due_in(tenant, 1.5))
    released = released_ahead(tenant, hints)
    assert len(released) == 2
    assert other.id in released


def test_trial_call_is_not_released_early(tenant: Tenant, hints: RecordingHints, now: TestClock) -> None:
    soon = a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    tenant.change("UPDATE carrier_accounts SET failures = 5, down_until = :now, answered_at = :now", now=now())
    assert released_ahead(tenant, hints) == []
    now.move(timedelta(seconds=1))
    assert released_ahead(tenant, hints) == [soon.id]


def test_released_attempt_does_not_wake_the_clock(tenant: Tenant, release: Release, now: TestClock) -> None:
    soon = a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    later = a_pending_attempt(tenant, due_at=due_in(tenant, 3600))
    assert release.round(resends=False, ahead=RELEASE_AHEAD) == Round(released=1, more=False, next_due=later.due_at)
    tenant.change("UPDATE attempts SET released_until = NULL WHERE id = :id", id=soon.id)
    assert release.round(resends=False).next_due == soon.due_at


def test_early_hint_that_was_lost_is_sent_again(tenant: Tenant, hints: RecordingHints, now: TestClock) -> None:
    """Its worker has died, or is one of the previous release, which drops it because nothing is due yet."""
    soon = a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    assert released_ahead(tenant, hints) == [soon.id]
    now.instant = soon.due_at + EARLY_RELEASE_LASTS - A_MOMENT
    assert released_ahead(tenant, hints) == [], "its worker may still claim it"
    hints.due_at.clear()
    now.move(A_MOMENT)
    assert released_ahead(tenant, hints) == [soon.id]
    assert hints.due_at == {}, "it is due now, so that such a worker claims it"
    assert tenant.attempt(soon.id).released_until == now() + RELEASE_SPAN


def test_early_release_ends_when_its_attempt_is_moved(tenant: Tenant, hints: RecordingHints, now: TestClock) -> None:
    soon = a_pending_attempt(tenant, due_at=due_in(tenant, 1))
    released_ahead(tenant, hints)
    schedule = replace(soon.schedule, due_at=tenant.now())
    tenant.take(soon, MovedBySettings(schedule=schedule, due_at=schedule.due_at))
    assert released_ahead(tenant, hints) == [soon.id]
