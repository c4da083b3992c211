"""Snapshot of the database between two steps, and the rules that it must always satisfy."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg

from tests.verification.judge.evidence import rows_over
from tests.verification.judge.history import Row
from tests.verification.judge.hours import WEEK, Hours, lies_within

Fields = dict[str, Any]
RETRIED = {"BUSY", "NO_ANSWER", "VOICEMAIL", "CARRIER_ERROR", "INSTRUCTIONS_FAILED"}
RETRIED_ONCE = {"UNREACHABLE"}
FOLLOWED = {"CALL_BACK", "SCREENED", "HUNG_UP_EARLY", "TECHNICAL"}
REFUSALS = {"WRONG_PERSON", "OPTED_OUT"}
MOST_CALL_BACKS = 3
OVER = {"COMPLETED", "FAILED", "CANCELLED"}
_RINGS = (*(timedelta(seconds=second) for second in range(35)), timedelta(seconds=35) - timedelta.resolution)
"""Instants of the time for which a phone rings, with five seconds more."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    now: datetime
    attempts: dict[UUID, Fields]
    """Oldest first."""
    rows: tuple[Row, ...]
    interviews: dict[UUID, Fields]
    candidates: dict[UUID, Fields]
    companies: dict[UUID, Fields]
    lines: dict[bytes, Fields]
    held: frozenset[UUID]
    """Interviews with a command that is accepted and not yet applied."""
    account: Fields

    def of_interview(self, interview_id: UUID) -> list[Fields]:
        return [each for each in self.attempts.values() if each["interview_id"] == interview_id]

    def stops(self, attempt: Fields) -> Iterator[str]:
        """Yield the reasons that forbid releasing, claiming and dialling an attempt."""
        company, interview = self.companies[attempt["company_id"]], self.interviews[attempt["interview_id"]]
        if attempt["due_at"] > self.now:
            yield "not due"
        if attempt["expires_at"] <= self.now:
            yield "expired"
        if company["paused_at"] is not None or self.account["paused_at"] is not None:
            yield "paused"
        down, answered = self.account["down_until"], self.account["answered_at"]
        if down is not None and (answered is None or answered < down):
            yield "the carrier is down"
        if attempt["interview_id"] in self.held:
            yield "a command is waiting"
        if interview["deleted_at"] is not None or interview["status"] != "SCHEDULED":
            yield "its interview is over"

    def stops_claim(self, attempt: Fields) -> Iterator[str]:
        line = self.lines[attempt["number_hash"]]
        if attempt["state"] != "PENDING":
            yield attempt["state"]
        if line["attempt_id"] is not None:
            yield "its line is busy"
        if line["free_at"] > self.now and line["interview_id"] != attempt["interview_id"]:
            yield "its line is not free yet"
        yield from self.stops(attempt)

    def stops_ring(self, attempt: Fields, number: str) -> Iterator[str]:
        candidate = self.candidates[self.interviews[attempt["interview_id"]]["candidate_id"]]
        if attempt["phase"] != "DIALLING" or attempt["lease_until"] <= self.now:
            yield "it has no lease"
        if self.lines[attempt["number_hash"]]["attempt_id"] != attempt["id"]:
            yield "its line is not held"
        if candidate["phone_number"] != number:
            yield "the number is not the candidate's"
        if not self._is_open(attempt):
            yield "the window is closed"
        yield from self.stops(attempt)

    def _is_open(self, attempt: Fields) -> bool:
        """Check whether the window, the same each day, stays open in every zone while the phone rings."""
        intervals = self.companies[attempt["company_id"]]["settings"]["callTimeIntervals"]
        hours = [Hours(WEEK, each["start"], each["end"]) for each in intervals]
        for zone in attempt["schedule"]["zones"]:
            for span in _RINGS:
                wall = (self.now + span).astimezone(ZoneInfo(zone))
                if not lies_within(hours, wall.weekday(), wall.hour * 3600 + wall.minute * 60 + wall.second):
                    return False
        return True


def read_snapshot(connection: psycopg.Connection[Fields], now: datetime) -> Snapshot:
    def by(key: str, query: str) -> dict[Any, Fields]:
        return {row[key]: row for row in connection.execute(query.encode())}

    held = connection.execute("SELECT DISTINCT interview_id FROM inbox WHERE applied_at IS NULL")
    return Snapshot(
        now=now,
        attempts=by("id", "SELECT * FROM attempts ORDER BY created_at, retry_number"),
        rows=rows_over(connection),
        interviews=by("id", "SELECT * FROM interviews ORDER BY created_at, id"),
        candidates=by("id", "SELECT * FROM candidates ORDER BY created_at, id"),
        companies=by("id", "SELECT * FROM companies ORDER BY created_at, id"),
        lines=by("number_hash", "SELECT * FROM lines"),
        held=frozenset(row["interview_id"] for row in held if row["interview_id"] is not None),
        account=next(iter(connection.execute("SELECT * FROM carrier_accounts"))),
    )


def faults(snapshot: Snapshot, before: Snapshot) -> Iterator[str]:
    """Yield the broken rules. `before` is the snapshot of the previous step."""
    for attempt in snapshot.attempts.values():
        yield from _faults_of_attempt(snapshot, attempt)
        if attempt["id"] not in before.attempts:
            yield from _faults_of_new(snapshot, attempt)
    for interview in snapshot.interviews.values():
        yield from _faults_of_interview(snapshot, interview)
    calling = [each["number_hash"] for each in snapshot.attempts.values() if each["state"] == "IN_PROGRESS"]
    if len(calling) > len(set(calling)):
        yield "two calls to one number are in progress"


def _faults_of_attempt(snapshot: Snapshot, attempt: Fields) -> Iterator[str]:
    interview = snapshot.interviews[attempt["interview_id"]]
    candidate = snapshot.candidates[interview["candidate_id"]]
    # A call that was found late and has ended may wait for a report. Its line is free.
    has_live_leg = attempt["state"] == "FAILED" and attempt["look_at"] is not None and attempt["hung_up_at"] is None
    is_busy = attempt["state"] == "IN_PROGRESS" or has_live_leg
    if is_busy != any(line["attempt_id"] == attempt["id"] for line in snapshot.lines.values()):
        yield f"{attempt['id']} is {'busy without' if is_busy else 'not busy and has'} a line"
    if is_busy and snapshot.lines[attempt["number_hash"]]["attempt_id"] != attempt["id"]:
        yield f"{attempt['id']} does not hold the line of its number"
    if attempt["state"] in OVER and attempt["search_at"] is None and attempt["called_number"] is not None:
        yield f"{attempt['id']} is finished and still has the called number"
    if attempt["search_at"] is not None and (attempt["reason"] != "OUTCOME_UNKNOWN" or attempt["call_sid"] is not None):
        yield f"{attempt['id']} is searched for, but has a call or another reason"
    if candidate["erased_at"] is not None and attempt["state"] in OVER and attempt["called_number"] is not None:
        yield f"{attempt['id']} is finished and has the number of an erased candidate"
    if candidate["erased_at"] is not None and candidate["leaving_at"] is None and attempt["outcome_note"] is not None:
        yield f"{attempt['id']} has a note about an erased candidate"
    gone = interview["deleted_at"] is not None or candidate["erased_at"] is not None
    if attempt["state"] == "PENDING" and gone:
        yield f"{attempt['id']} is pending, but its interview or candidate is deleted"


def _faults_of_new(snapshot: Snapshot, attempt: Fields) -> Iterator[str]:
    """Yield the faults of a new attempt: its place in the chain, and a retry that the policy forbids."""
    chain = [each for each in snapshot.attempts.values() if each["chain_id"] == attempt["chain_id"]]
    if [each["retry_number"] for each in chain] != list(range(len(chain))):
        yield f"the chain of {attempt['id']} does not count from 0"
    if attempt["retry_number"] == 0:
        return
    most = snapshot.companies[attempt["company_id"]]["settings"]["retryPolicy"]["maxRetries"]
    if attempt["retry_number"] - attempt["call_backs"] > most:
        yield f"{attempt['id']} is retry {attempt['retry_number']} of {most}"
    if attempt["call_backs"] > MOST_CALL_BACKS:
        yield f"{attempt['id']} calls back {attempt['call_backs']} times"
    if len(chain) > 1 and not _is_followed(chain[-2]):
        yield f"{attempt['id']} is an automatic retry after {chain[-2]['reason']} {chain[-2]['outcome']}"
    for reason in RETRIED_ONCE:
        if sum(each["reason"] == reason for each in chain) > 1:
            yield f"the chain of {attempt['id']} was retried twice after {reason}"


def _is_followed(ended: Fields) -> bool:
    """Check whether an automatic attempt may follow: a conversation that was answered decides by its outcome."""
    if ended["outcome"] in REFUSALS:
        return False
    if ended["reason"] == "ANSWERED":
        return ended["outcome"] in FOLLOWED
    return ended["reason"] in RETRIED | RETRIED_ONCE


def _faults_of_interview(snapshot: Snapshot, interview: Fields) -> Iterator[str]:
    attempts = snapshot.of_interview(interview["id"])
    is_open = sum(each["state"] in {"PENDING", "IN_PROGRESS"} for each in attempts)
    if is_open > 1:
        yield f"{interview['id']} has {is_open} open attempts"
    allowed = _allowed_statuses(snapshot, interview, attempts)
    if interview["status"] not in allowed:
        story = [(each["state"], each["reason"]) for each in attempts]
        yield f"{interview['id']} is {interview['status']}, not one of {sorted(allowed)}: {story}"


def _allowed_statuses(snapshot: Snapshot, interview: Fields, attempts: list[Fields]) -> set[str]:
    gone = interview["deleted_at"] is not None
    gone = gone or snapshot.candidates[interview["candidate_id"]]["erased_at"] is not None
    states = [each["state"] for each in attempts]
    if gone:
        return {"CANCELLED", *({"COMPLETED"} if "COMPLETED" in states else {"FAILED"} if "FAILED" in states else set())}
    outcomes = {each["outcome"] or "FINISHED" for each in attempts if _is_decided(each)}
    if outcomes == {"FINISHED"}:
        return {"COMPLETED"}
    reported = {"COMPLETED"} if "FINISHED" in outcomes else set()
    if any(each["outcome"] is not None for each in attempts):
        # A refusal cancels a pending attempt, and leaves the status to the rules of its reason.
        reported |= _STATUSES_OF_REPORTS
    if any(each["outcome_until"] is not None for each in attempts):
        return {"SCHEDULED", *reported}
    if {"PENDING", "IN_PROGRESS"} & set(states):
        return {"SCHEDULED"}
    if any(each["look_at"] is not None for each in attempts):
        return {"SCHEDULED", "FAILED", *reported}
    # The last attempt was cancelled. An earlier attempt may have been proven to have failed since.
    return {"FAILED", *reported} if states and states[-1] != "CANCELLED" else {"SCHEDULED", "FAILED", *reported}


_STATUSES_OF_REPORTS = {"FAILED", "CANCELLED", "COMPLETED"}


def _is_decided(attempt: Fields) -> bool:
    return bool(attempt["state"] == "COMPLETED" and attempt["outcome_until"] is None)
