"""Deleting a company: no further calls, calls in progress are ended, then its data is erased (F6-2, F6-3)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, HangUpCause, LegSeen, Phase, Reason
from scheduler.domain.call import Accepted, CallProgress, CallStatus, NeverTaken
from scheduler.lifecycle import settling
from scheduler.lifecycle.policy import ASK_EVERY
from scheduler.persistence.errors import LockTaken
from scheduler.persistence.unknown_outcomes import StrayCall
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.operations.erase import Erase
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    ApiWriter,
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
)
from tests.use_cases.conftest import FOR_HOURS, IN_PROGRESS, Calls, apply_news, finish, is_claimed

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


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """The two steps of a company's deletion."""

    tenant: Tenant
    records: ApiWriter
    use_case: Erase
    hints: RecordingHints

    def request(self) -> None:
        self.records.delete_company(self.tenant.principal, self.tenant.company_id)

    def erase(self) -> None:
        """Take as many turns as the erasure asks for, as workers do. A turn ends after seconds of real time."""
        wants_a_turn = True
        while wants_a_turn:
            before = self._hints_sent()
            self.use_case.company(self.tenant.company_id)
            wants_a_turn = self._hints_sent() > before

    def _hints_sent(self) -> int:
        return self.hints.ids(tasks.ERASE).count(self.tenant.company_id)

    def run(self) -> None:
        self.request()
        self.erase()


@pytest.fixture
def deletion(tenant: Tenant, records: ApiWriter, hints: RecordingHints) -> Deletion:
    """Erases two rows at a time, so that there are many batches."""
    return Deletion(tenant=tenant, records=records, use_case=Erase(tenant.context, hints, batch=2), hints=hints)


def certificate(tenant: Tenant) -> tuple[dict[str, int], Any]:
    [[erased, finished_at]] = tenant.ask("SELECT erased, finished_at FROM erasures")
    return erased, finished_at


def rows(tenant: Tenant) -> dict[str, int]:
    """Count the rows of each table that is not empty."""
    counts = {kind: tenant.ask(f"SELECT count(*) FROM {kind}")[0][0] for kind in KINDS}
    return {kind: count for kind, count in counts.items() if count}


# ---- what waits


def test_deletion_cancels_pending_calls_and_erases_the_company(tenant: Tenant, deletion: Deletion) -> None:
    for _ in range(5):
        a_pending_attempt(tenant)
    a_waiting_command(tenant, None, {"candidate": "Ada"})
    deletion.run()
    assert rows(tenant) == {}
    erased, finished_at = certificate(tenant)
    assert finished_at == tenant.now()
    assert erased == {
        "agents": 1,
        "attempts": 5,
        "candidates": 5,
        "commands": 1,
        "history": 10,
        "interviews": 5,
        "lines": 5,
        "phoneNumbers": 1,
    }


def test_company_with_attempts_of_a_later_release_is_erased(tenant: Tenant, deletion: Deletion) -> None:
    later, mine = a_pending_attempt(tenant), a_pending_attempt(tenant)
    tenant.change("UPDATE attempts SET warnings = '{OF_A_LATER_RELEASE}' WHERE id = :id", id=later.id)
    deletion.run()
    _, finished_at = certificate(tenant)
    assert finished_at is not None
    assert tenant.ask("SELECT 1 FROM attempts WHERE id IN (:later, :mine)", later=later.id, mine=mine.id) == []


def test_erasure_goes_on_in_another_turn(tenant: Tenant, deletion: Deletion, short_turns: None) -> None:
    for _ in range(5):
        a_pending_attempt(tenant)
    deletion.request()
    deletion.hints.rings.clear()
    deletion.use_case.company(tenant.company_id)
    assert deletion.hints.rings == [(tasks.ERASE, (tenant.company_id,))]
    assert rows(tenant)["attempts"] == 5
    deletion.erase()
    assert rows(tenant) == {}


def test_rows_of_other_companies_are_untouched(tenant: Tenant, deletion: Deletion, other: Tenant) -> None:
    number = a_number()
    theirs = a_pending_attempt(other, number)
    a_waiting_command(other, theirs.interview_id)
    before, line = rows(other), other.line(theirs)
    a_pending_attempt(tenant, number)
    deletion.run()
    assert rows(other) == before | dict.fromkeys(("companies", "agents", "phone_numbers"), 1), "those two had one each"
    assert other.line(theirs) == line, "the line that they wait for"
    other.change("DELETE FROM inbox")
    assert is_claimed(other, theirs)


def test_company_that_is_not_deleted_is_not_erased(tenant: Tenant, deletion: Deletion) -> None:
    a_pending_attempt(tenant)
    before = rows(tenant)
    deletion.erase()
    deletion.use_case.company(uuid4())
    assert rows(tenant) == before


@guards("company_deleted")
def test_claim_during_a_deletion_keeps_its_hints_unclaimed(tenant: Tenant) -> None:
    mine = a_pending_attempt(tenant)
    with tenant.database.transaction() as deleting:
        assert deleting.companies.lock(tenant.company_id) is not None
        deleting.companies.delete(tenant.company_id, tenant.now())
        during = tenant.dial.claim([mine.id])
        assert during.claimed == ()
        assert during.waiting == {mine.id}, "the deletion may still be rolled back"
    after = tenant.dial.claim([mine.id])
    assert (after.claimed, after.waiting) == ((), frozenset())
    assert tenant.attempt(mine.id) == mine


# ---- calls in progress


def test_placed_call_of_a_deleted_company_is_hung_up_at_once(
    tenant: Tenant, settle: Settle, hints: RecordingHints, calls: Calls, deletion: Deletion
) -> None:
    mine = a_claimed_attempt(tenant)
    sid = calls.ring_and_record(mine, until="ringing")
    deletion.request()
    hints.rings.clear()
    deletion.erase()
    wanted = tenant.attempt(mine.id)
    assert (wanted.state, wanted.hang_up) == (AttemptState.IN_PROGRESS, HangUpCause.COMPANY_DELETED)
    assert (tasks.SETTLE, ()) in hints.rings
    settle.round()
    ended = tenant.attempt(mine.id)
    assert (ended.state, ended.reason) == (AttemptState.CANCELLED, Reason.COMPANY_DELETED)
    [leg] = [each for each in calls.carrier.rings() if each["sid"] == sid]
    assert leg["status"] == "canceled"
    deletion.erase()
    assert rows(tenant) == {}


def test_conversation_of_a_deleted_company_is_cut_off_and_booked(
    tenant: Tenant, settle: Settle, calls: Calls, deletion: Deletion
) -> None:
    mine = a_claimed_attempt(tenant)
    calls.ring_and_record(mine, until="in-progress", ring_s=0.0, talk_s=FOR_HOURS)
    deletion.run()
    settle.round()
    ended = tenant.attempt(mine.id)
    assert (ended.state, ended.reason) == (AttemptState.COMPLETED, Reason.ANSWERED)
    deletion.erase()
    assert rows(tenant) == {}
    assert tenant.ask("SELECT count(*) FROM usage") == [(1,)]


def test_finished_call_of_a_deleted_company_keeps_its_end(tenant: Tenant, deletion: Deletion) -> None:
    mine = a_placed_attempt(tenant)
    deletion.run()
    apply_news(tenant, mine, CallStatus.BUSY)
    assert tenant.attempt(mine.id).reason is Reason.BUSY
    assert len(tenant.attempts(mine.interview_id)) == 1, "and no retry follows"


@guards("company_gone")
def test_call_being_dialled_is_hung_up_once_the_carrier_names_it(tenant: Tenant, deletion: Deletion) -> None:
    mine = a_claimed_attempt(tenant)
    deletion.run()
    assert tenant.attempt(mine.id) == mine, "the dialling worker has it, and its epoch"
    sid = a_sid()
    assert tenant.dial.record([(mine, Accepted(call_sid=sid))]) == [sid], "taken back at once"
    placed = tenant.attempt(mine.id)
    assert (placed.phase, placed.hang_up, placed.look_at) == (Phase.PLACED, HangUpCause.COMPANY_DELETED, tenant.now())
    assert tenant.history(mine.id) == ["created", "claimed", "placed", "hang_up_wanted"]


@guards("company_gone")
def test_call_with_a_lost_answer_is_hung_up_once_found(
    tenant: Tenant, settle: Settle, calls: Calls, deletion: Deletion
) -> None:
    mine = a_claimed_attempt(tenant)
    sid = calls.ring(mine)
    deletion.run()
    tenant.change("UPDATE attempts SET lease_until = :now", now=tenant.now())
    settle.round()
    ended = tenant.attempt(mine.id)
    assert (ended.call_sid, ended.reason) == (sid, Reason.COMPANY_DELETED)
    assert "hang_up_wanted" in tenant.history(mine.id), "it was found, and hung up in the same round"


@guards("company_gone")
def test_call_named_first_by_a_callback_is_hung_up(tenant: Tenant, deletion: Deletion) -> None:
    mine = an_unknown_attempt(tenant)
    deletion.run()
    apply_news(tenant, mine, CallStatus.RINGING)
    assert tenant.attempt(mine.id).hang_up is HangUpCause.COMPANY_DELETED


def test_call_never_taken_of_a_deleted_company_is_cancelled(tenant: Tenant, deletion: Deletion) -> None:
    mine = a_claimed_attempt(tenant)
    deletion.request()
    tenant.dial.record([(mine, NeverTaken(cause="CONNECTION_REFUSED"))])
    assert tenant.attempt(mine.id).reason is Reason.COMPANY_DELETED
    deletion.erase()
    assert rows(tenant) == {}


def test_live_call_after_an_unknown_outcome_is_hung_up(tenant: Tenant, deletion: Deletion) -> None:
    mine = an_attempt_of_unknown_outcome(tenant)
    a_pending_attempt(tenant)
    look_at = tenant.now() + timedelta(hours=1)
    seen = tenant.take(mine, LegSeen(call_sid=a_sid(), rank=CallProgress.RINGING, look_at=look_at))
    assert seen.hang_up is None
    deletion.run()
    live = tenant.attempt(mine.id)
    assert (live.state, live.hang_up, live.look_at) == (AttemptState.FAILED, HangUpCause.COMPANY_DELETED, tenant.now())
    assert rows(tenant)["attempts"] == 2, "nothing is erased while a phone may be ringing"
    apply_news(tenant, mine, CallStatus.CANCELLED)
    deletion.erase()
    assert rows(tenant) == {}


@pytest.mark.parametrize("busy", IN_PROGRESS)
def test_nothing_is_erased_while_a_call_is_in_progress(
    tenant: Tenant, deletion: Deletion, busy: Callable[[Tenant], Attempt]
) -> None:
    busy(tenant)
    for _ in range(3):
        a_pending_attempt(tenant)
    deletion.run()
    assert rows(tenant)["interviews"] == 4
    states = tenant.ask("SELECT state, reason FROM attempts WHERE state <> 'IN_PROGRESS'")
    assert states == [("CANCELLED", "COMPANY_DELETED")] * 3
    assert certificate(tenant) == ({}, None)


def test_erasure_waits_for_the_end_of_a_stray_call(tenant: Tenant, deletion: Deletion) -> None:
    mine = a_pending_attempt(tenant)
    stray = StrayCall(call_sid=a_sid(), attempt_id=mine.id, seen_at=tenant.now())
    with tenant.database.transaction() as stores:
        stores.stray_calls.add(stray)
    deletion.run()
    assert rows(tenant)["attempts"] == 1
    with tenant.database.transaction() as stores:
        stores.stray_calls.ended(stray.call_sid)
    deletion.erase()
    assert rows(tenant) == {}


def test_hang_up_is_requested_again_in_ten_seconds(tenant: Tenant, deletion: Deletion) -> None:
    mine = a_placed_attempt(tenant)
    assert settling.next_poll_at(mine, tenant.now()) == tenant.now() + timedelta(minutes=1)
    deletion.run()
    assert settling.next_poll_at(tenant.attempt(mine.id), tenant.now()) == tenant.now() + ASK_EVERY


# ---- lines


def test_line_with_a_running_gap_still_blocks_its_number(
    tenant: Tenant, deletion: Deletion, now: TestClock, other: Tenant
) -> None:
    number = a_number()
    mine = a_placed_attempt(tenant, number)
    finish(tenant, mine)
    deletion.run()
    theirs = a_pending_attempt(other, number)
    assert not is_claimed(other, theirs)
    now.move(tenant.policy.line_gap)
    assert is_claimed(other, theirs)


def test_line_that_a_new_attempt_needs_is_not_deleted(tenant: Tenant, now: TestClock) -> None:
    number_hash = tenant.hasher.number(a_number())
    with tenant.database.transaction() as waiting:
        waiting.lines.ensure(number_hash)
        with tenant.database.transaction() as forgetting:
            assert forgetting.lines.forget_free([number_hash], now()) == 0
    with tenant.database.transaction() as forgetting:
        assert forgetting.lines.forget_free([number_hash], now()) == 1


def test_line_is_claimed_while_its_deletion_is_blocked(tenant: Tenant) -> None:
    mine = a_pending_attempt(tenant)
    assert mine.number_hash is not None
    with tenant.database.transaction() as keeping:
        keeping.lines.ensure(mine.number_hash)
        assert is_claimed(tenant, mine)


# ---- nothing comes back


def test_command_accepted_before_the_deletion_is_refused(tenant: Tenant, apply: Apply, deletion: Deletion) -> None:
    first = a_pending_attempt(tenant)
    command = a_waiting_command(tenant, first.interview_id)
    deletion.request()
    apply.command(command.id)
    [[answer, body]] = tenant.ask("SELECT answer, body FROM inbox WHERE id = :id", id=command.id)
    assert (answer["refusal"]["code"], body) == ("RESOURCE_ACCESS_DENIED", None)
    deletion.erase()
    apply.command(command.id)
    assert rows(tenant) == {}


def test_deletion_waits_for_running_writes_and_erases_them_too(tenant: Tenant, deletion: Deletion) -> None:
    deletion.request()
    with tenant.database.transaction() as stores:
        stores.phone_numbers.add(uuid4(), tenant.company_id, "+421221020009", tenant.now())
        with pytest.raises(LockTaken):
            deletion.erase()
        assert certificate(tenant)[1] is None
    deletion.erase()
    assert rows(tenant) == {}
    assert certificate(tenant)[0]["phoneNumbers"] == 2


def test_repeated_hints_change_nothing(tenant: Tenant, deletion: Deletion, now: TestClock) -> None:
    a_pending_attempt(tenant)
    deletion.run()
    before = certificate(tenant)
    now.move(timedelta(hours=1))
    deletion.erase()
    assert certificate(tenant) == before


def test_erasure_hint_is_repeated_until_it_is_complete(
    tenant: Tenant, release: Release, hints: RecordingHints, deletion: Deletion, now: TestClock
) -> None:
    mine = a_claimed_attempt(tenant)
    deletion.request()
    assert hints.ids(tasks.ERASE) == [tenant.company_id]
    hints.rung.clear()
    release.round(resends=True)
    assert hints.ids(tasks.ERASE) == [], "not yet"
    now.move(timedelta(seconds=3))
    release.round(resends=True)
    assert hints.ids(tasks.ERASE) == [tenant.company_id]
    tenant.dial.record([(mine, NeverTaken(cause="CONNECTION_REFUSED"))])
    deletion.erase()
    hints.rung.clear()
    now.move(timedelta(seconds=3))
    release.round(resends=True)
    assert hints.ids(tasks.ERASE) == []


def test_concurrent_workers_erase_a_company_once(tenant: Tenant, deletion: Deletion) -> None:
    for _ in range(4):
        a_pending_attempt(tenant)
    deletion.request()
    with tenant.database.transaction() as other:
        assert other.erasures.lock_open(tenant.company_id) is not None
        deletion.erase()
        assert certificate(tenant) == ({}, None)
    deletion.erase()
    assert certificate(tenant)[0]["interviews"] == 4


def test_users_are_deleted_with_their_last_company(tenant: Tenant, deletion: Deletion) -> None:
    other = seed(tenant.database, tenant.now())
    stays, goes = a_user(tenant, tenant.company_id, other.company_id), a_user(tenant, tenant.company_id)
    elsewhere = a_user(tenant, other.company_id)
    deletion.run()
    assert {row[0] for row in tenant.ask("SELECT id FROM users")} == {stays, elsewhere}
    assert goes not in {row[0] for row in tenant.ask("SELECT user_id FROM memberships")}
    assert (certificate(tenant)[0]["memberships"], certificate(tenant)[0]["users"]) == (2, 1)


def a_user(tenant: Tenant, *company_ids: UUID) -> UUID:
    user_id = uuid4()
    made = {"created_at": tenant.now(), "updated_at": tenant.now()}
    tenant.insert("users", id=user_id, email=f"{user_id}@example.com", name="Ada", **made)
    for company_id in company_ids:
        tenant.insert("memberships", company_id=company_id, user_id=user_id, role="ADMIN", **made)
    return user_id
