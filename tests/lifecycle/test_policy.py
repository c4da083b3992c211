"""Times of the dial protocol that contradict each other are refused by name."""

from datetime import timedelta

import pytest

from scheduler.lifecycle.policy import RING_MARGIN, SEND_SPAN, Policy, UnsafeTimes


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def test_the_usual_times_are_safe() -> None:
    policy = Policy()
    assert policy.connect_timeout < policy.total_timeout < policy.lease < policy.settle


def test_times_scaled_down_together_are_safe() -> None:
    Policy(connect_timeout=s(0.5), total_timeout=s(1), lease=s(3), settle=s(5))


@pytest.mark.parametrize(
    ("times", "names"),
    [
        pytest.param(
            {"connect_timeout": s(13)}, ("connect_timeout", "total_timeout"), id="connecting takes all the time"
        ),
        pytest.param({"total_timeout": Policy().lease}, ("total_timeout", "lease"), id="the POST outlives the lease"),
        pytest.param(
            {"total_timeout": Policy().lease - s(0.5)}, ("total_timeout", "lease"), id="no second is left to send in"
        ),
        pytest.param({"settle": Policy().lease}, ("lease", "settle"), id="given up as soon as the lease is over"),
        pytest.param({"lease": s(13)}, ("total_timeout", "lease"), id="a lease as long as the POST"),
    ],
)
def test_an_unsafe_order_is_refused_by_name(times: dict[str, timedelta], names: tuple[str, str]) -> None:
    with pytest.raises(UnsafeTimes) as refusal:
        Policy(**times)
    assert all(name in str(refusal.value) for name in names)


def test_shortest_safe_lease_covers_the_post_and_its_send_span() -> None:
    Policy(lease=Policy().total_timeout + SEND_SPAN)
    with pytest.raises(UnsafeTimes):
        Policy(lease=Policy().total_timeout + SEND_SPAN - s(0.001))


def test_a_phone_must_have_room_to_ring_and_five_seconds_more() -> None:
    assert Policy(ring_timeout=s(20)).room == s(20) + RING_MARGIN == s(25)
