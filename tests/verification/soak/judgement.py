"""The verdict on a soak, from the carrier's ledger, the rows and the callers' responses, counted as Jepsen does."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from math import ceil
from typing import Any
from uuid import UUID

from tests.verification.judge.evidence import rings_from, rows_of
from tests.verification.judge.history import Claim, ClientRequest, ClientResponse, History, Patience, Row, Verb
from tests.verification.judge.hours import WEEK, Hours, RingHours
from tests.verification.judge.violations import AFTER, DOUBLE, EARLY, LOST, OUTSIDE, UNEXPLAINED, violations
from tests.verification.soak.callers import ACCEPTED, Question
from tests.verification.soak.people import NEVER_LISTED, Person
from tests.verification.soak.ring_evidence import judge_evidence, rung_from
from tests.verification.soak.soak_setup import LATE_OPENING, LEASE_S, TIMES, Blow, SoakSetup

_CONSENT_UNTIL = date(2030, 1, 1)
_PATIENCE = Patience(
    in_flight=timedelta(seconds=2),
    lateness=timedelta(seconds=5),
    line_gap=timedelta(seconds=float(TIMES["LINE_GAP_S"])),
)
_A_WHILE = timedelta(seconds=1)
TOO_LATE = frozenset({"OUTSIDE_CALL_TIME_INTERVAL", "SCHEDULE_IN_PAST"})
"""Refusals that a timely request may receive, because the API was down until the request was too late."""
_REFUSED = 300
_LET_TIME_OUT = "NO_ANSWER_IN_TIME"
_CARRIER = "the carrier cut the POST, refused it with a 5xx or let it time out"
_DIALLER = "its dialler ended, or had no database, between the claim and the record; or the carrier went down"
ZEROS = (
    *(LOST, DOUBLE, OUTSIDE, AFTER, EARLY, "stuck", "accepted and never finished", "told and not there", UNEXPLAINED),
    *("undecided and unexplained", "forged and heard", "wrong clock", "alerts", "partners"),
    *("unlike Twilio", "without a conversation", "voice server", "evidence"),
)


@dataclass
class Verdict:
    faults: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in ZEROS})
    undecided: list[str] = field(default_factory=list)
    """The cause of each OUTCOME_UNKNOWN."""
    numbers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Per verb: asked, ok, fail, info (no response)."""
    rings: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    """Lines for the reader, with what is not a fault."""

    @property
    def is_clean(self) -> bool:
        return not any(self.faults.values())


def judge(setup: SoakSetup, forged_and_heard: int) -> Verdict:
    verdict = Verdict()
    whole = setup.whole
    questions = [question for load in setup.loads for question in load.told()[0]]
    all_people = {person.turn: person for load in setup.loads for person in load.people}
    by_number = {person.number: person for person in all_people.values()}
    ledger = setup.at_carrier("GET", "/ledger").json()["rings"]
    requests = setup.at_carrier("GET", "/requests").json()["requests"]
    rows = rows_of(whole.running.databaseUrl)
    history = History(
        attempts=rows,
        rings=rings_from(ledger),
        asked=tuple(_asked(question) for question in questions if question.told_at is not None),
        hours=tuple(_hours_of(ledger, by_number)),
        clocks=whole.running.databaseUrl,
        until=whole.now(),
        patience=_PATIENCE,
    )
    verdict.rings = sum(ring["rang_at"] is not None for ring in ledger)
    verdict.attempts = Counter(row.reason or row.state for row in rows)
    for found in violations(history):
        verdict.faults[found.kind.heading].append(f"{found.kind}: {found.about} {found.why}")
    _of_the_carrier(verdict, setup)
    _of_what_is_there(verdict, setup, questions, rows)
    booked = {each for (each,) in whole.rows("SELECT attempt_id FROM usage")}
    completed = {each for (each,) in whole.rows("SELECT id FROM interviews WHERE status = 'COMPLETED'")}
    of_conversations(verdict, rows, ledger, booked=booked, completed=completed)
    evidence = judge_evidence(setup, list(rung_from(ledger, rows, by_number)))
    verdict.faults["evidence"] += evidence.faults
    verdict.notes.append(evidence.line)
    causes = dict(
        whole.rows(
            "SELECT attempt_id, (array_agg(detail->>'cause' ORDER BY id DESC))[1] FROM attempt_history"
            " WHERE event = 'answer_lost' GROUP BY attempt_id"
        )
    )
    of_the_undecided(verdict, rows, requests, causes, all_people, setup.blows)
    verdict.faults["forged and heard"] = [f"{forged_and_heard} forged callbacks"] if forged_and_heard else []
    return verdict


def _asked(question: Question) -> ClientRequest:
    assert question.told_at is not None
    assert question.status is not None
    applied = None
    if question.applied is not None and question.applied_at is not None:
        applied = ClientResponse(status=question.applied, at=question.applied_at)
    return ClientRequest(
        verb=Verb(question.verb),
        asked_at=question.asked_at,
        told=ClientResponse(status=question.status, at=question.told_at),
        applied=applied,
        interview_id=UUID(question.interview_id) if question.interview_id else None,
        attempt_id=UUID(question.attempt_id) if question.attempt_id else None,
        due_at=question.due_at,
    )


def _of_the_carrier(verdict: Verdict, setup: SoakSetup) -> None:
    said = setup.at_carrier("GET", "/verdict").json()
    for name in ("tokens_posted_twice", "tokens_with_two_calls", "calls_at_once"):
        verdict.faults[DOUBLE] += [f"the carrier reports {name}: {each}" for each in said[name]]
    verdict.faults["unlike Twilio"] += said["unlike_twilio"]
    if said["alive"]:
        verdict.faults["stuck"].append(f"{said['alive']} calls are still alive at the carrier")


def _hours_of(ledger: Sequence[dict[str, Any]], people: dict[str, Person]) -> Iterator[RingHours]:
    usual = (Hours(days=WEEK, start="08:00", end="20:00"),)
    late = (Hours(days=WEEK, start=LATE_OPENING, end="20:00"),)
    for ring in ledger:
        person = people[ring["to"]]
        yield RingHours(
            sid=ring["sid"],
            at=datetime.fromisoformat(ring["accepted_at"]),
            zones=(person.zone,),
            hours=late if person.opens_late else usual,
            consent_until=_CONSENT_UNTIL,
            says=f"person {person.turn}",
        )


def of_what_was_told(verdict: Verdict, questions: Sequence[Question], there: Collection[str]) -> list[str]:
    """Count the questions and judge their responses. Return the interviews that a response has named.

    `there` contains the ids of the interviews in the database.
    """
    verdict.numbers = defaultdict(Counter)
    told: list[str] = []
    for question in questions:
        outcome = question.applied if question.status == ACCEPTED else question.status
        kind = "info" if outcome is None else "ok" if outcome < _REFUSED else "fail"
        verdict.numbers[question.verb].update(["asked", kind])
        who = f"person {question.person}: {question.verb}"
        if outcome is None:
            what = "was never answered" if question.status is None else "was accepted"
            verdict.faults["accepted and never finished"].append(f"{who} {what}")
        if question.verb != Verb.CREATE:
            continue
        if kind == "fail" and question.code not in TOO_LATE:
            verdict.faults[LOST].append(f"{who} was refused: {outcome} {question.code}")
        if kind == "ok":
            told.append(str(question.interview_id))
            if question.interview_id not in there:
                verdict.faults["told and not there"].append(who)
    return told


def _of_what_is_there(verdict: Verdict, setup: SoakSetup, questions: Sequence[Question], rows: Sequence[Row]) -> None:
    there = {str(row[0]) for row in setup.whole.rows("SELECT id FROM interviews")}
    told = of_what_was_told(verdict, questions, there)
    if not verdict.rings:
        verdict.faults[LOST].append("no phone rang")
    waiting = setup.whole.rows("SELECT count(*) FROM inbox WHERE applied_at IS NULL")[0][0]
    if waiting:
        verdict.faults["accepted and never finished"].append(f"{waiting} commands wait in the inbox")
    unanswered = verdict.numbers[Verb.CREATE]["info"]
    if len(set(told)) != len(told) or not len(told) <= len(there) <= len(told) + unanswered:
        verdict.faults[DOUBLE].append(
            f"{len(there)} interviews, {len(set(told))} named in responses, {unanswered} unanswered"
        )
    with_attempts = {str(row.interview_id) for row in rows}
    verdict.faults[LOST] += [f"interview {each} has no attempt" for each in told if each not in with_attempts]
    verdict.faults["stuck"] += [f"attempt {row.id} is in progress" for row in rows if row.state == "IN_PROGRESS"]
    if unfinished := setup.whole.rows(
        "SELECT 'command', id FROM inbox WHERE quarantined_at IS NOT NULL"
        " UNION ALL SELECT 'callback', id FROM carrier_events WHERE quarantined_at IS NOT NULL OR heard_at IS NULL"
    ):
        verdict.faults["stuck"] += [f"{what} {each} is quarantined or was never processed" for what, each in unfinished]
    for reason, *_ in setup.whole.rows("SELECT pause_reason FROM companies WHERE paused_at IS NOT NULL"):
        verdict.faults["stuck"].append(f"a company is paused: {reason}")


def of_conversations(
    verdict: Verdict,
    rows: Sequence[Row],
    ledger: Sequence[Mapping[str, Any]],
    *,
    booked: Collection[UUID],
    completed: Collection[UUID],
) -> None:
    """Compare results with the conversations at the carrier: calls that were answered and got instructions.

    `booked` are attempts with usage, and `completed` are interviews.
    """
    had = {ring["token"] for ring in ledger if ring["instructed"]}
    conversed = {row.id for row in rows if any(claim.token in had for claim in row.claims)}
    interviews = {row.interview_id for row in rows if row.id in conversed}
    faults = verdict.faults["without a conversation"]
    faults += [f"attempt {row.id} is COMPLETED" for row in rows if row.state == "COMPLETED" and row.id not in conversed]
    faults += [f"attempt {each} is booked" for each in booked if each not in conversed]
    faults += [f"interview {each} is COMPLETED" for each in completed if each not in interviews]
    faults += [
        f"attempt {row.id} is INSTRUCTIONS_FAILED, but had instructions"
        for row in rows
        if row.reason == "INSTRUCTIONS_FAILED" and row.id in conversed
    ]
    without = sum(ring["instructed"] is False for ring in ledger)
    verdict.notes.append(
        f"{len(had)} conversations, {without} answered calls without instructions, {len(booked)} bookings"
    )


def of_the_undecided(
    verdict: Verdict,
    rows: Sequence[Row],
    requests: Sequence[dict[str, Any]],
    causes: Mapping[UUID, str],
    all_people: dict[int, Person],
    blows: Sequence[Blow],
) -> None:
    """Report each OUTCOME_UNKNOWN that no fault of the soak explains.

    `causes` maps attempts to the dialler's reason for the lost answer of the last POST. The carrier does not know it
    when a request was given up before it arrived.
    """
    sent = {request["token"]: request for request in requests}
    behaviours = {person.number: person.behaviour for person in all_people.values()}
    for row in rows:
        if row.reason != "OUTCOME_UNKNOWN":
            continue
        claim = row.claims[-1]
        is_late = causes.get(row.id) == _LET_TIME_OUT
        why = _CARRIER if is_late else _why(claim, sent.get(claim.token), behaviours, blows)
        if why is None:
            verdict.faults["undecided and unexplained"].append(f"{row.id}, claimed at {claim.at}")
        else:
            verdict.undecided.append(why)


def _why(
    claim: Claim, sent: Mapping[str, Any] | None, behaviours: Mapping[str, str], blows: Sequence[Blow]
) -> str | None:
    if sent is not None:
        status = sent["answered"]
        if behaviours.get(sent["to"]) in NEVER_LISTED or status is None or status >= 500:
            return _CARRIER
    lease_over = claim.at + timedelta(seconds=LEASE_S)
    for blow in blows:
        may_overlap = blow.began_at - _A_WHILE <= lease_over and blow.healed_at + _A_WHILE >= claim.at
        if blow.hurts_diallers and may_overlap:
            return _DIALLER
    return None


def nearest_rank(ordered: Sequence[float], part: float) -> float:
    """Compute a percentile of sorted values: the smallest value that is not below `part` of them."""
    return ordered[ceil(part * len(ordered)) - 1]


def lines(verdict: Verdict) -> Iterator[str]:
    """Yield the verdict as the lines of a table."""
    yield f"{'':34} {'asked':>7} {'ok':>7} {'fail':>7} {'info':>7}"
    for verb, counted in sorted(verdict.numbers.items()):
        yield f"{verb:34} " + " ".join(f"{counted[each]:>7}" for each in ("asked", "ok", "fail", "info"))
    yield f"{verdict.rings} rings; attempts: " + ", ".join(f"{n} {what}" for what, n in verdict.attempts.most_common())
    yield from verdict.notes
    for heading, faults in verdict.faults.items():
        yield f"{heading:34} {len(faults):>7}"
        yield from (f"    {each}" for each in faults[:10])
    yield f"{'undecided, by cause':34} {len(verdict.undecided):>7}"
    yield from (f"    {n:>5} {why}" for why, n in Counter(verdict.undecided).most_common())
