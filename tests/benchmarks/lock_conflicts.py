"""Counts the work of a running system that was dropped, or tried again, because a database lock was not granted.

The processes log each such case, and the log of PostgreSQL has each lock that was not granted. Rows that `SKIP
LOCKED` leaves out are not lost. A dial worker keeps the hints of locked attempts in memory and tries them again after
0.25 s. A locked command or callback is processed by the worker that has locked it. Those whose interviews or people are
locked are logged as `locked_rows`. A company or account that stays
locked for 10 s is logged as `row_locked` and counts here. A single attempt or line that stays locked until its hint's
release ends (15 s) is not logged and does not count.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from standalone.system import System
from tests.benchmarks.counters import PROCESSES

DROPPED = frozenset({"task_conflict", "hints_delayed", "settle_conflict", "outcome_wait_put_off", "row_locked"})
"""Log lines of hints and events that wait for the clock, because every try has failed."""
RETRIED = frozenset({"lock_conflict", "claim_conflict", "record_conflict", "locked_rows"})
"""Log lines of steps that are tried again at once or, for locked rows, within a second."""
NOT_GRANTED = ("canceling statement due to lock timeout", "deadlock detected")
"""Texts of SQLSTATE 55P03 and 40P01 in PostgreSQL's log."""


class LockConflicts:
    """Counts the conflicts of one system from now on. PostgreSQL must log errors."""

    def __init__(self, system: System) -> None:
        assert system.postgres is not None
        self._postgres = system.postgres._log
        self._logs = {name: system.log_of(name) for name in PROCESSES}
        self._begins = {log: _size(log) for log in (self._postgres, *self._logs.values())}

    def figures(self) -> dict[str, Any]:
        """Read the counts since the start, by the names of the table."""
        lines: Counter[tuple[str, str]] = Counter()
        for name, log in self._logs.items():
            lines.update((name, event) for event in _events(self._added(log)) if event in DROPPED | RETRIED)
        text = self._added(self._postgres)
        return {
            "hints or events dropped for a lock": _sum(lines, DROPPED),
            "steps tried again after a lock": _sum(lines, RETRIED),
            "locks not granted": sum(text.count(each) for each in NOT_GRANTED),
            "conflicts by process": {" ".join(each): count for each, count in lines.most_common()},
        }

    def _added(self, log: Path) -> str:
        if not log.exists():
            return ""
        with log.open("rb") as file:
            file.seek(self._begins[log] if self._begins[log] <= _size(log) else 0)  # a long log was renamed
            return file.read().decode(errors="replace")


def _events(text: str) -> Iterator[str]:
    """Yield the event name of each JSON line. Libraries and interpreters write others too."""
    for line in text.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict):
            yield str(fields.get("event", "")).partition(":")[0]


def _sum(lines: Mapping[tuple[str, str], int], events: frozenset[str]) -> int:
    return sum(count for (_, event), count in lines.items() if event in events)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0
