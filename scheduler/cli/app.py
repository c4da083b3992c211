"""What people type: `duecall up`, `duecall demo`, `duecall explain`, `duecall status`, and the rest."""

import json
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import UUID

import typer
import uvicorn
from pydantic import SecretStr
from rich.console import Console
from rich.text import Text
from typer.exceptions import TyperException

from api_shim.schemas.explanation import ExplanationView
from scheduler import assembly
from scheduler.carriers.interface import CarrierUnavailable
from scheduler.carriers.simulator.app import create_app as create_simulator
from scheduler.clock import Now, clock, machine_now
from scheduler.demo import run as demo_run
from scheduler.demo import sample_calls
from scheduler.domain.company import ALARM
from scheduler.domain.explanation import Explanation
from scheduler.domain.principal import KeyKind
from scheduler.domain.refusals import InvalidRequest, NotFound, Refused
from scheduler.domain.usage import Billing, BillingSystem, PriceList
from scheduler.hashing import Hasher
from scheduler.lifecycle.pricing import DEFAULT_PRICES, prices_as_json, read_prices
from scheduler.local.errors import CannotRun, ServerUnavailable, Stopped
from scheduler.local.postgres import EmbeddedPostgres
from scheduler.local.run_file import Found, Running, is_running, running_in
from scheduler.local.system import Options, System
from scheduler.logs import configure
from scheduler.persistence import schema
from scheduler.persistence.database import Database, DatabaseAway, WrongRole
from scheduler.persistence.schema import NoLogin, SchemaDrift, SchemaNotMade
from scheduler.settings import MissingSetting, Settings, WrongSettings, as_kept, place_of, settings
from scheduler.terminal import pages
from scheduler.timing import call_windows, callee_zones, requested_time
from scheduler.use_cases.backlog import Backlog
from scheduler.use_cases.carrier_waits import CarrierWaits
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.installation import Installation
from scheduler.use_cases.keys import PER_HOUR, PER_MINUTE, Keys
from scheduler.use_cases.pauses import Pauses
from scheduler.use_cases.quarantine import Quarantine
from scheduler.use_cases.reconcile import NotPaused
from scheduler.use_cases.usage import Usage
from workers.presence import TimesUnknown, times_of


def _examples(*lines: str) -> str:
    """The end of a --help: commands that can be pasted."""
    return "\n".join(("Examples:", "", *(f"$ {line}" for line in lines)))


app = typer.Typer(
    name="duecall",
    help="Places every scheduled phone call when it is due, inside the hours in which that person may be called,"
    " and never twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
db = typer.Typer(help="The database's schema.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
commands = typer.Typer(help="Commands in quarantine: those that failed five times.", no_args_is_help=True)
carrier = typer.Typer(
    help="Orders that wait because the carrier refuses or fails them, and no others.", no_args_is_help=True
)
numbers = typer.Typer(help="The numbers that a company calls from.", no_args_is_help=True)
billing = typer.Typer(help="What a company's calls cost.", no_args_is_help=True)
openapi = typer.Typer(help="The document of the public API.", no_args_is_help=True)
app.add_typer(db, name="db")
app.add_typer(keys, name="keys")
app.add_typer(commands, name="commands")
app.add_typer(carrier, name="carrier")
app.add_typer(numbers, name="numbers")
app.add_typer(billing, name="billing")
app.add_typer(openapi, name="openapi")

_console = Console(stderr=True)
_never = threading.Event()
_MOST_REQUESTS = 1_000_000
_AMOUNTS = ("baseCost", "costPerMinute", "includedMinutes")
_ANY_ZONE = "Europe/London"
"""Stands in where a text names its own instant, and no zone decides."""

_SHELL_VARIABLES = {
    "API": "apiUrl",
    "KEY": "companyKey",
    "AGENT": "agentId",
    "NUMBER": "phoneNumberId",
    "ATS_KEY": "atsKey",
}
"""Shell variables of `duecall env`, by the names of run.json."""

_LAST_PORT = 65_535
_WRONG = 2
"""Exit status where what was typed or set is wrong; 1 where it is right and could not be done."""

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
WhichCompany = Annotated[UUID | None, typer.Argument(metavar="COMPANY_ID", show_default=False)]
WhichFile = Annotated[Path, typer.Argument(metavar="FILE", help="Where the document is kept.")]
WhichKey = Annotated[UUID, typer.Argument(metavar="KEY_ID", help="As `duecall keys list` says.")]
Everything = Annotated[bool, typer.Option("--all", help="Everything, for every company.")]


class _Given:
    """What was said before the command's name."""

    home: Path | None = None


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"duecall {metadata.version('duecall')}")  # noqa: T201 - the answer itself
        raise typer.Exit


@app.callback()
def _before_the_command(
    home: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the system that is meant, whatever DUECALL_HOME says, and for what asks a system that"
            " runs, DATABASE_URL; the demo's is .duecall/demo."
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback has answered and ended
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Which release this is.")
    ] = False,
) -> None:
    _Given.home = home


def _settings() -> Settings:
    """The environment's, with what was said on the command line in its place."""
    return settings() if _Given.home is None else settings().model_copy(update={"duecall_home": _Given.home})


@app.command(
    epilog=_examples("duecall up", "duecall up --at 2026-04-02T07:59+10:30", "duecall up --ephemeral --port 8080")
)
def up(port: Port = None, at: At = None, ephemeral: Ephemeral = False) -> None:
    """Run the whole system until Ctrl-C, on private servers or on DATABASE_URL and REDIS_URL.

    Each process that ends is started again. Addresses, ids and keys stand in .duecall/run.json while it runs.
    """
    if port is not None and not 1 <= port <= _LAST_PORT:
        _refuse(f"--port is from 1 to {_LAST_PORT}; got {port}. Leave it out, and a free one is found")
    chosen = _settings()
    offset = _offset(at, chosen)
    if at is not None and chosen.database_url is not None:
        _say("--at on a database that is kept: what waits there is judged by the moved clock, late or expired")
    options = Options(home=chosen.duecall_home, ephemeral=ephemeral or at is not None, port=port, clock_offset_s=offset)
    with _until_stopped() as stopped, System(options, chosen, _say, stopped) as system:
        assert system.running is not None
        _print_running(system.running, chosen, system.mail_goes_to)
        while not stopped():
            system.look()
            _pause()


@app.command(epilog=_examples("duecall demo", "duecall demo --once", "duecall demo --once --carrier refuse"))
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
        _refuse(f"--carrier is one of: {', '.join(sample_calls.CARRIERS)}; got {carrier!r}")
    chosen = _settings()
    offset = _offset(sample_calls.STARTS_AT, chosen)
    options = Options(home=_demo_home(chosen), ephemeral=True, clock_offset_s=offset, variables=sample_calls.VARIABLES)
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
    with _until_stopped() as stopped, System(options, own, _say, stopped) as system:
        assert system.running is not None
        # Stopped on the way, nothing was proven or disproven.
        as_expected = demo_run.run(system, own, carrier=carrier, stopped=stopped)
        if not stopped() and (as_expected or not once):
            demo_run.print_what_to_try(system.running, own, options.home, stays_up=not once)
        if not once and not stopped():
            _print_running(system.running, own, system.mail_goes_to)
            while not stopped():
                system.look()
                _pause()
    if once and not as_expected:
        raise typer.Exit(1)


@app.command(epilog=_examples('eval "$(duecall env)"', 'eval "$(duecall --home .duecall/demo env)"'))
def env() -> None:
    """Print shell variables for a first call: API, KEY, AGENT, NUMBER, ATS_KEY and TOMORROW.

    They are those of the running `duecall up`, or else of the demo. Each run makes new keys. TOMORROW is a date in UTC,
    on the system's clock.
    """
    chosen = _settings()
    found = _running_system(chosen)
    if found is None or not is_running(found[0].home):
        homes = " or ".join(map(str, _homes(chosen)))
        raise NothingRuns(f"Nothing runs in {homes}. Start `duecall up` or `duecall demo` first, in another terminal.")
    system, name = found
    tomorrow = clock(system.clock_offset_s)() + timedelta(days=1)
    values = {variable: system.run_file[key] for variable, key in _SHELL_VARIABLES.items()}
    for variable, value in (values | {"TOMORROW": f"{tomorrow:%Y-%m-%d}"}).items():
        print(f"export {variable}={shlex.quote(value)}")  # noqa: T201 - the answer itself
    _say_plainly(f"Variables of {name}: {', '.join(values)}, TOMORROW")


@app.command(
    epilog=_examples("duecall explain 6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11", "duecall explain ID --json | jq .blocks")
)
def explain(
    attempt_id: Annotated[UUID, typer.Argument(metavar="ATTEMPT_ID", help="Or an interview's: then its newest one.")],
    as_json: AsJson = False,
) -> None:
    """Why an attempt stands as it does: when it may ring, on whose clock, what keeps it, and what has happened.

    It asks the very rules that dial. Deleted attempts are explained too.
    """
    with _desk(computes=True) as desk:
        explanation = _explanation(desk, attempt_id)
        if as_json:
            print(ExplanationView.of(explanation).model_dump_json(by_alias=True))  # noqa: T201 - the answer itself
        else:
            pages.terminal().print(pages.system_line(desk.system))
            pages.terminal().print(pages.explanation_page(explanation, desk.now()))


def _explanation(desk: "_Desk", attempt_or_interview: UUID) -> Explanation:
    """Whoever has an interview's id at hand is helped: its newest attempt is the one that is asked about."""
    try:
        return desk.explain.explanation_of(attempt_or_interview)
    except NotFound:
        attempts = desk.explain.attempts_of(attempt_or_interview)
        if not attempts:
            raise NotFound("There is no call attempt of this id, and no interview of it that has any.") from None
    _say_plainly(f"This is an interview; its newest attempt of {len(attempts)} is explained:")
    for each in attempts:
        _say_plainly(pages.attempt_line(each))
    return desk.explain.explanation_of(attempts[-1].id)


@app.command(epilog=_examples("duecall status", "duecall status --json | jq .carriers", "watch -n 1 duecall status"))
def status(as_json: AsJson = False) -> None:
    """What waits and for what, what is late, calling and unknown, per company; and how the carrier and mail stand.

    Of commands that were accepted and are not applied yet, and of deleted companies that are not erased yet, it tells
    the number and the age.
    """
    with _desk(computes=True) as desk:
        carriers, companies, commands = desk.explain.carriers(), desk.explain.waiting(), desk.backlog.commands()
        mails, erasures = desk.explain.unsent_invitations(), desk.backlog.erasures()
        backoffs = desk.carrier_waits.all()
    if as_json:
        told = pages.status_as_json(carriers, backoffs, companies, commands, mails, erasures)
        print(json.dumps(told))  # noqa: T201 - the answer itself
    else:
        pages.terminal().print(pages.system_line(desk.system))
        page = pages.status_page(carriers, backoffs, companies, commands, mails, erasures, desk.now())
        pages.terminal().print(page)


@app.command(
    epilog=_examples(
        "duecall pause 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --reason 'they asked for silence until Monday'",
        "duecall pause --all --reason 'the voice server is down'",
    )
)
def pause(
    reason: Annotated[
        str,
        typer.Option(
            help="Why, in one line, for whoever asks later; the company reads it. No name, number or address."
        ),
    ],
    company_id: WhichCompany = None,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """Stop the dialling, of one company or of everything. Calls in progress go on; what is due waits.

    Doing it again changes nothing: a pause that stands keeps its first reason.
    """
    reason = reason.strip()
    if not reason:
        _refuse("say why: --reason TEXT; whoever finds the calls waiting will ask")
    whose = _whose(company_id, everything=everything)
    with _desk() as desk:
        before = desk.pauses.pause(company_id, reason)
    if as_json:
        _print_pause(company_id, before or reason, changed=before is None)
    elif before is None:
        desk.tell(f"{whose} is paused: {reason}")
    else:
        desk.tell(f"{whose} was paused already, {_by_whom(before)}, and stays so")


@app.command(
    epilog=_examples("duecall resume 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55", "duecall resume --all"),
)
def resume(company_id: WhichCompany = None, everything: Everything = False, as_json: AsJson = False) -> None:
    """Let the dialling go on, of one company or of everything; what is due meanwhile is rung at once, in its hours.

    --all ends the pause of everything; a company that is paused by itself stays paused.
    """
    whose = _whose(company_id, everything=everything)
    with _desk() as desk:
        before = desk.pauses.resume(company_id)
        still_waits = list(_what_still_waits(desk, company_id))
    if as_json:
        _print_pause(company_id, None, changed=before is not None)
        return
    if before is None:
        desk.tell(f"{whose} was not paused")
    else:
        desk.tell(f"{whose} goes on; it had been paused {_by_whom(before)}")
    for still in still_waits:
        _say_plainly(still)


@app.command(
    epilog=_examples(
        "duecall pause --all --reason 'restored the backup of 07:00'",
        "duecall reconcile --since 2026-04-02T07:00Z",
        "duecall resume --all",
    )
)
def reconcile(
    since: Annotated[str, typer.Option(help="When the backup was made, or a moment that the database surely knows.")],
    as_json: AsJson = False,
) -> None:
    """After a restore or a failover: ask the carrier for the calls that this database has forgotten. Rings nobody.

    Everything must be paused. It may be repeated, and should be once lost commands have been sent again.
    """
    instant = _instant(since, "--since")
    with _desk() as desk:
        try:
            found = assembly.reconcile(_installation()[0], desk.database).since(instant)
        except NotPaused:
            _refuse("stop everything first: duecall pause --all --reason 'the database was restored'")
        except CarrierUnavailable:
            _fail("the carrier cannot be asked; nothing may be dialled before it was: try again")
    told = {"calls": found.calls, "known": found.known, "bound": [str(each) for each in found.bound]}
    if as_json:
        print(json.dumps(told | {"strangers": list(found.strangers)}))  # noqa: T201 - the answer itself
        return
    desk.tell(
        f"{found.calls} calls since {instant.isoformat()}: {found.known} known, {len(found.bound)} had been forgotten"
        f" and are bound again, {len(found.strangers)} fit nothing that waits"
    )
    for sid in found.strangers:
        _say_plainly(f"  fits nothing: {sid}")


def _whose(company_id: UUID | None, *, everything: bool) -> str:
    """Who is meant, as a sentence begins. One of the two must be said, so that nobody stops all by leaving one out."""
    if (company_id is None) != everything:
        _refuse("say either COMPANY_ID or --all; `duecall status` lists the companies")
    return "Everything" if everything else f"Company {company_id}"


def _by_whom(reason: str) -> str:
    if reason.startswith(ALARM):
        return f"by an alarm ({reason.removeprefix(ALARM)}): something happened that never must, see the logs"
    return f"because: {reason}"


def _what_still_waits(desk: "_Desk", company_id: UUID | None) -> Iterator[str]:
    """What a resume did not end."""
    everything, companies = desk.pauses.standing()
    if company_id is not None and everything is not None:
        yield f"Everything is paused still: {everything}. End that with: duecall resume --all"
    elif company_id is None and companies:
        yield f"Paused by themselves, and still so: {', '.join(map(str, companies))}"


def _print_pause(company_id: UUID | None, reason: str | None, *, changed: bool) -> None:
    by_alarm = reason is not None and reason.startswith(ALARM)
    told = {
        "companyId": None if company_id is None else str(company_id),
        "paused": reason is not None,
        "reason": reason,
        "byAlarm": by_alarm,
        "changed": changed,
    }
    print(json.dumps(told))  # noqa: T201 - the answer itself


@app.command(
    epilog=_examples("TWILIO_ACCOUNT_SID=ACx TWILIO_AUTH_TOKEN=secret duecall simulator --journal calls.jsonl")
)
def simulator(
    port: Annotated[int, typer.Option(help="Where it listens, on 127.0.0.1.")] = 8100,
    journal: Annotated[Path | None, typer.Option(help="Keep its calls here over a restart.")] = None,
    cps: Annotated[float, typer.Option(help="Calls that it starts a second; more wait.")] = 50.0,
) -> None:
    """A carrier that speaks Twilio's Calls API and rings nobody. Its GET /ledger says who would have been rung."""
    chosen = _settings()
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
        loop="asyncio",  # an outage shuts the door from behind asyncio's own server
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        log_config=None,
    )


@db.command("upgrade", epilog=_examples("DATABASE_URL=postgresql://... duecall db upgrade"))
def db_upgrade() -> None:
    """Bring the database (DATABASE_OWNER_URL, else DATABASE_URL) to this release's schema."""
    schema.upgrade(_settings().database("owner"))
    _say("the database is at this release's schema")


@db.command("logins", epilog=_examples("duecall db logins   # after a change of the passwords in these URLs, too"))
def db_logins() -> None:
    """Let the users of DATABASE_URL (the API) and DATABASE_WORKER_URL log in with the passwords there.

    As DATABASE_OWNER_URL, whose role may make roles. Who is not there is made; `db upgrade` comes first.
    """
    chosen = _settings()
    logins = schema.Logins(api=chosen.database("api"), worker=chosen.database("worker"))
    if chosen.database("owner") in {logins.api, logins.worker}:
        _refuse("DATABASE_OWNER_URL must name somebody else than DATABASE_URL and DATABASE_WORKER_URL")
    if logins.api == logins.worker:
        _refuse("DATABASE_WORKER_URL must name somebody else than DATABASE_URL")
    schema.set_logins(chosen.database("owner"), logins)
    _say("the API and the workers can log in")


@db.command("check", epilog=_examples("duecall db check"))
def db_check() -> None:
    """Say whether the tables in the code are what the migrations make; on a private database of its own."""
    with _empty_database() as url:
        schema.upgrade(url)
        schema.check(url)


@db.command("draft", epilog=_examples("duecall db draft 'jobs'"))
def db_draft(message: str) -> None:
    """Draft a migration from what `db check` finds; for developers, to be read and mended by hand."""
    with _empty_database() as url:
        schema.upgrade(url)
        schema.draft(url, message)


@openapi.command("write", epilog=_examples("duecall openapi write docs/openapi.json"))
def openapi_write(file: WhichFile) -> None:
    """Write what the API serves as /openapi.json; needs no system that runs."""
    from api_shim import document  # noqa: PLC0415 - makes the whole API, which no other command needs

    file.write_text(document.text(), encoding="utf-8")


@openapi.command("check", epilog=_examples("duecall openapi check docs/openapi.json"))
def openapi_check(file: WhichFile) -> None:
    """Say whether a file is what the API serves as /openapi.json, byte for byte."""
    from api_shim import document  # noqa: PLC0415 - as above

    try:
        document.check(file)
    except document.DocumentDiffers as error:
        _fail(str(error))


@keys.command(
    "create",
    epilog=_examples(
        "duecall keys create --company 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --name 'the night shift'",
        "duecall keys create --ats 'Acme ATS' --json",
        "duecall keys create --company ID --scopes read:interviews,write:interviews --expires 2027-01-01T00:00:00Z",
        "duecall keys create --rotate KEY_ID   # then give it to whoever uses KEY_ID, and: duecall keys revoke KEY_ID",
    ),
)
def keys_create(
    company: Annotated[UUID | None, typer.Option(help="A regular key for this company.")] = None,
    ats: Annotated[str | None, typer.Option(help="An ATS key of this name, for the companies that it makes.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What a company's key is called in lists and histories; else regular, or as the one rotated."
        ),
    ] = None,
    rotate: Annotated[
        UUID | None,
        typer.Option(metavar="KEY_ID", help="A second key of the same principal, to replace this one; both are good."),
    ] = None,
    scopes: Annotated[
        str | None, typer.Option(help="With commas between them; else all, or with --rotate the same.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="It is good until then, e.g. 2027-01-01T00:00:00Z; else until it is revoked.")
    ] = None,
    per_minute: Annotated[
        int | None, typer.Option(min=1, max=_MOST_REQUESTS, help=f"Requests; else {PER_MINUTE}.")
    ] = None,
    per_hour: Annotated[int | None, typer.Option(min=1, max=_MOST_REQUESTS, help=f"Requests; else {PER_HOUR}.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown now and never again."""
    if sum(each is not None for each in (company, ats, rotate)) != 1:
        _refuse("say one of --company ID, --ats NAME and --rotate KEY_ID")
    if ats is not None and not ats.strip():
        _refuse("--ats needs a name, by which the key is known later")
    if ats is not None and name is not None:
        _refuse("an ATS key is called what --ats says; leave --name out")
    given = {
        "name": None if name is None else name.strip(),
        "scopes": None if scopes is None else frozenset(scopes.replace(",", " ").split()),
        "per_minute": per_minute,
        "per_hour": per_hour,
        "expires_at": None if expires is None else _instant(expires, "--expires"),
    }
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with _desk() as desk:
        if rotate is not None:
            principal, secret = desk.keys.rotate(rotate, wanted)
        elif company is not None:
            named = {"name": "regular", **wanted}
            principal, secret = desk.keys.create(kind=KeyKind.REGULAR, company_id=company, **named)
        else:
            principal, secret = desk.keys.create(kind=KeyKind.ATS, name=str(ats).strip(), **wanted)
        if not as_json:
            desk.tell(f"key {principal.key_id} was made; it is shown this once")
    shown = {"keyId": str(principal.key_id), "key": secret}
    print(json.dumps(shown) if as_json else secret)  # noqa: T201 - the answer itself


@keys.command("list", epilog=_examples("duecall keys list", "duecall keys list --company ID --json | jq '.[].keyId'"))
def keys_list(
    company: Annotated[UUID | None, typer.Option(help="Those of this company alone.")] = None, as_json: AsJson = False
) -> None:
    """Every key: whose it is, whether it is good, when it was last used, to the minute. Never the key itself."""
    with _desk() as desk:
        found = desk.keys.all(company)
        if as_json:
            print(json.dumps(pages.keys_as_json(found, desk.now())))  # noqa: T201 - the answer itself
        else:
            pages.terminal().print(pages.keys_page(found, desk.now()))


WhichCommand = Annotated[UUID, typer.Argument(metavar="COMMAND_ID", help="As `duecall commands list` shows it.")]


@commands.command("list", epilog=_examples("duecall commands list", "duecall commands list --json"))
def commands_list(as_json: AsJson = False) -> None:
    """What is in quarantine, oldest first. Why it failed is in the workers' logs, under its id."""
    with _desk() as desk:
        found = desk.quarantine.all()
    told = [
        {
            "commandId": str(each.id),
            "kind": each.kind.value,
            "companyId": None if each.company_id is None else str(each.company_id),
            "interviewId": None if each.interview_id is None else str(each.interview_id),
            "receivedAt": each.received_at.isoformat(),
        }
        for each in found
    ]
    if as_json:
        print(json.dumps(told))  # noqa: T201 - the answer itself
    elif not told:
        desk.tell("no command is in quarantine")
    for each in () if as_json else told:
        print("  ".join(str(value or "-") for value in each.values()))  # noqa: T201 - the answer itself


@commands.command("retry", epilog=_examples("duecall commands retry COMMAND_ID"))
def commands_retry(command_id: WhichCommand) -> None:
    """Have a command tried again, once its cause is mended; times are judged as of when it was received."""
    with _desk() as desk:
        desk.quarantine.again(command_id)
    desk.tell(f"command {command_id} is tried again within seconds")


@commands.command("drop", epilog=_examples("duecall commands drop COMMAND_ID"))
def commands_drop(command_id: WhichCommand) -> None:
    """End a command unapplied: it is answered with 409 COMMAND_DROPPED, and its interview takes commands again."""
    with _desk() as desk:
        desk.quarantine.drop(command_id)
    desk.tell(f"command {command_id} is dropped; nothing of it was done")


@carrier.command("list", epilog=_examples("duecall carrier list", "duecall carrier list --json"))
def carrier_list(as_json: AsJson = False) -> None:
    """Which country, or which company's number, waits for the carrier, why, and until when."""
    with _desk() as desk:
        found = desk.carrier_waits.all()
    told = pages.backoffs_as_json(found)
    if as_json:
        print(json.dumps(told))  # noqa: T201 - the answer itself
    elif not told:
        desk.tell("no orders wait for the carrier by themselves")
    for each in () if as_json else told:
        print("  ".join(str(value or "-") for value in each.values()))  # noqa: T201 - the answer itself


@carrier.command("retry", epilog=_examples("duecall carrier retry   # after the permission was given"))
def carrier_retry() -> None:
    """Have one call of each country and number that waits tried at once; when it is taken, the others go on."""
    with _desk() as desk:
        ended = desk.carrier_waits.end()
    desk.tell(f"{ended} waits are over; one call of each is tried")


@keys.command("suspend", epilog=_examples("duecall keys suspend KEY_ID --reason 'the invoice of March'"))
def keys_suspend(
    key_id: WhichKey,
    reason: Annotated[
        str | None, typer.Option(help="Why, in one line; whoever uses the key is told. No name, number or address.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a key open nothing until it is resumed; whoever uses it is told so (401 API_KEY_SUSPENDED).

    Its rotations stay as they are, and one that is made now is good.
    """
    with _desk() as desk:
        changed = desk.keys.suspend(key_id, reason)
    _tell_of_key(key_id, "is suspended", "was suspended already, and stays as it was", changed=changed, as_json=as_json)


@keys.command("resume", epilog=_examples("duecall keys resume KEY_ID"))
def keys_resume(key_id: WhichKey, as_json: AsJson = False) -> None:
    """Let a suspended key open again what its scopes say."""
    with _desk() as desk:
        changed = desk.keys.resume(key_id)
    _tell_of_key(key_id, "is good again", "was not suspended", changed=changed, as_json=as_json)


@keys.command("revoke", epilog=_examples("duecall keys revoke KEY_ID"))
def keys_revoke(key_id: WhichKey, as_json: AsJson = False) -> None:
    """Let a key open nothing, for ever (401 INVALID_API_KEY). Its rotations stay as they are."""
    with _desk() as desk:
        changed = desk.keys.revoke(key_id)
    _tell_of_key(key_id, "is revoked", "was revoked already", changed=changed, as_json=as_json)


def _tell_of_key(key_id: UUID, done: str, already: str, *, changed: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"keyId": str(key_id), "changed": changed}))  # noqa: T201 - the answer itself
    else:
        _say_plainly(f"Key {key_id} {done if changed else already}")


@numbers.command("add", epilog=_examples("duecall numbers add 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 +421221020002"))
def numbers_add(company: UUID, number: str) -> None:
    """Let a company call from this number, which your carrier account must own."""
    with _desk() as desk:
        installation = Installation(desk.database, desk.keys, desk.now)
        added = installation.add_number(company, number)
        desk.tell("a number was added")
        print(added)  # noqa: T201 - the answer itself


@billing.command(
    "set",
    epilog=_examples(
        "duecall billing set 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --system credits",
        "duecall billing set 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --price SCREENING:2:0.25:10 --json",
        "duecall billing set 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --default-prices",
    ),
)
def billing_set(
    company: Annotated[UUID, typer.Argument(metavar="COMPANY_ID")],
    system: Annotated[BillingSystem | None, typer.Option(help="The unit in which it is billed.")] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOCUS:BASE:PER_MINUTE:INCLUDED",
            help="Credits that a call of this focus costs: the base, and so much for each minute beyond those included."
            " May be repeated; the other prices stay.",
        ),
    ] = None,
    default_prices: Annotated[
        bool, typer.Option("--default-prices", help="Forget the company's own prices that are not named here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say in which unit and at which prices a company is billed from now on. What is booked stays as it is."""
    if system is None and not price and not default_prices:
        _refuse("say what to set: --system, --price or --default-prices")
    prices = _prices(price or ())
    with _desk() as desk:
        after = Usage(desk.database, desk.now).bill(
            company, system=system, prices=prices, drops_its_prices=default_prices
        )
    _print_billing(company, after, as_json=as_json)


def _prices(texts: Sequence[str]) -> PriceList:
    """Raises InvalidPrice."""
    form = {}
    for text in texts:
        focus, *amounts = text.split(":")
        if len(amounts) != len(_AMOUNTS):
            _refuse(f"--price is FOCUS:BASE:PER_MINUTE:INCLUDED, e.g. SCREENING:2:0.25:10; got {text!r}")
        form[focus] = dict(zip(_AMOUNTS, amounts, strict=True))
    return read_prices(form)


def _print_billing(company: UUID, after: Billing, *, as_json: bool) -> None:
    prices = prices_as_json({**DEFAULT_PRICES, **after.prices})
    if as_json:
        own = [focus.value for focus in after.prices]
        told = {"companyId": str(company), "billingSystem": after.system, "prices": prices, "ownPrices": own}
        print(json.dumps(told))  # noqa: T201 - the answer itself
        return
    _say_plainly(f"Company {company} is billed in {after.system}.")
    for focus, price in prices.items():
        base, per_minute, included = (price[name] for name in _AMOUNTS)
        whose = "its own" if focus in after.prices else "default"
        _say_plainly(f"  {focus}: {base} credits, {per_minute} for each minute beyond {included} ({whose})")


def main() -> NoReturn:
    """The command `duecall`: what goes wrong for a known reason is one line on standard error.

    Exit status 2: what was typed or set is wrong. 1: it could not be done. 130: stopped by Ctrl-C.
    """
    try:
        code = app(prog_name="duecall", standalone_mode=False)
    except Stopped:
        _say("stopped")
        sys.exit(130)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except TyperException as error:
        where = getattr(error, "ctx", None)
        _complain(error.format_message() + (f" See: {where.command_path} --help" if where and error.message else ""))
        sys.exit(error.exit_code)
    except DatabaseAway as error:
        _complain(f"the database cannot be reached: {error}")
        sys.exit(1)
    except SchemaNotMade as error:
        _complain(f"the database cannot be brought to this release's schema: {error}")
        sys.exit(1)
    except (WrongRole, MissingSetting, ServerUnavailable, CannotRun, SchemaDrift, NoLogin) as error:
        _complain(str(error))
        sys.exit(1)
    except WrongSettings as error:
        _complain(str(error))
        sys.exit(_WRONG)
    except Refused as refused:
        _complain(refused.message)
        sys.exit(_WRONG if isinstance(refused, InvalidRequest) else 1)
    sys.exit(code if isinstance(code, int) else 0)


def _offset(at: str | None, chosen: Settings) -> float:
    """Seconds to add to the machine's clock so that it shows `at` now."""
    if at is None:
        return chosen.duecall_clock_offset_s
    if chosen.duecall_env == "production":
        _refuse("--at moves the clock, and production does not let it be moved")
    return (_instant(at, "--at") - machine_now()).total_seconds()


def _instant(text: str, option: str) -> datetime:
    """The instant that an option names. Raises InvalidDateFormat."""
    requested = requested_time.read(text, field=option)
    if requested.offset is None and not requested.is_instant and requested.zone is None:
        _refuse(f"{option} needs an offset, Z or a zone, e.g. 2026-04-02T07:59+10:30")
    clock_of_text = callee_zones.deciding_clock(requested, candidate_zone=None, number=None, company_zone=_ANY_ZONE)
    return call_windows.resolve(requested, clock_of_text)


@contextmanager
def _empty_database() -> Iterator[str]:
    """The URL of a database without a table, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), durable=False) as server:
        yield server.url


@dataclass(frozen=True, kw_only=True)
class _Desk:
    """What an operator works with: the installation that the environment names, or that runs in this folder."""

    database: Database
    keys: Keys
    explain: Explain
    backlog: Backlog
    quarantine: Quarantine
    pauses: Pauses
    carrier_waits: CarrierWaits
    now: Now
    system: str
    """Which installation that is."""

    def tell(self, what: str) -> None:
        """What was done, and where: an operator may have several installations."""
        _say_plainly(f"In {self.system}: {what}")


@contextmanager
def _desk(*, computes: bool = False) -> Iterator[_Desk]:
    """`computes`: the command's answer depends on the times that the processes dial with."""
    chosen, system = _installation()
    if computes and _Given.home is None and _settings().database_url is not None:
        chosen = _as_announced(chosen)
    database = Database(chosen.database("worker"), pool_size=1, bound=False)
    now = clock(chosen.duecall_clock_offset_s)
    hasher = Hasher(chosen.key_pepper.get_secret_value())
    try:
        if database.schema_revision() is None:
            _fail("the database has no schema yet; `duecall db upgrade` makes it")
        yield _Desk(
            database=database,
            keys=Keys(database, hasher, now),
            explain=Explain(database, hasher, chosen.policy, now),
            backlog=Backlog(database, now),
            quarantine=Quarantine(database, now),
            pauses=Pauses(database, now),
            carrier_waits=CarrierWaits(database, now),
            now=now,
            system=system,
        )
    except NotFound as missing:
        raise NotFound(f"{missing.message} Asked in {system}.", **missing.details) from None
    except DatabaseAway as away:
        raise DatabaseAway(f"{away} ({system})") from away
    finally:
        database.close()


def _installation() -> tuple[Settings, str]:
    """The settings of the installation that is meant, and which that is.

    The one of `--home`; else of the named database; else the `duecall up` that runs in this folder; else the demo.
    """
    chosen = _settings()
    if _Given.home is None and chosen.database_url is not None:
        name = "DATABASE_URL" if chosen.database_worker_url is None else "DATABASE_WORKER_URL"
        return chosen, f"the system of {name}, database {place_of(chosen.database('worker'))}"
    if (found := _running_system(chosen)) is not None:
        running, name = found
        of_this_run = {
            "database_url": SecretStr(running.database_url),
            "database_worker_url": None,
            "duecall_clock_offset_s": running.clock_offset_s,
        }
        used = as_kept(chosen, running.settings).model_copy(update=of_this_run)
        return used, f"{name}, database {place_of(running.database_url)}"
    if _Given.home is not None:
        raise NothingRuns(f"Nothing runs in {_Given.home}. Start it there, or leave --home out.")
    raise NothingRuns(
        f"Nothing runs in {' or '.join(map(str, _homes(chosen)))}, and DATABASE_URL is not set: start `duecall up` or"
        " `duecall demo`, name the folder of one that runs with --home, or set DATABASE_URL."
    )


def _homes(chosen: Settings) -> dict[Path, str]:
    """Folders in which a system may run, with what each is called."""
    own = {chosen.duecall_home: "the system"}
    return own if _Given.home is not None else own | {_demo_home(chosen): "the demo"}


def _running_system(chosen: Settings) -> tuple[Found, str] | None:
    """Return the first running system, with a name for messages."""
    for home, what in _homes(chosen).items():
        if (running := running_in(home, _say_plainly)) is not None:
            return running, f"{what} in {home}"
    return None


def _as_announced(chosen: Settings) -> Settings:
    """Return the settings with the times that the live processes announce; else warn that the shell's are used.

    Without REDIS_URL no worker can be asked.
    """
    if chosen.redis_url is None:
        return chosen
    try:
        times = times_of(chosen.redis)
    except TimesUnknown as unknown:
        _complain(f"WARNING: {unknown}; times such as RING_TIMEOUT_S are those of this shell.")
        return chosen
    differing = [name for name, seconds in times.items() if seconds != chosen.times.get(name, seconds)]
    if differing:
        _complain(f"WARNING: this shell sets {', '.join(differing)} differently; the times of the processes are used.")
    return as_kept(chosen, times)


class NothingRuns(CannotRun):
    """There is no installation to ask."""


def _demo_home(chosen: Settings) -> Path:
    return chosen.duecall_home / "demo"


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
        _say("stopping; press Ctrl-C again to stop at once")


def _pause() -> None:
    """A tenth of a second, or less when a signal arrives."""
    _never.wait(0.1)


def _say(line: str) -> None:
    _console.print(Text.assemble((f"{machine_now():%H:%M:%S}", "dim"), f" {line}"), highlight=False, soft_wrap=True)


def _say_plainly(line: str) -> None:
    _console.print(line, highlight=False, markup=False, soft_wrap=True)


def _fail(line: str) -> NoReturn:
    """It could not be done."""
    _complain(line)
    raise typer.Exit(1)


def _refuse(line: str) -> NoReturn:
    """What was typed is wrong."""
    _complain(line)
    raise typer.Exit(_WRONG)


def _complain(line: str) -> None:
    _console.print(line, style="red", highlight=False, markup=False, soft_wrap=True)


def _print_running(running: Running, chosen: Settings, mail: str) -> None:
    user = chosen.flower_basic_auth.get_secret_value()
    for name, value in (
        ("API", running.apiUrl),
        ("its documentation", f"{running.apiUrl}/docs"),
        ("Flower", f"{running.flowerUrl}   ({user.partition(':')[0]} / {user.partition(':')[2]})"),
        ("carrier", running.simulatorUrl or "Twilio"),
        ("mail", mail),
        ("key", running.companyKey),
        ("agent", running.agentId),
    ):
        # Never in a table: a key that was cut off cannot be pasted.
        _console.print(f"  {name:18} {value}", highlight=False, markup=False, soft_wrap=True)
    _console.print("[dim]Ctrl-C stops everything.[/dim]")


if __name__ == "__main__":
    main()
