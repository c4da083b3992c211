"""An installation in which every page of the console has rows, and the addresses of all of its pages.

The addresses are found by following the links of each page, so a page that nothing links to is not among them.
"""

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from html import unescape
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID, uuid4

import httpx
from starlette.routing import BaseRoute, Match

from scheduler.domain.alarm import key_of
from scheduler.domain.attempt import Cancelled, Ended, Reason
from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.company import RetryPolicy
from scheduler.domain.principal import KeyKind
from scheduler.persistence.database import Database
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared.alarms import Alarms, AlarmStore, Seen
from tests.conftest import real_now, seed
from tests.console.partners import partner_pages
from tests.console.work import a_failed_callback, a_failed_command
from tests.support.builders import (
    Tenant,
    a_claimed_attempt,
    a_pending_attempt,
    a_placed_attempt,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
    of_company,
)

ADA = "cli:ada@host"
_ZONES = ("Europe/Bratislava", "America/New_York", "Asia/Kolkata", "Asia/Tokyo", "America/Sao_Paulo")


def make_busy(tenant: Tenant) -> None:
    """Add calls of all states in several zones, and work for people to decide. They are of the real time."""
    tenant = replace(tenant, now=real_now)
    a_placed_attempt(tenant)
    a_claimed_attempt(tenant)
    unknown = an_attempt_of_unknown_outcome(tenant)
    raise_alarm(tenant.database, tenant, "OUTCOME_UNKNOWN", company_id=tenant.company_id, attempt_id=unknown.id)
    a_pending_attempt(tenant)
    for number, zone in enumerate(_ZONES * 6):
        clock = CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=(zone,))
        a_pending_attempt(tenant, due_at=tenant.now() + timedelta(minutes=47 * (number + 1)), clock=clock)
    _add_trouble(tenant)
    _add_ends(tenant)
    for company, count in (("Globex Recruiting and Staffing of Central Europe", 3), ("Initech", 1)):
        other = of_company(tenant, seed(tenant.database, tenant.now()))
        tenant.change("UPDATE companies SET name = :name WHERE id = :id", name=company, id=other.company_id)
        for hour in range(count):
            a_pending_attempt(other, due_at=tenant.now() + timedelta(hours=5 * hour + 1))
    Pauses(tenant.database, tenant.now, ADA).pause(other.company_id, "they asked for silence")
    _add_keys(tenant)
    partner_pages(tenant)


def _add_ends(tenant: Tenant) -> None:
    """Add a failed call with its retry, a completed call and a cancelled one."""
    retrying = seed(tenant.database, tenant.now(), retry_policy=RetryPolicy(max_retries=2))
    busy = Ended(reason=Reason.BUSY, ended_at=tenant.now())
    tenant.take(a_placed_attempt(of_company(tenant, retrying)), busy)
    answered = Ended(reason=Reason.ANSWERED, ended_at=tenant.now(), duration=timedelta(minutes=9))
    tenant.take(a_placed_attempt(tenant), answered)
    tenant.take(a_pending_attempt(tenant), Cancelled(reason=Reason.CANCELLED_BY_USER))


def _add_trouble(tenant: Tenant) -> None:
    command = a_failed_command(tenant, a_pending_attempt(tenant).interview_id)
    a_waiting_command(tenant, command.interview_id)
    with tenant.database.transaction() as stores:
        stores.erasures.ask(seed(tenant.database, tenant.now()).company_id, tenant.now())
    tenant.insert(
        "erasures",
        company_id=uuid4(),
        asked_at=tenant.now() - timedelta(days=9),
        rung_at=tenant.now(),
        finished_at=tenant.now() - timedelta(days=8),
        erased='{"attempts": 1204, "candidates": 311, "interviews": 402}',
    )
    a_failed_callback(tenant, a_placed_attempt(tenant))
    raise_alarm(tenant.database, tenant, "CAUSE_LOST", company_id=tenant.company_id)
    Alarms(tenant.database, tenant.now, ADA).acknowledge(
        None, kind="CAUSE_LOST", note="the carrier answered our ticket"
    )
    raise_alarm(tenant.database, tenant, "COMMAND_QUARANTINED", company_id=tenant.company_id, command_id=command.id)


def raise_alarm(database: Database, tenant: Tenant, kind: str, **subjects: UUID) -> None:
    AlarmStore(database, tenant.now, monotonic=lambda: 0.0).store(
        {key_of(kind, subjects): Seen(count=3, first=0, last=0)}
    )


def _add_keys(tenant: Tenant) -> None:
    keys = Keys(tenant.database, tenant.hasher, tenant.now, ADA)
    for name in ("in use", "suspended", "revoked"):
        principal, _ = keys.create(
            kind=KeyKind.REGULAR, name=name, company_id=tenant.company_id, principal_id=tenant.company_id
        )
        if name == "suspended":
            keys.suspend(principal.key_id, "a test")
        if name == "revoked":
            keys.revoke(principal.key_id, "a test")


def linked_pages(
    client: httpx.Client, routes: list[BaseRoute], *, answers: Container[int] = (httpx.codes.OK,)
) -> Mapping[str, str]:
    """Follow all links from the first page, and return one address per route and set of filters.

    Every single thing is looked at, because its page links to what can be done with it: a list shows things of all
    states in no certain order. Fails if a link leads nowhere, or to another answer than these. A form answers 422 if
    there is too much to act on.
    """
    found: dict[str, str] = {}
    waiting, known = ["/"], {"/"}
    while waiting:
        address = waiting.pop(0)
        kind = _kind(address, routes)
        if kind in found and not kind.endswith("}"):
            continue
        found.setdefault(kind, address)
        answer = client.get(address)
        assert answer.status_code in answers, f"{address}: {answer.status_code}"
        new = [link for link in dict.fromkeys(_links(answer.text)) if link not in known]
        waiting += new
        known.update(new)
    return found


def one_per_route(linked: Mapping[str, str]) -> Mapping[str, str]:
    """Leave out the pages that differ only in their filters."""
    found: dict[str, str] = {}
    for name, address in linked.items():
        found.setdefault(name.partition("?")[0], address)
    return found


def _links(html: str) -> Iterator[str]:
    for href in re.findall(r'<a [^>]*?href="([^"]+)"', html):
        if href.startswith("/"):
            yield unescape(href).partition("#")[0]


def _kind(address: str, routes: list[BaseRoute]) -> str:
    """Find the route of an address with the names of its filters. Raises LookupError if no page has it."""
    parts = urlsplit(address)
    scope = {"type": "http", "method": "GET", "path": parts.path, "root_path": ""}
    for route in routes:
        if route.matches(scope)[0] is Match.FULL:
            names = sorted({name for name, _ in parse_qsl(parts.query)})
            return f"{getattr(route, 'path', '')}{'?' if names else ''}{'&'.join(names)}"
    raise LookupError(f"no page has the address {address}")
