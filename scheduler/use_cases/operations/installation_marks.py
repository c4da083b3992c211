"""Settings that belong to the database: another pepper, carrier account or address is noticed at each start."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from scheduler.clock import Now
from scheduler.domain.actor import SYSTEM
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.refusals import InvalidRequest
from scheduler.persistence.database import Database
from scheduler.persistence.errors import ClockWrong, WrongDatabase
from scheduler.rules import pause_reasons

PEPPER = "KEY_PEPPER"


class InstallationMarks:
    """`own` are the marks of this process's settings. A setting that this process does not have is not compared."""

    def __init__(self, database: Database, own: Mapping[str, bytes], now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._own = own
        self._now = now
        self._actor = actor

    def check(self) -> None:
        """Raise WrongDatabase, which names the settings, if this database has those of another installation."""
        self._missing()

    def record(self) -> None:
        """Check, and write the marks that the database does not have yet. For workers. Raises as `check`."""
        missing = self._missing()
        if missing:
            # A worker with a wrong clock starts and waits. Another one, or its next start, writes them.
            with suppress(ClockWrong), self._database.transaction() as stores:
                stores.marks.add(missing, stores.instant(self._now))
            self._missing()

    def accept(self, reason: str | None = None) -> Sequence[str]:
        """Replace the marks of other settings by those of this process, and return their names.

        Raises InvalidRequest while a line is in use, for another pepper: its hash names the lines of all numbers, so
        the same person could be called twice. Raises InvalidPauseReason, ClockWrong, DatabaseAway.
        """
        reason = pause_reasons.optional(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            changed = _changed(stores.marks.all(), self._own)
            if not changed:
                return ()
            if PEPPER in changed and stores.marks.lines_in_use(now):
                raise InvalidRequest(_IN_USE)  # guard: pepper_of_lines
            stores.marks.replace(self._own, now)
            act = Act(
                verb=Verb.ACCEPT_SETTINGS, target_kind=TargetKind.ALL, reason=reason, after={"fields": list(changed)}
            )
            stores.audit.add(self._actor, [act], now)
        return changed

    def _missing(self) -> Mapping[str, bytes]:
        with self._database.statement() as stores:
            stored = stores.marks.all()
        changed = _changed(stored, self._own)
        if changed:
            raise WrongDatabase(  # guard: other_installation
                f"{' and '.join(changed)} differ from those of the installation that uses this database. Set the ones"
                " that it was created with, or another DATABASE_URL. After a change that is meant:"
                " duecall db accept --reason '...'"
            )
        return {setting: mark for setting, mark in self._own.items() if setting not in stored}


def _changed(stored: Mapping[str, bytes], own: Mapping[str, bytes]) -> Sequence[str]:
    """Return the settings that differ. With another pepper all marks differ, so only it is named."""
    changed = [setting for setting, mark in own.items() if stored.get(setting, mark) != mark]
    return [PEPPER] if PEPPER in changed else changed


_IN_USE = (
    "Another KEY_PEPPER makes every number a new one. While a call is pending or in progress, or a line waits for its"
    " gap, the same person could be called twice. Pause everything, cancel what is pending, and wait for LINE_GAP_S."
)
