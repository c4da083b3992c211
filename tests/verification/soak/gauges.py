"""Gauges that must not grow while calls are placed: connections to PostgreSQL, memory, unacknowledged messages."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import redis

from scheduler.clock import monotonic
from tests.verification.soak.nemesis import PROCESSES
from tests.verification.soak.soak_setup import SoakSetup

_EVERY_S = 2.0
_GROWN_UP_S = 20.0
"""Age at which a process has imported its modules and opened its connections."""
_LEAST = 4


@dataclass(frozen=True, kw_only=True)
class Reading:
    at_s: float
    connections: int | None
    """Connections of our processes to PostgreSQL, or None if it could not be reached."""
    unacked: int | None
    memory_mib: dict[tuple[str, int], float]
    """Resident memory per process, by name and pid."""


@dataclass
class Gauges:
    setup: SoakSetup
    readings: list[Reading] = field(default_factory=list)
    _next_s: float = 0.0

    def read(self) -> None:
        """Take a reading, at most every two seconds."""
        now = monotonic()
        if now < self._next_s:
            return
        self._next_s = now + _EVERY_S
        connections = self.setup.rows("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'duecall%'")
        self.readings.append(
            Reading(
                at_s=now,
                connections=None if connections is None else connections[0][0],
                unacked=self._unacked(),
                memory_mib=dict(self._memory()),
            )
        )

    def _unacked(self) -> int | None:
        client = redis.Redis.from_url(self.setup.whole.running.redisUrl, socket_timeout=0.2, socket_connect_timeout=0.2)
        with suppress(redis.RedisError), client:
            return client.hlen("duecall:unacked")
        return None

    def _memory(self) -> list[tuple[tuple[str, int], float]]:
        found = []
        for name in (*PROCESSES, "flower"):
            with suppress(OSError, KeyError, StopIteration):
                if (pid := self.setup.whole.system.supervisor.pid(name)) is not None:
                    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
                    resident = next(line for line in lines if line.startswith("VmRSS:"))
                    found.append(((name, pid), int(resident.split()[1]) / 1024))
        return found

    # ---- summaries

    def connections(self) -> tuple[int, int, int]:
        """Compute the median of the first third, the median of the last third, and the maximum."""
        return _thirds([each.connections for each in self.readings if each.connections is not None])

    def unacked(self) -> tuple[int, int, int]:
        return _thirds([each.unacked for each in self.readings if each.unacked is not None])

    def memory(self) -> dict[str, tuple[list[int], int]]:
        """Compute MiB in each third of its life, and age in seconds, of the longest-lived process of each name."""
        lives: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for reading in self.readings:
            for who, mib in reading.memory_mib.items():
                lives.setdefault(who, []).append((reading.at_s, mib))
        longest: dict[str, tuple[list[int], int]] = {}
        for (name, _), life in lives.items():
            grown_up = [(at, mib) for at, mib in life if at - life[0][0] >= _GROWN_UP_S]
            if len(grown_up) < _LEAST:
                continue
            lasted = int(grown_up[-1][0] - grown_up[0][0])
            if lasted > longest.get(name, ([], 0))[1]:
                third = len(grown_up) // 3
                parts = (grown_up[:third], grown_up[third : 2 * third], grown_up[2 * third :])
                longest[name] = ([int(median(mib for _, mib in part)) for part in parts], lasted)
        return longest


def _thirds(seen: list[int]) -> tuple[int, int, int]:
    if not seen:
        return 0, 0, 0
    third = max(1, len(seen) // 3)
    return int(median(seen[:third])), int(median(seen[-third:])), max(seen)
