"""The page Find: one field for an id, a call's sid, a phone number or an external id.

It is sent as a form and never in an address.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.assembly import console_context
from console.operators import viewer
from console.reads.find import MOST_SEARCHES, Findings, NotFindable
from console.rendering import page
from console.security import form_of
from console.stores.sessions import ConsoleSession

router = APIRouter()
_UNPROCESSABLE, _TOO_MANY = 422, 429
FIELD = "wanted"
BY = "by"
"""The field of the button that was used."""
EXTERNAL_ID = "external-id"


@router.get("/find")
async def find(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    return _page(request)


@router.post("/find")
async def found(request: Request, session: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, form = console_context(request), await form_of(request)
    wanted = form.get(FIELD, "")
    if not wanted.strip():
        return _page(request, _UNPROCESSABLE, problem="Enter what to look for.")
    if not context.searches.take(session):
        return _page(
            request, _TOO_MANY, problem=f"You have searched {MOST_SEARCHES} times within a minute. Wait a minute."
        )
    find_by = context.use_cases.find.external_id if form.get(BY) == EXTERNAL_ID else context.use_cases.find.text
    try:
        return _page(request, findings=await context.run(find_by, wanted))
    except NotFindable as unread:
        return _page(request, _UNPROCESSABLE, problem=str(unread))


def _page(
    request: Request, status: int = 200, *, findings: Findings | None = None, problem: str | None = None
) -> Response:
    """Render the form, which never contains what was sent: it may be a person's number."""
    return page(
        request, "find.html", status, findings=findings, problem=problem, field=FIELD, by=BY, external_id=EXTERNAL_ID
    )
