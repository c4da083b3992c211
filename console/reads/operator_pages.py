"""Reads for the pages of the operators' console: the state of the whole installation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from scheduler.lifecycle.backoffs import Backoff
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.alarms import Alarms
from scheduler.use_cases.operations.backlog import Backlog, Commands, OpenErasures
from scheduler.use_cases.operations.carrier_waits import CarrierWaits
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.status import HOLDING, Carrier, Waiting


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The counts of `duecall status` over all companies."""

    carriers: Sequence[Carrier]
    companies: Sequence[Waiting]
    commands: Mapping[UUID, Commands]
    callbacks_quarantined: int
    backoffs: Sequence[Backoff]
    erasures: OpenErasures
    alarms: Mapping[str, int]
    """Open alarms by kind."""

    @property
    def late(self) -> timedelta | None:
        """Longest delay of a call that is ours to place. None without such a call."""
        return max((each.late for each in self.companies if each.late is not None), default=None)

    @property
    def companies_late(self) -> int:
        return sum(each.late is not None for each in self.companies)

    @property
    def waiting(self) -> int:
        return sum(each.waiting for each in self.companies)

    @property
    def waiting_is_estimate(self) -> bool:
        """True if more attempts wait than were counted."""
        return any(each.waiting_is_estimate for each in self.companies)

    @property
    def due(self) -> int:
        return sum(each.due for each in self.companies)

    @property
    def held(self) -> Mapping[str, int]:
        """Due attempts by the first rule that holds them, in the order of the checks."""
        found = Counter[str]()
        for each in self.companies:
            found.update({rule: held.count for rule, held in each.held.items()})
        return {rule: found[rule] for rule in HOLDING if rule in found}

    @property
    def oldest_held(self) -> timedelta:
        """Time since the first of the held attempts was due."""
        return max((held.oldest for each in self.companies for held in each.held.values()), default=timedelta())

    @property
    def in_progress(self) -> int:
        return sum(each.in_progress for each in self.companies)

    @property
    def asked_for(self) -> int:
        return sum(each.asked_for for each in self.companies)

    @property
    def undecided(self) -> int:
        return sum(each.undecided for each in self.companies)

    @property
    def unknown(self) -> int:
        return sum(each.unknown for each in self.companies)

    @property
    def cause_lost(self) -> int:
        return sum(each.cause_lost for each in self.companies)

    @property
    def paused_companies(self) -> int:
        return sum(each.paused for each in self.companies)

    @property
    def commands_waiting(self) -> int:
        return sum(each.waiting for each in self.commands.values())

    @property
    def oldest_command(self) -> timedelta | None:
        return max((each.oldest for each in self.commands.values() if each.oldest is not None), default=None)

    @property
    def quarantined(self) -> int:
        """Commands and callbacks in quarantine."""
        return self.callbacks_quarantined + sum(each.quarantined for each in self.commands.values())

    @property
    def pause_reason(self) -> str | None:
        """The reason of the pause of all calls, or None."""
        return next((each.pause_reason for each in self.carriers if each.pause_reason is not None), None)


class OperatorPages:
    def __init__(self, context: Context) -> None:
        self._explain = Explain(context)
        self._backlog = Backlog(context.database, context.now)
        self._carrier_waits = CarrierWaits(context.database, context.now)
        self._alarms = Alarms(context.database, context.now)

    def overview(self) -> Overview:
        """Return the counts over all companies. Raises DatabaseAway."""
        return Overview(
            carriers=self._explain.carriers(),
            companies=self._explain.waiting(),
            commands=self._backlog.commands(),
            callbacks_quarantined=self._backlog.callbacks_quarantined(),
            backoffs=self._carrier_waits.all(),
            erasures=self._backlog.erasures(),
            alarms=self._alarms.count_open(),
        )
