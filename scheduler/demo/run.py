"""The demo: sample calls on private servers and a simulated carrier, shown live and held against what must be."""

import shlex
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.live import Live

from scheduler.clock import clock, monotonic
from scheduler.demo.client import Row, Stage
from scheduler.demo.sample_calls import CALLS, CARRIERS, RESUMES_AFTER, Then
from scheduler.demo.table import table, terminal
from scheduler.domain.attempt import Attempt
from scheduler.hashing import Hasher
from scheduler.local.errors import Stopped
from scheduler.local.run_file import Running
from scheduler.local.system import System
from scheduler.persistence.database import Database
from scheduler.settings import Settings
from scheduler.terminal.explanation import explanation_page
from scheduler.use_cases.explain import Explain

_ENDS_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.5
_LATER = timedelta(minutes=5)


def run(system: System, chosen: Settings, *, carrier: str, stopped: Callable[[], bool]) -> bool:
    """Send the sample calls, show them until all stand as expected or a minute is over. True: all do.

    Raises Stopped when it is stopped before: then nothing is proven, and nothing disproven.
    `chosen` are the settings of the demo's own processes, its moved clock included.
    """
    assert system.running is not None
    now = clock(chosen.duecall_clock_offset_s)
    console = terminal()
    stage = Stage(system.running, Hasher(chosen.key_pepper.get_secret_value()), now)
    try:
        rows = _send(stage, carrier)
        began = looked = monotonic()
        with Live(table(console, rows, now()), console=console, refresh_per_second=4) as live:

            def over() -> bool:
                nonlocal looked
                if monotonic() - looked >= _LOOK_EVERY_S:
                    looked = monotonic()
                    _look(stage, rows, looked - began)
                    live.update(table(console, rows, now()))
                    system.look()
                if stopped() or monotonic() - began > _ENDS_WITHIN_S:
                    return True
                # One that is deleted stands as expected at once, and is watched until its time is past.
                return all(row.is_over(now()) or (row.is_as_expected and not row.deleted) for row in rows)

            system.supervisor.run(over)
            if stopped():
                raise Stopped
            never = stage.judge(rows)
            live.update(table(console, rows, now(), over=True))
    finally:
        stage.close()
    return _told_the_end(console, system, rows, never)


def _send(stage: Stage, carrier: str) -> list[Row]:
    """Every call, asked for; those that are to be changed first, and changed at once."""
    stage.plan(CALLS, CARRIERS[carrier])
    first, second = stage.first_client(), stage.second_client()
    stage.pause(second)
    rows = [Row(call=call, client=second if call.then is Then.PAUSED else first) for call in CALLS]
    for row in sorted(rows, key=lambda row: row.call.then is Then.NOTHING):
        stage.ask(row)
        stage.change(row)
    return rows


def _look(stage: Stage, rows: list[Row], seconds: float) -> None:
    for row in rows:
        if row.call.then is Then.PAUSED and row.not_before is None and seconds >= RESUMES_AFTER.total_seconds():
            stage.resume(row)
        stage.look(row)


def _told_the_end(console: Console, system: System, rows: list[Row], never: list[str]) -> bool:
    console.print()
    for row in rows:
        if row.refusal is not None:
            console.print(f"{row.call.who}: {row.refusal['message']}", style="dim", markup=False)
        if not row.is_as_expected:
            why = f" ({row.problem})" if row.problem else ""
            console.print(f"{row.call.who}: must be {row.call.ends}, and is {row.stands}{why}", style="red")
    for each in never:
        console.print(f"by the carrier's ledger, {each}", style="red")
    well = sum(row.is_as_expected for row in rows)
    as_expected = well == len(rows) and not never
    console.print(
        f"{well} of {len(rows)} calls stand as expected; by the carrier's ledger "
        + ("nobody was rung twice." if not never else "something happened that never must.")
        + ("" if as_expected else f" The logs in {system.log_of('api').parent} say more."),
        style="green" if as_expected else "red",
    )
    return as_expected


def print_what_to_try(running: Running, chosen: Settings, home: Path, *, stays_up: bool) -> None:
    """An explanation of a call that waits, and the commands that a newcomer can paste; each names the demo's folder."""
    duecall = f"{_duecall()} --home {shlex.quote(str(home))}"
    now = clock(chosen.duecall_clock_offset_s)
    database = Database(running.databaseUrl, pool_size=1)
    console = terminal()
    try:
        attempt = _one_that_waits(database)
        if attempt is None:
            return
        explain = Explain(database, Hasher(chosen.key_pepper.get_secret_value()), chosen.policy, now)
        console.print(f"\n$ {duecall} explain {attempt.id}", style="bold", soft_wrap=True)
        console.print(explanation_page(explain.explanation_of(attempt.id), now()))
    finally:
        database.close()
    if stays_up:
        lines = [*_to_type(duecall, running, attempt), *_to_send(running, attempt)]
        console.print("\nTry in another terminal:\n")
    else:
        lines = _to_type(duecall, running, attempt)
        console.print("\nWithout ONCE=1 it stays up; then try in another terminal, with the ids of that run:\n")
    for says, line in lines:
        console.print(f"  [dim]# {says}[/dim]", soft_wrap=True)
        console.print(f"  {line}", markup=False, soft_wrap=True)


def _one_that_waits(database: Database) -> Attempt | None:
    """The pending attempt whose time comes last: what keeps it is worth reading."""
    with database.reading() as stores:
        company = stores.companies.first()
        pending = [] if company is None else stores.attempts.pending_of(company.id, None, None, len(CALLS))
    return max(pending, key=lambda each: each.due_at, default=None)


def _to_type(duecall: str, running: Running, attempt: Attempt) -> list[tuple[str, str]]:
    return [
        ("why has this person not been called yet?", f"{duecall} explain {attempt.id}"),
        ("what waits, and for what?", f"{duecall} status"),
        ("stop the dialling of one company, or of all", f"{duecall} pause {running.companyId} --reason 'a try'"),
        ("and let it go on", f"{duecall} resume {running.companyId}"),
    ]


def _to_send(running: Running, attempt: Attempt) -> list[tuple[str, str]]:
    api = f"curl -s -H 'Authorization: Bearer {running.companyKey}' -H 'Content-Type: application/json'"
    its_url = f"{running.apiUrl}/interviews/{attempt.interview_id}/call-attempts/{attempt.id}"
    later = (attempt.due_at + _LATER).isoformat().replace("+00:00", "Z")
    moved = '{"scheduledAt": "' + later + '"}'
    body = (
        '{"agentId": "' + running.agentId + '", "candidate": {"firstName": "Ada", "lastName": "Lovelace",'
        ' "phoneNumber": "+421915654321", "gdprExpiryDate": "2030-01-01"}}'
    )
    return [
        ("a call of your own", f"{api} {running.apiUrl}/interviews -d '{body}'; echo"),
        ("move that call; 204", f"{api} -i -X PATCH {its_url} -d '{moved}'; echo"),
        ("delete it; 204, and no phone rings for it", f"{api} -i -X DELETE {its_url}; echo"),
        ("who was rung, by the carrier's own ledger", f"curl -s {running.simulatorUrl}/ledger; echo"),
    ]


def _duecall() -> str:
    """The command as it can be typed from here."""
    beside = Path(sys.executable).with_name("duecall")
    if shutil.which("duecall") == str(beside):
        return "duecall"
    try:
        return shlex.quote(str(beside.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(beside))
