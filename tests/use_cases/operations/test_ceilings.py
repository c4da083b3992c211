"""Ceilings: the highest limits that a company may set for itself, as operators decide."""

# ruff: noqa: F811 - a fixture is asked for by its name

from dataclasses import replace

import pytest

from scheduler.domain.command import CommandKind, Refusal
from scheduler.domain.company import CallLimits, CompanySettings, LimitCeiling, NewCompany
from scheduler.domain.principal import KeyKind, Verb
from scheduler.domain.refusals import NotFound
from scheduler.ids import new_id
from scheduler.persistence.alarms import AuditFilter
from scheduler.use_cases.operations.pauses import Ceilings
from tests.architecture.guards import guards
from tests.support.builders import Tenant, a_pending_attempt
from tests.use_cases.conftest import claimed
from tests.use_cases.operations.test_audit import Office, office  # noqa: F401 - a fixture


def ceilings(tenant: Tenant) -> Ceilings:
    return Ceilings(tenant.database, tenant.now, "cli:somebody@here")


def limits_of(tenant: Tenant) -> tuple[CallLimits, LimitCeiling]:
    with tenant.database.reading() as stores:
        return stores.companies.limits_of(tenant.company_id)


def set_limits(office: Office, limits: CallLimits) -> Refusal | None:
    sent = office.sent(CommandKind.UPDATE_COMPANY)
    return office.companies().change(sent, office.tenant.company_id, {"settings": {"limits": limits}}).refusal


def test_lowered_ceiling_holds_for_the_next_claim(tenant: Tenant) -> None:
    ceilings(tenant).set(tenant.company_id, LimitCeiling(concurrent_calls=1), reason="the contract of March")
    assert len(claimed(tenant, *[a_pending_attempt(tenant) for _ in range(2)])) == 1
    assert limits_of(tenant)[0] == CallLimits(concurrent_calls=1, calls_per_second=1000)


def test_ceiling_is_entered_into_the_audit(tenant: Tenant) -> None:
    for _ in range(2):
        ceilings(tenant).set(tenant.company_id, LimitCeiling(calls_per_second=0.5), reason="the contract of March")
    with tenant.database.reading() as stores:
        [entry] = stores.audit.newest(AuditFilter(verb=Verb.CHANGE_CEILING), None, 10)
    assert (entry.reason, entry.actor) == ("the contract of March", "cli:somebody@here")
    assert entry.before == {"concurrentCalls": None, "callsPerSecond": None}
    assert entry.after == {"concurrentCalls": None, "callsPerSecond": 0.5}


def test_other_part_of_a_ceiling_is_kept_or_dropped(tenant: Tenant) -> None:
    ceilings(tenant).set(tenant.company_id, LimitCeiling(concurrent_calls=5))
    both = LimitCeiling(concurrent_calls=5, calls_per_second=2)
    assert ceilings(tenant).set(tenant.company_id, LimitCeiling(calls_per_second=2)).ceiling == both
    assert ceilings(tenant).set(tenant.company_id, LimitCeiling(), drops_others=True).ceiling == LimitCeiling()


def test_ceiling_of_an_unknown_company_is_refused(tenant: Tenant) -> None:
    with pytest.raises(NotFound):
        ceilings(tenant).set(new_id(tenant.now()), LimitCeiling(concurrent_calls=5))


@guards("limit_ceiling")
def test_company_cannot_set_a_limit_above_its_ceiling(office: Office) -> None:
    ceilings(office.tenant).set(office.tenant.company_id, LimitCeiling(concurrent_calls=20, calls_per_second=2))
    refusal = set_limits(office, CallLimits(concurrent_calls=21, calls_per_second=2))
    assert refusal is not None
    assert refusal.code == "VALIDATION_ERROR"
    [field] = refusal.details["fields"]
    assert field["field"] == "settings.limits.concurrentCalls"
    assert "at most 20" in field["message"]
    assert set_limits(office, CallLimits(concurrent_calls=20, calls_per_second=2)) is None
    assert limits_of(office.tenant)[0] == CallLimits(concurrent_calls=20, calls_per_second=2)


def test_limits_of_the_account_are_the_default_ceiling(office: Office) -> None:
    office.tenant.change("UPDATE carrier_accounts SET max_calls = 50, calls_per_second = 3")
    office.tenant.change("UPDATE companies SET concurrent_calls = 10, calls_per_second = 5")
    assert set_limits(office, CallLimits(concurrent_calls=51, calls_per_second=1)) is not None
    assert set_limits(office, CallLimits(concurrent_calls=50, calls_per_second=6)) is not None
    assert set_limits(office, CallLimits(concurrent_calls=50, calls_per_second=5)) is None, "a limit may stay"


def test_new_company_cannot_exceed_the_account(office: Office) -> None:
    office.tenant.change("UPDATE carrier_accounts SET max_calls = 5, calls_per_second = 1")
    sent = office.sent(CommandKind.CREATE_COMPANY)
    sent = replace(sent, principal=replace(sent.principal, kind=KeyKind.ATS, company_id=None))
    wanted = CompanySettings(limits=CallLimits(concurrent_calls=11, calls_per_second=1))
    assert office.companies().create(sent, NewCompany(name="New", settings=wanted)).refusal is not None
    assert office.companies().create(sent, NewCompany(name="New")).refusal is None
