"""Bars of tables lie at their place, and their colours can be told from the ground."""

import re
from pathlib import Path

import pytest

import console
from console.timeline import BarPart, amounts, times
from tests.console.examples import utc

CSS = (Path(console.__file__).parent / "static" / "console.css").read_text(encoding="utf-8")
DAY = (utc("2026-11-27 00:00:00"), utc("2026-11-28 00:00:00"))


def test_amounts_follow_each_other_and_fill_at_most_the_bar() -> None:
    assert amounts(10, ("due", 5), ("none", 0), ("over", 7)) == [
        BarPart(kind="due", left=0, width=50),
        BarPart(kind="over", left=50, width=50),
    ]
    assert amounts(10, ("due", 0)) == []


def test_times_are_cut_at_the_ends_of_the_bar() -> None:
    at = utc("2026-11-27 06:00:00")
    assert times("now", [(at, at)], DAY) == [BarPart(kind="now", left=25, width=0.8)]
    assert times("open", [(utc("2026-11-26 12:00:00"), at)], DAY) == [BarPart(kind="open", left=0, width=25)]
    assert times("open", [(utc("2026-11-28 01:00:00"), utc("2026-11-28 02:00:00"))], DAY) == []


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("section", [1, 2], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["bar", "bar-some", "bar-over", "control", "text"])
def test_colours_of_bars_have_the_contrast_of_wcag(section: int, name: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", CSS.split(":root {")[section].split("}")[0]))
    light, dark = sorted((_luminance(colours[name]), _luminance(colours["head"])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3
