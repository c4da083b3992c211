"""Many waiting requests: they cause few queries and do not delay requests that need an immediate answer."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis import Redis
from sqlalchemy import Engine, event

from api_shim.answer_waiter import AnswerWaiter, end_task
from api_shim.app import create_app
from scheduler.domain.command import Command
from scheduler.use_cases.resources.keys import new_secret
from tests.api_shim.carrier_callbacks import call_back, token_of
from tests.api_shim.intake import ASYNC, Intake, a_worker, meanwhile, slow_acceptance
from tests.api_shim.waiting_commands import CHANNEL, done
from tests.conftest import wait_until
from tests.support.builders import Tenant, a_placed_attempt
from tests.support.servers import a_door, a_server, address_of

MANY, WAVE, THOUSAND = 100, 25, 1000
AT_MOST = 20
"""Statements that query all commands. One would be enough."""


@dataclass
class Statements:
    """The statements of the API's role, with the ids in each of them."""

    ids: list[set[UUID]] = field(default_factory=list)

    def naming(self, ids: set[UUID]) -> int:
        return sum(bool(each & ids) for each in self.ids)

    def have_named(self, ids: set[UUID]) -> bool:
        return ids <= set().union(*self.ids)


@contextmanager
def counted() -> Iterator[Statements]:
    statements = Statements()

    def count(connection: Any, _cursor: Any, _statement: str, parameters: Any, *_: Any) -> None:
        if connection.engine.url.username == "api":
            statements.ids.append(set(_ids_in(parameters)))

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def _ids_in(value: Any) -> Iterator[UUID]:
    if isinstance(value, UUID):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _ids_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _ids_in(each)


@contextmanager
def all_waiting(intake: Intake, url: str) -> Iterator[list[int]]:
    """Many waiting requests, and the statuses of the finished ones."""
    statuses: list[int] = []
    limits = httpx.Limits(max_connections=MANY)
    headers = {"Authorization": f"Bearer {intake.key}", "Prefer": "wait=30"}

    async def post(client: httpx.AsyncClient) -> None:
        answer = await client.post("/interviews", json=intake.body())
        statuses.append(answer.status_code)

    def all_accepted(count: int) -> None:
        wait_until(lambda: intake.count("inbox") == count, says="they are accepted")

    async def post_all() -> None:
        """Send in waves: requests that cannot be accepted in time are refused at their deadline."""
        posts: list[asyncio.Task[None]] = []
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, limits=limits) as client:
            while len(posts) < MANY:
                posts += [asyncio.create_task(post(client)) for _ in range(WAVE)]
                await asyncio.to_thread(all_accepted, len(posts))
            await asyncio.gather(*posts)

    thread = threading.Thread(target=lambda: asyncio.run(post_all()), daemon=True)
    thread.start()
    try:
        yield statuses
    finally:
        thread.join(60)


def test_waiting_requests_share_one_query(intake: Intake) -> None:
    app, door = create_app(intake.settings), a_door()
    with a_server(app, door), all_waiting(intake, address_of(door)) as statuses:
        wait_until(lambda: intake.count("inbox") == MANY, seconds=60, says="all are accepted")
        ids = {row.id for row in intake.ask("SELECT id FROM inbox")}
        with counted() as statements:
            wait_until(lambda: statements.have_named(ids), says="each of them was queried")
        assert statements.naming(ids) <= AT_MOST
        wait_until(lambda: len(statuses) == MANY, seconds=120, says="all are answered when their wait ends")
    assert set(statuses) == {202}


async def test_thousand_waiting_requests_share_each_query(redis_url: str, waiting: Command) -> None:
    commands = [replace(waiting, id=UUID(int=n)) for n in range(THOUSAND)]
    looks: list[Sequence[UUID]] = []
    is_looked_up = asyncio.Event()

    async def which_answered(ids: Sequence[UUID]) -> Sequence[UUID]:
        looks.append(ids)
        if len(ids) == THOUSAND:
            is_looked_up.set()
            return [each.id for each in commands[:10]]
        return []

    async def look_at(command: Command) -> Command:
        assert command in commands[:10], "no request has a reason to query"
        return done(command)

    waiter = AnswerWaiter(redis_url, CHANNEL, lambda: False, which_answered)
    async with waiter.listening():
        waits = [
            asyncio.create_task(waiter.answer_to(each, lambda each=each: look_at(each), 600))  # type: ignore[misc]
            for each in commands
        ]
        await asyncio.wait_for(is_looked_up.wait(), 60)
        answered = await asyncio.gather(*waits[:10])
        for each in waits:
            each.cancel()
    assert all(each.applied_at for each in answered)
    assert sum(len(ids) == THOUSAND for ids in looks) == 1
    assert len(looks) <= AT_MOST


def test_answer_wakes_its_own_request_alone(intake: Intake) -> None:
    others = [intake.create(headers=ASYNC).json()["data"]["id"] for _ in range(3)]
    with meanwhile(lambda: intake.create(headers={"Prefer": "wait=30"})) as answer, counted() as statements:
        wait_until(lambda: intake.count("inbox") == len(others) + 1)
        with a_worker(intake.settings):
            assert answer().status_code == 201
    assert statements.naming({UUID(each) for each in others}) == 0


async def test_lost_subscription_is_followed_by_one_query_for_all(redis_url: str, waiting: Command) -> None:
    commands = [replace(waiting, id=UUID(int=n)) for n in range(50)]
    looks: list[Sequence[UUID]] = []

    async def which_answered(ids: Sequence[UUID]) -> Sequence[UUID]:
        looks.append(ids)
        return [commands[0].id] if is_lost else []

    async def look_at(command: Command) -> Command:
        assert command is commands[0], "no request has a reason to query"
        return done(command)

    is_lost = False
    waiter = AnswerWaiter(redis_url, CHANNEL, lambda: False, which_answered)
    async with waiter.listening():
        waits = [
            asyncio.create_task(waiter.answer_to(each, lambda each=each: look_at(each), 30))  # type: ignore[misc]
            for each in commands
        ]
        await asyncio.sleep(0)  # each of them begins
        assert len(waiter._waiting) == len(commands)
        is_lost, looks = True, []
        with Redis.from_url(redis_url) as redis:
            redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        answered, *_ = await asyncio.gather(waits[0], asyncio.wait(waits, timeout=20))
    assert answered.applied_at is not None
    assert looks
    assert set(looks[0]) == {each.id for each in commands}
    assert len(looks) <= AT_MOST


async def test_task_ends_although_a_cancellation_was_swallowed() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)  # it begins
    await asyncio.wait_for(end_task(task), 20)
    assert task.cancelled()
    assert swallowed == 1


@pytest.fixture
def crowded(intake: Intake) -> Iterator[Intake]:
    """Requests of two companies occupy all threads and connections of requests. One company holds half of them."""
    companies = intake, intake.with_key_of_another_company()
    with slow_acceptance(intake), ThreadPoolExecutor(24) as clients:
        for client in companies * 12:
            clients.submit(client.create, headers=ASYNC)
        wait_until(lambda: len(intake.ask(_SLEEPING)) >= 8, says="every thread is busy")
        first = set(intake.ask(_SLEEPING))
        yield intake
        assert first & set(intake.ask(_SLEEPING)), "no request waited for one of them to end"


_SLEEPING = "SELECT pid, query_start FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


def test_other_work_has_its_own_threads(crowded: Intake, tenant: Tenant) -> None:
    """Callbacks, health, the check of keys, and requests without a key."""
    assert call_back(crowded, token_of(a_placed_attempt(tenant))).status_code == 204
    assert crowded.client.get("/healthz").status_code == 200
    assert crowded.client.get("/readyz").status_code == 200
    assert crowded.with_key(new_secret()).get("/jobs").json()["error"]["code"] == "INVALID_API_KEY"
    body = {"token": "x" * 43, "name": "Zuzana Tajomná"}
    assert crowded.client.post("/invitations/accept", json=body).status_code == 410
