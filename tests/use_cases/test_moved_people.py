"""Candidates whose number or time zone changed during a call: the next call suits the new place."""

from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, HangUpCause
from scheduler.domain.call import Accepted, CalleeClock, CallStatus, NeverTaken, TimezoneSource
from tests.conftest import TestClock
from tests.support.builders import (
    ApiWriter,
    Reach,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
)
from tests.use_cases.conftest import apply_news, candidate_of, finish, order_to

IN_NEW_YORK = "+12125550123"
WITHOUT_A_ZONE = "+80012345678"
"""Freephone of no country."""
A_WHILE = timedelta(seconds=7)
"""Longer than both passes of the recomputation."""


def move(tenant: Tenant, records: ApiWriter, now: TestClock, attempt: Attempt, reach: Reach) -> None:
    """Change the candidate's number or zone, and recompute until nothing is left."""
    records.change_reach(tenant.principal, candidate_of(tenant, attempt), reach)
    records.recompute()
    now.move(A_WHILE)
    records.recompute()
    assert tenant.ask("SELECT count(*) FROM reresolutions")[0][0] == 0


def test_retry_after_a_move_waits_for_the_new_morning(retrying: Tenant, records: ApiWriter, now: TestClock) -> None:
    now.move(timedelta(hours=18))  # eight in the morning in Bratislava, two in the night in New York
    placed = a_placed_attempt(retrying)
    move(retrying, records, now, placed, Reach(phone_number=IN_NEW_YORK, timezone=None))
    finish(retrying, placed)
    retry = retrying.attempts(placed.interview_id)[1]
    assert retry.schedule.clock == CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=("America/New_York",))
    assert retry.due_at.isoformat() == "2026-04-03T12:00:00+00:00", "eight in the morning in New York"


def test_unsent_claim_is_not_sent_outside_the_new_zones_hours(tenant: Tenant, records: ApiWriter) -> None:
    mine = a_claimed_attempt(tenant)
    reach = Reach(phone_number=order_to(tenant, mine), timezone="Asia/Tokyo")  # nine in the evening there
    records.change_reach(tenant.principal, candidate_of(tenant, mine), reach)
    assert tenant.dial.last_look(mine) is None, "the recomputation may not have reached it yet"


def test_number_without_a_known_zone_is_held(tenant: Tenant, records: ApiWriter, now: TestClock) -> None:
    attempt = a_pending_attempt(tenant)
    move(tenant, records, now, attempt, Reach(phone_number=WITHOUT_A_ZONE, timezone=None))
    [claim] = tenant.dial.claim([attempt.id]).claimed
    assert tenant.dial.last_look(claim.attempt) is None


@pytest.mark.parametrize("how", ["given back", "never taken", "never dialled"])
def test_returned_attempt_calls_the_changed_number(
    tenant: Tenant, records: ApiWriter, now: TestClock, how: str
) -> None:
    mine = a_claimed_attempt(tenant)
    if how == "never dialled":
        now.move(timedelta(hours=5, minutes=59))  # a minute before closing
        mine = a_claimed_attempt(tenant)
        tenant.dial.record([(mine, Accepted(call_sid=a_sid(), queue_time=timedelta(minutes=1)))])
    new = a_number()
    move(tenant, records, now, mine, Reach(phone_number=new, timezone=None))
    if how == "given back":
        tenant.dial.give_back(mine, "A_TEST")
    elif how == "never taken":
        tenant.dial.record([(mine, NeverTaken(cause="THROTTLED"))])
    else:
        assert tenant.attempt(mine.id).call_sid is not None
        apply_news(tenant, mine, CallStatus.CANCELLED, started=False, token=None)
    back = tenant.attempt(mine.id)
    assert back.state is AttemptState.PENDING
    assert back.number_hash == tenant.hasher.number(new), (
        "else it would be put back every five seconds until it expires"
    )
    assert back.due_at > now(), "its due time is still ahead"
    now.instant = back.due_at
    [claim] = tenant.dial.claim([mine.id]).claimed
    assert order_to(tenant, claim.attempt) == new
    assert replace(back.schedule, due_at=mine.schedule.due_at) == mine.schedule


def test_queued_call_is_judged_by_the_number_it_was_placed_to(
    tenant: Tenant, records: ApiWriter, now: TestClock
) -> None:
    now.move(timedelta(hours=5, minutes=59))  # a minute before closing in Bratislava, and afternoon in New York
    mine = a_claimed_attempt(tenant)
    records.change_reach(tenant.principal, candidate_of(tenant, mine), Reach(phone_number=IN_NEW_YORK, timezone=None))
    tenant.dial.record([(mine, Accepted(call_sid=a_sid(), queue_time=timedelta(minutes=1)))])
    assert tenant.attempt(mine.id).hang_up is HangUpCause.QUEUED_PAST_CLOSING
