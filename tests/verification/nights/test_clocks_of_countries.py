"""Clocks of countries: a number is judged by its own country's time, even if the number metadata are wrong."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from scheduler.timing import callee_zones

A_YEAR_OF_HOURS = [datetime(2027, 1, 1, tzinfo=UTC) + timedelta(hours=hours) for hours in range(365 * 24)]


@pytest.mark.parametrize(
    ("number", "zone"),
    [
        pytest.param("+213612345678", "Africa/Algiers", id="Algeria, not Paris"),
        pytest.param("+212522123456", "Africa/Casablanca", id="Morocco, not the Canaries"),
        pytest.param("+212612345678", "Africa/Casablanca", id="a Moroccan mobile"),
        pytest.param("+218212345678", "Africa/Tripoli", id="Libya, not Bucharest"),
        pytest.param("+50522123456", "America/Managua", id="Nicaragua, not Chicago"),
        pytest.param("+211977123456", "Africa/Juba", id="South Sudan, not Nairobi"),
        pytest.param("+97222234567", "Asia/Jerusalem", id="Jerusalem"),
        pytest.param("+970599123456", "Asia/Gaza", id="Gaza, not Bucharest"),
        pytest.param("+353871234567", "Europe/Dublin", id="Ireland, not London"),
        pytest.param("+79114567890", "Europe/Kaliningrad", id="a Russian mobile may be in Kaliningrad"),
        pytest.param("+78001234567", "Europe/Kaliningrad", id="so may Russian toll-free"),
        pytest.param("+19075811234", "America/Anchorage", id="Unalaska, not Honolulu"),
        pytest.param("+61738341844", "Australia/Brisbane", id="Brisbane, not Sydney alone"),
        pytest.param("+56961234567", "Pacific/Easter", id="a Chilean mobile may be on Easter Island"),
        pytest.param("+56961234567", "America/Punta_Arenas", id="or in Magallanes"),
        pytest.param("+62812345678", "Asia/Jayapura", id="an Indonesian mobile may be in Papua"),
        pytest.param("+74012345678", "Europe/Kaliningrad", id="Kaliningrad"),
        pytest.param("+421915123456", "Europe/Bratislava", id="Slovakia, as before"),
    ],
)
def test_number_follows_its_countrys_time_all_year(number: str, zone: str) -> None:
    home = ZoneInfo(zone)
    zones = [ZoneInfo(name) for name in callee_zones.read_number(number).zones]
    assert zones
    for instant in A_YEAR_OF_HOURS:
        assert home.utcoffset(instant.astimezone(home)) in {each.utcoffset(instant.astimezone(each)) for each in zones}


def test_number_of_several_countries_has_all_their_zones() -> None:
    zones = callee_zones.read_number("+18765550123").zones
    assert {"America/Jamaica", "America/New_York", "Pacific/Honolulu"} <= set(zones)


def test_kaliningrad_landline_is_open_all_its_own_day() -> None:
    """Judging it by all Russian zones would leave only two hours of the day."""
    assert callee_zones.read_number("+74012345678").zones == ("Europe/Kaliningrad",)
