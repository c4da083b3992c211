"""A real SMTP server on loopback. It stores each mail and answers as the test defines."""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.conftest import wait_until
from tests.support.servers import a_door

CERTIFICATE = Path(__file__).with_name("loopback.pem")
"""A certificate for 127.0.0.1 and localhost with its key, for tests only."""
USER, PASSWORD = "duecall", "p@ss/word"
TAKEN = "250 OK"

# It plays a foreign machine, whose log does not matter here.
logging.getLogger("mail.log").setLevel(logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A mail that the server accepted."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    over_tls: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.raw, policy=default)
        assert isinstance(message, EmailMessage)
        return message

    @property
    def headers(self) -> list[str]:
        """Read the header names as a reader without MIME support sees them."""
        head = self.raw.partition(b"\r\n\r\n")[0].decode("ascii")
        return [line.partition(":")[0] for line in head.split("\r\n") if not line.startswith((" ", "\t"))]

    @property
    def text(self) -> str:
        return str(self.message.get_content()).replace("\r\n", "\n")

    @property
    def token(self) -> str:
        [line] = [each for each in self.text.splitlines() if "#token=" in each]
        return line.partition("#token=")[2]


@dataclass
class PostOffice:
    """`to_recipient` and `to_mail` return the answers. If `to_mail` raises, the server closes the connection."""

    door: socket.socket
    mails: list[Delivered] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """All recipients of all tries, accepted or not."""
    to_recipient: Callable[[str], str] = lambda _: TAKEN
    to_mail: Callable[[bytes], str] = lambda _: TAKEN

    @property
    def port(self) -> int:
        return int(self.door.getsockname()[1])

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}?starttls=never"

    # ---- hooks of aiosmtpd

    async def handle_RCPT(  # noqa: N802 - its name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.asked.append(address)
        answer = self.to_recipient(address)
        if answer == TAKEN:
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        raw = envelope.original_content
        assert raw is not None
        answer = self.to_mail(raw)
        if answer in {TAKEN, HANG_UP}:
            self.mails.append(
                Delivered(
                    sender=str(envelope.mail_from),
                    recipients=tuple(envelope.rcpt_tos),
                    raw=raw,
                    over_tls=session.ssl is not None or isinstance(_context_of(server), ssl.SSLObject),
                    user=session.auth_data.decode() if session.auth_data else None,
                )
            )
        if answer == HANG_UP:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return answer


HANG_UP = "hang up"
"""Accept the mail and lose the answer."""


def _context_of(server: SMTP) -> Any:
    return None if server.transport is None else server.transport.get_extra_info("ssl_object")


@contextmanager
def a_post_office(
    office: PostOffice | None = None, *, tls: bool = False, starttls: bool = False, password: bool = False
) -> Iterator[PostOffice]:
    """Run the server: `tls` from the first byte, `starttls` offered, or `password` required after TLS."""
    office = office or PostOffice(a_door())
    loop = asyncio.new_event_loop()
    context = None
    if tls or starttls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)

    def authenticate(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        # Not handled, so that the server answers 535 by itself.
        return AuthResult(success=good, handled=False, auth_data=data.login)

    def session() -> SMTP:
        return SMTP(
            office,
            hostname="post.example",
            loop=loop,
            tls_context=context if starttls else None,
            authenticator=authenticate if password else None,
            # It would only warn us that we do not ask for TLS once more.
            auth_required=password and not tls,
            auth_require_tls=not tls,
        )

    ready = threading.Event()

    async def serve() -> asyncio.Server:
        server = await loop.create_server(session, sock=office.door, ssl=context if tls else None)
        ready.set()
        return server

    def run() -> None:
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(serve())
        loop.run_forever()
        server.close()
        # A connection that a client has just closed may still be open here, and with TLS its end takes several steps.
        for transport in tuple(loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(ready.is_set, says="the post office is open")
    try:
        yield office
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def a_closed_door() -> socket.socket:
    """Reserve a port on which no process listens."""
    door = socket.socket(proto=socket.IPPROTO_TCP)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", 0))
    return door
