"""A number's zones equal the zones that Google's own libphonenumber returns, except for listed differences.

Google's code is Java, Debian's package of release 8.13.51. `phonenumbers` is a port of a later release. Numbers that
changed since are listed here with the release of the change. The results of Google's code are stored in
`google/zones_of_numbers.tsv`. Where the package is installed, as in CI, they are compared with the code again.
"""

import os
from collections.abc import Callable, Mapping

import phonenumbers
import pytest
from phonenumbers.tzdata import TIMEZONE_DATA

from scheduler.timing import callee_zones, zone_names
from scheduler.timing.callee_zones import CalleeNumber, NumberKind
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
LEARNED_SINCE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # prefix: the release that changed its zones, and the new zones
    "+81": ("8.13.52", ("Asia/Tokyo",)),  # 8.13.51 gave all of Japan to Asia/Shanghai
    "+1928": ("8.13.53", ("America/Denver", "America/Phoenix")),  # the Navajo Nation keeps summer time
    "+1437": ("9.0.16", ("America/Toronto",)),
    "+52626": ("9.0.25", ("America/Ojinaga",)),
    "+52656": ("9.0.25", ("America/Ciudad_Juarez",)),
    **dict.fromkeys(("+52867", "+52877", "+52878", "+52894", "+52899"), ("9.0.25", ("America/Matamoros",))),
    **dict.fromkeys(("+52983", "+52984", "+52987", "+52998"), ("9.0.25", ("America/Cancun",))),
    "+1709": ("after 9.0.35", ("America/Halifax", "America/St_Johns")),  # before: Puerto Rico instead of Halifax
}
A_MOBILE_SINCE = {"+16582345678": "America/Jamaica"}
"""8.13.51 took it for a fixed line, with the zone of its prefix. Mobiles of +1 have the zones of the whole code."""


RUSSIA = (
    *("Asia/Anadyr", "Asia/Barnaul", "Asia/Chita", "Asia/Irkutsk", "Asia/Kamchatka", "Asia/Khandyga"),
    *("Asia/Krasnoyarsk", "Asia/Magadan", "Asia/Novokuznetsk", "Asia/Novosibirsk", "Asia/Omsk", "Asia/Sakhalin"),
    *("Asia/Srednekolymsk", "Asia/Tomsk", "Asia/Ust-Nera", "Asia/Vladivostok", "Asia/Yakutsk", "Asia/Yekaterinburg"),
    *("Europe/Astrakhan", "Europe/Kaliningrad", "Europe/Kirov", "Europe/Moscow", "Europe/Samara", "Europe/Saratov"),
    *("Europe/Ulyanovsk", "Europe/Volgograd"),
)
AUSTRALIA = (
    *("Australia/Adelaide", "Australia/Brisbane", "Australia/Broken_Hill", "Australia/Darwin", "Australia/Hobart"),
    *("Australia/Melbourne", "Australia/Perth", "Australia/Sydney"),
)
ITS_OWN_ADDED: Mapping[tuple[str, str], tuple[str, ...]] = {
    # If all of Google's zones are in another country, the zones of the number's own country are added.
    # (country, Google's zones): added zones
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
    ("SS", "Africa/Nairobi"): ("Africa/Juba",),
}


THE_AREA_ADDED: Mapping[tuple[str, str], frozenset[tuple[str, ...]]] = {
    # If only the area of a number is known, the zones of all its parts are added. This holds for 43 of the numbers.
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

FORGOTTEN_ADDED: Mapping[str, tuple[str, ...]] = {
    # Zones of some of these numbers that Google's code omits.
    "+1907581": ("America/Anchorage",),
    "+2434": ("Africa/Lubumbashi",),
    "+2435": ("Africa/Lubumbashi",),
    "+2436": ("Africa/Lubumbashi",),
    "+6759": ("Pacific/Bougainville",),
    "+7800": ("Europe/Kaliningrad",),
    "+79": ("Europe/Kaliningrad",),
    "+86901": ("Asia/Urumqi",),
}
WRONG: Mapping[str, tuple[str, ...]] = {
    # Area codes for which Google's code names another place.
    "+5661": ("America/Punta_Arenas",),
    "+7401": ("Europe/Kaliningrad",),
    "+7845": ("Europe/Saratov",),
}
THE_COUNTRY_ADDED: Mapping[str, tuple[str, ...]] = {
    # Zones of numbers without an area, in addition to Google's zones. Listed by hand from the tz database's zone.tab,
    # without the zones in which fewer than 3,000 people live.
    "AR": (
        *("America/Argentina/Buenos_Aires", "America/Argentina/Catamarca", "America/Argentina/Cordoba"),
        *("America/Argentina/Jujuy", "America/Argentina/La_Rioja", "America/Argentina/Mendoza"),
        *("America/Argentina/Rio_Gallegos", "America/Argentina/Salta", "America/Argentina/San_Juan"),
        *("America/Argentina/San_Luis", "America/Argentina/Tucuman", "America/Argentina/Ushuaia"),
    ),
    "AU": AUSTRALIA,
    "BR": (
        *("America/Araguaina", "America/Bahia", "America/Belem", "America/Boa_Vista", "America/Campo_Grande"),
        *("America/Cuiaba", "America/Eirunepe", "America/Fortaleza", "America/Maceio", "America/Manaus"),
        *("America/Noronha", "America/Porto_Velho", "America/Recife", "America/Rio_Branco", "America/Santarem"),
        "America/Sao_Paulo",
    ),
    "CA": (
        *("America/Atikokan", "America/Blanc-Sablon", "America/Cambridge_Bay", "America/Creston"),
        *("America/Dawson_Creek", "America/Edmonton", "America/Fort_Nelson", "America/Glace_Bay"),
        *("America/Goose_Bay", "America/Halifax", "America/Inuvik", "America/Iqaluit", "America/Moncton"),
        *("America/Rankin_Inlet", "America/Regina", "America/St_Johns", "America/Swift_Current", "America/Toronto"),
        *("America/Vancouver", "America/Whitehorse", "America/Winnipeg"),
    ),
    "CL": ("America/Coyhaique", "America/Punta_Arenas", "America/Santiago", "Pacific/Easter"),
    "CN": ("Asia/Shanghai", "Asia/Urumqi"),
    "CY": ("Asia/Famagusta", "Asia/Nicosia"),
    "ES": ("Africa/Ceuta", "Atlantic/Canary", "Europe/Madrid"),
    "ID": ("Asia/Jakarta", "Asia/Jayapura", "Asia/Makassar", "Asia/Pontianak"),
    "KZ": (
        *("Asia/Almaty", "Asia/Aqtau", "Asia/Aqtobe", "Asia/Atyrau", "Asia/Oral", "Asia/Qostanay", "Asia/Qyzylorda"),
    ),
    "MH": ("Pacific/Kwajalein", "Pacific/Majuro"),
    "MX": (
        *("America/Bahia_Banderas", "America/Cancun", "America/Chihuahua", "America/Ciudad_Juarez"),
        *("America/Hermosillo", "America/Matamoros", "America/Mazatlan", "America/Merida", "America/Mexico_City"),
        *("America/Monterrey", "America/Ojinaga", "America/Tijuana"),
    ),
    "MY": ("Asia/Kuala_Lumpur", "Asia/Kuching"),
    "PG": ("Pacific/Bougainville", "Pacific/Port_Moresby"),
    "PS": ("Asia/Gaza", "Asia/Hebron"),
    "PT": ("Atlantic/Azores", "Atlantic/Madeira", "Europe/Lisbon"),
    "RU": RUSSIA,
    "UA": ("Europe/Kyiv", "Europe/Simferopol"),
    "US": (
        *("America/Anchorage", "America/Boise", "America/Chicago", "America/Denver", "America/Detroit"),
        *("America/Indiana/Indianapolis", "America/Indiana/Knox", "America/Indiana/Marengo"),
        *("America/Indiana/Petersburg", "America/Indiana/Tell_City", "America/Indiana/Vevay"),
        *("America/Indiana/Vincennes", "America/Indiana/Winamac", "America/Juneau"),
        *("America/Kentucky/Louisville", "America/Kentucky/Monticello", "America/Los_Angeles"),
        *("America/Menominee", "America/New_York", "America/Nome", "America/North_Dakota/Beulah"),
        *("America/North_Dakota/New_Salem", "America/Phoenix", "America/Sitka", "Pacific/Honolulu"),
    ),
    "UZ": ("Asia/Samarkand", "Asia/Tashkent"),
}
NEARLY_EMPTY = frozenset(
    {
        *("America/Adak", "America/North_Dakota/Center", "America/Scoresbysund", "America/Thule"),
        *("Arctic/Longyearbyen", "Australia/Eucla", "Australia/Lord_Howe", "Europe/Vatican", "Indian/Chagos"),
        *("Indian/Christmas", "Indian/Cocos", "Pacific/Chatham", "Pacific/Fakaofo", "Pacific/Gambier"),
        *("Pacific/Kanton", "Pacific/Niue", "Pacific/Norfolk", "Australia/Lindeman"),
    }
)


def is_of_no_area(number: CalleeNumber) -> bool:
    """Check whether a number has no area code.

    Mobiles of Argentina and Brazil have one. libphonenumber takes Chile's mobiles for geographic numbers.
    """
    if number.e164.startswith("+569"):
        return True
    if number.kind is NumberKind.MOBILE:
        return number.region not in {"AR", "BR"}
    return number.kind not in {NumberKind.FIXED_LINE, NumberKind.FIXED_OR_MOBILE}


def by_our_rules(named: tuple[str, ...], kind: NumberKind) -> tuple[str, ...]:
    """Return sorted canonical names, without sparsely populated zones for a mobile, empty for Etc/Unknown."""
    if named == ("Etc/Unknown",):
        return ()
    canonical = {zone_names.check_zone(name) for name in named}
    if kind is NumberKind.MOBILE:
        canonical = canonical - NEARLY_EMPTY or canonical
    return tuple(sorted(canonical))


def listed_prefix(number: str, listed: Mapping[str, object]) -> str | None:
    """Find the longest listed prefix of a number."""
    return max((prefix for prefix in listed if number.startswith(prefix)), key=len, default=None)


def with_what_is_added(number: CalleeNumber, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], set[object]]:
    """Add the country's zones to a number without an area, and the zones that Google omits.

    Return the zones, and the keys of the additions.
    """
    added: set[object] = set()
    named = set(wanted)
    if is_of_no_area(number) and not set(THE_COUNTRY_ADDED.get(str(number.region), ())) <= named:
        named.update(THE_COUNTRY_ADDED[str(number.region)])
        added.add(number.region)
    if (prefix := listed_prefix(number.e164, FORGOTTEN_ADDED)) and not set(FORGOTTEN_ADDED[prefix]) <= set(wanted):
        named.update(FORGOTTEN_ADDED[prefix])
        added.add(prefix)
    return by_our_rules(tuple(named), number.kind), added


def test_the_numbers_are_of_all_regions_kinds_and_prefixes(aloud: Callable[[str], None]) -> None:
    numbers = [callee_zones.read_number(number) for number in GOOGLES]
    assert len(numbers) >= 2_000
    # Western Sahara and Saint-Martin share every prefix with Morocco and Saint-Barthélemy, which come first.
    assert phonenumbers.SUPPORTED_REGIONS - {number.region for number in numbers} == {"EH", "MF"}
    assert {number.kind for number in numbers} == set(NumberKind)
    met = TIMEZONE_DATA.keys() & {number[1:end] for number in GOOGLES for end in range(2, len(number) + 1)}
    assert len(met) >= 0.99 * len(TIMEZONE_DATA)
    aloud(f"  {len(numbers)} numbers compared with {RELEASE}, {len(met)} of {len(TIMEZONE_DATA)} prefixes")


def test_number_has_googles_zones_except_for_listed_differences() -> None:
    seen: set[object] = set()
    for text, googles in GOOGLES.items():
        number = callee_zones.read_number(text)
        wanted = by_our_rules(googles, number.kind)
        if number.zones == wanted:
            continue
        widened, added = with_what_is_added(number, wanted)
        if text in NOT_YET_VALID:
            assert googles == ("Etc/Unknown",), text
            assert number.zones, text
            seen.add(text)
        elif text in A_MOBILE_SINCE:
            assert (googles, number.kind) == ((A_MOBILE_SINCE[text],), NumberKind.MOBILE)
            seen.add(text)
        elif prefix := listed_prefix(text, WRONG):
            assert number.zones == WRONG[prefix], text
            seen.add(prefix)
        elif added and number.zones == widened:
            seen |= added
        elif (place := (str(number.region), " ".join(wanted))) in ITS_OWN_ADDED:
            assert number.zones == by_our_rules((*wanted, *ITS_OWN_ADDED[place]), number.kind), text
            seen.add(place)
        elif (added_zones := tuple(sorted(set(number.zones) - set(wanted)))) in THE_AREA_ADDED.get(place, ()):
            assert set(wanted) < set(number.zones), text
            seen.add((place, added_zones))
        else:
            prefix = listed_prefix(text, LEARNED_SINCE)
            assert prefix, f"{text} has {number.zones}, Google's code gives {wanted}"
            widened, added = with_what_is_added(number, by_our_rules(LEARNED_SINCE[prefix][1], number.kind))
            assert number.zones == widened, text
            seen |= {prefix, *added}
    areas = {(place, added) for place, each in THE_AREA_ADDED.items() for added in each}
    listed = {*NOT_YET_VALID, *LEARNED_SINCE, *A_MOBILE_SINCE, *ITS_OWN_ADDED, *FORGOTTEN_ADDED, *WRONG, *areas}
    assert seen == listed | THE_COUNTRY_ADDED.keys(), "a listed difference no longer exists"


def test_stored_zones_equal_those_of_googles_code() -> None:
    if not zones.is_here() and os.environ.get("CI") != "true":
        pytest.skip("needs Java and Debian's libphonenumber8-java: `make debian` as root; CI has them")
    assert zones.zones_by_google(GOOGLES) == (RELEASE, GOOGLES)
