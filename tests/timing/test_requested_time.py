"""Requested times are parsed exactly, and errors name the field and the position: the forms that no page lists.

The tables of docs/reference/times.md are compared in `test_times_page`.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.domain.refusals import InvalidDateFormat
from scheduler.timing import requested_time
from scheduler.timing.requested_time import RequestedTime


def wall(text: str) -> datetime:
    return datetime.fromisoformat(text)


SEVEN = RequestedTime(text="", wall=wall("2026-04-02T07:00"), offset=None, zone=None, is_instant=False)
NOON = "2026-04-02T12:00"


READ = {
    "a negative offset": ("2026-04-02T07:00:00-09:30", replace(SEVEN, offset=-timedelta(hours=9.5))),
    "-0000 is an instant": ("2026-04-02T07:00:00-0000", replace(SEVEN, is_instant=True)),
    "the basic form without an offset": ("20260402T070000", SEVEN),
    "nine digits after a comma": (
        "2026-04-02T07:00:00,123456789",
        replace(SEVEN, wall=wall("2026-04-02T07:00:00.123456")),
    ),
}


@pytest.mark.parametrize(("text", "wanted"), READ.values(), ids=READ)
def test_a_date_time_is_read_as_written(text: str, wanted: RequestedTime) -> None:
    assert requested_time.read(text) == replace(wanted, text=text)


NEEDS_OFFSET = "expected Z, an offset such as +10:30, or the end, got "


REFUSED = {
    "too much to look at": ("x" * 129, 128, "at most 128 characters are accepted"),
    "words": ("tomorrow", 0, "year must be 4 digits, got 't'"),
    "a space before": (" 2026-04-02T07:00", 0, "year must be 4 digits, got ' '"),
    "a signed year": ("-2026-04-02T07:00", 0, "year must be 4 digits, got '-'"),
    "a short year": ("226-04-02T07:00", 3, "year must be 4 digits, got '-'"),
    "a year only": ("2026", 4, "expected '-' after the year, got the end"),
    "slashes": ("2026/04/02T07:00", 4, "expected '-' after the year, got '/'"),
    "month 0": ("2026-00-02T07:00", 5, "month must be 1..12, got 00"),
    "a short month": ("2026-4-02T07:00", 6, "month must be 2 digits, got '-'"),
    "a month only": ("2026-04", 7, "expected '-' after the month, got the end"),
    "mixed marks": ("2026-04/02", 7, "expected '-' after the month, got '/'"),
    "31 April": ("2026-04-31T07:00", 8, "day must be 1..30 in 2026-04, got 31"),
    "day 0": ("2026-04-00T07:00", 8, "day must be 1..30 in 2026-04, got 00"),
    "31 April, basic form": ("20260431T0700", 6, "day must be 1..30 in 2026-04, got 31"),
    "a T and no more": ("2026-04-02T", 11, "a time of day is missing"),
    "another mark for T": ("2026-04-02_07:00", 10, "expected 'T' and a time of day, got '_'"),
    "seconds since 1970": ("1775993200", 4, "month must be 1..12, got 99"),
    "a short hour": ("2026-04-02T7:00", 12, "hour must be 2 digits, got ':'"),
    "minute 60": ("2026-04-02T07:60", 14, "minute must be 0..59, got 60"),
    "half a minute number": ("2026-04-02T07:5", 15, "minute must be 2 digits, got the end"),
    "a colon at the end": ("2026-04-02T07:00:", 17, "second must be 2 digits, got the end"),
    "second 61": ("2026-04-02T07:00:61", 17, "second must be 0..59, got 61"),
    "a fraction of ten digits": ("2026-04-02T07:00:00.1234567890", 29, "a fraction has at most 9 digits"),
    "PM": ("2026-04-02T07:00 PM", 16, NEEDS_OFFSET + "' '; a '+' in a URL is written %2B"),
    "a line end": ("2026-04-02T07:00\n", 16, NEEDS_OFFSET + "U+000A"),
    "NUL": ("2026-04-02T07:00\x00", 16, NEEDS_OFFSET + "U+0000"),
    "en dash": ("2026\u201304-02T07:00", 4, "expected '-' after the year, got U+2013 EN DASH; write '-'"),
    "offset minute 60": ("2026-04-02T07:00+10:60", 20, "offset minute must be 0..59, got 60"),
    "a short offset": ("2026-04-02T07:00+1", 18, "offset hour must be 2 digits, got the end"),
    "offset colon": ("2026-04-02T07:00+10:", 20, "offset minute must be 2 digits, got the end"),
    "an offset with seconds": ("2026-04-02T07:00+10:30:00", 22, "expected the end, or a zone in brackets, got ':'"),
    "more after the zone": ("2026-04-02T07:00[Asia/Tokyo]!", 28, "expected the end, or a zone in brackets, got '!'"),
    "an offset in brackets": (
        "2026-04-02T07:00[+10:30]",
        17,
        "an offset belongs before the brackets; the brackets hold an Area/City name",
    ),
    "a late zone": ("2026-04-02T07:00[u-ca=hebrew][Asia/Seoul]", 30, "a zone comes first and only once"),
    "an invalid tag": (
        "2026-04-02T07:00[u ca=hebrew]",
        17,
        "a tag is written [key=value], in letters, digits and dashes",
    ),
    "the winter's offset in summer": (
        "2026-04-02T07:00:00+09:30[Australia/Adelaide]",
        19,
        "Australia/Adelaide has +10:30 then, not +09:30",
    ),
    "a zone before its standard time": (
        "1850-01-01T00:00+01:00[Europe/Prague]",
        16,
        "Europe/Prague has +00:57:44 then, not +01:00",
    ),
}


@pytest.mark.parametrize(("text", "position", "reason"), REFUSED.values(), ids=REFUSED)
def test_invalid_time_is_refused_with_position_and_reason(text: str, position: int, reason: str) -> None:
    with pytest.raises(InvalidDateFormat) as refused:
        requested_time.read(text, field="expiresAt")
    assert refused.value.details["reason"] == reason
    assert refused.value.details["position"] == position
    assert refused.value.details["field"] == "expiresAt"
    assert reason in refused.value.message
    assert refused.value.message.endswith("Write it like 2026-04-02T15:00:00 or 2026-04-02T15:00:00+02:00.")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("\x00\ud800" + "9" * 100, "\ufffd\u2026", id="characters that cannot be stored"),
        pytest.param("Zuzana Tajomna +421915123456", "Z\u2026", id="a person"),
        pytest.param("421915123456", "42191\u2026", id="a number"),
        pytest.param("2026-13-01T07:00:00Z", "2026-1\u2026", id="an invalid month"),
        pytest.param("2026-04-02", "2026-04-02", id="no time of day"),
        pytest.param(NOON + "[Zuzana]", NOON + "[Z\u2026", id="an invalid zone"),
        pytest.param(NOON + "." + "0" * 100, NOON + ".\u2026", id="a long one"),
    ],
)
def test_refusal_quotes_nothing_after_the_mistake(text: str, shown: str) -> None:
    """The refusal is stored for a month, and the unread text may identify a person."""
    with pytest.raises(InvalidDateFormat) as refused:
        requested_time.read(text)
    assert refused.value.details["value"] == shown
    assert not [word for word in ("uzana", "Tajomna", "915123") if word in refused.value.message]


LIKELY = st.text(alphabet="0123456789-+:TZtz .,[]!=/uEuropeWx\u2212\u0663\x00", max_size=140)
NEARLY = st.builds(
    lambda start, middle, end: start + middle + end,
    st.sampled_from(["2026", "2026-04-02", NOON, NOON + ":30", NOON + "+10:30", NOON + "[Asia/Tokyo"]),
    LIKELY,
    st.sampled_from(["", "Z", "]", "+01:00", "[Europe/Prague]"]),
)


@given(st.one_of(st.text(max_size=200), LIKELY, NEARLY))
@example(NOON + "[" * 100)
@example("\ud800")
def test_any_text_is_read_or_refused_with_a_position_inside_it(text: str) -> None:
    try:
        requested_time.read(text)
    except InvalidDateFormat as refused:
        assert 0 <= refused.details["position"] <= len(text)  # noqa: PT017 - most texts are refused, some are not
        refused.message.encode()
        assert "\x00" not in refused.details["value"] + refused.message  # noqa: PT017 - the same


WALLS = st.datetimes(wall("0001-01-02T00:00"), wall("9999-12-30T23:59"))
OFFSETS = st.integers(-18 * 60, 18 * 60).map(lambda minutes: timedelta(minutes=minutes))


@given(WALLS, st.sampled_from(["auto", "minutes", "seconds", "milliseconds", "microseconds"]))
def test_a_wall_time_is_read_as_python_reads_it(written: datetime, precision: str) -> None:
    text = written.isoformat(timespec=precision)
    assert requested_time.read(text).wall == datetime.fromisoformat(text)


@given(WALLS, OFFSETS)
def test_an_offset_is_read_as_python_reads_it(written: datetime, offset: timedelta) -> None:
    sign = "-" if offset < timedelta() else "+"
    hour, minute = divmod(abs(offset) // timedelta(minutes=1), 60)
    text = f"{written.isoformat()}{sign}{hour:02}:{minute:02}"
    read, python = requested_time.read(text), datetime.fromisoformat(text)
    assert read.wall == python.replace(tzinfo=None)
    assert read.offset == python.utcoffset()


@given(WALLS)
def test_an_instant_is_read_as_python_reads_it(written: datetime) -> None:
    read = requested_time.read(f"{written.isoformat()}Z")
    assert read.wall.replace(tzinfo=UTC) == datetime.fromisoformat(f"{written.isoformat()}Z")
    assert read.is_instant
    assert read.offset is None
