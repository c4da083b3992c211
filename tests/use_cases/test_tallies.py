"""Tallies: counted in the transaction that they belong to, without a statement of their own, and never lost."""

import threading
from contextlib import suppress
from datetime import timedelta

import pytest

from scheduler.domain.attempt import Phase
from scheduler.domain.call import Accepted, AnswerUnknown
from scheduler.domain.command import UpdateInterview
from scheduler.rules.tallies import (
    CALLS,
    CARRIER_ANSWER,
    COMMAND,
    DEFERRED,
    DIAL_LATENESS,
    ONE,
    Amount,
    Key,
    Sent,
    Tally,
    key_of,
    seconds_of,
)
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.dialling.watch import PostTimes
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.counts import Tallies
from tests.conftest import NOON, TestClock
from tests.support.builders import RecordingHints, Tenant, a_claimed_attempt, a_pending_attempt, a_placed_attempt, a_sid
from tests.support.servers import SimulatedCarrier
from tests.support.statements import statements_of
from tests.use_cases.conftest import EMPTY_LIST, PAUSED, Perform, a_dialler, answering, change_now, settle_at
from tests.use_cases.test_apply import a_wish
from tests.use_cases.test_batches import BUSY, stored
from tests.use_cases.test_hear import a_form
from tests.use_cases.test_submit_and_apply import TOMORROW

SENT = Sent(lateness=timedelta(seconds=0.3), answered_after=0.2)


@pytest.fixture
def tallies(tenant: Tenant) -> Tallies:
    return Tallies(tenant.database)


def counted(tallies: Tallies, tally: Tally, *labels: str) -> int:
    return tallies.totals().get(key_of(tally, *labels), Amount(n=0)).n


def test_end_of_a_call_is_counted_by_its_reason(
    tenant: Tenant, hear: Hear, hints: RecordingHints, tallies: Tallies
) -> None:
    attempts = [a_placed_attempt(tenant) for _ in range(3)]
    assert hear.batch(stored(hear, hints, [(each, a_form(each, **BUSY)) for each in attempts])) == []
    assert counted(tallies, CALLS, "BUSY") == 3


def test_repeated_callback_is_counted_once(tenant: Tenant, hear: Hear, hints: RecordingHints, tallies: Tallies) -> None:
    attempt = a_placed_attempt(tenant)
    for form in (a_form(attempt, **BUSY), a_form(attempt, **BUSY, SequenceNumber="2")):
        [event] = stored(hear, hints, [(attempt, form)])
        hear.event(event)
    assert counted(tallies, CALLS, "BUSY") == 1


def test_expired_attempt_is_counted_by_settle(tenant: Tenant, now: TestClock, tallies: Tallies) -> None:
    a_pending_attempt(tenant, expires_at=now() + timedelta(seconds=1))
    now.move(timedelta(seconds=2))
    with answering(200, EMPTY_LIST) as url:
        settle_at(tenant, url).round()
    assert counted(tallies, CALLS, "EXPIRED") == 1


def test_call_put_back_by_the_last_look_is_counted(tenant: Tenant, tallies: Tallies) -> None:
    attempt = a_claimed_attempt(tenant)
    change_now(tenant, f"UPDATE companies SET {PAUSED}")
    assert tenant.dial.last_look(attempt) is None
    assert counted(tallies, DEFERRED, "COMPANY_PAUSED") == 1


def test_command_is_counted_with_its_time(
    tenant: Tenant, accept: Perform, apply: Apply, now: TestClock, tallies: Tallies
) -> None:
    applied = accept(a_wish(tenant))
    refused = accept(UpdateInterview(interview_id=a_pending_attempt(tenant).interview_id, scheduled_at=TOMORROW))
    tenant.change("UPDATE interviews SET status = 'COMPLETED', finished_at = :at", at=now())
    now.move(timedelta(seconds=3))
    for each in (applied, refused):
        apply.command(each.id)
        assert tenant.ask("SELECT applied_at IS NULL FROM inbox WHERE id = :id", id=each.id) == [(False,)]
    total = tallies.totals()[key_of(COMMAND)]
    assert (total.n, total.seconds) == (2, 6.0)


def test_rolled_back_transaction_counts_nothing(tenant: Tenant, tallies: Tallies) -> None:
    with suppress(ZeroDivisionError), tenant.database.transaction() as stores:
        stores.tallies.add({key_of(CALLS, "BUSY"): ONE})
        raise ZeroDivisionError
    assert counted(tallies, CALLS, "BUSY") == 0


def test_times_of_posts_are_recorded_with_their_answers(tenant: Tenant, tallies: Tallies) -> None:
    accepted, lost, unsent = (a_claimed_attempt(tenant) for _ in range(3))
    answers = [(accepted, Accepted(call_sid=a_sid())), (lost, AnswerUnknown(cause="TIMEOUT"))]
    tenant.dial.record([*answers, (unsent, AnswerUnknown(cause="TIMEOUT"))], {accepted.id: SENT, lost.id: SENT})
    totals = tallies.totals()
    late = seconds_of(DIAL_LATENESS, SENT.lateness)
    assert totals[key_of(DIAL_LATENESS)] == late + late
    for answer in ("accepted", "unknown"):
        assert totals[key_of(CARRIER_ANSWER, answer)] == seconds_of(CARRIER_ANSWER, SENT.answered_after)


@pytest.mark.usefixtures("fresh_looks")
def test_dialler_measures_each_call_that_it_sends(
    tenant: Tenant, carrier: SimulatedCarrier, now: TestClock, tallies: Tallies
) -> None:
    attempt = a_pending_attempt(tenant)
    now.move(timedelta(seconds=7))
    dialler = a_dialler(tenant, carrier)

    async def dial() -> None:
        dialler._take((attempt.id,), {})
        await dialler.claim_and_send()
        await dialler.sender.end()
        await dialler.recorder.run(lambda: True)
        await dialler._line.close()

    dialler._loop.run_until_complete(dial())
    dialler._loop.close()
    assert tenant.attempt(attempt.id).phase is Phase.PLACED
    totals = tallies.totals()
    assert totals[key_of(DIAL_LATENESS)] == seconds_of(DIAL_LATENESS, now() - attempt.due_at)
    assert totals[key_of(CARRIER_ANSWER, "accepted")].n == 1
    assert dialler.recorder._sent == {}, "forgotten once recorded"


def test_tallies_travel_in_statements_that_are_sent_anyway(
    tenant: Tenant, hear: Hear, hints: RecordingHints, accept: Perform, apply: Apply, tallies: Tallies
) -> None:
    claimed = [a_claimed_attempt(tenant) for _ in range(10)]
    with statements_of(tenant.database) as sent:
        answers = [(each, Accepted(call_sid=a_sid())) for each in claimed[1:]]
        tenant.dial.record(answers, {each.id: SENT for each, _ in answers})
        tenant.dial.give_back(claimed[0], "SLOW_LOOK")
        placed = [tenant.attempt(each.id) for each, _ in answers]
        hear.batch(stored(hear, hints, [(each, a_form(each, **BUSY)) for each in placed]))
        apply.batch([accept(a_wish(tenant)).id for _ in range(3)])
    appended = [each for each in sent if "tally_entries" in each]
    assert len(appended) == 4, "one for each transaction"
    assert all("attempt_history" in each or "UPDATE inbox" in each for each in appended)
    # The driver parses a longer text again for each execution.
    assert max(map(len, appended)) < 4096
    assert counted(tallies, CALLS, "BUSY") == 9


def test_lateness_counts_from_when_the_number_was_free(tenant: Tenant, now: TestClock) -> None:
    due, resting = a_pending_attempt(tenant), a_pending_attempt(tenant)
    tenant.change(
        "UPDATE lines SET free_at = :at WHERE number_hash = :it",
        at=now() + timedelta(seconds=40),
        it=resting.number_hash,
    )
    now.move(timedelta(minutes=1))
    claimed = {each.attempt.id: each.attempt for each in tenant.dial.claim([due.id, resting.id]).claimed}
    since = {}
    for each in (due, resting):
        order = tenant.dial.last_look(claimed[each.id])
        assert order is not None
        since[each.id] = order.could_ring_at
    assert since == {due.id: due.due_at, resting.id: NOON + timedelta(seconds=40)}


def test_time_of_an_answer_counts_from_the_first_byte(tenant: Tenant) -> None:
    ticks = iter([0.0, 3.0, 3.5])
    times, attempt = PostTimes(lambda: next(ticks)), a_pending_attempt(tenant)
    with times.in_flight(attempt.id):
        times.left(attempt.id, timedelta(seconds=1))
    assert times.of(attempt.id) == Sent(lateness=timedelta(seconds=1), answered_after=0.5)
    times.drop(attempt.id)
    assert times.of(attempt.id) is None


def test_post_without_a_first_byte_has_no_times(tenant: Tenant) -> None:
    times, attempt = PostTimes(), a_pending_attempt(tenant)
    with times.in_flight(attempt.id):
        pass
    assert times.of(attempt.id) is None


# ---- folding

MANY: dict[Key, Amount] = {
    key_of(CALLS, "BUSY"): Amount(n=3),
    key_of(DIAL_LATENESS): seconds_of(DIAL_LATENESS, 0.25) + seconds_of(DIAL_LATENESS, 90.5),
}


def test_fold_changes_no_total(tenant: Tenant, tallies: Tallies) -> None:
    for _ in range(3):
        tallies.add(MANY)
        before = tallies.totals()
        tallies.fold()
        assert tallies.totals() == before
        assert tenant.ask("SELECT count(*) FROM tally_entries") == [(0,)]
    assert before[key_of(CALLS, "BUSY")].n == 9
    assert sum(before[key_of(DIAL_LATENESS)].buckets) == 6


def test_unreadable_row_takes_no_other_count_away(tenant: Tenant, tallies: Tallies) -> None:
    tallies.add(MANY)
    tenant.change("INSERT INTO tally_entries (entries) VALUES ('[{}]')")
    assert tallies.totals() == MANY
    tallies.fold()
    assert tallies.totals() == MANY


def test_totals_during_a_fold_count_nothing_twice(tenant: Tenant, tallies: Tallies) -> None:
    tallies.add(MANY)
    with tenant.database.transaction() as stores:
        assert stores.tallies.fold(10) == 1
        assert tallies.totals() == MANY
        tallies.add(MANY)  # waits for no row of the fold
    assert tallies.totals()[key_of(CALLS, "BUSY")].n == 6


def test_clocks_fold_at_once_without_conflict(tenant: Tenant, tallies: Tallies) -> None:
    for _ in range(60):
        tallies.add(MANY)
    failures: list[BaseException] = []

    def fold() -> None:
        try:
            for _ in range(20):
                with tenant.database.transaction() as stores:
                    stores.tallies.fold(2)
        except BaseException as error:  # noqa: BLE001 - reported by the test
            failures.append(error)

    threads = [threading.Thread(target=fold) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    tallies.fold()
    assert not failures
    assert tallies.totals()[key_of(CALLS, "BUSY")].n == 180
