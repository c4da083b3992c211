"""Conflicts: a step is tried again at once, and the items of a batch that cannot be done together are done alone."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

from scheduler.logs import log
from scheduler.persistence.database import concerns_no_item
from scheduler.persistence.errors import DatabaseAway, LockTaken, StatementFailed

T = TypeVar("T")
Id = TypeVar("Id", bound=Hashable)
_log = log(__name__)
_TRIES = 3
_MOST_TAKEN_OUT = 3
"""Failed items that are taken out of a batch one by one, each at the price of another transaction for the others."""
_conflicts = count(1)


def again_at_once(verb: Callable[[], T]) -> T:
    """Return what `verb` returns, called up to three times while it raises LockTaken. Each conflict is counted.

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


def together(ids: Iterable[Id], act: Callable[[Sequence[Id]], Collection[Id]]) -> list[Id]:
    """Call `act` with ids, in one transaction. Return, in their order, those that are to be done alone.

    These are the ids that `act` returns, and the ones that failed: an item that `blaming` names is taken out, and the
    others are done without it. If another transaction holds a row of one, if nothing tells which one fails, or if
    several have failed, each half is done by itself, so that one item keeps only a few waiting. After a statement that
    the server did not complete, all are done alone. Raises DatabaseAway.
    """
    ids = list(dict.fromkeys(ids))
    alone = _left_of(ids, act) if len(ids) > 1 else ids
    return [each for each in ids if each in alone]


def _left_of(ids: Sequence[Id], act: Callable[[Sequence[Id]], Collection[Id]], taken_out: int = 0) -> Collection[Id]:
    if not ids:
        return ()
    try:
        return act(ids)
    except _ItemsFailed as failed:
        others = [each for each in ids if each not in failed.ids]
        if taken_out < _MOST_TAKEN_OUT:
            return failed.ids | set(_left_of(others, act, taken_out + 1))
        return failed.ids | _left_of_halves(others, act)
    except StatementFailed:
        # Halves of halves would wait for the statement's time limit each time.
        return ids
    except Exception as error:
        if isinstance(error, DatabaseAway) and not isinstance(error, LockTaken):
            raise
        if len(ids) == 1:
            return ids
        return _left_of_halves(ids, act)


def _left_of_halves(ids: Sequence[Id], act: Callable[[Sequence[Id]], Collection[Id]]) -> set[Id]:
    _log.info("batch_split: a batch could not be done together, so its halves are tried", count=len(ids))
    middle = (len(ids) + 1) // 2
    return {*_left_of(ids[:middle], act), *_left_of(ids[middle:], act)}


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
