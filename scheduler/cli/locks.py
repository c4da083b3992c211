"""`duecall locks`: open transactions of the database, which may keep rows locked."""

from typing import Annotated

import typer

from scheduler.cli.app import examples, locks
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import ActReason, AsJson
from scheduler.cli.output import print_json, print_rows, required_reason


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
