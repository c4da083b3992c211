"""Partners under the soak: receivers of webhooks that behave well and badly, and the judgement of what they received.

One receiver answers each message, one fails some of them in many ways, one never answers, and one is gone.
"""

import json
import random
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests
from standardwebhooks import Webhook, WebhookVerificationError

from scheduler.clock import monotonic
from scheduler.domain.webhook import EventType
from tests.verification.soak.soak_setup import SoakSetup

WELL, ROUGH, DEAD, GONE = "well", "rough", "dead", "gone"
_INSIDE = "/inside"
"""The target of redirects. A request to it has followed one."""
_FAILS_PART = 0.1
_FAILURES = {"500": 6, "redirect": 5, "throttled": 5, "reset": 5, "flood": 2, "too late": 1}
"""Ways to fail, and how often each is chosen. One that is too late takes 15 s."""
_TOO_LATE_S = 20.0
_FLOOD = b"x" * 65_536
_FLOODS = 160
_BLOCKS_FOR_S = 60.0
# A request that was refused at once has its answer in its response, and is stored as applied at its receipt.
# Only refusals of messages are reported at their receipt, and the soak sends requests alone.
# A refusal by a worker while the request waits may also be the response: then there is no event either.
_APPLIED = (
    "SELECT id FROM inbox WHERE applied_at <> received_at"
    " AND (NOT answer ? 'refusal' OR applied_at > received_at + interval '36 s')"
)
_ASIDE_S = 1.0
"""Between the answer of a receiver and the record of it, on a machine that is busy."""

BY_HISTORY: Mapping[str, EventType] = {
    "ended": EventType.ATTEMPT_ENDED,
    "proven": EventType.ATTEMPT_PROVEN,
    "cancelled": EventType.ATTEMPT_CANCELLED,
    "expired": EventType.ATTEMPT_EXPIRED,
    "consent_ended": EventType.ATTEMPT_EXPIRED,
    "rescheduled": EventType.ATTEMPT_RESCHEDULED,
}
"""Arrows of attempts with exactly one partner event each, written down apart from the product's own table."""
_STARTS = frozenset({"placed", "answer_lost"})
BY_STATUS: Mapping[str, EventType] = {
    "SCHEDULED": EventType.INTERVIEW_SCHEDULED,
    "COMPLETED": EventType.INTERVIEW_COMPLETED,
    "FAILED": EventType.INTERVIEW_FAILED,
    "CANCELLED": EventType.INTERVIEW_CANCELLED,
}


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message that a receiver got, once for each try."""

    endpoint: str
    id: str
    body: Mapping[str, Any]
    at_s: float
    accepted: bool

    @property
    def type(self) -> str:
        return str(self.body["type"])


@dataclass(frozen=True, kw_only=True)
class Owed:
    """Rows of the database that partners must learn about."""

    history: Sequence[tuple[str, str]]
    """Attempt and event of each arrow."""
    new_attempts: Sequence[tuple[str, bool]]
    """Each attempt, and whether it repeats another one."""
    interviews: Sequence[tuple[str, str]]
    """Each interview and its status."""
    commands: Sequence[str]


@dataclass
class Partners:
    setup: SoakSetup
    dice: random.Random
    company: str = ""
    """The company whose events are sent."""
    messages: list[Message] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    """Id of each endpoint, by its name."""
    verifiers: dict[str, Webhook] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # ---- while it runs

    def register(self, url: str) -> None:
        """Create the endpoints of the company `late`, one of them by its ATS."""
        running = self.setup.whole.running
        [(self.company,)] = self.setup.whole.rows("SELECT id::text FROM companies WHERE name = 'The late shift'")
        # Without `read:webhooks`, with which a key is a reader of all of its companies.
        self.setup.whole.change(
            "UPDATE api_keys SET scopes = scopes || ARRAY['write:webhooks']"
            f" WHERE kind = 'ATS' OR company_id = '{self.company}'"
        )
        wanted = {each.value for each in EventType} - {EventType.PING.value}
        keys = {WELL: self.setup.late_key, ROUGH: running.atsKey, DEAD: self.setup.late_key, GONE: self.setup.late_key}
        for name, key in keys.items():
            answer = requests.post(
                f"{running.apiUrl}/webhooks",
                json={"url": f"{url}/{name}", "events": sorted(wanted), "companyId": self.company},
                headers={"Authorization": f"Bearer {key}"},
                timeout=30,
            )
            answer.raise_for_status()
            made = answer.json()["data"]
            self.ids[name] = made["id"]
            self.verifiers[name] = Webhook(made["signingSecret"])

    def is_quiet(self) -> bool:
        """Check that each event is numbered, and no delivery to a receiver that works is left."""
        waiting = ", ".join(f"'{self.ids[name]}'" for name in (WELL, ROUGH))
        return (
            self.setup.rows(
                "SELECT 1 FROM events WHERE place IS NULL UNION ALL SELECT 1 FROM webhook_deliveries"
                f" WHERE state = 'WAITING' AND endpoint_id IN ({waiting}) LIMIT 1"
            )
            == []
        )

    def receive(self, visit: BaseHTTPRequestHandler) -> None:
        """Verify, record and answer a request."""
        endpoint = visit.path.strip("/")
        if visit.path == _INSIDE or endpoint not in self.verifiers:
            self.inside.append(f"{visit.command} {visit.path}")
            _answer(visit, 200)
            return
        text = visit.rfile.read(int(visit.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in visit.headers.items()}
        try:
            self.verifiers[endpoint].verify(text, headers)
        except (WebhookVerificationError, ValueError) as error:
            self.forged.append(f"{endpoint}: {error}")
        with self._lock:
            self._seen[endpoint, headers["webhook-id"]] += 1
            is_first = self._seen[endpoint, headers["webhook-id"]] == 1
        fails = endpoint in {DEAD, GONE} or (endpoint == ROUGH and is_first and self.dice.random() < _FAILS_PART)
        self.messages.append(
            Message(
                endpoint=endpoint,
                id=headers["webhook-id"],
                body=json.loads(text),
                at_s=monotonic(),
                accepted=not fails,
            )
        )
        if endpoint == DEAD:
            self.over.wait()
        elif endpoint == GONE:
            _answer(visit, 410)
        elif fails:
            self._fail(visit)
        else:
            _answer(visit, 204)

    def _fail(self, visit: BaseHTTPRequestHandler) -> None:
        match self.dice.choices(list(_FAILURES), list(_FAILURES.values()))[0]:
            case "500":
                _answer(visit, 500)
            case "redirect":
                _answer(visit, 301, {"Location": f"http://{visit.headers['Host']}{_INSIDE}"})
            case "throttled":
                _answer(visit, 429, {"Retry-After": "2"})
            case "reset":
                visit.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01" + b"\x00" * 7)
                visit.connection.close()
            case "too late":
                self.over.wait(_TOO_LATE_S)
            case _:
                _answer(visit, 500, floods=_FLOODS)

    # ---- afterwards

    def owed(self) -> Owed:
        of_company = f"company_id = '{self.company}'"
        rows = self.setup.whole.rows
        return Owed(
            history=[
                (str(attempt), event)
                for attempt, event in rows(
                    "SELECT h.attempt_id, h.event FROM attempt_history h JOIN attempts a ON a.id = h.attempt_id"
                    f" WHERE a.{of_company}"
                )
            ],
            new_attempts=[
                (str(attempt), bool(number))
                for attempt, number in rows(f"SELECT id, retry_number FROM attempts WHERE {of_company}")
            ],
            interviews=[
                (str(interview), status)
                for interview, status in rows(f"SELECT id, status FROM interviews WHERE {of_company}")
            ],
            commands=[str(command) for command, *_ in rows(f"{_APPLIED} AND {of_company}")],
        )

    def summary(self) -> str:
        """Format the counts of the receivers as one line."""
        parts = []
        for name in (WELL, ROUGH, DEAD, GONE):
            messages = [each for each in self.messages if each.endpoint == name]
            parts.append(f"{name} {len({each.id for each in messages})} events in {len(messages)} requests")
        return ", ".join(parts)

    def faults(self) -> list[str]:
        """List everything that partners should have received otherwise."""
        found = [f"forged: {each}" for each in self.forged] + [f"followed a redirect: {each}" for each in self.inside]
        owed = self.owed()
        for endpoint in (WELL, ROUGH):
            messages = [each for each in self.messages if each.endpoint == endpoint]
            found += [f"{endpoint}: {each}" for each in (*missing(owed, messages), *out_of_order(messages))]
        [(cause,)] = self.setup.whole.rows(
            f"SELECT disabled_cause FROM webhook_endpoints WHERE id = '{self.ids[GONE]}'"
        )
        if cause != "GONE":
            found.append(f"the endpoint that is gone was not disabled: {cause}")
        return found


def missing(owed: Owed, messages: Sequence[Message]) -> Iterator[str]:
    """Yield the events that were never received."""
    accepted = list({each.id: each for each in messages if each.accepted}.values())
    yield from _missing_of_attempts(owed, accepted)
    of_interviews = _counted(accepted, "interviewId")
    for interview, status in owed.interviews:
        for type_ in sorted({EventType.INTERVIEW_SCHEDULED, BY_STATUS[status]}):
            if not of_interviews[type_.value, interview]:
                yield f"{type_.value} of interview {interview}"
    of_commands = _counted(accepted, "commandId")
    for command in owed.commands:
        if not of_commands[EventType.COMMAND_APPLIED.value, command]:
            yield f"the outcome of command {command}"
    for interview, sequences in _sequences(accepted).items():
        if sequences != list(range(1, len(sequences) + 1)):
            yield f"sequences of interview {interview}: {sequences}"


def _missing_of_attempts(owed: Owed, accepted: Sequence[Message]) -> Iterator[str]:
    counted, followers = _counted(accepted, "callAttemptId"), _counted(accepted, "nextAttemptId")
    arrows = Counter((BY_HISTORY[event].value, attempt) for attempt, event in owed.history if event in BY_HISTORY)
    for (type_, attempt), count in arrows.items():
        if counted[type_, attempt] != count:
            yield f"{type_} of attempt {attempt}: {counted[type_, attempt]} of {count}"
    for attempt in sorted({attempt for attempt, event in owed.history if event in _STARTS}):
        if not counted[EventType.ATTEMPT_STARTED.value, attempt]:
            yield f"the start of attempt {attempt}"
    for attempt, is_retry in owed.new_attempts:
        created = followers if is_retry else counted
        type_ = EventType.ATTEMPT_RETRY_SCHEDULED if is_retry else EventType.ATTEMPT_SCHEDULED
        if not created[type_.value, attempt]:
            yield f"the creation of attempt {attempt}"


def _counted(accepted: Sequence[Message], id_: str) -> Counter[tuple[str, str]]:
    return Counter((each.type, str(each.body["data"].get(id_))) for each in accepted)


def _sequences(accepted: Sequence[Message]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for each in accepted:
        if each.body["sequence"] is not None:
            found[str(each.body["data"]["interviewId"])].append(each.body["sequence"])
    return {interview: sorted(sequences) for interview, sequences in found.items()}


def out_of_order(messages: Sequence[Message]) -> Iterator[str]:
    """Yield the events that were sent before an earlier one of their interview was accepted or blocked no longer."""
    of_interviews: dict[str, list[Message]] = defaultdict(list)
    for each in messages:
        if each.body["sequence"] is not None:
            of_interviews[str(each.body["data"]["interviewId"])].append(each)
    for interview, tries in of_interviews.items():
        accepted_at: dict[int, float] = {}
        failed_at: dict[int, float] = {}
        for each in tries:
            at = accepted_at if each.accepted else failed_at
            at.setdefault(each.body["sequence"], each.at_s)
        for each in tries:
            for earlier in range(1, each.body["sequence"]):
                free_at = min(
                    accepted_at.get(earlier, float("inf")),
                    failed_at.get(earlier, float("inf")) + _BLOCKS_FOR_S - _ASIDE_S,
                )
                if each.at_s < free_at:
                    yield f"{each.body['sequence']} of interview {interview} was sent before {earlier}"


def _answer(
    visit: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str] | None = None, floods: int = 0
) -> None:
    visit.send_response(status)
    for name, value in (headers or {}).items():
        visit.send_header(name, value)
    visit.send_header("Content-Length", str(floods * len(_FLOOD)))
    visit.end_headers()
    with suppress(OSError):
        for _ in range(floods):
            visit.wfile.write(_FLOOD)


@contextmanager
def partners_of(setup: SoakSetup, seed: int) -> Iterator[Partners]:
    """Serve the receivers on loopback, and register them."""
    partners = Partners(setup=setup, dice=random.Random(seed))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with suppress(OSError):
                partners.receive(self)

        def do_GET(self) -> None:
            partners.receive(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        partners.register(f"http://{host!s}:{port}")
        try:
            yield partners
        finally:
            partners.over.set()
            server.shutdown()
