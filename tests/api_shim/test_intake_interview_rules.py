"""The rules F1 over HTTP: candidate, agent and job of an interview, and refusals, which leave no rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from tests.api_shim.answers import data, refused, without_now, wrong_fields
from tests.api_shim.bodies import EMAIL, FIRST_NAME, JOB, LAST_NAME, NUMBER, TOMORROW, candidate
from tests.api_shim.intake import KEY, Intake, Worker
from tests.api_shim.interview_requests import AGENT_NAME, AT_NIGHT, Ask, Resources, all_new, known, new, online
from tests.architecture.rules import does, does_not
from tests.conftest import CALLER, wait_until

# ---- created resources


AskWithJob = Callable[[Resources, str], dict[str, Any]]
"""Returns the body of a request, for an open job."""
_TAKEN: list[tuple[str, bool, AskWithJob]] = [
    ("F1-2 GENERIC takes no job, not even the only one", False, lambda api, job: known(api, job, focus="GENERIC")),
    ("F1-2 GENERIC needs none", False, lambda api, _: new(api, focus="GENERIC")),
    ("F1-2 GENERIC takes a named job", True, lambda api, job: known(api, job, focus="GENERIC", jobId=job)),
    (
        "F1-2 GENERIC takes candidate.jobId",
        True,
        lambda api, job: new(api, focus="GENERIC", candidate=candidate(jobId=job)),
    ),
    (
        "F1-3 the only open job among closed ones",
        True,
        lambda api, job: known(api, api.job(status="CLOSED"), job, api.job(status="CLOSED")),
    ),
    ("F1-4 several open jobs, one named", True, lambda api, job: known(api, api.job(), job, jobId=job)),
    (
        "F1-5 a job that is named may be closed",
        True,
        lambda api, job: known(api, api.closed(job), api.job(), jobId=job),
    ),
    ("F1-5 jobId with a new candidate", True, lambda api, job: new(api, jobId=job)),
    ("F1-5 candidate.jobId", True, lambda api, job: new(api, candidate=candidate(jobId=job))),
]


@does("F1-2", "F1-3", "F1-4", "F1-5")
def test_job_of_an_interview_follows_the_rules(intake: Intake, worker: Worker, api: Resources) -> None:
    for case, takes, ask in _TAKEN:
        job = api.job()
        body = ask(api, job)
        jobs = intake.count("jobs")
        interview = data(intake.create(body), 201)
        expected = job if takes else None
        assert interview["jobId"] == expected, case
        assert data(intake.get(f"/interviews/{interview['id']}"))["jobId"] == expected
        person = data(intake.get(f"/candidates/{interview['candidateId']}"))
        assert expected is None or expected in person["jobIds"]
        assert intake.count("jobs") == jobs, case


@does("F1-1")
def test_f1_1_candidate_agent_and_job_are_created_together(intake: Intake, worker: Worker, api: Resources) -> None:
    job = JOB | {"requiredSkills": ["smoke"], "niceToHaveSkills": ["honey"], "metadata": {"ref": "J-1"}}
    agent = api.an_agent(questions=["Which bee?"], voiceId="EVA", metadata={"ref": "A-1"})
    person = candidate(timezone="Europe/Prague")
    body = {"candidate": person, "agent": agent, "job": job, "scheduledAt": TOMORROW, "metadata": {"ref": "I-1"}}
    before = api.rows()
    interview = data(intake.create(body), 201)
    assert api.rows() == {table: count + 1 for table, count in before.items()}
    shown = data(intake.get(f"/candidates/{interview['candidateId']}"))
    assert {name: shown[name] for name in person} == person
    assert (shown["jobIds"], shown["interviewCount"]) == ([interview["jobId"]], 1)
    shown = data(intake.get(f"/agents/{interview['agentId']}"))
    assert {name: shown[name] for name in agent} == agent
    shown = data(intake.get(f"/jobs/{interview['jobId']}"))
    assert {name: shown[name] for name in job} == job
    assert (interview["metadata"], interview["isTest"], interview["scheduledAt"]) == ({"ref": "I-1"}, False, TOMORROW)
    assert len(intake.ask("SELECT created_at FROM candidates UNION SELECT created_at FROM jobs")) == 1
    assert intake.ask("SELECT body FROM inbox WHERE kind = 'create_interview'")[0][0] is None


@does("F1-1")
def test_f1_1_existing_ids_are_used_and_nothing_else_is_created(intake: Intake, worker: Worker, api: Resources) -> None:
    job = api.job()
    body = known(api, job, jobId=job, scheduleTime=TOMORROW, expiresAt="2026-04-04T18:00:00Z")
    before = api.rows()
    interview = data(intake.create(body), 201)
    for name in ("candidateId", "agentId", "jobId", "expiresAt"):
        assert interview[name] == body[name]
    assert interview["scheduledAt"] == TOMORROW
    after = api.rows()
    assert [after[each] - before[each] for each in ("candidates", "agents", "jobs", "assignments")] == [0] * 4


@does("F1-5")
def test_f1_5_existing_candidate_is_assigned_to_a_new_job(intake: Intake, worker: Worker, api: Resources) -> None:
    other = api.job()
    body = known(api, other, job=JOB | {"status": "CLOSED"})
    interview = data(intake.create(body), 201)
    assert interview["jobId"] != other
    assert data(intake.get(f"/candidates/{body['candidateId']}"))["jobIds"] == [other, interview["jobId"]]
    [assigned] = data(intake.get("/candidates", jobId=interview["jobId"]))["items"]
    assert assigned["id"] == body["candidateId"]


@does("F1-7")
def test_f1_7_phone_interview_has_a_first_attempt_from_the_agent(
    intake: Intake, worker: Worker, api: Resources
) -> None:
    interview = data(intake.create(all_new(api, scheduledAt=TOMORROW)), 201)
    assert (interview["type"], interview["status"]) == ("PHONE", "SCHEDULED")
    [attempt] = interview["callAttempts"]
    assert (attempt["status"], attempt["retryNumber"], attempt["scheduledAt"]) == ("PENDING", 0, TOMORROW)
    assert [tuple(row) for row in intake.ask("SELECT caller_number, focus FROM interviews")] == [(CALLER, "SCREENING")]


@does_not("F1-7")
def test_f1_7_online_interview_has_no_attempt(intake: Intake, worker: Worker, api: Resources) -> None:
    interview = data(intake.create(online(api)), 201)
    assert (interview["type"], interview["status"], interview["callAttempts"]) == ("ONLINE", "SCHEDULED", [])
    assert (intake.count("attempts"), intake.count("lines")) == (0, 0)


@does("F1-6")
def test_f1_6_online_interview_at_night_stays_scheduled(intake: Intake, worker: Worker, api: Resources) -> None:
    interview = data(intake.create(online(api, scheduledAt=AT_NIGHT)), 201)
    address = f"/interviews/{interview['id']}"
    assert (interview["scheduledAt"], interview["status"]) == (AT_NIGHT, "SCHEDULED")
    refused(intake.post(f"{address}/call-attempts"), 400, "CALL_ATTEMPTS_NOT_SUPPORTED")
    assert data(intake.get(f"{address}/call-attempts"))["items"] == []
    assert data(intake.patch(address, {"status": "COMPLETED"}))["status"] == "COMPLETED"
    refused(intake.patch(address, {"status": "CANCELLED"}), 409, "INTERVIEW_FINISHED")


UNASSIGNED = "+421000000000"
"""A well-formed but invalid number."""


@does("F1-6")
def test_f1_6_online_interview_does_not_validate_the_number(intake: Intake, worker: Worker, api: Resources) -> None:
    interview = data(intake.create(online(api, candidate=candidate(phoneNumber=UNASSIGNED))), 201)
    person = f"/candidates/{interview['candidateId']}"
    assert data(intake.get(person))["phoneNumber"] == UNASSIGNED
    again = online(api, candidate=..., candidateId=interview["candidateId"], scheduledAt=AT_NIGHT)
    again = data(intake.create({name: value for name, value in again.items() if value is not ...}), 201)
    assert data(intake.patch(f"/interviews/{again['id']}", {"scheduledAt": TOMORROW}))["scheduledAt"] == TOMORROW
    assert data(intake.patch(person, {"status": "IN_PROCESS"}))["phoneNumber"] == UNASSIGNED


@does_not("F1-6")
def test_f1_6_candidate_with_an_invalid_number_is_not_called(intake: Intake, worker: Worker, api: Resources) -> None:
    interview = data(intake.create(online(api, candidate=candidate(phoneNumber=UNASSIGNED))), 201)
    by_phone = {"candidateId": interview["candidateId"], "agentId": api.agent("GENERIC")}
    before = api.rows()
    refused(intake.create(by_phone), 400, "PHONE_NUMBER_INVALID")
    assert api.rows() == before
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


UNCALLABLE = (
    ("+421000000000", "PHONE_NUMBER_INVALID"),  # no such number
    ("+999123456", "PHONE_NUMBER_INVALID"),  # no such country
    ("+19002345678", "NUMBER_NOT_ALLOWED"),  # premium
    ("+448431234567", "NUMBER_NOT_ALLOWED"),  # shared cost
    ("+881612345678", "NUMBER_NOT_ALLOWED"),  # satellite
    ("+420601123456", "NUMBER_NOT_ALLOWED"),  # a country that is not allowed
)


@does("F1-6")
def test_candidate_keeps_any_number_until_a_call_is_asked_for(intake: Intake, worker: Worker, api: Resources) -> None:
    api.with_settings(allowedCountries=["SK", "US", "GB"])
    agent = api.an_agent(type="ONLINE", focus="GENERIC", companyPhoneNumberId=...)
    caller = api.agent("GENERIC")
    for number, code in UNCALLABLE:
        made = intake.made("/candidates", candidate(phoneNumber=number))
        assert made["phoneNumber"] == number
        changed = f"/candidates/{api.person()}"
        assert data(intake.patch(changed, {"phoneNumber": number}))["phoneNumber"] == number
        web = data(intake.create({"candidateId": made["id"], "agent": agent}), 201)
        assert (web["type"], web["callAttempts"]) == ("ONLINE", [])
        refused(intake.create({"candidateId": made["id"], "agentId": caller}), 400, code)


@does_not("F1-6")
def test_candidate_with_a_number_not_in_e164_is_refused(intake: Intake) -> None:
    for number in ("0915123456", "+0421915123456", "+4219151234567890", "+421 915 123 456", "+42191x", ""):
        assert wrong_fields(intake.post("/candidates", candidate(phoneNumber=number))) == [("phoneNumber", "NOT_E164")]


@does_not("F1-5")
def test_f1_5_interview_does_not_exceed_the_job_limit(intake: Intake, worker: Worker, api: Resources) -> None:
    jobs = [api.job() for _ in range(49)]
    body = {**known(api, *jobs), "job": JOB}
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
def test_f1_8_test_interview_is_completed_without_a_call(intake: Intake, worker: Worker, api: Resources) -> None:
    interview = data(intake.create(all_new(api, isTest=True)), 201)
    assert (interview["status"], interview["isTest"]) == ("COMPLETED", True)
    assert interview["finishedDate"] is not None
    assert [(each["status"], each["reasonCode"]) for each in interview["callAttempts"]] == [("COMPLETED", "TEST")]
    assert (intake.count("lines"), intake.count("usage")) == (0, 0)


@does("F1-8")
def test_f1_8_a_test_online_has_no_attempt(intake: Intake, worker: Worker, api: Resources) -> None:
    interview = data(intake.create(online(api, isTest=True)), 201)
    assert (interview["status"], interview["callAttempts"]) == ("COMPLETED", [])


# ---- refusals


@dataclass(frozen=True)
class No:
    """The expected refusal of a request."""

    code: str
    details: dict[str, Any] = field(default_factory=dict)
    """Values that the details must contain."""
    status: int = 400


def wrong(name: str, code: str) -> No:
    """The refusal of one invalid field."""
    return No("VALIDATION_ERROR", {"fields": [(name, code)]})


def conflicting(name: str) -> No:
    return wrong(name, "CONFLICTING_FIELDS")


def at(code: str, name: str) -> No:
    return No(code, {"field": name})


def nothing_there(kind: str, **details: Any) -> No:
    return No("RESOURCE_NOT_FOUND", {"resourceType": kind, **details}, status=404)


def _named_not_assigned(api: Resources, focus: str) -> dict[str, Any]:
    return known(api, api.job(), focus=focus, jobId=api.job())


def _deleted(api: Resources, *, named: bool) -> dict[str, Any]:
    """Build a request with a candidate who is assigned to a deleted job."""
    job = api.job()
    body = known(api, job, **({"jobId": job} if named else {}))
    assert api.intake.delete(f"/jobs/{job}").status_code == 200
    return body


def called_at(api: Resources, number: Any) -> dict[str, Any]:
    return all_new(api, candidate=candidate(phoneNumber=number))


def with_job(api: Resources, **changes: Any) -> dict[str, Any]:
    return all_new(api, job=JOB | changes)


ELEVEN_SKILLS = {"requiredSkills": ["a"] * 6, "niceToHaveSkills": ["b"] * 5}
AT_NIGHT_REFUSED = No("OUTSIDE_CALL_TIME_INTERVAL")
NUMBER_REQUIRED = at("PHONE_NUMBER_REQUIRED", "candidate.phoneNumber")
NUMBER_NOT_ALLOWED = at("NUMBER_NOT_ALLOWED", "candidate.phoneNumber")
JOB_REQUIRED, NOT_ASSIGNED = No("JOB_REQUIRED"), No("JOB_NOT_ASSIGNED")
_REFUSED: list[tuple[str, No, Ask]] = [
    ("F1-1 no candidate", wrong("candidate", "MISSING_FIELD"), lambda api: {"agentId": api.agent("GENERIC")}),
    ("F1-1 two agents", conflicting("agentId"), lambda api: new(api, agent=api.an_agent())),
    ("F1-1 two jobs", conflicting("jobId"), lambda api: new(api, jobId=api.job(), job=JOB)),
    (
        "F1-1 a field of the new agent",
        wrong("agent.duration", "OUT_OF_RANGE"),
        lambda api: all_new(api, agent=api.an_agent(duration=0)),
    ),
    (
        "F1-1 a field that the new agent does not have",
        wrong("agent.companyPhoneNumberID", "UNKNOWN_FIELD"),
        lambda api: all_new(api, agent=api.an_agent(companyPhoneNumberID=str(uuid4()))),
    ),
    ("F1-1 a field of the new job", wrong("job.title", "TOO_SHORT"), lambda api: with_job(api, title="bee")),
    (
        "F1-1 a skill of 129 characters",
        wrong("job.requiredSkills.0", "TOO_LONG"),
        lambda api: with_job(api, requiredSkills=["x" * 129]),
    ),
    (
        "F1-1 eleven skills in both lists together",
        wrong("job.niceToHaveSkills", "TOO_MANY"),
        lambda api: with_job(api, **ELEVEN_SKILLS),
    ),
    ("F1-1 all new, and at night: nothing is made", AT_NIGHT_REFUSED, lambda api: all_new(api, scheduledAt=AT_NIGHT)),
    (
        "F1-1 agent and job new, and no such candidate: nothing is made",
        nothing_there("candidate"),
        lambda api: {"candidateId": str(uuid4()), "agent": api.an_agent(), "job": JOB},
    ),
    (
        "F1-1 another company's agent",
        nothing_there("agent"),
        lambda api: {"candidate": candidate(), "agentId": api.stranger().agent()},
    ),
    (
        "F1-2 GENERIC, and the candidate is not assigned to the named one",
        NOT_ASSIGNED,
        lambda api: _named_not_assigned(api, "GENERIC"),
    ),
    ("F1-3 a closed job is not taken", JOB_REQUIRED, lambda api: known(api, api.job(status="CLOSED"))),
    ("F1-3 a deleted job is not taken", JOB_REQUIRED, lambda api: _deleted(api, named=False)),
    (
        "F1-4 several open jobs",
        No("JOB_AMBIGUOUS"),
        lambda api: known(api, api.job(), api.job(), api.job(status="CLOSED")),
    ),
    ("F1-4 none", JOB_REQUIRED, known),
    (
        "F1-5 the candidate is not assigned to the named one",
        NOT_ASSIGNED,
        lambda api: _named_not_assigned(api, "LANGUAGE_TEST"),
    ),
    ("F1-5 a deleted job", nothing_there("job"), lambda api: _deleted(api, named=True)),
    ("F1-5 another company's", nothing_there("job"), lambda api: new(api, jobId=api.stranger().job())),
    (
        "F1-5 no such job for a new candidate",
        nothing_there("job"),
        lambda api: new(api, focus="GENERIC", candidate=candidate(jobId=str(uuid4()))),
    ),
    (
        "F1-5 candidate.jobId together with jobId",
        conflicting("candidate.jobId"),
        lambda api: new(api, candidate=candidate(jobId=api.job()), jobId=api.job()),
    ),
    ("F1-6 a new candidate without a number", NUMBER_REQUIRED, lambda api: called_at(api, ...)),
    (
        "F1-6 an existing candidate without a number",
        No("PHONE_NUMBER_REQUIRED"),
        lambda api: {"candidateId": api.person(phoneNumber=...), "agentId": api.agent("GENERIC")},
    ),
    (
        "F1-6 a number that does not exist",
        at("PHONE_NUMBER_INVALID", "candidate.phoneNumber"),
        lambda api: called_at(api, "+421000000000"),
    ),
    ("F1-6 a premium number", NUMBER_NOT_ALLOWED, lambda api: called_at(api, "+19002345678")),
    (
        "F1-6 a country that is not allowed",
        NUMBER_NOT_ALLOWED,
        lambda api: all_new(api.with_settings(allowedCountries=["CZ", "GB"])),
    ),
    (
        "F1-6 a new agent without a number",
        at("COMPANY_PHONE_NUMBER_REQUIRED", "agent.companyPhoneNumberId"),
        lambda api: all_new(api, agent=api.an_agent(companyPhoneNumberId=...)),
    ),
    (
        "F1-6 a new agent with another company's number",
        nothing_there("phoneNumber", field="agent.companyPhoneNumberId"),
        lambda api: all_new(api, agent=api.stranger().an_agent()),
    ),
    ("F1-6 ONLINE, past", No("SCHEDULE_IN_PAST"), lambda api: online(api, scheduledAt="2026-04-02T10:00:00Z")),
    (
        "F1-6 ONLINE, more than 30 days ahead",
        No("SCHEDULE_TOO_FAR"),
        lambda api: online(api, scheduledAt="2026-05-03T12:00:00Z"),
    ),
    ("F1-8 a test at night", AT_NIGHT_REFUSED, lambda api: all_new(api, isTest=True, scheduledAt=AT_NIGHT)),
    ("F1-8 a test without a job", JOB_REQUIRED, lambda api: new(api, isTest=True)),
    (
        "F1-8 a test with a candidate without a number",
        NUMBER_REQUIRED,
        lambda api: {**called_at(api, ...), "isTest": True},
    ),
]


@does_not("F1-1", "F1-2", "F1-3", "F1-4", "F1-5", "F1-6", "F1-8")
def test_refused_interview_leaves_rows_only_in_the_inbox(intake: Intake, worker: Worker, api: Resources) -> None:
    usual = data(intake.get(intake.company))["settings"]["allowedCountries"]
    for case, no, ask in _REFUSED:
        body = ask(api)
        before = api.rows()
        details = refused(intake.create(body), no.status, no.code).get("details") or {}
        if "fields" in details:
            details = {"fields": [(each["field"], each["code"]) for each in details["fields"]]}
        assert {name: details.get(name) for name in no.details} == no.details, case
        assert api.rows() == before, case
        intake.set_settings(allowedCountries=usual)
    bodies = intake.ask("SELECT body FROM inbox WHERE kind = 'create_interview'")
    assert {row[0] for row in bodies} == {None}


# ---- titles are not stored


@does_not("F1-4")
def test_f1_4_jobs_to_choose_from_have_their_current_titles(intake: Intake, worker: Worker, api: Resources) -> None:
    jobs = [api.job(title=f"Beekeeper {number}") for number in range(2)]
    body = known(api, *jobs)
    error = refused(intake.create(body, headers=KEY), 400, "JOB_AMBIGUOUS")
    titles = {jobs[0]: "Beekeeper 0", jobs[1]: "Beekeeper 1"}
    assert {each["id"]: each["title"] for each in error["details"]["jobs"]} == titles
    assert "jobId" in error["message"]
    assert "Beekeeper" not in kept(intake)
    assert data(intake.get("/commands/k"))["result"]["details"] == error["details"]
    assert intake.patch(f"/jobs/{jobs[0]}", {"title": "Farrier"}).status_code == 200
    assert intake.delete(f"/jobs/{jobs[1]}").status_code == 200
    again = intake.create(body, headers=KEY)
    assert again.headers["Idempotent-Replayed"] == "true"
    error = refused(again, 400, "JOB_AMBIGUOUS")
    assert {each["id"]: each["title"] for each in error["details"]["jobs"]} == {jobs[0]: "Farrier", jobs[1]: None}


def test_answer_repeated_after_an_erasure_names_no_candidate(intake: Intake, worker: Worker, api: Resources) -> None:
    body = all_new(api, scheduledAt=TOMORROW)
    first = data(intake.create(body, headers=KEY), 201)
    for path in (f"/candidates/{first['candidateId']}", f"/agents/{first['agentId']}", f"/jobs/{first['jobId']}"):
        assert data(intake.delete(path)) is True
    again = intake.create(body, headers=KEY)
    assert without_now(data(again, 201)) == without_now(first)
    everything = kept(intake) + again.text + intake.get("/commands/k").text
    for secret in (FIRST_NAME, LAST_NAME, EMAIL, NUMBER, JOB["title"], AGENT_NAME, CALLER):
        assert secret not in everything


def kept(intake: Intake) -> str:
    """All contents of the inbox."""
    return "".join(str(row[0]) for row in intake.ask("SELECT inbox::text FROM inbox"))


# ---- once


@does("F1-1")
def test_fifty_requests_with_one_key_create_one_interview(intake: Intake, worker: Worker, api: Resources) -> None:
    body = all_new(api, scheduledAt=TOMORROW)
    headers = {**KEY, "Prefer": "wait=30"}
    before = api.rows()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: intake.create(body, headers=headers), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({str(data(answer, 201)) for answer in answers}) == 1
    assert api.rows() == {table: count + 1 for table, count in before.items()}
    refused(intake.create(body | {"job": JOB | {"title": "Another"}}, headers=headers), 422, "IDEMPOTENCY_KEY_REUSED")
    assert api.rows() == {table: count + 1 for table, count in before.items()}


def test_fifty_requests_without_a_key_create_fifty(intake: Intake, worker: Worker, api: Resources) -> None:
    body = {"candidate": candidate(), "agentId": api.agent("GENERIC"), "scheduledAt": TOMORROW}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: intake.create(body, headers={"Prefer": "wait=30"}), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert intake.count("interviews") == 50


# ---- at the same time


@does("F1-5")
def test_f1_5_concurrent_candidate_change_keeps_the_new_job(intake: Intake, api: Resources) -> None:
    job, person = api.job(), api.person()
    with ThreadPoolExecutor(1) as pool:
        with intake.database.transaction() as stores:
            theirs = stores.candidates.lock(intake.seeded.company_id, UUID(person), shared=True)
            assert theirs is not None
            stores.candidates.assign(theirs, [UUID(job)], intake.now())
            change = pool.submit(intake.send, "PATCH", f"/candidates/{person}", json={"status": "IN_PROCESS"})
            wait_until(lambda: _a_session_waits_for_a_lock(intake), says="the change waits for the candidate")
        changed = data(change.result())
    assert (changed["status"], changed["jobIds"]) == ("IN_PROCESS", [job])
    assert data(intake.get(f"/candidates/{person}"))["jobIds"] == [job]


@does_not("F1-5")
def test_f1_5_deleted_job_does_not_return_by_a_candidate_change(intake: Intake, api: Resources) -> None:
    job = api.job()
    person = api.person(job)
    with ThreadPoolExecutor(1) as pool, intake.database.transaction() as stores:
        stores.jobs.delete(UUID(job), intake.now())
        change = pool.submit(intake.send, "PATCH", f"/candidates/{person}", json={"status": "IN_PROCESS"})
        data(change.result())
    assert data(intake.get(f"/candidates/{person}"))["jobIds"] == []


def _a_session_waits_for_a_lock(intake: Intake) -> bool:
    return bool(intake.ask("SELECT 1 FROM pg_locks WHERE NOT granted"))
