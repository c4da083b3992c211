"""Late is what Duecall itself could ring now and has not: nothing else counts, and only since it could."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler.domain.attempt import Attempt
from scheduler.domain.explanation import PACE, Rule
from scheduler.domain.resource import COUNTED_UP_TO
from scheduler.lifecycle.breaker import Breaker
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.counts import Counts, Held, Waiting
from scheduler.use_cases.operations.pauses import Pauses
from tests.conftest import TestClock
from tests.support.builders import Tenant, a_claimed_attempt, a_number, a_pending_attempt, a_waiting_command
from tests.use_cases.conftest import a_backoff, change_now

SPAN = timedelta(minutes=5)
ON_TRIAL = "UPDATE carrier_accounts SET failures = 5, down_until = :at, answered_at = :at"


def waiting(tenant: Tenant) -> Waiting:
    [row] = Counts(tenant.context).attempts()
    return row


def rest(tenant: Tenant, attempt: Attempt, until: datetime, *, interview: Attempt | None = None) -> None:
    tenant.change(
        "UPDATE lines SET free_at = :until, interview_id = :interview WHERE number_hash = :number",
        until=until,
        interview=interview and interview.interview_id,
        number=attempt.number_hash,
    )


def test_due_call_is_late_since_it_was_due(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant)
    assert waiting(tenant).late == timedelta()
    now.move(SPAN)
    assert waiting(tenant).late == SPAN


def test_call_before_its_time_is_not_late(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant, due_at=now() + SPAN, expires_at=now() + 2 * SPAN)
    assert waiting(tenant).late is None


def _line_rests(tenant: Tenant, attempt: Attempt) -> None:
    rest(tenant, attempt, tenant.now() + timedelta(hours=1))


def _number_is_called(tenant: Tenant, attempt: Attempt) -> None:
    other = a_pending_attempt(tenant)
    tenant.change(
        "UPDATE lines SET attempt_id = :other WHERE number_hash = :number", other=other.id, number=attempt.number_hash
    )
    tenant.change("UPDATE attempts SET due_at = due_at + interval '1 day' WHERE id = :other", other=other.id)


def _back_off(tenant: Tenant, attempt: Attempt, **scope: Any) -> None:
    a_backoff(tenant, down_until=tenant.now() + timedelta(hours=1), cause="COUNTRY_NOT_ALLOWED", **scope)
    tenant.change("UPDATE lines SET country = 'SK' WHERE number_hash = :number", number=attempt.number_hash)


def test_refused_country_excuses_no_other_country(tenant: Tenant, now: TestClock) -> None:
    _back_off(tenant, a_pending_attempt(tenant), country="AT")
    now.move(SPAN)
    assert waiting(tenant).late == SPAN


def _caller_is_refused(tenant: Tenant, attempt: Attempt, cause: str) -> None:
    _back_off(tenant, attempt)
    tenant.change("UPDATE carrier_backoffs SET cause = :cause", cause=cause)


@pytest.mark.parametrize(
    ("keeps", "rule"),
    [
        pytest.param(_line_rests, Rule.NUMBER_BUSY, id="line rests"),
        pytest.param(_number_is_called, Rule.NUMBER_BUSY, id="number is called"),
        pytest.param(
            lambda tenant, attempt: a_waiting_command(tenant, attempt.interview_id),
            Rule.COMMAND_WAITING,
            id="command waits",
        ),
        pytest.param(
            lambda tenant, _: Pauses(tenant.database, tenant.now).pause(tenant.company_id, "a test"),
            Rule.COMPANY_PAUSED,
            id="company is paused",
        ),
        pytest.param(
            lambda tenant, _: Pauses(tenant.database, tenant.now).pause(None, "a test"),
            Rule.ACCOUNT_PAUSED,
            id="all is paused",
        ),
        pytest.param(
            lambda tenant, attempt: _back_off(tenant, attempt, country="SK"),
            Rule.CARRIER_REFUSES_COUNTRY,
            id="country is refused",
        ),
        pytest.param(
            lambda tenant, attempt: _caller_is_refused(tenant, attempt, "CALLER_REFUSED"),
            Rule.CARRIER_REFUSES_CALLER,
            id="caller is refused",
        ),
        pytest.param(
            lambda tenant, attempt: _caller_is_refused(tenant, attempt, "HTTP_503"),
            Rule.CARRIER_FAILS_CALLER,
            id="caller fails",
        ),
    ],
)
def test_call_that_duecall_could_not_place_is_not_late(
    tenant: Tenant, now: TestClock, keeps: Callable[[Tenant, Attempt], None], rule: Rule
) -> None:
    attempt = a_pending_attempt(tenant)
    keeps(tenant, attempt)
    now.move(SPAN)
    row = waiting(tenant)
    assert (row.late, row.due) == (None, 1)
    assert row.held == {rule: Held(count=1, oldest=now() - attempt.due_at)}
    # The same rule as in the explanation of the attempt.
    assert Explain(tenant.context).explanation_of(attempt.id).blocks[0].rule is rule


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        pytest.param(
            "UPDATE carrier_accounts SET failures = 5, down_until = :at + interval '9 minutes'",
            Rule.CARRIER_DOWN,
            id="open breaker",
        ),
        pytest.param(ON_TRIAL, Rule.CARRIER_DOWN, id="breaker on trial"),
        pytest.param("UPDATE companies SET concurrent_calls = 0", Rule.COMPANY_LIMIT, id="full company"),
        pytest.param("UPDATE carrier_accounts SET max_calls = 0", Rule.ACCOUNT_LIMIT, id="full account"),
        pytest.param(
            "UPDATE carrier_accounts SET next_slot_at = :at + interval '6 minutes'", PACE, id="no slot of account"
        ),
        pytest.param("UPDATE companies SET next_slot_at = :at + interval '6 minutes'", PACE, id="no slot of company"),
        pytest.param("UPDATE attempts SET expires_at = :at", Rule.EXPIRED, id="expired"),
    ],
)
def test_call_is_not_late_while_a_stored_limit_forbids_it(
    tenant: Tenant, now: TestClock, statement: str, rule: str
) -> None:
    a_pending_attempt(tenant)
    change_now(tenant, statement)
    now.move(SPAN)
    row = waiting(tenant)
    assert (row.late, row.due) == (None, 1)
    assert row.held == {rule: Held(count=1, oldest=SPAN)}


def test_call_is_held_by_one_rule_only(tenant: Tenant, pauses: Pauses, now: TestClock) -> None:
    """Each due attempt counts once: by the rule that is checked first, or as callable."""
    free, both = a_pending_attempt(tenant), a_pending_attempt(tenant)
    _line_rests(tenant, both)
    a_waiting_command(tenant, both.interview_id)
    now.move(SPAN)
    assert waiting(tenant).held == {Rule.COMMAND_WAITING: Held(count=1, oldest=now() - both.due_at)}
    pauses.pause(tenant.company_id, "a test")
    assert waiting(tenant).held == {Rule.COMPANY_PAUSED: Held(count=2, oldest=now() - free.due_at)}


def test_busy_number_is_found_among_many_that_rest_longer(tenant: Tenant) -> None:
    attempt = a_pending_attempt(tenant)
    _line_rests(tenant, attempt)
    tenant.change(
        "INSERT INTO lines (number_hash, free_at) SELECT sha256(n::text::bytea), :at FROM generate_series(1, :count) n",
        at=tenant.now() + timedelta(hours=2),
        count=COUNTED_UP_TO + 1,
    )
    assert waiting(tenant).held == {Rule.NUMBER_BUSY: Held(count=1, oldest=tenant.now() - attempt.due_at)}


def test_deleted_company_uses_no_pace_of_the_others(tenant: Tenant, other: Tenant, now: TestClock) -> None:
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 1, next_slot_at = :at", at=now())
    a_pending_attempt(tenant)
    a_pending_attempt(other)
    other.change("UPDATE companies SET deleted_at = :at WHERE id = :it", at=now(), it=other.company_id)
    now.move(SPAN)
    row = waiting(tenant)
    assert (row.held, row.late) == ({}, SPAN)


def test_callable_attempt_is_late_while_others_wait(tenant: Tenant, now: TestClock) -> None:
    _line_rests(tenant, a_pending_attempt(tenant))
    now.move(SPAN)
    a_pending_attempt(tenant)
    now.move(timedelta(minutes=1))
    assert waiting(tenant).late == timedelta(minutes=1)


def test_call_is_late_since_its_line_was_free(tenant: Tenant, now: TestClock) -> None:
    rest(tenant, a_pending_attempt(tenant), now() + SPAN)
    now.move(SPAN + timedelta(seconds=7))
    assert waiting(tenant).late == timedelta(seconds=7)


def test_gap_after_its_own_interview_excuses_no_late_call(tenant: Tenant, now: TestClock) -> None:
    attempt = a_pending_attempt(tenant)
    rest(tenant, attempt, now() + timedelta(hours=1), interview=attempt)
    now.move(SPAN)
    assert waiting(tenant).late == SPAN


@pytest.mark.parametrize("everything", [True, False])
def test_call_is_late_since_the_pause_ended(
    tenant: Tenant, pauses: Pauses, now: TestClock, *, everything: bool
) -> None:
    attempt = a_pending_attempt(tenant)
    company_id = None if everything else attempt.company_id
    pauses.pause(company_id, "a test")
    now.move(SPAN)
    pauses.resume(company_id)
    now.move(timedelta(seconds=7))
    assert waiting(tenant).late == timedelta(seconds=7)


def test_call_is_late_since_the_breaker_closed(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant)
    a_pending_attempt(tenant)
    change_now(tenant, ON_TRIAL)
    now.move(SPAN)
    with tenant.database.transaction() as stores:
        stores.carrier_accounts.set_breaker(tenant.account_id, Breaker(), now())
    now.move(timedelta(seconds=7))
    assert waiting(tenant).late == timedelta(seconds=7)


def test_counted_failure_excuses_no_late_call(tenant: Tenant, now: TestClock) -> None:
    """One company's failing orders are counted all the time; they keep no other company's call from ringing."""
    a_pending_attempt(tenant)
    now.move(SPAN)
    for breaker in (Breaker(failures=1, cause="HTTP_400"), Breaker()):
        with tenant.database.transaction() as stores:
            stores.carrier_accounts.set_breaker(tenant.account_id, breaker, now())
        assert waiting(tenant).late == SPAN


def test_back_off_of_an_unused_account_excuses_no_late_call(tenant: Tenant, now: TestClock) -> None:
    with tenant.database.transaction() as stores:
        before = stores.carrier_accounts.ensure("AC" + "9" * 32, 1, 1, now() - timedelta(days=9))
    a_claimed_attempt(tenant)
    _back_off(tenant, a_pending_attempt(tenant), account_id=before, country="SK")
    now.move(SPAN)
    assert waiting(tenant).late is not None


def test_thousands_due_at_once_are_not_late_within_the_pace(tenant: Tenant, now: TestClock) -> None:
    """The next of them waits for its slot, however long ago it was due."""
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 0.1")
    for _ in range(5):
        a_pending_attempt(tenant)
    now.move(SPAN)
    a_claimed_attempt(tenant, a_number())
    now.move(timedelta(seconds=9))
    row = waiting(tenant)
    assert (row.late, row.held[PACE].count) == (None, 5)
    now.move(timedelta(seconds=9))
    assert waiting(tenant).late == timedelta(seconds=8)


def test_account_no_longer_used_excuses_no_late_call(tenant: Tenant, now: TestClock) -> None:
    """Another account of the carrier was configured before; its breaker may stay open permanently."""
    with tenant.database.transaction() as stores:
        before = stores.carrier_accounts.ensure("AC" + "9" * 32, 1, 1, now() - timedelta(days=9))
    tenant.change("UPDATE carrier_accounts SET down_until = updated_at WHERE id = :it", it=before)
    a_claimed_attempt(tenant)
    a_pending_attempt(tenant)
    now.move(SPAN)
    assert waiting(tenant).late is not None
