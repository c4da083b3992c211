"""Counts the statements that a database receives from this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from scheduler.persistence.database import Database


@contextmanager
def statements_of(database: Database) -> Iterator[list[str]]:
    """Collect the statements of the block, also the ones that begin transactions. Many sets of values count each."""
    sent: list[str] = []

    def note(*seen: Any) -> None:
        statement, values, is_for_many = seen[2], seen[3], seen[5]
        sent.extend([statement] * (len(values) if is_for_many else 1))

    event.listen(database._engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database._engine, "before_cursor_execute", note)
