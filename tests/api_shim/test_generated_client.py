"""A client generated from docs/openapi.json, used like a partner would: over HTTP, with a real worker."""

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.domain.principal import KeyKind
from tests.api_shim import bodies
from tests.api_shim.bodies import AN_HOUR_LATER, EMAIL, FIRST_NAME, TOMORROW
from tests.api_shim.document_operations import DOCUMENT
from tests.api_shim.intake import Intake, Worker
from tests.conftest import CALLER
from tests.support.built_client import write_client

PACKAGE = "a_generated_client"

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated package. The generator warns about operations that it leaves out."""
    folder = tmp_path_factory.mktemp("generated") / PACKAGE
    assert write_client(folder) == []
    return folder


@pytest.fixture(scope="module")
def models(generated: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(generated.parent)
        yield importlib.import_module(f"{PACKAGE}.models")


@pytest.fixture
def ats(intake: Intake, worker: Worker) -> Intake:
    return intake.with_new_key(kind=KeyKind.ATS)


@pytest.fixture
def ask(models: Any, ats: Intake) -> Iterator[Ask]:
    """Calls an operation with the generated client and returns its typed response with status and headers."""
    client = importlib.import_module(PACKAGE).AuthenticatedClient(base_url=str(ats.client.base_url), token=ats.key)

    def asked(operation: str, *ids: Any, **more: Any) -> Any:
        return importlib.import_module(f"{PACKAGE}.api.{operation}").sync_detailed(*ids, client=client, **more)

    with client:
        yield asked


def test_the_generator_leaves_no_operation_out(generated: Path) -> None:
    paths = json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]
    operations = {each["operationId"] for path in paths.values() for each in path.values()}
    made = {path.stem for path in (generated / "api").glob("*/*.py")} - {"__init__"}
    assert {each.replace("_", "") for each in made} == {each.lower() for each in operations}


def test_generated_client_schedules_moves_and_deletes_a_call(models: Any, ats: Intake, ask: Ask) -> None:
    company = done(ask("companies.create_company", body=models.CompanyRequest(name="Acme")), models.CompanyAnswer, 201)
    with ats.database.transaction() as stores:  # like `duecall numbers add`
        stores.phone_numbers.add(uuid4(), company.id, CALLER, ats.now())
    of_company = {"company_id": company.id}

    [number] = done(ask("phone_numbers.list_phone_numbers", **of_company), models.PhoneNumbersAnswer).items
    agent = models.AgentRequest(
        name="Ann",
        type_=models.AgentType.PHONE,
        focus=models.AgentFocus.GENERIC,
        language=models.Language.SK,
        duration=15,
        company_phone_number_id=number.id,
    )
    agent_id = done(ask("agents.create_agent", body=agent, **of_company), models.AgentAnswer, 201).id
    person = models.CandidateRequest.from_dict(bodies.candidate())
    candidate = done(ask("candidates.create_candidate", body=person, **of_company), models.CandidateAnswer, 201)
    assert candidate.first_name == FIRST_NAME

    wanted = models.InterviewRequest(agent_id=agent_id, candidate_id=candidate.id, scheduled_at=TOMORROW)
    asked_for = ask("interviews.create_interview", body=wanted, idempotency_key="the interview", **of_company)
    interview = done(asked_for, models.InterviewAnswer, 201)
    [attempt] = interview.call_attempts
    assert attempt.status is models.AttemptState.PENDING

    this = (interview.id, attempt.id)
    looked_at = ask("call_attempts.get_call_attempt", *this, **of_company)
    move = {"body": models.CallMove(scheduled_at=AN_HOUR_LATER), "if_match": looked_at.headers["etag"], **of_company}
    assert ask("call_attempts.reschedule_call_attempt", *this, **move).status_code == 204
    moved = done(ask("call_attempts.get_call_attempt", *this, **of_company), models.AttemptAnswer)
    assert moved.scheduled_at.isoformat() == AN_HOUR_LATER.replace("Z", "+00:00")
    assert refused(ask("call_attempts.reschedule_call_attempt", *this, **move), models, 412) == "PRECONDITION_FAILED"

    for what, kind, ids in (
        ("agents.list_agents", models.AgentsAnswer, ()),
        ("candidates.list_candidates", models.CandidatesAnswer, ()),
        ("interviews.list_interviews", models.InterviewsAnswer, ()),
        ("call_attempts.list_call_attempts", models.AttemptsAnswer, this[:1]),
    ):
        assert len(done(ask(what, *ids, **of_company), kind).items) == 1
    why = done(ask("call_attempts.explain_call_attempt", *this, **of_company), models.ExplanationAnswer)
    assert [each.rule.value for each in why.blocks] == ["NOT_DUE"]
    question = models.CallTimeRequest(candidate_id=candidate.id)
    assert done(ask("call_times.preview_call_time", body=question, **of_company), models.CallTimeAnswered).allowed

    assert ask("call_attempts.delete_call_attempt", *this, **of_company).status_code == 204
    assert refused(ask("call_attempts.get_call_attempt", *this, **of_company), models, 404) == "RESOURCE_NOT_FOUND"

    used = done(ask("billing.get_usage"), models.UsageAnswer)
    assert used.total_interviews == 0
    assert [each.company_id for each in used.companies] == [company.id]


def test_generated_client_gets_an_error_that_names_the_field(models: Any, ask: Ask) -> None:
    unknown = models.InterviewRequest(agent_id=uuid4())
    company = done(ask("companies.create_company", body=models.CompanyRequest(name="Acme")), models.CompanyAnswer, 201)
    answer = ask("interviews.create_interview", body=unknown, company_id=company.id)
    assert refused(answer, models, 400) == "VALIDATION_ERROR"
    assert [each["field"] for each in answer.parsed.error.details.to_dict()["fields"]] == ["candidate"]


def test_generated_client_finds_the_result_at_the_location(models: Any, ats: Intake, ask: Ask) -> None:
    agent = {"name": "Web", "type": "ONLINE", "focus": "GENERIC", "language": "EN", "duration": 10}
    company = done(ask("companies.create_company", body=models.CompanyRequest(name="Acme")), models.CompanyAnswer, 201)
    body = models.InterviewRequest(
        agent=models.AgentRequest.from_dict(agent),
        candidate=models.InlineCandidate.from_dict(
            {"firstName": "Ada", "lastName": "Lovelace", "gdprExpiryDate": "2030-12-31", "email": EMAIL}
        ),
    )
    sent = ask("interviews.create_interview", body=body, prefer="respond-async", company_id=company.id)
    waiting = done(sent, models.WaitingAnswer, 202)
    assert isinstance(waiting.id, UUID)
    found = done(ask("commands.get_command", str(waiting.id)), models.CommandAnswer)
    assert found.id == waiting.id


def done(answer: Any, model: Any, status: int = 200) -> Any:
    """Read the data of a response with this model."""
    assert answer.status_code == status, answer.content
    assert type(answer.parsed) is model
    assert answer.parsed.success is True
    return answer.parsed.data


def refused(answer: Any, models: Any, status: int) -> str:
    """The code of the error."""
    assert answer.status_code == status, answer.content
    assert type(answer.parsed) is models.ErrorAnswer
    return str(answer.parsed.error.code)
