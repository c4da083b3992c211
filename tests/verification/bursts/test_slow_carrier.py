"""Many calls that are due at the same instant, and a carrier that takes 200 ms to answer each.

Every process runs, on real servers.

DUECALL_BURST=5000 python -m pytest tests/verification/bursts     # `make proof`
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from scheduler.hashing import Hasher
from scheduler.setting_values import DEVELOPMENT_PEPPER
from tests.benchmarks import cloned_calls
from tests.benchmarks.whole_path import LOST_LEASES, UNRECORDED, Bench, running
from tests.verification.bursts.transactions import SETTINGS, Transaction, transactions

CALLS = int(os.environ.get("DUECALL_BURST", "300"))
FULL = 5_000
"""Fewer calls make no transaction long."""
ANSWER_S = 0.2
LONGEST_S = 0.5
_AHEAD = timedelta(seconds=4)
_PATIENCE_S = 240.0
OBSERVER = "observer"
"""The program of a transaction that is open during the whole burst."""

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, kw_only=True)
class Burst:
    numbers: Sequence[str]
    posted: Sequence[str]
    """The number of each POST that the carrier received."""
    unrecorded: int
    lost_leases: int
    transactions: Sequence[Transaction]


@pytest.fixture(scope="module")
def burst() -> Iterator[Burst]:
    with running(callbacks=False, progress=print, answer_s=ANSWER_S) as bench:
        yield _placed(bench)


def _placed(bench: Bench) -> Burst:
    assert bench.system.postgres is not None
    log = bench.system.postgres._log
    for name, value in SETTINGS.items():
        bench.connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
    bench.connection.execute("SELECT pg_reload_conf()")
    begin = log.stat().st_size
    due_at = datetime.now(UTC) + _AHEAD
    with psycopg.connect(bench.system.postgres.url, application_name=OBSERVER) as observer:
        observer.execute("SELECT")
        numbers = cloned_calls.add_due(bench.connection, bench.template, Hasher(DEVELOPMENT_PEPPER), [due_at] * CALLS)
        bench.wait(lambda: len(bench.arrivals()) >= CALLS, seconds=_PATIENCE_S)
        bench.wait(lambda: bench.count(UNRECORDED, due_at) == 0, seconds=_PATIENCE_S)
    return Burst(
        numbers=numbers,
        posted=[number for number, _ in bench.arrivals()],
        unrecorded=bench.count(UNRECORDED, due_at),
        lost_leases=bench.count(LOST_LEASES),
        transactions=list(transactions(log.read_bytes()[begin:].decode())),
    )


def test_each_attempt_of_a_burst_is_posted_once(burst: Burst) -> None:
    assert Counter(burst.posted) == Counter(burst.numbers)
    assert burst.unrecorded == 0


def test_no_lease_ends_over_an_unrecorded_call(burst: Burst) -> None:
    assert burst.lost_leases == 0


def test_log_shows_how_long_a_transaction_was_idle(burst: Burst) -> None:
    [observed] = [each for each in burst.transactions if each.program == OBSERVER]
    assert observed.seconds > ANSWER_S, "it was open during the burst, and did nothing"


@pytest.mark.skipif(CALLS < FULL, reason="`make proof` runs it: the other tests of `make test` delay transactions")
def test_no_transaction_lasts_over_half_a_second(burst: Burst, aloud: Callable[[str], None]) -> None:
    ours = [each for each in burst.transactions if each.program.startswith("duecall")]
    longest = max(ours, key=lambda each: each.seconds)
    aloud(f"  {CALLS} calls, {len(ours)} transactions; the longest: {longest}")
    assert longest.seconds <= LONGEST_S, str(longest)
