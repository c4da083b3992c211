"""Answers of webhook receivers, and the delays that they may ask for."""

from datetime import timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.webhook import ErrorKind, Outcome
from scheduler.rules.webhooks import LONGEST_RETRY_AFTER, answer_of, delay_of
from tests.conftest import NOON


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@given(status=st.integers(100, 999), retry_after=st.none() | st.text(max_size=40))
def test_each_status_has_one_meaning(status: int, retry_after: str | None) -> None:
    answer = answer_of(status, retry_after, NOON)
    assert answer.status == status
    assert (answer.outcome is Outcome.DELIVERED) == (status // 100 == 2) == (answer.error_kind is None)
    assert (answer.outcome is Outcome.GONE) == (status == 410)
    assert (answer.error_kind is ErrorKind.REDIRECT) == (status // 100 == 3)
    if answer.retry_after is not None:
        assert status in {429, 503}
        assert timedelta(0) <= answer.retry_after <= LONGEST_RETRY_AFTER


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("0", seconds(0)),
        ("120", seconds(120)),
        (" 120 ", seconds(120)),
        ("0000000000000120", seconds(120)),
        ("86400", seconds(86_400)),
        ("86401", LONGEST_RETRY_AFTER),
        ("9" * 5_000, LONGEST_RETRY_AFTER),
        ("Thu, 02 Apr 2026 12:02:00 GMT", seconds(120)),
        ("Thursday, 02-Apr-26 12:02:00 GMT", seconds(120)),
        ("Thu Apr  2 12:02:00 2026", seconds(120)),
        ("Thu, 02 Apr 2026 14:02:00 +0200", seconds(120)),
        ("Thu, 02 Apr 2026 11:00:00 GMT", seconds(0)),
        ("Thu, 02 Apr 2099 12:00:00 GMT", LONGEST_RETRY_AFTER),
        (None, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("١٢", None),
        ("Thu, 99 Apr 2026 12:02:00 GMT", None),
        ("Thu, 02 Apr 10000 12:02:00 GMT", None),
    ],
)
def test_retry_after_is_read_within_bounds(text: str | None, delay: timedelta | None) -> None:
    assert delay_of(text, NOON) == delay


@given(ahead=st.integers(-(10**9), 10**9))
def test_date_is_the_time_until_then(ahead: int) -> None:
    at = NOON + seconds(ahead)
    assert delay_of(format_datetime(at, usegmt=True), NOON) == min(max(at - NOON, seconds(0)), LONGEST_RETRY_AFTER)


@given(text=st.text())
def test_any_text_is_read_or_ignored(text: str) -> None:
    delay = delay_of(text, NOON)
    assert delay is None or timedelta(0) <= delay <= LONGEST_RETRY_AFTER
