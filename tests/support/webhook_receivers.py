"""Receivers of webhooks on loopback that behave in every way that a stranger's server may."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.servers import a_door
from tests.support.smtp_server import CERTIFICATE

Behaviour = Callable[["Visit"], None]


@dataclass(kw_only=True)
class Visit:
    """A connection of a client, with its request."""

    connection: socket.socket
    head: str
    body: bytes
    is_left: threading.Event = field(default_factory=threading.Event)
    """Set once the client has closed or lost the connection, for behaviours that wait for it."""

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def wait_until_left(self) -> None:
        with contextlib.suppress(OSError):
            while self.connection.recv(4096):
                pass
        self.is_left.set()


@dataclass(kw_only=True)
class WebhookReceiver:
    url: str
    visits: list[Visit] = field(default_factory=list)
    connections: int = 0
    """Connections that were accepted, also those without a request."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set once a connection has ended, so that no test has to wait for a time."""

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1].partition("/")[0])


@contextmanager
def a_webhook_receiver(
    behaviour: Behaviour, *, tls: bool = False, answers_tls: bool = True, greeting: bytes = b""
) -> Iterator[WebhookReceiver]:
    """Serve one behaviour. Without `answers_tls` it accepts connections and never takes part in the handshake.

    `greeting` is sent at once, before any request.
    """
    service = _Service(behaviour, tls=tls, answers_tls=answers_tls, greeting=greeting)
    try:
        yield service.receiver
    finally:
        service.close()


class _Service:
    """A socket on loopback, and a thread for each connection to it."""

    def __init__(self, behaviour: Behaviour, *, tls: bool, answers_tls: bool, greeting: bytes) -> None:
        self._behaviour = behaviour
        self._answers_tls = answers_tls
        self._greeting = greeting
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(CERTIFICATE)
        self._door = a_door()
        port = self._door.getsockname()[1]
        self.receiver = WebhookReceiver(url=f"http{'s' if tls else ''}://127.0.0.1:{port}/hooks?of=calls")
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._door.close()
        for each in self._connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for each in self._connections:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._door.accept()
            except OSError:
                return
            self.receiver.connections += 1
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(self._greeting)
            if self._answers_tls:
                self._answer(connection)
            else:
                while connection.recv(4096):
                    pass
        self.receiver.left.set()
        connection.close()

    def _answer(self, connection: socket.socket) -> None:
        secured = connection if self._context is None else self._context.wrap_socket(connection, server_side=True)
        self._connections.append(secured)
        visit = _visit(secured)
        self.receiver.visits.append(visit)
        self._behaviour(visit)
        secured.close()


def _visit(connection: socket.socket) -> Visit:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    visit = Visit(connection=connection, head=head.decode(), body=body)
    while len(visit.body) < int(visit.headers.get("content-length", "0")):
        visit.body += _more(connection)
    return visit


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionResetError
    return data


def answers(status: int, *headers: str, body: bytes = b"") -> Behaviour:
    lines = [f"HTTP/1.1 {status} X", *headers, f"Content-Length: {len(body)}"]

    def behave(visit: Visit) -> None:
        visit.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return behave


def hangs(visit: Visit) -> None:
    visit.wait_until_left()


def resets(visit: Visit) -> None:
    visit.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def talks_nonsense(visit: Visit) -> None:
    visit.send(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")


def drips(head: bytes, drop: bytes) -> Behaviour:
    """Send `head` and then `drop` again and again, until the client leaves."""

    def behave(visit: Visit) -> None:
        visit.send(head)
        with contextlib.suppress(OSError):
            while not visit.is_left.wait(0.01):
                visit.send(drop)

    return behave


def floods(head: bytes, chunk: bytes, times: int) -> Behaviour:
    """Send `head` and then `chunk` this many times, unless the client leaves before."""

    def behave(visit: Visit) -> None:
        visit.send(head)
        with contextlib.suppress(OSError):
            for _ in range(times):
                visit.send(chunk)
            return
        visit.is_left.set()

    return behave
