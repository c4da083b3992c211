"""An outage of the voice server under load, and the judgement of what it costs.

The probe has the settings of a user (`VOICE_PROBE=1`, every 5 s), and a trial call lasts its real 10 s. Only the
conversations are short, and `SHORT_CALL_S` with them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from scheduler.clock import monotonic
from tests.verification.soak.nemesis import PROCESSES
from tests.verification.soak.soak_setup import SoakSetup

_BEFORE_S, _AFTER_S = 5.0, 30.0
"""Load before the outage, and after it."""
RESUMES_WITHIN = timedelta(seconds=30)
OPENS_WITHIN = timedelta(seconds=5)
"""From the answer of the second call without instructions to the breaker."""
IN_FLIGHT = timedelta(seconds=2)
"""From a dialler's last look to the carrier's ledger."""
_GIVE_UP_S = 300.0
_CALLS_A_SECOND = 10.0
"""The pace at which even a slow machine places the calls that have waited."""


class Breaker(StrEnum):
    """The events of the breaker in the logs."""

    OPENED = "voice_server_down"
    TRIED = "voice_server_half_open"
    CLOSED = "voice_server_up"


@dataclass(frozen=True, kw_only=True)
class BreakerEvent:
    kind: Breaker
    at: datetime
    """On the system's clock."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A call that was answered at the carrier."""

    accepted_at: datetime
    answered_at: datetime
    is_instructed: bool


@dataclass(frozen=True, kw_only=True)
class VoiceOutage:
    """The events from the death of the voice server until all calls had been placed."""

    died_at: datetime
    answers_at: datetime
    """When it answered again."""
    events: Sequence[BreakerEvent]
    answers: Sequence[Answer]


@dataclass
class Judged:
    faults: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def let_it_die(setup: SoakSetup, *, seed: int, rate: float, seconds: float, at_once: int) -> VoiceOutage:
    """End the voice server for a while under load, and wait until the calls that waited have been placed."""
    load_s = _BEFORE_S + seconds + _AFTER_S
    setup.begin(seed=seed, rate=rate, seconds=load_s, all_alike="answered", at_once=at_once, patience_s=_GIVE_UP_S)
    setup.pause(_BEFORE_S)
    died_at = setup.whole.now()
    setup.at_carrier("POST", "/voice/outage")
    setup.pause(seconds)
    answers_at = setup.whole.now()
    setup.at_carrier("DELETE", "/voice/outage")
    began = monotonic()
    patience_s = _GIVE_UP_S + rate * load_s / _CALLS_A_SECOND
    setup.until(lambda: monotonic() > began + _AFTER_S and setup.is_quiet(), seconds=patience_s)
    ledger = setup.at_carrier("GET", "/ledger").json()["rings"]
    return VoiceOutage(
        died_at=died_at, answers_at=answers_at, events=list(_logged(setup)), answers=list(answers_from(ledger))
    )


def answers_from(ledger: Sequence[Mapping[str, Any]]) -> Iterator[Answer]:
    for ring in ledger:
        if ring["answered_at"] is not None:
            yield Answer(
                accepted_at=datetime.fromisoformat(ring["accepted_at"]),
                answered_at=datetime.fromisoformat(ring["answered_at"]),
                is_instructed=ring["instructed"],
            )


def _logged(setup: SoakSetup) -> Iterator[BreakerEvent]:
    supervisor, offset = setup.whole.system.supervisor, timedelta(seconds=setup.whole.offset_s)
    for name in PROCESSES:
        for event in breaker_events_in(supervisor.program(name).log):
            yield BreakerEvent(kind=event.kind, at=event.at + offset)


def breaker_events_in(log: Path) -> Iterator[BreakerEvent]:
    """Yield the events of the breaker in the log of a process, on the machine's clock."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if "voice_server_" in line:
            with suppress(ValueError, KeyError):  # a killed process may have written a part of a line
                said = json.loads(line)
                kind = Breaker(said["event"].partition(":")[0])
                yield BreakerEvent(kind=kind, at=datetime.fromisoformat(said["at"]))


def judged(outage: VoiceOutage) -> Judged:
    """Judge the openings of the breaker, the calls that each has cost, and the time until calls were placed again."""
    found = Judged()
    events = sorted((each for each in outage.events if each.at >= outage.died_at), key=lambda each: each.at)
    failed = sorted(
        (each for each in outage.answers if not each.is_instructed and each.answered_at >= outage.died_at),
        key=lambda each: each.accepted_at,
    )
    opened = next((each.at for each in events if each.kind is Breaker.OPENED), None)
    if opened is None or opened > outage.answers_at:
        found.faults.append(f"the breaker did not open, and {len(failed)} calls got no instructions")
        return found
    _judge_opening(found, outage, failed, opened)
    _judge_trials(found, failed, events, opened)
    _judge_return(found, outage, events)
    return found


def _judge_opening(found: Judged, outage: VoiceOutage, failed: Sequence[Answer], opened: datetime) -> None:
    noticed = sorted(each.answered_at for each in failed)[:2]
    took = opened - noticed[-1] if noticed else timedelta()
    in_the_air = sum(each.accepted_at <= opened for each in failed)
    found.lines.append(
        f"voice server dead for {_seconds(outage.answers_at - outage.died_at)}: the breaker opened"
        f" {_seconds(opened - outage.died_at)} after its death and {_seconds(took)} after the second answer without"
        f" instructions. 2 calls were spent to notice it, {max(0, in_the_air - 2)} more were in the air"
    )
    if took > OPENS_WITHIN:
        found.faults.append(f"the breaker opened {_seconds(took)} after the second answer without instructions")


def _judge_trials(found: Judged, failed: Sequence[Answer], events: Sequence[BreakerEvent], opened: datetime) -> None:
    """Report calls after the opening that no trial permits: each answered probe permits one."""
    trials = [each.at for each in events if each.kind is Breaker.TRIED]
    late = [each for each in failed if each.accepted_at > opened + IN_FLIGHT]
    found.lines.append(f"{len(late)} calls without instructions after that, and {len(trials)} trials")
    for place, each in enumerate(late, start=1):
        permitted = sum(trial <= each.accepted_at + IN_FLIGHT for trial in trials)
        if place > permitted:
            found.faults.append(f"a call was placed at {each.accepted_at}: number {place}, after {permitted} trials")


def _judge_return(found: Judged, outage: VoiceOutage, events: Sequence[BreakerEvent]) -> None:
    after = sorted(
        each.accepted_at for each in outage.answers if each.is_instructed and each.accepted_at >= outage.answers_at
    )
    closed = next((each.at for each in events if each.kind is Breaker.CLOSED and each.at >= outage.answers_at), None)
    if closed is None or len(after) < 2:  # the trial, and the first call after it
        found.faults.append(f"the breaker did not close: {len(after)} calls after the outage")
        return
    tried, resumed = after[0] - outage.answers_at, after[1] - outage.answers_at
    found.lines.append(f"it answered again: a trial call after {_seconds(tried)}, all calls after {_seconds(resumed)}")
    if resumed > RESUMES_WITHIN:
        found.faults.append(f"calls were placed again only {_seconds(resumed)} after the voice server answered")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.1f} s"
