"""Headers that a partner adds to the deliveries to its webhook."""

import re
from collections.abc import Iterable, Iterator

MOST = 50
LONGEST_NAME = 255
LONGEST_VALUE = 4096

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_OURS = ("content-", "webhook-", "proxy-")
_OURS_EXACTLY = frozenset(
    {"host", "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "accept-encoding"}
)
"""Host and the headers that delimit a message: with them a partner could send a second request behind ours."""


def name_fault(name: str) -> tuple[str, str] | None:
    """Return the code and message of the error of a header's name, or None."""
    if not 1 <= len(name) <= LONGEST_NAME or not _NAME.fullmatch(name):
        return "INVALID_HEADER_NAME", f"A header's name has 1 to {LONGEST_NAME} letters, digits and hyphens."
    if name.lower().startswith(_OURS) or name.lower() in _OURS_EXACTLY:  # guard: hook_header
        return "HEADER_NOT_SETTABLE", "This header is set by Duecall or by HTTP itself; use another name."
    return None


def value_fault(value: str) -> tuple[str, str] | None:
    """Return the code and message of the error of a header's value, or None."""
    if not 1 <= len(value) <= LONGEST_VALUE or not _VALUE.fullmatch(value):
        message = f"A header's value has 1 to {LONGEST_VALUE} visible ASCII characters, without spaces at its ends."
        return "INVALID_HEADER_VALUE", message
    return None


def repeated(names: Iterable[str]) -> Iterator[int]:
    """Yield the positions of names that occurred before. The case of letters makes no difference in HTTP."""
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name.lower() in seen:
            yield place
        seen.add(name.lower())
