"""Caller ids by day: each call counts once and with its transaction, and alarms are raised once."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from scheduler.domain.attempt import Ended, Proven, Reason
from scheduler.persistence.tables import companies, phone_numbers
from scheduler.rules import reputation
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.counts import CallerReputation
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
    of_company,
)
from tests.support.statements import statements_of
from tests.use_cases.conftest import refusing
from tests.use_cases.test_batches import BUSY, stored
from tests.use_cases.test_hear import a_form

A_DAY = timedelta(days=1)


@pytest.fixture
def callers(tenant: Tenant) -> CallerReputation:
    return CallerReputation(tenant.context)


def end(tenant: Tenant, *reasons: Reason) -> None:
    for reason in reasons:
        tenant.take(a_placed_attempt(tenant), Ended(reason=reason, ended_at=tenant.now()))


def counts(callers: CallerReputation, tenant: Tenant) -> tuple[int, int, int, int]:
    callers.fold()
    [number] = callers.numbers_of(tenant.company_id)
    return number.calls, number.answered, number.declined, number.blocked


def alarms(tenant: Tenant) -> Sequence[tuple[str, UUID, int]]:
    rows = tenant.ask("SELECT kind, subjects ->> 'phone_number_id', count FROM alarms WHERE kind LIKE 'CALLER%'")
    return [(kind, UUID(number_id), count) for kind, number_id, count in rows]


def number_id(tenant: Tenant) -> UUID:
    [[found]] = tenant.ask("SELECT id FROM phone_numbers WHERE company_id = :id", id=tenant.company_id)
    assert isinstance(found, UUID)
    return found


def test_calls_are_counted_by_their_outcome(tenant: Tenant, callers: CallerReputation) -> None:
    end(tenant, Reason.ANSWERED, Reason.ANSWERED, Reason.DECLINED, Reason.BLOCKED_BY_NETWORK, Reason.BUSY)
    assert counts(callers, tenant) == (5, 2, 1, 1)


def test_unknown_outcome_is_counted_once_it_is_proven(tenant: Tenant, callers: CallerReputation) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    assert counts(callers, tenant) == (0, 0, 0, 0)
    tenant.take(unknown, Proven(reason=Reason.DECLINED, call_sid=a_sid(), ended_at=tenant.now()))
    assert counts(callers, tenant) == (1, 0, 1, 0)


def test_call_of_yesterday_is_not_in_the_counts_of_today(
    tenant: Tenant, callers: CallerReputation, now: TestClock
) -> None:
    end(tenant, Reason.BUSY)
    now.move(A_DAY)
    assert counts(callers, tenant) == (0, 0, 0, 0)
    [number] = callers.numbers_of(tenant.company_id, reputation.day_of(now() - A_DAY))
    assert number.calls == 1


def test_call_is_not_counted_for_another_company(tenant: Tenant, callers: CallerReputation) -> None:
    end(tenant, Reason.BUSY)
    other = of_company(tenant, seed(tenant.database, tenant.now()))
    assert counts(callers, other) == (0, 0, 0, 0)
    assert counts(callers, tenant) == (1, 0, 0, 0)


def test_blocked_calls_of_a_shared_number_count_together(tenant: Tenant, callers: CallerReputation) -> None:
    """Networks judge the number, whichever company calls from it. One alarm is enough."""
    other = of_company(tenant, seed(tenant.database, tenant.now()))
    assert other.caller == tenant.caller
    for each in (tenant, other):
        end(each, Reason.BLOCKED_BY_NETWORK)
        callers.fold()
    assert alarms(tenant) == []
    end(other, Reason.BLOCKED_BY_NETWORK)
    callers.fold()
    assert alarms(tenant) == [("CALLER_REPUTATION", number_id(other), 1)]
    end(tenant, *[Reason.BLOCKED_BY_NETWORK] * reputation.BLOCKED_CALLS)
    callers.fold()
    assert alarms(tenant) == [("CALLER_REPUTATION", number_id(other), 1)]


def test_rolled_back_end_is_not_counted(tenant: Tenant, callers: CallerReputation) -> None:
    attempt = a_placed_attempt(tenant)
    with suppress(ZeroDivisionError), tenant.database.transaction() as stores:
        result = reputation.CallerResult(
            company_id=tenant.company_id, number=tenant.caller, day=reputation.day_of(tenant.now())
        )
        stores.caller_days.add(result)
        raise ZeroDivisionError
    assert counts(callers, tenant) == (0, 0, 0, 0)
    tenant.take(attempt, Ended(reason=Reason.BUSY, ended_at=tenant.now()))
    assert counts(callers, tenant) == (1, 0, 0, 0)


def test_ends_travel_in_a_statement_that_is_sent_anyway(
    tenant: Tenant, callers: CallerReputation, hear: Hear, hints: RecordingHints
) -> None:
    placed = [a_placed_attempt(tenant) for _ in range(9)]
    events = stored(hear, hints, [(each, a_form(each, **BUSY)) for each in placed])
    with statements_of(tenant.database) as sent:
        hear.batch(events)
    appended = [each for each in sent if "caller_results" in each]
    assert len(appended) == 1
    assert "attempt_history" in appended[0]
    # The driver parses a longer text again for each execution.
    assert len(appended[0]) < 4096
    assert counts(callers, tenant)[0] == 9


def test_number_that_was_erased_meanwhile_is_left_out(tenant: Tenant, callers: CallerReputation) -> None:
    values = {"day": tenant.now(), "calls": 1, "answered": 0, "declined": 0, "blocked": 0}
    tenant.insert("caller_results", phone_number_id=UUID(int=7), **values)
    end(tenant, Reason.BUSY)
    assert counts(callers, tenant) == (1, 0, 0, 0)
    assert tenant.ask("SELECT count(*) FROM caller_results") == [(0,)]


# ---- alarms


def share_the_number(tenant: Tenant, count: int) -> None:
    """Make as many companies like the tenant's, which call from its number."""
    ids = [uuid4() for _ in range(count)]
    same = ", ".join(each.name for each in companies.c if each.name != "id")
    given = "unnest(CAST(:ids AS uuid[])) AS given (id)"
    tenant.change(
        f"INSERT INTO companies (id, {same}) SELECT given.id, {same} FROM companies c, {given} WHERE c.id = :of",
        ids=ids,
        of=tenant.company_id,
    )
    same = ", ".join(each.name for each in phone_numbers.c if each.name not in {"id", "company_id"})
    tenant.change(
        f"INSERT INTO phone_numbers (id, company_id, {same}) SELECT gen_random_uuid(), given.id, {same}"
        f" FROM phone_numbers n, {given} WHERE n.company_id = :of",
        ids=ids,
        of=tenant.company_id,
    )


def fold_a_blocked_call_of_each_company(tenant: Tenant, callers: CallerReputation) -> int:
    """Count the statements of the fold."""
    tenant.change(
        "INSERT INTO caller_results (phone_number_id, day, calls, answered, declined, blocked)"
        " SELECT id, :day, 1, 0, 0, 1 FROM phone_numbers",
        day=reputation.day_of(tenant.now()),
    )
    with statements_of(tenant.database) as sent:
        callers.fold()
    return len(sent)


@guards("reported_caller", "caller_reputation")
def test_fold_of_a_shared_number_takes_few_statements(
    tenant: Tenant, callers: CallerReputation, now: TestClock
) -> None:
    """Without a number of its own, each company calls from DEFAULT_CALLER_ID, and the clock waits for the fold."""
    sent = []
    for more in (49, 150):
        share_the_number(tenant, more)
        now.move(A_DAY)
        sent.append([fold_a_blocked_call_of_each_company(tenant, callers) for _ in range(2)])
    assert sent[0] == sent[1]
    assert sum(count for _, _, count in alarms(tenant)) == len(sent), "one for each day"
    assert tenant.ask("SELECT is_blocked_reported, count(*) FROM caller_days GROUP BY 1") == [(True, 250)]


def test_blocked_numbers_of_many_companies_are_reported_each(tenant: Tenant, callers: CallerReputation) -> None:
    share_the_number(tenant, 5)
    tenant.change("UPDATE phone_numbers SET number = '+42122102' || (1000 + (random() * 8999)::integer)")
    of_all = tenant.ask("SELECT count(DISTINCT number) FROM phone_numbers")[0][0]
    sent = [fold_a_blocked_call_of_each_company(tenant, callers) for _ in range(reputation.BLOCKED_CALLS)]
    assert sum(count for _, _, count in alarms(tenant)) == of_all
    assert sent[-1] <= sent[0] + 2


@guards("reported_caller", "caller_reputation", "network_block")
def test_alarm_is_not_repeated_after_its_company_is_deleted(tenant: Tenant, callers: CallerReputation) -> None:
    other = of_company(tenant, seed(tenant.database, tenant.now()))
    for each in (tenant, other):
        end(each, *[Reason.BLOCKED_BY_NETWORK] * (reputation.BLOCKED_CALLS - 1))
        callers.fold()
    assert len(alarms(tenant)) == 1
    tenant.change("DELETE FROM caller_days WHERE company_id = :id", id=other.company_id)
    end(tenant, *[Reason.BLOCKED_BY_NETWORK] * reputation.BLOCKED_CALLS)
    callers.fold()
    assert alarms(tenant) == [("CALLER_REPUTATION", number_id(other), 1)]


@guards("reported_caller", "caller_reputation", "network_block")
def test_third_blocked_call_of_a_day_raises_one_alarm(tenant: Tenant, callers: CallerReputation) -> None:
    end(tenant, Reason.BLOCKED_BY_NETWORK, Reason.BLOCKED_BY_NETWORK)
    callers.fold()
    assert alarms(tenant) == []
    for _ in range(3):
        end(tenant, Reason.BLOCKED_BY_NETWORK)
        callers.fold()
        assert alarms(tenant) == [("CALLER_REPUTATION", number_id(tenant), 1)]


def test_declined_calls_raise_no_alarm(tenant: Tenant, callers: CallerReputation) -> None:
    end(tenant, *[Reason.DECLINED] * 4, Reason.BLOCKED_BY_NETWORK)
    callers.fold()
    assert alarms(tenant) == []


def test_blocked_calls_of_two_days_raise_no_alarm(tenant: Tenant, callers: CallerReputation, now: TestClock) -> None:
    end(tenant, Reason.BLOCKED_BY_NETWORK, Reason.BLOCKED_BY_NETWORK)
    callers.fold()
    now.move(A_DAY)
    end(tenant, Reason.BLOCKED_BY_NETWORK)
    callers.fold()
    assert alarms(tenant) == []


def test_alarm_names_the_number_by_its_id_only(tenant: Tenant, callers: CallerReputation) -> None:
    end(tenant, *[Reason.BLOCKED_BY_NETWORK] * 3)
    with capture_logs() as logs:
        callers.fold()
    [line] = [each for each in logs if each.get("alarm") == "CALLER_REPUTATION"]
    assert line["phone_number_id"] == str(number_id(tenant))
    assert tenant.caller not in str(line)


def test_alarm_and_counts_are_stored_together(tenant: Tenant, callers: CallerReputation) -> None:
    end(tenant, *[Reason.BLOCKED_BY_NETWORK] * 3)
    with refusing(tenant, "INSERT ON alarms"), pytest.raises(DBAPIError, match="refused"):
        callers.fold()
    assert tenant.ask("SELECT count(*) FROM caller_days") == [(0,)]
    assert counts(callers, tenant) == (3, 0, 0, 3)
    assert [kind for kind, _, _ in alarms(tenant)] == ["CALLER_REPUTATION"]


def test_caller_id_answered_less_than_half_as_often_is_reported(tenant: Tenant, callers: CallerReputation) -> None:
    day = reputation.day_of(tenant.now())
    for place, answered in enumerate((30, 25, 12)):
        number = f"+42122102010{place}"
        with tenant.database.transaction() as stores:
            stores.phone_numbers.add(UUID(int=place + 1), tenant.company_id, number, tenant.now())
            for call in range(50):
                is_answered = call < answered
                result = reputation.CallerResult(
                    company_id=tenant.company_id, number=number, day=day, is_answered=is_answered
                )
                stores.caller_days.add(result)
    for _ in range(2):
        callers.fold()
        assert alarms(tenant) == [("CALLER_RARELY_ANSWERED", UUID(int=3), 1)]
