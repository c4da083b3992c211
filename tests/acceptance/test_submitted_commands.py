"""Commands as Celery messages, sent as the documentation shows, with the Redis users that it defines."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
import requests
from celery import Celery
from pydantic import SecretStr

from scheduler.settings import Settings
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.acceptance.conftest import WholeSystem, kill_server, running_system
from tests.conftest import wait_until
from tests.support.compose import WORKERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "integrate-over-celery.md").read_text(encoding="utf-8")
NUMBER = "+421915000031"
CANARY = "Kanarienvogel"


def _users(url: str) -> tuple[str, str, str]:
    """Redis URLs of Duecall, the sender and Flower, with the documented users."""
    [lines] = re.findall(r"^```\n((?:ACL .*\n)+)```", PAGE, re.MULTILINE)
    with redis.Redis.from_url(url) as operator:
        for line in lines.splitlines():
            operator.execute_command(*line.split(" "))
    server = re.sub(r"//.*@", "//{}@", url)
    users = ("duecall-processes:a-long-secret", "duecall-sender:another-long-secret", "duecall-flower:a-third-secret")
    ours, senders, flowers = (server.format(user) for user in users)
    return ours, senders, flowers


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield _users(server.url)
    server.stop()


@pytest.fixture(scope="module")
def whole(urls: tuple[str, str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    ours, _, flowers = urls
    settings = Settings(database_url=None, redis_url=SecretStr(ours), twilio_account_sid="")
    with running_system(tmp_path_factory.mktemp("a home"), settings, FLOWER_REDIS_URL=flowers) as whole:
        whole.raise_limits()
        yield whole


class Sender:
    """A backend that sends Celery messages and has the id of a key, not its secret."""

    def __init__(self, url: str, whole: WholeSystem) -> None:
        self._celery = Celery(broker=url, set_as_current=False)
        self._celery.conf.broker_transport_options = {"global_keyprefix": "duecall:"}
        self._whole = whole
        key = whole.rows("SELECT id FROM api_keys WHERE kind = 'REGULAR'")
        self.key_id = str(key[0][0])

    def send(self, kind: str, body: dict[str, Any], *, task: str = "commands.submit", **changes: Any) -> str:
        reference = str(uuid4())
        message = {"apiKeyId": self.key_id, "idempotencyKey": reference, "kind": kind, "body": body, **changes}
        self._celery.send_task(task, kwargs=message, queue="intake", ignore_result=True)
        return str(message["idempotencyKey"])

    def told(self, reference: str) -> dict[str, Any]:
        """Wait for the command's result and return it."""

        def look() -> dict[str, Any]:
            self._whole.system.restart_ended()
            answer = self._whole.client.get(f"/commands/{reference}").json()
            command: dict[str, Any] = answer["data"] or {}
            return command if command.get("status") == "APPLIED" else {}

        return wait_until(look, says="the message is answered")

    def result(self, kind: str, body: dict[str, Any], status: int) -> Any:
        command = self.told(self.send(kind, body))
        assert (command["kind"], command["statusCode"]) == (kind, status), command
        return command["result"]


@pytest.fixture(scope="module")
def sender(urls: tuple[str, str], whole: WholeSystem) -> Sender:
    return Sender(urls[1], whole)


@pytest.fixture
def candidate_id(whole: WholeSystem) -> str:
    body = {"firstName": "Ferdinand", "lastName": "Canary", "gdprExpiryDate": "2030-01-01", "phoneNumber": NUMBER}
    made = whole.client.send("POST", "/candidates", body)
    assert made.status_code == 201, made.text
    return str(made.json()["data"]["id"])


def _interview(whole: WholeSystem, sender: Sender, candidate_id: str, **more: Any) -> dict[str, Any]:
    body = {"candidateId": candidate_id, "agentId": whole.running.agentId, **more}
    made: dict[str, Any] = sender.result("create_interview", body, 201)
    return made


def test_each_command_is_done_and_answered_where_the_readme_says(
    whole: WholeSystem, sender: Sender, candidate_id: str
) -> None:
    later = whole.in_seconds(3600)
    made = _interview(whole, sender, candidate_id, scheduledAt=later, metadata={"ref": "A-17"})
    assert made["metadata"] == {"ref": "A-17"}
    [attempt] = made["callAttempts"]
    of_interview = {"interviewId": made["id"]}
    of_attempt = of_interview | {"attemptId": attempt["id"]}
    stale = sender.result("reschedule_attempt", of_attempt | {"scheduledAt": later, "ifMatch": '"99"'}, 412)
    assert stale["code"] == "PRECONDITION_FAILED"
    moved = whole.in_seconds(5400)
    assert sender.result("reschedule_attempt", of_attempt | {"scheduledAt": moved}, 204) is None
    assert whole.client.attempts(made["id"])[0]["scheduledAt"].startswith(moved.removesuffix("Z"))
    changed = sender.result("update_interview", of_interview | {"metadata": {"ref": "A-18"}}, 200)
    assert changed["metadata"] == {"ref": "A-18"}
    assert sender.result("delete_attempt", of_attempt, 204) is None
    again = sender.result("invoke_attempt", of_interview | {"scheduledAt": later}, 201)
    assert [each["id"] for each in whole.client.attempts(made["id"])] == [again["id"]]
    assert sender.result("delete_interview", of_interview, 200) is True
    assert whole.client.get(f"/interviews/{made['id']}").status_code == 404


def test_submitted_interview_rings_once_for_repeated_messages(
    whole: WholeSystem, sender: Sender, candidate_id: str
) -> None:
    body = {"candidateId": candidate_id, "agentId": whole.running.agentId}
    reference = sender.send("create_interview", body)
    for _ in range(5):
        sender.send("create_interview", body, idempotencyKey=reference)
    interview_id = sender.told(reference)["result"]["id"]
    whole.wait_until(
        lambda: whole.client.attempts(interview_id)[0]["status"] == "COMPLETED", seconds=60, says="the call was made"
    )
    assert len(whole.client.rings_of(NUMBER)) == 1
    assert whole.rows("SELECT count(*) FROM interviews WHERE deleted_at IS NULL") == [(1,)]


def test_what_is_wrong_is_told_at_the_same_address(whole: WholeSystem, sender: Sender, candidate_id: str) -> None:
    inline = {"firstName": CANARY, "lastName": "x", "gdprExpiryDate": "2030-01-01", "phoneNumber": NUMBER}
    refused = sender.result("create_interview", {"candidate": inline, "agentId": whole.running.agentId}, 400)
    told = {(each["field"], each["code"]) for each in refused["details"]["fields"]}
    assert told == {("candidate", "UNKNOWN_FIELD"), ("candidateId", "MISSING_FIELD")}
    assert sender.result("delete_interview", {"interviewId": str(uuid4())}, 404)["code"] == "RESOURCE_NOT_FOUND"


def test_neither_flower_nor_a_log_shows_what_a_message_holds(
    whole: WholeSystem, sender: Sender, candidate_id: str
) -> None:
    sender.told(sender.send("update_interview", {"interviewId": str(uuid4()), "metadata": {"who": CANARY}}))
    sender.send("update_interview", {"metadata": {"who": CANARY}}, apiKeyId=str(uuid4()))

    sender.send("update_interview", {"metadata": {"who": CANARY}}, task="commands.sumbit")

    def shown() -> str:
        return requests.get(f"{whole.running.flowerUrl}/api/tasks", auth=("operator", "operator"), timeout=40).text

    wait_until(lambda: "commands.submit" in shown(), says="Flower shows the task")
    wait_until(
        lambda: any("message_refused" in log.read_text() for log in whole.logs()), says="the log names the reason"
    )
    assert CANARY not in shown()
    assert not [log.name for log in whole.logs() if CANARY in log.read_text()]


def test_message_is_applied_once_the_database_is_back(whole: WholeSystem, sender: Sender) -> None:
    postgres = whole.system.postgres
    assert postgres is not None
    kill_server(postgres)
    reference = sender.send("delete_interview", {"interviewId": str(uuid4())})

    def taken() -> bool:
        with redis.Redis.from_url(whole.running.redisUrl) as ours:
            return bool(ours.hlen("duecall:unacked"))

    wait_until(taken, says="a worker has the message, and has not acknowledged it")
    postgres.restart()
    assert sender.told(reference)["statusCode"] == 404


def test_thousand_malformed_messages_end_no_worker(whole: WholeSystem, urls: tuple[str, str]) -> None:
    without_id = (
        b'{"body": "W10=", "content-type": "application/json", "content-encoding": "utf-8",'
        b' "headers": {"task": "workers.heard"},'
        b' "properties": {"delivery_tag": "1", "delivery_info": {}, "body_encoding": "base64"}}'
    )
    rubbish = (b"not json", b"{}", b"[1]", b"null", b"\x80\x04]q", b'{"body": "", "properties": {}}', without_id)
    pids = {name: whole.system.supervisor.pid(name) for name in WORKERS}
    with redis.Redis.from_url(urls[0]) as ours:
        for queue in WORKERS:
            ours.lpush(f"duecall:{queue}", *(rubbish * 170), CANARY.encode())
    number = "+421915000077"
    assert whole.client.post(whole.client.interview(number)).status_code in {201, 202}
    whole.wait_until(lambda: whole.client.rings_of(number), seconds=60, says="the call behind all that rings")
    assert {name: whole.system.supervisor.pid(name) for name in WORKERS} == pids
    logs = [whole.system.log_of(name) for name in WORKERS]
    whole.wait_until(
        lambda: all("NO_MESSAGE" in log.read_text(encoding="utf-8") for log in logs),
        seconds=60,
        says="each worker has read its messages",
    )
    for log in logs:
        said = log.read_text(encoding="utf-8")
        assert 0 < said.count("NO_MESSAGE") < 10, "logged at once, and then once a minute"
        assert CANARY not in said


def test_the_sender_may_send_and_nothing_else(urls: tuple[str, str], whole: WholeSystem) -> None:
    with redis.Redis.from_url(urls[1]) as sender:
        for forbidden in (
            ("KEYS", "*"),
            ("RPOP", "duecall:intake"),
            ("LRANGE", "duecall:intake", "0", "-1"),
            ("LPUSH", "duecall:dial", "x"),
            ("DEL", "duecall:intake"),
            ("PUBLISH", "duecall:answered", "x"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                sender.execute_command(*forbidden)
    with redis.Redis.from_url(urls[0]) as ours, pytest.raises(redis.exceptions.NoPermissionError):
        ours.execute_command("FLUSHALL")


OPERATOR = ("operator", "operator")
ACTS = [
    "/api/task/send-task/commands.submit",
    "/api/task/async-apply/commands.submit",
    "/api/task/apply/commands.submit",
    "/api/task/revoke/{task}",
    "/api/task/abort/{task}",
    "/api/task/timeout/commands.submit",
    "/api/task/rate-limit/commands.submit",
    "/api/worker/shutdown/{dialler}",
    "/api/worker/pool/restart/{dialler}",
    "/api/worker/pool/grow/{dialler}",
    "/api/worker/pool/shrink/{dialler}",
    "/api/worker/pool/autoscale/{dialler}",
    "/api/worker/queue/add-consumer/{dialler}",
    "/api/worker/queue/cancel-consumer/{dialler}",
]


def _workers_shown(whole: WholeSystem) -> set[str]:
    shown = requests.get(f"{whole.running.flowerUrl}/workers?json=1", auth=OPERATOR, timeout=40).json()["data"]
    return {each["hostname"] for each in shown if each["status"]}


def test_flower_shows_workers_and_queues_as_a_user_that_reads(whole: WholeSystem) -> None:
    wait_until(
        lambda: {name.partition("@")[0] for name in _workers_shown(whole)} >= {"dial", "intake", "maintenance"},
        says="Flower shows the workers",
    )
    lengths = requests.get(f"{whole.running.flowerUrl}/api/queues/length", auth=OPERATOR, timeout=40).json()
    assert {each["name"] for each in lengths["active_queues"]} >= {"dial", "intake"}


@pytest.mark.parametrize("path", ACTS)
def test_flower_refuses_with_the_right_password(whole: WholeSystem, sender: Sender, path: str) -> None:
    [dialler] = wait_until(
        lambda: [name for name in _workers_shown(whole) if name.startswith("dial@")], says="Flower shows the dialler"
    )
    reference = str(uuid4())
    message = {
        "apiKeyId": sender.key_id,
        "idempotencyKey": reference,
        "kind": "delete_interview",
        "body": {"interviewId": str(uuid4())},
    }
    url = whole.running.flowerUrl + path.format(task=uuid4(), dialler=dialler)
    answer = requests.post(url, json={"kwargs": message, "queue": "intake"}, auth=OPERATOR, timeout=20)
    assert answer.status_code == requests.codes.forbidden
    assert whole.client.get(f"/commands/{reference}").status_code == requests.codes.not_found
    wait_until(lambda: dialler in _workers_shown(whole), says="Flower still shows the dialler")


WRITES = [
    ("LPUSH", "duecall:intake", "{}"),
    ("RPUSH", "duecall:intake", "{}"),
    ("SADD", "duecall:_kombu.binding.intake", "x"),
    ("SET", "duecall:anything", "x"),
    ("DEL", "duecall:intake"),
    ("RENAME", "duecall:intake", "duecall:elsewhere"),
    ("BRPOP", "duecall:intake", "0.01"),
    ("EVAL", "return redis.call('LPUSH', KEYS[1], 'x')", "1", "duecall:intake"),
    ("PUBLISH", "duecall:/0.celery.pidbox", "{}"),
    ("PUBLISH", "duecall:/0.celeryev/worker.heartbeat", "{}"),
    ("PUBLISH", "duecall:answered", "x"),
    ("FLUSHALL",),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("ACL", "SETUSER", "duecall-flower", "allcommands"),
]


@pytest.mark.parametrize("words", WRITES, ids=" ".join)
def test_redis_user_of_flower_cannot_write(urls: tuple[str, str, str], words: tuple[str, ...]) -> None:
    _, _, flowers = urls
    with redis.Redis.from_url(flowers) as watcher:
        with pytest.raises(redis.exceptions.NoPermissionError):
            watcher.execute_command(*words)
        assert watcher.llen("duecall:intake") >= 0, "it may read"


def test_redis_user_of_flower_hears_events_alone(urls: tuple[str, str, str]) -> None:
    """Redis channels for answers and for control commands to workers."""
    _, _, flowers = urls
    with redis.Redis.from_url(flowers) as watcher, watcher.pubsub() as heard:
        heard.psubscribe("duecall:/0.celeryev/*")
        assert wait_until(heard.get_message, says="it is subscribed")["type"] == "psubscribe"
    for pattern in ("*", "duecall:answered", "duecall:/0.*"):
        with redis.Redis.from_url(flowers) as watcher, watcher.pubsub() as heard:
            heard.psubscribe(pattern)
            with pytest.raises(redis.exceptions.NoPermissionError):
                wait_until(heard.get_message, says="an answer comes")
