"""Many calls that are due at the same instant, and a carrier that takes 200 ms to answer each.

    python -m tests.benchmarks.slow_carrier     # part of `make proof`

Every process runs, on real servers. It exits 1 if a call is not posted exactly once, a lease ends over an unrecorded
call, or a transaction lasts longer than half a second. Run it on a quiet machine: other work delays transactions.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from scheduler.hashing import Hasher
from scheduler.setting_values import DEVELOPMENT_PEPPER
from tests.benchmarks import cloned_calls
from tests.benchmarks.transactions import SETTINGS, Transaction, transactions
from tests.benchmarks.whole_path import LOST_LEASES, UNRECORDED, Bench, running

FULL = 5_000
"""Fewer calls make no transaction long."""
ANSWER_S = 0.2
LONGEST_S = 0.5
_AHEAD = timedelta(seconds=4)
_PATIENCE_S = 240.0
OBSERVER = "observer"
"""The program of a transaction that is open during the whole burst."""


@dataclass(frozen=True, kw_only=True)
class Burst:
    numbers: Sequence[str]
    posted: Sequence[str]
    """The number of each POST that the carrier received."""
    unrecorded: int
    lost_leases: int
    transactions: Sequence[Transaction]

    @property
    def ours(self) -> list[Transaction]:
        return [each for each in self.transactions if each.program.startswith("duecall")]

    @property
    def longest(self) -> Transaction:
        return max(self.ours, key=lambda each: each.seconds)

    def faults(self) -> Iterator[str]:
        if Counter(self.posted) != Counter(self.numbers):
            yield f"{len(self.numbers)} calls, {len(self.posted)} POSTs to {len(set(self.posted))} numbers"
        if self.unrecorded or self.lost_leases:
            yield f"{self.unrecorded} calls are unrecorded, {self.lost_leases} leases have ended"
        if [each.seconds > ANSWER_S for each in self.transactions if each.program == OBSERVER] != [True]:
            yield "the log does not show how long a transaction was idle"
        if self.longest.seconds > LONGEST_S:
            yield f"a transaction lasted longer than {LONGEST_S} s"


def placed(bench: Bench, calls: int) -> Burst:
    assert bench.system.postgres is not None
    log = bench.system.postgres._log
    for name, value in SETTINGS.items():
        bench.connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
    bench.connection.execute("SELECT pg_reload_conf()")
    begin = log.stat().st_size
    due_at = datetime.now(UTC) + _AHEAD
    with psycopg.connect(bench.system.postgres.url, application_name=OBSERVER) as observer:
        observer.execute("SELECT")
        numbers = cloned_calls.add_due(bench.connection, bench.template, Hasher(DEVELOPMENT_PEPPER), [due_at] * calls)
        bench.wait(lambda: len(bench.arrivals()) >= calls, seconds=_PATIENCE_S)
        bench.wait(lambda: bench.count(UNRECORDED, due_at) == 0, seconds=_PATIENCE_S)
    return Burst(
        numbers=numbers,
        posted=[number for number, _ in bench.arrivals()],
        unrecorded=bench.count(UNRECORDED, due_at),
        lost_leases=bench.count(LOST_LEASES),
        transactions=list(transactions(log.read_bytes()[begin:].decode())),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=FULL)
    calls = parser.parse_args().calls
    with running(callbacks=False, progress=print, answer_s=ANSWER_S) as bench:
        burst = placed(bench, calls)
    print(f"{calls} calls, {len(burst.ours)} transactions; the longest: {burst.longest}")
    faults = list(burst.faults())
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
