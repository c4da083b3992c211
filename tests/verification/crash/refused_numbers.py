"""Stories of the crash matrix about numbers that are not called again, because a conversation has said so.

Whatever dies, no phone rings after an opt-out was accepted, unless its dialler has made the last look before: neither
for a planned retry, nor for another interview.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import uuid4

from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Reason
from scheduler.domain.command import Command, DeleteInterview, InvokeAttempt, ReportOutcome
from scheduler.domain.interview import InterviewStatus
from scheduler.use_cases.shared import hints as tasks
from tests.support.builders import Tenant
from tests.verification.crash.behaviours import BEHAVIOURS, JUDGED, OUTCOME_UNPROVEN, Ending
from tests.verification.crash.conversations import (
    APPLYING,
    END,
    HEARING,
    VERDICT,
    a_voice_server,
    accepted,
    apply,
    callback_of,
    follower_of,
    has,
    refusal_of,
    reporting,
    revoke_key,
    setup_of,
)
from tests.verification.crash.stories import Cell, Play, cells
from tests.verification.world.installation import ended, has_ended
from tests.verification.world.workers import CLOCK, is_stopped, thawed


def _opting_out(attempt: Attempt) -> ReportOutcome:
    return reporting(attempt, ConversationOutcome.OPTED_OUT)


def _deferrals(play: Play, attempt: Attempt) -> list[str]:
    query = "SELECT detail ->> 'cause' AS cause FROM attempt_history WHERE attempt_id = :id AND event = 'deferred'"
    return [row.cause for row in play.tenant.ask(query, id=attempt.id)]


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
        retry = follower_of(company, attempt)
        play.wait(lambda: company.now() > retry.due_at, "the retry is due")
        with play.setup.leave(*steps):
            yield attempt, retry


def _is_noted_once(play: Play, company: Tenant, attempt: Attempt, command: Command) -> None:
    """Report the same again: it has the same answer and changes nothing."""
    assert refusal_of(play, company, command) is None
    setup, history = setup_of(play, company), company.history(attempt.id)
    again = accepted(play, company, _opting_out(attempt))
    apply(play, company, again)
    assert setup.command(str(again.id)).answer == setup.command(str(command.id)).answer
    assert company.history(attempt.id) == history
    assert history.count("reported") == 1
    assert company.attempt(attempt.id).reason is Reason.VOICEMAIL


def _opt_out_of_retry(play: Play) -> None:
    """Kill the worker that applies the opt-out, while two diallers take the retry. It is cancelled."""
    with a_voice_server(play, has_verdict=True) as company:
        with _a_retry(play, company, tasks.APPLY) as (attempt, retry):
            command = accepted(play, company, _opting_out(attempt))
            play.dies_applying(command.id)
            play.dialled_twice(retry)
            apply(play, company, command)
            _is_noted_once(play, company, attempt, command)
        assert company.history(retry.id) == ["created", "cancelled"], "it was not claimed after the report"
        assert company.interview_status(attempt) is InterviewStatus.FAILED
        play.expected = Ending(rings=1, reasons=(Reason.VOICEMAIL, Reason.REPLACED))


def _opt_out_of_claimed_retry(play: Play) -> None:
    """Kill the dialler of the retry, and report the opt-out then. Only a call that was sent rings."""
    with a_voice_server(play, has_verdict=True) as company:
        with _a_retry(play, company, tasks.APPLY) as (attempt, retry):
            play.dies_dialling(retry)
            command = accepted(play, company, _opting_out(attempt))
            apply(play, company, command)
            _is_noted_once(play, company, attempt, command)
        was_sent = play.cell.failpoint in {"dial.sent", "dial.recorded"}
        of_retry = BEHAVIOURS[play.cell.behaviour].when_unrecorded if was_sent else OUTCOME_UNPROVEN
        # The policy has one retry, and this is it.
        rings = 1 + min(of_retry.rings, 1)
        play.expected = Ending(rings=rings, reasons=(Reason.VOICEMAIL, of_retry.reasons[0]))


def _opt_out_before_last_look(play: Play) -> None:
    """Kill the worker that applies the opt-out, while the dialler of the retry is frozen between claim and last look.

    The last look keeps the phone silent, and the attempt is cancelled when it returns to PENDING.
    """
    with a_voice_server(play, has_verdict=True) as company:
        with _a_retry(play, company, tasks.APPLY) as (attempt, retry):
            dialler = play.setup.dialling([retry.id], DUECALL_FAILPOINT="dial.claimed:stop")
            play.diallers.append(dialler)
            play.wait_for_failpoint(lambda: is_stopped(dialler), retry)
            command = accepted(play, company, _opting_out(attempt))
            play.dies_applying(command.id)
            apply(play, company, command)
            thawed(dialler)
            _is_noted_once(play, company, attempt, command)
            play.wait_for_failpoint(lambda: has_ended(dialler) or _deferrals(play, retry) == ["OPTED_OUT"], retry)
        assert _deferrals(play, retry) == ["OPTED_OUT"]
        assert company.interview_status(attempt) is InterviewStatus.FAILED
        play.expected = Ending(rings=1, reasons=(Reason.VOICEMAIL, Reason.REPLACED))


# ---- opt-outs of a number that another interview calls


@contextmanager
def _another_interview(play: Play, company: Tenant) -> Iterator[tuple[Attempt, Attempt]]:
    """Call a person, and create a due attempt of another interview to the same number. Return both attempts.

    Inside the block only the processes of the cell dial it, or apply a command.
    """
    attempt = play.a_pending_attempt(tenant=company)
    play.wait(lambda: has(play, attempt, "state = 'COMPLETED'"), "the call has ended")
    with play.setup.leave(CLOCK, tasks.APPLY):
        other = play.a_pending_attempt(tenant=company, number=play.numbers[0])
        play.wait(lambda: company.now() > company.line(attempt)[2], "the number has rested")
        yield attempt, other


def _is_put_back(play: Play, company: Tenant, attempt: Attempt, cause: str) -> None:
    """Wait until a dialler has looked at the attempt. It must not be called."""
    play.wait_for_failpoint(
        lambda: cause in _deferrals(play, attempt) or "placed" in company.history(attempt.id), attempt
    )
    assert cause in _deferrals(play, attempt), "it was called after the opt-out was accepted"


def _is_held(play: Play, company: Tenant, command: Command, other: Attempt) -> None:
    """Apply the opt-out, and look at the attempt of the other interview again. It is held until its interview ends."""
    apply(play, company, command)
    assert refusal_of(play, company, command) is None
    if "OPTED_OUT" not in _deferrals(play, other):
        company.change("UPDATE attempts SET due_at = :now WHERE id = :id", now=company.now(), id=other.id)
        play.setup.dialler.hand(other.id)
        _is_put_back(play, company, other, "OPTED_OUT")
    assert company.attempt(other.id).state is AttemptState.PENDING
    apply(play, company, accepted(play, company, DeleteInterview(interview_id=other.interview_id)))
    play.expected = Ending(rings=1, reasons=(Reason.ANSWERED, Reason.INTERVIEW_DELETED))


def _opt_out_elsewhere(play: Play) -> None:
    """Kill the worker that applies the opt-out, while two diallers take the attempt of the other interview."""
    with a_voice_server(play) as company, _another_interview(play, company) as (attempt, other):
        command = accepted(play, company, _opting_out(attempt))
        play.dies_applying(command.id)
        play.dialled_twice(other)
        is_applied = play.cell.failpoint == "apply.applied"
        _is_put_back(play, company, other, "OPTED_OUT" if is_applied else "COMMAND_WAITING")
        _is_held(play, company, command, other)


def _opt_out_elsewhere_at_the_door(play: Play) -> None:
    """Kill the intake of the opt-out after its commit. It counts before the voice server repeats it."""
    key = str(uuid4())
    with a_voice_server(play) as company, _another_interview(play, company) as (attempt, other):
        words = (company.principal, _opting_out(attempt), key)
        play.dies("submit", *words)
        play.dialled_twice(other)
        _is_put_back(play, company, other, "COMMAND_WAITING")
        play.twice("submit", *words)
        _is_held(play, company, setup_of(play, company).command(key), other)


def _opt_out_before_the_other_is_put_back(play: Play) -> None:
    """Kill the dialler that puts the attempt of the other interview back, because an opt-out was accepted."""
    with a_voice_server(play) as company, _another_interview(play, company) as (attempt, other):
        command = accepted(play, company, _opting_out(attempt))
        play.dies_dialling(other)
        _is_put_back(play, company, other, "COMMAND_WAITING")
        _is_held(play, company, command, other)


def _opt_out_after_the_other_was_sent(play: Play) -> None:
    """Kill the dialler of the other interview after its POST. The opt-out comes too late for this call."""
    with a_voice_server(play) as company:
        with _another_interview(play, company) as (attempt, other):
            play.dies_dialling(other)
            command = accepted(play, company, _opting_out(attempt))
            revoke_key(company)  # nothing awaits a report of the second call
            apply(play, company, command)
        assert refusal_of(play, company, command) is None
        play.expected = Ending(rings=2, reasons=(Reason.ANSWERED, Reason.ANSWERED))


# ---- opt-outs of an earlier chain


def _opt_out_of_invoked(play: Play) -> None:
    """Kill the worker that hears the end of an invoked call, during which the call before it reports an opt-out.

    The carrier takes the person for a machine both times. The end waits for the report, and no retry follows.
    """
    machine, *_ = BEHAVIOURS["machine"].rules
    with a_voice_server(play) as company:
        with _a_retry(play, company, tasks.APPLY, tasks.HEAR, tasks.SETTLE) as (attempt, _):
            play.setup.carrier.plan(to=play.numbers[0], attempt=2, **machine)
            apply(play, company, accepted(play, company, InvokeAttempt(interview_id=attempt.interview_id)))
            *_, invoked = company.attempts(attempt.interview_id)
            play.setup.dialler.hand(invoked.id)
            play.others.append(ended(play.setup.doing("hear", callback_of(play, invoked, VERDICT))))
            command = accepted(play, company, _opting_out(attempt))
            end = callback_of(play, invoked, END)
            play.twice("hear", end)
            apply(play, company, command)
            play.dies_and_is_repeated("hear", end)
            assert company.attempts(attempt.interview_id)[-1].id == invoked.id, "no retry follows"
        assert refusal_of(play, company, command) is None
        assert company.interview_status(attempt) is InterviewStatus.FAILED
        play.expected = Ending(rings=2, reasons=(Reason.VOICEMAIL, Reason.REPLACED, Reason.VOICEMAIL))


REFUSED_NUMBERS: Mapping[str, Callable[[Play], None]] = {
    "opt-out": _opt_out_of_retry,
    "opt-out, claim": _opt_out_of_claimed_retry,
    "opt-out, last look": _opt_out_before_last_look,
    "elsewhere": _opt_out_elsewhere,
    "elsewhere, intake": _opt_out_elsewhere_at_the_door,
    "elsewhere, look": _opt_out_before_the_other_is_put_back,
    "elsewhere, sent": _opt_out_after_the_other_was_sent,
    "opt-out, invoked": _opt_out_of_invoked,
}

OF_REFUSED_NUMBERS: tuple[Cell, ...] = (
    *cells("opt-out", APPLYING, ("machine", "machine_after_the_end")),
    *cells("opt-out, claim", ["dial.claimed", "dial.looked", "dial.permitted", "dial.recorded"], ("answered",)),
    *cells("opt-out, claim", ["dial.sent"], ("answered", "unlisted", "accept_and_silence", "refuse_500", "busy")),
    *cells("opt-out, last look", APPLYING, ("answered",)),
    *cells("elsewhere", APPLYING, ("answered",)),
    *cells("elsewhere, intake", ["submit.accepted", "submit.rung"], ("answered",)),
    *cells("elsewhere, look", ["dial.deferred"], ("answered",)),
    *cells("elsewhere, sent", ["dial.sent"], ("answered",)),
    *cells("opt-out, invoked", HEARING, ("machine",)),
)
