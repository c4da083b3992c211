"""HTTP route that accepts an invitation. Opening the link in the e-mail changes nothing."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import JSONResponse

from api_shim import request_input, responses
from api_shim.context import app_context, run_write
from api_shim.dispatch import confirm_commit
from api_shim.errors import CommitUnknown
from api_shim.openapi import error_answers
from api_shim.request_input import refuse_wrong_query
from api_shim.schemas.company import ACCEPTANCES, Acceptance, OwnerAnswer, OwnerView
from scheduler.domain import refusals
from scheduler.persistence.errors import Commit, CommitInDoubt

router = APIRouter(
    route_class=request_input.JsonRoute, tags=["invitations"], dependencies=[Depends(refuse_wrong_query)]
)


@router.post(
    "/invitations/accept",
    operation_id="acceptInvitation",
    summary="Accept an invitation to own a company",
    description="This endpoint needs no API key and ignores `Idempotency-Key`. A used token always returns 410, even to"
    " the person who used it.",
    responses={
        200: {"model": OwnerAnswer},
        **error_answers(400, 413, 500, 503, refusals=(refusals.InvitationGone,), writes=True),
    },
)
async def accept_invitation(
    request: Request, _: request_input.RawBody, body: Annotated[Acceptance, Body(openapi_examples=ACCEPTANCES)]
) -> JSONResponse:
    context = app_context(request)
    commit = Commit()
    try:
        accept = partial(context.use_cases.owners.accept, body.token, body.name, commit=commit)
        owner = await run_write(context.threads.without_key, commit, accept)
    except CommitInDoubt as doubt:
        owner = await confirm_commit(context, commit, doubt, _acceptance_unknown)
    return responses.answered(request, OwnerView.of(owner))


def _acceptance_unknown() -> CommitUnknown:
    return CommitUnknown(
        "The database connection was lost, so the invitation may have been accepted. Send the request again: 410 then"
        " means that it was accepted or can no longer be used.",
        may_send_again=True,
    )
