"""Commits with unknown status: the connection breaks between a COMMIT and its answer.

A proxy in front of PostgreSQL cuts many commits of a dial worker, before or after forwarding them. The carrier's ledger
shows whether a call was lost or placed twice.
"""

from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from uuid import UUID

import pytest

from tests.conftest import wait_until
from tests.support.servers import Wire, wired
from tests.verification.crash.matrix import WHOLE
from tests.verification.world.bulk_attempts import bulk_attempts
from tests.verification.world.installation import dialling
from tests.verification.world.workers import working

CUTS = 200 if WHOLE else 60
"""`make crash` cuts 200 commits."""
PEOPLE = 120
SEED = 20
PATIENT = {"DIAL_LEASE_S": "200", "SETTLE_S": "300"}
"""An attempt that only the end of its lease could free would not finish in time."""


def cut_some_commits(wire: Wire) -> None:
    """Cut commits at random. The first ten pass, so that a process can start."""
    dice, commits = Random(SEED), count(1)

    def is_cut(sent: bytes, chance: float) -> bool:
        return b"COMMIT" in sent and next(commits) > 10 and wire.died < CUTS and dice.random() < chance

    wire.cut_before = lambda sent: is_cut(sent, 0.15)
    wire.cut_after = lambda sent: is_cut(sent, 0.2)


@pytest.mark.crash
@pytest.mark.timeout(420)
def test_unknown_commit_loses_no_call_and_rings_no_phone_twice(postgres_url: str, aloud: Callable[[str], None]) -> None:
    with working(postgres_url, settling=True, **PATIENT) as setup, wired(postgres_url) as (wire, url):
        cut_some_commits(wire)
        setup.carrier.plan(ring_s=0, talk_s=0)
        people = 0

        def is_over(ids: list[UUID]) -> bool:
            dialler.hand(*ids)  # again and again, like the clock
            return setup.tenant.ask("SELECT 1 FROM attempts WHERE state IN ('PENDING', 'IN_PROGRESS') LIMIT 1") == []

        with dialling(setup.environment | {"DATABASE_URL": url, "DATABASE_WORKER_URL": url}) as dialler:
            while wire.died < CUTS:
                ids = bulk_attempts(postgres_url, setup.tenant, PEOPLE, due_at=setup.tenant.now())
                people += PEOPLE
                # After three claims in doubt, a call waits for 5, 15 and 60 s.
                wait_until(partial(is_over, ids), seconds=180, says="every person is reached")
        rung = [call["to"] for call in setup.carrier.rings()]
        aloud(f"{wire.died} commits cut, {people} people, {len(rung)} rings")
        assert sorted(set(rung)) == sorted(rung), "a phone rang twice"
        assert len(rung) == people
        assert setup.tenant.ask("SELECT DISTINCT reason FROM attempts") == [("ANSWERED",)]
        assert setup.tenant.ask("SELECT 1 FROM companies WHERE paused_at IS NOT NULL") == []
