"""Every process runs out of descriptors while calls are due, and works again afterwards: no call is lost."""

import os
import resource
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis

from standalone.supervisor import commands
from tests.acceptance.conftest import WholeSystem
from tests.support.descriptors import limited

KINDS = tuple(commands(api_port=0, console_port=0, flower_port=0))
WITHOUT_A_WATCHDOG = {"flower"}
"""It does no work for calls, and logs the failures themselves."""
NAMES_IT = ("OUT_OF_DESCRIPTORS", "Too many open files")
DURING = [f"+42191541{place:04}" for place in range(12)]
AFTER = "+421915410099"
FEW, IDLE = 256, 300
FEWEST = 8
"""Below all that a process has open. At the number of what it has open, it can use the place of what it closes."""


def pids_of(whole: WholeSystem) -> dict[str, int]:
    whole.wait_until(lambda: {*started(whole)} == {*KINDS}, seconds=60, says="every process runs")
    return started(whole)


@pytest.mark.timeout(300)
def test_processes_raise_their_limit_at_the_start(whole: WholeSystem) -> None:
    """They inherit the one of the fork server, or of this process where none is possible."""
    server, before = whole.system.supervisor.fork_server, pids_of(whole)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = min(hard, 65_536)
    assert raised > FEW
    with limited(os.getpid() if server is None else server.pid, FEW):
        for name in KINDS:
            whole.send_signal(name)
        whole.wait_until(
            lambda: (
                {name for name, pid in started(whole).items() if pid != before[name] and soft_limit(pid) == raised}
                == {*KINDS}
            ),
            seconds=120,
            says="each process has raised its limit",
        )
    whole.wait_until(lambda: is_ready(whole), seconds=60, says="the API is ready")


def started(whole: WholeSystem) -> dict[str, int]:
    pids = {name: whole.system.supervisor.pid(name) for name in KINDS}
    return {name: pid for name, pid in pids.items() if pid is not None}


def soft_limit(pid: int) -> int | None:
    try:
        return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    except ProcessLookupError:
        return None


@pytest.mark.timeout(300)
def test_calls_ring_after_a_shortage_in_every_process(whole: WholeSystem, aloud: Callable[[str], None]) -> None:
    whole.client.plan(ring_s=0.2, talk_s=0.2)
    due_at = whole.in_seconds(6)
    for number in DURING:
        whole.client.created(number, scheduledAt=due_at)
    ends_at = whole.in_seconds(16)
    with ExitStack() as stack:
        for pid in pids_of(whole).values():
            stack.enter_context(limited(pid, FEWEST))
        whole.wait_until(
            lambda: not unnamed(whole) and whole.in_seconds(0) > ends_at,
            seconds=60,
            says="each process names the limit",
        )
    aloud(f"{len(whole.client.rings())} calls rang during the shortage")
    whole.wait_until(lambda: is_ready(whole), seconds=60, says="the API is ready")
    whole.wait_until(
        lambda: not whole.rows("SELECT 1 FROM attempts WHERE state IN ('PENDING', 'IN_PROGRESS')"),
        seconds=120,
        says="every attempt has ended",
    )
    rings = Counter(ring["to"] for ring in whole.client.rings())
    unproven = whole.rows(
        "SELECT p.phone_number FROM attempts a JOIN interviews i ON i.id = a.interview_id"
        " JOIN candidates p ON p.id = i.candidate_id WHERE a.reason = 'OUTCOME_UNKNOWN'"
    )
    assert {number: rings[number] for number in DURING if rings[number] > 1} == {}, "a phone rang twice"
    assert {*DURING} <= {*rings, *(number for [number] in unproven)}, "a call was lost"
    assert "carrier_down" not in log_of(whole, "dial"), "the carrier was well"


@pytest.mark.timeout(300)
def test_workers_recover_whose_lost_connections_cannot_be_opened(whole: WholeSystem) -> None:
    """Celery ends a worker that meets the limit while it connects. Its supervisor starts it again."""
    with ExitStack() as stack:
        for pid in pids_of(whole).values():
            stack.enter_context(limited(pid, FEWEST))
        with closing(Redis.from_url(whole.running.redisUrl)) as redis:
            for kind in ("normal", "pubsub"):
                redis.client_kill_filter(_type=kind, skipme=True)
        whole.wait_until(lambda: not unnamed(whole), seconds=60, says="each process names the limit")
        whole.wait_until(
            lambda: NAMES_IT[1] in log_of(whole, "clock"),
            seconds=60,
            says="the clock has tried to connect",
        )
    whole.wait_until(lambda: is_ready(whole), seconds=60, says="the API is ready")
    assert whole.client.post(whole.client.interview(AFTER), Prefer="respond-async").status_code == 202
    whole.wait_until(lambda: whole.client.rings_of(AFTER), seconds=90, says="a call rings")


def unnamed(whole: WholeSystem) -> list[str]:
    """List the processes whose logs do not name the limit."""
    logs = {name: log_of(whole, name) for name in KINDS}
    return [
        name for name in logs if name not in WITHOUT_A_WATCHDOG and not any(each in logs[name] for each in NAMES_IT)
    ]


def log_of(whole: WholeSystem, name: str) -> str:
    return whole.system.log_of(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["api", "console", "flower"])
def test_idle_connections_leave_a_server_that_answers(whole: WholeSystem, name: str) -> None:
    url = {
        "api": f"{whole.running.apiUrl}/healthz",
        "console": f"{whole.running.consoleUrl}/healthz",
        "flower": f"{whole.running.flowerUrl}/healthcheck",
    }[name]
    with limited(pids_of(whole)[name], FEW), ExitStack() as idle:
        for _ in range(IDLE):
            client = idle.enter_context(closing(socket.socket()))
            client.setblocking(False)
            client.connect_ex((urlsplit(url).hostname, urlsplit(url).port))
        if name == "flower":  # it is on an internal address
            idle.close()
        whole.wait_until(lambda: answers(url), seconds=60, says=f"{name} answers again")


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=20, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def is_ready(whole: WholeSystem) -> bool:
    return answers(f"{whole.running.apiUrl}/readyz")
