"""Each process imports what it uses: a page of help no running system, the API no client of the carrier."""

import os
import subprocess
import sys

import pytest

OF_A_RUNNING_SYSTEM = {
    "aiohttp",
    "alembic",
    "celery",
    "email_validator",
    "fastapi",
    "flower",
    "kombu",
    "phonenumbers",
    "prometheus_client",
    "psycopg",
    "pydantic_settings",
    "redis",
    "requests",
    "sqlalchemy",
    "structlog",
    "twilio",
    "uvicorn",
    "uvloop",
    "workers",
    "api_shim",
    "console",
}
CARRIER_CLIENTS = {"aiohttp", "requests", "twilio.rest"}
DATABASE = {"alembic", "sqlalchemy"}
QUEUE = {"celery", "kombu", "redis", "workers"}
API = {"fastapi", "uvicorn", "api_shim", "prometheus_client"}


def imported_by(*argv: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *argv],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    timed = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in timed}


@pytest.mark.parametrize("words", ["--version", "--help", "keys create --help", "explain --help"])
def test_help_imports_no_package_of_a_running_system(words: str) -> None:
    imported = {name.partition(".")[0] for name in imported_by("-m", "scheduler", *words.split())}
    assert "typer" in imported
    assert imported & OF_A_RUNNING_SYSTEM == set()


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("api_shim.app", CARRIER_CLIENTS | {"alembic", "flower"}),
        ("workers.clock", CARRIER_CLIENTS | API | {"alembic", "flower"}),
        ("workers.tasks", CARRIER_CLIENTS | API | {"alembic", "flower"}),
        ("command_line.installation", CARRIER_CLIENTS | API | DATABASE | QUEUE | {"flower"}),
        ("command_line.output", CARRIER_CLIENTS | API | DATABASE | QUEUE | {"flower"}),
        ("command_line.session", CARRIER_CLIENTS | API | QUEUE | {"alembic", "flower"}),
    ],
)
def test_a_process_imports_only_what_it_uses(module: str, spared: set[str]) -> None:
    imported = imported_by("-c", f"import {module}")
    assert module in imported
    assert imported & spared == set()
