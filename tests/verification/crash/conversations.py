"""Stories of the crash matrix about conversations: reports of their outcomes, waits for them, and verdicts of machines.

Whatever dies, a call that its conversation reported is followed by one attempt at most. After a late opt-out no phone
rings, unless its dialler has made the last look before.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Attempt, ConversationOutcome, Reason
from scheduler.domain.call import CallProgress, MachineDetection
from scheduler.domain.command import Command, DeleteInterview, InvokeAttempt, ReportOutcome, Request
from scheduler.domain.company import RetryPolicy
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.principal import VOICE, KeyKind
from scheduler.lifecycle.policy import VERDICT_WAIT
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import seed
from tests.support.builders import ALWAYS, Tenant, of_company
from tests.verification.crash.behaviours import BEHAVIOURS, HEARD_AS_ANSWERED, JUDGED, OUTCOME_UNPROVEN, Ending
from tests.verification.crash.stories import Cell, Play, cells, how_it_ended
from tests.verification.judge.history import Verb
from tests.verification.world.installation import ended, has_ended
from tests.verification.world.workers import CLOCK, CrashSetup, is_stopped, thawed

_A_SECOND = timedelta(seconds=1)
_AT_ONCE = RetryPolicy(max_retries=1, delays=dict.fromkeys(("NO_ANSWER", "VOICEMAIL"), (_A_SECOND,)))
_TWICE = Ending(rings=2, reasons=(Reason.ANSWERED, Reason.ANSWERED))
_IS_AWAITED = "outcome_until IS NOT NULL"
_IS_ANSWERED = f"{_IS_AWAITED} OR heard_rank >= :answered"
_OF_A_TOKEN = "SELECT e.id FROM carrier_events e JOIN attempt_tokens t USING (token) WHERE t.attempt_id = :id"


@contextmanager
def _a_voice_server(play: Play) -> Iterator[Tenant]:
    """Create a company that may report outcomes, with asynchronous machine detection if the cell has a verdict."""
    has_verdict = play.cell.behaviour in {*JUDGED, "no_verdict"} or play.cell.story in _REFUSED
    detection = MachineDetection.ASYNC if has_verdict else MachineDetection.SYNC
    settings = {"intervals": ALWAYS, "retry_policy": _AT_ONCE, "machine_detection": detection}
    company = of_company(play.tenant, seed(play.tenant.database, play.tenant.now(), **settings))
    Keys(company.database, company.hasher, company.now).create(
        kind=KeyKind.REGULAR, name="voice", company_id=company.company_id, scopes=frozenset({VOICE})
    )
    yield company
    play.wait(play.is_over, "all attempts are finished")
    _is_booked_once_each(play, company)


def _is_booked_once_each(play: Play, company: Tenant) -> None:
    """Compare the bookings of the company, whose only interview this is, with its answered calls."""
    answered = [each.id for each in play.attempts() if each.reason is Reason.ANSWERED]
    booked = company.ask("SELECT attempt_id FROM usage WHERE company_id = :id", id=company.company_id)
    assert sorted(each for [each] in booked) == sorted(answered), f"{play.cell}: booked {len(booked)} times"


@contextmanager
def _an_answered_call(play: Play, company: Tenant, *steps: str, until: str = _IS_ANSWERED) -> Iterator[Attempt]:
    """Call a person. `until` it is answered, or has ended too, then suspend clock, settling and `steps`.

    An answered call may have ended since. Without the clock, a callback that was put off is not heard.
    """
    attempt = play.a_pending_attempt(tenant=company)
    play.wait(lambda: _has(play, attempt, until), "it is answered")
    with play.setup.leave(CLOCK, tasks.SETTLE, *steps):
        if _has(play, attempt, "state <> 'IN_PROGRESS' AND outcome_until IS NULL"):
            play.is_starved = True
            pytest.fail(f"{play.cell}: the wait for a report was over before it could be suspended")
        yield attempt


def _has(play: Play, attempt: Attempt, condition: str) -> bool:
    """Read without a lock: the processes of the cell need the rows."""
    facts = {"answered": int(CallProgress.ANSWERED)} if ":answered" in condition else {}
    return bool(play.tenant.ask(f"SELECT 1 FROM attempts WHERE id = :id AND ({condition})", id=attempt.id, **facts))


def _setup_of(play: Play, company: Tenant) -> CrashSetup:
    return replace(play.setup, tenant=company)


def _accepted(play: Play, company: Tenant, request: Request) -> Command:
    return _setup_of(play, company).accept(request, idempotency_key=str(uuid4()))


def _apply(play: Play, company: Tenant, command: Command) -> None:
    """Apply a command in two processes, and in another one as long as a third process holds its rows."""
    play.twice("apply", command.id)
    setup = _setup_of(play, company)
    while setup.command(str(command.id)).applied_at is None:
        play.others.append(ended(play.setup.doing("apply", command.id)))


def _refusal_of(play: Play, company: Tenant, command: Command) -> str | None:
    setup = _setup_of(play, company)
    play.wait(lambda: setup.command(str(command.id)).applied_at, "the command is applied")
    answer = setup.command(str(command.id)).answer
    assert answer is not None
    return None if answer.refusal is None else answer.refusal.code


def _reporting(
    attempt: Attempt, outcome: ConversationOutcome = ConversationOutcome.HUNG_UP_EARLY, at: datetime | None = None
) -> ReportOutcome:
    return ReportOutcome(
        interview_id=attempt.interview_id,
        attempt_id=attempt.id,
        outcome=outcome,
        call_back_at=None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}",
    )


def _follower(company: Tenant, attempt: Attempt) -> Attempt:
    first, follower = company.attempts(attempt.interview_id)
    assert (first.id, follower.chain_id) == (attempt.id, first.chain_id)
    return follower


# ---- reports


def _report_at_the_door(play: Play) -> None:
    """Kill the intake of a report. The voice server repeats it."""
    key = str(uuid4())
    with _a_voice_server(play) as company:
        with _an_answered_call(play, company) as attempt:
            play.dies_and_is_repeated("submit", company.principal, _reporting(attempt), key)
        command = _setup_of(play, company).command(key)
        assert _refusal_of(play, company, command) is None
        play.expected = _TWICE


def _apply_report(play: Play, outcome: ConversationOutcome = ConversationOutcome.HUNG_UP_EARLY) -> None:
    """Kill the worker that applies a report, during the call or after its end. The interview takes no other attempt."""
    with _a_voice_server(play) as company:
        calls_back = outcome is ConversationOutcome.CALL_BACK
        with _an_answered_call(play, company, tasks.APPLY) as attempt:
            at = (company.now() + timedelta(seconds=6)).replace(microsecond=0) if calls_back else None
            command = _accepted(play, company, _reporting(attempt, outcome, at))
            play.dies("apply", command.id)
            invoke = _accepted(play, company, InvokeAttempt(interview_id=attempt.interview_id))
            play.twice("apply", command.id)
        assert _refusal_of(play, company, command) is None
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
    with _a_voice_server(play) as company:
        with _an_answered_call(play, company, tasks.APPLY, until=_IS_AWAITED) as attempt:
            report = _accepted(play, company, _reporting(attempt))
            _apply(play, company, report)
            play.wait(lambda: len(company.attempts(attempt.interview_id)) > 1, "the retry follows the end of the call")
            follower, begun = _follower(company, attempt), company.now()
            invoke = _accepted(play, company, InvokeAttempt(interview_id=attempt.interview_id))
            play.dies("apply", invoke.id)
            play.dialled_twice(follower)
            play.twice("apply", invoke.id)
        replace(play, setup=_setup_of(play, company)).note(Verb.INVOKE, follower, begun, invoke)
        play.expected = replace(_TWICE, reasons=(Reason.ANSWERED, Reason.REPLACED, Reason.ANSWERED))


def _report_then_delete(play: Play) -> None:
    """Kill the worker that applies a report, while the interview is deleted. No phone rings after the deletion."""
    with _a_voice_server(play) as company:
        with _an_answered_call(play, company, tasks.APPLY, until=_IS_AWAITED) as attempt:
            report = _accepted(play, company, _reporting(attempt))
            deletion = _accepted(play, company, DeleteInterview(interview_id=attempt.interview_id))
            play.dies("apply", report.id)
            _apply(play, company, report)
            play.dialled_twice(_follower(company, attempt))
            play.twice("apply", deletion.id)
        assert [_refusal_of(play, company, each) for each in (report, deletion)] == [None, None]
        play.expected = Ending(rings=1, reasons=(Reason.ANSWERED, Reason.INTERVIEW_DELETED))


def _hear_reported(play: Play) -> None:
    """Kill the worker that hears the end of a call whose outcome was reported before. One retry follows."""
    with _a_voice_server(play) as company:
        with play.setup.leave(tasks.SETTLE, tasks.HEAR):
            attempt = play.a_pending_attempt(tenant=company)
            end = play.wait(lambda: how_it_ended(play, attempt), "the callback with the end of the call arrives")
            play.others.append(ended(play.setup.doing("hear", _event(play, attempt, "in-progress"))))
            report = _accepted(play, company, _reporting(attempt))
            _apply(play, company, report)
            assert _refusal_of(play, company, report) is None
            play.dies_and_is_repeated("hear", end)
        play.expected = _TWICE


def _event(play: Play, attempt: Attempt, status: str) -> UUID:
    def found() -> list[tuple[UUID]]:
        return play.tenant.ask(f"{_OF_A_TOKEN} AND e.raw ->> 'CallStatus' = :status", id=attempt.id, status=status)

    [event_id] = play.wait(found, f"the callback {status} arrives")[0]
    return UUID(str(event_id))


def _end_the_wait(play: Play) -> None:
    """Kill the process that ends the wait for a report. A later report changes nothing."""
    with _a_voice_server(play) as company:
        with _an_answered_call(play, company, until=_IS_AWAITED) as attempt:
            play.dies_settling()
            play.wait(lambda: _is_over_after_a_round(play, attempt), "the wait is over")
            command = _accepted(play, company, _reporting(attempt))
        assert _refusal_of(play, company, command) == "OUTCOME_REPORTED"
        assert company.interview_status(attempt) is InterviewStatus.COMPLETED


def _is_over_after_a_round(play: Play, attempt: Attempt) -> bool:
    if _has(play, attempt, _IS_AWAITED):  # a process with a wrong clock ends no wait, and its time may go on
        play.others.append(ended(play.setup.doing("settle")))
    return not _has(play, attempt, _IS_AWAITED)


# ---- verdicts


def _hear_a_verdict(play: Play, *, is_reported: bool = False) -> None:
    """Kill the worker that hears a verdict. The end of the call was heard before and waits for it.

    If the conversation has reported an outcome in between, the report counts.
    """
    with _a_voice_server(play) as company:
        with play.setup.leave(tasks.SETTLE, tasks.HEAR):
            attempt = play.a_pending_attempt(tenant=company)
            verdict = play.wait(lambda: _verdict(play, attempt), "the verdict arrives")
            end = play.wait(lambda: how_it_ended(play, attempt), "the callback with the end of the call arrives")
            play.others.append(ended(play.setup.doing("hear", end)))
            assert company.attempt(attempt.id).hung_up_at is not None, "the end waits for the verdict"
            if is_reported:
                report = _accepted(play, company, _reporting(attempt))
                _apply(play, company, report)
                assert _refusal_of(play, company, report) is None
            play.dies_and_is_repeated("hear", verdict)
        play.expected = _TWICE if is_reported else play.ordinarily


def _verdict(play: Play, attempt: Attempt) -> UUID | None:
    rows = play.tenant.ask(f"{_OF_A_TOKEN} AND e.raw ? 'MachineDetectionDuration'", id=attempt.id)
    return rows[0][0] if rows else None


def _settle_without_a_verdict(play: Play) -> None:
    """Kill the process that polls a call whose verdict was lost. It counts as answered by a person."""
    with _a_voice_server(play) as company, play.setup.leave(tasks.SETTLE):
        attempt = play.a_pending_attempt(tenant=company)
        play.wait(lambda: _has(play, attempt, "hung_up_at IS NOT NULL"), "the end waits for the verdict")
        company.change(
            "UPDATE attempts SET look_at = :now, hung_up_at = hung_up_at - :wait WHERE id = :id",
            now=company.now(),
            wait=VERDICT_WAIT,
            id=attempt.id,
        )
        play.dies_settling()


# ---- opt-outs after a wrong verdict


@contextmanager
def _a_retry(play: Play, company: Tenant, *steps: str) -> Iterator[tuple[Attempt, Attempt]]:
    """Let the carrier take a person for a machine. Inside the block the clock does not release the retry.

    The retry behaves as the cell says.
    """
    machine, *_ = BEHAVIOURS["machine"].rules
    rules = BEHAVIOURS[play.cell.behaviour].rules
    with play.setup.leave(CLOCK):
        both = rules if play.cell.behaviour in JUDGED else (machine, *rules)
        attempt = play.a_pending_attempt(*both, tenant=company)
        play.setup.dialler.hand(attempt.id)
        play.wait(lambda: len(company.attempts(attempt.interview_id)) > 1, "the retry follows the call")
        retry = _follower(company, attempt)
        play.wait(lambda: company.now() > retry.due_at, "the retry is due")
        with play.setup.leave(*steps):
            yield attempt, retry


def _opting_out(attempt: Attempt) -> ReportOutcome:
    return _reporting(attempt, ConversationOutcome.OPTED_OUT)


def _is_noted_once(play: Play, company: Tenant, attempt: Attempt, command: Command) -> None:
    """Report the same again: it has the same answer and changes nothing."""
    assert _refusal_of(play, company, command) is None
    setup, history = _setup_of(play, company), company.history(attempt.id)
    again = _accepted(play, company, _opting_out(attempt))
    _apply(play, company, again)
    assert setup.command(str(again.id)).answer == setup.command(str(command.id)).answer
    assert company.history(attempt.id) == history
    assert history.count("reported") == 1
    assert company.attempt(attempt.id).reason is Reason.VOICEMAIL


def _opt_out_of_retry(play: Play) -> None:
    """Kill the worker that applies the opt-out, while two diallers take the retry. It is cancelled."""
    with _a_voice_server(play) as company:
        with _a_retry(play, company, tasks.APPLY) as (attempt, retry):
            command = _accepted(play, company, _opting_out(attempt))
            play.dies("apply", command.id)
            play.dialled_twice(retry)
            _apply(play, company, command)
            _is_noted_once(play, company, attempt, command)
        assert company.history(retry.id) == ["created", "cancelled"], "it was not claimed after the report"
        assert company.interview_status(attempt) is InterviewStatus.FAILED
        play.expected = Ending(rings=1, reasons=(Reason.VOICEMAIL, Reason.REPLACED))


def _opt_out_of_claimed_retry(play: Play) -> None:
    """Kill the dialler of the retry, and report the opt-out then. Only a call that was sent rings."""
    with _a_voice_server(play) as company:
        with _a_retry(play, company, tasks.APPLY) as (attempt, retry):
            play.dies_dialling(retry)
            command = _accepted(play, company, _opting_out(attempt))
            _apply(play, company, command)
            _is_noted_once(play, company, attempt, command)
        was_sent = play.cell.failpoint in {"dial.sent", "dial.recorded"}
        of_retry = BEHAVIOURS[play.cell.behaviour].when_unrecorded if was_sent else OUTCOME_UNPROVEN
        # The policy has one retry, and this is it.
        rings = 1 + min(of_retry.rings, 1)
        play.expected = Ending(rings=rings, reasons=(Reason.VOICEMAIL, of_retry.reasons[0]))


def _opt_out_before_last_look(play: Play) -> None:
    """Kill the worker that applies the opt-out, while the dialler of the retry is frozen between claim and last look.

    The last look keeps the phone silent. The attempt is held until its interview ends.
    """
    with _a_voice_server(play) as company:
        with _a_retry(play, company, tasks.APPLY) as (attempt, retry):
            dialler = play.setup.dialling([retry.id], DUECALL_FAILPOINT="dial.claimed:stop")
            play.diallers.append(dialler)
            play.wait_for_failpoint(lambda: is_stopped(dialler), retry)
            command = _accepted(play, company, _opting_out(attempt))
            play.dies("apply", command.id)
            _apply(play, company, command)
            thawed(dialler)
            _is_noted_once(play, company, attempt, command)
            play.wait_for_failpoint(lambda: has_ended(dialler) or _deferrals(play, retry) == ["OPTED_OUT"], retry)
            deletion = _accepted(play, company, DeleteInterview(interview_id=attempt.interview_id))
            _apply(play, company, deletion)
        assert _deferrals(play, retry) == ["OPTED_OUT"]
        play.expected = Ending(rings=1, reasons=(Reason.VOICEMAIL, Reason.INTERVIEW_DELETED))


def _deferrals(play: Play, attempt: Attempt) -> list[str]:
    query = "SELECT detail ->> 'cause' AS cause FROM attempt_history WHERE attempt_id = :id AND event = 'deferred'"
    return [row.cause for row in play.tenant.ask(query, id=attempt.id)]


_REFUSED: Mapping[str, Callable[[Play], None]] = {
    "opt-out": _opt_out_of_retry,
    "opt-out, claim": _opt_out_of_claimed_retry,
    "opt-out, last look": _opt_out_before_last_look,
}
CONVERSATIONS: Mapping[str, Callable[[Play], None]] = {
    **_REFUSED,
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
}
_APPLYING = ("apply.doing", "apply.answering", "apply.applied")
_HEARING = ("hear.hearing", "hear.heard")

OF_CONVERSATIONS: tuple[Cell, ...] = (
    *cells("end the wait", ["settle.finishing", "settle.finished"], HEARD_AS_ANSWERED),
    *cells("outcome at the door", ["submit.accepting", "submit.accepted", "submit.rung"], ("answered", "slow")),
    *cells("apply outcome", _APPLYING, HEARD_AS_ANSWERED),
    *cells("apply call back", _APPLYING, HEARD_AS_ANSWERED),
    *cells("outcome, invoke", _APPLYING, ("answered", "reordered", "late_accept")),
    *cells("outcome, deletion", _APPLYING, ("answered", "reordered", "late_accept")),
    *cells("hear with outcome", _HEARING, HEARD_AS_ANSWERED),
    *cells("hear verdict", _HEARING, JUDGED),
    *cells("verdict and outcome", _HEARING, JUDGED),
    *cells("no verdict", ["settle.taken", "settle.asked", "settle.proving", "settle.settled"], ("no_verdict",)),
    *cells("opt-out", _APPLYING, ("machine", "machine_after_the_end")),
    *cells("opt-out, claim", ["dial.claimed", "dial.looked", "dial.permitted", "dial.recorded"], ("answered",)),
    *cells("opt-out, claim", ["dial.sent"], ("answered", "unlisted", "accept_and_silence", "refuse_500", "busy")),
    *cells("opt-out, last look", _APPLYING, ("answered",)),
)
