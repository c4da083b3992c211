"""Alert rules: promtool accepts them, their unit tests pass, and docs/operations.md describes each of them."""

import re
from pathlib import Path

import yaml

from tests.docs.pages import anchors, read, section
from tests.support.monitoring import RULES, TESTS_OF_RULES, alerts, needs_promtool, promtool

PAGE = Path("docs/operations.md")
ALERTS = alerts()
COMPLETE = 'count by (alertname, severity) (ALERTS{alertstate="firing"})'
"""All firing alerts, so that an expectation also excludes each other alert."""
MANY = {
    "OUTCOME_UNKNOWN": "DuecallManyOutcomesAreUnknown",
    "CAUSE_LOST": "DuecallManyCausesAreLost",
    "QUARANTINE": "DuecallManyCommandsInQuarantine",
    "CARRIER_NEVER_CONNECTED": "DuecallCarrierIsDown",
    "DATABASE_SLOW": "DuecallDatabaseIsSlow",
    "CARRIER_REFUSES_COUNTRY": "DuecallCarrierRefusesMany",
    "CARRIER_FAILS_CALLER": "DuecallCarrierRefusesMany",
}
"""Alarms of which only many page, with the alert that counts them."""
LASTING = {"CARRIER_NEVER_CONNECTED": "15m", "DATABASE_SLOW": "5m"}
"""Alarms that page when their cause lasts so long."""
NOT_COUNTED = {
    *("CLOCK_WAS_WRONG", "DEAF_WORKER", "NO_MESSAGE", "ORDER_REFUSED", "UNRESOLVED", "SETTINGS", "OUT_OF_MEMORY"),
    "DIALLER_FAILED",
    "OUT_OF_DESCRIPTORS",
    "THREAD_HUNG",
}
"""No metric counts how often an open alarm of these kinds was repeated. `grep` in the log does."""


def headings(title: str) -> dict[str, str]:
    """Read the text below each heading of a section."""
    parts = re.split(r"^### ", section(read(PAGE), title), flags=re.MULTILINE)[1:]
    return {heading: text for heading, _, text in (part.partition("\n") for part in parts)}


@needs_promtool
def test_rules_are_valid() -> None:
    promtool("check", "rules", "--lint-fatal", RULES)


@needs_promtool
def test_unit_tests_of_the_rules_pass() -> None:
    promtool("test", "rules", TESTS_OF_RULES)


def test_each_expectation_is_the_complete_set() -> None:
    cases = yaml.safe_load(read(TESTS_OF_RULES))["tests"]
    expected = [each for case in cases for each in case.get("promql_expr_test", ())]
    assert {each["expr"] for each in expected} == {COMPLETE}
    assert all("exp_samples" in each for each in expected)


def test_each_alert_fires_in_a_unit_test() -> None:
    cases = yaml.safe_load(read(TESTS_OF_RULES))["tests"]
    fired = {
        re.findall(r'"([^"]+)"', sample["labels"])[0]
        for case in cases
        for each in case.get("promql_expr_test", ())
        for sample in each["exp_samples"]
    }
    assert fired == set(ALERTS)


def test_each_alert_is_tested_before_its_time() -> None:
    """An alert with a `for` has a unit test in which it is still silent right before the time at which it fires."""
    cases = yaml.safe_load(read(TESTS_OF_RULES))["tests"]
    at_once = {name for name, rule in ALERTS.items() if "for" not in rule}
    early = set()
    for case in cases:
        seen: set[str] = set()
        for number, each in enumerate(case.get("promql_expr_test", ())):
            fires = {re.findall(r'"([^"]+)"', sample["labels"])[0] for sample in each["exp_samples"]}
            early |= fires - seen if number else set()
            seen |= fires
    assert set(ALERTS) - early <= at_once


def test_each_alert_has_severity_summary_and_heading() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["annotations"]["summary"], name
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (path, anchor) == (str(PAGE), name.lower())
        assert anchor in anchors(PAGE)


def test_headings_state_severity_and_duration() -> None:
    described = headings("Alerts")
    assert list(described) == list(ALERTS)
    for name, rule in ALERTS.items():
        when = f"after {rule['for']}" if "for" in rule else "at once"
        assert described[name].startswith(f"Severity: {rule['labels']['severity']}, {when}.\n"), name


def kinds(alert: str) -> set[str]:
    [listed] = re.findall(r'kind(?:=~|!~)"([^"]+)"', ALERTS[alert]["expr"])
    return set(listed.split("|"))


def test_alarms_that_page_are_those_of_the_operations_page() -> None:
    paging: set[str] = set()
    for heading, text in headings("Alarms").items():
        if text.startswith("Page: yes for the first `"):
            paging |= set(re.findall(r"`([A-Z_]+)`", text.partition(",")[0]))
        elif text.startswith("Page: yes"):
            paging |= set(heading.split(" · "))
    assert kinds("DuecallAlarmPages") == paging
    assert kinds("DuecallAlarmIsOpen") == paging


def test_alarms_of_which_many_page_have_an_alert() -> None:
    many = {
        heading.split(" · ")[0]: numbers[0]
        for heading, text in headings("Alarms").items()
        if (numbers := re.findall(r"Many (?:`PRICES` )?are .*?(\d[\d,]*)(?= |:)", text))
    }
    assert set(many) == set(MANY) | NOT_COUNTED
    for alarm, alert in MANY.items():
        rule = ALERTS[alert]
        limit = rf">= {many[alarm]}$" if alarm not in LASTING else "> 0$"
        assert re.search(limit, rule["expr"]), alarm
        assert rule["labels"]["severity"] == "page"
        assert alarm not in LASTING or rule["for"] == LASTING[alarm]
    assert LASTING["DATABASE_SLOW"] == f"{many['DATABASE_SLOW']}m"
