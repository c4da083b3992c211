"""`duecall up`, `duecall demo`, `duecall env` and `duecall simulator`."""

import shlex
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from scheduler.carriers.simulator.app import create_app as create_simulator
from scheduler.cli.app import app, examples
from scheduler.cli.installation import NothingRuns, chosen_settings, demo_home, homes_of, running_system
from scheduler.cli.options import LAST_PORT, At, Ephemeral, Port, clock_offset
from scheduler.cli.output import fail, print_running, refuse, say, say_plainly
from scheduler.clock import clock
from scheduler.demo import run as demo_run
from scheduler.demo import sample_calls
from scheduler.local.run_file import is_running
from scheduler.local.system import Options, System
from scheduler.logs import configure

_never = threading.Event()
_SHELL_VARIABLES = {
    "API": "apiUrl",
    "KEY": "companyKey",
    "AGENT": "agentId",
    "NUMBER": "phoneNumberId",
    "ATS_KEY": "atsKey",
}
"""Shell variables of `duecall env`, by the names of run.json."""


@app.command(
    epilog=examples("duecall up", "duecall up --at 2026-04-02T07:59+10:30", "duecall up --ephemeral --port 8080")
)
def up(port: Port = None, at: At = None, ephemeral: Ephemeral = False) -> None:
    """Run the whole system until Ctrl-C, on private servers or on DATABASE_URL and REDIS_URL.

    Each process that ends is started again. Addresses, ids and keys stand in .duecall/run.json while it runs.
    """
    if port is not None and not 1 <= port <= LAST_PORT:
        refuse(f"--port is from 1 to {LAST_PORT}; got {port}. Leave it out, and a free one is found")
    chosen = chosen_settings()
    offset = clock_offset(at, chosen)
    if at is not None and chosen.database_url is not None:
        say("--at on a database that is kept: what waits there is judged by the moved clock, late or expired")
    options = Options(home=chosen.duecall_home, ephemeral=ephemeral or at is not None, port=port, clock_offset_s=offset)
    with _until_stopped() as stopped, System(options, chosen, say, stopped) as system:
        assert system.running is not None
        print_running(system.running, chosen, system.mail_goes_to)
        while not stopped():
            system.look()
            _pause()


@app.command(epilog=examples("duecall demo", "duecall demo --once", "duecall demo --once --carrier refuse"))
def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself; exit 0 if each call ended as expected.")] = False,
    carrier: Annotated[
        str,
        typer.Option(help="How the simulated carrier behaves: usual, or refuse (then the demo must fail)."),
    ] = "usual",
) -> None:
    """Run sample calls in eight countries on private servers and a simulated carrier, and show them live.

    One is moved, one is cancelled, one waits for a pause to end, one is busy at first; the carrier's own ledger judges.
    """
    if carrier not in sample_calls.CARRIERS:
        refuse(f"--carrier is one of: {', '.join(sample_calls.CARRIERS)}; got {carrier!r}")
    chosen = chosen_settings()
    offset = clock_offset(sample_calls.STARTS_AT, chosen)
    options = Options(home=demo_home(chosen), ephemeral=True, clock_offset_s=offset, variables=sample_calls.VARIABLES)
    # A demo has its own servers and carrier, whatever the environment names: it must ring nobody.
    own = chosen.model_copy(
        update={
            "database_url": None,
            "redis_url": None,
            "twilio_account_sid": "",
            "smtp_url": None,
            "duecall_clock_offset_s": offset,
        }
    )
    with _until_stopped() as stopped, System(options, own, say, stopped) as system:
        assert system.running is not None
        # Stopped on the way, nothing was proven or disproven.
        as_expected = demo_run.run(system, own, carrier=carrier, stopped=stopped)
        if not stopped() and (as_expected or not once):
            demo_run.print_what_to_try(system.running, own, options.home, stays_up=not once)
        if not once and not stopped():
            print_running(system.running, own, system.mail_goes_to)
            while not stopped():
                system.look()
                _pause()
    if once and not as_expected:
        raise typer.Exit(1)


@app.command(epilog=examples('eval "$(duecall env)"', 'eval "$(duecall --home .duecall/demo env)"'))
def env() -> None:
    """Print shell variables for a first call: API, KEY, AGENT, NUMBER, ATS_KEY and TOMORROW.

    They are those of the running `duecall up`, or else of the demo. Each run makes new keys. TOMORROW is a date in UTC,
    on the system's clock.
    """
    chosen = chosen_settings()
    found = running_system(chosen)
    if found is None or not is_running(found[0].home):
        homes = " or ".join(map(str, homes_of(chosen)))
        raise NothingRuns(f"Nothing runs in {homes}. Start `duecall up` or `duecall demo` first, in another terminal.")
    system, name = found
    tomorrow = clock(system.clock_offset_s)() + timedelta(days=1)
    values = {variable: system.run_file[key] for variable, key in _SHELL_VARIABLES.items()}
    for variable, value in (values | {"TOMORROW": f"{tomorrow:%Y-%m-%d}"}).items():
        print(f"export {variable}={shlex.quote(value)}")  # noqa: T201 - the answer itself
    say_plainly(f"Variables of {name}: {', '.join(values)}, TOMORROW")


@app.command(epilog=examples("TWILIO_ACCOUNT_SID=ACx TWILIO_AUTH_TOKEN=secret duecall simulator --journal calls.jsonl"))
def simulator(
    port: Annotated[int, typer.Option(help="Where it listens, on 127.0.0.1.")] = 8100,
    journal: Annotated[Path | None, typer.Option(help="Keep its calls here over a restart.")] = None,
    cps: Annotated[float, typer.Option(help="Calls that it starts a second; more wait.")] = 50.0,
) -> None:
    """A carrier that speaks Twilio's Calls API and rings nobody. Its GET /ledger says who would have been rung."""
    chosen = chosen_settings()
    configure()
    if not chosen.twilio_account_sid or not chosen.auth_tokens:
        fail("TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN say who may call it; set both to anything you like.")
    if journal is not None:
        journal.parent.mkdir(parents=True, exist_ok=True)
    made = create_simulator(
        account_sid=chosen.twilio_account_sid,
        auth_tokens=chosen.auth_tokens,
        now=clock(chosen.duecall_clock_offset_s),
        calls_per_second=cps,
        state_file=journal,
    )
    uvicorn.run(
        made,
        host="127.0.0.1",
        port=port,
        loop="asyncio",  # an outage shuts the door from behind asyncio's own server
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        log_config=None,
    )


class _until_stopped:  # noqa: N801 - reads as what it does
    """Inside, Ctrl-C and SIGTERM only say that it is time to stop."""

    def __init__(self) -> None:
        self._stopped = False

    def __enter__(self) -> Callable[[], bool]:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return lambda: self._stopped

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _stop(self, *_: object) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
        say("stopping; press Ctrl-C again to stop at once")


def _pause() -> None:
    """A tenth of a second, or less when a signal arrives."""
    _never.wait(0.1)
