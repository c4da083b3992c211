"""`duecall console`: sign-in links and sessions of the operators' console."""

import getpass
import platform
from typing import Annotated
from uuid import UUID

import typer

from scheduler.cli.app import console, console_sessions, examples
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import AsJson, id_of
from scheduler.cli.output import print_json, print_note, print_result, print_rows, refuse
from scheduler.domain.operator import OperatorRole

_Role = Annotated[
    OperatorRole,
    typer.Option(help="Rights of the session. A viewer sees all pages; only an admin drops commands and revokes keys."),
]
_SessionId = Annotated[
    UUID | None,
    typer.Argument(
        metavar="SESSION_ID",
        parser=id_of,
        help="Id from `duecall console sessions list`. Either SESSION_ID or --all is required.",
        show_default=False,
    ),
]


@console.command("login", epilog=examples("duecall console login", "duecall console login --role viewer"))
def console_login(role: _Role = OperatorRole.OPERATOR, as_json: AsJson = False) -> None:
    """Print a link that signs one operator in to the console. It works once, within ten minutes.

    The link is a secret: send it only to the operator who opens it.
    """
    with operator_session() as session:
        link, secret = session.console_sessions.make_link(role, _actor())
    url = f"{session.console_url}/sign-in/link/{secret}"
    if as_json:
        print_json({"url": url, "role": role.value, "expiresAt": link.expires_at.isoformat()})
        return
    print_result(url)
    print_note(f"Signs in one {role.value}, once, until {link.expires_at:%H:%M} UTC.")


@console_sessions.command(
    "list", epilog=examples("duecall console sessions list", "duecall console sessions list --json")
)
def sessions_list(as_json: AsJson = False) -> None:
    """List the valid sessions of the console, newest first."""
    with operator_session() as session:
        sessions = session.console_sessions.all()
    rows = [
        {
            "sessionId": str(each.id),
            "role": each.role.value,
            "actor": each.actor,
            "createdAt": each.created_at.isoformat(),
            "lastUsedAt": each.last_used_at.isoformat(),
            "expiresAt": each.expires_at.isoformat(),
        }
        for each in sessions
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        session.report("no operator is signed in to the console")
    print_rows(rows)


@console_sessions.command(
    "revoke", epilog=examples("duecall console sessions revoke SESSION_ID", "duecall console sessions revoke --all")
)
def sessions_revoke(
    session_id: _SessionId = None,
    everything: Annotated[bool, typer.Option("--all", help="All sessions, in place of SESSION_ID.")] = False,
) -> None:
    """End a session of the console, or all. Its next request is refused in every process."""
    if (session_id is None) != everything:
        refuse("Give either SESSION_ID or --all. See: duecall console sessions revoke --help")
    with operator_session() as session:
        if session_id is None:
            count = session.console_sessions.revoke_all()
            session.report(f"{count} {'session was' if count == 1 else 'sessions were'} revoked")
        else:
            session.console_sessions.revoke(session_id)
            session.report(f"session {session_id} was revoked")


def _actor() -> str:
    return f"cli:{getpass.getuser()}@{platform.node()}"
