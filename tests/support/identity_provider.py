"""A small identity provider (OpenID Connect) on loopback. Each of its answers can be wrong."""

import asyncio
import base64
import hashlib
import hmac
import html
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.servers import a_door, a_server, address_of

CLIENT_ID, CLIENT_SECRET = "the console", "a secret: of 100% the+console"
NESTED = "[" * 100_000 + "]" * 100_000
"""A text that no JSON parser of Python reads to its end."""
PERSON = {"email": "jana.canary@example.com", "name": "Jana Canary", "phone_number": "+421905123456"}


def a_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


FIRST_KEY = a_key("first")


@dataclass
class Faults:
    """Deviations from a correct provider. All fields have the values of a correct one."""

    claims: dict[str, Any] = field(default_factory=dict)
    """Replace claims of the ID token. None removes one."""
    header: dict[str, Any] = field(default_factory=dict)
    signed_with: RSAKey | ECKey | OctKey | bytes | None = None
    """In place of the first key. Bytes are a secret for HS256."""
    id_token: str | None = None
    """In place of a signed one."""
    document: dict[str, Any] = field(default_factory=dict)
    """Replace entries of the discovery document. None removes one."""
    answer: dict[str, str | None] = field(default_factory=dict)
    """Replace parameters with which the browser is sent back. None removes one."""
    takes_codes_twice: bool = False
    status: dict[str, int] = field(default_factory=dict)
    """Status of each path that fails."""
    text: dict[str, str] = field(default_factory=dict)
    """In place of the answer of each path, as JSON."""
    text_status: int = 200
    hangs_at: str | None = None
    redirects_at: str | None = None


@dataclass
class IdentityProvider:
    issuer: str
    subject: str = "auth0|5f1c"
    roles: Any = field(default_factory=lambda: ["duecall-operator"])
    published: list[RSAKey | ECKey | OctKey] = field(default_factory=lambda: [FIRST_KEY])
    faults: Faults = field(default_factory=Faults)
    has_page: bool = False
    """Show a page with a link before the browser is sent back. Otherwise the operator is signed in already."""
    asked: list[str] = field(default_factory=list)
    """Paths of the requests."""
    seen: list[dict[str, str]] = field(default_factory=list)
    """Parameters of the authorization requests."""
    tokens: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def reset(self) -> None:
        """Return to the state of a new provider."""
        vars(self).update(vars(IdentityProvider(self.issuer)))

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._document),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/keys", self._keys),
                Route("/sign-out", self._sign_out),
                Route("/elsewhere/{path:path}", self._elsewhere),
            ]
        )

    def id_token(self, nonce: str, access_token: str) -> str:
        now = int(time.time())
        digest = hashlib.sha256(access_token.encode()).digest()
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": self.subject,
            "exp": now + 300,
            "iat": now,
            "nonce": nonce,
            "roles": self.roles,
            "at_hash": _encoded(digest[:16]),
            **PERSON,
            **self.faults.claims,
        }
        key = self.faults.signed_with or self.published[0]
        present = {name: value for name, value in claims.items() if value is not None}
        if isinstance(key, bytes):
            parts = [{"alg": "HS256", **self.faults.header}, present]
            signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
            return f"{signed}.{_encoded(hmac.digest(key, signed.encode(), 'sha256'))}"
        header = {"typ": "JWT", "alg": "RS256", "kid": key.kid, **self.faults.header}
        # Not by `jwt.encode`, which cannot write half of a surrogate pair.
        return jws.serialize_compact(header, json.dumps(present).encode(), key, algorithms=[header["alg"]])

    async def _failure(self, request: Request) -> Response | None:
        path = request.url.path
        self.asked.append(path)
        if self.faults.hangs_at == path:
            await asyncio.Event().wait()
        if self.faults.redirects_at == path:
            return RedirectResponse(f"/elsewhere{path}")
        if path in self.faults.status:
            return Response("<h1>Error</h1>", self.faults.status[path])
        if path in self.faults.text:
            return Response(self.faults.text[path], self.faults.text_status, media_type="application/json")
        return None

    async def _document(self, request: Request) -> Response:
        return await self._failure(request) or self._discovery()

    def _discovery(self) -> Response:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "end_session_endpoint": f"{self.issuer}/sign-out",
            "authorization_response_iss_parameter_supported": True,
            **self.faults.document,
        }
        present = {name: value for name, value in document.items() if value is not None}
        return Response(json.dumps(present), media_type="application/json")  # in ASCII, as half of a surrogate pair

    async def _elsewhere(self, request: Request) -> Response:
        """The page to which a redirect leads: a correct answer, so that following it would succeed."""
        self.asked.append(request.url.path)
        return self._discovery()

    async def _authorize(self, request: Request) -> Response:
        sent = dict(request.query_params)
        self.seen.append(sent)
        code = token_urlsafe(16)
        self._codes[code] = sent
        answer = {"code": code, "state": sent["state"], "iss": self.issuer, **self.faults.answer}
        present = {name: value for name, value in answer.items() if value is not None}
        url = f"{sent['redirect_uri']}?{urlencode(present)}"
        if self.has_page:
            return HTMLResponse(f'<a href="{html.escape(url)}">Continue as Jana Canary</a>')
        return RedirectResponse(url, 302)

    async def _token(self, request: Request) -> Response:
        if (failure := await self._failure(request)) is not None:
            return failure
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        if not _is_client(request.headers.get("authorization"), form):
            return JSONResponse({"error": "invalid_client"}, 401)
        code = form.get("code", "")
        sent = self._codes.get(code) if self.faults.takes_codes_twice else self._codes.pop(code, None)
        challenge = _encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if sent is None or (sent["code_challenge"], sent["redirect_uri"]) != (challenge, form.get("redirect_uri")):
            return JSONResponse({"error": "invalid_grant", "error_description": "<b>no</b>"}, 400)
        access_token = token_urlsafe(16)
        id_token = self.faults.id_token or self.id_token(sent["nonce"], access_token)
        self.tokens += [id_token, access_token]
        return JSONResponse({"access_token": access_token, "token_type": "Bearer", "id_token": id_token})

    async def _keys(self, request: Request) -> Response:
        keys = KeySet(list(self.published)).as_dict(private=False)
        return await self._failure(request) or JSONResponse(keys)

    async def _sign_out(self, request: Request) -> Response:
        self.seen.append(dict(request.query_params))
        return HTMLResponse("<h1>Signed out of the organisation</h1>")


@contextmanager
def an_identity_provider() -> Iterator[IdentityProvider]:
    """Serve a provider. By its name it is another site than the console, whose address is a number."""
    door = a_door()
    provider = IdentityProvider(address_of(door).replace("127.0.0.1", "localhost"))
    with a_server(provider.app(), door):
        yield provider


def _is_client(authorization: str | None, form: dict[str, str]) -> bool:
    if authorization is None:
        return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
    client_id, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    return (unquote_plus(client_id), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)


def _encoded(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def parameters_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
