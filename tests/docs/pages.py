"""Pages of the repository: their text, sections and links."""

import re
from pathlib import Path

from tests.architecture.sources import ROOT

DOCS = ROOT / "docs"


def read(path: str | Path) -> str:
    """Read the text of a file, whose path may begin at the root of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    [found] = [each for each in text.split("\n## ") if each.startswith(f"{title}\n")]
    return found


def blocks(text: str) -> list[str]:
    """Read the blocks of shell commands, also those of list items."""
    found = re.finditer(r"^( *)```sh\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{each[1]}", "", each[2], flags=re.MULTILINE) for each in found]


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", read(page))


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", read(page), re.MULTILINE)}


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
