"""Packed snapshots: read as they were written, also those of earlier versions."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.persistence.json_columns import pack, unpack

KNOWN = (UUID("f4e05f9c-6c8a-4f5e-9d53-3e6f2a0b7c11"), UUID("0a5d1f77-2f43-4b8e-8f6d-9b1f0c6d2e33"))
ANOTHER = "c9b8954d-1102-49fb-8d5d-b7435b23a3f9"
STORED: dict[str, Any] = {
    "interview": {"id": str(KNOWN[0]), "company_id": str(KNOWN[1]), "type": "PHONE", "status": "SCHEDULED"},
    "attempts": [{"id": "6b1e1cc2-09a4-4ec5-9b1a-5d2f7f0a9e44", "state": "PENDING", "warnings": [], "epoch": 3}],
}
PACKED = bytes.fromhex(
    "01c396a83074a1c702862998c90a4b8ac11ae50cd97232873897f81d9d2d15ab5fcf350fb95a43c41952468a85d726c6400f0200"
)
"""Made by the first version that packed snapshots, which are stored for 30 days."""


def test_stored_snapshot_is_read_with_the_same_dictionary() -> None:
    assert unpack(PACKED, KNOWN) == STORED


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("\x00", id="zero"),
        pytest.param("\x00" + "a" * 16, id="zero and sixteen bytes"),
        pytest.param(str(KNOWN[0]), id="known id"),
        pytest.param(ANOTHER, id="another id"),
        pytest.param(ANOTHER.upper(), id="id in capitals"),
        pytest.param(f"-{ANOTHER}{ANOTHER}", id="ids without a space"),
        pytest.param("Ľ\u2028\\u0000", id="escapes"),
        pytest.param("x" * 9000, id="longer than the window"),
    ],
)
def test_snapshot_is_read_as_it_was_packed(text: str) -> None:
    snapshot = {"attempts": [{"schedule": {"requested": text}, text: [None, 1.5, True]}] * 3}
    for known_ids in (KNOWN, (None, None), (KNOWN[0], None)):
        assert unpack(pack(snapshot, known_ids), known_ids) == snapshot


def test_packed_snapshot_takes_a_fifth_of_its_json() -> None:
    times = {"due_at": "2026-04-30T07:30:00Z", "created_at": "2026-04-02T12:00:00.123456Z"}
    interview = {"id": str(KNOWN[0]), "candidate_id": str(uuid4()), "agent_id": str(uuid4())}
    attempt = {"id": str(uuid4()), "interview_id": str(KNOWN[0]), "company_id": str(KNOWN[1]), "retry_number": 0}
    schedule = {"requested": None, "clock": {"source": "PHONE_NUMBER", "zones": ["Europe/Bratislava"]}, **times}
    interview |= {"company_id": str(KNOWN[1]), "type": "PHONE", "focus": "GENERIC", "status": "SCHEDULED", **times}
    attempt |= {"chain_id": attempt["id"], "state": "PENDING", "manual": False, "schedule": schedule, **times}
    snapshot = {"interview": interview, "attempts": [attempt]}
    assert len(pack(snapshot, KNOWN)) < len(json.dumps(snapshot)) / 5


def test_snapshot_of_a_newer_version_is_an_error() -> None:
    with pytest.raises(ValueError, match="packed by a newer version"):
        unpack(b"\x02" + PACKED[1:], KNOWN)
