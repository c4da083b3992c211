"""The operations of the public document: expected, and as the API documents them."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
INTERVIEW = "/interviews/{interviewId}"
BATCH = "/batches/{batchId}"
ATTEMPTS = f"{INTERVIEW}/call-attempts"
ATTEMPT = f"{ATTEMPTS}/{{attemptId}}"
WEBHOOK = "/webhooks/{webhookId}"
OPERATIONS = {
    "listCompanies": ("GET", "/company", "read:companies", {"200"}),
    "createCompany": ("POST", "/company", "write:companies", {"201", "410"}),
    "getCompany": ("GET", "/company/{companyId}", "read:companies", {"200"}),
    "updateCompany": ("PATCH", "/company/{companyId}", "write:companies", {"200"}),
    "deleteCompany": ("DELETE", "/company/{companyId}", "delete:companies", {"200"}),
    **{
        f"{verb}{Noun}{'s' if verb == 'list' else ''}": (
            method,
            f"/{Noun.lower()}s" + ("" if verb in {"list", "create"} else f"/{{{Noun.lower()}Id}}"),
            f"{scope}:{Noun.lower()}s",
            # 200: the resource of the same externalId.
            {"200"} if verb != "create" else {"201"} if Noun == "Agent" else {"200", "201"},
        )
        for Noun in ("Job", "Candidate", "Agent")
        for verb, method, scope in (
            ("list", "GET", "read"),
            ("create", "POST", "write"),
            ("get", "GET", "read"),
            ("update", "PATCH", "write"),
            ("delete", "DELETE", "delete"),
        )
    },
    "getUsage": ("GET", "/billing/usage", "read:billing", {"200"}),
    "getEvent": ("GET", "/events/{eventId}", "read:webhooks", {"200"}),
    "listEvents": ("GET", "/events", "read:webhooks", {"200"}),
    "listWebhookDeliveries": ("GET", f"{WEBHOOK}/deliveries", "read:webhooks", {"200"}),
    "getWebhookDelivery": ("GET", f"{WEBHOOK}/deliveries/{{deliveryId}}", "read:webhooks", {"200"}),
    "replayWebhookDelivery": (
        "POST",
        f"{WEBHOOK}/deliveries/{{deliveryId}}/replay",
        "write:webhooks",
        {"202"},
    ),
    "replayWebhookDeliveries": ("POST", f"{WEBHOOK}/replay", "write:webhooks", {"202"}),
    "listWebhooks": ("GET", "/webhooks", "read:webhooks", {"200"}),
    "createWebhook": ("POST", "/webhooks", "write:webhooks", {"201"}),
    "getWebhook": ("GET", WEBHOOK, "read:webhooks", {"200"}),
    "updateWebhook": ("PATCH", WEBHOOK, "write:webhooks", {"200"}),
    "deleteWebhook": ("DELETE", WEBHOOK, "write:webhooks", {"204"}),
    "testWebhook": ("POST", f"{WEBHOOK}/test", "write:webhooks", {"200"}),
    "resetWebhookCircuit": ("POST", f"{WEBHOOK}/reset-circuit", "write:webhooks", {"200"}),
    "rotateWebhookSecret": ("POST", f"{WEBHOOK}/rotate-secret", "write:webhooks", {"200"}),
    "listPhoneNumbers": ("GET", "/phone-numbers", "read:phone-numbers", {"200"}),
    "listInterviews": ("GET", "/interviews", "read:interviews", {"200"}),
    "createInterview": ("POST", "/interviews", "write:interviews", {"200", "201"}),
    "getInterview": ("GET", INTERVIEW, "read:interviews", {"200"}),
    "updateInterview": ("PATCH", INTERVIEW, "write:interviews", {"200"}),
    "deleteInterview": ("DELETE", INTERVIEW, "delete:interviews", {"200"}),
    "listCallAttempts": ("GET", ATTEMPTS, "read:interviews", {"200"}),
    "listCompanyCallAttempts": ("GET", "/call-attempts", "read:interviews", {"200"}),
    "getConversation": ("GET", "/call-attempts/by-token/{token}", "voice", {"200"}),
    "reportOutcome": ("POST", "/call-attempts/by-token/{token}/outcome", "voice", {"200"}),
    "createCallAttempt": ("POST", ATTEMPTS, "write:interviews", {"201"}),
    "getCallAttempt": ("GET", ATTEMPT, "read:interviews", {"200"}),
    "rescheduleCallAttempt": ("PATCH", ATTEMPT, "write:interviews", {"204", "412"}),
    "deleteCallAttempt": ("DELETE", ATTEMPT, "write:interviews", {"204", "412"}),
    "getCallEvidence": ("GET", "/call-attempts/{attemptId}/evidence", "read:interviews", {"200"}),
    "explainCallAttempt": ("GET", f"{ATTEMPT}/explanation", "read:interviews", {"200"}),
    "listBatches": ("GET", "/batches", "read:interviews", {"200"}),
    # 200: a dry run.
    "createBatch": ("POST", "/batches", "write:interviews", {"200", "202"}),
    "getBatch": ("GET", BATCH, "read:interviews", {"200"}),
    "cancelBatch": ("DELETE", BATCH, "write:interviews", {"200", "202"}),
    "listBatchItems": ("GET", f"{BATCH}/items", "read:interviews", {"200"}),
    "pauseBatch": ("POST", f"{BATCH}/pause", "write:interviews", {"200"}),
    "resumeBatch": ("POST", f"{BATCH}/resume", "write:interviews", {"200"}),
    "previewCallTime": ("POST", "/call-times/preview", "read:interviews", {"200", "413"}),
    # The required scope depends on the command, as the description explains.
    "getCommand": ("GET", "/commands/{reference}", "", {"200"}),
    "acceptInvitation": ("POST", "/invitations/accept", None, {"200", "410"}),
    "isAlive": ("GET", "/healthz", None, {"200"}),
    "isReady": ("GET", "/readyz", None, {"200"}),
    "getMetrics": ("GET", "/metrics", None, {"200"}),
}
"""Method, path, scope and own statuses by name. The scope is None if no key is required."""
WITHOUT_A_BODY = {
    *(
        "pauseBatch",
        "resumeBatch",
        "testWebhook",
        "resetWebhookCircuit",
        "rotateWebhookSecret",
        "replayWebhookDelivery",
    ),
}
"""The POSTs whose path says everything."""


def documented() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """List method, path and description of each operation."""
    for path, operations in _paths().items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


@cache
def _paths() -> dict[str, Any]:
    """Read the paths when tests are collected. Another test compares the file with what the API generates."""
    paths: dict[str, Any] = json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]
    return paths


def example_of(operation: Mapping[str, Any]) -> Any:
    """Return the first example of a body, or None for an operation without a body."""
    if "requestBody" not in operation:
        return None
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    return next(iter(examples.values()))["value"]


def address_of_nothing(path: str) -> str:
    """Choose the path with ids of missing resources."""
    return "/".join(str(uuid4()) if part.startswith("{") else part for part in path.split("/"))
