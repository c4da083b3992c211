"""One call, end to end, through every process, and the faults that must not occur on the way."""

import json
import re
from datetime import datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from celery import Celery
from kombu import Exchange, Queue

from tests.acceptance.conftest import WholeSystem
from tests.architecture.rules import does, does_not
from tests.support.monitoring import metrics_of, metrics_read

ENDED = {"COMPLETED", "FAILED", "CANCELLED"}
PERSONAL = re.compile(rb"\+421915|(?<!\d)(?<!\d\.)(?:00)?421915\d{6}(?!\d)|Canary|Ferdinand")
"""The callees' numbers and names. The digits alone also occur by chance, in a duration such as 0.0421915740."""


def _ended(whole: WholeSystem, interview_id: str) -> dict[str, Any]:
    whole.wait_until(
        lambda: whole.client.newest(interview_id)["status"] in ENDED, seconds=40, says="the attempt has ended"
    )
    return whole.client.newest(interview_id)


def _rung(whole: WholeSystem, number: str) -> list[dict[str, Any]]:
    return [ring for ring in whole.client.rings() if ring["to"] == number]


def _ring_dial(whole: WholeSystem, attempt_id: str) -> None:
    """Send a late, repeated or forged hint, as any client of Redis can."""
    sender = Celery(broker=whole.running.redisUrl)
    sender.conf.broker_transport_options = {"global_keyprefix": "duecall:"}
    sender.conf.task_queues = [Queue("dial", Exchange(""), routing_key="dial")]
    sender.send_task("attempts.dial", args=[[attempt_id]], queue="dial", ignore_result=True)


def test_whole_system_reports_nothing_as_degraded(whole: WholeSystem) -> None:
    def degraded() -> list[str]:
        found: list[str] = whole.client.get("/readyz").json()["data"]["degraded"]
        return found

    whole.wait_until(lambda: degraded() == [], seconds=60, says="each queue is served")


def test_metrics_of_rules_and_dashboard_are_exported(whole: WholeSystem) -> None:
    def missing() -> frozenset[str]:
        return metrics_read() - metrics_of(whole.client.get("/metrics").text)

    # Requests are counted in memory for some seconds first.
    whole.wait_until(lambda: not missing(), seconds=30, says="each metric of deploy/ is exported")


def test_interview_without_a_time_is_called_at_once(whole: WholeSystem) -> None:
    number = "+421915000001"
    interview = whole.client.created(number)
    assert interview["callAttempts"][0]["schedule"]["timezoneSource"] == "PHONE_NUMBER"
    ended = _ended(whole, interview["id"])
    assert (ended["status"], ended["reasonCode"]) == ("COMPLETED", "ANSWERED")
    assert whole.client.shown(interview["id"])["status"] == "COMPLETED"
    assert len(_rung(whole, number)) == 1


@does("F4-7")
def test_unanswered_call_fails_and_its_retry_waits_two_hours(whole: WholeSystem) -> None:
    number = "+421915000002"
    whole.client.plan(to=number, outcome="no_answer", ring_s=1)
    interview_id = whole.client.created(number)["id"]
    whole.wait_until(lambda: len(whole.client.attempts(interview_id)) == 2, seconds=40, says="a retry is made")
    failed, retry = whole.client.attempts(interview_id)
    assert (failed["status"], failed["reasonCode"]) == ("FAILED", "NO_ANSWER")
    assert (retry["status"], retry["retryNumber"], retry["waitingFor"]) == ("PENDING", 1, "its time")
    waits = datetime.fromisoformat(retry["scheduledAt"]) - datetime.fromisoformat(failed["endedAt"])
    assert waits == timedelta(hours=2)
    assert whole.client.shown(interview_id)["status"] == "SCHEDULED"
    assert len(_rung(whole, number)) == 1


@does("F9-4")
def test_machine_that_was_connected_at_once_ends_as_voicemail(whole: WholeSystem) -> None:
    """New companies get asynchronous machine detection: the verdict comes before or after the end, or reversed."""
    plans: dict[str, dict[str, Any]] = {
        "+421915000071": {"talk_s": 2, "verdict_s": 0.3},
        "+421915000072": {"talk_s": 0.3, "verdict_s": 2},
        "+421915000073": {"talk_s": 2, "verdict_s": 0.3, "callbacks": "reordered"},
    }
    interviews = {}
    for number, plan in plans.items():
        whole.client.plan(to=number, outcome="voicemail", ring_s=0.3, **plan)
        interviews[number] = whole.client.created(number)["id"]

    def all_retried() -> bool:
        return all(len(whole.client.attempts(each)) > 1 for each in interviews.values())

    whole.wait_until(all_retried, seconds=40, says="each has a retry")
    for number, interview_id in interviews.items():
        failed, retry = whole.client.attempts(interview_id)
        assert (failed["status"], failed["reasonCode"]) == ("FAILED", "VOICEMAIL"), number
        assert retry["status"] == "PENDING"
        assert len(_rung(whole, number)) == 1


@does_not("F9-4")
def test_person_without_a_verdict_is_no_machine(whole: WholeSystem) -> None:
    number = "+421915000074"
    whole.client.plan(to=number, outcome="voicemail", ring_s=0.3, talk_s=0.3, verdict_s=None)
    interview_id = whole.client.created(number)["id"]
    ended = _ended(whole, interview_id)
    assert (ended["status"], ended["reasonCode"]) == ("COMPLETED", "ANSWERED")
    assert len(whole.client.attempts(interview_id)) == 1


def test_lost_answer_is_found_by_polling_without_a_new_call(whole: WholeSystem) -> None:
    number = "+421915000003"
    whole.client.plan(
        to=number, outcome="answered", fault="accept_and_silence", callbacks="none", ring_s=0.3, talk_s=0.3
    )
    interview_id = whole.client.created(number)["id"]
    assert _ended(whole, interview_id)["status"] == "COMPLETED"
    assert len(_rung(whole, number)) == 1


@does_not("F4-7")
def test_call_the_carrier_never_took_is_not_repeated(whole: WholeSystem) -> None:
    number = "+421915000004"
    whole.client.plan(to=number, outcome="answered", fault="refuse_500")
    interview_id = whole.client.created(number)["id"]
    ended = _ended(whole, interview_id)
    assert (ended["status"], ended["reasonCode"]) == ("FAILED", "OUTCOME_UNKNOWN")
    assert not _rung(whole, number)


def test_attempt_moved_between_release_and_dial_does_not_ring(whole: WholeSystem) -> None:
    number = "+421915000005"
    # A pause of the company stops it between release and claim. Then it is moved to tomorrow and released by hand.
    whole.change("UPDATE companies SET paused_at = now(), pause_reason = 'test'")
    interview_id = whole.client.created(number)["id"]
    whole.change(f"UPDATE attempts SET due_at = due_at + interval '1 day' WHERE interview_id = '{interview_id}'")
    whole.change("UPDATE companies SET paused_at = NULL, pause_reason = NULL")
    attempt_id = str(whole.client.newest(interview_id)["id"])
    _ring_dial(whole, attempt_id)
    other = whole.client.created("+421915000006")["id"]
    _ended(whole, other)
    assert whole.client.newest(interview_id)["status"] == "PENDING"
    assert not _rung(whole, number)


def test_flower_needs_a_password_and_shows_no_personal_data(whole: WholeSystem) -> None:
    url = f"{whole.running.flowerUrl}/api/tasks"
    assert requests.get(url, timeout=40).status_code == 401

    def shown() -> requests.Response:
        return requests.get(url, auth=("operator", "operator"), timeout=40)

    def names() -> set[str]:
        return {task["name"] for task in shown().json().values()}

    whole.wait_until(lambda: "attempts.settle" in names(), seconds=60, says="Flower shows the tasks")
    assert not {"commands.apply", "attempts.dial", "carrier.hear"} & names(), "the tasks of every call send no events"
    assert not PERSONAL.search(shown().content)


def test_flower_of_duecall_up_cannot_act_or_write(whole: WholeSystem) -> None:
    url = f"{whole.running.flowerUrl}/api/task/send-task/commands.submit"
    answer = requests.post(url, auth=("operator", "operator"), json={"kwargs": {}}, timeout=40)
    assert answer.status_code == requests.codes.forbidden
    assert whole.system.valkey is not None
    with redis.Redis.from_url(whole.system.valkey.flower_url) as watcher:
        assert watcher.llen("duecall:intake") >= 0
        with pytest.raises(redis.exceptions.NoPermissionError):
            watcher.lpush("duecall:intake", "{}")
    with redis.Redis.from_url(whole.running.redisUrl) as operator:
        users = {client["user"] for client in operator.client_list()}
    assert "duecall-flower" in users


def test_no_number_and_no_name_is_in_redis_or_in_any_log(whole: WholeSystem) -> None:
    broker = redis.Redis.from_url(whole.running.redisUrl)
    dumped = b"".join(bytes(key) + bytes(broker.dump(key) or b"") for key in broker.scan_iter("*"))
    home = Path(whole.system.log_of("api")).parent.parent
    logs = [*home.rglob("*.log"), *home.rglob("appendonlydir/*")]
    assert len(logs) >= 9
    assert not PERSONAL.search(dumped)
    for log in logs:
        assert not PERSONAL.search(log.read_bytes()), log.name


def test_the_api_and_the_workers_log_in_as_what_they_are(whole: WholeSystem) -> None:
    assert whole.client.get("/jobs").status_code == requests.codes.OK
    logged_in = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'duecall%'"
    whole.wait_until(
        lambda: {role for (role,) in whole.rows(logged_in)} == {"api", "worker", "console"},
        seconds=40,
        says="each logs in by its role, and by no other",
    )


def test_the_run_file_names_everything_and_is_its_owners_alone(whole: WholeSystem) -> None:
    file = Path(whole.system.log_of("api")).parent.parent / "run.json"
    urls = {"apiUrl", "consoleUrl", "simulatorUrl", "flowerUrl", "databaseUrl", "redisUrl"}
    keys_and_ids = {"atsKey", "companyKey", "companyId", "agentId", "phoneNumberId"}
    assert set(json.loads(file.read_text())) == urls | keys_and_ids
    assert file.stat().st_mode & 0o077 == 0


@does("F3-2", "F3-4")
def test_unknown_owner_is_invited_and_accepts_by_mail(whole: WholeSystem) -> None:
    """Without a mail server the maintenance worker writes mail into a folder."""
    company = f"/company/{whole.running.companyId}"
    assert whole.client.send("PATCH", company, {"ownerEmail": "Owner@Example.com"}).status_code == 200
    whole.wait_until(lambda: whole.rows("SELECT FROM invitations WHERE sent_at IS NOT NULL"), seconds=60, says="sent")
    [file] = (whole.home / "mail").iterdir()
    mail = message_from_bytes(file.read_bytes(), policy=default)
    assert isinstance(mail, EmailMessage)
    assert mail["To"] == "owner@example.com"
    [link] = [line for line in mail.get_content().split() if "#token=" in line]
    address, _, token = link.partition("#token=")
    assert address == f"{whole.running.apiUrl}/invitations/accept"
    assert requests.get(link, timeout=40).status_code == 405
    accepted = requests.post(address, json={"token": token, "name": "Jana"}, timeout=40)
    assert accepted.json()["data"]["companyId"] == whole.running.companyId
    assert whole.rows("SELECT role FROM memberships") == [("OWNER",)]
    logs = "".join(each.read_text(encoding="utf-8") for each in (whole.home / "logs").iterdir())
    assert not [secret for secret in ("owner@example.com", token, "Jana") if secret in logs]
