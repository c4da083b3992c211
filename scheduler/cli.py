"""What people type: `duecall up`, `duecall demo`, `duecall status`, and the rest."""

import json
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn
from uuid import UUID

import typer
import uvicorn
from rich.console import Console
from rich.table import Column, Table

from scheduler import demo as sample_calls
from scheduler.carriers.simulator.app import create_app as create_simulator
from scheduler.clock import clock, machine_now
from scheduler.domain.principal import KeyKind
from scheduler.domain.refusals import Refused
from scheduler.embedded import EmbeddedPostgres, ServerUnavailable
from scheduler.hashing import Hasher
from scheduler.lifecycle.policy import UnsafeTimes
from scheduler.logs import configure
from scheduler.persistence import schema
from scheduler.persistence.database import Database, DatabaseAway
from scheduler.persistence.schema import SchemaDrift
from scheduler.settings import MissingSetting, Settings, settings
from scheduler.system import OFFSET_FILE, AlreadyRunning, NotReady, Options, Running, Stopped, System
from scheduler.timing import call_windows, callee_zones, requested_time
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.installation import Installation
from scheduler.use_cases.keys import ALL_SCOPES, Keys

app = typer.Typer(
    name="duecall",
    help="Places every scheduled phone call when it is due, inside the hours in which that person may be called,"
    " and never twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
db = typer.Typer(help="The database's schema.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
numbers = typer.Typer(help="The numbers that a company calls from.", no_args_is_help=True)
app.add_typer(db, name="db")
app.add_typer(keys, name="keys")
app.add_typer(numbers, name="numbers")

_console = Console(stderr=True)
_never = threading.Event()
_ANY_ZONE = "Europe/London"
"""Stands in where a text names its own instant, and no zone decides."""

Port = Annotated[int | None, typer.Option(help="The API's port; else 8000, or a free one when that is taken.")]
At = Annotated[
    str | None,
    typer.Option(
        help="Start the clock at this instant, e.g. 2026-04-02T07:59+10:30, on a database of its own that is forgotten"
        " at the end: rows of another time would all be late, or early. Not in production."
    ),
]
Ephemeral = Annotated[bool, typer.Option("--ephemeral", help="Begin with no data, and forget all data at the end.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.command()
def up(port: Port = None, at: At = None, ephemeral: Ephemeral = False) -> None:
    """Run the whole system until Ctrl-C, on private servers or on DATABASE_URL and REDIS_URL.

    Each process that ends is started again. Addresses, ids and keys stand in .duecall/run.json while it runs.
    """
    chosen = settings()
    offset = _offset(at, chosen)
    if at is not None and chosen.database_url is not None:
        _say("--at on a database that is kept: what waits there is judged by the moved clock, late or expired")
    options = Options(home=chosen.duecall_home, ephemeral=ephemeral or at is not None, port=port, clock_offset_s=offset)
    with _until_stopped() as stopped, System(options, chosen, _say, stopped) as system:
        assert system.running is not None
        _print_running(system.running, chosen)
        while not stopped():
            system.look()
            _pause()


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself; exit 0 if each call ended as expected.")] = False,
    carrier: Annotated[
        str,
        typer.Option(help="How the simulated carrier behaves: usual, or refuse (then the demo must fail)."),
    ] = "usual",
) -> None:
    """Run six sample calls on private servers and a simulated carrier, and show them live."""
    if carrier not in sample_calls.CARRIERS:
        _fail(f"--carrier is one of: {', '.join(sample_calls.CARRIERS)}; got {carrier!r}")
    chosen = settings()
    options = Options(
        home=chosen.duecall_home / "demo",
        ephemeral=True,
        clock_offset_s=_offset(sample_calls.STARTS_AT, chosen),
        variables=sample_calls.VARIABLES,
    )
    # A demo has its own servers and carrier, whatever the environment names: it must ring nobody.
    own = chosen.model_copy(update={"database_url": None, "redis_url": None, "twilio_account_sid": ""})
    with _until_stopped() as stopped, System(options, own, _say, stopped) as system:
        assert system.running is not None
        as_expected = sample_calls.run(system, carrier=carrier, stopped=stopped)
        if not once and not stopped():
            _print_running(system.running, own)
            sample_calls.print_what_to_try(system.running)
            while not stopped():
                system.look()
                _pause()
    if once and not as_expected:
        raise typer.Exit(1)


@app.command()
def status(as_json: AsJson = False) -> None:
    """What is due, late, waiting, in progress and unknown, per company."""
    chosen = _with_run_file(settings())
    database = _database(chosen)
    now = clock(chosen.duecall_clock_offset_s)
    rows = Explain(database, Hasher(chosen.key_pepper.get_secret_value()), chosen.policy, now).waiting()
    if as_json:
        print(json.dumps([asdict(row) for row in rows], default=str))  # noqa: T201 - the answer itself
        return
    table = Table(Column("company", no_wrap=True), "waiting", "due", "late", "calling", "asked for", "unknown", "state")
    for row in rows:
        late = "" if row.late is None else f"{row.late.total_seconds():.1f} s"
        table.add_row(
            str(row.company_id),
            *(str(number) for number in (row.waiting, row.due)),
            late,
            *(str(number) for number in (row.in_progress, row.asked_for, row.unknown)),
            "paused" if row.paused else "runs",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


@app.command()
def simulator(
    port: Annotated[int, typer.Option(help="Where it listens, on 127.0.0.1.")] = 8100,
    journal: Annotated[Path | None, typer.Option(help="Keep its calls here over a restart.")] = None,
    cps: Annotated[float, typer.Option(help="Calls that it starts a second; more wait.")] = 50.0,
) -> None:
    """A carrier that speaks Twilio's Calls API and rings nobody. Its GET /ledger says who would have been rung."""
    chosen = settings()
    configure()
    if not chosen.twilio_account_sid or not chosen.auth_tokens:
        _fail("TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN say who may call it; set both to anything you like.")
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
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        log_config=None,
    )


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the database (DATABASE_OWNER_URL, else DATABASE_URL) to this release's schema."""
    schema.upgrade(settings().database("owner"))
    _say("the database is at this release's schema")


@db.command("check")
def db_check() -> None:
    """Say whether the tables in the code are what the migrations make; on a private database of its own."""
    with _empty_database() as url:
        schema.upgrade(url)
        schema.check(url)


@db.command("draft")
def db_draft(message: str) -> None:
    """Draft a migration from what `db check` finds; for developers, to be read and mended by hand."""
    with _empty_database() as url:
        schema.upgrade(url)
        schema.draft(url, message)


@keys.command("create")
def keys_create(
    company: Annotated[UUID | None, typer.Option(help="A regular key for this company.")] = None,
    ats: Annotated[str | None, typer.Option(help="An ATS key of this name, for the companies that it makes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown now and never again."""
    if (company is None) == (ats is None):
        _fail("say either --company ID or --ats NAME")
    chosen = _with_run_file(settings())
    maker = Keys(_database(chosen), Hasher(chosen.key_pepper.get_secret_value()), clock(chosen.duecall_clock_offset_s))
    if company is not None:
        principal, secret = maker.create(
            kind=KeyKind.REGULAR, name="regular", company_id=company, principal_id=company, scopes=ALL_SCOPES
        )
    else:
        principal, secret = maker.create(kind=KeyKind.ATS, name=str(ats), scopes=ALL_SCOPES)
    shown = {"keyId": str(principal.key_id), "key": secret}
    print(json.dumps(shown) if as_json else secret)  # noqa: T201 - the answer itself


@numbers.command("add")
def numbers_add(company: UUID, number: str) -> None:
    """Let a company call from this number, which your carrier account must own."""
    chosen = _with_run_file(settings())
    now = clock(chosen.duecall_clock_offset_s)
    database = _database(chosen)
    maker = Keys(database, Hasher(chosen.key_pepper.get_secret_value()), now)
    print(Installation(database, maker, now).add_number(company, number))  # noqa: T201 - the answer itself


def main() -> NoReturn:
    """The command `duecall`: what goes wrong for a known reason is one line, and the exit status 1."""
    try:
        app(standalone_mode=True)
    except Stopped:
        sys.exit(130)
    except (
        MissingSetting,
        ServerUnavailable,
        NotReady,
        AlreadyRunning,
        SchemaDrift,
        UnsafeTimes,
        DatabaseAway,
    ) as error:
        _complain(str(error))
        sys.exit(1)
    except Refused as refused:
        _complain(refused.message)
        sys.exit(1)
    sys.exit(0)


def _offset(at: str | None, chosen: Settings) -> float:
    """Seconds to add to the machine's clock so that it shows `at` now."""
    if at is None:
        return chosen.duecall_clock_offset_s
    if chosen.duecall_env == "production":
        _fail("--at moves the clock, and production does not let it be moved")
    requested = requested_time.read(at, field="--at")
    if requested.offset is None and not requested.is_instant and requested.zone is None:
        _fail("--at needs an offset, Z or a zone, e.g. 2026-04-02T07:59+10:30")
    clock_of_text = callee_zones.deciding_clock(requested, candidate_zone=None, number=None, company_zone=_ANY_ZONE)
    return (call_windows.resolve(requested, clock_of_text) - machine_now()).total_seconds()


@contextmanager
def _empty_database() -> Iterator[str]:
    """The URL of a database without a table, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), durable=False) as server:
        yield server.url


def _database(chosen: Settings) -> Database:
    return Database(chosen.database("worker"), pool_size=1)


def _with_run_file(chosen: Settings) -> Settings:
    """The settings, or those of the `duecall up` that runs in this folder when no database is named."""
    run_file = chosen.duecall_home / "run.json"
    if chosen.database_url is not None or not run_file.exists():
        return chosen
    offset = (chosen.duecall_home / OFFSET_FILE).read_text(encoding="ascii")
    running = json.loads(run_file.read_text(encoding="utf-8"))
    return Settings(database_url=running["databaseUrl"], duecall_clock_offset_s=float(offset))


class _until_stopped:  # noqa: N801 - reads as what it does
    """Inside, Ctrl-C and SIGTERM only say that it is time to stop."""

    def __init__(self) -> None:
        self._stopped = False

    def __enter__(self) -> Callable[[], bool]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        return lambda: self._stopped

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    def _stop(self, *_: object) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
        _say("stopping; press Ctrl-C again to stop at once")


def _pause() -> None:
    """A tenth of a second, or less when a signal arrives."""
    _never.wait(0.1)


def _say(line: str) -> None:
    _console.print(f"[dim]{machine_now():%H:%M:%S}[/dim] {line}", highlight=False)


def _fail(line: str) -> NoReturn:
    _complain(line)
    raise typer.Exit(1)


def _complain(line: str) -> None:
    _console.print(line, style="red", highlight=False, markup=False)


def _print_running(running: Running, chosen: Settings) -> None:
    user = chosen.flower_basic_auth.get_secret_value()
    for name, value in (
        ("API", running.apiUrl),
        ("its documentation", f"{running.apiUrl}/docs"),
        ("Flower", f"{running.flowerUrl}   ({user.partition(':')[0]} / {user.partition(':')[2]})"),
        ("carrier", running.simulatorUrl or "Twilio"),
        ("key", running.companyKey),
        ("agent", running.agentId),
    ):
        # Never in a table: a key that was cut off cannot be pasted.
        _console.print(f"  {name:18} {value}", highlight=False, markup=False, soft_wrap=True)
    _console.print("[dim]Ctrl-C stops everything.[/dim]")


if __name__ == "__main__":
    main()
