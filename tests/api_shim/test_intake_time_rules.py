"""The rules F2 over HTTP: how times are read, which clock decides, and how calls outside the hours are handled."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx

from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.attempt import Attempt, Ended, Reason
from scheduler.domain.call import Accepted, CallOrder
from scheduler.use_cases.settle import Settle
from tests.api_shim.answers import data, refused
from tests.api_shim.bodies import EVERY_DAY, NUMBER, TOLL_FREE, TOMORROW, candidate
from tests.api_shim.calls import a_call, call_to
from tests.api_shim.intake import Intake, Worker
from tests.architecture.rules import does, does_not
from tests.support.builders import ApiWriter, RecordingHints, Tenant, a_sid
from tests.support.servers import SimulatedCarrier, a_closed_port

NOWHERE = "+80012345678"
"""A number of no particular country, so without time zones."""
ON_MOBILES = "+61412345678"
"""A mobile anywhere between Perth and Sydney; Lord Howe, Cocos and Christmas Island do not count."""
IN_PERTH_OR_ADELAIDE = "+61870701234"
ALWAYS = {"days": EVERY_DAY, "start": "00:00", "end": "24:00"}
CAIRO, SYDNEY = "Africa/Cairo", "Australia/Sydney"


def ask(intake: Intake, text: str | None = None, *, expires_at: str | None = None, **person: Any) -> httpx.Response:
    """Request a call to this person at this time. Now is Thursday 2 April 2026, 12:00 UTC."""
    times = {"scheduledAt": text, "expiresAt": expires_at}
    named = {name: value for name, value in times.items() if value is not None}
    return intake.create(intake.body(candidate=candidate(**person), **named))


def booked(answer: httpx.Response) -> dict[str, Any]:
    """The created attempt."""
    [attempt] = data(answer, 201)["callAttempts"]
    return dict(attempt)


def open_at(intake: Intake, *intervals: dict[str, Any]) -> None:
    assert intake.set_settings(callTimeIntervals=list(intervals)).status_code == 200


def shown(intake: Intake, attempt: dict[str, Any]) -> dict[str, Any]:
    """The attempt as it is now."""
    return dict(data(intake.get(call_to(attempt).attempt)))


def explained(intake: Intake, attempt: dict[str, Any]) -> dict[str, Any]:
    return dict(data(intake.get(call_to(attempt).explanation)))


def dialled(tenant: Tenant, attempt: dict[str, Any]) -> CallOrder | None:
    """Dial this attempt and return the order that would be sent, or None."""
    [claimed] = tenant.dial.claim([UUID(attempt["id"])]).claimed
    return tenant.dial.last_look(claimed.attempt)


# ---- F2-1: how a text is read

READ = [
    ("2026-04-03T09:00:00+02:00", "2026-04-03T07:00:00Z", "OFFSET", "+02:00"),
    ("2026-04-03T09:00:00+05:30", "2026-04-03T03:30:00Z", "OFFSET", "+05:30"),
    ("2026-04-03T07:00:00Z", "2026-04-03T07:00:00Z", "PHONE_NUMBER", "+02:00"),
    ("2026-04-03T09:00:00", "2026-04-03T07:00:00Z", "PHONE_NUMBER", "+02:00"),
    ("2026-04-03T09:00:00+10:30[Australia/Adelaide]", "2026-04-02T22:30:00Z", "ZONE", "+10:30"),
    ("2026-04-03T09:00[Australia/Adelaide]", "2026-04-02T22:30:00Z", "ZONE", "+10:30"),
]
"""Text, instant, source of the time zone and offset."""


@does("F2-1")
def test_each_form_of_a_time_is_read(intake: Intake, worker: Worker) -> None:
    for text, at, source, offset in READ:
        attempt = booked(ask(intake, text))
        schedule = attempt["schedule"]
        assert (attempt["scheduledAt"], schedule["requested"]) == (at, text)
        assert (schedule["timezoneSource"], schedule["utcOffset"]) == (source, offset), text


UNREADABLE = [
    ("tomorrow", 0, "year must be 4 digits, got 't'"),
    ("2026-13-03T09:00:00Z", 5, "month must be 1..12, got 13"),
    ("2026-04-03", 10, "a time of day is missing"),
    ("2026-04-03T09:00:00 02:00", 19, "expected Z, an offset"),
    ("2026-04-03T09:00:00+09:30[Australia/Adelaide]", 19, "Australia/Adelaide has +10:30 then, not +09:30"),
]


@does_not("F2-1")
def test_invalid_time_text_is_refused_with_reason_and_position(intake: Intake, worker: Worker) -> None:
    for text, position, reason in UNREADABLE:
        details = refused(ask(intake, text), 400, "INVALID_DATE_FORMAT")["details"]
        assert details["reason"].startswith(reason)
        shown = text[: position + 1] + ("…" if len(text) > position + 1 else "")
        assert details == {"field": "scheduledAt", "value": shown, "reason": details["reason"], "position": position}
    assert intake.is_untouched()


# ---- F2-2: the clock that decides

AT_NOON = "2026-04-03T12:00:00"
LONDON = {"timezone": "Europe/London"}
CLOCKS: list[tuple[str, dict[str, Any], str, str | None, str]] = [
    (f"{AT_NOON}+00:00", {"timezone": "Europe/Prague"}, "OFFSET", None, "+00:00"),
    (f"{AT_NOON}[Europe/Lisbon]", {"timezone": "Europe/Prague"}, "ZONE", "Europe/Lisbon", "+01:00"),
    (f"{AT_NOON}Z", LONDON, "CANDIDATE", "Europe/London", "+01:00"),
    (f"{AT_NOON}-00:00", LONDON, "CANDIDATE", "Europe/London", "+01:00"),
    (AT_NOON, LONDON, "CANDIDATE", "Europe/London", "+01:00"),
    (f"{AT_NOON}Z", {}, "PHONE_NUMBER", "Europe/Bratislava", "+02:00"),
    (AT_NOON, {}, "PHONE_NUMBER", "Europe/Bratislava", "+02:00"),
    (f"{AT_NOON}Z", {"phoneNumber": NOWHERE}, "COMPANY", "Europe/Athens", "+03:00"),
    (AT_NOON, {"phoneNumber": NOWHERE}, "COMPANY", "Europe/Athens", "+03:00"),
]
"""In the order in which the sources are asked. Each without an offset, and as an instant."""


@does("F2-2")
def test_first_source_of_a_time_zone_decides(intake: Intake, worker: Worker) -> None:
    assert intake.set_settings(timezone="Europe/Athens").status_code == 200
    for text, person, source, zone, offset in CLOCKS:
        attempt = booked(ask(intake, text, **person))
        schedule = attempt["schedule"]
        assert (schedule["timezoneSource"], schedule["timezone"], schedule["utcOffset"]) == (source, zone, offset), text
        is_instant = text.endswith(("Z", "-00:00"))
        noon = "12:00:00" if is_instant else f"{12 - int(offset[1:3]):02d}:00:00"
        assert attempt["scheduledAt"] == f"2026-04-03T{noon}Z", text


@does_not("F2-2")
def test_call_without_any_time_zone_is_refused(intake: Intake, worker: Worker) -> None:
    for text in (None, f"{AT_NOON}Z", AT_NOON):
        refused(ask(intake, text, phoneNumber=NOWHERE), 400, "TIMEZONE_UNKNOWN")
    refused(ask(intake, AT_NOON, phoneNumber=TOLL_FREE), 400, "TIMEZONE_AMBIGUOUS")
    assert intake.is_untouched()


@does_not("F2-2")
def test_call_whose_zone_becomes_unknown_is_held(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    assert intake.set_settings(timezone="Europe/Athens").status_code == 200
    attempt = booked(ask(intake, phoneNumber=NOWHERE))
    assert intake.set_settings(timezone=None).status_code == 200
    ApiWriter(tenant=tenant, hints=RecordingHints()).recompute()
    assert dialled(tenant, attempt) is None
    content = explained(intake, attempt)
    assert (content["status"], content["nextPossibleAt"]) == ("PENDING", None)
    assert "TIMEZONE_UNKNOWN" in [block["rule"] for block in content["blocks"]]


# ---- F2-3: an offset is used as it is


@does("F2-3")
def test_offset_decides_exactly_and_warns_if_the_number_differs(intake: Intake, worker: Worker) -> None:
    attempt = booked(ask(intake, "2026-04-03T08:00:00+05:30"))
    assert attempt["scheduledAt"] == "2026-04-03T02:30:00Z"
    assert attempt["warnings"] == ["OFFSET_DIFFERS_FROM_PHONE_NUMBER"]
    assert booked(ask(intake, "2026-04-03T09:00:00+02:00"))["warnings"] == [], "the number's own"


@does_not("F2-3")
def test_offset_is_refused_where_it_must_match_the_number(intake: Intake, worker: Worker) -> None:
    details = refused(ask(intake, "2026-04-03T07:59:00+05:30"), 400, "OUTSIDE_CALL_TIME_INTERVAL")["details"]
    assert (details["timezone"], details["nextAllowedAt"]) == ("+05:30", "2026-04-03T02:30:00Z")
    assert booked(ask(intake, details["nextAllowedScheduledAt"]))["scheduledAt"] == details["nextAllowedAt"]
    assert intake.set_settings(offsetMustMatchNumber=True).status_code == 200
    details = refused(ask(intake, "2026-04-03T08:00:00+05:30"), 400, "OFFSET_DIFFERS_FROM_PHONE_NUMBER")["details"]
    assert details == {"field": "scheduledAt", "zones": ["Europe/Bratislava"]}
    assert booked(ask(intake, "2026-04-03T09:00:00+02:00"))["schedule"]["timezoneSource"] == "OFFSET"


# ---- F2-4: numbers of several zones


@does("F2-4")
def test_a_number_of_several_zones_is_open_when_all_of_them_are(intake: Intake, worker: Worker) -> None:
    attempt = booked(ask(intake, phoneNumber=TOLL_FREE))
    at = datetime.fromisoformat(attempt["scheduledAt"])
    zones = attempt["schedule"]["timezone"].split(", ")
    assert len(zones) > 30
    assert all(time(8) <= at.astimezone(ZoneInfo(zone)).time() < time(20) for zone in zones)
    earlier = at - timedelta(seconds=1)
    assert any(earlier.astimezone(ZoneInfo(zone)).time() < time(8) for zone in zones)
    # From eight in Perth to eight in Sydney, half past eight on Lord Howe.
    for text in ("2026-04-03T00:00:00Z", "2026-04-03T08:59:00Z"):
        assert booked(ask(intake, text, phoneNumber=ON_MOBILES))["scheduledAt"] == text


@does_not("F2-4")
def test_number_is_closed_when_one_of_its_zones_is_closed(intake: Intake, worker: Worker) -> None:
    for text in ("2026-04-02T23:59:00Z", "2026-04-03T09:00:00Z"):
        details = refused(ask(intake, text, phoneNumber=ON_MOBILES), 400, "OUTSIDE_CALL_TIME_INTERVAL")["details"]
        assert "Australia/Perth, Australia/Sydney" in details["timezone"]
    open_at(intake, {"days": EVERY_DAY, "start": "09:00", "end": "11:00"})
    content = refused(ask(intake, phoneNumber=ON_MOBILES), 400, "NO_COMMON_OPENING")
    assert {"Australia/Perth", SYDNEY} <= set(content["details"]["zones"])
    assert not {"Australia/Lord_Howe", "Indian/Cocos", "Indian/Christmas"} & set(content["details"]["zones"])
    assert "timezone" in content["message"]
    assert booked(ask(intake, phoneNumber=ON_MOBILES, timezone=SYDNEY))["scheduledAt"] == "2026-04-02T22:00:00Z"


# ---- F2-5: intervals

SHIFTS = (
    {"days": ["FRI"], "start": "09:00", "end": "12:00"},
    {"days": ["FRI"], "start": "13:00", "end": "14:30"},
    {"days": ["FRI"], "start": "22:00", "end": "02:00"},
    {"days": ["SUN"], "start": "20:00", "end": "24:00"},
)
"""In Bratislava; 3 April 2026 is a Friday."""
WITHIN = [
    (None, "2026-04-03T08:00:00"),
    (None, "2026-04-03T19:59:00"),
    (SHIFTS, "2026-04-03T09:00:00"),  # from its start on
    (SHIFTS, "2026-04-03T14:29:00"),  # in the second of a day
    (SHIFTS, "2026-04-04T01:59:00"),  # on the night that begins on its day
    (SHIFTS, "2026-04-05T23:59:00"),  # until midnight
]
WITHOUT = [
    (None, "2026-04-03T07:59:59", "2026-04-03T06:00:00Z"),
    (None, "2026-04-03T20:00:00", "2026-04-04T06:00:00Z"),
    (SHIFTS, "2026-04-03T12:00:00", "2026-04-03T11:00:00Z"),  # at its end
    (SHIFTS, "2026-04-03T01:00:00", "2026-04-03T07:00:00Z"),  # on the night before its day
    (SHIFTS, "2026-04-04T02:00:00", "2026-04-05T18:00:00Z"),  # after the night
    (SHIFTS, "2026-04-06T00:00:00", "2026-04-10T07:00:00Z"),  # at midnight
]
"""Hours, by default from eight to twenty; the local time; and the next instant at which a phone may ring."""


@does("F2-5")
def test_call_within_an_interval_is_accepted(intake: Intake, worker: Worker) -> None:
    for hours, text in WITHIN:
        if hours is not None:
            open_at(intake, *hours)
        assert booked(ask(intake, text))["schedule"]["localTime"] == text


@does_not("F2-5")
def test_call_outside_every_interval_is_refused(intake: Intake, worker: Worker) -> None:
    for hours, text, next_at in WITHOUT:
        if hours is not None:
            open_at(intake, *hours)
        details = refused(ask(intake, text), 400, "OUTSIDE_CALL_TIME_INTERVAL")["details"]
        assert (details["localTime"], details["nextAllowedAt"], details["reason"]) == (text, next_at, "CLOSED")


@does_not("F2-5")
def test_invalid_intervals_are_refused_and_change_nothing(intake: Intake) -> None:
    before = data(intake.get(intake.company))["settings"]
    overlapping = [ALWAYS, {"days": ["MON"], "start": "09:00", "end": "10:00"}]
    refused(intake.set_settings(callTimeIntervals=[]), 400, "NEVER_OPEN")
    for wrong in (
        overlapping,
        [{**ALWAYS, "end": "00:00"}],
        [{**ALWAYS, "end": "24:01"}],
        [{**ALWAYS, "days": ["MOO"]}],
    ):
        content = refused(intake.set_settings(callTimeIntervals=wrong), 400, "CALL_TIME_INTERVALS_INVALID")
        assert content["details"]["reason"]
    assert data(intake.get(intake.company))["settings"] == before


# ---- F2-6: a requested time. `test_intake_attempts.py` has invoking and moving


@does("F2-6")
def test_time_within_hours_and_thirty_days_is_accepted(intake: Intake, worker: Worker) -> None:
    now = intake.now()
    just_passed = (now - timedelta(seconds=50)).isoformat()
    assert datetime.fromisoformat(booked(ask(intake, just_passed))["scheduledAt"]) >= now, "it means now"
    last = (now + timedelta(days=30)).isoformat()
    assert booked(ask(intake, last))["schedule"]["requested"] == last
    assert booked(ask(intake, "2026-04-03T19:59:24"))["scheduledAt"] == "2026-04-03T17:59:24Z"


@does_not("F2-6")
def test_any_other_time_is_refused_with_the_next_allowed_time(intake: Intake, worker: Worker) -> None:
    now = intake.now()
    details = refused(ask(intake, "2026-04-03T21:00:00"), 400, "OUTSIDE_CALL_TIME_INTERVAL")["details"]
    assert details == {
        "field": "scheduledAt",
        "localTime": "2026-04-03T21:00:00",
        "timezone": "Europe/Bratislava",
        "timezoneSource": "PHONE_NUMBER",
        "callTimeIntervals": [{"days": EVERY_DAY, "start": "08:00", "end": "20:00"}],
        "nextAllowedAt": "2026-04-04T06:00:00Z",
        "nextAllowedScheduledAt": "2026-04-04T08:00:00",
        "reason": "CLOSED",
    }
    details = refused(ask(intake, "2026-04-03T19:59:25"), 400, "OUTSIDE_CALL_TIME_INTERVAL")["details"]
    assert (details["reason"], details["nextAllowedAt"]) == ("CLOSING", "2026-04-04T06:00:00Z")
    refused(ask(intake, (now - timedelta(seconds=70)).isoformat()), 400, "SCHEDULE_IN_PAST")
    refused(ask(intake, (now + timedelta(days=30, minutes=2)).isoformat()), 400, "SCHEDULE_TOO_FAR")
    assert intake.is_untouched()


# ---- F2-7: as soon as allowed, and until when


@does("F2-7")
def test_without_a_time_the_call_is_due_now_or_at_next_opening(intake: Intake, worker: Worker) -> None:
    now = intake.now()
    at = datetime.fromisoformat(booked(ask(intake))["scheduledAt"])
    assert now - timedelta(seconds=1) <= at <= intake.now()
    open_at(intake, {"days": EVERY_DAY, "start": "20:00", "end": "22:00"})
    waits = data(ask(intake), 201)
    assert (waits["scheduledAt"], waits["expiresAt"]) == ("2026-04-02T18:00:00Z", "2026-04-09T18:00:00Z")
    call = call_to(waits["callAttempts"][0])
    again = intake.made(call.attempts, {"scheduledAt": "2026-04-04T20:00:00"})
    assert again["scheduledAt"] == "2026-04-04T18:00:00Z"
    assert data(intake.get(call.interview))["expiresAt"] == "2026-04-11T18:00:00Z", "again with each request"


@does_not("F2-7")
def test_change_that_would_ring_after_the_expiry_is_refused(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    open_at(intake, {"days": EVERY_DAY, "start": "20:00", "end": "22:00"})
    refused(ask(intake, expires_at="2026-04-02T18:00:00Z"), 400, "NO_OPENING_BEFORE_EXPIRY")
    refused(ask(intake, "2026-04-03T20:00:00", expires_at="2026-04-03T18:00:30Z"), 400, "NO_OPENING_BEFORE_EXPIRY")
    assert intake.is_untouched()
    waits = booked(ask(intake, expires_at="2026-04-02T19:00:00Z"))
    settle(later(tenant, timedelta(hours=8)))
    ended = shown(intake, waits)
    assert (ended["status"], ended["reasonCode"]) == ("FAILED", "EXPIRED")
    assert data(intake.get(call_to(waits).interview))["status"] == "FAILED"


@does_not("F2-7")
def test_retry_after_the_expiry_is_not_created(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    retries(intake, BUSY=[3600])
    for expires_at, statuses in (("2026-04-02T12:59:00Z", ["FAILED"]), ("2026-04-02T14:00:00Z", ["FAILED", "PENDING"])):
        waits = booked(ask(intake, expires_at=expires_at, phoneNumber=f"+4219151{expires_at[11:16].replace(':', '')}0"))
        assert busy(tenant, waits).reason is Reason.BUSY
        interview = data(intake.get(call_to(waits).interview))
        assert [each["status"] for each in interview["callAttempts"]] == statuses
        assert interview["status"] == ("FAILED" if statuses == ["FAILED"] else "SCHEDULED")


# ---- F2-8: the clock is checked again


@does("F2-8")
def test_call_in_an_open_window_is_dialled(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    attempt = booked(ask(intake))
    order = dialled(tenant, attempt)
    assert order is not None
    assert order.to == NUMBER
    assert shown(intake, attempt)["status"] == "IN_PROGRESS"


@does_not("F2-8")
def test_call_outside_changed_hours_waits_and_uses_no_attempt(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    attempt = booked(ask(intake))
    open_at(intake, {"days": EVERY_DAY, "start": "20:00", "end": "22:00"})
    assert dialled(tenant, attempt) is None, "it was not rescheduled after the hours changed"
    waits = shown(intake, attempt)
    assert (waits["status"], waits["scheduledAt"], waits["retryNumber"]) == ("PENDING", "2026-04-02T18:00:00Z", 0)
    history = explained(intake, attempt)["history"]
    assert [each["event"] for each in history] == ["created", "claimed", "deferred"]
    assert len(data(intake.get(call_to(attempt).attempts))["items"]) == 1


# ---- F2-9: decisions are shown and kept


@does("F2-9")
def test_a_retry_keeps_the_chains_clock_and_shows_it(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    retries(intake, BUSY=[900])
    first = booked(ask(intake, timezone="Europe/London"))
    assert first["schedule"] == {
        "requested": None,
        "timezone": "Europe/London",
        "timezoneSource": "CANDIDATE",
        "utcOffset": "+01:00",
        "localTime": first["schedule"]["localTime"],
        "tzdataVersion": first["schedule"]["tzdataVersion"],
    }
    assert first["schedule"]["localTime"].startswith("2026-04-02T13:0")
    assert first["schedule"]["tzdataVersion"] >= "2025"
    retry = retry_of(intake, tenant, first)
    assert (retry["schedule"]["timezoneSource"], retry["schedule"]["timezone"]) == ("CANDIDATE", "Europe/London")
    ended = datetime.fromisoformat(shown(intake, first)["endedAt"])
    assert datetime.fromisoformat(retry["scheduledAt"]) == ended + timedelta(minutes=15)


@does_not("F2-9")
def test_retry_after_an_offset_waits_for_the_numbers_own_zones(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    retries(intake, BUSY=[900])
    asked_for = intake.now().astimezone(UTC).isoformat()
    assert asked_for.endswith("+00:00")
    first = booked(ask(intake, asked_for, phoneNumber=IN_PERTH_OR_ADELAIDE))
    assert first["warnings"] == ["OFFSET_DIFFERS_FROM_PHONE_NUMBER"]
    retry = retry_of(intake, tenant, first)
    assert (retry["schedule"]["timezoneSource"], retry["schedule"]["utcOffset"]) == ("OFFSET", "+00:00")
    assert retry["scheduledAt"] == "2026-04-03T08:00:00Z", "at noon it is evening in Perth, and at eight it is not"


# ---- F2-10: nights when clocks change


@does("F2-10")
def test_missing_local_time_moves_on_and_repeated_means_first(intake: Intake, worker: Worker) -> None:
    open_at(intake, ALWAYS)
    gap = booked(ask(intake, "2026-04-24T00:30:00", timezone=CAIRO))
    assert (gap["scheduledAt"], gap["schedule"]["localTime"]) == ("2026-04-23T22:30:00Z", "2026-04-24T01:30:00")
    fold = booked(ask(intake, "2026-04-05T02:30:00", timezone=SYDNEY))
    assert (fold["scheduledAt"], fold["schedule"]["utcOffset"]) == ("2026-04-04T15:30:00Z", "+11:00")
    open_at(intake, {"days": EVERY_DAY, "start": "02:00", "end": "02:45"})
    for text in ("2026-04-04T15:30:00Z", "2026-04-04T16:30:00Z"):
        assert booked(ask(intake, text, timezone=SYDNEY))["schedule"]["localTime"] == "2026-04-05T02:30:00"


@does_not("F2-10")
def test_a_window_is_not_open_when_the_wall_clock_is_not_in_it(intake: Intake, worker: Worker) -> None:
    open_at(intake, {"days": EVERY_DAY, "start": "02:00", "end": "02:45"})
    between = refused(ask(intake, "2026-04-04T15:50:00Z", timezone=SYDNEY), 400, "OUTSIDE_CALL_TIME_INTERVAL")
    assert between["details"]["nextAllowedAt"] == "2026-04-04T16:00:00Z", "the same hour comes again"
    open_at(intake, {"days": ["FRI"], "start": "00:00", "end": "01:00"})
    skipped = refused(ask(intake, "2026-04-24T00:30:00", timezone=CAIRO), 400, "OUTSIDE_CALL_TIME_INTERVAL")
    assert skipped["details"]["nextAllowedAt"] == "2026-04-30T21:00:00Z", "that Friday has no such hour"


# ---- F2-11: changes reschedule pending calls. `test_intake_records.py` has hours and numbers


@does_not("F2-11")
def test_change_reschedules_only_affected_calls(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    named, own = (
        booked(ask(intake, "2026-04-03T09:00:00+02:00")),
        booked(ask(intake, TOMORROW, timezone="Europe/Prague")),
    )
    before = [shown(intake, each) for each in (named, own)]
    assert intake.set_settings(timezone="America/New_York", locale="en").status_code == 200
    open_at(intake, {"days": EVERY_DAY, "start": "09:00", "end": "20:00"})
    ApiWriter(tenant=tenant, hints=RecordingHints()).recompute()
    assert [shown(intake, each) for each in (named, own)] == before


# ---- F2-12: the consent


@does("F2-12")
def test_consent_lasts_until_its_last_day_ends_for_the_callee(intake: Intake, worker: Worker) -> None:
    last_day = "2026-04-03"
    assert booked(ask(intake, "2026-04-03T19:59:00", gdprExpiryDate=last_day))["scheduledAt"] == "2026-04-03T17:59:00Z"
    in_hawaii = booked(ask(intake, "2026-04-04T04:00:00Z", gdprExpiryDate=last_day, timezone="Pacific/Honolulu"))
    assert in_hawaii["schedule"]["localTime"] == "2026-04-03T18:00:00"


@does_not("F2-12")
def test_call_after_the_consent_is_refused(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    refused(ask(intake, "2026-04-04T08:00:00", gdprExpiryDate="2026-04-03"), 400, "CONSENT_EXPIRED")
    in_auckland = {"gdprExpiryDate": "2026-04-03", "timezone": "Pacific/Auckland"}
    refused(ask(intake, "2026-04-03T22:00:00Z", **in_auckland), 400, "CONSENT_EXPIRED")
    assert intake.is_untouched()
    call = a_call(intake, scheduledAt="2026-04-05T10:00:00Z")
    person = data(intake.get(call.interview))["candidateId"]
    assert intake.patch(f"/candidates/{person}", {"gdprExpiryDate": "2026-04-03"}).status_code == 200
    attempt = data(intake.get(call.attempt))
    assert dialled(later(tenant, timedelta(days=3)), attempt) is None
    ended = shown(intake, attempt)
    assert (ended["status"], ended["reasonCode"]) == ("FAILED", "CONSENT_EXPIRED")


# ---- helpers that act as workers


def later(tenant: Tenant, span: timedelta) -> Tenant:
    """This tenant after the span has passed."""
    return replace(tenant, now=lambda: tenant.now() + span)


def settle(tenant: Tenant) -> None:
    """Settle without a carrier: no call is in progress, so it is not polled."""
    queries = TwilioQueries(SimulatedCarrier(url=a_closed_port()).account(), tenant.policy)
    Settle(tenant.context, queries, tenant.account_id).round()
    queries._client.http_client.session.close()


def retries(intake: Intake, **delays: list[int]) -> None:
    assert intake.set_settings(retryPolicy={"maxRetries": 3, "delays": delays}).status_code == 200


def busy(tenant: Tenant, attempt: dict[str, Any]) -> Attempt:
    """Dial the attempt; the line is busy."""
    [claimed] = tenant.dial.claim([UUID(attempt["id"])]).claimed
    tenant.dial.record([(claimed.attempt, Accepted(call_sid=a_sid()))])
    return tenant.take(tenant.attempt(claimed.attempt.id), Ended(reason=Reason.BUSY, ended_at=tenant.now()))


def retry_of(intake: Intake, tenant: Tenant, attempt: dict[str, Any]) -> dict[str, Any]:
    busy(tenant, attempt)
    _, retry = data(intake.get(call_to(attempt).interview))["callAttempts"]
    assert (retry["status"], retry["retryNumber"]) == ("PENDING", 1)
    return dict(retry)
