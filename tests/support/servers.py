"""Real HTTP servers in a thread of the test process, such as the simulated carrier."""

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
import uvicorn

from scheduler.carriers.twilio import TwilioAccount
from standalone.simulator.app import create_app
from tests.conftest import real_now, wait_until

ACCOUNT_SID = "AC" + "0123456789abcdef" * 2
PRIMARY, SECONDARY = "the-primary-token", "the-secondary-token"


@contextmanager
def serving(app: Any, door: socket.socket | None = None, *, loop: Literal["auto", "asyncio"] = "auto") -> Iterator[str]:
    """Serve `app` and yield its address."""
    door = door or a_door()
    with a_server(app, door, loop=loop):
        yield address_of(door)


@contextmanager
def a_server(app: Any, door: socket.socket, *, loop: Literal["auto", "asyncio"] = "auto") -> Iterator[uvicorn.Server]:
    """Serve `app` on this socket until the end."""
    config = uvicorn.Config(
        app, loop=loop, log_level="warning", ws="none", timeout_graceful_shutdown=1, timeout_keep_alive=75
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, says="the server has started")
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()


def a_door() -> socket.socket:
    """A listening socket on loopback. Named as TCP, or asyncio leaves Nagle's algorithm on."""
    door = socket.socket(proto=socket.IPPROTO_TCP)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", 0))
    door.listen()
    return door


@contextmanager
def a_crowded_door() -> Iterator[socket.socket]:
    """A socket whose queue is full until the test accepts: until then the kernel answers no attempt to connect."""
    with socket.socket(proto=socket.IPPROTO_TCP) as door:
        door.bind(("127.0.0.1", 0))
        door.listen(0)
        with socket.create_connection(door.getsockname(), timeout=30):
            yield door


def is_connecting_to(door: socket.socket) -> bool:
    """Check that a process waits for its connection to this socket."""
    here = f"0100007F:{door.getsockname()[1]:04X}"
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    return any(line.split()[2:4] == [here, _SYN_SENT] for line in lines)


_SYN_SENT = "02"


def address_of(door: socket.socket) -> str:
    return f"http://127.0.0.1:{door.getsockname()[1]}"


def a_closed_port() -> str:
    """Choose an address on which no process listens while this one runs.

    The socket stays bound, because a server of a parallel test could get a closed port a moment later.
    """
    bound = socket.socket(proto=socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    _BOUND.append(bound)
    return address_of(bound)


_BOUND: list[socket.socket] = []


@dataclass
class SimulatedCarrier:
    """A running carrier with its control API. A test may set its clock."""

    url: str = ""
    clock: Callable[[], datetime] = field(default=real_now)

    def now(self) -> datetime:
        return self.clock()

    def account(self, *, url: str | None = None, public_url: str = "http://127.0.0.1:9") -> TwilioAccount:
        """The account at this carrier."""
        return TwilioAccount(
            api_url=url or self.url,
            account_sid=ACCOUNT_SID,
            auth_tokens=(PRIMARY, SECONDARY),
            public_url=public_url,
            voice_url="https://example.com/voice",
        )

    def plan(self, **rule: Any) -> None:
        self._post("/plans", rule)

    def plans(self, rules: Sequence[dict[str, Any]]) -> None:
        self._post("/plans", list(rules))

    def clear(self) -> None:
        requests.delete(f"{self.url}/plans", timeout=30).raise_for_status()

    def down(self, kind: str, *, for_s: float | None = None, answers_questions: bool = False) -> None:
        """Answer customers `503`, `429` or `401`, `drop`, `hang`, lose the `uplink`, or `refuse` to connect `for_s`."""
        order = {"kind": kind, "for_s": for_s, "answers_questions": answers_questions}
        self._post("/outage", order)

    def up(self) -> None:
        requests.delete(f"{self.url}/outage", timeout=30)

    def verdict(self) -> dict[str, Any]:
        """Read the violations that the carrier found. All lists must be empty."""
        return dict(self._get("/verdict", None))

    def rings(self, to: str | None = None) -> list[dict[str, Any]]:
        """List all accepted calls with token and ring time."""
        return list(self._get("/ledger", to)["rings"])

    def requests(self, to: str | None = None) -> list[dict[str, Any]]:
        """List all requests to place a call, valid or not."""
        return list(self._get("/requests", to)["requests"])

    def check_health(self) -> None:
        self._get("/healthz", None)

    def _post(self, path: str, body: object) -> None:
        answer = requests.post(f"{self.url}{path}", json=body, timeout=30)
        assert answer.status_code == requests.codes.created, answer.text

    def _get(self, path: str, to: str | None) -> Any:
        answer = requests.get(f"{self.url}{path}", params={"to": to} if to else {}, timeout=60)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def a_carrier(**settings: Any) -> Iterator[SimulatedCarrier]:
    carrier = SimulatedCarrier()
    usual: dict[str, Any] = {
        "account_sid": ACCOUNT_SID,
        "auth_tokens": [PRIMARY, SECONDARY],
        "now": carrier.now,
        "calls_per_second": 10_000,
        "callback_retry_after_s": 0.2,
    }
    app = create_app(**(usual | settings))
    with serving(app, loop="asyncio") as url:
        carrier.url = url
        yield carrier
    assert app.state.differences.all() == [], "the traffic differs from Twilio's published API"


class Wire:
    """A stretch of network on loopback before a server, which can fail without telling either end.

    Each predicate is called with the next bytes of a client. `dead`: from then on both ends stay open and no data gets
    through, as behind a router that has forgotten the connection. `cut_before`: the connection breaks before the server
    receives the bytes. `cut_after`: it breaks after the server received them, before its answer. `mute_after`: the
    server's answers get lost while the connection stays open. `delay_s`: seconds that each packet takes, either way.
    """

    def __init__(self, port: int, door: socket.socket | None = None) -> None:
        self._server_port = port
        self._door = door or a_door()
        self._ends: set[socket.socket] = set()
        self.dead: Callable[[bytes], bool] = _never
        self.cut_before: Callable[[bytes], bool] = _never
        self.cut_after: Callable[[bytes], bool] = _never
        self.delay_s = 0.0
        self.mute_after: Callable[[bytes], bool] = _never
        self.died = 0
        """Return the number of failed connections."""
        self._thread = threading.Thread(target=self._admit, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._door.getsockname()[1])

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._door.close()
        for end in tuple(self._ends):
            _break_off(end)
            end.close()

    def _admit(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    return
                threading.Event().wait(0.05)  # connections end meanwhile, and this one still waits in the kernel
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port), timeout=30)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends.update({client, server})
            threading.Thread(target=self._carry, args=(_Stretch(client, server),), daemon=True).start()

    def _carry(self, stretch: "_Stretch") -> None:
        """Carry both ways until the connection is over, then close it: a test may open thousands."""
        answers = threading.Thread(target=self._carry_answers, args=(stretch,), daemon=True)
        answers.start()
        self._carry_questions(stretch)
        answers.join()
        for end in (stretch.client, stretch.server):
            end.close()
            self._ends.discard(end)

    def _carry_questions(self, stretch: "_Stretch") -> None:
        with contextlib.suppress(OSError):
            while sent := stretch.client.recv(_A_GULP):
                if stretch.dead or self.dead(sent):
                    self.died += not stretch.dead
                    stretch.dead = True
                    continue
                if self.cut_before(sent):
                    self.died += 1
                    break
                if self.cut_after(sent):
                    self.died += 1
                    stretch.deaf = True
                if self.mute_after(sent):
                    self.died += 1
                    stretch.mute = True
                self._on_its_way()
                stretch.server.sendall(sent)
        stretch.end()

    def _carry_answers(self, stretch: "_Stretch") -> None:
        with contextlib.suppress(OSError):
            while sent := stretch.server.recv(_A_GULP):
                if stretch.deaf:
                    break  # the server has answered, so it has executed the request
                if not (stretch.dead or stretch.mute):
                    self._on_its_way()
                    stretch.client.sendall(sent)
        stretch.end()

    def _on_its_way(self) -> None:
        if self.delay_s:
            threading.Event().wait(self.delay_s)


_A_GULP = 65_536
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


@dataclass
class _Stretch:
    """One connection over the wire."""

    client: socket.socket
    server: socket.socket
    dead: bool = False
    deaf: bool = False
    mute: bool = False

    def end(self) -> None:
        """Close both ends. A dead connection stays open."""
        if not self.dead:
            _break_off(self.client)
            _break_off(self.server)


def _never(_: bytes) -> bool:
    return False


def _break_off(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def wired(url: str) -> Iterator[tuple[Wire, str]]:
    """Yield a wire before the server of `url`, and the URL that leads over it."""
    parts = urlsplit(url)
    assert parts.port is not None
    wire = Wire(parts.port)
    try:
        yield wire, parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{wire.port}")).geturl()
    finally:
        wire.close()
