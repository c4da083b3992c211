"""Packed snapshots: the interview of a stored answer in a fifth of the bytes that JSON takes.

PostgreSQL compresses a value only in rows of more than 2 kB. A snapshot is shorter, but it is the largest value of a
call, and most of it are field names. So it is compressed here, with a dictionary of what all snapshots contain.
"""

import json
import re
import zlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

_FORM = b"\x01"
"""The first byte of a snapshot that was packed with the dictionary below."""

# Stored snapshots cannot be read with another dictionary, so this one never changes. A better one needs a new form.
# The most frequent text is at the end, where the codes are shortest.
_DICTIONARY = (
    b'COMPLETED","reason":"ANSWERED","reason":"TEST","reason":"NO_ANSWER","reason":"BUSY","reason":"VOICEMAIL"'
    b'"reason":"DECLINED","reason":"INVALID_NUMBER","reason":"CARRIER_ERROR","reason":"OUTCOME_UNKNOWN"'
    b'"state":"FAILED","reason":"EXPIRED","state":"CANCELLED","reason":"REPLACED","reason":"CANCELLED_BY_USER"'
    b'"phase":"UNKNOWN","unknown_at":"IN_PROGRESS","phase":"DIALLING","phase":"PLACED","released_until":"","epoch":1,'
    b'"account_id":1,"claimed_at":"","lease_until":"","call_sid":"CA","heard_rank":3,"look_at":"","listed_at":"",'
    b'"search_at":"","looks":1,"not_placed":1,"answered_by":"HUMAN","duration":"PT1M30S","ended_at":"","hang_up":"",'
    b'"cause_is_lost":true,"deleted_at":"","job_id":"","is_test":true,"scheduled_at":"","finished_at":"",'
    b'"expires_by_default":false,"type":"ONLINE","focus":"SCREENING","focus":"OUTREACH","focus":"LANGUAGE_TEST",'
    b'"manual":true,"warnings":["CANDIDATE_HAS_OPEN_INTERVIEW","MOVED_BY_SETTINGS"],"source":"ZONE","zones":['
    b'"source":"COMPANY","source":"CANDIDATE","zones":["America/","Asia/","Australia/","Africa/","Pacific/","Europe/'
    b'"clock":{"source":"PHONE_NUMBER","zones":["Europe/Bratislava"]},"source":"OFFSET","offset":"PT2H"},"offset":"PT0S"'
    b'"warnings":["OFFSET_DIFFERS_FROM_PHONE_NUMBER"]:00:00+00:00","requested":"2026-'
    b'{"interview":{"id":"","company_id":"","candidate_id":"","agent_id":"","type":"PHONE","focus":"GENERIC",'
    b'"duration":"PT10M","status":"SCHEDULED","expires_at":"2026-","created_at":"2026-","updated_at":"2026-"},'
    b'"attempts":[{"id":"","interview_id":"","company_id":"","chain_id":"","retry_number":0,"manual":false,'
    b'"state":"PENDING","schedule":{"requested":null,"clock":{"source":"PHONE_NUMBER","zones":["Europe/'
    b'"]},"due_at":"2026-","earliest_at":"2026-","tzdata_version":"2026f"},"due_at":"2026-","expires_at":"2026-'
    b'T00:00Z","created_at":"2026-","updated_at":"2026-"}]}'
)
_LEVEL, _WINDOW, _MEMORY = 6, -12, 4
"""Raw deflate with a window of 4 kB: a larger one takes more memory and time, and compresses no better."""
_ID_TEXT = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ID_BYTES = re.compile(rb"\0(.{16})", re.DOTALL)
"""JSON contains no zero byte, so in its place one announces the sixteen bytes of an id."""


def pack(snapshot: dict[str, Any], known_ids: Sequence[UUID | None]) -> bytes:
    """Pack a snapshot. `known_ids` occur in it and are stored in the same row, so they take no space here."""
    text = _ID_TEXT.sub(_shortened, json.dumps(snapshot, separators=(",", ":")).encode())
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY, zdict=_dictionary(known_ids))
    return _FORM + packer.compress(text) + packer.flush()


def unpack(packed: bytes, known_ids: Sequence[UUID | None]) -> dict[str, Any]:
    """Return the snapshot. `known_ids` are those with which it was packed."""
    if not packed.startswith(_FORM):
        raise ValueError("the snapshot was packed by a newer version; complete the upgrade of this process")
    text = zlib.decompressobj(_WINDOW, zdict=_dictionary(known_ids)).decompress(packed[len(_FORM) :])
    snapshot: dict[str, Any] = json.loads(_ID_BYTES.sub(_written_out, text))
    return snapshot


def _dictionary(known_ids: Sequence[UUID | None]) -> bytes:
    return _DICTIONARY + b"".join(b"\0" + each.bytes for each in known_ids if each is not None)


def _shortened(found: re.Match[bytes]) -> bytes:
    return b"\0" + bytes.fromhex(found[0].replace(b"-", b"").decode())


def _written_out(found: re.Match[bytes]) -> bytes:
    return str(UUID(bytes=found[1])).encode()
