"""The README and the how-to pages: each command that they name exists, and each block to be pasted works on any day."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import typer.main

from command_line import main as cli
from scheduler.settings import Settings
from standalone.system import Options
from tests.acceptance.conftest import QuickSystem
from tests.architecture.sources import ROOT
from tests.docs.pages import DOCS, blocks, read, section

HOW_TO = sorted((DOCS / "how-to").glob("*.md"))
FIRST_CALL = "A first call"


def _first_call() -> str:
    start, *others = blocks(section(read("README.md"), FIRST_CALL))
    assert start.startswith("make up"), "the first block starts the system"
    return "".join(others)


def _pasted() -> str:
    """List every block for the second terminal, in the order in which a newcomer meets them."""
    ats = read("docs/how-to/ats.md")
    further = [
        *blocks(read("docs/how-to/integrate-over-http.md")),
        *blocks(section(ats, "Create a company and call a candidate")),
        *blocks(section(ats, "Bill calls")),
        *blocks(read("docs/how-to/why-no-call.md")),
    ]
    return _first_call() + "".join(further)


@pytest.mark.parametrize("path", [ROOT / "README.md", *HOW_TO], ids=lambda path: path.name)
def test_named_commands_exist(path: Path) -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    named = re.findall(r"duecall (?:--home \S+ )?([a-z]+)\b(?!-)", "\n".join(_code(read(path))))
    assert set(named) <= set(commands)


def _code(text: str) -> list[str]:
    return re.findall(r"^```sh\n.*?^```|`[^`\n]+`", text, re.MULTILINE | re.DOTALL)


def test_readme_has_at_most_150_lines() -> None:
    assert len(read("README.md").splitlines()) <= 150


def _run_in(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run in the folder of the README, with the environment made by `make`."""
    (folder / ".venv").symlink_to(sys.prefix)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))}
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None and os.environ.get("CI") != "true", reason="the pages use curl; CI has it"
)


@needs_curl
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("at", "rings"),
    [
        pytest.param("{today}T10:00+01:00", True, id="today by day"),
        pytest.param("2028-02-28T23:30+01:00", False, id="at night, before a leap day"),
    ],
)
def test_pasted_blocks_work_on_any_day(tmp_path: Path, at: str, rings: bool) -> None:
    """By day another call is rejected during a call. At night the pending attempt is replaced once more."""
    starts_at = datetime.fromisoformat(at.format(today=datetime.now(UTC).date()))
    offset = (starts_at - datetime.now(UTC)).total_seconds()
    settings = Settings(database_url=None, redis_url=None, twilio_account_sid="")
    options = Options(home=tmp_path / ".duecall", ephemeral=True, clock_offset_s=offset)
    with QuickSystem(options, settings, print) as system:
        assert system.running is not None
        long_talk = {"to": None, "outcome": "answered", "talk_s": 300}
        requests.post(f"{system.running.simulatorUrl}/plans", json=long_talk, timeout=30).raise_for_status()
        done = _run_in(tmp_path, _pasted())
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert '"success":false' not in done.stderr, "first_id shows rejected requests there"
    assert re.findall(r"^HTTP/1\.1 (\d+)", done.stdout, re.MULTILINE) == ["204", "204"], "moved, and moved by its ETag"
    refusals = set(re.findall(r'"code":"(\w+)"', done.stdout))
    by_day = {"OUTSIDE_CALL_TIME_INTERVAL", "CALL_ATTEMPT_IN_PROGRESS"}
    assert refusals == (by_day if rings else {"OUTSIDE_CALL_TIME_INTERVAL"})
    assert "History, oldest first" in done.stdout, "explained"
    *_, ats_list, usage = (json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"success":true'))
    assert [len(ats_list["data"]["items"]), ats_list["data"]["pagination"]["totalPages"]] == [1, 1], (
        "an ATS's one interview is listed"
    )
    assert "Difference Engines" in {each["companyName"] for each in usage["data"]["companies"]}
    assert "SCREENING: 2 credits, 0.25 per minute beyond 10 (own price)" in done.stderr
    assert "System    the system in .duecall, database duecall at 127.0.0.1:" in done.stdout
    assert "Everything is paused: the voice server is down" in done.stderr
    assert "Everything is resumed" in done.stderr


@needs_curl
def test_first_call_without_a_system_is_a_clear_error(tmp_path: Path) -> None:
    done = _run_in(tmp_path, _first_call())
    assert "Nothing runs in .duecall or .duecall/demo. Start `duecall up`" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["integrate-over-http", "ats"])
def test_first_id_shows_a_rejected_request(tmp_path: Path, name: str) -> None:
    [first_id] = re.findall(r"^first_id\(\) .*$", read(f"docs/how-to/{name}.md"), re.MULTILINE)
    rejected = '{"success": false, "data": null, "error": {"code": "SCHEDULE_IN_PAST", "message": "why"}}'
    created = '{"success":true,"data":{"id":"one","agent":{"id":"two"}}}'
    answers = (f"echo '{rejected}'", "printf ''", f"echo '{created}'")
    done = _run_in(tmp_path, "\n".join([first_id, *(f"{answer} | first_id" for answer in answers)]))
    assert done.stdout == "one\n"
    assert rejected in done.stderr
    assert "Traceback" not in done.stderr
