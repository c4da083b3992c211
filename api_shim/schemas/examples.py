"""Requests on interviews and call attempts, as partners may write them."""

from fastapi.openapi.models import Example

CALLS: dict[str, Example] = {
    "as soon as allowed": {"summary": "Now, or at the next opening", "value": {}},
    "at a time": {
        "summary": "At nine in the morning on a clock that is 10:30 ahead of UTC",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
}
MOVES: dict[str, Example] = {
    "to a time": {
        "summary": "To nine in the morning on a clock that is 10:30 ahead of UTC",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
}
CHANGES: dict[str, Example] = {
    "move it": {
        "summary": "To another time; of a PHONE interview this moves the attempt that waits",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
    "change the metadata": {
        "summary": "One key gets another value, the others stay; null would remove it",
        "value": {"metadata": {"ref": "A-18"}},
    },
    "end an online one": {
        "summary": "An ONLINE interview has taken place",
        "value": {"status": "COMPLETED"},
    },
}
