"""The whole system on one machine: servers, schema, first company, every process, and run.json that names them."""

import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import requests

from scheduler import redis_health
from scheduler.clock import clock, monotonic
from scheduler.domain.refusals import PhoneNumberInvalid
from scheduler.hashing import Hasher
from scheduler.local.errors import AlreadyRunning, HomeUnusable, NotReady, PortTaken, Stopped
from scheduler.local.ports import free_port, is_free, why_not_free
from scheduler.local.postgres import EmbeddedPostgres
from scheduler.local.processes import commands, simulator_command
from scheduler.local.run_file import (
    BETWEEN_LOOKS_S,
    LOCK_FILE,
    OFFSET_FILE,
    READY_WITHIN_S,
    RUN_FILE,
    SETTINGS_FILE,
    Running,
    locked,
    unusable,
    write_private_json,
)
from scheduler.local.supervisor import Program, Supervisor
from scheduler.local.valkey import EmbeddedValkey
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.settings import Settings, WrongSettings, environment, kept
from scheduler.use_cases.operations.installation import Installation, Seeded
from scheduler.use_cases.resources.keys import Keys

SIMULATOR_CALLER_ID = "+421221020001"
_SIMULATOR_ACCOUNT = "AC" + "5" * 32
_SIMULATOR_CPS = 20
_USUAL_PORTS = {"api": 8000, "flower": 5555}
_TRIES = 3
"""A process that ends so often right after its start, before the system is ready, will not stay."""

_LOOKS_FOR_THE_LOCK = 10
_OTHER_ROLES = ("DATABASE_WORKER_URL", "DATABASE_OWNER_URL", "DATABASE_LISTEN_URL")
_never = threading.Event()


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run it. `variables` are set for every process, beside what the environment says."""

    home: Path
    ephemeral: bool = False
    port: int | None = None
    clock_offset_s: float = 0.0
    variables: Mapping[str, str] = field(default_factory=dict)


class System:
    """Use as a context: inside, it runs; afterwards everything has ended, however the inside was left.

    Run everything on the main thread. `say` hears a line a step; when `stopped` becomes true before it is ready,
    entering raises Stopped.
    """

    def __init__(
        self,
        options: Options,
        settings: Settings,
        say: Callable[[str], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stopped = stopped
        self._options = options
        self._settings = settings
        self._say = say
        self._home = options.home.absolute()
        self._lock: IO[str] | None = None
        self._servers: list[EmbeddedPostgres | EmbeddedValkey] = []
        self._instance = secrets.token_hex(8)
        self.supervisor = Supervisor(say)
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

    def look(self) -> None:
        """Look after every process and server once: what has ended is started again."""
        for server in self._servers:
            if not server.is_running():
                self._say(f"{type(server).__name__} ended and is started again")
                server.restart()
        self.supervisor.look()

    def stop(self) -> None:
        """End every process, then the servers, and remove run.json. Touches nothing of another one in this folder."""
        if self._lock is None:
            return
        self._forget_run()
        self.supervisor.stop()
        for server in reversed(self._servers):
            server.stop()
        self._servers.clear()
        if self._options.ephemeral:
            shutil.rmtree(self._data, ignore_errors=True)
        self._lock.close()
        self._lock = None

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
        """How far this run's clock is ahead, for the commands that look into its database."""
        return self._home / OFFSET_FILE

    @property
    def _settings_file(self) -> Path:
        """With which settings this run's processes work, for the same commands. The pepper is among them."""
        return self._home / SETTINGS_FILE

    @property
    def _data(self) -> Path:
        return self._home / ("ephemeral" if self._options.ephemeral else "data")

    def _start(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self._forget_run()  # of one that was killed
        if (port := self._options.port) is not None and (why := why_not_free(port)) is not None:
            raise PortTaken(
                f"port {port} on 127.0.0.1 cannot be the API's: {why}. Stop what listens there, name another one with"
                " --port, or leave --port out: then a free one is found."
            )
        if self._options.ephemeral:
            for of_before in (self._data, self._home / "logs"):
                shutil.rmtree(of_before, ignore_errors=True)
        database_url, redis_url = self._database_url(), self._redis_url()
        self._say("bringing the database to this release's schema")
        schema.upgrade(self._owner_url(database_url))
        roles = {} if self.postgres is None else _roles_of(database_url)
        ports = {name: self._port(name) for name in ("api", "flower")}
        if self._options.port is not None:
            ports["api"] = self._options.port
        simulator_port = None if self._settings.twilio_account_sid else free_port()
        variables = self._variables(database_url, redis_url, ports["api"], simulator_port) | roles
        chosen = self._settings.model_copy(update={"duecall_clock_offset_s": self._options.clock_offset_s})
        if self.postgres is None:
            database_url = self._settings.database("worker")  # what operators' commands ask, and what seeds
        try:
            seeded = _seed(chosen, database_url, variables["DEFAULT_CALLER_ID"])
        except PhoneNumberInvalid as invalid:
            raise WrongSettings(f"DEFAULT_CALLER_ID cannot be used: {invalid.message}") from None
        self._start_processes(variables, ports, simulator_port)
        self.running = Running(
            apiUrl=f"http://127.0.0.1:{ports['api']}",
            simulatorUrl=None if simulator_port is None else f"http://127.0.0.1:{simulator_port}",
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
        """Before anything in the folder is touched: one system a folder."""
        lock = (self._home / LOCK_FILE).open("a+", encoding="ascii")
        for _ in range(_LOOKS_FOR_THE_LOCK):
            if locked(lock, fcntl.LOCK_EX):
                break
            _never.wait(BETWEEN_LOOKS_S)  # somebody who only asks whether it is held lets it go at once
        else:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise AlreadyRunning(
                f"Duecall runs already in {self._home} (process {holder}). Stop that one with Ctrl-C, or give this one"
                " a folder of its own: DUECALL_HOME=/some/folder."
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _database_url(self) -> str:
        if self._settings.database_url is not None:
            return self._settings.database_url.get_secret_value()
        self._say("starting a private PostgreSQL")
        self.postgres = EmbeddedPostgres(self._data)
        self._servers.append(self.postgres)
        return self.postgres.start()

    def _redis_url(self) -> str:
        if self._settings.redis_url is not None:
            url = self._settings.redis_url.get_secret_value()
            if (why := redis_health.why_away(url)) is not None:
                self._say(
                    f"WARNING: Redis (REDIS_URL) does not answer: {why}. Commands are accepted and kept, and nothing is"
                    " applied or dialled until it does; `duecall status` counts what waits"
                )
            elif (policy := redis_health.evicts_by(url)) is not None:
                self._say(
                    f"WARNING: Redis (REDIS_URL) has maxmemory-policy {policy}: when its memory is full it throws"
                    " messages away, and each costs seconds. Set it to noeviction"
                )
            return url
        self._say("starting a private Valkey")
        self.valkey = EmbeddedValkey(self._data)
        self._servers.append(self.valkey)
        return self.valkey.start()

    def _owner_url(self, database_url: str) -> str:
        owner = self._settings.database_owner_url
        return owner.get_secret_value() if owner is not None and self.postgres is None else database_url

    def _port(self, name: str) -> int:
        usual = _USUAL_PORTS[name]
        return usual if is_free(usual) else free_port()

    def _variables(
        self, database_url: str, redis_url: str, api_port: int, simulator_port: int | None
    ) -> dict[str, str]:
        """What every process is told, beside what the environment says already."""
        smtp = self._settings.smtp_url
        variables = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "DUECALL_HOME": str(self._home),
            "DUECALL_CLOCK_OFFSET_S": repr(self._options.clock_offset_s),
            "DUECALL_INSTANCE": self._instance,
            "SMTP_URL": "" if smtp is None else smtp.get_secret_value(),
            "APP_URL": self._settings.app_url or f"http://127.0.0.1:{api_port}",
            "DEFAULT_CALLER_ID": self._settings.default_caller_id or SIMULATOR_CALLER_ID,
        }
        if self.postgres is not None:
            # Whatever the environment names for the other roles is another database, and somebody's real one.
            variables |= dict.fromkeys(_OTHER_ROLES, "")
        if self.valkey is not None:
            variables["FLOWER_REDIS_URL"] = self.valkey.flower_url
        if simulator_port is not None:
            api_url = f"http://127.0.0.1:{api_port}"
            variables |= {
                "PUBLIC_URL": api_url,
                "TWILIO_API_URL": f"http://127.0.0.1:{simulator_port}",
                "TWILIO_ACCOUNT_SID": _SIMULATOR_ACCOUNT,
                "TWILIO_AUTH_TOKEN": secrets.token_hex(16),
                "TWILIO_VOICE_URL": f"{api_url}/voice",
                "TWILIO_CPS": str(_SIMULATOR_CPS),
            }
        return variables | dict(self._options.variables)

    def _start_processes(
        self, variables: Mapping[str, str], ports: Mapping[str, int], simulator_port: int | None
    ) -> None:
        self._say("starting the processes")
        wanted = commands(api_port=ports["api"], flower_port=ports["flower"])
        if simulator_port is not None:
            journal = self._data / "simulator.jsonl"
            wanted = {"simulator": simulator_command(port=simulator_port, journal=journal)} | wanted
        for name, argv in wanted.items():
            self.supervisor.start(
                Program(name=name, argv=argv, environment=environment(**variables), log=self.log_of(name))
            )

    def _wait_until_ready(self, running: Running) -> None:
        """Until the API answers, and it is ours; Flower answers; and the simulator listens."""
        deadline = monotonic() + READY_WITHIN_S
        readyz = f"{running.apiUrl}/readyz"
        waited_for = {readyz, f"{running.flowerUrl}/healthcheck"}
        if running.simulatorUrl is not None:
            waited_for.add(f"{running.simulatorUrl}/healthz")

        def answers(url: str) -> bool:
            answer = _asked(url)
            return answer is not None and (url != readyz or _instance_in(answer) == self._instance)

        def all_ready() -> bool:
            if self._stopped():
                raise Stopped
            waited_for.difference_update([url for url in waited_for if answers(url)])
            if (why := self.supervisor.gave_up(_TRIES)) is not None:
                raise NotReady(why)
            if monotonic() > deadline:
                raise NotReady(
                    f"not ready after {READY_WITHIN_S:.0f} s: {', '.join(sorted(waited_for))};"
                    f" the logs in {self._home / 'logs'} say why"
                )
            return not waited_for

        self.supervisor.run(all_ready)

    def _write_run_file(self, running: Running, used: Mapping[str, str]) -> None:
        # First: whoever finds the run file reads all three.
        self._offset_file.write_text(repr(self._options.clock_offset_s), encoding="ascii")
        write_private_json(self._settings_file, used)
        write_private_json(self._run_file, asdict(running))

    def _forget_run(self) -> None:
        for file in (self._run_file, self._offset_file, self._settings_file):
            file.unlink(missing_ok=True)


def _roles_of(url: str) -> dict[str, str]:
    """Each process as what it is: the API behind the walls between tenants, whoever works for all of them before."""
    logins = schema.make_logins(url)
    return {
        "DATABASE_URL": logins.api,
        "DATABASE_WORKER_URL": logins.worker,
        "DATABASE_LISTEN_URL": logins.worker,
        "DATABASE_OWNER_URL": "",  # nobody who runs all day may change tables
    }


def _seed(settings: Settings, database_url: str, caller_id: str) -> Seeded:
    now = clock(settings.duecall_clock_offset_s)
    database = Database(database_url, pool_size=1, bound=False)
    try:
        keys = Keys(database, Hasher(settings.key_pepper.get_secret_value()), now)
        return Installation(database, keys, now).seed(caller_id)
    finally:
        database.close()


def _asked(url: str) -> requests.Response | None:
    """What is answered, when it is a yes. Asked directly: a proxy that the environment names is not on this machine."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(url, timeout=1)
        except requests.RequestException:
            return None
    return answer if answer.ok else None


def _instance_in(answer: requests.Response) -> str | None:
    """Which `duecall up` has answered; None for whatever else listens there."""
    try:
        told: Any = answer.json()
        instance: str | None = told["data"]["instance"]
    except (ValueError, LookupError, TypeError):
        return None
    return instance
