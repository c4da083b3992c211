"""Hints over a real Redis: sent at once, together if several wait, or batched for callbacks."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis import Redis
from redis.client import PubSub

from scheduler.use_cases.shared import hints as tasks
from standalone.private_server import free_port
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.conftest import wait_until
from workers.app import ANSWERED_CHANNEL, app
from workers.hints import RedisHintPublisher


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as redis:
        yield redis


def messages(redis: Redis, queue: str) -> list[list[str]]:
    """Read the ids in each message of the queue, oldest first."""
    waiting = [json.loads(each) for each in redis.lrange(f"duecall:{queue}", 0, -1)]
    return [json.loads(base64.b64decode(each["body"]))[0][0] for each in reversed(waiting)]


@pytest.mark.usefixtures("broker")
def test_callback_hints_are_batched_and_command_hints_joined(redis: Redis, redis_url: str) -> None:
    hints = RedisHintPublisher(app, redis_url)
    events, commands = [uuid4() for _ in range(450)], [uuid4() for _ in range(3)]
    for each in events:
        hints.send(tasks.HEAR, [each])
    for each in commands:
        hints.send(tasks.APPLY, [each])
    hints.start()
    wait_until(lambda: messages(redis, "intake"), says="the command hints are sent")
    assert messages(redis, "intake") == [[str(each) for each in commands]]
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


@pytest.mark.usefixtures("broker")
def test_command_hint_waits_for_no_other(redis: Redis, redis_url: str) -> None:
    hints, commands = RedisHintPublisher(app, redis_url), [uuid4() for _ in range(2)]
    hints.start()
    hints.send(tasks.APPLY, commands[:1])
    wait_until(lambda: messages(redis, "intake"), says="the first hint is sent")
    hints.send(tasks.APPLY, commands[1:])
    wait_until(lambda: len(messages(redis, "intake")) == len(commands), says="the second hint is sent")
    assert messages(redis, "intake") == [[str(each)] for each in commands]
    hints.stop()


@pytest.mark.usefixtures("broker")
def test_hint_for_locked_rows_is_sent_after_a_while(redis: Redis, redis_url: str) -> None:
    hints, (stuck, free) = RedisHintPublisher(app, redis_url), [uuid4() for _ in range(2)]
    hints.send_again(tasks.APPLY, [stuck], 2)
    hints.send_again(tasks.APPLY, [stuck], 1)
    hints.send(tasks.APPLY, [free])
    hints.start()
    wait_until(lambda: len(messages(redis, "intake")) == len([stuck, free]), says="both hints are sent")
    assert messages(redis, "intake") == [[str(free)], [str(stuck)]]
    hints.stop()
    assert messages(redis, "intake") == [[str(free)], [str(stuck)]], "it is sent once"


@pytest.fixture
def subscription(redis: Redis) -> Iterator[PubSub]:
    with PubSub(redis.connection_pool, ignore_subscribe_messages=True) as subscription:
        subscription.subscribe(ANSWERED_CHANNEL)
        subscription.get_message(timeout=60)
        yield subscription


@pytest.mark.usefixtures("broker")
def test_each_waiting_request_gets_a_notification(subscription: PubSub, redis_url: str) -> None:
    hints, commands = RedisHintPublisher(app, redis_url), [uuid4() for _ in range(3)]
    for each in commands:
        hints.answered(each)
    hints.start()
    hints.stop()
    found = [subscription.get_message(timeout=60) for _ in commands]
    assert [each and each["data"] for each in found] == [str(each).encode() for each in commands]


@pytest.mark.usefixtures("broker")
def test_hints_are_published_again_after_redis_was_away(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path, port=free_port()) as valkey, Redis.from_url(valkey.url) as redis:
        hints, command = RedisHintPublisher(app, valkey.url), uuid4()
        hints.start()
        hints.send(tasks.APPLY, [uuid4()])
        wait_until(lambda: messages(redis, "intake"), says="the first hint is sent")
        valkey.stop()
        hints.send(tasks.APPLY, [uuid4()])
        wait_until(lambda: hints.is_away, says="Redis is away")
        valkey.start()
        wait_until(lambda: not hints.is_away, says="Redis is back")
        hints.send(tasks.APPLY, [command])
        wait_until(lambda: [str(command)] in messages(redis, "intake"), says="the last hint is sent")
        hints.stop()


@pytest.mark.usefixtures("broker")
def test_publisher_waits_while_redis_is_a_replica(tmp_path: Path, closed_port: int) -> None:
    server = EmbeddedValkey(tmp_path)
    url = server.start()
    hints, first, second = RedisHintPublisher(app, url), uuid4(), uuid4()
    hints.start()
    with Redis.from_url(url) as client:
        client.replicaof("127.0.0.1", closed_port)
        hints.send(tasks.APPLY, [first])
        wait_until(lambda: hints.is_away, says="the hint is refused")
        wait_until(lambda: refused_writes(client) > 1, says="it has checked twice")
        assert hints.is_away, "a replica takes no hints"
        client.replicaof("NO", "ONE")
        wait_until(lambda: not hints.is_away, says="it notices")
        hints.send(tasks.APPLY, [second])
        wait_until(lambda: messages(client, "intake") == [[str(second)]], says="the next hint is sent")
    hints.stop()
    server.stop()


def refused_writes(client: Redis) -> int:
    """Count the SET commands that the server refused."""
    return int(client.info("commandstats").get("cmdstat_set", {"rejected_calls": 0})["rejected_calls"])


@pytest.fixture
def closed_port() -> int:
    return free_port()
