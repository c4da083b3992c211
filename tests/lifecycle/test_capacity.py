"""Calls that may start now, by pace and room. No company waits behind another company that is full."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.lifecycle.capacity import (
    Allotment,
    LateSlots,
    Pace,
    RecordSize,
    SendRate,
    allot,
    in_step,
    in_turns,
    kept_places,
    look_waits,
)
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, LOOK_TO_SEND, LOOKS_TOGETHER, RECORD_SPAN

NOW = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
A_SECOND = timedelta(seconds=1)
A, B = UUID(int=1), UUID(int=2)


def a_pace(per_second: float = 1000.0, room: int = 1000, next_slot_at: datetime = NOW) -> Pace:
    return Pace(next_slot_at=next_slot_at, per_second=per_second, room=room)


def attempts(*companies: UUID) -> list[tuple[UUID, UUID]]:
    return [(UUID(int=100 + number), company) for number, company in enumerate(companies)]


def given_places(
    wanted: list[tuple[UUID, UUID]], *, account: Pace | None = None, companies: dict[UUID, Pace] | None = None
) -> Allotment:
    return allot(wanted, account or a_pace(), companies or {A: a_pace(), B: a_pace()}, NOW, A_SECOND)


def starts(allotment: Allotment) -> list[float]:
    return [(place.send_at - NOW).total_seconds() for place in allotment.places]


def placed(allotment: Allotment) -> list[int]:
    return [place.attempt_id.int - 100 for place in allotment.places]


def test_all_get_a_place_where_there_is_room() -> None:
    allotment = given_places(attempts(A, B, A))
    assert placed(allotment) == [0, 1, 2]
    assert allotment.try_again_at is None


def test_places_keep_the_accounts_pace_within_one_second() -> None:
    allotment = given_places(attempts(A, A, A, A, A), account=a_pace(per_second=4))
    assert starts(allotment) == [0, 0.25, 0.5, 0.75]
    assert allotment.account.next_slot_at == NOW + A_SECOND
    assert allotment.try_again_at == NOW


def test_pace_of_one_per_second_starts_one_call() -> None:
    assert starts(given_places(attempts(A, A), account=a_pace(per_second=1))) == [0]


def test_a_slot_that_lies_behind_is_not_made_up_for() -> None:
    long_idle = a_pace(per_second=1, next_slot_at=NOW - timedelta(hours=1))
    assert starts(given_places(attempts(A, A), account=long_idle)) == [0]


def test_a_slot_that_lies_ahead_is_waited_for() -> None:
    assert starts(given_places(attempts(A), account=a_pace(next_slot_at=NOW + A_SECOND / 2))) == [0.5]
    ahead = given_places(attempts(A), account=a_pace(next_slot_at=NOW + 5 * A_SECOND))
    assert (ahead.places, ahead.try_again_at) == ((), NOW + 4 * A_SECOND)


def test_room_is_not_overdrawn() -> None:
    assert placed(given_places(attempts(A, B, A), account=a_pace(room=2))) == [0, 1]
    assert placed(given_places(attempts(A, B), account=a_pace(room=0))) == []
    assert placed(given_places(attempts(A, B), account=a_pace(room=-1))) == []


def test_kept_places_go_to_companies_without_a_call() -> None:
    """A has a call, so the last two places of four are not for A. B has no call and gets one."""
    companies = {A: replace(a_pace(), calls=1), B: a_pace()}
    allotment = allot(attempts(A, A, A, B, B), a_pace(room=4), companies, NOW, A_SECOND, kept=2)
    assert placed(allotment) == [0, 3]
    assert allotment.companies[A].room == 0
    assert allotment.try_again_at is None


def test_single_place_is_kept_for_the_company_that_calls() -> None:
    assert kept_places(1) == 1
    assert placed(allot(attempts(A, A), a_pace(room=1), {A: a_pace()}, NOW, A_SECOND, kept=kept_places(1))) == [0]
    assert [kept_places(each) for each in (0, 2, 9, 10, 50, 1000)] == [1, 1, 1, 1, 5, 100]


def test_only_an_end_makes_room() -> None:
    assert given_places(attempts(A, A), account=a_pace(room=1)).try_again_at is None


def test_no_company_waits_behind_a_company_without_room() -> None:
    full = given_places(attempts(A, A, B, A, B), companies={A: a_pace(room=1), B: a_pace()})
    assert placed(full) == [0, 2, 4]


def test_no_company_waits_behind_a_company_without_pace() -> None:
    slow = given_places(attempts(A, A, B, B), companies={A: a_pace(per_second=1), B: a_pace()})
    assert placed(slow) == [0, 2, 3]
    assert all(start < 0.01 for start in starts(slow)), "the slow company uses up no slot of the account"


def test_no_place_of_the_account_waits_for_a_slower_company() -> None:
    """A may start every half second. Its second call is the second in order, and starts when it may."""
    of_account = a_pace(per_second=10)
    allotment = given_places(
        attempts(A, A, *[B] * 10), account=of_account, companies={A: a_pace(per_second=2), B: a_pace()}
    )
    assert starts(allotment) == pytest.approx([number / 10 for number in range(10)])
    assert placed(allotment)[:6] == [0, 2, 3, 4, 5, 1]


def test_place_goes_to_the_company_whose_last_call_is_oldest() -> None:
    """One place a claim: the company that is due first does not take each of them."""
    account, companies = a_pace(per_second=1), {A: a_pace(per_second=1), B: a_pace(per_second=1)}
    given = []
    for second in range(6):
        allotment = allot(attempts(A, A, A, B, B, B), account, companies, NOW + second * A_SECOND, A_SECOND)
        account, companies = allotment.account, dict(allotment.companies)
        given += placed(allotment)
    assert given == [0, 3] * 3


def test_company_that_is_not_locked_gets_no_place() -> None:
    assert placed(given_places(attempts(A, B), companies={B: a_pace()})) == [1]


@given(
    companies=st.lists(st.sampled_from([A, B]), max_size=30),
    account=st.builds(a_pace, st.sampled_from([0.5, 1.0, 3.0, 50.0]), st.integers(-1, 20), st.just(NOW + A_SECOND / 4)),
    paces=st.tuples(*[st.builds(a_pace, st.sampled_from([1.0, 7.0]), st.integers(0, 10))] * 2),
)
def test_no_allotment_exceeds_any_pace_or_room(companies: list[UUID], account: Pace, paces: tuple[Pace, Pace]) -> None:
    wanted = attempts(*companies)
    by_company = dict(zip((A, B), paces, strict=True))
    allotment = allot(wanted, account, by_company, NOW, A_SECOND)
    owner = dict(wanted)
    paced = [(account, list(allotment.places))]
    for company, pace in by_company.items():
        paced.append((pace, [place for place in allotment.places if owner[place.attempt_id] == company]))
    for pace, own in paced:
        assert len(own) <= max(pace.room, 0)
        sends = [place.send_at for place in own]
        step = timedelta(seconds=1 / pace.per_second)
        assert all(later - earlier >= step for earlier, later in pairwise(sends))
        assert all(max(NOW, pace.next_slot_at) <= send_at < NOW + A_SECOND for send_at in sends)
    assert len({place.attempt_id for place in allotment.places}) == len(allotment.places)


def test_a_slot_of_a_clock_that_was_set_back_is_free_now() -> None:
    far = a_pace(per_second=1, room=5, next_slot_at=NOW + timedelta(days=200))
    assert starts(given_places(attempts(A), account=far, companies={A: far})) == [0]


def test_a_slot_that_a_claim_can_have_taken_is_kept() -> None:
    ahead = NOW + 2 * A_SECOND  # the last slot of a claim's second, and a step
    pace = a_pace(per_second=1, room=5, next_slot_at=ahead)
    allotment = given_places(attempts(A), account=pace, companies={A: pace})
    assert (allotment.places, allotment.try_again_at) == ((), ahead - A_SECOND)


@dataclass(frozen=True, kw_only=True)
class Due:
    company_id: UUID
    manual: bool
    due_at: datetime
    id: UUID


def due(company: int, number: int, *, manual: bool = False, minutes: int = 0) -> Due:
    return Due(
        company_id=UUID(int=company), manual=manual, due_at=NOW + timedelta(minutes=minutes), id=UUID(int=number)
    )


def test_manual_attempts_go_first_within_their_company_only() -> None:
    theirs = [due(1, number, manual=True, minutes=number) for number in (1, 2)]
    their_retry = due(1, 3, minutes=-60)
    retries = [due(2, 4, minutes=5), due(2, 5, minutes=6)]
    in_order = [theirs[0], retries[0], theirs[1], retries[1], their_retry]
    assert in_turns([their_retry, *retries, *reversed(theirs)]) == in_order


def test_turn_begins_with_the_company_whose_last_call_is_oldest() -> None:
    last_starts = {UUID(int=1): 20.0, UUID(int=2): 10.0}
    early, later = due(1, 1), due(2, 2, minutes=5)
    assert in_turns([early, later], last_starts.__getitem__) == [later, early]
    assert in_turns([early, later]) == [early, later]


def test_turn_of_several_companies_is_by_due_time_then_id() -> None:
    same = [due(4, 3, minutes=2), due(3, 5, minutes=2, manual=True)]
    in_order = [due(2, 9, minutes=1), *same, due(1, 1, minutes=3)]
    assert in_turns(reversed(in_order)) == in_order
    assert in_turns(in_order) == in_order


def test_attempts_due_together_are_in_order_of_ids() -> None:
    in_order = [due(1, number) for number in (1, 2, 3)]
    assert in_turns(reversed(in_order)) == in_order


# ---- what this machine can send


def a_rate(*sent: float) -> SendRate:
    rate = SendRate()
    for instant in sent:
        rate.sent(instant)
    return rate


def test_claim_takes_twice_of_what_was_sent_within_a_second() -> None:
    rate = a_rate(*(10 + number / 100 for number in range(30)))
    assert rate.may_claim(10.5, 0) == 60
    assert rate.may_claim(11.145, 0) == 30, "half of the sends are older than the span"


def test_claim_takes_no_more_than_two_hundred() -> None:
    assert a_rate(*[10.0] * 500).may_claim(10.5, 0) == AT_MOST_A_TRANSACTION


def test_claim_leaves_room_for_what_is_held() -> None:
    rate = a_rate(*[10.0] * 30)
    assert rate.may_claim(10.5, 30) == 30
    assert rate.may_claim(10.5, 31) == 0, "the worker waits until half of it is free"
    assert rate.may_claim(10.5, 600) == 0


def test_next_claim_is_made_while_the_last_one_is_sent() -> None:
    fast = a_rate(*[10.0] * 500)
    assert fast.may_claim(10.5, AT_MOST_A_TRANSACTION) == AT_MOST_A_TRANSACTION
    assert fast.may_claim(10.5, AT_MOST_A_TRANSACTION + 1) == 0


def test_claim_is_smaller_after_calls_that_could_not_be_sent() -> None:
    rate = a_rate(*[10.0] * 30)
    rate.fell_behind(10.2)
    assert rate.may_claim(10.5, 0) == 15
    assert rate.may_claim(12.0, 0) < 15, "nothing was sent since, so the claim starts small"


def test_machine_that_sends_nothing_claims_one_at_a_time() -> None:
    rate = SendRate()
    first = rate.may_claim(10.0, 0)
    for number in range(10):
        rate.fell_behind(10.0 + number)
    assert 1 == rate.may_claim(19.5, 0) == rate.may_claim(30.0, 0) < first


def test_machine_that_keeps_up_claims_more_again() -> None:
    rate = SendRate()
    for _ in range(10):
        rate.fell_behind(10.0)
    sizes = []
    instant = 12.0
    for _ in range(10):
        sizes.append(rate.may_claim(instant, 0))
        for _ in range(sizes[-1]):
            rate.sent(instant)
        instant += 0.5
    assert sizes == sorted(sizes)
    assert sizes[-1] == AT_MOST_A_TRANSACTION


def test_record_fits_into_its_span() -> None:
    size = RecordSize()
    size.took(10, 5.0)
    assert size.size * 0.5 <= RECORD_SPAN.total_seconds()
    size.took(1, 60.0)
    assert size.size == 1


def test_record_grows_twofold_and_to_two_hundred() -> None:
    size = RecordSize()
    size.took(1, 60.0)
    sizes = []
    for _ in range(10):
        size.took(size.size, 0.001)
        sizes.append(size.size)
    assert sizes[:3] == [2, 4, 8]
    assert sizes[-1] == AT_MOST_A_TRANSACTION


def test_late_calls_stay_as_far_apart_as_they_were() -> None:
    planned = [NOW, NOW + A_SECOND / 4, NOW + A_SECOND / 2]
    assert in_step(planned, NOW + 3 * A_SECOND) == [each + 3 * A_SECOND for each in planned]


def test_calls_that_are_not_late_keep_their_instants() -> None:
    planned = [NOW + A_SECOND / 4, NOW + A_SECOND / 2]
    assert in_step(planned, NOW) == planned
    assert in_step([], NOW) == []


def test_slots_behind_late_calls_move_with_them() -> None:
    late = LateSlots()
    allotted = given_places(attempts(A), account=a_pace(1), companies={A: a_pace(1)})
    late.note([NOW], allotted.account, allotted.companies, NOW + 0.9 * A_SECOND)
    later = a_pace(1, next_slot_at=NOW + 3 * A_SECOND)
    for of in (None, A):
        assert late.behind(of, allotted.account, NOW).next_slot_at == NOW + 1.9 * A_SECOND
        assert late.behind(of, later, NOW) == later
    assert late.behind(B, allotted.account, NOW) == allotted.account


@pytest.mark.parametrize("late_by", [timedelta(0), timedelta(hours=1)], ids=["in time", "by a wrong clock"])
def test_slots_stay_if_no_call_was_late(late_by: timedelta) -> None:
    late = LateSlots()
    allotted = given_places(attempts(A), account=a_pace(1), companies={A: a_pace(1)})
    late.note([NOW], allotted.account, allotted.companies, NOW + late_by)
    assert late.behind(None, allotted.account, NOW) == allotted.account


def test_calls_sent_within_a_moment_look_together() -> None:
    send_at = [NOW + LOOKS_TOGETHER * place / 4 for place in range(6)]
    assert look_waits(send_at, NOW) == [timedelta()] * 4 + [LOOKS_TOGETHER] * 2


@given(st.lists(st.timedeltas(min_value=-A_SECOND, max_value=A_SECOND), max_size=20))
def test_each_look_is_made_shortly_before_its_call(planned: list[timedelta]) -> None:
    for wait, send_in in zip(look_waits([NOW + each for each in planned], NOW), planned, strict=True):
        assert timedelta() <= wait <= max(send_in, timedelta())
        assert send_in - wait < LOOKS_TOGETHER <= LOOK_TO_SEND / 4
