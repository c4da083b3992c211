"""The operator's proxy: TLS in front of the API, on loopback."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PORT = 8443
_KEY_USE = ["-addext", "keyUsage=digitalSignature,keyCertSign", "-addext", "subjectAltName=IP:127.0.0.1"]


def make_certificate(folder: Path) -> Path:
    """Return a file with a certificate for 127.0.0.1 and its key."""
    file = folder / "proxy.pem"
    subject = ["-subj", "/CN=duecall", "-days", "2", "-newkey", "rsa:2048", "-nodes"]
    made = ["openssl", "req", "-x509", *subject, *_KEY_USE, "-keyout", "-"]
    file.write_bytes(subprocess.run(made, check=True, capture_output=True).stdout)
    return file


@contextmanager
def a_proxy(certificate: Path, to: int) -> Iterator[str]:
    """Pass connections with TLS on to a port. Yield the address."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", PORT)) as door:
        threading.Thread(target=_accept, args=(door, context, to), daemon=True).start()
        yield f"https://127.0.0.1:{PORT}"


def _accept(door: socket.socket, context: ssl.SSLContext, to: int) -> None:
    with suppress(OSError):  # the door is closed at the end
        while True:
            client, _ = door.accept()
            threading.Thread(target=_serve, args=(client, context, to), daemon=True).start()


def _serve(client: socket.socket, context: ssl.SSLContext, to: int) -> None:
    with (
        suppress(OSError),
        client,
        context.wrap_socket(client, server_side=True) as secure,
        socket.create_connection(("127.0.0.1", to)) as server,
    ):
        threading.Thread(target=_pass_on, args=(server, secure), daemon=True).start()
        _pass_on(secure, server)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while received := source.recv(65_536):
            target.sendall(received)
        target.shutdown(socket.SHUT_WR)
