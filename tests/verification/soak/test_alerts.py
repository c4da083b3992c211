"""The evaluation of alerts over a recorded run: scrapes, promtool's notation, and what must and must not page."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from tests.support.monitoring import RULES, metrics_read, needs_promtool, promtool
from tests.verification.soak.alerts import (
    STEP_S,
    Recording,
    alarms_in,
    judge_alerts,
    notation,
    paging_kinds,
    sample_of,
    tolerated,
)
from tests.verification.soak.soak_setup import STARTS_AT, Blow

RECORDED = Path(__file__).parent / "recorded.tests.yml"
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
    """Return a recording of these answers, each for a number of scrapes."""
    recording = Recording()
    for text, times in texts:
        for _ in range(times):
            recording.add(text)
    return recording


def a_blow(*, hurts_diallers: bool) -> Blow:
    healed_at = STARTS_AT + timedelta(seconds=2)
    return Blow(what="a blow", began_at=STARTS_AT, healed_at=healed_at, hurts_diallers=hurts_diallers)


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
    plain, as_json = tmp_path / "dial.log", tmp_path / "api.log"
    plain.write_text("[error] x: y alarm=LOCK_HELD pid=1\n", encoding="utf-8")
    as_json.write_text('{"event": "x", "alarm": "CLOCK_SKEW"}\n', encoding="utf-8")
    assert alarms_in([plain, as_json]) == {"LOCK_HELD", "CLOCK_SKEW"}
    assert paging_kinds() >= {"LOCK_HELD", "CLOCK_SKEW"}


@needs_promtool
def test_quiet_run_does_not_page(tmp_path: Path) -> None:
    assert judge_alerts(a_recording((QUIET, 5 * MINUTE)), [], [], tmp_path) is None


@needs_promtool
def test_restart_of_the_api_does_not_page(tmp_path: Path) -> None:
    recording = a_recording((QUIET, MINUTE), (None, MINUTE), (QUIET, MINUTE))
    assert judge_alerts(recording, [], [], tmp_path) is None


@needs_promtool
def test_unexpected_page_is_reported_even_when_it_is_over(tmp_path: Path) -> None:
    degraded = QUIET.replace('"workers"} 0.0', '"workers"} 1.0')
    recording = a_recording((QUIET, MINUTE), (degraded, 3 * MINUTE), (QUIET, 2 * MINUTE))
    assert "DuecallIsDegraded" in (judge_alerts(recording, [], [], tmp_path) or "")


@needs_promtool
def test_logged_alarm_must_page(tmp_path: Path) -> None:
    recorded = a_recording((QUIET, MINUTE), (with_alarm("CARRIER_CREDENTIALS"), MINUTE))
    assert judge_alerts(recorded, ["CARRIER_CREDENTIALS", "DEAF_WORKER"], [], tmp_path) is None
    missed = judge_alerts(a_recording((QUIET, MINUTE)), ["CARRIER_CREDENTIALS"], [], tmp_path)
    assert 'kind="CARRIER_CREDENTIALS"' in (missed or "")


@needs_promtool
def test_alarm_that_was_not_logged_must_not_page(tmp_path: Path) -> None:
    recorded = a_recording((QUIET, MINUTE), (with_alarm("LOCK_HELD"), MINUTE))
    assert 'kind="LOCK_HELD"' in (judge_alerts(recorded, [], [], tmp_path) or "")


@needs_promtool
def test_slow_machine_may_page(tmp_path: Path) -> None:
    late = QUIET.replace(f"{LATE} 0.0", f"{LATE} 300.0")
    assert judge_alerts(a_recording((late, 5 * MINUTE)), [], [], tmp_path) is None


def test_unknown_outcomes_may_page_only_after_hurt_diallers() -> None:
    assert "DuecallManyOutcomesAreUnknown" not in tolerated([a_blow(hurts_diallers=False)])
    assert "DuecallManyOutcomesAreUnknown" in tolerated([a_blow(hurts_diallers=True)])


@needs_promtool
def test_recorded_run_of_the_soak_does_not_page(tmp_path: Path) -> None:
    """Evaluate today's rules over a run of the soak, in which faults lasted for seconds."""
    for file in (RECORDED, RULES):
        shutil.copy(file, tmp_path)
    promtool("test", "rules", tmp_path / RECORDED.name)
    [case] = yaml.safe_load(RECORDED.read_text(encoding="utf-8"))["tests"]
    assert {each["series"].partition("{")[0] for each in case["input_series"]} <= metrics_read() | {"up"}
