"""`duecall env`: shell variables of the running system, for `eval`."""

import fcntl
import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from command_line.installation import place_of
from tests.command_line.conftest import Duecall

RUN_FILE = {
    "databaseUrl": "postgresql://127.0.0.1:1/nothing",
    "apiUrl": "http://127.0.0.1:8000",
    "companyKey": "company'key",
    "companyId": "company",
    "agentId": "agent",
    "phoneNumberId": "number",
    "atsKey": "ats",
}
PRINTED = {
    "API": "http://127.0.0.1:8000",
    "KEY": "company'key",
    "COMPANY": "company",
    "AGENT": "agent",
    "NUMBER": "number",
    "ATS_KEY": "ats",
}
START_FIRST = "Start `duecall up` or `duecall demo` first, in another terminal."


@contextmanager
def running_system(home: Path) -> Iterator[None]:
    home.mkdir(exist_ok=True)
    (home / "clock_offset_s").write_text("0.0")
    (home / "run.json").write_text(json.dumps(RUN_FILE))
    with (home / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def variables(script: str) -> dict[str, str]:
    """Evaluate the script in a shell and return the variables."""
    names = (*PRINTED, "TOMORROW")
    shown = subprocess.check_output(["sh", "-c", script + "".join(f'\nprintf "%s\\n" "${name}"' for name in names)])
    return dict(zip(names, shown.decode().splitlines(), strict=True))


def test_env_prints_variables_that_a_shell_evaluates(duecall: Duecall, folder: Path) -> None:
    with running_system(folder):
        printed = duecall("env")
    assert printed.code == 0
    evaluated = variables(printed.out)
    tomorrow = evaluated.pop("TOMORROW")
    assert evaluated == PRINTED
    assert len(tomorrow) == len("2026-04-03")
    assert [shlex.split(line)[0] for line in printed.out.splitlines()] == ["export"] * 7
    assert printed.err.strip() == f"Variables of the system in {folder}: {', '.join(PRINTED)}, TOMORROW"


def test_env_takes_tomorrow_from_the_clock_of_the_system(duecall: Duecall, folder: Path) -> None:
    with running_system(folder):
        before_leap_day = datetime(2028, 2, 28, 22, 30, tzinfo=UTC)
        (folder / "clock_offset_s").write_text(str((before_leap_day - datetime.now(UTC)).total_seconds()))
        assert "export TOMORROW=2028-02-29\n" in duecall("env").out


def test_env_ignores_the_database_of_the_environment(duecall: Duecall, folder: Path) -> None:
    """The fixture sets DATABASE_URL. Keys are in run.json alone."""
    with running_system(folder / "demo"):
        printed = duecall("env")
    assert variables(printed.out)["AGENT"] == "agent"
    assert f"the demo in {folder / 'demo'}" in printed.err


def test_env_reads_a_named_folder_and_no_other(duecall: Duecall, folder: Path) -> None:
    with running_system(folder):
        printed = duecall(f"--home {folder / 'other'} env")
    assert (printed.out, printed.code) == ("", 1)
    assert printed.err == f"Nothing runs in {folder / 'other'}. {START_FIRST}\n"


def test_env_is_one_clear_line_when_nothing_runs(duecall: Duecall, folder: Path) -> None:
    printed = duecall("env")
    assert (printed.out, printed.code) == ("", 1)
    assert printed.err == f"Nothing runs in {folder} or {folder / 'demo'}. {START_FIRST}\n"


def test_env_ignores_the_run_file_of_a_killed_system(duecall: Duecall, folder: Path) -> None:
    with running_system(folder):
        pass
    printed = duecall("env")
    assert printed.is_one_error_line()
    assert "Nothing runs in" in printed.err


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:secret@db.example.com/x", "x at db.example.com:5432"),
        ("postgresql://u:secret@127.0.0.1:21000/duecall", "duecall at 127.0.0.1:21000"),
        ("postgresql://u:secret@h", "the default one at h:5432"),
        ("postgresql:///x?host=/run", "x at a local socket"),
    ],
)
def test_a_database_is_named_without_user_and_password(url: str, place: str) -> None:
    assert place_of(url) == place
