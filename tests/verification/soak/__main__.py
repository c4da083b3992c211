"""The soak breaks every component in turn while calls are placed, and then judges the run by the carrier's ledger.

`make soak` runs it for five minutes at twenty calls a second. On a machine that cannot keep up, the load goes on until
3,600 people are served. `python -m tests.verification.soak --help` lists the
options. It prints each fault with its time, the numbers that Jepsen counts, and the growth of connections and memory.
It exits 1 if a person was rung twice, outside their hours or after a cancel, if a call was lost, if an accepted command
was never finished, if a partner's receiver missed an event or got it out of order, if a logged alarm was not stored, if
a call without instructions counted as a conversation, if the evidence of a ring does not explain it, or if the alert
rules, evaluated over the recorded metrics, would have paged for more or less than they should. The recording is written
to `alerts/` in the folder of the run.

At the end the voice server is dead for half a minute, without other faults. Calls must wait for it, and be placed again
within 30 s after it answers. `ARGS="--minutes 0 --voice-minutes 60"` makes that an hour, and omits the rest.
"""

import os
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import requests
import typer

from scheduler.clock import monotonic
from tests.verification.soak.alerts import (
    NO_PROMTOOL,
    STEP_S,
    Ends,
    Recorder,
    Stored,
    judge_alerts,
    must_be_stored,
    paging_kinds,
    stored_kinds,
)
from tests.verification.soak.callers import ACCEPTED, Sample
from tests.verification.soak.gauges import Gauges
from tests.verification.soak.hostile import a_hostile_company
from tests.verification.soak.judgement import Verdict, judge, lines, nearest_rank
from tests.verification.soak.nemesis import LACKING, NOTICED, UNNOTICED, Nemesis, a_nemesis
from tests.verification.soak.partners import Partners, partners_of
from tests.verification.soak.soak_setup import SoakSetup, a_soak_setup, say
from tests.verification.soak.voice_outage import VoiceOutage, judged, let_it_die

_CALM_S = 15.0
"""Time without faults at the beginning, as the baseline for growth."""
_BETWEEN_BLOWS_S = (1.0, 5.0)
_AT_ONCE = 64
"""Most requests of the backend without a final response. On a machine that cannot keep up with the rate, the people who
are not served yet would otherwise repeat their requests until the machine does little else."""
_AT_LEAST = 0.6
"""Share of the people who are served although the time is over: 3,600 of 6,000. A machine that keeps up serves all."""
_PATIENCE_S = 900.0
"""Limit for the remaining work after the last fault."""
_STORED_WITHIN_S = 180.0
_SCRAPED_WITHIN_S = 8.0 * STEP_S


def a_form(account_sid: str) -> dict[str, str]:
    """Build a correct callback for a ringing call, so that only its signature can be wrong."""
    return {"AccountSid": account_sid, "CallSid": f"CA{secrets.token_hex(16)}", "CallStatus": "ringing"}


@dataclass
class Forger:
    """Sends a forged carrier callback once a second."""

    setup: SoakSetup
    dice: random.Random
    sent: int = 0
    heard: list[int] = field(default_factory=list)
    _next_s: float = 0.0

    def forge(self) -> None:
        now = monotonic()
        if now < self._next_s:
            return
        self._next_s = now + 1.0
        tokens = self.setup.rows("SELECT token FROM attempt_tokens ORDER BY claimed_at DESC LIMIT 1") or [("unknown",)]
        form = {**a_form(self.setup.account_sid), "CallStatus": "completed"}
        url = f"{self.setup.whole.running.apiUrl}/carrier/twilio/{tokens[0][0]}"
        try:
            answer = requests.post(url, data=form, headers={"X-Twilio-Signature": secrets.token_urlsafe(20)}, timeout=2)
        except requests.RequestException:
            return
        self.sent += 1
        if answer.ok:
            self.heard.append(answer.status_code)


def main(
    minutes: Annotated[float, typer.Option(help="Minutes of load and faults. 0: none.")] = 5.0,
    rate: Annotated[float, typer.Option(help="Interviews requested per second.")] = 20.0,
    voice_minutes: Annotated[float, typer.Option(help="Minutes without the voice server, after the faults.")] = 0.5,
    seed: Annotated[int | None, typer.Option(help="Seed of people and faults. Default: random.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder for logs and data. Default: a temporary one.")] = None,
) -> None:
    """Break every component while calls are placed, then judge the run."""
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} is not empty: its contents would be judged too")
    chosen = seed if seed is not None else secrets.randbelow(1_000_000)
    say(f"seed {chosen}, {minutes:g} minutes at {rate:g} calls a second")
    with tempfile.TemporaryDirectory() as temporary:
        home = folder or Path(temporary) / "soak"
        with (
            a_soak_setup(home, say) as setup,
            partners_of(setup, chosen) as partners,
            a_nemesis(setup, chosen, say) as nemesis,
        ):
            lengths = Lengths(seconds=minutes * 60, voice_s=voice_minutes * 60)
            verdict = soak(setup, nemesis, partners, seed=chosen, rate=rate, lengths=lengths)
    for heading, faults in verdict.faults.items():  # again, because a reader of a long log sees its end
        for each in faults[:3]:
            print(f"{heading}: {each}")
    say("clean" if verdict.is_clean else "NOT CLEAN")
    sys.exit(0 if verdict.is_clean else 1)


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """The lengths of the parts of a run."""

    seconds: float
    """Of load and faults. 0 omits them."""
    voice_s: float
    """Of the outage of the voice server. 0 omits it."""


def soak(
    setup: SoakSetup, nemesis: Nemesis, partners: Partners, *, seed: int, rate: float, lengths: Lengths
) -> Verdict:
    gauges = Gauges(setup)
    forger = Forger(setup, random.Random(seed))
    ends = Ends(setup)
    setup.meanwhile += [gauges.read, forger.forge, ends.look]
    with Recorder(setup.whole.running.apiUrl) as recorder:
        if lengths.seconds:
            with a_hostile_company(setup) as hostile:
                _break_everything(setup, nemesis, seed=seed, rate=rate, seconds=lengths.seconds)
            say(f"the hostile company sent {hostile.sent} commands and is deleted now")
        is_quiet = setup.until(setup.is_quiet, seconds=_PATIENCE_S)
        outage = _end_voice_server(setup, seed=seed, rate=rate, seconds=lengths.voice_s) if lengths.voice_s else None
        is_quiet = is_quiet and setup.until(setup.is_quiet, seconds=_PATIENCE_S)
        say("all finished" if is_quiet else "NOT FINISHED")
        missing, before = _wait_for_alarms(setup, nemesis, ends, recorder)
    is_quiet = is_quiet and setup.until(partners.is_quiet, seconds=_PATIENCE_S)
    setup.meanwhile.clear()
    verdict = judge(setup, len(forger.heard))
    if lengths.seconds:  # only those people belong to the company of the partners
        verdict.faults["partners"] += partners.faults()
    if outage is not None:
        of_voice = judged(outage)
        verdict.faults["voice server"] += of_voice.faults
        verdict.notes += of_voice.lines
    if not is_quiet:
        verdict.faults["stuck"].append(f"not finished {_PATIENCE_S:.0f} s after the last fault")
    if nemesis.wrong_clock == UNNOTICED or (nemesis.wrong_clock == LACKING and os.environ.get("CI") == "true"):
        verdict.faults["wrong clock"].append(nemesis.wrong_clock)
    verdict.faults["alerts"] += missing
    told = _judge_rules(setup, recorder, Stored(before=before, after=stored_kinds(setup)), verdict, lengths.voice_s)
    for line in lines(verdict):
        print(line)
    _tell_of_latency(setup.loads[0].told()[1])
    _tell_of_growth(gauges)
    print(f"{forger.sent} forged callbacks, dialler with a wrong clock: {nemesis.wrong_clock}")
    print(f"alerts: {told}")
    print(f"partners: {partners.summary()}")
    return verdict


def _break_everything(setup: SoakSetup, nemesis: Nemesis, *, seed: int, rate: float, seconds: float) -> None:
    """Place calls and inject faults."""
    began = monotonic()
    setup.begin(
        seed=seed,
        rate=rate,
        seconds=seconds,
        at_once=_AT_ONCE,
        at_least=int(_AT_LEAST * rate * seconds),
        patience_s=_PATIENCE_S,
    )
    setup.pause(_CALM_S)
    while monotonic() - began < seconds:
        nemesis.strike()
        setup.pause(nemesis.dice.uniform(*_BETWEEN_BLOWS_S))
    setup.at_carrier("DELETE", "/outage")
    setup.at_carrier("DELETE", "/voice/outage")
    say(f"{len(setup.blows)} faults in {monotonic() - began:.0f} s, all healed now")
    setup.until(lambda: setup.loads[0].is_over, seconds=_PATIENCE_S)
    say(f"all requested {monotonic() - began:.0f} s after the first request")


def _end_voice_server(setup: SoakSetup, *, seed: int, rate: float, seconds: float) -> VoiceOutage:
    """End the voice server for a while, with no other fault."""
    say(f"the voice server dies for {seconds:.0f} s")
    began_at = setup.whole.now()
    outage = let_it_die(setup, seed=seed, rate=rate, seconds=seconds, at_once=_AT_ONCE)
    setup.note("voice server dead", began_at, hurts_diallers=False)
    say("all calls that waited for the voice server have been placed")
    return outage


def _wait_for_alarms(
    setup: SoakSetup, nemesis: Nemesis, ends: Ends, recorder: Recorder
) -> tuple[list[str], frozenset[str]]:
    """Wait until the logged alarms are stored and their number is scraped. Return what is missing, and what is stored.

    Processes store alarms in the background, and may lose them when they end.
    """
    must = must_be_stored(setup, ends)
    if nemesis.wrong_clock == NOTICED:
        must |= {"CLOCK_SKEW"}
    setup.until(lambda: must <= stored_kinds(setup), seconds=_STORED_WITHIN_S)
    stored = stored_kinds(setup)
    missing = [f"{kind} was logged and is not stored" for kind in sorted(must - stored)]
    enough = recorder.recording.answered + 2  # the next one may be under way already
    if not setup.until(lambda: recorder.recording.answered >= enough, seconds=_SCRAPED_WITHIN_S):
        missing.append(f"/metrics did not answer twice within {_SCRAPED_WITHIN_S:.0f} s")
    return missing, stored


def _judge_rules(setup: SoakSetup, recorder: Recorder, stored: Stored, verdict: Verdict, voice_s: float) -> str:
    """Add to the verdict if Prometheus would have paged for more or less than it should. Return a summary."""
    if shutil.which("promtool") is None:
        if os.environ.get("CI") == "true":
            verdict.faults["alerts"].append(NO_PROMTOOL)
        return f"not judged: {NO_PROMTOOL}"
    folder = setup.whole.home / "alerts"
    if report := judge_alerts(recorder.recording, stored, setup.blows, folder, voice_s=voice_s):
        verdict.faults["alerts"].append(report)
    paged = ", ".join(sorted(paging_kinds() & stored.before)) or "no alarm"
    return f"{paged} had to page; {len(recorder.recording.scrapes)} scrapes in {folder}"


def _tell_of_latency(samples: Sequence[Sample]) -> None:
    at_once = sorted(sample.took_s for sample in samples if not sample.waits and sample.status == ACCEPTED)
    if at_once:
        p50, p99 = (nearest_rank(at_once, part) * 1000 for part in (0.5, 0.99))
        print(f"{len(samples)} requests; an immediate 202 took {p50:.0f} ms (p50), {p99:.0f} ms (p99)")


def _tell_of_growth(gauges: Gauges) -> None:
    for what, (first, last, most) in (("connections", gauges.connections()), ("unacked", gauges.unacked())):
        print(f"{what:34} first third {first}, last third {last}, at most {most}")
    for name, (thirds, lasted) in sorted(gauges.memory().items()):
        print(f"memory of {name:24} {' → '.join(map(str, thirds))} MiB in the thirds of {lasted} s")


if __name__ == "__main__":
    typer.run(main)
