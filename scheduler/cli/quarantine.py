"""`duecall quarantine`: commands and callbacks that failed five times."""

from typing import Annotated
from uuid import UUID

import typer

from scheduler.cli.app import examples, quarantine
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import ActReason, AsJson, id_of, instant_text
from scheduler.cli.output import print_json, print_rows, required_reason

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
