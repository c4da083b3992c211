"""Example requests for interviews and call attempts."""

from fastapi.openapi.models import Example

CALLS: dict[str, Example] = {
    "as soon as allowed": {"summary": "As soon as calling hours allow", "value": {}},
    "at a time": {
        "summary": "At 09:00 on a clock 10:30 ahead of UTC",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
}
MOVES: dict[str, Example] = {
    "to a time": {
        "summary": "To 09:00 on a clock 10:30 ahead of UTC",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
}
CHANGES: dict[str, Example] = {
    "move it": {
        "summary": "Another time for the interview or its pending call",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
    "change the metadata": {
        "summary": "A new value for one key. Null would remove the key",
        "value": {"metadata": {"ref": "A-18"}},
    },
    "end an online one": {
        "summary": "Completion of an ONLINE interview",
        "value": {"status": "COMPLETED"},
    },
}
