"""Turns of endpoints: few messages each, and half of the threads for slow endpoints, and for those of one owner."""

from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from scheduler.rules.webhooks import MOST_IN_FLIGHT, WaitingEndpoint, places, room

THREADS = 16
OWNER, OTHER = UUID(int=1), UUID(int=2)
OWNERS = st.sampled_from([UUID(int=each) for each in range(3)])
ENDPOINTS = st.lists(
    st.builds(
        WaitingEndpoint,
        id=st.uuids(),
        owner=OWNERS,
        in_flight=st.integers(0, MOST_IN_FLIGHT),
        sendable=st.integers(0, 6),
        is_failing=st.booleans(),
        is_slow=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda each: each.id,
)
SENDING = st.lists(st.tuples(OWNERS, st.booleans()), max_size=THREADS)


def waiting(owner: UUID, *, is_slow: bool = False) -> WaitingEndpoint:
    return WaitingEndpoint(id=uuid4(), owner=owner, in_flight=0, sendable=MOST_IN_FLIGHT, is_slow=is_slow)


def test_endpoints_of_one_owner_get_half_of_the_threads() -> None:
    found = places([waiting(OWNER) for _ in range(50)], room(THREADS, [], unrecorded=0))
    assert sum(found.values()) == THREADS / 2


def test_endpoints_of_two_owners_get_all_threads() -> None:
    endpoints = [waiting(owner) for owner in (OWNER, OTHER) for _ in range(4)]
    assert sum(places(endpoints, room(THREADS, [], unrecorded=0)).values()) == THREADS


def test_threads_that_send_count_for_their_owner() -> None:
    sending = [(OWNER, False)] * 6
    found = places([waiting(OWNER), waiting(OWNER)], room(THREADS, sending, unrecorded=0))
    assert sum(found.values()) == 2


def test_owner_without_room_is_named() -> None:
    assert room(THREADS, [(OWNER, False)] * 8 + [(OTHER, False)] * 7, unrecorded=0).full_owners == [OWNER]


def test_slow_endpoints_of_all_owners_share_half() -> None:
    endpoints = [waiting(owner, is_slow=True) for owner in (OWNER, OTHER) for _ in range(4)]
    assert sum(places(endpoints, room(THREADS, [], unrecorded=0)).values()) == THREADS / 2


def test_results_that_are_not_recorded_take_threads() -> None:
    assert room(THREADS, [(OWNER, False)], unrecorded=THREADS).free == 0
    assert room(THREADS, [(OWNER, False)], unrecorded=5).free == THREADS - 6


def test_single_thread_serves_everyone() -> None:
    endpoint = waiting(OWNER, is_slow=True)
    assert places([endpoint], room(1, [], unrecorded=0)) == {endpoint.id: 1}


@given(endpoints=ENDPOINTS, sending=SENDING, unrecorded=st.integers(0, 4))
def test_no_share_is_exceeded(
    endpoints: list[WaitingEndpoint], sending: list[tuple[UUID, bool]], unrecorded: int
) -> None:
    found = room(THREADS, sending, unrecorded)
    taken = places(endpoints, found)
    new = [(each.owner, each.is_slow) for each in endpoints for _ in range(taken.get(each.id, 0))]
    after = sending + new
    assert len(new) <= max(0, THREADS - len(sending) - unrecorded)
    for owner in {owner for owner, _ in new}:
        assert [each for each, _ in after].count(owner) <= THREADS / 2
    if any(is_slow for _, is_slow in new):
        assert sum(is_slow for _, is_slow in after) <= THREADS / 2
