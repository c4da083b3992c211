"""Each guard has a test, each test of a guard names an existing one, and only the guard is removed."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.guards import MARKS, Guard, Outcome, Run, all_guards, watched, without
from tests.architecture.sources import ROOT, module
from tests.verification.crash.guards import wrong_with

ALL = tuple(all_guards())


def test_each_guard_has_a_test_and_each_test_names_a_guard() -> None:
    """As the tests are written. `make guards` runs them."""
    named = {name for path in (ROOT / "tests").rglob("test_*.py") for name in _named_by(path.read_text("utf-8"))}
    assert named == {guard.name for guard in ALL}


def _named_by(text: str) -> Iterator[str]:
    """Yield the names in the marks of a module."""
    if MARKS not in text:
        return
    for call in ast.walk(ast.parse(text)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "guards":
            yield from (ast.literal_eval(name) for name in call.args)


def test_each_guard_has_a_name_of_its_own() -> None:
    names = Counter(guard.name for guard in ALL)
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) >= 15


@cache
def dumped(path: Path) -> str:
    return ast.dump(module(path))


@pytest.mark.parametrize("guard", ALL, ids=lambda guard: guard.name)
def test_removal_of_a_guard_changes_the_program(guard: Guard) -> None:
    text = (ROOT / guard.path).read_text(encoding="utf-8")
    rest = without(text, guard.line)
    assert f"guard: {guard.name}\n" in text
    assert f"guard: {guard.name}\n" not in rest
    assert ast.dump(ast.parse(rest)) != dumped(ROOT / guard.path)


MODULE = """\
def may_ring(now, line):
    if line.busy:
        return False
    return (
        now >= line.free_at
        and line.number
    )
"""


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        pytest.param(2, MODULE.replace("    if line.busy:\n        return False\n", "    pass\n"), id="a statement"),
        pytest.param(6, MODULE.replace("        and line.number\n", ""), id="a line of a condition"),
    ],
)
def test_guard_is_the_code_that_begins_on_its_line(line: int, rest: str) -> None:
    assert without(MODULE, line) == rest


@pytest.mark.parametrize(
    ("line", "before"),
    [(2, "    if line.busy:"), (6, "    return ("), (11, "    if now:")],
    ids=["if", "condition", "elif"],
)
def test_guard_is_reached_before_its_statement(line: int, before: str) -> None:
    text = MODULE + "def other(now):\n    if now:\n        return 1\n    elif now is None:\n        return 2\n"
    told = watched(text, {line: "a_guard"}).splitlines()
    [at] = [index for index, each in enumerate(told) if each.endswith('("a_guard")')]
    assert told[at + 1] == before
    assert [*told[:at], *told[at + 1 :]] == text.splitlines()


def test_removal_that_leaves_invalid_python_is_an_error() -> None:
    with pytest.raises(SyntaxError):
        without(MODULE, 7)


HERE = Path("/here")
AS_IT_SHOULD_BE = {
    "a": Outcome(guards=["line"], outcome="failed"),
    "b": Outcome(guards=["line", "state"], outcome="failed"),
    "c": Outcome(guards=["state"], outcome="passed"),
}


def test_mutant_is_killed_if_exactly_its_tests_fail() -> None:
    assert list(wrong_with(Run(tree="/here", tests=AS_IT_SHOULD_BE), HERE, "line")) == []


@pytest.mark.parametrize(
    ("ran", "wrong"),
    [
        pytest.param({"a": "passed"}, "passed and not failed: a", id="one of its tests is green"),
        pytest.param({"a": "broken"}, "broken and not failed: a", id="one of its tests could not run"),
        pytest.param({"b": "skipped"}, "skipped and not failed: b", id="one of its tests does not run"),
        pytest.param({"c": "failed"}, "failed and not passed: c", id="another guard's test is red"),
        pytest.param({"c": "not run"}, "not run and not passed: c", id="another guard's test does not run"),
    ],
)
def test_a_mutant_survives_when(ran: dict[str, str], wrong: str) -> None:
    tests = AS_IT_SHOULD_BE | {
        name: Outcome(guards=AS_IT_SHOULD_BE[name].guards, outcome=outcome) for name, outcome in ran.items()
    }
    assert list(wrong_with(Run(tree="/here", tests=tests), HERE, "line")) == [wrong]


def test_mutant_survives_without_a_test_or_in_another_tree() -> None:
    green = {"c": AS_IT_SHOULD_BE["c"]}
    assert list(wrong_with(Run(tree="/here", tests=green), HERE, "line")) == ["it has no test"]
    assert list(wrong_with(Run(tree="/there", tests=green), HERE, None)) == ["another tree was tested: /there"]
