"""The soak: calls are made while everything that can break is broken, and then the carrier's ledger judges.

`make soak` runs five minutes of it at twenty calls a second; `python -m tests.verification.soak --help` has what can
be chosen. It prints what was broken and when, Jepsen's numbers, and what grew; it exits 1 when one person was rung
twice, outside their hours or after a cancel, when one call was lost, or when anything accepted was never finished.
"""

import os
import random
import secrets
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import requests
import typer

from scheduler.clock import monotonic
from tests.verification.soak.callers import ACCEPTED, Sample
from tests.verification.soak.gauges import Gauges
from tests.verification.soak.judgement import Verdict, judge, lines, nearest_rank
from tests.verification.soak.nemesis import LACKING, UNNOTICED, Nemesis, a_nemesis
from tests.verification.soak.stage import Stage, a_stage, say

_CALM_S = 15.0
"""At the beginning, so that what grows can be compared with how it was."""
_BETWEEN_BLOWS_S = (1.0, 5.0)
_PATIENCE_S = 900.0
"""How long what is left over may take when nothing is broken any more."""


def a_form(account_sid: str) -> dict[str, str]:
    """What the carrier says of a call that rings: right in every field, so that the signature alone can be wrong."""
    return {"AccountSid": account_sid, "CallSid": f"CA{secrets.token_hex(16)}", "CallStatus": "ringing"}


@dataclass
class Forger:
    """Sends a callback now and then that the carrier never sent."""

    stage: Stage
    dice: random.Random
    sent: int = 0
    heard: list[int] = field(default_factory=list)
    _next_s: float = 0.0

    def forge(self) -> None:
        now = monotonic()
        if now < self._next_s:
            return
        self._next_s = now + 1.0
        tokens = self.stage.rows("SELECT token FROM attempt_tokens ORDER BY claimed_at DESC LIMIT 1") or [("nobody",)]
        form = {**a_form(self.stage.account_sid), "CallStatus": "completed"}
        url = f"{self.stage.whole.running.apiUrl}/carrier/twilio/{tokens[0][0]}"
        try:
            answer = requests.post(url, data=form, headers={"X-Twilio-Signature": secrets.token_urlsafe(20)}, timeout=2)
        except requests.RequestException:
            return
        self.sent += 1
        if answer.ok:
            self.heard.append(answer.status_code)


def main(
    minutes: Annotated[float, typer.Option(help="How long calls are asked for, and things broken.")] = 5.0,
    rate: Annotated[float, typer.Option(help="Interviews asked for a second.")] = 20.0,
    seed: Annotated[int | None, typer.Option(help="Who is called, and what breaks when; else a new one.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where logs and data are kept; else they are forgotten.")] = None,
) -> None:
    """Break everything while calls are made, and judge what came of it."""
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} is not empty: what it holds would be judged too")
    chosen = seed if seed is not None else secrets.randbelow(1_000_000)
    say(f"seed {chosen}, {minutes:g} minutes at {rate:g} calls a second")
    with tempfile.TemporaryDirectory() as forgotten:
        home = folder or Path(forgotten) / "soak"
        with a_stage(home, say) as stage, a_nemesis(stage, chosen, say) as nemesis:
            verdict = soak(stage, nemesis, seed=chosen, rate=rate, seconds=minutes * 60)
    say("clean" if verdict.is_clean else "NOT CLEAN")
    sys.exit(0 if verdict.is_clean else 1)


def soak(stage: Stage, nemesis: Nemesis, *, seed: int, rate: float, seconds: float) -> Verdict:
    gauges = Gauges(stage)
    forger = Forger(stage, random.Random(seed))
    stage.meanwhile += [gauges.read, forger.forge]
    began = monotonic()
    load = stage.begin(seed=seed, rate=rate, seconds=seconds, patience_s=_PATIENCE_S)
    stage.pause(_CALM_S)
    while monotonic() - began < seconds:
        nemesis.strike()
        stage.pause(nemesis.dice.uniform(*_BETWEEN_BLOWS_S))
    stage.whole.client.session.delete(f"{stage.whole.running.simulatorUrl}/outage", timeout=30)
    say(f"{len(stage.blows)} blows in {monotonic() - began:.0f} s; now nothing is broken any more")
    is_quiet = stage.until(stage.is_quiet, seconds=_PATIENCE_S)
    stage.meanwhile.clear()
    say(f"{'all is over' if is_quiet else 'STILL NOT OVER'} {monotonic() - began:.0f} s after the first was asked for")
    verdict = judge(stage, len(forger.heard))
    if not is_quiet:
        verdict.faults["stuck"].append(f"not over {_PATIENCE_S:.0f} s after nothing was broken any more")
    if nemesis.wrong_clock == UNNOTICED or (nemesis.wrong_clock == LACKING and os.environ.get("CI") == "true"):
        verdict.faults["wrong clock"].append(nemesis.wrong_clock)
    for line in lines(verdict):
        print(line)
    _tell_of_latency(load.told()[1])
    _tell_of_growth(gauges)
    print(f"{forger.sent} forged callbacks; a dialler with a wrong clock: {nemesis.wrong_clock}")
    return verdict


def _tell_of_latency(samples: Sequence[Sample]) -> None:
    at_once = sorted(sample.took_s for sample in samples if not sample.waits and sample.status == ACCEPTED)
    if at_once:
        p50, p99 = (nearest_rank(at_once, part) * 1000 for part in (0.5, 0.99))
        print(f"{len(samples)} requests; a 202 that is not waited for took {p50:.0f} ms (p50), {p99:.0f} ms (p99)")


def _tell_of_growth(gauges: Gauges) -> None:
    for what, (first, last, most) in (("connections", gauges.connections()), ("unacked", gauges.unacked())):
        print(f"{what:34} first third {first}, last third {last}, at most {most}")
    for name, (thirds, lasted) in sorted(gauges.memory().items()):
        print(f"memory of {name:24} {' → '.join(map(str, thirds))} MiB in the thirds of {lasted} s")


if __name__ == "__main__":
    typer.run(main)
