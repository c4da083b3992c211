"""Opens the database of an installation, with the use cases of operators."""

import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from command_line.app import HOME
from command_line.installation import chosen_settings, installation
from command_line.output import fail, print_error, print_json, print_note, print_rows
from console.sessions import ConsoleSessions
from scheduler import assembly
from scheduler.domain import principal
from scheduler.domain.refusals import NotFound
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.settings import Settings
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.counts import CallerReputation, Counts
from scheduler.use_cases.operations.erase import Certificates
from scheduler.use_cases.operations.evidence import CallEvidence
from scheduler.use_cases.operations.installation import DatabaseSessions
from scheduler.use_cases.operations.pauses import CarrierWaits, Pauses
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.operations.unknown_outcomes import UnknownOutcomes
from scheduler.use_cases.operations.webhooks import EncryptWebhooks, WebhookOperations
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared.alarms import Acts, Alarms
from standalone.run_file import as_kept

Item = TypeVar("Item")
Row = dict[str, Any]


class OperatorSession:
    """Use cases for operators, on one installation."""

    def __init__(self, chosen: Settings, database: Database, actor: str, system: str) -> None:
        """`actor`: this command's user and machine, for the audit. `system`: the installation's name, for messages."""
        context = assembly.context_of(chosen, database)
        now = context.now
        self.database, self.actor, self.now, self.system = database, actor, now, system
        self.console_url = chosen.console_url
        self.acts = Acts(database)
        self.alarms = Alarms(database, now, actor)
        self.keys = Keys(database, context.hasher, now, actor)
        self.explain = Explain(context)
        self.evidence = CallEvidence(context)
        self.counts = Counts(context)
        self.caller_reputation = CallerReputation(context)
        self.quarantine = Quarantine(database, now, actor)
        self.pauses = Pauses(database, now, actor)
        self.carrier_waits = CarrierWaits(database, now, actor)
        self.unknown_outcomes = UnknownOutcomes(database, now, actor)
        self.database_sessions = DatabaseSessions(database, now, actor)
        self.certificates = Certificates(database)
        self.console_sessions = ConsoleSessions(database, context.hasher, now)
        self.encrypt_webhooks = EncryptWebhooks(database, assembly.webhook_encryption(chosen))
        self.webhooks = WebhookOperations(database, now, actor)
        self.marks = assembly.marks_of(chosen, database, actor)

    def report(self, result: str) -> None:
        """Print what was done, and in which installation."""
        print_note(f"{self.system[0].upper()}{self.system[1:]}: {result}")

    def print_list(
        self,
        found: Sequence[Item],
        row: Callable[[Item], Row],
        cells: Callable[[Item], Iterable[object]] | None = None,
        *,
        as_json: bool,
        empty: str,
    ) -> None:
        """Print the values of items by the names of their columns as JSON, or a line for each item.

        `cells` returns what the line of an item shows, by default all its values. Without items, `empty` is reported.
        """
        if as_json:
            print_json([row(each) for each in found])
        elif found:
            print_rows(row(each).values() if cells is None else cells(each) for each in found)
        else:
            self.report(empty)


@contextmanager
def operator_session(*, computes: bool = False, accepts: bool = False) -> Iterator[OperatorSession]:
    """Open the installation's database. `computes`: the result depends on the workers' times, e.g. RING_TIMEOUT_S.

    `accepts`: the settings may be those of another installation, because the command accepts them.
    """
    chosen, system = installation()
    if computes and HOME.get() is None and chosen_settings().database_url is not None:
        chosen = _with_announced_times(chosen)
    database = Database(
        chosen.database("worker"),
        pool_size=1,
        bound=False,
        logs_outages=False,
        history_key=assembly.history_key(chosen),
    )
    try:
        if database.schema_revision() is None:
            fail("The database has no schema yet. Create it with: duecall db upgrade")
        database.check_access()
        session = OperatorSession(chosen, database, this_actor(), system)
        if not accepts:
            session.marks.check()
        yield session
    except NotFound as missing:
        raise NotFound(f"{missing.message} Searched in {system}.", **missing.details) from None
    except DatabaseAway as away:
        raise DatabaseAway(f"{away} ({system})") from away
    finally:
        database.close()


def this_actor() -> str:
    """Name the actor of this command. The user is the operating system's, because a variable could name any other."""
    user_id = os.getuid()
    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError:  # a container may run with an id that has no name
        user = str(user_id)
    return principal.of_cli(user, os.uname().nodename)


def _with_announced_times(chosen: Settings) -> Settings:
    """Complete the settings by the times that live processes announce in Redis, or warn that the shell's are used."""
    from workers.liveness import TimesUnknown, times_of  # with the client of Redis

    try:
        times = None if chosen.redis_url is None else times_of(chosen.redis)
        problem = "REDIS_URL is not set"
    except TimesUnknown as unknown:
        times, problem = None, str(unknown)
    if times is None:
        print_error(f"WARNING: {problem}; times such as RING_TIMEOUT_S are those of this shell.")
        return chosen
    differing = [name for name, seconds in times.items() if seconds != chosen.times.get(name, seconds)]
    if differing:
        print_error(
            f"WARNING: this shell sets {', '.join(differing)} differently; the times of the processes are used."
        )
    return as_kept(chosen, times)
