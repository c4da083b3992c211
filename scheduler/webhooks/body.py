"""The body of a delivered event. It holds ids, states, codes and times, and no personal data."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

DATA_FIELDS = frozenset(
    {
        "applied",
        "batchId",
        "by",
        "callAttemptId",
        "cancelled",
        "candidateId",
        "commandId",
        "companyId",
        "decision",
        "dueAt",
        "externalId",
        "interviewId",
        "jobId",
        "nextAttemptId",
        "reasonCode",
        "refused",
        "retryNumber",
        "status",
        "timezone",
        "webhookId",
    }
)
"""Other fields are never sent, so that no name or number slips in."""


def body_of(
    event_type: str, delivery_id: str, occurred_at: datetime, sequence: int | None, data: Mapping[str, object]
) -> str:
    """Return the JSON of an event. It is the same at each try and each replay, because receivers may compare it.

    `event` repeats `type` for clients of the public API. `sequence` is None for an event without an interview.
    """
    content = {
        "type": event_type,
        "event": event_type,
        "timestamp": occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "deliveryId": delivery_id,
        "sequence": sequence,
        "data": {
            name: value
            for name, value in data.items()
            if name in DATA_FIELDS  # guard: data_fields
        },
    }
    return json.dumps(content, separators=(",", ":"))
