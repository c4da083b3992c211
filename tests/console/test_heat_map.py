"""The heat map shows every due call as a number, in real quarter hours, below the limits of the account."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.pictures.heat_map import (
    QUARTERS,
    CompanyDue,
    HeatMap,
    forecast_text,
    heat_map,
    heat_map_svg,
    heat_map_table,
)
from console.pictures.svg import Layout, Moment
from scheduler.lifecycle.forecast import CompanyQueue, DueCalls, Limits, Starts, forecast
from tests.console.examples import in_zones, utc
from tests.console.pictures import HOSTILE, assert_texts_fit, boxes, class_names, parsed, texts

BEGINS = utc("2026-11-27 06:15:00")
BRATISLAVA = in_zones("Europe/Bratislava")
LAYOUTS = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name)


def due(name: str, calls: dict[int, int]) -> CompanyDue:
    return CompanyDue(name=name, calls=tuple(calls.get(quarter, 0) for quarter in range(QUARTERS)))


def drawn(
    *companies: CompanyDue, begins: datetime = BEGINS, per_second: float = 2, places: int | None = None
) -> HeatMap:
    queues = [
        CompanyQueue(
            company_id=UUID(int=number),
            limits=Limits(calls_per_second=per_second, concurrent_calls=1000),
            due=[DueCalls(at=begins + timedelta(minutes=15 * each), calls=n) for each, n in enumerate(company.calls)],
        )
        for number, company in enumerate(companies)
    ]
    account = Limits(calls_per_second=per_second, concurrent_calls=places or 1)
    return heat_map(
        companies,
        begins,
        BRATISLAVA,
        forecast(queues, account, begins),
        calls_per_second=per_second,
        concurrent_calls=places,
        call_lasts=None if places is None else timedelta(minutes=5),
    )


MANY = [due(f"Company {number:02}", {number: 100 + number, 40: 7}) for number in range(25)]


@LAYOUTS
def test_twenty_companies_have_a_row_and_the_rest_shares_one(layout: Layout) -> None:
    picture = drawn(*MANY)
    assert [row.name for row in picture.rows[:2]] == ["Company 24", "Company 23"]
    assert len(picture.rows) == 21
    assert picture.rows[-1].name == "the rest (5 companies)"
    assert picture.rows[-1].total == sum(each.total for each in MANY[:5])
    root = parsed(heat_map_svg(picture, layout, "map"))
    assert_texts_fit(root)
    assert len(boxes(root, "shade-0")) == 21 + 1, "each row has a strip, and the legend a square"


def test_cell_lies_at_its_quarter_and_has_its_number() -> None:
    root = parsed(heat_map_svg(drawn(due("Hays", {0: 1, 11: 3000})), Layout.WIDE, "map"))
    [strip, _] = sorted(boxes(root, "shade-0"), key=lambda box: -box.width)
    [first, _] = sorted(boxes(root, "shade-1"), key=lambda box: not box.title)
    [most, _] = sorted(boxes(root, "shade-5"), key=lambda box: not box.title)
    assert first.title == "Hays, Fri 07:15: 1"
    assert most.title == "Hays, Fri 10:00: 3,000"
    assert first.left == pytest.approx(strip.left)
    assert most.left - strip.left == pytest.approx(strip.width * 11 / QUARTERS, abs=0.02)
    assert "3.0k" in texts(root, "quarter-sum"), "the sum from 10:00 to 11:00"
    assert "3,001" in texts(root, "row-total")


def test_bar_above_the_limit_is_hatched() -> None:
    root = parsed(heat_map_svg(drawn(due("Hays", {3: 1800, 5: 1801})), Layout.WIDE, "map"))
    [over] = boxes(root, "over-bar")
    assert over.title == "Fri 08:30: 1,801 due, 1,800 can start"
    assert len(boxes(root, "due-bar")) == 2
    assert "pace: 1,800 per 15 min" in texts(root)


def test_places_are_a_line_of_their_own() -> None:
    picture = drawn(due("Hays", {3: 700}), places=100)
    assert (picture.by_pace, picture.by_places, picture.capacity) == (1800, 300, 300)
    root = parsed(heat_map_svg(picture, Layout.WIDE, "map"))
    assert "capacity-places" in class_names(root)
    assert "places: 300 per 15 min" in texts(root)
    assert len(boxes(root, "over-bar")) == 1


def test_limit_far_above_the_bars_is_only_named() -> None:
    for calls, is_drawn in ((360, True), (359, False)):
        root = parsed(heat_map_svg(drawn(due("Hays", {3: calls})), Layout.WIDE, "map"))
        assert ("capacity-pace" in class_names(root)) is is_drawn
        assert "pace: 1,800 per 15 min" in texts(root)


@LAYOUTS
def test_day_without_calls_is_drawn(layout: Layout) -> None:
    picture = drawn()
    assert picture.forecast == "No call is due."
    root = parsed(heat_map_svg(picture, layout, "map"))
    assert_texts_fit(root)
    assert texts(root, "forecast") == ["No call is due."]
    assert heat_map_table(picture).rows == ()


def test_night_of_clock_change_keeps_its_quarters() -> None:
    begins = utc("2026-10-24 18:00:00")
    root = parsed(heat_map_svg(drawn(due("Hays", {24: 5, 28: 6}), begins=begins), Layout.WIDE, "map"))
    titles = [box.title for shade in range(1, 6) for box in boxes(root, f"shade-{shade}") if box.title]
    assert sorted(titles) == ["Hays, Sun 02:00: 5", "Hays, Sun 02:00: 6"], "two hours have that name"
    assert texts(root, "hour").count("02") == 4, "twice at the top, twice at the bottom"


def test_table_has_each_quarter_with_calls() -> None:
    table = heat_map_table(drawn(due("Hays", {0: 1, 11: 3000}), due("Acme", {11: 2})))
    assert table.header == ("From", "All", "Can start", "Hays", "Acme")
    first = Moment(at=BEGINS, local="2026-11-27T07:15:00+01:00", zone="Europe/Bratislava")
    assert table.rows[0] == (first, "1", "1,800", "1", "0")
    assert table.rows[1][1:] == ("3,002", "1,800", "3,000", "2")


@LAYOUTS
def test_hostile_name_of_a_company_stays_a_name(layout: Layout) -> None:
    root = parsed(heat_map_svg(drawn(due(HOSTILE, {3: 4})), layout, "map"))
    assert_texts_fit(root)
    assert [box.title for box in boxes(root, "shade-4") if "<script>alert(1)</script>" in box.title]


@given(calls=st.lists(st.lists(st.integers(0, 100_000), min_size=96, max_size=96), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_every_call_is_in_the_table(calls: list[list[int]]) -> None:
    companies = [CompanyDue(name=f"{number}", calls=tuple(each)) for number, each in enumerate(calls)]
    picture = heat_map(
        companies,
        BEGINS,
        BRATISLAVA,
        forecast([], Limits(calls_per_second=1, concurrent_calls=1), BEGINS),
        calls_per_second=1,
    )
    rows = heat_map_table(picture).rows
    total = sum(int(str(row[1]).replace(",", "")) for row in rows)
    assert total == sum(sum(each) for each in calls)
    assert_texts_fit(parsed(heat_map_svg(picture, Layout.WIDE, "map")))


@pytest.mark.parametrize(
    ("starts", "text"),
    [
        (Starts(), "No call is due."),
        (
            Starts(
                calls=4812,
                past_closing=120,
                last_start_at=datetime(2026, 11, 27, 16, tzinfo=UTC),
                last_is_late_by=timedelta(minutes=41),
                latest_by=timedelta(minutes=41),
            ),
            "The last of 4,812 calls starts 41 min late. 120 have to wait for the next opening of their calling hours.",
        ),
        (
            Starts(calls=2, last_start_at=BEGINS, latest_by=timedelta(minutes=2), past_closing=1),
            (
                "The last of 2 calls starts on time, the latest one 2 min late. 1 has to wait for the next opening of"
                " its calling hours."
            ),
        ),
        (
            Starts(calls=1, last_start_at=BEGINS),
            "The only call starts on time. None has to wait for the next opening of its calling hours.",
        ),
        (
            Starts(calls=9, past_closing=9),
            "No call starts before its calling hours end. 9 have to wait for the next opening of their calling hours.",
        ),
    ],
)
def test_forecast_is_a_sentence(starts: Starts, text: str) -> None:
    assert forecast_text(starts) == text
