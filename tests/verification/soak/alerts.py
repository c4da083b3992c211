"""The alerts that Prometheus would have sent: /metrics recorded during a run, and the rules evaluated over it.

The recording is written as a unit test of the rules (`promtool test rules`), next to a copy of them, so that it can be
evaluated again with other rules. The rules are judged by the alarms that are stored, and these by the alarms in the
logs: a process that ends may lose the alarms that it has logged and not stored yet.
"""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count, groupby
from pathlib import Path
from typing import Self

import requests
import yaml

from scheduler.clock import machine_now, monotonic
from tests.support.monitoring import RULES, alerts
from tests.verification.soak.nemesis import PROCESSES, WRONG_CLOCK
from tests.verification.soak.soak_setup import Blow, SoakSetup

STEP_S = 15
"""Seconds between two scrapes, and between two evaluations."""
_PATIENCE_S = 10.0
"""Prometheus's default. Shorter than STEP_S, so that a slow answer delays no other scrape."""
_LINE = re.compile(r"(\w+(?:\{.*\})?) (\S+)")
_STORED_WITHIN = timedelta(seconds=60)
"""Twice the longest pause of `workers.alarm_writer` while the database is away."""
_A_MOMENT = timedelta(seconds=2)
OF_SLOW_MACHINES = frozenset({"DuecallCallsAreLate", "DuecallCommandsWait"})
"""Alerts that are right on a machine that cannot keep up with the load. The run does not require that it can."""
OF_HURT_DIALLERS = frozenset({"DuecallManyOutcomesAreUnknown", "DuecallManyCausesAreLost"})
"""Alerts that are right when faults ended diallers between claim and record, or hid callbacks."""
_OF_LONG_OUTAGES = "DuecallCarrierIsDown"
_PAGES_AFTER_S, _PAGES_WITHIN_S = 15 * 60.0, 16 * 60.0
"""Between these lengths of an outage of the voice server, the alert may fire or not."""
NO_PROMTOOL = "this machine lacks promtool of Debian's prometheus (`make debian` as root); CI has it"

Sample = Mapping[str, float]
"""The value of each series of one scrape."""


@dataclass
class Recording:
    """Scrapes, one each STEP_S. A failed scrape is None."""

    scrapes: list[Sample | None] = field(default_factory=list)

    def add(self, text: str | None) -> None:
        self.scrapes.append(None if text is None else sample_of(text))

    def series(self) -> dict[str, str]:
        """Format all series in promtool's notation."""
        names = sorted({name for scrape in self.scrapes for name in scrape or ()})
        found = {
            name: notation([None if scrape is None else scrape.get(name) for scrape in self.scrapes]) for name in names
        }
        found['up{instance="api",job="duecall"}'] = notation([float(scrape is not None) for scrape in self.scrapes])
        return found

    @property
    def answered(self) -> int:
        return sum(scrape is not None for scrape in self.scrapes)

    @property
    def last_s(self) -> int:
        return max(0, len(self.scrapes) - 1) * STEP_S


def sample_of(text: str) -> Sample:
    """Read the values in an answer of /metrics, of the metrics that the rules read."""
    read = {name for rule in alerts().values() for name in re.findall(r"\bduecall_\w+", rule["expr"])}
    matches = (_LINE.fullmatch(line) for line in text.splitlines() if not line.startswith("#"))
    return {match[1]: float(match[2]) for match in matches if match and match[1].partition("{")[0] in read}


def notation(values: Sequence[float | None]) -> str:
    """Format values in promtool's notation. A series that ends is marked as stale, as Prometheus does."""
    return " ".join(_runs(values))


def _runs(values: Sequence[float | None]) -> Iterator[str]:
    is_there = False
    for value, run in groupby(values):
        times = len(list(run))
        if value is not None:
            yield f"{value:.16g}x{times - 1}" if times > 1 else f"{value:.16g}"
        elif is_there:
            yield "stale" if times == 1 else f"stale _x{times - 1}"
        else:
            yield f"_x{times}"
        is_there = value is not None


class Recorder:
    """Records /metrics in a thread, because a frozen API must not delay the supervisor."""

    def __init__(self, url: str) -> None:
        self.recording = Recording()
        self._url = f"{url}/metrics"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._record, name="scrapes")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _record(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            began = monotonic()
            for turn in count(1):
                self.recording.add(_scraped(session, self._url))
                if self._stop.wait(max(0.0, began + turn * STEP_S - monotonic())):
                    return


def _scraped(session: requests.Session, url: str) -> str | None:
    try:
        answer = session.get(url, timeout=_PATIENCE_S)
    except requests.RequestException:
        return None
    return answer.text if answer.ok else None


# ---- alarms in the logs


@dataclass(frozen=True, kw_only=True)
class LoggedAlarm:
    kind: str
    process: str
    at: datetime
    """On the machine's clock."""


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of a process, by a signal or by itself, on the machine's clock."""

    process: str
    at: datetime


@dataclass
class Ends:
    """Notes the ends of processes. Must look more often than a process is restarted."""

    setup: SoakSetup
    noted: list[End] = field(default_factory=list)
    _pids: dict[str, int | None] = field(default_factory=dict)

    def look(self) -> None:
        for name in PROCESSES:
            pid, before = self.setup.whole.system.supervisor.pid(name), self._pids.get(name)
            if before is not None and pid != before:
                self.noted.append(End(process=name, at=machine_now()))
            self._pids[name] = pid


def alarms_in(log: Path, process: str) -> Iterator[LoggedAlarm]:
    """Yield the alarms in the log of a process."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if '"alarm"' in line:
            with suppress(ValueError, KeyError):  # a killed process may have written a part of a line
                said = json.loads(line)
                yield LoggedAlarm(kind=said["alarm"], process=process, at=datetime.fromisoformat(said["at"]))


def must_be_stored(setup: SoakSetup, ends: Ends) -> frozenset[str]:
    """List the kinds that page and that have been logged long enough before the end of the process."""
    supervisor = setup.whole.system.supervisor
    logs = {name: supervisor.program(name).log for name in PROCESSES}
    logs[WRONG_CLOCK] = logs["dial"].with_name(f"{WRONG_CLOCK}.log")
    logged = [alarm for name, log in logs.items() if log.exists() for alarm in alarms_in(log, name)]
    return that_must_be_stored(logged, ends.noted) & paging_kinds()


def stored_kinds(setup: SoakSetup) -> frozenset[str]:
    return frozenset(kind for (kind,) in setup.rows("SELECT DISTINCT kind FROM alarms") or ())


def that_must_be_stored(logged: Iterable[LoggedAlarm], ends: Collection[End]) -> frozenset[str]:
    """List the kinds that a process logged which lived long enough to store them."""
    return frozenset(
        each.kind
        for each in logged
        if not any(
            end.process == each.process and each.at - _A_MOMENT <= end.at <= each.at + _STORED_WITHIN for end in ends
        )
    )


# ---- the judgement


def paging_kinds() -> frozenset[str]:
    [kinds] = re.findall(r'kind=~"([^"]+)"', alerts()["DuecallAlarmPages"]["expr"])
    return frozenset(kinds.split("|"))


def tolerated(blows: Collection[Blow]) -> frozenset[str]:
    """List the alerts that may page or not."""
    may = OF_SLOW_MACHINES | (OF_HURT_DIALLERS if any(blow.hurts_diallers for blow in blows) else frozenset())
    assert may <= alerts().keys()
    return may


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The kinds of alarms in the database."""

    before: frozenset[str]
    """Before the last scrapes: their number was certainly scraped."""
    after: frozenset[str]
    """After the last scrape."""


def unit_test(recording: Recording, stored: Stored, blows: Collection[Blow], voice_s: float = 0.0) -> str:
    """Build a unit test of the rules: of the kinds of alarms, exactly those that are stored have paged at any time.

    An outage of the voice server, of `voice_s` seconds, pages if it is long.
    """
    unsure = {_OF_LONG_OUTAGES} if _PAGES_AFTER_S <= voice_s < _PAGES_WITHIN_S else set()
    may, late = "|".join(sorted(tolerated(blows) | unsure)), "|".join(sorted(stored.after - stored.before))
    lasting = [_OF_LONG_OUTAGES] if voice_s >= _PAGES_WITHIN_S else []
    firing = f'ALERTS{{alertstate="firing",severity="page",alertname!~"{may}",kind!~"{late or "none"}"}}'
    expected = {
        "expr": f"count by (alertname, kind, problem) (max_over_time({firing}[{recording.last_s + STEP_S}s]))",
        "eval_time": f"{recording.last_s}s",
        "exp_samples": [
            *({"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in lasting),
            *(
                {"labels": f'{{alertname="DuecallAlarmPages", kind="{kind}"}}', "value": 1}
                for kind in sorted(paging_kinds() & stored.before)
            ),
        ],
    }
    case = {
        "name": "a run of the soak",
        "interval": f"{STEP_S}s",
        "input_series": [{"series": name, "values": values} for name, values in recording.series().items()],
        "promql_expr_test": [expected],
    }
    content = {"rule_files": [RULES.name], "evaluation_interval": f"{STEP_S}s", "tests": [case]}
    return yaml.safe_dump(content, sort_keys=False, width=10_000)


def judge_alerts(
    recording: Recording, stored: Stored, blows: Collection[Blow], folder: Path, *, voice_s: float = 0.0
) -> str | None:
    """Write the recording and the rules to a folder and evaluate them. Return promtool's report if they differ."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(RULES, folder)
    file = folder / "recorded.tests.yml"
    file.write_text(unit_test(recording, stored, blows, voice_s), encoding="utf-8")
    run = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    return run.stdout + run.stderr if run.returncode else None
