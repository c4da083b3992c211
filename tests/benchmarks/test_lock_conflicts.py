"""The benchmark counts hints and events that were dropped for a lock."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests.benchmarks.lock_conflicts import DROPPED, RETRIED, LockConflicts
from tests.benchmarks.whole_path import Bench, place_calls, report, running
from tests.conftest import wait_until

DROPPED_FIGURE, LEASES = "hints or events dropped for a lock", "leases lost"
_ABOUT_LOCKS = re.compile(r'"(\w+): [^"]*(?:another transaction (?:held|has kept|keeps)|locked row)')
_PRODUCT = ("scheduler", "workers", "api_shim", "console", "standalone", "command_line")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with running(callbacks=True, progress=print) as started:
        yield started


def test_calls_are_reported_with_leases_and_conflicts(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    row = place_calls(bench, [datetime.now(UTC) + timedelta(seconds=1)] * 3, settles=True, patience_s=60)
    assert row["posted"] == 3
    report({"calls": row}, {"calls": {DROPPED_FIGURE: 77}})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [*DROPPED_FIGURE.split(), str(row[DROPPED_FIGURE]), "earlier", "77"] in lines
    assert [*LEASES.split(), str(row[LEASES])] in lines


def test_command_dropped_for_a_lock_is_counted(bench: Bench) -> None:
    assert bench.system.running is not None
    conflicts = LockConflicts(bench.system)
    with psycopg.connect(bench.system.running.databaseUrl) as holder:
        holder.execute("SELECT FROM agents WHERE id = %s FOR UPDATE", [bench.system.running.agentId])
        # A lock that no statement skips, on a row to which the new interview refers.
        candidate = {"firstName": "Ada", "lastName": "Lovelace", "phoneNumber": "+421915000001"}
        body = {"agentId": bench.system.running.agentId, "candidate": candidate | {"gdprExpiryDate": "2030-01-01"}}
        requests.post(f"{bench.api}/interviews", json=body, headers=bench.headers, timeout=30)
        figures = wait_until(lambda: _with_a_drop(conflicts), seconds=60, says="a worker drops the command's hint")
    assert figures["locks not granted"]
    assert "intake task_conflict" in figures["conflicts by process"]
    assert not LockConflicts(bench.system).figures()[DROPPED_FIGURE], "earlier ones do not count"


def _with_a_drop(conflicts: LockConflicts) -> dict[str, Any] | None:
    figures = conflicts.figures()
    return figures if figures[DROPPED_FIGURE] else None


def test_each_log_line_about_a_lock_is_counted() -> None:
    root = Path(__file__).parents[2]
    texts = [file.read_text(encoding="utf-8") for folder in _PRODUCT for file in (root / folder).rglob("*.py")]
    assert {event for text in texts for event in _ABOUT_LOCKS.findall(text)} == DROPPED | RETRIED
