"""Rules that tests cite by their ids in docs/reference/rules.md. `test_rules.py` requires both sides of each.

@does("F2-3")                        a test that shows the rule
@does_not("F2-3")                    a test that shows its limit: a rejection, or something left unchanged
marks=does("F2-3", "F2-9")           one case of a table
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "rules.md"
IDS = tuple(re.findall(r"^- \*\*(F\d-\d+)\*\* ", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
SIDES = ("does", "does not")
_OVER_HTTP = {"intake", "world", "whole"}
"""Fixtures that start a real server."""


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


def citations(item: pytest.Item) -> Iterator[Cited]:
    """Return the rules that a collected test cites."""
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


def _known(rules: Sequence[str]) -> Sequence[str]:
    unknown = set(rules).difference(IDS)
    if unknown or not rules:
        raise ValueError(f"there is no rule {', '.join(sorted(unknown)) or 'without an id'}")
    return rules
