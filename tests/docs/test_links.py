"""Each link of a page leads to a file and a heading that exist, and the index leads to each page."""

from pathlib import Path

import pytest

from tests.architecture.sources import ROOT
from tests.docs.pages import DOCS, anchors, links

PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_operations_page_has_links() -> None:
    assert links(DOCS / "operations.md")


def test_index_links_to_each_page() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "index.md")}
    pages = {page for page in DOCS.rglob("*.md") if page.parent.name != "decisions" and page.name != "index.md"}
    assert linked >= pages


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md"])
def test_operations_page_is_linked_from_first_pages(page: str) -> None:
    assert "docs/operations.md" in links(ROOT / page)
