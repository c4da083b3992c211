"""Hooks that schemathesis imports in its own process, to learn which resources exist.

A request generated from the document alone names no existing resource and is rejected before anything happens. So four
of five valid requests get ids of existing resources, and values that a schema cannot describe: a real phone number, a
time in the future. Invalid requests are sent unchanged.
"""

import copy
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import TestPhase

TENANT: dict[str, Any] = json.loads(Path(os.environ["DUECALL_FUZZ_HOUSE"]).read_text(encoding="utf-8"))
HOME: str = TENANT["home"]
"""The company that all requests use."""
TOKENS: list[str] = TENANT["tokens"]
"""Tokens of open invitations. Each can be accepted once."""
FITTING: dict[str, list[str]] = TENANT["fitting"]
"""Valid values by field name. They are never deleted, so that new resources can refer to them until the end."""
THERE: dict[str, list[list[str]]] = TENANT["there"]
"""Existing resources by the parameter names of a path. Created ones are added, deleted ones removed."""

_MADE_BY = {
    "createCompany": "companyId",
    "createJob": "jobId",
    "createCandidate": "candidateId",
    "createAgent": "agentId",
    "createInterview": "interviewId",
    "createWebhook": "webhookId",
    "createBatch": "batchId",
}
_AN_ATTEMPT = "interviewId attemptId"
_EITHER_OR = {
    "createInterview": [("candidate", "candidateId"), ("agent", "agentId")],
    "previewCallTime": [("phoneNumber", "candidateId")],
}
AS_IT_WAS_MADE, HALF = 0.2, 0.5
_random = random.Random(7)


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Remove the `default` response, which covers any error. Each status must be documented by its number here."""
    for operations in raw_schema["paths"].values():
        for spec in operations.values():
            spec["responses"].pop("default", None)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    if case.method != "GET" and case.path_parameters.get("companyId") == HOME:
        # Deleting this company would end the run, and other hours or countries would make it reject later requests.
        # So such requests go to companies that exist for this purpose, or that were just created.
        case.path_parameters = {"companyId": _random.choice(THERE["companyId"])[0]}
    if isinstance(case.body, dict):
        case.body = _without_addresses_that_stop_the_run(case.body)
    if _name_of(case) == "testWebhook":
        # No process sends the ping, so the request would wait.
        headers: Any = case.headers or {}
        headers["Prefer"] = "respond-async"
        case.headers = headers
    if _allowed(case, ParameterLocation.HEADER):
        _send_by_a_key_of_its_own(case)
    if _random.random() < AS_IT_WAS_MADE or case.meta is None:
        return
    if _allowed(case, ParameterLocation.QUERY) and "companyId" in _names(case, "query"):
        case.query = {**_accepted(case, case.query or {}), "companyId": HOME}
    if _allowed(case, ParameterLocation.PATH) and case.meta.phase.name is not TestPhase.STATEFUL:
        names = " ".join(case.path_parameters)
        if there := THERE.get(names):
            case.path_parameters = dict(zip(names.split(), _random.choice(there), strict=True))
    if _allowed(case, ParameterLocation.BODY) and isinstance(case.body, dict):
        case.body = _meant(_name_of(case), copy.deepcopy(case.body))


@schemathesis.serializer("application/x-ndjson")
def lines_of_json(_: object, value: object) -> bytes:
    """Send lines as they are."""
    return value.encode() if isinstance(value, str) else bytes(value) if isinstance(value, bytes) else b""


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    # A 202 has the id of a command, except that of a batch.
    if response.status_code not in {200, 201, 204} and (_name_of(case), response.status_code) != ("createBatch", 202):
        return
    if case.method == "DELETE":
        gone = list(case.path_parameters.values())
        for names, there in THERE.items():
            # An interview is removed with its attempts. The last one stays, so that operations still have a target.
            THERE[names] = [each for each in there if each[: len(gone)] != gone] or there
    elif (name := _MADE_BY.get(_name_of(case))) and (case.query or {}).get("companyId", HOME) == HOME:
        made = json.loads(response.content)["data"]
        if "id" in made:  # not a dry run
            THERE.setdefault(name, []).append([made["id"]])
            THERE[_AN_ATTEMPT] += [[made["id"], each["id"]] for each in made.get("callAttempts", ())]


def _allowed(case: Case[Any], location: ParameterLocation) -> bool:
    """Check whether the document allows this part of the request."""
    return case.meta is not None and not case.meta.is_negative_at(location)


def _accepted(case: Case[Any], query: Mapping[str, Any]) -> dict[str, Any]:
    """Remove what is mostly refused: a cursor, which only a response contains, and the end of a range with a start."""
    refused = {"cursor", *(f"{name.removesuffix('From')}To" for name in query if name.endswith("From"))}
    if _name_of(case) == "createBatch" and isinstance(case.body, dict):
        refused |= {"name", "dryRun"}  # the document cannot say that these parameters are for a batch in NDJSON
    return {name: value for name, value in query.items() if name not in refused}


def _names(case: Case[Any], location: str) -> set[str]:
    spec = case.operation.definition.raw.get("parameters", ())
    return {each["name"] for each in spec if each["in"] == location}


def _name_of(case: Case[Any]) -> str:
    return str(case.operation.definition.raw["operationId"])


def _send_by_a_key_of_its_own(case: Case[Any]) -> None:
    """Make the Idempotency-Key unique: a key reused for a different request is rejected before other checks."""
    headers: Any = case.headers or {}
    if "Idempotency-Key" in headers and _random.random() >= AS_IT_WAS_MADE / 2:
        headers["Idempotency-Key"] = f"{headers['Idempotency-Key'][:200]}-{_random.getrandbits(64)}"
    if "If-Match" in headers and _random.random() >= AS_IT_WAS_MADE:
        headers["If-Match"] = "*"


def _without_addresses_that_stop_the_run(value: Any) -> Any:
    """Replace invalid URLs: schemathesis 4.32 crashes on a URL that Python cannot split, such as `http://[`."""
    if isinstance(value, dict):
        return {name: _without_addresses_that_stop_the_run(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_addresses_that_stop_the_run(each) for each in value]
    try:
        urlsplit(value if isinstance(value, str) else "")
    except ValueError:
        return "https://example.com/"
    return value


def _meant(operation: str, body: dict[str, Any]) -> dict[str, Any]:
    """Build a realistic body: it names existing resources and has no contradictions."""
    body = _fitting(body)
    body.pop("scheduleTime", None)
    _has_an_id_of_its_own(body)
    if operation == "acceptInvitation" and TOKENS and _random.random() < HALF:
        body["token"] = TOKENS.pop()
    for one, other in _EITHER_OR.get(operation, ()):
        if body.get(one) is not None and body.get(other) is not None:
            del body[_random.choice((one, other))]
        if body.get(one) is None and body.get(other) is None:
            body[other] = _random.choice(FITTING[other])
    if operation in {"createWebhook", "updateWebhook"}:
        _goes_to_a_company(body)
    if operation == "createInterview":
        _name_the_job_once(body)
    if operation == "createBatch":
        body["items"] = [_meant("createInterview", each) for each in body.get("items", ())]
    _can_be_reached(body if operation == "createCandidate" else body.get("candidate"))
    _has_a_number(body if operation == "createAgent" else body.get("agent"))
    return body


def _has_an_id_of_its_own(body: dict[str, Any]) -> None:
    """Make most external ids unique: an id that was sent with other content is rejected before anything is created."""
    for part in (body, body.get("candidate"), body.get("job")):
        if isinstance(part, dict) and part.get("externalId") and _random.random() >= AS_IT_WAS_MADE:
            part["externalId"] = f"{part['externalId'][:200]}-{_random.getrandbits(64)}"


def _goes_to_a_company(webhook: dict[str, Any]) -> None:
    """Give a webhook valid headers, and the company that exists."""
    if webhook.get("companyId") is not None:
        webhook["companyId"] = HOME
    if webhook.get("headers"):
        webhook["headers"] = [{"name": f"X-{place}", "value": "v"} for place, _ in enumerate(webhook["headers"])]


def _name_the_job_once(body: dict[str, Any]) -> None:
    if body.get("jobId") is not None:
        body.pop("job", None)
    if body.get("candidate") and (body.get("jobId") is not None or body.get("job") is not None):
        body["candidate"].pop("jobId", None)


def _can_be_reached(person: dict[str, Any] | None) -> None:
    if person and person.get("email") is None and person.get("phoneNumber") is None:
        person["phoneNumber"] = _random.choice(FITTING["phoneNumber"])


def _has_a_number(agent: dict[str, Any] | None) -> None:
    if agent and agent.get("type") == "PHONE" and agent.get("companyPhoneNumberId") is None:
        agent["companyPhoneNumberId"] = _random.choice(FITTING["companyPhoneNumberId"])


def _fitting(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {inner: _fitting(each, inner) for inner, each in value.items()}
    if isinstance(value, list):
        return [_fitting(each, name) for each in value]
    return _random.choice(FITTING[name]) if isinstance(value, str) and name in FITTING else value
