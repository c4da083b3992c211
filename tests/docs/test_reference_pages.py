"""The pages below docs/reference agree with the code."""

import re
from enum import StrEnum

import pytest
from pydantic import SecretStr
from pydantic.alias_generators import to_camel

from command_line import documents
from scheduler.domain.attempt import AttemptState, Phase
from scheduler.domain.company import DEFAULT_DELAYS, NextDay
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.refusals import Refused
from scheduler.domain.webhook import EventType
from scheduler.lifecycle.retries import RETRIED, is_retried
from scheduler.lifecycle.state_machine import ARROWS, ENDS
from scheduler.settings import Settings
from scheduler.webhooks.sending import DATA_FIELDS
from scheduler.wire import named_fields
from scheduler.wire.requests import InterviewOfKnown
from tests.architecture.sources import PRODUCT
from tests.docs.pages import DOCS, read, section

STATES = read("docs/reference/states-and-reasons.md")
SETTINGS = read("docs/reference/settings.md")


def rows(page: str, head: str) -> list[list[str]]:
    """List the cells of every table with this head, in the order of the page."""
    tables = re.findall(rf"^{re.escape(head)}\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert tables, head
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for table in tables for line in table.splitlines()]


def plain(cell: str) -> str:
    """Read the text of a cell that holds one piece of code."""
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


def test_page_lists_each_type_of_event_in_order() -> None:
    head = "| type | when | data besides the ids |"
    assert [plain(type_) for type_, *_ in rows(read("docs/reference/events.md"), head)] == [*EventType]


def test_documented_data_of_events_is_delivered() -> None:
    table = rows(read("docs/reference/events.md"), "| type | when | data besides the ids |")
    named = {name for *_, cell in table for name in re.findall(r"`([^`]+)`", cell)}
    assert named <= DATA_FIELDS


def test_page_lists_each_reason_with_its_state() -> None:
    reasons = {plain(reason): (plain(state), retried) for reason, state, retried, _ in rows(STATES, _REASONS)}
    retried = {reason: "yes" if reason in RETRIED else "once" if is_retried(reason) else "no" for reason in ENDS}
    assert reasons == {reason: (state, retried[reason]) for reason, state in ENDS.items()}


def test_page_lists_the_default_delays_of_retries() -> None:
    delays = dict(rows(STATES, "| reason | delay before the first retry, the second, … |"))
    assert delays == {
        f"`{reason}`": ", ".join(
            f"`{each.value}`" if isinstance(each, NextDay) else f"{each.total_seconds():g} s" for each in spans
        )
        for reason, spans in DEFAULT_DELAYS.items()
    }


_REASONS = "| reason | state | retried | meaning |"


# ---- integrate-over-celery.md


def test_page_lists_each_field_of_an_interview_by_message() -> None:
    head = "| kind | required fields of the body | optional fields |"
    [(_, *cells)] = [row for row in rows(read("docs/how-to/integrate-over-celery.md"), head) if "create_i" in row[0]]
    listed = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert sorted(listed) == sorted({to_camel(name) for name in InterviewOfKnown.model_fields} - {"scheduleTime"})


# ---- settings.md


def default(name: str) -> str:
    """Read a setting's default as the page shows it."""
    value = Settings.model_fields[name].default
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return "unset" if text in {None, ""} else f"`{text:g}`" if isinstance(text, int | float) else f"`{text}`"


def test_page_lists_each_setting_with_its_default() -> None:
    listed = {plain(name): default for name, default, _ in rows(SETTINGS, "| variable | default | meaning |")}
    shell = {name: f"`{value}`" for name, value in re.findall(r"\$\{(\w+):-([^}]+)\}", read("Procfile"))}
    assert listed == {name.upper(): default(name) for name in Settings.model_fields} | shell


def test_page_names_each_setting_that_production_refuses() -> None:
    items = re.findall(r"^- (.*)$", section(SETTINGS, "Production"), re.MULTILINE)
    refused = set(re.findall(r'^ +\("([A-Z_]+)", ', read("scheduler/settings.py"), re.MULTILINE))
    assert set(re.findall(r"`([A-Z_]+)`", "".join(items))) == refused


# ---- error-codes.md


def test_page_of_error_codes_is_up_to_date() -> None:
    documents.must_equal(DOCS / "reference" / "error-codes.md", documents.error_codes_text())


def test_page_lists_each_error_that_is_not_a_refusal() -> None:
    answered = set(re.findall(r'_answer\(request, [\w.]+, "([A-Z_]+)"', read("api_shim/errors.py")))
    assert {code for _, code, _, _ in documents._NOT_REFUSED} == answered


def test_each_cause_belongs_to_a_refusal() -> None:
    refusals = {kind.code for kind in documents._leaves(Refused)}
    assert refusals == documents._CAUSES.keys() | documents._OF_OPERATORS


def test_page_lists_each_code_of_a_field() -> None:
    sources = [read(path) for path in PRODUCT if path.name != "documents.py"]
    of_webhooks = "".join(read(path) for path in PRODUCT if path.name == "webhook_urls.py")
    of_pydantic = "".join(source for source in sources if "PydanticCustomError" in source)
    codes = {
        *re.findall(r'FieldError\([^)]*?code="([A-Z0-9_]+)"', "".join(sources)),
        *re.findall(r'_error\(place, "([A-Z_]+)"', "".join(sources)),
        *re.findall(r'return "(METADATA_[A-Z_]+)"', "".join(sources)),
        *re.findall(r'return "([A-Z_]+)"', of_webhooks),
        *map(str.upper, re.findall(r'(?:raise \w+\(\s*|OURS \+ )"([a-z0-9_]+)"', of_pydantic)),
        *(code for code, _ in named_fields._WORDS.values()),
    }
    assert list(documents.FIELD_CODES) == sorted(codes)
