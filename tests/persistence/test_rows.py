"""Rows and dataclasses: columns are read and written by the names of the fields. JSON columns are parsed as written."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from scheduler.domain.attempt import AttemptState, Phase
from scheduler.domain.call import CallProgress, NumberFacts
from scheduler.domain.company import CallLimits, CompanySettings
from scheduler.persistence.database import Database
from scheduler.persistence.json_columns import schedule_as_json, schedule_from_json
from scheduler.persistence.rows import AnyRow, as_columns, from_row
from tests.conftest import NOON, Seeded
from tests.support.builders import a_schedule


@dataclass(frozen=True, kw_only=True)
class Call:
    state: AttemptState
    phase: Phase | None = None
    rank: CallProgress
    zones: tuple[str, ...]


RINGING = Call(state=AttemptState.PENDING, phase=None, rank=CallProgress.RINGING, zones=("Europe/Paris",))


def row_of(database: Database, columns: str) -> AnyRow:
    with database.reading() as stores:
        return stores.connection.execute(text(f"SELECT {columns}")).one()


@pytest.mark.parametrize("prefix", ["", "last_"])
def test_row_is_read_by_the_names_of_the_fields(database: Database, prefix: str) -> None:
    row = row_of(database, f"'PENDING' AS {prefix}state, NULL AS {prefix}phase, 2 AS {prefix}rank, 1 AS id")
    assert from_row(Call, row, prefix, zones=("Europe/Paris",)) == RINGING


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        pytest.param("'PENDING' AS state, 2 AS rank", AttributeError, id="no column of a field with a default"),
        pytest.param("'LATER' AS state, NULL AS phase, 2 AS rank", ValueError, id="an unknown state"),
    ],
)
def test_row_that_does_not_fit_is_an_error(database: Database, columns: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        from_row(Call, row_of(database, columns), zones=())


def test_fields_are_written_as_values_of_columns() -> None:
    columns = as_columns(RINGING, without={"rank"}, zones=["Europe/Paris"], id=1)
    assert columns == {"state": "PENDING", "phase": None, "zones": ["Europe/Paris"], "id": 1}
    assert type(columns["state"]) is str


# --- JSON columns: settings are parsed once for the same contents and never out of date


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
