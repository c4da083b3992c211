"""The time that a person named obeys each rule of a requested time (F2), on the clock of the callee.

Two judges: the same text in an invoke, and `whenever`, which shares no code with the product.
"""

import json
import random
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import whenever

from scheduler.domain.attempt import Attempt
from scheduler.domain.command import InvokeAttempt, Refusal, RescheduleAttempt
from scheduler.domain.company import RetryPolicy
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.architecture.sources import ROOT
from tests.conftest import TestClock, seed
from tests.support.builders import (
    ALWAYS,
    RecordingHints,
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_voice_key,
    of_company,
)
from tests.timing.test_windows_by_brute_force import MINUTES_A_DAY, Hours, first_by_walking, hours
from tests.use_cases.conftest import answered, end, performing
from tests.use_cases.conversations.conftest import CALL_BACK, pending_of, refusal_of, report

pytestmark = pytest.mark.usefixtures("zones_of_the_wheel")

WEEKDAYS, EVERY_DAY = range(5), range(7)
OFFICE = hours([(WEEKDAYS, 9 * 60, 210), (WEEKDAYS, 14 * 60, 240)])
NIGHT = hours([(EVERY_DAY, 22 * 60, 6 * 60)])
"""From ten in the evening to four in the morning, so that each change of offset is open."""
ALL_DAY = hours([(EVERY_DAY, 0, MINUTES_A_DAY)])
CHANGES = {
    # zone: the day of a change of its offset
    "Europe/Bratislava": date(2026, 3, 29),
    "Europe/London": date(2026, 10, 25),
    "America/New_York": date(2026, 11, 1),
    "America/Santiago": date(2026, 9, 6),
    "Australia/Lord_Howe": date(2026, 10, 4),
    "Africa/Casablanca": date(2026, 2, 15),
    "Asia/Kathmandu": date(2026, 6, 1),
}
CASES = 4
"""Named times for each zone and hours."""


class Talks:
    """Conversations of a company whose people ask to be called back."""

    def __init__(self, company: Tenant, timezone: str | None) -> None:
        self._company = company
        self._timezone = timezone
        a_voice_key(company)
        hints = RecordingHints()
        submit = Submit(company.database, hints, company.now)
        self._perform = performing(company, submit, Apply(company.context, hints))

    def attempt(self) -> Attempt:
        """A call that a person with the company's time zone has answered."""
        return answered(self._company, self._of_zone(a_placed_attempt(self._company, a_number())))

    def report(self, attempt: Attempt, text: str) -> Refusal | None:
        return report(self._perform, attempt, CALL_BACK, text)

    def called_back(self, attempt: Attempt) -> Attempt:
        """End the call, and return the attempt that follows."""
        end(self._company, attempt)
        return self._pending(attempt)

    def invoked(self, text: str) -> Refusal | Attempt:
        """Ask for the same time as a client does."""
        pending = self._of_zone(a_pending_attempt(self._company, a_number()))
        invoke = InvokeAttempt(interview_id=pending.interview_id, scheduled_at=text)
        return refusal_of(self._perform(invoke)) or self._pending(pending)

    def moved(self, attempt: Attempt, text: str) -> Refusal | None:
        """Ask to move the attempt, as a client does."""
        move = RescheduleAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id, scheduled_at=text)
        return refusal_of(self._perform(move))

    def live_in(self, zone: str) -> None:
        """Let each person of the company have this zone from now on."""
        self._company.change("UPDATE candidates SET timezone = :zone", zone=zone)

    def _pending(self, attempt: Attempt) -> Attempt:
        [pending] = pending_of(self._company, attempt)
        return pending

    def _of_zone(self, attempt: Attempt) -> Attempt:
        self._company.change(
            "UPDATE candidates SET timezone = :zone WHERE id = (SELECT candidate_id FROM interviews WHERE id = :id)",
            zone=self._timezone,
            id=attempt.interview_id,
        )
        return attempt


def talks(tenant: Tenant, timezone: str | None = None, **settings: Any) -> Talks:
    settings = {"retry_policy": RetryPolicy(max_retries=0), "intervals": ALWAYS, **settings}
    return Talks(of_company(tenant, seed(tenant.database, tenant.now(), **settings)), timezone)


# ---- judged by another implementation


def walls(day: date, dice: random.Random) -> list[datetime]:
    """Named times: in the hours of a change of offset, at edges of calling hours, and anywhere within four weeks."""
    near = datetime.combine(day, datetime.min.time())
    return [
        *(near + timedelta(minutes=dice.randrange(0, 4 * 60)) for _ in range(CASES // 2)),
        *(near + timedelta(days=dice.randrange(20), minutes=dice.choice(_EDGES)) for _ in range(CASES // 4)),
        *(near + timedelta(minutes=dice.randrange(20 * MINUTES_A_DAY)) for _ in range(CASES // 4)),
    ]


_EDGES = [
    *(22 * 60, 22 * 60 - 1, 4 * 60 - 1, 4 * 60 - 2, 4 * 60),
    *(9 * 60, 9 * 60 - 1, 12 * 60 + 29, 12 * 60 + 28, 18 * 60 - 1, 18 * 60),
]


@pytest.mark.parametrize("open_hours", [OFFICE, NIGHT, ALL_DAY], ids=["office", "night", "all day"])
@pytest.mark.parametrize("zone", CHANGES)
def test_call_back_is_at_the_instant_on_the_callees_clock(
    tenant: Tenant, now: TestClock, zone: str, open_hours: Hours
) -> None:
    """A time that the clock skips moves by the gap, and a time that it shows twice is the first (F2-10)."""
    now.instant = datetime.combine(CHANGES[zone] - timedelta(days=1), datetime.min.time(), tzinfo=UTC)
    conversations = talks(tenant, zone, intervals=open_hours.intervals)
    room = tenant.policy.room
    for wall in walls(CHANGES[zone], random.Random(zone)):
        at = _instant(wall, zone)
        first = first_by_walking([zone], open_hours.open_minutes, at, room)
        attempt = conversations.attempt()
        refusal = conversations.report(attempt, wall.isoformat())
        assert (refusal is None) == (first == at), wall
        if refusal is not None:
            assert (refusal.code, refusal.details["nextAllowedAt"]) == ("OUTSIDE_CALL_TIME_INTERVAL", _text(first))
            assert conversations.report(attempt, refusal.details["nextAllowedScheduledAt"]) is None
        assert conversations.called_back(attempt).due_at == first, wall


def _instant(wall: datetime, zone: str) -> datetime:
    plain = whenever.PlainDateTime(wall.year, wall.month, wall.day, wall.hour, wall.minute)
    return datetime.fromtimestamp(plain.assume_tz(zone, disambiguation="compatible").timestamp(), UTC)


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


# ---- the same as in an invoke


TEXTS = (
    "2026-04-03T18:00:00",
    "2026-04-03T18:00:00Z",
    "2026-04-03T18:00:00+02:00",
    "2026-04-03T18:00:00+05:30",
    "2026-04-03T08:30:00+10:30",
    "2026-04-03T18:00:00[Asia/Kolkata]",
    "2026-04-03T18:00:00+03:00[Europe/Bratislava]",
    "2026-04-04T10:00:00",
    "2026-04-05T10:00:00",
    "2026-04-03T17:59:59",
    "2026-04-03T17:59:20",
    "2026-04-03T03:00:00",
    "2026-05-02T13:59:59",
    "2026-05-02T14:00:01",
    "2026-12-24T10:00:00",
    "2026-04-31T10:00:00",
    "tomorrow",
)
OFFICE_DAYS = {"intervals": OFFICE.intervals}
SETTINGS: dict[str, dict[str, Any]] = {
    "always": {},
    "office hours": OFFICE_DAYS,
    "an offset must match": {"offset_must_match_number": True},
    "another zone of the candidate": {"timezone": "Asia/Tokyo", **OFFICE_DAYS},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_named_time_is_decided_as_a_requested_time(tenant: Tenant, settings: dict[str, Any]) -> None:
    conversations = talks(tenant, settings.get("timezone"), **{k: v for k, v in settings.items() if k != "timezone"})
    refused = set()
    for text in TEXTS:
        attempt = conversations.attempt()
        refusal, invoked = conversations.report(attempt, text), conversations.invoked(text)
        if isinstance(invoked, Attempt):
            assert refusal is None, text
            back = conversations.called_back(attempt)
            assert (back.due_at, back.warnings) == (invoked.due_at, invoked.warnings), text
            assert (back.schedule.clock, back.schedule.requested) == (invoked.schedule.clock, text)
        else:
            assert refusal is not None, text
            message = invoked.message.replace("scheduledAt", "callBackAt")
            told = refusal.message
            if re.search(r"[+-]\d\d:\d\d$", text):  # the next allowed time of an offset is tested below
                message, told = (each.partition(" The next allowed time")[0] for each in (message, told))
            assert (refusal.code, told) == (invoked.code, message), text
            refused.add(refusal.code)
    assert {"INVALID_DATE_FORMAT", "SCHEDULE_TOO_FAR"} <= refused
    document = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    answers = document["paths"]["/call-attempts/by-token/{token}/outcome"]["post"]["responses"]
    assert refused <= set(answers["400"]["content"]["application/json"]["examples"])


# ---- refusals name a possible time


PAST = "SCHEDULE_IN_PAST"
TOO_FAR = "SCHEDULE_TOO_FAR"


@pytest.mark.parametrize(
    ("code", "settings", "text", "allowed"),
    [
        pytest.param(PAST, {}, "2026-04-02T13:59:30", "2026-04-02T14:01:01", id="half a minute ago"),
        pytest.param(PAST, {}, "2026-04-02T09:00:00", "2026-04-02T14:01:01", id="now, on the callee's clock"),
        pytest.param(PAST, {}, "2026-04-02T09:00:00+05:30", "2026-04-02T17:31:01+05:30", id="now, at the offset"),
        pytest.param(
            PAST, OFFICE_DAYS, "2026-04-01T09:00:00[Asia/Tokyo]", "2026-04-03T09:00:00[Asia/Tokyo]", id="tomorrow"
        ),
        pytest.param(TOO_FAR, {}, "2026-12-24T10:00:00", "2026-05-01T14:00:01", id="any hour"),
        pytest.param(TOO_FAR, {}, "2026-12-24T10:00:00+05:30", "2026-05-01T17:30:01+05:30", id="at the offset"),
        pytest.param(
            TOO_FAR, OFFICE_DAYS, "2026-12-24T10:00:00[Asia/Tokyo]", "2026-05-01T09:00:00[Asia/Tokyo]", id="open"
        ),
    ],
)
def test_past_or_far_time_is_refused_with_an_allowed_one(
    tenant: Tenant, code: str, settings: dict[str, Any], text: str, allowed: str
) -> None:
    conversations = talks(tenant, **settings)
    attempt = conversations.attempt()
    refusal = conversations.report(attempt, text)
    assert refusal is not None
    assert (refusal.code, refusal.details["nextAllowedScheduledAt"]) == (code, allowed)
    assert conversations.report(attempt, allowed) is None


def test_time_after_the_consent_is_refused_with_an_earlier_one(tenant: Tenant) -> None:
    conversations = talks(tenant, intervals=OFFICE.intervals)
    attempt = conversations.attempt()
    tenant.change("UPDATE candidates SET gdpr_expiry_date = '2026-04-07'")
    refusal = conversations.report(attempt, "2026-04-15T10:00:00")
    assert refusal is not None
    allowed = refusal.details["nextAllowedScheduledAt"]
    assert (refusal.code, allowed) == ("CONSENT_EXPIRED", "2026-04-07T14:00:01")
    assert conversations.report(attempt, allowed) is None


@pytest.mark.parametrize(
    ("hours", "allowed"),
    [(30, "2026-04-02T20:01:01"), (1, "2026-04-02T14:01:01"), (0, None)],
    ids=["tomorrow", "in an hour", "now"],
)
def test_time_after_the_expiry_is_refused_with_an_earlier_one(tenant: Tenant, hours: int, allowed: str | None) -> None:
    """Without one, no call is possible before the interview expires."""
    conversations = talks(tenant)
    attempt = conversations.attempt()
    expires_at = tenant.now() + timedelta(hours=hours, minutes=1)
    tenant.change("UPDATE interviews SET expires_by_default = false, expires_at = :at", at=expires_at)
    refusal = conversations.report(attempt, "2026-04-15T10:00:00")
    assert refusal is not None
    assert (refusal.code, refusal.details["nextAllowedScheduledAt"]) == ("NO_OPENING_BEFORE_EXPIRY", allowed)
    if allowed is not None:
        assert conversations.report(attempt, allowed) is None


def test_call_that_lasts_too_long_is_followed_at_once(tenant: Tenant, now: TestClock) -> None:
    conversations = talks(tenant)
    attempt = conversations.attempt()
    assert conversations.report(attempt, "2026-04-02T14:02:00") is None
    now.move(timedelta(minutes=5))
    assert conversations.called_back(attempt).due_at == now()


# ---- an offset does not open the callee's own night


BY_DAY: dict[str, Any] = {"intervals": hours([(EVERY_DAY, 8 * 60, 12 * 60)]).intervals}


@guards("named_own_clock")
@pytest.mark.parametrize(
    ("timezone", "source"), [(None, "PHONE_NUMBER"), ("Europe/Vienna", "CANDIDATE")], ids=["number", "candidate"]
)
def test_named_offset_is_refused_in_the_callees_night(tenant: Tenant, timezone: str | None, source: str) -> None:
    conversations = talks(tenant, timezone, **BY_DAY)
    attempt = conversations.attempt()
    refusal = conversations.report(attempt, "2026-04-03T08:00:00+05:00")
    assert refusal is not None
    details = {key: refusal.details[key] for key in ("reason", "localTime", "timezone", "timezoneSource")}
    assert (refusal.code, details) == (
        "OUTSIDE_CALL_TIME_INTERVAL",
        {
            "reason": "CLOSED",
            "localTime": "2026-04-03T05:00:00",
            "timezone": timezone or "Europe/Bratislava",
            "timezoneSource": source,
        },
    )
    assert refusal.details["nextAllowedScheduledAt"] == "2026-04-03T11:00:00+05:00"
    assert conversations.report(attempt, refusal.details["nextAllowedScheduledAt"]) is None
    assert conversations.called_back(attempt).due_at == datetime(2026, 4, 3, 6, tzinfo=UTC)


@guards("named_own_clock")
def test_past_offset_is_refused_with_one_in_the_callees_day(tenant: Tenant, now: TestClock) -> None:
    """It is ten in the evening there, and three in the afternoon at the offset."""
    now.instant = datetime(2026, 4, 2, 20, tzinfo=UTC)
    conversations = talks(tenant, **BY_DAY)
    attempt = conversations.attempt()
    refusal = conversations.report(attempt, "2026-04-02T10:00:00-05:00")
    assert refusal is not None
    assert (refusal.code, refusal.details["nextAllowedScheduledAt"]) == (PAST, "2026-04-03T08:00:00-05:00")
    assert conversations.report(attempt, "2026-04-02T16:00:00-05:00") is not None


@guards("own_clock_when_called_back", "call_back_clock")
def test_named_offset_waits_for_the_day_of_a_later_zone(tenant: Tenant) -> None:
    conversations = talks(tenant, **BY_DAY)
    attempt = conversations.attempt()
    assert conversations.report(attempt, "2026-04-03T12:00:00+05:00") is None
    conversations.live_in("America/New_York")
    assert conversations.called_back(attempt).due_at == datetime(2026, 4, 3, 12, tzinfo=UTC)


@guards("named_own_clock")
def test_call_back_is_not_moved_into_the_callees_night(tenant: Tenant) -> None:
    conversations = talks(tenant, **BY_DAY)
    attempt = conversations.attempt()
    assert conversations.report(attempt, "2026-04-03T18:00:00") is None
    called_back = conversations.called_back(attempt)
    refusal = conversations.moved(called_back, "2026-04-03T08:00:00+05:00")
    assert refusal is not None
    assert refusal.code == "OUTSIDE_CALL_TIME_INTERVAL"
    assert conversations.moved(called_back, refusal.details["nextAllowedScheduledAt"]) is None
