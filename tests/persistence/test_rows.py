"""Rows and dataclasses: columns are read and written by the names of the fields."""

from dataclasses import dataclass

import pytest
from sqlalchemy import text

from scheduler.domain.attempt import AttemptState, Phase
from scheduler.domain.call import CallProgress
from scheduler.persistence.database import Database
from scheduler.persistence.rows import AnyRow, as_columns, from_row


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
