"""The pages of docs/decisions and ARCHITECTURE.md name files, tests and classes that exist, and all packages."""

import re
from pathlib import Path

import pytest

from tests.architecture.sources import PRODUCT, ROOT
from tests.docs.pages import DOCS, read, section

DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
PAGES = [ROOT / "ARCHITECTURE.md", *DECISIONS]
FOLDERS = ("scheduler", "workers", "api_shim", "console", "standalone", "command_line", "tests", "docs")
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
    folders = "|".join(FOLDERS[:-1])
    paths = rf"`(\w[\w/.]*\.(?:py|md|pml|json)|(?:{folders})/[\w/]*)(?:::(\w+))?`"
    named = re.findall(paths, read(page))
    missing = [name for name, _ in named if not any(f"/{known}".endswith(f"/{name.rstrip('/')}") for known in NAMES)]
    assert missing == []
    for name, test in named:
        assert not test or f"def {test}(" in read(name)


# ---- ARCHITECTURE.md


def _layout() -> dict[Path, set[str]]:
    """Read the modules that the layout names, by folder."""
    block = section(read("ARCHITECTURE.md"), "Layout").split("```")[1]
    named: dict[Path, set[str]] = {}
    folders: list[str] = []
    for line in block.strip().splitlines():
        if head := re.match(r"((?:  )*)(\w+)/ ", line):
            folders = [*folders[: len(head[1]) // 2], head[2]]
        named.setdefault(ROOT.joinpath(*folders), set()).update(re.findall(r"\w+\.py\b", line))
    return named


def test_layout_names_each_package() -> None:
    packages = {path.parent for path in PRODUCT}
    others = {ROOT / name for name in ("client", "deploy", "tests")}
    assert _layout().keys() == packages | others


def test_each_module_of_the_layout_exists() -> None:
    named = [folder / name for folder, names in _layout().items() for name in names]
    assert len(named) > 20
    assert [path for path in named if not path.exists()] == []


def test_owners_of_the_diallers_state_exist() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([\w/.]+)` \| ", section(read("ARCHITECTURE.md"), "The dialler"), re.MULTILINE)
    assert len(rows) > 10
    for owner, module in rows:
        assert f"\nclass {owner}:" in read(f"scheduler/{module}")
