"""Dry runs over HTTP: the answers of a batch that is not stored."""

from typing import Any

import pytest

from tests.api_shim.answers import data, refused
from tests.api_shim.bodies import candidate
from tests.api_shim.intake import Intake
from tests.api_shim.test_intake_batches import ndjson, person, send
from tests.architecture.rules import does, does_not
from tests.support.builders import Tenant, a_number
from tests.use_cases.test_apply import rows


def some(intake: Intake) -> list[dict[str, Any]]:
    number = a_number()
    return [
        person(intake, externalId="a"),
        person(intake, externalId="a"),
        person(intake, scheduledAt="tomorrow"),
        person(intake, phone=1),
        intake.body(candidate=candidate(phoneNumber=number)),
        intake.body(candidate=candidate(phoneNumber=number)),
    ]


@does("F7-10")
@pytest.mark.usefixtures("tenant")  # with an account, as after the first start of a worker
def test_dry_run_returns_counts_and_times(intake: Intake) -> None:
    found = data(intake.post("/batches", {"dryRun": True, "items": some(intake)}))
    assert [(each["code"], each["field"], each["indexes"]) for each in found["refused"]] == [
        ("EXTERNAL_ID_REUSED", "externalId", [1]),
        ("INVALID_DATE_FORMAT", "scheduledAt", [2]),
        ("VALIDATION_ERROR", "phone", [3]),
    ]
    assert (found["total"], found["accepted"], found["calls"], found["repeatedNumbers"]) == (6, 3, 3, 1)
    assert [(each["timezone"], each["calls"]) for each in found["due"]] == [("Europe/Bratislava", 3)]
    assert found["firstDueAt"] == found["lastDueAt"] <= found["lastStartAt"]


@does_not("F7-10")
def test_dry_run_stores_nothing(intake: Intake, tenant: Tenant) -> None:
    before = rows(tenant)
    by_body = data(intake.post("/batches", {"dryRun": True, "name": "Spring", "items": some(intake)}))
    by_query = data(send(intake, ndjson(*some(intake)), "/batches?dryRun=true"))
    assert by_body["calls"] == by_query["calls"] == 3
    assert rows(tenant) == before
    assert tenant.ask("SELECT count(*) FROM batches") == [(0,)]
    assert tenant.ask("SELECT count(*) FROM inbox") == [(0,)]


def test_dry_run_names_lines_and_the_first_wrong_field(intake: Intake) -> None:
    bad = [intake.body(candidate=candidate(phoneNumber=each)) for each in ("0900", "+421", "0901")]
    lines = ndjson(bad[0], b"", person(intake), b"{", bad[1], b'{"a"', bad[2])
    found = data(send(intake, lines, "/batches?dryRun=true"))
    assert found["total"] == 6
    by_message = {each["message"]: each["indexes"] for each in found["refused"] if each["code"] == "VALIDATION_ERROR"}
    assert sorted(by_message.values()) == [[0, 6], [4]]
    assert all(each.startswith("The phone number is invalid") for each in by_message)
    malformed = [each for each in found["refused"] if each["code"] == "MALFORMED_JSON"]
    assert [each["indexes"] for each in malformed] == [[3], [5]]
    assert not [each for each in found["refused"] if "details" in each["message"] or "position" in each["message"]]


def test_dry_run_of_json_is_named_in_its_body(intake: Intake) -> None:
    answer = intake.post("/batches?dryRun=true", {"items": some(intake)})
    refused(answer, 400, "VALIDATION_ERROR")


def test_dry_run_shows_no_number(intake: Intake) -> None:
    number = a_number()
    items = [intake.body(candidate=candidate(phoneNumber=each)) for each in (number, number, number[:-3])]
    assert number[:-3] not in intake.post("/batches", {"dryRun": True, "items": items}).text
