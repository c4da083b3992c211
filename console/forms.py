"""Forms that a page of the console sends, and ids in addresses."""

from collections.abc import Mapping
from urllib.parse import parse_qsl
from uuid import UUID

from starlette.requests import Request

from console.security import LARGEST_FORM
from scheduler.domain.refusals import NotFound

_MOST_FIELDS = 50


async def form_of(request: Request) -> Mapping[str, str]:
    """Read the fields of a form, each once. A body that is no form has no fields."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            return {}
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        return {}


def id_in_path(text: str) -> UUID:
    """Read the id in the path of a resource's page. Raises NotFound if it is not an id."""
    found = id_or_none(text)
    if found is None:
        raise NotFound("The address of this page has no id. Copy the whole address.")
    return found


def id_or_none(text: str) -> UUID | None:
    """Read a text as an id, or None."""
    try:
        return UUID(text)
    except ValueError:
        return None
