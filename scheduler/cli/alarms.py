"""`duecall alarms`: alarms that no operator has acknowledged yet, and earlier ones."""

from typing import Annotated
from uuid import UUID

import typer

from scheduler.cli.app import alarms, examples
from scheduler.cli.on_demand import operator_session, print_pages
from scheduler.cli.options import AsJson, id_of
from scheduler.cli.output import print_json, refuse


@alarms.command("list", epilog=examples("duecall alarms list", "duecall alarms list --all --json | jq '.[].kind'"))
def alarms_list(
    everything: Annotated[bool, typer.Option("--all", help="Acknowledged alarms, too, the newest first.")] = False,
    as_json: AsJson = False,
) -> None:
    """List open alarms with their kind, meaning, times, count and ids. The last one that was seen comes first.

    `docs/operations.md` has the steps for each kind. At most 1,000 alarms are listed.
    """
    from scheduler.terminal.alarms import alarms_as_json, alarms_page

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
