"""SVG text: elements with classes instead of styles, every text escaped, and the same data as rows of a table."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from xml.etree import ElementTree as ET

from scheduler.domain.schedule import CalleeClock
from scheduler.lifecycle.scheduling import offset_text
from scheduler.timing import call_windows

# --- Tables: the data of a picture as rows, for readers who do not see it


UTC_NAME = "UTC"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """An instant as the attribute `datetime` of `<time>`, and on a named clock."""

    at: datetime
    local: str
    """ISO 8601 with the offset."""
    zone: str

    @property
    def utc(self) -> str:
        return self.at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


Cell = str | Moment


@dataclass(frozen=True, kw_only=True)
class TableRows:
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def moment(at: datetime, clock: CalleeClock | None) -> Moment:
    """Return an instant on the first zone of `clock`, or in UTC without a clock."""
    if clock is None:
        return Moment(at=at, local=at.astimezone(UTC).isoformat(timespec="seconds"), zone=UTC_NAME)
    offset = call_windows.utc_offsets(clock, at)[0]
    local = call_windows.local_times(clock, at)[0].isoformat(timespec="seconds")
    text = offset_text(offset)
    return Moment(at=at, local=local + text, zone=clock.zones[0] if clock.zones else text)


# --- SVG text: elements with classes instead of styles, and every text escaped


_NAMESPACE = "http://www.w3.org/2000/svg"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML forbids even if they are escaped."""
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Marks that would reorder the text around them."""
_ID = re.compile(r"[a-z][a-z0-9-]*")


class Layout(Enum):
    """The size of a picture in its own units, and the width of its text."""

    WIDE = 960
    """For 880 pixels and more."""
    NARROW = 360
    """For 320 to 880 pixels."""

    @property
    def is_wide(self) -> bool:
        return self is Layout.WIDE

    @property
    def css_class(self) -> str:
        return f"picture picture-{self.name.lower()}"


CHARACTER = 7.0
"""The width of a character in units, at the font size of `pictures.css` (12), of a wide font."""


@dataclass
class Drawing:
    """A picture that is being drawn. `picture_id` must be unique on the page."""

    picture_id: str
    layout: Layout
    title: str
    description: str
    fluid: bool = False
    """The picture has no text and is shown at every width."""
    _parts: ET.Element = field(default_factory=lambda: ET.Element("g"))
    _above: ET.Element = field(default_factory=lambda: ET.Element("g"))
    """Texts and marks, which no band or line may cover."""

    def __post_init__(self) -> None:
        """Raise ValueError for an id that is no plain word."""
        if not _ID.fullmatch(self.picture_id):
            raise ValueError(f"The id of a picture must be lower-case letters, digits and hyphens: {self.picture_id!r}")

    @property
    def width(self) -> int:
        return self.layout.value

    def add(
        self, tag: str, css_class: str, /, text: str = "", *, title: str = "", above: bool = False, **more: float | str
    ) -> None:
        """Add an element. An underscore in the name of an attribute means a hyphen."""
        element = ET.SubElement(self._above if above else self._parts, tag, {"class": css_class})
        for name, value in more.items():
            element.set(name.replace("_", "-"), value if isinstance(value, str) else number(value))
        if title:
            ET.SubElement(element, "title").text = clean(title)
        if text:
            element.text = clean(text)

    def rect(
        self, css_class: str, left: float, right: float, top: float, height: float, *, title: str = "", fill: str = ""
    ) -> None:
        width = max(right - left, 0.0)
        more = {"fill": fill} if fill else {}
        self.add("rect", css_class, title=title, above=False, x=left, y=top, width=width, height=height, **more)

    def line(self, css_class: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self.add("line", css_class, x1=x1, y1=y1, x2=x2, y2=y2)

    def words(self, css_class: str, x: float, y: float, text: str, anchor: str = "start") -> None:
        self.add("text", css_class, text, above=True, x=x, y=y, text_anchor=anchor)

    def hatch(self, css_class: str) -> str:
        """Define a pattern of slanted lines and return the value of `fill` that uses it."""
        pattern_id = f"{self.picture_id}-{css_class}"
        pattern = ET.SubElement(
            self._parts,
            "pattern",
            {"id": pattern_id, "width": "6", "height": "6", "patternUnits": "userSpaceOnUse"},
        )
        pattern.set("patternTransform", "rotate(45)")
        ET.SubElement(pattern, "rect", {"class": css_class, "width": "2", "height": "6"})
        return f"url(#{pattern_id})"

    def text(self, height: float) -> str:
        """Return the finished picture as SVG text."""
        title_id, description_id = f"{self.picture_id}-title", f"{self.picture_id}-desc"
        root = ET.Element(
            "svg",
            {
                "xmlns": _NAMESPACE,
                "id": self.picture_id,
                "class": "picture" if self.fluid else self.layout.css_class,
                "viewBox": f"0 0 {self.width} {number(height)}",
                "role": "img",
                "aria-labelledby": f"{title_id} {description_id}",
            },
        )
        ET.SubElement(root, "title", {"id": title_id}).text = clean(self.title)
        ET.SubElement(root, "desc", {"id": description_id}).text = clean(self.description)
        root.extend([*self._parts, *self._above])
        return ET.tostring(root, encoding="unicode")


def clean(text: str) -> str:
    """Return the text without characters that XML forbids or that reorder other text."""
    return _BIDI.sub("", _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))


def number(value: float) -> str:
    """Return a number with at most two decimals, as short as possible."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def fits(text: str, width: float) -> bool:
    return len(text) * CHARACTER <= width


def shortened(text: str, width: float) -> str:
    """Return the text, cut to the width with an ellipsis."""
    most = max(int(width / CHARACTER), 1)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def wrapped(text: str, width: float) -> Iterator[str]:
    """Yield the text in lines that fit the width, cut between words. A long word has a line of its own."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and not fits(longer, width):
            yield line
            longer = word
        line = longer
    yield line
