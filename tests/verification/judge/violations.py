"""The judge: finds events that must never happen in a history. It shares no code with the system that it judges."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from uuid import UUID

from tests.verification.judge.history import ClientRequest, History, Ring, Row, Verb
from tests.verification.judge.hours import outside

OPEN = frozenset({"PENDING", "IN_PROGRESS"})
NOTHING_WAS_SENT = frozenset({"deferred", "not_placed"})
NO_PHONE_RANG = NOTHING_WAS_SENT | {"never_dialled"}
DOUBLE, LOST, EARLY = "duplicated", "lost", "early"
OUTSIDE, AFTER, UNEXPLAINED = "outside the window", "after cancel", "unexplained history"


class Wrong(StrEnum):
    """An event that must never happen."""

    RANG_AFTER_DELETE = "a ring after a 204 of DELETE"
    RANG_WHILE_ACCEPTED = "a ring after a 202, before the command was applied"
    RANG_AFTER_REPLACED = "a ring of an attempt after a 201 for its replacement"
    RANG_EARLY = "a ring before the due time in force"
    RANG_TWICE = "more rings than claims that were sent"
    RANG_UNCLAIMED = "a ring without a claim"
    RANG_GIVEN_BACK = "a ring of a returned claim"
    RANG_WHILE_PAUSED = "a ring while paused"
    RANG_EXPIRED = "a ring after expiry"
    TWO_LEGS = "two legs at once to one number"
    RANG_IN_GAP = "a ring to a number within its gap (F4-6)"
    LOST = "due and free, and neither rang nor ended with a reason"
    UNEXPLAINED = "a history that does not explain the row"
    RANG_OUTSIDE = "a ring outside the person's calling hours, or after the consent"
    TWO_OPEN = "more than one open attempt of an interview"

    @property
    def heading(self) -> str:
        """The heading under which the kits count it."""
        return _HEADINGS[self]


_HEADINGS = {
    **dict.fromkeys((Wrong.RANG_TWICE, Wrong.RANG_UNCLAIMED, Wrong.RANG_GIVEN_BACK), DOUBLE),
    **dict.fromkeys((Wrong.TWO_LEGS, Wrong.RANG_IN_GAP, Wrong.TWO_OPEN), DOUBLE),
    **dict.fromkeys((Wrong.RANG_AFTER_DELETE, Wrong.RANG_WHILE_ACCEPTED, Wrong.RANG_AFTER_REPLACED), AFTER),
    **dict.fromkeys((Wrong.RANG_WHILE_PAUSED, Wrong.RANG_EXPIRED), AFTER),
    Wrong.RANG_EARLY: EARLY,
    Wrong.RANG_OUTSIDE: OUTSIDE,
    Wrong.LOST: LOST,
    Wrong.UNEXPLAINED: UNEXPLAINED,
}


@dataclass(frozen=True, kw_only=True)
class Violation:
    kind: Wrong
    about: str
    """The attempt's id, or the number."""
    why: str


def violations(history: History) -> list[Violation]:
    """List all violations in a history."""
    return [
        *_of_rings(history),
        *_of_legs(history),
        *_of_gaps(history),
        *(violation for row in history.attempts for violation in (*_unexplained(row), *_lost(history, row))),
        *_two_open(history),
        *_outside(history),
    ]


# ---- rings


def _of_rings(history: History) -> Iterator[Violation]:
    for ring in history.rings:
        row = history.attempt_of.get(ring.token or "")
        if row is None:
            yield Violation(kind=Wrong.RANG_UNCLAIMED, about=ring.number, why=f"at {ring.accepted_at}")
            continue
        for kind, why in _of_ring(history, row, ring):
            yield Violation(kind=kind, about=str(row.id), why=f"{ring.accepted_at}: {why}")
    for row in history.attempts:
        yield from _too_many(row, history.rings_of.get(row.id, []))


def _of_ring(history: History, row: Row, ring: Ring) -> Iterator[tuple[Wrong, str]]:
    assert ring.token is not None
    fate = row.fate_of(ring.token)
    if fate in NOTHING_WAS_SENT or (fate == "never_dialled" and ring.rang_at is not None):
        yield Wrong.RANG_GIVEN_BACK, f"its claim was {fate}"
    asked = history.asked_of_interview.get(row.interview_id, ())
    yield from _against_what_was_said(row, ring, asked)
    if fate not in NO_PHONE_RANG:
        yield from _early(row, ring, asked)
    yield from _paused(history, row, ring)
    expires_at = row.expires_as_of(ring.accepted_at)
    if ring.accepted_at >= expires_at + history.patience.in_flight:
        yield Wrong.RANG_EXPIRED, f"expired at {expires_at}"


def _against_what_was_said(row: Row, ring: Ring, asked: Iterable[ClientRequest]) -> Iterator[tuple[Wrong, str]]:
    for each in asked:
        mine = each.attempt_id == row.id
        is_after = each.is_done and ring.accepted_at > each.outcome.at
        if each.verb is Verb.DELETE and mine and is_after:
            yield Wrong.RANG_AFTER_DELETE, f"answered {each.outcome.status} at {each.outcome.at}"
        if each.verb is Verb.INVOKE and not mine and is_after and _was_made_before(row, each):
            yield Wrong.RANG_AFTER_REPLACED, f"answered {each.outcome.status} at {each.outcome.at}"
        holds = each.verb is Verb.INVOKE or (each.verb in {Verb.MOVE, Verb.DELETE} and mine)
        if holds and each.waits_at(ring.accepted_at):
            yield Wrong.RANG_WHILE_ACCEPTED, f"{each.verb} was accepted at {each.told.at}"


def _was_made_before(row: Row, invoke: ClientRequest) -> bool:
    return bool(row.happenings) and row.happenings[0].at <= invoke.asked_at


def _early(row: Row, ring: Ring, asked: Iterable[ClientRequest]) -> Iterator[tuple[Wrong, str]]:
    """Compare a ring with the earliest due time that may be in force, in any order of concurrent requests."""
    timed = [each for each in asked if each.attempt_id == row.id and each.due_at is not None and each.is_done]
    begun = [each for each in timed if each.asked_at <= ring.accepted_at]
    over = [each for each in begun if each.outcome.at <= ring.accepted_at]
    last_begun = max((each.asked_at for each in over), default=None)
    in_force = [
        each.due_at
        for each in begun
        # A time whose request was answered before a later request was sent is no longer in force.
        if each.due_at is not None and (last_begun is None or each.outcome.at >= last_begun)
    ]
    if in_force and ring.accepted_at < min(in_force):
        yield Wrong.RANG_EARLY, f"due at {min(in_force)}"


def _paused(history: History, row: Row, ring: Ring) -> Iterator[tuple[Wrong, str]]:
    claimed_at = next(claim.at for claim in row.claims if claim.token == ring.token)
    for begins, ends in history.pauses_of(row):
        if ends is not None and ring.accepted_at >= ends:
            continue
        if claimed_at > begins or ring.accepted_at > begins + history.patience.in_flight:
            yield Wrong.RANG_WHILE_PAUSED, f"paused at {begins}"


def _too_many(row: Row, rings: Sequence[Ring]) -> Iterator[Violation]:
    sent = sum(row.fate_of(claim.token) not in NOTHING_WAS_SENT for claim in row.claims)
    rang = [ring for ring in rings if ring.token and row.fate_of(ring.token) != "never_dialled"]
    if len(rings) > sent or len(rang) > 1 or len({ring.token for ring in rings}) < len(rings):
        yield Violation(kind=Wrong.RANG_TWICE, about=str(row.id), why=f"{len(rings)} rings of {sent} claims")


def _outside(history: History) -> Iterator[Violation]:
    for found in outside(history.clocks, history.hours):
        yield Violation(kind=Wrong.RANG_OUTSIDE, about=found.says, why=f"{found.why}, {found.wall} in {found.clock}")


def _of_legs(history: History) -> Iterator[Violation]:
    for number, rings in history.rings_to.items():
        for earlier, later in pairwise(rings):
            if earlier.overlaps(later):
                why = f"from {earlier.accepted_at} and from {later.accepted_at}"
                yield Violation(kind=Wrong.TWO_LEGS, about=number, why=why)
    calling = Counter(row.line for row in history.attempts if row.state == "IN_PROGRESS")
    for line, count in calling.items():
        if count > 1:
            yield Violation(kind=Wrong.TWO_LEGS, about=line, why=f"{count} attempts are in progress")


def _of_gaps(history: History) -> Iterator[Violation]:
    """Check that calls of other interviews, and all calls after an unknown outcome, wait for the number's gap."""
    for number, rings in history.rings_to.items():
        for place, later in enumerate(rings):
            row = history.attempt_of.get(later.token or "")
            if row is None:
                continue
            claimed_at = next(claim.at for claim in row.claims if claim.token == later.token)
            for earlier in rings[:place]:
                gap_begins = _gap_begins(history, earlier, row, claimed_at)
                if gap_begins is not None and later.accepted_at < gap_begins + history.patience.line_gap:
                    why = f"at {later.accepted_at}, and the gap begins at {gap_begins}"
                    yield Violation(kind=Wrong.RANG_IN_GAP, about=number, why=why)


def _gap_begins(history: History, earlier: Ring, row: Row, claimed_at: datetime) -> datetime | None:
    """Find when the gap after an earlier call begins, for a claim of `row`, or None without a gap."""
    of_earlier = history.attempt_of.get(earlier.token or "")
    if of_earlier is None or of_earlier.fate_of(earlier.token or "") == "never_dialled":
        return None
    verdicts = [each.at for each in of_earlier.happenings if each.reason == "OUTCOME_UNKNOWN" and each.at <= claimed_at]
    if verdicts:
        return verdicts[0]  # the gap cannot begin at the end of the call, which may never become known
    # A call that has not ended is reported as two legs.
    return None if of_earlier.interview_id == row.interview_id else earlier.ended_at


# ---- rows


def _unexplained(row: Row) -> Iterator[Violation]:
    def wrong(why: str) -> Violation:
        return Violation(kind=Wrong.UNEXPLAINED, about=str(row.id), why=why)

    if not row.happenings:
        yield wrong("the history is empty")
        return
    first, last = row.happenings[0], row.happenings[-1]
    if first.from_state:
        yield wrong(f"begins as {first.from_state}")
    if first.epoch != 0:
        yield wrong(f"begins with epoch {first.epoch}")
    for before, after in pairwise(row.happenings):
        if after.from_state != before.to_state:
            yield wrong(f"{after.event} left {after.from_state}, but the state was {before.to_state}")
        if after.epoch != before.epoch + 1:
            yield wrong(f"{after.event} has epoch {after.epoch} after {before.epoch}")
    if (last.to_state, last.reason, last.epoch) != (row.state, row.reason, row.epoch):
        yield wrong(f"ends as {last.to_state} {last.reason} {last.epoch}, and is {row.state} {row.reason} {row.epoch}")
    claimed = sum(happening.event == "claimed" for happening in row.happenings)
    if claimed != len(row.claims):
        yield wrong(f"claimed {claimed} times, with {len(row.claims)} tokens")


def _lost(history: History, row: Row) -> Iterator[Violation]:
    if row.state == "IN_PROGRESS" and not history.rings_of.get(row.id):
        since = row.happenings[-1].at if row.happenings else row.due_at
    elif row.state == "PENDING" and _is_free(history, row):
        since = row.due_at
    else:
        return
    if since + history.patience.lateness <= history.until:
        yield Violation(kind=Wrong.LOST, about=str(row.id), why=f"{row.state} since {since}")


def _is_free(history: History, row: Row) -> bool:
    """Check whether no command, no pause and no call to its number explains that the attempt waits."""
    patience = history.patience
    waits = any(each.waits_at(history.until) for each in history.asked_of_interview.get(row.interview_id, ()))
    paused = any(ends is None or ends + patience.lateness > history.until for _, ends in history.pauses_of(row))
    rings = [ring for number in history.numbers_of_line[row.line] for ring in history.rings_to[number]]
    free_from = history.until - patience.line_gap - patience.lateness
    return not (waits or paused or any(ring.ended_at is None or ring.ended_at > free_from for ring in rings))


def _two_open(history: History) -> Iterator[Violation]:
    """Find interviews with two open attempts at any moment, by the order in which the histories were written."""
    by_interview: dict[UUID, list[tuple[int, UUID, str]]] = defaultdict(list)
    for row in history.attempts:
        by_interview[row.interview_id].extend((each.seq, row.id, each.to_state) for each in row.happenings)
    for interview_id, moves in by_interview.items():
        is_open: set[UUID] = set()
        for _, attempt_id, state in sorted(moves):
            (is_open.add if state in OPEN else is_open.discard)(attempt_id)
            if len(is_open) > 1:
                yield Violation(kind=Wrong.TWO_OPEN, about=str(interview_id), why=f"{len(is_open)} attempts")
                break
