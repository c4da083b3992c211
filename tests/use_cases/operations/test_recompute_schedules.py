"""What a change of hours, zones or a number does to pending attempts, and what deleting a candidate does."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from scheduler.domain.attempt import Attempt, AttemptState, Ended, Reason
from scheduler.domain.call import NeverTaken
from scheduler.domain.company import EVERY_DAY, CallTimeInterval, CompanySettings
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.refusals import AccessDenied
from scheduler.domain.schedule import ScheduleWarning
from scheduler.persistence.database import Database, DatabaseAway
from scheduler.timing.callee_zones import TZDATA_VERSION
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.recompute_schedules import Records
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock, seed, wait_until
from tests.support.builders import (
    Clerk,
    House,
    KeptBell,
    Reach,
    WasRefused,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    of_company,
)

TOMORROW_AT_TEN = timedelta(hours=20)
"""After the tests' noon in UTC: ten in the morning in Bratislava."""


def hours(opens: float, closes: float) -> tuple[CallTimeInterval, ...]:
    return (CallTimeInterval(days=EVERY_DAY, start=timedelta(hours=opens), end=timedelta(hours=closes)),)


def settings_of(house: House) -> CompanySettings:
    with house.database.transaction() as stores:
        company = stores.companies.get(house.company_id)
    assert company is not None
    return company.settings


def change(house: House, records: Clerk, **settings: Any) -> None:
    """The company's settings are changed, and pending attempts looked at."""
    records.change_settings(house.principal, replace(settings_of(house), **settings))
    records.reresolve()


def candidate_of(house: House, attempt: Attempt) -> UUID:
    return house.interview(attempt.interview_id).candidate_id


def open_changes(house: House) -> int:
    return int(house.ask("SELECT count(*) FROM reresolutions")[0][0])


# ---- hours


def test_hours_that_shut_at_its_time_move_an_attempt_and_say_so(house: House, records: Clerk, now: TestClock) -> None:
    attempt = a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    change(house, records, intervals=hours(12, 20))
    moved = house.attempt(attempt.id)
    assert moved.due_at == attempt.due_at + timedelta(hours=2)
    assert moved.warnings == (ScheduleWarning.MOVED_BY_SETTINGS,)
    assert house.history(attempt.id) == ["created", "moved_by_settings"]


def test_hours_that_are_open_at_its_time_move_nothing(house: House, records: Clerk, now: TestClock) -> None:
    attempt = a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    change(house, records, intervals=hours(9, 12))
    assert house.attempt(attempt.id) == attempt


def test_settings_that_decide_no_time_look_at_nothing(house: House, records: Clerk, bell: KeptBell) -> None:
    records.change_settings(house.principal, replace(settings_of(house), machine_detection=False))
    assert open_changes(house) == 0
    assert bell.rings == []
    assert not settings_of(house).machine_detection


def test_a_country_that_is_allowed_no_more_holds_what_waits_there_until_it_is_again_or_it_expires(
    house: House, records: Clerk, explain: Explain, settle: Settle, now: TestClock
) -> None:
    attempt, expiring = a_pending_attempt(house), a_pending_attempt(house, expires_at=now() + timedelta(hours=1))
    change(house, records, allowed_countries=frozenset({"CZ"}))
    explanation = explain.explanation_of(attempt.id)
    assert [block.rule for block in explanation.blocks] == [Rule.NUMBER_NOT_ALLOWED]
    assert "SK" in explanation.blocks[0].detail
    assert (explanation.waits_for, explanation.next_possible_at) == ("a number that may be called", None)
    [claim] = house.dial.claim([attempt.id]).claimed
    assert house.dial.last_look(claim.attempt) is None
    now.move(timedelta(seconds=6))
    records.reresolve()
    held = house.attempt(attempt.id)
    assert held.due_at > now() + timedelta(hours=23), "nobody asks for it each few seconds"
    change(house, records, allowed_countries=frozenset({"CZ", "SK"}))
    assert house.attempt(attempt.id).due_at == now()
    assert explain.explanation_of(attempt.id).blocks == ()
    change(house, records, allowed_countries=frozenset({"CZ"}))
    now.move(timedelta(hours=1))
    settle.round()
    assert house.attempt(expiring.id).reason is Reason.EXPIRED
    assert house.attempt(attempt.id).state is AttemptState.PENDING


def test_only_the_companys_own_attempts_are_touched(
    database: Database, house: House, records: Clerk, now: TestClock
) -> None:
    other = of_company(house, seed(database, now()))
    theirs = a_pending_attempt(other, due_at=now() + TOMORROW_AT_TEN)
    change(house, records, intervals=hours(12, 20))
    assert other.attempt(theirs.id) == theirs


def test_what_is_in_progress_or_over_is_not_touched(house: House, records: Clerk, now: TestClock) -> None:
    placed = a_placed_attempt(house)
    over = house.take(a_placed_attempt(house), Ended(reason=Reason.BUSY, ended_at=now()))
    change(house, records, intervals=hours(20, 23))
    assert house.attempt(placed.id) == placed
    assert house.attempt(over.id) == over


def test_hundreds_are_looked_at_in_batches(house: House, records: Clerk, now: TestClock) -> None:
    attempts = [a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN) for _ in range(205)]
    change(house, records, intervals=hours(12, 20))
    due = {house.attempt(attempt.id).due_at for attempt in attempts}
    assert due == {attempts[0].due_at + timedelta(hours=2)}


def test_a_second_look_sees_what_was_being_made_meanwhile_and_then_it_is_done(
    house: House, records: Clerk, now: TestClock, bell: KeptBell
) -> None:
    change(house, records, intervals=hours(12, 20))
    assert bell.rings == [(tasks.RERESOLVE, ())]
    late = a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)  # made under the settings before
    records.reresolve()
    assert house.attempt(late.id) == late
    now.move(timedelta(seconds=6))
    records.reresolve()
    assert house.attempt(late.id).due_at == late.due_at + timedelta(hours=2)
    assert open_changes(house) == 0


# ---- turns, and one recomputation for each company

ONE_BATCH = timedelta(0)


def in_turns_of(house: House, bell: KeptBell, turn: timedelta) -> Records:
    return Records(house.database, bell, house.hasher, house.consequences, house.policy, house.now, turn=turn)


def moved(house: House, attempts: list[Attempt]) -> int:
    return sum(house.attempt(each.id).due_at != each.due_at for each in attempts)


def test_recomputation_ends_its_turn_and_sends_a_hint_for_the_rest(
    house: House, records: Clerk, bell: KeptBell, now: TestClock
) -> None:
    many = [a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN) for _ in range(60)]
    records.change_settings(house.principal, replace(settings_of(house), intervals=hours(12, 20)))
    bell.rings.clear()
    assert in_turns_of(house, bell, ONE_BATCH).reresolve()
    assert 0 < moved(house, many) < len(many)
    assert bell.rings == [(tasks.RERESOLVE, ())]


def test_clock_adds_no_hint_to_those_of_a_recomputation(
    house: House, records: Clerk, bell: KeptBell, now: TestClock
) -> None:
    """Each turn ends with a hint, so each hint of the clock would be one more until the end of the work."""
    release = Release(house.database, bell, house.account_id, house.policy, now)
    for _ in range(60):
        a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    records.change_settings(house.principal, replace(settings_of(house), intervals=hours(12, 20)))
    for _ in range(2):
        now.move(timedelta(seconds=3))
        assert in_turns_of(house, bell, ONE_BATCH).reresolve()
        bell.rings.clear()
        release.unanswered()
        assert bell.rings == []
    now.move(timedelta(seconds=5))
    release.unanswered()
    assert bell.rings == [(tasks.RERESOLVE, ())], "the last hint was lost"


def test_one_thread_of_a_process_recomputes_at_a_time(
    database: Database, house: House, records: Clerk, bell: KeptBell, now: TestClock, postgres_url: str
) -> None:
    mine = a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    other = of_company(house, seed(database, now()))
    free = a_pending_attempt(other, due_at=now() + TOMORROW_AT_TEN)
    for each in (house, other):
        records.change_settings(each.principal, replace(settings_of(each), intervals=hours(12, 20)))
    worker = in_turns_of(house, bell, ONE_BATCH)
    with ThreadPoolExecutor(1) as threads, psycopg.connect(postgres_url) as session:
        session.execute("SELECT FROM interviews WHERE id = %s FOR UPDATE", [mine.interview_id])
        turn = threads.submit(worker.reresolve)
        wait_until(lambda: house.ask(_WAITS_FOR_A_LOCK), says="the turn waits for the interview")
        assert not worker.reresolve()
        assert moved(other, [free]) == 0
        session.rollback()
        assert turn.result()


_WAITS_FOR_A_LOCK = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def test_companies_take_turns_in_recomputation(
    database: Database, house: House, records: Clerk, bell: KeptBell, now: TestClock
) -> None:
    many = [a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN) for _ in range(60)]
    other = of_company(house, seed(database, now()))
    one = a_pending_attempt(other, due_at=now() + TOMORROW_AT_TEN)
    for each in (house, other):
        records.change_settings(each.principal, replace(settings_of(each), intervals=hours(12, 20)))
    for _ in range(2):
        now.move(timedelta(milliseconds=100))
        in_turns_of(house, bell, ONE_BATCH).reresolve()
    assert moved(other, [one]) == 1
    assert moved(house, many) < len(many)


def test_changes_of_one_company_wait_as_one_recomputation(
    house: House, records: Clerk, bell: KeptBell, now: TestClock
) -> None:
    many = [a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN) for _ in range(60)]
    for opens in (11, 13, 12):
        records.change_settings(house.principal, replace(settings_of(house), intervals=hours(opens, 20)))
        in_turns_of(house, bell, ONE_BATCH).reresolve()
        assert open_changes(house) == 1
    records.reresolve()
    now.move(timedelta(seconds=6))
    records.reresolve()
    assert {house.attempt(each.id).due_at for each in many} == {many[0].due_at + timedelta(hours=2)}
    assert open_changes(house) == 0


def test_change_during_the_last_pass_adds_another_pass(
    house: House, records: Clerk, bell: KeptBell, now: TestClock
) -> None:
    many = [a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN) for _ in range(60)]
    records.change_settings(house.principal, replace(settings_of(house), intervals=hours(11, 20)))
    records.reresolve()
    now.move(timedelta(seconds=6))
    in_turns_of(house, bell, ONE_BATCH).reresolve()
    assert house.ask("SELECT is_last_pass, after_id IS NULL FROM reresolutions") == [(True, False)]
    records.change_settings(house.principal, replace(settings_of(house), intervals=hours(13, 20)))
    for _ in range(2):
        records.reresolve()
        now.move(timedelta(seconds=6))
    assert {house.attempt(each.id).due_at for each in many} == {many[0].due_at + timedelta(hours=3)}


def test_change_of_settings_does_not_wait_for_a_recomputation(house: House, records: Clerk, database: Database) -> None:
    records.change_settings(house.principal, replace(settings_of(house), intervals=hours(12, 20)))
    with database.transaction() as stores:
        assert stores.reresolutions.lock_next(house.now()) is not None
        records.change_settings(house.principal, replace(settings_of(house), intervals=hours(13, 20)))
    assert open_changes(house) == 2


def test_held_interview_of_one_company_does_not_stop_another(
    database: Database, house: House, records: Clerk, bell: KeptBell, now: TestClock
) -> None:
    held = a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    other = of_company(house, seed(database, now()))
    free = a_pending_attempt(other, due_at=now() + TOMORROW_AT_TEN)
    for each in (house, other):
        records.change_settings(each.principal, replace(settings_of(each), intervals=hours(12, 20)))
    with database.transaction() as stores:
        stores.interviews.lock(held.interview_id)
        with pytest.raises(DatabaseAway):
            in_turns_of(house, bell, ONE_BATCH).reresolve()
        in_turns_of(house, bell, ONE_BATCH).reresolve()
        assert moved(other, [free]) == 1
    now.move(timedelta(seconds=5))
    records.reresolve()
    assert moved(house, [held]) == 1


# ---- newer zone data


def resolved_with(house: House, attempt: Attempt, version: str, earlier: timedelta = timedelta(0)) -> Attempt:
    """As a release with other zone data had stored it: due so much earlier."""
    at = attempt.due_at - earlier
    house.change(
        "UPDATE attempts SET due_at = :at, schedule = schedule || jsonb_build_object("
        "'tzdata_version', CAST(:version AS text), 'due_at', CAST(:text AS text), 'earliest_at', CAST(:text AS text),"
        " 'requested', '2026-04-03T10:00:00') WHERE id = :id",
        at=at,
        version=version,
        text=at.isoformat(),
        id=attempt.id,
    )
    return house.attempt(attempt.id)


def test_newer_zone_data_move_wall_times_whose_rules_changed(house: House, records: Clerk, now: TestClock) -> None:
    right = a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    resolved_with(house, right, "2020a", timedelta(hours=1))
    records.reresolve()
    found = house.attempt(right.id)
    assert found.due_at == right.due_at, "ten in the morning by the rules that are known now"
    assert found.schedule.tzdata_version == TZDATA_VERSION
    assert found.warnings == (ScheduleWarning.MOVED_BY_SETTINGS,)
    [detail] = house.ask("SELECT detail FROM attempt_history WHERE event = 'moved_by_settings'")
    assert detail[0]["cause"] == f"tzdata 2020a to {TZDATA_VERSION}"


def test_newer_zone_data_move_nothing_where_the_instant_is_the_same(
    house: House, records: Clerk, now: TestClock
) -> None:
    attempts = [
        resolved_with(house, a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN), "2020a") for _ in range(60)
    ]
    records.reresolve()
    for attempt in attempts:
        found = house.attempt(attempt.id)
        assert (found.due_at, found.warnings, found.epoch) == (attempt.due_at, (), attempt.epoch)
        assert found.schedule.tzdata_version == TZDATA_VERSION
        assert house.history(attempt.id) == ["created"]


def test_older_zone_data_never_replace_newer_ones(house: House, records: Clerk, now: TestClock) -> None:
    """A process of the release before is still running: it would move the call back, and the next one forth."""
    ahead = resolved_with(house, a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN), "2099a", timedelta(hours=1))
    records.reresolve()
    change(house, records, intervals=hours(7, 20))
    assert house.attempt(ahead.id) == ahead


def test_held_interview_keeps_no_other_zone_data_old(
    database: Database, house: House, bell: KeptBell, now: TestClock
) -> None:
    held, free = (a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN) for _ in range(2))
    for each in (held, free):
        resolved_with(house, each, "2020a", timedelta(hours=1))
    with database.transaction() as stores:
        stores.interviews.lock(held.interview_id)
        in_turns_of(house, bell, ONE_BATCH).reresolve()
        assert house.attempt(free.id).due_at == free.due_at
        assert house.attempt(held.id).due_at != held.due_at
    in_turns_of(house, bell, ONE_BATCH).reresolve()
    assert house.attempt(held.id).due_at == held.due_at


def test_changes_of_one_company_keep_no_zone_data_old(
    database: Database, house: House, records: Clerk, bell: KeptBell, now: TestClock
) -> None:
    other = of_company(house, seed(database, now()))
    right = a_pending_attempt(other, due_at=now() + TOMORROW_AT_TEN)
    resolved_with(other, right, "2020a", timedelta(hours=1))
    for _ in range(60):
        a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    records.change_settings(house.principal, replace(settings_of(house), intervals=hours(12, 20)))
    assert in_turns_of(house, bell, ONE_BATCH).reresolve()
    assert other.attempt(right.id).due_at == right.due_at
    assert open_changes(house) == 1


def test_clock_sends_a_hint_for_attempts_with_older_zone_data(
    house: House, records: Clerk, bell: KeptBell, now: TestClock
) -> None:
    release = Release(house.database, bell, house.account_id, house.policy, now)
    attempt = a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    release.silent()
    assert bell.rings == [(tasks.SETTLE, ())]
    resolved_with(house, attempt, "2020a")
    release.silent()
    assert (tasks.RERESOLVE, ()) in bell.rings
    records.reresolve()
    bell.rings.clear()
    release.silent()
    assert bell.rings == [(tasks.SETTLE, ())]


def test_another_companys_settings_are_not_changed(database: Database, house: House, records: Clerk) -> None:
    other = of_company(house, seed(database, house.now()))
    stranger = replace(house.principal, company_id=uuid4())
    with pytest.raises(AccessDenied):
        records.change_settings(stranger, settings_of(house))
    assert settings_of(other) == settings_of(house)


def test_one_that_cannot_be_looked_at_keeps_nobody_else_waiting(
    database: Database, house: House, records: Clerk, now: TestClock
) -> None:
    broken = a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    house.change(
        "UPDATE attempts SET schedule = schedule || :what",
        what='{"requested": "no time at all", "zones": ["Europe/Paris"]}',
    )
    mine = a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN)
    other = of_company(house, seed(database, now()))
    theirs = a_pending_attempt(other, due_at=now() + TOMORROW_AT_TEN)
    records.change_settings(house.principal, replace(settings_of(house), intervals=hours(12, 20)))
    change(other, records, intervals=hours(12, 20))
    for attempt in (mine, theirs):
        assert house.attempt(attempt.id).due_at == attempt.due_at + timedelta(hours=2)
    assert house.attempt(broken.id).due_at == broken.due_at


def test_who_looks_at_many_takes_their_locks_in_the_order_of_all_others(
    house: House, records: Clerk, now: TestClock, database: Database
) -> None:
    """Interviews by their ids, as the record of many answers and the end of a candidate take them."""
    attempts = [a_pending_attempt(house, due_at=now() + TOMORROW_AT_TEN) for _ in range(8)]
    by_interview = sorted(attempts, key=lambda each: each.interview_id)
    records.change_settings(house.principal, replace(settings_of(house), intervals=hours(12, 20)))
    with ThreadPoolExecutor() as pool:
        with database.transaction() as stores:
            stores.interviews.lock(by_interview[0].interview_id)
            looking = pool.submit(records.reresolve)
            wait_until(lambda: house.ask("SELECT 1 FROM pg_locks WHERE NOT granted"), says="it waits for us")
            for each in by_interview[1:]:
                stores.interviews.lock(each.interview_id)
        looking.result()
    assert {house.attempt(each.id).due_at for each in attempts} == {attempts[0].due_at + timedelta(hours=2)}


# ---- a candidate's number and zone


def test_another_number_is_the_one_that_is_rung(house: House, records: Clerk) -> None:
    attempt = a_pending_attempt(house)
    new = a_number()
    records.change_reach(house.principal, candidate_of(house, attempt), Reach(phone_number=new, timezone=None))
    records.reresolve()
    moved = house.attempt(attempt.id)
    assert moved.number_hash == house.hasher.number(new)
    assert (moved.due_at, moved.warnings) == (attempt.due_at, ()), "it is due when it was"
    [claim] = house.dial.claim([attempt.id]).claimed
    order = house.dial.last_look(claim.attempt)
    assert order is not None
    assert order.to == new


def test_a_number_in_another_country_moves_the_clock(house: House, records: Clerk, now: TestClock) -> None:
    attempt = a_pending_attempt(house)
    in_adelaide = "+61872001234"
    reach = Reach(phone_number=in_adelaide, timezone=None)
    records.change_reach(house.principal, candidate_of(house, attempt), reach)
    records.reresolve()
    moved = house.attempt(attempt.id)
    assert moved.schedule.clock.zones == ("Australia/Adelaide", "Australia/Perth")
    assert moved.due_at > now(), "it is half past ten in the evening in Adelaide"
    assert moved.warnings == (ScheduleWarning.MOVED_BY_SETTINGS,)


def test_a_call_in_progress_goes_on_to_the_number_that_it_was_placed_to(house: House, records: Clerk) -> None:
    number = a_number()
    placed = a_placed_attempt(house, number)
    reach = Reach(phone_number=a_number(), timezone=None)
    records.change_reach(house.principal, candidate_of(house, placed), reach)
    records.reresolve()
    assert house.attempt(placed.id) == placed
    with house.database.transaction() as stores:
        assert stores.attempts.numbers_of(placed.id)[0] == number, "the carrier is asked by it"


def test_a_claim_that_was_not_sent_does_not_ring_the_old_number(house: House, records: Clerk) -> None:
    mine = a_claimed_attempt(house)
    reach = Reach(phone_number=a_number(), timezone=None)
    records.change_reach(house.principal, candidate_of(house, mine), reach)
    assert house.dial.last_look(mine) is None
    assert house.attempt(mine.id).state is AttemptState.PENDING


def test_one_that_was_never_placed_rings_the_number_that_has_come_meanwhile(
    house: House, records: Clerk, now: TestClock
) -> None:
    attempt, number = a_claimed_attempt(house), a_number()
    records.change_reach(house.principal, candidate_of(house, attempt), Reach(phone_number=number, timezone=None))
    for _ in range(2):
        records.reresolve()
        now.move(timedelta(seconds=7))
    assert open_changes(house) == 0, "the change was looked at while the POST was under way"
    house.dial.record([(attempt, NeverTaken(cause="NEVER_CONNECTED"))])
    records.reresolve()
    now.move(timedelta(minutes=1))
    [claim] = house.dial.claim([attempt.id]).claimed
    order = house.dial.last_look(claim.attempt)
    assert order is not None
    assert order.to == number


def test_a_number_that_may_not_be_called_is_refused_and_changes_nothing(house: House, records: Clerk) -> None:
    attempt = a_pending_attempt(house)
    for number, refusal in (("+999123", "PHONE_NUMBER_INVALID"), ("+19002345678", "NUMBER_NOT_ALLOWED")):
        with pytest.raises(WasRefused, match=refusal):
            records.change_reach(
                house.principal, candidate_of(house, attempt), Reach(phone_number=number, timezone=None)
            )
    assert open_changes(house) == 0


# ---- deleting a candidate


def test_a_deleted_candidate_is_called_no_more_and_is_forgotten(house: House, records: Clerk) -> None:
    attempt = a_pending_attempt(house)
    candidate_id = candidate_of(house, attempt)
    records.delete_candidate(house.principal, candidate_id)
    assert house.attempt(attempt.id).reason is Reason.CANDIDATE_DELETED
    assert house.interview_status(attempt) is InterviewStatus.CANCELLED
    [row] = house.ask("SELECT first_name, last_name, email, phone_number, erased_at FROM candidates")
    assert tuple(row)[:4] == (None, None, None, None)
    with pytest.raises(WasRefused, match="RESOURCE_NOT_FOUND"):
        records.delete_candidate(house.principal, candidate_id)


def test_a_live_call_of_a_deleted_candidate_runs_to_its_end_and_then_its_number_is_gone(
    house: House, records: Clerk, now: TestClock
) -> None:
    number = a_number()
    placed = a_placed_attempt(house, number)
    records.delete_candidate(house.principal, candidate_of(house, placed))
    assert house.attempt(placed.id).called_number == number
    over = house.take(house.attempt(placed.id), Ended(reason=Reason.BUSY, ended_at=now()))
    assert over.called_number is None
    assert house.interview_status(placed) is InterviewStatus.CANCELLED
    assert len(house.attempts(placed.interview_id)) == 1


def test_a_claim_that_was_not_sent_when_its_candidate_was_deleted_does_not_ring(house: House, records: Clerk) -> None:
    mine = a_claimed_attempt(house)
    records.delete_candidate(house.principal, candidate_of(house, mine))
    assert house.dial.last_look(mine) is None
    assert house.attempt(mine.id).reason is Reason.CANDIDATE_DELETED


def test_what_the_release_before_left_of_a_number_goes_with_its_candidate(
    house: House, records: Clerk, now: TestClock
) -> None:
    """Its workers end calls without a word for the number called, and keep callbacks as they came."""
    number = a_number()
    over = house.take(a_placed_attempt(house, number), Ended(reason=Reason.BUSY, ended_at=now()))
    live = a_placed_attempt(house)
    house.change("UPDATE attempts SET called_number = :number WHERE id = :id", number=number, id=over.id)
    for attempt in (over, live):
        house.change(
            "INSERT INTO carrier_events (id, token, fingerprint, raw, received_at, rung_at, heard_at)"
            " VALUES (gen_random_uuid(), :token, convert_to(:token, 'UTF8'), :raw, :at, :at, :at)",
            token=attempt.token,
            raw=f'{{"To": "{number}"}}',
            at=now(),
        )
    records.delete_candidate(house.principal, candidate_of(house, over))
    assert house.attempt(over.id).called_number is None
    [[kept]] = house.ask("SELECT token FROM carrier_events WHERE raw <> '{}'")
    assert kept == live.token, "of others nothing is touched"


def test_another_companys_candidate_is_not_there(database: Database, house: House, records: Clerk) -> None:
    other = of_company(house, seed(database, house.now()))
    theirs = a_pending_attempt(other)
    with pytest.raises(WasRefused, match="RESOURCE_NOT_FOUND"):
        records.delete_candidate(house.principal, candidate_of(other, theirs))
    assert other.attempt(theirs.id) == theirs
