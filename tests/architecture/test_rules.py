"""Each rule has a test over HTTP that shows it, and one that shows where it ends."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.architecture.rules import IDS, SIDES, Cited, does, does_not

HERE = Path(__file__).parents[1]
ROOMS = ("api_shim", "acceptance")
"""Where tests speak HTTP."""


def missing(cited: Sequence[Cited]) -> list[str]:
    """Sides of rules that no test shows."""
    shown = {(each.rule, each.side) for each in cited if each.over_http and each.runs}
    return [f"{rule} {side}" for rule in IDS for side in SIDES if (rule, side) not in shown]


@pytest.fixture(scope="module")
def cited(tmp_path_factory: pytest.TempPathFactory) -> list[Cited]:
    told = tmp_path_factory.mktemp("rules") / "cited.json"
    words = ("-m", "pytest", "--collect-only", "-q", "-p", "tests.architecture.rules", "--rules-to", str(told))
    collecting = subprocess.run(
        [sys.executable, *words, *(str(HERE / room) for room in ROOMS)],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert collecting.returncode == 0, collecting.stdout + collecting.stderr
    return [Cited(**each) for each in json.loads(told.read_text())]


def test_each_rule_is_shown_over_http_from_both_sides(cited: list[Cited]) -> None:
    assert missing(cited) == []


def test_whoever_cites_a_rule_runs_and_speaks_http(cited: list[Cited]) -> None:
    assert [each.test for each in cited if not each.over_http or not each.runs] == []


def test_a_side_that_nobody_shows_any_more_is_missed(cited: list[Cited]) -> None:
    assert missing([]) == [f"{rule} {side}" for rule in IDS for side in SIDES]
    for rule, side in (("F2-4", "does"), ("F4-7", "does not")):
        others = [each for each in cited if (each.rule, each.side) != (rule, side)]
        assert missing(others) == [f"{rule} {side}"]
        skipped = Cited(rule=rule, side=side, test="skipped", over_http=True, runs=False)
        silent = Cited(rule=rule, side=side, test="without a server", over_http=False, runs=True)
        assert missing([*others, skipped, silent]) == [f"{rule} {side}"]


def test_a_rule_that_there_is_not_cannot_be_cited() -> None:
    for cites in (does, does_not):
        for rule in ("F2-13", "F7-1", "f2-1", ""):
            with pytest.raises(ValueError, match="there is no rule"):
                cites(rule)
        with pytest.raises(ValueError, match="there is no rule"):
            cites()
