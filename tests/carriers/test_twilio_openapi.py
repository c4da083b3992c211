"""Twilio's OpenAPI document: the facts by which traffic is judged are equal to it, and each of its examples is read.

`twilio_calls_openapi.json` has facts of github.com/twilio/twilio-oai (Apache-2.0) at commit d50069b of 2026-04-14: for
the five requests that Duecall sends, parameters with their types and words, and the examples of answers.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler.carriers.interface import CarrierUnavailable
from scheduler.carriers.twilio_calls import classify
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.call import Accepted, AnsweredBy, CallStatus
from scheduler.lifecycle.policy import Policy
from standalone.simulator.published_api import OPERATIONS, Kind, Operation, violations_of_answer
from tests.support.servers import SimulatedCarrier
from tests.use_cases.conftest import answering_by_path

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parent / "twilio_calls_openapi.json").read_text(encoding="utf-8"))
BY_NAME = {operation.name: operation for operation in OPERATIONS}
NEWER = {"RecordingConfigurationId", "Passports"}
"""Parameters of the locked SDK that this copy of the document does not have yet."""
LONG_AGO, SOMETIME = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
SID = "CA" + 32 * "a"
EXAMPLES = [
    pytest.param(BY_NAME[name], of_one["status"], answer, id=f"{name}: {example}")
    for name, of_one in DOCUMENT.items()
    for example, answer in of_one["answers"].items()
]


@contextmanager
def queries_at(*answers: dict[str, Any]) -> Iterator[TwilioQueries]:
    """Run a server that gives these answers one after the other, and the last one from then on."""
    left = list(answers)

    def next_one(_: str) -> tuple[int, bytes]:
        return 200, json.dumps(left.pop(0) if len(left) > 1 else left[0]).encode()

    with answering_by_path(next_one) as url:
        yield TwilioQueries(SimulatedCarrier(url).account(), Policy())


def ours(call: dict[str, Any]) -> dict[str, Any]:
    """Make an example a call that a request has placed."""
    return call | {"direction": "outbound-api", "parent_call_sid": None}


# ---- the facts


def test_document_has_the_requests_that_are_sent() -> None:
    assert DOCUMENT.keys() == BY_NAME.keys()


@pytest.mark.parametrize("name", DOCUMENT)
def test_facts_have_the_parameters_of_the_document(name: str) -> None:
    facts, documented = BY_NAME[name].parameters, DOCUMENT[name]["parameters"]
    assert facts.keys() - NEWER == documented.keys()
    assert {each for each, fact in facts.items() if fact.is_required} == set(DOCUMENT[name]["required"])
    for parameter, schema in documented.items():
        fact = facts[parameter]
        assert fact.repeats is (schema["type"] == "array"), parameter
        assert (fact.kind is Kind.WHOLE) is (schema["type"] == "integer") or parameter == "Log", parameter
        if words := schema.get("enum"):
            assert set(fact.words) == set(words), parameter


# ---- the examples


@pytest.mark.parametrize(("operation", "status", "answer"), EXAMPLES)
def test_example_is_a_valid_answer(operation: Operation, status: int, answer: dict[str, Any]) -> None:
    assert list(violations_of_answer(operation, status, answer)) == []


@pytest.mark.parametrize("example", DOCUMENT["create"]["answers"])
def test_example_of_a_created_call_is_proof(example: str) -> None:
    answer = classify(201, json.dumps(DOCUMENT["create"]["answers"][example]).encode())
    assert isinstance(answer, Accepted)
    assert answer.call_sid == SID


@pytest.mark.parametrize("example", DOCUMENT["fetch"]["answers"])
def test_example_of_a_fetched_call_is_read(example: str) -> None:
    call, none = DOCUMENT["fetch"]["answers"][example], DOCUMENT["list of notifications"]["answers"]["readEmpty"]
    with queries_at(ours(call), none) as queries:
        news = queries.fetch(SID)
    assert (news.call_sid, news.status, news.answered_by) == (SID, CallStatus.COMPLETED, AnsweredBy.MACHINE)
    assert news.duration is not None
    assert news.duration.total_seconds() == 4
    with queries_at(call) as queries, pytest.raises(CarrierUnavailable):
        queries.fetch(SID)  # a leg of another call


def test_examples_of_lists_are_read_to_their_end() -> None:
    pages = DOCUMENT["list"]["answers"]
    calls = [ours(call) | {"sid": f"CA{place:032x}"} for place, call in enumerate(pages["readFullPage1"]["calls"])]
    first, second = ({**pages["readFullPage1"], "calls": [call]} for call in reversed(calls))
    empty = [page for page in pages.values() if not page["calls"]]
    assert len(empty) == 3
    with queries_at(first, second, empty[0]) as queries:
        found = queries.listed(to=None, caller="+13051416799", created_from=LONG_AGO, created_until=SOMETIME)
    assert {each.news.call_sid for each in found} == {call["sid"] for call in calls}
    for page in (*pages.values(), {**pages["readFullPage1"], "calls": [pages["readFullPage1"]["calls"][1]]}):
        with queries_at(page, empty[0]) as queries:
            listed = queries.listed(to=None, caller="+13051416799", created_from=LONG_AGO, created_until=SOMETIME)
        assert listed == [], "all examples are calls to us, or legs of other calls"


@pytest.mark.parametrize("example", DOCUMENT["list of notifications"]["answers"])
def test_example_of_notifications_is_read(example: str) -> None:
    """It is a warning about a callback, which is no cause and no missing instruction."""
    short = ours(DOCUMENT["fetch"]["answers"]["fetch"]) | {"answered_by": "human"}
    notifications = DOCUMENT["list of notifications"]["answers"][example]
    with queries_at(short, notifications) as queries:
        assert queries.fetch(SID).instructions_failed is False
    with queries_at({**short, "status": "failed"}, notifications) as queries:
        assert queries.fetch(SID).cause is None


@pytest.mark.parametrize("example", DOCUMENT["update"]["answers"])
def test_example_of_an_updated_call_has_a_status_that_is_known(example: str) -> None:
    with queries_at(ours(DOCUMENT["update"]["answers"][example])) as queries:
        assert queries.fetch(SID).status in {CallStatus.COMPLETED, CallStatus.CANCELLED}
