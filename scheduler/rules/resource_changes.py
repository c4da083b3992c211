"""What a change makes of a record: what it names is replaced, metadata and details are merged."""

from dataclasses import replace
from typing import Any, TypeVar

from scheduler.domain.resource import Changes, Resource
from scheduler.rules.metadata import merge_patch, merged

R = TypeVar("R", bound=Resource)

_MERGED = ("profile", "details")


def changed(record: R, changes: Changes) -> R:
    """The record with these changes; in what is merged, a null takes its key away. Raises MetadataTooLarge."""
    values: dict[str, Any] = dict(changes)
    if "metadata" in values:
        values["metadata"] = merged(record.metadata, values["metadata"] or {})
    for name in _MERGED:
        if name in values:
            values[name] = merge_patch(getattr(record, name), values[name])
    result: R = replace(record, **values)
    return result
