"""Corrections of times written while the clocks of PostgreSQL and a worker were wrong together, on one host.

The test's clock stands for the clock of all processes: it is moved ahead, and back again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from scheduler.domain.attempt import Attempt, AttemptState, Phase, ProofMissing
from scheduler.domain.call import AnswerUnknown, NeverTaken
from scheduler.lifecycle.breaker import BACK_OFF
from scheduler.lifecycle.policy import ASK_EVERY, DEFERRED_DELAY, POLL_AFTER_RING, POLLS, SLACK
from scheduler.persistence.unknown_outcomes import StrayCall
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.operations.stale_times import Correct
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
    a_stored_callback,
    a_waiting_command,
    an_unknown_attempt,
)
from tests.use_cases.conftest import FOR_HOURS, Calls, finish, is_claimed, settle_with_an_empty_list
from tests.use_cases.test_apply import a_wish, applied

AN_HOUR = timedelta(hours=1)
TWO_HOURS = timedelta(hours=2)
A_MOMENT = timedelta(microseconds=1)


@contextmanager
def stepped(now: TestClock, step: timedelta) -> Iterator[None]:
    """All clocks are ahead by `step` in this block, including PostgreSQL's."""
    now.move(step)
    yield
    now.move(-step)


def a_searched_attempt(tenant: Tenant, search_at: datetime | None = None) -> Attempt:
    """Given up, and its call is still searched for."""
    event = ProofMissing(search_at=search_at or tenant.now() + POLLS[0])
    return tenant.take(an_unknown_attempt(tenant), event)


def a_claim_from_the_future(tenant: Tenant, now: TestClock) -> Attempt:
    """Claim an attempt while all clocks are two hours ahead."""
    pending = a_pending_attempt(tenant)
    with stepped(now, TWO_HOURS):
        [claim] = tenant.dial.claim([pending.id]).claimed
    return claim.attempt


# ---- releases


@guards("release_of_account")
def test_release_from_the_future_takes_no_room_of_the_account(tenant: Tenant, release: Release, now: TestClock) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 1")  # so that fifteen releases fill it
    for _ in range(30):
        a_pending_attempt(tenant)
    with stepped(now, AN_HOUR):
        assert release.round(resends=False).released == 14
    assert release.round(resends=False).released == 14
    assert release.round(resends=False).released == 0, "attempts released just now do take room"


@guards("release_of_company")
def test_release_from_the_future_takes_no_room_of_the_company(tenant: Tenant, release: Release, now: TestClock) -> None:
    tenant.change("UPDATE companies SET concurrent_calls = 2")
    for _ in range(4):
        a_pending_attempt(tenant)
    with stepped(now, AN_HOUR):
        assert release.round(resends=False).released == 2
    assert release.round(resends=False).released == 2
    assert release.round(resends=False).released == 0


def test_attempt_released_in_the_future_is_released_again(tenant: Tenant, release: Release, now: TestClock) -> None:
    due = a_pending_attempt(tenant)
    with stepped(now, AN_HOUR):
        release.round(resends=False)
    assert release.round(resends=False).released == 1
    assert tenant.attempt(due.id).released_until == now() + timedelta(seconds=15)


# ---- leases and looks


@guards("impossible_lease")
def test_lease_from_the_future_ends_within_a_lease(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    claimed = a_claim_from_the_future(tenant, now)
    settle.round()
    shortened = tenant.attempt(claimed.id)
    assert (shortened.phase, shortened.epoch) == (Phase.DIALLING, claimed.epoch)
    assert shortened.lease_until == now() + tenant.policy.lease
    assert not is_claimed(tenant, claimed), "it is not free to ring a second time"
    now.move(tenant.policy.lease)
    settle.round()
    lapsed = tenant.attempt(claimed.id)
    assert (lapsed.phase, lapsed.epoch) == (Phase.UNKNOWN, claimed.epoch + 1)
    assert tenant.line(lapsed)[0] == lapsed.id, "its line is held until the outcome is known"
    assert tenant.dial.last_look(claimed) is None, "the worker that claimed it sends nothing"


@pytest.mark.parametrize("is_sent_first", [True, False], ids=["before the correction", "after the correction"])
def test_call_sent_within_a_shortened_lease_is_found(
    tenant: Tenant, settle: Settle, calls: Calls, now: TestClock, is_sent_first: bool
) -> None:
    """The list is searched for all of the lease that was shortened, whenever it is thought to have begun."""
    claimed = a_claim_from_the_future(tenant, now)
    calls.carrier.plan(to=claimed.called_number, callbacks="none", ring_s=FOR_HOURS)
    if is_sent_first:
        sid = calls.post_late(claimed)
    now.move(tenant.policy.lease / 2)
    settle.round()
    now.move(tenant.policy.lease / 2)
    if not is_sent_first:
        sid = calls.post_late(claimed)
    now.move(tenant.policy.lease / 2)
    settle.round()
    found = tenant.attempt(claimed.id)
    assert (found.phase, found.call_sid) == (Phase.PLACED, sid)


def test_list_read_in_the_future_is_not_a_verdict(
    tenant: Tenant, correct: Correct, now: TestClock, offline: Settle
) -> None:
    """By a right clock it was read during the lease, when the POST may have been on its way."""
    unknown = an_unknown_attempt(tenant)
    with stepped(now, 2 * tenant.policy.lease):
        settle_with_an_empty_list(tenant)
    correct.round()
    assert tenant.attempt(unknown.id).looks == 1
    now.move(tenant.policy.settle)
    offline.round()
    assert tenant.attempt(unknown.id).phase is Phase.UNKNOWN


def test_leases_from_the_future_free_the_trial_of_a_breaker(
    tenant: Tenant, settle: Settle, release: Release, now: TestClock
) -> None:
    """Twenty claims with leases two hours ahead had used up the place of the trial call."""
    ids = [a_pending_attempt(tenant).id for _ in range(20)]
    with stepped(now, TWO_HOURS):
        tenant.dial.claim(ids)
    tenant.change("UPDATE carrier_accounts SET failures = 5, down_until = :now, answered_at = :now", now=now())
    waiting = a_pending_attempt(tenant)
    settle.round()
    assert release.round(resends=False).released == 0
    now.move(tenant.policy.lease)
    settle.round()
    assert release.round(resends=False).released == 1
    assert tenant.attempt(waiting.id).released_until is not None


def a_searched_attempt_of_the_longest_wait(tenant: Tenant) -> Attempt:
    return a_searched_attempt(tenant, search_at=tenant.now() + POLLS[-1])


def a_call_in_a_long_queue(tenant: Tenant) -> Attempt:
    """It is polled at the time that the carrier stated."""
    placed = a_placed_attempt(tenant)
    at = tenant.now() + timedelta(hours=3) + tenant.policy.ring_timeout + POLL_AFTER_RING
    tenant.change("UPDATE attempts SET look_at = :at WHERE id = :id", at=at, id=placed.id)
    return tenant.attempt(placed.id)


def an_attempt_due_in_weeks(tenant: Tenant) -> Attempt:
    return a_pending_attempt(tenant, due_at=tenant.now() + timedelta(days=20))


@pytest.mark.parametrize(
    "make",
    [
        a_claimed_attempt,
        a_searched_attempt_of_the_longest_wait,
        a_call_in_a_long_queue,
        an_attempt_due_in_weeks,
    ],
    ids=lambda make: make.__name__,
)
def test_possible_times_are_unchanged(tenant: Tenant, correct: Correct, make: Callable[[Tenant], Attempt]) -> None:
    mine = make(tenant)
    correct.round()
    assert tenant.attempt(mine.id) == mine


def test_holder_of_a_shortened_lease_records_its_call(tenant: Tenant, correct: Correct, now: TestClock) -> None:
    claimed = a_claim_from_the_future(tenant, now)
    correct.round()
    tenant.dial.record([(claimed, NeverTaken(cause="NEVER_CONNECTED"))])
    assert tenant.attempt(claimed.id).state is AttemptState.PENDING


@guards("impossible_look")
def test_poll_from_the_future_is_made_at_once(tenant: Tenant, correct: Correct, now: TestClock) -> None:
    placed = a_placed_attempt(tenant)
    with stepped(now, TWO_HOURS):
        unknown = an_unknown_attempt(tenant)
        tenant.change("UPDATE attempts SET look_at = :at, looks = 1 WHERE id = :id", at=now(), id=placed.id)
    correct.round()
    assert tenant.attempt(unknown.id).look_at == now()
    assert tenant.attempt(placed.id).look_at == now()
    assert tenant.attempt(unknown.id).unknown_at == now(), "the time for a proof runs from now"


def test_search_from_the_future_is_made_at_once(tenant: Tenant, correct: Correct, now: TestClock) -> None:
    unknown = an_unknown_attempt(tenant)
    with stepped(now, AN_HOUR):
        tenant.take(unknown, ProofMissing(search_at=now() + ASK_EVERY))
    correct.round()
    assert tenant.attempt(unknown.id).search_at == now()


@pytest.mark.parametrize("make", [an_unknown_attempt, a_searched_attempt], ids=["asked about", "searched for"])
def test_list_from_the_future_counts_as_unread(
    tenant: Tenant, correct: Correct, make: Callable[[Tenant], Attempt]
) -> None:
    """Read before the lease was over, it would seem to prove that the call is not there."""
    early, late = make(tenant), make(tenant)
    tenant.change("UPDATE attempts SET listed_at = :at WHERE id = :id", at=tenant.now() + SLACK, id=early.id)
    tenant.change("UPDATE attempts SET listed_at = :at WHERE id = :id", at=tenant.now() + SLACK + A_MOMENT, id=late.id)
    correct.round()
    assert tenant.attempt(early.id).listed_at == tenant.now() + SLACK, "this may be written by a clock that is right"
    assert tenant.attempt(late.id).listed_at is None


def test_stray_call_with_a_distant_poll_is_polled(tenant: Tenant, now: TestClock) -> None:
    mine = a_placed_attempt(tenant)
    with stepped(now, AN_HOUR), tenant.database.transaction() as stores:
        stores.stray_calls.add(StrayCall(call_sid="CA1", attempt_id=mine.id, seen_at=now()))
    with tenant.database.transaction() as stores:
        assert [each.call_sid for each in stores.stray_calls.due_polls(now(), now() + POLLS[-1], 10)] == ["CA1"]
        assert stores.stray_calls.due_polls(now(), now() + POLLS[-1], 10) == []


# ---- back-offs


def test_back_off_from_the_future_ends_with_the_next_probe(
    tenant: Tenant, settle: Settle, now: TestClock, other: Tenant
) -> None:
    """A clock two hours ahead had one company's calls wait for two hours."""
    failing = a_claimed_attempt(tenant)
    with stepped(now, TWO_HOURS):
        tenant.dial.record([(failing, AnswerUnknown(cause="HTTP_500"))])
    waiting = a_pending_attempt(tenant)
    assert not is_claimed(tenant, waiting)
    settle.round()
    assert is_claimed(tenant, waiting)


def test_back_off_of_the_longest_possible_length_is_kept(tenant: Tenant, settle: Settle, other: Tenant) -> None:
    tenant.dial.record([(a_claimed_attempt(tenant), AnswerUnknown(cause="HTTP_500"))])
    tenant.change("UPDATE carrier_backoffs SET down_until = :at", at=tenant.now() + BACK_OFF[-1])
    waiting = a_pending_attempt(tenant)
    settle.round()
    assert not is_claimed(tenant, waiting)
    assert tenant.ask("SELECT down_until FROM carrier_backoffs") == [(tenant.now() + BACK_OFF[-1],)]


# ---- due times


def deferred(tenant: Tenant, claimed: Attempt) -> None:
    tenant.dial.give_back(claimed, "SLOW_LOOK")


def not_placed(tenant: Tenant, claimed: Attempt) -> None:
    tenant.dial.record([(claimed, NeverTaken(cause="NEVER_CONNECTED"))])


@pytest.mark.parametrize(
    ("put_off", "wait"),
    [
        pytest.param(deferred, DEFERRED_DELAY, id="deferred", marks=guards("impossible_due")),
        pytest.param(not_placed, BACK_OFF[0], id="not placed"),
    ],
)
def test_deferral_from_the_future_is_due_soon(
    tenant: Tenant, correct: Correct, now: TestClock, put_off: Callable[[Tenant, Attempt], None], wait: timedelta
) -> None:
    claimed = a_claimed_attempt(tenant)
    with stepped(now, AN_HOUR):
        put_off(tenant, claimed)
    correct.round()
    back = tenant.attempt(claimed.id)
    assert (back.due_at, back.updated_at) == (now() + wait, now())
    assert back.epoch == claimed.epoch + 2, "its ETag reflects the new time"
    correct.round()
    assert tenant.attempt(claimed.id) == back, "once is enough"


def test_retry_made_in_the_future_waits_for_its_retry_delay(retrying: Tenant, correct: Correct, now: TestClock) -> None:
    placed = a_placed_attempt(retrying)
    with stepped(now, AN_HOUR):
        finish(retrying, placed)
    [_, retry] = retrying.attempts(placed.interview_id)
    correct.round()
    wait = retry.due_at - retry.created_at
    assert wait > timedelta(minutes=1)
    assert retrying.attempt(retry.id).due_at == now() + wait


def test_deferral_to_a_future_opening_is_judged_again_soon(tenant: Tenant, correct: Correct, now: TestClock) -> None:
    """By the wrong clock it was night, and the call was put off until the morning."""
    pending = a_pending_attempt(tenant)
    with stepped(now, timedelta(hours=12)):
        [claim] = tenant.dial.claim([pending.id]).claimed
        assert tenant.dial.last_look(claim.attempt) is None
    assert tenant.attempt(pending.id).due_at > now() + timedelta(hours=12)
    correct.round()
    assert tenant.attempt(pending.id).due_at == now() + BACK_OFF[-1]


def test_breaker_of_the_future_defers_a_call_by_its_longest_wait(tenant: Tenant, now: TestClock) -> None:
    claimed = a_claimed_attempt(tenant)
    tenant.change(
        "UPDATE carrier_accounts SET failures = 5, down_until = :at, down_cause = 'A_TEST'", at=now() + AN_HOUR
    )
    assert tenant.dial.last_look(claimed) is None
    assert tenant.attempt(claimed.id).due_at == now() + BACK_OFF[-1]


def test_asap_call_requested_in_the_future_is_due_now(
    tenant: Tenant, apply: Apply, correct: Correct, now: TestClock
) -> None:
    with stepped(now, AN_HOUR):
        [created] = applied(tenant, apply, a_wish(tenant)).attempts
    correct.round()
    assert tenant.attempt(created.id).due_at == now()


def test_requested_time_is_unchanged(tenant: Tenant, apply: Apply, correct: Correct, now: TestClock) -> None:
    with stepped(now, AN_HOUR):
        [created] = applied(tenant, apply, a_wish(tenant, scheduled_at="2026-04-02T15:30:00Z")).attempts
    correct.round()
    assert tenant.attempt(created.id).due_at == created.due_at


# ---- lines


def test_new_line_is_free_whatever_clock_created_it(tenant: Tenant, now: TestClock) -> None:
    with stepped(now, AN_HOUR):
        mine = a_pending_attempt(tenant, due_at=now() - AN_HOUR)
    assert is_claimed(tenant, mine)


@guards("impossible_rest", "line_gap")
def test_line_is_blocked_for_at_most_a_gap_from_now(tenant: Tenant, correct: Correct, now: TestClock) -> None:
    number = a_number()
    placed = a_placed_attempt(tenant, number)
    other = a_pending_attempt(tenant, number)
    with stepped(now, TWO_HOURS):
        finish(tenant, placed)
    correct.round()
    free_at = tenant.line(placed)[2]
    assert now() + tenant.policy.line_gap <= free_at <= now() + tenant.policy.line_gap + SLACK
    assert not is_claimed(tenant, other), "the gap after a call is kept"
    now.instant = free_at
    assert is_claimed(tenant, other)


def test_line_blocked_for_the_longest_gap_is_unchanged(tenant: Tenant, correct: Correct, now: TestClock) -> None:
    mine = a_pending_attempt(tenant)
    assert mine.number_hash is not None
    free_at = now() + POLLS[-1] + tenant.policy.line_gap
    with tenant.database.transaction() as stores:
        stores.lines.block_until(mine.number_hash, free_at)
    correct.round()
    assert tenant.line(mine)[2] == free_at


def test_line_already_blocked_longer_is_not_free_earlier(tenant: Tenant, now: TestClock) -> None:
    """A call to that number was seen that no attempt has; another one's end does not shorten its rest."""
    placed = a_placed_attempt(tenant)
    assert placed.number_hash is not None
    long = now() + tenant.policy.line_gap + AN_HOUR
    with tenant.database.transaction() as stores:
        stores.lines.block_until(placed.number_hash, long)
        stores.lines.block_until(placed.number_hash, now() + tenant.policy.line_gap)
        stores.lines.start_gap(placed.id, placed.interview_id, now(), now() + tenant.policy.line_gap)
    assert tenant.line(placed) == (None, None, long)


# ---- hints


def test_change_requested_in_the_future_is_processed_now(
    tenant: Tenant, release: Release, hints: RecordingHints, records: ApiWriter, now: TestClock
) -> None:
    with stepped(now, AN_HOUR), tenant.database.transaction() as stores:
        stores.schedule_recomputations.ask(tenant.company_id, None, now())
    release.round(resends=True)
    assert (tasks.RECOMPUTE, ()) in hints.rings
    records.recompute()
    now.move(timedelta(seconds=7))
    records.recompute()
    assert tenant.ask("SELECT 1 FROM reresolutions") == []


def a_command(tenant: Tenant) -> UUID:
    waiting = a_waiting_command(tenant, None)
    tenant.change("UPDATE inbox SET rung_at = :at", at=tenant.now() + AN_HOUR)
    return waiting.id


def a_callback(tenant: Tenant) -> UUID:
    return a_stored_callback(tenant, rung_at=tenant.now() + AN_HOUR)


def an_erasure(tenant: Tenant) -> UUID:
    times = {"asked_at": tenant.now(), "rung_at": tenant.now() + AN_HOUR}
    tenant.insert("erasures", company_id=tenant.company_id, erased="{}", **times)
    return tenant.company_id


@pytest.mark.parametrize(
    ("make", "task"),
    [
        pytest.param(a_command, tasks.APPLY, id="a command", marks=guards("rung_in_future")),
        pytest.param(a_callback, tasks.HEAR, id="a callback"),
        pytest.param(an_erasure, tasks.ERASE, id="an erasure"),
    ],
)
def test_work_hinted_in_the_future_is_hinted_again(
    tenant: Tenant, release: Release, hints: RecordingHints, make: Callable[[Tenant], UUID], task: str
) -> None:
    work = make(tenant)
    release.round(resends=True)
    assert hints.ids(task) == [work]


# ---- alarms


def test_corrections_are_counted_and_logged(tenant: Tenant, correct: Correct, now: TestClock) -> None:
    ids = [a_pending_attempt(tenant).id for _ in range(3)]
    with stepped(now, TWO_HOURS):
        tenant.dial.claim(ids)
    with capture_logs() as lines:
        correct.round()
        correct.round()
    assert [(line["alarm"], line["count"]) for line in lines] == [("CLOCK_WAS_WRONG", 3)]


def test_clock_set_back_within_a_minute_makes_no_call_late(
    tenant: Tenant, release: Release, hints: RecordingHints, now: TestClock
) -> None:
    """A claim on the wrong clock had taken the account's slots an hour ahead."""
    first = a_pending_attempt(tenant)
    with stepped(now, AN_HOUR):
        assert is_claimed(tenant, first)
    second = a_pending_attempt(tenant)
    release.round(resends=False)
    assert hints.ids(tasks.DIAL) == [second.id]
    [claim] = tenant.dial.claim([second.id]).claimed
    assert claim.send_at <= now() + timedelta(seconds=1)
