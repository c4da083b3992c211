"""The pages of docs/decisions and ARCHITECTURE.md name files and tests that exist."""

import re
from pathlib import Path

import pytest

from tests.architecture.test_code_rules import ROOT
from tests.docs.pages import DOCS, read

DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
PAGES = [ROOT / "ARCHITECTURE.md", *DECISIONS]
FOLDERS = ("scheduler", "workers", "api_shim", "console", "standalone", "tests", "docs")
NAMES = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*")}


def name_of(page: Path) -> str:
    return page.name


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("page", DECISIONS, ids=name_of)
def test_decision_begins_with_its_number_status_and_date(page: Path) -> None:
    title, status = read(page).split("\n\n")[:2]
    assert title.startswith(f"# {int(page.name[:4])}. ")
    assert re.fullmatch(r"Status: [a-z].*, \d{4}-\d\d-\d\d", status)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_names_only_files_and_tests_that_exist(page: Path) -> None:
    paths = (
        r"`(\w[\w/.]*\.(?:py|md|pml|json)|(?:tests|scheduler|workers|api_shim|console|standalone)/[\w/]*)(?:::(\w+))?`"
    )
    named = re.findall(paths, read(page))
    missing = [name for name, _ in named if not any(f"/{known}".endswith(f"/{name.rstrip('/')}") for known in NAMES)]
    assert missing == []
    for name, test in named:
        assert not test or f"def {test}(" in read(name)
