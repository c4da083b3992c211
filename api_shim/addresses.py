"""Which interview, and which of its attempts, an address names."""

from typing import Annotated
from uuid import UUID

from fastapi import Path

InterviewId = Annotated[UUID, Path(alias="interviewId")]
AttemptId = Annotated[UUID, Path(alias="attemptId")]
