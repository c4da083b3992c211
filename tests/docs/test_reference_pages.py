"""The pages below docs/reference and docs/index.md agree with the code, and each of their links leads somewhere."""

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
from pydantic import SecretStr

from api_shim import error_codes
from scheduler.domain.attempt import AttemptState, Phase
from scheduler.domain.company import DEFAULT_DELAYS, NextDay
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.refusals import Refused
from scheduler.lifecycle.retries import RETRIED
from scheduler.lifecycle.state_machine import ARROWS, ENDS
from scheduler.settings import Settings
from scheduler.wire import field_errors
from tests.architecture.test_code_rules import PRODUCT, ROOT

DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [DOCS / "index.md", *sorted(REFERENCE.glob("*.md"))]
STATES = (REFERENCE / "states-and-reasons.md").read_text(encoding="utf-8")
SETTINGS = (REFERENCE / "settings.md").read_text(encoding="utf-8")


def rows(page: str, head: str) -> list[list[str]]:
    """Return the cells of every table with this head, in the order of the page."""
    tables = re.findall(rf"^{re.escape(head)}\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert tables, head
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for table in tables for line in table.splitlines()]


def plain(cell: str) -> str:
    """Return the text of a cell that holds one piece of code."""
    code = re.fullmatch(r"`([^`]+)`", cell)
    assert code, cell
    return code[1]


# ---- states-and-reasons.md


def test_diagram_has_exactly_the_arrows() -> None:
    drawn = {
        (source, target, event.replace(" ", "_"))
        for source, target, events in re.findall(r"^ {4}(\S+) --> (\S+): (.+)$", STATES, re.MULTILINE)
        for event in events.split(", ")
    }
    assert drawn == {
        ("[*]" if arrow.source is None else arrow.source.value, arrow.target.value, arrow.event) for arrow in ARROWS
    }


def test_page_explains_each_event_once() -> None:
    events = [plain(event) for event, _ in rows(STATES, "| event | meaning |")]
    assert sorted(events) == sorted({arrow.event for arrow in ARROWS})


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("| state | meaning |", [*AttemptState, *InterviewStatus]),
        ("| phase | meaning |", [*Phase]),
        ("| rule | the attempt waits because |", [*Rule]),
    ],
    ids=["states", "phases", "rules"],
)
def test_page_lists_each_value_in_order(head: str, expected: list[StrEnum]) -> None:
    values = [plain(value) for value, _ in rows(STATES, head)]
    if head.startswith("| state"):
        assert sorted(values) == sorted(expected)
    else:
        assert values == expected


def test_page_lists_each_reason_with_its_state() -> None:
    reasons = {plain(reason): (plain(state), retried) for reason, state, retried, _ in rows(STATES, _REASONS)}
    assert reasons == {reason: (state, "yes" if reason in RETRIED else "no") for reason, state in ENDS.items()}


def test_page_lists_the_default_delays_of_retries() -> None:
    delays = dict(rows(STATES, "| reason | delay before the first retry, the second, … |"))
    assert delays == {
        f"`{reason}`": ", ".join(
            f"`{each.value}`" if isinstance(each, NextDay) else f"{each.total_seconds():g} s" for each in spans
        )
        for reason, spans in DEFAULT_DELAYS.items()
    }


_REASONS = "| reason | state | retried | meaning |"


# ---- settings.md


def default(name: str) -> str:
    """Return a setting's default as the page shows it."""
    value = Settings.model_fields[name].default
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return "unset" if text in {None, ""} else f"`{text:g}`" if isinstance(text, int | float) else f"`{text}`"


def test_page_lists_each_setting_with_its_default() -> None:
    listed = {plain(name): default for name, default, _ in rows(SETTINGS, "| variable | default | meaning |")}
    procfile = (ROOT / "Procfile").read_text(encoding="utf-8")
    shell = {name: f"`{value}`" for name, value in re.findall(r"\$\{(\w+):-([^}]+)\}", procfile)}
    assert listed == {name.upper(): default(name) for name in Settings.model_fields} | shell


def test_page_names_each_setting_that_production_refuses() -> None:
    section = SETTINGS.split("\n## Production\n")[1]
    named = set(re.findall(r"`([A-Z_]+)`", "".join(re.findall(r"^- (.*)$", section, re.MULTILINE))))
    source = (ROOT / "scheduler" / "settings.py").read_text(encoding="utf-8")
    assert named == set(re.findall(r'^ +\("([A-Z_]+)", ', source, re.MULTILINE))


# ---- error-codes.md


def test_page_of_error_codes_is_up_to_date() -> None:
    error_codes.check(REFERENCE / "error-codes.md")


def test_page_lists_each_error_that_is_not_a_refusal() -> None:
    source = (ROOT / "api_shim" / "errors.py").read_text(encoding="utf-8")
    answered = set(re.findall(r'_answer\(request, [\w.]+, "([A-Z_]+)"', source))
    assert {code for _, code, _, _ in error_codes._NOT_REFUSED} == answered


def test_each_cause_belongs_to_a_refusal() -> None:
    refusals = {kind.code for kind in error_codes._leaves(Refused)}
    assert refusals == error_codes._CAUSES.keys() | error_codes._OF_OPERATORS


def test_page_lists_each_code_of_a_field() -> None:
    sources = [path.read_text(encoding="utf-8") for path in PRODUCT if path.name != "error_codes.py"]
    of_pydantic = "".join(source for source in sources if "PydanticCustomError" in source)
    codes = {
        *re.findall(r'FieldError\([^)]*?code="([A-Z0-9_]+)"', "".join(sources)),
        *re.findall(r'_error\(place, "([A-Z_]+)"', "".join(sources)),
        *re.findall(r'return "(METADATA_[A-Z_]+)"', "".join(sources)),
        *map(str.upper, re.findall(r'(?:raise \w+\(\s*|OURS \+ )"([a-z0-9_]+)"', of_pydantic)),
        *(code for code, _ in (*field_errors._WORDS.values(), *field_errors._LIMITS.values())),
    }
    assert list(error_codes.FIELD_CODES) == sorted(codes)


# ---- links


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_each_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_index_links_to_each_page() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "index.md")}
    assert linked >= {
        path for path in DOCS.rglob("*.md") if path.parent.name != "decisions" and path.name != "index.md"
    }
