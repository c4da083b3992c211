"""Year of nights: of ten thousand calls, none is outside the person's hours, lost, or placed twice.

    DUECALL_NIGHTS_PEOPLE=8500 python -m pytest tests/verification/nights/test_a_year_of_nights.py     # `make proof`

`make test` runs two hundred. The judge shares no code with the product.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from api_shim.schemas.evidence import EvidenceView
from scheduler.domain.attempt import Reason
from scheduler.lifecycle.state_machine import CALL_ENDS
from scheduler.use_cases.operations.evidence import CallEvidence
from tests.verification.judge import call_evidence
from tests.verification.judge.evidence import rings_from, rows_of
from tests.verification.judge.history import History, Patience
from tests.verification.judge.hours import RingHours, lies_within
from tests.verification.judge.violations import violations
from tests.verification.nights.year import POLICY, RequestedCall, Year, a_year

PEOPLE = int(os.environ.get("DUECALL_NIGHTS_PEOPLE", "120"))
NIGHTS = max(12, min(80, PEOPLE // 60))
SEED = int(os.environ.get("DUECALL_NIGHTS_SEED", "20270104"))
RUNG = CALL_ENDS.keys() - {Reason.CANCELLED_AT_CARRIER}
NOT_RUNG = {"EXPIRED", "CONSENT_EXPIRED"}


def hours_of(year: Year, rows: Mapping[UUID, Any], calls: list[dict[str, Any]]) -> Iterator[RingHours]:
    """Yield each call twice: when the carrier accepted it, and when the phone rang."""
    attempt_of = dict(tuple(row) for row in year.tenant.ask("SELECT token, attempt_id FROM attempt_tokens"))
    for call in calls:
        row = rows[attempt_of[call["token"]]]
        instants = {datetime.fromisoformat(call[name]) for name in ("accepted_at", "rang_at") if call[name]}
        for at in sorted(instants):
            yield _ring(year.asked[row.interview_id], row.retry_number, str(call["sid"]), at)


def evidence_of(year: Year, attempt_id: UUID) -> dict[str, Any]:
    """Build the document of a call, as the API shows it."""
    evidence = CallEvidence(year.tenant.context).of_operator(attempt_id)
    return dict(EvidenceView.of(evidence).model_dump(mode="json", by_alias=True))


def _ring(asked: RequestedCall, retry_number: int, sid: str, at: datetime) -> RingHours:
    zones: Sequence[str]
    if asked.wish.zone is not None:
        zones = (asked.wish.zone,)
    elif asked.wish.offset is not None:
        alone = retry_number == 0 and _is_one_opening(asked, at)
        # F2-9: in any other opening, the candidate's zone must be open too; without one, the number's zones.
        own = asked.place.zones if asked.candidate_zone is None else (asked.candidate_zone,)
        zones = () if alone else own
    elif asked.candidate_zone is not None:
        zones = (asked.candidate_zone,)
    else:
        zones = asked.place.zones or ((asked.shape.timezone,) if asked.shape.timezone else ())
    return RingHours(
        sid=f"{sid} {at}",
        at=at,
        zones=tuple(zones),
        offset=asked.wish.offset,
        hours=asked.shape.hours,
        consent_until=asked.consent_until,
        says=f"{asked.place.name} ({asked.shape.name}), requested {asked.wish.text},"
        f" candidate in {asked.candidate_zone}, retry {retry_number}, rung {at}",
    )


def _is_one_opening(asked: RequestedCall, at: datetime) -> bool:
    """Check whether the hours were open from the requested time until now, on the requested offset."""
    assert asked.wish.offset is not None
    wall, until = asked.due_at + asked.wish.offset, at + asked.wish.offset
    if until - wall > timedelta(days=1) * 7:
        return False
    while wall < until:
        if not lies_within(asked.shape.hours, wall.weekday(), wall.hour * 3600 + wall.minute * 60 + wall.second):
            return False
        wall += timedelta(seconds=30)
    return True


@pytest.mark.timeout(3600)
def test_year_of_nights_has_no_wrong_lost_or_double_call(postgres_url: str, aloud: Callable[[str], None]) -> None:
    begun = time.monotonic()
    with a_year(postgres_url, Random(SEED)) as year:
        year.pass_the_year(PEOPLE, NIGHTS)
        lived = time.monotonic() - begun
        calls = year.carrier.rings()
        columns = "SELECT id, interview_id, retry_number, state, reason FROM attempts"
        rows = {row.id: row for row in year.tenant.ask(columns)}
        verdict = year.carrier.verdict()
        deferred = year.tenant.ask("SELECT count(*) FROM attempt_history WHERE detail ->> 'cause' = 'WINDOW_CLOSED'")
        waiting = year.tenant.ask("SELECT count(*) FROM interviews WHERE status = 'SCHEDULED'")
        posts = len(year.carrier.requests())
        history = History(
            attempts=rows_of(postgres_url),
            rings=rings_from(calls),
            hours=tuple(hours_of(year, rows, calls)),
            clocks=postgres_url,
            until=year.now(),
            patience=Patience(in_flight=timedelta(seconds=1), lateness=timedelta(0), line_gap=POLICY.line_gap),
        )
        documents = {attempt: evidence_of(year, attempt) for attempt in history.rings_of}
    found = violations(history)
    at_night = tuple(replace(each, at=each.at + timedelta(hours=12)) for each in history.hours)
    at_wrong_times = violations(replace(history, hours=at_night))
    ends = Counter(f"{row.state}/{row.reason}" for row in rows.values())
    aloud(
        f"  {len(rows)} attempts of {len(year.asked)} people in {NIGHTS} nights, seed {SEED}: {posts} POSTs,"
        f" {len(calls)} calls, {deferred[0][0]} deferred by the last look, {year.refused} requests refused;"
        f" {year.rounds} rounds in {lived:.0f} s, judged in {time.monotonic() - begun - lived:.0f} s"
        f"\n  {dict(ends.most_common())}"
    )
    assert found == []
    assert len(at_wrong_times) > len(history.hours) / 4, "the judge must find faults when half a day is added"
    recorded = {attempt: each for attempt, each in documents.items() if call_evidence.is_recorded(each)}
    assert len(recorded) > len(documents) * 0.9, "only a process that dies does not record its look"
    for added in (timedelta(), timedelta(hours=12)):
        unexplained = [
            fault
            for attempt, document in recorded.items()
            for ring in history.rings_of[attempt]
            if ring.rang_at is not None  # a call that was cancelled in the carrier's queue is placed again
            for fault in call_evidence.faults(document, ring.accepted_at + added)
        ]
        assert bool(unexplained) == bool(added), unexplained[:5]
    assert {each["seals"]["state"] for each in documents.values()} == {"WHOLE"}
    assert not {row.state for row in rows.values()} & {"PENDING", "IN_PROGRESS"}, "attempts are still open"
    assert waiting[0][0] == 0
    for row in rows.values():
        rung, who = len(history.rings_of.get(row.id, ())), year.asked[row.interview_id]
        if row.reason in RUNG:
            assert rung == 1, f"{who} is {row.reason}, but was called {rung} times"
        elif row.reason in NOT_RUNG:
            assert rung == 0, f"{who} is {row.reason}, but was called"
        else:
            assert row.reason == "OUTCOME_UNKNOWN"
            assert rung <= 1, f"{who} was called {rung} times"
    for what in ("tokens_posted_twice", "tokens_with_two_calls", "calls_at_once"):
        assert verdict[what] == []
    assert deferred[0][0] > len(rows) / 200, "too few calls were deferred at the last look"
