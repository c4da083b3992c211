"""Output of commands: results reach a pipe at once, a system is named by its folder, a document is written exactly."""

import io
import sys
from pathlib import Path

import pytest

from command_line.output import print_json, print_result, print_running
from scheduler.settings import Settings
from standalone.run_file import Running
from tests.api_shim.document_operations import DOCUMENT
from tests.command_line.conftest import Duecall


def test_result_reaches_a_pipe_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))
    print_result("an event")
    assert pipe.getvalue() == b"an event\n"
    print_json({"a": 1})
    assert pipe.getvalue() == b'an event\n{"a": 1}\n'


def test_running_system_names_the_command_to_sign_in(capsys: pytest.CaptureFixture[str]) -> None:
    running = Running(**dict.fromkeys(Running.__dataclass_fields__, "x"))
    print_running(running, Settings(), "files", duecall="duecall --home .duecall/demo")
    assert "(sign in: duecall --home .duecall/demo console login)" in capsys.readouterr().err


def test_openapi_check_accepts_the_written_file_and_no_other(duecall: Duecall, folder: Path) -> None:
    file = folder / "openapi.json"
    assert duecall(f"openapi write {file}").code == 0
    written = file.read_text(encoding="utf-8")
    assert written == DOCUMENT.read_text(encoding="utf-8")
    for other in (written.removesuffix("\n"), None):
        file.unlink() if other is None else file.write_text(other, encoding="utf-8")
        checked = duecall(f"openapi check {file}")
        assert checked.is_one_error_line()
        assert checked.told == f"{file} differs from the code. Run make openapi."
