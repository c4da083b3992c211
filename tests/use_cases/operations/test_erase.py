"""What becomes of a company that is deleted: no further call, those in progress ended, then erased (F6-2, F6-3)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, Ended, HangUpCause, LegSeen, Phase, Reason
from scheduler.domain.call import Accepted, CallNews, CallStatus, NeverTaken, Rank
from scheduler.lifecycle import decisions
from scheduler.lifecycle.policy import ASK_EVERY
from scheduler.persistence.database import LockTaken
from scheduler.persistence.stray_calls import StrayCall
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.operations.erase import Erase
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed, wait_until
from tests.support.builders import (
    Clerk,
    House,
    KeptBell,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
    of_company,
)
from tests.support.servers import SimulatedCarrier
from tests.use_cases.test_settle import FOR_HOURS, has_status, ring

KINDS = (
    "interviews",
    "attempts",
    "attempt_tokens",
    "attempt_history",
    "candidates",
    "agents",
    "phone_numbers",
    "inbox",
    "carrier_events",
    "companies",
)


@pytest.fixture
def deleted(house: House, records: Clerk) -> Callable[[], None]:
    return lambda: records.delete_company(house.principal, house.company_id)


def certificate(house: House) -> tuple[dict[str, int], Any]:
    [[erased, finished_at]] = house.ask("SELECT erased, finished_at FROM erasures")
    return erased, finished_at


def rows(house: House) -> dict[str, int]:
    """How many there are of each kind that is not empty."""
    counts = {kind: house.ask(f"SELECT count(*) FROM {kind}")[0][0] for kind in KINDS}
    return {kind: count for kind, count in counts.items() if count}


def say(house: House, attempt: Attempt, status: CallStatus, **more: Any) -> None:
    """The carrier's news of its call."""
    with house.database.transaction() as stores:
        interview = stores.interviews.lock(attempt.interview_id)
        locked = stores.attempts.lock(attempt.id)
        sid = locked.call_sid or a_sid()
        news = CallNews(call_sid=sid, status=status, token=locked.token, **more)
        house.consequences.hear(stores, interview, locked, news, "carrier", house.now())


# ---- what waits


def test_what_waits_is_cancelled_and_what_was_deleted_is_erased(
    house: House, erase: Erase, deleted: Callable[[], None], now: TestClock
) -> None:
    for _ in range(5):
        a_pending_attempt(house)
    a_waiting_command(house, None, {"candidate": "somebody"})
    deleted()
    erase.company(house.company_id)
    assert rows(house) == {}
    erased, finished_at = certificate(house)
    assert finished_at == now()
    assert erased == {
        "agents": 1,
        "attempts": 5,
        "candidates": 5,
        "commands": 1,
        "happenings": 10,
        "interviews": 5,
        "lines": 5,
        "phoneNumbers": 1,
    }


def test_nobody_elses_is_touched(house: House, erase: Erase, deleted: Callable[[], None]) -> None:
    other = of_company(house, seed(house.database, house.now()))
    number = a_number()
    theirs = a_pending_attempt(other, number)
    a_waiting_command(other, theirs.interview_id)
    before, line = rows(other), other.line(theirs)
    a_pending_attempt(house, number)
    deleted()
    erase.company(house.company_id)
    assert rows(other) == before | dict.fromkeys(("companies", "agents", "phone_numbers"), 1), "those two had one each"
    assert other.line(theirs) == line, "the line that they wait for"
    other.change("DELETE FROM inbox")
    assert [each.attempt.id for each in other.dial.claim([theirs.id]).claimed] == [theirs.id]


def test_one_that_was_not_deleted_is_not_erased(house: House, erase: Erase) -> None:
    a_pending_attempt(house)
    before = rows(house)
    erase.company(house.company_id)
    erase.company(uuid4())
    assert rows(house) == before


@guards("company_deleted")
def test_nothing_of_it_is_claimed_any_more(house: House, release: Release, deleted: Callable[[], None]) -> None:
    waiting = a_pending_attempt(house)
    deleted()
    assert release.due() == 0
    assert house.dial.claim([waiting.id]).claimed == ()
    assert house.attempt(waiting.id) == waiting


@guards("company_deleted")
def test_claim_during_a_deletion_waits_in_memory_and_claims_nothing(house: House) -> None:
    mine = a_pending_attempt(house)
    with house.database.transaction() as deleting:
        assert deleting.companies.lock(house.company_id) is not None
        deleting.companies.delete(house.company_id, house.now())
        during = house.dial.claim([mine.id])
        assert during.claimed == ()
        assert during.waiting == {mine.id}, "the deletion may still be rolled back"
    after = house.dial.claim([mine.id])
    assert (after.claimed, after.waiting) == ((), frozenset())
    assert house.attempt(mine.id) == mine


# ---- what is being called


def test_a_call_that_the_carrier_has_named_is_hung_up_now_and_cancelled_when_nobody_had_answered(
    house: House, erase: Erase, settle: Settle, bell: KeptBell, carrier: SimulatedCarrier, deleted: Callable[[], None]
) -> None:
    mine = a_claimed_attempt(house)
    sid = ring(carrier, house, mine, ring_s=FOR_HOURS)
    house.dial.record([(mine, Accepted(call_sid=sid))])
    wait_until(has_status(carrier, sid, "ringing"), says="it rings")
    deleted()
    bell.rings.clear()
    erase.company(house.company_id)
    wanted = house.attempt(mine.id)
    assert (wanted.state, wanted.hang_up) == (AttemptState.IN_PROGRESS, HangUpCause.COMPANY_DELETED)
    assert (tasks.SETTLE, ()) in bell.rings
    settle.round()
    ended = house.attempt(mine.id)
    assert (ended.state, ended.reason) == (AttemptState.CANCELLED, Reason.COMPANY_DELETED)
    [leg] = [each for each in carrier.rings() if each["sid"] == sid]
    assert leg["status"] == "canceled"
    erase.company(house.company_id)
    assert rows(house) == {}


def test_somebody_who_is_talking_is_cut_off_and_what_was_talked_is_booked(
    house: House, erase: Erase, settle: Settle, carrier: SimulatedCarrier, deleted: Callable[[], None]
) -> None:
    mine = a_claimed_attempt(house)
    sid = ring(carrier, house, mine, ring_s=0.0, talk_s=FOR_HOURS)
    house.dial.record([(mine, Accepted(call_sid=sid))])
    wait_until(has_status(carrier, sid, "in-progress"), says="somebody answered")
    deleted()
    erase.company(house.company_id)
    settle.round()
    ended = house.attempt(mine.id)
    assert (ended.state, ended.reason) == (AttemptState.COMPLETED, Reason.ANSWERED)
    erase.company(house.company_id)
    assert rows(house) == {}
    assert house.ask("SELECT count(*) FROM usage") == [(1,)]


def test_a_call_that_had_ended_keeps_its_true_end(house: House, erase: Erase, deleted: Callable[[], None]) -> None:
    mine = a_placed_attempt(house)
    deleted()
    erase.company(house.company_id)
    say(house, mine, CallStatus.BUSY)
    assert house.attempt(mine.id).reason is Reason.BUSY
    assert len(house.attempts(mine.interview_id)) == 1, "and no retry follows"


@guards("company_gone")
def test_one_that_is_being_dialled_is_hung_up_as_soon_as_the_carrier_has_named_it(
    house: House, erase: Erase, deleted: Callable[[], None], now: TestClock
) -> None:
    mine = a_claimed_attempt(house)
    deleted()
    erase.company(house.company_id)
    assert house.attempt(mine.id) == mine, "whoever dials has it, and its epoch"
    sid = a_sid()
    assert house.dial.record([(mine, Accepted(call_sid=sid))]) == [sid], "taken back at once"
    placed = house.attempt(mine.id)
    assert (placed.phase, placed.hang_up, placed.look_at) == (Phase.PLACED, HangUpCause.COMPANY_DELETED, now())
    assert house.history(mine.id) == ["created", "claimed", "placed", "hang_up_wanted"]


@guards("company_gone")
def test_one_whose_answer_was_lost_is_hung_up_as_soon_as_it_is_found(
    house: House, erase: Erase, settle: Settle, carrier: SimulatedCarrier, deleted: Callable[[], None]
) -> None:
    mine = a_claimed_attempt(house)
    sid = ring(carrier, house, mine, ring_s=FOR_HOURS)
    deleted()
    erase.company(house.company_id)
    house.change("UPDATE attempts SET lease_until = :now", now=house.now())
    settle.round()
    ended = house.attempt(mine.id)
    assert (ended.call_sid, ended.reason) == (sid, Reason.COMPANY_DELETED)
    assert "hang_up_wanted" in house.history(mine.id), "it was found, and hung up in the same round"


@guards("company_gone")
def test_a_callback_that_names_it_first_does_too(house: House, erase: Erase, deleted: Callable[[], None]) -> None:
    mine = an_unknown_attempt(house)
    deleted()
    erase.company(house.company_id)
    say(house, mine, CallStatus.RINGING)
    assert house.attempt(mine.id).hang_up is HangUpCause.COMPANY_DELETED


def test_one_that_the_carrier_never_took_is_cancelled_and_not_pending_again(
    house: House, erase: Erase, deleted: Callable[[], None]
) -> None:
    mine = a_claimed_attempt(house)
    deleted()
    house.dial.record([(mine, NeverTaken(cause="CONNECTION_REFUSED"))])
    assert house.attempt(mine.id).reason is Reason.COMPANY_DELETED
    erase.company(house.company_id)
    assert rows(house) == {}


def test_one_that_was_given_up_and_is_live_after_all_is_hung_up_and_waited_for(
    house: House, erase: Erase, deleted: Callable[[], None]
) -> None:
    mine = an_attempt_of_unknown_outcome(house)
    a_pending_attempt(house)
    sid = a_sid()
    seen = house.take(mine, LegSeen(call_sid=sid, rank=Rank.RINGING, look_at=house.now() + timedelta(hours=1)))
    assert seen.hang_up is None
    deleted()
    erase.company(house.company_id)
    live = house.attempt(mine.id)
    assert (live.state, live.hang_up, live.look_at) == (AttemptState.FAILED, HangUpCause.COMPANY_DELETED, house.now())
    assert rows(house)["attempts"] == 2, "nothing is erased while a phone may be ringing"
    say(house, mine, CallStatus.CANCELLED)
    erase.company(house.company_id)
    assert rows(house) == {}


@pytest.mark.parametrize(
    "busy",
    [
        pytest.param(a_claimed_attempt, id="dialling"),
        pytest.param(a_placed_attempt, id="placed"),
        pytest.param(an_unknown_attempt, id="unknown"),
    ],
)
def test_nothing_is_erased_while_a_call_is_in_progress(
    house: House, erase: Erase, deleted: Callable[[], None], busy: Callable[[House], Attempt]
) -> None:
    busy(house)
    for _ in range(3):
        a_pending_attempt(house)
    deleted()
    erase.company(house.company_id)
    assert rows(house)["interviews"] == 4
    states = house.ask("SELECT state, reason FROM attempts WHERE state <> 'IN_PROGRESS'")
    assert states == [("CANCELLED", "COMPANY_DELETED")] * 3
    assert certificate(house) == ({}, None)


def test_a_call_that_must_not_be_is_waited_for_until_it_is_ended(
    house: House, erase: Erase, deleted: Callable[[], None]
) -> None:
    mine = a_pending_attempt(house)
    stray = StrayCall(call_sid=a_sid(), attempt_id=mine.id, seen_at=house.now())
    with house.database.transaction() as stores:
        stores.stray_calls.add(stray)
    deleted()
    erase.company(house.company_id)
    assert rows(house)["attempts"] == 1
    with house.database.transaction() as stores:
        stores.stray_calls.ended(stray.call_sid)
    erase.company(house.company_id)
    assert rows(house) == {}


def test_a_carrier_that_was_told_to_end_a_call_is_asked_again_in_ten_seconds(
    house: House, erase: Erase, deleted: Callable[[], None]
) -> None:
    mine = a_placed_attempt(house)
    assert decisions.next_look(mine, house.now()) == house.now() + timedelta(minutes=1)
    deleted()
    erase.company(house.company_id)
    assert decisions.next_look(house.attempt(mine.id), house.now()) == house.now() + ASK_EVERY


# ---- lines


def test_a_line_whose_gap_still_runs_goes_on_keeping_others_from_that_phone(
    house: House, erase: Erase, deleted: Callable[[], None], now: TestClock
) -> None:
    number = a_number()
    mine = a_placed_attempt(house, number)
    house.take(mine, Ended(reason=Reason.BUSY, ended_at=now()))
    other = of_company(house, seed(house.database, now()))
    deleted()
    erase.company(house.company_id)
    theirs = a_pending_attempt(other, number)
    assert other.dial.claim([theirs.id]).claimed == ()
    now.move(house.policy.line_gap)
    assert [each.attempt.id for each in other.dial.claim([theirs.id]).claimed] == [theirs.id]


def test_a_line_that_somebody_begins_to_wait_for_meanwhile_is_not_forgotten(house: House, now: TestClock) -> None:
    number_hash = house.hasher.number(a_number())
    with house.database.transaction() as waiting:
        waiting.lines.ensure(number_hash)
        with house.database.transaction() as forgetting:
            assert forgetting.lines.forget_free([number_hash], now()) == 0
    with house.database.transaction() as forgetting:
        assert forgetting.lines.forget_free([number_hash], now()) == 1


def test_a_line_is_taken_while_somebody_keeps_it_from_being_forgotten(house: House, now: TestClock) -> None:
    mine = a_pending_attempt(house)
    assert mine.number_hash is not None
    with house.database.transaction() as keeping:
        keeping.lines.ensure(mine.number_hash)
        assert [each.attempt.id for each in house.dial.claim([mine.id]).claimed] == [mine.id]


@guards("late_line")
def test_a_leg_that_is_seen_late_holds_its_line_also_when_that_was_forgotten(house: House) -> None:
    mine = an_attempt_of_unknown_outcome(house)
    house.change("DELETE FROM lines")
    house.take(mine, LegSeen(call_sid=a_sid(), rank=Rank.RINGING, look_at=house.now()))
    assert house.line(mine)[0] == mine.id


# ---- nothing comes back


def test_a_command_that_was_accepted_before_is_refused_and_brings_nothing_back(
    house: House, apply: Apply, erase: Erase, deleted: Callable[[], None]
) -> None:
    first = a_pending_attempt(house)
    command = a_waiting_command(house, first.interview_id)
    deleted()
    apply.command(command.id)
    [[answer, body]] = house.ask("SELECT answer, body FROM inbox WHERE id = :id", id=command.id)
    assert (answer["refusal"]["code"], body) == ("RESOURCE_ACCESS_DENIED", None)
    erase.company(house.company_id)
    apply.command(command.id)
    assert rows(house) == {}


def test_who_was_still_writing_when_it_was_deleted_is_waited_for_and_that_is_erased_too(
    house: House, erase: Erase, deleted: Callable[[], None]
) -> None:
    deleted()
    with house.database.transaction() as stores:
        stores.phone_numbers.add(uuid4(), house.company_id, "+421221020009", house.now())
        with pytest.raises(LockTaken):
            erase.company(house.company_id)
        assert certificate(house)[1] is None
    erase.company(house.company_id)
    assert rows(house) == {}
    assert certificate(house)[0]["phoneNumbers"] == 2


def test_repeated_messages_change_nothing(
    house: House, erase: Erase, deleted: Callable[[], None], now: TestClock
) -> None:
    a_pending_attempt(house)
    deleted()
    erase.company(house.company_id)
    before = certificate(house)
    now.move(timedelta(hours=1))
    erase.company(house.company_id)
    assert certificate(house) == before


def test_it_is_rung_for_again_until_it_is_finished(
    house: House, erase: Erase, release: Release, bell: KeptBell, deleted: Callable[[], None], now: TestClock
) -> None:
    mine = a_claimed_attempt(house)
    deleted()
    assert bell.ids(tasks.ERASE) == [house.company_id]
    bell.rung.clear()
    release.unanswered()
    assert bell.ids(tasks.ERASE) == [], "not yet"
    now.move(timedelta(seconds=3))
    release.unanswered()
    assert bell.ids(tasks.ERASE) == [house.company_id]
    house.dial.record([(mine, NeverTaken(cause="CONNECTION_REFUSED"))])
    erase.company(house.company_id)
    bell.rung.clear()
    now.move(timedelta(seconds=3))
    release.unanswered()
    assert bell.ids(tasks.ERASE) == []


def test_two_workers_at_once_erase_it_once(house: House, erase: Erase, deleted: Callable[[], None]) -> None:
    for _ in range(4):
        a_pending_attempt(house)
    deleted()
    with house.database.transaction() as other:
        assert other.erasures.lock_open(house.company_id) is not None
        erase.company(house.company_id)
        assert certificate(house) == ({}, None)
    erase.company(house.company_id)
    assert certificate(house)[0]["interviews"] == 4


# ---- people who belong to it


def test_users_go_with_their_last_company(house: House, erase: Erase, deleted: Callable[[], None]) -> None:
    other = seed(house.database, house.now())
    stays, goes = a_user(house, house.company_id, other.company_id), a_user(house, house.company_id)
    elsewhere = a_user(house, other.company_id)
    deleted()
    erase.company(house.company_id)
    assert {row[0] for row in house.ask("SELECT id FROM users")} == {stays, elsewhere}
    assert goes not in {row[0] for row in house.ask("SELECT user_id FROM memberships")}
    assert (certificate(house)[0]["memberships"], certificate(house)[0]["users"]) == (2, 1)


def a_user(house: House, *company_ids: UUID) -> UUID:
    user_id = uuid4()
    made = {"created_at": house.now(), "updated_at": house.now()}
    house.insert("users", id=user_id, email=f"{user_id}@example.com", name="Ada", **made)
    for company_id in company_ids:
        house.insert("memberships", company_id=company_id, user_id=user_id, role="ADMIN", **made)
    return user_id
