"""Finds free ports on 127.0.0.1."""

import secrets
import socket

from scheduler.local.errors import ServerUnavailable

_OUTSIDE_EPHEMERAL_PORTS = range(20_000, 32_000)
"""Below the ports that systems assign to outgoing connections. Otherwise a client of a dead server could be assigned
the server's port, connect to itself, and block the server's restart."""


def free_port() -> int:
    """Return a port from 20,000 to 31,999 on 127.0.0.1 that was free a moment ago."""
    for _ in range(1_000):
        port = secrets.choice(_OUTSIDE_EPHEMERAL_PORTS)
        if is_free(port):
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
