"""Hints over a real Redis: sent at once, or batched for callbacks."""

import base64
import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from redis import Redis

from scheduler.use_cases.shared import hints as tasks
from tests.conftest import wait_until
from workers.app import app
from workers.hint_publisher import RedisHintPublisher


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as redis:
        yield redis


def messages(redis: Redis, queue: str) -> list[list[str]]:
    """Return the ids in each message of the queue, oldest first."""
    waiting = [json.loads(each) for each in redis.lrange(f"duecall:{queue}", 0, -1)]
    return [json.loads(base64.b64decode(each["body"]))[0][0] for each in reversed(waiting)]


@pytest.mark.usefixtures("broker")
def test_callback_hints_are_batched_and_command_hints_are_not(redis: Redis, redis_url: str) -> None:
    hints = RedisHintPublisher(app, redis_url)
    events, commands = [uuid4() for _ in range(450)], [uuid4() for _ in range(3)]
    for each in events:
        hints.send(tasks.HEAR, [each])
    for each in commands:
        hints.send(tasks.APPLY, [each])
    hints.start()
    wait_until(lambda: len(messages(redis, "intake")) == len(commands), says="the command hints are sent")
    assert messages(redis, "intake") == [[str(each)] for each in commands]
    wait_until(lambda: sum(map(len, messages(redis, "callbacks"))) == len(events), says="the callback hints are sent")
    assert [UUID(each) for message in messages(redis, "callbacks") for each in message] == events
    assert len(messages(redis, "callbacks")) < len(events) / 10
    assert max(len(message) for message in messages(redis, "callbacks")) == 200
    hints.stop()


@pytest.mark.usefixtures("broker")
def test_stopping_publisher_sends_its_batch(redis: Redis, redis_url: str) -> None:
    hints, event = RedisHintPublisher(app, redis_url), uuid4()
    hints.start()
    hints.send(tasks.HEAR, [event])
    hints.stop()
    assert messages(redis, "callbacks") == [[str(event)]]
