"""The API on a machine with a wrong clock refuses writes and answers reads."""

from datetime import timedelta

import httpx
import pytest

from tests.api_shim.answers import refusal
from tests.api_shim.carrier_callbacks import call_back, token_of
from tests.api_shim.intake import ASYNC, Intake
from tests.support.builders import Tenant, a_placed_attempt
from tests.verification.world.wrong_clock import set_wrong

JOB = {"title": "Baker", "description": "Bakes bread at night."}
AN_HOUR = timedelta(hours=1)


@pytest.mark.parametrize("span", [AN_HOUR, -AN_HOUR], ids=["ahead", "behind"])
def test_write_on_a_wrong_clock_is_refused_by_name(intake: Intake, span: timedelta) -> None:
    with set_wrong(span):
        answers = [intake.create(headers=ASYNC), intake.post("/jobs", JOB)]
        read = intake.get("/jobs")
    for answer in answers:
        assert is_refused(answer)
        assert "Nothing was changed" in answer.json()["error"]["message"]
        assert answer.headers["Retry-After"] == "5"
    assert (intake.count("inbox"), intake.count("jobs")) == (0, 0)
    assert read.status_code == 200, "reads write nothing"
    assert intake.create(headers=ASYNC).status_code == 202, "the clock is right again"


def test_callback_on_a_wrong_clock_is_asked_for_again(intake: Intake, tenant: Tenant) -> None:
    token = token_of(a_placed_attempt(tenant))
    with set_wrong(AN_HOUR):
        assert is_refused(call_back(intake, token))
    assert intake.count("carrier_events") == 0
    assert call_back(intake, token).status_code == 204


def is_refused(answer: httpx.Response) -> bool:
    return refusal(answer) == (503, "CLOCK_WRONG")
