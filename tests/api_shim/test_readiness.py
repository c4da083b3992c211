"""`/readyz` reports what is degraded while requests are still answered."""

from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from api_shim.app import create_app
from scheduler.clock import machine_now
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from tests.api_shim.intake import settings_for
from tests.servers import a_door, a_server, address_of


@pytest.mark.parametrize(("seconds", "degraded"), [(0, []), (-1, []), (5, ["clock"]), (-5, ["clock"])], ids=str)
@pytest.mark.usefixtures("broker", "postgres_url")
def test_readyz_reports_a_wrong_clock(logins: Logins, redis_url: str, seconds: int, degraded: list[str]) -> None:
    settings = settings_for(logins, redis_url)
    app, door = create_app(settings), a_door()
    off = timedelta(seconds=seconds)
    database = Database(settings.database("api"), machine=lambda: machine_now() + off)
    with a_server(app, door), httpx.Client(base_url=address_of(door), timeout=60) as client:
        house = app.state.house
        app.state.house = replace(house, doors=replace(house.doors, database=database))
        answer = client.get("/readyz")
        app.state.house = house
    database.close()
    assert answer.status_code == httpx.codes.OK
    assert answer.json()["data"]["degraded"] == degraded
