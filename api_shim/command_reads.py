"""Reads of commands by requests that have waited for them: one for all requests of a client at a time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from uuid import UUID

from api_shim.context import MAX_S, run_in_thread
from api_shim.thread_pools import ThreadPool
from scheduler.clock import deadline_in
from scheduler.domain.command import Command
from scheduler.domain.principal import Principal
from scheduler.persistence.inbox import FoundOrError
from scheduler.use_cases.shared.access import found_command

_TURN_S = 0.25
"""Longest wait for the client's previous read, so that a connection that hangs delays only its own requests."""

_Found = Mapping[UUID, FoundOrError]
_Client = tuple[UUID, UUID | None]
"""Principal and company: PostgreSQL shows one transaction the rows of one client."""


@dataclass(kw_only=True, eq=False)
class _Read:
    command_ids: dict[UUID, None] = field(default_factory=dict)
    task: asyncio.Task[_Found]


class CommandReads:
    """Belongs to one event loop. `find_all` finds commands of a principal in one transaction.

    A worker applies commands together, so their notifications arrive together. Requests that are notified while the
    client's previous read runs share the next one. None waits for others to be notified.
    """

    def __init__(self, threads: ThreadPool, find_all: Callable[[Principal, Sequence[UUID]], _Found]) -> None:
        self._threads = threads
        self._find_all = find_all
        self._next: dict[_Client, _Read] = {}
        """Reads that have not begun."""
        self._latest: dict[_Client, asyncio.Task[_Found]] = {}

    async def find(self, principal: Principal, command_id: UUID) -> Command:
        """Find the command as of now. Raises the errors of `Submit.find`."""
        client = principal.id, principal.company_id
        read = self._next.get(client) or self._begin(client, principal)
        read.command_ids[command_id] = None
        found = await asyncio.shield(read.task)  # others may wait for it
        return found_command(found.get(command_id), str(command_id))

    def _begin(self, client: _Client, principal: Principal) -> _Read:
        # In a context of its own: deadline and trace id of the first request are not those of the others.
        running = self._run(client, principal, self._latest.get(client))
        task = asyncio.get_running_loop().create_task(running, name="command read", context=Context())
        task.add_done_callback(lambda _: self._ended(client, task))
        self._latest[client] = task
        read = self._next[client] = _Read(task=task)
        return read

    async def _run(self, client: _Client, principal: Principal, previous: asyncio.Task[_Found] | None) -> _Found:
        if previous is not None:
            await asyncio.wait([previous], timeout=_TURN_S)
        read = self._next.pop(client)
        with deadline_in(MAX_S):
            return await run_in_thread(self._threads, self._find_all, principal, list(read.command_ids))

    def _ended(self, client: _Client, task: asyncio.Task[_Found]) -> None:
        if self._latest.get(client) is task:
            del self._latest[client]
        if not task.cancelled():
            task.exception()  # requests raise it, unless all of them have given up
