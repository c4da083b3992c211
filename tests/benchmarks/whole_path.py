"""Cost of a call on the whole path, with every process, real servers and a minimal carrier.

    make bench ARGS="--parts burst,steady --json now.json"
    make bench ARGS="--against earlier.json"

Read CPU milliseconds a call first: other work on the machine changes times much, and CPU little. `others` is the number
of cores that everything outside of the system used, the benchmark itself included. Safety limits are raised, so that
only the software limits. Each part starts with an empty database.

A hint or event that is dropped for a lock waits until the clock sends its hint again. A step that is tried again at
once does not. `locks not granted` is the number of lock timeouts and deadlocks in PostgreSQL.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import psutil  # type: ignore[import-untyped]
import psycopg
import requests
from pydantic import SecretStr

from scheduler.domain.call import MachineDetection
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.setting_values import DEVELOPMENT_PEPPER
from scheduler.settings import Settings
from standalone.private_server import free_port
from standalone.run_file import Running
from standalone.system import Options, System
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.benchmarks import celery_eta, cloned_calls, console_pages, lists, partners, reports
from tests.benchmarks.counters import Cost, Meter
from tests.benchmarks.lock_conflicts import LockConflicts
from tests.benchmarks.minimal_carrier import ACCOUNT_SID, AUTH_TOKEN
from tests.support.builders import ALWAYS

_AHEAD = timedelta(seconds=4)
_CHECK_S = 0.2
# Two counts by partial indexes. One with OR reads all rows, and a million pending ones cost more than the calls.
_OPEN = """
    SELECT (SELECT count(*) FROM attempts WHERE state = 'PENDING' AND due_at <= %s)
         + (SELECT count(*) FROM attempts WHERE state = 'IN_PROGRESS')
"""
UNRECORDED = """
    SELECT (SELECT count(*) FROM attempts WHERE state = 'PENDING' AND due_at <= %s)
         + (SELECT count(*) FROM attempts WHERE state = 'IN_PROGRESS' AND phase = 'DIALLING')
"""
LOST_LEASES = "SELECT count(*) FROM attempt_history WHERE detail ->> 'cause' = 'LEASE_OVER'"
_RATES = (20.0, 50.0, 100.0, 200.0)

Row = dict[str, Any]


class CountingPostgres(EmbeddedPostgres):
    """A private PostgreSQL that counts its statements and logs errors. Its numbers and names are invented."""

    def _server_argv(self) -> tuple[str, ...]:
        counting = {
            "shared_preload_libraries": "pg_stat_statements",
            "pg_stat_statements.max": "5000",
            "log_min_messages": "error",
        }
        return (*super()._server_argv(), *(word for pair in counting.items() for word in ("-c", "=".join(pair))))


class CountingSystem(System):
    postgres_class = CountingPostgres


@dataclass(kw_only=True)
class Bench:
    """A running system, its carrier, and the interview whose rows are copied."""

    system: System
    meter: Meter
    connection: psycopg.Connection
    carrier: str
    template: UUID

    @property
    def api(self) -> str:
        assert self.system.running is not None
        return self.system.running.apiUrl

    @property
    def headers(self) -> dict[str, str]:
        assert self.system.running is not None
        return {"Authorization": f"Bearer {self.system.running.companyKey}"}

    def count(self, query: str, *values: object) -> int:
        row = self.connection.execute(query.encode(), values).fetchone()
        assert row is not None
        return int(row[0])

    def arrivals(self, begin: int = 0) -> list[tuple[str, float]]:
        found = requests.get(f"{self.carrier}/arrivals", params={"from": begin}, timeout=30).json()
        return [(number, at) for number, at in found["arrivals"]]

    def callback_seconds(self) -> list[float]:
        return list(
            requests.get(f"{self.carrier}/arrivals", params={"from": 10**9}, timeout=30).json()["answerSeconds"]
        )

    def wait(self, condition: Callable[[], bool], *, seconds: float) -> bool:
        """Supervise the system until the condition holds. Return False when the time is over."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.system.restart_ended()
            time.sleep(_CHECK_S)
        return True


@contextmanager
def running(
    *, callbacks: bool, progress: Callable[[str], None], answer_s: float = 0.0, verdicts: bool = False
) -> Iterator[Bench]:
    """Start a system with an empty database and raised limits, and a minimal carrier that answers after `answer_s`.

    `verdicts`: machine detection is asynchronous, so that each call has a callback more.
    """
    carrier_port, api_port = free_port(), free_port()
    carrier = f"http://127.0.0.1:{carrier_port}"
    settings = Settings(
        database_url=None,
        redis_url=None,
        twilio_account_sid=ACCOUNT_SID,
        twilio_auth_token=SecretStr(AUTH_TOKEN),
        twilio_api_url=carrier,
    )
    variables = {
        "PUBLIC_URL": f"http://127.0.0.1:{api_port}",
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "TWILIO_API_URL": carrier,
        "TWILIO_VOICE_URL": f"{carrier}/voice",
        "TWILIO_CPS": "10000",
        "TWILIO_MAX_CALLS": "1000000",
        "OUTCOME_WAIT_S": "3600",
    }
    argv = [sys.executable, "-m", "tests.benchmarks.minimal_carrier", "--port", str(carrier_port)]
    argv += ["--answer-s", str(answer_s)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*argv, *(["--callbacks"] if callbacks else [])]) as process,
    ):
        options = Options(home=Path(folder), ephemeral=True, port=api_port, variables=variables)
        try:
            with CountingSystem(options, settings, progress) as system:
                assert system.postgres is not None
                with psycopg.connect(system.postgres.url, autocommit=True) as connection:
                    bench = _prepared(system, connection, carrier, verdicts=verdicts)
                    yield bench
                    bench.meter.close()
        finally:
            process.terminate()


def _prepared(system: System, connection: psycopg.Connection, carrier: str, *, verdicts: bool) -> Bench:
    connection.execute("UPDATE companies SET calls_per_second = 10000, concurrent_calls = 1000000")
    connection.execute("UPDATE api_keys SET per_minute = 10000000, per_hour = 10000000")
    assert system.running is not None
    _open_always(system.running, MachineDetection.ASYNC if verdicts else MachineDetection.SYNC)
    bench = Bench(
        system=system,
        meter=Meter(system, system.running.databaseUrl),
        connection=connection,
        carrier=carrier,
        template=UUID(int=0),
    )
    later = (datetime.now(UTC) + timedelta(days=28)).replace(microsecond=0)
    answer = requests.post(
        f"{bench.api}/interviews",
        json=_interview(bench, 0) | {"scheduledAt": later.isoformat(), "expiresAt": None} | {},
        headers=bench.headers,
        timeout=30,
    )
    assert answer.status_code == requests.codes.created, answer.text
    bench.template = UUID(answer.json()["data"]["id"])
    return bench


def _open_always(running: Running, detection: MachineDetection) -> None:
    database = Database(running.databaseUrl, pool_size=1)
    with database.transaction() as stores:
        company = stores.companies.lock(UUID(running.companyId))
        assert company is not None
        settings = replace(company.settings, intervals=ALWAYS, machine_detection=detection)
        stores.companies.save(replace(company, settings=settings))
    database.close()


def _interview(bench: Bench, place: int) -> Row:
    assert bench.system.running is not None
    number = f"+4219{place + 8_000_000:08}"
    candidate = {"firstName": "Ada", "lastName": "Lovelace", "phoneNumber": number, "gdprExpiryDate": "2030-01-01"}
    return {"agentId": bench.system.running.agentId, "candidate": candidate}


# ---- parts


def place_calls(bench: Bench, due: Sequence[datetime], *, settles: bool, patience_s: float) -> Row:
    """Let calls become due, and return lateness and cost. `settles`: wait until each call has ended."""
    begin = len(bench.arrivals())
    numbers = cloned_calls.add_due(bench.connection, bench.template, Hasher(DEVELOPMENT_PEPPER), due)
    instants = {number: instant.timestamp() for number, instant in zip(numbers, due, strict=True)}
    last, conflicts = max(due), LockConflicts(bench.system)
    with bench.meter.measured() as cost:
        bench.wait(lambda: len(bench.arrivals(begin)) >= len(due), seconds=patience_s)
        bench.wait(lambda: bench.count(UNRECORDED, last) == 0, seconds=patience_s)
        if settles:
            bench.wait(lambda: bench.count(_OPEN, last) == 0, seconds=patience_s)
        settled_at = time.time()
    arrived = bench.arrivals(begin)
    late = sorted(at - instants[number] for number, at in arrived)
    left = bench.count(_OPEN, last) if settles else 0
    return {
        "calls": len(due),
        "posted": len(arrived),
        "rang twice": len(arrived) - len({number for number, _ in arrived}),
        "calls/s": len(arrived) / max(0.001, max(at for _, at in arrived) - min(due).timestamp()),
        "p50 ms": 1000 * statistics.median(late),
        "p99 ms": 1000 * late[int(0.99 * (len(late) - 1))],
        "all posted s": max(at for _, at in arrived) - min(due).timestamp(),
        "all settled s": settled_at - min(due).timestamp() if settles and not left else None,
        "unsettled": left,
        "leases lost": bench.count(LOST_LEASES),
        **conflicts.figures(),
        **_per_item(cost, len(due), "call"),
    }


def _per_item(cost: Cost, count: int, word: str) -> Row:
    return {
        f"CPU ms/{word}": 1000 * cost.cpu / count,
        "of it": {name: round(1000 * spent / count, 2) for name, spent in cost.cpu_s.most_common() if spent},
        f"statements/{word}": cost.statements / count,
        f"transactions/{word}": cost.transactions / count,
        f"WAL kB/{word}": cost.wal_bytes / count / 1000,
        "longest transaction ms": 1000 * cost.longest_s,
        "HOT share": cost.hot_share,
        "others": cost.others,
    }


def _now() -> datetime:
    return datetime.now(UTC)


def burst(count: int, *, callbacks: bool, verdicts: bool = False) -> Callable[[Callable[[str], None]], Row]:
    def measure(progress: Callable[[str], None]) -> Row:
        with running(callbacks=callbacks, progress=progress, verdicts=verdicts) as bench:
            place_calls(bench, [_now() + _AHEAD] * 20, settles=callbacks, patience_s=60)  # connections and caches
            return place_calls(bench, [_now() + _AHEAD] * count, settles=callbacks, patience_s=300)

    return measure


def steady(rate: float, *, seconds: float, callbacks: bool) -> Callable[[Callable[[str], None]], Row]:
    def measure(progress: Callable[[str], None]) -> Row:
        with running(callbacks=callbacks, progress=progress) as bench:
            place_calls(bench, [_now() + _AHEAD] * 20, settles=callbacks, patience_s=60)
            return place_calls(bench, _spread(rate, seconds), settles=callbacks, patience_s=180)

    return measure


def _spread(rate: float, seconds: float) -> list[datetime]:
    begin = _now() + _AHEAD
    return [begin + timedelta(seconds=place / rate) for place in range(round(rate * seconds))]


def intake(in_flight: int, count: int) -> Callable[[Callable[[str], None]], Row]:
    def measure(progress: Callable[[str], None]) -> Row:
        with running(callbacks=False, progress=progress) as bench:
            asyncio.run(_send_interviews(bench, in_flight, 20, 0))
            return send_interviews(bench, in_flight, count)

    return measure


def send_interviews(bench: Bench, in_flight: int, count: int) -> Row:
    with bench.meter.measured() as cost:
        seconds = asyncio.run(_send_interviews(bench, in_flight, count, 1000))
    return {
        "interviews": count,
        "interviews/s": count / cost.seconds,
        "p50 ms": 1000 * statistics.median(seconds),
        "p99 ms": 1000 * sorted(seconds)[int(0.99 * (count - 1))],
        **_per_item(cost, count, "interview"),
    }


async def _send_interviews(bench: Bench, in_flight: int, count: int, first: int) -> list[float]:
    """Send interviews for the day after tomorrow, so that none is dialled. Return the seconds of each answer."""
    later = (_now() + timedelta(days=2)).replace(microsecond=0).isoformat()
    places, taken = iter(range(first, first + count)), []

    async def send(session: aiohttp.ClientSession) -> None:
        for place in places:
            began = time.monotonic()
            body = _interview(bench, place) | {"scheduledAt": later}
            async with session.post(f"{bench.api}/interviews", json=body, headers=bench.headers) as answer:
                assert answer.status == requests.codes.created, await answer.text()
            taken.append(time.monotonic() - began)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(send(session) for _ in range(in_flight)))
    return taken


def backlog(pending: int) -> Callable[[Callable[[str], None]], Row]:
    """Compare calls, intake, lists and metrics without and with `pending` calls of the next weeks."""

    def measure(progress: Callable[[str], None]) -> Row:
        with running(callbacks=True, progress=progress) as bench:
            place_calls(bench, [_now() + _AHEAD] * 20, settles=True, patience_s=60)
            conflicts = LockConflicts(bench.system)
            before = _figures_of_backlog(bench)
            progress(f"adding {pending:,} pending calls")
            cloned_calls.add_pending(bench.connection, bench.template, pending, _now() + timedelta(days=1))
            after = _figures_of_backlog(bench)
            safety = {"leases lost": bench.count(LOST_LEASES), **conflicts.figures()}
            assert bench.system.running is not None
            pages = console_pages.measure(bench.system.running, bench.connection, bench.template, progress)
            size = bench.count("SELECT pg_database_size(current_database())")
        ratios = {f"{name} ratio": after[name] / before[name] for name in after if before[name]}
        return {
            **{f"{name} with": figure for name, figure in after.items()},
            **ratios,
            **safety,
            **pages,
            "database GB": size / 1e9,
        }

    return measure


def _figures_of_backlog(bench: Bench) -> dict[str, float]:
    calls = place_calls(bench, _spread(20, 15), settles=True, patience_s=180)
    sent = send_interviews(bench, 8, 200)
    paths = {
        "interviews": "/interviews?limit=50",
        "candidates": "/candidates?limit=50",
        "search": "/candidates?search=Ada",
        "metrics": "/metrics",
    }
    return {
        "p50 ms": calls["p50 ms"],
        "CPU ms/call": calls["CPU ms/call"],
        "interviews/s": sent["interviews/s"],
        **{f"{name} ms": _answer_ms(bench, path) for name, path in paths.items()},
    }


def _answer_ms(bench: Bench, path: str) -> float:
    taken = []
    for _ in range(5):
        began = time.monotonic()
        requests.get(f"{bench.api}{path}", headers=bench.headers, timeout=60).raise_for_status()
        taken.append(time.monotonic() - began)
    return 1000 * statistics.median(taken)


def idle(progress: Callable[[str], None]) -> Row:
    """Measure the start, the memory, and half a minute without calls."""
    own = psutil.Process()
    began, cpu = time.monotonic(), own.cpu_times()
    with running(callbacks=False, progress=progress) as bench:
        ready_s = time.monotonic() - began
        children = [each.cpu_times() for each in own.children(recursive=True)]
        ended = own.cpu_times()
        start_cpu = ended.user + ended.system + ended.children_user + ended.children_system
        start_cpu -= cpu.user + cpu.system + cpu.children_user + cpu.children_system
        start_cpu += sum(each.user + each.system for each in children)
        start = {name: round(spent, 2) for name, spent in bench.meter.cpu().most_common()}
        with bench.meter.measured() as cost:
            bench.wait(lambda: False, seconds=30)
        memory = bench.meter.memory()
    return {
        "ready s": ready_s,
        "start CPU s": start_cpu,
        "start of it": start,
        "duecall --help CPU s": _cpu_seconds_of(sys.executable, "-m", "scheduler", "--help"),
        "idle CPU %": 100 * cost.cpu / cost.seconds,
        "idle statements/s": cost.statements / cost.seconds,
        "PSS MB": sum(memory.values()),
        "PSS of API, dial, clock MB": sum(memory[name] for name in ("api", "dial", "clock")),
        "of it": {name: round(share) for name, share in memory.items()},
        "others": cost.others,
    }


def _cpu_seconds_of(*command: str) -> float:
    own, taken = psutil.Process(), []
    for _ in range(3):
        before = own.cpu_times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = own.cpu_times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return float(min(taken))


def eta(count: int) -> Callable[[Callable[[str], None]], Row]:
    def measure(progress: Callable[[str], None]) -> Row:
        with running(callbacks=False, progress=progress) as bench:
            assert bench.system.valkey is not None
            rate, cpu_ms = celery_eta.jobs_per_second(bench.system.valkey.url.removesuffix("/0") + "/1", count)
        return {"jobs": count, "jobs/s": rate, "CPU ms/job": cpu_ms}

    return measure


def webhooks(rate: float, *, seconds: float) -> Callable[[Callable[[str], None]], Row]:
    """Place calls whose events go to a receiver that answers and to one that never does."""

    def measure(progress: Callable[[str], None]) -> Row:
        with running(callbacks=True, progress=progress) as bench:
            place_calls(bench, [_now() + _AHEAD] * 20, settles=True, patience_s=60)
            with partners.receiving(bench.api, bench.headers, bench.connection) as receiver:
                calls = place_calls(bench, _spread(rate, seconds), settles=True, patience_s=180)
                waiting = "SELECT count(*) FROM webhook_deliveries WHERE state = 'DELIVERED'"
                events = "SELECT count(*) FROM events"
                bench.wait(lambda: bench.count(waiting) == bench.count(events), seconds=60)
                return {**calls, **{f"event {name}": figure for name, figure in partners.delays(receiver).items()}}

    return measure


def reported(rate: float, *, calls: int) -> Callable[[Callable[[str], None]], Row]:
    """Compare the lateness of calls without and with `rate` reports a second about earlier calls.

    `calls` of each kind are placed: spread over time, and at the same instant. So many calls are answered before that
    every report is about another one.
    """
    kinds: dict[str, Callable[[], list[datetime]]] = {
        "steady": lambda: _spread(50, calls / 50),
        "burst": lambda: [_now() + _AHEAD] * calls,
    }

    def measure(progress: Callable[[str], None]) -> Row:
        with running(callbacks=True, progress=progress) as bench:
            place_calls(bench, [_now() + _AHEAD] * 20, settles=True, patience_s=60)
            reports.let_key_report(bench.connection)
            progress("placing the calls that are reported")
            answered = round(rate * (calls / 50 + 20))
            place_calls(bench, [_now() + _AHEAD] * answered, settles=True, patience_s=600)
            sender = reports.Reports(bench.api, bench.headers, iter(reports.tokens_of(bench.connection)), rate)
            found: Row = {}
            for kind, due in kinds.items():
                without = place_calls(bench, due(), settles=True, patience_s=180)
                with sender:
                    during = place_calls(bench, due(), settles=True, patience_s=180)
                found |= _compared(kind, without, during)
            return found | sender.figures() | {"leases lost": bench.count(LOST_LEASES)}

    return measure


def _compared(kind: str, without: Row, during: Row) -> Row:
    found: Row = {}
    for figure in ("p50 ms", "p99 ms"):
        found[f"{kind} {figure} without"] = without[figure]
        found[f"{kind} {figure} with"] = during[figure]
        found[f"{kind} {figure} ratio"] = during[figure] / without[figure]
    return found | {
        f"{kind} posted": during["posted"],
        f"{kind} rang twice": during["rang twice"],
        f"{kind} others with": during["others"],
    }


def batch(count: int) -> Callable[[Callable[[str], None]], Row]:
    """Send a batch, and single requests meanwhile, until it is applied."""

    def measure(progress: Callable[[str], None]) -> Row:
        with running(callbacks=False, progress=progress) as bench:
            lines = partners.lines_of(count, lambda place: _interview(bench, place))
            left = "SELECT count(*) FROM batch_items WHERE state = 'WAITING'"
            single = partners.SingleRequests(bench.api, bench.headers, lambda place: _interview(bench, place))
            with bench.meter.measured() as cost, single:
                _, accepted_s = partners.send_batch(bench.api, bench.headers, lines)
                began = time.monotonic()
                bench.wait(lambda: bench.count(left) == 0, seconds=300)
                applied_s = time.monotonic() - began
            taken = sorted(single.taken_s)
            return {
                "items": count,
                "accepted s": accepted_s,
                "items/s": count / applied_s,
                "interviews": bench.count("SELECT count(*) FROM interviews WHERE external_id LIKE 'row %%'"),
                "single p50 ms": 1000 * statistics.median(taken),
                "single p99 ms": 1000 * taken[int(0.99 * (len(taken) - 1))],
                **_per_item(cost, count, "item"),
            }

    return measure


def lists_of(count: int) -> Callable[[Callable[[str], None]], Row]:
    """Read each list of the API and of the console with each filter, with `count` interviews of a company."""

    def measure(progress: Callable[[str], None]) -> Row:
        with running(callbacks=False, progress=progress) as bench:
            assert bench.system.running is not None
            assert bench.system.postgres is not None
            now = lists.fill(bench.system.running, bench.system.postgres.url, count, progress)
            return lists.measure(bench.system.running, bench.connection, now, count, progress)

    return measure


def parts(pending: int) -> dict[str, dict[str, Callable[[Callable[[str], None]], Row]]]:
    """Return the measurements of each part, by the names of the table."""
    return {
        "eta": {"Celery ETA, burst of 5,000": eta(5_000)},
        "burst": {
            "burst of 5,000, no callbacks": burst(5_000, callbacks=False),
            "burst of 5,000, four callbacks": burst(5_000, callbacks=True),
            "burst of 5,000, five callbacks": burst(5_000, callbacks=True, verdicts=True),
        },
        "steady": {f"{rate:g}/s, four callbacks": steady(rate, seconds=30, callbacks=True) for rate in _RATES},
        "intake": {
            f"POST /interviews, {flight} in flight": intake(flight, count) for flight, count in _FLIGHTS.items()
        },
        "idle": {"start, memory, idle": idle},
        "webhooks": {"10/s, four callbacks, two receivers of which one is dead": webhooks(10, seconds=30)},
        "reports": {"500 reports/s, against none": reported(500, calls=500)},
        "batch": {"batch of 10,000": batch(10_000)},
        "backlog": {f"{pending:,} pending": backlog(pending)},
        "lists": {f"lists of {pending:,} interviews": lists_of(pending)},
    }


_FLIGHTS = {1: 200, 32: 1_000}
_TAKES = {
    "eta": "1 minute",
    "burst": "3 minutes",
    "steady": "4 minutes",
    "intake": "2 minutes",
    "idle": "1 minute",
    "webhooks": "1 minute",
    "reports": "4 minutes",
    "batch": "2 minutes",
    "backlog": "grows with --pending",
    "lists": "grows with --pending",
}
"""About how long each part takes."""
_BURST, _ETA = "burst of 5,000, no callbacks", "Celery ETA, burst of 5,000"


def report(results: dict[str, Row], earlier: dict[str, Row]) -> None:
    """Print each measurement, next to its earlier figure if there is one."""
    for name, row in results.items():
        print(f"\n{name}")
        for figure, value in row.items():
            before = earlier.get(name, {}).get(figure)
            print(f"  {figure:<36} {_text(value):>14}{'' if before is None else f'   earlier {_text(before)}'}")
    if _BURST in results and _ETA in results:
        share = results[_BURST]["calls/s"] / results[_ETA]["jobs/s"]
        print(f"\ncalls of a burst for each job of Celery's ETA: {share:.3f}")


def _text(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else "-" if value is None else str(value)


def _list_of(known: Mapping[str, Mapping[str, object]]) -> str:
    """Format one line per part: its measurements, separated by semicolons because their names have commas."""
    return "\n".join(f"{part:<8} {_TAKES[part]:<20} {'; '.join(names)}" for part, names in known.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="eta,burst,steady,intake,idle", help="names of parts, or all; see --list")
    parser.add_argument(
        "--pending", type=int, default=1_000_000, help="pending calls of the part backlog, interviews of the part lists"
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--against", type=Path, help="compare with the results in this file")
    parser.add_argument("--list", action="store_true", help="list the parts and exit")
    chosen = parser.parse_args()
    known = parts(chosen.pending)
    if chosen.list:
        print(_list_of(known))
        return
    wanted = list(known) if chosen.parts == "all" else chosen.parts.split(",")
    if unknown := [part for part in wanted if part not in known]:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(known)}")
    earlier = json.loads(chosen.against.read_text(encoding="utf-8")) if chosen.against else {}
    results: dict[str, Row] = {}
    for name, measure in [each for part in wanted for each in known[part].items()]:
        print(f"[{len(results) + 1}] {name}", file=sys.stderr, flush=True)
        results[name] = measure(lambda line: print(f"    {line}", file=sys.stderr, flush=True))
        if chosen.json:
            chosen.json.write_text(json.dumps(results, indent=2, default=str), encoding="utf-8")
    print(f"{os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    report(results, earlier)


if __name__ == "__main__":
    main()
