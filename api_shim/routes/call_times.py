"""HTTP route that checks when a person may be called."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from api_shim import request_input, responses
from api_shim.auth import InterviewReader
from api_shim.openapi import error_answers
from api_shim.schemas.call_times import QUESTIONS, CallTimeAnswered, CallTimeRequest, CallTimeView
from scheduler.wire.named_fields import refuse_any

router = APIRouter(route_class=request_input.JsonRoute, tags=["call times"])


@router.post(
    "/call-times/preview",
    operation_id="previewCallTime",
    summary="Check whether a person may be called at a time",
    description="Returns whether an interview at that time would be accepted, and whose clock would decide. Creates"
    " nothing.",
    responses={200: {"model": CallTimeAnswered}, **error_answers(400, 401, 403, 404, 413, 500, 503)},
)
async def preview_call_time(
    request: Request,
    reader: InterviewReader,
    _raw: request_input.RawBody,
    body: Annotated[CallTimeRequest, Body(openapi_examples=QUESTIONS)],
) -> JSONResponse:
    refuse_any(body.contradictions())
    answer = await reader.ask(reader.use_cases.explain.preview, body.to_question())
    return responses.answered(request, CallTimeView.of(answer))
