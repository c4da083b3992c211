"""HTTP route for carrier callbacks. Not part of the public document."""

from functools import partial
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response

from api_shim.context import app_context, run_write
from scheduler.carriers.interface import NotACallback
from scheduler.persistence.commits import Commit

router = APIRouter(include_in_schema=False)
_MOST_FIELDS = 200


@router.post("/carrier/twilio/{token}", status_code=204)
async def hear_twilio(request: Request, token: str) -> Response:
    """Store a callback and return 204. The carrier authenticates only by its signature."""
    form = _pairs(await request.body())
    signature = request.headers.get("x-twilio-signature", "")
    context = app_context(request)
    commit = Commit()
    store = partial(context.use_cases.hear.callback, token, _signed_path(request), form, signature, commit=commit)
    await run_write(context.threads.callbacks, commit, store)
    return Response(status_code=204)


def _pairs(body: bytes) -> list[tuple[str, str]]:
    """Return all form pairs, including empty and repeated ones: the signature covers them all."""
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise NotACallback from error


def _signed_path(request: Request) -> str:
    """Return the raw path and query. The carrier signed exactly these bytes, so they are never re-encoded."""
    raw: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("ascii", errors="replace")
