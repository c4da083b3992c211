"""A worker that is connected but consumes nothing must end by itself."""

import time
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from scheduler.settings import Settings
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.acceptance.conftest import WholeSystem, running_system
from tests.support.compose import WORKERS
from tests.support.servers import Wire, wired

DEAF_AT_MOST_S = 150.0


@pytest.fixture
def over_a_wire(valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WholeSystem, Wire]]:
    """A system whose processes reach Redis over a wire."""
    with wired(valkey.url) as (wire, url):
        settings = Settings(database_url=None, redis_url=SecretStr(url), twilio_account_sid="")
        with running_system(tmp_path_factory.mktemp("deaf"), settings) as whole:
            whole.raise_limits()
            yield whole, wire


@pytest.mark.timeout(420)
def test_workers_whose_connection_is_half_open_hear_again(
    over_a_wire: tuple[WholeSystem, Wire], aloud: Callable[[str], None]
) -> None:
    whole, wire = over_a_wire
    call(whole, "+421915300001")
    pids = {name: whole.system.supervisor.pid(name) for name in WORKERS}

    # Existing connections go dead and new ones get through. Celery notices by itself.
    before = time.monotonic()
    wire.dead = lambda _: time.monotonic() < before + 5 or wire.died < len(WORKERS)
    call(whole, "+421915300002", within_s=DEAF_AT_MOST_S)
    aloud(f"{wire.died} dead connections; a call rang after {time.monotonic() - before:.0f} s")

    # Each connection that waits for messages goes dead and all others get through, so no consumer can recover.
    before = time.monotonic()
    wire.dead = lambda sent: b"BRPOP" in sent
    for name in WORKERS:
        whole.wait_until(
            lambda name=name: whole.system.supervisor.pid(name) not in {pids[name], None},  # type: ignore[misc]
            seconds=DEAF_AT_MOST_S,
            says=f"the deaf {name} worker was started again",
        )
    took = time.monotonic() - before
    wire.dead = lambda _: False
    aloud(f"four unresponsive workers were started again within {took:.0f} s")
    for name in WORKERS:
        assert "DEAF_WORKER" in whole.system.log_of(name).read_text(encoding="utf-8")
    call(whole, "+421915300003", within_s=60)
    assert not [path for path in whole.logs() if path.stem not in WORKERS and "DEAF_WORKER" in path.read_text()]


def call(whole: WholeSystem, number: str, *, within_s: float = 60) -> None:
    answer = whole.client.post(whole.client.interview(number), Prefer="respond-async")
    assert answer.status_code == 202
    whole.wait_until(
        lambda: [ring for ring in whole.client.rings() if ring["to"] == number],
        seconds=within_s,
        says=f"the call to {number} rings",
    )
