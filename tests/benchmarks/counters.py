"""Counts a running system's cost: CPU seconds by process, statements and transactions, and the longest transaction."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil  # type: ignore[import-untyped]
import psycopg

from standalone.supervisor import commands
from standalone.system import System

_SAMPLE_S = 0.05
PROCESSES = tuple(commands(api_port=0, console_port=0, flower_port=0))
_STATEMENTS = """
    SELECT coalesce(sum(calls), 0)::bigint,
           coalesce(sum(calls) FILTER (WHERE query ILIKE 'COMMIT%%' OR query ILIKE 'ROLLBACK%%'), 0)::bigint
    FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
    WHERE d.datname = current_database() AND s.query NOT LIKE '%%pg_stat_%%'
"""
_OLDEST = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
    FROM pg_stat_activity
    WHERE application_name = 'duecall' AND state <> 'idle' AND xact_start IS NOT NULL
"""
_WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
_UPDATES = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'attempts'"


@dataclass
class Cost:
    """The cost of a span of time."""

    seconds: float = 0.0
    cpu_s: Counter[str] = field(default_factory=Counter)
    """CPU seconds by the name of a process. PostgreSQL's include its backends."""
    others: float = 0.0
    """Cores that processes outside of the system used, the benchmark's own among them."""
    statements: int = 0
    transactions: int = 0
    wal_bytes: int = 0
    longest_s: float = 0.0
    """The oldest open transaction of 20 samples a second."""
    hot_share: float | None = None
    """Share of the updates of `attempts` that changed no index."""

    @property
    def cpu(self) -> float:
        return sum(self.cpu_s.values())


class Meter:
    """Measures one running system."""

    def __init__(self, system: System, url: str) -> None:
        self._system = system
        self._connection = psycopg.connect(url, autocommit=True, application_name="benchmark")
        self._connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        """Yield a Cost that is complete when the block has ended."""
        cost, is_over = Cost(), threading.Event()
        cpu, busy, began = self.cpu(), _busy(), time.monotonic()
        updates, [wal] = self._one(_UPDATES), self._one(_WAL)
        self._connection.execute("SELECT pg_stat_statements_reset()")
        sampler = threading.Thread(target=self._sample, args=(cost, is_over), daemon=True)
        sampler.start()
        try:
            yield cost
        finally:
            is_over.set()
            sampler.join()
            cost.seconds = time.monotonic() - began
            cost.statements, cost.transactions = self._one(_STATEMENTS)
            after = self.cpu()
            cost.cpu_s = Counter({name: after[name] - cpu[name] for name in after})
            cost.others = (_busy() - busy - cost.cpu) / cost.seconds
            cost.wal_bytes = self._one(_WAL)[0] - wal
            changed, hot = (late - early for late, early in zip(self._one(_UPDATES), updates, strict=True))
            cost.hot_share = hot / changed if changed else None

    def memory(self) -> dict[str, float]:
        """Measure each process's proportional share of memory in MB."""
        return {
            name: sum(_pss(process) for process in processes) / 1e6 for name, processes in self._processes().items()
        }

    def _processes(self) -> dict[str, list[psutil.Process]]:
        pids = {name: pid for name in PROCESSES if (pid := self._system.supervisor.pid(name))}
        for name, server in (("postgres", self._system.postgres), ("valkey", self._system.valkey)):
            if server is not None and server.pid is not None:
                pids[name] = server.pid
        roots = {name: psutil.Process(pid) for name, pid in pids.items()}
        found = {name: [root, *root.children(recursive=True)] for name, root in roots.items()}
        if (fork_server := self._system.supervisor.fork_server) is not None:
            found["fork server"] = [psutil.Process(fork_server.pid)]  # its children are the processes above
        return found

    def cpu(self) -> Counter[str]:
        """Measure the CPU seconds of each process since its start. Those of the fork server include its imports."""
        found: Counter[str] = Counter()
        for name, processes in self._processes().items():
            for process in processes:
                try:
                    times = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue  # a backend that has ended: its parent counts it
                found[name] += times.user + times.system + times.children_user + times.children_system
        return found

    def _one(self, query: str) -> tuple[int, ...]:
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return row

    def _sample(self, cost: Cost, is_over: threading.Event) -> None:
        with psycopg.connect(self._connection.info.dsn, password=self._connection.info.password) as connection:
            connection.autocommit = True
            while not is_over.wait(_SAMPLE_S):
                row = connection.execute(_OLDEST).fetchone()
                assert row is not None
                cost.longest_s = max(cost.longest_s, row[0])


def _busy() -> float:
    """Measure the CPU seconds that this machine has worked."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
