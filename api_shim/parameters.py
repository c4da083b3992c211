"""Which resource an address names, and which part of a list."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query

from scheduler.domain.pagination import Slice

CompanyId = Annotated[UUID, Path(alias="companyId")]
JobId = Annotated[UUID, Path(alias="jobId")]
CandidateId = Annotated[UUID, Path(alias="candidateId")]
AgentId = Annotated[UUID, Path(alias="agentId")]
InterviewId = Annotated[UUID, Path(alias="interviewId")]
AttemptId = Annotated[UUID, Path(alias="attemptId")]


async def asked_slice(
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Slice:
    return Slice(page=page, limit=limit)


AskedSlice = Annotated[Slice, Depends(asked_slice)]
