"""Parts of the OpenAPI document that the framework cannot describe."""

from collections.abc import Mapping
from typing import Any

from fastapi.openapi.models import Example

from api_shim.schemas import batch
from api_shim.schemas.event import EVENTS
from api_shim.schemas.webhook_delivery import DELIVERIES

_RESPONSES: Mapping[str, dict[str, Example]] = {"/events": EVENTS, "/webhooks/{webhookId}/deliveries": DELIVERIES}
"""Examples of the successful responses of GET, by path. The framework would remove each null from them."""


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add the schemas of bodies that the framework does not read, and examples that contain null."""
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = dict(sorted({**schemas, **batch.SCHEMAS}.items()))
    for path, examples in _RESPONSES.items():
        document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["examples"] = examples
    return document
