"""Which names name a clock on which people live."""

from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from io import BytesIO
from zoneinfo import ZoneInfo

from scheduler.domain.refusals import InvalidTimezone, TimezoneUnknown

_ZONE_DATA = resources.files("tzdata").joinpath("zoneinfo")
_COMPILED = _ZONE_DATA.joinpath("tzdata.zi").read_text(encoding="utf-8").splitlines()

TZDATA_VERSION = _COMPILED[0].removeprefix("# version ")
"""The release of the zone data that every answer of this room rests on, such as `2026f`."""

_BY_COUNTRY: dict[str, tuple[str, ...]] = {}
for _line in _ZONE_DATA.joinpath("zone.tab").read_text(encoding="utf-8").splitlines():
    if not _line.startswith("#"):
        _country, _, _name = _line.split("\t")[:3]
        _BY_COUNTRY[_country] = (*_BY_COUNTRY.get(_country, ()), _name)

PLACES = frozenset(name for names in _BY_COUNTRY.values() for name in names)
"""The canonical names: every Area/City that the zone data list for some country (its zone.tab).

Not only those without a link: the data link Europe/Bratislava to Europe/Prague because both have kept the
same time since 1970. It is still the name of the clock in Bratislava.
"""

_ALIASES = {
    alias: target
    for mark, target, alias in (line.split() for line in _COMPILED if line.startswith("L "))
    if target in PLACES and alias not in PLACES and "/" in alias
}
"""Old name -> canonical name, from the links of the same data (Asia/Calcutta -> Asia/Kolkata)."""

_ALIKE = 0.85
"""Of two names; below it what is meant is a guess."""
_LONGEST = 64

_AS_WRITTEN = {name.lower(): name for name in (*PLACES, *_ALIASES)}


@lru_cache(maxsize=1024)
def check_zone(name: str) -> str:
    """Give the canonical IANA name of a zone; InvalidTimezone says what is wrong with any other text.

    Old Area/City names are followed to their present ones. Abbreviations (CET, EST5EDT), countries (Japan)
    and Etc/ zones are refused: other programs read some of them otherwise, and nobody lives there.
    """
    if canonical := canonical_or_none(name):
        return canonical
    raise InvalidTimezone(f"The time zone cannot be used: {_fault(name)}.", reason=_fault(name))


def canonical_or_none(name: str) -> str | None:
    """Like `check_zone`, and None for what names no clock (libphonenumber's Etc/Unknown)."""
    return name if name in PLACES else _ALIASES.get(name)


def of_country(region: str) -> tuple[str, ...]:
    """The canonical names of all clocks of a country (ISO 3166 alpha-2); none for what is no country."""
    return _BY_COUNTRY.get(region, ())


def zone(name: str) -> ZoneInfo:
    """Give the clock of a stored name; TimezoneUnknown when the zone data have lost that name since."""
    canonical = canonical_or_none(name)
    if canonical is None:
        raise TimezoneUnknown
    return _CLOCKS[canonical]


def _clocks() -> dict[str, ZoneInfo]:
    """Zones whose files are alike share one clock."""
    alike: dict[bytes, ZoneInfo] = {}
    clocks = {}
    for name in sorted(PLACES):
        content = _ZONE_DATA.joinpath(*name.split("/")).read_bytes()
        if content not in alike:
            alike[content] = ZoneInfo.from_file(BytesIO(content), key=name)
        clocks[name] = alike[content]
    return clocks


_CLOCKS = _clocks()
"""All of them, read when the process starts (about 20 ms): one by one they would cost the first call to a toll-free
number, which may be in 58 zones, five milliseconds."""


def _fault(name: str) -> str:
    if as_written := _AS_WRITTEN.get(name.lower()):
        return f"it must be written {as_written}"
    if "/" not in name:
        return "it must be an Area/City name such as Europe/Bratislava, not an abbreviation or a country"
    if name.lower().startswith("etc/"):
        return "it names no place; name the Area/City on whose clock the person lives"
    alike = get_close_matches(name.lower()[:_LONGEST], _AS_WRITTEN, n=1, cutoff=_ALIKE)
    return (
        f"the zone does not exist; the closest name is {check_zone(_AS_WRITTEN[alike[0]])}"
        if alike
        else "the zone does not exist"
    )
