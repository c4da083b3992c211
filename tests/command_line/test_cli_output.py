"""Output of commands: results reach a pipe at once, and a system is named by its folder."""

import io
import sys

import pytest

from command_line.output import print_json, print_result, print_running
from scheduler.settings import Settings
from standalone.run_file import Running


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
