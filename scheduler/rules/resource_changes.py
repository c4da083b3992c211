"""Changes of records: named fields are replaced, metadata and details are merged."""

from dataclasses import replace
from typing import Any, TypeVar

from scheduler.domain.agent import Agent
from scheduler.domain.candidate import Candidate
from scheduler.domain.company import Company
from scheduler.domain.job import Job
from scheduler.domain.resource import Changes
from scheduler.rules.metadata import merge_patch, merged

R = TypeVar("R", bound=Company | Job | Candidate | Agent)

_MERGED = ("profile", "details")


def changed(record: R, changes: Changes) -> R:
    """Return the record with these changes. A null in a merged field removes its key. Raises MetadataTooLarge."""
    values: dict[str, Any] = dict(changes)
    if "metadata" in values:
        values["metadata"] = merged(record.metadata, values["metadata"] or {})
    for name in _MERGED:
        if name in values:
            values[name] = merge_patch(getattr(record, name), values[name])
    result: R = replace(record, **values)
    return result
