"""Zones of phone numbers by Google's own libphonenumber. `python -m tests.timing.google.zones` updates them.

Its Java code is Debian's package libphonenumber8-java, which `make debian` installs. The results are stored next to
this module, so that tests need no Java: a line for each set of zones, with the numbers that have it.
The numbers are libphonenumber's examples of each kind in each region, and one for each prefix with its own zones.
"""

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import phonenumbers
from phonenumbers.phonenumberutil import PhoneNumberType
from phonenumbers.tzdata import TIMEZONE_DATA

KEPT = Path(__file__).with_name("zones_of_numbers.tsv")
PROGRAM = Path(__file__).with_name("ZonesOfNumbers.java")
JARS = [Path("/usr/share/java") / f"{name}.jar" for name in ("libphonenumber", "prefixmapper", "geocoder")]


def is_here() -> bool:
    return shutil.which("java") is not None and all(jar.exists() for jar in JARS)


def kept() -> tuple[str, dict[str, tuple[str, ...]]]:
    """Read the stored release, and zones by number."""
    release, *lines = KEPT.read_text(encoding="utf-8").splitlines()
    zones_of: dict[str, tuple[str, ...]] = {}
    for line in lines:
        zones, numbers = line.split("\t")
        zones_of |= {f"+{number}": tuple(zones.split(" ")) for number in numbers.split(" ")}
    return release, zones_of


def zones_by_google(numbers: Iterable[str]) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Read release and zones from Google's code."""
    command = ["java", "-cp", ":".join(str(jar) for jar in JARS), str(PROGRAM)]
    done = subprocess.run(command, input="\n".join(sorted(numbers)), check=True, capture_output=True, text=True)
    release, *lines = done.stdout.splitlines()
    return release, {number: tuple(zones.split(" ")) for number, zones in (line.split("\t") for line in lines)}


def numbers_of_all_regions_and_kinds() -> Iterator[str]:
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in PhoneNumberType.values():
            yield from _written(phonenumbers.example_number_for_type(region, kind))
    for code in sorted(phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS):
        yield from _written(phonenumbers.example_number_for_non_geo_entity(code))
    for prefix in sorted(TIMEZONE_DATA):
        yield from _first_valid(prefix)


def _written(number: phonenumbers.PhoneNumber | None) -> Iterator[str]:
    if number is not None:
        yield phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


_ENDINGS = ("0123456789", "2345678901", "1111111111", "5550123456", "9876543210", "7000000000", "0000000000")


def _first_valid(prefix: str) -> Iterator[str]:
    """Yield the first valid made-up number with that prefix, or nothing for a prefix without subscribers."""
    for ending in _ENDINGS:
        for length in range(15, max(6, len(prefix)), -1):
            try:
                number = phonenumbers.parse(f"+{prefix}{ending * 2}"[: length + 1])
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(number):
                yield from _written(number)
                return


def main() -> None:
    release, zones_of = zones_by_google(set(numbers_of_all_regions_and_kinds()))
    alike: dict[tuple[str, ...], list[str]] = {}
    for number, zones in zones_of.items():
        alike.setdefault(zones, []).append(number.removeprefix("+"))
    lines = [f"{' '.join(zones)}\t{' '.join(numbers)}" for zones, numbers in sorted(alike.items())]
    KEPT.write_text("\n".join([release, *lines, ""]), encoding="utf-8")
    print(f"{release}: {len(zones_of)} numbers in {len(alike)} sets of zones")


if __name__ == "__main__":
    main()
