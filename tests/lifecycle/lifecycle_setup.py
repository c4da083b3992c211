"""Values of the lifecycle's tests: daily hours, a callee with a Slovak number, and an attempt that is due at noon."""

from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.call import Schedule
from scheduler.domain.company import EVERY_DAY, CallTimeInterval, CompanySettings
from scheduler.lifecycle.scheduling import Callee
from scheduler.timing import callee_zones
from tests.conftest import NOON
from tests.support.builders import BRATISLAVA

SLOVAK = callee_zones.read_number("+421915123456")
OF_THE_COMPANY = ("intervals", "offset_must_match_number", "retry_policy")


def daily(start: str, end: str) -> tuple[CallTimeInterval, ...]:
    """Build daily hours between these wall times."""
    midnight = datetime.combine(NOON, time.min)
    opens, closes = (datetime.combine(NOON, time.fromisoformat(text)) - midnight for text in (start, end))
    return (CallTimeInterval(days=EVERY_DAY, start=opens, end=closes),)


def a_callee(**fields: Any) -> Callee:
    """Build a callee. Fields may be settings of the company, its zone as `company_zone`. It is open 08:00 to 20:00."""
    of_company = {name: fields.pop(name) for name in OF_THE_COMPANY if name in fields}
    settings = CompanySettings(**of_company, timezone=fields.pop("company_zone", None))
    usual = {"number": SLOVAK, "timezone": None, "consent_until": date(2027, 1, 1), "settings": settings}
    return Callee(**(usual | fields))


def pending(**fields: Any) -> Attempt:
    """Build a first attempt that was created and is due at noon."""
    usual: dict[str, Any] = {
        "id": UUID(int=1),
        "interview_id": UUID(int=2),
        "company_id": UUID(int=3),
        "chain_id": UUID(int=1),
        "retry_number": 0,
        "manual": True,
        "state": AttemptState.PENDING,
        "schedule": Schedule(requested=None, clock=BRATISLAVA, due_at=NOON, earliest_at=NOON, tzdata_version="2026f"),
        "due_at": NOON,
        "expires_at": NOON + timedelta(days=7),
        "created_at": NOON,
        "updated_at": NOON,
        "number_hash": b"hash",
    }
    return Attempt(**(usual | fields))
