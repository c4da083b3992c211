"""Every act of an operator or an API key leaves an entry in the audit, in the transaction of the act."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from console.sessions import ConsoleSessions
from scheduler.clock import deadline_in
from scheduler.domain.alarm import AlarmKey, key_of
from scheduler.domain.attempt import Decision
from scheduler.domain.command import CommandKind
from scheduler.domain.company import BillingSystem, CallLimits, NewCompany
from scheduler.domain.principal import (
    SYSTEM,
    Act,
    AuditEntry,
    KeyKind,
    OperatorRole,
    TargetKind,
    Verb,
    of_cli,
    of_key,
    of_link,
)
from scheduler.domain.refusals import InvalidPauseReason, Refused
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.use_cases.operations.installation import Installation
from scheduler.use_cases.operations.pauses import Pause, Pauses
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.operations.unknown_outcomes import OperatorCommands, UnknownOutcomes
from scheduler.use_cases.resources.companies import Companies, Usage
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared.alarms import Acts, Alarms, AlarmStore, Seen
from tests.conftest import NOON, TestClock
from tests.support.builders import RecordingHints, Tenant, a_pending_attempt, a_waiting_command, a_write
from tests.support.statements import statements_of

OPERATOR = of_cli("ada", "control")


@dataclass(frozen=True, kw_only=True)
class Office:
    """The use cases with acts, of one operator."""

    tenant: Tenant
    hints: RecordingHints
    pauses: Pauses
    keys: Keys
    quarantine: Quarantine
    usage: Usage
    installation: Installation

    def entries(self, **wanted: Any) -> list[AuditEntry]:
        """List the entries, oldest first."""
        return list(reversed(Acts(self.tenant.database).newest(AuditFilter(**wanted), None, 100)))

    def entry(self) -> AuditEntry:
        """Read the newest entry."""
        return self.entries()[-1]

    def companies(self) -> Companies:
        return Companies(
            self.tenant.database, IdempotentWrites(self.tenant.database, self.tenant.now), self.hints, None
        )

    def sent(self, kind: CommandKind) -> WriteRequest:
        return a_write(kind, self.tenant.principal, trace_id="a trace")

    def a_quarantined_command(self) -> UUID:
        command = a_waiting_command(self.tenant, a_pending_attempt(self.tenant).interview_id)
        with self.tenant.database.transaction() as stores:
            for _ in range(5):
                stores.inbox.count_failure(command.id, "builtins.KeyError at x:1", self.tenant.now())
        return command.id


@pytest.fixture
def office(tenant: Tenant, hints: RecordingHints) -> Office:
    database, now = tenant.database, tenant.now
    keys = Keys(database, tenant.hasher, now, OPERATOR)
    return Office(
        tenant=tenant,
        hints=hints,
        pauses=Pauses(database, now, OPERATOR),
        keys=keys,
        quarantine=Quarantine(database, now, OPERATOR),
        usage=Usage(database, now, OPERATOR),
        installation=Installation(database, keys, now, OPERATOR),
    )


# ---- pauses


def test_pause_and_resume_are_entered_once(office: Office) -> None:
    company_id = office.tenant.company_id
    office.pauses.pause(company_id, "they asked for silence")
    office.pauses.pause(company_id, "again")
    office.pauses.resume(company_id, "it is Monday")
    office.pauses.resume(company_id, "again")
    paused, resumed = office.entries()
    assert (paused.verb, paused.actor, paused.at) == (Verb.PAUSE, OPERATOR, NOON)
    assert (paused.target, paused.company_id) == (f"company:{company_id}", company_id)
    assert (paused.reason, paused.before) == ("they asked for silence", {"state": "RUNNING"})
    assert paused.after == {"state": "PAUSED", "reason": "they asked for silence"}
    assert (resumed.verb, resumed.reason) == (Verb.RESUME, "it is Monday")
    assert (resumed.before, resumed.after) == (paused.after, paused.before)


@pytest.mark.parametrize("is_for_all", [False, True])
def test_second_pause_returns_the_first(office: Office, now: TestClock, *, is_for_all: bool) -> None:
    company_id = None if is_for_all else office.tenant.company_id
    second = Pauses(office.tenant.database, now, "link:second")
    assert second.pause(company_id, "an older pause") is None
    second.resume(company_id)
    now.move(timedelta(minutes=1))
    assert office.pauses.pause(company_id, "they asked for silence") is None
    now.move(timedelta(minutes=1))
    first = Pause(reason="they asked for silence", paused_at=NOON + timedelta(minutes=1), actor=OPERATOR)
    assert second.pause(company_id, "again") == second.current(company_id) == first
    assert second.resume(company_id) == first.reason
    assert second.current(company_id) is None


@contextmanager
def _meanwhile(database: Database, statement: str, act: Callable[[], None]) -> Iterator[None]:
    """Run `act` once, before the first statement of the block that contains this text."""
    acts = [act]

    def run(*seen: Any) -> None:
        if acts and statement in seen[2]:
            acts.pop()()

    event.listen(database._engine, "before_cursor_execute", run)
    try:
        yield
    finally:
        event.remove(database._engine, "before_cursor_execute", run)
    assert not acts


def test_pause_that_ends_meanwhile_is_not_reported(office: Office) -> None:
    office.pauses.pause(None, "the first")

    def resume() -> None:
        with deadline_in(0.2), suppress(DatabaseAway):
            office.pauses.resume(None)

    with _meanwhile(office.tenant.database, "SELECT carrier_accounts.pause_reason", resume):
        before = office.pauses.pause(None, "the second")
    reason = "the second" if before is None else before.reason
    assert office.pauses.active()[0] == reason


def test_resume_ends_no_pause_that_it_did_not_read(office: Office) -> None:
    answers: list[str] = []

    def pause() -> None:
        with deadline_in(0.2), suppress(DatabaseAway):
            assert office.pauses.pause(None, "silence") is None
            answers.append("silence")

    with _meanwhile(office.tenant.database, "UPDATE carrier_accounts", pause):
        assert office.pauses.resume(None) is None
    assert office.pauses.active()[0] == next(iter(answers), None)


def test_pause_by_an_alarm_has_no_actor(office: Office) -> None:
    with office.tenant.database.transaction() as stores:
        assert stores.companies.pause(office.tenant.company_id, "alarm: X", NOON)
    found = office.pauses.pause(office.tenant.company_id, "again")
    assert found == Pause(reason="alarm: X", paused_at=NOON, actor=None)
    assert office.entries() == []


def test_creators_of_links_are_found_by_their_actors(office: Office, now: TestClock) -> None:
    sessions = ConsoleSessions(office.tenant.database, office.tenant.hasher, now)
    links = [sessions.make_link(OperatorRole.VIEWER, f"cli:{name}@host")[0] for name in ("ada", "eve", "mallory")]
    actors = [of_link(each.id) for each in links]
    acts = Acts(office.tenant.database)
    asked = (*actors[:2], of_link(uuid4()), "link:x", str(links[2].id), "oidc:sub", OPERATOR)
    assert acts.link_creators(asked) == {actors[0]: "cli:ada@host", actors[1]: "cli:eve@host"}
    with statements_of(office.tenant.database) as sent:
        assert acts.link_creators(["oidc:sub"]) == {}
    assert sent == []


def test_pause_of_everything_has_no_company(office: Office) -> None:
    office.pauses.pause(None, "the voice server is down")
    entry = office.entry()
    assert (entry.target, entry.company_id) == ("all", None)


def test_refused_act_enters_nothing(office: Office) -> None:
    for act in (
        lambda: office.pauses.pause(uuid4(), "no such company"),
        lambda: office.keys.revoke(uuid4(), "no such key"),
        lambda: office.quarantine.drop(uuid4(), "no such command"),
        lambda: office.installation.add_number(uuid4(), "+421221020009"),
    ):
        with pytest.raises(Refused):
            act()
    assert office.entries() == []


# ---- keys


def test_life_of_a_key_is_entered(office: Office, now: TestClock) -> None:
    keys, company_id = office.keys, office.tenant.company_id
    principal, _ = keys.create(kind=KeyKind.REGULAR, name="night", company_id=company_id, per_minute=7, reason="new")
    second, _ = keys.rotate(principal.key_id, {"per_hour": 9}, "a rotation")
    now.move(timedelta(seconds=1))
    keys.suspend(principal.key_id, "the invoice of March")
    keys.resume(principal.key_id, "it was paid")
    keys.revoke(principal.key_id, "replaced")
    keys.revoke(principal.key_id, "again")
    of_first = office.entries(target_kind="key", target_id=str(principal.key_id))
    assert [each.verb for each in of_first] == [Verb.CREATE_KEY, Verb.SUSPEND_KEY, Verb.RESUME_KEY, Verb.REVOKE_KEY]
    assert [each.reason for each in of_first] == ["new", "the invoice of March", "it was paid", "replaced"]
    assert {each.company_id for each in of_first} == {company_id}
    created, suspended, resumed, revoked = of_first
    assert created.after["perMinute"] == 7
    assert created.after["scopes"] == sorted(principal.scopes)
    assert suspended.after == {"state": "SUSPENDED"}
    assert resumed.before == {"state": "SUSPENDED", "reason": "the invoice of March"}
    assert (resumed.after, revoked.after) == ({"state": "ACTIVE"}, {"state": "REVOKED"})
    [rotated] = office.entries(target_id=str(second.key_id))
    assert rotated.after["rotatedFrom"] == str(principal.key_id)
    assert rotated.after["perHour"] == 9


def test_keys_of_duecall_up_are_entered_as_the_system(tenant: Tenant, office: Office) -> None:
    tenant.change("UPDATE companies SET ats_principal_id = gen_random_uuid()")
    own = Installation(tenant.database, Keys(tenant.database, tenant.hasher, tenant.now), tenant.now)
    own.seed("+421221020001")
    own.seed("+421221020001")
    entries = office.entries()
    assert {each.actor for each in entries} == {SYSTEM}
    assert [each.verb for each in entries].count(Verb.CREATE_KEY) == 4
    assert [each.verb for each in entries].count(Verb.REVOKE_KEY) == 2


# ---- companies


def test_changed_limits_are_entered_by_their_key(office: Office) -> None:
    tenant = office.tenant
    limits = CallLimits(concurrent_calls=3, calls_per_second=0.5)
    changes = {"settings": {"limits": limits}, "name": "Another"}
    office.companies().change(office.sent(CommandKind.UPDATE_COMPANY), tenant.company_id, changes)
    entry = office.entry()
    assert (entry.actor, entry.verb) == (of_key(tenant.principal.key_id), Verb.CHANGE_LIMITS)
    assert (entry.target, entry.trace_id) == (f"company:{tenant.company_id}", "a trace")
    assert entry.before == {"concurrentCalls": 1000, "callsPerSecond": 1000}
    assert entry.after == {"concurrentCalls": 3, "callsPerSecond": 0.5}


def test_change_of_other_fields_is_not_entered(office: Office) -> None:
    changes = {"name": "Another", "settings": {"timezone": "Europe/London"}}
    office.companies().change(office.sent(CommandKind.UPDATE_COMPANY), office.tenant.company_id, changes)
    assert office.entries() == []


def test_deleted_company_is_entered(office: Office) -> None:
    office.companies().delete(office.sent(CommandKind.DELETE_COMPANY), office.tenant.company_id)
    entry = office.entry()
    assert (entry.verb, entry.company_id) == (Verb.DELETE_COMPANY, office.tenant.company_id)


def test_created_company_is_not_entered(office: Office) -> None:
    sent = office.sent(CommandKind.CREATE_COMPANY)
    sent = replace(sent, principal=replace(sent.principal, kind=KeyKind.ATS, company_id=None))
    office.companies().create(sent, NewCompany(name="New"))
    assert office.entries() == []


def test_changed_billing_is_entered(office: Office) -> None:
    company_id = office.tenant.company_id
    office.usage.bill(company_id, system=BillingSystem.CREDITS, reason="a new contract")
    office.usage.bill(company_id, system=BillingSystem.CREDITS, reason="no change")
    [entry] = office.entries()
    assert (entry.verb, entry.reason) == (Verb.CHANGE_BILLING, "a new contract")
    assert entry.before["billingSystem"] == "minutes"
    assert entry.after["billingSystem"] == "credits"


def test_added_number_is_entered_by_its_id(office: Office) -> None:
    number_id = office.installation.add_number(office.tenant.company_id, "+421221020009", "a second line")
    office.installation.add_number(office.tenant.company_id, "+421221020009", "it exists")
    [entry] = office.entries()
    assert (entry.target, entry.reason) == (f"number:{number_id}", "a second line")


# ---- commands and alarms


@pytest.mark.parametrize(("act", "verb"), [("requeue", Verb.RETRY_COMMAND), ("drop", Verb.DROP_COMMAND)])
def test_decided_command_is_entered(office: Office, act: str, verb: Verb) -> None:
    command_id = office.a_quarantined_command()
    getattr(office.quarantine, act)(command_id, "after the release")
    [entry] = office.entries()
    assert (entry.verb, entry.target, entry.reason) == (verb, f"command:{command_id}", "after the release")
    assert entry.before["state"] == "QUARANTINED"
    assert entry.company_id == office.tenant.company_id


def test_acknowledged_alarm_is_entered(office: Office, database: Database, now: TestClock) -> None:
    key = AlarmKey(kind="CAUSE_LOST", subjects=(("company_id", str(office.tenant.company_id)),))
    AlarmStore(database, now, monotonic=lambda: 0.0).store({key: Seen(count=4, first=0, last=0)})
    alarms = Alarms(database, now, OPERATOR)
    [alarm] = alarms.open()
    alarms.acknowledge(alarm.id, note="seen")
    [entry] = office.entries()
    assert (entry.verb, entry.target) == (Verb.ACKNOWLEDGE_ALARM, f"alarm:{alarm.id}")
    assert (entry.company_id, entry.reason) == (office.tenant.company_id, "seen")
    assert entry.before == {"kind": "CAUSE_LOST", "count": 4}


# ---- reasons, fields and lists


ACTS: list[Callable[[Office, str], object]] = [
    lambda office, reason: office.pauses.resume(office.tenant.company_id, reason),
    lambda office, reason: office.keys.revoke(uuid4(), reason),
    lambda office, reason: office.keys.resume(uuid4(), reason),
    lambda office, reason: office.keys.rotate(uuid4(), {}, reason),
    lambda office, reason: office.keys.create(kind=KeyKind.ATS, name="x", reason=reason),
    lambda office, reason: office.quarantine.requeue(uuid4(), reason),
    lambda office, reason: office.quarantine.drop(uuid4(), reason),
    lambda office, reason: office.usage.bill(office.tenant.company_id, reason=reason),
    lambda office, reason: office.installation.add_number(office.tenant.company_id, "+421221020009", reason),
    lambda office, reason: Alarms(office.tenant.database, office.tenant.now, OPERATOR).acknowledge(
        uuid4(), note=reason
    ),
    lambda office, reason: OperatorCommands(office.tenant.database, office.tenant.now).cancel([uuid4()], reason),
    lambda office, reason: UnknownOutcomes(office.tenant.database, office.tenant.now).decide(
        uuid4(), Decision.LEFT, reason
    ),
]


@pytest.mark.parametrize("act", ACTS)
def test_reason_with_personal_data_is_refused(office: Office, act: Callable[[Office, str], object]) -> None:
    with pytest.raises(InvalidPauseReason):
        act(office, "call +421 915 200 300")
    assert office.entries() == []


@pytest.mark.parametrize("field", ["name", "number", "email", "phoneNumber"])
def test_act_with_another_field_cannot_be_built(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Act(verb=Verb.PAUSE, target_kind=TargetKind.ALL, before={field: "x"})
    with pytest.raises(ValueError, match=field):
        Act(verb=Verb.PAUSE, target_kind=TargetKind.ALL, after={field: "x"})


def test_list_continues_after_an_entry(office: Office, now: TestClock) -> None:
    for place in range(5):
        office.pauses.pause(None, f"pause {place}")
        office.pauses.resume(None)
        now.move(timedelta(minutes=1))
    acts, wanted = Acts(office.tenant.database), AuditFilter(actor=OPERATOR)
    first = acts.newest(wanted, None, 4)
    rest = acts.newest(wanted, first[-1].id, 100)
    assert [each.id for each in (*first, *rest)] == sorted((each.id for each in office.entries()), reverse=True)
    since = AuditFilter(since=NOON + timedelta(minutes=4))
    assert [each.verb for each in acts.newest(since, None, 100)].count(Verb.PAUSE) == 1
    assert acts.newest(AuditFilter(actor="cli:another@control"), None, 100) == []


# ---- no personal data


def test_audit_and_alarms_contain_no_personal_data(office: Office, database: Database, now: TestClock) -> None:
    tenant, canary, number = office.tenant, "Zyxwvut Qponm", "+421915987654"
    tenant.change("UPDATE companies SET name = :name", name=canary)
    attempt = a_pending_attempt(tenant, number)
    tenant.change(
        "UPDATE candidates SET first_name = :name, email = :email", name=canary, email="zyxwvut@canary.example"
    )
    principal, _ = office.keys.create(kind=KeyKind.REGULAR, name=canary, company_id=tenant.company_id)
    office.keys.rotate(principal.key_id, {"name": canary})
    office.keys.suspend(principal.key_id, None)
    office.installation.add_number(tenant.company_id, number)
    office.pauses.pause(tenant.company_id, "a test")
    office.pauses.resume(tenant.company_id)
    office.quarantine.drop(office.a_quarantined_command(), "a test")
    fields = {"attempt_id": str(attempt.id), "name": canary, "url": number, "error": canary, "kind": canary}
    AlarmStore(database, now).store({key_of("CAUSE_LOST", fields): Seen(count=1, first=0, last=0)})
    changes = {"name": canary, "owner_email": "zyxwvut@canary.example", "settings": {"limits": CallLimits()}}
    office.companies().change(office.sent(CommandKind.UPDATE_COMPANY), tenant.company_id, changes)
    office.companies().delete(office.sent(CommandKind.DELETE_COMPANY), tenant.company_id)
    rows = tenant.ask("SELECT to_jsonb(a) FROM audit a") + tenant.ask("SELECT to_jsonb(a) FROM alarms a")
    assert len(rows) == 10
    text = json.dumps([row[0] for row in rows])
    for secret in ("Zyxwvut", "Qponm", number, number[1:], "canary.example"):
        assert secret not in text
