"""Requests to the identity provider: discovery document, keys, tokens. The reasons for which a sign-in fails."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn
from urllib.parse import quote_plus, urlsplit

import aiohttp
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, KeySet

from scheduler.clock import monotonic
from scheduler.setting_values import is_overheard

# --- The reasons for which a sign-in with an identity provider fails


class Refusal(StrEnum):
    NOT_STARTED = "not_started"
    """This browser did not start it, or another sign-in has replaced it."""
    TOO_LATE = "too_late"
    REPEATED = "repeated"
    DENIED = "denied"
    """The provider or the operator denied access."""
    PROVIDER_ERROR = "provider_error"
    """The provider sent the browser back with another error."""
    OTHER_ISSUER = "other_issuer"
    """The answer names another provider."""
    CODE_REFUSED = "code_refused"
    CLIENT_REFUSED = "client_refused"
    """The provider does not accept the console's id or secret."""
    NOT_VERIFIED = "not_verified"
    """The ID token is invalid, or not for this client and this sign-in."""
    ROLE_MISSING = "role_missing"
    PROVIDER_AWAY = "provider_away"
    PROVIDER_WRONG = "provider_wrong"
    """The provider answered with something that is not OpenID Connect, or not safe."""


class SignInRefused(Exception):
    """The operator is not signed in. The cause is a word of ours, and never a text of the provider."""

    def __init__(self, refusal: Refusal, cause: str | None = None) -> None:
        super().__init__(refusal, cause)
        self.refusal = refusal
        self.cause = cause


# --- Requests to the identity provider
# discovery document, keys, tokens. No redirects, no proxy of the environment.


_KEPT_S = 3600.0
"""Time after which the discovery document and the keys are requested again."""
_LARGEST_ANSWER = 1_000_000
_PUBLIC_KEYS = ("RSA", "EC")
"""Never a symmetric key: a token that is signed with the client's secret proves nothing."""
_OK, _BAD_REQUEST, _UNAUTHORIZED = 200, 400, 401
_REDIRECTS, _FAILURES = range(300, 400), range(500, 600)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The facts of the discovery document that sign-in needs."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str | None
    wants_secret_in_body: bool
    names_issuer: bool
    """The provider names itself in each answer (RFC 9207)."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    id_token: str
    access_token: str | None
    """Never used for a request. The ID token may contain its hash."""


class Provider:
    """The identity provider of one issuer. All methods raise SignInRefused. The caller limits their time."""

    def __init__(self, issuer: str, client_id: str, client_secret: str) -> None:
        self.issuer = issuer
        self.client_id = client_id
        self._client_secret = client_secret
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    async def metadata(self) -> Metadata:
        """Read the discovery document, which is kept for an hour."""
        if self._metadata is None or monotonic() - self._metadata[0] > _KEPT_S:
            url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
            self._metadata = monotonic(), self._checked(await _get(url))
        return self._metadata[1]

    async def keys(self, *, again: bool = False) -> KeySet:
        """Read the keys that sign ID tokens. They are kept for an hour, unless they are wanted `again`."""
        if again or self._keys is None or monotonic() - self._keys[0] > _KEPT_S:
            self._keys = monotonic(), _key_set(await _get((await self.metadata()).jwks_uri))
        return self._keys[1]

    async def tokens(self, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """Exchange an authorization code."""
        metadata = await self.metadata()
        body = prepare_token_request("authorization_code", redirect_uri=redirect_uri, code=code, code_verifier=verifier)
        client_id, secret, method = self.client_id, self._client_secret, "client_secret_post"
        if not metadata.wants_secret_in_body:
            # RFC 6749, section 2.3.1: both parts are encoded before they are joined with a colon.
            client_id, secret, method = quote_plus(client_id), quote_plus(secret), "client_secret_basic"
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        auth = ClientAuth(client_id, secret, method)
        url, headers, body = auth.prepare("POST", metadata.token_endpoint, headers, body)
        status, answer = await _request("POST", url, headers, body)
        if status != _OK:
            _raise_refusal(status, answer)
        id_token, access_token = answer.get("id_token"), answer.get("access_token")
        if not isinstance(id_token, str):
            raise SignInRefused(Refusal.PROVIDER_WRONG, "no ID token")
        return Tokens(id_token=id_token, access_token=access_token if isinstance(access_token, str) else None)

    def _checked(self, document: dict[str, Any]) -> Metadata:
        if document.get("issuer") != self.issuer:
            raise SignInRefused(Refusal.PROVIDER_WRONG, "the discovery document names another issuer")
        methods = document.get("token_endpoint_auth_methods_supported")
        return Metadata(
            authorization_endpoint=self._endpoint(document, "authorization_endpoint"),
            token_endpoint=self._endpoint(document, "token_endpoint"),
            jwks_uri=self._endpoint(document, "jwks_uri"),
            end_session_endpoint=(
                self._endpoint(document, "end_session_endpoint") if document.get("end_session_endpoint") else None
            ),
            # The default of the specification is client_secret_basic.
            wants_secret_in_body=isinstance(methods, list)
            and "client_secret_basic" not in methods
            and "client_secret_post" in methods,
            names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _endpoint(self, document: dict[str, Any], name: str) -> str:
        """Read an address of the document. It must be https, unless the issuer is http on this machine."""
        given = document.get(name)
        url = given if isinstance(given, str) else ""
        try:
            parts = urlsplit(url)
            is_safe = parts.scheme == "https" or (
                parts.scheme == "http" and self.issuer.startswith("http://") and not is_overheard(parts.geturl())
            )
            _ = parts.port  # raises for a number that no port has
        except ValueError:
            is_safe = False
        # Also line breaks, which `urlsplit` leaves out, and half of a surrogate pair, which no page can contain.
        if not is_safe or not parts.hostname or parts.username is not None or parts.fragment or not url.isprintable():
            raise SignInRefused(Refusal.PROVIDER_WRONG, f"{name} is missing or not https")
        return url


def _key_set(document: dict[str, Any]) -> KeySet:
    entries = document.get("keys")
    keys = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("kty") in _PUBLIC_KEYS and entry.get("use", "sig") == "sig":
            try:
                keys.append(JWKRegistry.import_key(entry))
            except (JoseError, ValueError, TypeError, KeyError):
                continue  # another key may be usable
    if not keys:
        raise SignInRefused(Refusal.PROVIDER_WRONG, "no usable key")
    return KeySet(keys)


def _raise_refusal(status: int, answer: dict[str, Any]) -> NoReturn:
    code = answer.get("error")
    if code == "invalid_grant":
        raise SignInRefused(Refusal.CODE_REFUSED)
    if status == _UNAUTHORIZED or code in ("invalid_client", "unauthorized_client"):
        raise SignInRefused(Refusal.CLIENT_REFUSED)
    raise SignInRefused(Refusal.PROVIDER_WRONG, f"status {status} of the token endpoint")


async def _get(url: str) -> dict[str, Any]:
    status, answer = await _request("GET", url, {"Accept": "application/json"}, None)
    if status != _OK:
        raise SignInRefused(Refusal.PROVIDER_WRONG, f"status {status}")
    return answer


async def _request(method: str, url: str, headers: dict[str, str], body: str | None) -> tuple[int, dict[str, Any]]:
    """Read the status and the JSON object of an answer."""
    try:
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.request(method, url, headers=headers, data=body, allow_redirects=False) as response,
        ):
            status, text = response.status, await _text(response)
    except (aiohttp.ClientError, OSError) as error:
        raise SignInRefused(Refusal.PROVIDER_AWAY, type(error).__name__) from error
    if status in _FAILURES:
        raise SignInRefused(Refusal.PROVIDER_AWAY, f"status {status}")
    if status in _REDIRECTS:
        raise SignInRefused(Refusal.PROVIDER_WRONG, "a redirect, which is not followed")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        if status in {_BAD_REQUEST, _UNAUTHORIZED}:
            return status, {}
        raise SignInRefused(Refusal.PROVIDER_WRONG, f"status {status} without a JSON object")
    return status, answer


async def _text(response: aiohttp.ClientResponse) -> bytes:
    read = bytearray()
    async for chunk in response.content.iter_any():
        read += chunk
        if len(read) > _LARGEST_ANSWER:
            raise SignInRefused(Refusal.PROVIDER_WRONG, "the answer is too large")
    return bytes(read)
