"""`duecall commands`: commands in quarantine."""

from typing import Annotated
from uuid import UUID

import typer

from scheduler.cli.app import commands, examples
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import AsJson, id_of
from scheduler.cli.output import print_json, print_rows

_CommandId = Annotated[
    UUID, typer.Argument(metavar="COMMAND_ID", parser=id_of, help="Id from `duecall commands list`.")
]


@commands.command("list", epilog=examples("duecall commands list", "duecall commands list --json"))
def commands_list(as_json: AsJson = False) -> None:
    """List the commands in quarantine, oldest first. The workers' logs contain the error under the command's id."""
    with operator_session() as session:
        quarantined = session.quarantine.all()
    rows = [
        {
            "commandId": str(command.id),
            "kind": command.kind.value,
            "companyId": None if command.company_id is None else str(command.company_id),
            "interviewId": None if command.interview_id is None else str(command.interview_id),
            "receivedAt": command.received_at.isoformat(),
        }
        for command in quarantined
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        session.report("no command is in quarantine")
    print_rows(rows)


@commands.command("retry", epilog=examples("duecall commands retry COMMAND_ID"))
def commands_retry(command_id: _CommandId) -> None:
    """Retry a command after its cause is fixed. Its times are judged as of when it was received."""
    with operator_session() as session:
        session.quarantine.again(command_id)
    session.report(f"command {command_id} is retried within seconds")


@commands.command("drop", epilog=examples("duecall commands drop COMMAND_ID"))
def commands_drop(command_id: _CommandId) -> None:
    """Drop a command. The client receives 409 COMMAND_DROPPED, and its interview accepts commands again."""
    with operator_session() as session:
        session.quarantine.drop(command_id)
    session.report(f"command {command_id} was dropped and had no effect")
