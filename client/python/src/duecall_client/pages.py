"""Lists that are read to their end, by cursor or by page number."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

from duecall_client.generated.types import Response

P = ParamSpec("P")
Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


class Page(Protocol[Item_co]):
    @property
    def items(self) -> Sequence[Item_co]: ...

    @property
    def pagination(self) -> Any: ...


class ListAnswer(Protocol[Item_co]):
    """The generated model of a response with a list."""

    @property
    def data(self) -> Page[Item_co]: ...


def items(
    operation: Callable[P, Response[Any]], model: type[ListAnswer[Item]], /, *args: P.args, **kwargs: P.kwargs
) -> Iterator[Item]:
    """Yield every item of a list: call the `sync_detailed` of its operation with these arguments, page after page.

    A list with cursors neither repeats nor omits an item that exists all the time. A list with page numbers may do both
    while items are created or deleted.
    """
    read: Callable[..., Response[Any]] = operation
    more: dict[str, Any] = {}
    while True:
        answer = read(*args, **{**kwargs, **more}).parsed
        if not isinstance(answer, model):
            raise TypeError(f"the operation returned {type(answer).__name__} and not {model.__name__}")
        yield from answer.data.items
        pagination = answer.data.pagination
        if hasattr(pagination, "next_cursor"):
            if pagination.next_cursor is None:
                return
            more = {"cursor": pagination.next_cursor}
        elif pagination.has_next_page:
            more = {"page": pagination.page + 1}
        else:
            return
