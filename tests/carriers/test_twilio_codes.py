"""Twilio's error codes: the consequence of each, against the list that Twilio publishes.

`twilio_error_codes.csv` has facts of that list: code, level, name, and for codes of the table also the words of its
description, sorted. `source` is the date of the copy (github.com/men232/twilio-error-codes), `page` for a later page of
twilio.com/docs/api/errors, or `review` for a code that was seen elsewhere. Products without calls are left out.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from command_line import carrier_codes, documents
from scheduler.carriers.twilio_calls import classify
from scheduler.carriers.twilio_codes import CODES, Consequence, cause_of
from scheduler.domain.call import AnswerUnknown, FailureCause, NeverTaken, NumberRefused
from scheduler.lifecycle import breaker
from tests.docs.pages import DOCS

OF_THE_NUMBER = {13223, 13225, 13226, 21202, 21211, 21214, 21217}
OF_A_COUNTRY = {13227, 21203, 21215, 32205}
OF_A_CALLER = {13214, 13247, 21210, 21212, 21213}
OF_THE_ACCOUNT = {10001, 10005, 20003, 20005, 20008, 20403, 70051}
OF_THE_REQUEST = {20001, 20004, 20010, *range(21221, 21230), 21234}
OF_THE_CARRIER = {10004, 22001, 32016, 86008}
OF_THE_INSTRUCTIONS = {11200, 11205, 11210, 12100, 12300}


class Published(NamedTuple):
    level: str
    name: str
    words: frozenset[str]


def _published() -> Iterator[tuple[int, Published]]:
    with (Path(__file__).parent / "twilio_error_codes.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield int(row["code"]), Published(row["level"], row["name"], frozenset(row["words"].split()))


DICTIONARY = dict(_published())

WHY_NOT = (
    (range(400, 504), "HTTP statuses. The status of the response decides, not a code."),
    (range(10003, 10004), "About incoming calls. Duecall receives none."),
    (range(11243, 11244), "A setting of the retries of a request. The request itself is made."),
    (range(11300, 11321), "Templates of URLs, which Duecall does not use."),
    (range(12200, 12201), "A warning: Twilio follows the instructions."),
    (range(12301, 12302), "About files that Twilio uploads."),
    (
        range(13000, 14000),
        "Verbs of the instructions, in a conversation: the voice server writes them, and the call goes on.",
    ),
    (range(14000, 15000), "Queues and messages in the instructions."),
    (range(15000, 15010), "Our callbacks. Duecall asks for what a lost callback would have said."),
    (range(16000, 17000), "Conferences and recordings, in a conversation."),
    (range(17000, 18000), "Reports about finished calls."),
    (range(19000, 20000), "Contacts, which Duecall does not use."),
    (range(20002, 20003), "Names of resources that Duecall does not create."),
    (range(20007, 20008), "Size of a page in a list. It places no call."),
    (range(20009, 20010), "Deletion of a resource. Duecall deletes none."),
    (range(20011, 20024), "TLS versions end a connection before a request, and the others belong to other resources."),
    (range(20101, 20163), "Tokens of clients, which Duecall does not use. Status 401 counts whatever the code is."),
    (
        range(20404, 20405),
        "In the answer to an order it proves nothing. For a call that is ended it means that none is left.",
    ),
    (range(20409, 20411), "About the state of another resource. For an order it proves nothing."),
    (range(20413, 20414), "An order is smaller than any limit, so a proxy may have answered."),
    (range(20423, 20427), "About ids and versions in the URL, which the start of a dial worker checks."),
    (range(20500, 20504), "A failure of the carrier, which may have placed the call before."),
    (range(21100, 21201), "Headings, accounts and services. No order is refused with them."),
    (range(21204, 21205), "The call may have been placed, so the outcome is unknown."),
    (range(21220, 21221), "The state of a call that is ended. No order is refused with it."),
    (range(21230, 21262), "SIP domains, trunks and addresses, which Duecall does not configure."),
    (range(21300, 21609), "Numbers, applications, recordings and messages."),
    (range(21610, 22000), "Messages and numbers."),
    (range(22100, 23000), "Registration of numbers."),
    (range(30000, 31000), "Messages."),
    (range(31000, 32000), "Twilio's clients in browsers and apps, and media streams in a conversation."),
    (range(32000, 32016), "SIP domains and trunks, and limits of a call that was answered."),
    (range(32018, 32205), "Instructions in the order, calls to or from SIP, and incoming calls."),
    (range(32206, 33000), "Calls to or from SIP, Interconnect, virtual agents and messages in a conversation."),
    (range(33000, 70000), "Other products."),
    (range(70001, 70051), "Other products. Status 401 counts whatever the code is."),
    (range(70052, 86000), "Tokens of clients, which Duecall does not use, and other products."),
    (range(86001, 86008), "Other products."),
    (range(86009, 1_000_000), "Other products."),
)
"""Why published codes have no consequence: each range with the reason."""


def refused(code: int, status: int = 400) -> object:
    return classify(status, json.dumps({"code": code, "status": status}).encode())


# ---- the list that Twilio publishes


def test_each_published_code_has_a_consequence_or_a_reason() -> None:
    without = {code for code in DICTIONARY if code not in CODES and not any(code in codes for codes, _ in WHY_NOT)}
    assert without == set()


def test_each_code_of_the_table_is_published() -> None:
    assert set(CODES) - set(DICTIONARY) == set()


MUST_SAY = {
    Consequence.NUMBER: {"number", "country"},
    Consequence.UNREACHABLE: {"outage"},
    Consequence.NUMBER_BLOCKED: {"blocked"},
    Consequence.BLOCKED_BY_NETWORK: {"reputation"},
    Consequence.COUNTRY_REFUSED: {"geo", "international"},
    Consequence.CALLER_REFUSED: {"caller", "callerid", "originate"},
    Consequence.THROTTLED: {"concurrency", "concurrent", "many"},
    Consequence.QUEUE_FULL: {"queue"},
    Consequence.ACCOUNT_NOT_ACTIVE: {"account"},
    Consequence.CARRIER_FAILED: {"timed", "timeout", "internal"},
}
"""The description of a code has one of these words, for a consequence that is about more than the request."""
MUST_NOT_SAY = {
    Consequence.NUMBER: {"outage", "timeout", "reputation"},
    Consequence.COUNTRY_REFUSED: {"fraud"},
    Consequence.CALLER_REFUSED: {"timeout", "reputation"},
    Consequence.ORDER_REFUSED: {"fraud", "outage", "reputation", "premium", "concurrency"},
}


def contradicts(code: int, consequence: Consequence) -> bool:
    """Return whether the published description of a code does not fit the consequence."""
    name, words = DICTIONARY[code].name.lower(), DICTIONARY[code].words
    said = words | {word.strip("'():,.") for word in name.split()}
    must = MUST_SAY.get(consequence)
    return bool(must and not said & must) or bool(said & MUST_NOT_SAY.get(consequence, set()))


def test_no_meaning_contradicts_the_published_one() -> None:
    assert {code for code, meaning in CODES.items() if contradicts(code, meaning.consequence)} == set()


@pytest.mark.parametrize(
    ("code", "consequence"),
    [
        (13212, Consequence.CALLER_REFUSED),
        (13224, Consequence.NUMBER),
        (21216, Consequence.COUNTRY_REFUSED),
        (32017, Consequence.CALLER_REFUSED),
        (10004, Consequence.ORDER_REFUSED),
    ],
)
def test_meaning_that_was_guessed_contradicts(code: int, consequence: Consequence) -> None:
    """The first three were in the table of 0.2.0."""
    assert contradicts(code, consequence)


# ---- refused orders


@pytest.mark.parametrize("code", sorted(OF_A_COUNTRY))
@pytest.mark.parametrize("status", [400, 403])
def test_refused_country_is_not_a_fault_of_the_number(code: int, status: int) -> None:
    assert refused(code, status) == NeverTaken(cause="COUNTRY_REFUSED")


@pytest.mark.parametrize("code", sorted(OF_A_CALLER))
def test_refused_caller_id_is_not_a_fault_of_the_number(code: int) -> None:
    assert refused(code) == NeverTaken(cause="CALLER_REFUSED")


@pytest.mark.parametrize("code", sorted(OF_THE_NUMBER))
def test_code_about_the_number_ends_the_attempt(code: int) -> None:
    assert refused(code) == NumberRefused(cause=f"TWILIO_{code}")


def test_number_without_a_route_may_be_an_outage() -> None:
    assert refused(13224) == NumberRefused(cause="TWILIO_13224", may_be_outage=True)


@pytest.mark.parametrize("status", [400, 403])
def test_blocked_number_is_not_a_refused_country(status: int) -> None:
    assert refused(21216, status) == NeverTaken(cause="NUMBER_BLOCKED")


@pytest.mark.parametrize("code", sorted(OF_THE_REQUEST))
def test_refusal_of_the_request_is_no_unknown_outcome(code: int) -> None:
    assert refused(code) == NeverTaken(cause="ORDER_REFUSED")


@pytest.mark.parametrize("code", [13212, 32017, 32016, 22001, *sorted(OF_THE_INSTRUCTIONS)])
def test_code_of_a_call_proves_nothing_about_an_order(code: int) -> None:
    assert refused(code) == AnswerUnknown(cause="HTTP_400")


def closes_the_account(code: int, status: int) -> bool:
    answer = refused(code, status)
    return isinstance(answer, NeverTaken) and answer.cause in breaker.NEEDS_A_PERSON


@pytest.mark.parametrize("status", [400, 403, 404])
def test_only_account_codes_close_the_account(status: int) -> None:
    assert {code for code in range(10_000, 100_000) if closes_the_account(code, status)} == OF_THE_ACCOUNT


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_unknown_code_proves_nothing(status: int) -> None:
    assert refused(99_999, status) == AnswerUnknown(cause=f"HTTP_{status}")


# ---- notifications of failed calls


@pytest.mark.parametrize("code", sorted(OF_THE_CARRIER))
def test_carrier_that_failed_is_a_known_cause(code: int) -> None:
    assert cause_of([str(code)]) is FailureCause.CARRIER


@pytest.mark.parametrize("code", [13212, 15003, *sorted(OF_THE_INSTRUCTIONS)])
def test_code_of_a_web_request_is_no_cause(code: int) -> None:
    assert cause_of([str(code)]) is None


def test_instruction_codes_have_their_meaning() -> None:
    assert {CODES[code].consequence for code in OF_THE_INSTRUCTIONS} == {Consequence.INSTRUCTIONS_FAILED}


def test_blocked_caller_id_is_named_before_the_number() -> None:
    assert cause_of(["13224", "32017", "21211"]) is FailureCause.BLOCKED
    assert cause_of(["13224", "21211"]) is FailureCause.NUMBER
    assert cause_of(["13227", "13224"]) is FailureCause.UNREACHABLE


# ---- the page


def test_page_is_generated_from_the_table() -> None:
    documents.must_equal(DOCS / "reference" / "carrier-codes.md", carrier_codes.carrier_codes_text())


def test_page_explains_each_consequence() -> None:
    explained = [each for consequences in carrier_codes._EFFECTS for each in consequences]
    assert sorted(explained) == sorted(Consequence)
