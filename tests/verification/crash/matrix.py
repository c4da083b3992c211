"""The crash matrix: its cells, the lanes that run them, and the faults found in each."""

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg

from scheduler.clock import monotonic
from scheduler.domain.attempt import Reason
from scheduler.domain.company import CallLimits, RetryPolicy
from scheduler.failpoints import OF_BATCHES, OF_DELIVERIES, OF_ERASING, OF_LEAVING, OF_PROBING, OF_THE_DIAL
from scheduler.persistence import schema
from tests.support.builders import FOREVER
from tests.support.servers import SimulatedCarrier
from tests.verification.carrier.apart import a_carrier_apart
from tests.verification.crash.behaviours import (
    CALLING_BACK,
    LISTED,
    LIVE,
    NEVER_ACCEPTED,
    NOT_YET_SENT,
    OPENING,
    SHORT,
    USUAL,
)
from tests.verification.crash.conversations import CONVERSATIONS, OF_CONVERSATIONS
from tests.verification.crash.refused_numbers import OF_REFUSED_NUMBERS, REFUSED_NUMBERS
from tests.verification.crash.stories import EVERY_HOUR, STORIES, Cell, Play, cells, play
from tests.verification.judge.evidence import rings_from, rows_of
from tests.verification.judge.history import ClientRequest, History, Patience
from tests.verification.judge.hours import Hours, RingHours
from tests.verification.judge.violations import AFTER, DOUBLE, EARLY, LOST, OUTSIDE, UNEXPLAINED, violations
from tests.verification.world.workers import LONGER, SETTINGS, CrashSetup, at_work
from tests.verification.world.wrong_clock import AHEAD, BEHIND, FROM_THE_BEGINNING, REFUSED, SET_AHEAD, SET_BACK

WHOLE = bool(os.environ.get("DUECALL_CRASHES"))
"""Run every cell, as `make crash` does. Otherwise run one cell per failpoint."""
CHOSEN = os.environ.get("DUECALL_CELLS", "")
"""Run only the cells whose name contains this text, for example `settle.asked x`."""
AT_ONCE = 8
BETWEEN_ROUNDS_S = 0.8
"""A third of the CPU goes to rounds of clocks and settlers that find nothing to do."""
AGAIN = 3
"""Maximum number of repetitions of a cell for which the machine was too busy."""
COMPANY: dict[str, Any] = {
    "limits": CallLimits(concurrent_calls=1000, calls_per_second=1000.0),
    "retry_policy": RetryPolicy(max_retries=1, delays=dict.fromkeys(("BUSY", "NO_ANSWER"), (timedelta(seconds=1),))),
}
PATIENCE = Patience(
    in_flight=timedelta(seconds=2), lateness=timedelta(0), line_gap=timedelta(seconds=float(SETTINGS["LINE_GAP_S"]))
)
"""A call whose last look preceded a pause or change is sent within 200 ms and rings when the carrier reaches it. At the
end of a cell nothing waits."""
ZONE = "Europe/Bratislava"


_SUBMIT = ("submit.accepting", "submit.accepted", "submit.rung")
_APPLY = ("apply.doing", "apply.answering", "apply.applied")
_WRITE = ("write.writing", "write.answering", "write.written")
_NOTHING_IS_SENT = ("answered", "accept_and_silence")
"""Two behaviours suffice for stories whose first process never reaches the carrier."""

CELLS = (
    # The slowest cells come first.
    *cells("defer to an opening", ["dial.deferring", "dial.deferred"], _NOTHING_IS_SENT),
    *cells("probe", OF_PROBING, OPENING),
    *cells("release", ["release.released"], NOT_YET_SENT),
    *cells("settle", ["settle.failing"], (*NEVER_ACCEPTED, "unprovable")),
    *cells(
        "dial",
        ["dial.claimed", "dial.looked", "dial.permitted"],
        ("answered", "accept_and_silence", "refuse_500", "busy"),
    ),
    *cells("settle", ["settle.lapsing", "settle.lapsed", "settle.taken"], (*LISTED, "unlisted", "refuse_500", "429")),
    *cells("settle", ["settle.asked", "settle.settled"], (*LISTED, "unlisted", "unprovable", "drop", "bad_number")),
    *cells("settle", ["settle.proving"], LISTED),
    *cells("dial", ["dial.sent", "dial.answered", "dial.recording", "dial.recorded", "dial.judged"], USUAL),
    *cells("dial", ["dial.taken", "dial.claiming"], NOT_YET_SENT),
    *cells("create", _SUBMIT, NOT_YET_SENT),
    *cells("message", ["message.authorised", "message.taken"], NOT_YET_SENT),
    *cells("apply create", ["apply.locking", *_APPLY], NOT_YET_SENT),
    *cells("release", ["release.releasing", "release.rung"], NOT_YET_SENT),
    *cells("remind", ["release.reminding"], NOT_YET_SENT),
    *cells("store", ["hear.storing", "hear.stored", "hear.rung"], CALLING_BACK),
    *cells("hear", ["hear.hearing", "hear.heard"], CALLING_BACK),
    *cells("apply PATCH", _APPLY, ("answered", "busy", "slow")),
    *cells("apply invoke", _APPLY, ("answered", "busy", "slow")),
    *cells("another number", _WRITE, ("answered", "busy", "slow", "429")),
    *cells("erase", OF_ERASING, LIVE),
    *cells("erase a person", OF_LEAVING, _NOTHING_IS_SENT),
    *cells("hang up", ["cancel.hung_up"], LIVE),
    *cells("cancel on record", OF_ERASING, ("queued",)),
    *cells("hang up on record", ["cancel.hung_up"], ("talking", "talking_silent", "unnamed")),
    *cells("die before record", ["dial.answered"], ("talking", "talking_silent", "queued")),
    *cells("delete at the door", _SUBMIT, _NOTHING_IS_SENT),
    *cells("apply DELETE", [*_APPLY, "cancel.cancelling"], _NOTHING_IS_SENT),
    *cells("apply cancellation", [*_APPLY, "cancel.cancelling"], _NOTHING_IS_SENT),
    *cells("store batch", [*OF_BATCHES[:1], *_WRITE[1:]], _NOTHING_IS_SENT),
    *cells("apply batch", OF_BATCHES[1:4], NOT_YET_SENT),
    *cells("cancel batch", OF_BATCHES[4:], _NOTHING_IS_SENT),
    *cells("number", OF_DELIVERIES[:1], _NOTHING_IS_SENT),
    *cells("deliver", OF_DELIVERIES[1:], _NOTHING_IS_SENT),
    *cells("replay", _WRITE, ("answered",)),
    *cells("report create", _APPLY, ("answered", "busy")),
    *cells("report DELETE", [*_APPLY, "cancel.cancelling"], ("answered",)),
    *cells("report dial", ["dial.claiming", "dial.claimed", "dial.recording", "dial.recorded"], ("answered", "busy")),
    *cells("report hear", ["hear.hearing", "hear.heard"], ("answered", "busy")),
    *cells("report settle", ["settle.lapsing", "settle.lapsed", "settle.settled"], ("answered", "busy")),
    *cells("expire", ["settle.expiring", "settle.expired"], _NOTHING_IS_SENT),
    *cells("defer for good", ["dial.deferring", "dial.deferred"], _NOTHING_IS_SENT),
    *OF_CONVERSATIONS,
    *OF_REFUSED_NUMBERS,
)


def _clock_cells(story: str, failpoints: Sequence[str], behaviours: Sequence[str]) -> Iterator[Cell]:
    """Yield cells with a clock that changes at each failpoint, and cells with a clock that is wrong from the start."""
    for cell in cells(story, failpoints, behaviours):
        yield from (replace(cell, clock=clock) for clock in (SET_AHEAD, SET_BACK))
    for cell in cells(story, failpoints[:1], behaviours):
        yield from (replace(cell, clock=clock) for clock in (AHEAD, BEHIND))


CLOCK_CELLS = (
    *_clock_cells("settle", ["settle.lapsing", "settle.lapsed", "settle.taken"], ("answered", "unlisted")),
    *_clock_cells("settle", ["settle.asked", "settle.proving", "settle.settled"], ("answered", "busy")),
    *_clock_cells("settle", ["settle.failing"], ("refuse_500",)),
    *_clock_cells("release", ["release.releasing", "release.released", "release.rung"], ("answered", "busy")),
    *_clock_cells("remind", ["release.reminding"], ("answered",)),
    *_clock_cells(
        "dial",
        [name for name in OF_THE_DIAL if name != "dial.taken"],
        ("answered", "accept_and_silence", "bad_number", "busy"),
    ),
    *_clock_cells("dial", ["dial.taken"], ("answered", "busy")),
    *_clock_cells("create", _SUBMIT, ("answered",)),
    *_clock_cells("message", ["message.authorised", "message.taken"], ("answered",)),
    *_clock_cells("delete at the door", _SUBMIT, ("answered",)),
    *_clock_cells("another number", _WRITE, ("answered",)),
    *_clock_cells("apply create", ["apply.locking", *_APPLY], ("answered", "busy")),
    *_clock_cells("apply PATCH", _APPLY, ("answered", "busy")),
    *_clock_cells("apply invoke", _APPLY, ("answered", "busy")),
    *_clock_cells("apply DELETE", ["apply.doing", "apply.applied", "cancel.cancelling"], ("answered",)),
    *_clock_cells("store", ["hear.storing", "hear.stored", "hear.rung"], ("answered", "busy")),
    *_clock_cells("hear", ["hear.hearing", "hear.heard"], ("answered", "busy", "declined")),
    *_clock_cells("expire", ["settle.expiring", "settle.expired"], ("answered",)),
    *_clock_cells("end the wait", ["settle.finishing", "settle.finished"], ("answered",)),
)
"""A machine's clock differs from the database's by an hour, from the start or suddenly. No other fault occurs."""

SOME_CLOCK_CELLS = (
    Cell(story="dial", failpoint="dial.claiming", behaviour="answered", clock=BEHIND),
    Cell(story="dial", failpoint="dial.permitted", behaviour="answered", clock=SET_BACK),
    Cell(story="dial", failpoint="dial.recording", behaviour="bad_number", clock=SET_AHEAD),
    Cell(story="apply PATCH", failpoint="apply.doing", behaviour="answered", clock=AHEAD),
    Cell(story="hear", failpoint="hear.hearing", behaviour="busy", clock=SET_AHEAD),
)
"""Fast cells that `make test` runs."""

_QUICK = frozenset({"defer for good"})


def is_chosen(what: object) -> bool:
    return CHOSEN in str(what)


def one_of_each(cells: Sequence[Cell]) -> list[Cell]:
    """Choose one cell for every failpoint, a quick one if there is any."""
    cell_of: dict[str, Cell] = {}
    for cell in cells:
        if cell.failpoint not in cell_of or cell.story in _QUICK:
            cell_of[cell.failpoint] = cell
    return list(cell_of.values())


# ---- faults

OTHER = "other"
_HEADINGS = (DOUBLE, LOST, EARLY, OUTSIDE, AFTER, UNEXPLAINED, OTHER)
_OF_STARVED = frozenset({LOST, UNEXPLAINED, OTHER})
"""Headings of the faults that a machine may cause that is too busy."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    heading: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Judged:
    cell: Cell
    rings: int
    reasons: Sequence[str]
    faults: Sequence[Fault]
    seconds: float
    is_starved: bool = False
    """The machine was too busy for these short times, so more outcomes are unknown than expected. In doubt the phone
    stays silent, and the cell is repeated."""

    @property
    def unknown(self) -> int:
        """Number of attempts with an unknown outcome, which an operator must decide."""
        return self.reasons.count(Reason.OUTCOME_UNKNOWN)


def judged(played: Play, url: str, seconds: float) -> Judged:
    """Judge a cell by the carrier's ledger, the rows and their histories, and the answers to callers."""
    rings = played.rings()
    reasons = [each.reason for each in played.attempts()] if played.is_judged_by_its_rows else []
    faults = [
        *_never(played, url, rings),
        *_of_processes(played),
        *_of_ending(played, len(rings), reasons),
        *_of_the_tenant(played),
    ]
    return Judged(
        cell=played.cell,
        rings=len(rings),
        reasons=[str(reason) for reason in reasons],
        faults=faults,
        seconds=seconds,
        is_starved=_is_starved(played, len(rings), reasons) and not {each.heading for each in faults} - _OF_STARVED,
    )


def _is_starved(played: Play, rings: int, reasons: Sequence[Reason | None]) -> bool:
    in_doubt = reasons.count(Reason.OUTCOME_UNKNOWN) > list(played.expected.reasons).count(Reason.OUTCOME_UNKNOWN)
    return played.is_starved or (in_doubt and rings <= played.expected.rings)


def _never(played: Play, url: str, rings: list[dict[str, Any]]) -> Iterator[Fault]:
    """Yield faults that no cell may have, even if it did not finish. Erased rows are not judged."""
    interviews = set(played.interviews()) if played.is_judged_by_its_rows else None
    people, asked, until = len(played.candidates), played.asked, played.tenant.now()
    hours = hours_of(rings, played.hours, played.consent_until)
    yield from faults_of(url, interviews, people, rings, hours, asked=asked, until=until)


def faults_of(
    url: str,
    interviews: Collection[UUID] | None,
    people: int,
    rings: list[dict[str, Any]],
    hours: tuple[RingHours, ...],
    *,
    until: datetime,
    asked: Sequence[ClientRequest] = (),
) -> Iterator[Fault]:
    """Judge these interviews by their rows, histories, the ledger, the hours and the answers to callers.

    Without interviews, only the hours of the rings are judged.
    """
    history = History(attempts=(), hours=hours, clocks=url, until=until, patience=PATIENCE)
    if interviews is not None:
        rows = tuple(row for row in rows_of(url) if row.interview_id in interviews)
        history = replace(history, attempts=rows, rings=rings_from(rings), asked=tuple(asked))
        if len(interviews) != people:
            yield Fault(heading=DOUBLE, why=f"{len(interviews)} interviews of {people} people")
    for violation in violations(history):
        yield Fault(heading=violation.kind.heading, why=f"{violation.kind}: {violation.why}")


def hours_of(
    rings: list[dict[str, Any]], hours: tuple[Hours, ...] = EVERY_HOUR, consent_until: date = FOREVER
) -> tuple[RingHours, ...]:
    """Return the calling hours of rings. All people in the matrix live in the Bratislava time zone."""
    return tuple(
        RingHours(
            sid=ring["sid"],
            at=rung.accepted_at,
            zones=(ZONE,),
            hours=hours,
            consent_until=consent_until,
            says=ring["to"],
        )
        for ring, rung in zip(rings, rings_from(rings), strict=True)
    )


def _of_processes(played: Play) -> Iterator[Fault]:
    clock = played.cell.clock
    if set(played.exits) - {-signal.SIGKILL} or not (played.exits or clock):
        yield Fault(heading=OTHER, why=f"the first processes ended with {played.exits}, not at their failpoint")
    if set(played.refused) - ({REFUSED} if clock in FROM_THE_BEGINNING else {0, REFUSED}):
        yield Fault(heading=OTHER, why=f"with a {clock} the first processes ended with {played.refused}")
    if any(played.others):
        yield Fault(heading=OTHER, why=f"the others ended with {played.others}")


def _of_ending(played: Play, rings: int, reasons: Sequence[Reason | None]) -> Iterator[Fault]:
    expected = played.expected
    if rings != expected.rings:
        yield Fault(heading=DOUBLE if rings > expected.rings else LOST, why=f"{rings} rings, not {expected.rings}")
    if played.is_judged_by_its_rows and list(reasons) != list(expected.reasons):
        yield Fault(heading=OTHER, why=f"ended as {reasons}, not {list(expected.reasons)}")


def _of_the_tenant(played: Play) -> Iterator[Fault]:
    tenant = played.tenant
    if paused := tenant.ask("SELECT pause_reason FROM companies WHERE paused_at IS NOT NULL"):
        yield Fault(heading=OTHER, why=f"an alarm paused a company: {paused}")
    if aside := tenant.ask(
        "SELECT 'command' FROM inbox WHERE quarantined_at IS NOT NULL OR failures > 0"
        " UNION ALL SELECT 'callback' FROM carrier_events WHERE quarantined_at IS NOT NULL OR failures > 0"
        " UNION ALL SELECT 'stray call' FROM stray_calls"
    ):
        yield Fault(heading=OTHER, why=f"failed, quarantined or stray: {aside}")
    if tenant.ask("SELECT 1 FROM lines WHERE attempt_id IS NOT NULL"):
        yield Fault(heading=OTHER, why="a line is still held")


# ---- lanes


@contextmanager
def _lanes(url: str, carrier: SimulatedCarrier, how_many: int) -> Iterator[list[tuple[str, CrashSetup]]]:
    """Start installations with a separate database each. A lane runs one cell at a time."""
    with ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(url, autocommit=True))
        template = _made(stack, admin, "crash_matrix")
        schema.upgrade(_url_of(url, template))
        lanes = []
        for number in range(how_many):
            lane = _url_of(url, _made(stack, admin, f"crash_lane_{number}", f" TEMPLATE {template}"))
            setup = at_work(lane, carrier, LONGER, everything=True, between_rounds_s=BETWEEN_ROUNDS_S, **COMPANY)
            lanes.append((lane, stack.enter_context(setup)))
        yield lanes


def _made(stack: ExitStack, admin: psycopg.Connection[Any], name: str, how: str = "") -> str:
    admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
    admin.execute(f"CREATE DATABASE {name}{how}".encode())
    stack.callback(lambda: admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode()))
    return name


def _url_of(url: str, database: str) -> str:
    return urlsplit(url)._replace(path=f"/{database}").geturl()


def run(url: str, cells: Sequence[Cell], say: Callable[[str], None]) -> list[Judged]:
    """Run all cells, up to eight at once, and return the results with their faults.

    Reports one line per finished cell and a summary table through `say`.
    """
    started = monotonic()
    free: SimpleQueue[tuple[str, CrashSetup]] = SimpleQueue()
    done: list[Judged] = []
    again: list[Judged] = []

    def play_on_a_free_lane(cell: Cell) -> None:
        lane = free.get()
        try:
            result = _played(cell, *lane)
            for _ in range(AGAIN):
                if not (result.faults and result.is_starved):
                    break
                again.append(result)
                say(f"        again: {line(result)}")
                result = _played(cell, *lane)
        finally:
            free.put(lane)
        done.append(result)
        say(f"{len(done):3}/{len(cells)} {line(result)}")

    with a_carrier_apart(SHORT) as carrier, _lanes(url, carrier, min(AT_ONCE, len(cells))) as lanes:
        for lane in lanes:
            free.put(lane)
        with ThreadPoolExecutor(len(lanes)) as pool:
            list(pool.map(play_on_a_free_lane, cells))  # after an interruption, only the running cells are finished
        verdict = carrier.verdict()
        rings = len(carrier.rings())
    say(table(done))
    say(
        f"{len(done)} cells, {len(again)} repetitions, {rings} rings in the ledger, {monotonic() - started:.0f} s;"
        f" the carrier's verdict: {verdict['tokens_posted_twice']} tokens posted twice,"
        f" {verdict['tokens_with_two_calls']} with two calls, {verdict['calls_at_once']} two legs at once"
    )
    assert len(again) <= max(8, len(cells) // 10), "the machine is too busy, or diallers give too many calls back"
    assert not verdict["tokens_posted_twice"]
    assert not verdict["tokens_with_two_calls"]
    assert not verdict["calls_at_once"]
    assert not verdict["unlike_twilio"]
    assert rings == sum(each.rings for each in [*done, *again]), "a phone rang after the end of its cell"
    return done


def _played(cell: Cell, url: str, setup: CrashSetup) -> Judged:
    began, played = monotonic(), Play(setup=setup, cell=cell)
    try:
        play(played, {**STORIES, **CONVERSATIONS, **REFUSED_NUMBERS}[cell.story])
        return judged(played, url, monotonic() - began)
    except BaseException as broken:  # noqa: BLE001 - a failed cell must not stop the others
        if played.is_starved:
            with suppress(BaseException):  # the call goes on, and its rings belong to this cell
                played.wait(played.is_over, "all attempts are finished")
                played.wait(lambda: all(ring["ended_at"] for ring in played.rings()), "no call is live")
        rings = played.rings()
        faults = [*_never(played, url, rings), Fault(heading=LOST, why=f"{type(broken).__name__}: {broken}")]
        return Judged(
            cell=cell,
            rings=len(rings),
            reasons=(),
            faults=faults,
            seconds=monotonic() - began,
            is_starved=played.is_starved and not {each.heading for each in faults} - _OF_STARVED,
        )


def line(result: Judged) -> str:
    cell = result.cell
    head = (
        f"{cell.failpoint:21} x {cell.behaviour:18} {cell.story:19} {cell.clock:15} {result.seconds:5.1f} s"
        f"  {result.rings} rang  {' '.join(result.reasons)}"
    )
    return "\n".join([head, *(f"        WRONG {each.heading}: {each.why}" for each in result.faults)])


def table(results: Sequence[Judged]) -> str:
    """Format a table with one row per component, named by the first word of its failpoints."""
    parts: dict[str, list[Judged]] = defaultdict(list)
    for each in results:
        parts[each.cell.failpoint.split(".")[0]].append(each)
    parts["all"] = list(results)
    rows: list[Sequence[object]] = [("", "failpoints", "cells", "rings", *_HEADINGS, "unknown")]
    for part, some in parts.items():
        faults = Counter(fault.heading for each in some for fault in each.faults)
        rows.append(
            (
                part,
                len({each.cell.failpoint for each in some}),
                len(some),
                sum(each.rings for each in some),
                *(faults[heading] for heading in _HEADINGS),
                sum(each.unknown for each in some),
            )
        )
    return "\n".join(" ".join(f"{str(each)[:12]:>12}" for each in row) for row in rows)
