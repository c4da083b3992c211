"""A process that cannot do its work ends at its start, in one line and with a nonzero exit status.

They are forked, as by `duecall up`. `tests/standalone/test_cli_starting.py` starts some by their commands.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from scheduler.persistence.schema import Logins
from scheduler.settings import environment
from standalone.private_server import free_port
from standalone.supervisor import commands
from standalone.valkey_and_postgres import FLOWER_USER, EmbeddedPostgres
from tests.support.forked_commands import forked
from tests.support.servers import ACCOUNT_SID, PRIMARY
from tests.test_deployment import FILLED

ALL = commands(api_port=free_port(), console_port=free_port(), flower_port=free_port())
OF_THE_DATABASE = sorted(set(ALL) - {"flower"})
"""Flower reads nothing from PostgreSQL."""
SETTINGS = {
    **{name: FILLED[name] for name in ("KEY_PEPPER", "WEBHOOK_KEY", "FLOWER_BASIC_AUTH", "PUBLIC_URL", "CONSOLE_URL")},
    **{name: FILLED[name] for name in ("TWILIO_VOICE_URL", "SMTP_URL", "MAIL_FROM", "APP_URL")},
    "DUECALL_ENV": "production",
    "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
    "TWILIO_AUTH_TOKEN": PRIMARY,
}


@pytest.fixture(scope="module")
def empty(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The name of a database without tables."""
    name = f"empty_{uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
        yield name
        server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def variables(logins: Logins, redis_url: str) -> dict[str, str]:
    """A correct environment for every process."""
    assert logins.operator is not None
    return {
        **SETTINGS,
        "DATABASE_URL": logins.api,
        "DATABASE_WORKER_URL": logins.worker,
        "DATABASE_LISTEN_URL": logins.worker,
        "DATABASE_OPERATOR_URL": logins.operator,
        "REDIS_URL": redis_url,
        "FLOWER_REDIS_URL": redis_url,
    }


@pytest.mark.parametrize("name", OF_THE_DATABASE)
def test_process_ends_on_a_database_without_tables(name: str, variables: dict[str, str], empty: str) -> None:
    of_the_empty_one = {
        each: make_url(url).set(database=empty).render_as_string(hide_password=False)
        for each, url in variables.items()
        if each.startswith("DATABASE_")
    }
    ends_in_one_line(name, variables | of_the_empty_one, "the database has no tables; run `duecall db upgrade`")


@pytest.mark.parametrize("name", OF_THE_DATABASE)
def test_process_ends_with_the_role_of_another(name: str, variables: dict[str, str]) -> None:
    api, worker = variables["DATABASE_URL"], variables["DATABASE_WORKER_URL"]
    swapped = {"DATABASE_URL": worker, "DATABASE_WORKER_URL": api, "DATABASE_OPERATOR_URL": api}
    ends_in_one_line(name, variables | swapped, "CREATE ROLE")


@pytest.mark.parametrize("name", sorted(ALL))
def test_process_ends_if_redis_refuses_its_password(name: str, variables: dict[str, str]) -> None:
    url = make_url(variables["REDIS_URL"])
    wrong = url.set(username=FLOWER_USER if name == "flower" else url.username, password="a wrong one")
    refused = wrong.render_as_string(hide_password=False)
    ends_in_one_line(
        name, variables | {"REDIS_URL": refused, "FLOWER_REDIS_URL": refused}, "Redis refuses the user or the password"
    )


def ends_in_one_line(name: str, variables: Mapping[str, str], reason: str) -> None:
    """Run a process that must fail, and check that one line of its output has this reason."""
    with TemporaryDirectory(prefix="duecall-start-") as folder:
        log = Path(folder, "log")
        status = forked(ALL[name][1:], environment(**variables), log).wait(60)
        said = log.read_text(encoding="utf-8")
    assert status > 0, said
    assert "Traceback" not in said
    assert [reason in line for line in said.splitlines()].count(True) == 1, said
    assert "a wrong one" not in said
