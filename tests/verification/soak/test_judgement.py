"""The soak's judgement reports each kind of fault, and accepts runs without one."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.domain.call import CallStatus
from tests.support.servers import ACCOUNT_SID, SimulatedCarrier
from tests.verification.judge.history import Claim, Row
from tests.verification.soak.__main__ import a_form
from tests.verification.soak.callers import Order, Question
from tests.verification.soak.gauges import Gauges, Reading
from tests.verification.soak.judgement import (
    Verdict,
    lines,
    of_conversations,
    of_the_undecided,
    of_what_was_told,
)
from tests.verification.soak.people import BEHAVIOURS, Person, alike, people
from tests.verification.soak.soak_setup import LEASE_S, STARTS_AT, Blow

CLAIMED_AT = STARTS_AT + timedelta(minutes=1)
LEASE = timedelta(seconds=LEASE_S)
A_MINUTE = timedelta(minutes=1)


def an_unknown(token: str) -> Row:
    return Row(
        id=uuid4(),
        interview_id=uuid4(),
        company_id=uuid4(),
        line="a line",
        state="FAILED",
        reason="OUTCOME_UNKNOWN",
        epoch=4,
        due_at=STARTS_AT,
        expires_at=STARTS_AT + timedelta(days=7),
        happenings=(),
        claims=(Claim(token=token, at=CLAIMED_AT),),
    )


def a_blow(began_at: datetime, *, hurts_diallers: bool = True) -> Blow:
    healed_at = began_at + timedelta(seconds=2)
    return Blow(what="kill -9 dial", began_at=began_at, healed_at=healed_at, hurts_diallers=hurts_diallers)


def judged(
    *blows: Blow,
    answered: int | None = 201,
    was_sent: bool = False,
    behaviour: str = "answered",
    cause: str = "LEASE_OVER",
) -> Verdict:
    [person] = alike(behaviour, rate=1, seconds=1, first=0)
    requests = [{"token": "a token", "to": person.number, "answered": answered}] if was_sent else []
    verdict = Verdict()
    unknown = an_unknown("a token")
    of_the_undecided(verdict, [unknown], requests, {unknown.id: cause}, {0: person}, blows)
    return verdict


@pytest.mark.parametrize(
    "verdict",
    [
        pytest.param(judged(), id="there was no fault"),
        pytest.param(judged(a_blow(CLAIMED_AT - A_MINUTE)), id="the fault was healed before the claim"),
        pytest.param(judged(a_blow(CLAIMED_AT + LEASE + A_MINUTE)), id="the fault began after the lease"),
        pytest.param(judged(a_blow(CLAIMED_AT, hurts_diallers=False)), id="the fault did not hurt a dialler"),
        pytest.param(judged(was_sent=True), id="the carrier accepted it and answered"),
        pytest.param(
            judged(was_sent=True, cause="CREATED_WITHOUT_A_NAME"), id="the carrier's answer was not understood"
        ),
    ],
)
def test_unknown_outcome_without_a_cause_is_a_fault(verdict: Verdict) -> None:
    assert not verdict.is_clean
    assert len(verdict.faults["undecided and unexplained"]) == 1
    assert not verdict.undecided


@pytest.mark.parametrize(
    "verdict",
    [
        pytest.param(judged(a_blow(CLAIMED_AT + timedelta(seconds=1))), id="its dialler was killed"),
        pytest.param(judged(was_sent=True, answered=None), id="the carrier never answered"),
        pytest.param(judged(was_sent=True, answered=503), id="the carrier refused it with a 5xx"),
        pytest.param(judged(was_sent=True, behaviour="drop"), id="the carrier cut the POST"),
        pytest.param(judged(cause="NO_ANSWER_IN_TIME"), id="it was given up before the carrier received it"),
    ],
)
def test_unknown_outcome_with_a_cause_is_counted_as_undecided(verdict: Verdict) -> None:
    assert verdict.is_clean
    assert len(verdict.undecided) == 1


def a_question(**told: object) -> Question:
    return Question.model_validate({"person": 7, "verb": "POST /interviews", "asked_at": STARTS_AT, **told})


@pytest.mark.parametrize(
    ("told", "heading"),
    [
        ({}, "accepted and never finished"),
        ({"status": 202}, "accepted and never finished"),
        ({"status": 201, "interview_id": "a missing interview"}, "told and not there"),
        ({"status": 401, "code": "INVALID_API_KEY"}, "lost"),
        ({"status": 202, "applied": 400, "code": "VALIDATION_ERROR"}, "lost"),
    ],
)
def test_wrong_or_missing_response_is_a_fault(told: dict[str, object], heading: str) -> None:
    verdict = Verdict()
    of_what_was_told(verdict, [a_question(**told)], {"an interview"})
    assert [name for name, faults in verdict.faults.items() if faults] == [heading]


@pytest.mark.parametrize(
    "told",
    [
        {"status": 201, "interview_id": "an interview"},
        {"status": 202, "applied": 201, "interview_id": "an interview"},
        {"status": 400, "code": "OUTSIDE_CALL_TIME_INTERVAL"},
        {"status": 409, "code": "CALL_ATTEMPT_IN_PROGRESS", "verb": "DELETE .../call-attempts/{id}"},
    ],
)
def test_expected_response_is_not_a_fault(told: dict[str, object]) -> None:
    verdict = Verdict()
    of_what_was_told(verdict, [a_question(**told)], {"an interview"})
    assert verdict.is_clean


@pytest.mark.parametrize(
    ("state", "reason", "instructed", "faults"),
    [
        pytest.param("COMPLETED", "ANSWERED", True, 0, id="a conversation"),
        pytest.param("FAILED", "INSTRUCTIONS_FAILED", False, 0, id="no instructions, and called failed"),
        pytest.param("COMPLETED", "ANSWERED", False, 3, id="no instructions, and called a conversation"),
        pytest.param("COMPLETED", "ANSWERED", None, 3, id="no answer, and called a conversation"),
        pytest.param("FAILED", "INSTRUCTIONS_FAILED", True, 1, id="a conversation, and called failed"),
    ],
)
def test_results_are_compared_with_conversations(state: str, reason: str, instructed: bool | None, faults: int) -> None:
    """Without a conversation, attempt, booking and interview are each a fault."""
    row = replace(an_unknown("a token"), state=state, reason=reason)
    counted = {row.id: row.interview_id} if state == "COMPLETED" else {}
    verdict = Verdict()
    ring = {"token": "a token", "instructed": instructed}
    of_conversations(verdict, [row], [ring], booked=counted.keys(), completed=list(counted.values()))
    assert [(name, len(found)) for name, found in verdict.faults.items() if found] == (
        [("without a conversation", faults)] if faults else []
    )


def test_forged_callback_is_correct_except_for_its_signature() -> None:
    """The signature is the only possible reason for its rejection."""
    account = SimulatedCarrier(url="http://127.0.0.1:9").account()
    news = TwilioCallbacks(account).read("a token", a_form(ACCOUNT_SID))
    assert (news.status, news.token) == (CallStatus.RINGING, "a token")
    assert not TwilioCallbacks(account).is_genuine("/carrier", list(a_form(ACCOUNT_SID).items()), "a signature")


def test_one_fault_makes_the_verdict_unclean_and_is_listed() -> None:
    assert Verdict().is_clean
    verdict = Verdict()
    verdict.faults["lost"].append("interview 17 has no attempt")
    assert not verdict.is_clean
    assert "    interview 17 has no attempt" in list(lines(verdict))


def test_seed_determines_the_people() -> None:
    assert list(people(seed=1, rate=20, seconds=10)) == list(people(seed=1, rate=20, seconds=10))
    assert list(people(seed=1, rate=20, seconds=10)) != list(people(seed=2, rate=20, seconds=10))


def test_people_have_distinct_numbers_and_all_behaviours() -> None:
    all_people = list(people(seed=3, rate=20, seconds=600))
    assert len({person.number for person in all_people}) == len(all_people)
    assert {person.behaviour for person in all_people} == set(BEHAVIOURS)
    assert {person.then for person in all_people} == {"", "delete", "move", "invoke"}


def test_later_load_has_different_people(tmp_path: Path) -> None:
    def of(first: int) -> set[str]:
        load = {"seed": 1, "rate": 5, "seconds": 4, "first": first}
        backend = {"api_url": "", "keys": {}, "agents": {}, "clock_offset_s": 0, "patience_s": 1}
        order = Order.model_validate({**load, **backend, "said": tmp_path / "said"})
        return {person.number for person in order.people()}

    assert not of(0) & of(20)


def test_memory_is_reported_for_the_longest_lived_process() -> None:
    gauges = Gauges(setup=None)  # type: ignore[arg-type]  # the readings are set below
    for at in range(0, 100, 2):
        memory = {("api", 1): 100.0 + at, ("api", 2 if at > 90 else 1): 100.0 + at}
        gauges.readings.append(Reading(at_s=at, connections=20 + (at > 60) * 10, unacked=0, memory_mib=memory))
    assert gauges.connections() == (20, 30, 30)
    assert gauges.unacked() == (0, 0, 0)
    assert gauges.memory()["api"] == ([132, 158, 185], 78)


def test_numbers_are_from_two_fixed_blocks() -> None:
    """All numbers are from two blocks, Slovak and Indian mobiles, and are only called on the simulated carrier."""
    assert all(isinstance(person, Person) for person in people(seed=1, rate=1, seconds=1))
    assert {person.number[:6] for person in people(seed=1, rate=20, seconds=60)} == {"+42191", "+91982"}
