"""A fork server that outlives its system, because its imports take two seconds of CPU.

It forks each process before any setting, connection or thread exists, so a process of a later system finds nothing of
an earlier one. It ends with the test process.
"""

import atexit
from collections.abc import Mapping
from pathlib import Path

from standalone.fork_server import ForkServer


class _KeptForkServer(ForkServer):
    def stop(self) -> None:
        """Keep it for the next system. A supervisor has ended its own processes before it calls this."""

    @property
    def is_usable(self) -> bool:
        return not self._is_away and self._process.poll() is None


_kept: list[_KeptForkServer] = []


def kept_fork_server(environment: Mapping[str, str], log: Path) -> ForkServer:
    """Return the fork server of this test process. Start it at the first call, and again if a test has ended it."""
    if not (_kept and _kept[-1].is_usable):
        _kept.append(_KeptForkServer(environment, log))
        atexit.register(ForkServer.stop, _kept[-1])
    return _kept[-1]
