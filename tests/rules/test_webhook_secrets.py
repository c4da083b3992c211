"""Rotation of endpoints' secrets: two sign for a day."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from scheduler.rules.webhooks import OVERLAP, EndpointSecrets, rotated, signing
from tests.conftest import NOON


def test_old_secret_signs_for_a_day() -> None:
    secrets = rotated(EndpointSecrets(secret=b"old"), b"new", NOON)
    assert timedelta(hours=24) == OVERLAP
    assert signing(secrets, NOON) == (b"new", b"old")
    assert signing(secrets, NOON + OVERLAP - timedelta(microseconds=1)) == (b"new", b"old")
    assert signing(secrets, NOON + OVERLAP) == (b"new",)


def test_secret_without_a_rotation_signs_alone() -> None:
    assert signing(EndpointSecrets(secret=b"only"), NOON) == (b"only",)


@given(waits=st.lists(st.timedeltas(timedelta(0), timedelta(days=3)), min_size=1, max_size=6))
def test_two_sign_at_most_and_the_newest_first(waits: list[timedelta]) -> None:
    secrets, now = EndpointSecrets(secret=b"0"), NOON
    for number, wait in enumerate(waits, 1):
        secrets = rotated(secrets, str(number).encode(), now)
        assert signing(secrets, now) == (str(number).encode(), str(number - 1).encode())
        now += wait
        assert signing(secrets, now)[0] == str(number).encode()
        assert len(signing(secrets, now)) == (2 if wait < OVERLAP else 1)


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(EndpointSecrets(secret=b"hidden", old_secret=b"hidden"))
