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
from scheduler.timing import zone_facts
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
    sparse_zones: tuple[str, ...] = ()
    """Zones in which it may be as well, left out because few people live there (F2-4). Canonical names, sorted."""


@lru_cache(maxsize=4096)
def read_number(text: str) -> CalleeNumber:
    """Read an E.164 number; PhoneNumberInvalid says what is wrong and never repeats the number.

    Kinds are those of Google's libphonenumber, and so are zones where it knows better than the country. A number of
    no area (mobile, toll-free, VoIP, ...) may be anywhere in its country: every zone of the country in the tz database
    counts as well. Where libphonenumber names clocks of other countries alone, those of the number's own country are
    added. Where it knows only a part of an area more exactly, both parts count. `zone_facts` corrects it.
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
    possible = _possible_zones(parsed, kind, region)
    zones = _counted(possible, kind)
    return CalleeNumber(
        e164=phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164),
        kind=kind,
        region=None if region == _NO_COUNTRY else region,
        zones=tuple(sorted(zones)),
        sparse_zones=tuple(sorted(possible - zones)),
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
    if number_type == PhoneNumberType.FIXED_LINE_OR_MOBILE and _digits(parsed).startswith(
        zone_facts.MOBILES_IN_DISGUISE
    ):
        return NumberKind.MOBILE
    return _KINDS.get(number_type, NumberKind.OTHER)


def _possible_zones(parsed: phonenumbers.PhoneNumber, kind: NumberKind, region: str | None) -> set[str]:
    """Every zone in which the phone may be, sparsely populated ones included. Empty when nothing is known."""
    digits = _digits(parsed)
    if corrected := _by_prefix(zone_facts.CORRECTED, digits):
        return corrected
    # time_zones_for_geographical_number would give all of Russia to Moscow, and answer for invalid numbers.
    named = {canonical_or_none(name) for name in time_zones_for_number(parsed)}
    if None in named:  # Etc/Unknown, or a name that our zone data do not have: one place we cannot see
        return set()
    possible = {name for name in named if name is not None}
    possible |= _within_the_area(parsed, possible) | _by_prefix(zone_facts.ADDED, digits)
    own = set(of_country(region or _NO_COUNTRY))
    if _has_no_area(parsed, kind):
        possible |= own if kind is NumberKind.MOBILE else own - zone_facts.INHABITANTS.keys()  # guard: whole_country
    elif possible.isdisjoint(own):
        # A foreign clock that has kept the same time for a while, or never did: Canary for Morocco, Chicago for
        # Nicaragua, Paris for Algeria are an hour ahead of them in summer. Both must be open: a few ranges are rightly
        # abroad, as those of Christmas Island among Australia's are.
        possible |= own - zone_facts.INHABITANTS.keys()
    return possible


def _counted(possible: set[str], kind: NumberKind) -> set[str]:
    """The zones that must be open: for a mobile number, without those in which few people live."""
    if kind is not NumberKind.MOBILE:
        return possible
    return possible - zone_facts.INHABITANTS.keys() or possible


def _has_no_area(parsed: phonenumbers.PhoneNumber, kind: NumberKind) -> bool:
    """Whether the number's digits say nothing about where in its country the phone is."""
    if kind in {NumberKind.FIXED_LINE, NumberKind.FIXED_OR_MOBILE}:
        return False
    return not (kind is NumberKind.MOBILE and parsed.country_code in zone_facts.MOBILES_WITH_AN_AREA)


def _digits(parsed: phonenumbers.PhoneNumber) -> str:
    return f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}"


def _by_prefix(zones_of: Mapping[str, tuple[str, ...]], digits: str) -> set[str]:
    return {zone for prefix, zones in zones_of.items() if digits.startswith(prefix) for zone in zones}


def _within_the_area(parsed: phonenumbers.PhoneNumber, named: set[str]) -> set[str]:
    """Other zones of the number's area, where no more than the area of it is known.

    A prefix has the zone of most of its numbers, and those that are known better have longer ones: all of Queensland
    is Sydney but for a hundred ranges in Brisbane, which keeps no summer time. Who is in none of these may be anywhere
    in it.
    """
    digits = _digits(parsed)
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
        zones = {name for each in names if (name := canonical_or_none(each)) and name not in zone_facts.INHABITANTS}
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
