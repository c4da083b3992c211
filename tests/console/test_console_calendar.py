"""The page Calendar: pending calls by company and quarter of the hour, the forecast, and the zones."""

import re
from datetime import datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from console.assembly import ConsoleContext
from console.pages import calendar as page
from console.reads.calendar import Calendars
from scheduler.domain.attempt import Ended, Reason
from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.company import CallLimits
from scheduler.persistence import due_calls
from scheduler.persistence.database import Database
from scheduler.use_cases.operations.new_calls import shared_out
from tests.conftest import NOON, seed
from tests.console.conftest import Console
from tests.support.builders import ALWAYS, BRATISLAVA, Tenant, a_pending_attempt, a_placed_attempt, a_tenant, of_company

OK, UNPROCESSABLE, SEE_OTHER = 200, 422, 303
TOKYO = CalleeClock(source=TimezoneSource.ZONE, zones=("Asia/Tokyo",))
OFFSET = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=2))
QUARTER = timedelta(minutes=15)


def at_noon() -> datetime:
    return NOON + timedelta(minutes=4)


@pytest.fixture
def begins() -> datetime:
    return NOON


@pytest.fixture(autouse=True)
def _in_one_quarter(console_context: ConsoleContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show the calendar of the same instant always: on the machine's clock, a quarter could end during a test."""
    monkeypatch.setattr(console_context.use_cases.calendars, "_now", at_noon)


@pytest.fixture(autouse=True)
def _all_pages_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        page, "link_to", lambda name, **query: f"/{name}?" + "&".join(f"{k}={v}" for k, v in query.items())
    )


@pytest.fixture
def acme(database: Database, hasher: object) -> Tenant:
    seeded = seed(database, at_noon(), intervals=ALWAYS, limits=CallLimits(calls_per_second=1.0, concurrent_calls=50))
    return a_tenant(database, seeded, hasher, at_noon, account_sid="AC1", calls_per_second=1.0, max_calls=50)  # type: ignore[arg-type]


def renamed(tenant: Tenant, name: str) -> Tenant:
    tenant.change("UPDATE companies SET name = :name WHERE id = :id", name=name, id=tenant.company_id)
    return tenant


def another(tenant: Tenant, name: str) -> Tenant:
    return renamed(of_company(tenant, seed(tenant.database, at_noon(), intervals=ALWAYS)), name)


def calendars(tenant: Tenant) -> Calendars:
    return Calendars(tenant.context)


def rows(html: str, css_class: str) -> list[list[str]]:
    """Read the texts of the cells of each row of a table's body."""
    table = re.search(rf'<table[^>]* class="{css_class}"[^>]*>(.*?)</table>', html, re.DOTALL)
    assert table
    body = re.split("<tbody[^>]*>", table[1])[1]
    return [
        [re.sub(r"<[^>]+>", "", each).strip() for each in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in body.split("</tr>")[:-1]
    ]


def test_calls_are_counted_by_company_and_quarter(acme: Tenant, viewer: httpx.Client, begins: datetime) -> None:
    hays = another(renamed(acme, "Acme"), "Hays")
    for minutes in (60, 61, 74, 75):
        a_pending_attempt(acme, due_at=begins + timedelta(minutes=minutes))
    a_pending_attempt(hays, due_at=begins + timedelta(minutes=75))
    html = viewer.get("/calendar").text
    names = [f"{begins + 4 * QUARTER:%a %H:%M}", f"{begins + 5 * QUARTER:%a %H:%M}"]
    assert rows(html, "numbers") == [[names[0], "3", "3", "0"], [names[1], "2", "1", "1"]]
    assert "The last of 5 calls starts on time. None has to wait for the next opening of its calling hours." in html
    assert html.count('<svg class="bar"') == 2 * 3 + 1, "each number of a quarter hour has a bar, and the zone"
    assert '<tr><th scope="row">24 hours</th><td class="count">5</td><td class="count">4</td>' in html


def test_numbers_link_to_the_attempts_that_make_them(acme: Tenant, viewer: httpx.Client, begins: datetime) -> None:
    a_pending_attempt(acme, due_at=begins + timedelta(minutes=61))
    html = viewer.get("/calendar").text
    span = f"due_from={begins + 4 * QUARTER:%Y-%m-%dT%H:%M:%SZ}&amp;due_to={begins + 5 * QUARTER:%Y-%m-%dT%H:%M:%SZ}"
    assert f'href="/attempts?{span}"' in html
    assert f'href="/attempts?company={acme.company_id}&amp;{span}"' in html
    assert 'href="/attempts?zone=Europe/Bratislava"' in html
    assert f'href="/calendar?company={acme.company_id}"' in html


def test_calls_due_already_are_in_the_first_quarter(acme: Tenant, viewer: httpx.Client, begins: datetime) -> None:
    for age in (30, 90):
        a_pending_attempt(acme, due_at=begins - timedelta(minutes=age))
    html = viewer.get("/calendar").text
    [[_, total, own]] = rows(html, "numbers")
    assert (total, own) == ("2", "2")
    assert "The first quarter contains 2 calls that were due earlier and still wait." in html
    assert f'href="/attempts?due_to={begins + QUARTER:%Y-%m-%dT%H:%M:%SZ}"' in html, "no start: they were due earlier"


def test_forecast_says_how_late_the_last_call_starts(acme: Tenant, viewer: httpx.Client, begins: datetime) -> None:
    acme.change("UPDATE companies SET calls_per_second = 0.02")
    for _ in range(13):
        a_pending_attempt(acme, due_at=begins + timedelta(hours=2))
    html = viewer.get("/calendar").text
    assert "<strong>The last of 13 calls starts 10 min late. None has to wait" in html
    assert "for the next opening of its calling hours.</strong>" in html


def test_one_company_is_shown_with_its_own_forecast(acme: Tenant, viewer: httpx.Client, begins: datetime) -> None:
    hays = another(renamed(acme, "Acme"), "Hays")
    a_pending_attempt(acme, due_at=begins + timedelta(hours=2))
    for _ in range(2):
        a_pending_attempt(hays, due_at=begins + timedelta(hours=2))
    html = viewer.get("/calendar", params={"company": str(acme.company_id)}).text
    assert [row[1:] for row in rows(html, "numbers")] == [["1", "1"]]
    assert "The only call starts on time." in html
    assert "<h1>Calendar: Acme</h1>" in html


def test_one_company_has_its_own_name_pace_and_zones(acme: Tenant, viewer: httpx.Client, begins: datetime) -> None:
    hays = another(renamed(acme, "Acme"), "Hays")
    acme.change("UPDATE carrier_accounts SET calls_per_second = 20, max_calls = 1000")
    a_pending_attempt(acme, due_at=begins + timedelta(hours=2), clock=TOKYO)
    a_pending_attempt(hays, due_at=begins + timedelta(hours=2), clock=TOKYO)
    a_pending_attempt(hays, due_at=begins + timedelta(hours=2))
    every = viewer.get("/calendar").text
    assert len(rows(every, "zones")) == 2
    assert "The account can start 18,000 in each." in every
    html = viewer.get("/calendar", params={"company": str(acme.company_id)}).text
    assert "This company can start 900 in each." in html
    [[_, _, waiting, _, _]] = rows(html, "zones")
    assert waiting == "1"
    assert f'href="/attempts?company={acme.company_id}&amp;zone=Asia/Tokyo"' in html
    acme.change("UPDATE carrier_accounts SET calls_per_second = 0.5")
    html = viewer.get("/calendar", params={"company": str(acme.company_id)}).text
    assert "This company can start 450 in each." in html, "the account's pace is lower"


@pytest.mark.parametrize(("given", "status"), [("acme", UNPROCESSABLE), (str(uuid4()), OK)])
def test_wrong_company_is_said_in_words(acme: Tenant, viewer: httpx.Client, given: str, status: int) -> None:
    answer = viewer.get("/calendar", params={"company": given})
    assert answer.status_code == status
    assert "All companies are shown." in answer.text


def test_zones_say_when_they_open(acme: Tenant, viewer: httpx.Client, begins: datetime) -> None:
    for clock in (BRATISLAVA, TOKYO, TOKYO, OFFSET):
        a_pending_attempt(acme, due_at=begins + timedelta(hours=30), clock=clock)
    html = viewer.get("/calendar").text
    found = {re.split(r"(?=Mon|Tue|Wed|Thu|Fri|Sat|Sun)", row[0])[0]: row for row in rows(html, "zones")}
    assert found["Asia/Tokyo"][1:4] == ["open for 24 hours or more", "2", "2"]
    assert len(found) == 3
    assert 'href="/attempts?zone=Asia/Tokyo"' in html
    assert 'href="/attempts?zone=+02:00"' in html
    assert "4 more calls are due after these 24 hours." in html


def test_empty_calendar_says_why(acme: Tenant, viewer: httpx.Client) -> None:
    html = viewer.get("/calendar").text
    assert "No call is due." in html
    assert "No call becomes due in these 24 hours." in html
    assert "No call waits." in html


def test_calendar_without_an_account_has_no_forecast(console: Console, viewer: httpx.Client) -> None:
    answer = viewer.get("/calendar")
    assert answer.status_code == OK
    assert "No worker has started yet" in answer.text


def test_pauses_are_said_with_the_forecast(acme: Tenant, console: Console, viewer: httpx.Client) -> None:
    a_pending_attempt(acme)
    assert "paused" not in viewer.get("/calendar").text
    console.pauses.pause(acme.company_id, "a reason")
    assert "1 of these companies is paused." in viewer.get("/calendar").text
    console.pauses.pause(None, "a reason")
    assert "All calls are paused." in viewer.get("/calendar").text


def test_only_the_first_calls_are_counted(
    acme: Tenant, viewer: httpx.Client, begins: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_calls, "COUNTED", 3)
    for minutes in (20, 50, 80, 110):
        a_pending_attempt(acme, due_at=begins + timedelta(minutes=minutes))
    html = viewer.get("/calendar").text
    assert [row[1] for row in rows(html, "numbers")] == ["1", "1", "1"]
    until = f"{begins + timedelta(minutes=80):%Y-%m-%d %H:%M} UTC"
    assert f"Estimate: only the first 3 calls are counted, those due until {until}." in html
    monkeypatch.setattr(due_calls, "COUNTED", 4)
    assert "Estimate" not in viewer.get("/calendar").text


def test_unread_clocks_are_estimated(
    acme: Tenant, viewer: httpx.Client, begins: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for quarter in range(4):
        for _ in range(5):
            a_pending_attempt(acme, due_at=begins + quarter * QUARTER + timedelta(minutes=5), clock=TOKYO)
    for read in (2, 8):
        monkeypatch.setattr(due_calls, "READ_CLOCKS", read)
        html = viewer.get("/calendar").text
        assert "Estimate: only some calls&#39; zones were read." in html
        assert rows(html, "zones")[0][2] == "20"
    monkeypatch.setattr(due_calls, "READ_CLOCKS", 20)
    assert "Estimate" not in viewer.get("/calendar").text


def test_calls_are_shared_out_without_a_rest() -> None:
    assert shared_out({BRATISLAVA: 2, TOKYO: 1}, 10) == {BRATISLAVA: 7, TOKYO: 3}
    assert shared_out({BRATISLAVA: 1, TOKYO: 1}, 3) in ({BRATISLAVA: 2, TOKYO: 1}, {BRATISLAVA: 1, TOKYO: 2})
    assert shared_out({BRATISLAVA: 4}, 4) == {BRATISLAVA: 4}
    assert shared_out({}, 4) == {None: 4}


def test_mean_duration_needs_enough_ended_calls(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch, viewer: httpx.Client
) -> None:
    for table in ("companies", "carrier_accounts"):
        acme.change(f"UPDATE {table} SET calls_per_second = 1000")
    for seconds in (10, 20, 60):
        placed = a_placed_attempt(acme)
        assert placed.claimed_at is not None
        acme.take(placed, Ended(reason=Reason.NO_ANSWER, ended_at=placed.claimed_at + timedelta(seconds=seconds)))
    assert "Too few calls have ended" in viewer.get("/calendar").text
    monkeypatch.setattr(due_calls, "FEWEST_ENDED", 3)
    assert "Calls are taken to last 30 s, the mean of the calls that ended last." in viewer.get("/calendar").text
