"""Thousands of requests generated from the public document, over HTTP with a real worker. Each response must fit it.

`make test` sends some hundreds. `DUECALL_FUZZ_CASES`, set by `make proof`, is the number of random cases per operation,
and adds every case at the bounds of the document. Apart from ids, each run makes the same choices. A failure is
reported with a command that repeats the request.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api_shim.app import create_app
from scheduler.domain.attempt import Attempt, Progressed
from scheduler.domain.call import CallProgress
from scheduler.domain.principal import KeyKind
from scheduler.hashing import Hasher
from scheduler.use_cases.operations.number_events import NumberEvents
from tests.api_shim.answers import data
from tests.api_shim.bodies import EVERY_DAY, JOB, candidate
from tests.api_shim.document_operations import DOCUMENT
from tests.api_shim.intake import PEPPER, Intake, Worker, a_worker
from tests.api_shim.owners import deliver
from tests.conftest import CALLER, Seeded
from tests.support.builders import RecordingHints, a_placed_attempt, a_tenant
from tests.support.servers import serving
from tests.support.smtp_server import a_post_office

CASES = int(os.environ.get("DUECALL_FUZZ_CASES", "0"))
PHASES = "examples,coverage,fuzzing,stateful" if CASES else "examples,fuzzing,stateful"
AT_LEAST = 2000 if CASES else 300
ACCEPTED = 0.3
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "response_schema_conformance",
    "content_type_conformance",
    "ignored_auth",
    "use_after_free",
)
WEBHOOK = {"url": "https://hooks.example.com", "events": ["ping"]}
HOOKS = Path(__file__).parent / "fuzz_hooks.py"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request and its response."""

    phase: str
    operation: str
    method: str
    status: int

    @property
    def is_accepted(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, kw_only=True)
class Ran:
    code: int
    said: str
    sent: list[Sent]
    failed: set[str]
    """The checks that failed."""


@pytest.mark.timeout(1800)
def test_every_response_to_random_requests_fits_the_document(
    intake: Intake, worker: Worker, folder: Path, aloud: Callable[[str], None]
) -> None:
    ran = _run(intake, folder, CASES, "--phases", PHASES)
    assert ran.code == 0, ran.said
    assert not ran.failed
    posts = [each for each in ran.sent if each.method == "POST"]
    share = sum(each.is_accepted for each in posts) / len(posts)
    by_phase = Counter(each.phase for each in ran.sent)
    aloud(f"{len(ran.sent)} requests ({dict(by_phase)}), {len(posts)} POSTs, {share:.0%} of them accepted")
    assert set(by_phase) == set(PHASES.split(","))
    assert len(ran.sent) >= AT_LEAST
    assert share >= ACCEPTED
    assert _never_accepted(ran.sent) == set()


class _Liar:
    """The API with violations of its document, one per kind of check."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        match scope["method"], scope["path"].split("/")[1:]:
            case "GET", ["healthz"]:
                answer: ASGIApp = JSONResponse(_told(None), 500)
            case "GET", ["jobs"]:
                answer = JSONResponse(_told(None), 418)
            case "GET", ["phone-numbers"]:
                answer = JSONResponse(_told({"items": "none"}))
            case "GET", ["billing", _]:
                answer = PlainTextResponse("nothing")
            case "DELETE", ["jobs", _]:
                answer = JSONResponse(_told(data=True))
            case "GET", ["company"]:  # for any key
                headers = MutableHeaders(scope=scope)
                headers["Authorization"] = f"Bearer {self._key}"
                answer = self._app
            case _:
                answer = self._app
        await answer(scope, receive, send)


def _told(data: Any) -> dict[str, Any]:
    return {"success": True, "data": data, "error": None, "timestamp": "2026-04-02T12:00:00Z", "traceId": "0" * 32}


@pytest.mark.skipif(not CASES, reason="a test of the checks: make proof")
@pytest.mark.timeout(1800)
def test_each_check_finds_an_api_that_breaks_the_document(intake: Intake, folder: Path) -> None:
    key = intake.with_new_key(kind=KeyKind.ATS).key
    liar = _Liar(create_app(intake.settings), key)
    with a_worker(intake.settings), serving(liar) as url, httpx.Client(base_url=url, timeout=60) as client:
        lied_to = replace(intake, client=client)
        ran = [
            _run(lied_to, folder, 0, "--phases", phase, "--include-operation-id-regex", of_interest)
            for phase, of_interest in (
                ("fuzzing", "Job|isAlive|listPhoneNumbers|getUsage|listCompanies"),
                # Only these: among more operations, few of the random steps read a job that was deleted.
                ("stateful", "(create|get|delete)Job$"),
            )
        ]
    assert {each.code for each in ran} == {1}
    assert set().union(*(each.failed for each in ran)) == set(CHECKS)


def _never_accepted(sent: list[Sent]) -> set[str]:
    """Operations without one successful request, whose responses were therefore not checked."""
    content = json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]
    every = {f"{method.upper()} {path}" for path, operations in content.items() for method in operations}
    return every - {each.operation for each in sent if each.is_accepted}


def _run(intake: Intake, folder: Path, cases: int, *words: str) -> Ran:
    """Run schemathesis on the API with an ATS key and a company with several of each resource."""
    ats = intake.with_new_key(kind=KeyKind.ATS)
    tenant, orders, report = folder / "tenant.json", folder / "schemathesis.toml", folder / "report.ndjson"
    tenant.write_text(json.dumps(_a_tenant_with_high_limits(ats)), encoding="utf-8")
    orders.write_text(_orders(ats.key, cases), encoding="utf-8")
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(orders), "run", *words),
            *("--report-ndjson-path", str(report), "--url", str(intake.client.base_url), str(DOCUMENT)),
        ],
        cwd=folder,
        env={**os.environ, "DUECALL_FUZZ_HOUSE": str(tenant)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert report.is_file(), ran.stdout + ran.stderr
    scenarios = list(_scenarios(report))
    return Ran(
        code=ran.returncode,
        said=ran.stdout + ran.stderr,
        sent=[each for scenario in scenarios for each in _sent(scenario)],
        failed={check for scenario in scenarios for check in _failed(scenario)},
    )


def _orders(key: str, cases: int) -> str:
    checks = "".join(f"{name}.enabled = true\n" for name in CHECKS)
    return f"""
hooks = {json.dumps(str(HOOKS))}
continue-on-failure = true
request-timeout = 60

[auth.openapi.apiKey]
bearer = "{key}"

[generation]
deterministic = true
database = "none"
max-examples = {cases or 8}

[phases.stateful]
generation.max-examples = {cases * 10 or 30}

[checks]
enabled = false
{checks}"""


def _scenarios(report: Path) -> Iterator[dict[str, Any]]:
    with report.open(encoding="utf-8") as lines:
        for line in lines:
            content = json.loads(line)
            if "ScenarioFinished" in content:
                yield content["ScenarioFinished"]


def _sent(scenario: dict[str, Any]) -> Iterator[Sent]:
    """Requests sent to an operation, without those with an unsupported method."""
    recorder = scenario["recorder"]
    for case_id, interaction in recorder.get("interactions", {}).items():
        case = recorder["cases"][case_id]["value"]
        yield Sent(
            phase=scenario["phase"],
            operation=f"{case['method']} {case['path']}",
            method=case["method"],
            status=interaction["response"]["status_code"],
        )


def _failed(scenario: dict[str, Any]) -> Iterator[str]:
    for checks in scenario["recorder"].get("checks", {}).values():
        yield from (each["name"] for each in checks if each["status"] == "failure")


def _a_tenant_with_high_limits(ats: Intake) -> dict[str, Any]:
    """A company with several of each resource, and companies to delete, in the form of `fuzz_hooks`."""

    all_day = [{"days": EVERY_DAY, "start": "00:00", "end": "24:00"}]
    limits = {"concurrentCalls": 100, "callsPerSecond": 100}
    settings = {"callTimeIntervals": all_day, "timezone": "Europe/Bratislava", "limits": limits}
    home: str = ats.made("/company", {"name": "Home", "settings": settings})["id"]
    here = {"companyId": home}
    with ats.database.transaction() as stores:
        number = str(stores.phone_numbers.add(uuid4(), UUID(home), CALLER, ats.now()))
    agent = {"name": "Ann", "focus": "GENERIC", "language": "EN", "duration": 10, "companyPhoneNumberId": number}
    numbers = [f"+42191512345{digit}" for digit in range(10)]

    def several(path: str, *bodies: dict[str, Any]) -> list[str]:
        return [ats.made(path, body, params=here)["id"] for body in bodies]

    def a_call(candidate_id: str) -> Any:
        body, key = {"agentId": agents[0], "candidateId": candidate_id}, f"the interview with {candidate_id}"
        return ats.made("/interviews", body, params=here, headers={"Idempotency-Key": key})

    agents = several("/agents", *({**agent, "type": each} for each in ("PHONE", "PHONE", "ONLINE")))
    jobs = several("/jobs", JOB, JOB)
    people = several("/candidates", *(candidate(phoneNumber=each, jobIds=jobs[:1]) for each in numbers))
    calls = [a_call(each) for each in people]
    seeded = Seeded(company_id=UUID(home), agent_id=UUID(agents[0]), phone_number_id=UUID(number))
    answered = _answered_calls(ats, seeded)
    return {
        "home": home,
        "tokens": _tokens(ats),
        "fitting": {
            "agentId": agents,
            "jobId": jobs[:1],
            "jobIds": jobs,
            "candidateId": people,
            "companyPhoneNumberId": [number],
            "phoneNumber": numbers,
            "email": ["jana@example.com", "JANA@example.com"],
            "ownerEmail": ["owner@example.com", "another@example.com"],
            "timezone": ["Europe/Bratislava", "Australia/Adelaide", "America/New_York"],
            "countryCode": ["SK", "DE"],
            "allowedCountries": ["SK", "AU"],
            "gdprExpiryDate": ["2030-12-31", "2027-02-28"],
            "scheduledAt": [_in_hours(ats, hours) for hours in (1, 20, 100, 400)],
            "expiresAt": [_in_hours(ats, 600)],
            "url": ["https://hooks.example.com/duecall"],
        },
        "there": {
            "companyId": [[ats.made("/company", {"name": "Another"})["id"]] for _ in range(5)],
            "agentId": [[each] for each in several("/agents", *[{**agent, "type": "ONLINE"}] * 3)],
            "jobId": [[each] for each in several("/jobs", JOB, JOB)],
            "webhookId": [[ats.made("/webhooks", WEBHOOK)["id"]] for _ in range(3)],
            "webhookId deliveryId": [_webhook_and_delivery(ats) for _ in range(10)],
            "candidateId": [[each] for each in several("/candidates", *[candidate()] * 10)],
            "reference": [[f"the interview with {each}"] for each in people],
            "interviewId": [[each["id"]] for each in calls],
            "eventId": _events(ats, here),
            "batchId": [[_batch(ats, here, agents[0], each)] for each in people[:5]],
            "attemptId": [[str(each.id)] for each in answered],
            "interviewId attemptId": [[each["id"], each["callAttempts"][0]["id"]] for each in calls],
            "token": [[str(each.token)] for each in answered],
        },
    }


def _webhook_and_delivery(ats: Intake) -> list[str]:
    """Create a webhook and test it. No process sends the test."""
    webhook_id = str(ats.made("/webhooks", WEBHOOK)["id"])
    test = data(ats.post(f"/webhooks/{webhook_id}/test", headers={"Prefer": "respond-async"}))
    return [webhook_id, str(test["deliveryId"])]


def _events(ats: Intake, here: dict[str, str]) -> list[list[str]]:
    """Number the events, as no process does, and return the ids of those of interviews."""
    NumberEvents(ats.database, RecordingHints(), ats.now).all()
    found = data(ats.get("/events", types="interview.scheduled", **here))["items"]
    return [[each["deliveryId"]] for each in found]


def _batch(ats: Intake, here: dict[str, str], agent_id: str, candidate_id: str) -> str:
    """Create a batch that no worker applies."""
    items = [{"agentId": agent_id, "candidateId": candidate_id}]
    return str(data(ats.post("/batches", {"items": items}, params=here), 202)["id"])


def _answered_calls(ats: Intake, seeded: Seeded) -> list[Attempt]:
    """Calls whose conversations go on. No request names their interviews, so that none is deleted."""
    tenant = a_tenant(ats.database, seeded, Hasher(PEPPER), ats.now)
    return [tenant.take(a_placed_attempt(tenant), Progressed(rank=CallProgress.ANSWERED)) for _ in range(5)]


def _tokens(ats: Intake) -> list[str]:
    """Tokens of invitations that are still open."""
    with a_post_office() as office:
        for number in range(10):
            ats.made("/company", {"name": "With an owner", "ownerEmail": f"owner{number}@example.com"})
        deliver(ats, office)
        return [each.token for each in office.mails]


def _in_hours(intake: Intake, hours: int) -> str:
    return (intake.now() + timedelta(hours=hours)).isoformat(timespec="seconds")
