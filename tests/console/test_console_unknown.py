"""The page Unknown, and operators who decide about a call."""

import re

import httpx
import pytest

from scheduler.domain.attempt import Attempt, Decision
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.apply import Apply
from tests.conftest import real_now, seed
from tests.console.acts import form_in, send, words
from tests.support.builders import (
    ALWAYS,
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_tenant,
    an_attempt_of_unknown_outcome,
)

OK, SEE_OTHER, FORBIDDEN, NOT_FOUND, UNPROCESSABLE = 200, 303, 403, 404, 422
WHY = "the carrier's console shows no call"


@pytest.fixture
def acme(database: Database, hasher: Hasher) -> Tenant:
    """A company on the clock of the console."""
    return a_tenant(database, seed(database, real_now(), intervals=ALWAYS), hasher, real_now)


def form_of(attempt: Attempt) -> str:
    return f"/acts/decide-outcome?attempt={attempt.id}"


def apply_decisions(tenant: Tenant) -> None:
    for [command_id] in tenant.ask("SELECT id FROM inbox WHERE applied_at IS NULL ORDER BY seq"):
        Apply(tenant.context, RecordingHints()).command(command_id)


def result(client: httpx.Client, sent: httpx.Response) -> str:
    assert sent.status_code == SEE_OTHER, words(sent)
    return words(client.get(sent.headers["location"]))


def repeated(client: httpx.Client, tenant: Tenant, attempt: Attempt) -> str:
    """Decide to call again, and return the result."""
    sent = send(client, form_of(attempt), decision="DID_NOT_RING", reason=WHY)
    apply_decisions(tenant)
    return result(client, sent)


def copies_of(tenant: Tenant, attempt: Attempt, count: int) -> None:
    tenant.change(
        "INSERT INTO attempts SELECT (jsonb_populate_record(a, jsonb_build_object('id', gen_random_uuid(),"
        " 'ended_at', a.ended_at + n * interval '1 second'))).* FROM attempts a, generate_series(1, :count) n"
        " WHERE a.id = :id",
        count=count,
        id=attempt.id,
    )


def listed(page: httpx.Response) -> list[str]:
    return re.findall(r'aria-label="Decide about attempt ([^"]+)"', page.text)


def test_list_shows_oldest_first_with_what_is_known(operator: httpx.Client, acme: Tenant) -> None:
    first, second = an_attempt_of_unknown_outcome(acme), an_attempt_of_unknown_outcome(acme)
    acme.change("UPDATE attempts SET listed_at = ended_at, search_at = NULL WHERE id = :id", id=first.id)
    page = operator.get("/unknown")
    assert listed(page) == [str(first.id), str(second.id)]
    assert "No longer searched for" in words(page)
    assert "never" in words(page)
    assert f"{first.claimed_at:%Y-%m-%d %H:%M:%S} UTC" in words(page)


def test_result_of_a_decision_is_shown(operator: httpx.Client, acme: Tenant) -> None:
    """`tests/use_cases/operations/test_unknown_outcomes.py` has what follows from each decision."""
    unknown = an_attempt_of_unknown_outcome(acme)
    assert '<a class="value" id="figure-unknown" href="/unknown">1</a>' in operator.get("/").text
    form, late_form = (form_in(operator.get(form_of(unknown))) for _ in range(2))
    sent = operator.post("/acts/decide-outcome", data={**form, "decision": "RANG", "reason": WHY})
    assert "is accepted, and a worker applies it within seconds" in result(operator, sent)
    assert "A decision waits for a worker" in words(operator.get("/unknown"))
    apply_decisions(acme)
    assert f"The decision about attempt {unknown.id} is applied. " in result(operator, sent)
    assert "calls again" not in result(operator, sent).partition("Nothing proved")[0]
    assert acme.attempt(unknown.id).decision is Decision.RANG
    assert listed(operator.get("/unknown")) == []
    again = operator.post("/acts/decide-outcome", data={**late_form, "decision": "RANG", "reason": WHY})
    assert "was decided so before. Nothing changed." in result(operator, again)
    other = operator.post("/acts/decide-outcome", data={**late_form, "decision": "LEFT", "reason": WHY})
    assert other.status_code == UNPROCESSABLE
    assert "Another decision about this call attempt was made before." in words(other)


def test_call_again_names_the_new_attempt(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    told = repeated(operator, acme, unknown)
    [again] = [each for each in acme.attempts(unknown.interview_id) if each.id != unknown.id]
    assert f"is applied. Attempt {again.id} calls again." in told


def test_refused_call_again_is_told_and_leaves_the_work(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    acme.change("UPDATE candidates SET gdpr_expiry_date = '2026-04-01'")
    refused = f"Not done. Nothing was decided about attempt {unknown.id}. The candidate's consent ends"
    assert refused in repeated(operator, acme, unknown)
    assert listed(operator.get("/unknown")) == [str(unknown.id)]


def test_form_is_not_shown_while_a_decision_waits(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    send(operator, form_of(unknown), decision="LEFT", reason=WHY)
    page = operator.get(form_of(unknown))
    assert page.status_code == UNPROCESSABLE
    assert "A decision about this interview waits for a worker" in words(page)


def test_preview_says_what_follows(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    preview = words(operator.get(form_of(unknown)))
    assert "Call again: a new call is placed within the calling hours of the person" in preview
    assert "Late proof still wins" in preview
    assert f"Time of the claim: {unknown.claimed_at:%Y-%m-%d %H:%M:%S} UTC." in preview
    assert "Carrier's list read in full: never, so that it proves nothing yet." in preview
    copies_of(acme, unknown, 1)
    assert "Call again is refused: the interview has the newer attempt" in words(operator.get(form_of(unknown)))


def test_preview_refuses_to_repeat_a_reported_call(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    acme.change("UPDATE attempts SET outcome = 'OPTED_OUT', outcome_at = ended_at WHERE id = :id", id=unknown.id)
    preview = words(operator.get(form_of(unknown)))
    assert "Call again is refused: the phone rang, and a conversation has reported OPTED_OUT." in preview


def test_incomplete_decision_is_refused(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    for fields, problem in (
        ({"reason": WHY}, "Choose one"),
        ({"decision": "MAYBE", "reason": WHY}, "Choose one"),
    ):
        page = send(operator, form_of(unknown), **fields)
        assert page.status_code == UNPROCESSABLE
        assert problem in words(page)
    assert acme.ask("SELECT 1 FROM inbox") == []
    page = operator.get(form_of(a_claimed_attempt(acme)))
    assert page.status_code == UNPROCESSABLE
    assert "is not unknown, so there is nothing to decide" in words(page)


def test_list_is_filtered_by_company(database: Database, hasher: Hasher, operator: httpx.Client, acme: Tenant) -> None:
    globex = a_tenant(database, seed(database, real_now(), intervals=ALWAYS), hasher, real_now)
    of_acme, of_globex = an_attempt_of_unknown_outcome(acme), an_attempt_of_unknown_outcome(globex)
    assert listed(operator.get("/unknown")) == [str(of_acme.id), str(of_globex.id)]
    assert listed(operator.get(f"/unknown?company={globex.company_id}")) == [str(of_globex.id)]
