"""Parser of a company's `retryPolicy`, with its error messages."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from scheduler.domain.company import DEFAULT_DELAYS, Delay, NextDay, RetryPolicy
from scheduler.domain.refusals import InvalidRetryPolicy

MAX_RETRIES = 10
MAX_DELAYS = 10
MAX_DELAY = timedelta(days=30)
_FIELDS = ("maxRetries", "delays")
_SECOND = timedelta(seconds=1)


def read_retry_policy(value: object) -> RetryPolicy:
    """Parse JSON such as `{"maxRetries": 3, "delays": {"BUSY": [900], "NO_ANSWER": [7200, "NEXT_DAY"]}}`.

    Omitted values have their default. A reason with an empty list is never retried. Delays are whole seconds of at
    least 1, or NEXT_DAY. Raises InvalidRetryPolicy, with details field and reason, for anything else.
    """
    if not isinstance(value, Mapping):
        raise _invalid("", "must be an object with maxRetries and delays")
    for name in value:
        if name not in _FIELDS:
            raise _invalid("", "must have no fields other than maxRetries and delays")
    return RetryPolicy(
        max_retries=_max_retries(value.get("maxRetries", RetryPolicy().max_retries)),
        delays={**DEFAULT_DELAYS, **_delays(value.get("delays", {}))},
    )


def retry_policy_as_json(policy: RetryPolicy) -> dict[str, Any]:
    """Return the JSON form that `read_retry_policy` parses."""
    return {
        "maxRetries": policy.max_retries,
        "delays": {reason: [_as_json(delay) for delay in delays] for reason, delays in policy.delays.items()},
    }


def _as_json(delay: Delay) -> int | str:
    return delay.value if isinstance(delay, NextDay) else delay // _SECOND


def _max_retries(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_RETRIES:
        raise _invalid(".maxRetries", f"must be a whole number from 0 to {MAX_RETRIES}")
    return value


def _delays(value: object) -> dict[str, tuple[Delay, ...]]:
    if not isinstance(value, Mapping):
        raise _invalid(".delays", "must be an object with lists of delays by the reason of the failure")
    delays = {}
    for reason, each in value.items():
        if reason not in DEFAULT_DELAYS:
            raise _invalid(
                ".delays",
                f"may only have the keys {', '.join(DEFAULT_DELAYS)}, because other reasons are never retried",
            )
        if not isinstance(each, list) or len(each) > MAX_DELAYS:
            raise _invalid(f".delays.{reason}", f"must be a list of at most {MAX_DELAYS} delays")
        delays[reason] = tuple(_delay(item, f".delays.{reason}[{index}]") for index, item in enumerate(each))
    return delays


def _delay(value: object, where: str) -> Delay:
    if value == NextDay.NEXT_DAY.value:
        return NextDay.NEXT_DAY
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DELAY // _SECOND:
        raise _invalid(where, f"must be whole seconds from 1 to {MAX_DELAY // _SECOND}, or NEXT_DAY")
    return timedelta(seconds=value)


def _invalid(where: str, reason: str) -> InvalidRetryPolicy:
    field = f"retryPolicy{where}"
    return InvalidRetryPolicy(f"{field} {reason}.", field=field, reason=reason)
