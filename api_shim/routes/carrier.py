"""Where the carrier says what became of a call. Not part of the public document."""

from functools import partial
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response

from api_shim.house import house, written
from scheduler.carriers.interface import NotACallback
from scheduler.persistence.commits import Commit

router = APIRouter(include_in_schema=False)
_MOST_FIELDS = 200


@router.post("/carrier/twilio/{token}", status_code=204)
async def hear_twilio(request: Request, token: str) -> Response:
    """204 once it is stored. The signature is the only key that the carrier has."""
    form = _pairs(await request.body())
    signature = request.headers.get("x-twilio-signature", "")
    here = house(request)
    commit = Commit()
    store = partial(here.doors.hear.callback, token, _signed_path(request), form, signature, commit=commit)
    await written(here.rooms.callbacks, commit, store)
    return Response(status_code=204)


def _pairs(body: bytes) -> list[tuple[str, str]]:
    """Every pair of the form, empty and repeated ones too: the signature covers them all."""
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise NotACallback from error


def _signed_path(request: Request) -> str:
    """The path as it was written, which is what was signed: never decoded and encoded again."""
    raw: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("ascii", errors="replace")
