"""A hostile company under the soak: it must delay or stop no call of the others, which the judge sees.

It is paused with thousands of due calls, of which some cannot be read by this release. A forgotten transaction holds
its rows, while it sends commands about them. At the end the company is deleted, so that the others alone are judged.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import psycopg
import requests

from scheduler.clock import monotonic
from tests.conftest import Seeded
from tests.support.big_tables import add_pending_calls
from tests.verification.soak.soak_setup import SoakSetup

_DUE_CALLS = 5_000
_HELD_S, _FREE_S = 20.0, 5.0
_EVERY_S = 0.2
"""Time between two of its commands: five a second, next to twenty interviews of the others."""
_DELETED_WITHIN_S = 120.0


@dataclass
class Hostile:
    setup: SoakSetup
    company_id: str
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        """Hold its rows as an operator's forgotten transaction does, over and over, whatever happens to PostgreSQL."""
        while not self.over.is_set():
            with suppress(psycopg.Error), psycopg.connect(self.setup.whole.running.databaseUrl) as forgotten:
                forgotten.execute("SET idle_in_transaction_session_timeout = 0")
                for table in ("candidates", "interviews", "attempts"):
                    sql = f"SELECT 1 FROM {table} WHERE company_id = %s FOR UPDATE"
                    forgotten.execute(sql.encode(), [self.company_id])
                self.over.wait(_HELD_S)
                forgotten.rollback()
            self.over.wait(_FREE_S)

    def flood(self) -> None:
        """Send commands about its interviews, which are mostly locked, until the end."""
        rows = self.setup.whole.rows(f"SELECT id FROM attempts WHERE company_id = '{self.company_id}' LIMIT 200")
        dice, began = random.Random(0), monotonic()
        headers = {"Authorization": f"Bearer {self.setup.whole.running.atsKey}", "Prefer": "respond-async"}
        with requests.Session() as session:
            while not self.over.wait(max(0.0, began + self.sent * _EVERY_S - monotonic())):
                attempt = dice.choice(rows)[0]  # the interview has the same id
                path = f"/interviews/{attempt}/call-attempts?companyId={self.company_id}"
                with suppress(requests.RequestException):
                    session.post(f"{self.setup.whole.running.apiUrl}{path}", json={}, headers=headers, timeout=10)
                self.sent += 1

    def is_gone(self) -> bool:
        """Delete the company, also if an earlier answer was lost, and return True once it is erased."""
        url = f"{self.setup.whole.running.apiUrl}/company/{self.company_id}"
        with suppress(requests.RequestException):
            requests.delete(url, headers={"Authorization": f"Bearer {self.setup.whole.running.atsKey}"}, timeout=10)
        erased = f"SELECT 1 FROM erasures WHERE company_id = '{self.company_id}' AND finished_at IS NOT NULL"
        return bool(self.setup.rows(erased))


@contextmanager
def a_hostile_company(setup: SoakSetup) -> Iterator[Hostile]:
    """Let a company be hostile until the end of the block, then delete it."""
    hostile = Hostile(setup=setup, company_id=_created(setup))
    threads = [threading.Thread(target=each, daemon=True) for each in (hostile.hold, hostile.flood)]
    for each in threads:
        each.start()
    try:
        yield hostile
    finally:
        hostile.over.set()
        for each in threads:
            each.join()
        assert setup.until(hostile.is_gone, seconds=_DELETED_WITHIN_S), "the hostile company was not erased"


def _created(setup: SoakSetup) -> str:
    whole = setup.whole
    headers = {"Authorization": f"Bearer {whole.running.atsKey}"}

    def ats(method: str, path: str, body: object = None) -> dict[str, object]:
        answer = requests.request(method, f"{whole.running.apiUrl}{path}", json=body, headers=headers, timeout=30)
        answer.raise_for_status()
        return dict(answer.json()["data"])

    company_id = str(ats("POST", "/company", {"name": "Hostile"})["id"])
    [[number_id]] = whole.rows(f"SELECT id FROM phone_numbers WHERE company_id = '{company_id}'")
    agent = {"name": "By phone", "type": "PHONE", "focus": "GENERIC", "language": "SK", "duration": 15}
    agent_id = ats("POST", f"/agents?companyId={company_id}", {**agent, "companyPhoneNumberId": str(number_id)})["id"]
    now = whole.now()
    whole.change(f"UPDATE companies SET paused_at = '{now}', pause_reason = 'hostile' WHERE id = '{company_id}'")
    seeded = Seeded(company_id=UUID(company_id), agent_id=UUID(str(agent_id)), phone_number_id=number_id)
    add_pending_calls(whole.running.databaseUrl, seeded, now - timedelta(days=2), _DUE_CALLS, named=False)
    mine = f"company_id = '{company_id}' AND state = 'PENDING'"
    whole.change(f"UPDATE attempts SET due_at = '{now}' WHERE {mine}")
    unreadable = f"SELECT id FROM attempts WHERE {mine} LIMIT 50"
    whole.change(f"UPDATE attempts SET warnings = '{{OF_A_LATER_RELEASE}}' WHERE id IN ({unreadable})")
    return company_id
