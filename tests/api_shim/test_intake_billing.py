"""Usage over HTTP: rules F5-1 to F5-4."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from scheduler.domain.attempt import AttemptState, Ended, ProofMissing, Proven, Reason
from scheduler.domain.company import BillingSystem, Price, PriceList
from scheduler.domain.interview import AgentFocus
from scheduler.domain.principal import KeyKind
from scheduler.use_cases.resources.companies import Usage
from tests.api_shim.answers import data, refusal
from tests.api_shim.calls import an_online_agent, talk
from tests.api_shim.carrier_callbacks import FORM, call_back, hear_all, token_of
from tests.api_shim.intake import Intake, Worker
from tests.architecture.rules import does, does_not
from tests.conftest import Seeded, seed
from tests.support.builders import (
    Tenant,
    a_claimed_attempt,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
    of_company,
)

NINETY_SECONDS = timedelta(seconds=90)
PRICES: PriceList = {
    AgentFocus.GENERIC: Price(base_cost=Decimal(1), cost_per_minute=Decimal("0.5"), included_minutes=Decimal(1))
}


def usage(intake: Intake, **params: str) -> Any:
    return data(intake.get("/billing/usage", **params))


def refused_usage(intake: Intake, **params: str) -> tuple[int, str]:
    return refusal(intake.get("/billing/usage", **params))


def bill(intake: Intake, system: BillingSystem, prices: PriceList | None = None) -> None:
    Usage(intake.database, intake.now).bill(intake.seeded.company_id, system=system, prices=prices)


def an_ats_company(intake: Intake, principal_id: UUID, name: str) -> Seeded:
    made = seed(intake.database, intake.now())
    change = "UPDATE companies SET ats_principal_id = :ats, name = :name WHERE id = :id"
    intake.change(change, ats=principal_id, name=name, id=made.company_id)
    return made


def in_minutes(company_id: object, name: str | None, minutes: float, events: int = 1) -> dict[str, Any]:
    return {
        "companyId": str(company_id),
        "companyName": name,
        "billingSystem": "minutes",
        "totalInterviews": events,
        "breakdownByCostKey": [{"costKey": "interview_minutes", "events": events, "minutesUsed": minutes}],
        "totalMinutesUsed": minutes,
    }


# ---- F5-1: companies and period


@does("F5-1")
def test_f5_1_regular_key_gets_usage_of_its_own_company(intake: Intake, tenant: Tenant) -> None:
    talk(tenant)
    other = of_company(tenant, seed(intake.database, intake.now()))
    talk(other, seconds=600)
    report = usage(intake, companyId=str(other.company_id))
    assert report == {
        "companies": [in_minutes(tenant.company_id, "Acme", 1.5)],
        "totalInterviews": 1,
        "breakdownByCostKey": [{"costKey": "interview_minutes", "events": 1, "minutesUsed": 1.5}],
        "totalMinutesUsed": 1.5,
    }
    assert data(intake.get("/v1/billing/usage")) == report


@does("F5-1")
def test_f5_1_ats_key_gets_usage_of_its_own_companies_only(intake: Intake, tenant: Tenant) -> None:
    principal, key = intake.new_key(kind=KeyKind.ATS)
    used = an_ats_company(intake, principal.id, "Used")
    unused = an_ats_company(intake, principal.id, "Unused")
    talk(of_company(tenant, used))
    talk(tenant)
    report = usage(intake.with_key(key))
    nothing = in_minutes(unused.company_id, "Unused", 0.0, events=0) | {"breakdownByCostKey": []}
    by_id = {each["companyId"]: each for each in report["companies"]}
    assert by_id == {str(used.company_id): in_minutes(used.company_id, "Used", 1.5), str(unused.company_id): nothing}
    assert (report["totalInterviews"], report["totalMinutesUsed"]) == (1, 1.5)
    nothing_at_all = {"companies": [], "totalInterviews": 0, "breakdownByCostKey": []}
    assert usage(intake.with_new_key(kind=KeyKind.ATS)) == nothing_at_all


@does("F5-1")
def test_usage_of_an_ats_key_is_narrowed_to_one_company(intake: Intake, tenant: Tenant) -> None:
    principal, key = intake.new_key(kind=KeyKind.ATS)
    ats = intake.with_key(key)
    one, other = (an_ats_company(intake, principal.id, name) for name in ("One", "Other"))
    talk(of_company(tenant, one))
    talk(of_company(tenant, other), seconds=600)
    report = usage(ats, companyId=str(one.company_id))
    assert report["companies"] == [in_minutes(one.company_id, "One", 1.5)]
    assert (report["totalInterviews"], report["totalMinutesUsed"]) == (1, 1.5)
    assert usage(ats)["totalInterviews"] == 2


@does_not("F5-1")
def test_usage_of_an_inaccessible_company_is_refused(intake: Intake, tenant: Tenant) -> None:
    talk(tenant)
    principal, key = intake.new_key(kind=KeyKind.ATS)
    ats = intake.with_key(key)
    for nowhere in (str(intake.seeded.company_id), str(uuid4())):
        assert refused_usage(ats, companyId=nowhere) == (403, "RESOURCE_ACCESS_DENIED")
    gone = str(an_ats_company(intake, principal.id, "Gone").company_id)
    assert ats.delete(f"/company/{gone}").status_code == 200
    assert refused_usage(ats, companyId=gone) == (403, "RESOURCE_ACCESS_DENIED")
    for misspelt in ("acme", ""):
        assert refused_usage(ats, companyId=misspelt) == (400, "VALIDATION_ERROR")


@does("F5-1")
def test_f5_1_period_is_half_open_utc_and_defaults_to_30_days(intake: Intake, tenant: Tenant) -> None:
    for booked_at in ("2026-03-03T11:00Z", "2026-03-31T23:59:59.999Z", "2026-04-01T00:00Z", "2026-04-02T00:00Z"):
        attempt = talk(tenant)
        change = "UPDATE usage SET booked_at = :at WHERE attempt_id = :id"
        intake.change(change, at=booked_at.replace("Z", "+00"), id=attempt.id)
    for start, end, events in (
        (None, None, 3),
        ("2026-04-01", "2026-04-02", 1),
        ("2026-04-01", "2026-04-01", 0),
        ("20260401", "2026-04-02T00:00:00.001Z", 2),
        ("2026-04-01T02:00:00+02:00", "2026-04-02T02:00:00+02:00", 1),
        ("2026-04-01T02:00:00.001+02:00", "2026-04-02T02:00:00+02:00", 0),
        ("2026-04-01T02:00:00[Europe/Bratislava]", "2026-04-02T00:00:00", 1),
        ("2026-03-31T23:59:59", "2026-04-01", 1),
        ("2026-03-01", None, 4),
        (None, "2026-04-01", 2),
    ):
        assert usage(intake, **period(start, end))["totalInterviews"] == events, (start, end)


@does_not("F5-1")
def test_f5_1_invalid_period_is_refused(intake: Intake) -> None:
    for start, end, code in (
        ("2026-04-02", "2026-04-01", "INVALID_PERIOD"),
        ("2027-04-02", None, "INVALID_PERIOD"),
        ("2025-03-31", "2026-04-02", "INVALID_PERIOD"),  # 367 days
        ("2026-13-01", None, "INVALID_DATE_FORMAT"),
        ("yesterday", None, "INVALID_DATE_FORMAT"),
        ("", None, "INVALID_DATE_FORMAT"),
        (None, "2026-04-01T25:00:00Z", "INVALID_DATE_FORMAT"),
        (None, "2026-04-01x", "INVALID_DATE_FORMAT"),
        ("0001-01-01", None, "INVALID_DATE_FORMAT"),
    ):
        assert refused_usage(intake, **period(start, end)) == (400, code), (start, end)
    assert usage(intake, start="2025-04-01", end="2026-04-02")["totalInterviews"] == 0, "366 days"


def period(start: str | None, end: str | None) -> dict[str, str]:
    return {name: text for name, text in (("start", start), ("end", end)) if text is not None}


# ---- F5-2: one unit or the other


@does("F5-2")
def test_f5_2_usage_has_one_unit_and_omits_the_other(intake: Intake, tenant: Tenant) -> None:
    bill(intake, BillingSystem.CREDITS, PRICES)
    talk(tenant)
    report = usage(intake)
    assert report["companies"] == [
        {
            "companyId": str(tenant.company_id),
            "companyName": "Acme",
            "billingSystem": "credits",
            "totalInterviews": 1,
            "breakdownByCostKey": [{"costKey": "generic_interview", "events": 1, "creditsUsed": 1.25}],
            "totalCreditsUsed": 1.25,
        }
    ]
    assert "totalMinutesUsed" not in report
    assert report["totalCreditsUsed"] == 1.25


@does_not("F5-2")
def test_f5_2_company_with_changed_unit_has_a_row_for_each_unit(intake: Intake, tenant: Tenant) -> None:
    talk(tenant)
    bill(intake, BillingSystem.CREDITS, PRICES)
    talk(tenant)
    talk(tenant)
    report = usage(intake)
    rows = [(each["billingSystem"], each["totalInterviews"]) for each in report["companies"]]
    assert rows == [("minutes", 1), ("credits", 2)]
    assert (report["totalInterviews"], report["totalMinutesUsed"], report["totalCreditsUsed"]) == (3, 1.5, 2.5)
    assert report["breakdownByCostKey"] == [
        {"costKey": "interview_minutes", "events": 1, "minutesUsed": 1.5},
        {"costKey": "generic_interview", "events": 2, "creditsUsed": 2.5},
    ]


# ---- F5-3: booked once, with the call's end


@does("F5-3")
def test_f5_3_answered_call_is_booked_with_the_carriers_end(intake: Intake, tenant: Tenant) -> None:
    claimed = a_claimed_attempt(tenant)
    form = [("CallSid", a_sid()), *FORM[1:]]
    over = {**dict(form), "CallStatus": "completed", "CallDuration": "63", "SequenceNumber": "3"}
    for report in (form, list(over.items()), list(over.items()), [*over.items(), ("Again", "1")]):
        assert call_back(intake, token_of(claimed), report).status_code == 204
        hear_all(intake, tenant)
    assert tenant.attempt(claimed.id).state is AttemptState.COMPLETED
    assert usage(intake)["companies"] == [in_minutes(tenant.company_id, "Acme", 1.1)]


@does_not("F5-3")
def test_f5_3_unanswered_call_is_not_booked(intake: Intake, tenant: Tenant) -> None:
    for reason in (Reason.BUSY, Reason.NO_ANSWER, Reason.VOICEMAIL, Reason.DECLINED, Reason.CARRIER_ERROR):
        tenant.take(a_placed_attempt(tenant), Ended(reason=reason, ended_at=tenant.now(), duration=NINETY_SECONDS))
    tenant.take(an_unknown_attempt(tenant), ProofMissing())
    assert intake.count("usage") == 0
    assert usage(intake)["totalInterviews"] == 0


@does("F5-3")
def test_f5_3_late_proof_of_an_answer_is_booked_when_it_arrives(intake: Intake, tenant: Tenant) -> None:
    proven = Proven(reason=Reason.ANSWERED, call_sid=a_sid(), ended_at=tenant.now(), duration=NINETY_SECONDS)
    busy = replace(proven, reason=Reason.BUSY, call_sid=a_sid())
    tenant.take(an_attempt_of_unknown_outcome(tenant), busy)
    assert intake.count("usage") == 0
    tenant.take(an_attempt_of_unknown_outcome(tenant), proven)
    assert usage(intake)["companies"] == [in_minutes(tenant.company_id, "Acme", 1.5)]


@does("F5-3", "F4-8")
def test_f5_3_the_live_call_of_a_deleted_interview_is_booked(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    placed = a_placed_attempt(tenant)
    assert intake.delete(f"/interviews/{placed.interview_id}").status_code == 200
    tenant.take(placed, Ended(reason=Reason.ANSWERED, ended_at=tenant.now(), duration=NINETY_SECONDS))
    assert usage(intake)["companies"] == [in_minutes(tenant.company_id, "Acme", 1.5)]


@does_not("F5-3", "F1-8")
def test_f5_3_test_and_online_interviews_are_not_booked(intake: Intake, worker: Worker) -> None:
    assert intake.interview(isTest=True)["status"] == "COMPLETED"
    online = intake.interview(agentId=str(an_online_agent(intake)))["id"]
    assert intake.patch(f"/interviews/{online}", {"status": "COMPLETED"}).status_code == 200
    assert usage(intake)["totalInterviews"] == 0


@does("F5-3")
def test_f5_3_booking_keeps_its_unit_and_price(intake: Intake, tenant: Tenant) -> None:
    bill(intake, BillingSystem.CREDITS, PRICES)
    talk(tenant)
    before = usage(intake)
    dear = Price(base_cost=Decimal(100), cost_per_minute=Decimal(1), included_minutes=Decimal(0))
    bill(intake, BillingSystem.CREDITS, {AgentFocus.GENERIC: dear})
    assert usage(intake) == before
    bill(intake, BillingSystem.MINUTES)
    assert usage(intake) == before
    talk(tenant)
    report = usage(intake)
    assert (report["totalMinutesUsed"], report["totalCreditsUsed"]) == (1.5, 1.25)


@does("F5-3")
def test_f5_3_total_is_the_sum_of_exact_seconds(intake: Intake, tenant: Tenant) -> None:
    for _ in range(3):
        talk(tenant, seconds=2)
    report = usage(intake)
    assert report["totalMinutesUsed"] == 0.1, "three times two seconds are shown as 0.0 each"


@does("F5-3")
def test_f5_3_unreadable_prices_do_not_stop_a_call_from_ending(intake: Intake, tenant: Tenant) -> None:
    intake.change("""UPDATE companies SET billing_system = 'credits', prices = '{"GENERIC": 7}'""")
    assert talk(tenant).state is AttemptState.COMPLETED
    assert usage(intake)["totalCreditsUsed"] == 1.0


# ---- F5-4: after the company


@does("F5-4")
def test_f5_4_usage_of_a_deleted_company_stays_without_its_name(intake: Intake, tenant: Tenant) -> None:
    principal, key = intake.new_key(kind=KeyKind.ATS)
    ats = intake.with_key(key)
    gone, stays = (an_ats_company(intake, principal.id, name) for name in ("Gone", "Stays"))
    for each in (gone, stays):
        talk(of_company(tenant, each))
    intake.change("UPDATE companies SET deleted_at = :at WHERE id = :id", at=intake.now(), id=gone.company_id)
    report = usage(ats)
    assert report["companies"] == [in_minutes(stays.company_id, "Stays", 1.5), in_minutes(gone.company_id, None, 1.5)]
    assert (report["totalInterviews"], report["totalMinutesUsed"]) == (2, 3.0)


@does_not("F5-4")
def test_f5_4_usage_of_a_deleted_company_is_hidden_from_others(intake: Intake, tenant: Tenant) -> None:
    principal, _ = intake.new_key(kind=KeyKind.ATS)
    gone = an_ats_company(intake, principal.id, "Gone")
    talk(of_company(tenant, gone))
    intake.change("UPDATE companies SET deleted_at = :at WHERE id = :id", at=intake.now(), id=gone.company_id)
    for stranger in (intake, intake.with_new_key(kind=KeyKind.ATS)):
        assert str(gone.company_id) not in stranger.get("/billing/usage").text
