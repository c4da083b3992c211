"""New alarms are posted to the operator's webhook: signed, without redirects, and again until they are accepted."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from scheduler.alarm_webhook import AlarmWebhook
from scheduler.assembly import alarm_receiver
from scheduler.domain.alarm import KeptAlarm, key_of
from scheduler.persistence.database import Database
from scheduler.rules.operators import MOST_TRIES, try_again_at
from scheduler.settings import Settings
from scheduler.use_cases.operations.alarms import AlarmPosts, Alarms
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared.alarms import AlarmStore, Seen
from scheduler.use_cases.shared.hints import POST_ALARMS, QUEUES
from tests.conftest import NOON, TestClock
from tests.support.builders import RecordingHints, Tenant
from tests.support.servers import a_closed_port

SECRET = "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"


@dataclass
class Receiver:
    """A real HTTP server that answers with the given statuses, the last one repeatedly."""

    statuses: list[int] = field(default_factory=lambda: [200])
    location: str = ""
    hangs: threading.Event | None = None
    """Requests wait for this event before they are answered."""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def verified(self, place: int = -1) -> dict[str, Any]:
        """Return the body of a request, if its signature is right. Raises WebhookVerificationError."""
        _, headers, body = self.requests[place]
        found: dict[str, Any] = Webhook(SECRET).verify(body, headers)
        return found


@contextmanager
def receiving(receiver: Receiver) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append((self.path, dict(self.headers), body))
            receiver.arrived.set()
            if receiver.hangs is not None:
                receiver.hangs.wait()
            status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
            self.send_response(status)
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/pager?team=calls"
        try:
            yield receiver
        finally:
            if receiver.hangs is not None:
                receiver.hangs.set()
            server.shutdown()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as server:
        yield server


Raise = Callable[..., None]


@pytest.fixture
def raise_alarm(database: Database, now: TestClock) -> Raise:
    def raised(kind: str, **fields: object) -> None:
        seen = {key_of(kind, fields): Seen(count=1, first=0, last=0)}
        AlarmStore(database, now, monotonic=lambda: 0.0).store(seen)

    return raised


@pytest.fixture
def alarms(database: Database, now: TestClock) -> Alarms:
    return Alarms(database, now)


def posts_to(receiver: Receiver, database: Database, now: TestClock, *, deadline_s: float = 60.0) -> AlarmPosts:
    return AlarmPosts(database, AlarmWebhook(receiver.url, SECRET, deadline_s=deadline_s), now)


@pytest.fixture
def posts(receiver: Receiver, database: Database, now: TestClock) -> AlarmPosts:
    return posts_to(receiver, database, now)


def only(alarms: Alarms) -> KeptAlarm:
    [alarm] = alarms.all()
    return alarm


def test_new_alarm_is_posted_once_and_signed(
    posts: AlarmPosts, receiver: Receiver, alarms: Alarms, raise_alarm: Raise
) -> None:
    attempt_id = uuid4()
    raise_alarm("CAUSE_LOST", attempt_id=attempt_id, name="Ada", seconds=3)
    posts.send()
    raise_alarm("CAUSE_LOST", attempt_id=attempt_id)
    posts.send()
    assert len(receiver.requests) == 1
    path, headers, _ = receiver.requests[0]
    alarm = only(alarms)
    assert path == "/pager?team=calls"
    assert headers["webhook-id"] == str(alarm.id)
    body = receiver.verified()
    assert body["type"] == "alarm.raised"
    assert body["data"] == {
        "id": str(alarm.id),
        "kind": "CAUSE_LOST",
        "subjects": {"attemptId": str(attempt_id)},
        "firstSeenAt": "2026-04-02T12:00:00Z",
        "lastSeenAt": "2026-04-02T12:00:00Z",
        "count": 1,
    }
    assert (alarm.posted_at, alarm.post_at, alarm.tries) == (NOON, None, 1)


def test_alarms_are_posted_in_several_turns(
    posts: AlarmPosts, receiver: Receiver, raise_alarm: Raise, short_turns: None
) -> None:
    for kind in ("CAUSE_LOST", "LOCK_HELD"):
        raise_alarm(kind)
    for posted in (1, 2):
        posts.send()
        assert len(receiver.requests) == posted


def test_changed_body_does_not_match_the_signature(posts: AlarmPosts, receiver: Receiver, raise_alarm: Raise) -> None:
    raise_alarm("CAUSE_LOST")
    posts.send()
    path, headers, body = receiver.requests[0]
    receiver.requests[0] = path, headers, body.replace(b"CAUSE_LOST", b"LOCK_HELD")
    with pytest.raises(WebhookVerificationError):
        receiver.verified()


@pytest.mark.parametrize("status", [500, 503, 404, 400])
def test_alarm_is_posted_again_until_it_is_accepted(
    posts: AlarmPosts, receiver: Receiver, alarms: Alarms, raise_alarm: Raise, now: TestClock, status: int
) -> None:
    receiver.statuses = [status, 200]
    raise_alarm("CAUSE_LOST")
    posts.send()
    posts.send()
    assert len(receiver.requests) == 1, "it waits"
    alarm = only(alarms)
    assert (alarm.posted_at, alarm.post_at) == (None, NOON + timedelta(seconds=10))
    now.move(timedelta(seconds=10))
    posts.send()
    assert [json.loads(body)["data"]["id"] for _, _, body in receiver.requests] == [str(alarm.id)] * 2
    assert only(alarms).posted_at == now()
    receiver.verified()


def test_redirect_is_not_followed(database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock) -> None:
    raise_alarm("CAUSE_LOST")
    with receiving(Receiver()) as target, receiving(Receiver(statuses=[307], location=target.url)) as first:
        posts_to(first, database, now).send()
        assert (len(first.requests), len(target.requests)) == (1, 0)
    assert only(alarms).post_at is not None


def test_proxy_of_the_environment_is_not_used(
    posts: AlarmPosts, receiver: Receiver, raise_alarm: Raise, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, a_closed_port())
    raise_alarm("CAUSE_LOST")
    posts.send()
    assert len(receiver.requests) == 1


def test_hanging_receiver_is_given_up_at_the_deadline(
    database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock
) -> None:
    raise_alarm("CAUSE_LOST")
    with receiving(Receiver(hangs=threading.Event())) as receiver:
        posts_to(receiver, database, now, deadline_s=0.2).send()
    assert only(alarms).post_at == NOON + timedelta(seconds=10)


def test_hanging_receiver_delays_no_other_work(
    database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock
) -> None:
    raise_alarm("CAUSE_LOST")
    hangs = threading.Event()
    with receiving(Receiver(hangs=hangs)) as receiver:
        posts = posts_to(receiver, database, now)
        thread = threading.Thread(target=posts.send)
        thread.start()
        assert receiver.arrived.wait(60)
        raise_alarm("LOCK_HELD")
        posts.send()  # another thread of the worker returns at once
        assert len(receiver.requests) == 1
        assert alarms.count_open() == {"CAUSE_LOST": 1, "LOCK_HELD": 1}
        alarms.acknowledge(None, kind="CAUSE_LOST")  # no row is locked meanwhile
        hangs.set()
        thread.join(60)
    assert {each.kind: each.posted_at for each in alarms.all()} == {"CAUSE_LOST": NOON, "LOCK_HELD": NOON}


def test_receiver_that_is_away_is_tried_again(
    database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock
) -> None:
    raise_alarm("CAUSE_LOST")
    AlarmPosts(database, AlarmWebhook(a_closed_port(), SECRET), now).send()
    assert only(alarms).post_at == NOON + timedelta(seconds=10)


def test_acknowledged_alarm_is_not_posted(
    posts: AlarmPosts, receiver: Receiver, alarms: Alarms, raise_alarm: Raise
) -> None:
    raise_alarm("CAUSE_LOST")
    alarms.acknowledge(None, kind="CAUSE_LOST")
    posts.send()
    assert receiver.requests == []


def test_alarms_wait_without_a_receiver(
    receiver: Receiver, database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock
) -> None:
    raise_alarm("CAUSE_LOST")
    AlarmPosts(database, None, now).send()
    assert (only(alarms).tries, only(alarms).post_at) == (0, NOON)
    posts_to(receiver, database, now).send()
    assert len(receiver.requests) == 1


def test_two_processes_post_each_alarm_once(
    receiver: Receiver, database: Database, raise_alarm: Raise, now: TestClock
) -> None:
    for _ in range(10):
        raise_alarm("CAUSE_LOST", attempt_id=uuid4())
    threads = [threading.Thread(target=posts_to(receiver, database, now).send) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == len(receiver.requests) == 10


def test_sweep_sends_the_hint_only_for_alarms_that_are_due(
    tenant: Tenant, hints: RecordingHints, raise_alarm: Raise, posts: AlarmPosts
) -> None:
    release = Release(tenant.context, hints, tenant.account_id)
    release.hint_sweep()
    assert POST_ALARMS not in dict(hints.rings)
    raise_alarm("CAUSE_LOST")
    release.hint_sweep()
    assert POST_ALARMS in dict(hints.rings)
    hints.rings.clear()
    posts.send()
    release.hint_sweep()
    assert POST_ALARMS not in dict(hints.rings)
    assert QUEUES[POST_ALARMS] == "maintenance"


def test_tries_end_after_a_day() -> None:
    at, tries = NOON, 1
    while (again := try_again_at(tries, at)) is not None:
        assert again > at
        at, tries = again, tries + 1
    assert tries == MOST_TRIES
    assert timedelta(days=1) < at - NOON < timedelta(days=1, hours=3)


def test_given_up_alarm_stays_open(
    posts: AlarmPosts, receiver: Receiver, alarms: Alarms, raise_alarm: Raise, tenant: Tenant
) -> None:
    receiver.statuses = [500]
    raise_alarm("CAUSE_LOST")
    tenant.change("UPDATE alarms SET tries = :tries", tries=MOST_TRIES - 1)
    posts.send()
    [alarm] = alarms.open()
    assert (alarm.post_at, alarm.posted_at) == (None, None)


def test_settings_without_a_webhook_have_no_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert alarm_receiver(Settings()) is None
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("ALERT_WEBHOOK_SECRET", SECRET)
    assert isinstance(alarm_receiver(Settings()), AlarmWebhook)


def test_body_names_no_field_but_ids(posts: AlarmPosts, receiver: Receiver, raise_alarm: Raise) -> None:
    raise_alarm("CAUSE_LOST", company_id=uuid4(), url="+421915200300", error="Ada")
    posts.send()
    assert list(receiver.verified()["data"]["subjects"]) == ["companyId"]
