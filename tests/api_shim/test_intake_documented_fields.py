"""Every field that the public API documents is in our responses. Fields that Duecall never fills are null."""

from collections.abc import Mapping
from typing import Any

import pytest

from scheduler.domain.principal import KeyKind
from tests.api_shim.answers import data
from tests.api_shim.bodies import JOB, ONLINE_AGENT, TOMORROW, candidate
from tests.api_shim.calls import a_call, talk
from tests.api_shim.intake import Intake, Worker
from tests.support.builders import Tenant

DOCUMENTED: Mapping[str, str] = {
    "company": "id name description metadata ownerEmail createdAt updatedAt website industry size location settings",
    "job": "id companyId title description status jobUrl benefits requiredSkills niceToHaveSkills languageRequirements"
    " education experience contractType location salary metadata descriptionUrl createdAt updatedAt",
    "candidate": "id firstName lastName gdprExpiryDate email phoneNumber jobId jobIds status metadata overallRating"
    " analysisCount interviewCount links createdAt updatedAt",
    "agent": "id companyId name type focus language duration questions instructions voiceId companyPhoneNumberId"
    " cefrLevel metadata createdAt updatedAt",
    "phone number": "id number companyId capabilities custom provider status numberType createdAt updatedAt location",
    "interview": "id candidateId agentId status scheduledAt createdAt updatedAt jobId durationMinutes finishedDate"
    " metadata callAttempts analysis isTest",
    "call attempt": "id direction status reasonCode notes retryNumber recordingUrl duration scheduledAt calledAt",
    "usage": "companies totalInterviews breakdownByCostKey totalMinutesUsed",
    "usage of a company": "companyId companyName billingSystem totalInterviews breakdownByCostKey totalMinutesUsed",
    "bucket of usage": "costKey events minutesUsed",
}


@pytest.fixture
def shown(intake: Intake, worker: Worker, tenant: Tenant) -> Mapping[str, Any]:
    """The response for one of each resource."""
    ats = intake.with_new_key(kind=KeyKind.ATS)
    interview = data(intake.get(a_call(intake, scheduledAt=TOMORROW).interview))
    talk(tenant)
    usage = data(intake.get("/billing/usage"))
    return {
        "company": ats.made("/company", {"name": "Acme"}),
        "job": intake.made("/jobs", JOB),
        "candidate": intake.made("/candidates", candidate()),
        "agent": intake.made("/agents", ONLINE_AGENT),
        "phone number": data(intake.get("/phone-numbers"))["items"][0],
        "interview": interview,
        "call attempt": interview["callAttempts"][0],
        "usage": usage,
        "usage of a company": usage["companies"][0],
        "bucket of usage": usage["companies"][0]["breakdownByCostKey"][0],
    }


def test_every_documented_field_is_shown(shown: Mapping[str, Any]) -> None:
    missing = {kind: set(names.split()) - set(shown[kind]) for kind, names in DOCUMENTED.items()}
    assert not {kind: names for kind, names in missing.items() if names}


def test_field_that_is_never_filled_is_null(shown: Mapping[str, Any]) -> None:
    attempt, interview, person = (shown[kind] for kind in ("call attempt", "interview", "candidate"))
    assert (attempt["notes"], attempt["recordingUrl"], interview["analysis"]) == (None, None, None)
    links = {"interviews": f"/interviews?candidateId={person['id']}", "analyses": None}
    assert (person["links"], person["overallRating"], person["analysisCount"]) == (links, None, 0)
