"""Real workers on a real Redis: two of one node name, a Redis whose memory is full, and failed acknowledgements."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection, Queue

from scheduler.settings import environment
from scheduler.use_cases.shared.hints import LIVENESS
from standalone.fork_server import ForkedProcess
from standalone.private_server import free_port
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.conftest import wait_until
from tests.support.forked_commands import forked
from tests.support.servers import ACCOUNT_SID, PRIMARY, wired
from workers.app import configuration
from workers.redis_transport import Tally

ONE_MB = 1_000_000


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A separate server, so that its limits affect no other test."""
    server = EmbeddedValkey(tmp_path)
    server.start()
    yield server
    server.stop()


@contextmanager
def a_worker(name: str, redis_url: str, postgres_url: str, log: Path) -> Iterator[ForkedProcess]:
    """A worker of the queue `callbacks`, stopped at the end."""
    line = "-m celery -A workers.app worker -Q callbacks --pool threads --concurrency 1 --without-gossip"
    variables = environment(
        REDIS_URL=redis_url, DATABASE_URL=postgres_url, TWILIO_ACCOUNT_SID=ACCOUNT_SID, TWILIO_AUTH_TOKEN=PRIMARY
    )
    process = forked([*line.split(), "--without-mingle", "--hostname", name, "--loglevel", "INFO"], variables, log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(log: Path) -> None:
    wait_until(lambda: log.exists() and " ready" in log.read_text(), seconds=60, says="the worker is ready")


@pytest.mark.timeout(600)
def test_two_workers_of_one_name_have_separate_queues(
    own: EmbeddedValkey, postgres_url: str, broker: None, tmp_path: Path
) -> None:
    logs = [tmp_path / "one.log", tmp_path / "other.log"]
    with (
        a_worker("dial@here", own.url, postgres_url, logs[0]),
        a_worker("dial@here", own.url, postgres_url, logs[1]),
    ):
        for log in logs:
            wait_until_ready(log)
        assert len(set(liveness_queues(own.url, workers=2))) == 2


def liveness_queues(redis_url: str, *, workers: int) -> list[str]:
    """Ask the workers for the queues of their own pings."""
    answers: list[Any] = []
    with Celery("test") as app:
        app.conf.update(configuration(redis_url))

        def all_have_answered() -> bool:
            answers[:] = app.control.broadcast("active_queues", reply=True, timeout=5, limit=workers)
            return len(answers) == workers

        wait_until(all_have_answered, seconds=60, says="each worker answers with its queues")
    return [
        queue["name"]
        for answer in answers
        for queues in answer.values()
        for queue in queues
        if queue["name"].startswith("hearing.")
    ]


@pytest.mark.timeout(600)
def test_worker_survives_a_redis_at_its_memory_limit(own: EmbeddedValkey, postgres_url: str, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with redis.Redis.from_url(own.url) as client, a_worker("callbacks@here", own.url, postgres_url, log) as worker:
        wait_until_ready(log)
        before = log.stat().st_size
        client.config_set("maxmemory", ONE_MB // 10)

        def has_tried() -> bool:
            """Check that the worker was refused and has tried again, or has ended."""
            lines = log.read_bytes()[before:].decode(errors="replace")
            if "maxmemory" not in lines:
                # A worker that does not wait for messages yet notices no kill, and connects later without an error.
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            return worker.poll() is not None or lines.count("maxmemory") > 1

        wait_until(has_tried, seconds=60, says="it meets a full Redis")
        assert worker.poll() is None, log.read_text()[-2000:]
        client.config_set("maxmemory", 0)
        client.lpush("duecall:callbacks", b"this is not json")
        wait_until(lambda: "NO_MESSAGE" in log.read_text(), seconds=60, says="it takes from its queue again")


@pytest.mark.timeout(600)
def test_worker_survives_a_demoted_primary(own: EmbeddedValkey, postgres_url: str, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with redis.Redis.from_url(own.url) as client, a_worker("callbacks@here", own.url, postgres_url, log) as worker:
        wait_until_ready(log)
        for times in (1, 2):  # it waits for messages, or connects
            client.replicaof("127.0.0.1", free_port())
            wait_until(
                lambda times=times: worker.poll() is not None or log.read_text().count("read only replica") > times,  # type: ignore[misc]
                seconds=60,
                says="it meets a replica and tries again",
            )
            assert worker.poll() is None, log.read_text()[-2000:]
            client.replicaof("NO", "ONE")
            dropped = log.read_text().count("message_dropped") + log.read_text().count("Unrecoverable")
            assert dropped == 0
        client.lpush("duecall:callbacks", b"this is not json")
        wait_until(lambda: "NO_MESSAGE" in log.read_text(), seconds=60, says="it takes from its queue again")
        assert "workers.heard[" not in log.read_text(), "its pings are no news"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "task", [pytest.param(LIVENESS, id="acknowledged"), pytest.param("no.such.task", id="rejected")]
)
def test_failed_acknowledgements_do_not_block_a_worker(
    own: EmbeddedValkey, postgres_url: str, tmp_path: Path, task: str
) -> None:
    log = tmp_path / "worker.log"
    with (
        wired(own.url) as (wire, url),
        a_worker("callbacks@here", url, postgres_url, log),
        redis.Redis.from_url(own.url) as client,
        Celery("test", broker=own.url) as sender,
    ):
        sender.conf.update(configuration(own.url))
        wait_until_ready(log)
        # The worker has one place. Each of its acknowledgements removes a message from the unacknowledged ones.
        wire.cut_before = lambda sent: b"HDEL" in sent
        for failed in (1, 2):
            sender.send_task(task, queue="callbacks")
            wait_until(lambda failed=failed: wire.died >= failed, seconds=60, says="an acknowledgement fails")  # type: ignore[misc]
        wire.cut_before = lambda _: False
        sender.send_task(LIVENESS, queue="callbacks")
        wait_until(lambda: not client.exists("duecall:callbacks"), seconds=60, says="it takes the next message")


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        pytest.param(MemoryError(), 2, id="no memory"),
        pytest.param(RuntimeError("can't start new thread"), 2, id="no thread"),
        pytest.param(RecursionError(), 0, id="nested too deeply"),
        pytest.param(KeyError("id"), 0, id="malformed"),
    ],
)
def test_message_is_kept_exactly_when_the_worker_failed(own: EmbeddedValkey, error: Exception, kept: int) -> None:
    taken: list[object] = []

    def fail(body: object, _: object) -> None:
        taken.append(body)
        raise error

    options = configuration(own.url)["broker_transport_options"]
    with Connection(own.url, transport_options=options) as connection, redis.Redis.from_url(own.url) as client:
        consumer = connection.Consumer([Queue("callbacks")], callbacks=[fail], accept=["json"])
        consumer.qos(prefetch_count=1)
        consumer.consume()
        for place in (1, 2):
            connection.Producer().publish({"place": place}, routing_key="callbacks")
        while len(taken) < 2:
            with suppress(TimeoutError):
                connection.drain_events(timeout=1)
        assert taken == [{"place": 1}, {"place": 2}]
        assert client.hlen("duecall:unacked") == kept


def test_malformed_messages_are_reported_at_most_once_a_minute(broker: None) -> None:
    tally = Tally(every_s=60)
    assert tally.count_of(1000.0) == 1
    assert [tally.count_of(1000.0 + each / 100) for each in range(1459)] == [0] * 1459
    assert tally.count_of(1059.9, new=0) == 0
    assert tally.count_of(1060.0, new=0) == 1459, "even if no malformed message follows"
    assert tally.count_of(1090.0) == 0
    assert tally.count_of(1200.0) == 2
    assert tally.count_of(2000.0, new=0) == 0


def test_channel_keeps_its_client_until_it_is_disconnected(own: EmbeddedValkey) -> None:
    with Connection(own.url, transport_options=configuration(own.url)["broker_transport_options"]) as connection:
        channel = connection.default_channel
        kept = []
        for _ in range(2):
            with channel.conn_or_acquire() as client:
                kept.append(client)
        assert kept[0] is kept[1]
        channel._disconnect_pools()
        with channel.conn_or_acquire() as client:
            assert client.connection_pool is channel.pool is not kept[0].connection_pool
        with channel.conn_or_acquire(kept[0]) as client:
            assert client is kept[0]
