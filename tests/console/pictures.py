"""Readers of finished pictures, and the checks that every picture passes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>&\"'<!--]]>\x00\x1b\ud800\u202e\U0001f600"


@dataclass(frozen=True, kw_only=True)
class Box:
    left: float
    width: float
    title: str

    @property
    def right(self) -> float:
        return self.left + self.width


def parsed(svg: str) -> ET.Element:
    """Return the root after the checks: one well-formed picture with a name, no script, style or link."""
    svg.encode("utf-8")
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    names = {each.get("id"): (each.text or "") for each in root if each.get("id")}
    assert all(names[each] for each in (root.get("aria-labelledby") or "").split())
    assert len([*root.iter(f"{SVG}title")]) >= 1
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
        *("svg", "title", "desc", "rect", "line", "text", "path", "pattern"),
    }
    for element in root.iter():
        assert not {name for name in element.attrib if name.startswith("on") or name in {"style", "href"}}
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    assert len(ids) == len(set(ids))
    return root


def boxes(root: ET.Element, css_class: str) -> list[Box]:
    """Return the rectangles of a class, from left to right."""
    found = [
        Box(
            left=float(each.get("x", "")),
            width=float(each.get("width", "")),
            title=each.findtext(f"{SVG}title") or "",
        )
        for each in root.iter(f"{SVG}rect")
        if each.get("class") == css_class
    ]
    return sorted(found, key=lambda box: box.left)


def texts(root: ET.Element, css_class: str = "") -> list[str]:
    return [
        each.text or ""
        for each in root.iter(f"{SVG}text")
        if css_class in (each.get("class") or "").split() or not css_class
    ]


def marks(root: ET.Element) -> list[str]:
    """Return the kinds of the marks in the row of events, without those of the list, which have no title."""
    found = [each for each in root.iter(f"{SVG}path") if each.find(f"{SVG}title") is not None]
    return [(each.get("class") or "").removeprefix("mark mark-") for each in found]


_ADVANCE = 6.6
"""The width of a character at font size 12 that a proportional font does not exceed on average."""


def spans_of_texts(root: ET.Element) -> Iterator[tuple[float, float, float, str]]:
    """Yield (y, left, right, text)."""
    for each in root.iter(f"{SVG}text"):
        text, x = each.text or "", float(each.get("x", ""))
        width = len(text) * _ADVANCE
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[each.get("text-anchor", "start")]
        yield float(each.get("y", "")), left, left + width, text


def assert_texts_fit(root: ET.Element) -> None:
    """Check that no text leaves the picture, and that no two texts of a line overlap."""
    _, _, width, height = (float(each) for each in (root.get("viewBox") or "").split())
    by_line: dict[float, list[tuple[float, float, str]]] = {}
    for y, left, right, text in spans_of_texts(root):
        assert left >= -4, text
        assert right <= width + 4, text
        assert 0 < y <= height, text
        by_line.setdefault(y, []).append((left, right, text))
    for line in by_line.values():
        for (_, right, first), (left, _, second) in pairwise(sorted(line)):
            assert right <= left + 3, (first, second)


def class_names(root: ET.Element) -> set[str]:
    return {name for each in root.iter() for name in re.split(r"\s+", each.get("class") or "") if name}
