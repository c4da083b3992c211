"""The command `duecall`, run by a process that has imported its modules: each import of them takes a second of CPU."""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from standalone.fork_server import ForkedProcess, needed_for_imports
from tests.support.kept_fork_server import kept_fork_server


def forked(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkedProcess:
    """Start `python -m MODULE ...`, with its output in `log`.

    Call it on the thread that starts the systems of the tests, because the fork server is theirs.
    """
    server = kept_fork_server(needed_for_imports(environment), log)
    process = server.start("command", (sys.executable, *argv), environment, log)
    assert process is not None, "the fork server did not start the command"
    return process


def forked_duecall(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run the command on that thread, and return its standard output. Fails if its exit status is not 0."""
    with TemporaryDirectory(prefix="duecall-command-") as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = forked(("-m", __name__, str(output), *words), environment, errors)
        assert process.wait(60) == 0, errors.read_text(encoding="utf-8")
        return output.read_text(encoding="utf-8")


def main() -> None:
    """Become `duecall`, with a file as standard output."""
    _, output, *words = sys.argv
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT, 0o600), sys.stdout.fileno())
    sys.argv = ["duecall", *words]
    runpy.run_module("scheduler", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
