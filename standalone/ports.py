"""Finds free ports on 127.0.0.1, and reserves them until their servers listen."""

import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress

from standalone.errors import ServerUnavailable

_OUTSIDE_EPHEMERAL_PORTS = range(20_000, 32_000)
"""Below the ports that systems assign to outgoing connections. Otherwise a client of a dead server could be assigned
the server's port, connect to itself, and block the server's restart."""


def free_port() -> int:
    """Return a port from 20,000 to 31,999 on 127.0.0.1 that was free and not reserved a moment ago."""
    for _ in range(1_000):
        port = secrets.choice(_OUTSIDE_EPHEMERAL_PORTS)
        if is_free(port) and (holder := _holder_of(port)) is not None:
            holder.close()
            return port
    raise ServerUnavailable("No port from 20000 to 31999 on 127.0.0.1 is free.")


def is_free(port: int) -> bool:
    return why_not_free(port) is None


def why_not_free(port: int) -> str | None:
    """Return the error of listening on this port of 127.0.0.1, or None."""
    with socket.socket() as candidate:
        # Like the servers, which restart although connections of their clients are still in TIME_WAIT.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


class ReservedPorts:
    """Ports of one system, which no other system on this machine chooses until `release`.

    Servers need seconds until they listen, and until then their port looks free to a system that starts at the same
    time. So the UDP port of the same number is held: none of our servers uses it, and it is freed when we end.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def reserve(self, usual: int | None = None) -> int:
        """Return `usual` if it is free and not reserved, else another port. Raises ServerUnavailable."""
        if usual is not None and is_free(usual) and self.hold(usual):
            return usual
        for _ in range(1_000):
            if self.hold(port := free_port()):
                return port
        raise ServerUnavailable("Each port from 20000 to 31999 on 127.0.0.1 is reserved.")

    def reserve_each(self, usual: Mapping[str, int], chosen: Mapping[str, int]) -> dict[str, int]:
        """Return a port for each name of `usual`: the chosen one, or as `reserve` does. Raises ServerUnavailable.

        The usual port of a chosen one stays free for another system.
        """
        for port in chosen.values():
            self.hold(port)
        return {name: chosen[name] if name in chosen else self.reserve(port) for name, port in usual.items()}

    def hold(self, port: int) -> bool:
        """Reserve this port. Return False if another system, or a program that uses UDP, holds it."""
        holder = _holder_of(port)
        if holder is not None:
            self._held.append(holder)
        return holder is not None

    def release(self) -> None:
        while self._held:
            self._held.pop().close()


def _holder_of(port: int) -> socket.socket | None:
    """Return a socket with the UDP port of this number, or None if another one has it."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with suppress(OSError):
        holder.bind(("127.0.0.1", port))
        return holder
    holder.close()
    return None
