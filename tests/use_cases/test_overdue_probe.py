"""A carrier that is down keeps calls waiting only while it is probed: after that it is Duecall itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from scheduler.domain.explanation import Rule
from scheduler.lifecycle.breaker import PROBED_WITHIN, Breaker
from scheduler.use_cases.release import Release
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import Tenant, a_pending_attempt
from tests.use_cases.conftest import a_backoff
from tests.use_cases.test_lateness import waiting

A_WHILE = timedelta(minutes=5)
A_MOMENT = timedelta(seconds=1)


Hold = Callable[[Tenant, datetime], None]


def be_down(tenant: Tenant, probe_at: datetime) -> None:
    tenant.change("UPDATE carrier_accounts SET failures = 5, down_until = :at, answered_at = NULL", at=probe_at)


def overdue_alarms(release: Release) -> int:
    with capture_logs() as lines:
        release.round(resends=False)
    return sum(line.get("alarm") == "PROBE_OVERDUE" for line in lines)


def fails(tenant: Tenant, probe_at: datetime) -> None:
    a_backoff(tenant, is_asked=True, down_until=probe_at)


def refuses_the_caller(tenant: Tenant, probe_at: datetime) -> None:
    a_backoff(tenant, is_asked=True, down_until=probe_at, cause="CALLER_REFUSED")


def refuses_the_country(tenant: Tenant, probe_at: datetime) -> None:
    a_backoff(tenant, is_asked=True, down_until=probe_at, cause="COUNTRY_REFUSED", country="SK")


@pytest.mark.parametrize(
    ("hold", "rule"),
    [
        (be_down, Rule.CARRIER_DOWN),
        (fails, Rule.CARRIER_FAILS_CALLER),
        (refuses_the_caller, Rule.CARRIER_REFUSES_CALLER),
        (refuses_the_country, Rule.CARRIER_REFUSES_COUNTRY),
    ],
)
def test_call_is_late_when_its_probe_is_overdue(tenant: Tenant, now: TestClock, hold: Hold, rule: Rule) -> None:
    a_pending_attempt(tenant)
    tenant.change("UPDATE lines SET country = 'SK'")
    hold(tenant, now() + A_WHILE)
    now.move(A_WHILE + PROBED_WITHIN - A_MOMENT)
    assert (waiting(tenant).late, list(waiting(tenant).held)) == (None, [rule])
    now.move(A_MOMENT)
    assert waiting(tenant).late == PROBED_WITHIN, "since the time of the probe: before, the carrier was the cause"
    for table in ("carrier_accounts", "carrier_backoffs"):
        tenant.change(f"UPDATE {table} SET answered_at = down_until")
    assert waiting(tenant).late is None, "a trial is not overdue"


@guards("overdue_probe")
@pytest.mark.parametrize("hold", [be_down, fails])
def test_clock_reports_an_overdue_probe_once_a_minute(
    tenant: Tenant, now: TestClock, release: Release, hold: Hold
) -> None:
    assert overdue_alarms(release) == 0
    hold(tenant, now())
    now.move(PROBED_WITHIN - A_MOMENT)
    assert overdue_alarms(release) == 0
    now.move(A_MOMENT)
    assert [overdue_alarms(release), overdue_alarms(release)] == [1, 0]
    now.move(PROBED_WITHIN)
    assert overdue_alarms(release) == 1


def test_overdue_backoff_excuses_no_other_call(tenant: Tenant, now: TestClock) -> None:
    """A call to another country is late since it was due."""
    a_pending_attempt(tenant)
    tenant.change("UPDATE lines SET country = 'AT'")
    refuses_the_country(tenant, now() + A_WHILE)
    now.move(A_WHILE + PROBED_WITHIN)
    assert waiting(tenant).late == A_WHILE + PROBED_WITHIN


def test_backoff_is_not_overdue_behind_an_open_breaker(tenant: Tenant, now: TestClock, release: Release) -> None:
    """It is probed once the breaker is closed, and not before."""
    fails(tenant, now())
    now.move(PROBED_WITHIN)
    be_down(tenant, now() + A_WHILE)
    assert overdue_alarms(release) == 0
    tenant.change("UPDATE carrier_accounts SET failures = 0, down_until = NULL")
    assert overdue_alarms(release) == 0, "it was closed just now"
    now.move(PROBED_WITHIN)
    assert overdue_alarms(release) == 1


@pytest.mark.parametrize(
    ("breaker", "is_overdue"),
    [
        (Breaker(), False),
        (Breaker(down_until=datetime(2026, 4, 2, tzinfo=UTC)), True),
        (Breaker(down_until=datetime(2026, 4, 2, tzinfo=UTC), answered_at=datetime(2026, 4, 2, tzinfo=UTC)), False),
    ],
)
def test_probe_is_overdue_only_while_it_is_awaited(breaker: Breaker, *, is_overdue: bool) -> None:
    assert breaker.is_probe_overdue(datetime(2026, 4, 3, tzinfo=UTC)) is is_overdue
