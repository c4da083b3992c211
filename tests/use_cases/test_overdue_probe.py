"""A carrier that is down keeps calls waiting only while it is probed: after that it is Duecall itself."""

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


def be_down(tenant: Tenant, *, probe_at: datetime) -> None:
    tenant.change("UPDATE carrier_accounts SET failures = 5, down_until = :at, answered_at = NULL", at=probe_at)


def overdue_alarms(release: Release) -> int:
    with capture_logs() as lines:
        release.round(resends=False)
    return sum(line.get("alarm") == "PROBE_OVERDUE" for line in lines)


def test_call_is_late_when_the_probe_is_overdue(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant)
    be_down(tenant, probe_at=now() + A_WHILE)
    now.move(A_WHILE + PROBED_WITHIN - A_MOMENT)
    row = waiting(tenant)
    assert (row.late, list(row.held)) == (None, [Rule.CARRIER_DOWN])
    now.move(A_MOMENT)
    assert waiting(tenant).late == PROBED_WITHIN, "since the time of the probe: before, the carrier was the cause"


def test_call_is_not_late_during_a_trial(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant)
    be_down(tenant, probe_at=now())
    tenant.change("UPDATE carrier_accounts SET answered_at = down_until")
    now.move(A_WHILE)
    assert waiting(tenant).late is None


@guards("overdue_probe")
def test_clock_reports_an_overdue_probe_once_a_minute(tenant: Tenant, now: TestClock, release: Release) -> None:
    assert overdue_alarms(release) == 0
    be_down(tenant, probe_at=now())
    now.move(PROBED_WITHIN - A_MOMENT)
    assert overdue_alarms(release) == 0
    now.move(A_MOMENT)
    assert [overdue_alarms(release), overdue_alarms(release)] == [1, 0]
    now.move(PROBED_WITHIN)
    assert overdue_alarms(release) == 1


# ---- back-offs


SCOPES = [
    pytest.param({}, Rule.CARRIER_FAILS_CALLER, id="failing"),
    pytest.param({"cause": "CALLER_REFUSED"}, Rule.CARRIER_REFUSES_CALLER, id="refused"),
    pytest.param({"country": "SK", "cause": "COUNTRY_REFUSED"}, Rule.CARRIER_REFUSES_COUNTRY, id="country"),
]


@pytest.mark.parametrize(("scope", "rule"), SCOPES)
def test_call_is_late_when_the_probe_of_its_backoff_is_overdue(
    tenant: Tenant, now: TestClock, scope: dict[str, str], rule: Rule
) -> None:
    a_pending_attempt(tenant)
    tenant.change("UPDATE lines SET country = 'SK'")
    a_backoff(tenant, is_asked=True, down_until=now() + A_WHILE, **scope)
    now.move(A_WHILE + PROBED_WITHIN - A_MOMENT)
    assert (waiting(tenant).late, list(waiting(tenant).held)) == (None, [rule])
    now.move(A_MOMENT)
    assert waiting(tenant).late == PROBED_WITHIN, "since the time of the probe: before, the carrier was the cause"
    tenant.change("UPDATE carrier_backoffs SET answered_at = down_until")
    assert waiting(tenant).late is None, "a trial is not overdue"


def test_overdue_backoff_excuses_no_other_call(tenant: Tenant, now: TestClock) -> None:
    """A call to another country is late since it was due."""
    a_pending_attempt(tenant)
    tenant.change("UPDATE lines SET country = 'AT'")
    a_backoff(tenant, is_asked=True, down_until=now() + A_WHILE, country="SK", cause="COUNTRY_REFUSED")
    now.move(A_WHILE + PROBED_WITHIN)
    assert waiting(tenant).late == A_WHILE + PROBED_WITHIN


@guards("overdue_probe")
def test_clock_reports_an_overdue_backoff_once_a_minute(tenant: Tenant, now: TestClock, release: Release) -> None:
    a_backoff(tenant, is_asked=True, down_until=now())
    now.move(PROBED_WITHIN - A_MOMENT)
    assert overdue_alarms(release) == 0
    now.move(A_MOMENT)
    assert [overdue_alarms(release), overdue_alarms(release)] == [1, 0]
    now.move(PROBED_WITHIN)
    assert overdue_alarms(release) == 1


def test_backoff_is_not_overdue_behind_an_open_breaker(tenant: Tenant, now: TestClock, release: Release) -> None:
    """It is probed once the breaker is closed, and not before."""
    a_backoff(tenant, is_asked=True, down_until=now())
    now.move(PROBED_WITHIN)
    be_down(tenant, probe_at=now() + A_WHILE)
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
