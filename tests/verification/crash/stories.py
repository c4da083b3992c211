"""Stories of the crash matrix: a process dies during one step, two processes repeat the step, and the system continues.

In a cell with a wrong clock, the process does not die. Its clock is wrong from the start or changes at the failpoint.

A story prepares a person until the step is due, suspends that step in the system, runs it in its own processes, and
lets the system finish.
"""

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, Phase, Reason
from scheduler.domain.batch import Batch
from scheduler.domain.command import Command, CommandKind, CreateInterview, InvokeAttempt, Request
from scheduler.domain.company import EVERY_DAY, CallTimeInterval
from scheduler.domain.principal import KeyKind
from scheduler.domain.webhook import EventType
from scheduler.use_cases.apply_batches import ApplyBatches
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.operations.unknown_outcomes import OperatorCommands
from scheduler.use_cases.resources.batches import Batches
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared import hints as tasks
from scheduler.wire.batches import Item
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
from tests.support.servers import a_closed_port
from tests.support.webhook_receivers import WebhookReceiver, a_webhook_receiver, answers
from tests.use_cases.webhooks.endpoints import Webhooks
from tests.verification.crash.behaviours import BEHAVIOURS, OUTCOME_UNPROVEN, SHORT, Ending
from tests.verification.crash.canaries import counts
from tests.verification.judge.history import ClientRequest, ClientResponse, Verb
from tests.verification.judge.hours import WEEK, Hours
from tests.verification.soak.partners import Message, Owed, missing, out_of_order
from tests.verification.world.installation import about, deleting, ended, has_ended, moving, nursery, status_of
from tests.verification.world.workers import CALLBACK, CLOCK, CrashSetup, is_stopped, killed, stopped, thawed
from tests.verification.world.wrong_clock import FROM_THE_BEGINNING, WrongClock

EVERY_HOUR = (Hours(days=WEEK, start="00:00", end="00:00"),)
FAR_ROUNDS = 300
"""Maximum number of settling rounds until the process dies: more than a lease and the wait for a proof take."""
PATIENCE_S = 120.0
_BETWEEN_LOOKS_S = 0.2
_STANDING = """
    WITH ours AS (SELECT id FROM interviews WHERE candidate_id = ANY(:ids))
    SELECT (SELECT count(*) FROM inbox
            WHERE applied_at IS NULL AND (interview_id IS NULL OR interview_id IN (SELECT id FROM ours))),
           count(*),
           count(*) FILTER (
               WHERE state IN ('PENDING', 'IN_PROGRESS')
                  OR (state = 'FAILED' AND look_at IS NOT NULL)
                  OR outcome_until IS NOT NULL
           )
    FROM attempts WHERE interview_id IN (SELECT id FROM ours)
"""
"""Counts of open commands that may concern these people, of their attempts, and of attempts that may still ring, or be
followed by another one after a report."""
_DAY = timedelta(days=1)
_BRATISLAVA = ZoneInfo("Europe/Bratislava")
_RECORDED = (Phase.PLACED, Phase.UNKNOWN)
"""Phases after the answer to the POST is recorded. UNKNOWN: there was no answer, so the call has no id yet."""
_OVER = ("completed", "busy", "no-answer", "failed", "canceled")


@dataclass(frozen=True, kw_only=True)
class Cell:
    story: str
    failpoint: str
    behaviour: str
    clock: str = ""
    """Fault of the first process's clock. Empty: the clock is right and the process dies at the failpoint."""

    def __str__(self) -> str:
        return f"{self.failpoint} x {self.behaviour} ({self.story}{', ' if self.clock else ''}{self.clock})"

    @property
    def armed(self) -> str:
        """The failpoint at which the process dies or its clock changes. Empty: its clock is wrong from the start."""
        return "" if self.clock in FROM_THE_BEGINNING else self.failpoint


def cells(story: str, failpoints: Sequence[str], behaviours: Sequence[str]) -> Iterator[Cell]:
    for failpoint in failpoints:
        for behaviour in behaviours:
            yield Cell(story=story, failpoint=failpoint, behaviour=behaviour)


@dataclass(kw_only=True)
class Play:
    """A running cell: its people, the callers' requests, and the exit codes of its processes."""

    setup: CrashSetup
    cell: Cell
    numbers: list[str] = field(default_factory=list)
    candidates: list[UUID] = field(default_factory=list)
    asked: list[ClientRequest] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    """Exit codes of the first process of each step, which must have died during the step."""
    refused: list[int] = field(default_factory=list)
    """Exit codes of processes with a wrong clock: 0 or REFUSED."""
    others: list[int] = field(default_factory=list)
    diallers: list[Any] = field(default_factory=list)
    hours: tuple[Hours, ...] = EVERY_HOUR
    consent_until: date = FOREVER
    expected: Ending = OUTCOME_UNPROVEN
    is_starved: bool = False
    """True if a dialler got too little CPU: it gave the call back, or ended itself after a whole lease, as it must."""
    is_judged_by_its_rows: bool = True
    """False if the rows are erased."""

    @property
    def tenant(self) -> Tenant:
        return self.setup.tenant

    @property
    def ordinarily(self) -> Ending:
        return BEHAVIOURS[self.cell.behaviour].ending

    # ---- people

    def a_number(self, *rules: Mapping[str, Any]) -> str:
        number = a_number()
        self.numbers.append(number)
        for turn, rule in enumerate(rules or BEHAVIOURS[self.cell.behaviour].rules, start=1):
            self.setup.carrier.plan(to=number, attempt=turn, **rule)
        return number

    def a_candidate(self) -> UUID:
        self.candidates.append(a_candidate(self.tenant, self.a_number()).id)
        return self.candidates[-1]

    def for_an_interview(self) -> CreateInterview:
        """Build the request to create an interview of a new person."""
        return CreateInterview(agent_id=self.tenant.agent_id, candidate_id=self.a_candidate())

    def a_pending_attempt(
        self, *rules: Mapping[str, Any], tenant: Tenant | None = None, number: str | None = None, **wishes: Any
    ) -> Attempt:
        """Create a due attempt of a new interview. `number`: a number of the cell that has its rules already."""
        attempt = a_pending_attempt(tenant or self.tenant, number or self.a_number(*rules), **wishes)
        self.candidates.append(self.tenant.interview(attempt.interview_id).candidate_id)
        return attempt

    # ---- processes

    def dies_and_is_repeated(self, step: str, *words: Any) -> None:
        self.dies(step, *words)
        self.twice(step, *words)

    def dies_settling(self) -> None:
        """Settle in a process that dies after many rounds at most. Then two processes settle once."""
        self.dies("settle", FAR_ROUNDS)
        self.twice("settle")

    def dies(self, step: str, *words: Any) -> None:
        clock = self._a_wrong_clock()
        process = self.setup.doing(step, *words, clock=clock, DUECALL_FAILPOINT=self.cell.armed)
        if clock is None:
            self.exits.append(ended(process))
            return
        self.refused.append(ended(process))
        assert clock.is_wrong.is_set(), f"{self.cell}: the process has not reached its failpoint"

    def dies_applying(self, command_id: UUID) -> None:
        """Apply a command in a process that dies. One that leaves it, because its rows are held, is repeated."""
        self.dies("apply", command_id)
        while self.exits[-1:] == [0] and self._waits(command_id):
            self.exits.pop()
            self.dies("apply", command_id)

    def _waits(self, command_id: UUID) -> bool:
        return bool(self.tenant.ask("SELECT 1 FROM inbox WHERE id = :id AND applied_at IS NULL", id=command_id))

    def twice(self, step: str, *words: Any) -> None:
        both = [self.setup.doing(step, *words) for _ in range(2)]
        self.others += [ended(each) for each in both]

    def dies_dialling(self, attempt: Attempt) -> None:
        """Dial in a process that dies, then start two diallers with the same hint."""
        clock = self._a_wrong_clock()
        process = self.setup.dialling([attempt.id], clock=clock, DUECALL_FAILPOINT=self.cell.armed)
        self.diallers.append(process)
        reached = partial(has_ended, process) if clock is None else clock.is_wrong.is_set
        self.wait_for_failpoint(reached, attempt)
        if clock is None:
            self.diallers.remove(process)
            self.exits.append(ended(process))
        self.dialled_twice(attempt)

    def wait_for_failpoint(self, reached: Callable[[], bool], attempt: Attempt) -> None:
        """Wait until the dialler of the attempt has come to its point. Fails if it gave the call back."""
        self.wait(lambda: reached() or self._was_given_back(attempt), "the dialler has come to its point")
        if not reached():
            self.is_starved = True
            pytest.fail(f"{self.cell}: the dialler gave the call back, because its last look took too long")

    def _was_given_back(self, attempt: Attempt) -> bool:
        query = "SELECT count(*) FROM attempt_history WHERE attempt_id = :id AND detail ->> 'cause' = ANY(:causes)"
        return bool(self.tenant.ask(query, id=attempt.id, causes=["SLOW_LOOK", "TOO_SLOW"])[0][0])

    def dialled_twice(self, attempt: Attempt) -> None:
        """Start two diallers with the same hint. Both run until the end of the cell."""
        self.diallers += [self.setup.dialling([attempt.id]) for _ in range(2)]

    def _a_wrong_clock(self) -> WrongClock | None:
        return WrongClock(kind=self.cell.clock, is_wrong=nursery.Event()) if self.cell.clock else None

    # ---- callers

    def note(self, verb: Verb, attempt: Attempt, begun: datetime, command: Command, **more: Any) -> None:
        """Note both answers to the caller: 202 on acceptance, and the result once the worker has stored it."""
        self.wait(lambda: self.setup.command(str(command.id)).applied_at, "the command is applied")
        applied = self.setup.command(str(command.id))
        assert applied.applied_at is not None
        self.asked.append(
            ClientRequest(
                **about(verb, attempt, applied),
                asked_at=begun,
                told=ClientResponse(status=202, at=applied.received_at),
                applied=ClientResponse(status=status_of(verb, applied), at=applied.applied_at),
                **more,
            )
        )

    # ---- the end of a cell

    def wait(self, what: Callable[[], Any], says: str) -> Any:
        """Wait until `what` is true. Check only five times a second, because many cells wait on one machine."""
        next_check = 0.0

        def now_and_then() -> Any:
            nonlocal next_check
            if monotonic() < next_check:
                return None
            next_check = monotonic() + _BETWEEN_LOOKS_S
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
        """Check that no command or attempt is open.

        This takes a single statement, because a retry is created in the transaction that ends the previous call.
        """
        [[waiting, made, open_]] = self.tenant.ask(_STANDING, ids=self.candidates)
        return made > 0 and not waiting and not open_

    def rings(self) -> list[dict[str, Any]]:
        return [ring for number in self.numbers for ring in self.setup.carrier.rings(number)]


def play(played: Play, story: Callable[[Play], None]) -> None:
    """Run the story of a cell from start to end.

    First reset the carrier's breaker, which the previous cell may have opened. Also delete the companies of earlier
    cells: failures close the account immediately only while one company calls.
    """
    setup = played.setup
    setup.tenant.change(
        "UPDATE carrier_accounts SET failures = 0, down_until = NULL, down_cause = NULL, answered_at = NULL, trials = 0"
    )
    setup.tenant.change("DELETE FROM carrier_backoffs")
    setup.tenant.change(
        "UPDATE companies SET deleted_at = created_at WHERE id <> :own AND deleted_at IS NULL",
        own=setup.tenant.company_id,
    )
    deaths = setup.dialler.deaths
    played.expected = played.ordinarily
    try:
        story(played)
        if played.is_judged_by_its_rows:
            played.wait(played.is_over, "all attempts are finished")
        played.wait(lambda: all(ring["ended_at"] for ring in played.rings()), "no call is live")
    finally:
        played.others += stopped(*played.diallers)
        played.is_starved |= -signal.SIGALRM in {*played.exits, *played.others} or setup.dialler.deaths > deaths
        if any(request["answered"] is None for number in played.numbers for request in setup.carrier.requests(number)):
            with setup.leave(tasks.DIAL):  # a dialler still waiting for an answer would open the next cell's breaker
                setup.dialler.stop()


# ---- intake


def _create(play: Play) -> None:
    play.dies_and_is_repeated("submit", play.tenant.principal, play.for_an_interview(), str(uuid4()))


def _delete_as_it_is_dialled(play: Play) -> None:
    """Kill the intake of a DELETE while a dialler takes the attempt. The result is a 204 or a ring, never both."""
    key = str(uuid4())
    with play.setup.leave(CLOCK):
        attempt, begun = play.a_pending_attempt(), play.tenant.now()
        words = (play.tenant.principal, deleting(attempt), key)
        play.dies("submit", *words)
        was_accepted = play.tenant.ask("SELECT 1 FROM inbox WHERE idempotency_key = :key", key=key)
        play.dialled_twice(attempt)
        play.twice("submit", *words)
    play.note(Verb.DELETE, attempt, begun, play.setup.command(key))
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
        "body": {"candidateId": str(play.a_candidate()), "agentId": str(play.tenant.agent_id)},
    }
    play.dies_and_is_repeated("take", message)


def _write(play: Play) -> None:
    """Change a person's number. The old number must not ring."""
    with play.setup.leave(CLOCK):
        attempt = play.a_pending_attempt(SHORT)
        new_number = play.a_number()
        candidate_id = play.tenant.interview(attempt.interview_id).candidate_id
        sent = (play.tenant.principal, str(uuid4()), candidate_id, {"phone_number": new_number})
        play.dies_and_is_repeated("change_candidate", *sent)
        play.dialled_twice(attempt)
    play.wait(play.is_over, "all attempts are finished")
    assert play.setup.carrier.requests(play.numbers[0]) == [], "the old number was called"


# ---- applying


def _apply_create(play: Play) -> None:
    with play.setup.leave(tasks.APPLY):
        command = play.setup.accept(play.for_an_interview(), idempotency_key=str(uuid4()))
        play.dies_applying(command.id)
        play.twice("apply", command.id)


def _applied(play: Play, verb: Verb, request: Callable[[Attempt], Request], **more: Any) -> None:
    """Accept a command, kill its worker, let two diallers take the attempt, and only then apply the command twice.

    If a dialler holds the interview just then, the clock has the command applied.
    """
    with play.setup.leave(tasks.APPLY, CLOCK):
        attempt, begun = play.a_pending_attempt(), play.tenant.now()
        command = play.setup.accept(request(attempt), idempotency_key=str(uuid4()))
        play.dies_applying(command.id)
        play.dialled_twice(attempt)
        play.twice("apply", command.id)
    play.note(verb, attempt, begun, command, **more)


def _apply_move(play: Play) -> None:
    due_at = (play.tenant.now() + timedelta(seconds=5)).replace(microsecond=0)
    _applied(play, Verb.MOVE, lambda attempt: moving(attempt, due_at), due_at=due_at)


def _apply_delete(play: Play) -> None:
    _applied(play, Verb.DELETE, deleting)
    play.expected = Ending(rings=0, reasons=(Reason.CANCELLED_BY_USER,))


def _apply_cancellation(play: Play) -> None:
    """As `_applied`, for the command of an operator."""
    with play.setup.leave(tasks.APPLY, CLOCK):
        attempt = play.a_pending_attempt()
        assert OperatorCommands(play.tenant.database, play.tenant.now).cancel([attempt.id], "a crash") == 1
        [[command_id]] = play.tenant.ask(
            "SELECT id FROM inbox WHERE interview_id = :id AND applied_at IS NULL", id=attempt.interview_id
        )
        play.dies_applying(command_id)
        play.dialled_twice(attempt)
        play.twice("apply", command_id)
    play.wait(lambda: play.tenant.history(attempt.id) == ["created", "cancelled"], "the attempt is cancelled")
    play.expected = Ending(rings=0, reasons=(Reason.CANCELLED_BY_USER,))


def _apply_invoke(play: Play) -> None:
    _applied(play, Verb.INVOKE, lambda attempt: InvokeAttempt(interview_id=attempt.interview_id))
    play.expected = replace(play.ordinarily, reasons=(Reason.REPLACED, *play.ordinarily.reasons))


# ---- batches


def _store_batch(play: Play) -> None:
    with _a_partner(play, EventType.BATCH_COMPLETED):
        play.dies_and_is_repeated("store_batch", play.tenant.principal, play.for_an_interview(), str(uuid4()))
        play.twice("batches")
        _is_applied_once(play)


def _a_batch(play: Play) -> Batch:
    """Store a batch of one interview."""
    tenant, hints = play.tenant, RecordingHints()
    sent = WriteRequest(
        kind=CommandKind.CREATE_BATCH,
        principal=tenant.principal,
        idempotency_key=None,
        request_hash=b"",
        command_id=uuid4(),
    )
    batches = Batches(tenant.database, IdempotentWrites(tenant.database, tenant.now), hints)
    batch = batches.create(sent, None, None, [Item(index=0, request=play.for_an_interview())]).record
    assert isinstance(batch, Batch)
    return batch


def _is_applied_once(play: Play, *ends: str) -> None:
    """The batch has one item, one interview and, for each of its ends, one event with its counts."""
    batch = "SELECT b.id::text, b.total, b.applied, b.refused, b.state FROM batches b JOIN batch_items i"
    people = "ON i.batch_id = b.id JOIN interviews n ON n.id = i.interview_id WHERE n.candidate_id = ANY(:ids)"
    [[batch_id, *counts]] = play.tenant.ask(f"{batch} {people}", ids=play.candidates)
    expected = ends or ("COMPLETED",)
    assert counts == [1, 1, 0, expected[-1]]
    told = play.tenant.ask("SELECT data FROM events WHERE type = 'batch.completed' ORDER BY entry")
    counted = {"batchId": batch_id, "applied": 1, "refused": 0, "cancelled": 0}
    assert [data for [data] in told] == [{**counted, "status": end} for end in expected]


def _apply_batch(play: Play) -> None:
    with _a_partner(play, EventType.BATCH_COMPLETED):
        _a_batch(play)
        play.dies_and_is_repeated("batches")
        _is_applied_once(play)


def _cancel_batch(play: Play) -> None:
    with play.setup.leave(CLOCK), _a_partner(play, EventType.BATCH_COMPLETED):
        batch = _a_batch(play)
        ApplyBatches(play.tenant.context, RecordingHints()).turn()
        [attempt] = play.attempts()
        play.dies_and_is_repeated("cancel_batch", play.tenant.principal, batch.id)
        play.dialled_twice(attempt)
        _is_applied_once(play, "COMPLETED", "CANCELLED")
    play.expected = Ending(rings=0, reasons=(Reason.CANCELLED_BY_USER,))


# ---- clock and dial


def _release(play: Play) -> None:
    with play.setup.leave(CLOCK):
        attempt = play.a_pending_attempt()
        play.dies_and_is_repeated("look")
        if play.cell.failpoint != "release.released":  # at that failpoint the clock has sent no hint
            play.dialled_twice(attempt)


def _remind(play: Play) -> None:
    """Lose the hint of a command, and kill the clock while it sends the hint again."""
    with play.setup.leave(CLOCK):
        command = play.setup.accept(play.for_an_interview(), idempotency_key=str(uuid4()))
        play.tenant.change("UPDATE inbox SET rung_at = received_at - interval '1 minute' WHERE id = :id", id=command.id)
        play.dies_and_is_repeated("look")


def _dial(play: Play) -> None:
    with play.setup.leave(CLOCK):
        attempt = play.a_pending_attempt()
        play.dies_dialling(attempt)
    if play.cell.clock:  # the claiming process returns the attempt or records its result
        return
    if play.cell.failpoint in {"dial.claimed", "dial.looked", "dial.permitted"}:
        play.expected = OUTCOME_UNPROVEN
    if play.cell.failpoint in {"dial.sent", "dial.answered", "dial.recording"}:
        play.expected = BEHAVIOURS[play.cell.behaviour].when_unrecorded


def _defer_to_an_opening(play: Play) -> None:
    """Dial a due attempt shortly before its calling window opens. The last look defers it to the opening."""
    with play.setup.leave(CLOCK):
        opening = (play.tenant.now() + timedelta(seconds=20)).astimezone(_BRATISLAVA)
        opening = opening.replace(second=0, microsecond=0) + timedelta(minutes=1)
        start = timedelta(hours=opening.hour, minutes=opening.minute)
        hours = CallTimeInterval(days=EVERY_DAY, start=start, end=start + timedelta(hours=2))
        company = seed(play.tenant.database, play.tenant.now(), intervals=(hours,))
        closing = opening + timedelta(hours=2)
        play.hours = (replace(EVERY_HOUR[0], start=f"{opening:%H:%M}", end=f"{closing:%H:%M}"),)
        attempt = play.a_pending_attempt(tenant=of_company(play.tenant, company))
        play.dies_dialling(attempt)
    if play.cell.failpoint == "dial.deferring":
        play.expected = OUTCOME_UNPROVEN


def _defer_for_good(play: Play) -> None:
    """Dial a person whose consent has expired. The phone must not ring."""
    play.consent_until = play.tenant.now().date() - _DAY
    with play.setup.leave(CLOCK):
        attempt = play.a_pending_attempt(consent_until=play.consent_until)
        play.dies_dialling(attempt)
    play.expected = Ending(rings=0, reasons=(Reason.CONSENT_EXPIRED,))
    if play.cell.failpoint == "dial.deferring":
        play.expected = OUTCOME_UNPROVEN


# ---- hearing


def _store(play: Play) -> None:
    """Kill the process that stores the carrier's first callback of a call."""
    with play.setup.leave(CALLBACK):
        attempt = play.a_pending_attempt()
        received = play.wait(lambda: _received(play, attempt), "the first callback arrives")
        play.dies_and_is_repeated("callback", *received)


def _received(play: Play, attempt: Attempt) -> tuple[Any, ...] | None:
    tokens = play.tenant.ask("SELECT token FROM attempt_tokens WHERE attempt_id = :id", id=attempt.id)
    return next((each for each in play.setup.received if (each[0],) in tokens), None)


def _hear(play: Play) -> None:
    """Kill the process that applies the callback with the call's end. Earlier callbacks are applied afterwards."""
    with play.setup.leave(tasks.HEAR, tasks.SETTLE):
        attempt = play.a_pending_attempt()
        event_id = play.wait(lambda: how_it_ended(play, attempt), "the callback with the end of the call arrives")
        play.dies_and_is_repeated("hear", event_id)


def how_it_ended(play: Play, attempt: Attempt) -> UUID | None:
    rows = play.tenant.ask(
        "SELECT e.id FROM carrier_events e JOIN attempt_tokens t USING (token)"
        " WHERE t.attempt_id = :id AND e.heard_at IS NULL AND e.raw ->> 'CallStatus' = ANY(:over)",
        id=attempt.id,
        over=list(_OVER),
    )
    return rows[0][0] if rows else None


# ---- settling


def _settle(play: Play) -> None:
    """Kill a dialler after its POST, leave callbacks unapplied, and then kill the process that polls for the call."""
    with play.setup.leave(tasks.SETTLE, tasks.HEAR, CLOCK):
        attempt = play.a_pending_attempt()
        process = play.setup.dialling([attempt.id], DUECALL_FAILPOINT="dial.sent")
        play.diallers.append(process)
        play.wait_for_failpoint(partial(has_ended, process), attempt)
        play.diallers.remove(process)
        play.exits.append(ended(process))
        play.dies_settling()
    play.expected = BEHAVIOURS[play.cell.behaviour].when_unrecorded


def _expire(play: Play) -> None:
    """Let a due attempt expire before its call. Kill the process that expires it, and send the hint afterwards."""
    with play.setup.leave(tasks.SETTLE, CLOCK):
        expires_at = play.tenant.now() + timedelta(seconds=1)
        attempt = play.a_pending_attempt(expires_at=expires_at)
        play.dies("settle", FAR_ROUNDS)
        # A process with a wrong clock is rejected immediately, perhaps before the expiry.
        play.wait(lambda: play.tenant.now() > expires_at, "the attempt has expired")
        play.dialled_twice(attempt)
        play.twice("settle")
    play.expected = Ending(rings=0, reasons=(Reason.EXPIRED,))


def _probe(play: Play) -> None:
    """Kill the process that probes a carrier that is down, while another person waits."""
    with play.setup.leave(tasks.SETTLE, CLOCK):
        attempt = play.a_pending_attempt()
        play.dialled_twice(attempt)
        down = "SELECT 1 FROM carrier_accounts WHERE down_until IS NOT NULL"
        play.wait_for_failpoint(lambda: bool(play.tenant.ask(down)), attempt)
        play.a_pending_attempt(SHORT)
        play.dies_settling()
    play.expected = Ending(rings=play.ordinarily.rings + 1, reasons=(*play.ordinarily.reasons, Reason.ANSWERED))


# ---- a company that is deleted


def _a_company(play: Play) -> Tenant:
    return of_company(play.tenant, seed(play.tenant.database, play.tenant.now(), intervals=ALWAYS))


@contextmanager
def _a_company_with_a_live_call(play: Play, *steps: str) -> Iterator[Tenant]:
    """Delete a company with a live call, a waiting person and a webhook. No further calls to either may follow.

    First the answer to the POST is recorded. Otherwise the dialler may end the call before the process of the cell.
    """
    company = _a_company(play)
    Webhooks(tenant=company).endpoint(a_closed_port())
    with play.setup.leave(*steps):
        attempt = play.a_pending_attempt(tenant=company)
        with _deleted_at_the_end(play, company):
            play.wait(lambda: company.attempt(attempt.id).phase in _RECORDED, "the answer to the POST is recorded")
            NumberEvents(company.database, RecordingHints(), company.now).all()
            assert counts(company)["deliveries"] >= 1
        yield company
    _is_erased(play, company)


@contextmanager
def _a_company_deleted_before_the_record(play: Play) -> Iterator[tuple[Attempt, Any]]:
    """Delete a company while the dialler of its call is frozen with the carrier's answer. Return attempt and dialler.

    Only that dialler and the processes of the cell can end the call inside the block.
    """
    company = _a_company(play)
    with play.setup.leave(CLOCK, tasks.HEAR, tasks.SETTLE):
        attempt = play.a_pending_attempt(tenant=company)
        dialler = play.setup.dialling([attempt.id], DUECALL_FAILPOINT="dial.answered:stop")
        play.diallers.append(dialler)
        try:
            with _deleted_at_the_end(play, company):
                play.wait_for_failpoint(partial(is_stopped, dialler), attempt)
            assert company.attempt(attempt.id).phase is Phase.DIALLING, "the company was deleted after the record"
            yield attempt, dialler
        finally:
            if not has_ended(dialler):
                thawed(dialler)
    _is_erased(play, company)


@contextmanager
def _deleted_at_the_end(play: Play, company: Tenant) -> Iterator[None]:
    """Delete the company at the end of the block. Also after a failure, so that no call outlasts the cell."""
    try:
        yield
    finally:
        play.a_pending_attempt(SHORT, tenant=company, due_at=play.tenant.now() + _DAY)
        ApiWriter(tenant=company, hints=RecordingHints()).delete_company(company.principal, company.company_id)


def _is_erased(play: Play, company: Tenant) -> None:
    erased = "SELECT 1 FROM erasures WHERE company_id = :id AND finished_at IS NOT NULL"
    play.wait(lambda: company.ask(erased, id=company.company_id), "the company is erased")
    assert not any(counts(company).values()), f"{play.cell}: rows of the erased company are left"
    play.expected = Ending(rings=1, reasons=())
    play.is_judged_by_its_rows = False


def _erase(play: Play) -> None:
    with _a_company_with_a_live_call(play, tasks.ERASE) as company:
        play.dies_and_is_repeated("erase", company.company_id, 3)


def _erase_a_person(play: Play) -> None:
    """Erase a person whose interview is locked, so that only a worker can cancel it. Kill that worker."""
    with play.setup.leave(CLOCK):
        attempt = play.a_pending_attempt()
        with play.tenant.database.transaction() as stores:
            stores.interviews.lock(attempt.interview_id)
            ApiWriter(tenant=play.tenant, hints=RecordingHints()).delete_candidate(
                play.tenant.principal, play.candidates[-1]
            )
        play.dies("erase people")
        play.dialled_twice(attempt)
        play.twice("erase people")
    # A dialler may hold the interview while a worker would cancel it. Then the clock starts another worker.
    play.wait(lambda: play.tenant.history(attempt.id) == ["created", "cancelled"], "the attempt is cancelled")
    play.expected = Ending(rings=0, reasons=(Reason.CANDIDATE_DELETED,))


def _hang_up(play: Play) -> None:
    with _a_company_with_a_live_call(play, tasks.SETTLE):
        play.dies_settling()


def _thawed_until_recorded(play: Play, attempt: Attempt, dialler: Any) -> None:
    thawed(dialler)
    play.wait(
        lambda: play.tenant.attempt(attempt.id).phase in _RECORDED or has_ended(dialler), "the answer is recorded"
    )


def _cancel_on_record(play: Play) -> None:
    """Let the dialler cancel the queued call as it records it. Kill the erasure afterwards."""
    with _a_company_deleted_before_the_record(play) as (attempt, dialler):
        _thawed_until_recorded(play, attempt, dialler)
        play.wait(lambda: play.rings()[0]["ended_at"], "the dialler has cancelled the call")
        assert play.rings()[0]["cancelled_by"] == "caller"
        play.dies_and_is_repeated("erase", attempt.company_id, 3)


def _hang_up_on_record(play: Play) -> None:
    """Let the dialler record a call that it cannot cancel: answered, or without an id. Kill the settling."""
    with _a_company_deleted_before_the_record(play) as (attempt, dialler):
        play.wait(lambda: play.rings()[0]["answered_at"], "the person answers")
        _thawed_until_recorded(play, attempt, dialler)
        play.dies_settling()


def _die_before_record(play: Play) -> None:
    """Kill the dialler before it records the call. Settling finds the call and ends it."""
    with _a_company_deleted_before_the_record(play) as (attempt, dialler):
        play.diallers.remove(dialler)
        play.exits.append(killed(dialler))
        play.dialled_twice(attempt)


# ---- partners


@contextmanager
def _a_partner(play: Play, *types: EventType) -> Iterator[WebhookReceiver]:
    """Let the company have a webhook for this cell. Without `types`, for a new interview and its call."""
    wanted = types or (EventType.INTERVIEW_SCHEDULED, EventType.ATTEMPT_SCHEDULED)
    with a_webhook_receiver(answers(200)) as receiver:
        endpoint_id = Webhooks(tenant=play.tenant).endpoint(receiver.url, events=[each.value for each in wanted])
        try:
            yield receiver
        finally:
            # Otherwise the calls of later cells also have events.
            play.tenant.change("DELETE FROM webhook_endpoints WHERE id = :id", id=endpoint_id)
            play.tenant.change("DELETE FROM events")


def _number(play: Play) -> None:
    """Kill the numbering of an interview's events. Each has one place and one delivery."""
    with _a_partner(play):
        attempt = play.a_pending_attempt()
        play.dies_and_is_repeated("number")
        rows = play.tenant.ask(
            "SELECT e.sequence, d.sequence FROM events e LEFT JOIN webhook_deliveries d ON d.event_id = e.id"
            " WHERE e.interview_id = :id AND e.type LIKE '%.scheduled' ORDER BY e.place",
            id=attempt.interview_id,
        )
        assert rows == [(1, 1), (2, 2)]


def _deliver(play: Play) -> None:
    """Kill the process that delivers. Each event arrives in the order of the interview, and twice at most."""
    with _a_partner(play) as receiver:
        attempt = play.a_pending_attempt()
        NumberEvents(play.tenant.database, RecordingHints(), play.tenant.now).all()
        play.dies("deliver")
        play.tenant.change(
            "UPDATE webhook_deliveries SET lease_until = :now WHERE claim IS NOT NULL", now=play.tenant.now()
        )
        _delivered_twice(play)
        states = play.tenant.ask(
            "SELECT state FROM webhook_deliveries WHERE interview_id = :id", id=attempt.interview_id
        )
        assert [row[0] for row in states] == ["DELIVERED", "DELIVERED"]
        received = [json.loads(visit.body)["sequence"] for visit in receiver.visits]
        is_twice = play.cell.failpoint in {"webhooks.sent", "webhooks.recording"}
        assert received == ([1, 1, 2] if is_twice else [1, 2])


def _delivered_twice(play: Play) -> None:
    """Deliver with two processes at once. Both end early if each finds the endpoint locked; so one more runs alone."""
    play.twice("deliver")
    play.others.append(ended(play.setup.doing("deliver")))


def _replay(play: Play) -> None:
    """Kill the replay of a delivery. It is sent once more, with its id."""
    with _a_partner(play) as receiver:
        attempt = play.a_pending_attempt()
        NumberEvents(play.tenant.database, RecordingHints(), play.tenant.now).all()
        play.others.append(ended(play.setup.doing("deliver")))
        [[event_id, endpoint_id]] = play.tenant.ask(
            "SELECT event_id, endpoint_id FROM webhook_deliveries WHERE interview_id = :id AND sequence = 1",
            id=attempt.interview_id,
        )
        play.dies_and_is_repeated("replay", play.tenant.principal, endpoint_id, event_id, str(uuid4()))
        _delivered_twice(play)
        assert [json.loads(visit.body)["sequence"] for visit in receiver.visits] == [1, 2, 1]
        first, _, again = receiver.visits
        assert first.headers["webhook-id"] == again.headers["webhook-id"] == str(event_id)
        assert first.body == again.body


def _reported(story: Callable[[Play], None], play: Play) -> None:
    """Kill a step of a call whose company has a partner. Each arrow that was taken is received once, in its order."""
    with _a_partner(play, *(each for each in EventType if each is not EventType.PING)) as receiver:
        story(play)
        play.wait(play.is_over, "all attempts are finished")
        owed = _owed(play)
        NumberEvents(play.tenant.database, RecordingHints(), play.tenant.now).all()
        play.others.append(ended(play.setup.doing("deliver")))
        messages = [
            Message(endpoint="", id=visit.headers["webhook-id"], body=json.loads(visit.body), at_s=nth, accepted=True)
            for nth, visit in enumerate(receiver.visits)
        ]
        assert [*missing(owed, messages), *out_of_order(messages)] == []
        assert len({each.id for each in messages}) == len(messages)


def _owed(play: Play) -> Owed:
    """Return the arrows that were taken, from one statement, because late callbacks may still arrive."""
    rows = play.tenant.ask(
        "WITH ours AS (SELECT id, status FROM interviews WHERE candidate_id = ANY(:ids)),"
        " calls AS (SELECT id, retry_number FROM attempts WHERE interview_id IN (SELECT id FROM ours))"
        " SELECT 'history', h.attempt_id::text, h.event FROM attempt_history h JOIN calls c ON c.id = h.attempt_id"
        " UNION ALL SELECT 'call', id::text, retry_number::text FROM calls"
        " UNION ALL SELECT 'interview', id::text, status FROM ours",
        ids=play.candidates,
    )
    found = {kind: [(each, fact) for this, each, fact in rows if this == kind] for kind in ("history", "interview")}
    return Owed(
        history=found["history"],
        new_attempts=[(each, number != "0") for kind, each, number in rows if kind == "call"],
        interviews=found["interview"],
        commands=[],
    )


STORIES: Mapping[str, Callable[[Play], None]] = {
    "create": _create,
    "delete at the door": _delete_as_it_is_dialled,
    "message": _message,
    "another number": _write,
    "apply create": _apply_create,
    "apply PATCH": _apply_move,
    "apply DELETE": _apply_delete,
    "apply cancellation": _apply_cancellation,
    "apply invoke": _apply_invoke,
    "store batch": _store_batch,
    "apply batch": _apply_batch,
    "cancel batch": _cancel_batch,
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
    "erase a person": _erase_a_person,
    "hang up": _hang_up,
    "cancel on record": _cancel_on_record,
    "hang up on record": _hang_up_on_record,
    "die before record": _die_before_record,
    "number": _number,
    "deliver": _deliver,
    "replay": _replay,
    "report create": partial(_reported, _apply_create),
    "report DELETE": partial(_reported, _apply_delete),
    "report dial": partial(_reported, _dial),
    "report hear": partial(_reported, _hear),
    "report settle": partial(_reported, _settle),
}
