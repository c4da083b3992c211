"""Facts about zones that are missing in libphonenumber and the tz database, each with its reason (November 2026).

`docs/reference/times.md` lists every entry of the second and third table, and a test compares them.
"""

from collections.abc import Mapping
from types import MappingProxyType

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
Brazil). In North America and Mexico mobile numbers have an area code, too, but cannot be recognised."""

MOBILES_IN_DISGUISE = ("569",)
"""Prefixes of mobile numbers that libphonenumber classifies as geographic. In Chile numbers can move between mobile and
fixed lines, so libphonenumber classifies all of them as "fixed line or mobile"."""
