"""Commands about access: `duecall keys` and `console`."""

import getpass
import platform
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from command_line.app import (
    NO_PERSON,
    AsJson,
    KeyId,
    Reason,
    console,
    console_sessions,
    examples,
    id_argument,
    id_option,
    instant_of,
    keys,
    operator_session,
    print_pages,
)
from command_line.output import print_json, print_note, print_result, refuse
from scheduler.domain.principal import (
    PER_HOUR,
    PER_MINUTE,
    VOICE_PER_HOUR,
    VOICE_PER_MINUTE,
    KeyKind,
    OperatorRole,
    Principal,
)

if TYPE_CHECKING:
    from command_line.session import OperatorSession

_MAX_REQUESTS = 1_000_000


def _rate(unit: str, default: int, of_voice: int) -> Any:  # noqa: ANN401 - of typer
    return typer.Option(
        min=1,
        max=_MAX_REQUESTS,
        help=f"Requests per {unit}. Default: {default}, {of_voice} if the only scope is voice, or those of the rotated"
        " key.",
    )


@keys.command(
    "create",
    epilog=examples(
        "duecall keys create --company 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --name 'the night shift'",
        "duecall keys create --ats 'Acme ATS' --json",
        "duecall keys create --company ID --scopes read:interviews,write:interviews --expires 2027-01-01T00:00:00Z",
        "duecall keys create --rotate KEY_ID   # then replace KEY_ID in the client, and: duecall keys revoke KEY_ID",
    ),
)
def keys_create(
    company: Annotated[UUID | None, id_option("COMPANY_ID", "Company of a regular key.")] = None,
    ats: Annotated[str | None, typer.Option(help="Name of an ATS key, for the companies that it creates.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of a company's key in lists and histories. Default: regular, or the name of the rotated key."
        ),
    ] = None,
    rotate: Annotated[
        UUID | None,
        id_option("KEY_ID", "Key to replace. The new key has the same principal; both are valid until one is revoked."),
    ] = None,
    scopes: Annotated[
        str | None,
        typer.Option(
            help="Scopes, separated by commas. Default: all but those of webhooks, or the scopes of the rotated key."
        ),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Expiry time, e.g. 2027-01-01T00:00:00Z. Default: never.")] = None,
    per_minute: Annotated[int | None, _rate("minute", PER_MINUTE, VOICE_PER_MINUTE)] = None,
    per_hour: Annotated[int | None, _rate("hour", PER_HOUR, VOICE_PER_HOUR)] = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key. It is shown only once."""
    _check_owner(company, ats, rotate, name)
    options = {
        "name": None if name is None else name.strip(),
        "scopes": None if scopes is None else frozenset(scopes.replace(",", " ").split()),
        "per_minute": per_minute,
        "per_hour": per_hour,
        "expires_at": None if expires is None else instant_of(expires, "--expires"),
    }
    given: dict[str, Any] = {option: value for option, value in options.items() if value is not None}
    with operator_session() as session:
        principal, secret = _created(session, company, ats, rotate, given, reason)
        if not as_json:
            session.report(f"key {principal.key_id} was created; it is shown only once")
    if as_json:
        print_json({"keyId": principal.key_id, "key": secret})
    else:
        print_result(secret)


def _check_owner(company: UUID | None, ats: str | None, rotate: UUID | None, name: str | None) -> None:
    """End with an error unless the options name exactly one owner."""
    if sum(each is not None for each in (company, ats, rotate)) != 1:
        refuse("Give exactly one of --company ID, --ats NAME and --rotate KEY_ID.")
    if ats is not None and not ats.strip():
        refuse("--ats needs a name.")
    if ats is not None and name is not None:
        refuse("--name cannot be combined with --ats, which already names the key.")


def _created(
    session: "OperatorSession",
    company: UUID | None,
    ats: str | None,
    rotate: UUID | None,
    given: dict[str, Any],
    reason: str | None,
) -> tuple[Principal, str]:
    """Create the key of the owner that is named. Return it with its secret."""
    if rotate is not None:
        return session.keys.rotate(rotate, given, reason)
    given = {**given, "reason": reason}
    if company is not None:
        return session.keys.create(kind=KeyKind.REGULAR, company_id=company, **{"name": "regular", **given})
    return session.keys.create(kind=KeyKind.ATS, name=str(ats).strip(), **given)


@keys.command("list", epilog=examples("duecall keys list", "duecall keys list --company ID --json | jq '.[].keyId'"))
def keys_list(
    company: Annotated[UUID | None, id_option("COMPANY_ID", "Company whose keys are listed. Default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """List API keys with owner, state, scopes, rate limits and last use (to the minute). Secrets are not stored."""
    from command_line.lists import keys_as_json, keys_page

    with operator_session() as session:
        listed, now = session.keys.all(company), session.now()
    if as_json:
        print_json(keys_as_json(listed, now))
    else:
        print_pages(keys_page(listed, now))


@keys.command("suspend", epilog=examples("duecall keys suspend KEY_ID --reason 'the invoice of March'"))
def keys_suspend(
    key_id: KeyId,
    reason: Annotated[
        str | None, typer.Option(help=f"Reason, in one line. Requests with the key receive it. {NO_PERSON}")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Suspend a key: requests with it receive 401 API_KEY_SUSPENDED until it is resumed.

    Its rotations stay valid. No key of its principal can be rotated in the meantime.
    """
    with operator_session() as session:
        changed = session.keys.suspend(key_id, reason)
    _print_change(key_id, "is suspended", "was already suspended; nothing changed", changed=changed, as_json=as_json)


@keys.command("resume", epilog=examples("duecall keys resume KEY_ID"))
def keys_resume(key_id: KeyId, reason: Reason = None, as_json: AsJson = False) -> None:
    """Resume a suspended key."""
    with operator_session() as session:
        changed = session.keys.resume(key_id, reason)
    _print_change(key_id, "is resumed", "was not suspended", changed=changed, as_json=as_json)


@keys.command("revoke", epilog=examples("duecall keys revoke KEY_ID"))
def keys_revoke(key_id: KeyId, reason: Reason = None, as_json: AsJson = False) -> None:
    """Revoke a key permanently: requests with it receive 401 INVALID_API_KEY. Its rotations stay valid."""
    with operator_session() as session:
        changed = session.keys.revoke(key_id, reason)
    _print_change(key_id, "is revoked", "was already revoked", changed=changed, as_json=as_json)


def _print_change(key_id: UUID, done: str, unchanged: str, *, changed: bool, as_json: bool) -> None:
    if as_json:
        print_json({"keyId": key_id, "changed": changed})
    else:
        print_note(f"Key {key_id} {done if changed else unchanged}")


# --- `duecall console`: sign-in links and sessions of the operators' console


_Role = Annotated[
    OperatorRole,
    typer.Option(help="Rights of the session. A viewer sees all pages; only an admin drops commands and revokes keys."),
]
_SessionId = Annotated[
    UUID | None,
    id_argument("SESSION_ID", "Id from `duecall console sessions list`. Either SESSION_ID or --all is required."),
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
        print_json({"url": url, "role": role.value, "expiresAt": link.expires_at})
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
    session.print_list(
        sessions,
        lambda each: {
            "sessionId": each.id,
            "role": each.role.value,
            "actor": each.actor,
            "createdAt": each.created_at,
            "lastUsedAt": each.last_used_at,
            "expiresAt": each.expires_at,
        },
        as_json=as_json,
        empty="no operator is signed in to the console",
    )


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
