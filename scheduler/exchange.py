"""One HTTP request and its answer, by `requests`, with one deadline for the whole exchange.

The deadline covers everything except the lookup of the name, which the system's resolver limits.
"""

import os
import socket
import ssl
import threading
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from scheduler.clock import monotonic


class Exchange:
    """The time of one request. At its end the connection is cut, whatever the other side sends until then.

    Timeouts of a socket are not enough: each received byte begins a new one.
    """

    def __init__(self, deadline_s: float) -> None:
        self._begun = monotonic()
        self._until = self._begun + deadline_s
        self._lock = threading.Lock()
        self._held: socket.socket | None = None
        self._is_cut = False
        self._timer = threading.Timer(max(0.0, deadline_s), self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        self._token = _exchange.set(self)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _exchange.reset(self._token)
        self._timer.cancel()
        with self._lock:
            self._let_go()

    @property
    def milliseconds(self) -> int:
        return round((monotonic() - self._begun) * 1000)

    @property
    def is_over(self) -> bool:
        return self._is_cut or monotonic() >= self._until

    def remaining_s(self) -> float:
        """Compute the seconds that are left. Raises TimeoutError if none are."""
        left = self._until - monotonic()
        if self._is_cut or left <= 0:
            raise TimeoutError
        return left

    def hold(self, connection: socket.socket) -> None:
        """Cut this connection at the deadline. Closes it and raises TimeoutError if that has passed.

        Closes it and raises OSError without a free descriptor.
        """
        with self._lock:
            self._let_go()
            try:
                if self._is_cut:
                    raise TimeoutError
                # A duplicate, because TLS takes the descriptor out of the original. Its own `dup` refuses.
                self._held = socket.socket(fileno=os.dup(connection.fileno()))
            except OSError:  # TimeoutError is one
                connection.close()
                raise

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _cut(self) -> None:
        with self._lock:
            self._is_cut = True
            if self._held is not None:
                with suppress(OSError):
                    self._held.shutdown(socket.SHUT_RDWR)


_exchange: ContextVar[Exchange] = ContextVar("exchange")
"""The exchange of this thread. The connection is made several layers below it."""


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        exchange = _exchange.get()
        self.timeout = exchange.remaining_s()
        connection = super()._new_conn()
        exchange.hold(connection)
        return connection

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of the base
        if self.sock is not None:  # kept from an earlier exchange
            _exchange.get().hold(self.sock)
        super().request(*args, **kwargs)


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class ExchangeAdapter(HTTPAdapter):
    """Connections that end at the deadline, and trust what the context trusts."""

    def __init__(self, context: ssl.SSLContext, **settings: Any) -> None:  # noqa: ANN401 - those of the other base
        self._context = context
        super().__init__(**settings)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **settings: Any) -> None:  # noqa: ANN401
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **settings)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ANN401
        """Add no certificates: requests would read its own bundle into the context with each connection."""
