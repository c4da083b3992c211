"""What is rung for over a real Redis: at once, or together where nobody waits for it."""

import base64
import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from redis import Redis

from scheduler.use_cases import bell as tasks
from tests.conftest import wait_until


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as redis:
        yield redis


def messages(redis: Redis, queue: str) -> list[list[str]]:
    """The ids of each message that waits there, the first one first."""
    waiting = [json.loads(each) for each in redis.lrange(f"duecall:{queue}", 0, -1)]
    return [json.loads(base64.b64decode(each["body"]))[0][0] for each in reversed(waiting)]


@pytest.mark.usefixtures("broker")
def test_callbacks_of_a_moment_share_a_message_and_commands_have_one_each(redis: Redis, redis_url: str) -> None:
    from workers.app import app  # noqa: PLC0415 - it names its broker when it is imported
    from workers.bell import RedisBell  # noqa: PLC0415 - likewise

    bell = RedisBell(app, redis_url)
    heard, applied = [uuid4() for _ in range(120)], [uuid4() for _ in range(3)]
    for each in heard:
        bell.ring(tasks.HEAR, [each])
    for each in applied:
        bell.ring(tasks.APPLY, [each])
    bell.start()
    wait_until(lambda: len(messages(redis, "intake")) == len(applied), says="the commands are rung for")
    assert messages(redis, "intake") == [[str(each)] for each in applied]
    wait_until(lambda: sum(map(len, messages(redis, "callbacks"))) == len(heard), says="the callbacks are rung for")
    assert [UUID(each) for message in messages(redis, "callbacks") for each in message] == heard
    assert len(messages(redis, "callbacks")) < len(heard) / 10
    assert max(len(message) for message in messages(redis, "callbacks")) == 50
    bell.stop()


@pytest.mark.usefixtures("broker")
def test_whoever_stops_rings_for_what_it_has_gathered(redis: Redis, redis_url: str) -> None:
    from workers.app import app  # noqa: PLC0415 - it names its broker when it is imported
    from workers.bell import RedisBell  # noqa: PLC0415 - likewise

    bell, event = RedisBell(app, redis_url), uuid4()
    bell.start()
    bell.ring(tasks.HEAR, [event])
    bell.stop()
    assert messages(redis, "callbacks") == [[str(event)]]
