"""Batches and imports are killed with SIGKILL and sent again. Each item has one interview in the end.

    DUECALL_BATCH_ITEMS=10000 python -m pytest tests/acceptance/test_killed_batches.py     # `make proof`

A process is killed at a moment that is seen in the database, and frozen first, so that the moment is known.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from scheduler.clock import monotonic
from scheduler.settings import environment
from tests.acceptance.conftest import WholeSystem, running_system

ITEMS = int(os.environ.get("DUECALL_BATCH_ITEMS", "400"))
KILLS = 3
LIMIT_S = 120 + ITEMS / 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    with running_system(tmp_path_factory.mktemp("killed batches")) as whole:
        whole.raise_limits()
        whole.change("UPDATE api_keys SET per_minute = 100000, per_hour = 100000")
        yield whole


def bodies(whole: WholeSystem, prefix: str, count: int) -> list[dict[str, Any]]:
    """Build bodies with external ids. No phone rings during the test."""
    at = whole.in_seconds(24 * 3600)
    return [
        whole.client.interview(f"+42191{prefix}{number:05d}", scheduledAt=at, externalId=f"{prefix}-{number}")
        for number in range(count)
    ]


def sent(whole: WholeSystem, content: bytes, key: str) -> dict[str, Any]:
    """Send the batch until it is answered, as a client does."""
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}

    def answer() -> dict[str, Any] | None:
        try:
            answer = whole.client.session.post(
                f"{whole.running.apiUrl}/batches", data=content, headers=headers, timeout=60
            )
        except requests.RequestException:
            return None
        return dict(answer.json()["data"]) if answer.status_code == requests.codes.accepted else None

    found: list[dict[str, Any]] = []

    def is_answered() -> bool:
        data = answer()
        found.extend([] if data is None else [data])
        return bool(found)

    whole.wait_until(is_answered, seconds=LIMIT_S, says="the batch is stored")
    return found[0]


def number_of(whole: WholeSystem, what: str) -> int:
    [[count]] = whole.rows(f"SELECT count(*) FROM {what}")
    return int(count)


def is_finished(whole: WholeSystem) -> bool:
    return not number_of(whole, "batches WHERE finished_at IS NULL")


def each_item_has_one_interview(whole: WholeSystem, prefix: str, count: int) -> None:
    """Check the rows: one interview and one pending call for each external id, and no item that waits."""
    whose = f"FROM interviews i WHERE i.external_id LIKE '{prefix}-%'"
    [[made, different]] = whole.rows(f"SELECT count(*), count(DISTINCT i.external_id) {whose}")
    assert (made, different) == (count, count)
    assert whole.rows(f"SELECT DISTINCT (SELECT count(*) FROM attempts a WHERE a.interview_id = i.id) {whose}") == [
        (1,)
    ]
    assert whole.rows("SELECT DISTINCT state, body IS NULL, error_code FROM batch_items") == [("APPLIED", True, None)]


def test_killed_worker_leaves_each_item_of_a_batch_once(whole: WholeSystem) -> None:
    content = b"\n".join(json.dumps(each).encode() for each in bodies(whole, "51", ITEMS))
    began = monotonic()
    whole.send_signal("bulk", signal.SIGSTOP)
    batch = sent(whole, content, "first")
    stored_s = monotonic() - began
    killed_at: list[int] = []
    with psycopg.connect(whole.running.databaseUrl) as last_item_waits:
        # Until all kills are over, no worker can finish the batch.
        last = "SELECT FROM batch_items WHERE batch_id = %s ORDER BY index DESC LIMIT 1 FOR UPDATE"
        last_item_waits.execute(last, [batch["id"]])
        whole.send_signal("bulk", signal.SIGCONT)
        for number in range(KILLS):
            least = max(1, ITEMS * number // KILLS)
            seen = f"SELECT applied FROM batches WHERE applied >= {least} AND id = '{batch['id']}'"
            whole.wait_until(partial(whole.rows, seen), seconds=LIMIT_S, says=f"{least} items are applied")
            whole.send_signal("bulk", signal.SIGSTOP)
            killed_at.append(number_of(whole, f"batch_items WHERE state = 'APPLIED' AND batch_id = '{batch['id']}'"))
            whole.send_signal("bulk")
    assert 0 < killed_at[0] < ITEMS, "the worker was not killed during the batch"
    assert sent(whole, content, "first")["id"] == batch["id"]
    other = sent(whole, content, "second")
    assert other["id"] != batch["id"]
    whole.wait_until(lambda: is_finished(whole), seconds=LIMIT_S, says="both batches are finished")
    print(f"{ITEMS} items, stored in {stored_s:.1f} s, killed after {killed_at}, {monotonic() - began:.1f} s in all")
    each_item_has_one_interview(whole, "51", ITEMS)
    usual = {"waiting": 0, "applied": ITEMS, "refused": 0, "cancelled": 0, "inProgress": 0}
    assert whole.client.get(f"/batches/{batch['id']}").json()["data"]["counts"] == usual | {"existing": 0}
    assert whole.client.get(f"/batches/{other['id']}").json()["data"]["counts"] == usual | {"existing": ITEMS}


def importing(whole: WholeSystem, file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scheduler", "import", str(file), "--url", whole.running.apiUrl]
    named = environment(DUECALL_API_KEY=whole.running.companyKey, DUECALL_HOME=str(whole.home))
    return subprocess.Popen(command, env=named, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_import_creates_each_row_once(whole: WholeSystem, tmp_path: Path) -> None:
    """It is killed while the API stores its first batch, and again while the rows wait."""
    count = ITEMS + 50  # with 10,000, two batches
    file = tmp_path / "people.ndjson"
    file.write_text("\n".join(json.dumps(each) for each in bodies(whole, "52", count)))
    batches = number_of(whole, "batches")
    with psycopg.connect(whole.running.databaseUrl) as storing_waits:
        storing_waits.execute("LOCK TABLE batch_items IN EXCLUSIVE MODE")
        process = importing(whole, file)
        waits = "pg_locks WHERE relation = 'batch_items'::regclass AND NOT granted AND mode = 'RowExclusiveLock'"
        whole.wait_until(lambda: number_of(whole, waits), seconds=LIMIT_S, says="the API stores the rows")
        killed(process)
        bulk = whole.send_signal("bulk", signal.SIGSTOP)  # before any row is stored
    try:
        process = importing(whole, file)
        whole.wait_until(
            lambda: number_of(whole, "batches") > batches and number_of(whole, "batch_items WHERE state = 'WAITING'"),
            seconds=LIMIT_S,
            says="rows are stored and wait",
        )
        killed(process)
    finally:
        os.kill(bulk, signal.SIGCONT)
    began = monotonic()
    again = importing(whole, file)
    output, errors = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 0, errors
    print(f"{count} rows, {monotonic() - began:.1f} s for the last run:\n{output}")
    assert number_of(whole, "batches") == batches + (count + 9_999) // 10_000
    each_item_has_one_interview(whole, "52", count)
