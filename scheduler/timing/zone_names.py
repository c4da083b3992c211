"""Valid names of time zones: those of places where people live."""

from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from io import BytesIO
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
    """Return the canonical IANA name of a zone. Raises InvalidTimezone, with the reason, for any other text.

    Old Area/City names are replaced by their current ones. Abbreviations (CET, EST5EDT), countries (Japan) and Etc/
    zones are refused: other programs interpret some of them differently, and they are not the clock of a place.
    """
    if canonical := canonical_or_none(name):
        return canonical
    raise InvalidTimezone(f"The time zone is invalid: {_fault(name)}.", reason=_fault(name))


def canonical_or_none(name: str) -> str | None:
    """Return the canonical name like `check_zone`, or None for any other text (such as Etc/Unknown)."""
    return name if name in PLACES else _ALIASES.get(name)


def of_country(region: str) -> tuple[str, ...]:
    """Return the canonical names of all zones of a country (ISO 3166 alpha-2), empty for an unknown code."""
    return _BY_COUNTRY.get(region, ())


def zone(name: str) -> ZoneInfo:
    """Return the zone of a stored name. Raises TimezoneUnknown if the zone data no longer has that name."""
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
