"""Recorder: answers with locked rows are written later, and keep no others waiting."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from scheduler.domain.call import Accepted
from scheduler.persistence.errors import LockTaken
from scheduler.rules.tallies import Sent
from scheduler.use_cases.dialling.record import Answer, Recorder, SomeHeld
from scheduler.use_cases.dialling.watch import DatabaseThreads
from tests.support.builders import Tenant, a_claimed_attempt, a_sid


class Rows:
    """The rows of some attempts, as a transaction meets them: locked, or not."""

    def __init__(self, held: set[UUID], *, is_skipped: bool = True) -> None:
        self.held = held
        self.groups: list[list[UUID]] = []
        self.written: list[UUID] = []
        self._is_skipped = is_skipped

    def record(self, group: Sequence[Answer], _: Mapping[UUID, Sent]) -> list[str]:
        ids = [attempt.id for attempt, _ in group]
        self.groups.append(ids)
        held = self.held.intersection(ids)
        if held and not self._is_skipped:
            raise LockTaken
        self.written += [each for each in ids if each not in held]
        if held:
            raise SomeHeld(frozenset(held), [])
        return []


def run(recorder: Recorder, rows: Rows, free: UUID) -> None:
    """Run until all is written. The lock ends once the free answer is written and the held one was put off."""

    def is_over() -> bool:
        if free in rows.written and not recorder.unwritten and rows.held:
            assert len(recorder) == len(rows.held), "held answers are kept, and take no room of claims"
            rows.held.clear()
        return True

    asyncio.run(recorder.run(is_over))


def recorder_of(rows: Rows) -> Recorder:
    async def cancel(_: str) -> None:
        raise AssertionError("no call is in the queue")

    return Recorder(rows.record, DatabaseThreads(), cancel, lambda: None)


def answers_of(*tenants: Tenant) -> list[Answer]:
    return [(a_claimed_attempt(each), Accepted(call_sid=a_sid())) for each in tenants]


def test_held_answer_is_written_later_by_itself(tenant: Tenant, other: Tenant) -> None:
    held, free = answers_of(other, tenant)
    rows = Rows({held[0].id})
    recorder = recorder_of(rows)
    recorder.add(*held)
    recorder.add(*free)
    run(recorder, rows, free[0].id)
    assert rows.groups == [[held[0].id, free[0].id], [held[0].id]]
    assert rows.written == [free[0].id, held[0].id]


def test_lock_that_is_not_skipped_keeps_one_company_waiting(tenant: Tenant, other: Tenant) -> None:
    held, also_held, free = answers_of(other, other, tenant)
    rows = Rows({held[0].id, also_held[0].id}, is_skipped=False)
    recorder = recorder_of(rows)
    for each in (held, free, also_held):
        recorder.add(*each)
    run(recorder, rows, free[0].id)
    # Two threads write them at the same time.
    one, two = sorted(rows.groups[1:3], key=len)
    assert (one, two) == ([free[0].id], [held[0].id, also_held[0].id]), "each company by itself, once"
    assert set(rows.written) == {free[0].id, held[0].id, also_held[0].id}
