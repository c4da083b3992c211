"""`duecall explain --evidence`: the page and the document, and the status after a later change of the history."""

import json

from scheduler.domain.attempt import Attempt, Ended, Reason
from scheduler.domain.call import AnsweredBy
from scheduler.rules import retention
from tests.command_line.conftest import Duecall
from tests.conftest import TestClock
from tests.support.builders import Tenant, a_call_with_its_look, a_pending_attempt, a_placed_attempt
from tests.verification.judge import call_evidence

NUMBER = "+421915777888"


def a_finished_call(tenant: Tenant) -> Attempt:
    """Call a person, who answers."""
    ended = Ended(reason=Reason.ANSWERED, ended_at=tenant.now(), answered_by=AnsweredBy.PERSON)
    return tenant.take(a_call_with_its_look(tenant, NUMBER), ended, actor="carrier")


def change_an_entry(tenant: Tenant, attempt: Attempt) -> None:
    tenant.change(
        "UPDATE attempt_history SET at = at - interval '1 day' WHERE event = 'claimed' AND attempt_id = :id",
        id=attempt.id,
    )


def test_document_explains_the_call_to_an_independent_judge(duecall: Duecall, tenant: Tenant) -> None:
    said = duecall(f"explain {a_finished_call(tenant).id} --evidence --json")
    assert said.code == 0
    assert call_evidence.faults(json.loads(said.out), tenant.now()) == []


def test_page_shows_the_last_look_and_the_whole_history(duecall: Duecall, tenant: Tenant) -> None:
    attempt = a_finished_call(tenant)
    said = duecall(f"explain {attempt.id} --evidence")
    assert said.code == 0
    for part in (
        str(attempt.call_sid),
        "last look",
        "PASSED",
        "Europe/Bratislava",
        "claimed",
        "ended",
        "History WHOLE",
    ):
        assert part in said.told, part
    assert NUMBER not in said.told


def test_interview_id_gives_the_evidence_of_its_newest_attempt(duecall: Duecall, tenant: Tenant) -> None:
    attempt = a_finished_call(tenant)
    assert str(attempt.id) in duecall(f"explain {attempt.interview_id} --evidence --json").out


def test_changed_history_is_named_and_ends_with_status_1(duecall: Duecall, tenant: Tenant) -> None:
    attempt = a_finished_call(tenant)
    change_an_entry(tenant, attempt)
    page = duecall(f"explain {attempt.id} --evidence")
    assert (page.code, "History BROKEN" in page.told, "CHANGED" in page.told) == (1, True, True)
    document = duecall(f"explain {attempt.id} --evidence --json")
    assert (document.code, json.loads(document.out)["seals"]["state"]) == (1, "BROKEN")


def test_purged_history_is_not_called_unchanged(duecall: Duecall, tenant: Tenant, now: TestClock) -> None:
    now.move(-2 * retention.HISTORY)
    attempt = a_finished_call(tenant)
    tenant.change("DELETE FROM attempt_history WHERE attempt_id = :id", id=attempt.id)
    said = duecall(f"explain {attempt.id} --evidence")
    assert (said.code, "no entry is stored, so nothing proves the history" in said.told) == (0, True), said


def test_look_that_was_not_recorded_is_said_to_be_lost(duecall: Duecall, tenant: Tenant) -> None:
    told = duecall(f"explain {a_placed_attempt(tenant).id} --evidence").told
    assert "NOT_RECORDED" in told
    assert "Nothing here proves which rules it checked." in told
    assert "rules passed" not in told


def test_call_that_no_process_has_taken_has_no_look(duecall: Duecall, tenant: Tenant) -> None:
    said = duecall(f"explain {a_pending_attempt(tenant).id} --evidence")
    assert (said.code, "last look" in said.told) == (0, False)
