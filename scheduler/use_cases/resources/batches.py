"""Batches: store many requests for interviews at once, show their progress, pause, resume and cancel them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from scheduler.domain.batch import Batch, BatchState, ItemPage, ItemState
from scheduler.domain.command import CommandKind
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import BatchFinished
from scheduler.domain.resource import KeysetPage, KeysetSlice
from scheduler.failpoints import failpoint
from scheduler.ids import new_id
from scheduler.persistence.batches import NewItem
from scheduler.persistence.database import Database
from scheduler.persistence.json_columns import request_as_json
from scheduler.persistence.stores import Stores
from scheduler.use_cases.apply_batches import cancel_interviews, save_or_finish
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.access import authorized_company, require
from scheduler.use_cases.shared.hints import Hints
from scheduler.wire.batches import Item

_ENDS = (BatchState.COMPLETED, BatchState.CANCELLED)


class Batches:
    """Methods raise AccessDenied, CompanyIdRequired, DatabaseAway. Writes add the errors of `IdempotentWrites.once`."""

    def __init__(self, database: Database, writes: IdempotentWrites, hints: Hints) -> None:
        self._database = database
        self._writes = writes
        self._hints = hints

    def get(self, principal: Principal, company_id: UUID | None, batch_id: UUID) -> Batch:
        """Raises NotFound."""
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            return stores.batches.with_calls(require(stores.batches.get(company, batch_id), "batch", batch_id))

    def page(self, principal: Principal, company_id: UUID | None, asked: KeysetSlice) -> KeysetPage[Batch]:
        with self._database.reading(principal) as stores:
            return stores.batches.page(authorized_company(stores, principal, company_id), asked)

    def items(
        self,
        principal: Principal,
        company_id: UUID | None,
        batch_id: UUID,
        state: ItemState | None,
        after: int,
        limit: int,
    ) -> ItemPage:
        """List items after an index. Raises NotFound."""
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            require(stores.batches.get(company, batch_id), "batch", batch_id)
            return stores.batches.items(batch_id, state, after, limit)

    def create(
        self, sent: WriteRequest, company_id: UUID | None, name: str | None, items: Sequence[Item]
    ) -> WriteResult:
        """Store a batch with all its items, also refused ones. A worker applies the others."""

        def write(stores: Stores, company: UUID, now: datetime) -> Batch:
            batch = Batch(
                id=new_id(now),
                company_id=company,
                principal_id=sent.principal.id,
                key_id=sent.principal.key_id,
                name=name,
                state=BatchState.ACCEPTED,
                total=len(items),
                refused=sum(each.refusal is not None for each in items),
                created_at=now,
                updated_at=now,
            )
            stores.batches.add(batch, [_new_item(each) for each in items])
            failpoint("batch.storing")
            return batch if batch.waiting else save_or_finish(stores, batch, now)

        written = self._writes.of_company(sent, company_id, write)
        self._hint(written)
        return written

    def pause(self, sent: WriteRequest, company_id: UUID | None, batch_id: UUID) -> WriteResult:
        """Create no further interviews from here on. Calls of the others go on. Refused: NotFound, BatchFinished."""

        def change(stores: Stores, batch: Batch, now: datetime) -> Batch:
            return _saved(stores, replace(batch, state=BatchState.PAUSED), now)

        return self._change(sent, company_id, batch_id, change)

    def resume(self, sent: WriteRequest, company_id: UUID | None, batch_id: UUID) -> WriteResult:
        """Continue a paused batch. Refused: NotFound, BatchFinished."""

        def change(stores: Stores, batch: Batch, now: datetime) -> Batch:
            if batch.state is not BatchState.PAUSED:
                return batch
            state = BatchState.ACCEPTED if batch.started_at is None else BatchState.RUNNING
            return _saved(stores, replace(batch, state=state), now)

        return self._change(sent, company_id, batch_id, change)

    def cancel(self, sent: WriteRequest, company_id: UUID | None, batch_id: UUID) -> WriteResult:
        """Cancel the waiting items, and pending calls of the interviews that the batch has created.

        The first hundred interviews are cancelled at once, a worker continues. Calls that were claimed before run to
        their end, and are counted. Refused: NotFound.
        """

        def write(stores: Stores, company: UUID, now: datetime) -> Batch:
            batch = require(stores.batches.lock(company, batch_id), "batch", batch_id)
            if batch.state is BatchState.CANCELLED:
                return stores.batches.with_calls(batch)
            cancelled = batch.cancelled + stores.batches.cancel_waiting(batch_id)
            state = BatchState.CANCELLED
            batch = replace(batch, state=state, cancelled=cancelled, finished_at=None, updated_at=now)
            return stores.batches.with_calls(cancel_interviews(stores, batch, now))

        written = self._writes.of_company(sent, company_id, write)
        self._hint(written)
        return written

    def _change(
        self,
        sent: WriteRequest,
        company_id: UUID | None,
        batch_id: UUID,
        change: Callable[[Stores, Batch, datetime], Batch],
    ) -> WriteResult:
        def write(stores: Stores, company: UUID, now: datetime) -> Batch:
            batch = require(stores.batches.lock(company, batch_id), "batch", batch_id)
            if batch.state in _ENDS:  # guard: batch_finished
                raise BatchFinished(status=batch.state.value)
            return change(stores, batch, now)

        written = self._writes.of_company(sent, company_id, write)
        self._hint(written)
        return written

    def _hint(self, written: WriteResult) -> None:
        batch = written.record
        if isinstance(batch, Batch) and batch.finished_at is None and batch.state is not BatchState.PAUSED:
            self._hints.send(tasks.BATCHES)


def _saved(stores: Stores, batch: Batch, now: datetime) -> Batch:
    batch = replace(batch, updated_at=now)
    stores.batches.save(batch, now)
    return batch


def _new_item(item: Item) -> NewItem:
    body = None if item.request is None else request_as_json(CommandKind.CREATE_INTERVIEW, item.request)
    return NewItem(index=item.index, body=body, external_id=item.external_id, error=item.refusal)
