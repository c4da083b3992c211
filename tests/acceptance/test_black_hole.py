"""A proxy before PostgreSQL confirms bytes and never answers for some seconds: every process works again afterwards."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
from pydantic import SecretStr

from scheduler.settings import Settings
from tests.acceptance.conftest import WholeSystem, running_system
from tests.support.servers import Wire, wired

HOLE_S = 15.0
"""Longer than the deadline of a statement: threads wait in it, and connections that were opened in it lead nowhere."""
DURING = [f"+42191540{place:04}" for place in range(10)]


@pytest.fixture
def over_a_wire(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WholeSystem, Wire]]:
    """A system whose processes reach PostgreSQL over a wire."""
    with wired(postgres_url) as (wire, url):
        settings = Settings(database_url=SecretStr(url), redis_url=None, twilio_account_sid="")
        with running_system(tmp_path_factory.mktemp("hole"), settings) as whole:
            whole.raise_limits()
            yield whole, wire


@pytest.mark.timeout(300)
def test_processes_work_after_a_database_that_was_silent(
    over_a_wire: tuple[WholeSystem, Wire], aloud: Callable[[str], None]
) -> None:
    whole, wire = over_a_wire
    whole.client.plan(ring_s=0.2, talk_s=0.2)
    call(whole, "+421915400901")
    due_at = whole.in_seconds(6)
    for number in DURING:
        whole.client.created(number, scheduledAt=due_at)

    ends_at = time.monotonic() + HOLE_S
    wire.dead = lambda _: time.monotonic() < ends_at
    whole.wait_until(lambda: time.monotonic() > ends_at, seconds=2 * HOLE_S, says="the database answers again")
    aloud(f"{wire.died} connections led nowhere")

    whole.wait_until(lambda: is_ready(whole), seconds=60, says="the API is ready")
    call(whole, "+421915400902", within_s=90)
    # Settle works: open outcomes of the hole are decided.
    whole.wait_until(
        lambda: not whole.rows("SELECT 1 FROM attempts WHERE state IN ('PENDING', 'IN_PROGRESS')"),
        seconds=120,
        says="every attempt has ended",
    )
    rings = Counter(ring["to"] for ring in whole.client.rings())
    assert {number: count for number, count in rings.items() if count > 1} == {}, "a phone rang twice"
    assert rings["+421915400902"] == 1
    unproven = whole.rows("SELECT count(*) FROM attempts WHERE reason = 'OUTCOME_UNKNOWN'")[0][0]
    assert len([number for number in DURING if number in rings]) + unproven >= len(DURING), "a call was lost"


def is_ready(whole: WholeSystem) -> bool:
    try:
        return httpx.get(f"{whole.running.apiUrl}/readyz", timeout=10, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def call(whole: WholeSystem, number: str, *, within_s: float = 60) -> None:
    whole.wait_until(lambda: is_requested(whole, number), seconds=within_s, says="the API takes the request")
    whole.wait_until(lambda: whole.client.rings_of(number), seconds=within_s, says=f"the call to {number} rings")


def is_requested(whole: WholeSystem, number: str) -> bool:
    answer = whole.client.post(whole.client.interview(number), **{"Prefer": "respond-async", "Idempotency-Key": number})
    return answer.status_code in {200, 201, 202}
