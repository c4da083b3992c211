"""`duecall alarms`, `duecall audit`, and the actor of the other commands."""

import os
import pwd
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from console.sessions import ConsoleSessions
from scheduler.domain.alarm import key_of, meaning_of
from scheduler.domain.principal import Act, OperatorRole, TargetKind, Verb
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.shared.alarms import AlarmStore, Seen
from tests.command_line.conftest import CliResult, Duecall
from tests.conftest import TestClock
from tests.support.builders import Tenant

Raise = Callable[..., None]
ME = f"cli:{pwd.getpwuid(os.getuid()).pw_name}@{os.uname().nodename}"


@pytest.fixture
def raise_alarm(tenant: Tenant, now: TestClock) -> Raise:
    def raised(kind: str, *, times: int = 1, **fields: object) -> None:
        AlarmStore(tenant.database, now, monotonic=lambda: 0.0).store(
            {key_of(kind, fields): Seen(count=times, first=0, last=0)}
        )

    return raised


def listed(duecall: Duecall, line: str = "alarms list --json") -> list[dict[str, Any]]:
    found = duecall(line)
    assert found.code == 0
    return list(found.data)


def test_list_shows_open_alarms(duecall: Duecall, raise_alarm: Raise) -> None:
    attempt_id = uuid4()
    raise_alarm("OUTCOME_UNKNOWN", attempt_id=attempt_id)
    raise_alarm("DEAF_WORKER", times=3)
    told = duecall("alarms list").told
    assert (
        f"OUTCOME_UNKNOWN {meaning_of('OUTCOME_UNKNOWN')} attempt {attempt_id} first seen 2026-04-02 12:00:00 UTC"
        in told
    )
    assert "3 times in all" in told
    by_kind = {each["kind"]: each for each in listed(duecall)}
    assert by_kind["OUTCOME_UNKNOWN"]["subjects"] == {"attemptId": str(attempt_id)}
    assert (by_kind["DEAF_WORKER"]["count"], by_kind["DEAF_WORKER"]["acknowledgedAt"]) == (3, None)


def test_list_without_alarms_says_so(duecall: Duecall, tenant: Tenant) -> None:
    assert duecall("alarms list").told == "There are no open alarms."
    assert listed(duecall) == []


def test_acknowledged_alarm_is_listed_only_with_all(duecall: Duecall, raise_alarm: Raise) -> None:
    raise_alarm("DEAF_WORKER", times=3)
    [alarm] = listed(duecall)
    said = duecall(f"alarms ack {alarm['id']} --note 'the proxy was restarted'")
    assert "1 alarm is acknowledged; it occurred 3 times" in said.told
    assert listed(duecall) == []
    [closed] = listed(duecall, "alarms list --all --json")
    assert (closed["acknowledgedBy"], closed["note"]) == (ME, "the proxy was restarted")
    assert f"by {ME} note the proxy was restarted" in duecall("alarms list --all").told


def test_alarms_are_acknowledged_by_kind(duecall: Duecall, raise_alarm: Raise) -> None:
    for kind in ("CAUSE_LOST", "CAUSE_LOST", "LOCK_HELD"):
        raise_alarm(kind, attempt_id=uuid4())
    assert len(duecall("alarms ack --kind cause_lost --json").data["acknowledged"]) == 2
    assert [each["kind"] for each in listed(duecall)] == ["LOCK_HELD"]


@pytest.mark.parametrize("line", ["alarms ack", f"alarms ack {uuid4()} --kind LOCK_HELD"])
def test_ack_needs_an_id_or_a_kind(duecall: Duecall, line: str) -> None:
    assert duecall(line).is_one_error_line(2)


@pytest.mark.parametrize("line", [f"alarms ack {uuid4()}", "alarms ack --kind LOCK_HELD"])
def test_ack_of_no_open_alarm_is_one_line(duecall: Duecall, tenant: Tenant, line: str) -> None:
    assert duecall(line).is_one_error_line()


def test_status_counts_open_alarms_by_kind(duecall: Duecall, raise_alarm: Raise) -> None:
    assert "Alarms" not in duecall("status").told
    for kind in ("CAUSE_LOST", "CAUSE_LOST", "LOCK_HELD"):
        raise_alarm(kind, attempt_id=uuid4())
    assert "Alarms 3 open: CAUSE_LOST (2), LOCK_HELD; see `duecall alarms list`" in duecall("status").told
    assert duecall("status --json").data["alarms"] == {"CAUSE_LOST": 2, "LOCK_HELD": 1}


# ---- audit


def entries(duecall: Duecall, options: str = "") -> list[dict[str, Any]]:
    found = duecall(f"audit --json {options}")
    assert found.code == 0, found
    return list(found.data["entries"])


def some_acts(duecall: Duecall, tenant: Tenant) -> list[CliResult]:
    company = tenant.company_id
    done = [
        duecall(f"pause {company} --reason 'a drill'"),
        duecall(f"resume {company} --reason 'the drill is over'"),
        duecall(f"keys create --company {company} --reason 'a new client'"),
        duecall(f"billing set {company} --system credits --reason 'a contract'"),
        duecall(f"numbers add {company} +421221020009 --reason 'a second line'"),
    ]
    assert [each.code for each in done] == [0] * len(done)
    return done


def test_audit_lists_acts_of_the_command_line(duecall: Duecall, tenant: Tenant) -> None:
    some_acts(duecall, tenant)
    found = entries(duecall)
    assert {each["actor"] for each in found} == {ME}
    assert [(each["verb"], each["reason"]) for each in reversed(found)] == [
        ("pause", "a drill"),
        ("resume", "the drill is over"),
        ("key.create", "a new client"),
        ("company.change_billing", "a contract"),
        ("number.add", "a second line"),
    ]
    told = duecall("audit").told
    assert f"pause company:{tenant.company_id} actor {ME}" in told
    assert "before state=RUNNING after state=PAUSED, reason=a drill" in told


def test_audit_names_the_creator_of_a_link(duecall: Duecall, tenant: Tenant) -> None:
    link, _ = ConsoleSessions(tenant.database, tenant.hasher, tenant.now).make_link(OperatorRole.VIEWER, "cli:ada@host")
    Pauses(tenant.database, tenant.now, f"link:{link.id}").pause(tenant.company_id, "a drill")
    duecall(f"resume {tenant.company_id}")
    assert [each["linkCreatedBy"] for each in entries(duecall)] == [None, "cli:ada@host"]
    told = duecall("audit").told
    assert f"actor link:{link.id} link from cli:ada@host" in told
    assert told.count("link from") == 1


def test_audit_shows_the_filter_of_a_cancellation_in_words(duecall: Duecall, tenant: Tenant) -> None:
    after = {"count": 2, "filter": {"state": "due", "zone": "Asia/Tokyo"}}
    with tenant.database.transaction() as stores:
        act = Act(verb=Verb.CANCEL_ATTEMPTS, target_kind=TargetKind.COMPANY, target_id=tenant.company_id, after=after)
        stores.audit.add(ME, [act], tenant.now())
    assert "after count=2, filter=(state due, zone Asia/Tokyo)" in duecall("audit").told


def test_audit_is_filtered(duecall: Duecall, tenant: Tenant) -> None:
    some_acts(duecall, tenant)
    [key] = entries(duecall, "--target key")
    assert entries(duecall, f"--target {key['target']}") == [key]
    assert len(entries(duecall, f"--company {tenant.company_id}")) == 5
    assert entries(duecall, f"--company {uuid4()}") == []
    assert entries(duecall, "--actor cli:another@control") == []
    assert entries(duecall, "--since 2026-04-02T13:00Z") == []
    assert len(entries(duecall, "--since 2026-04-02T11:00Z")) == 5


def test_audit_continues_before_an_entry(duecall: Duecall, tenant: Tenant) -> None:
    some_acts(duecall, tenant)
    first = duecall("audit --json --limit 3").data
    assert first["before"] == first["entries"][-1]["id"]
    rest = duecall(f"audit --json --limit 3 --before {first['before']}").data
    assert rest["before"] is None
    assert [*first["entries"], *rest["entries"]] == entries(duecall)
    assert f"Older entries: duecall audit --before {first['before']}" in duecall("audit --limit 3").told


def test_audit_without_entries_says_so(duecall: Duecall, tenant: Tenant) -> None:
    assert duecall("audit").told == "There are no such entries."


@pytest.mark.parametrize("option", ["--target person:ada", "--target key:ada", "--since yesterday"])
def test_audit_refuses_wrong_options(duecall: Duecall, option: str) -> None:
    assert duecall(f"audit {option}").is_one_error_line(2)


def test_reason_with_a_phone_number_changes_nothing(duecall: Duecall, tenant: Tenant) -> None:
    duecall(f"pause {tenant.company_id} --reason 'a drill'")
    assert duecall(f"resume {tenant.company_id} --reason 'call +421 915 200 300'").is_one_error_line(2)
    [entry] = entries(duecall)
    assert entry["verb"] == "pause"
