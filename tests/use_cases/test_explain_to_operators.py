"""Explanations for the console, whose role reads no number: they are those of the API, for every kind of number.

The fixture `explain` compares both explanations each time.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from scheduler.domain.attempt import Attempt
from scheduler.domain.call import NumberFacts
from scheduler.domain.command import CreateInterview
from scheduler.domain.company import CompanySettings
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import NewCandidate
from scheduler.persistence.database import Database
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.explain import Explain
from tests.conftest import TestClock
from tests.support.builders import ApiWriter, Reach, Tenant, a_number, a_pending_attempt
from tests.use_cases.conftest import Perform, a_backoff, candidate_of
from tests.use_cases.test_explain import rules

FAR = date(2099, 12, 31)
PREMIUM, CALIFORNIA, AUSTRIA = "+43900123456", "+13105550123", "+436641234567"


@pytest.fixture
def create(tenant: Tenant, accept: Perform, apply: Apply) -> Callable[..., Attempt]:
    """Create an interview as a client does, and return its attempt."""

    def created(number: str | None = None, zone: str | None = None, **request: Any) -> Attempt:
        candidate = NewCandidate(
            first_name="Ada", last_name="Byron", phone_number=number or a_number(), timezone=zone, gdpr_expiry_date=FAR
        )
        apply.command(accept(CreateInterview(agent_id=tenant.agent_id, candidate=candidate, **request)).id)
        [[attempt_id]] = tenant.ask("SELECT id FROM attempts")
        return tenant.attempt(attempt_id)

    return created


# ---- values of a schedule


@pytest.mark.parametrize(
    ("number", "zone", "requested", "stored"),
    [
        pytest.param(None, None, None, NumberFacts(country="SK"), id="zones of the clock"),
        pytest.param(CALIFORNIA, "Europe/Bratislava", None, NumberFacts(country="US"), id="the candidate's zone"),
        pytest.param(
            None, None, "2026-04-03T12:00:00[Europe/Bratislava]", NumberFacts(country="SK"), id="a requested zone"
        ),
        pytest.param(
            CALIFORNIA,
            None,
            "2026-04-03T12:00:00+02:00",
            NumberFacts(country="US", zones=("America/Los_Angeles",)),
            id="a requested offset",
        ),
    ],
)
def test_schedule_stores_only_what_its_clock_lacks(
    create: Callable[..., Attempt],
    explain: Explain,
    number: str | None,
    zone: str | None,
    requested: str | None,
    stored: NumberFacts,
) -> None:
    attempt = create(number, zone, **({} if requested is None else {"scheduled_at": requested}))
    assert attempt.schedule.number == stored
    explain.explanation_of(attempt.id)


def test_facts_of_most_numbers_take_one_key(tenant: Tenant, create: Callable[..., Attempt]) -> None:
    attempt = create()
    [[keys]] = tenant.ask(
        "SELECT array(SELECT jsonb_object_keys(schedule) ORDER BY 1) FROM attempts WHERE id = :id", id=attempt.id
    )
    assert keys == ["country", "due_at", "offset_s", "requested", "source", "tzdata_version", "zones"]
    [[answer]] = tenant.ask("SELECT coalesce(answer::text, '') FROM inbox")
    assert "country" not in answer


# ---- explanations


def test_number_of_a_country_that_is_not_allowed_any_longer(
    tenant: Tenant, explain: Explain, create: Callable[..., Attempt], records: ApiWriter
) -> None:
    attempt = create()
    records.change_settings(tenant.principal, CompanySettings(allowed_countries=frozenset({"AT"})))
    assert rules(explain, attempt) == [Rule.NUMBER_NOT_ALLOWED]
    records.recompute()
    assert rules(explain, attempt) == [Rule.NUMBER_NOT_ALLOWED]


@pytest.mark.parametrize(
    ("number", "blocking"),
    [
        pytest.param(AUSTRIA, [], id="another country"),
        pytest.param(CALIFORNIA, [Rule.NOT_DUE, Rule.WINDOW_CLOSED], id="another zone"),
        pytest.param(None, [Rule.NUMBER_MISSING, Rule.TIMEZONE_UNKNOWN], id="none"),
    ],
)
def test_changed_number_is_explained(
    tenant: Tenant,
    explain: Explain,
    create: Callable[..., Attempt],
    records: ApiWriter,
    number: str | None,
    blocking: list[Rule],
) -> None:
    attempt = create()
    tenant.change("UPDATE candidates SET email = 'ada@example.com'")
    records.change_reach(tenant.principal, candidate_of(tenant, attempt), Reach(phone_number=number, timezone=None))
    records.recompute()
    assert rules(explain, attempt) == blocking


def test_number_that_is_never_called_is_explained(
    tenant: Tenant, explain: Explain, create: Callable[..., Attempt], records: ApiWriter
) -> None:
    attempt = create()
    tenant.change("UPDATE candidates SET phone_number = :number", number=PREMIUM)
    records.change_settings(tenant.principal, CompanySettings(timezone="Europe/Vienna"))
    records.recompute()
    [block] = explain.explanation_of(attempt.id).blocks
    assert block.rule is Rule.NUMBER_NOT_ALLOWED
    assert "premium-rate" in block.detail


def test_own_clock_of_an_offset_is_explained(
    tenant: Tenant, explain: Explain, create: Callable[..., Attempt], records: ApiWriter, now: TestClock
) -> None:
    """The candidate's zone decides next to the offset, and after its removal the zone of the number."""
    attempt = create(CALIFORNIA, "Europe/Bratislava", scheduled_at="2026-04-02T14:00:00+02:00")
    now.move(timedelta(hours=24))
    assert rules(explain, attempt) == []
    records.change_reach(tenant.principal, candidate_of(tenant, attempt), Reach(phone_number=CALIFORNIA, timezone=None))
    assert rules(explain, attempt) == [Rule.WINDOW_CLOSED]
    records.recompute()
    assert Rule.WINDOW_CLOSED in rules(explain, attempt)


def test_removed_zone_of_a_candidate_is_explained(
    tenant: Tenant, explain: Explain, create: Callable[..., Attempt], records: ApiWriter
) -> None:
    attempt = create(CALIFORNIA, "Europe/Bratislava")
    records.change_reach(tenant.principal, candidate_of(tenant, attempt), Reach(phone_number=CALIFORNIA, timezone=None))
    records.recompute()
    assert rules(explain, attempt) == [Rule.NOT_DUE, Rule.WINDOW_CLOSED]


@pytest.mark.parametrize("of_caller", [True, False], ids=["of the caller", "of the country"])
def test_backoff_is_explained(tenant: Tenant, explain: Explain, now: TestClock, *, of_caller: bool) -> None:
    attempt = a_pending_attempt(tenant)
    tenant.change("UPDATE lines SET country = 'SK'")
    [[caller]] = tenant.ask("SELECT caller_number FROM interviews")
    for held in (caller, "+4312345678"):
        scope = {"caller": held} if of_caller else {"country": "SK" if held == caller else "AT"}
        a_backoff(tenant, down_until=now() + timedelta(minutes=5 if held == caller else 60), **scope)
    [block] = explain.explanation_of(attempt.id).blocks
    assert block.rule is (Rule.CARRIER_FAILS_CALLER if of_caller else Rule.CARRIER_REFUSES_COUNTRY)
    assert block.until == now() + timedelta(minutes=5)


@pytest.mark.parametrize("country", [None, "SK", "AT"])
def test_attempt_of_the_previous_version_is_explained(
    tenant: Tenant, operators_database: Database, country: str | None
) -> None:
    """The country is that of its line, once a worker has determined it. Until then no country is refused."""
    attempt = a_pending_attempt(tenant)
    tenant.change("UPDATE attempts SET schedule = schedule - 'country'")
    tenant.change("UPDATE lines SET country = :country", country=country)
    tenant.change("""UPDATE companies SET settings = settings || '{"allowedCountries": ["SK"]}'""")
    console = Explain(replace(tenant.context, database=operators_database))
    assert rules(console, attempt) == ([Rule.NUMBER_NOT_ALLOWED] if country == "AT" else [])


def test_console_learns_no_digit_from_the_function(tenant: Tenant, operators_database: Database) -> None:
    attempt = a_pending_attempt(tenant)
    with operators_database.reading() as stores:
        found = stores.connection.execute(text("SELECT * FROM numbers_of_interview(:id)"), {"id": attempt.interview_id})
        assert tuple(found.one()) == (True, [])
    statements = ("SELECT phone_number FROM candidates", "SELECT called_number FROM attempts")
    for statement in statements:
        with pytest.raises(ProgrammingError, match="permission denied"), operators_database.reading() as stores:
            stores.connection.execute(text(statement))
