"""`duecall up`, `duecall demo`, `duecall env` and `duecall simulator`."""

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from command_line.app import LAST_PORT, At, Ephemeral, Port, app, chosen_settings, clock_offset, examples
from command_line.output import fail, print_note, print_progress, print_result, print_running, print_stopped, refuse
from scheduler.clock import clock
from standalone.demo import sample_calls
from standalone.run_file import is_running

if TYPE_CHECKING:
    from scheduler.settings import Settings
    from standalone.run_file import Running
    from standalone.system import System

_CHECK_EVERY_S = 0.1
_never = threading.Event()
_USUAL_HOME = Path(".duecall")
_SHELL_VARIABLES = {
    "API": "apiUrl",
    "KEY": "companyKey",
    "COMPANY": "companyId",
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

    Processes that end are restarted. While the system runs, .duecall/run.json contains its addresses, ids and keys.
    """
    from scheduler.process import raise_limit
    from standalone.system import Options, System

    if port is not None and not 1 <= port <= LAST_PORT:
        refuse(f"--port must be from 1 to {LAST_PORT}; got {port}. Without --port, a free port is chosen.")
    chosen = chosen_settings()
    offset = clock_offset(at, chosen)
    if at is not None and chosen.database_url is not None:
        print_progress("WARNING: --at with DATABASE_URL: by the moved clock, calls stored there may be late or expired")
    raise_limit()
    options = Options(home=chosen.duecall_home, ephemeral=ephemeral or at is not None, port=port, clock_offset_s=offset)
    with _until_stopped() as stopped, System(options, chosen, print_progress, stopped) as system:
        assert system.running is not None
        print_running(system.running, chosen, system.mail_goes_to)
        print_note(f"In a second terminal, in this folder: {_next_step(chosen.duecall_home)}")
        _run_until(stopped, system)


def _next_step(home: Path) -> str:
    """Build the shell commands after which `duecall` and `curl` can use the system in this folder."""
    environment = Path(sys.prefix)
    if environment.is_relative_to(Path.cwd()):
        environment = environment.relative_to(Path.cwd())
    steps = ['eval "$(duecall env)"']
    if home != _USUAL_HOME:
        steps.insert(0, f"export DUECALL_HOME={shlex.quote(str(home))}")
    if sys.prefix != sys.base_prefix:
        steps.insert(0, f"source {shlex.quote(str(environment / 'bin' / 'activate'))}")
    return "; ".join(steps)


@app.command(epilog=examples("duecall demo", "duecall demo --once", "duecall demo --once --carrier refuse"))
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the last call. Exit status 0 if every call ended as expected.")
    ] = False,
    carrier: Annotated[
        str,
        typer.Option(help="Behaviour of the simulated carrier: usual, or refuse (then the demo must fail)."),
    ] = "usual",
) -> None:
    """Run sample calls in eight countries on private servers and a simulated carrier, and show them live.

    One call is moved, one is cancelled, one waits for the end of a pause, one is busy at first, and one person asks to
    be called back. The results are compared with the carrier's ledger.
    """
    from command_line.installation import demo_home
    from command_line.terminal import explanation_page
    from scheduler.process import raise_limit
    from standalone.demo import run as demo_run
    from standalone.demo.voice_server import VoiceServer
    from standalone.system import Options, System

    if carrier not in sample_calls.CARRIERS:
        refuse(f"--carrier must be one of {', '.join(sample_calls.CARRIERS)}; got {carrier!r}.")
    chosen = chosen_settings()
    offset = clock_offset(sample_calls.STARTS_AT, chosen)
    # Always private servers and the simulator, so that the demo rings no real phone whatever the environment names.
    own = chosen.model_copy(
        update={
            "database_url": None,
            "redis_url": None,
            "twilio_account_sid": "",
            "twilio_voice_url": "",
            "smtp_url": None,
            "duecall_clock_offset_s": offset,
        }
    )
    raise_limit()
    with ExitStack() as stack:
        stopped = stack.enter_context(_until_stopped())
        voice_server = stack.enter_context(VoiceServer())
        variables = {**sample_calls.VARIABLES, "TWILIO_VOICE_URL": voice_server.url}
        options = Options(home=demo_home(chosen), ephemeral=True, clock_offset_s=offset, variables=variables)
        system = stack.enter_context(System(options, own, print_progress, stopped))
        assert system.running is not None
        link = _sign_in_link(system.running, own)
        as_expected = demo_run.run(
            system,
            own,
            voice_server,
            carrier=carrier,
            with_full_day=not once,
            sign_in_link=link,
            stopped=stopped,
        )
        if not stopped() and (as_expected or not once):
            demo_run.print_what_to_try(system.running, own, options.home, explanation_page, stays_up=not once)
        if not once and not stopped():
            print_running(system.running, own, system.mail_goes_to, duecall=demo_run.duecall_of(options.home))
            _run_until(stopped, system)
    if once and not as_expected:
        raise typer.Exit(1)


def _sign_in_link(running: "Running", chosen: "Settings") -> str:
    """Make a link that signs an administrator in to the demo's console, once."""
    from console.sessions import ConsoleSessions
    from scheduler.domain.principal import SYSTEM, OperatorRole
    from scheduler.hashing import Hasher
    from scheduler.persistence.database import Database

    database = Database(running.databaseUrl, pool_size=1)
    hasher, now = Hasher(chosen.key_pepper.get_secret_value()), clock(chosen.duecall_clock_offset_s)
    try:
        _, secret = ConsoleSessions(database, hasher, now).make_link(OperatorRole.ADMIN, SYSTEM)
    finally:
        database.close()
    return f"{running.consoleUrl}/sign-in/link/{secret}"


@app.command(epilog=examples('eval "$(duecall env)"', 'eval "$(duecall --home .duecall/demo env)"'))
def env() -> None:
    """Print shell variables for a first call: API, KEY, COMPANY, AGENT, NUMBER, ATS_KEY and TOMORROW.

    They are those of the running `duecall up`, or else of the demo. Each run makes new keys. TOMORROW is a date in UTC,
    on the system's clock.
    """
    from command_line.installation import NothingRuns, homes_of, running_system

    chosen = chosen_settings()
    found = running_system(chosen)
    if found is None or not is_running(found[0].home):
        homes = " or ".join(map(str, homes_of(chosen)))
        raise NothingRuns(f"Nothing runs in {homes}. Start `duecall up` or `duecall demo` first, in another terminal.")
    system, name = found
    tomorrow = clock(system.clock_offset_s)() + timedelta(days=1)
    values = {variable: system.run_file[key] for variable, key in _SHELL_VARIABLES.items()}
    for variable, value in (values | {"TOMORROW": f"{tomorrow:%Y-%m-%d}"}).items():
        print_result(f"export {variable}={shlex.quote(value)}")
    print_note(f"Variables of {name}: {', '.join(values)}, TOMORROW")


@app.command(epilog=examples("TWILIO_ACCOUNT_SID=ACx TWILIO_AUTH_TOKEN=secret duecall simulator --journal calls.jsonl"))
def simulator(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8100,
    journal: Annotated[Path | None, typer.Option(help="File that keeps its calls over a restart.")] = None,
    cps: Annotated[float, typer.Option(help="Calls started per second. Further calls wait.")] = 50.0,
    request_instructions: Annotated[
        bool,
        typer.Option(
            "--request-instructions",
            help="Request the instructions of answered calls from the voice server, as Twilio does.",
        ),
    ] = False,
) -> None:
    """Run a carrier with Twilio's Calls API that rings no phone. GET /ledger lists the calls that it accepted."""
    import uvicorn

    from scheduler.logs import configure
    from standalone.simulator.app import create_app as create_simulator

    chosen = chosen_settings()
    configure()
    if not chosen.twilio_account_sid or not chosen.auth_tokens:
        fail("Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN to any values. The simulator requires them in requests.")
    if journal is not None:
        journal.parent.mkdir(parents=True, exist_ok=True)
    simulator_app = create_simulator(
        account_sid=chosen.twilio_account_sid,
        auth_tokens=chosen.auth_tokens,
        now=clock(chosen.duecall_clock_offset_s),
        calls_per_second=cps,
        state_file=journal,
        requests_instructions=request_instructions,
    )
    uvicorn.run(
        simulator_app,
        host="127.0.0.1",
        port=port,
        loop="asyncio",  # a simulated outage closes asyncio's own server
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        log_config=None,
    )


@contextmanager
def _until_stopped() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True after a first Ctrl-C or SIGTERM. A second one raises KeyboardInterrupt.

    After an orderly end, print a last line: until then, ending takes some seconds.
    """
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True
        print_progress("stopping; press Ctrl-C again to stop at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        print_stopped()


def _run_until(stopped: Callable[[], bool], system: "System") -> None:
    while not stopped():
        system.restart_ended()
        _never.wait(_CHECK_EVERY_S)
