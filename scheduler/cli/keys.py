"""`duecall keys`: API keys."""

import json
from typing import Annotated, Any
from uuid import UUID

import typer

from scheduler.cli.app import examples, keys
from scheduler.cli.installation import operator_session
from scheduler.cli.options import AsJson, WhichKey, instant_of
from scheduler.cli.output import refuse, say_plainly
from scheduler.domain.principal import KeyKind
from scheduler.terminal import keys as keys_text
from scheduler.terminal.text import terminal
from scheduler.use_cases.resources.keys import PER_HOUR, PER_MINUTE

_MOST_REQUESTS = 1_000_000


@keys.command(
    "create",
    epilog=examples(
        "duecall keys create --company 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --name 'the night shift'",
        "duecall keys create --ats 'Acme ATS' --json",
        "duecall keys create --company ID --scopes read:interviews,write:interviews --expires 2027-01-01T00:00:00Z",
        "duecall keys create --rotate KEY_ID   # then give it to whoever uses KEY_ID, and: duecall keys revoke KEY_ID",
    ),
)
def keys_create(
    company: Annotated[UUID | None, typer.Option(help="A regular key for this company.")] = None,
    ats: Annotated[str | None, typer.Option(help="An ATS key of this name, for the companies that it makes.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What a company's key is called in lists and histories; else regular, or as the one rotated."
        ),
    ] = None,
    rotate: Annotated[
        UUID | None,
        typer.Option(metavar="KEY_ID", help="A second key of the same principal, to replace this one; both are good."),
    ] = None,
    scopes: Annotated[
        str | None, typer.Option(help="With commas between them; else all, or with --rotate the same.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="It is good until then, e.g. 2027-01-01T00:00:00Z; else until it is revoked.")
    ] = None,
    per_minute: Annotated[
        int | None, typer.Option(min=1, max=_MOST_REQUESTS, help=f"Requests; else {PER_MINUTE}.")
    ] = None,
    per_hour: Annotated[int | None, typer.Option(min=1, max=_MOST_REQUESTS, help=f"Requests; else {PER_HOUR}.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown now and never again."""
    if sum(each is not None for each in (company, ats, rotate)) != 1:
        refuse("say one of --company ID, --ats NAME and --rotate KEY_ID")
    if ats is not None and not ats.strip():
        refuse("--ats needs a name, by which the key is known later")
    if ats is not None and name is not None:
        refuse("an ATS key is called what --ats says; leave --name out")
    given = {
        "name": None if name is None else name.strip(),
        "scopes": None if scopes is None else frozenset(scopes.replace(",", " ").split()),
        "per_minute": per_minute,
        "per_hour": per_hour,
        "expires_at": None if expires is None else instant_of(expires, "--expires"),
    }
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with operator_session() as desk:
        if rotate is not None:
            principal, secret = desk.keys.rotate(rotate, wanted)
        elif company is not None:
            named = {"name": "regular", **wanted}
            principal, secret = desk.keys.create(kind=KeyKind.REGULAR, company_id=company, **named)
        else:
            principal, secret = desk.keys.create(kind=KeyKind.ATS, name=str(ats).strip(), **wanted)
        if not as_json:
            desk.tell(f"key {principal.key_id} was made; it is shown this once")
    shown = {"keyId": str(principal.key_id), "key": secret}
    print(json.dumps(shown) if as_json else secret)  # noqa: T201 - the answer itself


@keys.command("list", epilog=examples("duecall keys list", "duecall keys list --company ID --json | jq '.[].keyId'"))
def keys_list(
    company: Annotated[UUID | None, typer.Option(help="Those of this company alone.")] = None, as_json: AsJson = False
) -> None:
    """Every key: whose it is, whether it is good, when it was last used, to the minute. Never the key itself."""
    with operator_session() as desk:
        found = desk.keys.all(company)
        if as_json:
            print(json.dumps(keys_text.keys_as_json(found, desk.now())))  # noqa: T201 - the answer itself
        else:
            terminal().print(keys_text.keys_page(found, desk.now()))


@keys.command("suspend", epilog=examples("duecall keys suspend KEY_ID --reason 'the invoice of March'"))
def keys_suspend(
    key_id: WhichKey,
    reason: Annotated[
        str | None, typer.Option(help="Why, in one line; whoever uses the key is told. No name, number or address.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a key open nothing until it is resumed; whoever uses it is told so (401 API_KEY_SUSPENDED).

    Its rotations stay as they are, and one that is made now is good.
    """
    with operator_session() as desk:
        changed = desk.keys.suspend(key_id, reason)
    _tell_of_key(key_id, "is suspended", "was suspended already, and stays as it was", changed=changed, as_json=as_json)


@keys.command("resume", epilog=examples("duecall keys resume KEY_ID"))
def keys_resume(key_id: WhichKey, as_json: AsJson = False) -> None:
    """Let a suspended key open again what its scopes say."""
    with operator_session() as desk:
        changed = desk.keys.resume(key_id)
    _tell_of_key(key_id, "is good again", "was not suspended", changed=changed, as_json=as_json)


@keys.command("revoke", epilog=examples("duecall keys revoke KEY_ID"))
def keys_revoke(key_id: WhichKey, as_json: AsJson = False) -> None:
    """Let a key open nothing, for ever (401 INVALID_API_KEY). Its rotations stay as they are."""
    with operator_session() as desk:
        changed = desk.keys.revoke(key_id)
    _tell_of_key(key_id, "is revoked", "was revoked already", changed=changed, as_json=as_json)


def _tell_of_key(key_id: UUID, done: str, already: str, *, changed: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"keyId": str(key_id), "changed": changed}))  # noqa: T201 - the answer itself
    else:
        say_plainly(f"Key {key_id} {done if changed else already}")
