"""Sign-in to the console with an identity provider: each role, and everything that is refused."""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import product
from typing import Any

import httpx
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OctKey
from sqlalchemy import text

from scheduler.clock import machine_now
from scheduler.domain.principal import OperatorRole
from scheduler.persistence.schema import Logins
from scheduler.settings import Settings
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.console.conftest import Console, settings_of_console
from tests.console.oidc import COOKIE, OidcConsole, continued, served, with_provider
from tests.support.identity_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    FIRST_KEY,
    NESTED,
    PERSON,
    IdentityProvider,
    a_key,
    an_identity_provider,
    parameters_of,
)
from tests.support.servers import a_closed_port

OK, SEE_OTHER, BAD_REQUEST, FORBIDDEN, NOT_FOUND, BAD_GATEWAY, AWAY = 200, 303, 400, 403, 404, 502, 503
LONG_AGO = int((machine_now() - timedelta(hours=1)).timestamp())
IN_A_YEAR = int((machine_now() + timedelta(days=365)).timestamp())
"""Not in an hour: a run of all tests may last longer."""


@pytest.fixture(scope="module")
def running_provider() -> Iterator[IdentityProvider]:
    with an_identity_provider() as provider:
        yield provider


@pytest.fixture
def provider(running_provider: IdentityProvider) -> IdentityProvider:
    running_provider.reset()
    return running_provider


@pytest.fixture(scope="module")
def settings(broker: None, logins: Logins, valkey: EmbeddedValkey, cleaner: Callable[[], object]) -> Settings:
    cleaner()  # a process of an earlier test may have left the marks of its settings
    return settings_of_console(logins, valkey.url, "http://127.0.0.1")


@pytest.fixture(scope="module")
def oidc_url(running_provider: IdentityProvider, settings: Settings) -> Iterator[str]:
    with served(with_provider(settings, running_provider.issuer)) as url:
        yield url


@pytest.fixture
def oidc(oidc_url: str, provider: IdentityProvider, console: Console) -> OidcConsole:
    return OidcConsole(url=oidc_url, provider=provider, sessions=console.sessions, headers={})


@pytest.fixture
def browser(oidc: OidcConsole) -> Iterator[httpx.Client]:
    with oidc.browser() as client:
        yield client


def assert_refused(oidc: OidcConsole, browser: httpx.Client, answer: httpx.Response, status: int, says: str) -> None:
    """The page says why, without a text of the provider, and no session exists."""
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert "duecall console login" in answer.text
    assert 'href="/sign-in"' in answer.text
    assert oidc.sessions.all() == []
    assert browser.get("/").status_code == SEE_OTHER


# ---- accepted


@pytest.mark.parametrize("role", list(OperatorRole))
def test_operator_signs_in_with_each_role(oidc: OidcConsole, browser: httpx.Client, role: OperatorRole) -> None:
    oidc.provider.roles = ["another", f"duecall-{role}"]
    assert continued(oidc.sign_in(browser)) == "/"
    assert f">{role.value}</span>" in browser.get("/").text
    session = oidc.session()
    assert (session.actor, session.role) == ("oidc:auth0|5f1c", role)
    assert session.expires_at - session.created_at == timedelta(hours=8)
    assert browser.get("/acts/pause-everything").status_code == (FORBIDDEN if role == "viewer" else OK)


def test_page_that_was_asked_for_opens_after_sign_in(oidc: OidcConsole, browser: httpx.Client) -> None:
    oidc.provider.roles = ["duecall-viewer"]
    address = "/attempts?state=due&zone=Asia%2FTokyo"
    assert browser.get(address).headers["location"] == "/sign-in"
    assert continued(oidc.sign_in(browser)) == address
    assert browser.get(address).status_code == OK
    assert "duecall-page" not in browser.cookies


def test_highest_of_several_roles_counts(oidc: OidcConsole, browser: httpx.Client) -> None:
    oidc.provider.roles = ["duecall-viewer", "duecall-admin", "duecall-operator"]
    oidc.sign_in(browser)
    assert oidc.session().role is OperatorRole.ADMIN


def test_request_has_code_flow_pkce_state_and_nonce(oidc: OidcConsole, browser: httpx.Client) -> None:
    first, second = (parameters_of(oidc.start(browser)) for _ in range(2))
    assert first.keys() == {
        *("response_type", "client_id", "redirect_uri", "scope", "state", "nonce"),
        *("code_challenge", "code_challenge_method"),
    }
    assert (first["response_type"], first["client_id"], first["scope"]) == ("code", CLIENT_ID, "openid")
    assert first["redirect_uri"] == f"{oidc.url}/sign-in/callback"
    assert first["code_challenge_method"] == "S256"
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) == 43
        assert first[name] != second[name]


def test_cookies_of_a_sign_in(oidc: OidcConsole, browser: httpx.Client) -> None:
    started = browser.post("/sign-in/oidc")
    cookie = started.headers["set-cookie"].lower()
    assert re.fullmatch(rf"{COOKIE}=\S+; httponly; max-age=600; path=/; samesite=lax", cookie)
    ended, session = oidc.finish(browser, continued(started)).headers.get_list("set-cookie")[::-1]
    assert re.fullmatch(r"duecall-console=\S+; httponly; max-age=28800; path=/; samesite=strict", session.lower())
    assert "max-age=0" in ended.lower()
    assert COOKIE not in browser.cookies


def test_cookie_over_https_is_of_this_host_alone(settings: Settings, oidc: OidcConsole) -> None:
    address = "https://console.example.com"
    with served(with_provider(settings, oidc.provider.issuer), address) as url:
        headers = {"Host": "console.example.com"}
        secure = OidcConsole(url=url, provider=oidc.provider, sessions=oidc.sessions, headers=headers)
        with secure.browser() as browser:
            started = browser.post("/sign-in/oidc")
            pattern = r"(__host-duecall-sign-in=\S+); httponly; max-age=600; path=/; samesite=lax; secure"
            assert re.fullmatch(pattern, started.headers["set-cookie"].lower())
            sent = started.headers["set-cookie"].partition(";")[0]
            parameters = parameters_of(continued(started))
            assert parameters["redirect_uri"] == f"{address}/sign-in/callback"
            back = httpx.get(continued(started), timeout=30).headers["location"].removeprefix(address)
            answer = browser.get(back, headers={"Cookie": sent})
    assert continued(answer) == "/"
    assert any(each.startswith("__Host-duecall=") for each in answer.headers.get_list("set-cookie"))


def test_operator_can_send_the_secret_in_the_body(settings: Settings, oidc: OidcConsole) -> None:
    oidc.provider.faults.document["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    with served(with_provider(settings, oidc.provider.issuer)) as url:
        other = OidcConsole(url=url, provider=oidc.provider, sessions=oidc.sessions, headers={})
        with other.browser() as browser:
            assert continued(other.sign_in(browser)) == "/"


def test_token_signed_with_an_elliptic_curve_is_accepted(oidc: OidcConsole, browser: httpx.Client) -> None:
    oidc.provider.published = [ECKey.generate_key("P-256", {"kid": "curve"})]
    oidc.provider.faults.header["alg"] = "ES256"
    assert continued(oidc.sign_in(browser)) == "/"


def test_new_key_of_the_provider_is_fetched_once(oidc: OidcConsole, browser: httpx.Client) -> None:
    oidc.sign_in(browser)
    oidc.provider.published = [a_key("second"), FIRST_KEY]
    oidc.provider.asked.clear()
    assert continued(oidc.sign_in(browser)) == "/"
    assert continued(oidc.sign_in(browser)) == "/"
    assert oidc.provider.asked.count("/keys") == 1
    assert "/.well-known/openid-configuration" not in oidc.provider.asked


def test_operator_is_known_by_a_hash_if_an_id_is_personal(oidc: OidcConsole, browser: httpx.Client) -> None:
    actors = []
    for subject in ("jana@example.com", "jana@example.com", "jan@example.com", "421905123456", "a b", "x" * 65):
        oidc.provider.subject = subject
        oidc.sign_in(browser)
        actors.append(oidc.session().actor)
        oidc.sessions.revoke_all()
    assert all(re.fullmatch(r"oidc:hashed-[0-9a-f]{32}", actor) for actor in actors)
    assert actors[0] == actors[1]
    assert len(set(actors)) == 5


def test_no_name_code_or_secret_is_stored_or_logged(
    oidc: OidcConsole, browser: httpx.Client, console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = oidc.start(browser)
    cookie = browser.cookies[COOKIE]
    pages = oidc.finish(browser, url).text + browser.get("/").text
    with console.database.transaction() as stores:
        tables = ("console_sessions", "console_acts", "sign_in_links", "audit")
        rows = [str(row) for each in tables for row in stores.connection.execute(text(f"SELECT * FROM {each}"))]
    assert any("auth0|5f1c" in row for row in rows)
    logged = "\n".join(str(each.msg) for each in caplog.records if not each.name.startswith("httpcore"))
    assert "console_answered" in logged
    sent = parameters_of(url)
    for name in [*PERSON.values(), CLIENT_SECRET, cookie, sent["nonce"], *oidc.provider.tokens]:
        assert name not in pages
        assert name not in logged
        assert not [row for row in rows if name in row]
    assert sent["state"] not in logged
    assert oidc.provider._codes == {}, "the code was not used"


# ---- refused


UNVERIFIED = "The answer of your organisation could not be verified."
_WRONG_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"nonce": "another"}, "claim nonce"),
    ({"nonce": None}, "claim nonce"),
    ({"iss": "http://localhost:1"}, "claim iss"),
    ({"iss": None}, "claim iss"),
    ({"aud": "another"}, "claim aud"),
    ({"aud": ["another"]}, "claim aud"),
    ({"aud": None}, "claim aud"),
    ({"aud": [CLIENT_ID, "another"]}, "claim azp"),
    ({"aud": [CLIENT_ID, "another"], "azp": "another"}, "claim azp"),
    ({"azp": "another"}, "claim azp"),
    ({"exp": LONG_AGO}, "claim exp"),
    ({"exp": None}, "claim exp"),
    ({"exp": "soon"}, "claim exp"),
    ({"iat": LONG_AGO}, "claim iat"),
    ({"iat": IN_A_YEAR}, "claim iat"),
    ({"iat": None}, "claim iat"),
    ({"iat": -(10**400)}, "malformed"),
    ({"nbf": IN_A_YEAR}, "claim nbf"),
    ({"sub": None}, "claim sub"),
    ({"sub": ""}, "claim sub"),
    ({"sub": 7}, "claim sub"),
    ({"sub": "\ud800"}, "malformed"),
    ({"at_hash": "another"}, "claim at_hash"),
]


def test_token_with_a_wrong_claim_is_refused(
    oidc: OidcConsole, browser: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    for claims, cause in _WRONG_CLAIMS:
        caplog.clear()
        oidc.provider.faults.claims = claims
        assert_refused(oidc, browser, oidc.sign_in(browser), FORBIDDEN, UNVERIFIED)
        assert f"'cause': '{cause}'" in caplog.text, claims


def test_token_for_us_among_others_is_accepted(oidc: OidcConsole, browser: httpx.Client) -> None:
    oidc.provider.faults.claims = {"aud": [CLIENT_ID, "another"], "azp": CLIENT_ID}
    assert continued(oidc.sign_in(browser)) == "/"


def test_forged_or_malformed_token_is_refused(
    oidc: OidcConsole, browser: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    known = {"kid": FIRST_KEY.kid}
    # Shorter than NESTED: of a long token nothing is read.
    nested = jws.serialize_compact({"alg": "RS256", **known}, b"[" * 3000, FIRST_KEY)
    # Python 3.12 and newer parse deeper nesting than 3.11, and find that it has no end.
    endless = "malformed" if sys.version_info < (3, 12) else "invalid_payload"
    forgeries: list[tuple[dict[str, Any], str]] = [
        ({"id_token": "eyJhbGciOiJub25lIn0.e30."}, "unsupported_algorithm"),  # {"alg":"none"} and {}
        ({"signed_with": CLIENT_SECRET.encode(), "header": known}, "unsupported_algorithm"),
        ({"signed_with": FIRST_KEY.as_pem(private=False), "header": known}, "unsupported_algorithm"),
        ({"signed_with": a_key("first")}, "bad_signature"),
        ({"signed_with": a_key("unpublished")}, "unknown key"),
        ({"id_token": "not.a.token"}, "decode_error"),
        ({"id_token": nested}, endless),
    ]
    for faults, cause in forgeries:
        caplog.clear()
        oidc.provider.reset()
        for name, value in faults.items():
            setattr(oidc.provider.faults, name, value)
        assert_refused(oidc, browser, oidc.sign_in(browser), FORBIDDEN, UNVERIFIED)
        assert f"'cause': '{cause}'" in caplog.text, faults
        assert oidc.provider.asked.count("/keys") <= 2


def test_symmetric_key_of_the_provider_is_not_used(oidc: OidcConsole, browser: httpx.Client) -> None:
    shared = OctKey.generate_key(256, {"kid": "shared"})
    oidc.provider.published = [shared]
    oidc.provider.faults.signed_with = FIRST_KEY
    oidc.provider.faults.header = {"kid": "shared"}
    answer = oidc.sign_in(browser)
    assert_refused(oidc, browser, answer, BAD_GATEWAY, "answers in an unexpected way")


def test_operator_without_a_role_is_refused(oidc: OidcConsole, browser: httpx.Client) -> None:
    """`test_sign_in.py` has the claims that contain none."""
    says = "the claim roles of its ID token contains no role of the console"
    wrong: list[Any] = [None, ["Duecall-Admin", "admin"]]
    for roles in wrong:
        oidc.provider.roles = roles
        answer = oidc.sign_in(browser)
        assert_refused(oidc, browser, answer, FORBIDDEN, says)
        assert "duecall-viewer, duecall-operator, duecall-admin" in answer.text


def test_answer_without_its_start_is_refused(oidc: OidcConsole, browser: httpx.Client) -> None:
    with oidc.browser() as other:
        not_started = oidc.finish(browser, oidc.start(other))
        assert_refused(oidc, browser, not_started, BAD_REQUEST, "This browser did not start this sign-in.")
        oidc.start(browser)
        of_another_browser = oidc.finish(browser, oidc.start(other))
        assert_refused(oidc, browser, of_another_browser, BAD_REQUEST, "This browser did not start this sign-in.")
    url = oidc.start(browser)
    oidc.provider.faults.answer = {"state": "another"}
    wrong = oidc.finish(browser, url)
    assert_refused(oidc, browser, wrong, BAD_REQUEST, "This browser did not start this sign-in.")
    oidc.provider.faults.answer = {"state": None}
    assert_refused(oidc, browser, oidc.finish(browser, url), BAD_REQUEST, "This browser did not start this sign-in.")
    assert "/token" not in oidc.provider.asked
    oidc.provider.faults.answer = {}
    assert continued(oidc.finish(browser, url)) == "/", "a wrong answer must not end the sign-in of this browser"


def test_made_up_cookie_starts_nothing(oidc: OidcConsole, browser: httpx.Client) -> None:
    cookies, queries = ("", ".", "x", "x.y", "é.1", "x" * 10_000), ("", "?state=", "?state=x&code=y", "?state=%ff%00")
    for cookie, query in product(cookies, queries):
        headers = {b"Cookie": f"{COOKIE}={cookie}".encode()}
        answer = httpx.get(f"{oidc.url}/sign-in/callback{query}", headers=headers, timeout=30)
        assert_refused(oidc, browser, answer, BAD_REQUEST, "This browser did not start this sign-in.")


def test_code_of_another_sign_in_is_refused(oidc: OidcConsole, browser: httpx.Client) -> None:
    with oidc.browser() as other:
        stolen = httpx.get(oidc.start(other), timeout=30).headers["location"]
    oidc.provider.faults.answer = {"code": parameters_of(stolen)["code"]}
    answer = oidc.sign_in(browser)
    assert_refused(oidc, browser, answer, FORBIDDEN, "does not accept this sign-in any longer")


@pytest.mark.parametrize(
    ("provider_takes_it", "status", "says"),
    [
        (False, FORBIDDEN, "does not accept this sign-in any longer"),
        (True, BAD_REQUEST, "This sign-in was already used."),
    ],
)
def test_answer_of_the_provider_is_used_once(
    oidc: OidcConsole, browser: httpx.Client, provider_takes_it: bool, status: int, says: str
) -> None:
    oidc.provider.faults.takes_codes_twice = provider_takes_it
    url = oidc.start(browser)
    cookie = browser.cookies[COOKIE]
    back = httpx.get(url, timeout=30).headers["location"]
    assert continued(browser.get(back)) == "/"
    oidc.sessions.revoke_all()
    answer = browser.get(back, headers={"Cookie": f"{COOKIE}={cookie}"})
    assert_refused(oidc, browser, answer, status, says)


def test_answer_of_another_provider_is_refused(oidc: OidcConsole, browser: httpx.Client) -> None:
    for issuer in ("http://localhost:1", None):
        oidc.provider.faults.answer = {"iss": issuer}
        answer = oidc.sign_in(browser)
        assert_refused(oidc, browser, answer, FORBIDDEN, "The answer came from another identity provider.")
        assert "/token" not in oidc.provider.asked


def test_error_of_the_provider_is_shown_in_our_words(
    oidc: OidcConsole, browser: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    of_the_provider = {"error_description": "canary", "error_uri": "canary"}
    for error, status, says in (
        ("access_denied", FORBIDDEN, "Your organisation did not sign you in."),
        ("invalid_scope", BAD_GATEWAY, "The sign-in of your organisation reported an error."),
        ("<b>canary</b>", BAD_GATEWAY, "The sign-in of your organisation reported an error."),
    ):
        oidc.provider.faults.answer = {"code": None, "error": error, **of_the_provider}
        answer = oidc.sign_in(browser)
        assert_refused(oidc, browser, answer, status, says)
        assert "canary" not in answer.text + caplog.text
    oidc.provider.faults.answer = {"code": None}
    assert_refused(oidc, browser, oidc.sign_in(browser), BAD_GATEWAY, "reported an error")


def test_sign_in_starts_only_from_a_page_of_the_console(oidc: OidcConsole) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {}):
        answer = httpx.post(f"{oidc.url}/sign-in/oidc", headers=headers, timeout=30)
        assert answer.status_code == FORBIDDEN
        assert "set-cookie" not in answer.headers
    assert httpx.get(f"{oidc.url}/sign-in/oidc", timeout=30).status_code == httpx.codes.METHOD_NOT_ALLOWED


def test_sign_in_leads_nowhere_else(oidc: OidcConsole, browser: httpx.Client) -> None:
    url = oidc.start(browser)
    oidc.provider.faults.answer = {"next": "https://evil.example.com", "url": "//evil.example.com"}
    answer = oidc.finish(browser, url)
    assert continued(answer) == "/"
    assert "evil" not in answer.text


def test_failure_of_the_provider_is_shown(oidc: OidcConsole, browser: httpx.Client) -> None:
    for path, status, shown, says in (
        ("/token", 500, AWAY, "cannot be reached"),
        ("/token", 400, BAD_GATEWAY, "answers in an unexpected way"),
        ("/keys", 503, AWAY, "cannot be reached"),
    ):
        oidc.provider.published = [a_key(f"new {path} {status}")]
        oidc.provider.faults.status = {path: status}
        assert_refused(oidc, browser, oidc.sign_in(browser), shown, says)
        oidc.provider.faults.status = {}
        assert continued(oidc.sign_in(browser)) == "/"
        oidc.sessions.revoke_all()


def test_unusable_answer_of_the_provider_is_shown(settings: Settings, oidc: OidcConsole) -> None:
    """By one console, in the order in which it asks: a document that it can use is kept."""
    paths, texts = ("/.well-known/openid-configuration", "/keys", "/token"), (NESTED, CANARY)
    with served(with_provider(settings, oidc.provider.issuer)) as url:
        fresh = OidcConsole(url=url, provider=oidc.provider, sessions=oidc.sessions, headers={})
        with fresh.browser() as browser:
            for path, answered in product(paths, texts):
                oidc.provider.faults.text = {path: answered}
                answer = browser.post("/sign-in/oidc")
                if path in ("/keys", "/token"):
                    answer = fresh.finish(browser, continued(answer))
                assert_refused(fresh, browser, answer, BAD_GATEWAY, "answers in an unexpected way")
                assert "canary" not in answer.text


CANARY = '{"keys": [{"kty": ["jana.canary@example.com"]}]}'


def test_wrong_secret_of_the_console_is_shown(settings: Settings, oidc: OidcConsole) -> None:
    wrong = with_provider(settings, oidc.provider.issuer).model_copy(update={"console_oidc_client_id": "another"})
    with served(wrong) as url:
        other = OidcConsole(url=url, provider=oidc.provider, sessions=oidc.sessions, headers={})
        with other.browser() as browser:
            answer = other.sign_in(browser)
            assert_refused(other, browser, answer, BAD_GATEWAY, "must check CONSOLE_OIDC_CLIENT_ID and")


def test_links_sign_in_while_the_provider_is_away(settings: Settings, oidc: OidcConsole, console: Console) -> None:
    with served(with_provider(settings, a_closed_port())) as url:
        other = OidcConsole(url=url, provider=oidc.provider, sessions=oidc.sessions, headers={})
        with other.browser() as browser:
            assert "Sign in with your organisation" in browser.get("/sign-in").text
            answer = browser.post("/sign-in/oidc")
            assert_refused(other, browser, answer, AWAY, "The sign-in of your organisation cannot be reached.")
            link = console.link().removeprefix(console.url)
            assert browser.post(link).headers["location"] == "/"
            assert browser.get("/").status_code == OK
            assert browser.post("/sign-out").headers["location"] == "/sign-in?signedOut"


# ---- sign-out


def test_sign_out_leads_to_the_sign_out_of_the_provider(oidc: OidcConsole, browser: httpx.Client) -> None:
    oidc.sign_in(browser)
    page = browser.post("/sign-out")
    url = continued(page)
    assert "You are signed out of the console" in page.text
    assert url.startswith(f"{oidc.provider.issuer}/sign-out?")
    assert parameters_of(url) == {"client_id": CLIENT_ID, "post_logout_redirect_uri": f"{oidc.url}/sign-in"}
    assert oidc.sessions.all() == []
    assert "duecall-console" not in browser.cookies


def test_sign_out_of_a_link_does_not_ask_the_provider(
    oidc: OidcConsole, browser: httpx.Client, console: Console
) -> None:
    browser.post(console.link().removeprefix(console.url))
    assert browser.post("/sign-out").headers["location"] == "/sign-in?signedOut"


# ---- the sign-in page


def test_button_is_shown_if_a_provider_is_configured(oidc: OidcConsole, console: Console) -> None:
    with oidc.browser() as browser, console.client() as other:
        page = browser.get("/sign-in").text
        assert "Sign in with your organisation" in page
        assert "duecall console login" in page
        assert "organisation" not in other.get("/sign-in").text
        for answer in (other.post("/sign-in/oidc"), other.get("/sign-in/callback?state=x&code=y")):
            assert answer.status_code == NOT_FOUND
            assert "CONSOLE_OIDC_ISSUER is not set" in answer.text
