"""Every JSON response has one shape, the framework's own errors too, and logs contain no personal data."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from api_shim.app import create_app
from api_shim.errors import STATUS_OF
from scheduler.domain.refusals import Refused
from tests.api_shim.answers import data, refusal, refused
from tests.api_shim.bodies import EMAIL, FIRST_NAME, LAST_NAME, NUMBER
from tests.api_shim.document_operations import OPERATIONS, WITHOUT_A_BODY
from tests.api_shim.intake import Intake, Worker
from tests.conftest import wait_until
from tests.support.builders import Tenant, a_pending_attempt, a_waiting_command, an_attempt_of_unknown_outcome

ERRORS_OF_A_COMMAND = {"400", "401", "403", "404", "409", "413", "422", "429", "500", "503"}


def test_every_answer_has_the_envelope_and_a_trace_id_of_its_own(intake: Intake, worker: Worker) -> None:
    made = intake.create()
    answers = [
        made,
        intake.create(headers={"Prefer": "respond-async"}),
        intake.create(intake.body(agentId="7")),
        intake.get(f"/interviews/{made.json()['data']['id']}"),
        intake.get("/nothing/here"),
        intake.delete("/interviews"),
        intake.post("/interviews", content=b"x" * 70_000),
        intake.client.get("/healthz"),
        intake.client.get("/readyz"),
    ]
    for answer in answers:
        envelope = answer.json()
        assert set(envelope) == {"success", "data", "error", "timestamp", "traceId"}
        assert envelope["success"] is (answer.status_code < 400)
        assert (envelope["data"] is None) is (answer.status_code >= 400)
        assert (envelope["error"] is None) is (answer.status_code < 400)
        assert envelope["timestamp"].startswith("2026-04-02T12:")
        assert envelope["timestamp"].endswith("Z")
        assert answer.headers["X-Trace-Id"] == envelope["traceId"] == UUID(envelope["traceId"]).hex
    assert len({answer.headers["X-Trace-Id"] for answer in answers}) == len(answers)


def test_unknown_url_gets_404(intake: Intake) -> None:
    for path in ("/", "/nothing", "/interviews/", "/v1", "/v1/nothing", "/openapi.yaml"):
        assert refusal(intake.get(path)) == (404, "ROUTE_NOT_FOUND"), path


def test_unsupported_method_gets_405_with_the_supported_ones(intake: Intake) -> None:
    for method, path, allowed in (
        ("PUT", "/interviews", "GET, POST"),
        ("POST", "/healthz", "GET"),
        ("POST", f"/v1/interviews/{uuid4()}", "DELETE, GET, PATCH"),
        ("DELETE", f"/interviews/{uuid4()}/call-attempts", "GET, POST"),
        ("POST", f"/interviews/{uuid4()}/call-attempts/{uuid4()}", "DELETE, GET, PATCH"),
        ("GET", "/call-times/preview", "POST"),
    ):
        answer = intake.send(method, path)
        assert refusal(answer) == (405, "METHOD_NOT_ALLOWED"), path
        assert answer.headers["Allow"] == allowed, path


def test_body_over_64_kib_is_refused_by_length_and_by_bytes(intake: Intake) -> None:
    for path in ("/interviews", "/carrier/twilio/t", "/nothing"):
        assert refusal(intake.post(path, content=b" " * (64 * 1024 + 1))) == (413, "BODY_TOO_LARGE"), path
    for path in ("/interviews", "/carrier/twilio/t"):
        assert refusal(intake.post(path, content=chunks(65))) == (413, "BODY_TOO_LARGE"), path
    # It is drained before it is refused.
    assert intake.post("/interviews", content=b" " * 900_000).status_code == 413
    assert intake.post("/interviews", content=chunks(800)).status_code == 413


def test_a_body_of_64_kib_is_read(intake: Intake, worker: Worker) -> None:
    content = json.dumps(intake.body()).encode()
    padded = content + b" " * (64 * 1024 - len(content))
    answer = intake.post("/interviews", content=padded, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201


def test_unexpected_error_does_not_reveal_its_message(intake: Intake, worker: Worker) -> None:
    attempt = path_of_its_attempt(intake.interview())
    intake.change("UPDATE attempts SET schedule = '{}'")
    message = "An unexpected error occurred. It is logged under this traceId."
    error = refused(intake.get(attempt), 500, "INTERNAL_ERROR")
    assert error == {"code": "INTERNAL_ERROR", "message": message, "details": None}
    assert intake.client.get("/healthz").status_code == 200


def test_request_logs_one_line_without_personal_data(
    intake: Intake, worker: Worker, lines: list[dict[str, Any]]
) -> None:
    intake.create(headers={"Idempotency-Key": EMAIL})
    intake.create(intake.body(scheduledAt=FIRST_NAME))
    intake.create(intake.body(extra=NUMBER, agentId=EMAIL))
    intake.post("/interviews", content=f'{{"candidate": "{LAST_NAME}'.encode())
    intake.post("/call-times/preview", {"phoneNumber": NUMBER})
    intake.post("/call-times/preview", {"phoneNumber": f"{NUMBER}x"})
    made = data(intake.get(f"/commands/{EMAIL}"))["result"]["id"]
    attempt = path_of_its_attempt(data(intake.get(f"/interviews/{made}")))
    intake.get(f"/interviews/{made}", name=NUMBER)
    intake.get(f"/nothing/{NUMBER}")
    intake.change("UPDATE attempts SET schedule = '{}'")
    last = intake.get(attempt).headers["X-Trace-Id"]
    wait_until(lambda: any(each.get("trace_id") == last for each in answered(lines)))
    assert [(each["method"], each["route"], each["status"]) for each in answered(lines)] == [
        ("POST", "/interviews", 201),
        ("POST", "/interviews", 400),
        ("POST", "/interviews", 400),
        ("POST", "/interviews", 400),
        ("POST", "/call-times/preview", 200),
        ("POST", "/call-times/preview", 400),
        ("GET", "/commands/{reference}", 200),
        ("GET", "/interviews/{interviewId}", 200),
        ("GET", "/interviews/{interviewId}", 400),
        ("GET", "-", 404),
        ("GET", "/interviews/{interviewId}/call-attempts/{attemptId}", 500),
    ]
    assert all(each["seconds"] >= 0 and each["trace_id"] for each in answered(lines))
    assert [each for each in lines if each["event"].startswith("request_failed:") and each["trace_id"] == last]
    logged = json.dumps(lines, ensure_ascii=False)
    assert not [each for each in (FIRST_NAME, LAST_NAME, EMAIL, NUMBER[1:], intake.key) if each in logged]


def test_every_family_of_refusals_has_a_status() -> None:
    assert {family.__name__ for family in Refused.__subclasses__()} == set(STATUS_OF)


def test_metrics_count_per_company(intake: Intake, tenant: Tenant) -> None:
    a_pending_attempt(tenant)
    an_attempt_of_unknown_outcome(tenant)
    a_waiting_command(tenant, None)
    metrics = intake.client.get("/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    company = f'{{company_id="{intake.seeded.company_id}"}}'
    assert f"duecall_attempts_due{company} 1.0" in metrics.text
    assert f"duecall_commands_waiting{company} 1.0" in metrics.text
    assert f"duecall_attempts_unknown{company} 1.0" in metrics.text
    assert f"duecall_attempts_in_progress{company} 0.0" in metrics.text
    assert f"duecall_paused{company} 0.0" in metrics.text
    assert "duecall_redis_away 0.0" in metrics.text


def test_readyz_requires_the_schema_of_this_version(intake: Intake) -> None:
    # No worker runs with this API.
    assert intake.client.get("/readyz").json()["data"] == {"status": "ok", "degraded": ["workers"], "instance": None}
    [[revision]] = intake.ask("SELECT version_num FROM alembic_version")
    intake.change("UPDATE alembic_version SET version_num = 'another'")
    try:
        assert refusal(intake.client.get("/readyz")) == (503, "SCHEMA_NOT_READY")
        assert intake.client.get("/healthz").status_code == 200
    finally:
        intake.change("UPDATE alembic_version SET version_num = :revision", revision=revision)


COMMANDS = {"createInterview", "updateInterview", "deleteInterview"}
COMMANDS |= {"createCallAttempt", "rescheduleCallAttempt", "deleteCallAttempt", "reportOutcome"}


def operation(document: dict[str, Any], name: str) -> dict[str, Any]:
    method, path, *_ = OPERATIONS[name]
    return dict(document["paths"][path][method.lower()])


def parameters(operation: dict[str, Any]) -> set[str]:
    return {each["name"] for each in operation.get("parameters", ())}


def test_document_lists_every_operation_with_its_scopes(document: dict[str, Any]) -> None:
    documented = {
        spec["operationId"]: (method.upper(), path, spec.get("security"))
        for path, operations in document["paths"].items()
        for method, spec in operations.items()
    }
    assert documented == {
        name: (method, path, None if scope is None else [{"apiKey": [scope] if scope else []}])
        for name, (method, path, scope, _) in OPERATIONS.items()
    }
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


def test_document_lists_every_answer_of_a_write(document: dict[str, Any]) -> None:
    """Only commands are answered with 202, where their result is found later."""
    for name, (method, *_, own) in OPERATIONS.items():
        if method == "GET" or name in {"previewCallTime", "acceptInvitation"}:
            continue
        write = operation(document, name)
        later = {"202"} if name in COMMANDS else set()
        assert set(write["responses"]) == {"default"} | ERRORS_OF_A_COMMAND | own | later, name
        assert {"Idempotency-Key", "Prefer"} <= parameters(write), name
        assert name not in COMMANDS or "Location" in write["responses"]["202"]["headers"], name


def test_errors_of_a_command_have_examples_by_code(document: dict[str, Any]) -> None:
    for name in COMMANDS:
        for status, answer in operation(document, name)["responses"].items():
            if status.isdigit() and int(status) >= 400:
                content = answer["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
                assert content["examples"]
                for code, example in content["examples"].items():
                    assert example["value"]["error"]["code"] == code


def test_document_has_an_example_of_every_body_but_of_no_delete(document: dict[str, Any]) -> None:
    for name, (method, *_) in OPERATIONS.items():
        body = operation(document, name).get("requestBody")
        assert (body is not None) is (method in {"POST", "PATCH"} and name not in WITHOUT_A_BODY), name
        for content_type, content in (body or {"content": {}})["content"].items():
            assert content["examples"]
            if content_type == "application/json" and name != "createBatch":
                assert set(content["schema"]) <= {"$ref", "default"}, name


def test_document_lists_if_match_where_it_is_checked(document: dict[str, Any]) -> None:
    for name in OPERATIONS:
        this = operation(document, name)
        responses, conditional = this["responses"], name in {"rescheduleCallAttempt", "deleteCallAttempt"}
        assert ("If-Match" in parameters(this)) is ("412" in responses) is conditional
        assert ("ETag" in responses.get("200", {}).get("headers", {})) is (name == "getCallAttempt")
        assert ("ETag" in responses.get("204", {}).get("headers", {})) is (name == "rescheduleCallAttempt")
        assert "content" not in responses.get("204", {})


def test_document_names_the_conflicts_of_a_route(document: dict[str, Any]) -> None:
    for name, codes in {
        "createCallAttempt": {"CALL_ATTEMPT_IN_PROGRESS", "INTERVIEW_FINISHED", "TOO_MANY_ATTEMPTS"},
        "rescheduleCallAttempt": {"CALL_ATTEMPT_NOT_PENDING", "CALL_ATTEMPT_IN_PROGRESS"},
        "deleteCallAttempt": {"CALL_ATTEMPT_IN_PROGRESS"},
        "deleteInterview": set[str](),
    }.items():
        conflicts = operation(document, name)["responses"]["409"]["content"]["application/json"]
        assert set(conflicts["examples"]) == {"IDEMPOTENCY_IN_PROGRESS"} | codes, name


def test_document_does_not_offer_rejected_values(document: dict[str, Any]) -> None:
    request = document["components"]["schemas"]["InterviewRequest"]
    assert {"candidate", "agent", "job", "candidateId", "agentId", "jobId"} <= set(request["properties"])
    assert not {"agent_id", "companyId", "status"} & set(request["properties"])
    bodies = "InterviewRequest InlineCandidate AgentRequest JobRequest InterviewChange CallRequest CallMove"
    for name in (*bodies.split(), "CallTimeRequest"):
        assert document["components"]["schemas"][name]["additionalProperties"] is False
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_application_can_be_created_without_settings() -> None:
    assert create_app().title == "Duecall"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document that is served as /openapi.json."""
    return dict(json.loads(json.dumps(create_app().openapi())))


def test_the_document_is_served(intake: Intake, document: dict[str, Any]) -> None:
    assert intake.client.get("/openapi.json").json() == document


def path_of_its_attempt(interview: dict[str, Any]) -> str:
    """Read the path of the call of an interview. A list would leave out a call that cannot be read."""
    return f"/interviews/{interview['id']}/call-attempts/{interview['callAttempts'][0]['id']}"


def answered(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in lines if each["event"].startswith("request_answered:")]


def chunks(count: int) -> Iterator[bytes]:
    """A body without a Content-Length."""
    for _ in range(count):
        yield b" " * 1024
    yield b" "
