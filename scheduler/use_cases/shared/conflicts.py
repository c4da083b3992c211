"""Conflicts: a step is tried again at once, and the items of a batch that cannot be done together are done alone.

A batch locks what it can have, with SKIP LOCKED, and puts off the items whose rows another transaction holds.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Generic, TypeVar
from uuid import UUID

from scheduler.logs import log
from scheduler.persistence.database import concerns_no_item
from scheduler.persistence.errors import DatabaseAway, LockTaken, StatementFailed
from scheduler.use_cases.shared.hints import Hints

T = TypeVar("T")
Id = TypeVar("Id", bound=Hashable)
_log = log(__name__)
_TRIES = 3
_MOST_TAKEN_OUT = 3
"""Failed items that are taken out of a batch one by one, each at the price of another transaction for the others."""
_SOONEST, _LATEST = timedelta(seconds=0.1), timedelta(seconds=1)
"""Bounds of the time after which an item is tried again whose rows were locked."""
_HINTED_FOR = timedelta(seconds=10)
"""Items that have waited longer get their hints from the clock alone: no client waits for them any longer."""
_conflicts = count(1)


def again_at_once(verb: Callable[[], T]) -> T:
    """Call `verb` up to three times while it raises LockTaken. Each conflict is counted.

    Each try waits for the lock timeout, so no pause is needed in between. Raises LockTaken after the last one.
    """
    for _ in range(_TRIES - 1):
        try:
            return verb()
        except LockTaken:
            _log.info(
                "lock_conflict: another transaction held the row, so the step is tried again", count=next(_conflicts)
            )
    return verb()


def put_off(hints: Hints, task: str, received: Mapping[UUID, datetime], now: datetime) -> None:
    """Send hints again soon for items whose rows were locked, with the instants at which they were received.

    The longer an item has waited, the longer it waits for its next try.
    """
    ages = {each: now - at for each, at in received.items() if now - at < _HINTED_FOR}
    if ages:
        _log.info("locked_rows: another transaction held rows of some items, so these wait", count=len(ages))
        after = min(max(min(ages.values()), _SOONEST), _LATEST)
        hints.send_again(task, list(ages), after.total_seconds())


def together(
    ids: Iterable[Id],
    act: Callable[[Sequence[Id]], Collection[Id]],
    owners_of: Callable[[Sequence[Id]], Mapping[Id, Hashable]] | None = None,
) -> list[Id]:
    """Call `act` with ids, in one transaction. Return, in their order, the ids that are to be done alone.

    These are the ids that `act` returns, and the ones that failed: an item that `blaming` names is taken out, and the
    others are done without it. If it is unknown which one fails, or if several have failed, each half is done by
    itself. After a statement that the server did not complete, all are done alone.

    `act` skips what is locked. If it meets a lock that it does not skip, the items of each owner are done by
    themselves, and those of the owner whose rows are locked wait for their next hints. Without owners it raises
    LockTaken. Raises DatabaseAway.
    """
    ids = list(dict.fromkeys(ids))
    alone = _Together(act, owners_of).left_of(ids) if len(ids) > 1 else ids
    return [each for each in ids if each in alone]


class _Together(Generic[Id]):
    def __init__(
        self,
        act: Callable[[Sequence[Id]], Collection[Id]],
        owners_of: Callable[[Sequence[Id]], Mapping[Id, Hashable]] | None,
    ) -> None:
        self._act = act
        self._owners_of = owners_of

    def left_of(self, ids: Sequence[Id], taken_out: int = 0) -> Collection[Id]:
        if not ids:
            return ()
        try:
            return self._act(ids)
        except _ItemsFailed as failed:
            others = [each for each in ids if each not in failed.ids]
            if taken_out < _MOST_TAKEN_OUT:
                return failed.ids | set(self.left_of(others, taken_out + 1))
            return failed.ids | self._left_of_halves(others)
        except StatementFailed:
            # Halves of halves would wait for the statement's time limit each time.
            return ids
        except LockTaken:
            if self._owners_of is None:
                raise
            return self._left_of_owners(ids, self._owners_of(ids))
        except DatabaseAway:
            raise
        except Exception:  # noqa: BLE001 - nothing tells which item has failed
            if len(ids) == 1:
                return ids
            return self._left_of_halves(ids)

    def _left_of_halves(self, ids: Sequence[Id]) -> set[Id]:
        _log.info("batch_split: a batch could not be done together, so its halves are tried", count=len(ids))
        middle = (len(ids) + 1) // 2
        return {*self.left_of(ids[:middle]), *self.left_of(ids[middle:])}

    def _left_of_owners(self, ids: Sequence[Id], owners: Mapping[Id, Hashable]) -> set[Id]:
        """Act for each owner by itself: one of them has locked rows, for which the others must not wait again."""
        by_owner: defaultdict[Hashable, list[Id]] = defaultdict(list)
        for each in ids:
            by_owner[owners.get(each)].append(each)
        left: set[Id] = set()
        for own in by_owner.values():
            try:
                left.update(_Together(self._act, None).left_of(own))
            except LockTaken:
                _log.info(
                    "owner_put_off: another transaction holds rows of one owner, so its items wait", count=len(own)
                )
        return left


class _ItemsFailed(Exception):
    """One item of several failed. `ids` must be done alone, because they depend on it."""

    def __init__(self, ids: Iterable[Any]) -> None:
        super().__init__()
        self.ids: frozenset[Any] = frozenset(ids)


@contextmanager
def blaming(ids: Iterable[Hashable], *, of: int) -> Iterator[None]:
    """Name the items that an error within this block belongs to, for `together`, if they are some of several.

    Errors of the connection and lock conflicts belong to no item.
    """
    try:
        yield
    except Exception as error:
        if of == 1 or concerns_no_item(error):
            raise
        raise _ItemsFailed(ids) from error
