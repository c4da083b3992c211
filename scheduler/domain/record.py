"""A record: a resource that is written directly, by whoever asks, without a worker."""

from collections.abc import Mapping
from typing import Any

from scheduler.domain.agent import Agent
from scheduler.domain.candidate import Candidate
from scheduler.domain.company import Company
from scheduler.domain.job import Job

Record = Company | Job | Candidate | Agent

Changes = Mapping[str, Any]
"""The fields that a change names, by their names in the record, with their new values. What it leaves out stays."""
