"""Requests of one client that have waited for their commands read them together."""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from api_shim.answer_waiter import CommandReads
from api_shim.thread_pools import ThreadPool
from scheduler.domain.command import Command
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import AccessDenied, NotFound
from scheduler.persistence.inbox import FoundOrError
from scheduler.use_cases.submit import Submit
from tests.support.builders import RecordingHints, Tenant
from tests.use_cases.test_apply import a_wish

LONG_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """Commands of a tenant, and the reads of them. While `may_read` is cleared, no read is sent."""

    tenant: Tenant
    threads: ThreadPool
    may_read: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    read: list[Sequence[UUID]] = field(default_factory=list)

    @property
    def submit(self) -> Submit:
        return Submit(self.tenant.database, RecordingHints(), self.tenant.now)

    def reads(self) -> CommandReads:
        return CommandReads(self.threads, self._find_all)

    def command(self) -> Command:
        principal, wish = self.tenant.principal, a_wish(self.tenant)
        return self.submit.command(principal, None, wish, idempotency_key=None, request_hash=b"hash").command

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=LONG_S)

    def _find_all(self, principal: Principal, command_ids: Sequence[UUID]) -> Mapping[UUID, FoundOrError]:
        self.read.append(command_ids)
        self.begun.release()
        assert self.may_read.wait(LONG_S)
        return self.submit.find_all(principal, command_ids)


@pytest.fixture
def inbox(tenant: Tenant) -> Iterator[Inbox]:
    threads = ThreadPool("reads", 2)
    inbox = Inbox(tenant=tenant, threads=threads)
    yield inbox
    inbox.may_read.set()
    threads.close()


def test_commands_that_are_answered_meanwhile_are_read_together(inbox: Inbox) -> None:
    commands = [inbox.command() for _ in range(20)]

    async def found() -> list[Command]:
        reads, mine = inbox.reads(), inbox.tenant.principal
        first = asyncio.create_task(reads.find(mine, commands[0].id))
        await inbox.has_begun()
        others = [asyncio.create_task(reads.find(mine, each.id)) for each in commands[1:]]
        await asyncio.sleep(0)  # each has joined the next read
        inbox.may_read.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(found()) == commands
    assert inbox.read == [[commands[0].id], [each.id for each in commands[1:]]]


def test_unreadable_answer_fails_only_its_own_request(inbox: Inbox) -> None:
    good, broken = inbox.command(), inbox.command()
    unreadable = """UPDATE inbox SET answer = '{"refusal": 3}', body = NULL, applied_at = received_at WHERE id = :id"""
    inbox.tenant.change(unreadable, id=broken.id)
    inbox.may_read.set()

    async def found() -> list[Command | BaseException]:
        reads = inbox.reads()
        asked = [reads.find(inbox.tenant.principal, each.id) for each in (broken, good)]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second = asyncio.run(found())
    assert isinstance(first, ValidationError)
    assert second == good
    assert inbox.read == [[broken.id, good.id]]
    with pytest.raises(ValidationError):
        inbox.submit.find(inbox.tenant.principal, str(broken.id))


def test_another_principal_finds_no_command(inbox: Inbox) -> None:
    mine, command = inbox.tenant.principal, inbox.command()
    another = replace(mine, id=uuid4())
    inbox.may_read.set()

    async def found() -> list[Command | BaseException]:
        reads = inbox.reads()
        asked = [reads.find(each, command.id) for each in (mine, another)]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second = asyncio.run(found())
    assert first == command
    assert isinstance(second, NotFound)
    assert inbox.read == [[command.id], [command.id]], "one transaction has one principal"


def test_deleted_company_gets_no_answer(inbox: Inbox) -> None:
    command, tenant = inbox.command(), inbox.tenant
    tenant.change("UPDATE companies SET deleted_at = :at WHERE id = :id", at=tenant.now(), id=tenant.company_id)
    inbox.may_read.set()
    with pytest.raises(AccessDenied):
        asyncio.run(inbox.reads().find(tenant.principal, command.id))


def test_hanging_read_does_not_hold_up_the_next_one(inbox: Inbox) -> None:
    commands = [inbox.command() for _ in range(2)]

    async def found() -> list[Command]:
        reads, mine = inbox.reads(), inbox.tenant.principal
        tasks = []
        for each in commands:  # the second read begins although the first hangs
            tasks.append(asyncio.create_task(reads.find(mine, each.id)))
            await inbox.has_begun()
        inbox.may_read.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(found()) == commands
