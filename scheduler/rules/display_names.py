"""Safe display of names that clients have chosen."""

import unicodedata

_JOINERS = "\u200c\u200d"
"""Invisible, but needed to write Persian or Hindi names."""


def is_printable(name: str) -> bool:
    """Return whether the name is visible and has no control character, bidi override or line separator."""
    return not name.isspace() and all(_is_harmless(each) for each in name) and bool(name.strip(_JOINERS + " "))


def shown(name: str | None, at_most: int) -> str:
    """Return the name in one line of at most `at_most` characters, possibly empty.

    Control characters become spaces. `=?`, the start of an encoded word (RFC 2047), is separated by a space.
    """
    harmless = "".join(each if _is_harmless(each) else " " for each in name or "")
    line = " ".join(harmless.replace("=?", "= ?").split())
    return line if len(line) <= at_most else line[: at_most - 1].rstrip() + "…"


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
