"""The evaluation of alerts over a recorded run: scrapes, promtool's notation, and what must and must not page."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.monitoring import needs_promtool
from tests.verification.soak.alerts import (
    STEP_S,
    End,
    LoggedAlarm,
    Recording,
    Stored,
    alarms_in,
    judge_alerts,
    notation,
    sample_of,
    that_must_be_stored,
    tolerated,
)
from tests.verification.soak.soak_setup import STARTS_AT, Blow

LATE = 'duecall_late_seconds{company_id="a"}'
QUIET = f"""# HELP duecall_erasures_open Deleted companies.
# TYPE duecall_erasures_open gauge
duecall_erasures_open 0.0
{LATE} 0.0
duecall_commands_waiting{{company_id="a"}} 3.0
duecall_degraded{{problem="workers"}} 0.0
# TYPE duecall_alarms_open gauge
"""
MINUTE = 60 // STEP_S
"""Scrapes in a minute."""


def a_recording(*texts: tuple[str | None, int]) -> Recording:
    """Build a recording of these answers, each for a number of scrapes."""
    recording = Recording()
    for text, times in texts:
        for _ in range(times):
            recording.add(text)
    return recording


def a_blow(*, hurts_diallers: bool) -> Blow:
    healed_at = STARTS_AT + timedelta(seconds=2)
    return Blow(what="a blow", began_at=STARTS_AT, healed_at=healed_at, hurts_diallers=hurts_diallers)


def stored(*kinds: str) -> Stored:
    return Stored(before=frozenset(kinds), after=frozenset(kinds))


def with_alarm(kind: str) -> str:
    return f'{QUIET}duecall_alarms_open{{kind="{kind}"}} 1.0\n'


def test_sample_contains_the_metrics_of_the_rules_only() -> None:
    sample = sample_of(QUIET)
    assert sample == {"duecall_erasures_open": 0.0, LATE: 0.0, 'duecall_degraded{problem="workers"}': 0.0}


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([1.0], "1"),
        ([0.0, 0.0, 0.0, 2.5], "0x2 2.5"),
        ([None, None, 1.0, None, None, None, 1.0], "_x2 1 stale _x2 1"),
        ([1.0, None], "1 stale"),
    ],
)
def test_values_are_written_as_promtool_reads_them(values: list[float | None], written: str) -> None:
    assert notation(values) == written


def test_failed_scrape_has_no_values_and_up_is_zero() -> None:
    series = a_recording((QUIET, 2), (None, 1), (QUIET, 1)).series()
    assert series[LATE] == "0x1 stale 0"
    assert series['up{instance="api",job="duecall"}'] == "1x1 0 1"


def test_alarms_are_found_in_logs(tmp_path: Path) -> None:
    log = tmp_path / "dial.log"
    lines = (f'{{"alarm": "{kind}", "event": "x", "at": "2026-11-27T18:00:44.002722Z"}}' for kind in ("A", "B2"))
    log.write_text("\n".join(["not JSON", *lines, '{"alarm": "CUT_', '{"event": "no alarm"}']), encoding="utf-8")
    at = datetime(2026, 11, 27, 18, 0, 44, 2722, tzinfo=UTC)
    assert list(alarms_in(log, "dial")) == [LoggedAlarm(kind=kind, process="dial", at=at) for kind in ("A", "B2")]


@pytest.mark.parametrize(
    ("process", "after_s", "must"),
    [
        pytest.param("dial", 0.5, False, id="the process ends before it can store"),
        pytest.param("dial", -0.5, False, id="it ended already when its end was noticed"),
        pytest.param("dial", 50, False, id="the database was away until it ended"),
        pytest.param("dial", 61, True, id="it lives long enough"),
        pytest.param("dial", -61, True, id="its predecessor ended"),
        pytest.param("clock", 0.5, True, id="another process ends"),
    ],
)
def test_alarm_of_a_process_that_ended_may_be_lost(process: str, after_s: float, must: bool) -> None:
    alarm = LoggedAlarm(kind="LOCK_HELD", process="dial", at=STARTS_AT)
    ends = [End(process=process, at=STARTS_AT + timedelta(seconds=after_s))]
    assert that_must_be_stored([alarm], ends) == (frozenset({"LOCK_HELD"}) if must else frozenset())


def test_one_lasting_alarm_of_a_kind_suffices() -> None:
    times = (STARTS_AT, STARTS_AT + timedelta(minutes=2))
    logged = [LoggedAlarm(kind="LOCK_HELD", process="dial", at=at) for at in times]
    assert that_must_be_stored(logged, [End(process="dial", at=STARTS_AT)]) == {"LOCK_HELD"}


@needs_promtool
def test_quiet_run_does_not_page(tmp_path: Path) -> None:
    assert judge_alerts(a_recording((QUIET, 5 * MINUTE)), stored(), [], tmp_path) is None


@needs_promtool
def test_restart_of_the_api_does_not_page(tmp_path: Path) -> None:
    recording = a_recording((QUIET, MINUTE), (None, MINUTE), (QUIET, MINUTE))
    assert judge_alerts(recording, stored(), [], tmp_path) is None


@needs_promtool
def test_unexpected_page_is_reported_even_when_it_is_over(tmp_path: Path) -> None:
    degraded = QUIET.replace('"workers"} 0.0', '"workers"} 1.0')
    recording = a_recording((QUIET, MINUTE), (degraded, 3 * MINUTE), (QUIET, 2 * MINUTE))
    assert "DuecallIsDegraded" in (judge_alerts(recording, stored(), [], tmp_path) or "")


@needs_promtool
def test_stored_alarm_must_page(tmp_path: Path) -> None:
    recorded = a_recording((QUIET, MINUTE), (with_alarm("CARRIER_CREDENTIALS"), MINUTE))
    kinds = stored("CARRIER_CREDENTIALS", "DEAF_WORKER")
    assert judge_alerts(recorded, kinds, [], tmp_path) is None
    missed = judge_alerts(a_recording((QUIET, MINUTE)), kinds, [], tmp_path)
    assert 'kind="CARRIER_CREDENTIALS"' in (missed or "")


@needs_promtool
def test_alarm_stored_after_the_last_scrapes_may_page(tmp_path: Path) -> None:
    late = Stored(before=frozenset(), after=frozenset({"LOCK_HELD"}))
    for text in (QUIET, with_alarm("LOCK_HELD")):
        assert judge_alerts(a_recording((QUIET, MINUTE), (text, 1)), late, [], tmp_path) is None


@needs_promtool
def test_alarm_that_is_not_stored_must_not_page(tmp_path: Path) -> None:
    recorded = a_recording((QUIET, MINUTE), (with_alarm("LOCK_HELD"), MINUTE))
    assert 'kind="LOCK_HELD"' in (judge_alerts(recorded, stored(), [], tmp_path) or "")


@needs_promtool
def test_slow_machine_may_page(tmp_path: Path) -> None:
    late = QUIET.replace(f"{LATE} 0.0", f"{LATE} 300.0")
    assert judge_alerts(a_recording((late, 5 * MINUTE)), stored(), [], tmp_path) is None


@needs_promtool
@pytest.mark.parametrize(("minutes", "pages"), [(14, False), (15, None), (17, True)])
def test_long_outage_of_the_voice_server_must_page(tmp_path: Path, minutes: int, pages: bool | None) -> None:
    down = f'{QUIET}duecall_carrier_down{{account="a"}} 1.0\nduecall_carrier_on_trial{{account="a"}} 0.0\n'
    paged, silent = a_recording((QUIET, 1), (down, 20 * MINUTE)), a_recording((QUIET, 20 * MINUTE))
    voice_s = minutes * 60.0
    assert (judge_alerts(paged, stored(), [], tmp_path, voice_s=voice_s) is None) is (pages is not False)
    assert (judge_alerts(silent, stored(), [], tmp_path, voice_s=voice_s) is None) is (pages is not True)


def test_unknown_outcomes_may_page_only_after_hurt_diallers() -> None:
    assert "DuecallManyOutcomesAreUnknown" not in tolerated([a_blow(hurts_diallers=False)])
    assert "DuecallManyOutcomesAreUnknown" in tolerated([a_blow(hurts_diallers=True)])
