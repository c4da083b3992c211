"""Commands about what went wrong: `duecall alarms`, `quarantine`, `unknown`, `carrier` and `locks`."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from command_line.app import (
    NO_PERSON,
    ActReason,
    AsJson,
    Reason,
    alarms,
    carrier,
    examples,
    id_argument,
    id_option,
    locks,
    operator_session,
    print_pages,
    quarantine,
    unknown,
)
from command_line.output import fail, plain, print_json, print_note, refuse
from scheduler.domain.attempt import Decision
from scheduler.timing.time_texts import span_text

if TYPE_CHECKING:
    from datetime import datetime

    from command_line.session import OperatorSession
    from scheduler.domain.command import Command
    from scheduler.persistence.unknown_outcomes import UnknownOutcome

# --- `duecall alarms`: alarms that no operator has acknowledged yet, and earlier ones


@alarms.command("list", epilog=examples("duecall alarms list", "duecall alarms list --all --json | jq '.[].kind'"))
def alarms_list(
    everything: Annotated[bool, typer.Option("--all", help="Include acknowledged alarms, the newest first.")] = False,
    as_json: AsJson = False,
) -> None:
    """List open alarms with their kind, meaning, times, count and ids. The last one that was seen comes first.

    `docs/operations.md` has the steps for each kind. At most 1,000 alarms are listed.
    """
    from command_line.lists import alarms_as_json, alarms_page

    with operator_session() as session:
        listed, now = session.alarms.all() if everything else session.alarms.open(), session.now()
    if as_json:
        print_json(alarms_as_json(listed))
    else:
        print_pages(alarms_page(listed, now))


@alarms.command(
    "ack",
    epilog=examples(
        "duecall alarms ack 0199c1e2-7d39-7d0c-9f6e-2f1f0f3c7a55",
        "duecall alarms ack --kind DEAF_WORKER --note 'the proxy was restarted'",
    ),
)
def alarms_ack(
    alarm_id: Annotated[
        UUID | None, id_argument("ALARM_ID", "Id from `duecall alarms list`. Either ALARM_ID or --kind is required.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="All open alarms of this kind, in place of ALARM_ID.")
    ] = None,
    note: Annotated[str | None, typer.Option(help=f"Note, in one line, for operators. {NO_PERSON}")] = None,
    as_json: AsJson = False,
) -> None:
    """Acknowledge an alarm, or all of a kind. The next occurrence opens another alarm."""
    if (alarm_id is None) == (kind is None):
        refuse("Give either ALARM_ID or --kind KIND. See: duecall alarms ack --help")
    with operator_session() as session:
        closed = session.alarms.acknowledge(alarm_id, kind=None if kind is None else kind.strip().upper(), note=note)
        if not as_json:
            count = sum(each.count for each in closed)
            alarms = (
                "1 alarm is acknowledged; it" if len(closed) == 1 else f"{len(closed)} alarms are acknowledged; they"
            )
            session.report(f"{alarms} occurred {count} {'time' if count == 1 else 'times'}")
    if as_json:
        print_json({"acknowledged": [each.id for each in closed]})


# --- `duecall quarantine`: commands and callbacks that failed five times


_QuarantinedId = Annotated[UUID, id_argument("ID", "Id from `duecall quarantine list`.")]


@quarantine.command("list", epilog=examples("duecall quarantine list", "duecall quarantine list --json"))
def quarantine_list(as_json: AsJson = False) -> None:
    """List the commands and callbacks in quarantine, oldest first, with the place of the error and without a body."""
    with operator_session() as session:
        found = session.quarantine.page()
    session.print_list(
        found,
        lambda each: {
            "id": each.id,
            "kind": each.kind.value,
            "command": each.command,
            "companyId": each.company_id,
            "interviewId": each.interview_id,
            "attemptId": each.attempt_id,
            "receivedAt": each.received_at,
            "firstFailedAt": each.first_failed_at,
            "lastFailedAt": each.quarantined_at,
            "failedWith": each.failed_with,
        },
        as_json=as_json,
        empty="nothing is in quarantine",
    )


@quarantine.command("retry", epilog=examples("duecall quarantine retry ID --reason 'release 1.4.2 fixes it'"))
def quarantine_retry(quarantined_id: _QuarantinedId, reason: ActReason = "") -> None:
    """Retry a command or a callback after its cause is fixed. A command is judged as of when it was received."""
    with operator_session() as session:
        kind = session.quarantine.requeue(quarantined_id, reason)
    session.report(f"{kind.value} {quarantined_id} is retried within seconds")


@quarantine.command("drop", epilog=examples("duecall quarantine drop ID --reason 'the interview was sent again'"))
def quarantine_drop(quarantined_id: _QuarantinedId, reason: ActReason = "") -> None:
    """Drop a command or a callback, and delete its body.

    For a command the client receives 409 COMMAND_DROPPED, and its interview accepts commands again. The call of a
    callback is polled until its end is known, as if the callback had never come.
    """
    with operator_session() as session:
        dropped = session.quarantine.drop(quarantined_id, reason)
    if dropped.kind.value == "command":
        session.report(f"command {quarantined_id} was dropped and had no effect")
    elif dropped.next_poll_at is None:
        session.report(f"callback {quarantined_id} was dropped; no attempt waits for its news")
    else:
        session.report(
            f"callback {quarantined_id} was dropped; the carrier is polled about attempt {dropped.attempt_id}, next at"
            f" {dropped.next_poll_at.isoformat()}"
        )


# --- `duecall unknown`: the work list of calls about which the carrier proved nothing


_RUNBOOK = "docs/operations.md#outcome_unknown"
_CHECK_EVERY_S = 0.2
_MEANS = {
    Decision.RANG: "it rang",
    Decision.DID_NOT_RING: "it did not ring: call again",
    Decision.LEFT: "left as it is",
}


@unknown.command("list", epilog=examples("duecall unknown list", "duecall unknown list --company COMPANY_ID --json"))
def unknown_list(
    company: Annotated[UUID | None, id_option("COMPANY_ID", "Only the calls of this company.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the call attempts of unknown outcome that are to be decided, oldest first.

    Each line has the ids of the attempt, its interview and its company, the time since which the outcome is unknown,
    the last complete list of the carrier, and the next time at which the carrier is asked.
    """
    with operator_session() as session:
        now, found = session.now(), session.unknown_outcomes.page(company)
    session.print_list(
        found,
        lambda each: {
            "attemptId": each.id,
            "interviewId": each.interview_id,
            "companyId": each.company_id,
            "unknownSince": each.ended_at,
            "unknownSeconds": max(0, int((now - each.ended_at).total_seconds())),
            "claimedAt": each.claimed_at,
            "listedAt": each.listed_at,
            "nextAskedAt": each.look_at or each.search_at,
            "isLive": each.look_at is not None,
            "alarm": "OUTCOME_UNKNOWN",
            "runbook": _RUNBOOK,
        },
        lambda each: _unknown_cells(each, now),
        as_json=as_json,
        empty="no outcome is unknown",
    )
    if found and not as_json:
        print_note(f"Alarm OUTCOME_UNKNOWN, see {_RUNBOOK}. Decide: duecall unknown decide ATTEMPT_ID --help")


def _unknown_cells(each: "UnknownOutcome", now: "datetime") -> Iterator[object]:
    yield from (each.id, each.interview_id, each.company_id)
    yield f"unknown since {plain(each.ended_at)} ({span_text(max(timedelta(), now - each.ended_at))})"
    yield f"list read {plain(each.listed_at) or 'never'}"
    if each.look_at is not None:
        yield f"live call, polled next {plain(each.look_at)}"
    else:
        yield f"searched for next {plain(each.search_at)}" if each.search_at else "not searched for any longer"


@unknown.command(
    "decide",
    epilog=examples(
        "duecall unknown decide ATTEMPT_ID --rang --reason 'the carrier console shows 12 s of ringing'",
        "duecall unknown decide ATTEMPT_ID --call-again --reason 'the carrier console shows no call'",
        "duecall unknown decide ATTEMPT_ID --leave --reason 'the job was filled'",
    ),
)
def unknown_decide(
    attempt_id: Annotated[UUID, id_argument("ATTEMPT_ID", "Id from `duecall unknown list`.")],
    *,
    rang: Annotated[bool, typer.Option("--rang", help="The phone rang. No call follows.")] = False,
    call_again: Annotated[
        bool, typer.Option("--call-again", help="The phone did not ring. The interview is invoked, once.")
    ] = False,
    leave: Annotated[bool, typer.Option("--leave", help="No call follows. The outcome stays unknown.")] = False,
    reason: ActReason = "",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the worker that applies it.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Decide about a call attempt of unknown outcome. Late proof by the carrier still replaces the outcome.

    A worker applies the decision. If a call again is refused, for example because the consent has ended, nothing is
    decided. A repeated decision changes nothing, and another decision is refused.
    """
    chosen = {Decision.RANG: rang, Decision.DID_NOT_RING: call_again, Decision.LEFT: leave}
    decisions = [decision for decision, is_chosen in chosen.items() if is_chosen]
    if len(decisions) != 1:
        refuse("Give exactly one of --rang, --call-again and --leave. See: duecall unknown decide --help")
    [decision] = decisions
    with operator_session() as session:
        command_id = session.unknown_outcomes.decide(attempt_id, decision, reason)
        command = None if command_id is None else _applied(session, command_id, wait)
    if command is not None and command.answer is not None and command.answer.refusal is not None:
        fail(f"Nothing was decided. {command.answer.refusal.message}")
    if as_json:
        print_json(_as_json(attempt_id, decision, command))
        return
    session.report(_told(attempt_id, decision, command))


def _applied(session: "OperatorSession", command_id: UUID, wait_s: float) -> "Command":
    """Wait for the answer of the command. Without one in time, return the command as it is."""
    command = session.unknown_outcomes.command(command_id)
    for _ in range(round(wait_s / _CHECK_EVERY_S)):
        if command.answer is not None:
            break
        time.sleep(_CHECK_EVERY_S)
        command = session.unknown_outcomes.command(command_id)
    return command


def _called(attempt_id: UUID, command: "Command | None") -> UUID | None:
    """Find the attempt that calls again."""
    called = None if command is None or command.answer is None else command.answer.attempt_id
    return None if called == attempt_id else called


def _as_json(attempt_id: UUID, decision: Decision, command: "Command | None") -> dict[str, object]:
    return {
        "attemptId": attempt_id,
        "decision": decision.value,
        "changed": command is not None,
        "commandId": None if command is None else command.id,
        "applied": command is None or command.answer is not None,
        "calledAgainBy": _called(attempt_id, command),
    }


def _told(attempt_id: UUID, decision: Decision, command: "Command | None") -> str:
    if command is None:
        return f"attempt {attempt_id} was decided so before ({_MEANS[decision]}); nothing changed"
    if command.answer is None:
        return (
            f"the decision about attempt {attempt_id} is accepted and not applied yet. Repeat the command to see its"
            " result, and check that an intake worker runs"
        )
    called = _called(attempt_id, command)
    after = "" if called is None else f"; attempt {called} calls again"
    return f"attempt {attempt_id} is decided: {_MEANS[decision]}{after}"


# --- `duecall carrier`: calls to a country or from a number that wait for the carrier, and stray calls


@carrier.command("list", epilog=examples("duecall carrier list", "duecall carrier list --json"))
def carrier_list(as_json: AsJson = False) -> None:
    """List the back-offs: the country or the company's number, the cause, and the time of the next trial."""
    from command_line.status import backoff_as_json

    with operator_session() as session:
        backoffs = session.carrier_waits.all()
    session.print_list(backoffs, backoff_as_json, as_json=as_json, empty="no calls back off")


@carrier.command("retry", epilog=examples("duecall carrier retry   # after the carrier has granted a permission"))
def carrier_retry(reason: Reason = None) -> None:
    """Try one call of each back-off now. If the carrier accepts it, the other calls follow."""
    with operator_session() as session:
        count = session.carrier_waits.end(reason)
    session.report(f"{count} back-offs ended; one call of each is tried")


@carrier.command("strays", epilog=examples("duecall carrier strays", "duecall carrier strays --json"))
def carrier_strays(as_json: AsJson = False) -> None:
    """List the stray calls, which belong to no attempt and have not provably ended, oldest first.

    Each line has the carrier's id of the call, the attempt whose number it calls, and the times at which it was seen
    and is polled next.
    """
    with operator_session() as session:
        strays = session.carrier_waits.stray_calls()
    session.print_list(
        strays,
        lambda each: {
            "callSid": each.call_sid,
            "attemptId": each.attempt_id,
            "seenAt": each.seen_at,
            "nextAskedAt": each.look_at,
        },
        as_json=as_json,
        empty="no stray call is open",
    )


# --- `duecall locks`: open transactions of the database, which may keep rows locked


@locks.command("list", epilog=examples("duecall locks list", "duecall locks list --json"))
def locks_list(as_json: AsJson = False) -> None:
    """List the open transactions of all programs, oldest first.

    Each line has the database session's id, its login, its program, its state, the kind of its wait, the beginning of
    its transaction and the number of sessions that wait for it. Statements are not shown.
    """
    with operator_session() as session:
        found = session.database_sessions.open_transactions()
    session.print_list(
        found,
        lambda each: {
            "pid": each.pid,
            "login": each.login,
            "program": each.program,
            "state": each.state,
            "waitsFor": each.waits_for,
            "since": each.since,
            "blocks": each.blocks if as_json else f"blocks {each.blocks}",
        },
        as_json=as_json,
        empty="no transaction is open",
    )


@locks.command("end", epilog=examples("duecall locks end 4711 --reason 'a forgotten psql'"))
def locks_end(
    pid: Annotated[int, typer.Argument(metavar="PID", min=1, help="Session id from `duecall locks list`.")],
    reason: ActReason = "",
) -> None:
    """End a database session. Its transaction is rolled back, and its program receives an error."""
    with operator_session() as session:
        session.database_sessions.end(pid, reason)
    session.report(f"session {pid} was ended")
