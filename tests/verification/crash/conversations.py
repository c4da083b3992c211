"""Stories of the crash matrix about conversations: reports of their outcomes, waits for them, and verdicts of machines.

Whatever dies, a call that its conversation reported is followed by one attempt at most, and an accepted report counts.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Attempt, ConversationOutcome, ProofMissing, Reason
from scheduler.domain.call import CallProgress, MachineDetection
from scheduler.domain.command import Command, DeleteInterview, InvokeAttempt, ReportOutcome, Request
from scheduler.domain.company import RetryPolicy
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import VERDICT_WAIT
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import seed
from tests.support.builders import ALWAYS, Tenant, a_voice_key, of_company
from tests.verification.crash.behaviours import HEARD_AS_ANSWERED, JUDGED, Ending
from tests.verification.crash.stories import Cell, Play, cells, how_it_ended
from tests.verification.judge.history import Verb
from tests.verification.world.installation import ended
from tests.verification.world.workers import CLOCK, CrashSetup

_A_SECOND = timedelta(seconds=1)
_AT_ONCE = RetryPolicy(max_retries=1, delays=dict.fromkeys(("NO_ANSWER", "VOICEMAIL"), (_A_SECOND,)))
_TWICE = Ending(rings=2, reasons=(Reason.ANSWERED, Reason.ANSWERED))
_IS_AWAITED = "outcome_until IS NOT NULL"
_IS_ANSWERED = f"{_IS_AWAITED} OR heard_rank >= :answered"
_OF_A_TOKEN = "SELECT e.id FROM carrier_events e JOIN attempt_tokens t USING (token) WHERE t.attempt_id = :id"
VERDICT, END = "e.raw ? 'MachineDetectionDuration'", "e.raw ->> 'CallStatus' = 'completed'"
_ANSWER, _FALLBACK = "e.raw ->> 'CallStatus' = 'in-progress'", "e.raw ? 'duecall-fallback'"


@contextmanager
def a_voice_server(play: Play, *, has_verdict: bool = False) -> Iterator[Tenant]:
    """Create a company that may report outcomes, with asynchronous machine detection if the cell has a verdict."""
    has_verdict = has_verdict or play.cell.behaviour in {*JUDGED, "no_verdict"}
    detection = MachineDetection.ASYNC if has_verdict else MachineDetection.SYNC
    settings = {"intervals": ALWAYS, "retry_policy": _AT_ONCE, "machine_detection": detection}
    company = of_company(play.tenant, seed(play.tenant.database, play.tenant.now(), **settings))
    a_voice_key(company)
    yield company
    play.wait(play.is_over, "all attempts are finished")
    _is_booked_once_each(play, company)


def _is_booked_once_each(play: Play, company: Tenant) -> None:
    """Compare the bookings of the company, whose only interviews these are, with its answered calls."""
    answered = [each.id for each in play.attempts() if each.reason is Reason.ANSWERED]
    booked = company.ask("SELECT attempt_id FROM usage WHERE company_id = :id", id=company.company_id)
    assert sorted(each for [each] in booked) == sorted(answered), f"{play.cell}: booked {len(booked)} times"


@contextmanager
def _an_answered_call(play: Play, company: Tenant, *steps: str, until: str = _IS_ANSWERED) -> Iterator[Attempt]:
    """Call a person. `until` it is answered, or has ended too, then suspend clock, settling and `steps`.

    An answered call may have ended since. Without the clock, a callback that was put off is not heard.
    """
    attempt = play.a_pending_attempt(tenant=company)
    play.wait(lambda: has(play, attempt, until), "it is answered")
    with play.setup.leave(CLOCK, tasks.SETTLE, *steps):
        if has(play, attempt, "state <> 'IN_PROGRESS' AND outcome_until IS NULL"):
            play.is_starved = True
            pytest.fail(f"{play.cell}: the wait for a report was over before it could be suspended")
        yield attempt


def has(play: Play, attempt: Attempt, condition: str) -> bool:
    """Read without a lock: the processes of the cell need the rows."""
    facts = {"answered": int(CallProgress.ANSWERED)} if ":answered" in condition else {}
    return bool(play.tenant.ask(f"SELECT 1 FROM attempts WHERE id = :id AND ({condition})", id=attempt.id, **facts))


def revoke_key(company: Tenant) -> None:
    """Revoke the key of the voice server, so that no end of a call awaits a report."""
    company.change(
        "UPDATE api_keys SET revoked_at = :now WHERE company_id = :id", now=company.now(), id=company.company_id
    )


def callback_of(play: Play, attempt: Attempt, kind: str) -> UUID:
    """Wait until a callback of this kind has arrived for the attempt. Return its id."""
    query = f"{_OF_A_TOKEN} AND {kind}"
    event_id: UUID = play.wait(lambda: play.tenant.ask(query, id=attempt.id), "the callback arrives")[0][0]
    return event_id


def setup_of(play: Play, company: Tenant) -> CrashSetup:
    return replace(play.setup, tenant=company)


def accepted(play: Play, company: Tenant, request: Request) -> Command:
    return setup_of(play, company).accept(request, idempotency_key=str(uuid4()))


def apply(play: Play, company: Tenant, command: Command) -> None:
    """Apply a command in two processes, and in another one as long as a third process holds its rows."""
    play.twice("apply", command.id)
    setup = setup_of(play, company)
    while setup.command(str(command.id)).applied_at is None:
        play.others.append(ended(play.setup.doing("apply", command.id)))


def refusal_of(play: Play, company: Tenant, command: Command) -> str | None:
    setup = setup_of(play, company)
    play.wait(lambda: setup.command(str(command.id)).applied_at, "the command is applied")
    answer = setup.command(str(command.id)).answer
    assert answer is not None
    return None if answer.refusal is None else answer.refusal.code


def reporting(
    attempt: Attempt, outcome: ConversationOutcome = ConversationOutcome.HUNG_UP_EARLY, at: datetime | None = None
) -> ReportOutcome:
    return ReportOutcome(
        interview_id=attempt.interview_id,
        attempt_id=attempt.id,
        outcome=outcome,
        call_back_at=None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}",
    )


def follower_of(company: Tenant, attempt: Attempt) -> Attempt:
    first, follower = company.attempts(attempt.interview_id)
    assert (first.id, follower.chain_id) == (attempt.id, first.chain_id)
    return follower


# ---- reports


def _report_at_the_door(play: Play) -> None:
    """Kill the intake of a report. The voice server repeats it."""
    key = str(uuid4())
    with a_voice_server(play) as company:
        with _an_answered_call(play, company) as attempt:
            play.dies_and_is_repeated("submit", company.principal, reporting(attempt), key)
        command = setup_of(play, company).command(key)
        assert refusal_of(play, company, command) is None
        play.expected = _TWICE


def _apply_report(play: Play, outcome: ConversationOutcome = ConversationOutcome.HUNG_UP_EARLY) -> None:
    """Kill the worker that applies a report, during the call or after its end. The interview takes no other attempt."""
    with a_voice_server(play) as company:
        calls_back = outcome is ConversationOutcome.CALL_BACK
        with _an_answered_call(play, company, tasks.APPLY) as attempt:
            at = (company.now() + timedelta(seconds=6)).replace(microsecond=0) if calls_back else None
            command = accepted(play, company, reporting(attempt, outcome, at))
            play.dies_applying(command.id)
            invoke = accepted(play, company, InvokeAttempt(interview_id=attempt.interview_id))
            play.twice("apply", command.id)
        assert refusal_of(play, company, command) is None
        is_refused = invoke.answer is not None and invoke.answer.refusal is not None
        assert is_refused or play.cell.failpoint == "apply.applied", "the call, or the wait for its report, is not over"
        play.expected = _TWICE
        if not is_refused:
            # The report was applied, so that the invoke replaces the attempt that follows.
            play.expected = replace(_TWICE, reasons=(Reason.ANSWERED, Reason.REPLACED, Reason.ANSWERED))
        elif at is not None:
            play.wait(play.is_over, "the person is called back")
            assert datetime.fromisoformat(play.rings()[1]["accepted_at"]) >= at


def _report_then_invoke(play: Play) -> None:
    """Kill the worker that applies an invoke, while two diallers take the attempt that follows the report."""
    with a_voice_server(play) as company:
        with _an_answered_call(play, company, tasks.APPLY, until=_IS_AWAITED) as attempt:
            report = accepted(play, company, reporting(attempt))
            apply(play, company, report)
            play.wait(lambda: len(company.attempts(attempt.interview_id)) > 1, "the retry follows the end of the call")
            follower, begun = follower_of(company, attempt), company.now()
            invoke = accepted(play, company, InvokeAttempt(interview_id=attempt.interview_id))
            play.dies_applying(invoke.id)
            play.dialled_twice(follower)
            play.twice("apply", invoke.id)
        replace(play, setup=setup_of(play, company)).note(Verb.INVOKE, follower, begun, invoke)
        play.expected = replace(_TWICE, reasons=(Reason.ANSWERED, Reason.REPLACED, Reason.ANSWERED))


def _report_then_delete(play: Play) -> None:
    """Kill the worker that applies a report, while the interview is deleted. No phone rings after the deletion."""
    with a_voice_server(play) as company:
        with _an_answered_call(play, company, tasks.APPLY, until=_IS_AWAITED) as attempt:
            report = accepted(play, company, reporting(attempt))
            deletion = accepted(play, company, DeleteInterview(interview_id=attempt.interview_id))
            play.dies_applying(report.id)
            apply(play, company, report)
            play.dialled_twice(follower_of(company, attempt))
            play.twice("apply", deletion.id)
        assert [refusal_of(play, company, each) for each in (report, deletion)] == [None, None]
        play.expected = Ending(rings=1, reasons=(Reason.ANSWERED, Reason.INTERVIEW_DELETED))


def _hear_reported(play: Play) -> None:
    """Kill the worker that hears the end of a call whose outcome was reported before. One retry follows."""
    with a_voice_server(play) as company:
        with play.setup.leave(tasks.SETTLE, tasks.HEAR):
            attempt = play.a_pending_attempt(tenant=company)
            end = play.wait(lambda: how_it_ended(play, attempt), "the callback with the end of the call arrives")
            play.others.append(ended(play.setup.doing("hear", callback_of(play, attempt, _ANSWER))))
            report = accepted(play, company, reporting(attempt))
            apply(play, company, report)
            assert refusal_of(play, company, report) is None
            play.dies_and_is_repeated("hear", end)
        play.expected = _TWICE


def _end_the_wait(play: Play) -> None:
    """Kill the process that ends the wait for a report. A later report changes nothing."""
    with a_voice_server(play) as company:
        with _an_answered_call(play, company, until=_IS_AWAITED) as attempt:
            play.dies_settling()
            play.wait(lambda: _is_over_after_a_round(play, attempt), "the wait is over")
            command = accepted(play, company, reporting(attempt))
        assert refusal_of(play, company, command) == "OUTCOME_REPORTED"
        assert company.interview_status(attempt) is InterviewStatus.COMPLETED


def _is_over_after_a_round(play: Play, attempt: Attempt) -> bool:
    if has(play, attempt, _IS_AWAITED):  # a process with a wrong clock ends no wait, and its time may go on
        play.others.append(ended(play.setup.doing("settle")))
    return not has(play, attempt, _IS_AWAITED)


# ---- verdicts


def _hear_a_verdict(play: Play, *, is_reported: bool = False) -> None:
    """Kill the worker that hears a verdict. The end of the call was heard before and waits for it.

    If the conversation has reported an outcome in between, the report counts.
    """
    with a_voice_server(play) as company:
        with play.setup.leave(tasks.SETTLE, tasks.HEAR):
            attempt = play.a_pending_attempt(tenant=company)
            verdict = callback_of(play, attempt, VERDICT)
            end = play.wait(lambda: how_it_ended(play, attempt), "the callback with the end of the call arrives")
            play.others.append(ended(play.setup.doing("hear", end)))
            assert company.attempt(attempt.id).hung_up_at is not None, "the end waits for the verdict"
            if is_reported:
                report = accepted(play, company, reporting(attempt))
                apply(play, company, report)
                assert refusal_of(play, company, report) is None
            play.dies_and_is_repeated("hear", verdict)
        play.expected = _TWICE if is_reported else play.ordinarily


def _settle_without_a_verdict(play: Play) -> None:
    """Kill the process that polls a call whose verdict was lost. It counts as answered by a person."""
    with a_voice_server(play) as company, play.setup.leave(tasks.SETTLE):
        attempt = play.a_pending_attempt(tenant=company)
        play.wait(lambda: has(play, attempt, "hung_up_at IS NOT NULL"), "the end waits for the verdict")
        company.change(
            "UPDATE attempts SET look_at = :now, hung_up_at = hung_up_at - :wait WHERE id = :id",
            now=company.now(),
            wait=VERDICT_WAIT,
            id=attempt.id,
        )
        play.dies_settling()


# ---- ends that wait for an accepted report

_CALLBACKS = {
    "machine": (VERDICT, END),
    "machine_after_the_end": (END, VERDICT),
    "no_instructions": (_FALLBACK, END),
    "answered": (_ANSWER, END),
}
"""By behaviour, the callback that is heard before the report is accepted, and the one that ends the call after it."""


@contextmanager
def _an_early_end(
    play: Play, *, is_given_up: bool = False, is_revoked: bool = False
) -> Iterator[tuple[Tenant, Attempt, UUID, Command]]:
    """Accept a report, and let the call end in a way that would refuse it. Apply the report at the end of the block.

    Inside the block only the processes of the cell hear the end or apply the report. Afterwards the report counts:
    nothing follows the call, although a retry would follow a machine.
    """
    earlier, last = _CALLBACKS[play.cell.behaviour]
    with a_voice_server(play) as company:
        with play.setup.leave(tasks.SETTLE, tasks.HEAR, tasks.APPLY):
            attempt = play.a_pending_attempt(tenant=company)
            if is_given_up:
                play.wait(lambda: has(play, attempt, "phase = 'PLACED'"), "the answer to the POST is recorded")
                company.take(attempt, ProofMissing())
            play.others.append(ended(play.setup.doing("hear", callback_of(play, attempt, earlier))))
            report = accepted(play, company, reporting(attempt, ConversationOutcome.FINISHED))
            if is_revoked:
                revoke_key(company)
            yield company, attempt, callback_of(play, attempt, last), report
            apply(play, company, report)
        assert refusal_of(play, company, report) is None
        play.wait(play.is_over, "the end is heard after the report")
        assert company.attempt(attempt.id).outcome is ConversationOutcome.FINISHED
        assert company.interview_status(attempt) is InterviewStatus.COMPLETED
        play.expected = Ending(rings=1, reasons=(Reason.ANSWERED,))


def _hear_early_end(play: Play, *, is_given_up: bool = False, is_revoked: bool = False) -> None:
    """Kill the worker that hears the end of a call before the report."""
    with _an_early_end(play, is_given_up=is_given_up, is_revoked=is_revoked) as (_, _, end, _):
        play.dies_and_is_repeated("hear", end)


def _poll_early_end(play: Play) -> None:
    """Kill the process that polls a call before the report. It is polled again."""
    with _an_early_end(play) as (company, attempt, _, _):
        for step in (play.dies, play.twice):
            company.change("UPDATE attempts SET look_at = :now WHERE id = :id", now=company.now(), id=attempt.id)
            step("settle")


def _apply_after_early_end(play: Play) -> None:
    """Kill the worker that applies the report. Before and afterwards, two workers hear the end of the call."""
    with _an_early_end(play) as (_, _, end, report):
        play.twice("hear", end)
        play.dies_applying(report.id)
        play.twice("hear", end)


CONVERSATIONS: Mapping[str, Callable[[Play], None]] = {
    "outcome at the door": _report_at_the_door,
    "apply outcome": _apply_report,
    "apply call back": partial(_apply_report, outcome=ConversationOutcome.CALL_BACK),
    "outcome, invoke": _report_then_invoke,
    "outcome, deletion": _report_then_delete,
    "hear with outcome": _hear_reported,
    "end the wait": _end_the_wait,
    "hear verdict": _hear_a_verdict,
    "verdict and outcome": partial(_hear_a_verdict, is_reported=True),
    "no verdict": _settle_without_a_verdict,
    "early end": _hear_early_end,
    "early end, key": partial(_hear_early_end, is_revoked=True),
    "early end, proof": partial(_hear_early_end, is_given_up=True),
    "early end, poll": _poll_early_end,
    "early end, apply": _apply_after_early_end,
}
APPLYING = ("apply.doing", "apply.answering", "apply.applied")
HEARING = ("hear.hearing", "hear.heard")

OF_CONVERSATIONS: tuple[Cell, ...] = (
    *cells("end the wait", ["settle.finishing", "settle.finished"], HEARD_AS_ANSWERED),
    *cells("outcome at the door", ["submit.accepting", "submit.accepted", "submit.rung"], ("answered", "slow")),
    *cells("apply outcome", APPLYING, HEARD_AS_ANSWERED),
    *cells("apply call back", APPLYING, HEARD_AS_ANSWERED),
    *cells("outcome, invoke", APPLYING, ("answered", "reordered", "late_accept")),
    *cells("outcome, deletion", APPLYING, ("answered", "reordered", "late_accept")),
    *cells("hear with outcome", HEARING, HEARD_AS_ANSWERED),
    *cells("hear verdict", HEARING, JUDGED),
    *cells("verdict and outcome", HEARING, JUDGED),
    *cells("no verdict", ["settle.taken", "settle.asked", "settle.proving", "settle.settled"], ("no_verdict",)),
    *cells("early end", HEARING, ("machine", "machine_after_the_end", "no_instructions")),
    *cells("early end, key", HEARING, ("answered",)),
    *cells("early end, proof", HEARING, ("answered",)),
    *cells("early end, poll", ["settle.proving", "settle.settled"], ("machine",)),
    *cells("early end, apply", APPLYING, ("machine",)),
)
