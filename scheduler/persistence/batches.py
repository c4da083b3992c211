"""Batches and their items. An item is changed only by a transaction that has locked its batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, func, select, text, update

from scheduler.domain.batch import Batch, BatchItem, BatchState, ItemPage, ItemState, WaitingBatches, WaitingItem
from scheduler.domain.command import Refusal
from scheduler.domain.resource import KeysetPage, KeysetSlice
from scheduler.persistence.connection import Connection, among, insert_all
from scheduler.persistence.keyset import Branch, KeysetStore
from scheduler.persistence.rows import as_columns, from_row, readable
from scheduler.persistence.store import Write, insertion, statement
from scheduler.persistence.tables import batch_items, batches, interviews
from scheduler.persistence.tallies import ADD as ADD_TALLY
from scheduler.rules.tallies import BATCH_ITEMS, Amount, key_of

_ROWS_A_STATEMENT = 1_000
_SKIPS_FOR = timedelta(seconds=1)
"""Single commands of a company go first, for at most this long."""

_NEEDS_WORK = "b.finished_at IS NULL AND b.state IN ('ACCEPTED', 'RUNNING', 'CANCELLED')"
"""A batch in a state of a later release is left to that release's workers."""
_NEXT = text(f"""
    SELECT b.id, b.state,
           ARRAY(SELECT i.index FROM batch_items i WHERE i.batch_id = b.id AND i.state = 'WAITING' AND i.failures = 0
                 ORDER BY i.index LIMIT :limit) AS fresh,
           ARRAY(SELECT i.index FROM batch_items i WHERE i.batch_id = b.id AND i.state = 'WAITING' AND i.failures > 0
                 ORDER BY i.failures, i.index LIMIT 1) AS failed
    FROM batches b
    WHERE {_NEEDS_WORK} AND b.work_at <= :now
      AND (b.work_at <= :patience OR NOT EXISTS (
          SELECT FROM inbox c WHERE c.company_id = b.company_id AND c.applied_at IS NULL AND c.quarantined_at IS NULL
      ))
    ORDER BY (SELECT max(o.work_at) FROM batches o
              WHERE o.company_id = b.company_id AND o.finished_at IS NULL AND o.state <> 'PAUSED'),
             b.created_at, b.id
    LIMIT 1
    FOR NO KEY UPDATE OF b SKIP LOCKED
""")  # noqa: S608 - the inserted text is a constant
_IS_ONE_DUE = text(f"SELECT 1 FROM batches b WHERE {_NEEDS_WORK} AND b.work_at <= :before LIMIT 1")  # noqa: S608
_WAITING = text("""
    SELECT coalesce(sum(own.count), 0)::int AS count, coalesce(sum(own.items), 0)::int AS items,
           min(own.oldest_at) AS oldest_at, min(own.updated_at) AS still_since
    FROM (SELECT count(*), sum(b.total - b.applied - b.refused - b.cancelled) AS items,
                 min(b.created_at) AS oldest_at, max(b.updated_at) AS updated_at
          FROM batches b
          WHERE b.finished_at IS NULL AND b.state <> 'PAUSED'
          GROUP BY b.company_id) AS own
""")
_TAKE_ITEMS = text("""
    SELECT i.index, i.body FROM batch_items i
    WHERE i.batch_id = :batch_id AND i.index = ANY (CAST(:indexes AS int[]))
      AND i.state = 'WAITING'  -- guard: item_once
    ORDER BY i.index
    FOR NO KEY UPDATE
""")
_ANSWER_ITEMS = """
    UPDATE batch_items i
    SET state = a.state, body = NULL, interview_id = a.interview_id, existed = a.existed,
        external_id = CASE WHEN a.state = 'APPLIED' THEN NULL ELSE i.external_id END,
        error_code = a.error_code, error = a.error
    FROM json_to_recordset(CAST(%(rows)s AS json)) AS a (
        batch_id uuid, index int, state text, interview_id uuid, existed boolean, error_code text, error jsonb
    )
    WHERE i.batch_id = a.batch_id AND i.index = a.index AND i.state = 'WAITING'
"""
_COUNT_FAILURE = text("""
    UPDATE batch_items SET failures = failures + 1
    WHERE batch_id = :batch_id AND index = :index AND state = 'WAITING'
    RETURNING failures
""")
_CANCEL_WAITING = text("""
    UPDATE batch_items SET state = 'CANCELLED', body = NULL WHERE batch_id = :batch_id AND state = 'WAITING'
""")
_INTERVIEWS_TO_CANCEL = text("""
    SELECT i.index, i.interview_id FROM batch_items i
    WHERE i.batch_id = :batch_id AND i.state = 'APPLIED' AND i.index > :after
      AND NOT i.existed  -- guard: item_existed
    ORDER BY i.index
    LIMIT :limit
""")
_FORGET_ITEMS = text("""
    DELETE FROM batch_items WHERE (batch_id, index) IN (
        SELECT i.batch_id, i.index FROM batch_items i WHERE i.batch_id = ANY (CAST(:ids AS uuid[]))
        ORDER BY i.batch_id, i.index LIMIT :limit
    )
""")
_IN_PROGRESS = text("""
    SELECT count(*) FROM attempts a
    WHERE a.company_id = :company_id AND a.state = 'IN_PROGRESS'
      AND EXISTS (
          SELECT FROM batch_items i WHERE i.batch_id = :batch_id AND i.interview_id = a.interview_id AND NOT i.existed
      )
""")
_NOT_STORED = frozenset({"in_progress"})
_OF_ONE = {column.name: column for column in batches.c}


def _add_all_items(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        insert_all(connection, batch_items, rows[start : start + _ROWS_A_STATEMENT])


_ADD = insertion(batches, turn=7)
_ADD_ITEMS = Write(execute=_add_all_items, turn=8)
_ANSWER = statement(batch_items.name, _ANSWER_ITEMS, turn=8)


@dataclass(frozen=True, kw_only=True)
class NewItem:
    """An item that is stored: with its body if it waits, or with its error if it was refused at once."""

    index: int
    body: Mapping[str, Any] | None = None
    external_id: str | None = None
    error: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """The batch that is next, and what is next in it."""

    batch_id: UUID
    is_cancelled: bool
    """Calls of its interviews are to be cancelled."""
    indexes: Sequence[int]
    """Items to apply together."""
    failed: int | None
    """An item that has failed before, to be applied alone when no other waits."""


class Batches(KeysetStore):
    def add(self, batch: Batch, items: Sequence[NewItem]) -> None:
        """Store a batch with its items."""
        with self._connection.together():
            self._connection.write(_ADD, batch.id, as_columns(batch, without=_NOT_STORED, work_at=batch.created_at))
            for each in items:
                self._connection.write(_ADD_ITEMS, (batch.id, each.index), _row_of(batch, each))
            self._tally("REFUSED", sum(each.error is not None for each in items))

    def get(self, company_id: UUID, batch_id: UUID) -> Batch | None:
        query = select(*COLUMNS).where(batches.c.id == batch_id, batches.c.company_id == company_id)
        return self._one(_batch, query)

    def with_calls(self, batch: Batch) -> Batch:
        """Count the calls in progress of the interviews that the batch has created."""
        values = {"company_id": batch.company_id, "batch_id": batch.id}
        return replace(batch, in_progress=self._count(_IN_PROGRESS, values))

    def lock(self, company_id: UUID, batch_id: UUID) -> Batch | None:
        """Lock the batch: none of its items is being applied until we commit."""
        query = select(*COLUMNS).where(
            batches.c.id == batch_id,
            batches.c.company_id == company_id,  # guard: batch_company
        )
        return self._one(_batch, query.with_for_update(key_share=True))

    def lock_free(self, batch_id: UUID) -> Batch | None:
        """Lock the batch, unless another worker has locked it."""
        query = select(*COLUMNS).where(batches.c.id == batch_id)
        return self._one(_batch, query.with_for_update(key_share=True, skip_locked=True))

    def save(self, batch: Batch, work_at: datetime) -> None:
        """Write the state and counts of a batch that the caller has locked. No worker looks at it before `work_at`."""
        fixed = {"id", "company_id", "principal_id", "key_id", "name", "total", "created_at"}
        values = as_columns(batch, without=fixed | _NOT_STORED)
        query = update(batches).where(batches.c.id == batch.id).values(**values, work_at=work_at)
        self._connection.execute(query)

    def page(self, company_id: UUID, asked: KeysetSlice) -> KeysetPage[Batch]:
        """List batches of a company, newest first."""
        branch = Branch(id=batches.c.id, at=batches.c.created_at, conditions=[batches.c.company_id == company_id])
        return self._keyset_page([branch], asked, batches, _batch, select(*COLUMNS))

    def items(self, batch_id: UUID, state: ItemState | None, after: int, limit: int) -> ItemPage:
        """List items after an index, with the external ids that their interviews have now."""
        i = batch_items.c
        named = and_(interviews.c.id == i.interview_id, interviews.c.company_id == i.company_id)
        status = case((interviews.c.deleted_at.is_(None), interviews.c.status)).label("interview_status")
        external_id = func.coalesce(i.external_id, interviews.c.external_id).label("external_id")
        query = (
            select(i.index, i.state, i.error_code, i.error, i.interview_id, status, i.existed, external_id)
            .select_from(batch_items.outerjoin(interviews, named))
            .where(i.batch_id == batch_id, i.index > after)
            .order_by(i.index)
            .limit(limit + 1)
        )
        if state is not None:
            query = query.where(i.state == state.value)
        found = self._connection.execute(query).all()
        shown = found[:limit]
        items = tuple(readable(shown, _item, batch_items.name, key="index"))
        return ItemPage(items=items, limit=limit, after=shown[-1].index if len(found) > limit else None)

    def next_work(self, now: datetime, limit: int) -> Work | None:
        """Find the next work, without batches that another worker has locked.

        Companies take turns, and each has its batches done in the order of acceptance.
        """
        values = {"now": now, "patience": now - _SKIPS_FOR, "limit": limit}
        return self._one(_work, _NEXT, values)

    def is_one_due(self, before: datetime) -> bool:
        """Return True if no worker has looked at some unfinished batch since then."""
        return self._is_any(_IS_ONE_DUE, {"before": before})

    def waiting(self) -> WaitingBatches:
        """Count unfinished batches and their items, in columns that the counting role may read."""
        return from_row(WaitingBatches, self._connection.execute(_WAITING).one())

    def lock_items(self, batch_id: UUID, indexes: Sequence[int]) -> list[WaitingItem]:
        """Lock the items among these that wait, in their order."""
        return self._all(partial(from_row, WaitingItem), _TAKE_ITEMS, {"batch_id": batch_id, "indexes": list(indexes)})

    def answer(self, batch_id: UUID, item: BatchItem) -> None:
        """Store the outcome of a locked item and delete its body. May be gathered."""
        row = {
            "batch_id": batch_id,
            "index": item.index,
            "state": item.state.value,
            "interview_id": item.interview_id,
            "existed": item.existed,
            **_error_columns(item.error),
        }
        self._connection.write(_ANSWER, (batch_id, item.index), row)
        applied = "EXISTING" if item.existed else "CREATED"
        self._tally(applied if item.state is ItemState.APPLIED else item.state.value, 1)

    def count_failure(self, batch_id: UUID, index: int) -> int | None:
        """Count an unexpected failure of a waiting item, and return how many there were."""
        row = self._connection.execute(_COUNT_FAILURE, {"batch_id": batch_id, "index": index}).one_or_none()
        return None if row is None else int(row.failures)

    def cancel_waiting(self, batch_id: UUID) -> int:
        """Cancel all waiting items of a locked batch and delete their bodies. Return how many."""
        cancelled = self._connection.execute(_CANCEL_WAITING, {"batch_id": batch_id}).rowcount
        self._tally("CANCELLED", cancelled)
        return cancelled

    def interviews_to_cancel(self, batch_id: UUID, limit: int) -> Sequence[tuple[int, UUID]]:
        """List index and interview of the next items whose calls are to be cancelled."""
        after = select(batches.c.cancelled_to).where(batches.c.id == batch_id)
        values = {"batch_id": batch_id, "after": self._connection.execute(after).scalar_one(), "limit": limit}
        return [(row.index, row.interview_id) for row in self._connection.execute(_INTERVIEWS_TO_CANCEL, values)]

    def cancelled_to(self, batch_id: UUID, index: int) -> None:
        """Note that the interviews of the items up to this index are cancelled."""
        self._update(batches, batches.c.id == batch_id, cancelled_to=index)

    def lock_forgotten(self, before: datetime, limit: int) -> list[Batch]:
        """Lock batches that have been paused since before then."""
        query = select(*COLUMNS).where(batches.c.finished_at.is_(None), batches.c.work_at < before)
        query = query.where(batches.c.state == BatchState.PAUSED.value).limit(limit)
        return self._readable(batches, _batch, query.with_for_update(key_share=True, skip_locked=True))

    def forget(self, before: datetime, limit: int) -> int:
        """Delete batches that were finished before then, with their items."""
        old = select(batches.c.id).where(batches.c.finished_at < before).order_by(batches.c.finished_at).limit(limit)
        ids = list(self._connection.execute(old.with_for_update(skip_locked=True)).scalars())
        if not ids:
            return 0
        deleted = self._connection.execute(_FORGET_ITEMS, {"ids": ids, "limit": limit}).rowcount
        if deleted < limit:
            deleted += self._delete(batches, among(batches.c.id, ids))
        return min(deleted, limit)

    def _tally(self, outcome: str, count: int) -> None:
        """Add items with this outcome to the tally, in the transaction of the outcome."""
        if count:
            key = key_of(BATCH_ITEMS, outcome)
            self._connection.write(ADD_TALLY, key, (key, Amount(n=count)))


COLUMNS = [_OF_ONE[name] for name in Batch.__dataclass_fields__ if name not in _NOT_STORED]
_batch = partial(from_row, Batch, in_progress=None)


def _row_of(batch: Batch, item: NewItem) -> dict[str, Any]:
    state = ItemState.WAITING if item.error is None else ItemState.REFUSED
    return {
        "batch_id": batch.id,
        "index": item.index,
        "company_id": batch.company_id,
        "state": state.value,
        "body": item.body,
        "external_id": item.external_id,
        **_error_columns(item.error),
    }


def _error_columns(error: Refusal | None) -> dict[str, Any]:
    if error is None:
        return {"error_code": None, "error": None}
    form = {"family": error.family, "message": error.message, "details": error.details}
    return {"error_code": error.code, "error": form}


def _item(row: Any) -> BatchItem:  # noqa: ANN401 - a row of the query
    return from_row(BatchItem, row, error=None if row.error is None else Refusal(code=row.error_code, **row.error))


def _work(row: Any) -> Work:  # noqa: ANN401 - a row of the query
    return Work(
        batch_id=row.id,
        is_cancelled=row.state == BatchState.CANCELLED.value,
        indexes=row.fresh,
        failed=row.failed[0] if row.failed else None,
    )
