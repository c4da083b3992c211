"""What is played in a cell: a process does one step and dies in it, two do it again, and the works go on.

Where the cell has a wrong clock, that process does not die: its clock is wrong, or is set at the failpoint.

A story brings its person so far that the step is next, leaves that step to the processes that it starts, and lets go.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, Reason
from scheduler.domain.candidate import Candidate
from scheduler.domain.command import (
    Command,
    CommandKind,
    CreateInterview,
    DeleteAttempt,
    InvokeAttempt,
    Request,
    RescheduleAttempt,
)
from scheduler.domain.company import EVERY_DAY, CallTimeInterval
from scheduler.domain.principal import KeyKind
from scheduler.domain.refusals import NotFound
from scheduler.use_cases.resources.idempotent_writes import WriteRequest
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.submit import Submit
from tests.conftest import seed, wait_until
from tests.support.builders import (
    ALWAYS,
    FOREVER,
    ApiWriter,
    RecordingHints,
    Tenant,
    a_candidate,
    a_number,
    a_pending_attempt,
    of_company,
)
from tests.verification.crash.behaviours import BEHAVIOURS, NOBODY_KNOWS, SHORT, Ending
from tests.verification.crash.works import CALLBACK, CLOCK, Works, ended, nursery, stopped
from tests.verification.crash.wrong_clock import WrongClock
from tests.verification.histories.judge import Asked, Told, Verb
from tests.verification.nights.world import Hours

EVERY_HOUR = (Hours(days=(0, 1, 2, 3, 4, 5, 6), start="00:00", end="00:00"),)
FAR_ROUNDS = 300
"""Rounds of settling until it dies: more than a lease and the wait for a proof take."""
PATIENCE_S = 120.0
_BETWEEN_LOOKS_S = 0.2
_STANDING = """
    WITH ours AS (SELECT id FROM interviews WHERE candidate_id = ANY(:ids))
    SELECT (SELECT count(*) FROM inbox
            WHERE applied_at IS NULL AND (interview_id IS NULL OR interview_id IN (SELECT id FROM ours))),
           count(*),
           count(*) FILTER (WHERE state IN ('PENDING', 'IN_PROGRESS') OR (state = 'FAILED' AND look_at IS NOT NULL))
    FROM attempts WHERE interview_id IN (SELECT id FROM ours)
"""
"""How many commands wait that may be about these people; how many attempts there are; how many may still ring."""
_DAY = timedelta(days=1)
_BRATISLAVA = ZoneInfo("Europe/Bratislava")
_OVER = ("completed", "busy", "no-answer", "failed", "canceled")


@dataclass(frozen=True, kw_only=True)
class Cell:
    story: str
    failpoint: str
    behaviour: str
    clock: str = ""
    """What is wrong with the clock of the first process of the step; empty: nothing, and it dies at the failpoint."""

    def __str__(self) -> str:
        return f"{self.failpoint} x {self.behaviour} ({self.story}{', ' if self.clock else ''}{self.clock})"


@dataclass(kw_only=True)
class Play:
    """One cell being played: who takes part, what was asked for, how its processes ended."""

    works: Works
    cell: Cell
    numbers: list[str] = field(default_factory=list)
    candidates: list[UUID] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    """Of the first process of each step, which must have died in it."""
    refused: list[int] = field(default_factory=list)
    """How those with a wrong clock ended: 0, or REFUSED."""
    others: list[int] = field(default_factory=list)
    diallers: list[Any] = field(default_factory=list)
    hours: tuple[Hours, ...] = EVERY_HOUR
    consent_until: date = FOREVER
    expected: Ending = NOBODY_KNOWS
    is_starved: bool = False
    """A dialler that was not given the machine for a whole lease has ended itself, as it must."""
    is_judged_by_its_rows: bool = True
    """False: they are erased."""

    @property
    def tenant(self) -> Tenant:
        return self.works.tenant

    @property
    def ordinarily(self) -> Ending:
        return BEHAVIOURS[self.cell.behaviour].ending

    # ---- who takes part

    def a_number(self, *rules: Mapping[str, Any]) -> str:
        number = a_number()
        self.numbers.append(number)
        for turn, rule in enumerate(rules or BEHAVIOURS[self.cell.behaviour].rules, start=1):
            self.works.carrier.plan(to=number, attempt=turn, **rule)
        return number

    def a_candidate(self, *rules: Mapping[str, Any]) -> Candidate:
        candidate = a_candidate(self.tenant, self.a_number(*rules))
        self.candidates.append(candidate.id)
        return candidate

    def a_pending_attempt(self, *rules: Mapping[str, Any], tenant: Tenant | None = None, **wishes: Any) -> Attempt:
        attempt = a_pending_attempt(tenant or self.tenant, self.a_number(*rules), **wishes)
        self.candidates.append(self.tenant.interview(attempt.interview_id).candidate_id)
        return attempt

    # ---- what its processes do

    def dies(self, step: str, *words: Any) -> None:
        if self.cell.clock:
            clock = self._a_wrong_clock()
            process = self.works.doing(
                step, *words, clock=clock, DUECALL_FAILPOINT=clock.failpoint(self.cell.failpoint)
            )
            self.refused.append(ended(process, within_s=60))
            assert clock.is_wrong.is_set(), f"{self.cell}: it has not come to its failpoint"
            return
        self.exits.append(ended(self.works.doing(step, *words, DUECALL_FAILPOINT=self.cell.failpoint), within_s=60))

    def twice(self, step: str, *words: Any) -> None:
        both = [self.works.doing(step, *words) for _ in range(2)]
        self.others += [ended(each, within_s=60) for each in both]

    def _a_wrong_clock(self) -> WrongClock:
        return WrongClock(kind=self.cell.clock, is_wrong=nursery.Event())

    def dies_dialling(self, attempt: Attempt, failpoint: str | None = None) -> None:
        if self.cell.clock and failpoint is None:
            clock = self._a_wrong_clock()
            process = self.works.dialling(
                [attempt.id], clock=clock, DUECALL_FAILPOINT=clock.failpoint(self.cell.failpoint)
            )
            self.diallers.append(process)
            self.wait(clock.is_wrong.is_set, "its clock is wrong")
            return
        process = self.works.dialling([attempt.id], DUECALL_FAILPOINT=failpoint or self.cell.failpoint)
        self.exits.append(ended(process, within_s=60))

    def dialled_twice(self, attempt: Attempt) -> None:
        """Two that are handed the same hint; they keep it in their hand until the end."""
        self.diallers += [self.works.dialling([attempt.id]) for _ in range(2)]

    # ---- what callers do

    def submit(self, request: Request) -> Command:
        submit = Submit(self.tenant.database, RecordingHints(), self.tenant.now)
        return submit.command(
            self.tenant.principal, None, request, idempotency_key=str(uuid4()), request_hash=b"the same"
        ).command

    def command(self, reference: str, principal: Any = None) -> Command | None:
        """What became of it; None: it was never accepted."""
        try:
            return Submit(self.tenant.database, RecordingHints(), self.tenant.now).find(
                principal or self.tenant.principal, reference
            )
        except NotFound:
            return None

    def note(self, verb: Verb, attempt: Attempt, begun: datetime, command: Command, **more: Any) -> None:
        """What the caller was told: 202 when it was accepted, and what it came to, when the worker had written it."""
        self.wait(lambda: self._is_applied(command), "the command is applied")
        applied = self.command(str(command.id))
        assert applied is not None
        assert applied.answer is not None
        assert applied.applied_at is not None
        made = {Verb.INVOKE: 201}.get(verb, 204)
        self.asked.append(
            Asked(
                verb=verb,
                asked_at=begun,
                told=Told(status=202, at=applied.received_at),
                applied=Told(status=409 if applied.answer.refusal else made, at=applied.applied_at),
                company_id=attempt.company_id,
                interview_id=attempt.interview_id,
                attempt_id=applied.answer.attempt_id if verb is Verb.INVOKE else attempt.id,
                **more,
            )
        )

    def _is_applied(self, command: Command) -> bool:
        found = self.command(str(command.id))
        return found is not None and found.applied_at is not None

    # ---- how it ends

    def wait(self, what: Callable[[], Any], says: str) -> Any:
        """Looked at five times a second: many wait at once, and each look costs the others."""
        next_look = 0.0

        def now_and_then() -> Any:
            nonlocal next_look
            if monotonic() < next_look:
                return None
            next_look = monotonic() + _BETWEEN_LOOKS_S
            return what()

        return wait_until(now_and_then, seconds=PATIENCE_S, says=f"{self.cell}: {says}")

    def interviews(self) -> list[UUID]:
        rows = self.tenant.ask(
            "SELECT id FROM interviews WHERE candidate_id = ANY(:ids) ORDER BY created_at", ids=self.candidates
        )
        return [row[0] for row in rows]

    def attempts(self) -> list[Attempt]:
        return [attempt for each in self.interviews() for attempt in self.tenant.attempts(each)]

    def is_over(self) -> bool:
        """In one statement: a retry is made with the end of the call before."""
        [[waiting, made, open_]] = self.tenant.ask(_STANDING, ids=self.candidates)
        return made > 0 and not waiting and not open_

    def rings(self) -> list[dict[str, Any]]:
        return [ring for number in self.numbers for ring in self.works.carrier.rings(number)]


def play(played: Play) -> None:
    """Play the cell from its beginning to its end. Before, the carrier is as new, whatever the last cell has left.

    Failures close the account at once only while one company calls, so the companies of other cells are deleted.
    """
    works, cell = played.works, played.cell
    works.tenant.change(
        "UPDATE carrier_accounts SET failures = 0, down_until = NULL, down_cause = NULL, answered_at = NULL, trials = 0"
    )
    works.tenant.change("DELETE FROM carrier_backoffs")
    works.tenant.change(
        "UPDATE companies SET deleted_at = created_at WHERE id <> :own AND deleted_at IS NULL",
        own=works.tenant.company_id,
    )
    deaths = works.dialler.deaths
    played.expected = played.ordinarily
    try:
        STORIES[cell.story](played)
        if played.is_judged_by_its_rows:
            played.wait(played.is_over, "all is over")
        played.wait(lambda: all(ring["ended_at"] for ring in played.rings()), "no call is live")
    finally:
        played.others += stopped(*played.diallers)
        played.is_starved = -signal.SIGALRM in {*played.exits, *played.others} or works.dialler.deaths > deaths
        if any(request["answered"] is None for number in played.numbers for request in works.requests(number)):
            with works.leave(tasks.DIAL):  # whoever waits for that answer still would open the next cell's breaker
                works.dialler.stop()


# ---- intake


def _create(play: Play) -> None:
    key, candidate = str(uuid4()), play.a_candidate()
    words = (
        play.tenant.principal,
        CreateInterview(agent_id=play.tenant.agent_id, candidate_id=candidate.id),
        key,
    )
    play.dies("submit", *words)
    play.twice("submit", *words)


def _delete_as_it_is_dialled(play: Play) -> None:
    """A DELETE whose intake dies, while the clock rings for that very attempt: 204 or a ring, never both."""
    key = str(uuid4())
    with play.works.leave(CLOCK):
        attempt, begun = play.a_pending_attempt(), play.tenant.now()
        words = (play.tenant.principal, DeleteAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id), key)
        play.dies("submit", *words)
        was_accepted = play.command(key) is not None
        play.dialled_twice(attempt)
        play.twice("submit", *words)
    command = play.command(key)
    assert command is not None
    play.note(Verb.DELETE, attempt, begun, command)
    if was_accepted or play.asked[-1].is_done:
        play.expected = Ending(rings=0, reasons=(Reason.CANCELLED_BY_USER,))


def _message(play: Play) -> None:
    principal, _ = Keys(play.tenant.database, play.tenant.hasher, play.tenant.now).create(
        kind=KeyKind.REGULAR, name="a backend", company_id=play.tenant.company_id
    )
    message = {
        "apiKeyId": str(principal.key_id),
        "idempotencyKey": str(uuid4()),
        "kind": "create_interview",
        "body": {"candidateId": str(play.a_candidate().id), "agentId": str(play.tenant.agent_id)},
    }
    play.dies("take", message)
    play.twice("take", message)


def _write(play: Play) -> None:
    """A person has a new number from now on: the old one does not ring."""
    with play.works.leave(CLOCK):
        attempt = play.a_pending_attempt(SHORT)
        new_number = play.a_number()
        sent = WriteRequest(
            kind=CommandKind.UPDATE_CANDIDATE,
            principal=play.tenant.principal,
            idempotency_key=str(uuid4()),
            request_hash=b"the same",
        )
        candidate_id = play.tenant.interview(attempt.interview_id).candidate_id
        words = (sent, candidate_id, {"phone_number": new_number})
        play.dies("change_candidate", *words)
        play.twice("change_candidate", *words)
        play.dialled_twice(attempt)
    play.wait(play.is_over, "all is over")
    assert play.works.carrier.requests(play.numbers[0]) == [], "the old number was called"


# ---- applying


def _apply_create(play: Play) -> None:
    with play.works.leave(tasks.APPLY):
        candidate = play.a_candidate()
        command = play.submit(CreateInterview(agent_id=play.tenant.agent_id, candidate_id=candidate.id))
        play.dies("apply", command.id)
        play.twice("apply", command.id)


def _applied(play: Play, verb: Verb, attempt: Attempt, request: Request, **more: Any) -> None:
    """Accepted; the worker dies; the attempt is hinted at; and only then somebody applies it, twice."""
    begun = play.tenant.now()
    command = play.submit(request)
    play.dies("apply", command.id)
    play.dialled_twice(attempt)
    play.twice("apply", command.id)
    play.note(verb, attempt, begun, command, **more)


def _apply_move(play: Play) -> None:
    with play.works.leave(tasks.APPLY, CLOCK):
        attempt = play.a_pending_attempt()
        due_at = (play.tenant.now() + timedelta(seconds=5)).replace(microsecond=0)
        text = f"{due_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
        request = RescheduleAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id, scheduled_at=text)
        _applied(play, Verb.MOVE, attempt, request, due_at=due_at)


def _apply_delete(play: Play) -> None:
    with play.works.leave(tasks.APPLY, CLOCK):
        attempt = play.a_pending_attempt()
        _applied(play, Verb.DELETE, attempt, DeleteAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id))
    play.expected = Ending(rings=0, reasons=(Reason.CANCELLED_BY_USER,))


def _apply_invoke(play: Play) -> None:
    with play.works.leave(tasks.APPLY, CLOCK):
        attempt = play.a_pending_attempt()
        _applied(play, Verb.INVOKE, attempt, InvokeAttempt(interview_id=attempt.interview_id))
    play.expected = replace(play.ordinarily, reasons=(Reason.REPLACED, *play.ordinarily.reasons))


# ---- clock and dial


def _release(play: Play) -> None:
    with play.works.leave(CLOCK):
        attempt = play.a_pending_attempt()
        play.dies("look")
        play.twice("look")
        if play.cell.failpoint != "release.released":  # there the hint has died with the clock
            play.dialled_twice(attempt)


def _remind(play: Play) -> None:
    """A command whose ring was lost, and a clock that dies as it rings for it again."""
    with play.works.leave(CLOCK):
        candidate = play.a_candidate()
        command = play.submit(CreateInterview(agent_id=play.tenant.agent_id, candidate_id=candidate.id))
        play.tenant.change("UPDATE inbox SET rung_at = received_at - interval '1 minute' WHERE id = :id", id=command.id)
        play.dies("look")
        play.twice("look")


def _dial(play: Play) -> None:
    with play.works.leave(CLOCK):
        attempt = play.a_pending_attempt()
        play.dies_dialling(attempt)
        play.dialled_twice(attempt)
    if play.cell.clock:  # the claiming process gives it back, or writes what it knows
        return
    if play.cell.failpoint in {"dial.claimed", "dial.looked", "dial.permitted"}:
        play.expected = NOBODY_KNOWS
    if play.cell.failpoint in {"dial.sent", "dial.answered", "dial.recording"}:
        play.expected = BEHAVIOURS[play.cell.behaviour].when_unrecorded


def _defer_to_an_opening(play: Play) -> None:
    """Due at an hour that is shut, and about to open: the last look says when."""
    with play.works.leave(CLOCK):
        opening = (play.tenant.now() + timedelta(seconds=8)).astimezone(_BRATISLAVA)
        opening = opening.replace(second=0, microsecond=0) + timedelta(minutes=1)
        start = timedelta(hours=opening.hour, minutes=opening.minute)
        hours = CallTimeInterval(days=EVERY_DAY, start=start, end=start + timedelta(hours=2))
        company = seed(play.tenant.database, play.tenant.now(), intervals=(hours,))
        play.hours = (replace(EVERY_HOUR[0], start=_wall(start), end=_wall(start + timedelta(hours=2))),)
        attempt = play.a_pending_attempt(tenant=of_company(play.tenant, company))
        play.dies_dialling(attempt)
        play.dialled_twice(attempt)
    if play.cell.failpoint == "dial.deferring":
        play.expected = NOBODY_KNOWS


def _wall(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60) % (24 * 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _defer_for_good(play: Play) -> None:
    """Nobody is called after their consent."""
    play.consent_until = play.tenant.now().date() - _DAY
    with play.works.leave(CLOCK):
        attempt = play.a_pending_attempt(consent_until=play.consent_until)
        play.dies_dialling(attempt)
        play.dialled_twice(attempt)
    play.expected = Ending(rings=0, reasons=(Reason.CONSENT_EXPIRED,))
    if play.cell.failpoint == "dial.deferring":
        play.expected = NOBODY_KNOWS


# ---- hearing


def _store(play: Play) -> None:
    """Whoever takes in the carrier's first callback of this call dies."""
    with play.works.leave(CALLBACK):
        attempt = play.a_pending_attempt()
        received = play.wait(lambda: _received(play, attempt), "the carrier calls back")
        play.dies("callback", *received)
        play.twice("callback", *received)


def _received(play: Play, attempt: Attempt) -> tuple[Any, ...] | None:
    tokens = play.tenant.ask("SELECT token FROM attempt_tokens WHERE attempt_id = :id", id=attempt.id)
    return next((each for each in play.works.received if (each[0],) in tokens), None)


def _hear(play: Play) -> None:
    """Whoever hears how the call has ended dies; what came before it is heard afterwards."""
    with play.works.leave(tasks.HEAR, tasks.SETTLE):
        attempt = play.a_pending_attempt()
        event_id = play.wait(lambda: _how_it_ended(play, attempt), "the carrier tells how it ended")
        play.dies("hear", event_id)
        play.twice("hear", event_id)


def _how_it_ended(play: Play, attempt: Attempt) -> UUID | None:
    rows = play.tenant.ask(
        "SELECT e.id FROM carrier_events e JOIN attempt_tokens t USING (token)"
        " WHERE t.attempt_id = :id AND e.heard_at IS NULL AND e.raw ->> 'CallStatus' = ANY(:over)",
        id=attempt.id,
        over=list(_OVER),
    )
    return rows[0][0] if rows else None


# ---- settling


def _settle(play: Play) -> None:
    """Its dialler has died with the POST on its way, and nobody hears the carrier: whoever asks for it dies too."""
    with play.works.leave(tasks.SETTLE, tasks.HEAR, CLOCK):
        attempt = play.a_pending_attempt()
        play.dies_dialling(attempt, "dial.sent")
        play.dies("settle", FAR_ROUNDS)
        play.twice("settle")
    play.expected = BEHAVIOURS[play.cell.behaviour].when_unrecorded


def _expire(play: Play) -> None:
    """Due, and expired before anybody called: whoever ends it dies, and the hint comes afterwards."""
    with play.works.leave(tasks.SETTLE, CLOCK):
        expires_at = play.tenant.now() + timedelta(seconds=1)
        attempt = play.a_pending_attempt(expires_at=expires_at)
        play.dies("settle", FAR_ROUNDS)
        # One with a wrong clock is refused at once, perhaps before that.
        play.wait(lambda: play.tenant.now() > expires_at, "it has expired")
        play.dialled_twice(attempt)
        play.twice("settle")
    play.expected = Ending(rings=0, reasons=(Reason.EXPIRED,))


def _probe(play: Play) -> None:
    """The carrier is down; whoever asks whether it is back dies; another person waits meanwhile."""
    with play.works.leave(tasks.SETTLE, CLOCK):
        attempt = play.a_pending_attempt()
        play.dialled_twice(attempt)
        play.wait(lambda: play.tenant.ask("SELECT 1 FROM carrier_accounts WHERE down_until IS NOT NULL"), "it is down")
        play.a_pending_attempt(SHORT)
        play.dies("settle", FAR_ROUNDS)
        play.twice("settle")
    play.expected = Ending(rings=play.ordinarily.rings + 1, reasons=(*play.ordinarily.reasons, Reason.ANSWERED))


# ---- a company that is deleted


@contextmanager
def _a_company_with_a_live_call(play: Play, *steps: str) -> Iterator[Tenant]:
    """Deleted while the carrier has a call of it, and while another person waits: both are called no more."""
    company = of_company(play.tenant, seed(play.tenant.database, play.tenant.now(), intervals=ALWAYS))
    number_of_live = len(play.numbers)
    play.a_pending_attempt(tenant=company)
    number = play.numbers[number_of_live]
    play.wait(lambda: play.works.carrier.rings(number), "the carrier has the call")
    with play.works.leave(*steps):
        play.a_pending_attempt(SHORT, tenant=company, due_at=play.tenant.now() + _DAY)
        ApiWriter(tenant=company, hints=RecordingHints()).delete_company(company.principal, company.company_id)
        yield company
    play.wait(lambda: _is_erased(company), "it is erased")
    play.expected = Ending(rings=1, reasons=())
    play.is_judged_by_its_rows = False


def _is_erased(company: Tenant) -> bool:
    return bool(
        company.ask("SELECT 1 FROM erasures WHERE company_id = :id AND finished_at IS NOT NULL", id=company.company_id)
    )


def _erase(play: Play) -> None:
    with _a_company_with_a_live_call(play, tasks.ERASE) as company:
        play.dies("erase", company.company_id, 3)
        play.twice("erase", company.company_id, 3)


def _hang_up(play: Play) -> None:
    with _a_company_with_a_live_call(play, tasks.SETTLE):
        play.dies("settle", FAR_ROUNDS)
        play.twice("settle")


STORIES: Mapping[str, Callable[[Play], None]] = {
    "create": _create,
    "delete at the door": _delete_as_it_is_dialled,
    "message": _message,
    "another number": _write,
    "apply create": _apply_create,
    "apply PATCH": _apply_move,
    "apply DELETE": _apply_delete,
    "apply invoke": _apply_invoke,
    "release": _release,
    "remind": _remind,
    "dial": _dial,
    "defer to an opening": _defer_to_an_opening,
    "defer for good": _defer_for_good,
    "store": _store,
    "hear": _hear,
    "settle": _settle,
    "expire": _expire,
    "probe": _probe,
    "erase": _erase,
    "hang up": _hang_up,
}
