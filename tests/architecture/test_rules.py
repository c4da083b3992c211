"""Each rule of docs/reference/rules.md has a test over HTTP that shows it, and a test that shows its limit."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.architecture.rules import IDS, SIDES, Cited, citations, does, does_not

TESTS = Path(__file__).parents[1]
HTTP_FOLDERS = ("api_shim", "console", "acceptance")
CODE = ("tests", "scheduler", "api_shim", "workers", "console", "standalone", "command_line")


class _Collected:
    """Tests that another pytest in this process collects."""

    items: Sequence[pytest.Item] = ()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def missing(cited: Sequence[Cited]) -> list[str]:
    """List the sides of rules that no test shows."""
    shown = {(each.rule, each.side) for each in cited if each.over_http and each.runs}
    return [f"{rule} {side}" for rule in IDS for side in SIDES if (rule, side) not in shown]


@pytest.fixture(scope="module")
def cited(request: pytest.FixtureRequest) -> list[Cited]:
    session = request.session if collects_all_tests(request.config) else _collected()
    return [each for item in session.items for each in citations(item)]


def collects_all_tests(config: pytest.Config) -> bool:
    """Check whether this run has collected every test, so that another collection would find no more."""
    chosen = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "ff")
    folders = [Path(each).resolve() for each in config.args]
    return folders == [TESTS] and not any(config.getoption(name, None) for name in chosen)


def _collected() -> _Collected:
    collected = _Collected()
    options = ["--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:xdist"]
    status = pytest.main([*options, *(str(TESTS / folder) for folder in HTTP_FOLDERS)], plugins=[collected])
    assert status == pytest.ExitCode.OK
    return collected


def test_each_rule_is_shown_over_http_from_both_sides(cited: list[Cited]) -> None:
    assert missing(cited) == []


def test_each_citing_test_runs_and_uses_http(cited: list[Cited]) -> None:
    assert [each.test for each in cited if not each.over_http or not each.runs] == []


def test_a_side_that_no_test_shows_is_reported(cited: list[Cited]) -> None:
    assert missing([]) == [f"{rule} {side}" for rule in IDS for side in SIDES]
    for rule, side in (("F2-4", "does"), ("F4-7", "does not")):
        others = [each for each in cited if (each.rule, each.side) != (rule, side)]
        assert missing(others) == [f"{rule} {side}"]
        skipped = Cited(rule=rule, side=side, test="skipped", over_http=True, runs=False)
        silent = Cited(rule=rule, side=side, test="without a server", over_http=False, runs=True)
        assert missing([*others, skipped, silent]) == [f"{rule} {side}"]


def test_an_unknown_rule_cannot_be_cited() -> None:
    for cites in (does, does_not):
        for rule in ("F2-13", "F8-1", "f2-1", ""):
            with pytest.raises(ValueError, match="there is no rule"):
                cites(rule)
        with pytest.raises(ValueError, match="there is no rule"):
            cites()


def test_rules_are_numbered_without_gaps() -> None:
    # Of feature 9 only the rules that are built are on the page yet.
    numbers: dict[str, list[int]] = {f"F{feature}": [] for feature in (*range(1, 8), 9)}
    for feature, _, number in (rule.partition("-") for rule in IDS):
        numbers[feature].append(int(number))
    assert (of_9 := numbers.pop("F9")) == sorted(set(of_9))
    assert {feature: list(range(1, len(each) + 1)) for feature, each in numbers.items()} == numbers


@pytest.mark.parametrize("folder", CODE)
def test_each_id_in_the_code_is_a_rule(folder: str) -> None:
    paths = [path for path in (TESTS.parent / folder).rglob("*.py") if path.name != Path(__file__).name]
    ids = {each for path in paths for each in re.findall(r"\bF\d-\d+\b", path.read_text(encoding="utf-8"))}
    assert ids <= set(IDS)
