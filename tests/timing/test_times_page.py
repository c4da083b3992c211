"""Each row of docs/reference/times.md agrees with the code."""

import re
from datetime import UTC, timedelta
from operator import itemgetter
from pathlib import Path

import phonenumbers
import pytest
from phonenumbers.timezone import time_zones_for_number

from scheduler.domain.refusals import InvalidDateFormat
from scheduler.timing import call_windows, callee_zones, requested_time, zone_names
from scheduler.timing.callee_zones import CalleeNumber, NumberKind
from scheduler.timing.requested_time import RequestedTime
from scheduler.timing.zone_names import ADDED, CORRECTED
from tests.timing.google import zones as google

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "times.md").read_text(encoding="utf-8")
ODDITIES = {
    *("24:00", "leap second", "week date", "ordinal date", "lower case t and z", "space for T", "missing seconds"),
    *("missing minutes", "fraction with a dot", "fraction with a comma", "fraction of too many digits"),
    *("Unicode minus", "offset `-00:00`", "offset `+00:00`", "offset beyond 18:00", "contradicting zone"),
    *("zone without offset", "critical tag", "calendar tag", "non-ASCII digits", "huge input", "empty", "date only"),
    *("basic format", "first day of year 1", "last day of year 9999", "time in a gap", "time in a fold"),
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith(f"{heading}\n"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def written(cell: str) -> str:
    """Read the text of a cell: code, code with a count, or nothing."""
    if cell == "nothing":
        return ""
    code = re.fullmatch(r"`([^`]+)`(?:, (\d+) times)?", cell)
    assert code, cell
    return code[1] * int(code[2] or 1)


def as_read(requested: RequestedTime) -> str:
    offset = "Z" if requested.is_instant else ""
    if requested.offset is not None:
        minutes = requested.offset // timedelta(minutes=1)
        offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    return requested.wall.isoformat() + offset + (f"[{requested.zone}]" if requested.zone else "")


@pytest.mark.parametrize("row", rows("Accepted"), ids=itemgetter(0))
def test_accepted_times_of_the_page_are_read_as_documented(row: list[str]) -> None:
    _, text, read_as, why = row
    assert as_read(requested_time.read(written(text))) == written(read_as)
    assert why


@pytest.mark.parametrize("row", rows("Rejected"), ids=itemgetter(0))
def test_refusals_of_the_page_match_reason_and_position(row: list[str]) -> None:
    _, text, position, reason, why = row
    with pytest.raises(InvalidDateFormat) as refused:
        requested_time.read(written(text))
    assert refused.value.details["reason"] == written(reason)
    assert refused.value.details["position"] == int(position)
    assert why


@pytest.mark.parametrize("row", rows("Gaps and folds"), ids=itemgetter(0))
def test_a_time_in_a_gap_or_a_fold_names_the_instant_on_the_page(row: list[str]) -> None:
    _, text, instant, why = row
    requested = requested_time.read(written(text))
    clock = callee_zones.deciding_clock(requested, candidate_zone=None, number=None, company_zone=None)
    named_instant = call_windows.resolve(requested, clock)
    assert named_instant == requested_time.read(written(instant)).wall.replace(tzinfo=UTC)
    assert why


def codes(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`\+?([^`]+)`", cell))


def test_page_lists_each_correction_with_its_reason() -> None:
    for heading, facts in (("Corrected area codes", CORRECTED), ("Added to prefixes", ADDED)):
        listed = {codes(prefix)[0]: codes(zones) for prefix, zones, _ in rows(heading)}
        assert listed == facts
        assert all(why for _, _, why in rows(heading))


def test_page_lists_each_widening_with_its_reason() -> None:
    """Compare the page with every example number and prefix that libphonenumber knows."""
    widened: dict[tuple[str, str], set[str]] = {}
    for text in google.numbers_of_all_regions_and_kinds():
        number = callee_zones.read_number(text)
        if number.region is None or any(number.e164.startswith(f"+{prefix}") for prefix in CORRECTED):
            continue
        named = {zone_names.check_zone(zone) for zone in time_zones_for_number(phonenumbers.parse(text))}
        listed = {zone for prefix, zones in ADDED.items() if text.startswith(f"+{prefix}") for zone in zones}
        added = set(number.zones) - named - listed
        if added:
            widened.setdefault((number.region, why_widened(number, named)), set()).update(added)
    page = {(country, numbers): set(codes(zones)) for country, numbers, zones, _ in rows("Added by rule")}
    assert page == widened
    assert all(why for _, _, _, why in rows("Added by rule"))


def why_widened(number: CalleeNumber, named: set[str]) -> str:
    if named.isdisjoint(zone_names.of_country(str(number.region))):
        return "another country's clock"
    return "a whole area" if number.kind in {NumberKind.FIXED_LINE, NumberKind.FIXED_OR_MOBILE} else "no area"


def test_page_lists_every_oddity_once() -> None:
    whats = [row[0] for heading in ("Accepted", "Rejected", "Gaps and folds") for row in rows(heading)]
    assert len(whats) == len(set(whats))
    assert set(whats) >= ODDITIES
