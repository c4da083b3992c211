"""HTTP route for the evidence of a call."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from api_shim import request_input, responses
from api_shim.auth import InterviewReader
from api_shim.openapi import error_answers
from api_shim.request_input import AttemptId
from api_shim.schemas.evidence import EvidenceAnswer, EvidenceView

_OF_CALL = "/call-attempts/{attemptId}"
router = APIRouter(route_class=request_input.JsonRoute, tags=["call attempts"])


@router.get(
    _OF_CALL + "/evidence",
    operation_id="getCallEvidence",
    summary="Get the evidence of a call",
    description="Explains one call to a reader who was not there: who asked for it and when, whose clock decided, the"
    " rules of the last check before the call, the consent, the carrier's callbacks, and the history with the result of"
    " its check for later changes. Contains no name and no phone number, and remains after the person was erased.",
    responses={200: {"model": EvidenceAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_call_evidence(request: Request, reader: InterviewReader, attempt_id: AttemptId) -> JSONResponse:
    evidence = await reader.ask(reader.use_cases.evidence.of_call, attempt_id)
    return responses.answered(request, EvidenceView.of(evidence))
