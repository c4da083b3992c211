"""Releases by the clock: due and claimable attempts, at most once in fifteen seconds, within the limits."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from scheduler.domain.attempt import Cancelled, Reason
from scheduler.lifecycle.policy import RELEASE_SPAN
from scheduler.persistence.database import Database
from scheduler.persistence.errors import StatementFailed
from scheduler.use_cases.release import Release, Round
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_stored_callback,
    a_waiting_command,
    of_company,
)
from tests.use_cases.conftest import PAUSED, Released, an_ended_attempt, is_claimed, wait_for_a_lock

A_MOMENT = timedelta(microseconds=1)


def another_company(tenant: Tenant) -> Tenant:
    return of_company(tenant, seed(tenant.database, tenant.now()))


def test_due_attempt_is_released_with_a_hint(tenant: Tenant, release: Release, hints: RecordingHints) -> None:
    due = a_pending_attempt(tenant)
    assert release.round(resends=False).released == 1
    assert hints.ids(tasks.DIAL) == [due.id]
    assert tenant.attempt(due.id).released_until == tenant.now() + RELEASE_SPAN
    assert tenant.attempt(due.id).epoch == due.epoch, "a release is no event"


@guards("release_moved")
def test_attempt_moved_during_its_release_is_not_released(
    tenant: Tenant, database: Database, postgres_url: str
) -> None:
    """The release has chosen it by its former due time, and has not locked it yet."""
    moved, due = (a_pending_attempt(tenant).id for _ in range(2))
    now, later = tenant.now(), tenant.now() + timedelta(days=1)
    with psycopg.connect(postgres_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT pg_advisory_lock(1)")
        released = pool.submit(_released_after_advisory_lock, database, now)
        wait_for_a_lock(tenant)
        other.execute("UPDATE attempts SET due_at = %s WHERE id = %s", (later, moved))
        other.commit()
        other.execute("SELECT pg_advisory_unlock(1)")
        assert released.result() == [due]


def _released_after_advisory_lock(database: Database, now: datetime) -> list[UUID]:
    """Release, and wait while the attempts are chosen until no other session holds the lock."""
    with database.transaction(lock_s=60) as stores:
        # The temporary view hides the table from the statement, and waits when it is read.
        stores.connection.execute(
            text(
                "CREATE TEMPORARY VIEW lines AS"
                " SELECT lines.* FROM public.lines, (SELECT pg_advisory_xact_lock_shared(1) OFFSET 0) AS waited"
            )
        )
        released = stores.attempt_release.release(now, now + RELEASE_SPAN, 10)
        stores.connection.execute(text("DROP VIEW lines"))
    return list(released)


def test_release_lasts_fifteen_seconds_and_is_then_repeated(tenant: Tenant, released: Released, now: TestClock) -> None:
    due = a_pending_attempt(tenant)
    assert released() == [due.id]
    now.move(RELEASE_SPAN - A_MOMENT)
    assert released() == []
    now.move(A_MOMENT)
    assert released() == [due.id]


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param(f"UPDATE companies SET {PAUSED}", id="the company is paused"),
        pytest.param("UPDATE companies SET deleted_at = :at", id="the company is deleted"),
        pytest.param(f"UPDATE carrier_accounts SET {PAUSED}", id="the account is paused"),
        pytest.param("UPDATE attempts SET due_at = :at + interval '1 microsecond'", id="it is due a moment later"),
        pytest.param("UPDATE attempts SET expires_at = :at", id="it has expired"),
        pytest.param("UPDATE lines SET free_at = :at + interval '1 second'", id="its line rests"),
    ],
)
def test_nothing_is_released_while_a_rule_blocks_it(
    tenant: Tenant, release: Release, hints: RecordingHints, meanwhile: str
) -> None:
    a_pending_attempt(tenant)
    tenant.change(meanwhile, at=tenant.now())
    assert release.round(resends=False).released == 0
    assert hints.rings == []


def test_only_the_same_interview_is_released_within_the_gap(tenant: Tenant, released: Released) -> None:
    number = a_number()
    over = an_ended_attempt(tenant, number)
    a_pending_attempt(tenant, number)
    retry = a_pending_attempt(tenant, number, interview_id=over.interview_id)
    assert released() == [retry.id]


def test_live_or_finished_attempt_is_not_released(tenant: Tenant, release: Release) -> None:
    a_claimed_attempt(tenant)
    tenant.take(a_pending_attempt(tenant), Cancelled(reason=Reason.CANCELLED_BY_USER))
    assert release.round(resends=False).released == 0


@pytest.mark.parametrize("manual", [True, False], ids=["invokes", "first attempts"])
def test_retry_does_not_wait_behind_calls_of_another_company(
    tenant: Tenant, released: Released, *, manual: bool
) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 1.0")
    for _ in range(30):
        a_pending_attempt(tenant, manual=manual, due_at=tenant.now() - timedelta(hours=1))
    other = another_company(tenant)
    retry = a_pending_attempt(other, manual=False, due_at=tenant.now() - timedelta(minutes=1))
    assert retry.id in released()[:2]


def test_invoked_attempts_are_released_before_the_earliest_due(tenant: Tenant, released: Released) -> None:
    late = a_pending_attempt(tenant, manual=False, due_at=tenant.now() - timedelta(hours=2))
    asked = a_pending_attempt(tenant, manual=True, due_at=tenant.now())
    earlier = a_pending_attempt(tenant, manual=True, due_at=tenant.now() - timedelta(minutes=1))
    assert released() == [earlier.id, asked.id, late.id]


def test_release_is_limited_to_what_the_account_can_start(
    tenant: Tenant, release: Release, hints: RecordingHints
) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 0.2")  # three in fifteen seconds
    for _ in range(5):
        a_pending_attempt(tenant)
    assert release.round(resends=False).released == 3
    assert release.round(resends=False).released == 0
    claimed = tenant.dial.claim(hints.ids(tasks.DIAL)).claimed
    assert release.round(resends=False).released == len(claimed), "claimed attempts make room"


def test_release_at_its_limit_says_that_there_may_be_more(tenant: Tenant, release: Release) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 0.2")  # three in fifteen seconds
    for _ in range(2):
        a_pending_attempt(tenant)
    assert release.round(resends=False) == Round(released=2, more=False, next_due=None)
    a_pending_attempt(tenant)
    assert release.round(resends=False) == Round(released=1, more=True, next_due=None)
    assert release.round(resends=False) == Round(released=0, more=False, next_due=None)


def test_large_company_does_not_delay_a_small_one(tenant: Tenant, release: Release, hints: RecordingHints) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 1.0")
    for _ in range(30):
        a_pending_attempt(tenant, due_at=tenant.now() - timedelta(hours=1))
    others = [a_pending_attempt(another_company(tenant)) for _ in range(3)]
    assert release.round(resends=False).released == 14, (
        "of the fifteen seconds one is kept for companies without a released attempt"
    )
    assert {other.id for other in others} <= set(hints.ids(tasks.DIAL)[:6])


def test_backlog_leaves_a_second_of_calls_to_other_companies(
    tenant: Tenant, release: Release, hints: RecordingHints
) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 2.0")
    for _ in range(40):
        a_pending_attempt(tenant, due_at=tenant.now() - timedelta(hours=1))
    assert release.round(resends=False).released == 2 * 14, "the number that the account can start in fourteen seconds"
    others = [another_company(tenant) for _ in range(3)]
    earliest = [a_pending_attempt(each, due_at=tenant.now() - timedelta(minutes=1)).id for each in others]
    for each in others:
        a_pending_attempt(each, due_at=tenant.now())
    hints.rung.clear()
    assert release.round(resends=False).released == 2
    assert set(hints.ids(tasks.DIAL)) < set(earliest), "the first call of a company only"
    assert release.round(resends=False).released == 0, "thirty in all"


def test_full_company_takes_no_place_from_others(tenant: Tenant, release: Release) -> None:
    tenant.change("UPDATE companies SET concurrent_calls = 2")
    a_claimed_attempt(tenant)
    for _ in range(3):
        a_pending_attempt(tenant)
    assert release.round(resends=False).released == 1, "one place is left"
    assert release.round(resends=False).released == 0


@guards("release_places")
def test_release_is_limited_to_the_free_places(tenant: Tenant, release: Release) -> None:
    tenant.change("UPDATE carrier_accounts SET max_calls = 2")
    for _ in range(3):
        a_pending_attempt(another_company(tenant))
    assert release.round(resends=False).released == 2
    assert release.round(resends=False).released == 0, "both places are promised"


@guards("release_kept_places")
def test_release_leaves_the_kept_places_to_other_companies(
    tenant: Tenant, release: Release, released: Released
) -> None:
    # So slow that no second of its calls is kept for the first calls of companies.
    tenant.change("UPDATE carrier_accounts SET max_calls = 5, calls_per_second = 0.5")
    a_claimed_attempt(tenant)
    for _ in range(5):
        a_pending_attempt(tenant, due_at=tenant.now() - timedelta(hours=1))
    assert release.round(resends=False).released == 3, "one of four free places is kept"
    assert release.round(resends=False).released == 0
    other = a_pending_attempt(another_company(tenant))
    assert released() == [other.id]


@pytest.mark.parametrize(("places", "per_second"), [(1, 0.5), (1, 1.0), (1000, 0.01)])
def test_smallest_account_releases_one_attempt(
    tenant: Tenant, release: Release, places: int, per_second: float
) -> None:
    limits = "max_calls = :places, calls_per_second = :pace"
    tenant.change(f"UPDATE carrier_accounts SET {limits}", places=places, pace=per_second)
    for _ in range(2):
        a_pending_attempt(tenant)
    assert release.round(resends=False).released == 1


def test_company_with_a_later_turn_takes_no_place_from_others(
    tenant: Tenant, release: Release, released: Released, now: TestClock
) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 0.01")  # one at a time
    tenant.change("UPDATE companies SET calls_per_second = 0.05, next_slot_at = :at", at=now() + timedelta(seconds=20))
    waiting = a_pending_attempt(tenant, due_at=now() - timedelta(hours=1))
    quick = another_company(tenant)
    other = a_pending_attempt(quick)
    assert released() == [other.id]
    quick.take(other, Cancelled(reason=Reason.CANCELLED_BY_USER))
    assert release.round(resends=False).released == 0
    now.move(timedelta(seconds=19) + A_MOMENT)
    assert released() == [waiting.id]


def test_turn_taken_on_a_clock_set_back_delays_no_company(tenant: Tenant, released: Released) -> None:
    tenant.change("UPDATE companies SET next_slot_at = :at", at=tenant.now() + timedelta(minutes=2))
    mine = a_pending_attempt(tenant)
    assert released() == [mine.id]


def test_trial_that_could_not_be_claimed_gives_way_to_another(
    tenant: Tenant, released: Released, other: Tenant, now: TestClock
) -> None:
    """Otherwise no trial call would be made while one company's row is locked, or its settings cannot be read."""
    stuck = a_pending_attempt(other)
    tenant.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=other.company_id)
    now.move(A_MOMENT)
    mine = a_pending_attempt(tenant)
    tenant.change("UPDATE carrier_accounts SET failures = 5, down_until = :now, answered_at = :now", now=now())
    assert released() == [stuck.id]
    assert not is_claimed(tenant, stuck)
    now.move(RELEASE_SPAN)
    assert released() == [mine.id]
    now.move(RELEASE_SPAN)
    assert released() == [stuck.id], "each in its turn"


def test_next_due_time_is_returned(tenant: Tenant, release: Release) -> None:
    assert release.round(resends=False).next_due is None
    a_pending_attempt(tenant, due_at=tenant.now() + timedelta(hours=2))
    a_pending_attempt(tenant, due_at=tenant.now() + timedelta(hours=1))
    a_pending_attempt(tenant, due_at=tenant.now())
    assert release.round(resends=False).next_due == tenant.now() + timedelta(hours=1)


def test_hints_for_unapplied_commands_back_off(
    tenant: Tenant, release: Release, hints: RecordingHints, now: TestClock
) -> None:
    """Otherwise workers that fall behind would get ever more hints."""
    command = a_waiting_command(tenant, None)
    release.round(resends=True)
    assert hints.ids(tasks.APPLY) == [], "the hint of the accepting process is still recent"
    for seconds in (2, 2, 4, 8, 8, 8):
        now.move(timedelta(seconds=seconds) - A_MOMENT)
        release.round(resends=True)
        assert hints.ids(tasks.APPLY) == []
        now.move(A_MOMENT)
        release.round(resends=True)
        release.round(resends=True)
        assert hints.ids(tasks.APPLY) == [command.id], "once"
        hints.rung.clear()


def test_locked_commands_delay_only_their_own_hints(
    tenant: Tenant, release: Release, hints: RecordingHints, now: TestClock, postgres_url: str
) -> None:
    a_waiting_command(tenant, None)
    event_id = a_stored_callback(tenant)
    now.move(timedelta(seconds=2))
    due = a_pending_attempt(tenant)
    with psycopg.connect(postgres_url) as other, capture_logs() as logs:
        other.execute("LOCK TABLE inbox IN SHARE MODE")
        assert release.round(resends=True).released == 1
    assert [each["event"].partition(":")[0] for each in logs] == ["hints_delayed"]
    assert hints.rings == [(tasks.DIAL, (due.id,)), (tasks.HEAR, (event_id,))]


def test_slow_query_for_hints_is_no_conflict(
    tenant: Tenant, release: Release, hints: RecordingHints, now: TestClock
) -> None:
    """If it were taken for one, each tick of the clock would last as long as a statement may."""
    a_waiting_command(tenant, None)
    now.move(timedelta(seconds=2))
    a_pending_attempt(tenant)
    tenant.change(
        "CREATE FUNCTION too_slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'canceled' USING ERRCODE = 'query_canceled'; END $$"
    )
    tenant.change("CREATE TRIGGER too_slow BEFORE UPDATE ON inbox FOR EACH ROW EXECUTE FUNCTION too_slow()")
    try:
        with pytest.raises(StatementFailed):
            release.round(resends=True)
        assert hints.rings == []
        assert release.round(resends=False).released == 1, "the next round of the clock"
    finally:
        tenant.change("DROP FUNCTION too_slow CASCADE")
