"""HTTP route for the phone numbers that a company calls from."""

from typing import Annotated

from fastapi import APIRouter, Request, Security
from fastapi.responses import JSONResponse

from api_shim import responses
from api_shim.auth import READ_PHONE_NUMBERS, Client, authenticated_client
from api_shim.openapi import error_answers
from api_shim.request_input import PageQuery
from api_shim.schemas.agent import PhoneNumberPage, PhoneNumbersAnswer, PhoneNumberView

router = APIRouter(tags=["phone numbers"])


@router.get(
    "/phone-numbers",
    operation_id="listPhoneNumbers",
    summary="List the phone numbers of a company",
    description="Numbers that its agents can call from, newest first.",
    responses={200: {"model": PhoneNumbersAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_phone_numbers(
    request: Request,
    reader: Annotated[Client, Security(authenticated_client, scopes=[READ_PHONE_NUMBERS])],
    page: PageQuery,
) -> JSONResponse:
    listed = await reader.ask(reader.use_cases.agents.numbers, page)
    return responses.answered(request, PhoneNumberPage.of(listed, PhoneNumberView.view_of))
