"""`duecall unknown`: the work list of calls about which the carrier proved nothing."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from scheduler.cli.app import examples, unknown
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import ActReason, AsJson, id_of, instant_text
from scheduler.cli.output import fail, print_json, print_note, print_rows, refuse, required_reason
from scheduler.domain.attempt import Decision
from scheduler.timing.spans import span_text

if TYPE_CHECKING:
    from scheduler.cli.session import OperatorSession
    from scheduler.domain.command import Command

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
