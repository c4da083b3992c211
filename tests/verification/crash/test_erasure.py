"""Killed erasures: the next process finishes the erasure, and none of the company's data is left (F6-3)."""

import random
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest

from tests.conftest import real_now, seed
from tests.support.builders import ApiWriter, RecordingHints, Tenant, a_placed_attempt, of_company
from tests.support.servers import SimulatedCarrier, a_closed_port
from tests.verification.crash.canaries import CANARIES, counts, fill, in_dump, tables
from tests.verification.world.installation import Installation, a_company, ended, environment_of

pytestmark = pytest.mark.crash
OF_THE_INSTALLATION = {
    *("alarms", "audit", "tallies", "tally_entries", "console_acts", "console_sessions", "sign_in_links"),
    "installation_marks",
}
"""Tables of operators, counts and settings.

`tests/use_cases/operations/test_audit.py` fills those that name a company's rows.
"""
STAY = {"alembic_version", "arrows", "carrier_accounts", "erasures", "lines", "usage"}
"""Tables that still contain rows after the only company was erased. The lines are those whose gap has not ended."""


@pytest.fixture
def installation(postgres_url: str) -> Iterator[Installation]:
    carrier = SimulatedCarrier(url=a_closed_port())
    environment = environment_of(postgres_url, carrier)
    with a_company(environment) as tenant:
        yield Installation(tenant=tenant, carrier=carrier, environment=environment)


@pytest.fixture
def tenant(installation: Installation) -> Tenant:
    return installation.tenant


def erasing(installation: Installation, batch: int = 3, **settings: Any) -> ForkServerProcess:
    """Start a process that erases the company."""
    return installation.doing("erase", installation.tenant.company_id, batch, **settings)


def delete(tenant: Tenant) -> None:
    ApiWriter(tenant=tenant, hints=RecordingHints()).delete_company(tenant.principal, tenant.company_id)


def certificate(tenant: Tenant) -> tuple[dict[str, int], Any]:
    [[erased, finished_at]] = tenant.ask("SELECT erased, finished_at FROM erasures")
    return erased, finished_at


def filled(tenant: Tenant, postgres_url: str) -> set[str]:
    """List the tables of companies and calls that contain any rows."""
    of_companies = set(tables(postgres_url)) - OF_THE_INSTALLATION
    return {table for table in of_companies if tenant.ask(f"SELECT 1 FROM {table} LIMIT 1")}


def test_canaries_are_in_every_table_with_personal_data(tenant: Tenant, postgres_url: str) -> None:
    fill(tenant)
    found = in_dump(postgres_url)
    assert set().union(*found.values()) == set(CANARIES)
    assert set(found) == {
        *("agents", "api_keys", "attempts", "candidates", "carrier_backoffs", "carrier_events", "companies", "inbox"),
        *("interviews", "invitations", "jobs", "phone_numbers", "users", "webhook_endpoints", "batches", "batch_items"),
    }
    assert all(counts(tenant).values()), "every kind has at least one row"
    every = set(tables(postgres_url)) - OF_THE_INSTALLATION - {"erasures"}
    assert filled(tenant, postgres_url) == every, "every table has at least one row"


def test_erasure_killed_after_each_batch_is_finished_by_the_next(
    tenant: Tenant, installation: Installation, postgres_url: str
) -> None:
    other = of_company(tenant, seed(tenant.database, real_now()))
    fill(tenant)
    before, theirs = counts(tenant), counts(other)
    delete(tenant)
    killed = 0
    while (code := ended(erasing(installation, DUECALL_FAILPOINT="erase.batch"))) == -signal.SIGKILL:
        killed += 1
    assert code == 0
    assert killed >= len(before), "the process died at least once for each kind"
    erased, finished_at = certificate(tenant)
    assert finished_at is not None
    # One attempt has ended and one has an unknown outcome. The others are cancelled.
    before["history"] += before["attempts"] - 2
    assert {kind: count for kind, count in erased.items() if kind != "lines"} == before, "each row is counted once"
    assert in_dump(postgres_url) == {}
    assert counts(other) == theirs
    assert tenant.ask("SELECT count(*) FROM usage WHERE company_id = :id", id=tenant.company_id) == [(1,)]
    print(f"killed {killed} times, {sum(erased.values())} rows in {len(tables(postgres_url))} tables looked at")


def test_erasure_killed_at_any_moment_is_finished_by_the_next(
    tenant: Tenant, installation: Installation, postgres_url: str
) -> None:
    fill(tenant)
    before = counts(tenant)
    delete(tenant)
    moments = random.Random(6)
    killed = 0
    while certificate(tenant)[1] is None:
        process = erasing(installation, batch=1)
        # Later each time, so that a slow machine also finishes.
        process.join((0.15 + moments.random() * 0.15) * (1 + killed / 10))
        if process.exitcode is None:
            process.kill()
            killed += ended(process) == -signal.SIGKILL
    assert killed > 0
    erased, _ = certificate(tenant)
    del before["history"]
    assert {kind: erased[kind] for kind in before} == before
    assert in_dump(postgres_url) == {}
    assert filled(tenant, postgres_url) == STAY


def test_erasure_erases_nothing_while_a_call_is_live(tenant: Tenant, installation: Installation) -> None:
    a_placed_attempt(tenant)
    before = counts(tenant)
    delete(tenant)
    assert ended(erasing(installation, DUECALL_FAILPOINT="erase.batch")) == -signal.SIGKILL, (
        "the process has marked the call for hang-up"
    )
    assert ended(erasing(installation, DUECALL_FAILPOINT="erase.batch")) == 0
    assert certificate(tenant) == ({}, None)
    assert counts(tenant) == before | {"history": before["history"] + 1}
