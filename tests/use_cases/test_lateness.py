"""Late is what Duecall itself could ring now and has not (F8-1): nothing else counts, and only since it could."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from scheduler.domain.attempt import Attempt
from scheduler.lifecycle.breaker import Breaker
from scheduler.use_cases.explain import Explain, Waiting
from scheduler.use_cases.operations.pauses import Pauses
from tests.conftest import TestClock
from tests.support.builders import House, a_claimed_attempt, a_number, a_pending_attempt, a_waiting_command

SPAN = timedelta(minutes=5)


def waiting(house: House) -> Waiting:
    [row] = Explain(house.database, house.hasher, house.policy, house.now).waiting()
    return row


def rest(house: House, attempt: Attempt, until: datetime, *, interview: Attempt | None = None) -> None:
    house.change(
        "UPDATE lines SET free_at = :until, interview_id = :interview WHERE number_hash = :number",
        until=until,
        interview=interview and interview.interview_id,
        number=attempt.number_hash,
    )


def test_due_call_is_late_since_it_was_due(house: House, now: TestClock) -> None:
    a_pending_attempt(house)
    assert waiting(house).late == timedelta()
    now.move(SPAN)
    assert waiting(house).late == SPAN


def test_call_before_its_time_is_not_late(house: House, now: TestClock) -> None:
    a_pending_attempt(house, due_at=now() + SPAN, expires_at=now() + 2 * SPAN)
    assert waiting(house).late is None


def _line_rests(house: House, attempt: Attempt) -> None:
    rest(house, attempt, house.now() + timedelta(hours=1))


def _number_is_called(house: House, attempt: Attempt) -> None:
    other = a_pending_attempt(house)
    house.change(
        "UPDATE lines SET attempt_id = :other WHERE number_hash = :number", other=other.id, number=attempt.number_hash
    )
    house.change("UPDATE attempts SET due_at = due_at + interval '1 day' WHERE id = :other", other=other.id)


def _command_waits(house: House, attempt: Attempt) -> None:
    a_waiting_command(house, attempt.interview_id)


def _company_is_paused(house: House, attempt: Attempt) -> None:
    Pauses(house.database, house.now).pause(attempt.company_id, "a test")


def _all_is_paused(house: House, _: Attempt) -> None:
    Pauses(house.database, house.now).pause(None, "a test")


def _breaker_is_open(house: House, _: Attempt) -> None:
    house.change("UPDATE carrier_accounts SET failures = 5, down_until = :it", it=house.now() + timedelta(minutes=9))


def _breaker_is_on_trial(house: House, _: Attempt) -> None:
    house.change("UPDATE carrier_accounts SET failures = 5, down_until = :it, answered_at = :it", it=house.now())


def _company_is_full(house: House, _: Attempt) -> None:
    house.change("UPDATE companies SET concurrent_calls = 0")


def _account_is_full(house: House, _: Attempt) -> None:
    house.change("UPDATE carrier_accounts SET max_calls = 0")


def _account_has_no_slot(house: House, _: Attempt) -> None:
    house.change("UPDATE carrier_accounts SET next_slot_at = :it", it=house.now() + timedelta(minutes=6))


def _company_has_no_slot(house: House, _: Attempt) -> None:
    house.change("UPDATE companies SET next_slot_at = :it", it=house.now() + timedelta(minutes=6))


def _it_is_expired(house: House, attempt: Attempt) -> None:
    house.change("UPDATE attempts SET expires_at = :it WHERE id = :id", it=house.now(), id=attempt.id)


def _back_off(house: House, attempt: Attempt, *, account_id: int | None = None, **scope: object) -> None:
    columns = ("company_id", "caller", "country")
    house.insert(
        "carrier_backoffs",
        account_id=account_id or house.account_id,
        failures=1,
        trials=0,
        down_until=house.now() + timedelta(hours=1),
        cause="COUNTRY_NOT_ALLOWED",
        is_asked=False,
        others_work=False,
        created_at=house.now(),
        updated_at=house.now(),
        **{name: scope.get(name) for name in columns},
    )
    house.change("UPDATE lines SET country = 'SK' WHERE number_hash = :number", number=attempt.number_hash)


def _country_is_refused(house: House, attempt: Attempt) -> None:
    _back_off(house, attempt, country="SK")


def _caller_is_refused(house: House, attempt: Attempt) -> None:
    _back_off(house, attempt, company_id=attempt.company_id, caller=house.caller)


def test_refused_country_excuses_no_other_country(house: House, now: TestClock) -> None:
    _back_off(house, a_pending_attempt(house), country="AT")
    now.move(SPAN)
    assert waiting(house).late == SPAN


@pytest.mark.parametrize(
    "keeps",
    [
        _line_rests,
        _number_is_called,
        _command_waits,
        _company_is_paused,
        _all_is_paused,
        _breaker_is_open,
        _breaker_is_on_trial,
        _country_is_refused,
        _caller_is_refused,
        _company_is_full,
        _account_is_full,
        _account_has_no_slot,
        _company_has_no_slot,
        _it_is_expired,
    ],
)
def test_call_that_duecall_could_not_ring_is_not_late(
    house: House, now: TestClock, keeps: Callable[[House, Attempt], None]
) -> None:
    attempt = a_pending_attempt(house)
    keeps(house, attempt)
    now.move(SPAN)
    row = waiting(house)
    assert row.late is None
    assert row.due == 1


def test_one_free_call_is_late_beside_others_that_wait(house: House, now: TestClock) -> None:
    _line_rests(house, a_pending_attempt(house))
    now.move(SPAN)
    a_pending_attempt(house)
    now.move(timedelta(minutes=1))
    assert waiting(house).late == timedelta(minutes=1)


def test_call_is_late_since_its_line_was_free(house: House, now: TestClock) -> None:
    rest(house, a_pending_attempt(house), now() + SPAN)
    now.move(SPAN + timedelta(seconds=7))
    assert waiting(house).late == timedelta(seconds=7)


def test_line_that_rests_after_its_own_interview_excuses_nothing(house: House, now: TestClock) -> None:
    attempt = a_pending_attempt(house)
    rest(house, attempt, now() + timedelta(hours=1), interview=attempt)
    now.move(SPAN)
    assert waiting(house).late == SPAN


@pytest.mark.parametrize("everything", [True, False])
def test_call_is_late_since_the_pause_ended(house: House, now: TestClock, *, everything: bool) -> None:
    attempt = a_pending_attempt(house)
    company_id = None if everything else attempt.company_id
    pauses = Pauses(house.database, now)
    pauses.pause(company_id, "a test")
    now.move(SPAN)
    pauses.resume(company_id)
    now.move(timedelta(seconds=7))
    assert waiting(house).late == timedelta(seconds=7)


def test_call_is_late_since_the_breaker_closed(house: House, now: TestClock) -> None:
    a_pending_attempt(house)
    _breaker_is_on_trial(house, a_pending_attempt(house))
    now.move(SPAN)
    with house.database.transaction() as stores:
        stores.carrier_accounts.set_breaker(house.account_id, Breaker(), now())
    now.move(timedelta(seconds=7))
    assert waiting(house).late == timedelta(seconds=7)


def test_counted_failure_excuses_no_late_call(house: House, now: TestClock) -> None:
    """One company's failing orders are counted all the time; they keep no other company's call from ringing."""
    a_pending_attempt(house)
    now.move(SPAN)
    for breaker in (Breaker(failures=1, cause="HTTP_400"), Breaker()):
        with house.database.transaction() as stores:
            stores.carrier_accounts.set_breaker(house.account_id, breaker, now())
        assert waiting(house).late == SPAN


def test_back_off_of_an_unused_account_excuses_nothing(house: House, now: TestClock) -> None:
    with house.database.transaction() as stores:
        before = stores.carrier_accounts.ensure("AC" + "9" * 32, 1, 1, now() - timedelta(days=9))
    a_claimed_attempt(house)
    _back_off(house, a_pending_attempt(house), account_id=before, country="SK")
    now.move(SPAN)
    assert waiting(house).late is not None


def test_thousands_due_at_once_are_not_late_within_the_pace(house: House, now: TestClock) -> None:
    """The next of them waits for its slot, however long ago it was due."""
    house.change("UPDATE carrier_accounts SET calls_per_second = 0.1")
    for _ in range(5):
        a_pending_attempt(house)
    now.move(SPAN)
    a_claimed_attempt(house, a_number())
    now.move(timedelta(seconds=9))
    assert waiting(house).late is None
    now.move(timedelta(seconds=9))
    assert waiting(house).late == timedelta(seconds=8)


def test_account_that_is_no_longer_used_excuses_nothing(house: House, now: TestClock) -> None:
    """Another account of the carrier was configured before; its breaker may stay open permanently."""
    with house.database.transaction() as stores:
        before = stores.carrier_accounts.ensure("AC" + "9" * 32, 1, 1, now() - timedelta(days=9))
    house.change("UPDATE carrier_accounts SET down_until = updated_at WHERE id = :it", it=before)
    a_claimed_attempt(house)
    a_pending_attempt(replace(house))
    now.move(SPAN)
    assert waiting(house).late is not None
