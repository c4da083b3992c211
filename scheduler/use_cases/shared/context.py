"""The resources that the use cases of one process share."""

from dataclasses import dataclass
from functools import cached_property

from scheduler.clock import Now
from scheduler.hashing import Hasher
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.database import Database
from scheduler.use_cases.shared.effects import Effects


@dataclass(frozen=True, kw_only=True)
class Context:
    database: Database
    hasher: Hasher
    policy: Policy
    now: Now

    @cached_property
    def effects(self) -> Effects:
        return Effects(self.database, self.hasher, self.policy, self.now)
