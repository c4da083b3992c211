"""Statements of the dial worker and the clock are built once, and the driver itself executes them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from scheduler.domain.attempt import Attempt
from scheduler.domain.call import Accepted
from scheduler.persistence.database import Database
from scheduler.use_cases.release import Release
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_pending_attempt,
    a_sid,
    a_waiting_command,
)

Step = Callable[[Tenant, Attempt, Attempt], object]


def release_of(tenant: Tenant) -> Release:
    return Release(tenant.context, RecordingHints(), tenant.account_id)


def claim(tenant: Tenant, pending: Attempt, _: Attempt) -> object:
    return tenant.dial.claim([pending.id]).claimed


def look(tenant: Tenant, _: Attempt, claimed: Attempt) -> object:
    return tenant.dial.look_all([claimed]).rows


def record(tenant: Tenant, _: Attempt, claimed: Attempt) -> object:
    tenant.dial.record([(claimed, Accepted(call_sid=a_sid()))])
    return tenant.attempt(claimed.id).call_sid


def release(tenant: Tenant, _: Attempt, __: Attempt) -> object:
    return release_of(tenant).round(resends=True).released


def hint_sweep(tenant: Tenant, _: Attempt, __: Attempt) -> object:
    release_of(tenant).hint_sweep()
    return True


@contextmanager
def executed_by_sqlalchemy(database: Database) -> Iterator[list[str]]:
    """Collect the statements of the block that SQLAlchemy executes, except savepoints."""
    found: list[str] = []

    def note(*seen: Any) -> None:
        statement, context = seen[2], seen[4]
        if context is not None and "SAVEPOINT" not in statement:
            found.append(statement)

    event.listen(database._engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database._engine, "before_cursor_execute", note)


@pytest.mark.parametrize("step", [claim, look, record, release, hint_sweep])
def test_hot_statements_are_executed_by_the_driver(tenant: Tenant, step: Step) -> None:
    pending, claimed = a_pending_attempt(tenant), a_claimed_attempt(tenant)
    a_waiting_command(tenant, None)
    with executed_by_sqlalchemy(tenant.database) as found:
        assert step(tenant, pending, claimed)
    assert found == []
