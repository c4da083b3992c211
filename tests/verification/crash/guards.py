"""Mutation test of the guards: remove one guard at a time in a copy of the tree, and run the tests of guards.

`make guards` runs this and prints one line per guard. Without a guard, exactly its own tests must fail. With every
guard in place, no test may fail. Otherwise the exit code is 1. Arguments limit the run to the named guards.

The first run finds which tests reach a guard, and only these and its own tests are run without it. A test that reaches
it in another process, or through a result or fixture that an earlier test has built, is not found. A guard that no test
is seen to reach, such as a line of SQL, is removed from a run of all tests of guards.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.architecture.guards import MARKS, Guard, Outcome, Run, all_guards, watched, without
from tests.architecture.sources import ROOT

MAX_S = 40
"""Report a mutant that takes longer, because a developer who changes a guard waits for this run."""
_LEFT_OUT = shutil.ignore_patterns(".venv", ".duecall", ".git", "*_cache", "__pycache__")

_OPTIONS = (
    *("-p", "tests.architecture.guards", "-m", "guards", "-p", "no:cacheprovider", "-p", "no:xdist"),
    *("--timeout", "60", "--tb", "no"),
)


class DidNotRun(Exception):
    """The tests could not be collected, or their run was interrupted. The result proves nothing."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    guard: Guard
    seconds: float
    wrong: Sequence[str]
    red: int = 0
    green: int = 0

    def __str__(self) -> str:
        where = f"{self.guard.path}:{self.guard.line}"
        counts = f"{self.red} red, {self.green} green"
        return f"{self.guard.name:16} {where:42} {self.seconds:5.1f} s  {counts}{''.join(self._details())}"

    def _details(self) -> Iterator[str]:
        yield from (f"\n    {each}" for each in self.wrong)
        if self.seconds > MAX_S:
            yield f"\n    took longer than {MAX_S} s"


def run(tree: Path, *words: str, only: Collection[str] = ()) -> Run:
    """Run the tests of guards in `tree`: all, or only those with these ids. Raises DidNotRun."""
    files = {each.partition("::")[0] for each in only} or {
        str(path.relative_to(tree))
        for path in (tree / "tests").rglob("test_*.py")
        if MARKS in path.read_text(encoding="utf-8")
    }
    with tempfile.TemporaryDirectory() as folder:
        report, chosen = Path(folder) / "report.json", Path(folder) / "chosen.json"
        chosen.write_text(json.dumps(sorted(only)), encoding="utf-8")
        limit = ("--guards-only", str(chosen)) if only else ()
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *_OPTIONS, "--guards-to", str(report), *limit, *words, *sorted(files)],
            cwd=tree,
            # The installed package is the original tree. The copy must be imported instead, without cached bytecode.
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            raise DidNotRun(ran.stdout + ran.stderr)
        found = json.loads(report.read_text(encoding="utf-8"))
    tests = {name: Outcome(**each) for name, each in found["tests"].items()}
    return Run(tree=found["tree"], tests=tests, reached=found["reached"])


def first_run(tree: Path) -> Run:
    """Run all tests of guards with every guard in place, and find which of them reach each guard."""
    before: dict[Path, str] = {}
    for path, of_file in groupby(all_guards(), key=lambda guard: guard.path):
        file = tree / path
        before[file] = file.read_text(encoding="utf-8")
        lines = {guard.line: guard.name for guard in of_file}
        file.write_text(watched(before[file], lines), encoding="utf-8")
    try:
        return run(tree)
    finally:
        for file, text in before.items():
            file.write_text(text, encoding="utf-8")


def tests_of(guard: str, first: Run) -> Collection[str]:
    """Choose the tests that may fail without the guard. Empty: any may."""
    reaching = set(first.reached.get(guard, ()))
    own = {name for name, test in first.tests.items() if guard in test.guards}
    return own | reaching if reaching else ()


def wrong_with(ran: Run, tree: Path, guard: str | None) -> Iterator[str]:
    """Yield the reasons why this run does not prove that `guard` was removed. None: that every guard is in place."""
    if ran.tree != str(tree):
        yield f"another tree was tested: {ran.tree}"
    if guard is not None and not any(guard in test.guards for test in ran.tests.values()):
        yield "it has no test"
    for name, test in ran.tests.items():
        expected = "failed" if guard in test.guards else "passed"
        if test.outcome != expected:
            yield f"{test.outcome} and not {expected}: {name}"


@contextmanager
def taken_out(tree: Path, guard: Guard) -> Iterator[None]:
    file = tree / guard.path
    before = file.read_text(encoding="utf-8")
    file.write_text(without(before, guard.line), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(before, encoding="utf-8")


def judged(guard: Guard, first: Run, trees: SimpleQueue[Path]) -> Verdict:
    tree = trees.get()
    begun = time.monotonic()
    try:
        with taken_out(tree, guard):
            ran = run(tree, only=tests_of(guard.name, first))
    except (SyntaxError, DidNotRun) as error:
        return Verdict(guard=guard, seconds=time.monotonic() - begun, wrong=[f"{type(error).__name__}: {error}"])
    finally:
        trees.put(tree)
    outcomes = [test.outcome for test in ran.tests.values()]
    return Verdict(
        guard=guard,
        seconds=time.monotonic() - begun,
        wrong=list(wrong_with(ran, tree, guard.name)),
        red=outcomes.count("failed"),
        green=outcomes.count("passed"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="GUARD")
    parser.add_argument(
        "--at-once", default="auto", help="number of parallel mutants. Default: one per processor, at most four"
    )
    arguments = parser.parse_args()
    at_once = min(os.cpu_count() or 1, 4) if arguments.at_once == "auto" else int(arguments.at_once)
    chosen = [guard for guard in all_guards() if not arguments.names or guard.name in arguments.names]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(at_once):
            tree = Path(folder).resolve() / str(number)
            shutil.copytree(ROOT, tree, ignore=_LEFT_OUT)
            trees.put(tree)
        first = first_run(tree)
        wrong = list(wrong_with(first, tree, None))
        if wrong:
            print("with every guard in place:", *wrong, sep="\n    ")
            return 1
        survivors = 0
        for verdict in pool.map(lambda guard: judged(guard, first, trees), chosen):
            print(verdict, flush=True)
            survivors += bool(verdict.wrong)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed, in {time.monotonic() - begun:.0f} s")
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
