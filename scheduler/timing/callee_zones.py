"""In which zones a phone may be, and whose clock decides. The only door to `phonenumbers`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

import phonenumbers
from phonenumbers import PhoneNumberType
from phonenumbers.timezone import time_zones_for_number
from phonenumbers.tzdata import TIMEZONE_DATA, TIMEZONE_LONGEST_PREFIX

from scheduler.domain.refusals import InvalidTimezone, NumberNotAllowed, PhoneNumberInvalid, TimezoneUnknown
from scheduler.domain.schedule import CalleeClock, TimezoneSource
from scheduler.timing.requested_time import RequestedTime
from scheduler.timing.zone_names import TZDATA_VERSION, canonical_or_none, check_zone, of_country

__all__ = [
    "TZDATA_VERSION",
    "CalleeNumber",
    "NumberKind",
    "check_allowed",
    "check_zone",
    "deciding_clock",
    "read_number",
]


class NumberKind(StrEnum):
    FIXED_LINE = "FIXED_LINE"
    MOBILE = "MOBILE"
    FIXED_OR_MOBILE = "FIXED_OR_MOBILE"
    """North America: the number does not tell the two apart."""
    TOLL_FREE = "TOLL_FREE"
    PREMIUM = "PREMIUM"
    SHARED_COST = "SHARED_COST"
    SATELLITE = "SATELLITE"
    PERSONAL = "PERSONAL"
    VOIP = "VOIP"
    OTHER = "OTHER"
    """Pagers, voicemail access, company-wide numbers."""


_KINDS: Mapping[int, NumberKind] = MappingProxyType(
    {
        PhoneNumberType.FIXED_LINE: NumberKind.FIXED_LINE,
        PhoneNumberType.MOBILE: NumberKind.MOBILE,
        PhoneNumberType.FIXED_LINE_OR_MOBILE: NumberKind.FIXED_OR_MOBILE,
        PhoneNumberType.TOLL_FREE: NumberKind.TOLL_FREE,
        PhoneNumberType.PREMIUM_RATE: NumberKind.PREMIUM,
        PhoneNumberType.SHARED_COST: NumberKind.SHARED_COST,
        PhoneNumberType.PERSONAL_NUMBER: NumberKind.PERSONAL,
        PhoneNumberType.VOIP: NumberKind.VOIP,
    }
)

_SATELLITE_CODES = frozenset({870, 881, 882, 883})
"""Inmarsat, the global satellite systems, and both codes of international networks (Thuraya is within 882).
libphonenumber calls them mobile or VoIP; the bill does not."""

_NEVER_CALLED: Mapping[NumberKind, str] = MappingProxyType(
    {
        NumberKind.PREMIUM: "premium-rate",
        NumberKind.SHARED_COST: "shared-cost",
        NumberKind.SATELLITE: "satellite",
    }
)

_INHABITANTS: Mapping[str, int] = MappingProxyType(
    {
        # As of November 2026: the last census or estimate that was known then, rounded. Only what libphonenumber gives.
        "America/Adak": 300,
        "America/North_Dakota/Center": 1_900,
        "America/Scoresbysund": 350,
        "America/Thule": 600,
        "Antarctica/Macquarie": 40,
        "Arctic/Longyearbyen": 2_900,
        "Australia/Eucla": 300,
        "Australia/Lord_Howe": 450,
        "Europe/Vatican": 900,
        "Indian/Chagos": 0,  # but for some thousand soldiers, who are sent there and go again
        "Indian/Christmas": 1_700,
        "Indian/Cocos": 600,
        "Pacific/Chatham": 600,
        "Pacific/Fakaofo": 1_600,
        "Pacific/Gambier": 1_600,
        "Pacific/Kanton": 50,
        "Pacific/Niue": 1_700,
        "Pacific/Norfolk": 2_200,
    }
)
"""Zones with fewer than 3,000 inhabitants. A nationwide mobile number is not held to be there while it may be
somewhere else: Lord Howe and Cocos would close half of each Australian working day."""


_FORGOTTEN: Mapping[str, str] = MappingProxyType(
    {
        # As of November 2026, libphonenumber 9.0.43.
        "1907581": "America/Anchorage",  # Unalaska is given the time of Honolulu, an hour or two behind
        "611800": "Australia/Darwin",  # which keeps no summer time, between Perth and Adelaide
        "614": "Australia/Darwin",
        "7800": "Europe/Kaliningrad",  # Bucharest stands in for it among Russia's zones, an hour ahead in summer
        "79": "Europe/Kaliningrad",
    }
)
"""Prefixes of numbers that may be somewhere that the metadata leave out; that clock must be open, too."""


@dataclass(frozen=True, kw_only=True)
class CalleeNumber:
    """A number that exists. Its text is personal data and shows in no repr."""

    e164: str = field(repr=False)
    """Canonical: two spellings of one line are one text here."""
    kind: NumberKind
    region: str | None
    """ISO 3166 alpha-2; None for numbers of no country (+800)."""
    zones: tuple[str, ...]
    """Canonical IANA names, sorted; the phone may be in any of them. Empty when nothing is known."""


@lru_cache(maxsize=4096)
def read_number(text: str) -> CalleeNumber:
    """Read an E.164 number; PhoneNumberInvalid says what is wrong and never repeats the number.

    Zones and kinds are those of Google's libphonenumber. It gives the dominant zone of a number's prefix, and
    mobiles roam: a set of one is likely, not certain. Where it names clocks of other countries alone, those of the
    number's own country are added; where it knows only a part of a number's prefix better, both parts count.
    """
    _check_e164(text)
    try:
        parsed = phonenumbers.parse(text)
    except phonenumbers.NumberParseException as unread:
        # Not chained: the library's own words might repeat the number.
        raise _invalid(_PARSE_FAULTS.get(unread.error_type, "it cannot be read")) from None
    number_type = phonenumbers.number_type(parsed)
    if number_type == PhoneNumberType.UNKNOWN:  # is_valid_number asks just this, and costs as much again
        raise _invalid(_validity_fault(parsed))
    kind = _kind(parsed, number_type)
    region = phonenumbers.region_code_for_number(parsed)
    return CalleeNumber(
        e164=phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164),
        kind=kind,
        region=None if region == _NO_COUNTRY else region,
        zones=_zones(parsed, kind, region),
    )


def is_country(code: str) -> bool:
    """Whether the code (ISO 3166 alpha-2, capitals) names a country that has telephone numbers."""
    return code in phonenumbers.SUPPORTED_REGIONS


def check_allowed(number: CalleeNumber, allowed_countries: frozenset[str] | None) -> None:
    """Raise NumberNotAllowed for what nobody calls, and for what this company does not (None allows all).

    `allowed_countries` are ISO 3166 alpha-2; a number of no country is in none of them.
    """
    if number.kind in _NEVER_CALLED:
        kind = _NEVER_CALLED[number.kind]
        raise NumberNotAllowed(f"This is a {kind} number; these are not called.", reason=number.kind.value)
    if allowed_countries is not None and number.region not in allowed_countries:
        place = f"in {number.region}" if number.region else "of no country"
        raise NumberNotAllowed(
            f"The number is {place}; the company's allowedCountries leave it out.",
            reason="COUNTRY",
            country=number.region,
        )


def deciding_clock(
    requested: RequestedTime | None,
    *,
    candidate_zone: str | None,
    number: CalleeNumber | None,
    company_zone: str | None,
) -> CalleeClock:
    """Say whose clock decides: the text's own, else the candidate's, the number's, the company's (F2-2).

    TimezoneUnknown when none of them says it, and when a stored zone is known no more: going on to the next
    would be a guess about somebody who had been more exact.
    """
    if requested is not None and requested.zone is not None:
        return CalleeClock(source=TimezoneSource.ZONE, zones=(requested.zone,))
    if requested is not None and requested.offset is not None:
        return CalleeClock(source=TimezoneSource.OFFSET, offset=requested.offset)
    if candidate_zone is not None:
        return CalleeClock(source=TimezoneSource.CANDIDATE, zones=(_stored(candidate_zone),))
    if number is not None and number.zones:
        return CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=number.zones)
    if company_zone is not None:
        return CalleeClock(source=TimezoneSource.COMPANY, zones=(_stored(company_zone),))
    raise TimezoneUnknown


_NO_COUNTRY = phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY

# The world's patterns are some thousands; `re` keeps 512 and would compile them anew for every other number.
phonenumbers.enable_pattern_cache()

_PARSE_FAULTS: Mapping[int, str] = MappingProxyType(
    {
        phonenumbers.NumberParseException.NOT_A_NUMBER: "it is too short",
        phonenumbers.NumberParseException.INVALID_COUNTRY_CODE: "no country has that calling code",
        phonenumbers.NumberParseException.TOO_SHORT_AFTER_IDD: "it is too short",
        phonenumbers.NumberParseException.TOO_SHORT_NSN: "it is too short",
        phonenumbers.NumberParseException.TOO_LONG: "it is too long",
    }
)

_E164_DIGITS = 15


def _check_e164(text: str) -> None:
    digits = text[1:]
    if not text.startswith("+"):
        raise _invalid("it is not E.164, which begins with + and the country's calling code")
    if not (digits.isascii() and digits.isdigit()):
        raise _invalid("it is not E.164, which has nothing but the digits 0 to 9 after the +")
    if digits.startswith("0"):
        raise _invalid("it is not E.164: no country's calling code begins with 0")
    if len(digits) > _E164_DIGITS:
        raise _invalid(f"it is too long: E.164 has at most {_E164_DIGITS} digits")


def _validity_fault(parsed: phonenumbers.PhoneNumber) -> str:
    reason = phonenumbers.is_possible_number_with_reason(parsed)
    region = phonenumbers.region_code_for_country_code(parsed.country_code or 0)
    place = f"+{parsed.country_code}" if region == _NO_COUNTRY else region
    if reason in {
        phonenumbers.ValidationResult.TOO_SHORT,
        phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY,  # as long as one without its area code
    }:
        return f"it is too short for {place}"
    if reason == phonenumbers.ValidationResult.TOO_LONG:
        return f"it is too long for {place}"
    return f"no such number exists in {place}"


def _invalid(reason: str) -> PhoneNumberInvalid:
    return PhoneNumberInvalid(f"The phone number is invalid: {reason}.", reason=reason)


def _kind(parsed: phonenumbers.PhoneNumber, number_type: int) -> NumberKind:
    if parsed.country_code in _SATELLITE_CODES:
        return NumberKind.SATELLITE
    return _KINDS.get(number_type, NumberKind.OTHER)


def _zones(parsed: phonenumbers.PhoneNumber, kind: NumberKind, region: str | None) -> tuple[str, ...]:
    # time_zones_for_geographical_number would give all of Russia to Moscow, and answer for invalid numbers.
    named = {canonical_or_none(name) for name in time_zones_for_number(parsed)}
    if None in named:  # Etc/Unknown, or a name that our zone data do not have: one place we cannot see
        return ()
    possible = {name for name in named if name is not None}
    possible |= _within_the_area(parsed, possible) | _forgotten(parsed)
    own = of_country(region or _NO_COUNTRY)
    if own and possible.isdisjoint(own):
        # A foreign clock that has kept the same time for a while, or never did: Canary for Morocco, Chicago for
        # Nicaragua, Paris for Algeria are an hour ahead of them in summer. Both must be open: a few ranges are rightly
        # abroad, as those of Christmas Island among Australia's are.
        possible |= {name for name in own if name not in _INHABITANTS}
    if kind is NumberKind.MOBILE:
        possible = {name for name in possible if name not in _INHABITANTS} or possible
    return tuple(sorted(possible))


def _forgotten(parsed: phonenumbers.PhoneNumber) -> set[str]:
    digits = f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}"
    return {zone for prefix, zone in _FORGOTTEN.items() if digits.startswith(prefix)}


def _within_the_area(parsed: phonenumbers.PhoneNumber, named: set[str]) -> set[str]:
    """Other zones of the number's area, where no more than the area of it is known.

    A prefix has the zone of most of its numbers, and those that are known better have longer ones: all of Queensland
    is Sydney but for a hundred ranges in Brisbane, which keeps no summer time. Who is in none of these may be anywhere
    in it.
    """
    digits = f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}"
    known = next((digits[:length] for length in _PREFIX_LENGTHS if digits[:length] in TIMEZONE_DATA), "")
    if known not in _FINER or {canonical_or_none(name) for name in TIMEZONE_DATA[known]} != named:
        return set()  # a kind of number without a place has the zones of its country, whatever its prefix
    area = phonenumbers.length_of_geographical_area_code(parsed)
    if not area:
        return set()
    return _FINER.get(max(known, digits[: len(str(parsed.country_code)) + area], key=len), set())


def _finer_zones() -> dict[str, set[str]]:
    finer: dict[str, set[str]] = {}
    for prefix, names in TIMEZONE_DATA.items():
        zones = {name for each in names if (name := canonical_or_none(each)) and name not in _INHABITANTS}
        for length in range(1, len(prefix)):
            finer.setdefault(prefix[:length], set()).update(zones)
    return finer


_FINER = _finer_zones()
"""What all longer prefixes are given that begin with some digits; nearly empty zones left out."""
_PREFIX_LENGTHS = range(TIMEZONE_LONGEST_PREFIX, 0, -1)


def _stored(name: str) -> str:
    try:
        return check_zone(name)
    except InvalidTimezone:
        raise TimezoneUnknown from None
