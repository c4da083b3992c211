"""Effects on pending attempts of changed hours, zones and numbers, and of a deleted candidate."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.call import MachineDetection, NeverTaken, NumberFacts, ScheduleWarning
from scheduler.domain.company import EVERY_DAY, CallTimeInterval, CompanySettings
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import InterviewStatus
from scheduler.persistence.errors import DatabaseAway
from scheduler.timing.zone_names import TZDATA_VERSION
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations import stale_times
from scheduler.use_cases.operations.stale_times import ScheduleRecomputer
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock
from tests.support.builders import (
    ApiWriter,
    Reach,
    RecordingHints,
    Tenant,
    WasRefused,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_stored_callback,
)
from tests.use_cases.conftest import an_ended_attempt, candidate_of, finish, order_to, wait_for_a_lock

TOMORROW_AT_TEN = timedelta(hours=20)
"""After the tests' noon in UTC: ten in the morning in Bratislava."""


def hours(opens: float, closes: float) -> tuple[CallTimeInterval, ...]:
    return (CallTimeInterval(days=EVERY_DAY, start=timedelta(hours=opens), end=timedelta(hours=closes)),)


def due_tomorrow(tenant: Tenant) -> Attempt:
    """A pending attempt that is due at ten in the morning of the next day."""
    return a_pending_attempt(tenant, due_at=tenant.now() + TOMORROW_AT_TEN)


def settings_of(tenant: Tenant) -> CompanySettings:
    with tenant.database.transaction() as stores:
        company = stores.companies.get(tenant.company_id)
    assert company is not None
    return company.settings


def change(tenant: Tenant, records: ApiWriter, **settings: Any) -> None:
    """The company's settings are changed, and pending attempts looked at."""
    records.change_settings(tenant.principal, replace(settings_of(tenant), **settings))
    records.recompute()


def change_hours(tenant: Tenant, records: ApiWriter, opens: float) -> None:
    """The company's calling hours are changed, and pending attempts not looked at."""
    records.change_settings(tenant.principal, replace(settings_of(tenant), intervals=hours(opens, 20)))


def change_number(tenant: Tenant, records: ApiWriter, attempt: Attempt, number: str) -> None:
    """The candidate of this attempt gets another number, and pending attempts are not looked at."""
    records.change_reach(tenant.principal, candidate_of(tenant, attempt), Reach(phone_number=number, timezone=None))


def open_changes(tenant: Tenant) -> int:
    return int(tenant.ask("SELECT count(*) FROM reresolutions")[0][0])


# ---- hours


def test_attempt_outside_changed_hours_is_moved_with_a_warning(tenant: Tenant, records: ApiWriter) -> None:
    attempt = due_tomorrow(tenant)
    change(tenant, records, intervals=hours(12, 20))
    moved = tenant.attempt(attempt.id)
    assert moved.due_at == attempt.due_at + timedelta(hours=2)
    assert moved.warnings == (ScheduleWarning.MOVED_BY_SETTINGS,)
    assert tenant.history(attempt.id) == ["created", "moved_by_settings"]


def test_settings_without_times_recompute_nothing(tenant: Tenant, records: ApiWriter, hints: RecordingHints) -> None:
    records.change_settings(tenant.principal, replace(settings_of(tenant), machine_detection=MachineDetection.OFF))
    assert open_changes(tenant) == 0
    assert hints.rings == []
    assert settings_of(tenant).machine_detection is MachineDetection.OFF


def test_attempt_to_a_forbidden_country_is_held_until_allowed(
    tenant: Tenant, records: ApiWriter, explain: Explain, settle: Settle, now: TestClock
) -> None:
    attempt, expiring = a_pending_attempt(tenant), a_pending_attempt(tenant, expires_at=now() + timedelta(hours=1))
    change(tenant, records, allowed_countries=frozenset({"CZ"}))
    explanation = explain.explanation_of(attempt.id)
    assert [block.rule for block in explanation.blocks] == [Rule.NUMBER_NOT_ALLOWED]
    assert "SK" in explanation.blocks[0].detail
    assert (explanation.waits_for, explanation.next_possible_at) == ("a number that may be called", None)
    [claim] = tenant.dial.claim([attempt.id]).claimed
    assert tenant.dial.last_look(claim.attempt) is None
    now.move(timedelta(seconds=6))
    records.recompute()
    held = tenant.attempt(attempt.id)
    assert held.due_at > now() + timedelta(hours=23), "it is not requested every few seconds"
    change(tenant, records, allowed_countries=frozenset({"CZ", "SK"}))
    assert tenant.attempt(attempt.id).due_at == now()
    assert explain.explanation_of(attempt.id).blocks == ()
    change(tenant, records, allowed_countries=frozenset({"CZ"}))
    now.move(timedelta(hours=1))
    settle.round()
    assert tenant.attempt(expiring.id).reason is Reason.EXPIRED
    assert tenant.attempt(attempt.id).state is AttemptState.PENDING


def test_recomputation_touches_only_the_companys_attempts(tenant: Tenant, other: Tenant, records: ApiWriter) -> None:
    theirs = due_tomorrow(other)
    change(tenant, records, intervals=hours(12, 20))
    assert other.attempt(theirs.id) == theirs


def test_recomputation_skips_live_and_finished_attempts(tenant: Tenant, records: ApiWriter) -> None:
    placed = a_placed_attempt(tenant)
    over = an_ended_attempt(tenant)
    change(tenant, records, intervals=hours(20, 23))
    assert tenant.attempt(placed.id) == placed
    assert tenant.attempt(over.id) == over


def test_second_pass_finds_attempts_created_during_the_first(
    tenant: Tenant, records: ApiWriter, now: TestClock, hints: RecordingHints
) -> None:
    change(tenant, records, intervals=hours(12, 20))
    assert hints.rings == [(tasks.RECOMPUTE, ())]
    late = due_tomorrow(tenant)  # made under the settings before
    records.recompute()
    assert tenant.attempt(late.id) == late
    now.move(timedelta(seconds=6))
    records.recompute()
    assert tenant.attempt(late.id).due_at == late.due_at + timedelta(hours=2)
    assert open_changes(tenant) == 0


# ---- turns, and one recomputation for each company


@pytest.fixture
def worker(
    tenant: Tenant, hints: RecordingHints, short_turns: None, monkeypatch: pytest.MonkeyPatch
) -> ScheduleRecomputer:
    """Recomputes one batch of five attempts in each turn."""
    monkeypatch.setattr(stale_times, "_BATCH_SIZE", 5)
    return ScheduleRecomputer(tenant.context, hints)


def moved(tenant: Tenant, attempts: list[Attempt]) -> int:
    return sum(tenant.attempt(each.id).due_at != each.due_at for each in attempts)


def test_recomputation_sends_a_hint_after_its_turn(
    tenant: Tenant, records: ApiWriter, worker: ScheduleRecomputer, hints: RecordingHints
) -> None:
    many = [due_tomorrow(tenant) for _ in range(12)]
    change_hours(tenant, records, 12)
    hints.rings.clear()
    assert worker.recompute()
    assert 0 < moved(tenant, many) < len(many)
    assert hints.rings == [(tasks.RECOMPUTE, ())]


def test_clock_sends_no_hint_during_a_recomputation(
    tenant: Tenant, records: ApiWriter, worker: ScheduleRecomputer, hints: RecordingHints, now: TestClock
) -> None:
    """Each turn ends with a hint, so each hint of the clock would be one more until the end of the work."""
    release = Release(tenant.context, hints, tenant.account_id)
    for _ in range(12):
        due_tomorrow(tenant)
    change_hours(tenant, records, 12)
    for _ in range(2):
        now.move(timedelta(seconds=3))
        assert worker.recompute()
        hints.rings.clear()
        release.round(resends=True)
        assert hints.rings == []
    now.move(timedelta(seconds=5))
    release.round(resends=True)
    assert hints.rings == [(tasks.RECOMPUTE, ())], "the last hint was lost"


def test_one_thread_of_a_process_recomputes_at_a_time(
    tenant: Tenant, other: Tenant, worker: ScheduleRecomputer, records: ApiWriter, postgres_url: str
) -> None:
    mine = due_tomorrow(tenant)
    free = due_tomorrow(other)
    for each in (tenant, other):
        change_hours(each, records, 12)
    with ThreadPoolExecutor(1) as threads, psycopg.connect(postgres_url) as session:
        session.execute("SELECT FROM interviews WHERE id = %s FOR UPDATE", [mine.interview_id])
        turn = threads.submit(worker.recompute)
        wait_for_a_lock(tenant)
        assert not worker.recompute()
        assert moved(other, [free]) == 0
        session.rollback()
        assert turn.result()


def test_companies_take_turns_in_recomputation(
    tenant: Tenant, other: Tenant, worker: ScheduleRecomputer, records: ApiWriter, now: TestClock
) -> None:
    many = [due_tomorrow(tenant) for _ in range(12)]
    one = due_tomorrow(other)
    for each in (tenant, other):
        change_hours(each, records, 12)
    for _ in range(2):
        now.move(timedelta(milliseconds=100))
        worker.recompute()
    assert moved(other, [one]) == 1
    assert moved(tenant, many) < len(many)


def test_changes_of_one_company_wait_as_one_recomputation(
    tenant: Tenant, records: ApiWriter, worker: ScheduleRecomputer, now: TestClock
) -> None:
    many = [due_tomorrow(tenant) for _ in range(12)]
    for opens in (11, 13, 12):
        change_hours(tenant, records, opens)
        worker.recompute()
        assert open_changes(tenant) == 1
    records.recompute()
    now.move(timedelta(seconds=6))
    records.recompute()
    assert {tenant.attempt(each.id).due_at for each in many} == {many[0].due_at + timedelta(hours=2)}
    assert open_changes(tenant) == 0


def test_change_during_the_last_pass_adds_another_pass(
    tenant: Tenant, records: ApiWriter, worker: ScheduleRecomputer, now: TestClock
) -> None:
    many = [due_tomorrow(tenant) for _ in range(12)]
    change_hours(tenant, records, 11)
    records.recompute()
    now.move(timedelta(seconds=6))
    worker.recompute()
    assert tenant.ask("SELECT is_last_pass, after_interview_id IS NULL FROM reresolutions") == [(True, False)]
    change_hours(tenant, records, 13)
    for _ in range(2):
        records.recompute()
        now.move(timedelta(seconds=6))
    assert {tenant.attempt(each.id).due_at for each in many} == {many[0].due_at + timedelta(hours=3)}


def test_last_pass_of_a_previous_worker_begins_at_the_start(
    tenant: Tenant, records: ApiWriter, worker: ScheduleRecomputer, now: TestClock
) -> None:
    for _ in range(12):
        due_tomorrow(tenant)
    change_hours(tenant, records, 12)
    worker.recompute()
    with tenant.database.transaction() as stores:
        first_pass = stores.schedule_recomputations.lock_next(now())
        assert first_pass is not None
        assert first_pass.after is not None
        stores.connection.execute(text("UPDATE reresolutions SET after_id = NULL, is_last_pass = true"))
        last_pass = stores.schedule_recomputations.lock_next(now())
        assert last_pass is not None
        assert (last_pass.is_last_pass, last_pass.after) == (True, None)


def test_change_of_settings_does_not_wait_for_a_recomputation(tenant: Tenant, records: ApiWriter) -> None:
    change_hours(tenant, records, 12)
    with tenant.database.transaction() as stores:
        assert stores.schedule_recomputations.lock_next(tenant.now()) is not None
        change_hours(tenant, records, 13)
    assert open_changes(tenant) == 2


def test_locked_interview_of_one_company_does_not_stop_another(
    tenant: Tenant, other: Tenant, worker: ScheduleRecomputer, records: ApiWriter, now: TestClock
) -> None:
    held = due_tomorrow(tenant)
    free = due_tomorrow(other)
    for each in (tenant, other):
        change_hours(each, records, 12)
    with tenant.database.transaction() as stores:
        stores.interviews.lock(held.interview_id)
        with pytest.raises(DatabaseAway):
            worker.recompute()
        worker.recompute()
        assert moved(other, [free]) == 1
    now.move(timedelta(seconds=5))
    records.recompute()
    assert moved(tenant, [held]) == 1


# ---- newer zone data


def resolved_with(tenant: Tenant, attempt: Attempt, version: str, earlier: timedelta = timedelta(0)) -> Attempt:
    """As a release with other zone data had stored it: due earlier by that much."""
    at = attempt.due_at - earlier
    tenant.change(
        "UPDATE attempts SET due_at = :at, schedule = schedule || jsonb_build_object("
        "'tzdata_version', CAST(:version AS text), 'due_at', CAST(:text AS text), 'earliest_at', CAST(:text AS text),"
        " 'requested', '2026-04-03T10:00:00') WHERE id = :id",
        at=at,
        version=version,
        text=at.isoformat(),
        id=attempt.id,
    )
    return tenant.attempt(attempt.id)


def test_newer_zone_data_moves_wall_times_with_changed_rules(tenant: Tenant, records: ApiWriter) -> None:
    right = due_tomorrow(tenant)
    resolved_with(tenant, right, "2020a", timedelta(hours=1))
    records.recompute()
    found = tenant.attempt(right.id)
    assert found.due_at == right.due_at, "ten in the morning by the rules that are known now"
    assert found.schedule.tzdata_version == TZDATA_VERSION
    assert found.warnings == (ScheduleWarning.MOVED_BY_SETTINGS,)
    [detail] = tenant.ask("SELECT detail FROM attempt_history WHERE event = 'moved_by_settings'")
    assert detail[0]["cause"] == f"tzdata 2020a to {TZDATA_VERSION}"


def test_newer_zone_data_moves_nothing_at_the_same_instant(tenant: Tenant, records: ApiWriter) -> None:
    attempts = [resolved_with(tenant, due_tomorrow(tenant), "2020a") for _ in range(3)]
    records.recompute()
    for attempt in attempts:
        found = tenant.attempt(attempt.id)
        assert (found.due_at, found.warnings, found.epoch) == (attempt.due_at, (), attempt.epoch)
        assert found.schedule.tzdata_version == TZDATA_VERSION
        assert tenant.history(attempt.id) == ["created"]


def test_older_zone_data_never_replaces_newer_data(tenant: Tenant, records: ApiWriter) -> None:
    """A process of the release before is still running: it would move the call back, and the next one forth."""
    ahead = resolved_with(tenant, due_tomorrow(tenant), "2099a", timedelta(hours=1))
    records.recompute()
    change(tenant, records, intervals=hours(7, 20))
    assert tenant.attempt(ahead.id) == ahead


def test_locked_interview_does_not_delay_other_zone_data(tenant: Tenant, worker: ScheduleRecomputer) -> None:
    held, free = (due_tomorrow(tenant) for _ in range(2))
    for each in (held, free):
        resolved_with(tenant, each, "2020a", timedelta(hours=1))
    with tenant.database.transaction() as stores:
        stores.interviews.lock(held.interview_id)
        worker.recompute()
        assert tenant.attempt(free.id).due_at == free.due_at
        assert tenant.attempt(held.id).due_at != held.due_at
    worker.recompute()
    assert tenant.attempt(held.id).due_at == held.due_at


def test_changes_of_one_company_do_not_delay_zone_data(
    tenant: Tenant, other: Tenant, worker: ScheduleRecomputer, records: ApiWriter
) -> None:
    right = due_tomorrow(other)
    resolved_with(other, right, "2020a", timedelta(hours=1))
    for _ in range(12):
        due_tomorrow(tenant)
    change_hours(tenant, records, 12)
    assert worker.recompute()
    assert other.attempt(right.id).due_at == right.due_at
    assert open_changes(tenant) == 1


def test_clock_sends_a_hint_for_attempts_with_older_zone_data(
    tenant: Tenant, records: ApiWriter, release: Release, hints: RecordingHints
) -> None:
    attempt = due_tomorrow(tenant)
    release.hint_sweep()
    assert hints.rings == [(tasks.SETTLE, ())]
    resolved_with(tenant, attempt, "2020a")
    release.hint_sweep()
    assert (tasks.RECOMPUTE, ()) in hints.rings
    records.recompute()
    hints.rings.clear()
    release.hint_sweep()
    assert hints.rings == [(tasks.SETTLE, ())]


def test_attempt_that_cannot_be_recomputed_delays_no_other(tenant: Tenant, other: Tenant, records: ApiWriter) -> None:
    broken = due_tomorrow(tenant)
    nonsense = '{"requested": "no time at all", "zones": ["Europe/Paris"]}'
    tenant.change("UPDATE attempts SET schedule = schedule || :nonsense", nonsense=nonsense)
    mine = due_tomorrow(tenant)
    theirs = due_tomorrow(other)
    change_hours(tenant, records, 12)
    change(other, records, intervals=hours(12, 20))
    for attempt in (mine, theirs):
        assert tenant.attempt(attempt.id).due_at == attempt.due_at + timedelta(hours=2)
    assert tenant.attempt(broken.id).due_at == broken.due_at


def test_recomputation_locks_interviews_in_the_common_order(tenant: Tenant, records: ApiWriter) -> None:
    """Interviews by their ids, as the record of many answers and the end of a candidate take them."""
    attempts = [due_tomorrow(tenant) for _ in range(8)]
    by_interview = sorted(attempts, key=lambda each: each.interview_id)
    change_hours(tenant, records, 12)
    with ThreadPoolExecutor() as pool:
        with tenant.database.transaction() as stores:
            stores.interviews.lock(by_interview[0].interview_id)
            looking = pool.submit(records.recompute)
            wait_for_a_lock(tenant)
            for each in by_interview[1:]:
                stores.interviews.lock(each.interview_id)
        looking.result()
    assert {tenant.attempt(each.id).due_at for each in attempts} == {attempts[0].due_at + timedelta(hours=2)}


# ---- a candidate's number and zone


def test_changed_number_is_called(tenant: Tenant, records: ApiWriter) -> None:
    attempt = a_pending_attempt(tenant)
    new = a_number()
    change_number(tenant, records, attempt, new)
    records.recompute()
    moved = tenant.attempt(attempt.id)
    assert moved.number_hash == tenant.hasher.number(new)
    assert (moved.due_at, moved.warnings) == (attempt.due_at, ()), "it is due when it was"
    [claim] = tenant.dial.claim([attempt.id]).claimed
    assert order_to(tenant, claim.attempt) == new


@pytest.mark.parametrize("stored", [{}, {"country": "SK"}], ids=["of the previous version", "of this version"])
def test_changed_facts_of_a_number_are_no_move(tenant: Tenant, records: ApiWriter, stored: dict[str, str]) -> None:
    """The candidate's own zone still decides, so the call is due when it was."""
    attempt, number, zone = a_pending_attempt(tenant), "+61872001234", "Europe/Bratislava"
    tenant.change(
        "UPDATE attempts SET schedule = schedule || CAST(:stored AS jsonb)",
        stored=json.dumps({**stored, "source": "CANDIDATE"}),
    )
    records.change_reach(tenant.principal, candidate_of(tenant, attempt), Reach(phone_number=number, timezone=zone))
    records.recompute()
    moved = tenant.attempt(attempt.id)
    assert moved.number_hash == tenant.hasher.number(number)
    assert moved.schedule.number == NumberFacts(country="AU")
    assert (moved.due_at, moved.warnings) == (attempt.due_at, ())


def test_call_in_progress_keeps_its_number(tenant: Tenant, records: ApiWriter) -> None:
    number = a_number()
    placed = a_placed_attempt(tenant, number)
    change_number(tenant, records, placed, a_number())
    records.recompute()
    assert tenant.attempt(placed.id) == placed
    with tenant.database.transaction() as stores:
        assert stores.attempt_polls.numbers_of(placed.id)[0] == number, "the carrier is asked by it"


def test_attempt_never_placed_calls_the_new_number(tenant: Tenant, records: ApiWriter, now: TestClock) -> None:
    attempt, number = a_claimed_attempt(tenant), a_number()
    change_number(tenant, records, attempt, number)
    for _ in range(2):
        records.recompute()
        now.move(timedelta(seconds=7))
    assert open_changes(tenant) == 0, "the change was looked at while the POST was under way"
    tenant.dial.record([(attempt, NeverTaken(cause="NEVER_CONNECTED"))])
    records.recompute()
    now.move(timedelta(minutes=1))
    [claim] = tenant.dial.claim([attempt.id]).claimed
    assert order_to(tenant, claim.attempt) == number


def test_forbidden_number_is_refused_and_changes_nothing(tenant: Tenant, records: ApiWriter) -> None:
    attempt = a_pending_attempt(tenant)
    for number, refusal in (("+999123", "PHONE_NUMBER_INVALID"), ("+19002345678", "NUMBER_NOT_ALLOWED")):
        with pytest.raises(WasRefused, match=refusal):
            change_number(tenant, records, attempt, number)
    assert open_changes(tenant) == 0


# ---- deleting a candidate


def test_deleted_candidate_is_not_called_and_is_erased(tenant: Tenant, records: ApiWriter) -> None:
    attempt = a_pending_attempt(tenant)
    candidate_id = candidate_of(tenant, attempt)
    records.delete_candidate(tenant.principal, candidate_id)
    assert tenant.attempt(attempt.id).reason is Reason.CANDIDATE_DELETED
    assert tenant.interview_status(attempt) is InterviewStatus.CANCELLED
    assert tenant.ask("SELECT first_name, last_name, email, phone_number FROM candidates") == [(None,) * 4]
    with pytest.raises(WasRefused, match="RESOURCE_NOT_FOUND"):
        records.delete_candidate(tenant.principal, candidate_id)


def test_live_call_of_a_deleted_candidate_loses_its_number(tenant: Tenant, records: ApiWriter) -> None:
    number = a_number()
    placed = a_placed_attempt(tenant, number)
    records.delete_candidate(tenant.principal, candidate_of(tenant, placed))
    assert tenant.attempt(placed.id).called_number == number
    over = finish(tenant, tenant.attempt(placed.id))
    assert over.called_number is None
    assert tenant.interview_status(placed) is InterviewStatus.CANCELLED
    assert len(tenant.attempts(placed.interview_id)) == 1


def test_unsent_claim_of_a_deleted_candidate_is_not_sent(tenant: Tenant, records: ApiWriter) -> None:
    mine = a_claimed_attempt(tenant)
    records.delete_candidate(tenant.principal, candidate_of(tenant, mine))
    assert tenant.dial.last_look(mine) is None
    assert tenant.attempt(mine.id).reason is Reason.CANDIDATE_DELETED


def test_numbers_stored_by_the_previous_release_are_erased(tenant: Tenant, records: ApiWriter) -> None:
    """Its workers end calls without a word for the number called, and keep callbacks as they came."""
    number = a_number()
    over = an_ended_attempt(tenant, number)
    live = a_placed_attempt(tenant)
    tenant.change("UPDATE attempts SET called_number = :number WHERE id = :id", number=number, id=over.id)
    for attempt in (over, live):
        heard = {"token": attempt.token, "heard_at": tenant.now()}
        a_stored_callback(tenant, **heard, raw=f'{{"To": "{number}"}}')
    records.delete_candidate(tenant.principal, candidate_of(tenant, over))
    assert tenant.attempt(over.id).called_number is None
    [[kept]] = tenant.ask("SELECT token FROM carrier_events WHERE raw <> '{}'")
    assert kept == live.token, "of others nothing is touched"
