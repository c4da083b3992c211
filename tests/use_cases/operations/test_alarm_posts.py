"""New alarms are posted to the operator's webhook: signed, without redirects, and again until they are accepted."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from standardwebhooks import Webhook

from scheduler.assembly import alarm_receiver
from scheduler.domain.alarm import KeptAlarm, key_of
from scheduler.persistence.database import Database
from scheduler.rules.operators import MOST_TRIES, try_again_at
from scheduler.settings import Settings
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared.alarms import AlarmPosts, Alarms, AlarmStore, Seen
from scheduler.use_cases.shared.hints import POST_ALARMS, QUEUES
from scheduler.webhooks.sender import AlarmWebhook
from tests.conftest import NOON, TestClock
from tests.support.builders import RecordingHints, Tenant
from tests.support.servers import a_closed_port
from tests.support.webhook_receivers import Visit, WebhookReceiver, a_webhook_receiver, answers, hangs

SECRET = "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with a_webhook_receiver(answers(200)) as receiver:
        yield receiver


def verified(receiver: WebhookReceiver) -> dict[str, Any]:
    """Read the body of the last request, if its signature is right."""
    visit = receiver.visits[-1]
    found: dict[str, Any] = Webhook(SECRET).verify(visit.body, visit.headers)
    return found


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


def posts_to(receiver: WebhookReceiver, database: Database, now: TestClock, *, deadline_s: float = 60.0) -> AlarmPosts:
    return AlarmPosts(database, AlarmWebhook(receiver.url, SECRET, deadline_s=deadline_s), now)


@pytest.fixture
def posts(receiver: WebhookReceiver, database: Database, now: TestClock) -> AlarmPosts:
    return posts_to(receiver, database, now)


def only(alarms: Alarms) -> KeptAlarm:
    [alarm] = alarms.all()
    return alarm


def test_new_alarm_is_posted_once_and_signed(
    posts: AlarmPosts, receiver: WebhookReceiver, alarms: Alarms, raise_alarm: Raise
) -> None:
    attempt_id = uuid4()
    raise_alarm("CAUSE_LOST", attempt_id=attempt_id, name="Ada", seconds=3)
    posts.send()
    raise_alarm("CAUSE_LOST", attempt_id=attempt_id)
    posts.send()
    [visit] = receiver.visits
    alarm = only(alarms)
    assert visit.head.startswith("POST /hooks?of=calls ")
    assert visit.headers["webhook-id"] == str(alarm.id)
    body = verified(receiver)
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
    posts: AlarmPosts, receiver: WebhookReceiver, raise_alarm: Raise, short_turns: None
) -> None:
    for kind in ("CAUSE_LOST", "LOCK_HELD"):
        raise_alarm(kind)
    for posted in (1, 2):
        posts.send()
        assert len(receiver.visits) == posted


def test_alarm_is_posted_again_until_it_is_accepted(
    database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock
) -> None:
    statuses = iter([404, 200])

    def answers_in_turn(visit: Visit) -> None:
        answers(next(statuses))(visit)

    raise_alarm("CAUSE_LOST")
    with a_webhook_receiver(answers_in_turn) as receiver:
        posts = posts_to(receiver, database, now)
        posts.send()
        posts.send()
        assert len(receiver.visits) == 1, "it waits"
        alarm = only(alarms)
        assert (alarm.posted_at, alarm.post_at) == (None, NOON + timedelta(seconds=10))
        now.move(timedelta(seconds=10))
        posts.send()
        assert [json.loads(visit.body)["data"]["id"] for visit in receiver.visits] == [str(alarm.id)] * 2
    assert only(alarms).posted_at == now()
    verified(receiver)


def test_redirect_is_not_followed(database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock) -> None:
    raise_alarm("CAUSE_LOST")
    with (
        a_webhook_receiver(answers(200)) as target,
        a_webhook_receiver(answers(307, f"Location: {target.url}")) as first,
    ):
        posts_to(first, database, now).send()
        assert (len(first.visits), target.connections) == (1, 0)
    assert only(alarms).post_at is not None


def test_proxy_of_the_environment_is_not_used(
    posts: AlarmPosts, receiver: WebhookReceiver, raise_alarm: Raise, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, a_closed_port())
    raise_alarm("CAUSE_LOST")
    posts.send()
    assert len(receiver.visits) == 1


def test_hanging_receiver_is_given_up_at_the_deadline(
    database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock
) -> None:
    raise_alarm("CAUSE_LOST")
    with a_webhook_receiver(hangs) as receiver:
        posts_to(receiver, database, now, deadline_s=0.2).send()
    assert only(alarms).post_at == NOON + timedelta(seconds=10)


def test_hanging_receiver_delays_no_other_work(
    database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock
) -> None:
    raise_alarm("CAUSE_LOST")
    arrived, may_answer = threading.Event(), threading.Event()

    def answers_later(visit: Visit) -> None:
        arrived.set()
        may_answer.wait(60)
        answers(200)(visit)

    with a_webhook_receiver(answers_later) as receiver:
        posts = posts_to(receiver, database, now)
        thread = threading.Thread(target=posts.send)
        thread.start()
        assert arrived.wait(60)
        raise_alarm("LOCK_HELD")
        posts.send()  # another thread of the worker returns at once
        assert len(receiver.visits) == 1
        assert alarms.count_open() == {"CAUSE_LOST": 1, "LOCK_HELD": 1}
        alarms.acknowledge(None, kind="CAUSE_LOST")  # no row is locked meanwhile
        may_answer.set()
        thread.join(60)
    assert {each.kind: each.posted_at for each in alarms.all()} == {"CAUSE_LOST": NOON, "LOCK_HELD": NOON}


def test_acknowledged_alarm_is_not_posted(
    posts: AlarmPosts, receiver: WebhookReceiver, alarms: Alarms, raise_alarm: Raise
) -> None:
    raise_alarm("CAUSE_LOST")
    alarms.acknowledge(None, kind="CAUSE_LOST")
    posts.send()
    assert receiver.visits == []


def test_alarms_wait_without_a_receiver(
    receiver: WebhookReceiver, database: Database, alarms: Alarms, raise_alarm: Raise, now: TestClock
) -> None:
    raise_alarm("CAUSE_LOST")
    AlarmPosts(database, None, now).send()
    assert (only(alarms).tries, only(alarms).post_at) == (0, NOON)
    posts_to(receiver, database, now).send()
    assert len(receiver.visits) == 1


def test_two_processes_post_each_alarm_once(
    receiver: WebhookReceiver, database: Database, raise_alarm: Raise, now: TestClock
) -> None:
    for _ in range(10):
        raise_alarm("CAUSE_LOST", attempt_id=uuid4())
    threads = [threading.Thread(target=posts_to(receiver, database, now).send) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({visit.headers["webhook-id"] for visit in receiver.visits}) == len(receiver.visits) == 10


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
    database: Database, alarms: Alarms, raise_alarm: Raise, tenant: Tenant, now: TestClock
) -> None:
    raise_alarm("CAUSE_LOST")
    tenant.change("UPDATE alarms SET tries = :tries", tries=MOST_TRIES - 1)
    with a_webhook_receiver(answers(500)) as receiver:
        posts_to(receiver, database, now).send()
    [alarm] = alarms.open()
    assert (alarm.post_at, alarm.posted_at) == (None, None)


def test_settings_without_a_webhook_have_no_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert alarm_receiver(Settings()) is None
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("ALERT_WEBHOOK_SECRET", SECRET)
    assert isinstance(alarm_receiver(Settings()), AlarmWebhook)


def test_body_names_no_field_but_ids(posts: AlarmPosts, receiver: WebhookReceiver, raise_alarm: Raise) -> None:
    raise_alarm("CAUSE_LOST", company_id=uuid4(), url="+421915200300", error="Ada")
    posts.send()
    assert list(verified(receiver)["data"]["subjects"]) == ["companyId"]
