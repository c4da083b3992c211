"""The possible time zones of a phone, and the clock that decides. The only module that uses `phonenumbers`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

import phonenumbers
from phonenumbers import PhoneNumberType
from phonenumbers.timezone import time_zones_for_number
from phonenumbers.tzdata import TIMEZONE_DATA, TIMEZONE_LONGEST_PREFIX

from scheduler.domain.call import CalleeClock, NumberFacts, Schedule, TimezoneSource
from scheduler.domain.refusals import InvalidTimezone, NumberNotAllowed, PhoneNumberInvalid, TimezoneUnknown
from scheduler.timing import zone_names
from scheduler.timing.requested_time import RequestedTime
from scheduler.timing.zone_names import canonical_or_none, check_zone, of_country


class NumberKind(StrEnum):
    FIXED_LINE = "FIXED_LINE"
    MOBILE = "MOBILE"
    FIXED_OR_MOBILE = "FIXED_OR_MOBILE"
    """North America: both kinds of numbers look the same."""
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
libphonenumber classifies them as mobile or VoIP, but they are billed as satellite calls."""

_NEVER_CALLED: Mapping[NumberKind, str] = MappingProxyType(
    {
        NumberKind.PREMIUM: "premium-rate",
        NumberKind.SHARED_COST: "shared-cost",
        NumberKind.SATELLITE: "satellite",
    }
)


@dataclass(frozen=True, kw_only=True)
class CalleeNumber:
    """A valid phone number. Its text is personal data and appears in no repr."""

    e164: str = field(repr=False)
    """Canonical: all spellings of a number have the same text here."""
    kind: NumberKind
    region: str | None
    """ISO 3166 alpha-2. None for numbers without a country (+800)."""
    zones: tuple[str, ...]
    """Canonical IANA names, sorted. The phone may be in any of them. Empty if unknown."""
    sparse_zones: tuple[str, ...] = ()
    """Other possible zones, left out because few people live there (F2-4). Canonical names, sorted."""

    @property
    def is_ever_called(self) -> bool:
        return self.kind not in _NEVER_CALLED


@lru_cache(maxsize=4096)
def read_number(text: str) -> CalleeNumber:
    """Parse an E.164 number. Raises PhoneNumberInvalid, whose message gives the reason and never quotes the number.

    Kinds are those of Google's libphonenumber, as are zones, if it knows more than the country. A number without an
    area (mobile, toll-free, VoIP, ...) may be anywhere in its country, so every zone of the country in the tz database
    counts as well. If libphonenumber gives only zones of other countries, those of the number's own country are added.
    If it has more exact data for a part of an area, the zones of both parts count. `zone_names` corrects its data.
    """
    if (fault := e164_fault(text)) is not None:
        raise _invalid(fault)
    try:
        parsed = phonenumbers.parse(text)
    except phonenumbers.NumberParseException as unread:
        # Not chained: the library's message might quote the number.
        raise _invalid(_PARSE_FAULTS.get(unread.error_type, "it cannot be parsed")) from None
    number_type = phonenumbers.number_type(parsed)
    if number_type == PhoneNumberType.UNKNOWN:  # is_valid_number checks the same, at the same cost again
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


def e164_fault(text: str) -> str | None:
    """Name the rule of E.164 that the text breaks, without quoting it, or None. A calling code may be unknown."""
    digits = text[1:]
    if not text.startswith("+"):
        return "it is not E.164, which begins with + and the country's calling code"
    if not (digits.isascii() and digits.isdigit()):
        return "it is not E.164, which has only the digits 0 to 9 after the +, no spaces"
    if digits.startswith("0"):
        return "it is not E.164: no country's calling code begins with 0"
    if len(digits) > _E164_DIGITS:
        return f"it is too long: E.164 has at most {_E164_DIGITS} digits"
    return None


def is_country(code: str) -> bool:
    """Return whether the code (ISO 3166 alpha-2, capitals) is that of a country with phone numbers."""
    return code in phonenumbers.SUPPORTED_REGIONS


def check_allowed(number: CalleeNumber, allowed_countries: frozenset[str] | None) -> None:
    """Raise NumberNotAllowed for kinds that are never called, and for countries that the company does not allow.

    `allowed_countries` are ISO 3166 alpha-2, or None for all. They never include a number without a country.
    """
    if number.kind in _NEVER_CALLED:
        kind = _NEVER_CALLED[number.kind]
        raise NumberNotAllowed(f"This is a {kind} number. Such numbers are never called.", reason=number.kind.value)
    if allowed_countries is not None and number.region not in allowed_countries:
        country = f"The number's country {number.region}" if number.region else "A number without a country"
        raise NumberNotAllowed(
            f"{country} is not in the company's allowedCountries.",
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
    """Choose the clock that decides: that of the request's text, the candidate, the number or the company (F2-2).

    Raises TimezoneUnknown if none is known, or if the zone data no longer has a stored zone. The next clock would only
    be a guess then, because a more exact one had been set.
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


def own_clock(candidate_zone: str | None, number: CalleeNumber | None) -> CalleeClock | None:
    """Find the person's own clock, never the company's. Raises TimezoneUnknown if the candidate's zone is unknown."""
    if candidate_zone is None and (number is None or not number.zones):
        return None
    return deciding_clock(None, candidate_zone=candidate_zone, number=number, company_zone=None)


_NO_COUNTRY = phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY

# There are several thousand patterns worldwide. `re` caches 512 and would compile the others again and again.
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


def _validity_fault(parsed: phonenumbers.PhoneNumber) -> str:
    reason = phonenumbers.is_possible_number_with_reason(parsed)
    region = phonenumbers.region_code_for_country_code(parsed.country_code or 0)
    place = f"+{parsed.country_code}" if region == _NO_COUNTRY else region
    if reason in {
        phonenumbers.ValidationResult.TOO_SHORT,
        phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY,  # the length of a number without its area code
    }:
        return f"it is too short for {place}"
    if reason == phonenumbers.ValidationResult.TOO_LONG:
        return f"it is too long for {place}"
    return f"no such number exists in {place}"


def _invalid(reason: str) -> PhoneNumberInvalid:
    return PhoneNumberInvalid(
        f"The phone number is invalid: {reason}. Check its calling code and its digits.", reason=reason
    )


def _kind(parsed: phonenumbers.PhoneNumber, number_type: int) -> NumberKind:
    if parsed.country_code in _SATELLITE_CODES:
        return NumberKind.SATELLITE
    if number_type == PhoneNumberType.FIXED_LINE_OR_MOBILE and _digits(parsed).startswith(
        zone_names.MOBILES_IN_DISGUISE
    ):
        return NumberKind.MOBILE
    return _KINDS.get(number_type, NumberKind.OTHER)


def _possible_zones(parsed: phonenumbers.PhoneNumber, kind: NumberKind, region: str | None) -> set[str]:
    """List every zone in which the phone may be, including sparsely populated ones. Empty if unknown."""
    digits = _digits(parsed)
    if corrected := _by_prefix(zone_names.CORRECTED, digits):
        return corrected
    # time_zones_for_geographical_number would return Moscow for all of Russia, and zones for invalid numbers.
    named = {canonical_or_none(name) for name in time_zones_for_number(parsed)}
    if None in named:  # Etc/Unknown, or a name missing in our zone data: a place without a known clock
        return set()
    possible = {name for name in named if name is not None}
    possible |= _within_the_area(parsed, possible) | _by_prefix(zone_names.ADDED, digits)
    own = set(of_country(region or _NO_COUNTRY))
    if _has_no_area(parsed, kind):
        possible |= own if kind is NumberKind.MOBILE else own - zone_names.INHABITANTS.keys()  # guard: whole_country
    elif possible.isdisjoint(own):
        # A zone of another country whose time is no longer the same, or never was: Canary for Morocco, Chicago for
        # Nicaragua and Paris for Algeria are an hour ahead in summer. Both must be open, because a few ranges really
        # are abroad, such as those of Christmas Island among Australia's.
        possible |= own - zone_names.INHABITANTS.keys()
    return possible


def _counted(possible: set[str], kind: NumberKind) -> set[str]:
    """List the zones that must be open: for a mobile number, without sparsely populated ones."""
    if kind is not NumberKind.MOBILE:
        return possible
    return possible - zone_names.INHABITANTS.keys() or possible


def _has_no_area(parsed: phonenumbers.PhoneNumber, kind: NumberKind) -> bool:
    """Return whether the digits contain no information about the phone's place in its country."""
    if kind in {NumberKind.FIXED_LINE, NumberKind.FIXED_OR_MOBILE}:
        return False
    return not (kind is NumberKind.MOBILE and parsed.country_code in zone_names.MOBILES_WITH_AN_AREA)


def _digits(parsed: phonenumbers.PhoneNumber) -> str:
    return f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}"


def _by_prefix(zones_of: Mapping[str, tuple[str, ...]], digits: str) -> set[str]:
    return {zone for prefix, zones in zones_of.items() if digits.startswith(prefix) for zone in zones}


def _within_the_area(parsed: phonenumbers.PhoneNumber, named: set[str]) -> set[str]:
    """List the other zones of the number's area, if only the area is known.

    A prefix has the zone of most of its numbers, and longer prefixes have more exact data: all of Queensland is Sydney,
    except for a hundred ranges in Brisbane, which has no summer time. A number outside these ranges may be anywhere in
    the area.
    """
    digits = _digits(parsed)
    known = next((digits[:length] for length in _PREFIX_LENGTHS if digits[:length] in TIMEZONE_DATA), "")
    if known not in _FINER or {canonical_or_none(name) for name in TIMEZONE_DATA[known]} != named:
        return set()  # a number of a kind without a place has the zones of its country
    area = phonenumbers.length_of_geographical_area_code(parsed)
    if not area:
        return set()
    return _FINER.get(max(known, digits[: len(str(parsed.country_code)) + area], key=len), set())


def _finer_zones() -> dict[str, set[str]]:
    finer: dict[str, set[str]] = {}
    for prefix, names in TIMEZONE_DATA.items():
        zones = {name for each in names if (name := canonical_or_none(each)) and name not in zone_names.INHABITANTS}
        for length in range(1, len(prefix)):
            finer.setdefault(prefix[:length], set()).update(zones)
    return finer


_FINER = _finer_zones()
"""The zones of all longer prefixes, by shorter prefix, without sparsely populated zones."""
_PREFIX_LENGTHS = range(TIMEZONE_LONGEST_PREFIX, 0, -1)


def _stored(name: str) -> str:
    try:
        return check_zone(name)
    except InvalidTimezone:
        raise TimezoneUnknown from None


# --- Facts about a phone number that decide about its calls, without the digits. Attempts store them in their schedule


def number_facts(clock: CalleeClock, number: CalleeNumber | None, candidate_zone: str | None) -> NumberFacts | None:
    """Collect the facts that a schedule on this clock stores. None without a number."""
    if number is None:
        return None
    # With an offset, the zones are kept even if the candidate's zone decides: it may be removed, and the clock stays.
    decides = clock.offset is not None or (candidate_zone is None and clock.source is not TimezoneSource.ZONE)
    return NumberFacts(
        country=number.region,
        never_called=None if number.is_ever_called else number.kind.value,
        zones=number.zones if decides and number.zones != _number_zones_in(clock) else None,
    )


def number_without_digits(schedule: Schedule, country: str | None) -> CalleeNumber:
    """Rebuild the number as far as its schedule describes it. `country` is for schedules without the facts."""
    facts = schedule.number or NumberFacts(country=country)
    return CalleeNumber(
        e164="",
        kind=NumberKind(facts.never_called) if facts.never_called else NumberKind.OTHER,
        region=facts.country,
        zones=_number_zones_in(schedule.clock) if facts.zones is None else facts.zones,
    )


def _number_zones_in(clock: CalleeClock) -> tuple[str, ...]:
    """List the zones of the number that the clock contains."""
    return clock.zones if clock.source is TimezoneSource.PHONE_NUMBER else ()
