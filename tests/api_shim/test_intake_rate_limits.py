"""Rate limits: in every response, enforced above the limit, and off while Redis is unavailable."""

import math
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis

from api_shim import rate_limits
from api_shim.rate_limits import RateLimits, RateLimitState
from scheduler.domain.principal import Key, KeyKind, Principal
from scheduler.hashing import Hasher
from tests.api_shim.answers import refused
from tests.api_shim.bodies import JOB
from tests.api_shim.document_operations import OPERATIONS, address_of_nothing
from tests.api_shim.intake import KEY, PEPPER, Intake
from tests.conftest import NOON, TestClock, wait_until
from tests.support.servers import a_closed_port, a_door, address_of

EARLY_IN_AN_HOUR = datetime(2026, 4, 2, 12, 5, 10, tzinfo=UTC)
NAMES = [f"X-RateLimit-{what}-{tier}" for tier in ("Minute", "Hour") for what in ("Limit", "Remaining", "Reset")]


def with_limits(intake: Intake, *scopes: str, per_minute: int, per_hour: int = 2000) -> Intake:
    return intake.with_key(intake.new_key(*scopes, per_minute=per_minute, per_hour=per_hour)[1])


def limits_of(answer: httpx.Response) -> dict[str, int]:
    """Read the value of each header, by its name without the prefix."""
    assert all(answer.headers.get_list(name) == [answer.headers[name]] for name in NAMES)
    return {name.removeprefix("X-RateLimit-"): int(answer.headers[name]) for name in NAMES}


def counted(answer: httpx.Response) -> httpx.Response | None:
    limits = limits_of(answer)
    return answer if limits["Remaining-Minute"] < limits["Limit-Minute"] else None


def test_response_to_a_valid_key_shows_limits_and_counts_one(intake: Intake) -> None:
    """Most of these requests are refused for other reasons, and count anyway."""
    for name, (method, path, scope, _) in OPERATIONS.items():
        if scope is None:
            continue
        asking, address = with_limits(intake, per_minute=60), address_of_nothing(path)
        for remaining in (59, 58):
            limits = limits_of(sent_until_counted(asking, method, address))
            assert (limits["Limit-Minute"], limits["Limit-Hour"]) == (60, 2000), name
            assert (limits["Remaining-Minute"], limits["Remaining-Hour"]) == (remaining, 1940 + remaining), name
            now = math.floor(intake.now().timestamp())
            for reset, seconds in ((limits["Reset-Minute"], 60), (limits["Reset-Hour"], 3600)):
                assert now < reset + 1 <= now + seconds + 1, name
                assert reset % seconds == 0, name


def sent_until_counted(asking: Intake, method: str, path: str) -> httpx.Response:
    """While Redis is slow, no request is limited or counted."""
    headers = {"Content-Type": "application/json"}
    return wait_until(lambda: counted(asking.send(method, path, content=b"{}", headers=headers)), says="it is counted")


def test_too_large_body_and_missing_scope_are_counted(intake: Intake) -> None:
    asking = with_limits(intake, "read:jobs", per_minute=60)
    assert limits_of(asking.get("/candidates"))["Remaining-Minute"] == 59
    assert limits_of(asking.post("/interviews", {}))["Remaining-Minute"] == 58


@pytest.mark.parametrize("authorization", [None, "Bearer sk_live_mistyped"])
def test_request_without_a_valid_key_gets_no_limits(intake: Intake, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = intake.client.get("/jobs", headers=headers)
    assert answer.status_code == 401
    assert not set(NAMES) & set(answer.headers)
    assert not set(NAMES) & set(intake.client.get("/readyz").headers)


def test_request_above_the_minute_limit_gets_429_and_retry_after(intake: Intake) -> None:
    asking = with_limits(intake, per_minute=2)
    answers = [asking.get("/jobs") for _ in range(4)]
    if answers[0].headers["X-RateLimit-Reset-Minute"] != answers[-1].headers["X-RateLimit-Reset-Minute"]:
        answers = [asking.get("/jobs") for _ in range(4)]  # a new minute has just begun
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    last = answers[-1]
    error = refused(last, 429, "RATE_LIMIT_EXCEEDED")
    wait, reset = int(last.headers["Retry-After"]), limits_of(last)["Reset-Minute"]
    assert error["details"] == {"limit": 2, "per": "MINUTE", "reset": reset, "retryAfter": wait}
    assert 0 <= reset - intake.now().timestamp() <= wait <= 60
    assert limits_of(last)["Remaining-Minute"] == 0
    # A request above the minute limit does not count for the hour.
    assert limits_of(last)["Remaining-Hour"] == 1998


def test_request_above_the_hour_limit_gets_429(intake: Intake) -> None:
    asking = with_limits(intake, per_minute=60, per_hour=1)
    answers = [asking.get("/jobs") for _ in range(2)]
    if answers[0].headers["X-RateLimit-Reset-Hour"] != answers[1].headers["X-RateLimit-Reset-Hour"]:
        answers = [answers[1], asking.get("/jobs")]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["error"]["details"]["per"] == "HOUR"
    assert answers[1].json()["error"]["details"]["reset"] == limits_of(answers[1])["Reset-Hour"]


def test_each_key_of_a_company_has_its_own_limits(intake: Intake) -> None:
    one, other = with_limits(intake, per_minute=1), with_limits(intake, per_minute=1)
    assert one.get("/jobs").status_code == 200
    assert other.get("/jobs").status_code == 200


def test_rate_limited_request_is_not_stored_for_its_key(intake: Intake) -> None:
    asking = with_limits(intake, per_minute=1)
    asking.get("/jobs")
    assert asking.post("/jobs", JOB, headers=KEY).status_code == 429
    assert intake.count("inbox") == 0
    intake.change("UPDATE api_keys SET per_minute = 100")
    assert asking.post("/jobs", JOB, headers=KEY).status_code == 201


def test_redis_gets_only_the_id_of_a_key(intake: Intake, redis_url: str) -> None:
    principal, secret = intake.new_key()
    intake.with_key(secret).get("/jobs")
    with redis.Redis.from_url(redis_url) as client:
        names = [bytes(name).decode() for name in client.scan_iter("duecall:limits*")]
        mine = [name for name in names if str(principal.key_id) in name]
        assert len(mine) == 2
        assert all(0 < int(client.ttl(name)) <= 3600 for name in mine)
    material = (secret, secret.removeprefix("sk_live_"), Hasher(PEPPER).key(secret).hex())
    assert not [name for name in names if any(each in name for each in material)]


# ---- the limits by themselves


def a_key(per_minute: int = 2, per_hour: int = 3) -> Key:
    key_id = uuid4()
    principal = Principal(id=key_id, kind=KeyKind.ATS, key_id=key_id, scopes=frozenset())
    return Key(principal=principal, name="a test", per_minute=per_minute, per_hour=per_hour, created_at=NOON)


@pytest.fixture
def at() -> TestClock:
    return TestClock(EARLY_IN_AN_HOUR)


def left(rate_limit: RateLimitState) -> Iterator[Any]:
    for window in rate_limit.windows:
        yield window.remaining
    yield rate_limit.exceeded and rate_limit.exceeded.name


async def test_limits_reset_each_minute_and_each_hour(redis_url: str, at: TestClock) -> None:
    key = a_key()
    async with RateLimits(redis_url, at, lambda: False).counting() as limits:
        assert [*left(await limits.count_request(key))] == [1, 2, None]
        assert [*left(await limits.count_request(key))] == [0, 1, None]
        assert [*left(await limits.count_request(key))] == [0, 1, "Minute"]
        at.move(timedelta(seconds=49))
        assert [*left(await limits.count_request(key))] == [0, 1, "Minute"]
        at.move(timedelta(seconds=1))
        assert [*left(await limits.count_request(key))] == [1, 0, None]
        assert [*left(await limits.count_request(key))] == [0, 0, "Hour"]
        at.move(timedelta(minutes=54))
        rate_limit = await limits.count_request(key)
        assert [*left(rate_limit)] == [1, 2, None]
        assert [window.resets_at - at().timestamp() for window in rate_limit.windows] == [60, 3600]


@pytest.mark.parametrize("where", [pytest.param("closed", id="no server"), pytest.param("known", id="known away")])
async def test_no_request_is_limited_while_redis_is_away(redis_url: str, at: TestClock, where: str) -> None:
    url = a_closed_port().replace("http", "redis") if where == "closed" else redis_url
    async with RateLimits(url, at, lambda: where == "known").counting() as limits:
        for _ in range(50):
            assert [*left(await limits.count_request(a_key(per_minute=1)))] == [1, 3, None]


async def test_hanging_redis_delays_one_request(at: TestClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(rate_limits, "_TRY_AGAIN_AFTER_S", 600.0)
    with a_door() as door:
        async with RateLimits(address_of(door).replace("http", "redis"), at, lambda: False).counting() as limits:
            for _ in range(50):
                assert (await limits.count_request(a_key())).exceeded is None
        assert connections_to(door) == 1


def connections_to(door: socket.socket) -> int:
    """Accept and count the connections that wait."""
    door.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            door.accept()[0].close()
            count += 1
    return count
