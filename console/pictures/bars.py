"""Bars of tables: coloured parts of a strip, as shares of its width in percent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

Span = tuple[datetime, datetime]
_LEAST = 0.8
"""The width of a part that is visible in a narrow column."""


@dataclass(frozen=True, kw_only=True)
class BarPart:
    kind: str
    """Its CSS class."""
    left: float
    width: float


def amounts(whole: float, *parts: tuple[str, float]) -> list[BarPart]:
    """Lay the parts of a bar one after the other. `whole` is the amount that fills the bar."""
    bar: list[BarPart] = []
    left = 0.0
    for kind, amount in parts:
        if amount > 0:
            width = min(max(100 * amount / whole, _LEAST), 100 - left)
            bar.append(BarPart(kind=kind, left=left, width=width))
            left += width
    return bar


def times(kind: str, spans: Sequence[Span], within: Span) -> list[BarPart]:
    """Lay a part for each span at its place `within` the time of the whole bar."""
    begins, ends = within

    def share(at: datetime) -> float:
        return 100 * min(max((at - begins) / (ends - begins), 0.0), 1.0)

    return [
        BarPart(kind=kind, left=share(first), width=max(share(last) - share(first), _LEAST))
        for first, last in spans
        if first <= ends and last >= begins
    ]
