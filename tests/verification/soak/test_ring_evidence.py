"""The soak's judgement of evidence reports documents that do not explain their ring."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.verification.judge.history import Claim, Row
from tests.verification.soak.people import BEHAVIOURS, alike
from tests.verification.soak.ring_evidence import Document, EvidenceVerdict, Rung, judge_document, rung_from
from tests.verification.soak.soak_setup import STARTS_AT, Blow

LOOKED_AT = STARTS_AT + timedelta(minutes=1)
RANG_AT = LOOKED_AT + timedelta(seconds=0.2)
ROW = Row(
    id=uuid4(),
    interview_id=uuid4(),
    company_id=uuid4(),
    line="a line",
    state="COMPLETED",
    reason="ANSWERED",
    epoch=3,
    due_at=STARTS_AT,
    expires_at=STARTS_AT + timedelta(days=7),
    happenings=(),
    claims=(Claim(token="an old token", at=STARTS_AT), Claim(token="a token", at=LOOKED_AT)),
)
RUNG = Rung(sid="CA1", accepted_at=RANG_AT, took=timedelta(seconds=2), row=ROW)


def a_document(**changes: Any) -> Document:
    facts = {
        "at": LOOKED_AT.isoformat(),
        "leaveBy": (LOOKED_AT + timedelta(seconds=8)).isoformat(),
        "clocks": [{"timezone": "Europe/Bratislava", "utcOffset": "+02:00"}],
        "callTimeIntervals": [{"days": ["THU"], "start": "08:00", "end": "20:00"}],
        "roomSeconds": 35.0,
        "consentUntil": "2030-01-01",
    }
    look = {
        "result": "PASSED",
        "claimedAt": LOOKED_AT.isoformat(),
        "rules": [{"rule": "NOT_DUE", "result": "PASSED"}],
        "facts": facts,
    }
    return {
        "callAttemptId": str(ROW.id),
        "lastLook": look,
        "request": {"at": STARTS_AT.isoformat()},
        "expiresAt": ROW.expires_at.isoformat(),
        "history": [{"number": 0, "from": None, "to": "PENDING"}, {"number": 1, "from": "PENDING", "to": "COMPLETED"}],
        "seals": {"state": "WHOLE", "faults": []},
        "status": "COMPLETED",
        "carrier": {"callId": "CA1"},
        **changes,
    }


def judged(document: Document, *blows: Blow, rung: Rung = RUNG) -> list[str]:
    found = EvidenceVerdict()
    judge_document(found, rung, document, blows)
    return found.faults


def a_blow(*, hurts_diallers: bool) -> Blow:
    return Blow(what="kill -9 dial", began_at=LOOKED_AT, healed_at=LOOKED_AT, hurts_diallers=hurts_diallers)


def test_ring_that_its_evidence_explains_has_no_fault() -> None:
    assert judged(a_document()) == []


@pytest.mark.parametrize(
    ("document", "rung", "fault"),
    [
        pytest.param(a_document(carrier={"callId": "CA2"}), RUNG, "is about the call CA2", id="another call"),
        pytest.param(
            a_document(),
            replace(RUNG, accepted_at=RANG_AT + timedelta(hours=12)),
            "the phone rang at",
            id="another time",
        ),
        pytest.param(
            a_document(seals={"state": "BROKEN", "faults": ["x"]}),
            RUNG,
            "the history was changed",
            id="a changed history",
        ),
    ],
)
def test_ring_that_its_evidence_does_not_explain_is_reported(document: Document, rung: Rung, fault: str) -> None:
    assert any(fault in each for each in judged(document, rung=rung))


def test_look_may_be_unrecorded_only_after_a_hurt_dialler() -> None:
    document = a_document(lastLook={"result": "NOT_RECORDED", "rules": [], "facts": None}, history=[])
    assert judged(document) != []
    assert judged(document, a_blow(hurts_diallers=False)) != []
    assert judged(document, a_blow(hurts_diallers=True)) == []


@pytest.mark.parametrize(("by", "is_explained"), [("carrier", True), ("dialler", False)])
def test_look_may_be_unrecorded_if_a_callback_was_quicker(by: str, *, is_explained: bool) -> None:
    placed = {"number": 1, "event": "placed", "by": by}
    document = a_document(lastLook={"result": "NOT_RECORDED", "rules": [], "facts": None}, history=[placed])
    assert (judged(document) == []) is is_explained


def test_evidence_is_about_the_last_claim() -> None:
    def ring(token: str, accepted_at: datetime) -> dict[str, Any]:
        return {"sid": f"CA {token}", "token": token, "to": "+421915000000", "accepted_at": accepted_at.isoformat()}

    ledger = [ring("an old token", STARTS_AT), ring("a token", RANG_AT), ring("not ours", RANG_AT)]
    [rung] = rung_from(ledger, [ROW], {})
    assert (rung.sid, rung.accepted_at, rung.row) == ("CA a token", RANG_AT, ROW)


def test_carrier_that_accepts_late_has_its_time() -> None:
    [person] = alike("late accept", rate=1, seconds=1, first=0)
    ring = {"sid": "CA1", "token": "a token", "to": person.number, "accepted_at": RANG_AT.isoformat()}
    [rung] = rung_from([ring], [ROW], {person.number: person})
    assert rung.took > timedelta(seconds=BEHAVIOURS["late accept"][1][0]["delay_s"])
