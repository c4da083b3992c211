"""Every use of Redis verifies the certificate of a `rediss://` URL."""

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from uuid import UUID

import pytest
from flower.utils.broker import Broker
from kombu import Connection
from pydantic import SecretStr, ValidationError
from redis import RedisError

from api_shim.answer_waiter import AnswerWaiter
from api_shim.rate_limits import RateLimits
from scheduler import start_checks
from scheduler.settings import Settings
from tests.api_shim.test_intake_rate_limits import a_key
from tests.conftest import wait_until
from tests.support.tls_redis import TlsRedis, needs_tls_redis, tls_redis
from workers.app import app
from workers.hints import RedisHintPublisher, quick_connection
from workers.liveness import Presence

pytestmark = needs_tls_redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    with tls_redis(tmp_path_factory.mktemp("tls")) as server:
        yield server


def _kombu(url: str) -> bool:
    with quick_connection(url) as connection:
        return _reached(lambda: connection.ensure_connection(max_retries=0, reraise_as_library_errors=False))


def _hints(url: str) -> bool:
    hints = RedisHintPublisher(app, url)
    return _reached(hints._redis.ping)


def _presence(url: str) -> bool:
    with closing(Presence(url)) as presence:
        return _reached(presence.live)


def _health(url: str) -> bool:
    return start_checks.why_away(url) is None


def _flower(url: str) -> bool:
    # As Flower builds it: without the query of the URL, and with the options of TLS that `watch_only` sets.
    broker = Broker(url.partition("?")[0], broker_options={}, broker_use_ssl=Connection(url).ssl)

    async def ping() -> None:
        async with broker.redis as client:
            await client.ping()

    return _reached(lambda: asyncio.run(ping()))


def _rate_limits(url: str) -> bool:
    async def counts() -> bool:
        limits = RateLimits(url, lambda: datetime.now(UTC), lambda: False)
        async with limits.counting():
            first, second = await limits.count_request(a_key()), await limits.count_request(a_key())
        return second.windows[0].remaining < first.windows[0].limit

    return asyncio.run(counts())


def _waiter(url: str) -> bool:
    async def is_subscribed() -> bool:
        waiter = AnswerWaiter(url, "a channel", lambda: False, _no_answers)
        async with waiter.listening():
            return not waiter.is_away

    try:
        return asyncio.run(is_subscribed())
    finally:
        # A cancelled client does not wait for the end of TLS, and here the loop may end before. Later, in another test,
        # its transport would be collected with a warning.
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            gc.collect()


async def _no_answers(_: Sequence[UUID]) -> frozenset[UUID]:
    return frozenset()


def _reached(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (RedisError, OSError):
        return False
    return True


USES = [_kombu, _hints, _presence, _health, _flower, _rate_limits, _waiter]


def _set(url: str, query: str = "") -> str:
    return Settings(redis_url=SecretStr(f"{url}{query}")).redis


@pytest.mark.parametrize("reaches", USES)
def test_redis_with_a_trusted_certificate_is_reached(
    reaches: Callable[[str], bool], server: TlsRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some uses give up after half a second, in which a busy machine may not connect.
    named = _set(server.url, f"?ssl_ca_certs={server.authority}")
    wait_until(lambda: reaches(named), says="Redis is reached")
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    wait_until(lambda: reaches(_set(server.url)), says="Redis is reached")


@pytest.mark.parametrize("reaches", USES)
def test_redis_with_a_foreign_certificate_is_refused(
    reaches: Callable[[str], bool], server: TlsRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not reaches(_set(server.url))
    assert not reaches(_set(server.url, f"?ssl_ca_certs={server.other}"))
    monkeypatch.setenv("SSL_CERT_FILE", str(server.other))
    assert not reaches(_set(server.url))


def test_unverified_redis_is_reached_on_request(server: TlsRedis) -> None:
    wait_until(lambda: _kombu(_set(server.url, "?ssl_cert_reqs=none")), says="Redis is reached")


def test_misspelt_verification_is_refused() -> None:
    for wrong in ("CERT_NONE", "off", "optional"):
        with pytest.raises(ValidationError, match="must have ssl_cert_reqs=required"):
            Settings(redis_url=SecretStr(f"rediss://h/0?ssl_cert_reqs={wrong}"))


def test_flower_connects_with_the_same_verification(server: TlsRedis) -> None:
    chosen = Settings(flower_redis_url=SecretStr(server.url), redis_url=SecretStr("redis://h/0"))
    assert chosen.flower_redis == f"{server.url}?ssl_cert_reqs=required"
