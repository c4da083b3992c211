"""A process whose clock is not the database's releases, claims and settles nothing."""

from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from scheduler.domain.attempt import AttemptState, Phase
from scheduler.persistence.database import Database
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from tests.builders import House, a_claimed_attempt, a_pending_attempt
from tests.conftest import TestClock

SPANS = [timedelta(seconds=10), -timedelta(seconds=10), timedelta(hours=1)]


def elsewhere(span: timedelta) -> datetime:
    return datetime.now(UTC) + span


def test_a_clock_that_agrees_is_right(database: Database) -> None:
    assert database.clock_is_right()


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_a_clock_that_is_seconds_off_is_wrong(database: Database, span: timedelta) -> None:
    with freeze_time(elsewhere(span)):
        assert not database.clock_is_right()


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_on_a_wrong_clock_nothing_is_released_or_claimed(house: House, release: Release, span: timedelta) -> None:
    due = a_pending_attempt(house)
    with freeze_time(elsewhere(span)):
        assert release.due() == 0
        assert house.dial.claim([due.id]).claimed == ()
    assert house.attempt(due.id) == due


def test_on_a_wrong_clock_no_lease_lapses_and_nothing_is_given_up(house: House, settle: Settle, now: TestClock) -> None:
    claimed = a_claimed_attempt(house)
    now.move(house.policy.lease + house.policy.settle)
    with freeze_time(elsewhere(timedelta(hours=1))):
        settle.round()
        assert house.attempt(claimed.id).phase is Phase.DIALLING
    assert house.attempt(claimed.id).state is AttemptState.IN_PROGRESS
