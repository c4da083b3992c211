"""The order in which a dial worker tries its hints: companies take turns, and nothing is tried before it can help."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from scheduler.lifecycle.policy import RELEASE_SPAN
from scheduler.use_cases.dialling.claims import Hinted
from scheduler.use_cases.dialling.hand import Hand

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
