"""The demo's voice server: answers the carrier's requests for instructions, and remembers whom it talked to."""

import threading
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit


class Talk(NamedTuple):
    """A conversation whose outcome is not reported yet."""

    token: str
    """Names the call attempt."""
    number: str


class VoiceServer:
    """A server on loopback, without a check of the carrier's signature."""

    def __init__(self) -> None:
        self.unreported: deque[Talk] = deque()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.unreported))
        self._thread = threading.Thread(target=self._server.serve_forever, name="voice-server", daemon=True)

    @property
    def url(self) -> str:
        """The address for TWILIO_VOICE_URL."""
        return f"http://127.0.0.1:{self._server.server_port}/voice"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(unreported: deque[Talk]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0  # for a client that sends nothing

        def handle(self) -> None:
            """Answer until the client hangs up, as processes do that the demo stops."""
            with suppress(ConnectionError):
                super().handle()

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()))
            token = dict(parse_qsl(urlsplit(self.path).query)).get("attempt")
            if token is None or "To" not in form:
                return self._answer(400)
            unreported.append(Talk(token, form["To"]))
            return self._answer(200, b"<Response/>")

        def do_GET(self) -> None:
            """Answer Duecall's probe."""
            self._answer(200)

        def log_message(self, *_: object) -> None:
            """Log nothing: the path contains the token."""

        def _answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
