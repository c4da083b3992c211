"""One company on a clock that the test moves, and a scripted carrier, over the real stores."""

from dataclasses import dataclass, field

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.domain.company import RetryPolicy
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.settle import Settle
from tests.conftest import NOON, Seeded, TestClock, seed
from tests.support.builders import ALWAYS, RecordingHints, a_tenant
from tests.support.servers import ACCOUNT_SID
from tests.verification.carrier.scripted import ACCOUNT, Callback, ScriptedCarrier, carrier_queries


@dataclass
class ScriptedWorld:
    database: Database
    max_retries: int = 1
    now: TestClock = field(default_factory=lambda: TestClock(NOON))
    hints: RecordingHints = field(default_factory=RecordingHints)
    carrier: ScriptedCarrier = field(default_factory=ScriptedCarrier)

    def __post_init__(self) -> None:
        hasher, company = Hasher("a pepper for tests"), self.a_company(self.max_retries)
        self.tenant = a_tenant(self.database, company, hasher, self.now, account_sid=ACCOUNT_SID)
        self.hear = Hear(self.tenant.context, self.hints, TwilioCallbacks(ACCOUNT))
        self.settle = Settle(self.tenant.context, carrier_queries(self.carrier, self.now), self.tenant.account_id)

    def a_company(self, max_retries: int) -> Seeded:
        retries = RetryPolicy(max_retries=max_retries)
        return seed(self.database, self.now(), intervals=ALWAYS, retry_policy=retries)

    def deliver(self, callback: Callback) -> None:
        received = self.hear.genuine(callback.token, callback.path, callback.form, callback.signature)
        self.hear.store([received])
