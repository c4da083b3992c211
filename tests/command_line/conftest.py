"""The command `duecall`, run in the process of the test."""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from command_line import main as cli
from scheduler.settings import settings
from tests.conftest import NOON


@dataclass(frozen=True, kw_only=True)
class CliResult:
    """Output and exit status of a command."""

    out: str
    err: str
    code: int

    @property
    def told(self) -> str:
        """All of it, its lines joined as if the terminal were wide enough."""
        return " ".join((self.out + self.err).split())

    @property
    def data(self) -> Any:
        """The output of `--json`."""
        return json.loads(self.out)

    def is_one_error_line(self, code: int = 1) -> bool:
        return (self.out, self.err.count("\n"), self.code) == ("", 1, code)


Duecall = Callable[[str], CliResult]


@pytest.fixture
def duecall(
    postgres_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Duecall]:
    """The command, on the test's database and with its clock at noon."""
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.setenv("DUECALL_HOME", str(folder))
    monkeypatch.setenv("KEY_PEPPER", "a pepper for tests")
    monkeypatch.setenv("DUECALL_CLOCK_OFFSET_S", str((NOON - datetime.now(UTC)).total_seconds()))

    def run(line: str) -> CliResult:
        settings.cache_clear()
        monkeypatch.setattr("sys.argv", ["duecall", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return CliResult(out=said.out, err=said.err, code=ended.value.code)

    yield run
    settings.cache_clear()
