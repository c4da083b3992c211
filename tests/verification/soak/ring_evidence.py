"""The evidence of each ring of a soak, read over HTTP and judged without the database."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.verification.judge import call_evidence
from tests.verification.judge.history import Row
from tests.verification.soak.people import Person
from tests.verification.soak.soak_setup import LEASE_S, Blow, SoakSetup

_READERS = 4
_TIMEOUT_S = 30.0
_BUSY = Retry(total=8, status_forcelist=[requests.codes.unavailable], backoff_factor=0.5)
"""An API that is busy asks for another try in `Retry-After`."""
_IN_FLIGHT = timedelta(seconds=2)
_A_WHILE = timedelta(seconds=1)
_BY_COMMAND = 10
"""Deleted attempts whose evidence is read with `duecall explain`: each starts a process."""
_EARLIER = "interval '1 second'"
Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A ring, and the attempt that it belongs to."""

    sid: str
    accepted_at: datetime
    took: timedelta
    """The time from the request until the carrier accepted it, at most."""
    row: Row


@dataclass
class EvidenceVerdict:
    faults: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    @property
    def line(self) -> str:
        return "evidence of rings: " + ", ".join(f"{times} {what}" for what, times in self.counted.most_common())


def rung_from(ledger: Sequence[Mapping[str, Any]], rows: Sequence[Row], people: Mapping[str, Person]) -> Iterator[Rung]:
    """Yield the last ring of each attempt, which its evidence is about. `people` are named by their numbers."""
    row_of = {claim.token: row for row in rows for claim in row.claims}
    last: dict[UUID, Rung] = {}
    for ring in ledger:
        row = row_of.get(ring["token"])
        if row is not None and row.claims[-1].token == ring["token"]:
            person = people.get(ring["to"])
            delay_s = max((float(rule.get("delay_s", 0)) for rule in person.rules), default=0.0) if person else 0.0
            last[row.id] = Rung(
                sid=ring["sid"],
                accepted_at=datetime.fromisoformat(ring["accepted_at"]),
                took=_IN_FLIGHT + timedelta(seconds=delay_s),
                row=row,
            )
    yield from last.values()


def judge_document(found: EvidenceVerdict, rung: Rung, document: Document, blows: Collection[Blow]) -> None:
    """Judge one document.

    A look that was not recorded is explained only by a fault that may have ended a dialler, or by news of the call that
    was written before the dialler's record.
    """
    if not call_evidence.is_recorded(document):
        found.counted["whose last look was not recorded"] += 1
        if not (_was_overtaken(document) or _may_have_hurt(rung, blows)):
            found.faults.append(f"{rung.row.id}: its last look was not recorded, and no dialler was hurt")
        return
    call_id = document["carrier"]["callId"]
    if call_id not in {None, rung.sid}:
        found.faults.append(f"{rung.row.id}: its evidence is about the call {call_id}, and {rung.sid} rang")
    faults = call_evidence.faults(document, rung.accepted_at, took=rung.took)
    found.faults += faults
    found.counted["not explained" if faults else "explained"] += 1


def _was_overtaken(document: Document) -> bool:
    """Check whether news of the carrier has named the call, so that the dialler's record came too late."""
    named_by = [each["by"] for each in document["history"] if each["event"] == "placed"]
    return named_by[-1:] == ["carrier"]


def _may_have_hurt(rung: Rung, blows: Collection[Blow]) -> bool:
    claimed_at = rung.row.claims[-1].at
    lease_over = claimed_at + timedelta(seconds=LEASE_S)
    return any(
        blow.hurts_diallers and blow.began_at - _A_WHILE <= lease_over and blow.healed_at + _A_WHILE >= claimed_at
        for blow in blows
    )


def judge_evidence(setup: SoakSetup, rungs: Sequence[Rung]) -> EvidenceVerdict:
    """Read and judge the evidence of these rings, then change a row of the history, which must be found."""
    found = EvidenceVerdict()
    with ThreadPoolExecutor(_READERS) as readers:
        documents = list(readers.map(lambda rung: _read(setup, rung.row), rungs))
    deleted = [rung for rung, document in zip(rungs, documents, strict=True) if document is None]
    for rung, document in zip(rungs, documents, strict=True):
        if document is not None:
            judge_document(found, rung, document, setup.blows)
    for rung in deleted[:_BY_COMMAND]:
        text = setup.whole.duecall("explain", str(rung.row.id), "--evidence", "--json")
        judge_document(found, rung, json.loads(text), setup.blows)
    found.counted["deleted, and not read"] += len(deleted[_BY_COMMAND:])
    judged = [rung for rung, document in zip(rungs, documents, strict=True) if document is not None]
    if judged:
        _judge_change(setup, judged[0], found)
    return found


def _read(setup: SoakSetup, row: Row) -> Document | None:
    """Read the evidence with the key of its company, again when the API is busy. None if the attempt was deleted."""
    running = setup.whole.running
    key = running.companyKey if str(row.company_id) == running.companyId else setup.late_key
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=_BUSY))
        answer = session.get(
            f"{running.apiUrl}/call-attempts/{row.id}/evidence",
            headers={"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT_S,
        )
    if answer.status_code == requests.codes.not_found:
        return None
    answer.raise_for_status()
    return dict(answer.json()["data"])


def _judge_change(setup: SoakSetup, rung: Rung, found: EvidenceVerdict) -> None:
    entry = f"attempt_id = '{rung.row.id}' AND event = 'claimed'"
    setup.whole.change(f"UPDATE attempt_history SET at = at - {_EARLIER} WHERE {entry}")
    document = _read(setup, rung.row)
    setup.whole.change(f"UPDATE attempt_history SET at = at + {_EARLIER} WHERE {entry}")
    restored = _read(setup, rung.row)
    is_found = document is not None and document["seals"]["state"] == "BROKEN"
    if not is_found:
        found.faults.append(f"{rung.row.id}: a changed row of its history was not found")
    if restored is None or restored["seals"]["state"] == "BROKEN":
        found.faults.append(f"{rung.row.id}: its history is called changed after the change was undone")
    found.counted["changed and found"] += is_found
