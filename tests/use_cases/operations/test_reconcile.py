"""A restored database calls no person twice: calling stops, lost calls are read from the carrier, calling resumes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scheduler.carriers.interface import CarrierUnavailable
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.call import CallOrder
from scheduler.hashing import Hasher
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.operations.reconcile import NotPaused, Reconcile
from scheduler.use_cases.shared.alarms import Alarms
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import Tenant, a_claimed_attempt, a_number, a_pending_attempt, a_sid, a_tenant
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier, a_carrier, a_closed_port
from tests.use_cases.conftest import Calls, is_claimed

A_MINUTE = timedelta(minutes=1)


def reconcile(tenant: Tenant, url: str) -> Reconcile:
    queries = TwilioQueries(SimulatedCarrier(url).account(), tenant.policy)
    return Reconcile(tenant.context, queries, tenant.account_id)


def dial(tenant: Tenant, carrier: SimulatedCarrier, *attempts: Attempt) -> int:
    """Dial these with the steps of one worker. Return the number of calls."""
    claims = tenant.dial.claim([each.id for each in attempts])
    rung = 0
    for claim in claims.claimed:
        order = tenant.dial.last_look(claim.attempt)
        if order is not None:
            tenant.dial.record([(claim.attempt, Calls(tenant, carrier).place(order))])
            rung += 1
    return rung


class Server:
    """A database server whose files can be restored."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._backup = folder.with_name("backup")
        self._server = EmbeddedPostgres(folder)
        self.start()

    def start(self) -> None:
        self.url = self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def back_up(self) -> None:
        self.stop()
        shutil.copytree(self._folder, self._backup)
        self.start()

    def restore(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)
        shutil.copytree(self._backup, self._folder)
        self.start()


@pytest.fixture
def carrier(now: TestClock) -> Iterator[SimulatedCarrier]:
    """One that has taken no call yet: here all that it lists counts."""
    with a_carrier() as carrier:
        carrier.clock = now
        yield carrier


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    schema.upgrade(server.url)
    yield server
    server.stop()


def test_restored_database_calls_no_person_twice(
    server: Server, carrier: SimulatedCarrier, hasher: Hasher, now: TestClock
) -> None:
    def connect() -> Tenant:
        return replace(tenant, database=Database(server.url))

    database = Database(server.url)
    tenant = a_tenant(database, seed(database, now()), hasher, now, account_sid=ACCOUNT_SID)
    numbers = [a_number() for _ in range(6)]
    people = [a_pending_attempt(tenant, number) for number in numbers]
    for number in numbers[:2]:
        carrier.plan(to=number, outcome="busy", ring_s=0, callbacks="none")
    carrier.plan(to=None, outcome="answered", ring_s=0, talk_s=0, callbacks="none")
    called, waiting = people[:4], people[4:]
    database.close()
    server.back_up()
    backed_up_at = now()

    tenant = connect()
    now.move(A_MINUTE)
    assert dial(tenant, carrier, *called) == 4
    tenant.database.close()

    # The disk is lost. The restored backup lacks all of these calls.
    server.restore()
    tenant = connect()
    now.move(A_MINUTE)
    assert {tenant.attempt(each.id).state for each in people} == {AttemptState.PENDING}
    pauses = Pauses(tenant.database, now)
    with pytest.raises(NotPaused):
        reconcile(tenant, carrier.url).since(backed_up_at)
    pauses.pause(None, "restored")
    assert dial(tenant, carrier, *people) == 0

    found = reconcile(tenant, carrier.url).since(backed_up_at)
    assert set(found.bound) == {each.id for each in called}
    assert (found.calls, found.known, found.unmatched) == (4, 0, ())
    assert [tenant.attempt(each.id).reason for each in called] == [Reason.BUSY, Reason.BUSY] + [Reason.ANSWERED] * 2
    again = reconcile(tenant, carrier.url).since(backed_up_at)
    assert (again.calls, again.known, again.bound) == (4, 4, ())

    pauses.resume(None)
    assert dial(tenant, carrier, *people) == len(waiting)
    tenant.database.close()
    assert [len(carrier.rings(number)) for number in numbers] == [1] * len(people)


def test_call_without_a_pending_attempt_is_reported(tenant: Tenant, carrier: SimulatedCarrier, now: TestClock) -> None:
    carrier.plan(to=None, outcome="answered", ring_s=60, callbacks="none")
    gone, waits = a_pending_attempt(tenant), a_pending_attempt(tenant)
    dial(tenant, carrier, gone)
    [[sid]] = tenant.ask("SELECT call_sid FROM attempts WHERE id = :id", id=gone.id)
    tenant.change("UPDATE attempts SET call_sid = :other WHERE id = :id", id=gone.id, other=a_sid())
    Pauses(tenant.database, now).pause(None, "restored")
    found = reconcile(tenant, carrier.url).since(now())
    assert (found.bound, found.unmatched) == ((), (sid,))
    assert tenant.attempt(waits.id) == waits


def test_unavailable_carrier_proves_nothing(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant)
    Pauses(tenant.database, now).pause(None, "restored")
    with pytest.raises(CarrierUnavailable):
        reconcile(tenant, a_closed_port()).since(now())


def test_alarm_of_the_command_is_stored_and_logged(
    tenant: Tenant, carrier: SimulatedCarrier, now: TestClock, postgres_url: str, tmp_path: Path
) -> None:
    number = a_number()
    lost = a_pending_attempt(tenant, number)
    carrier.plan(to=number, outcome="failed", ring_s=0, callbacks="none")
    limit = timedelta(minutes=1)
    order = CallOrder(to=number, caller=tenant.caller, token="t" * 32, ring_timeout=limit, time_limit=limit)
    Calls(tenant, carrier).place(order)
    Pauses(tenant.database, now).pause(None, "restored")
    command = ("reconcile", "--since", now().isoformat(), "--reason", "a drill", "--json")
    environment = {
        "DATABASE_URL": postgres_url,
        "DUECALL_HOME": str(tmp_path),
        "KEY_PEPPER": "a pepper for tests",
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": PRIMARY,
        "TWILIO_API_URL": carrier.url,
        "TWILIO_CPS": "1000",
        "TWILIO_MAX_CALLS": "1000",
        "DUECALL_CLOCK_OFFSET_S": str((now() - datetime.now(UTC)).total_seconds()),
    }
    run = subprocess.run(
        [sys.executable, "-m", "scheduler", *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["bound"] == [str(lost.id)]
    [line] = [json.loads(each) for each in run.stderr.splitlines() if each.startswith("{")]
    assert (line["alarm"], line["attempt_id"]) == ("CAUSE_LOST", str(lost.id))
    [alarm] = Alarms(tenant.database, now).open()
    assert (alarm.kind, alarm.subjects["attempt_id"]) == ("CAUSE_LOST", str(lost.id))


@guards("database", "database_server")
def test_changed_database_pauses_all_calling_until_resumed(tenant: Tenant, now: TestClock) -> None:
    a_claimed_attempt(tenant)
    [[claimed_on]] = tenant.ask("SELECT claimed_on FROM carrier_accounts WHERE id = :id", id=tenant.account_id)
    identity, _, timeline = claimed_on.partition("/")
    assert identity.isdecimal()
    assert len(timeline) == 8
    # A standby that took over goes on as the same server, on the next timeline.
    tenant.change("UPDATE carrier_accounts SET claimed_on = :it", it=f"{identity}/{int(timeline, 16) - 1:08X}")
    pending = a_pending_attempt(tenant)
    assert not is_claimed(tenant, pending)
    assert tenant.ask("SELECT pause_reason FROM carrier_accounts") == [("ALARM: DATABASE_CHANGED",)]
    assert not is_claimed(tenant, pending)
    Pauses(tenant.database, now).resume(None)
    [mine] = tenant.dial.claim([pending.id]).claimed
    assert mine.attempt.id == pending.id


def test_worker_may_read_the_database_identity(tenant: Tenant, logins: schema.Logins) -> None:
    pending = a_pending_attempt(tenant)
    as_worker = replace(tenant, database=Database(logins.worker, bound=False))
    assert is_claimed(as_worker, pending)
    as_worker.database.close()
