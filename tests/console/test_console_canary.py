"""Personal data that is stored appears on no page, in no event and in no log line of the console."""

import logging

import httpx
import pytest
from sqlalchemy import text

from scheduler.domain.principal import KeyKind, OperatorRole
from scheduler.use_cases.resources.keys import Keys
from tests.conftest import real_now
from tests.console.conftest import Console
from tests.console.partners import CANARIES, partner_pages
from tests.console.test_console_now import events
from tests.console.work import work_pages
from tests.support.builders import (
    Tenant,
    a_pending_attempt,
    a_placed_attempt,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
)

OK = 200
PATHS = (
    *("/", "/calendar", "/acts/pause-everything", "/acts/resume-everything", "/sign-in", "/nowhere"),
    *("/attempts", "/attempts?state=pending", "/attempts?state=in-progress", "/acts/cancel-attempts?state=due"),
)


def test_stored_personal_data_is_shown_nowhere(
    console: Console, tenant: Tenant, operator: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, secret = Keys(console.database, tenant.hasher, real_now).create(
        kind=KeyKind.REGULAR, name="night shift", company_id=tenant.company_id
    )
    a_waiting_command(tenant, None, {"text": "Canarios"})
    attempts = [an_attempt_of_unknown_outcome(tenant), a_placed_attempt(tenant), a_pending_attempt(tenant)]
    of_work = (*partner_pages(tenant), *work_pages(tenant, attempts[1]))
    with console.database.transaction() as stores:
        stores.connection.execute(
            text("UPDATE companies SET metadata = :it, profile = :it"), {"it": '{"x": "Canarina"}'}
        )
        stores.connection.execute(text("UPDATE phone_numbers SET location = 'Canarella'"))
        stores.connection.execute(text("UPDATE candidates SET first_name = 'Canaria', last_name = 'Canarius'"))
        rows = stores.connection.execute(text("SELECT first_name, last_name, email, phone_number FROM candidates"))
        canaries = {value for row in rows for value in tuple(row) if value}
    assert {"Canaria", "Canarius"} < canaries
    canaries |= CANARIES | {"Canarios", "Canarina", "Canarella", tenant.caller, secret}
    of_company, of_key = f"company={tenant.company_id}", f"key={key.key_id}"
    paths = (
        *PATHS,
        *of_work,
        *("/find", *(f"/attempts/{each.id}" for each in attempts)),
        *("/companies", f"/companies/{tenant.company_id}", "/keys", f"/keys/{key.key_id}"),
        *(f"/acts/{act}?{of_company}" for act in ("pause-company", "resume-company")),
        *(f"/acts/{act}?{of_key}" for act in ("suspend-key", "resume-key", "revoke-key")),
    )
    with console.signed_in(OperatorRole.ADMIN) as admin:
        answers = [admin.get(path) for path in paths]
    assert {each.url.path for each in answers if each.status_code != OK} == {"/nowhere"}
    shown = "".join(each.text for each in answers)
    for wanted in (*canaries, *(each.id for each in attempts)):
        shown += operator.post("/find", data={"wanted": str(wanted)}).text
    with events(operator) as stream:
        shown += "".join(html for _, html in (next(stream) for _ in range(6)))
    assert OperatorRole.OPERATOR.value in shown
    assert "console_answered" in caplog.text
    for canary in canaries:
        assert canary not in shown
        assert canary not in caplog.text
