"""Every blocking wait has a deadline on our side, or an entry here with its reason: see docs/reference/waits.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import PRODUCT, ROOT, module, name_of

LEFT_OUT = ("command_line/", "standalone/")
"""Programs of one machine and commands, which a person or a supervisor sees waiting. They connect to loopback."""

REQUESTS = ("standalone/api_client.py",)
"""Requests of commands to an API that may run on another machine."""

WAITS = {
    "join",
    "get",
    "wait",
    "result",
    "acquire",
    "recv",
    "accept",
    "communicate",
    "poll",
    "select",
    "read",
    "shutdown",
}
"""Methods that wait. A call without any argument has no deadline."""

OPENS = {
    "from_url": {"socket_timeout", "socket_connect_timeout"},
    "Redis": {"socket_timeout", "socket_connect_timeout"},
    "SMTP": {"timeout"},
    "SMTP_SSL": {"timeout"},
    "HTTPConnection": {"timeout"},
    "HTTPSConnection": {"timeout"},
    "create_connection": {"timeout"},
    "urlopen": {"timeout"},
    "ClientSession": {"timeout"},
    "Session": {"timeout"},
    "request": {"timeout"},
    "send_message": {"timeout"},
}
"""Functions that open a connection or use one, with the arguments that limit each wait on it."""

WITHOUT = {
    # Idle threads: they wait for work. What they then do is watched.
    "api_shim/thread_pools.py self._jobs.get": "a free thread waits for a request",
    "scheduler/use_cases/webhooks/deliverer.py self._to_send.get": "a free thread waits for a delivery",
    "workers/alarm_writer.py self._raised.wait": "the writer waits for an alarm",
    "scheduler/carriers/voice_server.py requests.Session": "within an Exchange of PROBE_S, as its request",
    # Tasks of an event loop: they occupy no thread.
    "api_shim/answer_waiter.py notified.wait": "within asyncio.timeout",
    "api_shim/answer_waiter.py self._query_now.wait": "within asyncio.wait_for",
    "api_shim/answer_waiter.py self._subscribed.wait": "within asyncio.wait_for",
    "api_shim/routes/carrier.py batch.is_ready.wait": "a batch becomes ready within 25 ms, or with its first thread",
    "api_shim/http_metrics.py stop.wait": "within asyncio.wait_for",
    "scheduler/use_cases/dial.py self._wake.wait": "within asyncio.timeout, or until a hint comes",
    "scheduler/use_cases/dialling/look.py self._places.acquire": "each place is freed when its look is no longer valid",
    "scheduler/use_cases/dialling/record.py self._wake.wait": "until an answer comes",
    "console/identity_provider.py aiohttp.ClientSession": "within asyncio.timeout(DEADLINE_S), `oidc.py`",
    "console/identity_provider.py session.request": "within asyncio.timeout(DEADLINE_S), `oidc.py`",
    # Limited where it was opened.
    "api_shim/rate_limits.py Redis": "its pool has both timeouts",
    "scheduler/carriers/twilio.py connection.request": "the connection has a timeout",
    # No wait at all.
    "api_shim/routes/carrier.py task.result": "the task has ended",
    "console/live.py self._task.result": "the task has ended",
    "scheduler/use_cases/dial.py recorder.result": "the task has ended",
}
"""Calls without a deadline of their own, by file and callee."""

NO_WAIT = (
    "_posting.get",
    "_ends_at.get",
    "_exchange.get",
    "_share.get",
    "select.poll",
    "known.accept",
    "self.poll",
    "_Probe.one.join",
)
"""Callees of these names wait for nothing: they read a context variable, or are methods of ours."""


def product() -> Iterator[tuple[str, ast.Module]]:
    for path in PRODUCT:
        name = name_of(path)
        if name in REQUESTS or not name.startswith(LEFT_OUT):
            yield name, module(path)


def is_endless(call: ast.Call) -> bool:
    """Check that this call may wait, and names no limit."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {each.arg for each in call.keywords}
    if name in OPENS and not isinstance(call.func, ast.Name | ast.Attribute):
        return False
    if name in OPENS and not named >= OPENS[name] and None not in named:
        return True
    return isinstance(call.func, ast.Attribute) and name in WAITS and not call.args and not named


def endless_waits(name: str, tree: ast.Module) -> set[str]:
    callees = {ast.unparse(each.func) for each in ast.walk(tree) if isinstance(each, ast.Call) and is_endless(each)}
    return {f"{name} {callee}" for callee in callees if callee not in NO_WAIT}


def test_every_wait_has_a_deadline_or_a_reason() -> None:
    found = {wait for name, tree in product() for wait in endless_waits(name, tree)}
    assert found == set(WITHOUT)


@pytest.mark.parametrize(
    "line",
    [
        "thread.join()",
        "queue.get()",
        "lock.acquire()",
        "future.result()",
        "redis.Redis.from_url(url)",
        "Redis.from_url(url, socket_timeout=1)",
        "smtplib.SMTP(host, port)",
        "requests.request('GET', url)",
    ],
)
def test_new_wait_without_a_deadline_is_found(line: str) -> None:
    assert endless_waits("new.py", ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "thread.join(2)",
        "queue.get(timeout=1)",
        "lock.acquire(blocking=False)",
        "', '.join(words)",
        "values.get('key')",
        "Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)",
    ],
)
def test_wait_with_a_deadline_is_not_reported(line: str) -> None:
    assert not endless_waits("new.py", ast.parse(line))


def test_page_of_waits_names_each_module_that_opens_connections() -> None:
    text = Path(ROOT / "docs/reference/waits.md").read_text(encoding="utf-8")
    opening = {
        name
        for name, tree in product()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", getattr(call.func, "id", "")) in OPENS
    }
    assert [name for name in sorted(opening) if f"`{name}`" not in text] == []
