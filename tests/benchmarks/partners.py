"""Cost and delay of what partners use: webhooks next to a receiver that never answers, and large batches."""

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import psycopg
import requests

from scheduler.domain.webhook import EventType

WELL, DEAD = "well", "dead"
_ITEM_PAUSE_S = 0.05


class Receiver:
    """An HTTP server on loopback: `/well` answers, `/dead` never does."""

    def __init__(self) -> None:
        self.delays_s: list[float] = []
        """From each event to its message, at `/well`. Repetitions count again."""
        self.over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.receive(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def receive(self, visit: BaseHTTPRequestHandler) -> None:
        body = json.loads(visit.rfile.read(int(visit.headers["Content-Length"])))
        if visit.path == f"/{DEAD}":
            self.over.wait()
            return
        occurred_at = datetime.fromisoformat(body["timestamp"])
        self.delays_s.append((datetime.now(UTC) - occurred_at).total_seconds())
        visit.send_response(204)
        visit.end_headers()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiving(api: str, headers: dict[str, str], connection: psycopg.Connection) -> Iterator[Receiver]:
    """Register both receivers for all events, with every key."""
    connection.execute("UPDATE api_keys SET scopes = scopes || ARRAY['read:webhooks', 'write:webhooks']")
    receiver = Receiver()
    wanted = sorted({each.value for each in EventType} - {EventType.PING.value})
    try:
        for name in (WELL, DEAD):
            body = {"url": f"{receiver.url}/{name}", "events": wanted}
            requests.post(f"{api}/webhooks", json=body, headers=headers, timeout=30).raise_for_status()
        yield receiver
    finally:
        receiver.close()


def delays(receiver: Receiver) -> dict[str, object]:
    late = sorted(receiver.delays_s)
    return {
        "delivered": len(late),
        "p50 ms": 1000 * statistics.median(late),
        "p99 ms": 1000 * late[int(0.99 * (len(late) - 1))],
    }


def lines_of(count: int, interview: Callable[[int], dict[str, Any]]) -> bytes:
    """Build a batch in NDJSON, for calls of the day after tomorrow."""
    later = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0).isoformat()
    items = (interview(place) | {"scheduledAt": later, "externalId": f"row {place}"} for place in range(count))
    return b"".join(json.dumps(each).encode() + b"\n" for each in items)


def send_batch(api: str, headers: dict[str, str], lines: bytes) -> tuple[str, float]:
    """Return the id of the batch, and the seconds until it was accepted."""
    began = time.monotonic()
    answer = requests.post(
        f"{api}/batches", data=lines, headers={**headers, "Content-Type": "application/x-ndjson"}, timeout=120
    )
    assert answer.status_code == requests.codes.accepted, answer.text
    return str(answer.json()["data"]["id"]), time.monotonic() - began


class SingleRequests:
    """Requests one interview after the other in a thread, during the batch."""

    def __init__(self, api: str, headers: dict[str, str], interview: Callable[[int], dict[str, Any]]) -> None:
        self._api, self._headers, self._interview = api, headers, interview
        self._over = threading.Event()
        self.taken_s: list[float] = []
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _send(self) -> None:
        later = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0).isoformat()
        place = 500_000
        with requests.Session() as session:
            while not self._over.wait(_ITEM_PAUSE_S):
                place += 1
                began = time.monotonic()
                body = self._interview(place) | {"scheduledAt": later}
                answer = session.post(f"{self._api}/interviews", json=body, headers=self._headers, timeout=60)
                assert answer.status_code == requests.codes.created, answer.text
                self.taken_s.append(time.monotonic() - began)
