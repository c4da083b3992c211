"""Zones: valid names, and facts that are missing in libphonenumber and the tz database."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from io import BytesIO
from types import MappingProxyType
from zoneinfo import ZoneInfo

from scheduler.domain.refusals import InvalidTimezone, TimezoneUnknown

_ZONE_DATA = resources.files("tzdata").joinpath("zoneinfo")
_COMPILED = _ZONE_DATA.joinpath("tzdata.zi").read_text(encoding="utf-8").splitlines()

TZDATA_VERSION = _COMPILED[0].removeprefix("# version ")
"""The version of the zone data, such as `2026f`."""

_BY_COUNTRY: dict[str, tuple[str, ...]] = {}
for _line in _ZONE_DATA.joinpath("zone.tab").read_text(encoding="utf-8").splitlines():
    if not _line.startswith("#"):
        _country, _, _name = _line.split("\t")[:3]
        _BY_COUNTRY[_country] = (*_BY_COUNTRY.get(_country, ()), _name)

PLACES = frozenset(name for names in _BY_COUNTRY.values() for name in names)
"""The canonical names: every Area/City that the zone data lists for some country (zone.tab).

This includes links: Europe/Bratislava is a link to Europe/Prague, because both have had the same time since 1970, but
it is still the name of the clock in Bratislava.
"""

_ALIASES = {
    alias: target
    for mark, target, alias in (line.split() for line in _COMPILED if line.startswith("L "))
    if target in PLACES and alias not in PLACES and "/" in alias
}
"""Old name -> canonical name, from the links of the same data (Asia/Calcutta -> Asia/Kolkata)."""

_SIMILAR = 0.85
"""Minimum similarity of a suggested name. Below it a suggestion would be a guess."""
_LONGEST = 64

_AS_WRITTEN = {name.lower(): name for name in (*PLACES, *_ALIASES)}


@lru_cache(maxsize=1024)
def check_zone(name: str) -> str:
    """Find the canonical IANA name of a zone. Raises InvalidTimezone, with the reason, for any other text.

    Old Area/City names are replaced by their current ones. Abbreviations (CET, EST5EDT), countries (Japan) and Etc/
    zones are refused: other programs interpret some of them differently, and they are not the clock of a place.
    """
    if canonical := canonical_or_none(name):
        return canonical
    raise InvalidTimezone(f"The time zone is invalid: {_fault(name)}.", reason=_fault(name))


def canonical_or_none(name: str) -> str | None:
    """Find the canonical name like `check_zone`, or None for any other text (such as Etc/Unknown)."""
    return name if name in PLACES else _ALIASES.get(name)


def of_country(region: str) -> tuple[str, ...]:
    """List the canonical names of all zones of a country (ISO 3166 alpha-2), empty for an unknown code."""
    return _BY_COUNTRY.get(region, ())


def zone(name: str) -> ZoneInfo:
    """Load the zone of a stored name. Raises TimezoneUnknown if the zone data no longer has that name."""
    canonical = canonical_or_none(name)
    if canonical is None:
        raise TimezoneUnknown
    return _CLOCKS[canonical]


def _clocks() -> dict[str, ZoneInfo]:
    """Load all zones. Zones with identical files share one object."""
    by_content: dict[bytes, ZoneInfo] = {}
    clocks = {}
    for name in sorted(PLACES):
        content = _ZONE_DATA.joinpath(*name.split("/")).read_bytes()
        if content not in by_content:
            by_content[content] = ZoneInfo.from_file(BytesIO(content), key=name)
        clocks[name] = by_content[content]
    return clocks


_CLOCKS = _clocks()
"""All zones, loaded at the start of the process (about 20 ms). Loaded on demand, the 58 zones of a toll-free number
would delay its first call by five milliseconds."""


def _fault(name: str) -> str:
    if as_written := _AS_WRITTEN.get(name.lower()):
        return f"it must be written {as_written}"
    if "/" not in name:
        return "it must be an Area/City name such as Europe/Bratislava, not an abbreviation or a country"
    if name.lower().startswith("etc/"):
        return "it is not a place; use the Area/City where the person lives"
    matches = get_close_matches(name.lower()[:_LONGEST], _AS_WRITTEN, n=1, cutoff=_SIMILAR)
    return (
        f"the zone does not exist; the closest name is {check_zone(_AS_WRITTEN[matches[0]])}"
        if matches
        else "the zone does not exist"
    )


# --- Facts about zones that are missing in libphonenumber and the tz database, each with its reason (November 2026)
# `docs/reference/times.md` lists every entry of the second and third table, and a test compares them.


FEWEST_INHABITANTS = 3_000
"""A zone with fewer inhabitants does not count for mobile numbers (F2-4)."""

INHABITANTS: Mapping[str, int] = MappingProxyType(
    {
        # The last census or estimate known in November 2026, rounded. The population was looked up for each zone of
        # zone.tab. A test fails when the tz database gets a new zone.
        "America/Adak": 300,
        "America/Danmarkshavn": 10,
        "America/Dawson": 2_300,
        "America/Metlakatla": 1_500,
        "America/North_Dakota/Center": 1_900,
        "America/Resolute": 200,
        "America/Scoresbysund": 350,
        "America/Thule": 600,
        "America/Yakutat": 700,
        # Research stations: their crews change with the seasons, and none has its own numbering plan.
        "Antarctica/Casey": 150,
        "Antarctica/Davis": 100,
        "Antarctica/DumontDUrville": 100,
        "Antarctica/Macquarie": 40,
        "Antarctica/Mawson": 60,
        "Antarctica/McMurdo": 1_200,
        "Antarctica/Palmer": 40,
        "Antarctica/Rothera": 150,
        "Antarctica/Syowa": 60,
        "Antarctica/Troll": 40,
        "Antarctica/Vostok": 30,
        "Arctic/Longyearbyen": 2_900,
        "Atlantic/South_Georgia": 30,
        "Australia/Eucla": 300,
        "Australia/Lindeman": 1_900,
        "Australia/Lord_Howe": 450,
        "Europe/Busingen": 1_600,
        "Europe/Vatican": 900,
        "Indian/Chagos": 0,  # soldiers only, several thousand, who are posted there for some months
        "Indian/Christmas": 1_700,
        "Indian/Cocos": 600,
        "Indian/Kerguelen": 100,
        "Pacific/Chatham": 600,
        "Pacific/Fakaofo": 1_600,
        "Pacific/Gambier": 1_600,
        "Pacific/Kanton": 50,
        "Pacific/Midway": 40,
        "Pacific/Niue": 1_700,
        "Pacific/Norfolk": 2_200,
        "Pacific/Pitcairn": 50,
        "Pacific/Wake": 100,
    }
)
"""Zones with fewer than 3,000 inhabitants. A nationwide mobile number is assumed to be in another zone, if possible:
Lord Howe and Cocos would close half of each Australian working day."""

CORRECTED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # As of libphonenumber 9.0.43. Area codes whose zone in its data is wrong; these zones replace it.
        "5661": ("America/Punta_Arenas",),  # Magallanes keeps summer time all year; given Santiago's
        "5667": ("America/Coyhaique",),  # Aysén does so since 2025
        "7401": ("Europe/Kaliningrad",),  # given Bucharest's alone, an hour ahead in summer
        "7845": ("Europe/Saratov",),  # given Moscow's, an hour behind since December 2016
    }
)
"""Prefix (with calling code) of geographic numbers -> the zones of that area."""

ADDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # As of libphonenumber 9.0.43. Prefixes of numbers that may also be in a zone that its data omits.
        "1907581": ("America/Anchorage",),  # Unalaska; given the time of Honolulu, an hour or two behind
        "2434": ("Africa/Lubumbashi",),  # Kasai, an hour ahead of Kinshasa
        "2435": ("Africa/Lubumbashi",),  # Orientale
        "2436": ("Africa/Lubumbashi",),  # Kivu and Maniema
        "38065": ("Europe/Simferopol",),  # Crimea, an hour ahead of Kyiv in winter
        "38069": ("Europe/Simferopol",),  # Sevastopol
        "5597": ("America/Eirunepe",),  # the west of Amazonas, an hour behind Manaus
        "5632210": ("Pacific/Easter",),  # Easter Island has Valparaíso's area code
        "5632255": ("Pacific/Easter",),
        "6759": ("Pacific/Bougainville",),  # the islands' area, in which Bougainville is an hour ahead
        "7800": ("Europe/Kaliningrad",),  # toll-free; given Bucharest instead among Russia's zones
        "79": ("Europe/Kaliningrad",),  # mobiles; the same
        **dict.fromkeys(
            # Xinjiang's area codes. Both Beijing's time and a time two hours behind are in use there.
            ("86901", "86902", "86903", "86906", "86908", "86909", "8699"),
            ("Asia/Urumqi",),
        ),
        "90392": ("Asia/Famagusta",),  # Northern Cyprus has Turkish numbers, and is an hour behind in winter
        "905338": ("Asia/Famagusta",),  # its mobiles
        "905428": ("Asia/Famagusta",),
        "97256": ("Asia/Gaza", "Asia/Hebron"),  # Palestinian mobiles under Israel's code; summer time differs
        "97259": ("Asia/Gaza", "Asia/Hebron"),
    }
)
"""Prefix (with calling code) -> zones that must be open as well."""

MOBILES_WITH_AN_AREA = frozenset({54, 55})
"""Calling codes of countries whose mobile numbers have an area code and are recognised by libphonenumber (Argentina,
Brazil). In North America and Mexico mobile numbers also have an area code, but cannot be recognised."""

MOBILES_IN_DISGUISE = ("569",)
"""Prefixes of mobile numbers that libphonenumber classifies as geographic. In Chile numbers can move between mobile and
fixed lines, so libphonenumber classifies all of them as "fixed line or mobile"."""
