"""Twilio's error codes: the consequence of each, and docs/reference/carrier-codes.md with the same table."""

import json
import re
from pathlib import Path

import pytest

from scheduler.carriers.twilio_calls import classify
from scheduler.domain.call import AnswerUnknown, NeverTaken, NumberRefused
from scheduler.lifecycle import breaker

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "carrier-codes.md").read_text(encoding="utf-8")
OF_THE_NUMBER = {13223, 13224, 13225, 13226, 21202, 21211, 21214, 21217}
OF_A_COUNTRY = {13227, 21203, 21215, 21216, 32205}
OF_A_CALLER = {13212, 13214, 21210, 21212, 21213}
OF_THE_ACCOUNT = {10001, 10005, 20003, 20005, 20008, 20403, 70051}


def documented() -> dict[int, tuple[str, str]]:
    """Read the page's codes, each with Twilio's text and the consequence."""
    rows = re.findall(r"^\| (\d{5}) \| (.+) \| `([A-Z_]+)` \|$", PAGE, re.MULTILINE)
    return {int(code): (text, consequence) for code, text, consequence in rows}


def refused(code: int, status: int = 400) -> object:
    return classify(status, json.dumps({"code": code, "status": status}).encode())


def test_page_has_the_same_table_as_the_code() -> None:
    from scheduler.carriers.twilio_calls import CODES  # noqa: PLC0415 - the others are red without it, too

    assert documented() == {code: (meaning.text, meaning.consequence.value) for code, meaning in CODES.items()}
    assert list(documented()) == sorted(documented())


def test_each_consequence_is_explained_on_the_page() -> None:
    explained = set(re.findall(r"`([A-Z_]+)`", "".join(re.findall(r"^\| (`[A-Z_`, ]+) \|", PAGE, re.MULTILINE))))
    assert {consequence for _, consequence in documented().values()} == explained


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


def closes_the_account(code: int, status: int) -> bool:
    answer = refused(code, status)
    return isinstance(answer, NeverTaken) and answer.cause in breaker.NEEDS_A_PERSON


@pytest.mark.parametrize("status", [400, 403, 404])
def test_only_account_codes_close_the_account(status: int) -> None:
    assert {code for code in range(10_000, 100_000) if closes_the_account(code, status)} == OF_THE_ACCOUNT


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_unknown_code_proves_nothing(status: int) -> None:
    assert refused(99_999, status) == AnswerUnknown(cause=f"HTTP_{status}")
