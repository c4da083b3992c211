"""The whole system on one machine: servers, schema, first company, every process, and run.json."""

import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Self

import requests

from scheduler import start_checks
from scheduler.assembly import context_of
from scheduler.clock import monotonic
from scheduler.domain.refusals import PhoneNumberInvalid
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.settings import Settings, WrongSettings, environment
from scheduler.use_cases.operations.installation import Installation, Seeded
from scheduler.use_cases.resources.keys import Keys
from standalone.fork_server import ForkServer, needed_for_imports
from standalone.private_server import ReservedPorts, why_not_free
from standalone.run_file import (
    CHECK_EVERY_S,
    LOCK_FILE,
    OFFSET_FILE,
    READY_WITHIN_S,
    RUN_FILE,
    SETTINGS_FILE,
    AlreadyRunning,
    HomeUnusable,
    NotReady,
    PortTaken,
    Running,
    Stopped,
    kept,
    try_lock,
    unusable,
    write_private_json,
)
from standalone.supervisor import Program, Supervisor, commands, simulator_command
from standalone.valkey_and_postgres import EmbeddedPostgres, EmbeddedValkey

SIMULATOR_CALLER_ID = "+421221020001"
_SIMULATOR_ACCOUNT = "AC" + "5" * 32
_SIMULATOR_CPS = 20
_USUAL_PORTS = {"api": 8000, "console": 8001, "flower": 5555}
_MAX_EARLY_ENDS = 3
"""Give up when a process ends this often right after its start, before the system is ready."""

_LOCK_TRIES = 10
_OTHER_ROLES = ("DATABASE_WORKER_URL", "DATABASE_OPERATOR_URL", "DATABASE_OWNER_URL", "DATABASE_LISTEN_URL")
_never = threading.Event()


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a system. `variables` are set for every process, in addition to the environment."""

    home: Path
    ephemeral: bool = False
    port: int | None = None
    clock_offset_s: float = 0.0
    variables: Mapping[str, str] = field(default_factory=dict)


class System:
    """A context manager that runs the whole system. On exit, everything has ended.

    Use it on the main thread. `report` receives a line per step. If `stopped` returns True before the system is ready,
    entering raises Stopped.
    """

    postgres_class: ClassVar = EmbeddedPostgres

    def __init__(
        self,
        options: Options,
        settings: Settings,
        report: Callable[[str], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stopped = stopped
        self._options = options
        self._settings = settings
        self._report = report
        self._home = options.home.absolute()
        self._lock: IO[str] | None = None
        self._servers: list[EmbeddedPostgres | EmbeddedValkey] = []
        self._ports = ReservedPorts()
        self._instance = secrets.token_hex(8)
        self.supervisor = Supervisor(report)
        self.postgres: EmbeddedPostgres | None = None
        self.valkey: EmbeddedValkey | None = None
        self.running: Running | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except OSError as error:
            self.stop()
            raise HomeUnusable(unusable(self._home, error)) from error
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def restart_ended(self) -> None:
        """Restart servers and processes that have ended."""
        for server in self._servers:
            if not server.is_running():
                self._report(f"the private {server.product} ended and is restarted")
                server.restart()
                self._report(f"the private {server.product} accepts connections again")
        self.supervisor.restart_ended()

    def stop(self) -> None:
        """End every process, then the servers, and delete run.json. Does nothing if another system owns the folder."""
        if self._lock is None:
            return
        self._forget_run()
        self.supervisor.stop()
        for server in reversed(self._servers):
            server.stop()
        self._servers.clear()
        self._ports.release()
        if self._options.ephemeral:
            shutil.rmtree(self._data, ignore_errors=True)
        self._lock.truncate(0)  # the process id is free for another process
        self._lock.close()
        self._lock = None

    def fork_server(self, environment: Mapping[str, str], log: Path) -> ForkServer:
        """Start the fork server. The supervisor stops it after its processes."""
        return ForkServer(environment, log)

    def log_of(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"

    @property
    def mail_goes_to(self) -> str:
        server = self._settings.smtp_server
        return str(self._home / "mail") if server is None else f"{server.host}:{server.port}"

    # ---- starting

    @property
    def _run_file(self) -> Path:
        return self._home / RUN_FILE

    @property
    def _offset_file(self) -> Path:
        """The file with this run's clock offset, for commands that use its database."""
        return self._home / OFFSET_FILE

    @property
    def _settings_file(self) -> Path:
        """The file with the settings of this run's processes, including the secret pepper."""
        return self._home / SETTINGS_FILE

    @property
    def _data(self) -> Path:
        return self._home / ("ephemeral" if self._options.ephemeral else "data")

    def _start(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self._forget_run()  # files of a killed system
        port = self._options.port
        if port is not None and (reason := why_not_free(port)) is not None:
            raise PortTaken(
                f"Port {port} on 127.0.0.1 cannot be used for the API: {reason}. Stop the program that uses it, choose"
                " another port with --port, or leave out --port for a free one."
            )
        if self._options.ephemeral:
            for folder in (self._data, self._home / "logs"):
                shutil.rmtree(folder, ignore_errors=True)
        if ForkServer.is_possible():
            needed = needed_for_imports(environment())
            self.supervisor.fork_server = self.fork_server(needed, self.log_of("fork-server"))
        database_url, redis_url = self._database_url(), self._redis_url()
        self._report("upgrading the database to this version's schema")
        schema.upgrade(self._owner_url(database_url))
        roles = {} if self.postgres is None else _roles_of(database_url)
        ports = self._ports.reserve_each(_USUAL_PORTS, {} if port is None else {"api": port})
        simulator_port = None if self._settings.twilio_account_sid else self._ports.reserve()
        variables = self._variables(database_url, redis_url, ports, simulator_port) | roles
        chosen = self._settings.model_copy(update={"duecall_clock_offset_s": self._options.clock_offset_s})
        if self.postgres is None:
            database_url = self._settings.database("worker")  # also used by operators' commands
        try:
            seeded = _seed(chosen, database_url, variables["DEFAULT_CALLER_ID"])
        except PhoneNumberInvalid as invalid:
            raise WrongSettings(f"DEFAULT_CALLER_ID cannot be used: {invalid.message}") from None
        self._start_processes(variables, ports, simulator_port)
        self.running = Running(
            apiUrl=f"http://127.0.0.1:{ports['api']}",
            simulatorUrl=None if simulator_port is None else f"http://127.0.0.1:{simulator_port}",
            consoleUrl=variables["CONSOLE_URL"],
            flowerUrl=f"http://127.0.0.1:{ports['flower']}",
            databaseUrl=database_url,
            redisUrl=redis_url,
            atsKey=seeded.ats_key,
            companyKey=seeded.company_key,
            companyId=str(seeded.company_id),
            agentId=str(seeded.agent_id),
            phoneNumberId=str(seeded.phone_number_id),
        )
        self._wait_until_ready(self.running)
        self._write_run_file(self.running, kept(self._settings, variables))

    def _take_lock(self) -> None:
        """Lock the folder before anything in it changes, so that one system runs per folder."""
        lock = (self._home / LOCK_FILE).open("a+", encoding="ascii")
        for _ in range(_LOCK_TRIES):
            if try_lock(lock, fcntl.LOCK_EX):
                break
            _never.wait(CHECK_EVERY_S)  # `is_running` in another process holds the lock only for a moment
        else:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise AlreadyRunning(
                f"Duecall already runs in {self._home} (process {holder}). Stop it with Ctrl-C, or set DUECALL_HOME to"
                " another folder."
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _database_url(self) -> str:
        if self._settings.database_url is not None:
            return self._settings.database_url.get_secret_value()
        self._report("starting a private PostgreSQL")
        self.postgres = self.postgres_class(self._data)
        self._servers.append(self.postgres)
        return self.postgres.start()

    def _redis_url(self) -> str:
        if self._settings.redis_url is not None:
            url = self._settings.redis
            if (reason := start_checks.why_away(url)) is not None:
                self._report(
                    f"WARNING: Redis (REDIS_URL) does not answer: {reason}. Commands are accepted, but not applied, and"
                    " no calls are placed until it answers. `duecall status` shows how many wait."
                )
            elif (policy := start_checks.evicts_by(url)) is not None:
                self._report(
                    f"WARNING: Redis (REDIS_URL) has maxmemory-policy {policy}: when its memory is full, it drops"
                    " messages, and each delays a call by seconds. Set it to noeviction."
                )
            return url
        self._report("starting a private Valkey")
        self.valkey = EmbeddedValkey(self._data)
        self._servers.append(self.valkey)
        return self.valkey.start()

    def _owner_url(self, database_url: str) -> str:
        owner = self._settings.database_owner_url
        return owner.get_secret_value() if owner is not None and self.postgres is None else database_url

    def _variables(
        self, database_url: str, redis_url: str, ports: Mapping[str, int], simulator_port: int | None
    ) -> dict[str, str]:
        """Collect the variables that are added to the environment of every process."""
        smtp, api_port = self._settings.smtp_url, ports["api"]
        variables = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "DUECALL_HOME": str(self._home),
            "DUECALL_CLOCK_OFFSET_S": repr(self._options.clock_offset_s),
            "DUECALL_INSTANCE": self._instance,
            "CONSOLE_URL": f"http://127.0.0.1:{ports['console']}",
            "SMTP_URL": "" if smtp is None else smtp.get_secret_value(),
            "APP_URL": self._settings.app_url or f"http://127.0.0.1:{api_port}",
            "DEFAULT_CALLER_ID": self._settings.default_caller_id or SIMULATOR_CALLER_ID,
        }
        if self.postgres is not None:
            # In the environment, the other roles name another, real database.
            variables |= dict.fromkeys(_OTHER_ROLES, "")
        if self.valkey is not None:
            variables["FLOWER_REDIS_URL"] = self.valkey.flower_url
        if simulator_port is not None:
            api_url = f"http://127.0.0.1:{api_port}"
            variables |= {
                "PUBLIC_URL": api_url,
                "TWILIO_API_URL": f"http://127.0.0.1:{simulator_port}",
                "TWILIO_ACCOUNT_SID": _SIMULATOR_ACCOUNT,
                "TWILIO_AUTH_TOKEN": self._simulator_token(),
                "TWILIO_VOICE_URL": self._settings.twilio_voice_url or _simulated_voice_url(simulator_port),
                "TWILIO_CPS": str(_SIMULATOR_CPS),
            }
        return variables | dict(self._options.variables)

    def _simulator_token(self) -> str:
        """Choose the token that signs the simulator's requests: the known one, if a voice server checks it."""
        known = self._settings.twilio_auth_token.get_secret_value() if self._settings.twilio_voice_url else ""
        return known or secrets.token_hex(16)

    def _start_processes(
        self, variables: Mapping[str, str], ports: Mapping[str, int], simulator_port: int | None
    ) -> None:
        self._report("starting the processes")
        argvs = commands(api_port=ports["api"], console_port=ports["console"], flower_port=ports["flower"])
        if simulator_port is not None:
            journal = self._data / "simulator.jsonl"
            is_requested = variables["TWILIO_VOICE_URL"] != _simulated_voice_url(simulator_port)
            command = simulator_command(port=simulator_port, journal=journal, requests_instructions=is_requested)
            argvs = {"simulator": command} | argvs
        for name, argv in argvs.items():
            self.supervisor.start(
                Program(name=name, argv=argv, environment=environment(**variables), log=self.log_of(name))
            )

    def _wait_until_ready(self, running: Running) -> None:
        """Wait until our API, console, Flower and the simulator answer. Raises NotReady, Stopped."""
        deadline = monotonic() + READY_WITHIN_S
        readyz = f"{running.apiUrl}/readyz"
        healthz = f"{running.consoleUrl}/healthz"
        not_ready = {readyz, healthz, f"{running.flowerUrl}/healthcheck"}
        if running.simulatorUrl is not None:
            not_ready.add(f"{running.simulatorUrl}/healthz")

        def answers(url: str) -> bool:
            response = _response_of(url)
            return response is not None and (url not in {readyz, healthz} or _instance_in(response) == self._instance)

        def all_ready() -> bool:
            if self._stopped():
                raise Stopped
            not_ready.difference_update([url for url in not_ready if answers(url)])
            if (failure := self.supervisor.gave_up(_MAX_EARLY_ENDS)) is not None:
                raise NotReady(failure)
            if monotonic() > deadline:
                raise NotReady(
                    f"Not ready after {READY_WITHIN_S:.0f} s: {', '.join(sorted(not_ready))}."
                    f" See the logs in {self._home / 'logs'}."
                )
            return not not_ready

        self.supervisor.run(all_ready)

    def _write_run_file(self, running: Running, used: Mapping[str, str]) -> None:
        # The run file is written last: commands that find it also read the other two.
        self._offset_file.write_text(repr(self._options.clock_offset_s), encoding="ascii")
        write_private_json(self._settings_file, used)
        write_private_json(self._run_file, asdict(running))

    def _forget_run(self) -> None:
        for file in (self._run_file, self._offset_file, self._settings_file):
            file.unlink(missing_ok=True)


def _simulated_voice_url(simulator_port: int) -> str:
    return f"http://127.0.0.1:{simulator_port}/voice"


def _roles_of(url: str) -> dict[str, str]:
    """Find the database logins: the API's with row-level security, the workers' without, and the console's."""
    logins = schema.make_logins(url)
    return {
        "DATABASE_URL": logins.api,
        "DATABASE_WORKER_URL": logins.worker,
        "DATABASE_OPERATOR_URL": logins.operator or "",
        "DATABASE_LISTEN_URL": logins.worker,
        "DATABASE_OWNER_URL": "",  # no running process may change tables
    }


def _seed(settings: Settings, database_url: str, caller_id: str) -> Seeded:
    database = Database(database_url, pool_size=1, bound=False)
    context = context_of(settings, database)
    try:
        keys = Keys(database, context.hasher, context.now)
        return Installation(database, keys, context.now).seed(caller_id)
    finally:
        database.close()


def _response_of(url: str) -> requests.Response | None:
    """Ask for a successful response, or None. Bypasses proxies of the environment, which are on other machines."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            response = session.get(url, timeout=1)
        except requests.RequestException:
            return None
    return response if response.ok else None


def _instance_in(response: requests.Response) -> str | None:
    """Read the id of the `duecall up` that answered, or None for another program."""
    try:
        body: Any = response.json()
        instance: str | None = body["data"]["instance"]
    except (ValueError, LookupError, TypeError):
        return None
    return instance
