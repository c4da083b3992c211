"""Transactions in the log of a PostgreSQL server, each from its BEGIN to the end of its COMMIT.

Samples of pg_stat_activity would miss what happens between two of them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

SETTINGS = {"log_min_duration_statement": "0", "log_line_prefix": "%n|%p|%a|"}
"""Settings of the server that make its log readable here."""
_STEP = re.compile(
    r"^(?P<at>[\d.]+)\|(?P<pid>\d+)\|(?P<program>[^|\n]*)\|LOG: +duration: (?P<ms>[\d.]+) ms +\w+[^:\n]*: "
    r"(?P<sql>.*(?:\n\t.*)*)",
    re.MULTILINE,
)
_ENDS = frozenset({"COMMIT", "ROLLBACK"})


@dataclass(kw_only=True)
class Transaction:
    program: str
    """The name that the program gave to its connection."""
    began: float
    """Unix time, as is `ended`."""
    ended: float = 0.0
    statements: list[tuple[float, str]] = field(default_factory=list)
    """Each with its milliseconds."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def __str__(self) -> str:
        """Name the duration and the longest statements."""
        longest = sorted(self.statements, reverse=True)[:3]
        worked = sum(ms for ms, _ in self.statements)
        shown = ", ".join(f"{ms:.0f} ms {' '.join(sql.split())[:80]}" for ms, sql in longest)
        return f"{1000 * self.seconds:.0f} ms, of which {len(self.statements)} statements {worked:.0f} ms: {shown}"


def transactions(logged: str) -> Iterator[Transaction]:
    """Yield the transactions that begin and end in this part of a log. A statement without BEGIN is one by itself."""
    begun: dict[str, Transaction] = {}
    for step in _STEP.finditer(logged):
        pid, sql, at, ms = step["pid"], step["sql"], float(step["at"]), float(step["ms"])
        new = Transaction(program=step["program"], began=at - ms / 1000)
        if sql.startswith("BEGIN") or "; BEGIN" in sql:
            begun[pid] = new
        transaction = begun.get(pid, new)
        transaction.ended = at
        transaction.statements.append((ms, sql))
        if sql in _ENDS:
            begun.pop(pid, None)
        if pid not in begun:
            yield transaction
