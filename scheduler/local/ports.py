"""Finds free ports on 127.0.0.1."""

import secrets
import socket

from scheduler.local.errors import ServerUnavailable

_OUTSIDE_EPHEMERAL_PORTS = range(20_000, 32_000)
"""Below the ports that systems give to outgoing connections. A client that knocks on a dead server's port
may otherwise be given that same port, connect to itself, and keep the server from coming back."""


def free_port() -> int:
    """A port that nothing listened on at 127.0.0.1 a moment ago, from 20,000 to 31,999."""
    for _ in range(1_000):
        port = secrets.choice(_OUTSIDE_EPHEMERAL_PORTS)
        if is_free(port):
            return port
    raise ServerUnavailable("no free port from 20000 to 31999 on 127.0.0.1")


def is_free(port: int) -> bool:
    return why_not_free(port) is None


def why_not_free(port: int) -> str | None:
    """What keeps a server from listening on this port of 127.0.0.1; None when nothing does."""
    with socket.socket() as candidate:
        # As the servers do: what their clients left in TIME_WAIT does not keep them from coming back.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None
