"""The order in which a dial worker tries its hints: companies take turns, and nothing is tried before it can help."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from scheduler.lifecycle.policy import RELEASE_SPAN, SHORT_S
from scheduler.use_cases.dialling.hand import MOST_HINTS, Hand, Hinted

NOON = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
A, B = UUID(int=1), UUID(int=2)
SPAN_S = RELEASE_SPAN.total_seconds()


def a_hint(number: int, company: UUID = A) -> Hinted:
    due_at = NOON + timedelta(seconds=number)
    return Hinted(id=UUID(int=100 + number), company_id=company, manual=False, due_at=due_at)


def a_hand(*hints: Hinted, at: float = 0.0) -> Hand:
    hand = Hand()
    hand.take([each.id for each in hints], at)
    hand.give_turns(hand.without_a_turn(), hints)
    return hand


def numbers(ids: list[UUID]) -> list[int]:
    return [each.int - 100 for each in ids]


def test_companies_take_turns() -> None:
    hand = a_hand(a_hint(1), a_hint(2), a_hint(3), a_hint(4, B))
    assert numbers(hand.next(1.0, 2)) == [1, 4]


def test_company_whose_last_call_is_oldest_has_the_first_turn() -> None:
    """A claim may take a single attempt, and that of the company due first would be taken each time."""
    hand, hints = Hand(), [a_hint(1), a_hint(2, B)]
    for last_starts, first in (({A: 20.0, B: 10.0}, 2), ({A: 20.0, B: 30.0}, 1)):
        hand.take([each.id for each in hints], 0.0)
        hand.give_turns(hand.without_a_turn(), hints, last_starts.__getitem__)
        assert numbers(hand.next(0.0, 1)) == [first]


def test_hints_whose_release_has_ended_take_no_turn() -> None:
    """Otherwise the other company would have turns until its own first hint is found behind those that have ended."""
    hand = a_hand(a_hint(1), a_hint(2), a_hint(3))
    later = [a_hint(4), a_hint(5, B), a_hint(6, B)]
    hand.take([each.id for each in later], SPAN_S)
    hand.give_turns(hand.without_a_turn(), later, instant=SPAN_S)
    assert numbers(hand.next(SPAN_S, 2)) == [4, 5]


def test_later_hint_of_another_company_gets_its_turn() -> None:
    hand = a_hand(*(a_hint(number) for number in range(50)))
    late = a_hint(60, B)
    hand.take([late.id], 1.0)
    hand.give_turns(hand.without_a_turn(), [late])
    assert numbers(hand.next(1.0, 2)) == [0, 60]


def test_hint_for_an_attempt_not_pending_is_dropped() -> None:
    hand = Hand()
    hand.take([a_hint(1).id, a_hint(2).id], 0.0)
    hand.give_turns(hand.without_a_turn(), [a_hint(2)])
    assert numbers(hand.next(0.0, 10)) == [2]
    assert list(hand.without_a_turn()) == []


def test_hint_is_kept_while_its_release_lasts() -> None:
    hand = a_hand(a_hint(1), at=5.0)
    assert numbers(hand.next(5.0 + SPAN_S - 0.1, 10)) == [1]
    assert hand.next(5.0 + SPAN_S, 10) == []
    assert not hand


def test_repeated_hint_is_kept_longer() -> None:
    hand = a_hand(a_hint(1), at=0.0)
    hand.take([a_hint(1).id], 10.0)
    hand.give_turns(hand.without_a_turn(), [a_hint(1)])
    assert numbers(hand.next(SPAN_S + 5.0, 10)) == [1]


def test_full_company_is_held_back_and_delays_no_other() -> None:
    hand = a_hand(a_hint(1), a_hint(2), a_hint(3, B))
    hand.hold([A], 2.0)
    assert numbers(hand.next(1.0, 10)) == [3]
    hand.drop([a_hint(3).id])
    assert hand.ready_at() == 2.0
    assert numbers(hand.next(2.0, 10)) == [1, 2]


def test_locked_attempt_is_held_back_but_not_its_company() -> None:
    hand = a_hand(a_hint(1), a_hint(2))
    hand.hold([a_hint(1).id], 2.0)
    assert numbers(hand.next(1.0, 10)) == [2]


def test_claimed_hint_is_dropped() -> None:
    hand = a_hand(a_hint(1), a_hint(2))
    hand.drop([a_hint(1).id])
    assert numbers(hand.next(1.0, 10)) == [2]
    hand.clear()
    assert not hand


def test_company_at_its_limit_leaves_places_to_others() -> None:
    hand = a_hand(*(a_hint(number) for number in range(5)), *(a_hint(number, B) for number in range(5, 10)))
    assert numbers(hand.next(1.0, 10, lambda company: 1 if company == A else 3)) == [0, 5, 6, 7]


def test_many_dropped_hints_are_forgotten() -> None:
    hand = a_hand(*(a_hint(number) for number in range(50)))
    ids = hand.next(1.0, 40)
    hand.drop(ids)
    assert numbers(hand.next(1.0, 100)) == list(range(40, 50))
    assert hand.ready_at() == 0.0
    hand.drop(hand.next(1.0, 100))
    assert hand.next(1.0, 100) == []
    assert hand.ready_at() is None


def test_few_new_hints_are_tried_once_without_turns() -> None:
    hand = Hand()
    ids = [a_hint(number).id for number in range(3)]
    hand.take(ids, 0.0)
    assert hand.untried(2) == []
    assert hand.untried(3) == ids
    assert hand.untried(3) == [], "what that claim leaves gets its turn"
    hand.drop(ids[:2])
    assert list(hand.without_a_turn()) == ids[2:]


def test_new_hints_wait_for_their_turn_behind_others() -> None:
    hand = a_hand(a_hint(1))
    hand.take([a_hint(2).id], 0.0)
    assert hand.untried(10) == []


def test_new_hint_beside_a_tried_one_gets_its_turn() -> None:
    hand = Hand()
    hand.take([a_hint(1).id], 0.0)
    assert hand.untried(10) == [a_hint(1).id]
    hand.take([a_hint(2).id], 0.0)
    assert hand.untried(10) == []
    assert set(hand.without_a_turn()) == {a_hint(1).id, a_hint(2).id}


def test_hint_that_comes_during_its_claim_is_kept() -> None:
    """It may tell of a change that the claim has not seen."""
    hand = Hand()
    hand.take([a_hint(1).id], 0.0)
    ids = hand.untried(10)
    hand.take(ids, 0.1)
    hand.drop(ids)
    assert list(hand.without_a_turn()) == ids


def test_expired_hint_is_not_tried() -> None:
    hand = Hand()
    hand.take([a_hint(1).id], 0.0)
    assert hand.next(SPAN_S, 10) == []
    assert hand.untried(10) == []


# ---- early hints


def an_early_hand(due_at: dict[int, float], at: float = 0.0) -> Hand:
    """Build a hand with hints that have arrived before their attempts are due."""
    hand = Hand()
    ids = {a_hint(number).id: due for number, due in due_at.items()}
    hand.take(ids, at, ids)
    return hand


def test_early_hint_waits_until_its_attempt_is_due() -> None:
    hand = an_early_hand({1: 102.0}, at=100.0)
    assert hand
    for instant in (100.0, 101.999):
        hand.become_due(instant)
        assert hand.untried(10) == []
        assert list(hand.without_a_turn()) == [], "its row is not read before"
        assert hand.due_at() == 102.0
    hand.become_due(102.0)
    assert numbers(hand.untried(10)) == [1]
    assert hand.due_at() is None


def test_early_hints_become_due_in_the_order_of_due_times() -> None:
    hand = an_early_hand({1: 3.0, 2: 1.0, 3: 2.0, 4: 9.0})
    hand.become_due(3.0)
    assert numbers(hand.untried(10)) == [2, 3, 1]
    assert hand.due_at() == 9.0


def test_early_hint_does_not_delay_a_due_one() -> None:
    hand = an_early_hand({1: 1.0})
    hand.take([a_hint(2).id], 0.0)
    hand.become_due(0.0)
    assert numbers(hand.untried(1)) == [2]


def test_hint_with_a_past_due_time_is_new() -> None:
    hand = an_early_hand({1: 5.0}, at=5.0)
    assert numbers(hand.untried(10)) == [1]


def test_attempt_moved_to_now_no_longer_waits() -> None:
    hand = an_early_hand({1: 2.0})
    hand.take([a_hint(1).id], 0.5)
    hand.become_due(0.5)
    assert numbers(hand.untried(10)) == [1]
    assert hand.due_at() is None


def test_early_hint_is_kept_while_its_release_lasts() -> None:
    hand = an_early_hand({1: 2.0})
    hand.become_due(2.0)
    hand.give_turns(hand.without_a_turn(), [a_hint(1)])
    assert numbers(hand.next(SPAN_S - 0.1, 10)) == [1]
    assert hand.next(SPAN_S, 10) == []
    assert not hand


def test_early_hint_is_kept_when_due_ones_are_cleared() -> None:
    """A pause may end before it is due."""
    hand = an_early_hand({1: 2.0, 2: 1.0})
    hand.become_due(1.0)
    hand.clear()
    assert hand.untried(10) == []
    hand.become_due(2.0)
    assert numbers(hand.untried(10)) == [1]


@pytest.mark.parametrize("has_a_turn", [False, True])
def test_hint_claimed_too_early_waits_again(has_a_turn: bool) -> None:
    hand = Hand()
    ids = [a_hint(1).id]
    hand.take(ids, 0.0)
    if has_a_turn:
        hand.give_turns(hand.without_a_turn(), [a_hint(1)])
    else:
        assert hand.untried(10) == ids
    hand.wait_until_due({ids[0]: 1.0})
    hand.drop(ids)
    assert hand.next(0.9, 10) == hand.untried(10) == list(hand.without_a_turn()) == []
    hand.become_due(1.0)
    assert hand.untried(10) == ids


def test_hint_due_after_its_release_is_dropped() -> None:
    """The clock releases it again by then."""
    hand = Hand()
    hand.take([a_hint(1).id], 0.0)
    hand.untried(10)
    hand.wait_until_due({a_hint(1).id: SPAN_S})
    assert not hand


def test_hints_beyond_the_maximum_are_not_kept() -> None:
    hand = an_early_hand(dict.fromkeys(range(MOST_HINTS), 1.0))
    hand.take([a_hint(MOST_HINTS).id], 0.0)
    hand.take([a_hint(1).id], 0.0)
    assert numbers(hand.untried(MOST_HINTS)) == [1], "a hint that is kept may change"
    hand.become_due(1.0)
    assert len(hand.untried(MOST_HINTS)) == 0, "the tried one gets its turn first"
    assert len(hand.without_a_turn()) == MOST_HINTS


def test_full_hand_drops_hints_whose_release_has_ended() -> None:
    hand = a_hand(*(a_hint(number) for number in range(MOST_HINTS)))
    hand.take([a_hint(MOST_HINTS).id], SPAN_S)
    assert hand.ids() == [a_hint(MOST_HINTS).id]


# ---- early hints that wait for each other

SOON = SHORT_S / 2
"""Attempts this far apart are claimed together, at any rate."""


def test_early_hint_waits_for_one_due_right_after_it() -> None:
    hand = an_early_hand({1: 1.0, 2: 1.0 + SOON, 3: 9.0})
    assert hand.due_at() == 1.0 + SOON
    hand.become_due(1.0)
    assert hand.untried(10) == []
    hand.become_due(1.0 + SOON)
    assert numbers(hand.untried(10)) == [1, 2]
    assert hand.due_at() == 9.0


def test_due_hint_takes_waiting_ones_into_its_claim() -> None:
    """Its call is made at once. A claim of their own would cost as much again."""
    hand = an_early_hand({1: 1.0, 2: 1.0 + SOON})
    hand.take([a_hint(3).id], 1.0)
    hand.become_due(1.0)
    assert set(numbers(hand.untried(10))) == {1, 3}


@pytest.mark.parametrize("ready_at", [1.0, 2.0])
def test_held_hint_takes_waiting_ones_only_when_it_is_ready(ready_at: float) -> None:
    hand = a_hand(a_hint(3))
    hand.hold([a_hint(3).id], ready_at)
    due_at = {a_hint(number).id: at for number, at in ((1, 1.0), (2, 1.0 + SOON))}
    hand.take(due_at, 0.0, due_at)
    hand.become_due(1.0)
    assert numbers(list(hand.without_a_turn())) == ([1] if ready_at == 1.0 else [])


def test_moved_attempt_is_waited_for_no_longer() -> None:
    hand = an_early_hand({1: 1.0, 2: 1.0 + SOON})
    hand.take([a_hint(2).id], 0.0, {a_hint(2).id: 9.0})
    assert hand.due_at() == 1.0
    hand.take([a_hint(1).id], 0.0)
    assert hand.due_at() == 9.0
    assert len(hand) == 2
