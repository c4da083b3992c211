"""Metadata of resources: their limits, and the merging of changes."""

import json
from collections.abc import Mapping
from typing import Any

from scheduler.domain.refusals import MetadataTooLarge

MAX_BYTES = 10 * 1024
MAX_LEVELS = 5
MAX_KEYS = 50


def fault(metadata: dict[str, Any]) -> tuple[str, str] | None:
    """Return the code and message of the first error, or None."""
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
