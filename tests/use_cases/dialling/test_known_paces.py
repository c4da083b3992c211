"""The paces that a worker knows limit how many ids a claim gets, and never stop a claim."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from scheduler.lifecycle.capacity import Pace
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION
from scheduler.use_cases.dialling.claimer import MOST_COMPANIES, KnownPaces

NOON = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
A_SECOND = timedelta(seconds=1)
A, B = UUID(int=1), UUID(int=2)


def a_pace(*, per_second: float = 20.0, room: int = 1000, next_slot_at: datetime = NOON) -> Pace:
    return Pace(next_slot_at=next_slot_at, per_second=per_second, room=room)


@pytest.mark.parametrize(
    ("pace", "places"),
    [
        pytest.param(a_pace(), 20, id="the pace of a second"),
        pytest.param(a_pace(next_slot_at=NOON - A_SECOND), 20, id="no places of the past"),
        pytest.param(a_pace(next_slot_at=NOON + A_SECOND / 2), 10, id="half of them are taken"),
        pytest.param(a_pace(next_slot_at=NOON + A_SECOND), 0, id="all are taken"),
        pytest.param(a_pace(per_second=0.5), 1, id="a slow pace"),
        pytest.param(a_pace(room=3), 3, id="few free places"),
        pytest.param(a_pace(room=-1), 0, id="too many calls"),
    ],
)
def test_places_are_those_of_the_next_second(pace: Pace, places: int) -> None:
    assert pace.places(NOON, A_SECOND) == places


def test_unknown_pace_limits_nothing() -> None:
    paces = KnownPaces()
    assert paces.of_account(NOON) == paces.of_company(A, NOON) == AT_MOST_A_TRANSACTION


def test_known_pace_limits_the_ids_of_a_claim() -> None:
    paces = KnownPaces()
    paces.learn(a_pace(), {A: a_pace(room=2)})
    assert (paces.of_account(NOON), paces.of_company(A, NOON)) == (20, 2)
    assert paces.of_company(B, NOON) == AT_MOST_A_TRANSACTION


def test_last_start_of_a_company_is_a_step_before_its_next_slot() -> None:
    paces = KnownPaces()
    paces.learn(a_pace(), {A: a_pace(per_second=2.0)})
    assert paces.last_start_of(A) == (NOON - A_SECOND / 2).timestamp()
    assert paces.last_start_of(B) == 0.0


def test_outdated_pace_lets_one_attempt_try() -> None:
    paces = KnownPaces()
    paces.learn(a_pace(room=0), {A: a_pace(room=0)})
    assert paces.of_account(NOON) == paces.of_company(A, NOON) == 1


def test_claim_that_was_stopped_teaches_nothing() -> None:
    paces = KnownPaces()
    paces.learn(a_pace(), {})
    paces.learn(None, {})
    assert paces.of_account(NOON) == 20


def test_company_without_claims_for_longest_is_forgotten() -> None:
    paces, companies = KnownPaces(), [UUID(int=number) for number in range(MOST_COMPANIES + 1)]
    for each in (*companies[:-1], companies[0], companies[-1]):
        paces.learn(None, {each: a_pace(room=2)})
    known = [each for each in companies if paces.of_company(each, NOON) == 2]
    assert known == [companies[0], *companies[2:]]
