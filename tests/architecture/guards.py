"""Guards of the product and their tests: a test must fail when its guard is removed.

A guard begins on a line that ends in `guard: NAME`: a whole statement, or one line of a condition or of SQL.

@guards("line_gap")                  takes it out, and this test is red
marks=guards("company_paused")       of one case of a table

`make guards` sees that it is so, and `tests/architecture/test_guards.py` that each guard has a test.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

import scheduler
from tests.architecture.sources import ROOT

MARKS = "from tests.architecture.guards import guards\n"
"""The line of each module that has tests of guards."""
_GUARD = re.compile(r"(?:--|#) guard: (\w+)$")


@dataclass(frozen=True, kw_only=True)
class Guard:
    name: str
    path: Path
    """From the root of the tree."""
    line: int
    """Counted from 1."""


@dataclass(kw_only=True)
class Outcome:
    """The result of one test."""

    guards: list[str]
    outcome: str = "not run"
    """`failed` if the test itself failed, `broken` if a fixture failed."""


@dataclass(kw_only=True)
class Run:
    """The result of a run: the source tree of the product, and the results of all tests of guards."""

    tree: str
    tests: dict[str, Outcome] = field(default_factory=dict)


guards = pytest.mark.guards
"""Mark a test that must fail when any of the named guards is removed."""


def all_guards() -> Iterator[Guard]:
    for path in sorted((ROOT / "scheduler").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if found := _GUARD.search(line):
                yield Guard(name=found[1], path=path.relative_to(ROOT), line=number)


def without(text: str, line: int) -> str:
    """Remove the guard on that line from a module's text. Raises SyntaxError if the rest is not valid Python."""
    statements = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt) and node.lineno == line]
    lines = text.splitlines()
    if statements:
        statement = statements[0]
        assert not getattr(statement, "orelse", None), "a guard with an else cannot be removed alone"
        lines[line - 1 : statement.end_lineno] = [" " * statement.col_offset + "pass"]
    else:
        del lines[line - 1]
    rest = "\n".join(lines) + "\n"
    compile(rest, "a mutant", "exec")
    return rest


# ---- pytest plugin: writes the tests of guards and their results to a file

_run = Run(tree=str(Path(scheduler.__file__).resolve().parent.parent))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guards-to", type=Path, help="Write what became of the guards' tests, as JSON, to this file.")


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        names = [name for mark in item.iter_markers("guards") for name in mark.args]
        if names:
            _run.tests[item.nodeid] = Outcome(guards=names)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    result = _run.tests[report.nodeid]
    if report.failed:
        result.outcome = "failed" if report.when == "call" else "broken"
    elif report.when == "call":
        result.outcome = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    target: Path = session.config.getoption("--guards-to")
    target.write_text(json.dumps(asdict(_run)), encoding="utf-8")
