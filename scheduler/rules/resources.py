"""Rules of resources: changes, metadata, entity tags, names, job, and retry policies."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from scheduler.domain.attempt import Attempt
from scheduler.domain.company import DEFAULT_DELAYS, Company, Delay, NextDay, RetryPolicy
from scheduler.domain.interview import Agent, AgentFocus, Candidate, Job, JobStatus
from scheduler.domain.refusals import (
    EtagDiffers,
    InvalidRetryPolicy,
    JobAmbiguous,
    JobNotAssigned,
    JobRequired,
    MetadataTooLarge,
)
from scheduler.domain.resource import Changes

# --- Safe display of names that clients have chosen


_JOINERS = "\u200c\u200d"
"""Invisible, but needed to write Persian or Hindi names."""


def is_printable(name: str) -> bool:
    """Return whether the name is visible and has no control character, bidi override or line separator."""
    return not name.isspace() and all(_is_harmless(each) for each in name) and bool(name.strip(_JOINERS + " "))


def shown(name: str | None, at_most: int) -> str:
    """Shorten the name to one line of at most `at_most` characters, possibly empty.

    Control characters become spaces. `=?`, the start of an encoded word (RFC 2047), is separated by a space.
    """
    harmless = "".join(each if _is_harmless(each) else " " for each in name or "")
    line = " ".join(harmless.replace("=?", "= ?").split())
    return line if len(line) <= at_most else line[: at_most - 1].rstrip() + "…"


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


# --- Entity tags (RFC 9110) of attempts, made from the epoch, which increases with every event


_TAG = r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"'
IF_MATCH = re.compile(rf"\*|[ \t,]*{_TAG}([ \t]*,[ \t,]*{_TAG})*[ \t,]*")
"""The syntax of an If-Match header (RFC 9110 sections 8.8.3 and 13.1.1), including empty list elements (5.6.1.2)."""


def etag_of(attempt: Attempt) -> str:
    """Build the attempt's current strong entity tag, quotes included."""
    return f'"{attempt.epoch}"'


def must_match(if_match: str | None, attempt: Attempt) -> None:
    """Raise EtagDiffers unless the If-Match header contains the attempt's current tag. None: no header was sent.

    A weak tag never matches (RFC 9110 section 13.1.1).
    """
    if if_match is None or if_match.strip() == "*":
        return
    if etag_of(attempt) not in {tag.strip() for tag in if_match.split(",")}:
        raise EtagDiffers(etag=etag_of(attempt))


# --- The choice of an interview's job


def job_of(focus: AgentFocus, named: UUID | None, considered_for: Sequence[Job]) -> UUID | None:
    """Choose the job of an interview with an agent of this focus, or None if it is not about a job.

    `named` is the requested job, OPEN or not. `considered_for` are the jobs that the candidate is assigned to. Raises
    JobNotAssigned, or JobAmbiguous or JobRequired if no job is named and exactly one is needed.
    """
    if named is not None:
        if named not in {job.id for job in considered_for}:
            raise JobNotAssigned(jobId=str(named))
        return named
    if focus is AgentFocus.GENERIC:
        return None
    active = [job.id for job in considered_for if job.status is JobStatus.OPEN]
    if not active:
        raise JobRequired
    if len(active) > 1:
        # Ids only: a refusal is stored, and the current titles are added when it is returned.
        raise JobAmbiguous(jobs=[{"id": str(job_id)} for job_id in active])
    return active[0]


# --- Metadata of resources: their limits, and the merging of changes


MAX_BYTES = 10 * 1024
MAX_LEVELS = 5
MAX_KEYS = 50


def fault(metadata: dict[str, Any]) -> tuple[str, str] | None:
    """Find the code and message of the first error, or None."""
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_BYTES:
        return "METADATA_TOO_LARGE", "Metadata must have at most 10 KB of JSON."
    if _levels(metadata) > MAX_LEVELS:
        return "METADATA_TOO_DEEP", "Metadata must have at most 5 levels, counting itself."
    if _keys(metadata) > MAX_KEYS:
        return "METADATA_TOO_MANY_KEYS", "Metadata must have at most 50 keys, counting nested keys."
    return None


def merged(metadata: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Merge `change` into the metadata (RFC 7396): objects key by key, a null removes its key.

    Raises MetadataTooLarge if the result exceeds a limit.
    """
    result = merge_patch(metadata, change)
    if error := fault(result):
        code, message = error
        raise MetadataTooLarge(f"After this change: {message}", reason=code)
    return result


def merge_patch(old: Any, change: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Merge `change` into `old` (RFC 7396)."""
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value) if isinstance(value, dict) else value
    return result


def _levels(value: Any) -> int:  # noqa: ANN401 - JSON
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_levels, inner), default=0)


def _keys(value: Any) -> int:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0


# --- Changes of records: named fields are replaced, metadata and details are merged


R = TypeVar("R", bound=Company | Job | Candidate | Agent)

_MERGED = ("profile", "details")


def changed(record: R, changes: Changes) -> R:
    """Apply these changes to the record. A null in a merged field removes its key. Raises MetadataTooLarge."""
    values: dict[str, Any] = dict(changes)
    if "metadata" in values:
        values["metadata"] = merged(record.metadata, values["metadata"] or {})
    for name in _MERGED:
        if name in values:
            values[name] = merge_patch(getattr(record, name), values[name])
    result: R = replace(record, **values)
    return result


# --- Parser of a company's `retryPolicy`, with its error messages


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
    """Build the JSON form that `read_retry_policy` parses."""
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
