"""The command `duecall`, run by a process that has imported its modules: each import of them takes a second of CPU."""

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from standalone.fork_server import ForkedProcess, needed_for_imports
from tests.support.kept_fork_server import kept_fork_server


@dataclass(frozen=True, kw_only=True)
class ForkedCommand:
    """A running command and the files of its output."""

    process: ForkedProcess
    output: Path
    errors: Path

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end. A system that stops may give its processes 25 seconds."""
        status = self.process.wait(120)
        out, err = (each.read_text(encoding="utf-8") for each in (self.output, self.errors))
        return subprocess.CompletedProcess([], status, out, err)


def forked(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkedProcess:
    """Start `python -m MODULE ...`, with its output in `log`.

    Call it on the thread that starts the systems of the tests, because the fork server is theirs.
    """
    server = kept_fork_server(needed_for_imports(environment), log)
    process = server.start("command", (sys.executable, *argv), environment, log)
    assert process is not None, "the fork server did not start the command"
    return process


@contextmanager
def forked_command(argv: Sequence[str], environment: Mapping[str, str]) -> Iterator[ForkedCommand]:
    """Run `python -m MODULE ...` on that thread, with its output in two files. It is killed at the end."""
    with TemporaryDirectory(prefix="duecall-command-") as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        for each in (output, errors):
            each.touch(0o600)  # the command opens them a moment later
        process = forked(("-m", __name__, str(output), *argv[1:]), environment, errors)
        try:
            yield ForkedCommand(process=process, output=output, errors=errors)
        finally:
            process.kill()
            process.wait(60)


def run_forked(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    with forked_command(argv, environment) as command:
        return command.ended()


def forked_duecall(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run the command on that thread, and return its standard output. Fails if its exit status is not 0."""
    done = run_forked(("-m", "scheduler", *words), environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def main() -> None:
    """Become another module, with a file as standard output."""
    _, output, module, *words = sys.argv
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT, 0o600), sys.stdout.fileno())
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
