"""`duecall db`: the database's schema and logins."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scheduler.cli.app import db, examples
from scheduler.cli.installation import chosen_settings
from scheduler.cli.output import refuse, say
from scheduler.local.postgres import EmbeddedPostgres
from scheduler.persistence import schema


@db.command("upgrade", epilog=examples("DATABASE_URL=postgresql://... duecall db upgrade"))
def db_upgrade() -> None:
    """Bring the database (DATABASE_OWNER_URL, else DATABASE_URL) to this release's schema."""
    schema.upgrade(chosen_settings().database("owner"))
    say("the database is at this release's schema")


@db.command("logins", epilog=examples("duecall db logins   # after a change of the passwords in these URLs, too"))
def db_logins() -> None:
    """Let the users of DATABASE_URL (the API) and DATABASE_WORKER_URL log in with the passwords there.

    As DATABASE_OWNER_URL, whose role may make roles. Who is not there is made; `db upgrade` comes first.
    """
    chosen = chosen_settings()
    logins = schema.Logins(api=chosen.database("api"), worker=chosen.database("worker"))
    if chosen.database("owner") in {logins.api, logins.worker}:
        refuse("DATABASE_OWNER_URL must name somebody else than DATABASE_URL and DATABASE_WORKER_URL")
    if logins.api == logins.worker:
        refuse("DATABASE_WORKER_URL must name somebody else than DATABASE_URL")
    schema.set_logins(chosen.database("owner"), logins)
    say("the API and the workers can log in")


@db.command("check", epilog=examples("duecall db check"))
def db_check() -> None:
    """Say whether the tables in the code are what the migrations make; on a private database of its own."""
    with _empty_database() as url:
        schema.upgrade(url)
        schema.check(url)


@db.command("draft", epilog=examples("duecall db draft 'jobs'"))
def db_draft(message: str) -> None:
    """Draft a migration from what `db check` finds; for developers, to be read and mended by hand."""
    with _empty_database() as url:
        schema.upgrade(url)
        schema.draft(url, message)


@contextmanager
def _empty_database() -> Iterator[str]:
    """The URL of a database without a table, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), durable=False) as server:
        yield server.url
