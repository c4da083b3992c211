"""The page Quarantine, and operators who retry or drop commands and callbacks."""

import re
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from threading import Barrier
from uuid import UUID

import httpx

from scheduler.domain.command import Command
from scheduler.domain.principal import OperatorRole
from scheduler.persistence.alarms import AuditFilter
from scheduler.use_cases.shared.alarms import Acts
from tests.conftest import seed
from tests.console.acts import form_in, send, words
from tests.console.conftest import Console
from tests.console.work import a_failed_callback, a_failed_command
from tests.support.builders import Tenant, a_placed_attempt, a_waiting_command, of_company

SEE_OTHER, FORBIDDEN, NOT_FOUND, UNPROCESSABLE = 303, 403, 404, 422
WHY = "release 1.4.2 fixes it"


def copies_of(tenant: Tenant, command: Command, count: int) -> None:
    columns = "principal_id, request_hash, kind, body, received_at, rung_at, failures, quarantined_at"
    tenant.change(
        f"INSERT INTO inbox (id, {columns}) SELECT gen_random_uuid(), {columns} FROM inbox, generate_series(1, :count)"
        " WHERE id = :id",
        count=count,
        id=command.id,
    )


def listed(page: httpx.Response) -> list[str]:
    return re.findall(r'aria-label="Retry ([^"]+)"', page.text)


def retry(quarantined_id: UUID) -> str:
    return f"/acts/retry-quarantined?id={quarantined_id}"


def drop(quarantined_id: UUID) -> str:
    return f"/acts/drop-quarantined?id={quarantined_id}"


def test_list_shows_what_failed_and_no_body(operator: httpx.Client, tenant: Tenant) -> None:
    attempt = a_placed_attempt(tenant)
    command = a_failed_command(tenant, attempt.interview_id, attempt_id=str(attempt.id))
    callback = a_failed_callback(tenant, attempt)
    a_waiting_command(tenant, attempt.interview_id)
    page = operator.get("/quarantine")
    assert sorted(listed(page)) == sorted([str(command.id), str(callback)])
    shown = words(page)
    assert "Command create_interview" in shown
    assert shown.count("KeyError at x.py:7") == 2
    assert "5 times" in shown
    assert f"Interview {attempt.interview_id} 1 later command" in shown
    assert shown.count(f"Attempt {attempt.id}") == 2
    assert "+421" not in page.text


def test_list_is_filtered_by_kind(operator: httpx.Client, tenant: Tenant) -> None:
    command = a_failed_command(tenant)
    callback = a_failed_callback(tenant, a_placed_attempt(tenant))
    assert listed(operator.get("/quarantine?kind=command")) == [str(command.id)]
    assert listed(operator.get("/quarantine?kind=callback")) == [str(callback)]


def test_list_is_filtered_by_company(operator: httpx.Client, tenant: Tenant) -> None:
    other = of_company(tenant, seed(tenant.database, tenant.now()))
    theirs = {str(a_failed_command(other).id), str(a_failed_callback(other, a_placed_attempt(other)))}
    mine = a_failed_command(tenant)
    company = operator.get(f"/companies/{tenant.company_id}")
    [href] = re.findall(r'id="figure-quarantine" href="([^"]+)">1</a>', company.text)
    assert listed(operator.get(unescape(href))) == [str(mine.id)]
    assert set(listed(operator.get(f"/quarantine?company={other.company_id}"))) == theirs


def test_retried_command_waits_again(operator: httpx.Client, tenant: Tenant) -> None:
    interview_id = a_placed_attempt(tenant).interview_id
    command = a_failed_command(tenant, interview_id)
    a_waiting_command(tenant, interview_id)
    preview = words(operator.get(retry(command.id)))
    assert "It failed 5 times" in preview
    assert f"1 later command of interview {interview_id} waited for it." in preview
    assert send(operator, retry(command.id), reason=WHY).headers["location"] == "/quarantine"
    assert tenant.ask("SELECT id FROM inbox WHERE quarantined_at IS NOT NULL") == []
    [[failures, failed_with]] = tenant.ask("SELECT failures, failed_with FROM inbox WHERE id = :id", id=command.id)
    assert (failures, failed_with) == (0, None)
    [entry] = Acts(tenant.database).newest(AuditFilter(concerns=command.id), None, 10)
    assert (entry.verb, entry.reason, entry.after) == ("command.retry", WHY, {"state": "WAITING"})
    assert entry.actor.startswith("link:")


def test_preview_of_a_drop_says_what_follows(admin: httpx.Client, tenant: Tenant) -> None:
    """`test_quarantine.py` and `test_apply.py` of the use cases have what follows."""
    command, attempt = a_failed_command(tenant), a_placed_attempt(tenant)
    callback = a_failed_callback(tenant, attempt)
    assert 'id="figure-quarantine" href="/quarantine">2</a>' in admin.get("/").text
    assert "its client receives 409 COMMAND_DROPPED" in words(admin.get(drop(command.id)))
    assert f"The carrier is asked about attempt {attempt.id}, next at" in words(admin.get(drop(callback)))
    send(admin, drop(callback), reason=WHY)
    [entry] = Acts(tenant.database).newest(AuditFilter(concerns=callback), None, 10)
    assert (entry.verb, entry.company_id) == ("callback.drop", tenant.company_id)


def test_acts_at_the_same_instant_are_one(console: Console, operator: httpx.Client, tenant: Tenant) -> None:
    command, barrier = a_failed_command(tenant), Barrier(2, timeout=30)
    with console.signed_in(OperatorRole.ADMIN) as second:
        forms = [
            (client, address, {**form_in(client.get(address)), "reason": WHY})
            for client, address in ((operator, retry(command.id)), (second, drop(command.id)))
        ]

        def act(place: int) -> httpx.Response:
            client, address, form = forms[place]
            barrier.wait()
            return client.post(address.partition("?")[0], data=form)

        with ThreadPoolExecutor(2) as operators:
            answers = list(operators.map(act, range(2)))
    assert sorted(each.status_code for each in answers) == [SEE_OTHER, NOT_FOUND]
    assert len(Acts(tenant.database).newest(AuditFilter(concerns=command.id), None, 10)) == 1
