"""Commands about what went wrong: `duecall alarms`, `quarantine`, `unknown`, `carrier` and `locks`."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from scheduler.cli.app import alarms, examples, quarantine, unknown
from scheduler.cli.on_demand import operator_session, print_pages
from scheduler.cli.options import ActReason, AsJson, id_of, instant_text
from scheduler.cli.output import fail, print_json, print_note, print_rows, refuse, required_reason
from scheduler.domain.attempt import Decision
from scheduler.timing.spans import span_text

if TYPE_CHECKING:
    from scheduler.cli.session import OperatorSession
    from scheduler.domain.command import Command
from scheduler.cli.app import carrier, locks
from scheduler.cli.options import Reason

# --- `duecall alarms`: alarms that no operator has acknowledged yet, and earlier ones


@alarms.command("list", epilog=examples("duecall alarms list", "duecall alarms list --all --json | jq '.[].kind'"))
def alarms_list(
    everything: Annotated[bool, typer.Option("--all", help="Acknowledged alarms, too, the newest first.")] = False,
    as_json: AsJson = False,
) -> None:
    """List open alarms with their kind, meaning, times, count and ids. The last one that was seen comes first.

    `docs/operations.md` has the steps for each kind. At most 1,000 alarms are listed.
    """
    from scheduler.terminal.lists import alarms_as_json, alarms_page

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
        UUID | None,
        typer.Argument(
            metavar="ALARM_ID",
            parser=id_of,
            help="Id from `duecall alarms list`. Either ALARM_ID or --kind is required.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="All open alarms of this kind, in place of ALARM_ID.")
    ] = None,
    note: Annotated[
        str | None,
        typer.Option(
            help="Note, in one line, for operators. It must not contain a phone number or an e-mail address, and should"
            " not name a person.",
            show_default=False,
        ),
    ] = None,
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
        print_json({"acknowledged": [str(each.id) for each in closed]})


# --- `duecall quarantine`: commands and callbacks that failed five times


_QuarantinedId = Annotated[UUID, typer.Argument(metavar="ID", parser=id_of, help="Id from `duecall quarantine list`.")]


@quarantine.command("list", epilog=examples("duecall quarantine list", "duecall quarantine list --json"))
def quarantine_list(as_json: AsJson = False) -> None:
    """List the commands and callbacks in quarantine, oldest first, with the place of the error and without a body."""
    with operator_session() as session:
        found = session.quarantine.all()
    rows = [
        {
            "id": str(each.id),
            "kind": each.kind.value,
            "command": each.command,
            "companyId": _text(each.company_id),
            "interviewId": _text(each.interview_id),
            "attemptId": _text(each.attempt_id),
            "receivedAt": each.received_at.isoformat(),
            "firstFailedAt": instant_text(each.first_failed_at),
            "lastFailedAt": each.quarantined_at.isoformat(),
            "failedWith": each.failed_with,
        }
        for each in found
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        session.report("nothing is in quarantine")
    print_rows(rows)


@quarantine.command("retry", epilog=examples("duecall quarantine retry ID --reason 'release 1.4.2 fixes it'"))
def quarantine_retry(quarantined_id: _QuarantinedId, reason: ActReason = None) -> None:
    """Retry a command or a callback after its cause is fixed. A command is judged as of when it was received."""
    why = required_reason(reason, "duecall quarantine retry")
    with operator_session() as session:
        kind = session.quarantine.requeue(quarantined_id, why)
    session.report(f"{kind.value} {quarantined_id} is retried within seconds")


@quarantine.command("drop", epilog=examples("duecall quarantine drop ID --reason 'the interview was sent again'"))
def quarantine_drop(quarantined_id: _QuarantinedId, reason: ActReason = None) -> None:
    """Drop a command or a callback, and delete its body.

    For a command the client receives 409 COMMAND_DROPPED, and its interview accepts commands again. The call of a
    callback is polled until its end is known, as if the callback had never come.
    """
    why = required_reason(reason, "duecall quarantine drop")
    with operator_session() as session:
        dropped = session.quarantine.drop(quarantined_id, why)
    if dropped.kind.value == "command":
        session.report(f"command {quarantined_id} was dropped and had no effect")
    elif dropped.look_at is None:
        session.report(f"callback {quarantined_id} was dropped; no attempt waits for its news")
    else:
        session.report(
            f"callback {quarantined_id} was dropped; the carrier is polled about attempt {dropped.attempt_id}, next at"
            f" {dropped.look_at.isoformat()}"
        )


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


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
    company: Annotated[
        UUID | None, typer.Option(metavar="COMPANY_ID", parser=id_of, help="Only the calls of this company.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the call attempts of unknown outcome that are to be decided, oldest first.

    Each line has the ids of the attempt, its interview and its company, the time since which the outcome is unknown,
    the last complete list of the carrier, and the next time at which the carrier is asked.
    """
    with operator_session() as session:
        now, found = session.now(), session.unknown_outcomes.all(company)
    rows = [
        {
            "attemptId": str(each.id),
            "interviewId": str(each.interview_id),
            "companyId": str(each.company_id),
            "unknownSince": each.ended_at.isoformat(),
            "unknownSeconds": max(0, int((now - each.ended_at).total_seconds())),
            "claimedAt": instant_text(each.claimed_at),
            "listedAt": instant_text(each.listed_at),
            "nextAskedAt": instant_text(each.look_at or each.search_at),
            "isLive": each.look_at is not None,
            "alarm": "OUTCOME_UNKNOWN",
            "runbook": _RUNBOOK,
        }
        for each in found
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        session.report("no outcome is unknown")
        return
    print_rows(
        [
            {
                "attempt": row["attemptId"],
                "interview": row["interviewId"],
                "company": row["companyId"],
                "since": f"unknown since {row['unknownSince']} ({span_text(max(timedelta(), now - each.ended_at))})",
                "listed": f"list read {row['listedAt'] or 'never'}",
                "next": _next(each.look_at is not None, row["nextAskedAt"]),
            }
            for row, each in zip(rows, found, strict=True)
        ]
    )
    print_note(f"Alarm OUTCOME_UNKNOWN, see {_RUNBOOK}. Decide: duecall unknown decide ATTEMPT_ID --help")


def _next(is_live: bool, asked_at: object) -> str:
    if asked_at is None:
        return "not searched for any longer"
    return f"{'live call, polled' if is_live else 'searched for'} next {asked_at}"


@unknown.command(
    "decide",
    epilog=examples(
        "duecall unknown decide ATTEMPT_ID --rang --reason 'the carrier console shows 12 s of ringing'",
        "duecall unknown decide ATTEMPT_ID --call-again --reason 'the carrier console shows no call'",
        "duecall unknown decide ATTEMPT_ID --leave --reason 'the job was filled'",
    ),
)
def unknown_decide(
    attempt_id: Annotated[
        UUID, typer.Argument(metavar="ATTEMPT_ID", parser=id_of, help="Id from `duecall unknown list`.")
    ],
    *,
    rang: Annotated[bool, typer.Option("--rang", help="The phone rang. No call follows.")] = False,
    call_again: Annotated[
        bool, typer.Option("--call-again", help="The phone did not ring. The interview is invoked, once.")
    ] = False,
    leave: Annotated[bool, typer.Option("--leave", help="No call follows. The outcome stays unknown.")] = False,
    reason: ActReason = None,
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
    why = required_reason(reason, "duecall unknown decide")
    [decision] = decisions
    with operator_session() as session:
        command_id = session.unknown_outcomes.decide(attempt_id, decision, why)
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
    """Return the attempt that calls again."""
    called = None if command is None or command.answer is None else command.answer.attempt_id
    return None if called == attempt_id else called


def _as_json(attempt_id: UUID, decision: Decision, command: "Command | None") -> dict[str, object]:
    called = _called(attempt_id, command)
    return {
        "attemptId": str(attempt_id),
        "decision": decision.value,
        "changed": command is not None,
        "commandId": None if command is None else str(command.id),
        "applied": command is None or command.answer is not None,
        "calledAgainBy": None if called is None else str(called),
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
    from scheduler.terminal.status import backoffs_as_json

    with operator_session() as session:
        backoffs = backoffs_as_json(session.carrier_waits.all())
    if as_json:
        print_json(backoffs)
        return
    if not backoffs:
        session.report("no calls back off")
    print_rows(backoffs)


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
    rows = [
        {
            "callSid": each.call_sid,
            "attemptId": str(each.attempt_id),
            "seenAt": each.seen_at.isoformat(),
            "nextAskedAt": each.look_at.isoformat(),
        }
        for each in strays
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        session.report("no stray call is open")
    print_rows(rows)


# --- `duecall locks`: open transactions of the database, which may keep rows locked


@locks.command("list", epilog=examples("duecall locks list", "duecall locks list --json"))
def locks_list(as_json: AsJson = False) -> None:
    """List the open transactions of all programs, oldest first.

    Each line has the database session's id, its login, its program, its state, the kind of its wait, the beginning of
    its transaction and the number of sessions that wait for it. Statements are not shown.
    """
    with operator_session() as session:
        found = session.database_sessions.open_transactions()
    rows = [
        {
            "pid": each.pid,
            "login": each.login,
            "program": each.program,
            "state": each.state,
            "waitsFor": each.waits_for,
            "since": each.since.isoformat(),
            "blocks": each.blocks,
        }
        for each in found
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        session.report("no transaction is open")
    print_rows([row | {"blocks": f"blocks {row['blocks']}"} for row in rows])


@locks.command("end", epilog=examples("duecall locks end 4711 --reason 'a forgotten psql'"))
def locks_end(
    pid: Annotated[int, typer.Argument(metavar="PID", min=1, help="Session id from `duecall locks list`.")],
    reason: ActReason = None,
) -> None:
    """End a database session. Its transaction is rolled back, and its program receives an error."""
    why = required_reason(reason, "duecall locks end")
    with operator_session() as session:
        session.database_sessions.end(pid, why)
    session.report(f"session {pid} was ended")
