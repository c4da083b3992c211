"""The page Unknown, and operators who decide about a call."""

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID

import httpx
import pytest

from console.assembly import ConsoleUseCases
from scheduler.domain.attempt import Attempt, Decision
from scheduler.hashing import Hasher
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.shared.alarms import Acts
from tests.conftest import real_now, seed
from tests.console.acts import form_in, send, words
from tests.console.conftest import Console
from tests.support.builders import (
    ALWAYS,
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_tenant,
    an_attempt_of_unknown_outcome,
)
from tests.support.statements import statements_of

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


def test_number_on_now_leads_to_the_list(operator: httpx.Client, acme: Tenant) -> None:
    an_attempt_of_unknown_outcome(acme)
    page = operator.get("/")
    assert '<a class="value" id="figure-unknown" href="/unknown">1</a>' in page.text


@pytest.mark.parametrize("decision", [Decision.RANG, Decision.LEFT])
def test_decision_is_applied_and_audited(operator: httpx.Client, acme: Tenant, decision: Decision) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    sent = send(operator, form_of(unknown), decision=decision.value, reason=WHY)
    assert "is accepted, and a worker applies it within seconds" in result(operator, sent)
    assert "A decision waits for a worker" in words(operator.get("/unknown"))
    apply_decisions(acme)
    assert f"The decision about attempt {unknown.id} is applied. " in result(operator, sent)
    assert "calls again" not in result(operator, sent).partition("Nothing proved")[0]
    assert acme.attempt(unknown.id).decision is decision
    assert listed(operator.get("/unknown")) == []
    [entry] = Acts(acme.database).newest(AuditFilter(concerns=unknown.id), None, 10)
    assert (entry.verb, entry.reason, entry.after) == ("outcome.decide", WHY, {"decision": decision.value})
    assert entry.actor.startswith("link:")


def test_call_again_names_the_new_attempt(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    sent = send(operator, form_of(unknown), decision="DID_NOT_RING", reason=WHY)
    apply_decisions(acme)
    [again] = [each for each in acme.attempts(unknown.interview_id) if each.id != unknown.id]
    assert f"is applied. Attempt {again.id} calls again." in result(operator, sent)


def test_refused_call_again_is_told_and_leaves_the_work(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    acme.change("UPDATE candidates SET gdpr_expiry_date = '2026-04-01'")
    sent = send(operator, form_of(unknown), decision="DID_NOT_RING", reason=WHY)
    apply_decisions(acme)
    assert f"Not done. Nothing was decided about attempt {unknown.id}. The candidate's consent ends" in result(
        operator, sent
    )
    assert listed(operator.get("/unknown")) == [str(unknown.id)]


def test_second_of_two_operators_sees_the_refusal(console: Console, operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    with console.signed_in() as second, console.signed_in() as third:
        forms = [(client, form_in(client.get(form_of(unknown)))) for client in (operator, second, third)]
        answers = []
        for (client, form), decision in zip(forms, ("RANG", "DID_NOT_RING", "LEFT"), strict=True):
            if client is third:
                apply_decisions(acme)
            answers.append(client.post("/acts/decide-outcome", data={**form, "decision": decision, "reason": WHY}))
        assert "is applied" in result(operator, answers[0])
        assert "Not done." in result(second, answers[1])
        assert "Another decision about this call attempt was made before." in result(second, answers[1])
    assert answers[2].status_code == UNPROCESSABLE
    assert "Another decision about this call attempt was made before." in words(answers[2])
    assert acme.attempt(unknown.id).decision is Decision.RANG
    assert len(acme.attempts(unknown.interview_id)) == 1, "no second call"


def test_decisions_at_the_same_instant_are_one(console: Console, operator: httpx.Client, acme: Tenant) -> None:
    unknown, barrier = an_attempt_of_unknown_outcome(acme), Barrier(2, timeout=30)
    with console.signed_in() as second:
        forms = [(client, form_in(client.get(form_of(unknown)))) for client in (operator, second)]

        def decide(place: int) -> httpx.Response:
            client, form = forms[place]
            barrier.wait()
            fields = {**form, "decision": ("LEFT", "DID_NOT_RING")[place], "reason": WHY}
            return client.post("/acts/decide-outcome", data=fields)

        with ThreadPoolExecutor(2) as operators:
            answers = list(operators.map(decide, range(2)))
        apply_decisions(acme)
        told = [result(operator, each) for each in answers]
    assert sum("is applied" in each for each in told) == 1
    [refused] = [each for each in told if "Not done." in each]
    assert "Another decision about this call attempt was made before." in refused
    calls_again = acme.attempt(unknown.id).decision is Decision.DID_NOT_RING
    assert len(acme.attempts(unknown.interview_id)) == 1 + calls_again


def test_form_is_not_shown_while_a_decision_waits(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    send(operator, form_of(unknown), decision="LEFT", reason=WHY)
    page = operator.get(form_of(unknown))
    assert page.status_code == UNPROCESSABLE
    assert "A decision about this interview waits for a worker" in words(page)


def test_same_decision_again_changes_nothing(console: Console, operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    form = form_in(operator.get(form_of(unknown)))
    send(operator, form_of(unknown), decision="RANG", reason=WHY)
    apply_decisions(acme)
    again = operator.post("/acts/decide-outcome", data={**form, "decision": "RANG", "reason": WHY})
    assert "was decided so before. Nothing changed." in result(operator, again)


def test_preview_says_what_follows(operator: httpx.Client, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)
    preview = words(operator.get(form_of(unknown)))
    assert "Call again: a new call is placed within the calling hours of the person" in preview
    assert "Late proof still wins" in preview
    assert f"Time of the claim: {unknown.claimed_at:%Y-%m-%d %H:%M:%S} UTC." in preview
    assert "Carrier's list read in full: never, so that it proves nothing yet." in preview
    copies_of(acme, unknown, 1)
    assert "Call again is refused: the interview has the newer attempt" in words(operator.get(form_of(unknown)))


def test_known_outcome_has_no_form(operator: httpx.Client, acme: Tenant) -> None:
    page = operator.get(form_of(a_claimed_attempt(acme)))
    assert page.status_code == UNPROCESSABLE
    assert "is not unknown, so there is nothing to decide" in words(page)


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


def test_list_is_filtered_by_company(database: Database, hasher: Hasher, operator: httpx.Client, acme: Tenant) -> None:
    globex = a_tenant(database, seed(database, real_now(), intervals=ALWAYS), hasher, real_now)
    of_acme, of_globex = an_attempt_of_unknown_outcome(acme), an_attempt_of_unknown_outcome(globex)
    assert listed(operator.get("/unknown")) == [str(of_acme.id), str(of_globex.id)]
    assert listed(operator.get(f"/unknown?company={globex.company_id}")) == [str(of_globex.id)]


def test_pages_read_a_constant_number_of_statements(use_cases: ConsoleUseCases, acme: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(acme)

    def count(attempt_id: UUID) -> tuple[int, int]:
        with statements_of(use_cases.database) as of_list:
            use_cases.unknown_outcomes().page(None, None, 50)
        with statements_of(use_cases.database) as of_form:
            use_cases.unknown_outcomes().undecided(attempt_id)
        return len(of_list), len(of_form)

    few = count(unknown.id)
    copies_of(acme, unknown, 40)
    assert count(unknown.id) == few
