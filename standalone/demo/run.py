"""The demo: sample calls on private servers and a simulated carrier, shown live and compared with expected results."""

import shlex
import shutil
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live

from scheduler.assembly import context_of
from scheduler.clock import clock, monotonic
from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.explanation import Explanation
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.settings import Settings
from scheduler.use_cases.explain import Explain
from standalone.demo.client import DemoCall, DemoClient
from standalone.demo.sample_calls import CALLS, CARRIERS, RESUMES_AFTER, Then
from standalone.demo.table import table, terminal
from standalone.demo.voice_server import VoiceServer
from standalone.run_file import Running, Stopped
from standalone.system import System

_ENDS_WITHIN_S = 60.0
_REFRESH_EVERY_S = 0.5
_LATER = timedelta(minutes=5)


EXPECTED_ALARM = (
    "One open alarm is expected, CARRIER_FAILS_CALLER: the carrier's answer to the call to Warsaw was lost, so other"
    " calls of that company waited until a trial call was accepted."
)
_SECOND_CALLER_ID, _THIRD_CALLER_ID = "+421221020002", "+421221020003"


def run(
    system: System,
    chosen: Settings,
    voice_server: VoiceServer,
    *,
    carrier: str,
    with_full_day: bool,
    sign_in_link: str,
    stopped: Callable[[], bool],
) -> bool:
    """Send the sample calls, and show them until all are as expected or a minute is over. Return whether they are.

    `with_full_day`: first add a company with calls for the next 24 hours, for the console. `sign_in_link` leads to the
    console. `chosen` are the settings of the demo's processes, including its moved clock. Raises Stopped if it is
    stopped before: then there is no result.
    """
    assert system.running is not None
    now = clock(chosen.duecall_clock_offset_s)
    console = terminal()
    hasher = Hasher(chosen.key_pepper.get_secret_value())
    client = DemoClient(system.running, hasher, now, voice_server)
    console.print("The console shows everything live. This link signs you in once, within ten minutes:")
    console.print(f"  {sign_in_link}\n", markup=False, soft_wrap=True)
    try:
        if with_full_day:
            day = client.submit_full_day(client.another_company("Company with a full day", _THIRD_CALLER_ID))
            console.print(f"{day} calls of the next 24 hours were added for the console's calendar.\n")
        calls = _send(client, carrier)
        began = refreshed = monotonic()
        with Live(table(console, calls, now()), console=console, refresh_per_second=4) as live:

            def is_over() -> bool:
                nonlocal refreshed
                if monotonic() - refreshed >= _REFRESH_EVERY_S:
                    refreshed = monotonic()
                    _refresh(client, calls, refreshed - began)
                    live.update(table(console, calls, now()))
                    system.restart_ended()
                if stopped() or monotonic() - began > _ENDS_WITHIN_S:
                    return True
                # A deleted call is as expected at once, but is observed until its time is past.
                return all(call.is_over(now()) or (call.is_as_expected and not call.deleted) for call in calls)

            system.supervisor.run(is_over)
            if stopped():
                raise Stopped
            violations = client.judge(calls)
            live.update(table(console, calls, now(), over=True))
    finally:
        client.close()
    return _print_result(console, system, calls, violations)


def _send(client: DemoClient, carrier: str) -> list[DemoCall]:
    """Submit every call. Calls that are moved or deleted come first, and are changed at once."""
    client.plan(CALLS, CARRIERS[carrier])
    first, second = client.first_company(), client.another_company("Second company", _SECOND_CALLER_ID)
    client.pause(second)
    calls = [DemoCall(sample=each, company=second if each.then is Then.PAUSED else first) for each in CALLS]
    for call in sorted(calls, key=lambda call: call.sample.then is Then.NOTHING):
        client.submit(call)
        client.change(call)
    return calls


def _refresh(client: DemoClient, calls: list[DemoCall], seconds: float) -> None:
    client.report_outcomes(calls)
    for call in calls:
        if call.sample.then is Then.PAUSED and call.not_before is None and seconds >= RESUMES_AFTER.total_seconds():
            client.resume(call)
        client.refresh(call)


def _print_result(console: Console, system: System, calls: list[DemoCall], violations: list[str]) -> bool:
    console.print()
    for call in calls:
        if call.refusal is not None:
            console.print(f"{call.sample.label}: {call.refusal['message']}", style="dim", markup=False)
        if not call.is_as_expected:
            console.print(f"{call.sample.label}: {call.difference}", style="red", markup=False)
    for violation in violations:
        console.print(f"the carrier's ledger shows {violation}", style="red")
    count = sum(call.is_as_expected for call in calls)
    as_expected = count == len(calls) and not violations
    console.print(
        f"{count} of {len(calls)} calls are as expected. By the carrier's ledger, "
        + ("no phone rang twice." if not violations else "a rule was violated.")
        + ("" if as_expected else f" See the logs in {system.log_of('api').parent}."),
        style="green" if as_expected else "red",
    )
    if as_expected:
        console.print(EXPECTED_ALARM, style="dim")
    return as_expected


def print_what_to_try(
    running: Running,
    chosen: Settings,
    home: Path,
    page_of: Callable[[Explanation, datetime], RenderableType],
    *,
    stays_up: bool,
) -> None:
    """Print the explanation of a waiting call, as the page that `duecall explain` shows.

    While the demo stays up, also print commands to paste. Each names the demo's folder.
    """
    duecall = duecall_of(home)
    database = Database(running.databaseUrl, pool_size=1)
    console = terminal()
    try:
        attempt = _waiting_attempt(database)
        if attempt is None:
            return
        context = context_of(chosen, database)
        heading = f"$ {duecall} explain {attempt.id}" if stays_up else "A call that waited, by duecall explain:"
        console.print(f"\n{heading}", style="bold", soft_wrap=True)
        console.print(page_of(Explain(context).explanation_of(attempt.id), context.now()))
    finally:
        database.close()
    if not stays_up:
        console.print("\nThis demo ends now. Without ONCE=1 it keeps running, and prints commands to try.")
        return
    console.print("\nTry in another terminal:\n")
    for comment, line in (*_to_type(duecall, running, attempt), *_to_send(running, attempt)):
        console.print(f"  [dim]# {comment}[/dim]", soft_wrap=True)
        console.print(f"  {line}", markup=False, soft_wrap=True)


def duecall_of(home: Path) -> str:
    """The command as it can be typed in this folder, for the system in `home`."""
    return f"{_duecall()} --home {shlex.quote(str(home))}"


def _waiting_attempt(database: Database) -> Attempt | None:
    """Find the pending attempt that is due last, because rules block it."""
    with database.reading() as stores:
        company = stores.companies.first()
        opened = () if company is None else stores.attempts.open_of_company(company.id, None, None, len(CALLS)).attempts
    pending = (attempt for attempt in opened if attempt.state is AttemptState.PENDING)
    return max(pending, key=lambda attempt: attempt.due_at, default=None)


def _to_type(duecall: str, running: Running, attempt: Attempt) -> list[tuple[str, str]]:
    return [
        ("why is this person not called yet?", f"{duecall} explain {attempt.id}"),
        ("which calls wait, and for what?", f"{duecall} status"),
        ("pause calling for one company (or --all)", f"{duecall} pause {running.companyId} --reason 'a try'"),
        ("and resume it", f"{duecall} resume {running.companyId}"),
    ]


def _to_send(running: Running, attempt: Attempt) -> list[tuple[str, str]]:
    api = f"curl -s -H 'Authorization: Bearer {running.companyKey}' -H 'Content-Type: application/json'"
    attempt_url = f"{running.apiUrl}/interviews/{attempt.interview_id}/call-attempts/{attempt.id}"
    later = (attempt.due_at + _LATER).isoformat().replace("+00:00", "Z")
    change = '{"scheduledAt": "' + later + '"}'
    body = (
        '{"agentId": "' + running.agentId + '", "candidate": {"firstName": "Ada", "lastName": "Lovelace",'
        ' "phoneNumber": "+421915654321", "gdprExpiryDate": "2030-01-01"}}'
    )
    return [
        ("a call of your own", f"{api} {running.apiUrl}/interviews -d '{body}'; echo"),
        ("move the call that is explained above; 204", f"{api} -i -X PATCH {attempt_url} -d '{change}'; echo"),
        (
            "delete the call that is explained above; 204, and its phone does not ring",
            f"{api} -i -X DELETE {attempt_url}; echo",
        ),
        ("which phones rang, by the carrier's ledger", f"curl -s {running.simulatorUrl}/ledger; echo"),
    ]


def _duecall() -> str:
    """The command as it can be typed in this folder."""
    executable = Path(sys.executable).with_name("duecall")
    if shutil.which("duecall") == str(executable):
        return "duecall"
    try:
        return shlex.quote(str(executable.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(executable))
