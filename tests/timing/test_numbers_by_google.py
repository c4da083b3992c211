"""A number's zones are those that Google's own libphonenumber gives, but for what it has learned since.

Google's code is Java, Debian's package of release 8.13.51; `phonenumbers` is a port of a later one. Where the later
release knows more, the number is listed here with the release that brought it. What Google's code said is kept in
`google/zones_of_numbers.tsv`; where the package is installed it is asked again, and in CI it must be.
"""

import os
from collections.abc import Mapping

import phonenumbers
import pytest
from phonenumbers.tzdata import TIMEZONE_DATA

from scheduler.timing import callee_zones
from scheduler.timing.callee_zones import NumberKind
from tests.timing.google import zones

RELEASE, GOOGLES = zones.kept()
NOT_YET_VALID = frozenset(
    # Area codes, ranges and kinds that were opened after 8.13.51.
    {
        *("+12572345678", "+12732345678"),  # Canada
        *("+12742345678", "+13242345678", "+13532345678", "+16862345678"),  # the United States
        *("+17382345678", "+17482345678", "+18212345678", "+19752345678"),
        *("+18090123456", "+18290123456", "+18490123456"),  # toll-free, Dominican Republic
        *("+2302190123", "+23270000000", "+260555012345"),  # Mauritius, Sierra Leone, Zambia
        *("+262268801234", "+262268901234", "+508234567"),  # Réunion, Mayotte, Saint-Pierre
        *("+34400000000", "+526570123456", "+56234567890", "+56600123456"),  # Spain, Mexico, Chile
        *("+590810123456", "+594890123456"),  # Guadeloupe, French Guiana
        *("+5978012345", "+5979012345", "+59821123"),  # Suriname, Uruguay
        *("+61851401234", "+61855012345"),  # Australia
        *("+78560123456", "+78570123456", "+78601234567"),  # Russia
        *("+9742345678", "+97626012345"),  # Qatar, Mongolia
    }
)
ALL_OF_MEXICO = (
    *("America/Cancun", "America/Ciudad_Juarez", "America/Matamoros", "America/Mazatlan"),
    *("America/Mexico_City", "America/New_York", "America/Ojinaga", "America/Tijuana"),
)
LEARNED_SINCE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # prefix: the release since which it has other zones, and these
    "+81": ("8.13.52", ("Asia/Tokyo",)),  # 8.13.51 gave all of Japan to Asia/Shanghai
    "+1928": ("8.13.53", ("America/Denver", "America/Phoenix")),  # the Navajo Nation keeps summer time
    "+1437": ("9.0.16", ("America/Toronto",)),
    "+52300": ("9.0.25", ALL_OF_MEXICO),
    "+52500": ("9.0.25", ALL_OF_MEXICO),
    "+52800": ("9.0.25", ALL_OF_MEXICO),
    "+52900": ("9.0.25", ALL_OF_MEXICO),
    "+52626": ("9.0.25", ("America/Ojinaga",)),
    "+52656": ("9.0.25", ("America/Ciudad_Juarez",)),
    "+52867": ("9.0.25", ("America/Matamoros",)),
    "+52877": ("9.0.25", ("America/Matamoros",)),
    "+52878": ("9.0.25", ("America/Matamoros",)),
    "+52894": ("9.0.25", ("America/Matamoros",)),
    "+52899": ("9.0.25", ("America/Matamoros",)),
    "+52983": ("9.0.25", ("America/Cancun",)),
    "+52984": ("9.0.25", ("America/Cancun",)),
    "+52987": ("9.0.25", ("America/Cancun",)),
    "+52998": ("9.0.25", ("America/Cancun",)),
    "+1709": ("after 9.0.35", ("America/Halifax", "America/St_Johns")),  # before, Puerto Rico stood for Halifax
    "+56441": ("after 9.0.35", ("America/Santiago",)),  # Easter Island no more among those of all Chile
    "+56600": ("after 9.0.35", ("America/Santiago",)),
    "+56800": ("after 9.0.35", ("America/Santiago",)),
}
A_MOBILE_SINCE = {"+16582345678": "America/Jamaica"}
"""8.13.51 held it to be a fixed line, which has the zone of its prefix; mobiles of +1 have those of the whole code."""


RUSSIA = (
    *("Asia/Anadyr", "Asia/Barnaul", "Asia/Chita", "Asia/Irkutsk", "Asia/Kamchatka", "Asia/Khandyga"),
    *("Asia/Krasnoyarsk", "Asia/Magadan", "Asia/Novokuznetsk", "Asia/Novosibirsk", "Asia/Omsk", "Asia/Sakhalin"),
    *("Asia/Srednekolymsk", "Asia/Tomsk", "Asia/Ust-Nera", "Asia/Vladivostok", "Asia/Yakutsk", "Asia/Yekaterinburg"),
    *("Europe/Astrakhan", "Europe/Kaliningrad", "Europe/Kirov", "Europe/Moscow", "Europe/Samara", "Europe/Saratov"),
    *("Europe/Ulyanovsk", "Europe/Volgograd"),
)
AUSTRALIA = (
    *("Australia/Adelaide", "Australia/Brisbane", "Australia/Broken_Hill", "Australia/Darwin", "Australia/Hobart"),
    *("Australia/Lindeman", "Australia/Melbourne", "Australia/Perth", "Australia/Sydney"),
)
ITS_OWN_ADDED: Mapping[tuple[str, str], tuple[str, ...]] = {
    # Where Google's zone is another country's alone, those of the number's own country are added: the country, what
    # Google names, and what is added.
    ("AU", "Indian/Christmas"): AUSTRALIA,
    ("BL", "America/Guadeloupe"): ("America/St_Barthelemy",),
    ("BY", "Europe/Moscow"): ("Europe/Minsk",),
    ("DZ", "Europe/Paris"): ("Africa/Algiers",),
    ("EE", "Europe/Bucharest"): ("Europe/Tallinn",),
    ("ER", "Africa/Nairobi"): ("Africa/Asmara",),
    ("FM", "Pacific/Guadalcanal"): ("Pacific/Chuuk", "Pacific/Kosrae", "Pacific/Pohnpei"),
    ("FM", "Pacific/Port_Moresby"): ("Pacific/Chuuk", "Pacific/Kosrae", "Pacific/Pohnpei"),
    ("GW", "Atlantic/Reykjavik"): ("Africa/Bissau",),
    ("IE", "Europe/Guernsey Europe/Isle_of_Man Europe/London"): ("Europe/Dublin",),
    ("KP", "Asia/Seoul"): ("Asia/Pyongyang",),
    ("LR", "Atlantic/Reykjavik"): ("Africa/Monrovia",),
    ("LT", "Europe/Bucharest"): ("Europe/Vilnius",),
    ("LV", "Europe/Bucharest"): ("Europe/Riga",),
    ("LY", "Europe/Bucharest"): ("Africa/Tripoli",),
    ("MA", "Atlantic/Canary"): ("Africa/Casablanca",),
    ("MO", "Asia/Shanghai"): ("Asia/Macau",),
    ("NI", "America/Chicago"): ("America/Managua",),
    ("PS", "Europe/Bucharest"): ("Asia/Gaza", "Asia/Hebron"),
    ("RU", "Europe/Bucharest"): RUSSIA,
    ("SS", "Africa/Nairobi"): ("Africa/Juba",),
}


THE_AREA_ADDED: Mapping[tuple[str, str], frozenset[tuple[str, ...]]] = {
    # Where no more than the area is known of a number, and parts of that area have a zone of their own, these are
    # added: 43 of the numbers here are of such areas.
    ("AU", "Australia/Perth"): frozenset({("Australia/Adelaide", "Australia/Sydney"), ("Australia/Adelaide",)}),
    ("AU", "Australia/Sydney"): frozenset({("Australia/Brisbane",)}),  # 07, Queensland
    ("BR", "America/Manaus"): frozenset({("America/Sao_Paulo",)}),
    ("BR", "America/Sao_Paulo"): frozenset({("America/Manaus",)}),
    ("CA", "America/Fort_Nelson"): frozenset(
        {("America/Edmonton", "America/Toronto", "America/Vancouver", "America/Winnipeg")}
    ),
    ("CA", "America/Toronto"): frozenset({("America/Halifax",), ("America/Winnipeg",)}),
    ("CA", "America/Vancouver"): frozenset({("America/Edmonton",)}),
    ("FI", "Europe/Helsinki"): frozenset({("Europe/Mariehamn",)}),
    ("US", "America/Adak America/Anchorage"): frozenset({("America/Juneau", "Pacific/Honolulu")}),
    ("US", "America/Boise America/Los_Angeles"): frozenset({("America/Denver",)}),
    ("US", "America/Chicago"): frozenset({("America/Denver",)}),
    ("US", "America/Denver"): frozenset({("America/Boise", "America/Los_Angeles")}),
    ("US", "America/Los_Angeles"): frozenset({("America/Denver",)}),
    ("US", "America/New_York"): frozenset({("America/Chicago",)}),
}

FORGOTTEN_ADDED = {
    # Where some of these numbers are and Google's code does not say.
    "+1907581": "America/Anchorage",
    "+611800": "Australia/Darwin",
    "+614": "Australia/Darwin",
    "+7800": "Europe/Kaliningrad",
    "+79": "Europe/Kaliningrad",
}


def by_our_rules(named: tuple[str, ...], kind: NumberKind) -> tuple[str, ...]:
    """Canonical names, sorted; without the nearly empty zones for a mobile; none for Etc/Unknown."""
    if named == ("Etc/Unknown",):
        return ()
    canonical = {callee_zones.check_zone(name) for name in named}
    if kind is NumberKind.MOBILE:
        canonical = {name for name in canonical if name not in callee_zones._INHABITANTS} or canonical
    return tuple(sorted(canonical))


def learned(number: str) -> str | None:
    """The longest listed prefix of a number."""
    return max((prefix for prefix in LEARNED_SINCE if number.startswith(prefix)), key=len, default=None)


def forgotten(number: str) -> str | None:
    return next((prefix for prefix in FORGOTTEN_ADDED if number.startswith(prefix)), None)


def test_the_numbers_are_of_all_regions_kinds_and_prefixes(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [callee_zones.read_number(number) for number in GOOGLES]
    assert len(numbers) >= 2_000
    # Western Sahara and Saint-Martin share every prefix with Morocco and Saint-Barthélemy, which come first.
    assert phonenumbers.SUPPORTED_REGIONS - {number.region for number in numbers} == {"EH", "MF"}
    assert {number.kind for number in numbers} == set(NumberKind)
    met = {prefix for prefix in TIMEZONE_DATA if any(number.startswith(f"+{prefix}") for number in GOOGLES)}
    assert len(met) >= 0.99 * len(TIMEZONE_DATA)
    with capsys.disabled():
        print(f"\n  {len(numbers)} numbers compared with {RELEASE}, {len(met)} of {len(TIMEZONE_DATA)} prefixes")


def test_a_number_has_the_zones_that_google_gives_it() -> None:
    seen: set[object] = set()
    for text, googles in GOOGLES.items():
        number = callee_zones.read_number(text)
        wanted = by_our_rules(googles, number.kind)
        if number.zones == wanted:
            continue
        if text in NOT_YET_VALID:
            assert googles == ("Etc/Unknown",), text
            assert number.zones, text
            seen.add(text)
        elif text in A_MOBILE_SINCE:
            assert (googles, number.kind) == ((A_MOBILE_SINCE[text],), NumberKind.MOBILE)
            seen.add(text)
        elif prefix := forgotten(text):
            assert number.zones == by_our_rules((*wanted, FORGOTTEN_ADDED[prefix]), number.kind), text
            seen.add(prefix)
        elif (place := (str(number.region), " ".join(wanted))) in ITS_OWN_ADDED:
            assert number.zones == by_our_rules((*wanted, *ITS_OWN_ADDED[place]), number.kind), text
            seen.add(place)
        elif (added := tuple(sorted(set(number.zones) - set(wanted)))) in THE_AREA_ADDED.get(place, ()):
            assert set(wanted) < set(number.zones), text
            seen.add((place, added))
        else:
            prefix = learned(text)
            assert prefix, f"{text} has {number.zones}, Google's code gives {wanted}"
            assert number.zones == by_our_rules(LEARNED_SINCE[prefix][1], number.kind), text
            seen.add(prefix)
    areas = {(place, added) for place, each in THE_AREA_ADDED.items() for added in each}
    listed = {*NOT_YET_VALID, *LEARNED_SINCE, *A_MOBILE_SINCE, *ITS_OWN_ADDED, *FORGOTTEN_ADDED, *areas}
    assert seen == listed, "a listed difference is none"


def test_what_is_kept_is_what_googles_code_says() -> None:
    if not zones.is_here() and os.environ.get("CI") != "true":
        pytest.skip("needs Java and Debian's libphonenumber8-java: `make debian` as root; CI has them")
    assert zones.asked_anew(GOOGLES) == (RELEASE, GOOGLES)
