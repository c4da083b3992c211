"""A second system in the same folder is refused, and the first one notices nothing."""

import json
from pathlib import Path

import pytest

from scheduler.settings import Settings
from standalone.run_file import AlreadyRunning
from standalone.system import Options, System
from tests.acceptance.conftest import WholeSystem


@pytest.mark.parametrize("ephemeral", [False, True], ids=["keeping its data", "ephemeral"])
def test_second_system_is_refused_and_the_first_keeps_running(whole: WholeSystem, ephemeral: bool) -> None:
    home = Path(whole.system.log_of("api")).parent.parent
    before = json.loads((home / "run.json").read_text())
    settings = Settings(database_url=None, redis_url=None, twilio_account_sid="")
    with (
        pytest.raises(AlreadyRunning, match="DUECALL_HOME"),
        System(Options(home=home, ephemeral=ephemeral), settings, print),
    ):
        pytest.fail("two run in one folder")
    assert json.loads((home / "run.json").read_text()) == before
    assert whole.client.get("/readyz").status_code == 200
    assert whole.client.created("+421915300001")
