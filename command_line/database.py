"""`duecall db` and `duecall openapi`: schema, logins and documents of this version."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from command_line.app import (
    AsJson,
    DocumentFile,
    Reason,
    chosen_settings,
    db,
    examples,
    openapi,
    operator_session,
)
from command_line.output import fail, print_json, print_progress, refuse


@db.command("upgrade", epilog=examples("DATABASE_URL=postgresql://... duecall db upgrade"))
def db_upgrade(as_json: AsJson = False) -> None:
    """Upgrade the database of DATABASE_OWNER_URL, or else of DATABASE_URL, to this version's schema."""
    from scheduler.persistence import schema, sessions

    schema.upgrade(chosen_settings().database("owner"))
    print_progress("the database has this version's schema")
    if as_json:
        print_json({"revision": sessions.head()})


@db.command("logins", epilog=examples("duecall db logins   # also after a password in these URLs has changed"))
def db_logins() -> None:
    """Create or update the database users of the API, the workers and the console, with their passwords.

    They are those in DATABASE_URL, DATABASE_WORKER_URL and, if it is set, DATABASE_OPERATOR_URL.

    Connects as the user in DATABASE_OWNER_URL, who needs CREATEROLE. Run it before a dump is restored on a new server.
    """
    from scheduler.persistence import schema

    chosen = chosen_settings()
    operator = None if chosen.database_operator_url is None else chosen.database("operator")
    logins = schema.Logins(api=chosen.database("api"), worker=chosen.database("worker"), operator=operator)
    if chosen.database("owner") in {logins.api, logins.worker, logins.operator}:
        refuse("DATABASE_OWNER_URL must name another user than the URLs of API, workers and console.")
    if logins.api == logins.worker:
        refuse("DATABASE_WORKER_URL must name another user than DATABASE_URL.")
    if logins.operator in {logins.api, logins.worker}:
        refuse("DATABASE_OPERATOR_URL must name another user than DATABASE_URL and DATABASE_WORKER_URL.")
    schema.set_logins(chosen.database("owner"), logins)
    who = "the API and the workers" if operator is None else "the API, the workers and the console"
    print_progress(f"{who} can log in")


@db.command("accept", epilog=examples("duecall db accept --reason 'the account of the new contract'"))
def db_accept(reason: Reason = None) -> None:
    """Accept this shell's KEY_PEPPER, TWILIO_ACCOUNT_SID and, in production, PUBLIC_URL for the database.

    Processes with other values refuse to start. Another KEY_PEPPER is accepted only while no line is in use.
    """
    with operator_session(accepts=True) as session:
        changed = session.marks.accept(reason)
    session.report(f"accepted {' and '.join(changed)}" if changed else "these settings were accepted before")


@db.command("check", epilog=examples("duecall db check"))
def db_check(
    write: Annotated[bool, typer.Option("--write", help="Write the list of what the migrations grant.")] = False,
) -> None:
    """Check on a private database that the migrations create the tables and grants that the code names."""
    from scheduler.persistence import schema

    with _empty_database() as url:
        schema.migrate(url)
        schema.check(url, writes=write)


@db.command("draft", epilog=examples("duecall db draft 'jobs'"))
def db_draft(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="A few words, for the name of the migration.")],
) -> None:
    """Draft a migration for the differences that `db check` finds. For developers, to be reviewed and corrected."""
    from scheduler.persistence import schema

    with _empty_database() as url:
        schema.migrate(url)
        schema.draft(url, message)


@contextmanager
def _empty_database() -> Iterator[str]:
    """Yield the URL of an empty private database, and delete the database afterwards."""
    from standalone.valkey_and_postgres import EmbeddedPostgres

    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C also deletes the folder
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), durable=False) as server:
        yield server.url


# --- `duecall openapi`: the OpenAPI document of the public API, and the page of its error codes


@openapi.command("write", epilog=examples("duecall openapi write docs/openapi.json"))
def openapi_write(file: DocumentFile) -> None:
    """Write the document that the API serves as /openapi.json. No system needs to run."""
    from command_line import documents

    _check_or_write(file, documents.openapi_text(), check=False)


@openapi.command("check", epilog=examples("duecall openapi check docs/openapi.json"))
def openapi_check(file: DocumentFile) -> None:
    """Check that a file equals what the API serves as /openapi.json, byte for byte."""
    from command_line import documents

    _check_or_write(file, documents.openapi_text(), check=True)


@openapi.command(
    "errors",
    epilog=examples(
        "duecall openapi errors docs/reference/error-codes.md",
        "duecall openapi errors --check docs/reference/error-codes.md",
    ),
)
def openapi_errors(
    file: DocumentFile,
    check: Annotated[bool, typer.Option("--check", help="Compare the file and write nothing.")] = False,
) -> None:
    """Write the page of error codes."""
    from command_line import documents

    _check_or_write(file, documents.error_codes_text(), check=check)


@openapi.command(
    "carrier-codes",
    epilog=examples(
        "duecall openapi carrier-codes docs/reference/carrier-codes.md",
        "duecall openapi carrier-codes --check docs/reference/carrier-codes.md",
    ),
)
def openapi_carrier_codes(
    file: DocumentFile,
    check: Annotated[bool, typer.Option("--check", help="Compare the file and write nothing.")] = False,
) -> None:
    """Write the page of the carrier's codes."""
    from command_line import carrier_codes

    _check_or_write(file, carrier_codes.carrier_codes_text(), check=check)


def _check_or_write(file: Path, text: str, *, check: bool) -> None:
    from command_line import documents

    if not check:
        file.write_text(text, encoding="utf-8")
        return
    try:
        documents.must_equal(file, text)
    except documents.DocumentDiffers as error:
        fail(str(error))
