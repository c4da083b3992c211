"""Sign-in with an identity provider: its answers, its time, the state of a browser, and roles and ids in claims."""

import asyncio
import json
from collections.abc import Coroutine, Iterator, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from console import identity_provider, oidc
from console.identity_provider import Provider, Refusal, SignInRefused
from console.oidc import SignIn, is_plain, role_of
from scheduler.clock import machine_now
from scheduler.domain.principal import OperatorRole
from scheduler.hashing import Hasher
from tests.support.identity_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    FIRST_KEY,
    NESTED,
    IdentityProvider,
    a_key,
    an_identity_provider,
)
from tests.support.servers import a_closed_port

DISCOVERY = "/.well-known/openid-configuration"
PUBLIC_KEYS = [key.as_dict(private=False) for key in (a_key("another"), ECKey.generate_key("P-256", {"kid": "curve"}))]
VALUES = {role: f"duecall-{role}" for role in OperatorRole}


@pytest.fixture(scope="module")
def running_provider() -> Iterator[IdentityProvider]:
    with an_identity_provider() as provider:
        yield provider


@pytest.fixture
def provider(running_provider: IdentityProvider) -> IdentityProvider:
    running_provider.reset()
    return running_provider


def sign_in_at(issuer: str) -> SignIn:
    return SignIn(
        Provider(issuer, CLIENT_ID, CLIENT_SECRET),
        Hasher("a pepper for tests"),
        redirect_uri="http://127.0.0.1:1/sign-in/callback",
        after_sign_out_uri="http://127.0.0.1:1/sign-in",
        scope="openid",
        roles_claim="roles",
        roles=VALUES,
    )


def refusal_of(work: Coroutine[Any, Any, object]) -> tuple[Refusal, str | None]:
    with pytest.raises(SignInRefused) as refused:
        asyncio.run(work)
    return refused.value.refusal, refused.value.cause


# ---- the discovery document


@pytest.mark.parametrize(
    ("document", "cause"),
    [
        ({"issuer": "http://localhost:1"}, "the discovery document names another issuer"),
        ({"issuer": None}, "the discovery document names another issuer"),
        ({"authorization_endpoint": None}, "authorization_endpoint is missing or not https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is missing or not https"),
        ({"token_endpoint": "http://id.example.com/token"}, "token_endpoint is missing or not https"),
        ({"token_endpoint": "https://u:p@id.example.com/token"}, "token_endpoint is missing or not https"),
        ({"token_endpoint": ["https://id.example.com"]}, "token_endpoint is missing or not https"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri is missing or not https"),
        ({"jwks_uri": "https://[::1"}, "jwks_uri is missing or not https"),
        ({"jwks_uri": "https://id.example.com:99999/keys"}, "jwks_uri is missing or not https"),
        ({"authorization_endpoint": "https://id.example.com/\ud800"}, "authorization_endpoint is missing or not https"),
        ({"authorization_endpoint": "https://id.exa\nmple.com/"}, "authorization_endpoint is missing or not https"),
        ({"end_session_endpoint": "/sign-out"}, "end_session_endpoint is missing or not https"),
    ],
)
def test_wrong_discovery_document_is_refused(provider: IdentityProvider, document: dict[str, Any], cause: str) -> None:
    provider.faults.document = document
    assert refusal_of(sign_in_at(provider.issuer).start()) == (Refusal.PROVIDER_WRONG, cause)


def test_issuer_must_be_named_exactly(provider: IdentityProvider) -> None:
    refusal = refusal_of(sign_in_at(f"{provider.issuer}/").start())
    assert refusal == (Refusal.PROVIDER_WRONG, "the discovery document names another issuer")
    provider.faults.document = {"issuer": f"{provider.issuer}/"}
    assert asyncio.run(sign_in_at(f"{provider.issuer}/").start())


def test_https_issuer_must_have_https_endpoints() -> None:
    checked = Provider("https://id.example.com", CLIENT_ID, CLIENT_SECRET)
    with pytest.raises(SignInRefused):
        checked._endpoint({"jwks_uri": "http://127.0.0.1:9/keys"}, "jwks_uri")
    assert checked._endpoint({"jwks_uri": "https://keys.example.com/"}, "jwks_uri") == "https://keys.example.com/"


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (500, (Refusal.PROVIDER_AWAY, "status 500")),
        (503, (Refusal.PROVIDER_AWAY, "status 503")),
        (404, (Refusal.PROVIDER_WRONG, "status 404 without a JSON object")),
        (200, (Refusal.PROVIDER_WRONG, "status 200 without a JSON object")),
    ],
)
def test_failed_discovery_is_refused(
    provider: IdentityProvider, status: int, refusal: tuple[Refusal, str | None]
) -> None:
    provider.faults.status = {DISCOVERY: status}
    assert refusal_of(sign_in_at(provider.issuer).start()) == refusal


@pytest.mark.parametrize("text", [NESTED, f'{{"issuer": {NESTED}}}', "1" * 5000, "\x00"])
def test_unreadable_answer_is_refused(provider: IdentityProvider, text: str) -> None:
    wrong = (Refusal.PROVIDER_WRONG, "status 200 without a JSON object")
    at_provider = Provider(provider.issuer, CLIENT_ID, CLIENT_SECRET)
    provider.faults.text = {DISCOVERY: text}
    assert refusal_of(at_provider.metadata()) == wrong
    provider.faults.text = {"/keys": text, "/token": text}
    assert refusal_of(at_provider.keys()) == wrong
    assert refusal_of(at_provider.tokens("code", "verifier", "http://127.0.0.1:1/")) == wrong


@pytest.mark.parametrize("error", [["invalid_client"], {"a": 1}, 7, None])
def test_error_that_is_no_text_is_refused(provider: IdentityProvider, error: Any) -> None:
    provider.faults.text = {"/token": json.dumps({"error": error})}
    provider.faults.text_status = httpx.codes.BAD_REQUEST
    asked = Provider(provider.issuer, CLIENT_ID, CLIENT_SECRET).tokens("code", "verifier", "http://127.0.0.1:1/")
    assert refusal_of(asked) == (Refusal.PROVIDER_WRONG, "status 400 of the token endpoint")


# ---- the keys


@pytest.mark.parametrize("member", ["kty", "crv", "x", "y", "n", "e", "kid", "use", "alg", "key_ops"])
@pytest.mark.parametrize("value", [None, True, 7, "", "secp256k1", ["RSA"], {"RSA": 1}, [[]]])
def test_unusable_key_is_left_out(provider: IdentityProvider, member: str, value: Any) -> None:
    wrong = [{**key, member: value} for key in PUBLIC_KEYS if member in {*key, "use", "alg", "key_ops"}]
    provider.faults.text = {"/keys": json.dumps({"keys": [value, *wrong, FIRST_KEY.as_dict(private=False)]})}
    keys = asyncio.run(Provider(provider.issuer, CLIENT_ID, CLIENT_SECRET).keys())
    assert keys.get_by_kid("first").thumbprint() == FIRST_KEY.thumbprint()


@pytest.mark.parametrize("keys", [None, 7, "RSA", [], {}, [7], [{"kty": ["RSA"]}], [{"kty": {}}]])
def test_provider_without_usable_keys_is_refused(provider: IdentityProvider, keys: Any) -> None:
    provider.faults.text = {"/keys": json.dumps({"keys": keys})}
    refusal = refusal_of(Provider(provider.issuer, CLIENT_ID, CLIENT_SECRET).keys())
    assert refusal == (Refusal.PROVIDER_WRONG, "no usable key")


def test_redirect_of_the_discovery_is_not_followed(provider: IdentityProvider) -> None:
    provider.faults.redirects_at = DISCOVERY
    refusal = refusal_of(sign_in_at(provider.issuer).start())
    assert refusal == (Refusal.PROVIDER_WRONG, "a redirect, which is not followed")
    assert provider.asked == [DISCOVERY]


def test_hanging_provider_is_given_up(provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "DEADLINE_S", 0.3)
    provider.faults.hangs_at = DISCOVERY
    at_provider = sign_in_at(provider.issuer)
    assert refusal_of(at_provider.start()) == (Refusal.PROVIDER_AWAY, "no answer in time")
    assert refusal_of(at_provider.sign_out_url()) == (Refusal.PROVIDER_AWAY, "no answer in time")
    provider.faults.hangs_at = None
    monkeypatch.undo()
    started = asyncio.run(at_provider.start())
    monkeypatch.setattr(oidc, "DEADLINE_S", 0.3)
    provider.faults.hangs_at = "/token"
    answer = {"code": "x", "state": "x", "iss": provider.issuer}
    assert refusal_of(at_provider.finish(started.cookie, answer)) == (Refusal.PROVIDER_AWAY, "no answer in time")


def test_unreachable_provider_is_refused() -> None:
    refusal, cause = refusal_of(sign_in_at(a_closed_port()).start())
    assert (refusal, cause) == (Refusal.PROVIDER_AWAY, "ClientConnectorError")


def test_huge_answer_is_not_read(provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_provider, "_LARGEST_ANSWER", 100)
    refusal = refusal_of(sign_in_at(provider.issuer).start())
    assert refusal == (Refusal.PROVIDER_WRONG, "the answer is too large")


def test_discovery_is_kept_and_a_failure_is_not(provider: IdentityProvider) -> None:
    at_provider = sign_in_at(provider.issuer)
    provider.faults.status = {DISCOVERY: 500}
    assert refusal_of(at_provider.start())[0] is Refusal.PROVIDER_AWAY
    provider.faults.status = {}
    for _ in range(2):
        assert asyncio.run(at_provider.start()).url.startswith(f"{provider.issuer}/authorize?")
    assert provider.asked == [DISCOVERY] * 2


def test_provider_without_a_page_for_sign_out(provider: IdentityProvider) -> None:
    provider.faults.document = {"end_session_endpoint": None}
    assert asyncio.run(sign_in_at(provider.issuer).sign_out_url()) is None


# ---- the state


def test_state_expires_after_ten_minutes(provider: IdentityProvider) -> None:
    at_provider = sign_in_at(provider.issuer)

    def check(age: timedelta) -> None:
        cookie = f"secret.{int((machine_now() - age).timestamp())}"
        at_provider.check_state(cookie, at_provider._derived("state", cookie))

    check(timedelta(minutes=9))
    with pytest.raises(SignInRefused) as refused:
        check(timedelta(minutes=11))
    assert refused.value.refusal is Refusal.TOO_LATE


def test_state_belongs_to_the_whole_cookie(provider: IdentityProvider) -> None:
    at_provider = sign_in_at(provider.issuer)
    now = int(machine_now().timestamp())
    state = at_provider._derived("state", f"secret.{now - 3600}")
    for cookie in (f"secret.{now}", f"another.{now - 3600}", ""):
        with pytest.raises(SignInRefused) as refused:
            at_provider.check_state(cookie, state)
        assert refused.value.refusal is Refusal.NOT_STARTED


# ---- claims


@pytest.mark.parametrize(
    ("claims", "claim", "role"),
    [
        ({"roles": ["duecall-viewer"]}, "roles", OperatorRole.VIEWER),
        ({"roles": "duecall-admin"}, "roles", OperatorRole.ADMIN),
        ({"roles": "duecall-admin duecall-viewer"}, "roles", None),
        ({"roles": ["duecall-operator", "duecall-viewer"]}, "roles", OperatorRole.OPERATOR),
        ({"groups": ["duecall-viewer"]}, "roles", None),
        ({"realm_access": {"roles": ["duecall-viewer"]}}, "realm_access.roles", OperatorRole.VIEWER),
        ({"realm_access": ["duecall-viewer"]}, "realm_access.roles", None),
        ({"https://example.com/roles": ["duecall-viewer"]}, "https://example.com/roles", OperatorRole.VIEWER),
        ({"a.b": ["duecall-viewer"], "a": {"b": ["duecall-admin"]}}, "a.b", OperatorRole.VIEWER),
        ({}, "roles", None),
        *(({"roles": wrong}, "roles", None) for wrong in (None, [], "duecall", ["Duecall-Admin", "admin"], [7, None])),
        ({"roles": {"duecall-admin": True}}, "roles", None),
    ],
)
def test_role_is_the_highest_in_the_claim(claims: Mapping[str, Any], claim: str, role: OperatorRole | None) -> None:
    assert role_of(claims, claim, VALUES) is role


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("auth0|5f1c0d", True),
        ("b1946ac9-2d3c-4f3c-8d0e-0123456789ab", True),
        ("110169484474386276334", True),
        ("jana@example.com", False),
        ("421905123456", False),
        ("+421905123456", False),
        ("hashed-0123", False),
        ("a b", False),
        ("a\n", False),
        ("", False),
        ("x" * 65, False),
    ],
)
def test_id_is_shown_only_if_it_is_plain(subject: str, shown: bool) -> None:
    assert is_plain(subject) is shown
