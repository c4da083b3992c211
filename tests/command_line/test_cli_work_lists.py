"""Operator commands with lists: unknown outcomes, quarantine, locks, erasures."""

import shlex
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from command_line.session import this_actor
from scheduler.domain.attempt import Attempt, Decision
from scheduler.persistence.unknown_outcomes import StrayCall
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.operations.erase import Erase
from tests.command_line.conftest import CliResult, Duecall
from tests.conftest import NOON, TestClock, seed, wait_until
from tests.support.builders import (
    ALWAYS,
    RecordingHints,
    Tenant,
    a_pending_attempt,
    a_quarantined_callback,
    a_sid,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
    of_company,
)

WHY = "--reason 'the console shows no call'"


@pytest.fixture
def unknown(tenant: Tenant) -> Attempt:
    """An attempt of unknown outcome of a company that may call at any time."""
    always = of_company(tenant, seed(tenant.database, tenant.now(), intervals=ALWAYS))
    return an_attempt_of_unknown_outcome(always)


@pytest.fixture
def apply(tenant: Tenant) -> Apply:
    return Apply(tenant.context, RecordingHints())


def apply_waiting(tenant: Tenant, apply: Apply) -> None:
    for [command_id] in tenant.ask("SELECT id FROM inbox WHERE applied_at IS NULL"):
        apply.command(command_id)


def decided_while_a_worker_applies(duecall: Duecall, tenant: Tenant, unknown: Attempt, apply: Apply) -> CliResult:
    def work() -> None:
        wait_until(lambda: tenant.ask("SELECT 1 FROM inbox"), says="a decision is accepted")
        apply_waiting(tenant, apply)

    with ThreadPoolExecutor(1) as worker:
        worked = worker.submit(work)
        said = duecall(f"unknown decide {unknown.id} --call-again {WHY} --wait 60")
        worked.result()
    return said


# ---- unknown outcomes


def test_unknown_list_shows_ids_and_times(duecall: Duecall, tenant: Tenant, unknown: Attempt) -> None:
    [row] = duecall("unknown list --json").data
    assert (row["attemptId"], row["interviewId"], row["companyId"]) == (
        str(unknown.id),
        str(unknown.interview_id),
        str(unknown.company_id),
    )
    assert (row["unknownSince"], row["isLive"], row["alarm"]) == (NOON.isoformat(), False, "OUTCOME_UNKNOWN")
    assert row["unknownSeconds"] >= 0
    told = duecall("unknown list").told
    assert f"{unknown.id} {unknown.interview_id} {unknown.company_id} unknown since" in told
    assert "docs/operations.md#outcome_unknown" in told
    assert "+421" not in told
    assert duecall(f"unknown list --company {tenant.company_id} --json").data == []
    assert "no outcome is unknown" in duecall(f"unknown list --company {tenant.company_id}").err


def test_unknown_decide_calls_again_once(duecall: Duecall, tenant: Tenant, unknown: Attempt, apply: Apply) -> None:
    line = f"unknown decide {unknown.id} --call-again {WHY} --wait 0"
    assert "is accepted and not applied yet" in duecall(line).err
    apply_waiting(tenant, apply)
    assert "was decided so before (it did not ring: call again); nothing changed" in duecall(line).err
    assert duecall(f"{line} --json").data == {
        "attemptId": str(unknown.id),
        "decision": "DID_NOT_RING",
        "changed": False,
        "commandId": None,
        "applied": True,
        "calledAgainBy": None,
    }
    assert len(tenant.attempts(unknown.interview_id)) == 2
    other = duecall(f"unknown decide {unknown.id} --leave {WHY}")
    assert other.is_one_error_line()
    assert "Another decision about this call attempt was made before" in other.err
    assert duecall("unknown list --json").data == []


def test_unknown_decide_waits_for_the_worker(duecall: Duecall, tenant: Tenant, unknown: Attempt, apply: Apply) -> None:
    said = decided_while_a_worker_applies(duecall, tenant, unknown, apply)
    [again] = [each for each in tenant.attempts(unknown.interview_id) if each.id != unknown.id]
    assert f"is decided: it did not ring: call again; attempt {again.id} calls again" in said.told
    shown = duecall(f"explain {unknown.id}").told
    assert "decision DID_NOT_RING, 2026-04-02 12:00:" in shown
    assert "an operator must decide" not in shown
    assert "the console" in shown
    assert this_actor().replace(":", " ") in shown


def test_unknown_decide_prints_a_refusal(duecall: Duecall, tenant: Tenant, unknown: Attempt, apply: Apply) -> None:
    tenant.change("UPDATE candidates SET gdpr_expiry_date = '2026-04-01'")

    said = decided_while_a_worker_applies(duecall, tenant, unknown, apply)
    assert said.is_one_error_line()
    assert said.err.startswith("Nothing was decided. ")
    assert tenant.attempt(unknown.id).decision is None


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ("--leave", "--reason"),
        ("--leave --reason ' '", "--reason"),
        (WHY, "exactly one"),
        (f"--leave --rang {WHY}", "exactly one"),
    ],
)
def test_unknown_decide_names_what_is_missing(duecall: Duecall, options: str, missing: str) -> None:
    said = duecall(f"unknown decide {uuid4()} {options}")
    assert said.is_one_error_line(2)
    assert missing in said.err


def test_decision_about_a_pending_attempt_is_refused(duecall: Duecall, tenant: Tenant) -> None:
    said = duecall(f"unknown decide {a_pending_attempt(tenant).id} --{Decision.RANG.lower()} {WHY}")
    assert said.is_one_error_line()
    assert "is not unknown" in said.err
    assert "There is no such call attempt" in duecall(f"unknown decide {uuid4()} --rang {WHY}").err


# ---- quarantine


def test_quarantined_command_is_listed_dropped_or_retried(duecall: Duecall, tenant: Tenant) -> None:
    dropped, retried = a_waiting_command(tenant, None), a_waiting_command(tenant, None)
    tenant.change(
        "UPDATE inbox SET quarantined_at = received_at, failures = 5, failed_with = 'builtins.KeyError at x:1'"
    )
    listed = duecall("quarantine list --json").data
    assert {each["id"] for each in listed} == {str(dropped.id), str(retried.id)}
    assert {each["failedWith"] for each in listed} == {"builtins.KeyError at x:1"}
    assert {each["kind"] for each in listed} == {"command"}
    assert "builtins.KeyError at x:1" in duecall("quarantine list").out
    assert "was dropped and had no effect" in duecall(f"quarantine drop {dropped.id} {WHY}").err
    assert "is retried within seconds" in duecall(f"quarantine retry {retried.id} {WHY}").err
    assert "nothing is in quarantine" in duecall("quarantine list").err
    again = duecall(f"quarantine drop {dropped.id} {WHY}")
    assert (again.code, "duecall quarantine list" in again.err) == (1, True)
    assert duecall(f"quarantine drop {dropped.id}").is_one_error_line(2)


def test_dropped_callback_names_its_attempt(duecall: Duecall, tenant: Tenant, unknown: Attempt) -> None:
    event_id = a_quarantined_callback(tenant, str(unknown.token))
    said = duecall(f"quarantine drop {event_id} {WHY}").told
    assert unknown.search_at is None
    assert f"callback {event_id} was dropped; no attempt waits for its news" in said
    tenant.change("UPDATE attempts SET search_at = :at", at=NOON + timedelta(minutes=1))
    event_id = a_quarantined_callback(tenant, str(unknown.token))
    said = duecall(f"quarantine drop {event_id} {WHY}").told
    assert f"the carrier is polled about attempt {unknown.id}, next at 2026-04-02T12:01:00" in said


# ---- stray calls


def test_carrier_strays_lists_live_stray_calls(duecall: Duecall, tenant: Tenant, unknown: Attempt) -> None:
    assert "no stray call is open" in duecall("carrier strays").err
    live, ended = a_sid(), a_sid()
    with tenant.database.transaction() as stores:
        for sid in (live, ended):
            stores.stray_calls.add(StrayCall(call_sid=sid, attempt_id=unknown.id, seen_at=NOON))
        stores.stray_calls.ended(ended)
    expected = {"callSid": live, "attemptId": str(unknown.id), "seenAt": NOON.isoformat()}
    assert duecall("carrier strays --json").data == [expected | {"nextAskedAt": NOON.isoformat()}]
    assert live in duecall("carrier strays").out


# ---- locks


def test_locks_list_shows_who_keeps_a_row_locked(duecall: Duecall, tenant: Tenant, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, application_name="a forgotten psql") as session:
        session.execute("SELECT FROM companies WHERE id = %s FOR UPDATE", [tenant.company_id])
        pid = session.info.backend_pid
        with ThreadPoolExecutor(1) as other:
            waits = other.submit(tenant.change, "UPDATE companies SET name = name")
            wait_until(lambda: _blocks(duecall, pid) == 1, says="another transaction waits")
            [mine] = [each for each in duecall("locks list --json").data if each["pid"] == pid]
            assert (mine["program"], mine["state"]) == ("a forgotten psql", "idle in transaction")
            assert "UPDATE" not in duecall("locks list").out
            assert "a forgotten psql" in duecall("locks list").out
            session.rollback()
            waits.result(timeout=30)


def _blocks(duecall: Duecall, pid: int) -> int:
    return next((each["blocks"] for each in duecall("locks list --json").data if each["pid"] == pid), 0)


def test_locks_end_ends_a_session(duecall: Duecall, tenant: Tenant, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as session:
        session.execute("SELECT FROM companies WHERE id = %s FOR UPDATE", [tenant.company_id])
        pid = session.info.backend_pid
        assert f"session {pid} was ended" in duecall(f"locks end {pid} {WHY}").err
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    wait_until(lambda: not tenant.ask(_BACKEND, pid=pid), says="the backend has ended, after its last message")
    again = duecall(f"locks end {pid} {WHY}")
    assert (again.code, "duecall locks list" in again.err) == (1, True)


_BACKEND = "SELECT 1 FROM pg_stat_activity WHERE pid = :pid"


# ---- erasures


def test_erasure_has_a_certificate(duecall: Duecall, tenant: Tenant, now: TestClock) -> None:
    assert "no company was deleted" in duecall("erasures list").err
    a_pending_attempt(tenant)
    with tenant.database.transaction() as stores:
        assert stores.companies.lock_to_delete(tenant.company_id)
        stores.companies.delete(tenant.company_id, now())
        stores.erasures.ask(tenant.company_id, now())
    assert f"{tenant.company_id} requested {NOON.isoformat()} finished not yet 0 rows" in duecall("erasures list").told
    now.move(timedelta(seconds=3))
    Erase(tenant.context, RecordingHints()).company(tenant.company_id)
    [listed] = duecall("erasures list --json").data
    assert listed == duecall(f"erasures show {tenant.company_id} --json").data
    assert (listed["companyId"], listed["requestedAt"]) == (str(tenant.company_id), NOON.isoformat())
    assert listed["finishedAt"] is not None
    assert (listed["erased"]["attempts"], listed["erased"]["candidates"]) == (1, 1)
    shown = duecall(f"erasures show {tenant.company_id}").told
    assert "1 attempts 1 candidates" in shown
    assert duecall(f"erasures show {uuid4()}").is_one_error_line()


def test_reasons_of_acts_are_checked(duecall: Duecall) -> None:
    for line in (f"quarantine drop {uuid4()}", "locks end 1", f"unknown decide {uuid4()} --leave"):
        said = duecall(f"{line} --reason {shlex.quote('call +421 915 777 888')}")
        assert said.is_one_error_line(2)
        assert "like a phone number" in said.err
