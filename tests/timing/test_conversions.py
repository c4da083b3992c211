"""Conversions between instants and wall times agree with two other implementations: PostgreSQL's and `whenever`'s.

PostgreSQL has its own zone data, from an earlier release than the wheel's. Each clock that a later release changed is
listed below by name and date, and nothing else may differ. `whenever` reads the wheel's files with its own reader, and
has its own rules for times after the last listed change. A nonexistent wall time moves forward by the gap, and a
repeated one means the first.
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

pytestmark = pytest.mark.usefixtures("zones_of_the_wheel")

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


HARD_PLACES = (
    *("Europe/Bratislava", "America/New_York", "Europe/London", "Europe/Dublin", "Australia/Adelaide", "Asia/Beirut"),
    *("Australia/Lord_Howe", "Antarctica/Troll", "America/Santiago", "Pacific/Chatham", "Africa/Cairo", "Asia/Gaza"),
    "Africa/Casablanca",
)
"""Places that change by other spans than an hour, at midnight, by the moon or back in summer, and some usual ones."""
WINTER_OF_2026 = datetime(2026, 11, 1, tzinfo=UTC)
NEWER_THAN_POSTGRESQL = {
    # PostgreSQL 18.6 knows the zone data up to release 2026c.
    "America/Inuvik": Later(release="2026d", since=WINTER_OF_2026 + 8 * HOUR, until=UNTIL, ahead=HOUR),
    "America/Winnipeg": Later(release="2026e", since=WINTER_OF_2026 + 7 * HOUR, until=UNTIL, ahead=HOUR),
    "America/Havana": Later(
        release="2026f", since=WINTER_OF_2026 + 5 * HOUR, until=datetime(2027, 3, 14, 5, tzinfo=UTC), ahead=HOUR
    ),
}


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
    """Each change in each zone, at both ends and within."""
    count = 0
    for zone in {*exhaustive.every(5, sorted(zone_names.PLACES)), *HARD_PLACES}:
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
