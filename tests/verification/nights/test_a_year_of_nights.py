"""Year of nights: of ten thousand calls, none is outside the person's hours, lost, or placed twice.

    DUECALL_NIGHTS_PEOPLE=8500 python -m pytest tests/verification/nights/test_a_year_of_nights.py     # `make proof`

`make test` runs some hundreds. The judge shares no code with the product: see `judge`.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from tests.verification.nights.judge import Ring, outside
from tests.verification.nights.world import lies_within
from tests.verification.nights.year import RequestedCall, Year, a_year

PEOPLE = int(os.environ.get("DUECALL_NIGHTS_PEOPLE", "300"))
NIGHTS = max(12, min(80, PEOPLE // 60))
SEED = int(os.environ.get("DUECALL_NIGHTS_SEED", "20270104"))
RUNG = {"ANSWERED", "BUSY", "NO_ANSWER", "VOICEMAIL", "DECLINED", "CARRIER_ERROR", "INVALID_NUMBER"}
NOT_RUNG = {"EXPIRED", "CONSENT_EXPIRED"}


def rings_of(year: Year) -> list[tuple[UUID, dict[str, Any]]]:
    """Return the calls in the carrier's ledger, each with its attempt's id."""
    attempt_of = dict(tuple(row) for row in year.tenant.ask("SELECT token, attempt_id FROM attempt_tokens"))
    return [(attempt_of[call["token"]], call) for call in year.carrier.rings()]


def to_judge(asked: RequestedCall, retry_number: int, call: dict[str, Any]) -> list[Ring]:
    """Return the call as rings: when the carrier accepted it, and when the phone rang."""
    instants = {datetime.fromisoformat(call[name]) for name in ("accepted_at", "rang_at") if call[name]}
    return [_ring(asked, retry_number, str(call["sid"]), at) for at in sorted(instants)]


def _ring(asked: RequestedCall, retry_number: int, sid: str, at: datetime) -> Ring:
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
    return Ring(
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
    """Return whether the hours were open from the requested time until now, on the requested offset."""
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
        calls = rings_of(year)
        rows = year.tenant.ask("SELECT id, interview_id, retry_number, state, reason FROM attempts")
        verdict = year.carrier.verdict()
        deferred = year.tenant.ask("SELECT count(*) FROM attempt_history WHERE detail ->> 'cause' = 'WINDOW_CLOSED'")
        waiting = year.tenant.ask("SELECT count(*) FROM interviews WHERE status = 'SCHEDULED'")
        posts = len(year.carrier.requests())
    retry_number = {row.id: row.retry_number for row in rows}
    asked = {row.id: year.asked[row.interview_id] for row in rows}
    rings = [ring for attempt_id, call in calls for ring in to_judge(asked[attempt_id], retry_number[attempt_id], call)]
    faults = outside(postgres_url, rings)
    at_night = outside(postgres_url, [replace(each, at=each.at + timedelta(hours=12)) for each in rings])
    rung = Counter(attempt_id for attempt_id, _ in calls)
    ends = Counter(f"{row.state}/{row.reason}" for row in rows)
    aloud(
        f"  {len(rows)} attempts of {len(year.asked)} people in {NIGHTS} nights, seed {SEED}: {posts} POSTs,"
        f" {len(calls)} calls, {deferred[0][0]} deferred by the last look, {year.refused} requests refused;"
        f" {year.rounds} rounds in {lived:.0f} s, judged in {time.monotonic() - begun - lived:.0f} s"
        f"\n  {dict(ends.most_common())}"
    )
    assert faults == [], f"{len(faults)} calls outside the person's hours"
    assert len(at_night) > len(rings) / 4, "the judge must find faults when half a day is added"
    assert {f"{row.state}/{row.reason}" for row in rows if row.state in {"PENDING", "IN_PROGRESS"}} == set(), (
        "attempts are still open"
    )
    assert waiting[0][0] == 0
    assert all(times == 1 for times in rung.values()), "an attempt rang twice"
    for row in rows:
        if row.reason in RUNG:
            assert rung[row.id] == 1, f"{asked[row.id]} is {row.reason}, but was not called"
        elif row.reason in NOT_RUNG:
            assert rung[row.id] == 0, f"{asked[row.id]} is {row.reason}, but was called"
        else:
            assert row.reason == "OUTCOME_UNKNOWN"
    for what in ("tokens_posted_twice", "tokens_with_two_calls", "calls_at_once"):
        assert verdict[what] == []
    assert deferred[0][0] > len(rows) / 200, "too few calls were deferred at the last look"
