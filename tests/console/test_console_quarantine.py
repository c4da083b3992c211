"""The page Quarantine, and operators who retry or drop commands and callbacks."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from threading import Barrier
from uuid import UUID

import httpx
import pytest

from console.assembly import ConsoleUseCases
from scheduler.domain.command import Command
from scheduler.domain.principal import OperatorRole
from scheduler.persistence.alarms import AuditFilter
from scheduler.use_cases.shared.alarms import Acts
from tests.conftest import real_now, seed
from tests.console.acts import form_in, send, words
from tests.console.conftest import Console
from tests.console.work import a_failed_callback, a_failed_command
from tests.support.builders import Tenant, a_placed_attempt, a_waiting_command, an_operator, of_company
from tests.support.statements import statements_of

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


def test_number_on_now_counts_commands_and_callbacks(operator: httpx.Client, tenant: Tenant) -> None:
    a_failed_command(tenant)
    a_failed_callback(tenant, a_placed_attempt(tenant))
    assert 'id="figure-quarantine" href="/quarantine">2</a>' in operator.get("/").text


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


def test_dropped_command_is_answered_and_empty(admin: httpx.Client, tenant: Tenant) -> None:
    command = a_failed_command(tenant)
    assert "its client receives 409 COMMAND_DROPPED" in words(admin.get(drop(command.id)))
    send(admin, drop(command.id), reason=WHY)
    [[body, answer]] = tenant.ask("SELECT body, answer FROM inbox WHERE id = :id", id=command.id)
    assert (body, answer["refusal"]["code"]) == (None, "COMMAND_DROPPED")


def test_retried_callback_is_processed_again(operator: httpx.Client, tenant: Tenant) -> None:
    callback = a_failed_callback(tenant, a_placed_attempt(tenant))
    send(operator, retry(callback), reason=WHY)
    assert tenant.ask("SELECT failures, quarantined_at, heard_at FROM carrier_events") == [(0, None, None)]


def test_dropped_callback_leaves_the_call_to_the_carrier(admin: httpx.Client, tenant: Tenant) -> None:
    attempt = a_placed_attempt(tenant)
    callback = a_failed_callback(tenant, attempt)
    assert f"The carrier is asked about attempt {attempt.id}, next at" in words(admin.get(drop(callback)))
    send(admin, drop(callback), reason=WHY)
    [[raw, heard_at]] = tenant.ask("SELECT raw, heard_at FROM carrier_events")
    assert raw == {}
    assert heard_at is not None
    [entry] = Acts(tenant.database).newest(AuditFilter(concerns=callback), None, 10)
    assert (entry.verb, entry.company_id) == ("callback.drop", tenant.company_id)


def test_second_of_two_operators_sees_that_it_is_gone(console: Console, operator: httpx.Client, tenant: Tenant) -> None:
    command = a_failed_command(tenant)
    with console.signed_in(OperatorRole.ADMIN) as second:
        form = {**form_in(second.get(drop(command.id))), "reason": WHY}
        send(operator, retry(command.id), reason=WHY)
        answer = second.post("/acts/drop-quarantined", data=form)
    assert answer.status_code == NOT_FOUND
    assert "Nothing with this id is in quarantine: it was retried or dropped before" in words(answer)
    [[applied_at]] = tenant.ask("SELECT applied_at FROM inbox")
    assert applied_at is None


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


@pytest.mark.parametrize("act", ["retry", "drop"])
def test_acts_and_list_read_a_constant_number(use_cases: ConsoleUseCases, tenant: Tenant, act: str) -> None:
    first, second = a_failed_command(tenant), a_failed_command(tenant)
    actor = an_operator(replace(tenant, now=real_now))

    def count(command: Command) -> list[int]:
        of_quarantine = use_cases.quarantine(actor)
        counts = []
        for do in (
            lambda: of_quarantine.page(None, None, 50),
            lambda: of_quarantine.page(None, None, 50, tenant.company_id),
            lambda: of_quarantine.find(command.id),
            lambda: (of_quarantine.requeue if act == "retry" else of_quarantine.drop)(command.id, WHY),
        ):
            with statements_of(use_cases.database) as sent:
                do()
            counts.append(len(sent))
        return counts

    few = count(first)
    copies_of(tenant, second, 40)
    assert count(second) == few
