"""The command `duecall`, run by a process that has imported its modules: each import of them takes a second of CPU."""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from standalone.fork_server import needed_for_imports
from tests.support.kept_fork_server import kept_fork_server


def forked_duecall(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run the command and return its standard output. Fails if its exit status is not 0.

    Call it on the thread that starts the systems of the tests, because the fork server is theirs.
    """
    with TemporaryDirectory(prefix="duecall-command-") as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        argv = (sys.executable, "-m", __name__, str(output), *words)
        server = kept_fork_server(needed_for_imports(environment), errors)
        process = server.start("command", argv, environment, errors)
        assert process is not None, "the fork server did not start the command"
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
