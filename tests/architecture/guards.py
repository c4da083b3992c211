"""Guards of the product and their tests: a test must fail when its guard is removed.

A guard begins on a line that ends in `guard: NAME`: a whole statement, or one line of a condition or of SQL.

@guards("line_gap")                  takes it out, and this test is red
marks=guards("company_paused")       of one case of a table

`make guards` sees that it is so, and `tests/architecture/test_guards.py` that each guard has a test.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
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
    reached: dict[str, list[str]] = field(default_factory=dict)
    """For each guard, the tests that reach it in a tree made by `watched`."""


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


def watched(text: str, lines: Mapping[int, str]) -> str:
    """Let the statement of each guard (line: name) tell `reached` when it is executed.

    Lines of SQL outside of functions are never reached.
    """
    tree = ast.parse(text)
    written = text.splitlines()
    marks: list[tuple[int, str]] = []
    for line, name in lines.items():
        around = [each for each in ast.walk(tree) if isinstance(each, ast.stmt) and _first(each) <= line <= _last(each)]
        # A line cannot be inserted before an elif.
        begins = max(_first(each) for each in around if not written[_first(each) - 1].lstrip().startswith("elif"))
        marks.append((begins, name))
    for begins, name in sorted(marks, reverse=True):
        indent = written[begins - 1][: -len(written[begins - 1].lstrip())]
        told = f'getattr(__import__("sys").modules.get("{__name__}"), "reached", str)("{name}")'
        written.insert(begins - 1, indent + told)
    return "\n".join(written) + "\n"


def _first(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(each.lineno for each in decorators)])


def _last(statement: ast.stmt) -> int:
    return statement.end_lineno or statement.lineno


# ---- pytest plugin: writes the tests of guards and their results to a file

_run = Run(tree=str(Path(scheduler.__file__).resolve().parent.parent))
_running = ""
"""The id of the present test."""


def reached(name: str) -> None:
    """Note that the present test has reached the guard."""
    tests = _run.reached.setdefault(name, [])
    if _running and _running not in tests:
        tests.append(_running)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guards-to", type=Path, help="Write what became of the guards' tests, as JSON, to this file.")
    parser.addoption("--guards-only", type=Path, help="Run only the tests whose ids are in this JSON file.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen: Path | None = config.getoption("--guards-only")
    if chosen is not None:
        ids = set(json.loads(chosen.read_text(encoding="utf-8")))
        items[:] = [each for each in items if each.nodeid in ids]


def pytest_runtest_logstart(nodeid: str) -> None:
    global _running  # noqa: PLW0603 - the product tells a function of this module
    _running = nodeid


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
