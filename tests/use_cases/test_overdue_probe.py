"""A carrier that is down keeps calls waiting only while it is probed: after that it is Duecall itself."""

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from scheduler.domain.explanation import Rule
from scheduler.lifecycle.breaker import PROBED_WITHIN, Breaker
from scheduler.use_cases.explain import Explain, Waiting
from scheduler.use_cases.release import Release
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import Tenant, a_pending_attempt

A_WHILE = timedelta(minutes=5)
A_MOMENT = timedelta(seconds=1)


def waiting(tenant: Tenant) -> Waiting:
    [row] = Explain(tenant.context).waiting()
    return row


def be_down(tenant: Tenant, *, probe_at: datetime) -> None:
    tenant.change(
        "UPDATE carrier_accounts SET failures = 5, down_until = :at, answered_at = NULL",
        at=probe_at,
    )


def overdue_alarms(release: Release) -> int:
    with capture_logs() as lines:
        release.round(resends=False)
    return sum(line.get("alarm") == "PROBE_OVERDUE" for line in lines)


def test_call_is_late_when_the_probe_is_overdue(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant)
    be_down(tenant, probe_at=now() + A_WHILE)
    now.move(A_WHILE + PROBED_WITHIN)
    assert waiting(tenant).late == PROBED_WITHIN, "since the time of the probe: before, the carrier was the cause"


def test_call_is_not_late_before_the_probe_is_overdue(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant)
    be_down(tenant, probe_at=now() + A_WHILE)
    now.move(A_WHILE + PROBED_WITHIN - A_MOMENT)
    row = waiting(tenant)
    assert row.late is None
    assert list(row.held) == [Rule.CARRIER_DOWN]


def test_call_is_not_late_during_a_trial(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant)
    be_down(tenant, probe_at=now())
    tenant.change("UPDATE carrier_accounts SET answered_at = down_until")
    now.move(A_WHILE)
    assert waiting(tenant).late is None


@guards("overdue_probe")
def test_clock_reports_an_overdue_probe_once_a_minute(tenant: Tenant, now: TestClock, release: Release) -> None:
    be_down(tenant, probe_at=now())
    now.move(PROBED_WITHIN)
    assert [overdue_alarms(release), overdue_alarms(release)] == [1, 0]
    now.move(PROBED_WITHIN)
    assert overdue_alarms(release) == 1


def test_clock_reports_no_probe_that_is_not_overdue(tenant: Tenant, now: TestClock, release: Release) -> None:
    assert overdue_alarms(release) == 0
    be_down(tenant, probe_at=now())
    now.move(PROBED_WITHIN - A_MOMENT)
    assert overdue_alarms(release) == 0


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
