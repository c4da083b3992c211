"""Every act of the console: it is previewed, needs a role and a reason, is executed once, and is audited."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from console.app import create_app
from scheduler.domain.principal import KeyKind
from scheduler.hashing import Hasher
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared.alarms import Acts
from tests.conftest import real_now, seed
from tests.console.acts import form_in, send, words
from tests.console.busy_installation import ADA, raise_alarm
from tests.console.conftest import PEPPER, Console
from tests.console.partners import a_delivery, a_webhook
from tests.console.test_console_access import ACTS
from tests.console.work import a_failed_command
from tests.support.builders import ALWAYS, Tenant, a_number, a_pending_attempt, a_tenant, an_attempt_of_unknown_outcome

OK, SEE_OTHER, NOT_FOUND, CONFLICT, UNPROCESSABLE = 200, 303, 404, 409, 422
WHY = "the agency asked for it"
RANGE = "since=2020-01-01T00:00Z&until=2100-01-01T00:00Z"


@pytest.fixture
def tenant(database: Database) -> Tenant:
    """A company on the clock of the console."""
    return a_tenant(database, seed(database, real_now(), intervals=ALWAYS), Hasher(PEPPER), real_now)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An act on something that it changes."""

    verb: str
    """Of its entry in the audit."""
    query: Callable[[Tenant], str]
    """Create its subject and return the fields of the form's address."""
    answers: Mapping[str, str] = field(default_factory=dict)


def _all(_: Tenant) -> str:
    return ""


def _company(tenant: Tenant) -> str:
    return f"company={tenant.company_id}"


def _paused(of: Callable[[Tenant], str], *, is_all: bool) -> Callable[[Tenant], str]:
    def query(tenant: Tenant) -> str:
        Pauses(tenant.database, real_now, ADA).pause(None if is_all else tenant.company_id, "a try")
        return of(tenant)

    return query


def _pending(tenant: Tenant) -> str:
    a_pending_attempt(tenant, due_at=real_now() + timedelta(hours=1))
    return f"state=pending&company={tenant.company_id}"


def _key(*, is_suspended: bool = False) -> Callable[[Tenant], str]:
    def query(tenant: Tenant) -> str:
        keys = Keys(tenant.database, tenant.hasher, real_now, ADA)
        key_id = keys.create(kind=KeyKind.REGULAR, name="night shift", company_id=tenant.company_id)[0].key_id
        if is_suspended:
            keys.suspend(key_id, "a try")
        return f"key={key_id}"

    return query


def _alarm(tenant: Tenant) -> str:
    raise_alarm(tenant.database, tenant, "DEAF_WORKER")
    return "kind=DEAF_WORKER"


def _failing(tenant: Tenant) -> UUID:
    webhook_id = a_webhook(tenant, consecutive_failures=12, circuit_opened_at=real_now())
    a_delivery(tenant, webhook_id)
    return webhook_id


CASES = {
    "pause-everything": Case(verb="pause", query=_all),
    "resume-everything": Case(verb="resume", query=_paused(_all, is_all=True)),
    "pause-company": Case(verb="pause", query=_company),
    "resume-company": Case(verb="resume", query=_paused(_company, is_all=False)),
    "cancel-attempt": Case(verb="attempt.cancel", query=lambda tenant: f"attempt={a_pending_attempt(tenant).id}"),
    "cancel-attempts": Case(verb="attempt.cancel", query=_pending),
    "cancel-many-attempts": Case(verb="attempt.cancel", query=_pending),
    "suspend-key": Case(verb="key.suspend", query=_key()),
    "resume-key": Case(verb="key.resume", query=_key(is_suspended=True)),
    "revoke-key": Case(verb="key.revoke", query=_key()),
    "decide-outcome": Case(
        verb="outcome.decide",
        query=lambda tenant: f"attempt={an_attempt_of_unknown_outcome(tenant).id}",
        answers={"decision": "LEFT"},
    ),
    "retry-quarantined": Case(verb="command.retry", query=lambda tenant: f"id={a_failed_command(tenant).id}"),
    "drop-quarantined": Case(verb="command.drop", query=lambda tenant: f"id={a_failed_command(tenant).id}"),
    "acknowledge-alarms": Case(verb="alarm.acknowledge", query=_alarm),
    "disable-webhook": Case(verb="webhook.disable", query=lambda tenant: f"webhook={_failing(tenant)}"),
    "enable-webhook": Case(
        verb="webhook.enable",
        query=lambda tenant: f"webhook={a_webhook(tenant, disabled_cause='GONE', disabled_at=real_now())}",
    ),
    "close-circuit": Case(verb="webhook.reset", query=lambda tenant: f"webhook={_failing(tenant)}"),
    "replay-failed": Case(verb="webhook.replay", query=lambda tenant: f"webhook={_failing(tenant)}&{RANGE}"),
}


def test_every_act_has_a_case_and_a_role() -> None:
    paths = {getattr(route, "path", "") for route in create_app().routes}
    acts = {path.removeprefix("/acts/") for path in paths if path.startswith("/acts/")}
    assert acts == set(CASES) == set(ACTS)


@pytest.mark.parametrize("act", CASES)
def test_act_is_previewed_executed_once_and_audited(console: Console, tenant: Tenant, act: str) -> None:
    case = CASES[act]
    address = f"/acts/{act}?{case.query(tenant)}"
    with console.signed_in(ACTS[act]) as client:
        [session] = console.sessions.all()
        page = client.get(address)
        assert page.status_code == OK
        form = {**form_in(page), **case.answers}
        for reason, problem in (("", "Write a reason."), (f"I called {a_number()}", "text like a phone number")):
            answer = send(client, address, **case.answers, reason=reason)
            assert answer.status_code == UNPROCESSABLE
            assert problem in words(answer)
        mine = AuditFilter(actor=session.actor)
        assert Acts(tenant.database).newest(mine, None, 5) == []
        answers = [client.post(f"/acts/{act}", data={**form, "reason": WHY}) for _ in range(2)]
    assert answers[0].status_code == SEE_OTHER
    assert answers[1].status_code in {CONFLICT, NOT_FOUND, UNPROCESSABLE}
    [entry] = Acts(tenant.database).newest(mine, None, 5)
    assert (entry.verb, entry.reason) == (case.verb, WHY)


SUBJECTS = (
    *((act, "company") for act in ("pause-company", "resume-company")),
    *((act, "attempt") for act in ("cancel-attempt", "decide-outcome")),
    *((act, "key") for act in ("suspend-key", "resume-key", "revoke-key")),
    *((act, "id") for act in ("retry-quarantined", "drop-quarantined")),
    *((act, "webhook") for act in ("disable-webhook", "enable-webhook", "close-circuit", "replay-failed")),
    *(("acknowledge-alarms", name) for name in ("alarm", "kind")),
)
"""Acts on one subject, with the field that names it."""


def test_act_on_an_unknown_subject_has_no_form(admin: httpx.Client) -> None:
    for act, name in SUBJECTS:
        for value in ("", "x", "a%00b", uuid4()):
            assert admin.get(f"/acts/{act}?{name}={value}&{RANGE}").status_code == NOT_FOUND, (act, value)
