"""Drills: one fault at a time, and the time until calls ring again, compared with the limits in docs/operations.md.

Run by `make drills`. Each figure is printed next to its limit.
Machines differ and are shared, so a missed limit does not fail the run. A lost or repeated call does: exit 1.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import redis
import typer

from scheduler.clock import monotonic
from tests.verification.soak.judgement import judge, lines, nearest_rank
from tests.verification.soak.nemesis import frozen
from tests.verification.soak.soak_setup import LEASE_S, SETTLE_S, Load, SoakSetup, a_soak_setup, say

RATE = 10.0
SWEEP_S = 10.0
"""The default, because the limits refer to it."""
_BEFORE_S, _AFTER_S = 6.0, 19.0
_FROZEN_S = 8.0
_A_MOMENT, _TEN_SECONDS = timedelta(seconds=1), timedelta(seconds=10)
_GIVE_UP_S = 600.0
_NEVER = "2100-01-01"
_INTAKE_BAR_MS = 300.0
_RING_BAR_S = 30.0
_FIRST_CLAIM_BAR_S = 15.0
_BEFORE_CLAIM_BAR_S = SWEEP_S + 10
_AFTER_CLAIM_BAR_S = LEASE_S + SWEEP_S + SETTLE_S + 60


@dataclass
class Drill:
    setup: SoakSetup
    load: Load
    struck_at: datetime
    """Time of the fault, on the system's clock."""


@contextmanager
def a_drill(
    setup: SoakSetup, behaviour: str = "answered", *, hurts_diallers: bool = True
) -> Iterator[Callable[[], Drill]]:
    """Run load around one fault. Yields a function to call at the fault, then waits until all work is finished."""
    load = setup.begin(rate=RATE, seconds=_BEFORE_S + _AFTER_S, all_alike=behaviour)
    setup.pause(_BEFORE_S)
    struck_at = setup.whole.now()
    yield lambda: Drill(setup=setup, load=load, struck_at=setup.whole.now())
    setup.note("a drill", struck_at, hurts_diallers=hurts_diallers)
    if not setup.until(setup.is_quiet, seconds=_GIVE_UP_S):
        raise RuntimeError("a drill did not finish: some work is still open")


def told(what: str, figure: float | None, bar: float, unit: str) -> None:
    if figure is None:
        say(f"{what}: nothing to measure")
        return
    say(f"{what}: {figure:.1f} {unit}; limit {bar:g} {unit}: {'kept' if figure <= bar else 'MISSED'}")


def redis_goes(setup: SoakSetup, what: str, strike: Callable[[], None]) -> None:
    with a_drill(setup, hurts_diallers=False) as begin:
        drill = begin()
        strike()
        healed_at = setup.whole.now()
    told(f"{what}: the latest call was claimed after", _latest_claim_s(drill), _RING_BAR_S, "s")
    if healed_at - drill.struck_at < _A_MOMENT:
        p99 = _p99_ms(drill, drill.struck_at, drill.struck_at + _TEN_SECONDS)
        told(f"{what}: intake p99 in the ten seconds after it", p99, _INTAKE_BAR_MS, "ms")
        return
    told(f"{what}: intake p99 during it", _p99_ms(drill, drill.struck_at, healed_at), _INTAKE_BAR_MS, "ms")
    after = _p99_ms(drill, healed_at, healed_at + _TEN_SECONDS) or 0.0
    say(f"{what}: intake p99 in the ten seconds after it, while the backlog is processed: {after:.0f} ms")


def _latest_claim_s(drill: Drill) -> float | None:
    """Measure the longest wait for a claim, among calls due within ten seconds after the fault and unclaimed before it.

    The wait of a call begins when it is due and the fault has happened.
    """
    rows = drill.setup.rows(
        f"SELECT extract(epoch FROM coalesce(min(h.at), '{_NEVER}') - greatest(a.due_at, '{drill.struck_at}'))"
        " FROM attempts a"
        " LEFT JOIN attempt_history h ON h.attempt_id = a.id AND h.event = 'claimed'"
        f" WHERE a.due_at <= '{drill.struck_at + _TEN_SECONDS}' GROUP BY a.id"
        f" HAVING coalesce(min(h.at), '{_NEVER}') >= '{drill.struck_at}'"
    )
    return max((float(waited) for (waited,) in rows or ()), default=None)


def _p99_ms(drill: Drill, since: datetime, until: datetime) -> float | None:
    took = sorted(each.took_s for each in drill.load.told()[1] if since <= each.at <= until)
    return nearest_rank(took, 0.99) * 1000 if took else None


def postgres_is_killed(setup: SoakSetup) -> None:
    with a_drill(setup) as begin:
        drill = begin()
        assert setup.postgres.pid is not None
        os.kill(setup.postgres.pid, signal.SIGKILL)
    rows = setup.rows(f"SELECT min(at) FROM attempt_history WHERE event = 'claimed' AND at > '{drill.struck_at}'")
    first = rows[0][0] if rows else None
    figure = None if first is None else (first - drill.struck_at).total_seconds()
    told("kill -9 PostgreSQL: the first claim came after", figure, _FIRST_CLAIM_BAR_S, "s")


def a_dialler_is_killed_before_its_claims(setup: SoakSetup) -> None:
    with a_drill(setup) as begin:
        drill = begin()
        _kill(setup, "dial")
    what = "kill -9 of the dialler before the claim: the latest call was claimed after"
    told(what, _latest_claim_s(drill), _BEFORE_CLAIM_BAR_S, "s")


def a_dialler_is_killed_after_its_claims(setup: SoakSetup) -> None:
    """Kill a dialler with calls in hand. The carrier answers slowly, so that there are some."""
    settled_s = None
    with a_drill(setup, behaviour="slow") as begin:
        setup.until(lambda: setup.rows("SELECT 1 FROM attempts WHERE phase = 'DIALLING' LIMIT 1"), seconds=10)
        drill = begin()
        _kill(setup, "dial")
        in_hand = setup.rows("SELECT id FROM attempts WHERE phase = 'DIALLING'") or []
        ids = ", ".join(f"'{row[0]}'" for row in in_hand)
        unsettled = f"SELECT 1 FROM attempts WHERE id IN ({ids}) AND phase IN ('DIALLING', 'UNKNOWN')"
        began = monotonic()
        if in_hand:
            setup.until(lambda: setup.rows(unsettled) == [], seconds=_GIVE_UP_S)
            settled_s = monotonic() - began
    what = f"kill -9 of the dialler with {len(in_hand)} calls in hand: the last was settled after"
    told(what, settled_s, _AFTER_CLAIM_BAR_S, "s")
    assert drill.load.people


def _kill(setup: SoakSetup, name: str) -> None:
    pid = setup.whole.system.supervisor.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Break one component after the other, and print how long each recovery took."""
    with (
        tempfile.TemporaryDirectory() as home,
        a_soak_setup(Path(home) / "drills", say, SWEEP_S=f"{SWEEP_S:g}") as setup,
    ):

        def flush() -> None:
            redis.Redis.from_url(setup.whole.running.redisUrl).flushall()

        def kill() -> None:
            assert setup.valkey.pid is not None
            os.kill(setup.valkey.pid, signal.SIGKILL)

        def freeze() -> None:
            assert setup.valkey.pid is not None
            with frozen([setup.valkey.pid]):
                setup.pause(_FROZEN_S)

        a_dialler_is_killed_before_its_claims(setup)
        a_dialler_is_killed_after_its_claims(setup)
        redis_goes(setup, "FLUSHALL", flush)
        redis_goes(setup, "kill -9 Redis", kill)
        redis_goes(setup, f"Redis frozen for {_FROZEN_S:g} s", freeze)
        postgres_is_killed(setup)
        verdict = judge(setup, 0)
        for line in lines(verdict):
            print(line)
    sys.exit(0 if verdict.is_clean else 1)


if __name__ == "__main__":
    typer.run(main)
