"""Places of invented people and the calling hours of their companies, stated by hand.

Nothing here comes from the product or its number metadata: the prefixes are assigned to places by hand, and hours are
plain texts. The judge uses only these facts.
"""

from dataclasses import dataclass
from datetime import timedelta
from random import Random

from tests.verification.judge.hours import WEEK, Hours

WEEKDAYS = WEEK[:5]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Numbers with one prefix, and the zones that must all be open when one of them rings."""

    name: str
    prefix: str
    digits: int
    """Number of digits after the prefix."""
    zones: tuple[str, ...]

    def a_number(self, dice: Random) -> str:
        first = dice.randrange(2, 10)  # in no plan does a subscriber number begin with 0, and in few with 1
        return f"{self.prefix}{first}{dice.randrange(10 ** (self.digits - 1)):0{self.digits - 1}}"


def _place(name: str, prefix: str, digits: int, *zones: str) -> Place:
    return Place(name=name, prefix=prefix, digits=digits, zones=zones)


PLACES = (
    _place("a Slovak mobile", "+42191", 7, "Europe/Bratislava"),
    _place("a landline in London", "+44207", 7, "Europe/London"),
    _place("a British mobile", "+447911", 6, "Europe/London"),
    _place("an Irish mobile", "+35387", 7, "Europe/Dublin"),
    _place("a German mobile", "+49151", 8, "Europe/Berlin"),
    _place("a Polish mobile", "+4851", 7, "Europe/Warsaw"),
    _place("a French mobile", "+336", 8, "Europe/Paris"),
    _place("a landline on the Azores", "+351296", 6, "Atlantic/Azores"),
    _place("a landline on Gran Canaria", "+34928", 6, "Atlantic/Canary"),
    _place("a landline in Chisinau", "+37322", 6, "Europe/Chisinau"),
    _place("a landline in Moscow", "+7495", 7, "Europe/Moscow"),
    _place("a Russian mobile", "+7916", 7, "Europe/Kaliningrad", "Europe/Moscow", "Asia/Omsk", "Asia/Vladivostok"),
    _place("a landline in Jerusalem", "+9722", 7, "Asia/Jerusalem"),
    _place("a landline in Cairo", "+202", 8, "Africa/Cairo"),
    _place("a landline in Casablanca", "+212522", 6, "Africa/Casablanca"),
    _place("a Moroccan mobile", "+2126", 8, "Africa/Casablanca"),
    _place("an Algerian mobile", "+2136", 8, "Africa/Algiers"),
    _place("a landline in Tripoli", "+21821", 7, "Africa/Tripoli"),
    _place("a landline in Managua", "+5052", 7, "America/Managua"),
    _place("a mobile in South Sudan", "+21197", 7, "Africa/Juba"),
    _place("a landline in Beirut", "+9611", 6, "Asia/Beirut"),
    _place("a landline in Tehran", "+9821", 8, "Asia/Tehran"),
    _place("an Indian mobile", "+9198", 8, "Asia/Kolkata"),
    _place("a Nepalese mobile", "+97798", 8, "Asia/Kathmandu"),
    _place("a Chinese mobile", "+86131", 8, "Asia/Shanghai", "Asia/Urumqi"),
    _place("an Indonesian mobile", "+62812", 8, "Asia/Jakarta", "Asia/Makassar", "Asia/Jayapura"),
    _place("a landline in Kaliningrad", "+7401", 7, "Europe/Kaliningrad"),
    _place("a landline in Saratov", "+7845", 7, "Europe/Saratov"),
    _place("a landline in Tokyo", "+813", 8, "Asia/Tokyo"),
    _place("a landline in Sydney", "+6129", 7, "Australia/Sydney"),
    _place("a landline in Adelaide", "+6188", 7, "Australia/Adelaide"),
    _place("a landline in Perth", "+61892", 6, "Australia/Perth"),
    _place("a landline in Brisbane", "+6173", 7, "Australia/Brisbane"),
    _place("a landline in Hobart", "+61362", 6, "Australia/Hobart"),
    _place(
        "an Australian mobile",
        "+614",
        8,
        "Australia/Sydney",
        "Australia/Hobart",
        "Australia/Brisbane",
        "Australia/Adelaide",
        "Australia/Darwin",
        "Australia/Perth",
    ),
    _place("a mobile in New Zealand", "+6421", 7, "Pacific/Auckland"),
    _place("New York", "+1212", 7, "America/New_York"),
    _place("Chicago", "+1312", 7, "America/Chicago"),
    _place("Denver", "+1303", 7, "America/Denver"),
    _place("Phoenix", "+1602", 7, "America/Phoenix"),
    _place("Los Angeles", "+1310", 7, "America/Los_Angeles"),
    _place("Anchorage", "+1907", 7, "America/Anchorage"),
    _place("Honolulu", "+1808", 7, "Pacific/Honolulu"),
    _place("Newfoundland", "+1709", 7, "America/St_Johns"),
    _place("Halifax", "+1902", 7, "America/Halifax"),
    _place("Vancouver", "+1604", 7, "America/Vancouver"),
    _place("San Juan", "+1787", 7, "America/Puerto_Rico"),
    _place("Mexico City", "+5255", 8, "America/Mexico_City"),
    _place("Tijuana", "+52664", 7, "America/Tijuana"),
    _place("a mobile in Sao Paulo", "+55119", 8, "America/Sao_Paulo"),
    _place("a landline in Santiago", "+562", 8, "America/Santiago"),
    _place("a Chilean mobile", "+5696", 7, "America/Santiago", "America/Punta_Arenas", "Pacific/Easter"),
    _place("a landline in Punta Arenas", "+5661", 7, "America/Punta_Arenas"),
    _place("a landline in Asuncion", "+59521", 6, "America/Asuncion"),
    _place("a landline in Buenos Aires", "+5411", 8, "America/Argentina/Buenos_Aires"),
    _place("a landline in Nuuk", "+29932", 4, "America/Nuuk"),
    _place("a South African mobile", "+2782", 7, "Africa/Johannesburg"),
    _place("a Kenyan mobile", "+25471", 7, "Africa/Nairobi"),
    _place("British toll-free", "+44800", 7, "Europe/London"),
    _place(
        "American toll-free",
        "+1800",
        7,
        "America/New_York",
        "America/Chicago",
        "America/Denver",
        "America/Phoenix",
        "America/Los_Angeles",
        "America/Anchorage",
        "Pacific/Honolulu",
        "America/Puerto_Rico",
        "America/St_Johns",
    ),
    _place("international toll-free", "+800", 8),
)
"""A prefix used in several zones need not list them all here. Each listed zone must be open."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A company's calling hours and other settings."""

    name: str
    hours: tuple[Hours, ...]
    timezone: str | None = None
    calls_per_second: float = 1000.0
    concurrent_calls: int = 1000
    retries: bool = False


SHAPES = (
    Shape(name="default", hours=(Hours(WEEK, "08:00", "20:00"),), retries=True),
    Shape(
        name="default, slow",
        hours=(Hours(WEEK, "08:00", "20:00"),),
        timezone="Europe/Bratislava",
        calls_per_second=1.0,
        concurrent_calls=10,
    ),
    Shape(
        name="several a day",
        hours=(Hours(WEEKDAYS, "09:00", "12:30"), Hours(WEEKDAYS, "13:30", "17:00"), Hours((5,), "10:00", "13:00")),
        retries=True,
    ),
    Shape(name="weekdays only", hours=(Hours(WEEKDAYS, "09:00", "18:00"),), timezone="America/New_York"),
    Shape(name="over midnight", hours=(Hours(WEEK, "22:00", "02:00"),), retries=True),
    Shape(name="over Sunday's midnight", hours=(Hours((5, 6), "20:00", "04:00"),), timezone="Australia/Adelaide"),
    Shape(name="until 24:00", hours=(Hours(WEEK, "16:00", "24:00"),), retries=True),
    Shape(name="whole working days", hours=(Hours(WEEKDAYS, "00:00", "24:00"),), timezone="Asia/Kathmandu"),
    Shape(name="the hour of the change", hours=(Hours(WEEK, "01:00", "03:00"), Hours(WEEK, "12:00", "12:01"))),
    Shape(name="from six to midnight", hours=(Hours(WEEK, "06:00", "24:00"),), retries=True),
)


def offset_text(offset: timedelta) -> str:
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
