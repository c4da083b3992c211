"""Keyed hashes of the settings that belong to a database, by the names of the settings."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import Insert, insert

from scheduler.domain.attempt import AttemptState
from scheduler.persistence.connection import Fixed
from scheduler.persistence.store import Store
from scheduler.persistence.tables import installation_marks

_ALL = Fixed(select(installation_marks.c.setting, installation_marks.c.mark))
_IN_USE = text("""
    SELECT EXISTS (SELECT FROM attempts WHERE state = ANY(:live))
        OR EXISTS (SELECT FROM lines WHERE attempt_id IS NOT NULL OR free_at > :now)
""")
_LIVE = [AttemptState.PENDING.value, AttemptState.IN_PROGRESS.value]


class Marks(Store):
    def all(self) -> Mapping[str, bytes]:
        return {row.setting: bytes(row.mark) for row in self._connection.execute(_ALL)}

    def add(self, marks: Mapping[str, bytes], now: datetime) -> None:
        """Write marks, except of settings that have one."""
        self._connection.execute(_insert(marks, now).on_conflict_do_nothing())

    def replace(self, marks: Mapping[str, bytes], now: datetime) -> None:
        statement = _insert(marks, now)
        new = {"mark": statement.excluded.mark, "since": statement.excluded.since}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["setting"], set_=new))

    def lines_in_use(self, now: datetime) -> bool:
        """Return whether a call is pending or in progress, or a line waits for its gap."""
        return bool(self._connection.execute(_IN_USE, {"live": _LIVE, "now": now}).scalar_one())


def _insert(marks: Mapping[str, bytes], now: datetime) -> Insert:
    return insert(installation_marks).values(
        [{"setting": setting, "mark": mark, "since": now} for setting, mark in marks.items()]
    )
