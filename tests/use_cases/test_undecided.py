"""Attempts whose answer was lost while the carrier cannot be asked, and calls that are found after the verdict."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from scheduler.domain.attempt import Attempt, AttemptState, LegSeen, Phase, Reason
from scheduler.domain.call import AnswerUnknown, CallProgress
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import ASK_EVERY, MAX_QUEUE, POLLS
from scheduler.use_cases.settle import Settle
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    ApiWriter,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
)
from tests.support.servers import ACCOUNT_SID
from tests.use_cases.conftest import (
    EMPTY_LIST,
    FOR_HOURS,
    Calls,
    answering,
    answering_by_path,
    close_breaker,
    is_claimed,
    pause_reason,
    settle_at,
    settle_with_an_empty_list,
)

A_MOMENT = timedelta(microseconds=1)
A_SECOND = timedelta(seconds=1)
TEN_MINUTES = timedelta(minutes=10)


def lost(tenant: Tenant, attempt: Attempt) -> Attempt:
    """The attempt after its answer was lost, of a carrier that is not held to be down."""
    tenant.dial.record([(attempt, AnswerUnknown(cause="A_TEST"))])
    close_breaker(tenant)
    return tenant.attempt(attempt.id)


def hung_up_after(tenant: Tenant) -> timedelta:
    """Compute the time after its claim by which the call of an attempt must have been hung up."""
    return tenant.policy.lease + tenant.policy.room + tenant.policy.max_call


# ---- no verdict without an answered question


@guards("answered")
def test_verdict_waits_until_a_list_was_read(tenant: Tenant, offline: Settle, now: TestClock) -> None:
    unknown = an_unknown_attempt(tenant)
    for _ in range(6):
        now.move(tenant.policy.settle)
        offline.round()
        undecided = tenant.attempt(unknown.id)
        assert (undecided.state, undecided.phase) == (AttemptState.IN_PROGRESS, Phase.UNKNOWN)
        assert tenant.line(unknown)[0] == unknown.id
    now.move(ASK_EVERY)
    settle_with_an_empty_list(tenant)
    assert tenant.attempt(unknown.id).reason is Reason.OUTCOME_UNKNOWN, "that was all that was missing"
    assert tenant.line(unknown) == (None, None, now() + tenant.policy.line_gap)


@guards("answered", "line", "line_gap", "awaited_with_a_key")
def test_number_is_not_called_again_while_no_poll_succeeds(
    tenant: Tenant, other: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    """The carrier takes the call, the uplink is lost, and another interview's call to that number is due."""
    mine = a_claimed_attempt(tenant)
    number = mine.called_number
    sid = calls.ring(mine, ring_s=0.0, talk_s=FOR_HOURS)
    calls.wait_for(sid, "in-progress")
    calls.carrier.down("drop")
    lost(tenant, mine)
    theirs = a_pending_attempt(other, number)
    for _ in range(5):
        now.move(timedelta(minutes=5))
        settle.round()
        assert not is_claimed(tenant, theirs), "the first call is in progress"
    calls.carrier.up()
    now.move(ASK_EVERY)
    settle.round()
    found = tenant.attempt(mine.id)
    assert (found.phase, found.call_sid) == (Phase.PLACED, sid)
    calls.end(sid)
    now.move(TEN_MINUTES)
    settle.round()
    assert tenant.attempt(mine.id).reason is Reason.ANSWERED
    assert tenant.interview_status(mine) is InterviewStatus.COMPLETED
    assert tenant.ask("SELECT attempt_id FROM usage") == [(mine.id,)], "it is booked"
    assert not is_claimed(tenant, theirs)
    now.move(tenant.policy.line_gap)
    assert is_claimed(tenant, theirs)


def test_list_read_after_the_lease_is_a_verdict(tenant: Tenant, offline: Settle, now: TestClock) -> None:
    unknown = an_unknown_attempt(tenant)
    now.move(tenant.policy.lease + timedelta(seconds=5))
    settle_with_an_empty_list(tenant)
    now.instant = (unknown.unknown_at or now()) + tenant.policy.settle - A_MOMENT
    offline.round()
    assert tenant.attempt(unknown.id).phase is Phase.UNKNOWN
    now.move(ASK_EVERY)
    offline.round()
    assert tenant.attempt(unknown.id).reason is Reason.OUTCOME_UNKNOWN


def paging(tenant: Tenant, second: tuple[int, bytes]) -> AbstractContextManager[str]:
    """Run a server whose list has a full first page, of calls an hour from now, and this second page."""
    newer = tenant.now() + timedelta(hours=1)
    first = {
        "calls": [{"sid": a_sid(), "status": "queued", "date_created": format_datetime(newer)}],
        "page": 0,
        "next_page_uri": f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json?Page=1",
    }
    return answering_by_path(lambda path: second if "Page=1" in path else (200, json.dumps(first).encode()))


@pytest.mark.parametrize(
    ("second", "is_given_up"),
    [
        pytest.param((500, b"{}"), False, id="it fails", marks=guards("answered")),
        pytest.param((200, b"<html>"), False, id="it is no JSON", marks=guards("answered")),
        pytest.param((200, b'{"calls": [{}]}'), False, id="it holds an empty call", marks=guards("answered")),
        pytest.param((200, EMPTY_LIST), True, id="it is empty"),
    ],
)
def test_list_with_broken_paging_counts_as_unread(
    tenant: Tenant, now: TestClock, second: tuple[int, bytes], is_given_up: bool
) -> None:
    unknown = an_unknown_attempt(tenant)
    now.move(tenant.policy.settle)
    with paging(tenant, second) as url:
        settle_at(tenant, url).round()
    assert (tenant.attempt(unknown.id).reason is Reason.OUTCOME_UNKNOWN) is is_given_up


@guards("unlisted_line", "line_gap")
def test_line_stays_blocked_after_it_until_a_list_is_read(
    tenant: Tenant, other: Tenant, offline: Settle, now: TestClock
) -> None:
    """The call may still wait in the carrier's queue."""
    number = a_number()
    unknown = an_unknown_attempt(tenant, number)
    now.move(hung_up_after(tenant))
    theirs = a_pending_attempt(other, number)
    own = a_pending_attempt(tenant, number)
    for _ in range(6):
        offline.round()
        close_breaker(tenant)
        assert tenant.attempt(unknown.id).reason is Reason.OUTCOME_UNKNOWN
        now.move(TEN_MINUTES)
        assert tenant.dial.claim([theirs.id, own.id]).claimed == ()
    settle_with_an_empty_list(tenant)
    now.move(POLLS[-1] + tenant.policy.line_gap)
    assert is_claimed(tenant, own)


def test_line_is_free_without_a_list_once_the_call_must_be_over(
    tenant: Tenant, offline: Settle, now: TestClock
) -> None:
    number = a_number()
    unknown = an_unknown_attempt(tenant, number)
    now.move(hung_up_after(tenant))
    offline.round()
    now.move(tenant.policy.lease + MAX_QUEUE + tenant.policy.max_call)
    offline.round()
    assert tenant.attempt(unknown.id).search_at is None
    assert tenant.line(unknown)[2] <= now()


# ---- undecided for long: an operator learns of it


def alarms(settle: Settle) -> list[dict[str, Any]]:
    with capture_logs() as logs:
        settle.round()
    return [dict(line) for line in logs if line.get("alarm") == "OUTCOME_UNDECIDED"]


def test_overdue_verdicts_raise_one_alarm_in_ten_minutes(tenant: Tenant, offline: Settle, now: TestClock) -> None:
    for _ in range(3):
        an_unknown_attempt(tenant)
        close_breaker(tenant)
    now.move(tenant.policy.settle)
    assert alarms(offline) == [], "not overdue yet"
    now.move(timedelta(minutes=1))
    [alarm] = alarms(offline)
    assert (alarm["count"], alarm["seconds"]) == (3, 360)
    now.move(TEN_MINUTES - A_SECOND)
    assert alarms(offline) == []
    now.move(A_SECOND)
    assert len(alarms(offline)) == 1


def test_verdicts_in_time_raise_no_such_alarm(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    unknown = an_unknown_attempt(tenant)
    now.move(tenant.policy.settle + TEN_MINUTES)
    assert alarms(settle) == []
    assert tenant.attempt(unknown.id).reason is Reason.OUTCOME_UNKNOWN


# ---- after the verdict


def given_up(tenant: Tenant, settle: Settle, now: TestClock) -> Attempt:
    """An attempt whose outcome was given up after its list was read: its call was not on it."""
    unknown = an_unknown_attempt(tenant)
    now.move(tenant.policy.settle)
    settle.round()
    attempt = tenant.attempt(unknown.id)
    assert attempt.reason is Reason.OUTCOME_UNKNOWN
    return attempt


def post_after_the_verdict(calls: Calls, attempt: Attempt, now: TestClock, **plan: Any) -> str:
    """Place the attempt's call as of a second after its claim, and move on to its search. Return the call's sid."""
    assert attempt.claimed_at is not None
    assert attempt.search_at is not None
    accepted_at = attempt.claimed_at + A_SECOND
    calls.carrier.clock = lambda: accepted_at
    calls.carrier.plan(to=attempt.called_number, callbacks="none", **plan)
    sid = calls.post_late(attempt)
    now.instant = attempt.search_at
    return sid


def test_call_is_found_and_booked_after_the_verdict(
    tenant: Tenant, other: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    mine = given_up(tenant, settle, now)
    theirs = a_pending_attempt(other, mine.called_number)
    sid = post_after_the_verdict(calls, mine, now, ring_s=0.0, talk_s=FOR_HOURS)
    calls.wait_for(sid, "in-progress")
    settle.round()
    live = tenant.attempt(mine.id)
    assert (live.state, live.reason, live.call_sid) == (AttemptState.FAILED, Reason.OUTCOME_UNKNOWN, sid)
    assert tenant.line(mine)[0] == mine.id, "it holds its line until it is over"
    now.move(tenant.policy.line_gap * 2)
    assert not is_claimed(tenant, theirs)
    calls.end(sid)
    settle.round()
    assert tenant.attempt(mine.id).reason is Reason.ANSWERED
    assert tenant.interview_status(mine) is InterviewStatus.COMPLETED
    assert tenant.ask("SELECT attempt_id FROM usage") == [(mine.id,)]
    assert tenant.history(mine.id)[-3:] == ["proof_missing", "leg_seen", "proven"]
    settle.round()
    assert tenant.attempt(mine.id).search_at is None


def test_call_found_after_its_end_is_booked(tenant: Tenant, settle: Settle, calls: Calls, now: TestClock) -> None:
    mine = given_up(tenant, settle, now)
    sid = post_after_the_verdict(calls, mine, now, ring_s=0.0, talk_s=0.0)
    calls.wait_for(sid, "completed")
    settle.round()
    assert tenant.attempt(mine.id).reason is Reason.ANSWERED
    assert tenant.ask("SELECT attempt_id FROM usage") == [(mine.id,)]


def test_search_backs_off_until_the_call_must_be_over(tenant: Tenant, now: TestClock) -> None:
    paths: list[str] = []
    with answering(200, EMPTY_LIST, paths) as url:
        settle = settle_at(tenant, url)
        mine = given_up(tenant, settle, now)
        waits = []
        for _ in range(12):
            search_at = tenant.attempt(mine.id).search_at
            assert search_at is not None
            waits.append(search_at - now())
            now.instant = search_at - A_MOMENT
            before = len(paths)
            settle.round()
            assert len(paths) == before, "not before its time"
            now.instant = search_at
            settle.round()
            assert len(paths) == before + 1
        now.move(MAX_QUEUE + tenant.policy.max_call)
        settle.round()
        assert tenant.attempt(mine.id).search_at is None
    assert waits == sorted(waits)
    assert waits[0] < timedelta(minutes=1) < waits[-1] <= POLLS[-1]
    assert tenant.attempt(mine.id).called_number is None, "the number is kept no longer than it is needed"
    assert tenant.attempt(mine.id).reason is Reason.OUTCOME_UNKNOWN


def test_two_matching_calls_after_the_verdict_bind_neither(
    tenant: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    mine = given_up(tenant, settle, now)
    post_after_the_verdict(calls, mine, now, ring_s=FOR_HOURS)
    calls.post_late(mine)
    settle.round()
    assert pause_reason(tenant) == "ALARM: TWO_CALLS_TO_ONE_NUMBER"
    after = tenant.attempt(mine.id)
    assert (after.call_sid, after.reason) == (None, Reason.OUTCOME_UNKNOWN)
    assert after.search_at is not None
    assert after.search_at > now()


def test_number_of_an_erased_candidate_is_not_searched_for(tenant: Tenant, now: TestClock, records: ApiWriter) -> None:
    unknown = an_unknown_attempt(tenant)
    [(candidate_id,)] = tenant.ask("SELECT candidate_id FROM interviews")
    records.delete_candidate(tenant.principal, candidate_id)
    assert tenant.attempt(unknown.id).called_number is not None, "a leg may be live"
    paths: list[str] = []
    with answering(200, EMPTY_LIST, paths) as url:
        settle = settle_at(tenant, url)
        now.move(tenant.policy.settle)
        settle.round()
        assert tenant.attempt(unknown.id).reason is Reason.OUTCOME_UNKNOWN
        assert tenant.attempt(unknown.id).called_number is None
        now.move(TEN_MINUTES)
        settle.round()
    assert len(paths) == 1


def test_search_skips_a_call_that_was_seen(tenant: Tenant, now: TestClock) -> None:
    mine = an_attempt_of_unknown_outcome(tenant)
    tenant.change("UPDATE attempts SET search_at = :at, called_number = '+421915000000'", at=now())
    seen = tenant.take(mine, LegSeen(call_sid=a_sid(), rank=CallProgress.RINGING, look_at=now() + TEN_MINUTES))
    assert (seen.search_at, seen.called_number) == (None, None)
    paths: list[str] = []
    with answering(200, EMPTY_LIST, paths) as url:
        settle_at(tenant, url).round()
    assert paths == []


def test_concurrent_settlers_search_once(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    paths: list[str] = []
    mine = given_up(tenant, settle, now)
    assert mine.search_at is not None
    now.instant = mine.search_at
    with answering(200, EMPTY_LIST, paths) as url, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: settle_at(tenant, url).round(), range(4)))
    assert len(paths) == 1
