"""A command is answered when applied, or with 202 after the wait. Sent twice, it is applied once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from api_shim.answer_waiter import AnswerWaiter
from api_shim.request_input import DEFAULT_WAIT_S
from scheduler.domain.command import Command
from tests.api_shim.answers import data, refusal
from tests.api_shim.bodies import candidate
from tests.api_shim.intake import ASYNC, KEY, Intake, Worker, a_worker, an_intake, meanwhile, taking_less_than
from tests.api_shim.waiting_commands import CHANNEL, done
from tests.conftest import NOON, wait_until


def test_respond_async_gets_the_location_of_the_command(intake: Intake) -> None:
    with taking_less_than(20):
        answer = intake.create(headers={"Prefer": "respond-async, wait=30"})
    command_id = data(answer, 202)["id"]
    assert data(answer, 202) == {"id": command_id, "status": "WAITING"}
    assert answer.headers["Location"] == f"/commands/{command_id}"
    waiting = data(intake.get(answer.headers["Location"]))
    assert waiting["status"] == "WAITING"
    assert waiting["result"] is waiting["statusCode"] is waiting["appliedAt"] is None
    with a_worker(intake.settings):
        wait_until(lambda: data(intake.get(answer.headers["Location"]))["status"] == "APPLIED")
    applied = data(intake.get(answer.headers["Location"]))
    assert applied["statusCode"] == 201
    assert applied["result"]["callAttempts"][0]["status"] == "PENDING"


@pytest.mark.parametrize("prefer", ["wait=0", "WAIT=0", 'handling=lenient, wait="0"', "wait=10, respond-async"])
def test_wait_of_zero_does_not_wait(intake: Intake, prefer: str) -> None:
    with taking_less_than(DEFAULT_WAIT_S):
        answer = intake.create(headers={"Prefer": prefer})
    assert answer.status_code == 202


def test_request_is_accepted_when_the_wait_ends_first(intake: Intake) -> None:
    assert intake.create(headers={"Prefer": "wait=1"}).status_code == 202
    assert intake.count("inbox") == 1


def test_unknown_preference_is_ignored(intake: Intake, worker: Worker) -> None:
    for prefer in ("wait=-1", "wait=soon", "return=minimal", ""):
        assert intake.create(headers={"Prefer": prefer}).status_code == 201


def test_waiting_request_is_answered_when_it_is_applied(intake: Intake) -> None:
    with meanwhile(lambda: intake.create(headers={"Prefer": "wait=30"})) as answer:
        wait_until(lambda: intake.count("inbox") == 1)
        with taking_less_than(20), a_worker(intake.settings):
            assert answer().status_code == 201


def test_request_is_accepted_once_for_one_key(intake: Intake, worker: Worker) -> None:
    first, second = intake.create(headers=KEY), intake.create(headers=KEY)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert data(second, 201)["id"] == data(first, 201)["id"]
    assert intake.count("inbox") == intake.count("interviews") == 1


def test_replay_shows_the_stored_answer_with_current_metadata(intake: Intake, worker: Worker) -> None:
    body = intake.body(scheduledAt="2026-04-03T07:00:00Z", metadata={"ref": 1})
    first = intake.create(body, headers=KEY).json()["data"]
    intake.change(
        """UPDATE interviews SET status = 'CANCELLED', finished_at = :now, metadata = '{"ref": 2}'""", now=NOON
    )
    assert intake.create(body, headers=KEY).json()["data"] == {**first, "metadata": {"ref": 2}}


def test_refusal_is_replayed_unchanged(intake: Intake, worker: Worker) -> None:
    body = intake.body(scheduledAt="2026-04-02T11:00:00Z")
    first, second = intake.create(body, headers=KEY), intake.create(body, headers=KEY)
    assert first.status_code == second.status_code == 400
    assert second.json()["error"] == first.json()["error"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert intake.count("inbox") == 1


def test_field_order_and_v1_prefix_make_no_new_request(intake: Intake, worker: Worker) -> None:
    first = intake.create(headers=KEY)
    turned = dict(reversed(intake.body().items()))
    second = intake.create(turned, path="/v1/interviews", headers=KEY)
    assert second.json()["data"]["id"] == first.json()["data"]["id"]


def test_another_request_with_the_same_key_is_refused(intake: Intake, worker: Worker) -> None:
    assert intake.create(headers=KEY).status_code == 201
    for other in (
        intake.create(intake.body(isTest=True), headers=KEY),
        intake.create(headers=KEY, companyId=str(uuid4())),
        intake.create(headers={**KEY, "If-Match": '"1"'}),
    ):
        assert refusal(other) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert intake.count("interviews") == 1


def test_a_key_is_its_principals_own(intake: Intake, worker: Worker) -> None:
    first, theirs = intake.create(headers=KEY), intake.with_new_key().create(headers=KEY)
    assert data(theirs, 201)["id"] != data(first, 201)["id"]


def test_repeat_waits_for_the_running_request(intake: Intake) -> None:
    accepted = intake.create(headers={**KEY, **ASYNC})
    repeat = meanwhile(lambda: intake.create(headers={**KEY, "Prefer": "wait=30"}))
    with repeat as answer, a_worker(intake.settings):
        assert answer().status_code == 201
    command = data(intake.get(accepted.headers["Location"]))
    assert command["result"]["id"] == answer().json()["data"]["id"]
    assert intake.count("inbox") == 1


def test_repeat_whose_wait_ends_first_gets_in_progress(intake: Intake) -> None:
    accepted = intake.create(headers={**KEY, **ASYNC})
    answer = intake.create(headers={**KEY, "Prefer": "wait=0"})
    assert refusal(answer) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert answer.json()["error"]["details"] == {"commandId": data(accepted, 202)["id"]}


def test_repeat_with_respond_async_gets_202_like_the_first(intake: Intake) -> None:
    headers = {**KEY, **ASYNC}
    first, second = intake.create(headers=headers), intake.create(headers=headers)
    assert second.status_code == 202
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotent-Replayed"] == "true"


def test_accepted_request_is_replayed_after_the_consent_ends(intake: Intake, worker: Worker) -> None:
    body = intake.body(candidate=candidate(gdprExpiryDate="2026-04-03"))
    first = intake.create(body, headers=KEY)
    assert first.status_code == 201
    with a_day_later(intake) as later:
        assert later.create(body, headers=KEY).json()["data"]["id"] == first.json()["data"]["id"]
        assert later.create(body, headers={"Idempotency-Key": "other"}).status_code == 400
        assert later.create({**body, "isTest": True}, headers=KEY).status_code == 400


async def test_early_notification_is_not_missed(redis_url: str, waiting: Command) -> None:
    waiter = AnswerWaiter(redis_url, CHANNEL, lambda: False, none_answered)
    applied, looks = done(waiting), 0

    async def look() -> Command:
        nonlocal looks
        looks += 1
        return applied

    async with waiter.listening():
        await tell(redis_url, str(waiting.id))
        assert await waiter.answer_to(waiting, look, 20) is applied
        assert looks == 1


async def test_notification_of_another_command_wakes_no_request(redis_url: str, waiting: Command) -> None:
    waiter = AnswerWaiter(redis_url, CHANNEL, lambda: False, none_answered)
    looks = 0

    async def look() -> Command:
        nonlocal looks
        looks += 1
        return waiting

    async with waiter.listening():
        await tell(redis_url, "no id at all", str(uuid4()))
        assert await waiter.answer_to(waiting, look, 0.1) is waiting
    assert looks == 1  # at the end of the wait


async def test_answer_without_a_notification_is_found_in_the_row(redis_url: str, waiting: Command) -> None:
    looks = iter([[], [waiting.id]])

    async def which_answered(_: Sequence[UUID]) -> Sequence[UUID]:
        return next(looks)

    async def look() -> Command:
        return done(waiting)

    waiter = AnswerWaiter(redis_url, CHANNEL, lambda: False, which_answered)
    async with waiter.listening():
        answered = await waiter.answer_to(waiting, look, 20)
    assert answered.applied_at == NOON


async def test_request_does_not_wait_while_hints_cannot_be_sent(redis_url: str, waiting: Command) -> None:
    waiter = AnswerWaiter(redis_url, CHANNEL, lambda: True, none_answered)
    async with waiter.listening():
        assert await waiter.answer_to(waiting, never, 20) is waiting


async def none_answered(_: Sequence[UUID]) -> Sequence[UUID]:
    return []


async def never() -> Command:
    raise AssertionError("no request has a reason to query")


async def tell(redis_url: str, *words: str) -> None:
    """Publish, and wait until the message is delivered."""
    async with Redis.from_url(redis_url) as redis:
        for word in words:
            assert await redis.publish(CHANNEL, word) == 1


@contextmanager
def a_day_later(intake: Intake) -> Iterator[Intake]:
    """This installation one day later, with the same key."""
    offset = intake.settings.duecall_clock_offset_s + 86_400
    settings = intake.settings.model_copy(update={"duecall_clock_offset_s": offset})
    with an_intake(settings, intake.database, intake.seeded) as later:
        yield later.with_key(intake.key)
