"""`duecall up` and every worker warn about a Redis that evicts keys, and only then."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from scheduler import start_checks
from scheduler.settings import Settings
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.acceptance.conftest import WholeSystem, running_system
from tests.support.compose import WORKERS

NO_REDIS = "redis://127.0.0.1:1/0"


@pytest.fixture
def evicting(valkey: EmbeddedValkey) -> Iterator[str]:
    with redis.Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        yield valkey.url
        client.config_set("maxmemory-policy", "noeviction")


def alarms_of(whole: WholeSystem) -> list[tuple[str, int]]:
    """Return the alarms about Redis. A busy machine may raise others."""
    alarms = json.loads(whole.duecall("alarms", "list", "--json"))
    return [(each["kind"], each["count"]) for each in alarms if each["kind"] == "REDIS_EVICTS"]


def test_our_own_server_keeps_all(valkey: EmbeddedValkey) -> None:
    assert start_checks.why_away(valkey.url) is None
    assert start_checks.evicts_by(valkey.url) is None


def test_one_that_is_away_is_not_said_to_evict() -> None:
    assert start_checks.why_away(NO_REDIS) is not None
    assert start_checks.evicts_by(NO_REDIS) is None


def test_evicting_redis_is_reported_while_everything_runs(evicting: str, tmp_path: Path) -> None:
    assert start_checks.evicts_by(evicting) == "allkeys-lru"
    said: list[str] = []
    settings = Settings(database_url=None, redis_url=SecretStr(evicting), twilio_account_sid="")
    with running_system(tmp_path, settings, say=said.append) as whole:
        (warning,) = [line for line in said if line.startswith("WARNING")]
        assert "maxmemory-policy allkeys-lru" in warning
        for name in WORKERS:
            log = whole.system.log_of(name)
            whole.wait_until(
                lambda log=log: '"alarm": "REDIS_EVICTS"' in log.read_text(encoding="utf-8"),  # type: ignore[misc]
                seconds=60,
                says=f"{name} says it",
            )
        # All raise the same alarm, which is one row.
        whole.wait_until(
            lambda: alarms_of(whole) == [("REDIS_EVICTS", len(WORKERS))], seconds=60, says="the alarm is kept"
        )
        assert whole.client.created("+421915310001")
