"""The alerts that Prometheus would have sent: /metrics recorded during a run, and the rules evaluated over it.

The recording is written as a unit test of the rules (`promtool test rules`), next to a copy of them, so that it can be
evaluated again with other rules.
"""

import re
import shutil
import subprocess
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import requests
import yaml

from scheduler.clock import monotonic
from tests.support.monitoring import RULES, alerts, metrics_of
from tests.verification.soak.soak_setup import Blow

STEP_S = 5
"""Seconds between two scrapes, and between two evaluations."""
_PATIENCE_S = 4.0
_LINE = re.compile(r"(\w+(?:\{.*\})?) (\S+)")
_ALARM = re.compile(r"""\balarm"?[=:] ?["']?([A-Z_0-9]+)""")
OF_SLOW_MACHINES = frozenset({"DuecallCallsAreLate", "DuecallCommandsWait"})
"""Alerts that are right on a machine that cannot keep up with the load. The run does not require that it can."""
OF_HURT_DIALLERS = frozenset({"DuecallManyOutcomesAreUnknown", "DuecallManyCausesAreLost"})
"""Alerts that are right when faults ended diallers between claim and record, or hid callbacks."""
NO_ALARMS = "/metrics has no duecall_alarms_open"
NO_PROMTOOL = "this machine lacks promtool of Debian's prometheus (`make debian` as root); CI has it"

Sample = Mapping[str, float]
"""The value of each series of one scrape."""


@dataclass
class Recording:
    """Scrapes, one each STEP_S. A failed scrape is None."""

    scrapes: list[Sample | None] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    """Metrics that were exported at any time."""

    def add(self, text: str | None) -> None:
        if text is None:
            self.scrapes.append(None)
            return
        self.names |= metrics_of(text)
        self.scrapes.append(sample_of(text))

    def series(self) -> dict[str, str]:
        """Return all series in promtool's notation."""
        names = sorted({name for scrape in self.scrapes for name in scrape or ()})
        found = {
            name: notation([None if scrape is None else scrape.get(name) for scrape in self.scrapes]) for name in names
        }
        found['up{instance="api",job="duecall"}'] = notation([float(scrape is not None) for scrape in self.scrapes])
        return found

    @property
    def last_s(self) -> int:
        return max(0, len(self.scrapes) - 1) * STEP_S


def sample_of(text: str) -> Sample:
    """Return the values in an answer of /metrics, of the metrics that the rules read."""
    read = {name for rule in alerts().values() for name in re.findall(r"\bduecall_\w+", rule["expr"])}
    matches = (_LINE.fullmatch(line) for line in text.splitlines() if not line.startswith("#"))
    return {match[1]: float(match[2]) for match in matches if match and match[1].partition("{")[0] in read}


def notation(values: Sequence[float | None]) -> str:
    """Return values in promtool's notation. A series that ends is marked as stale, as Prometheus does."""
    return " ".join(_runs(values))


def _runs(values: Sequence[float | None]) -> Iterator[str]:
    is_there = False
    for value, run in groupby(values):
        count = len(list(run))
        if value is not None:
            yield f"{value:.16g}x{count - 1}" if count > 1 else f"{value:.16g}"
        elif is_there:
            yield "stale" if count == 1 else f"stale _x{count - 1}"
        else:
            yield f"_x{count}"
        is_there = value is not None


@contextmanager
def recorded(url: str) -> Iterator[Recording]:
    """Record /metrics in a thread, because a frozen API must not delay the supervisor."""
    recording, stop = Recording(), threading.Event()
    thread = threading.Thread(target=_record, args=(recording, f"{url}/metrics", stop), name="scrapes")
    thread.start()
    try:
        yield recording
    finally:
        stop.set()
        thread.join()


def _record(recording: Recording, url: str, stop: threading.Event) -> None:
    with requests.Session() as session:
        session.trust_env = False
        ticks = iter(range(STEP_S, 10**9, STEP_S))
        began = monotonic()
        while True:
            recording.add(_scraped(session, url))
            if stop.wait(max(0.0, began + next(ticks) - monotonic())):
                recording.add(_scraped(session, url))
                return


def _scraped(session: requests.Session, url: str) -> str | None:
    try:
        answer = session.get(url, timeout=_PATIENCE_S)
    except requests.RequestException:
        return None
    return answer.text if answer.ok else None


# ---- the judgement


def alarms_in(logs: Iterable[Path]) -> frozenset[str]:
    """Return the kinds of all alarms in the logs."""
    return frozenset(kind for log in logs for kind in _ALARM.findall(log.read_text(encoding="utf-8", errors="replace")))


def paging_kinds() -> frozenset[str]:
    [kinds] = re.findall(r'kind=~"([^"]+)"', alerts()["DuecallAlarmPages"]["expr"])
    return frozenset(kinds.split("|"))


def tolerated(blows: Collection[Blow]) -> frozenset[str]:
    """Return the alerts that may page or not."""
    may = OF_SLOW_MACHINES | (OF_HURT_DIALLERS if any(blow.hurts_diallers for blow in blows) else frozenset())
    assert may <= alerts().keys()
    return may


def unit_test(recording: Recording, alarms: Collection[str], blows: Collection[Blow]) -> str:
    """Return a unit test of the rules: exactly the alarms that were logged and page have paged at any time."""
    may = "|".join(sorted(tolerated(blows)))
    firing = f'ALERTS{{alertstate="firing",severity="page",alertname!~"{may}"}}'
    must = sorted(paging_kinds() & set(alarms)) if "duecall_alarms_open" in recording.names else []
    samples = [{"labels": f'{{alertname="DuecallAlarmPages", kind="{kind}"}}', "value": 1} for kind in must]
    expected = {
        "expr": f"count by (alertname, kind, problem) (max_over_time({firing}[{recording.last_s + STEP_S}s]))",
        "eval_time": f"{recording.last_s}s",
        "exp_samples": samples,
    }
    case = {
        "name": "a run of the soak",
        "interval": f"{STEP_S}s",
        "input_series": [{"series": name, "values": values} for name, values in recording.series().items()],
        "promql_expr_test": [expected],
    }
    content = {"rule_files": [RULES.name], "evaluation_interval": f"{STEP_S}s", "tests": [case]}
    return yaml.safe_dump(content, sort_keys=False, width=10_000)


def judge_alerts(recording: Recording, alarms: Collection[str], blows: Collection[Blow], folder: Path) -> str | None:
    """Write the recording and the rules to a folder and evaluate them. Return promtool's report if they differ."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(RULES, folder)
    file = folder / "recorded.tests.yml"
    file.write_text(unit_test(recording, alarms, blows), encoding="utf-8")
    run = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    return run.stdout + run.stderr if run.returncode else None
