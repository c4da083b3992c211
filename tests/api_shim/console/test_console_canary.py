"""Personal data that is stored appears on no page, in no event and in no log line of the console."""

import logging

import httpx
import pytest
from sqlalchemy import text

from scheduler.domain.operator import OperatorRole
from tests.api_shim.console.conftest import Console
from tests.api_shim.console.test_console_now import events
from tests.support.builders import Tenant, a_pending_attempt, a_placed_attempt

PATHS = ("/", "/acts/pause-everything", "/acts/resume-everything", "/sign-in", "/nowhere")


def test_stored_personal_data_is_shown_nowhere(
    console: Console, tenant: Tenant, operator: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    a_placed_attempt(tenant)
    a_pending_attempt(tenant)
    with console.database.transaction() as stores:
        stores.connection.execute(text("UPDATE candidates SET first_name = 'Canaria', last_name = 'Canarius'"))
        rows = stores.connection.execute(text("SELECT first_name, last_name, email, phone_number FROM candidates"))
        canaries = {value for row in rows for value in tuple(row) if value}
    assert {"Canaria", "Canarius"} < canaries
    shown = "".join(operator.get(path).text for path in PATHS)
    with events(operator) as stream:
        shown += "".join(html for _, html in (next(stream) for _ in range(6)))
    assert OperatorRole.OPERATOR.value in shown
    assert "console_answered" in caplog.text
    for canary in canaries:
        assert canary not in shown
        assert canary not in caplog.text
