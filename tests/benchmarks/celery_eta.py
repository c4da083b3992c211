"""Celery's own `eta`, as the measure: jobs that push to a Redis list, due at one instant.

    python -m celery -A tests.benchmarks.celery_eta worker

The broker is BENCHMARK_REDIS_URL. Prefetching is unlimited, because Celery keeps jobs in the worker until they are due.
"""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import psutil  # type: ignore[import-untyped]
import redis
from celery import Celery

DONE = "benchmark:done"
_AHEAD = timedelta(seconds=15)
_PATIENCE_S = 120

app = Celery("celery_eta", broker=os.environ.get("BENCHMARK_REDIS_URL"), backend=None)
app.conf.update(worker_prefetch_multiplier=0, task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(name="benchmark.push")  # type: ignore[untyped-decorator]
def push() -> None:
    """Do what a job does at least: one RPUSH of the time."""
    redis_of(app.conf.broker_url).rpush(DONE, time.time())


_clients: dict[str, redis.Redis] = {}


def redis_of(url: str) -> redis.Redis:
    return _clients.setdefault(url, redis.Redis.from_url(url))


def jobs_per_second(redis_url: str, count: int) -> tuple[float, float]:
    """Run a burst of `count` jobs. Return the jobs per second from their due time on, and CPU milliseconds a job."""
    client = redis_of(redis_url)
    client.delete(DONE)
    environment = os.environ | {"BENCHMARK_REDIS_URL": redis_url}
    command = [sys.executable, "-m", "celery", "-A", "tests.benchmarks.celery_eta", "worker"]
    quiet = ["--concurrency", "2", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
    with subprocess.Popen([*command, *quiet], env=environment) as worker:
        app.conf.broker_url = redis_url
        push.apply_async(countdown=1)
        deadline = time.monotonic() + _PATIENCE_S
        _wait(client, 1, deadline)
        client.delete(DONE)
        due = datetime.now(UTC) + _AHEAD
        for _ in range(count):
            push.apply_async(eta=due)
        begin = _cpu(worker.pid)
        _wait(client, count, deadline)
        cost = _cpu(worker.pid) - begin
        last = max(float(text) for text in client.lrange(DONE, 0, -1))
        worker.terminate()
    return count / (last - due.timestamp()), 1000 * cost / count


def _wait(client: redis.Redis, count: int, deadline: float) -> None:
    while int(client.llen(DONE)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Celery did {client.llen(DONE)} of {count} jobs in {_PATIENCE_S} s.")
        time.sleep(0.1)


def _cpu(pid: int) -> float:
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))
