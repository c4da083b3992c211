"""Output of commands: results reach a pipe at once."""

import io
import sys

import pytest

from scheduler.cli.output import print_json, print_result


def test_result_reaches_a_pipe_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))
    print_result("an event")
    assert pipe.getvalue() == b"an event\n"
    print_json({"a": 1})
    assert pipe.getvalue() == b'an event\n{"a": 1}\n'
