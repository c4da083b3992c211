"""Settings are parsed once for the same contents and never out of date. Schedules are read as they were written."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from scheduler.domain.call import NumberFacts
from scheduler.domain.company import CallLimits, CompanySettings
from scheduler.persistence.database import Database
from scheduler.persistence.json_columns import schedule_as_json, schedule_from_json
from tests.conftest import NOON, Seeded
from tests.support.builders import a_schedule


def settings_in(database: Database, seeded: Seeded) -> CompanySettings:
    with database.reading() as stores:
        company = stores.companies.get(seeded.company_id)
    assert company is not None
    return company.settings


def change(database: Database, seeded: Seeded, assignment: str) -> None:
    with database.transaction() as stores:
        stores.connection.execute(text(f"UPDATE companies SET {assignment} WHERE id = :id"), {"id": seeded.company_id})


def test_unchanged_settings_are_parsed_once(database: Database, seeded: Seeded) -> None:
    assert settings_in(database, seeded) is settings_in(database, seeded)


@pytest.mark.parametrize(
    "assignment",
    [
        pytest.param("""settings = settings || '{"timezone": "Europe/Paris"}'""", id="in the JSON"),
        pytest.param("""settings = settings || '{"machineDetection": false}'""", id="a flag"),
        pytest.param("calls_per_second = 0.5", id="the pace"),
        pytest.param("concurrent_calls = 7", id="the places"),
    ],
)
def test_changed_settings_are_seen_at_once(database: Database, seeded: Seeded, assignment: str) -> None:
    before = settings_in(database, seeded)
    change(database, seeded, assignment)
    assert settings_in(database, seeded) != before


def test_changed_limits_have_the_columns_values(database: Database, seeded: Seeded) -> None:
    settings_in(database, seeded)
    change(database, seeded, "calls_per_second = 0.5, concurrent_calls = 7")
    assert settings_in(database, seeded).limits == CallLimits(concurrent_calls=7, calls_per_second=0.5)


def test_malformed_settings_fail_each_time(database: Database, seeded: Seeded) -> None:
    change(database, seeded, "settings = '{}'")
    for _ in range(2):
        with pytest.raises(KeyError):
            settings_in(database, seeded)


@pytest.mark.parametrize(("earlier", "is_stored"), [(timedelta(0), False), (timedelta(minutes=5), True)])
def test_earliest_time_is_stored_if_it_differs(earlier: timedelta, is_stored: bool) -> None:
    schedule = replace(a_schedule(NOON), earliest_at=NOON - earlier)
    form = schedule_as_json(schedule)
    assert ("earliest_at" in form) == is_stored
    assert schedule_from_json(form) == schedule


@pytest.mark.parametrize(
    ("number", "stored"),
    [
        (None, {}),
        (NumberFacts(country=None), {"country": None}),
        (NumberFacts(country="AT", zones=()), {"country": "AT", "number_zones": []}),
        (
            NumberFacts(country="AT", never_called="PREMIUM", zones=("Europe/Vienna",)),
            {"country": "AT", "never_called": "PREMIUM", "number_zones": ["Europe/Vienna"]},
        ),
    ],
)
def test_facts_about_a_number_are_stored_as_keys(number: NumberFacts | None, stored: dict[str, object]) -> None:
    form = schedule_as_json(replace(a_schedule(NOON), number=number))
    assert {key: form[key] for key in form.keys() - schedule_as_json(a_schedule(NOON)).keys()} == stored
    assert schedule_from_json(form).number == number
