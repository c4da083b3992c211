"""Conversions between instants and wall times agree with two other implementations: PostgreSQL's and `whenever`'s.

PostgreSQL has its own zone data, from an earlier release than the wheel's. Each clock that a later release changed is
listed below by name and date, and nothing else may differ. `whenever` reads the wheel's files with its own reader, and
has its own rules for times after the last listed change.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import psycopg
import pytest
import whenever

from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.timing import call_windows, callee_zones, requested_time, zone_names
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.support import exhaustive

SEED = 20_261_125
INSTANTS_A_ZONE = exhaustive.cases(500, 20)
"""Random instants since 1901, and those around each change in these years."""
SINCE, UNTIL = datetime(1901, 1, 1, tzinfo=UTC), datetime(2060, 1, 1, tzinfo=UTC)
CHANGES_SINCE, CHANGES_UNTIL = datetime(2015, 1, 1, tzinfo=UTC), datetime(2042, 1, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Later:
    """A clock that a release newer than PostgreSQL's data changed, and its additional offset since then."""

    release: str
    since: datetime
    until: datetime
    ahead: timedelta


WINTER_OF_2026 = datetime(2026, 11, 1, tzinfo=UTC)
NEWER_THAN_POSTGRESQL = {
    # PostgreSQL 18.6 knows the zone data up to release 2026c.
    "America/Inuvik": Later(release="2026d", since=WINTER_OF_2026 + 8 * HOUR, until=UNTIL, ahead=HOUR),
    "America/Winnipeg": Later(release="2026e", since=WINTER_OF_2026 + 7 * HOUR, until=UNTIL, ahead=HOUR),
    "America/Havana": Later(
        release="2026f", since=WINTER_OF_2026 + 5 * HOUR, until=datetime(2027, 3, 14, 5, tzinfo=UTC), ahead=HOUR
    ),
}


@pytest.fixture(autouse=True, scope="module")
def _the_wheels_zones_for_both() -> Iterator[None]:
    before = whenever.get_tzpath()
    whenever.reset_tzpath(())
    yield
    whenever.reset_tzpath(before)


def of(zone: str) -> CalleeClock:
    return CalleeClock(source=TimezoneSource.CANDIDATE, zones=(zone,))


def changes(zone: str) -> Iterator[datetime]:
    at = whenever.Instant.from_timestamp(int(CHANGES_SINCE.timestamp())).to_tz(zone).next_transition()
    while at is not None and at.to_stdlib() < CHANGES_UNTIL:
        yield at.to_stdlib().astimezone(UTC)
        at = at.next_transition()


@cache
def asked() -> tuple[tuple[str, datetime], ...]:
    """Each zone with each instant at which it is asked."""
    dice, span = random.Random(SEED), (UNTIL - SINCE) // SECOND
    cases = []
    for zone in sorted(zone_names.PLACES):
        cases += [(zone, SINCE + dice.randrange(span) * SECOND) for _ in range(INSTANTS_A_ZONE)]
        cases += [(zone, at + step * SECOND) for at in changes(zone) for step in (-1, 0, 1)]
    for zone, later in NEWER_THAN_POSTGRESQL.items():
        cases += [(zone, later.since + dice.random() * (later.until - later.since)) for _ in range(50)]
    return tuple((zone, instant.replace(microsecond=0)) for zone, instant in cases)


@cache
def shown() -> tuple[datetime, ...]:
    """Compute the local times by our code."""
    return tuple(call_windows.local_times(of(zone), instant)[0] for zone, instant in asked())


def said_by_postgresql(postgres: EmbeddedPostgres, sql: str, seconds: list[int]) -> list[timedelta]:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        rows = connection.execute(
            f"SELECT extract(epoch FROM {sql})::bigint"
            " FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS asked (zone, second, place) ORDER BY place",
            ([zone for zone, _ in asked()], seconds),
        ).fetchall()
    return [second * SECOND for (second,) in rows]


def check_listed(differences: dict[tuple[str, datetime], timedelta], *, already: timedelta = timedelta(0)) -> None:
    """Check that exactly the listed differences occur."""
    for (zone, instant), ahead in differences.items():
        later = NEWER_THAN_POSTGRESQL.get(zone)
        assert later is not None, f"{zone} at {instant.isoformat()} differs from PostgreSQL's by {ahead}"
        assert later.since - already <= instant < later.until, f"{zone} at {instant.isoformat()}"
        assert ahead == later.ahead, f"{zone} at {instant.isoformat()}"
    assert {zone for zone, _ in differences} == set(NEWER_THAN_POSTGRESQL)


def test_listed_differences_are_of_releases_up_to_the_wheels() -> None:
    assert all(later.release <= zone_names.TZDATA_VERSION for later in NEWER_THAN_POSTGRESQL.values())


def test_local_time_of_an_instant_equals_postgresqls(postgres: EmbeddedPostgres, aloud: Callable[[str], None]) -> None:
    seconds = [(instant - EPOCH) // SECOND for _, instant in asked()]
    theirs = said_by_postgresql(postgres, "to_timestamp(second) AT TIME ZONE zone", seconds)
    ours = [wall.replace(tzinfo=UTC) - EPOCH for wall in shown()]
    check_listed({case: our - their for case, our, their in zip(asked(), ours, theirs, strict=True) if our != their})
    aloud(f"  {len(asked())} instants in {len(zone_names.PLACES)} zones compared with PostgreSQL, seed {SEED}")
    assert len(asked()) >= exhaustive.cases(150_000, 20_000)


def test_local_time_of_an_instant_equals_whenevers() -> None:
    for (zone, instant), wall in zip(asked(), shown(), strict=True):
        assert whenever.Instant(instant).to_tz(zone).to_plain().to_stdlib() == wall, f"{zone} at {instant.isoformat()}"


@cache
def named() -> tuple[datetime | None, ...]:
    """Return the instants of the wall times, or None for an ambiguous wall time, which has its own table."""
    return tuple(
        None if is_repeated(wall, zone) else call_windows.instant_of(of(zone), wall)
        for (zone, _), wall in zip(asked(), shown(), strict=True)
    )


def is_repeated(wall: datetime, zone: str) -> bool:
    return whenever.PlainDateTime(wall).assume_tz(zone, disambiguation="compatible").is_repeated()


def test_wall_time_names_the_same_instant_as_postgresql(
    postgres: EmbeddedPostgres, aloud: Callable[[str], None]
) -> None:
    seconds = [(wall.replace(tzinfo=UTC) - EPOCH) // SECOND for wall in shown()]
    sql = "(to_timestamp(second) AT TIME ZONE 'UTC') AT TIME ZONE zone"
    both = zip(asked(), named(), said_by_postgresql(postgres, sql, seconds), strict=True)
    compared = [(case, instant - EPOCH, their) for case, instant, their in both if instant]
    # The hour before a change that only PostgreSQL still expects is ambiguous to PostgreSQL.
    check_listed({case: their - our for case, our, their in compared if our != their}, already=HOUR)
    aloud(f"  {len(compared)} wall times in {len(zone_names.PLACES)} zones compared with PostgreSQL, seed {SEED}")
    assert len(compared) >= exhaustive.cases(150_000, 14_000)


def test_wall_time_names_the_same_instant_as_whenever() -> None:
    for (zone, instant), wall, our in zip(asked(), shown(), named(), strict=True):
        if our is not None:
            theirs = whenever.PlainDateTime(wall).assume_tz(zone, disambiguation="raise").to_instant().to_stdlib()
            assert our == theirs == instant, f"{wall} in {zone}"


def test_wall_time_in_a_gap_or_fold_agrees_with_whenever() -> None:
    """Beyond the table below: each change in each zone, at both ends and within."""
    count = 0
    for zone in exhaustive.every(5, sorted(zone_names.PLACES)):
        for change in changes(zone):
            before = call_windows.local_times(of(zone), change - SECOND)[0] + SECOND
            low, high = sorted((before, call_windows.local_times(of(zone), change)[0]))
            for wall in (low - SECOND, low, low + (high - low) / 2, high - SECOND, high, high + SECOND):
                theirs = whenever.PlainDateTime(wall).assume_tz(zone, disambiguation="compatible").to_instant()
                assert call_windows.instant_of(of(zone), wall) == theirs.to_stdlib(), f"{wall} in {zone}"
                count += 1
    assert count >= exhaustive.cases(25_000, 5_000)


def test_instant_with_offset_and_zone_is_read_back_in_a_fold() -> None:
    count = repeated = 0
    for (zone, instant), wall in list(zip(asked(), shown(), strict=True))[::4]:
        (offset,) = call_windows.utc_offsets(of(zone), instant)
        if offset % timedelta(minutes=1):
            continue  # the seconds of a local mean time cannot be written
        text = f"{wall.isoformat()}{whenever.Instant(instant).to_tz(zone).format_iso()[19:25]}[{zone}]"
        requested = requested_time.read(text)
        clock = callee_zones.deciding_clock(requested, candidate_zone=None, number=None, company_zone=None)
        assert call_windows.resolve(requested, clock) == instant, text
        assert whenever.ZonedDateTime.parse_iso(text).to_instant().to_stdlib() == instant, text
        count += 1
        repeated += is_repeated(wall, zone)
    assert count >= exhaustive.cases(40_000, 5_000)
    assert repeated >= 1_500


GAPS = [
    # zone, nonexistent wall time, resulting wall time, instant
    ("Europe/Bratislava", "2026-03-29T02:30", "03:30", "2026-03-29T01:30"),
    ("Europe/Bratislava", "2026-03-29T02:00", "03:00", "2026-03-29T01:00"),
    ("Europe/Bratislava", "2026-03-29T02:59:59", "03:59:59", "2026-03-29T01:59:59"),
    ("America/New_York", "2026-03-08T02:30", "03:30", "2026-03-08T07:30"),
    ("Europe/London", "2026-03-29T01:30", "02:30", "2026-03-29T01:30"),
    ("Europe/Dublin", "2026-03-29T01:30", "02:30", "2026-03-29T01:30"),
    ("Australia/Lord_Howe", "2026-10-04T02:15", "02:45", "2026-10-03T15:45"),
    ("Australia/Adelaide", "2026-10-04T02:30", "03:30", "2026-10-03T17:00"),
    ("Antarctica/Troll", "2026-03-29T02:30", "04:30", "2026-03-29T02:30"),
    ("America/Santiago", "2026-09-06T00:30", "01:30", "2026-09-06T04:30"),
    ("Pacific/Chatham", "2026-09-27T03:00", "04:00", "2026-09-26T14:15"),
    ("Africa/Cairo", "2026-04-24T00:00", "01:00", "2026-04-23T22:00"),
    ("Asia/Beirut", "2026-03-29T00:30", "01:30", "2026-03-28T22:30"),
    ("Asia/Gaza", "2026-03-28T02:30", "03:30", "2026-03-28T00:30"),
    ("Africa/Casablanca", "2026-03-22T02:30", "03:30", "2026-03-22T02:30"),
    ("Pacific/Apia", "2011-12-30T12:00", "12:00", "2011-12-30T22:00"),
]
FOLDS = [
    # zone, the wall time that comes twice, the first instant, the second
    ("Europe/Bratislava", "2026-10-25T02:30", "2026-10-25T00:30", "2026-10-25T01:30"),
    ("Europe/Bratislava", "2026-10-25T02:00", "2026-10-25T00:00", "2026-10-25T01:00"),
    ("Europe/Bratislava", "2026-10-25T02:59:59", "2026-10-25T00:59:59", "2026-10-25T01:59:59"),
    ("America/New_York", "2026-11-01T01:30", "2026-11-01T05:30", "2026-11-01T06:30"),
    ("Europe/London", "2026-10-25T01:30", "2026-10-25T00:30", "2026-10-25T01:30"),
    ("Europe/Dublin", "2026-10-25T01:30", "2026-10-25T00:30", "2026-10-25T01:30"),
    ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45", "2026-04-04T15:15"),
    ("Australia/Adelaide", "2026-04-05T02:30", "2026-04-04T16:00", "2026-04-04T17:00"),
    ("Antarctica/Troll", "2026-10-25T01:30", "2026-10-24T23:30", "2026-10-25T01:30"),
    ("America/Santiago", "2026-04-04T23:30", "2026-04-05T02:30", "2026-04-05T03:30"),
    ("Pacific/Chatham", "2026-04-05T03:00", "2026-04-04T13:15", "2026-04-04T14:15"),
    ("Africa/Cairo", "2026-10-29T23:30", "2026-10-29T20:30", "2026-10-29T21:30"),
    ("Africa/Casablanca", "2026-02-15T02:30", "2026-02-15T01:30", "2026-02-15T02:30"),
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(("zone", "wall", "becomes", "instant"), GAPS, ids=[f"{gap[0]} {gap[1]}" for gap in GAPS])
def test_nonexistent_wall_time_moves_forward_by_the_gap(zone: str, wall: str, becomes: str, instant: str) -> None:
    named_instant = call_windows.instant_of(of(zone), datetime.fromisoformat(wall))
    assert named_instant == utc(instant)
    (local,) = call_windows.local_times(of(zone), named_instant)
    assert local != datetime.fromisoformat(wall)
    assert local.time() == datetime.fromisoformat(f"{wall[:10]}T{becomes}").time()


@pytest.mark.parametrize(("zone", "wall", "first", "second"), FOLDS, ids=[f"{fold[0]} {fold[1]}" for fold in FOLDS])
def test_repeated_wall_time_means_the_first(zone: str, wall: str, first: str, second: str) -> None:
    assert call_windows.instant_of(of(zone), datetime.fromisoformat(wall)) == utc(first)
    for instant in (first, second):
        assert call_windows.local_times(of(zone), utc(instant)) == (datetime.fromisoformat(wall),)
