"""Sending of e-mail, over SMTP or into a local folder. The only module that knows SMTP and the format of a mail.

A mail has exactly one recipient and exactly the headers written here, whatever a name or an address contains.
"""

import contextlib
import os
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Literal, Protocol, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

_ANSWERS_WITHIN_S = 10.0
_TAKES_AT_MOST_S = 60.0
"""Limit for the whole delivery, so that a server that answers byte by byte cannot block a worker."""
_FOR_GOOD = 500
_POLICY = SMTP.clone(cte_type="7bit")
"""ASCII on the wire, whatever the text contains."""
_ONE_ADDRESS = re.compile(r"""[^\x00-\x20\x7f-\U0010ffff@<>()\[\],;:\\"]+@[A-Za-z0-9.-]+""")
_WRITTEN = (
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "Content-Type",
    "Content-Transfer-Encoding",
    "MIME-Version",
)

Starttls = Literal["always", "offered", "never"]


class NotSent(Exception):
    """The server did not accept the mail. `status` is its SMTP code, or None if it sent no code."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__()
        self.status = status


class MailAway(NotSent):
    """The server accepts no mail now, or none from us. `surely_not` is False if this mail may have been sent."""

    def __init__(self, status: int | None = None, *, surely_not: bool = True) -> None:
        super().__init__(status)
        self.surely_not = surely_not


class MailDeferred(NotSent):
    """The server does not accept this mail now. It may accept others."""


class MailRefused(NotSent):
    """The server will never accept this mail."""


class UnsafeMail(Exception):
    """The mail would not have the intended headers. Nothing was sent."""


@dataclass(frozen=True, kw_only=True)
class Mail:
    """One mail to one person. `subject` is one printable line, `text` several."""

    name: str
    """Identifies the mail, also if it is sent twice. Part of its Message-ID and of its file name."""
    to: str = field(repr=False)
    """An address in the form of `rules.owners.canonical`."""
    subject: str = field(repr=False)
    text: str = field(repr=False)
    written_at: datetime


class Mailer(Protocol):
    def send(self, mail: Mail) -> None:
        """Send the mail. Raises MailAway, MailDeferred, MailRefused, UnsafeMail."""
        ...


@dataclass(frozen=True, kw_only=True)
class MailSender:
    """The sender of all mails."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


@dataclass(frozen=True, kw_only=True)
class SmtpServer:
    """A mail server: `smtp://user:password@host:587?starttls=always`, or `smtps://` for TLS from the first byte.

    `starttls` is `always`, `offered` (TLS if the server offers it) or `never`. The default is `always` if the URL names
    a user, otherwise `offered`. The certificate is always checked.
    """

    host: str
    port: int
    tls: bool
    starttls: Starttls
    user: str | None = None
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Parse the URL. Raises ValueError, whose text does not quote the URL."""
        try:
            parts = urlsplit(url)
            port, options = parts.port, dict(parse_qsl(parts.query, strict_parsing=True) if parts.query else ())
        except ValueError:
            raise ValueError(_HOW) from None
        user = None if parts.username is None else unquote(parts.username)
        tls = parts.scheme == "smtps"
        starttls = options.pop("starttls", "offered" if user is None else "always")
        if (
            parts.scheme not in {"smtp", "smtps"}
            or not parts.hostname
            or parts.path not in {"", "/"}
            or parts.fragment
            or options
            or starttls not in {"always", "offered", "never"}
        ):
            raise ValueError(_HOW)
        return cls(
            host=parts.hostname,
            port=port or (465 if tls else 587 if user is not None else 25),
            tls=tls,
            starttls=cast("Starttls", starttls),
            user=user,
            password=unquote(parts.password or ""),
        )


_HOW = (
    "must be smtp://user:password@host:587?starttls=always|offered|never, or smtps://...; percent-encode special"
    " characters"
)


class SmtpMailer:
    """A mailer that opens one SMTP connection per mail."""

    def __init__(self, server: SmtpServer, sender: MailSender) -> None:
        self._server = server
        self._sender = sender

    def send(self, mail: Mail) -> None:
        raw = as_bytes(mail, self._sender)
        with self._connected() as smtp:
            self._hand_over(smtp, mail.to, raw)

    def _hand_over(self, smtp: smtplib.SMTP, to: str, raw: bytes) -> None:
        # `from None` everywhere: the messages of smtplib's errors quote addresses.
        handed_over = False
        try:
            _want(smtp.mail(self._sender.address), MailAway, MailAway)
            _want(smtp.rcpt(to), MailDeferred, MailRefused)
            handed_over = True
            _want(smtp.data(raw), MailDeferred, MailRefused)
        except smtplib.SMTPDataError as refused:  # the server refused before the content
            _want((refused.smtp_code, b""), MailDeferred, MailRefused)
        except (smtplib.SMTPException, OSError, ValueError):
            raise MailAway(surely_not=not handed_over) from None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        with contextlib.ExitStack() as ends:
            try:
                smtp = self._connect()
                ends.callback(smtp.close)
                ends.enter_context(_at_most(_TAKES_AT_MOST_S, smtp))
                self._greet(smtp)
            except smtplib.SMTPResponseException as refused:
                raise MailAway(refused.smtp_code) from None
            except (smtplib.SMTPException, OSError, ValueError):
                raise MailAway from None
            yield smtp
            with contextlib.suppress(smtplib.SMTPException, OSError):
                smtp.quit()

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        # Our own name in EHLO: smtplib would look up the machine's name in DNS, without a timeout.
        name = self._sender.domain
        if server.tls:
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(
                server.host, server.port, local_hostname=name, timeout=_ANSWERS_WITHIN_S, context=context
            )
        return smtplib.SMTP(server.host, server.port, local_hostname=name, timeout=_ANSWERS_WITHIN_S)

    def _greet(self, smtp: smtplib.SMTP) -> None:
        server = self._server
        smtp.ehlo_or_helo_if_needed()
        upgrades = server.starttls == "always" or (server.starttls == "offered" and smtp.has_extn("starttls"))
        if upgrades and not server.tls:
            smtp.starttls(context=ssl.create_default_context())
            smtp.ehlo_or_helo_if_needed()
        if server.user is not None:
            smtp.login(server.user, server.password)


class MailFolder:
    """A mailer that writes each mail to a file, for machines without a mail server."""

    def __init__(self, folder: Path, sender: MailSender) -> None:
        self._folder = folder
        self._sender = sender

    def send(self, mail: Mail) -> None:
        raw = as_bytes(mail, self._sender)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(self._new_file(mail), "wb") as file:
                file.write(raw)
        except OSError:
            raise MailAway from None

    def _new_file(self, mail: Mail) -> int:
        """Create a file that only its owner can read. An existing file is never overwritten."""
        stem = f"{mail.written_at:%Y%m%dT%H%M%S}-{mail.name}"
        count = 1
        while True:
            path = self._folder / (f"{stem}.eml" if count == 1 else f"{stem}-{count}.eml")
            with contextlib.suppress(FileExistsError):
                return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            count += 1


def as_bytes(mail: Mail, sender: MailSender) -> bytes:
    """Encode the mail as it is sent, in ASCII. Raises UnsafeMail."""
    if not _ONE_ADDRESS.fullmatch(mail.to):
        raise UnsafeMail
    message = EmailMessage(policy=_POLICY)
    try:
        message["From"] = Address(display_name=sender.name, addr_spec=sender.address)
        message["To"] = Address(addr_spec=mail.to)
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(mail.written_at)
        message["Message-ID"] = f"<{mail.name}@{sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        # Unencoded if possible, so that the file is readable and the link is not broken across lines.
        message.set_content(mail.text, cte="7bit" if mail.text.isascii() else "quoted-printable")
        raw = message.as_bytes()
    except Exception:  # noqa: BLE001 - the library raises many types, and their messages quote their input
        raise UnsafeMail from None
    _check(raw, mail.to)
    return raw


def _check(raw: bytes, to: str) -> None:
    """Check the headers as a server parses them: the library has let line breaks through before (CVE-2024-6923)."""
    head, _, _ = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    names = tuple(line.partition(b":")[0].decode("ascii", "replace") for line in lines if line[:1] != b" ")
    stray = b"\r" in head.replace(b"\r\n", b"") or b"\n" in head.replace(b"\r\n", b"")
    if names != _WRITTEN or f"To: {to}".encode() not in lines or stray or not head.isascii():
        raise UnsafeMail


def _want(answer: tuple[int, bytes], later: type[NotSent], never: type[NotSent]) -> None:
    """Raise `later` or `never`, by the status, unless the server answered with success."""
    status, _ = answer
    if status in {250, 251}:
        return
    raise (never if status >= _FOR_GOOD else later)(status)


@contextlib.contextmanager
def _at_most(seconds: float, smtp: smtplib.SMTP) -> Iterator[None]:
    """Shut the connection down after that time, so that a blocked read or write ends with an error."""

    def cut() -> None:
        if smtp.sock is not None:
            with contextlib.suppress(OSError):
                smtp.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
