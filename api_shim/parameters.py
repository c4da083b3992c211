"""Path parameters for resource ids, and the query parameters of lists."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query

from api_shim.openapi_responses import IfSent
from scheduler.domain.pagination import Slice
from scheduler.wire.field_types import ExternalIdText

CompanyId = Annotated[UUID, Path(alias="companyId")]
JobId = Annotated[UUID, Path(alias="jobId")]
CandidateId = Annotated[UUID, Path(alias="candidateId")]
AgentId = Annotated[UUID, Path(alias="agentId")]
InterviewId = Annotated[UUID, Path(alias="interviewId")]
WebhookId = Annotated[UUID, Path(alias="webhookId")]
AttemptId = Annotated[UUID, Path(alias="attemptId")]
DeliveryId = Annotated[UUID, Path(alias="deliveryId")]
EventId = Annotated[UUID, Path(alias="eventId")]


async def page_query(
    page: Annotated[int, Query(ge=1, le=10_000)] = 1, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> Slice:
    return Slice(page=page, limit=limit)


PageQuery = Annotated[Slice, Depends(page_query)]
ExternalIdQuery = Annotated[
    IfSent[ExternalIdText], Query(alias="externalId", description="Only the resource with this external id.")
]
