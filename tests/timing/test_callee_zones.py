"""Zones of phone numbers, and the choice of the most exact known clock."""

import ast
import random
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberType
from phonenumbers.tzdata import TIMEZONE_DATA

import scheduler.timing
from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.company import DEFAULT_INTERVALS
from scheduler.domain.refusals import InvalidTimezone, NumberNotAllowed, PhoneNumberInvalid, TimezoneUnknown
from scheduler.timing import call_windows, callee_zones, requested_time, zone_names
from scheduler.timing.callee_zones import CalleeNumber, NumberKind
from scheduler.timing.zone_names import FEWEST_INHABITANTS, INHABITANTS
from tests.architecture.guards import guards
from tests.support import exhaustive

SLOVAK_MOBILE = "+421915123456"
AUSTRALIAN_MOBILE = "+61412345678"
AMERICAN_TOLL_FREE = "+18005551234"
UNIVERSAL_TOLL_FREE = "+80012345678"


ZONES = {
    "one zone": (SLOVAK_MOBILE, NumberKind.MOBILE, "SK", ("Europe/Bratislava",)),
    "a nationwide mobile is in each zone where more than a few people live": (
        AUSTRALIAN_MOBILE,
        NumberKind.MOBILE,
        "AU",
        (
            *("Australia/Adelaide", "Australia/Brisbane", "Australia/Broken_Hill", "Australia/Darwin"),
            *("Australia/Hobart", "Australia/Melbourne", "Australia/Perth", "Australia/Sydney"),
        ),
    ),
    "not on the Chathams": ("+64211234567", NumberKind.MOBILE, "NZ", ("Pacific/Auckland",)),
    "a fixed line is where its area code is": ("+59322345678", NumberKind.FIXED_LINE, "EC", ("America/Guayaquil",)),
    "a fixed line on Norfolk": ("+672322123", NumberKind.FIXED_LINE, "NF", ("Pacific/Norfolk",)),
    "a mobile that can only be where few people live is there": (
        "+672381234",
        NumberKind.MOBILE,
        "NF",
        ("Pacific/Norfolk",),
    ),
    "an old zone name is replaced": ("+919876543210", NumberKind.MOBILE, "IN", ("Asia/Kolkata",)),
    "an American area code": ("+12125551234", NumberKind.FIXED_OR_MOBILE, "US", ("America/New_York",)),
    "a Canadian one": ("+16135550123", NumberKind.FIXED_OR_MOBILE, "CA", ("America/Toronto",)),
    "a number of no country has no zone": (UNIVERSAL_TOLL_FREE, NumberKind.TOLL_FREE, None, ()),
    "London": ("+442071234567", NumberKind.FIXED_LINE, "GB", ("Europe/London",)),
}


@pytest.mark.parametrize(("text", "kind", "region", "zones"), ZONES.values(), ids=ZONES)
def test_a_number_has_these_zones(text: str, kind: NumberKind, region: str | None, zones: tuple[str, ...]) -> None:
    number = callee_zones.read_number(text)
    assert (number.e164, number.kind, number.region, number.zones) == (text, kind, region, zones)


def test_toll_free_number_has_sparsely_populated_zones_too() -> None:
    zones = callee_zones.read_number(AMERICAN_TOLL_FREE).zones
    assert len(zones) == 42 + 16, "libphonenumber's, and the other zones of the United States"
    assert {"America/Adak", "America/Detroit", "America/Nome"} <= set(zones)
    assert "America/Yakutat" not in zones, "few people live there, and libphonenumber does not name it"
    assert list(zones) == sorted(zones)


def examples(*kinds: int) -> Iterator[tuple[str, CalleeNumber]]:
    """Yield each region with its example number of each kind that it has."""
    for region, kind in product(sorted(phonenumbers.SUPPORTED_REGIONS), kinds):
        example = phonenumbers.example_number_for_type(region, kind)
        if example is not None:
            text = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
            yield region, callee_zones.read_number(text)


def test_mobile_does_not_have_sparsely_populated_zones() -> None:
    sets = {mobile.zones for _, mobile in examples(PhoneNumberType.MOBILE)}
    several = {zone for zones in sets if len(zones) > 1 for zone in zones}
    assert several.isdisjoint({"Australia/Lord_Howe", "Indian/Cocos", "Indian/Christmas", "Pacific/Chatham"})
    assert {"Pacific/Galapagos", "Atlantic/Azores", "Pacific/Marquesas"} <= several
    assert () not in sets


def test_number_with_an_unknown_clock_has_no_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callee_zones, "time_zones_for_number", lambda _: ("Europe/Prague", "Europe/Atlantis"))
    assert callee_zones.read_number("+421915000001").zones == ()
    callee_zones.read_number.cache_clear()


def test_two_spellings_of_one_line_are_one_number() -> None:
    assert callee_zones.read_number("+4402071234567").e164 == callee_zones.read_number("+442071234567").e164


NO_CALLING_CODE = "it is not E.164, which begins with + and the country's calling code"
NOT_DIGITS = "it is not E.164, which has only the digits 0 to 9 after the +, no spaces"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("0915123456", NO_CALLING_CODE, id="a national number"),
        pytest.param("", NO_CALLING_CODE, id="nothing"),
        pytest.param("+", NOT_DIGITS, id="only a plus"),
        pytest.param("+421 915 123 456", NOT_DIGITS, id="spaces"),
        pytest.param("+42191512345\u0666", NOT_DIGITS, id="digits of another script"),
        pytest.param("+0421915123456", "it is not E.164: no country's calling code begins with 0", id="a leading 0"),
        pytest.param("+4219151234567890", "it is too long: E.164 has at most 15 digits", id="16 digits"),
        pytest.param("+999123456789", "no country has that calling code", id="no such country"),
        pytest.param("+1", "it is too short", id="a calling code only"),
        pytest.param("+421915", "it is too short for SK", id="too short for Slovakia"),
        pytest.param("+4219151234567", "it is too long for SK", id="too long for Slovakia"),
        pytest.param("+12025550", "it is too short for US", id="too short for the United States"),
        pytest.param("+11234567890", "no such number exists in US", id="an unused area code"),
        pytest.param("+8701234", "it is too short for +870", id="too short for Inmarsat"),
    ],
)
def test_a_number_that_does_not_exist_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(PhoneNumberInvalid) as refused:
        callee_zones.read_number(text)
    assert refused.value.details == {"reason": reason}
    assert refused.value.message == (f"The phone number is invalid: {reason}. Check its calling code and its digits.")


@given(st.from_regex(r"\+?[0-9]{4,16}", fullmatch=True))
def test_neither_a_refusal_nor_a_repr_repeats_the_number(text: str) -> None:
    try:
        shown = repr(callee_zones.read_number(text))
    except PhoneNumberInvalid as refused:
        shown = refused.message + repr(refused.details) + repr(refused.__cause__)
    assert text.removeprefix("+") not in shown


@given(st.text(max_size=40))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        assert callee_zones.read_number(text).e164.startswith("+")
    except PhoneNumberInvalid as refused:
        assert refused.details["reason"]  # noqa: PT017 - most texts are refused, some are not


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("+19002345678", NumberKind.PREMIUM, id="premium"),
        pytest.param("+9118603451234", NumberKind.SHARED_COST, id="shared cost"),
        pytest.param("+870773111632", NumberKind.SATELLITE, id="Inmarsat"),
        pytest.param("+881612345678", NumberKind.SATELLITE, id="a global satellite system"),
        pytest.param("+8823421234", NumberKind.SATELLITE, id="an international network, 882"),
        pytest.param("+883510012345", NumberKind.SATELLITE, id="an international network, 883"),
        pytest.param("+979123456789", NumberKind.PREMIUM, id="international premium"),
        pytest.param("+80812345678", NumberKind.SHARED_COST, id="international shared cost"),
    ],
)
def test_number_of_a_kind_that_is_never_called_is_refused(text: str, kind: NumberKind) -> None:
    number = callee_zones.read_number(text)
    assert number.kind is kind
    with pytest.raises(NumberNotAllowed) as refused:
        callee_zones.check_allowed(number, None)
    assert refused.value.details["reason"] == kind.value


@pytest.mark.parametrize("text", [SLOVAK_MOBILE, AMERICAN_TOLL_FREE, UNIVERSAL_TOLL_FREE, "+442071234567"])
def test_other_numbers_are_allowed_without_a_country_list(text: str) -> None:
    callee_zones.check_allowed(callee_zones.read_number(text), None)


def test_a_number_in_an_allowed_country_is_allowed() -> None:
    callee_zones.check_allowed(callee_zones.read_number(SLOVAK_MOBILE), frozenset({"SK", "CZ"}))


@pytest.mark.parametrize(("text", "country"), [(AUSTRALIAN_MOBILE, "AU"), (UNIVERSAL_TOLL_FREE, None)])
def test_a_number_outside_the_allowed_countries_is_refused(text: str, country: str | None) -> None:
    with pytest.raises(NumberNotAllowed) as refused:
        callee_zones.check_allowed(callee_zones.read_number(text), frozenset({"SK", "CZ"}))
    assert refused.value.details == {"reason": "COUNTRY", "country": country}


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        pytest.param("Europe/Bratislava", "Europe/Bratislava", id="a city whose clock the data link to another's"),
        pytest.param("America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires", id="three parts"),
        pytest.param("America/Buenos_Aires", "America/Argentina/Buenos_Aires", id="an old name"),
        pytest.param("Asia/Katmandu", "Asia/Kathmandu", id="an old spelling"),
        pytest.param("Europe/Kiev", "Europe/Kyiv", id="a name that was canonical until 2022"),
        pytest.param("US/Eastern", "America/New_York", id="an old name by country"),
        pytest.param("Antarctica/Troll", "Antarctica/Troll", id="a station"),
    ],
)
def test_a_zone_has_one_canonical_name(name: str, canonical: str) -> None:
    assert zone_names.check_zone(name) == canonical


@pytest.mark.parametrize(
    "name",
    [
        *("CET", "EET", "MET", "WET", "EST", "EST5EDT", "UTC", "GMT", "Japan", "GB", "Etc/UTC", "Etc/GMT+5"),
        *("Etc/Unknown", "Factory", "", "Europe", "Europe/", "Europe/Atlantis", "europe/bratislava"),
        *("../etc/passwd", "/etc/localtime", "Europe/Prague\x00", "posix/Europe/Prague", "+01:00", "Z"),
    ],
)
def test_zone_name_without_a_place_is_refused(name: str) -> None:
    with pytest.raises(InvalidTimezone) as refused:
        zone_names.check_zone(name)
    assert refused.value.code == "TIMEZONE_INVALID"
    assert refused.value.details["reason"] in refused.value.message


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("Europe/Bratislav", "Europe/Bratislava"),
        ("America/NewYork", "America/New_York"),
        ("Asia/Calcuta", "Asia/Kolkata"),
        ("Europe/Atlantis", None),
        ("Mars/Olympus", None),
        (f"{'x' * 60_000}/y", None),
    ],
)
def test_misspelt_zone_is_answered_with_the_closest_name(name: str, closest: str | None) -> None:
    with pytest.raises(InvalidTimezone) as refused:
        zone_names.check_zone(name)
    hint = "" if closest is None else f"; the closest name is {closest}"
    assert refused.value.details["reason"] == f"the zone does not exist{hint}"


def test_every_zone_of_a_number_has_a_canonical_name() -> None:
    named = {name for zones in TIMEZONE_DATA.values() for name in zones}
    canonical = {zone_names.check_zone(name) for name in named}
    assert len(named - canonical) == 11
    assert canonical <= zoneinfo.available_timezones()


def test_population_of_each_zone_is_looked_up() -> None:
    """If this fails, look up the population of each new zone: fewer than 3,000 belong into the table."""
    named = {zone_names.check_zone(name) for zones in TIMEZONE_DATA.values() for name in zones}
    assert len(named) == 281
    assert len(zone_names.PLACES) == 418
    fewest_of_the_others = {
        *("America/Noronha", "Atlantic/Stanley", "America/Montserrat", "Atlantic/St_Helena", "America/Miquelon"),
        *("Pacific/Kosrae", "Pacific/Marquesas", "Pacific/Nauru", "Pacific/Funafuti", "Pacific/Wallis"),
        *("Pacific/Easter", "Pacific/Kiritimati", "Pacific/Kwajalein", "Asia/Srednekolymsk", "Asia/Ust-Nera"),
        *("America/Atikokan", "America/Blanc-Sablon", "America/Fort_Nelson", "America/Nome", "America/Sitka"),
    }
    assert fewest_of_the_others <= zone_names.PLACES - set(INHABITANTS)


@pytest.mark.parametrize(
    ("text", "empty"),
    [
        pytest.param("+19075922345", "America/Adak", id="an American number that may be a fixed line on Adak"),
        pytest.param("+18004633339", "America/North_Dakota/Center", id="a toll-free number"),
        pytest.param("+61890393012", "Australia/Eucla", id="a fixed line at the Nullarbor"),
    ],
)
def test_other_numbers_have_sparsely_populated_zones(text: str, empty: str) -> None:
    number = callee_zones.read_number(text)
    assert number.kind is not NumberKind.MOBILE
    assert empty in number.zones
    assert len(number.zones) > 1


def test_number_is_accepted_if_phonenumbers_accepts_it() -> None:
    dice, prefixes = random.Random(20_261_125), sorted(TIMEZONE_DATA)
    counts = {True: 0, False: 0}
    for _ in range(exhaustive.cases(10_000, 1_000)):
        prefix = dice.choice(prefixes)
        text = f"+{prefix}{dice.randrange(10**9):09}"[: dice.randint(9, 14)]
        try:
            is_valid = phonenumbers.is_valid_number(phonenumbers.parse(text))
        except phonenumbers.NumberParseException:
            is_valid = False
        counts[is_valid] += 1
        if is_valid:
            assert callee_zones.read_number(text).zones, text
        else:
            with pytest.raises(PhoneNumberInvalid):
                callee_zones.read_number(text)
    assert min(counts.values()) > exhaustive.cases(1_000, 100)


def test_each_zone_of_the_table_is_a_place_and_nearly_empty() -> None:
    assert set(INHABITANTS) <= zone_names.PLACES
    assert max(INHABITANTS.values()) < FEWEST_INHABITANTS


EASTER_ISLAND_IS_TWO_HOURS_BEHIND = "+56961234567"


ANYWHERE = {
    "Chile": (
        EASTER_ISLAND_IS_TWO_HOURS_BEHIND,
        {"America/Santiago", "America/Punta_Arenas", "America/Coyhaique", "Pacific/Easter"},
    ),
    "Indonesia": ("+62812345678", {"Asia/Jakarta", "Asia/Pontianak", "Asia/Makassar", "Asia/Jayapura"}),
    "Papua New Guinea": ("+67570123456", {"Pacific/Port_Moresby", "Pacific/Bougainville"}),
    "China": ("+8613123456789", {"Asia/Shanghai", "Asia/Urumqi"}),
    "Ukraine": ("+380501234567", {"Europe/Kyiv", "Europe/Simferopol"}),
    "toll-free in Chile": ("+56800123456", {"America/Santiago", "Pacific/Easter"}),
    "VoIP in Australia": ("+61147101234", {"Australia/Darwin", "Australia/Perth"}),
}


@guards("whole_country")
@pytest.mark.parametrize(("text", "zones"), ANYWHERE.values(), ids=ANYWHERE)
def test_number_of_no_area_may_be_anywhere_in_its_country(text: str, zones: set[str]) -> None:
    assert zones <= set(callee_zones.read_number(text).zones)


@pytest.mark.parametrize(
    ("text", "zones"),
    [
        pytest.param("+56221234567", ("America/Santiago",), id="Santiago's area code"),
        pytest.param("+62212345678", ("Asia/Jakarta",), id="Jakarta's"),
        pytest.param("+5511961234567", ("America/Sao_Paulo",), id="a mobile with São Paulo's"),
        pytest.param("+5492901612345", ("America/Argentina/Buenos_Aires",), id="a mobile with an Argentine one"),
        pytest.param("+862012345678", ("Asia/Shanghai",), id="Guangzhou's"),
    ],
)
def test_number_of_an_area_is_not_judged_by_its_whole_country(text: str, zones: tuple[str, ...]) -> None:
    assert callee_zones.read_number(text).zones == zones


@pytest.mark.parametrize(
    ("text", "zones"),
    [
        pytest.param("+74012345678", ("Europe/Kaliningrad",), id="Kaliningrad is not in 27 zones"),
        pytest.param("+78452123456", ("Europe/Saratov",), id="Saratov is an hour ahead of Moscow"),
        pytest.param("+78442123456", ("Europe/Moscow",), id="Volgograd is not"),
        pytest.param("+56612212345", ("America/Punta_Arenas",), id="Magallanes"),
        pytest.param("+56672212345", ("America/Coyhaique",), id="Aysén"),
        pytest.param("+56322100279", ("America/Santiago", "Pacific/Easter"), id="Easter Island has Valparaíso's code"),
        pytest.param("+56322212345", ("America/Santiago",), id="Valparaíso itself"),
        pytest.param("+869912345678", ("Asia/Shanghai", "Asia/Urumqi"), id="Urumqi"),
        pytest.param("+903922281234", ("Asia/Famagusta", "Europe/Istanbul"), id="Northern Cyprus"),
        pytest.param("+905338212345", ("Asia/Famagusta", "Europe/Istanbul"), id="a mobile there"),
        pytest.param("+905321234567", ("Europe/Istanbul",), id="a Turkish mobile"),
        pytest.param("+2434123456", ("Africa/Kinshasa", "Africa/Lubumbashi"), id="Kasai"),
        pytest.param("+972561234567", ("Asia/Gaza", "Asia/Hebron", "Asia/Jerusalem"), id="a Palestinian mobile"),
    ],
)
def test_known_errors_of_libphonenumber_are_corrected(text: str, zones: tuple[str, ...]) -> None:
    assert callee_zones.read_number(text).zones == zones


def test_number_of_several_countries_has_all_their_zones() -> None:
    zones = callee_zones.read_number("+18765550123").zones
    assert {"America/Jamaica", "America/New_York", "Pacific/Honolulu"} <= set(zones)


HOURS = exhaustive.every(4, range(0, 366 * 24, 6))
YEAR_OF_HOURS = [datetime(2026, 11, 26, tzinfo=UTC) + timedelta(hours=hour) for hour in HOURS]


def offsets(zone: str) -> tuple[timedelta | None, ...]:
    """The offset that a zone has each day of a year, or every six hours."""
    clock = zoneinfo.ZoneInfo(zone)
    return tuple(clock.utcoffset(instant.astimezone(clock)) for instant in YEAR_OF_HOURS)


def test_countries_that_share_numbers_have_no_other_clock() -> None:
    """libphonenumber gives a shared number to one country (Guadeloupe, not Saint-Martin)."""
    for region, number in examples(PhoneNumberType.MOBILE, PhoneNumberType.TOLL_FREE):
        if number.kind in {NumberKind.MOBILE, NumberKind.TOLL_FREE} and region not in {"AR", "BR"}:
            own = {offsets(zone) for zone in zone_names.of_country(region) if zone not in INHABITANTS}
            assert own <= {offsets(zone) for zone in number.zones}, region


def test_each_kind_of_number_has_a_common_opening() -> None:
    """At the default hours, in each month: with more zones NO_COMMON_OPENING must stay rare."""
    never_open = set()
    for region, number in examples(*PhoneNumberType.values()):
        clock = CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=number.zones)
        for month in exhaustive.every(3, range(1, 13)):
            start = datetime(2027, month, 5, tzinfo=UTC)
            if call_windows.common_minutes(clock, DEFAULT_INTERVALS, start) < timedelta(minutes=60):
                never_open.add((region, number.kind))
    assert never_open == set()


def test_sparse_zones_of_a_mobile_are_listed_separately() -> None:
    number = callee_zones.read_number(AUSTRALIAN_MOBILE)
    assert set(number.sparse_zones) == {
        *("Antarctica/Macquarie", "Australia/Eucla", "Australia/Lindeman", "Australia/Lord_Howe"),
        *("Indian/Christmas", "Indian/Cocos"),
    }
    assert callee_zones.read_number(SLOVAK_MOBILE).sparse_zones == ()


def test_zone_data_and_their_version_are_the_wheels() -> None:
    assert zoneinfo.TZPATH == ()
    year, release = metadata.version("tzdata").split(".")
    assert f"{year}{'abcdefghij'[int(release) - 1]}" == zone_names.TZDATA_VERSION


def test_every_place_has_the_clock_of_its_own_file() -> None:
    months = exhaustive.every(6, range(1, 13))
    instants = [datetime(year, month, 1, tzinfo=UTC) for year in range(1950, 2050, 7) for month in months]
    for name in zone_names.PLACES:
        own = zoneinfo.ZoneInfo(name)
        clock = zone_names.zone(name)
        assert [str(at.astimezone(clock)) for at in instants] == [str(at.astimezone(own)) for at in instants]


def test_places_with_the_same_time_share_a_clock() -> None:
    assert zone_names.zone("Europe/Bratislava") is zone_names.zone("Europe/Prague")
    assert zone_names.zone("Europe/Bratislava") is not zone_names.zone("Europe/Vienna")


NUMBER = callee_zones.read_number(SLOVAK_MOBILE)
NOWHERE = callee_zones.read_number(UNIVERSAL_TOLL_FREE)
OFFSET, INSTANT = "2026-04-02T07:00+10:30", "2026-04-02T07:00Z"
NONE: dict[str, Any] = {"candidate_zone": None, "number": None, "company_zone": None}
ALL = {"candidate_zone": "Asia/Tokyo", "number": NUMBER, "company_zone": "Asia/Seoul"}


DECIDING = {
    "a zone in the text, also with an offset": (OFFSET + "[Australia/Adelaide]", ALL, "ZONE", "Australia/Adelaide"),
    "a zone with an instant": ("2026-04-02T07:00Z[Australia/Adelaide]", ALL, "ZONE", "Australia/Adelaide"),
    "an offset": (OFFSET, ALL, "OFFSET", None),
    "+00:00": ("2026-04-02T07:00+00:00", ALL, "OFFSET", None),
    "Z names no clock, so the candidate's": (INSTANT, ALL, "CANDIDATE", "Asia/Tokyo"),
    "nor does -00:00, so the number's": (
        "2026-04-02T07:00-00:00",
        ALL | {"candidate_zone": None},
        "PHONE_NUMBER",
        "Europe/Bratislava",
    ),
    "a number without zones leaves it to the company": (
        "2026-04-02T07:00",
        ALL | {"candidate_zone": None, "number": NOWHERE},
        "COMPANY",
        "Asia/Seoul",
    ),
    "no time was asked for": (None, NONE | {"candidate_zone": "Asia/Calcutta"}, "CANDIDATE", "Asia/Kolkata"),
    "no number": (None, NONE | {"company_zone": "Asia/Seoul"}, "COMPANY", "Asia/Seoul"),
}


@pytest.mark.parametrize(("text", "known", "source", "zone"), DECIDING.values(), ids=DECIDING)
def test_the_most_exact_clock_decides(text: str | None, known: dict[str, Any], source: str, zone: str | None) -> None:
    requested = None if text is None else requested_time.read(text)
    offset = requested.offset if requested is not None and source == "OFFSET" else None
    clock = CalleeClock(source=TimezoneSource(source), offset=offset, zones=(zone,) if zone else ())
    assert callee_zones.deciding_clock(requested, **known) == clock


@pytest.mark.parametrize(
    ("text", "known"),
    [
        pytest.param(INSTANT, NONE, id="an instant and nothing else"),
        pytest.param("2026-04-02T07:00", NONE | {"number": NOWHERE}, id="a number without zones"),
        pytest.param(None, NONE, id="nothing at all"),
        pytest.param(None, ALL | {"candidate_zone": "Europe/Atlantis"}, id="a candidate's zone that no longer exists"),
        pytest.param(
            None, NONE | {"number": NOWHERE, "company_zone": "CET"}, id="a company's zone that no longer exists"
        ),
    ],
)
def test_unknown_clock_blocks_the_call(text: str | None, known: dict[str, Any]) -> None:
    requested = None if text is None else requested_time.read(text)
    with pytest.raises(TimezoneUnknown):
        callee_zones.deciding_clock(requested, **known)


def test_large_modules_of_phonenumbers_are_not_imported() -> None:
    imported = {
        name
        for path in Path(scheduler.timing.__path__[0]).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert {name for name in imported if name.startswith("phonenumbers")} == {
        "phonenumbers",
        "phonenumbers.timezone",
        "phonenumbers.tzdata",  # imported by the previous module
    }


@pytest.mark.parametrize(
    ("number", "zones"),
    [
        pytest.param("+61733334444", ("Australia/Brisbane",), id="a range that is known to be in Brisbane"),
        pytest.param("+61738211234", ("Australia/Brisbane", "Australia/Sydney"), id="Queensland without more detail"),
        pytest.param("+14232021234", ("America/New_York",), id="an exchange in the east of Tennessee"),
        pytest.param("+14235551234", ("America/Chicago", "America/New_York"), id="its area, which lies in two zones"),
        pytest.param("+351212345678", ("Europe/Lisbon",), id="Lisbon's area is not the Azores'"),
        pytest.param("+78123456789", ("Europe/Moscow",), id="nor is Saint Petersburg's Kazakhstan's"),
    ],
)
def test_number_of_a_known_area_has_all_zones_of_that_area(number: str, zones: tuple[str, ...]) -> None:
    assert callee_zones.read_number(number).zones == zones
