"""Metrics: documented names and types, counters that are the same in every process, and bounded labels."""

import asyncio
import re
from collections.abc import Mapping

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from api_shim import http_metrics
from api_shim.http_metrics import HttpTallies
from scheduler.domain.alarm import AlarmKey
from scheduler.domain.attempt import Ended, Reason
from scheduler.persistence.errors import CommitInDoubt, DatabaseAway
from scheduler.rules.tallies import CALLS, DIAL_LATENESS, HTTP_REQUESTS, HTTP_SECONDS, Amount, Key, key_of, seconds_of
from scheduler.use_cases.operations.counts import CallerReputation, Tallies
from scheduler.use_cases.shared.alarms import AlarmStore, Seen
from tests.api_shim.intake import Intake, an_intake
from tests.architecture.rules import does, does_not
from tests.conftest import Seeded, wait_until
from tests.docs.pages import read
from tests.support.builders import Tenant, a_claimed_attempt, a_placed_attempt

_SUFFIX = {"counter": "_total"}
REQUESTS = key_of(HTTP_REQUESTS, "GET /interviews", "200")


def families(intake: Intake) -> dict[str, Metric]:
    answer = intake.client.get("/metrics")
    assert answer.status_code == 200
    return {each.name + _SUFFIX.get(each.type, ""): each for each in text_string_to_metric_families(answer.text)}


def value(found: Mapping[str, Metric], name: str, **labels: str) -> float | None:
    family = next(each for key, each in found.items() if name.startswith(key))
    return next((each.value for each in family.samples if (each.name, each.labels) == (name, labels)), None)


def test_metrics_and_the_reference_page_match(intake: Intake, tenant: Tenant) -> None:
    a_claimed_attempt(tenant)
    _call_of_today(tenant)
    AlarmStore(intake.database, tenant.now).store({AlarmKey(kind="LOCK_HELD"): Seen(count=1, first=0, last=0)})
    intake.get("/interviews")
    tallies = Tallies(intake.database)
    wait_until(lambda: tallies.totals().keys() & {REQUESTS}, says="the request is counted")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", read("docs/reference/metrics.md"), re.MULTILINE)
    found = families(intake)
    assert {name: (type_, meaning) for name, type_, _, meaning in rows} == {
        name: (each.type, each.documentation) for name, each in found.items()
    }
    for name, _, labels, _ in rows:
        assert {label for each in found[name].samples for label in each.labels} - {"le"} == set(
            re.findall(r"`(\w+)`", labels)
        ), name


def _call_of_today(tenant: Tenant, reason: Reason = Reason.BLOCKED_BY_NETWORK) -> str:
    """End a call. Return the id of its caller id."""
    tenant.take(a_placed_attempt(tenant), Ended(reason=reason, ended_at=tenant.now()))
    CallerReputation(tenant.context).fold()
    [[number_id]] = tenant.ask("SELECT phone_number_id FROM caller_days")
    return str(number_id)


@does("F9-5")
def test_blocked_call_is_counted_by_the_id_of_its_number(intake: Intake, tenant: Tenant) -> None:
    caller = {"phone_number_id": _call_of_today(tenant)}
    found = families(intake)
    assert value(found, "duecall_caller_today_calls", **caller) == 1
    assert value(found, "duecall_caller_today_blocked", **caller) == 1
    assert value(found, "duecall_caller_today_declined", **caller) == 0
    assert tenant.caller not in intake.client.get("/metrics").text


@does("F9-5")
def test_third_blocked_call_of_a_number_opens_an_alarm(intake: Intake, tenant: Tenant) -> None:
    for _ in range(3):
        _call_of_today(tenant)
    assert value(families(intake), "duecall_alarms_open", kind="CALLER_REPUTATION") == 1


@does_not("F9-5")
def test_declined_calls_are_not_blocked_and_open_no_alarm(intake: Intake, tenant: Tenant) -> None:
    for reason in (*[Reason.DECLINED] * 3, *[Reason.BLOCKED_BY_NETWORK] * 2):
        caller = {"phone_number_id": _call_of_today(tenant, reason)}
    found = families(intake)
    assert value(found, "duecall_caller_today_declined", **caller) == 3
    assert value(found, "duecall_caller_today_blocked", **caller) == 2
    assert value(found, "duecall_alarms_open", kind="CALLER_REPUTATION") is None


def test_requests_are_counted_by_their_template(intake: Intake) -> None:
    for path in ("/interviews/a-name-of-a-person", "/interviews/another", "/no-such-page"):
        intake.get(path)
    intake.client.request("BREW", "/interviews")
    tallies = Tallies(intake.database)

    def counted() -> set[str]:
        return {key[1].split("\t")[0] for key in tallies.totals() if key[0] == HTTP_REQUESTS.name}

    # The counts of earlier requests may have been added before the last one was answered.
    wait_until(lambda: {"OTHER -", "OTHER /interviews"} & counted(), says="the last request is counted")
    totals, templates = tallies.totals(), counted()
    assert totals[key_of(HTTP_REQUESTS, "GET -", "404")].n == 1
    assert not [each for each in templates if "person" in each or "no-such" in each or "BREW" in each]
    [parameter] = [each for each in templates if each.startswith("GET /interviews/{")]
    assert totals[key_of(HTTP_SECONDS, parameter)].n == 2


def test_two_processes_show_the_same_totals(intake: Intake, seeded: Seeded) -> None:
    amounts: dict[Key, Amount] = {
        key_of(CALLS, "BUSY"): Amount(n=7),
        key_of(DIAL_LATENESS): seconds_of(DIAL_LATENESS, 0.2) + seconds_of(DIAL_LATENESS, 99.0),
    }
    tallies = Tallies(intake.database)
    tallies.add(amounts)
    tallies.fold()
    tallies.add(amounts)
    with an_intake(intake.settings, intake.database, seeded) as other:
        for found in (families(intake), families(other)):
            assert value(found, "duecall_calls_total", outcome="BUSY") == 14
            assert value(found, "duecall_calls_total", outcome="NO_ANSWER") == 0
            assert value(found, "duecall_dial_lateness_seconds_bucket", le="0.25") == 2
            assert value(found, "duecall_dial_lateness_seconds_bucket", le="+Inf") == 4
            assert value(found, "duecall_dial_lateness_seconds_count") == 4
            assert value(found, "duecall_dial_lateness_seconds_sum") == pytest.approx(198.4)


def test_stopped_process_has_counted_its_last_requests(intake: Intake, seeded: Seeded) -> None:
    with an_intake(intake.settings, intake.database, seeded) as other:
        other.client.get("/healthz").raise_for_status()
    totals = Tallies(intake.database).totals()
    assert totals[key_of(HTTP_REQUESTS, "GET /healthz", "200")].n == 1


# ---- counts in memory


def count_once(tallies: HttpTallies) -> None:
    tallies.count("GET", "/interviews", 200, 0.02)


@pytest.mark.parametrize(
    ("error", "added_later"),
    [
        pytest.param(DatabaseAway("away"), 3, id="nothing was stored"),
        pytest.param(CommitInDoubt("in doubt"), 2, id="may be stored: never twice"),
    ],
)
def test_counts_wait_for_a_database_that_is_away(error: DatabaseAway, added_later: int) -> None:
    added: list[Mapping[Key, Amount]] = []

    async def add(amounts: Mapping[Key, Amount]) -> None:
        added.append(amounts)
        if len(added) == 1:
            count_once(tallies)  # a request that is answered meanwhile
            raise error

    async def run() -> None:
        count_once(tallies)
        await tallies.add_now(add)
        count_once(tallies)
        await tallies.add_now(add)
        await tallies.add_now(add)

    tallies = HttpTallies()
    asyncio.run(run())
    assert [each[REQUESTS].n for each in added] == [1, added_later]


def test_counts_are_added_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_metrics, "ADDED_EVERY_S", 3600)
    added: list[Mapping[Key, Amount]] = []

    async def add(amounts: Mapping[Key, Amount]) -> None:
        added.append(amounts)

    async def run() -> None:
        async with tallies.adding(add):
            count_once(tallies)

    tallies = HttpTallies()
    asyncio.run(run())
    assert [each[REQUESTS].n for each in added] == [1]
