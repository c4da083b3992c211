"""`duecall commands`: commands in quarantine."""

import json
from typing import Annotated
from uuid import UUID

import typer

from scheduler.cli.app import commands, examples
from scheduler.cli.installation import operator_session
from scheduler.cli.options import AsJson

WhichCommand = Annotated[UUID, typer.Argument(metavar="COMMAND_ID", help="As `duecall commands list` shows it.")]


@commands.command("list", epilog=examples("duecall commands list", "duecall commands list --json"))
def commands_list(as_json: AsJson = False) -> None:
    """What is in quarantine, oldest first. Why it failed is in the workers' logs, under its id."""
    with operator_session() as desk:
        found = desk.quarantine.all()
    told = [
        {
            "commandId": str(each.id),
            "kind": each.kind.value,
            "companyId": None if each.company_id is None else str(each.company_id),
            "interviewId": None if each.interview_id is None else str(each.interview_id),
            "receivedAt": each.received_at.isoformat(),
        }
        for each in found
    ]
    if as_json:
        print(json.dumps(told))  # noqa: T201 - the answer itself
    elif not told:
        desk.tell("no command is in quarantine")
    for each in () if as_json else told:
        print("  ".join(str(value or "-") for value in each.values()))  # noqa: T201 - the answer itself


@commands.command("retry", epilog=examples("duecall commands retry COMMAND_ID"))
def commands_retry(command_id: WhichCommand) -> None:
    """Have a command tried again, once its cause is mended; times are judged as of when it was received."""
    with operator_session() as desk:
        desk.quarantine.again(command_id)
    desk.tell(f"command {command_id} is tried again within seconds")


@commands.command("drop", epilog=examples("duecall commands drop COMMAND_ID"))
def commands_drop(command_id: WhichCommand) -> None:
    """End a command unapplied: it is answered with 409 COMMAND_DROPPED, and its interview takes commands again."""
    with operator_session() as desk:
        desk.quarantine.drop(command_id)
    desk.tell(f"command {command_id} is dropped; nothing of it was done")
