"""Which rule a test shows: that it holds, or where it ends. `tests/architecture/test_rules.py` wants both of each rule.

@does("F2-3")                        what the rule gives, it gives
@does_not("F2-3")                    what it refuses, or leaves undone
marks=does("F2-3", "F2-9")           of one case of a table
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

RULES = {"F1": 8, "F2": 12, "F3": 5, "F4": 10, "F5": 4, "F6": 3}
"""How many rules each feature has; they are numbered from 1."""
IDS = tuple(f"{feature}-{number}" for feature, count in RULES.items() for number in range(1, count + 1))
SIDES = ("does", "does not")
_OVER_HTTP = {"intake", "world", "whole"}
"""Who asks for one of these fixtures speaks to a real server."""


@dataclass(frozen=True, kw_only=True)
class Cited:
    """One test that shows one side of one rule."""

    rule: str
    side: str
    test: str
    over_http: bool
    runs: bool


def does(*rules: str) -> pytest.MarkDecorator:
    return pytest.mark.rule(SIDES[0], *_known(rules))


def does_not(*rules: str) -> pytest.MarkDecorator:
    return pytest.mark.rule(SIDES[1], *_known(rules))


def does_as_named(cases: Sequence[Any]) -> list[Any]:
    """Each case of a table with the rule that its id begins with."""
    return [_marked(case, does) for case in cases]


def does_not_as_named(cases: Sequence[Any]) -> list[Any]:
    return [_marked(case, does_not) for case in cases]


def _marked(case: Any, cites: Any) -> Any:
    rule, _, _ = case.id.partition(" ")
    return pytest.param(*case.values, id=case.id, marks=[*case.marks, cites(rule)])


def _known(rules: Sequence[str]) -> Sequence[str]:
    unknown = set(rules).difference(IDS)
    if unknown or not rules:
        raise ValueError(f"there is no rule {', '.join(sorted(unknown)) or 'of no id'}")
    return rules


# ---- as a plugin of a run that only collects: what it found goes to a file


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rules-to", type=Path, help="Write which rules the tests show, as JSON, to this file.")


def pytest_collection_finish(session: pytest.Session) -> None:
    target: Path = session.config.getoption("--rules-to")
    target.write_text(json.dumps([asdict(each) for item in session.items for each in _cited(item)]))


def _cited(item: pytest.Item) -> Iterator[Cited]:
    for mark in item.iter_markers("rule"):
        side, *rules = mark.args
        for rule in rules:
            yield Cited(
                rule=rule,
                side=side,
                test=item.nodeid,
                over_http=not _OVER_HTTP.isdisjoint(getattr(item, "fixturenames", ())),
                runs=all(item.get_closest_marker(name) is None for name in ("skip", "skipif", "xfail")),
            )
