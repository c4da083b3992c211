"""Access to the console: links, sessions, roles, and requests from other sites."""

import re
from html import escape
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest

from console.app import create_app
from scheduler.domain.principal import OperatorRole
from scheduler.persistence.schema import Logins
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.console.conftest import Console, settings_of_console

OK, SEE_OTHER, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE = 200, 303, 401, 403, 404, 409, 410
METHOD_NOT_ALLOWED = 405
ACTS = {
    "pause-everything": OperatorRole.OPERATOR,
    "resume-everything": OperatorRole.OPERATOR,
    "pause-company": OperatorRole.OPERATOR,
    "cancel-attempt": OperatorRole.OPERATOR,
    "resume-company": OperatorRole.OPERATOR,
    "cancel-attempts": OperatorRole.OPERATOR,
    "cancel-many-attempts": OperatorRole.ADMIN,
    "suspend-key": OperatorRole.ADMIN,
    "resume-key": OperatorRole.ADMIN,
    "revoke-key": OperatorRole.ADMIN,
    "decide-outcome": OperatorRole.OPERATOR,
    "retry-quarantined": OperatorRole.OPERATOR,
    "drop-quarantined": OperatorRole.ADMIN,
    "acknowledge-alarms": OperatorRole.OPERATOR,
    "disable-webhook": OperatorRole.OPERATOR,
    "enable-webhook": OperatorRole.OPERATOR,
    "close-circuit": OperatorRole.OPERATOR,
    "replay-failed": OperatorRole.OPERATOR,
}
"""Each act with the least role that may execute it."""


def test_page_without_session_leads_to_sign_in(console: Console) -> None:
    with console.client() as client:
        for path in ("/", "/attempts?state=pending", "/acts/pause-everything"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["location"]) == (SEE_OTHER, "/sign-in")
        assert client.get("/sign-in").status_code == OK
        assert client.get("/live").status_code == UNAUTHORIZED
        assert client.post("/acts/pause-everything", data={"reason": "x"}).status_code == UNAUTHORIZED


def test_link_signs_in_once_and_not_by_looking_at_it(console: Console) -> None:
    link = console.link()
    with console.client() as client, console.client() as late:
        for _ in range(2):  # as the preview of a chat does
            answer = client.get(link)
            assert answer.status_code == OK
            assert "set-cookie" not in answer.headers
        assert client.post(link).headers["location"] == "/"
        assert client.get("/").status_code == OK
        assert late.get(link).status_code == GONE
        assert late.post(link).status_code == GONE
        assert late.get("/").status_code == SEE_OTHER


def test_page_that_was_asked_for_opens_after_sign_in(console: Console) -> None:
    for address in (
        "/attempts?state=due&zone=Asia%2FTokyo&due_to=2030-01-31T09:00",
        f"/companies/{UUID(int=1)}",
        f"/acts/pause-company?company={UUID(int=1)}",
    ):
        with console.client() as client:
            asked = client.get(address)
            assert asked.headers["location"] == "/sign-in"
            assert asked.headers["set-cookie"].lower().endswith("; httponly; max-age=600; path=/; samesite=lax")
            assert f'href="{escape(address)}"' in client.get("/sign-in").text
            answer = client.post(console.link())
            assert answer.headers["location"] == address
            assert client.get(address).status_code in {OK, NOT_FOUND}
            client.post("/sign-out")
            assert client.post(console.link()).headers["location"] == "/", "it was remembered for another sign-in"


def test_address_without_a_page_is_not_remembered(console: Console) -> None:
    for path in ("/live", "/nowhere", f"/attempts?zone={'x' * 2000}"):
        with console.client() as client:
            assert "set-cookie" not in client.get(path).headers, path
            assert client.post(console.link()).headers["location"] == "/"


FORGED = (
    *("//evil.example.com", "https://evil.example.com/", "/\\evil.example.com", "/%09/evil.example.com"),
    *("evil.example.com", "javascript:alert(1)", "/sign-out", "/sign-in/link/x", "/healthz", "/attemptsx"),
    *("/attempts\\", "/attempts\r\nX-A: b", "/attempts?é", ""),
)


def test_forged_page_is_not_opened_after_sign_in(console: Console) -> None:
    for forged in FORGED:
        with console.client(Cookie=f"duecall-page={quote(forged, safe='')}") as client:
            page = client.get("/sign-in").text
            assert not [each for each in ('href="/sign-in', "evil") if each in page], forged
            assert client.post(console.link()).headers["location"] == "/", forged


def test_cookie_is_hidden_from_scripts_and_sites(console: Console) -> None:
    with console.client() as client:
        cookie = client.post(console.link()).headers["set-cookie"].lower()
    assert re.fullmatch(r"duecall-console=\S+; httponly; max-age=28800; path=/; samesite=strict", cookie)


def test_sign_out_ends_the_session(console: Console, operator: httpx.Client) -> None:
    cookie = operator.cookies["duecall-console"]
    assert operator.post("/sign-out").headers["location"] == "/sign-in?signedOut"
    assert "duecall-console" not in operator.cookies
    assert console.sessions.all() == []
    with console.client(Cookie=f"duecall-console={cookie}") as client:
        assert client.get("/").status_code == SEE_OTHER


def test_revoked_session_is_refused_at_the_next_request(console: Console, operator: httpx.Client) -> None:
    assert operator.get("/").status_code == OK
    [session] = console.sessions.all()
    console.sessions.revoke(session.id)
    assert operator.get("/").status_code == SEE_OTHER
    assert operator.post("/acts/pause-everything", data={"token": "x", "reason": "x"}).status_code == UNAUTHORIZED


@pytest.mark.parametrize("role", OperatorRole)
def test_act_needs_its_role(console: Console, role: OperatorRole) -> None:
    with console.signed_in(role) as client:
        for act, needed in ACTS.items():
            for answer in (client.get(f"/acts/{act}"), client.post(f"/acts/{act}", data={"token": act})):
                assert (answer.status_code == FORBIDDEN) is not role.may(needed), act
                says = f"This needs the role {needed.value}. Yours is {role.value}."
                assert (says in answer.text) is not role.may(needed), act


@pytest.mark.parametrize("token", ["", "a\0b", "sign-in:x", "x" * 5000])
def test_act_with_a_token_of_no_form_is_not_executed(operator: httpx.Client, token: str) -> None:
    answer = operator.post("/acts/resume-everything", data={"token": token, "reason": "a test"})
    assert answer.status_code == CONFLICT
    assert "it was not executed again" in answer.text


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "OWN"}, False),
        ({"Origin": "OWN"}, True),
        ({"Origin": "https://evil.example.com"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
)
def test_write_from_another_site_is_refused(console: Console, headers: dict[str, str], is_own: bool) -> None:
    sent = {name: value.replace("OWN", console.url) for name, value in headers.items()}
    with httpx.Client(base_url=console.url, headers=sent, timeout=30) as client:
        answer = client.post(console.link())
    assert answer.status_code == (SEE_OTHER if is_own else FORBIDDEN)
    assert len(console.sessions.all()) == is_own


def test_form_without_or_with_a_large_length_is_refused(operator: httpx.Client) -> None:
    chunked = operator.post("/sign-out", content=iter([b"a"]))
    assert (chunked.status_code, "Content-Length" in chunked.text) == (FORBIDDEN, True)
    large = operator.post("/sign-out", content=b"a" * 20_000)
    assert (large.status_code, large.text) == (FORBIDDEN, "This form is too large.")


@pytest.mark.parametrize("host", ["evil.example.com", "localhost:1", "127.0.0.1"])
def test_request_for_another_host_is_refused(console: Console, operator: httpx.Client, host: str) -> None:
    for path in ("/", "/sign-in", "/live", "/static/console.js"):
        answer = operator.get(path, headers={"Host": host})
        assert answer.status_code == FORBIDDEN
        assert f"Open the console at {console.url}." in answer.text
    for path in ("/healthz", "/readyz"):
        assert operator.get(path, headers={"Host": host}).json()["data"]["status"] == "ok"


def test_every_response_has_the_security_headers(operator: httpx.Client) -> None:
    for path, status in (("/", OK), ("/nowhere", NOT_FOUND), ("/sign-in", OK), ("/static/console.css", OK)):
        answer = operator.get(path)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")


def test_error_page_has_the_navigation_of_an_operator(console: Console, viewer: httpx.Client) -> None:
    errors = ("/nowhere", NOT_FOUND), ("/acts/nothing", NOT_FOUND), ("/sign-out", METHOD_NOT_ALLOWED)
    with console.client() as stranger:
        for path, status in errors:
            for client, has_navigation in ((viewer, True), (stranger, False)):
                answer = client.get(path)
                assert answer.status_code == status
                assert ('<nav aria-label="Pages">' in answer.text) == has_navigation, path


@pytest.mark.usefixtures("broker", "postgres_url")
async def test_console_over_https_is_secure(logins: Logins, valkey: EmbeddedValkey) -> None:
    app = create_app(settings_of_console(logins, valkey.url, "https://console.example.com"))
    async with app.router.lifespan_context(app):
        assert app.state.console_context.address.is_secure
