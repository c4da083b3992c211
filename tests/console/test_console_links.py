"""Every page of the console is reached by links from the first one, no link is dead, and each page needs a session."""

import re

import httpx
import pytest

from console.app import create_app
from scheduler.domain.principal import OperatorRole
from tests.console.busy_installation import linked_pages, make_busy
from tests.console.conftest import Console
from tests.support.builders import Tenant

WITHOUT_SESSION = ("/sign-in", "/healthz", "/readyz", "/live", "/static")
ROUTES = create_app().routes


@pytest.fixture(autouse=True)
def _busy(tenant: Tenant) -> None:
    make_busy(tenant)


def routes_of_pages() -> set[str]:
    shown = {getattr(route, "path", "") for route in ROUTES if "GET" in (getattr(route, "methods", None) or ())}
    return {path for path in shown if not path.startswith(WITHOUT_SESSION)}


def test_links_lead_to_every_page_and_each_needs_a_session(console: Console) -> None:
    with console.signed_in(OperatorRole.ADMIN) as admin:
        linked = linked_pages(admin, ROUTES)
        for address in (*linked.values(), "/sign-in", "/nowhere"):
            html = admin.get(address).text
            assert not re.search(r"<style|style=|<script(?! src=)| on\w+=|javascript:", html), address
    reached = {name.partition("?")[0] for name in linked}
    opposites = {"/acts/resume-everything", "/acts/resume-company"}  # shown while the other act has been executed
    assert reached | opposites >= routes_of_pages()
    with console.client() as stranger:
        for address in linked.values():
            answer = stranger.get(address)
            assert (answer.status_code, answer.headers["location"]) == (httpx.codes.SEE_OTHER, "/sign-in"), address


@pytest.mark.parametrize("role", [OperatorRole.VIEWER, OperatorRole.OPERATOR])
def test_no_link_of_a_role_leads_to_a_refusal(console: Console, role: OperatorRole) -> None:
    with console.signed_in(role) as client:
        linked = linked_pages(client, ROUTES)
    if role is OperatorRole.VIEWER:
        assert not [name for name in linked if name.startswith("/acts/")]
