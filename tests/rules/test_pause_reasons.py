"""Reasons of pauses: one printable line that names no person."""

import pytest

from scheduler.domain.refusals import InvalidPauseReason
from scheduler.rules.operators import LONGEST, checked


@pytest.mark.parametrize(
    "text",
    [
        "a holiday",
        "their lines are being moved; until 2026-04-06 08:00-12:00, then again from 2026-04-07",
        "2026-04-06/2026-04-09",
        "see interview 12345678-1234-1234-1234-123456789012",
        "ticket 123456, 300000 calls at 10:15",
        "Dovolenka: čaká sa na zmluvu č. 12/2026 (§ 5)",
        "x" * LONGEST,
    ],
)
def test_a_reason_stands_as_it_was_said(text: str) -> None:
    assert checked(text) == text


def test_a_reason_is_trimmed() -> None:
    assert checked("  a holiday \n") == "a holiday"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "The reason is empty", id="nothing"),
        pytest.param(" \t\n", "The reason is empty", id="nothing that shows"),
        pytest.param("a\nb", "Remove character 2, U+000A", id="two lines"),
        pytest.param("a\rb", "U+000D", id="a line over another"),
        pytest.param("red \x1b[31m", "U+001B", id="what colours a terminal"),
        pytest.param("a\x00b", "U+0000", id="a character that PostgreSQL refuses"),
        pytest.param("a\u2028b", "U+2028", id="two lines, in Unicode"),
        pytest.param("a\u202eb", "U+202E", id="a bidi override"),
        pytest.param("a\u200bb", "U+200B", id="an invisible character"),
        pytest.param("a\udcffb", "U+DCFF", id="a byte that is no text"),
        pytest.param("x" * (LONGEST + 1), "201 characters. Shorten it to 200", id="too long"),
        pytest.param("ALARM: TWO_CALLS", "reserved for alarms", id="an alarm's words"),
        pytest.param("alarm:x", "reserved for alarms", id="nearly an alarm's words"),
    ],
)
def test_a_reason_that_does_not_print_or_says_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidPauseReason) as refused:
        checked(text)
    assert says in refused.value.message
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    "number",
    [
        *("+421915123456", "0915 123 456", "0915/123-456", "(02) 2030-4050", "555-0199 12", "1234567"),
        *("+49.30.1234.567", "0915\u2013123\u2013456", "+2026-04-06 12", "20260406", "421915 2026-04-06 123456 7"),
        "\uff10\uff19\uff11\uff15\uff11\uff12\uff13\uff14\uff15\uff16",
        "\u0660\u0669\u0661\u0665\u0661\u0662\u0663\u0664\u0665\u0666",
    ],
)
def test_reason_with_a_phone_number_is_refused_without_quoting(number: str) -> None:
    with pytest.raises(InvalidPauseReason) as refused:
        checked(f"asked by {number}, angry")
    assert "text like a phone number" in refused.value.message
    assert number not in refused.value.message


@pytest.mark.parametrize("address", ["ada@example.com", "<Ada.Byron@example>", "ada\uff20example.com"])
def test_reason_with_an_address_is_refused_without_quoting(address: str) -> None:
    with pytest.raises(InvalidPauseReason) as refused:
        checked(f"asked by {address}")
    assert "text like an e-mail address" in refused.value.message
    assert address not in refused.value.message


def test_a_sign_that_is_no_address_is_none() -> None:
    assert checked("the meeting @ noon") == "the meeting @ noon"
