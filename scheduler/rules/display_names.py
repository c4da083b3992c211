"""Which names can be shown as they are, and how any other is shown without doing harm."""

import unicodedata

_JOINERS = "\u200c\u200d"
"""Invisible, and letters of Persian or Hindi names are written with them."""


def is_printable(name: str) -> bool:
    """Whether there is something to see in it, and nothing that acts: no control, bidi override, line separator."""
    return not name.isspace() and all(_is_harmless(each) for each in name) and bool(name.strip(_JOINERS + " "))


def shown(name: str | None, at_most: int) -> str:
    """The name in one line of at most so many characters, whatever somebody has put into it; maybe empty.

    What acts on a page or in a header becomes a space; `=?`, which begins an encoded word (RFC 2047), is broken.
    """
    harmless = "".join(each if _is_harmless(each) else " " for each in name or "")
    line = " ".join(harmless.replace("=?", "= ?").split())
    return line if len(line) <= at_most else line[: at_most - 1].rstrip() + "…"


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
