"""The rules F1 over HTTP: candidate, agent and job of an interview, and refusals, which leave no rows."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.api_shim.intake import (
    EMAIL,
    FIRST_NAME,
    JOB,
    LAST_NAME,
    NUMBER,
    TOMORROW,
    Intake,
    Worker,
    candidate,
    data,
    refused,
    without_now,
)
from tests.api_shim.interview_requests import AGENT_NAME, AT_NIGHT, Ask, Desk, all_new, known, new, online
from tests.architecture.rules import does, does_as_named, does_not, does_not_as_named
from tests.conftest import CALLER, wait_until

# ---- created resources


def _one_open_among_closed(desk: Desk) -> dict[str, Any]:
    """As in each of these, the metadata names the expected job."""
    job = desk.job()
    return known(desk, desk.job(status="CLOSED"), job, desk.job(status="CLOSED"), metadata={"job": job})


def _named_among_several(desk: Desk) -> dict[str, Any]:
    job = desk.job()
    return known(desk, desk.job(), job, jobId=job, metadata={"job": job})


def _named_and_closed(desk: Desk) -> dict[str, Any]:
    job = desk.job(status="CLOSED")
    return known(desk, job, desk.job(), jobId=job, metadata={"job": job})


def _generic_named(desk: Desk) -> dict[str, Any]:
    job = desk.job()
    return known(desk, job, focus="GENERIC", jobId=job, metadata={"job": job})


def _generic_new_for_a_job(desk: Desk) -> dict[str, Any]:
    job = desk.job()
    return new(desk, focus="GENERIC", candidate=candidate(jobId=job), metadata={"job": job})


def _new_for_a_job(desk: Desk) -> dict[str, Any]:
    job = desk.job()
    return new(desk, jobId=job, metadata={"job": job})


def _new_with_its_own_job(desk: Desk) -> dict[str, Any]:
    job = desk.job()
    return new(desk, candidate=candidate(jobId=job), metadata={"job": job})


TAKEN = [
    pytest.param(
        lambda desk: known(desk, desk.job(), focus="GENERIC"), id="F1-2 GENERIC takes no job, not even the only one"
    ),
    pytest.param(lambda desk: new(desk, focus="GENERIC"), id="F1-2 GENERIC needs none"),
    pytest.param(_generic_named, id="F1-2 GENERIC takes a named job"),
    pytest.param(_generic_new_for_a_job, id="F1-2 GENERIC takes candidate.jobId"),
    pytest.param(_one_open_among_closed, id="F1-3 the only open job among closed ones"),
    pytest.param(_named_among_several, id="F1-4 several open jobs, one named"),
    pytest.param(_named_and_closed, id="F1-5 a job that is named may be closed"),
    pytest.param(_new_for_a_job, id="F1-5 jobId with a new candidate"),
    pytest.param(_new_with_its_own_job, id="F1-5 candidate.jobId"),
]


@pytest.mark.parametrize("ask", does_as_named(TAKEN))
def test_job_of_an_interview_follows_the_rules(intake: Intake, worker: Worker, desk: Desk, ask: Ask) -> None:
    body = ask(desk)
    jobs = intake.count("jobs")
    interview = data(intake.create(body), 201)
    expected = body.get("metadata", {}).get("job")
    assert interview["jobId"] == expected
    assert data(intake.get(f"/interviews/{interview['id']}"))["jobId"] == expected
    person = data(intake.get(f"/candidates/{interview['candidateId']}"))
    assert expected is None or expected in person["jobIds"]
    assert intake.count("jobs") == jobs


@does("F1-1")
def test_f1_1_candidate_agent_and_job_are_created_together(intake: Intake, worker: Worker, desk: Desk) -> None:
    job = JOB | {"requiredSkills": ["smoke"], "niceToHaveSkills": ["honey"], "metadata": {"ref": "J-1"}}
    agent = desk.an_agent(questions=["Which bee?"], voiceId="EVA", metadata={"ref": "A-1"})
    person = candidate(timezone="Europe/Prague")
    body = {"candidate": person, "agent": agent, "job": job, "scheduledAt": TOMORROW, "metadata": {"ref": "I-1"}}
    before = desk.rows()
    interview = data(intake.create(body), 201)
    assert desk.rows() == {table: count + 1 for table, count in before.items()}
    shown = data(intake.get(f"/candidates/{interview['candidateId']}"))
    assert {name: shown[name] for name in person} == person
    assert (shown["jobIds"], shown["interviewCount"]) == ([interview["jobId"]], 1)
    shown = data(intake.get(f"/agents/{interview['agentId']}"))
    assert {name: shown[name] for name in agent} == agent
    shown = data(intake.get(f"/jobs/{interview['jobId']}"))
    assert {name: shown[name] for name in job} == job
    assert (interview["metadata"], interview["isTest"], interview["scheduledAt"]) == ({"ref": "I-1"}, False, TOMORROW)
    assert (
        len({row[0] for row in intake.ask("SELECT created_at FROM candidates UNION SELECT created_at FROM jobs")}) == 1
    )
    assert intake.ask("SELECT body FROM inbox WHERE kind = 'create_interview'")[0][0] is None


@does("F1-1")
def test_f1_1_existing_ids_are_used_and_nothing_else_is_created(intake: Intake, worker: Worker, desk: Desk) -> None:
    job = desk.job()
    body = known(desk, job, jobId=job, scheduleTime=TOMORROW, expiresAt="2026-04-04T18:00:00Z")
    before = desk.rows()
    interview = data(intake.create(body), 201)
    for name in ("candidateId", "agentId", "jobId", "expiresAt"):
        assert interview[name] == body[name]
    assert interview["scheduledAt"] == TOMORROW
    after = desk.rows()
    assert [after[each] - before[each] for each in ("candidates", "agents", "jobs", "assignments")] == [0] * 4


@does("F1-5")
def test_f1_5_existing_candidate_is_assigned_to_a_new_job(intake: Intake, worker: Worker, desk: Desk) -> None:
    other = desk.job()
    body = known(desk, other, job=JOB | {"status": "CLOSED"})
    interview = data(intake.create(body), 201)
    assert interview["jobId"] != other
    jobs = data(intake.get(f"/candidates/{body['candidateId']}"))["jobIds"]
    assert jobs == [other, interview["jobId"]]
    assert [each["id"] for each in data(intake.get("/candidates", jobId=interview["jobId"]))["items"]] == [
        body["candidateId"]
    ]


@does("F1-7")
def test_f1_7_phone_interview_has_a_first_attempt_from_the_agent(intake: Intake, worker: Worker, desk: Desk) -> None:
    interview = data(intake.create(all_new(desk, scheduledAt=TOMORROW)), 201)
    assert (interview["type"], interview["status"]) == ("PHONE", "SCHEDULED")
    [attempt] = interview["callAttempts"]
    assert (attempt["status"], attempt["retryNumber"], attempt["scheduledAt"]) == ("PENDING", 0, TOMORROW)
    assert [tuple(row) for row in intake.ask("SELECT caller_number, focus FROM interviews")] == [(CALLER, "SCREENING")]


@does_not("F1-7")
def test_f1_7_online_interview_has_no_attempt(intake: Intake, worker: Worker, desk: Desk) -> None:
    interview = data(intake.create(online(desk)), 201)
    assert (interview["type"], interview["status"], interview["callAttempts"]) == ("ONLINE", "SCHEDULED", [])
    assert (intake.count("attempts"), intake.count("lines")) == (0, 0)


@does("F1-6")
def test_f1_6_online_interview_at_night_stays_scheduled(intake: Intake, worker: Worker, desk: Desk) -> None:
    interview = data(intake.create(online(desk, scheduledAt=AT_NIGHT)), 201)
    address = f"/interviews/{interview['id']}"
    assert (interview["scheduledAt"], interview["status"]) == (AT_NIGHT, "SCHEDULED")
    refused(intake.post(f"{address}/call-attempts"), 400, "CALL_ATTEMPTS_NOT_SUPPORTED")
    assert data(intake.get(f"{address}/call-attempts"))["items"] == []
    assert data(intake.patch(address, {"status": "COMPLETED"}))["status"] == "COMPLETED"
    refused(intake.patch(address, {"status": "CANCELLED"}), 409, "INTERVIEW_FINISHED")


NOBODYS = "+421000000000"
"""Well-formed but invalid numbers."""


@does("F1-6")
def test_f1_6_online_interview_does_not_validate_the_number(intake: Intake, worker: Worker, desk: Desk) -> None:
    interview = data(intake.create(online(desk, candidate=candidate(phoneNumber=NOBODYS))), 201)
    person = f"/candidates/{interview['candidateId']}"
    assert data(intake.get(person))["phoneNumber"] == NOBODYS
    again = online(desk, candidate=..., candidateId=interview["candidateId"], scheduledAt=AT_NIGHT)
    again = data(intake.create({name: value for name, value in again.items() if value is not ...}), 201)
    moved = intake.patch(f"/interviews/{again['id']}", {"scheduledAt": TOMORROW})
    assert data(moved)["scheduledAt"] == TOMORROW
    assert data(intake.patch(person, {"status": "IN_PROCESS"}))["phoneNumber"] == NOBODYS


@does_not("F1-6")
def test_f1_6_candidate_with_an_invalid_number_is_not_called(intake: Intake, worker: Worker, desk: Desk) -> None:
    interview = data(intake.create(online(desk, candidate=candidate(phoneNumber=NOBODYS))), 201)
    by_phone = {"candidateId": interview["candidateId"], "agentId": desk.agent("GENERIC")}
    before = desk.rows()
    refused(intake.create(by_phone), 400, "PHONE_NUMBER_INVALID")
    assert desk.rows() == before
    person = f"/candidates/{interview['candidateId']}"
    other = "+421000000001"
    assert data(intake.patch(person, {"phoneNumber": other}))["phoneNumber"] == other
    refused(intake.create(by_phone), 400, "PHONE_NUMBER_INVALID")
    assert data(intake.patch(person, {"phoneNumber": NUMBER}))["phoneNumber"] == NUMBER
    assert data(intake.create(by_phone), 201)["type"] == "PHONE"
    for uncallable, code in ((other, "PHONE_NUMBER_INVALID"), ("+19002345678", "NUMBER_NOT_ALLOWED")):
        content = refused(intake.patch(person, {"phoneNumber": uncallable}), 400, code)
        assert content["details"]["field"] == "phoneNumber"
    assert data(intake.get(person))["phoneNumber"] == NUMBER, "a pending call would use it"


UNCALLABLE = [
    pytest.param("+421000000000", "PHONE_NUMBER_INVALID", id="no such number"),
    pytest.param("+999123456", "PHONE_NUMBER_INVALID", id="no such country"),
    pytest.param("+19002345678", "NUMBER_NOT_ALLOWED", id="premium"),
    pytest.param("+448431234567", "NUMBER_NOT_ALLOWED", id="shared cost"),
    pytest.param("+881612345678", "NUMBER_NOT_ALLOWED", id="satellite"),
    pytest.param("+420601123456", "NUMBER_NOT_ALLOWED", id="a country that is not allowed"),
]


@does("F1-6")
@pytest.mark.parametrize(("number", "code"), UNCALLABLE)
def test_candidate_keeps_any_number_until_a_call_is_asked_for(
    intake: Intake, worker: Worker, desk: Desk, number: str, code: str
) -> None:
    _allowing_only(desk, "SK", "US", "GB")
    made = intake.made("/candidates", candidate(phoneNumber=number))
    assert made["phoneNumber"] == number
    changed = f"/candidates/{desk.person()}"
    assert data(intake.patch(changed, {"phoneNumber": number}))["phoneNumber"] == number
    agent = desk.an_agent(type="ONLINE", focus="GENERIC", companyPhoneNumberId=...)
    web = data(intake.create({"candidateId": made["id"], "agent": agent}), 201)
    assert (web["type"], web["callAttempts"]) == ("ONLINE", [])
    refused(intake.create({"candidateId": made["id"], "agentId": desk.agent("GENERIC")}), 400, code)


@does_not("F1-6")
@pytest.mark.parametrize(
    "number", ["0915123456", "+0421915123456", "+4219151234567890", "+421 915 123 456", "+42191x", ""]
)
def test_candidate_with_a_number_not_in_e164_is_refused(intake: Intake, number: str) -> None:
    answer = intake.post("/candidates", candidate(phoneNumber=number))
    [field] = refused(answer, 400, "VALIDATION_ERROR")["details"]["fields"]
    assert (field["field"], field["code"]) == ("phoneNumber", "NOT_E164")


@does_not("F1-5")
def test_f1_5_interview_does_not_exceed_the_job_limit(intake: Intake, worker: Worker, desk: Desk) -> None:
    jobs = [desk.job() for _ in range(49)]
    body = {**known(desk, *jobs), "job": JOB}
    with ThreadPoolExecutor(2) as both:
        content = list(both.map(lambda _: intake.create(body), range(2)))
    last, too_many = sorted(content, key=lambda answer: answer.status_code)
    assert len(data(intake.get(f"/candidates/{body['candidateId']}"))["jobIds"]) == 50
    assert data(last, 201)["jobId"] not in jobs
    assert refused(too_many, 400, "TOO_MANY_JOBS")["details"] == {"limit": 50, "field": "job"}
    assert intake.count("jobs") == 50
    one = {name: value for name, value in body.items() if name != "job"} | {"jobId": jobs[0]}
    assert data(intake.create(one), 201)["jobId"] == jobs[0]


@does("F1-8")
def test_f1_8_test_interview_is_completed_without_a_call(intake: Intake, worker: Worker, desk: Desk) -> None:
    interview = data(intake.create(all_new(desk, isTest=True)), 201)
    assert (interview["status"], interview["isTest"]) == ("COMPLETED", True)
    assert interview["finishedDate"] is not None
    assert [(each["status"], each["reasonCode"]) for each in interview["callAttempts"]] == [("COMPLETED", "TEST")]
    assert (intake.count("lines"), intake.count("usage")) == (0, 0)


@does("F1-8")
def test_f1_8_a_test_online_has_no_attempt(intake: Intake, worker: Worker, desk: Desk) -> None:
    interview = data(intake.create(online(desk, isTest=True)), 201)
    assert (interview["status"], interview["callAttempts"]) == ("COMPLETED", [])


# ---- refusals


@dataclass(frozen=True, kw_only=True)
class No:
    """The expected refusal of a request."""

    code: str
    status: int = 400
    details: dict[str, Any] | None = None
    """Values that the details must contain."""


def wrong(field: str, code: str) -> No:
    """The refusal of one invalid field."""
    return No(code="VALIDATION_ERROR", details={"fields": [(field, code)]})


def at(code: str, field: str) -> No:
    return No(code=code, details={"field": field})


def nothing_there(kind: str, **details: Any) -> No:
    return No(code="RESOURCE_NOT_FOUND", status=404, details={"resourceType": kind, **details})


def _named_not_assigned(desk: Desk, focus: str) -> dict[str, Any]:
    return known(desk, desk.job(), focus=focus, jobId=desk.job())


def _named_deleted(desk: Desk) -> dict[str, Any]:
    job = desk.job()
    body = known(desk, job, jobId=job)
    assert desk.intake.delete(f"/jobs/{job}").status_code == 200
    return body


def _only_one_deleted(desk: Desk) -> dict[str, Any]:
    job = desk.job()
    body = known(desk, job)
    assert desk.intake.delete(f"/jobs/{job}").status_code == 200
    return body


def _allowing_only(desk: Desk, *countries: str) -> Desk:
    settings = {"settings": {"allowedCountries": list(countries)}}
    answer = desk.intake.patch(f"/company/{desk.intake.seeded.company_id}", settings)
    assert answer.status_code == 200
    return desk


def called_at(desk: Desk, number: str) -> dict[str, Any]:
    return all_new(desk, candidate=candidate(phoneNumber=number))


ELEVEN_SKILLS = JOB | {"requiredSkills": ["a"] * 6, "niceToHaveSkills": ["b"] * 5}
REFUSED = [
    pytest.param(
        lambda desk: known(desk, candidate=candidate(), focus="GENERIC"),
        wrong("candidateId", "CONFLICTING_FIELDS"),
        id="F1-1 two candidates",
    ),
    pytest.param(
        lambda desk: {"agentId": desk.agent("GENERIC")}, wrong("candidate", "MISSING_FIELD"), id="F1-1 no candidate"
    ),
    pytest.param(
        lambda desk: new(desk, agent=desk.an_agent()), wrong("agentId", "CONFLICTING_FIELDS"), id="F1-1 two agents"
    ),
    pytest.param(lambda _: {"candidate": candidate()}, wrong("agent", "MISSING_FIELD"), id="F1-1 no agent"),
    pytest.param(
        lambda desk: new(desk, jobId=desk.job(), job=JOB), wrong("jobId", "CONFLICTING_FIELDS"), id="F1-1 two jobs"
    ),
    pytest.param(
        lambda desk: all_new(desk, scheduledAt=TOMORROW, scheduleTime=AT_NIGHT),
        wrong("scheduleTime", "CONFLICTING_FIELDS"),
        id="F1-1 two times",
    ),
    pytest.param(
        lambda desk: all_new(desk, candidate=candidate(phoneNumber="0915")),
        wrong("candidate.phoneNumber", "NOT_E164"),
        id="F1-1 a field of the new candidate",
    ),
    pytest.param(
        lambda desk: all_new(desk, agent=desk.an_agent(duration=0)),
        wrong("agent.duration", "OUT_OF_RANGE"),
        id="F1-1 a field of the new agent",
    ),
    pytest.param(
        lambda desk: all_new(desk, agent=desk.an_agent(companyPhoneNumberID=str(uuid4()))),
        wrong("agent.companyPhoneNumberID", "UNKNOWN_FIELD"),
        id="F1-1 a field that the new agent does not have",
    ),
    pytest.param(
        lambda desk: all_new(desk, job=JOB | {"title": "bee"}),
        wrong("job.title", "TOO_SHORT"),
        id="F1-1 a field of the new job",
    ),
    pytest.param(
        lambda desk: all_new(desk, job=JOB | {"requiredSkills": ["x" * 129]}),
        wrong("job.requiredSkills.0", "TOO_LONG"),
        id="F1-1 a skill of 129 characters",
    ),
    pytest.param(
        lambda desk: all_new(desk, job=JOB | {"niceToHaveSkills": [""]}),
        wrong("job.niceToHaveSkills.0", "TOO_SHORT"),
        id="F1-1 an empty skill",
    ),
    pytest.param(
        lambda desk: all_new(desk, job=ELEVEN_SKILLS),
        wrong("job.niceToHaveSkills", "TOO_MANY"),
        id="F1-1 eleven skills in both lists together",
    ),
    pytest.param(
        lambda desk: all_new(desk, scheduledAt=AT_NIGHT),
        No(code="OUTSIDE_CALL_TIME_INTERVAL"),
        id="F1-1 all new, and at night: nothing is made",
    ),
    pytest.param(
        lambda desk: all_new(desk, candidate=candidate(timezone="Mars/Olympus")),
        at("TIMEZONE_INVALID", "candidate.timezone"),
        id="F1-1 all new, and no such zone: nothing is made",
    ),
    pytest.param(
        lambda desk: {"candidateId": str(uuid4()), "agent": desk.an_agent(), "job": JOB},
        nothing_there("candidate"),
        id="F1-1 agent and job new, and no such candidate: nothing is made",
    ),
    pytest.param(
        lambda desk: {"candidate": candidate(), "agentId": desk.stranger().agent()},
        nothing_there("agent"),
        id="F1-1 another company's agent",
    ),
    pytest.param(
        lambda desk: _named_not_assigned(desk, "GENERIC"),
        No(code="JOB_NOT_ASSIGNED"),
        id="F1-2 GENERIC, and the candidate is not assigned to the named one",
    ),
    pytest.param(
        lambda desk: known(desk, desk.job(status="CLOSED")),
        No(code="JOB_REQUIRED"),
        id="F1-3 a closed job is not taken",
    ),
    pytest.param(_only_one_deleted, No(code="JOB_REQUIRED"), id="F1-3 a deleted job is not taken"),
    pytest.param(
        lambda desk: known(desk, desk.job(), desk.job(), desk.job(status="CLOSED")),
        No(code="JOB_AMBIGUOUS"),
        id="F1-4 several open jobs",
    ),
    pytest.param(known, No(code="JOB_REQUIRED"), id="F1-4 none"),
    pytest.param(new, No(code="JOB_REQUIRED"), id="F1-4 none, of a new candidate"),
    pytest.param(
        lambda desk: _named_not_assigned(desk, "LANGUAGE_TEST"),
        No(code="JOB_NOT_ASSIGNED"),
        id="F1-5 the candidate is not assigned to the named one",
    ),
    pytest.param(lambda desk: known(desk, jobId=str(uuid4())), nothing_there("job"), id="F1-5 no such job"),
    pytest.param(_named_deleted, nothing_there("job"), id="F1-5 a deleted job"),
    pytest.param(
        lambda desk: new(desk, jobId=desk.stranger().job()), nothing_there("job"), id="F1-5 another company's"
    ),
    pytest.param(
        lambda desk: new(desk, focus="GENERIC", candidate=candidate(jobId=str(uuid4()))),
        nothing_there("job"),
        id="F1-5 no such job for a new candidate",
    ),
    pytest.param(
        lambda desk: new(desk, candidate=candidate(jobId=desk.job()), jobId=desk.job()),
        wrong("candidate.jobId", "CONFLICTING_FIELDS"),
        id="F1-5 candidate.jobId together with jobId",
    ),
    pytest.param(
        lambda desk: new(desk, candidate=candidate(jobId=desk.job()), job=JOB),
        wrong("candidate.jobId", "CONFLICTING_FIELDS"),
        id="F1-5 candidate.jobId together with job",
    ),
    pytest.param(
        lambda desk: all_new(desk, candidate=candidate(phoneNumber=...)),
        at("PHONE_NUMBER_REQUIRED", "candidate.phoneNumber"),
        id="F1-6 a new candidate without a number",
    ),
    pytest.param(
        lambda desk: {"candidateId": desk.person(phoneNumber=...), "agentId": desk.agent("GENERIC")},
        No(code="PHONE_NUMBER_REQUIRED"),
        id="F1-6 an existing candidate without a number",
    ),
    pytest.param(
        lambda desk: called_at(desk, "+421000000000"),
        at("PHONE_NUMBER_INVALID", "candidate.phoneNumber"),
        id="F1-6 a number that does not exist",
    ),
    pytest.param(
        lambda desk: called_at(desk, "+19002345678"),
        at("NUMBER_NOT_ALLOWED", "candidate.phoneNumber"),
        id="F1-6 a premium number",
    ),
    pytest.param(
        lambda desk: called_at(desk, "+448431234567"),
        at("NUMBER_NOT_ALLOWED", "candidate.phoneNumber"),
        id="F1-6 a shared-cost number",
    ),
    pytest.param(
        lambda desk: called_at(desk, "+881612345678"),
        at("NUMBER_NOT_ALLOWED", "candidate.phoneNumber"),
        id="F1-6 a satellite number",
    ),
    pytest.param(
        lambda desk: all_new(_allowing_only(desk, "CZ", "GB")),
        at("NUMBER_NOT_ALLOWED", "candidate.phoneNumber"),
        id="F1-6 a country that is not allowed",
    ),
    pytest.param(
        lambda desk: all_new(desk, agent=desk.an_agent(companyPhoneNumberId=...)),
        at("COMPANY_PHONE_NUMBER_REQUIRED", "agent.companyPhoneNumberId"),
        id="F1-6 a new agent without a number",
    ),
    pytest.param(
        lambda desk: all_new(desk, agent=desk.stranger().an_agent()),
        nothing_there("phoneNumber", field="agent.companyPhoneNumberId"),
        id="F1-6 a new agent with another company's number",
    ),
    pytest.param(
        lambda desk: online(desk, scheduledAt="2026-04-02T10:00:00Z"),
        No(code="SCHEDULE_IN_PAST"),
        id="F1-6 ONLINE, past",
    ),
    pytest.param(
        lambda desk: online(desk, scheduledAt="2026-05-03T12:00:00Z"),
        No(code="SCHEDULE_TOO_FAR"),
        id="F1-6 ONLINE, more than 30 days ahead",
    ),
    pytest.param(
        lambda desk: online(desk, scheduledAt="tomorrow"), No(code="INVALID_DATE_FORMAT"), id="F1-6 ONLINE, no date"
    ),
    pytest.param(
        lambda desk: all_new(desk, isTest=True, scheduledAt=AT_NIGHT),
        No(code="OUTSIDE_CALL_TIME_INTERVAL"),
        id="F1-8 a test at night",
    ),
    pytest.param(lambda desk: new(desk, isTest=True), No(code="JOB_REQUIRED"), id="F1-8 a test without a job"),
    pytest.param(
        lambda desk: all_new(desk, isTest=True, candidate=candidate(phoneNumber=...)),
        at("PHONE_NUMBER_REQUIRED", "candidate.phoneNumber"),
        id="F1-8 a test with a candidate without a number",
    ),
]


@pytest.mark.parametrize(("ask", "no"), does_not_as_named(REFUSED))
def test_refused_interview_leaves_rows_only_in_the_inbox(
    intake: Intake, worker: Worker, desk: Desk, ask: Ask, no: No
) -> None:
    body = ask(desk)
    before = desk.rows()
    content = refused(intake.create(body), no.status, no.code)
    details = content.get("details") or {}
    if "fields" in details:
        details = {"fields": [(each["field"], each["code"]) for each in details["fields"]]}
    assert {name: details.get(name) for name in no.details or {}} == (no.details or {})
    assert desk.rows() == before
    bodies = intake.ask("SELECT body FROM inbox WHERE kind = 'create_interview'")
    assert [row[0] for row in bodies] in ([], [None])


# ---- titles are not stored


@does_not("F1-4")
def test_f1_4_jobs_to_choose_from_have_their_current_titles(intake: Intake, worker: Worker, desk: Desk) -> None:
    jobs = [desk.job(title=f"Beekeeper {number}") for number in range(2)]
    body = known(desk, *jobs)
    key = {"Idempotency-Key": "a key"}
    error = refused(intake.create(body, headers=key), 400, "JOB_AMBIGUOUS")
    titles = {jobs[0]: "Beekeeper 0", jobs[1]: "Beekeeper 1"}
    assert {each["id"]: each["title"] for each in error["details"]["jobs"]} == titles
    assert "jobId" in error["message"]
    assert "Beekeeper" not in kept(intake)
    assert data(intake.get("/commands/a key"))["result"]["details"] == error["details"]
    assert intake.patch(f"/jobs/{jobs[0]}", {"title": "Farrier"}).status_code == 200
    assert intake.delete(f"/jobs/{jobs[1]}").status_code == 200
    again = intake.create(body, headers=key)
    assert again.headers["Idempotent-Replayed"] == "true"
    error = refused(again, 400, "JOB_AMBIGUOUS")
    assert {each["id"]: each["title"] for each in error["details"]["jobs"]} == {jobs[0]: "Farrier", jobs[1]: None}


def test_answer_repeated_after_an_erasure_names_no_candidate(intake: Intake, worker: Worker, desk: Desk) -> None:
    key = {"Idempotency-Key": "a key"}
    body = all_new(desk, scheduledAt=TOMORROW)
    first = data(intake.create(body, headers=key), 201)
    for path in (f"/candidates/{first['candidateId']}", f"/agents/{first['agentId']}", f"/jobs/{first['jobId']}"):
        assert data(intake.delete(path)) is True
    again = intake.create(body, headers=key)
    assert without_now(data(again, 201)) == without_now(first)
    everything = kept(intake) + again.text + intake.get("/commands/a key").text
    for secret in (FIRST_NAME, LAST_NAME, EMAIL, NUMBER, JOB["title"], AGENT_NAME, CALLER):
        assert secret not in everything


def kept(intake: Intake) -> str:
    """All contents of the inbox."""
    return "".join(str(row[0]) for row in intake.ask("SELECT inbox::text FROM inbox"))


# ---- once


@does("F1-1")
def test_fifty_requests_with_one_key_create_one_interview(intake: Intake, worker: Worker, desk: Desk) -> None:
    body = all_new(desk, scheduledAt=TOMORROW)
    headers = {"Idempotency-Key": "a key", "Prefer": "wait=30"}
    before = desk.rows()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: intake.create(body, headers=headers), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({str(data(answer, 201)) for answer in answers}) == 1
    assert desk.rows() == {table: count + 1 for table, count in before.items()}
    refused(intake.create(body | {"job": JOB | {"title": "Another"}}, headers=headers), 422, "IDEMPOTENCY_KEY_REUSED")
    assert desk.rows() == {table: count + 1 for table, count in before.items()}


def test_fifty_requests_without_a_key_create_fifty(intake: Intake, worker: Worker, desk: Desk) -> None:
    agent = desk.agent("GENERIC")
    with ThreadPoolExecutor(50) as pool:
        answers = list(
            pool.map(
                lambda _: intake.create(
                    {"candidate": candidate(), "agentId": agent, "scheduledAt": TOMORROW}, headers={"Prefer": "wait=30"}
                ),
                range(50),
            )
        )
    assert {answer.status_code for answer in answers} == {201}
    assert intake.count("interviews") == 50


# ---- at the same time


@does("F1-5")
def test_f1_5_concurrent_candidate_change_keeps_the_new_job(intake: Intake, desk: Desk) -> None:
    job, person = desk.job(), desk.person()
    with ThreadPoolExecutor(1) as pool:
        with intake.database.transaction() as stores:
            theirs = stores.candidates.lock(intake.seeded.company_id, UUID(person), shared=True)
            assert theirs is not None
            stores.candidates.assign(theirs, [UUID(job)], intake.now())
            change = pool.submit(intake.send, "PATCH", f"/candidates/{person}", json={"status": "IN_PROCESS"})
            wait_until(lambda: _somebody_waits_for_a_lock(intake), says="the change waits for the candidate")
        changed = data(change.result())
    assert (changed["status"], changed["jobIds"]) == ("IN_PROCESS", [job])
    assert data(intake.get(f"/candidates/{person}"))["jobIds"] == [job]


@does_not("F1-5")
def test_f1_5_deleted_job_does_not_return_by_a_candidate_change(intake: Intake, desk: Desk) -> None:
    job = desk.job()
    person = desk.person(job)
    with ThreadPoolExecutor(1) as pool, intake.database.transaction() as stores:
        stores.jobs.delete(UUID(job), intake.now())
        change = pool.submit(intake.send, "PATCH", f"/candidates/{person}", json={"status": "IN_PROCESS"})
        data(change.result())
    assert data(intake.get(f"/candidates/{person}"))["jobIds"] == []


def _somebody_waits_for_a_lock(intake: Intake) -> bool:
    return bool(intake.ask("SELECT 1 FROM pg_locks WHERE NOT granted"))
