"""A page of help imports the packages of the command line, and none of those that a running system needs."""

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
}


@pytest.mark.parametrize("words", ["--version", "--help", "keys create --help", "explain --help"])
def test_help_imports_no_package_of_a_running_system(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "scheduler", *words.split()],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    timed = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in timed}
    assert "typer" in imported
    assert imported & OF_A_RUNNING_SYSTEM == set()
