"""Query parameters are read as strictly as bodies: rejected by name when unknown, repeated or not plain digits."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from scheduler.domain.principal import KeyKind
from tests.api_shim.answers import data, wrong_fields
from tests.api_shim.bodies import JOB, TOMORROW
from tests.api_shim.carrier_callbacks import call_back, path_of
from tests.api_shim.document_operations import address_of_nothing, documented, example_of
from tests.api_shim.intake import KEY, Intake, Worker

LISTS = (
    "/company",
    "/jobs",
    "/candidates",
    "/agents",
    "/phone-numbers",
    "/interviews",
    f"/interviews/{uuid4()}/call-attempts",
)


def ask(intake: Intake, query: str) -> Iterator[tuple[Any, Any]]:
    """Send one request to each operation of the document, with ids of missing resources in its path."""
    for method, path, operation in documented():
        yield operation, intake.send(method, f"{address_of_nothing(path)}?{query}", json=example_of(operation))


def test_unknown_parameter_is_named_by_every_operation(intake: Intake) -> None:
    for operation, answer in ask(intake, "candidatId=7&statuss="):
        wrong = [("candidatId", "UNKNOWN_PARAMETER"), ("statuss", "UNKNOWN_PARAMETER")]
        assert wrong_fields(answer) == wrong, operation["operationId"]
        assert answer.json()["success"] is False
    assert intake.count("inbox") == 0


def test_unknown_parameter_reveals_nothing_without_a_key(intake: Intake) -> None:
    for operation, answer in ask(intake.with_key("sk_live_"), "candidatId=7"):
        assert answer.status_code == (401 if "security" in operation else 400), operation["operationId"]


def test_misspelt_filter_does_not_return_everything(intake: Intake) -> None:
    intake.made("/jobs", JOB)
    answer = intake.get("/jobs", Status="CLOSED")
    assert wrong_fields(answer) == [("Status", "UNKNOWN_PARAMETER")]
    assert "status" in answer.json()["error"]["details"]["fields"][0]["message"]
    assert data(intake.get("/jobs", status="CLOSED"))["items"] == []


def test_unknown_parameter_is_not_stored_as_an_answer(intake: Intake) -> None:
    assert wrong_fields(intake.post("/jobs?dryRun=true", JOB, headers=KEY))
    assert intake.made("/jobs", JOB, headers=KEY)
    assert intake.count("jobs") == 1


def test_alias_v1_rejects_an_unknown_parameter(intake: Intake) -> None:
    assert wrong_fields(intake.get("/v1/jobs", foo="1")) == [("foo", "UNKNOWN_PARAMETER")]


NUMBERS = ("1_0", "%2B1", "+1", "%201", "1%20", "1.0", "1e1", "0x1", "-1", "", "%D9%A1", "%EF%BC%91", "1%00", "true")


NOT_PLAIN = [f"{name}={text}" for name in ("page", "limit") for text in NUMBERS]
OUT_OF_RANGE = ["page=0", "page=10001", "limit=0", "limit=101", "page=" + "9" * 5_000, "limit=" + "1" * 400]
IN_RANGE = ["page=10000", "limit=100", "page=1&limit=1", "page=007"]


def test_page_and_limit_are_plain_digits_within_bounds(intake: Intake) -> None:
    """All spellings at one list, and one of each kind at the others, which read them by the same function."""
    for path in LISTS:
        for query in (*NOT_PLAIN, *OUT_OF_RANGE) if path == LISTS[0] else ("page=1_0", "limit=101"):
            name = query.partition("=")[0]
            assert [field for field, _ in wrong_fields(intake.send("GET", f"{path}?{query}"))] == [name], query[:20]
        for query in IN_RANGE:
            status = 404 if path == LISTS[-1] else 200
            assert intake.send("GET", f"{path}?{query}").status_code == status, query


def test_repeated_parameter_is_named(intake: Intake) -> None:
    for name, value in (("page", "1"), ("sort", "createdAt:asc"), ("createdFrom", "2026-04-02T07:00:00Z")):
        query = f"{name}={value}&status=OPEN&{name}={value}&status=CLOSED"
        assert wrong_fields(intake.send("GET", f"/jobs?{query}")) == [(name, "REPEATED_PARAMETER")]


# ---- companyId


def test_company_of_a_regular_key_is_ignored_everywhere(intake: Intake, worker: Worker) -> None:
    made = data(intake.create(intake.body(scheduledAt=TOMORROW), headers={"Idempotency-Key": "made"}), 201)
    own = f"/company/{intake.seeded.company_id}"
    for path in ("/company", own, "/jobs", f"/interviews/{made['id']}", "/commands/made", "/billing/usage"):
        for company in (str(uuid4()), "no id at all", ""):
            assert intake.get(path, companyId=company).status_code == 200, path
        assert intake.send("GET", f"{path}?companyId=a&companyId=b").status_code == 200, path


def test_ats_key_may_repeat_the_company_of_the_path(intake: Intake) -> None:
    ats = intake.with_new_key(kind=KeyKind.ATS)
    company = ats.made("/company", {"name": "Acme"})["id"]
    assert ats.get(f"/company/{company}", companyId=company.upper()).status_code == 200
    assert wrong_fields(ats.get(f"/company/{company}", companyId=str(uuid4()))) == [("companyId", "UNKNOWN_PARAMETER")]
    assert wrong_fields(ats.get("/company", companyId=company)) == [("companyId", "UNKNOWN_PARAMETER")]
    assert wrong_fields(ats.get("/company", companyId="")) == [("companyId", "UNKNOWN_PARAMETER")]


# ---- routes outside the document


def test_document_and_its_page_take_any_parameter(intake: Intake) -> None:
    for path in ("/docs", "/openapi.json"):
        assert intake.client.get(path, params={"cache": "7"}).status_code == 200


def test_callback_of_the_carrier_may_have_any_parameter(intake: Intake) -> None:
    """Its signature covers the query, and Twilio adds parameters without notice."""
    assert call_back(intake, "a-token", path=f"{path_of('a-token')}?region=ie1&region=us1").status_code == 204
