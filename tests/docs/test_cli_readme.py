"""The README: each command that it names exists, and each block that it gives to be pasted works on any day."""

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

from scheduler.cli import main as cli
from scheduler.local.system import Options, System
from scheduler.settings import Settings

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_command_that_is_named_exists() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"duecall ([a-z]+)\b(?!-)", README)) <= set(commands)


def _pasted() -> str:
    """The blocks for a terminal beside the one in which the system runs, in their order."""
    sections = README.split("\n## ")
    blocks: list[str] = []
    for title in (
        "A first call of your own",
        "Moving, cancelling, calling again",
        "A company of an ATS, step by step",
        "Why has this person not been",
    ):
        (section,) = [each for each in sections if each.startswith(title)]
        blocks += re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert blocks[0].startswith("make up"), "the first one starts the system"
    return "".join(blocks[1:])


def _run_in(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """As in the folder of the README, with the environment made by `make`."""
    (folder / ".venv").symlink_to(sys.prefix)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))}
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None and os.environ.get("CI") != "true",
    reason="the README speaks to the API with curl; CI has it",
)


@needs_curl
@pytest.mark.parametrize(
    ("at", "rings"),
    [
        pytest.param("{today}T10:00+01:00", True, id="today by day"),
        pytest.param("2028-02-28T23:30+01:00", False, id="at night, before a leap day"),
    ],
)
def test_what_is_given_to_be_pasted_works_on_any_day(tmp_path: Path, at: str, rings: bool) -> None:
    """In the middle of a call, by day, another is refused; at night the one that waits is replaced once more."""
    starts_at = datetime.fromisoformat(at.format(today=datetime.now(UTC).date()))
    offset = (starts_at - datetime.now(UTC)).total_seconds()
    settings = Settings(database_url=None, redis_url=None, twilio_account_sid="")
    with System(Options(home=tmp_path / ".duecall", ephemeral=True, clock_offset_s=offset), settings, print) as system:
        assert system.running is not None
        long_talk = {"to": None, "outcome": "answered", "talk_s": 60}
        requests.post(f"{system.running.simulatorUrl}/plans", json=long_talk, timeout=5).raise_for_status()
        done = _run_in(tmp_path, _pasted())
    told = "\n".join(line for line in done.stdout.splitlines() if not line.startswith('{"openapi"'))
    assert (done.returncode, "Traceback" in done.stderr, "refused:" in done.stderr) == (0, False, False), done.stderr
    assert re.findall(r"^HTTP/1\.1 (\d+)", told, re.MULTILINE) == ["204", "204"], "moved, and moved by its ETag"
    refusals = set(re.findall(r'"code":"(\w+)"', told))
    by_day = {"OUTSIDE_CALL_TIME_INTERVAL", "CALL_ATTEMPT_IN_PROGRESS"}
    assert refusals == (by_day if rings else {"OUTSIDE_CALL_TIME_INTERVAL"})
    assert "What has happened, oldest first" in told, "explained"
    assert '"totalPages":1' in told, "an ATS's one interview is listed"
    assert "System    the system in .duecall, database duecall at 127.0.0.1:" in told
    assert "Everything is paused: the voice server is down" in done.stderr
    assert "Everything goes on" in done.stderr


@needs_curl
def test_the_readmes_helper_shows_what_was_refused(tmp_path: Path) -> None:
    said = re.search(r"^said\(\) .*?; \}$", README, re.MULTILINE | re.DOTALL)
    assert said is not None
    envelope = '{"success": false, "data": null, "error": {"code": "SCHEDULE_IN_PAST", "message": "why"}}'
    done = _run_in(tmp_path, f"{said[0]}\necho '{envelope}' | said \"['data']['id']\"\nprintf '' | said \"['data']\"\n")
    assert done.stdout == ""
    assert 'refused: {"code": "SCHEDULE_IN_PAST", "message": "why"}' in done.stderr
    assert "no answer" in done.stderr
    assert "Traceback" not in done.stderr
