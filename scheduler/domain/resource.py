"""A record: a resource that a request writes directly, without a worker."""

from collections.abc import Mapping
from typing import Any

from scheduler.domain.agent import Agent
from scheduler.domain.batch import Batch
from scheduler.domain.candidate import Candidate
from scheduler.domain.company import Company
from scheduler.domain.delivery_history import Replay
from scheduler.domain.job import Job
from scheduler.domain.webhook_endpoint import EndpointTest, WebhookEndpoint

Resource = Company | Job | Candidate | Agent | WebhookEndpoint | EndpointTest | Replay | Batch

Changes = Mapping[str, Any]
"""New values by the field names of the record. Omitted fields keep their value."""
