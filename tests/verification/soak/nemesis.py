"""The nemesis injects one fault after the other while calls are placed, in an order that the seed decides.

All faults come from outside: signals to processes, commands to Redis, orders to the simulated carrier, and a proxy
between one dialler and its database. The supervisor restarts processes that ended. Frozen ones are continued.
"""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import redis

from standalone.fork_server import bound_to_parent
from tests.support.compose import WORKERS
from tests.support.servers import Wire, wired
from tests.verification.soak.soak_setup import SoakSetup

PROCESSES = ("api", "clock", "wired dial", *WORKERS)
_DIALLERS = ("dial", "wired dial")
_GARBAGE = (b"this is not json", b"{}", b'{"body": "bm8=", "headers": {"task": "no.such.task"}}', b"\x80\x04]q\x00.")
_FAKE_TIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_STEPPED = (*WORKERS, "clock")
"""Not the API: no client would send requests to a second one."""
_STEPS_S = ("+3600", "-3600", "+10", "-10")
_A_WRONG_CLOCK_RUNS_FOR_S = 20.0
_NOTICED_WITHIN_S = 120.0
"""For a dialler with a wrong clock on a machine on which a start takes long."""
_STARTS_WITHIN_S = 5.0
_SLOWEST_RETURN_S = 40.0
WRONG_CLOCK = "wrong-clock"
"""The log of the dialler with a wrong clock, which is ended by SIGTERM."""
NOTICED = "it noticed, and dialled nothing"
UNNOTICED = "IT DID NOT NOTICE"
_NO_FAKE_TIME = "no wrong clock: libfaketime is not installed"
LACKING = "not tried: this machine lacks Debian's libfaketime (`make debian` as root); CI has it"


@dataclass
class Nemesis:
    setup: SoakSetup
    dice: random.Random
    wire: Wire
    say: Callable[[str], None]
    wrong_clock: str = "not tried"
    """The result of the dialler with a wrong clock."""
    _deck: list[Callable[[], str]] = field(default_factory=list)
    _hurts_diallers: bool = False
    """Set by each fault that may cause an unknown outcome. A requested restart must never cause one."""

    def strike(self) -> None:
        """Inject one fault and wait until it is over."""
        if not self._deck:
            self._deck = list(self._faults())
            self.dice.shuffle(self._deck)
        began_at, self._hurts_diallers = self.setup.whole.now(), False
        what = self._deck.pop()()
        self.setup.note(what, began_at, hurts_diallers=self._hurts_diallers)
        self.say(f"{began_at:%H:%M:%S} {what}")

    def _faults(self) -> Iterator[Callable[[], str]]:
        for name in PROCESSES:
            yield partial(self.kill, name)
            yield partial(self.freeze, name, self.dice.uniform(0.5, 10))
        for name in _DIALLERS:
            yield partial(self.kill, name)
        for kind in ("503", "429", "drop", "hang", "refuse", "401"):
            yield partial(self.carrier_down, kind, self.dice.uniform(1, 5))
        yield partial(self.carrier_down, "uplink", self.dice.uniform(5, 15))
        for answers_probes in (False, True):
            yield partial(self.voice_server_down, self.dice.uniform(5, 15), answers_probes=answers_probes)
        for fault in (self.kill_redis, self.flush_redis, self.freeze_redis, self.garbage, self.flush_redis):
            yield fault
        for fault in (self.kill_postgres, self.freeze_postgres, self.cut_commits, self.cut_commits):
            yield fault
        yield self.rolling_restart
        yield self.wrong_clock_for_a_while
        for name in _STEPPED:
            yield partial(self.clock_that_is_set, name, self.dice.choice(_STEPS_S), self.dice.uniform(5, 15))

    # ---- processes

    def _pid(self, name: str) -> int | None:
        return self.setup.whole.system.supervisor.pid(name)

    def kill(self, name: str) -> str:
        if (pid := self._pid(name)) is None:
            return f"no kill -9: {name} is down"
        self._hurts_diallers = name in _DIALLERS
        with suppress(ProcessLookupError):  # a dialler that was frozen ends by itself
            os.kill(pid, signal.SIGKILL)
        return f"kill -9 {name}"

    def freeze(self, name: str, seconds: float) -> str:
        if (pid := self._pid(name)) is None:
            return f"no freeze: {name} is down"
        self._hurts_diallers = name in _DIALLERS
        with frozen([pid]):
            self.setup.pause(seconds)
        return f"freeze {name} {seconds:.1f} s"

    def rolling_restart(self) -> str:
        """Restart every process by SIGTERM, one by one, as a deploy does."""
        for name in PROCESSES:
            pid = self._pid(name)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                self.setup.until(partial(self._is_back, name, pid), seconds=_SLOWEST_RETURN_S)
        return "rolling restart"

    def _is_back(self, name: str, before: int) -> bool:
        return self._pid(name) not in {before, None}

    def wrong_clock_for_a_while(self) -> str:
        """Run one more dialler whose clock is two hours ahead: it must neither dial nor block the others."""
        library = _fake_time()
        if library is None:
            self.wrong_clock = LACKING
            return _NO_FAKE_TIME
        log = self._log_of(WRONG_CLOCK)
        with self._beside("dial", log, LD_PRELOAD=str(library), FAKETIME="+2h"):
            self.setup.pause(_A_WRONG_CLOCK_RUNS_FOR_S)
            noticed = self.setup.until(
                lambda: "CLOCK_SKEW" in log.read_text(encoding="utf-8"), seconds=_NOTICED_WITHIN_S
            )
        self.wrong_clock = NOTICED if noticed else UNNOTICED
        return "a dialler with a clock two hours ahead"

    def clock_that_is_set(self, name: str, span: str, seconds: float) -> str:
        """Run one more process of this kind, whose clock is changed while it runs and then corrected."""
        library = _fake_time()
        if library is None:
            return _NO_FAKE_TIME
        log = self._log_of(f"set-clock-{name}")
        offset = log.with_suffix(".offset")
        _write_at_once(offset, "+0")
        variables = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
        with self._beside(name, log, **variables):
            self.setup.pause(_STARTS_WITHIN_S)
            _write_at_once(offset, span)
            self.setup.pause(seconds)
            _write_at_once(offset, "+0")
            self.setup.pause(_STARTS_WITHIN_S)
        return f"a clock of one more {name} set {span} s for {seconds:.1f} s"

    def _log_of(self, name: str) -> Path:
        return self.setup.whole.system.supervisor.program("dial").log.with_name(f"{name}.log")

    @contextmanager
    def _beside(self, name: str, log: Path, **variables: str) -> Iterator[None]:
        """Run one more process of this kind, with these variables. It gets SIGTERM at the end."""
        program = self.setup.whole.system.supervisor.program(name)
        with log.open("ab") as said:
            process = subprocess.Popen(
                bound_to_parent(signal.SIGTERM, *(word.replace(f"{name}@", "wrong@") for word in program.argv)),
                env={**program.environment, "FAKETIME_DONT_FAKE_MONOTONIC": "1", **variables},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_SLOWEST_RETURN_S)
            except subprocess.TimeoutExpired:
                process.kill()

    # ---- Redis

    @property
    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.setup.whole.running.redisUrl, socket_timeout=2, socket_connect_timeout=2)

    def kill_redis(self) -> str:
        if (pid := self.setup.valkey.pid) is not None:
            os.kill(pid, signal.SIGKILL)
            _wait_for(self.dice.uniform(0, 3))
        return "kill -9 Redis"

    def flush_redis(self) -> str:
        with suppress(redis.RedisError):
            self._redis.flushall()
        return "FLUSHALL"

    def freeze_redis(self) -> str:
        seconds = self.dice.uniform(1, 8)
        if (pid := self.setup.valkey.pid) is not None:
            with frozen([pid]):
                self.setup.pause(seconds)
        return f"freeze Redis {seconds:.1f} s"

    def garbage(self) -> str:
        """Push malformed messages, and messages of unknown tasks, to every queue that has a worker."""
        with suppress(redis.RedisError):
            for queue in WORKERS:
                self._redis.lpush(f"duecall:{queue}", self.dice.choice(_GARBAGE))
        return f"garbage in every queue of {', '.join(WORKERS)}"

    # ---- PostgreSQL

    def kill_postgres(self) -> str:
        self._hurts_diallers = True
        if (pid := self.setup.postgres.pid) is not None:
            os.kill(pid, signal.SIGKILL)
        return "kill -9 PostgreSQL"

    def freeze_postgres(self) -> str:
        self._hurts_diallers = True
        seconds = self.dice.uniform(0.5, 3)
        if (pid := self.setup.postgres.pid) is not None:
            with frozen([pid, *children_of(pid)]):
                self.setup.pause(seconds)
        return f"freeze PostgreSQL {seconds:.1f} s"

    def cut_commits(self) -> str:
        """Cut commits of the wired dialler, before or after PostgreSQL has received them."""
        self._hurts_diallers = True
        before = self.wire.died
        self.wire.cut_before = lambda sent: b"COMMIT" in sent and self.dice.random() < 0.1
        self.wire.cut_after = lambda sent: b"COMMIT" in sent and self.dice.random() < 0.2
        self.setup.pause(5)
        self.wire.cut_before = self.wire.cut_after = lambda _: False
        return f"cut {self.wire.died - before} commits of the wired dialler"

    # ---- the carrier

    def carrier_down(self, kind: str, seconds: float) -> str:
        self._hurts_diallers = kind not in {"429", "401"}  # with these the carrier accepts nothing
        self.setup.at_carrier("POST", "/outage", {"kind": kind, "for_s": seconds})
        self.setup.pause(seconds)
        return f"carrier down: {kind}, {seconds:.1f} s"

    # ---- the voice server

    def voice_server_down(self, seconds: float, *, answers_probes: bool) -> str:
        """Let answered calls get no instructions. A server that answers probes makes each trial call fail."""
        self.setup.at_carrier("POST", "/voice/outage", {"answers_probes": answers_probes})
        self.setup.pause(seconds)
        self.setup.at_carrier("DELETE", "/voice/outage")
        return f"voice server {'fails and answers probes' if answers_probes else 'down'}, {seconds:.1f} s"


def _fake_time() -> Path | None:
    return next(iter(sorted(Path("/").glob(_FAKE_TIME[1:]))), None)


def _write_at_once(path: Path, text: str) -> None:
    """Replace a file atomically: a concurrent reader finds the old text or the new one, never a part."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="ascii")
    new.replace(path)


def _wait_for(seconds: float) -> None:
    """Wait without supervising: processes that ended are not restarted before the end of the wait."""
    subprocess.run(["sleep", f"{seconds}"], check=True)


def children_of(pid: int) -> Sequence[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def a_nemesis(setup: SoakSetup, seed: int, say: Callable[[str], None]) -> Iterator[Nemesis]:
    """Yield the nemesis, with a second dialler whose database connection can be cut."""
    supervisor = setup.whole.system.supervisor
    dial = supervisor.program("dial")
    url = dial.environment.get("DATABASE_WORKER_URL") or dial.environment["DATABASE_URL"]
    with wired(url) as (wire, over_the_wire):
        variables = {"DATABASE_URL": over_the_wire, "DATABASE_WORKER_URL": over_the_wire}
        supervisor.start(
            replace(
                dial,
                name="wired dial",
                argv=[word.replace("dial@", "wired@") for word in dial.argv],
                environment={**dial.environment, **variables},
                log=dial.log.with_name("wired-dial.log"),
            )
        )
        yield Nemesis(setup=setup, dice=random.Random(seed), wire=wire, say=say)
