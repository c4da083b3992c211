"""Work for operators, with rows whose bodies contain personal data."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from scheduler.domain.alarm import RaisedAlarm, key_of
from scheduler.domain.attempt import Attempt
from scheduler.domain.command import Command
from tests.conftest import real_now
from tests.support.builders import (
    Tenant,
    a_number,
    a_quarantined_callback,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
)

_FAILED = "failures = 5, quarantined_at = :at, first_failed_at = :first, failed_with = 'KeyError at x.py:7'"


def a_failed_command(tenant: Tenant, interview_id: UUID | None = None, **body: object) -> Command:
    command = a_waiting_command(tenant, interview_id, {"phone": a_number(), **body})
    at = tenant.now()
    tenant.change(f"UPDATE inbox SET {_FAILED} WHERE id = :id", id=command.id, at=at, first=at - timedelta(minutes=7))
    return command


def a_failed_callback(tenant: Tenant, attempt: Attempt) -> UUID:
    event_id = a_quarantined_callback(tenant, str(attempt.token))
    values = {"id": event_id, "at": tenant.now(), "raw": '{"To": "+421915000000"}'}
    tenant.change(f"UPDATE carrier_events SET raw = :raw, {_FAILED} WHERE id = :id", **values, first=values["at"])
    return event_id


def work_pages(tenant: Tenant, placed: Attempt) -> Sequence[str]:
    """The pages of work for operators, with rows whose bodies contain personal data, and the forms of their acts."""
    unknown = an_attempt_of_unknown_outcome(tenant)
    command = a_failed_command(tenant, placed.interview_id, text="Canarios", attempt_id=str(placed.id))
    callback = a_failed_callback(tenant, placed)
    tenant.change('UPDATE carrier_events SET raw = raw || \'{"name": "Canarios"}\'')
    key = key_of("CAUSE_LOST", {"attempt_id": unknown.id, "company_id": tenant.company_id})
    with tenant.database.transaction() as stores:
        now = stores.instant(real_now)
        stores.alarms.raise_all([RaisedAlarm(key=key, first_seen_at=now, last_seen_at=now)], now)
        stores.erasures.ask(tenant.company_id, now)
        [alarm] = stores.alarms.open(1)
    return (
        *("/unknown", "/quarantine", "/alarms", "/erasures", f"/erasures/{tenant.company_id}", "/audit"),
        f"/acts/decide-outcome?attempt={unknown.id}",
        *(f"/acts/{act}-quarantined?id={each}" for act in ("retry", "drop") for each in (command.id, callback)),
        *(f"/acts/acknowledge-alarms?{each}" for each in (f"alarm={alarm.id}", "kind=CAUSE_LOST")),
    )
