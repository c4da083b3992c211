"""Sign-in with OpenID Connect: from the button to the verified ID token, an actor and a role.

Authorization code, PKCE, state and nonce. Names and e-mail addresses in an ID token are neither stored nor logged.
"""

import asyncio
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core.claims import CodeIDToken
from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from console.identity_provider import Metadata, Provider, Refusal, SignInRefused, Tokens
from scheduler.clock import machine_now
from scheduler.domain.principal import OperatorRole
from scheduler.hashing import Hasher

# --- Verification of an ID token, and the actor and the role in its claims


SIGN_IN_LASTS = timedelta(minutes=10)
"""Time from the start of a sign-in to the provider's answer."""
_LEEWAY = timedelta(seconds=60)
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Never `none`, and no HMAC: its key would be the client's secret or a public key."""
_PLAIN_SUBJECT = re.compile(r"(?!hashed-)[A-Za-z0-9._|~-]{1,64}")
_LIKE_A_NUMBER = re.compile(r"\d{7,15}")


class UnknownKey(Exception):
    """No key with the id in the token's header is known. The provider may have changed its keys."""


def verified(tokens: Tokens, keys: KeySet, *, issuer: str, client_id: str, nonce: str, now: datetime) -> dict[str, Any]:
    """Check an ID token, and read its claims. It must be signed by one of these keys, for this client and this sign-in.

    Raises UnknownKey, SignInRefused.
    """
    try:
        token = jwt.decode(tokens.id_token, keys, algorithms=_ALGORITHMS)
        claims = CodeIDToken(
            token.claims,
            token.header,
            {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": client_id}},
            {"nonce": nonce, "client_id": client_id, "access_token": tokens.access_token},
        )
        claims.validate(now=int(now.timestamp()), leeway=int(_LEEWAY.total_seconds()))
        token.claims["sub"].encode()  # half of a surrogate pair cannot be hashed
        age_s = now.timestamp() - token.claims["iat"]
    except InvalidKeyIdError:
        raise UnknownKey from None
    except ClaimError as error:
        raise SignInRefused(Refusal.NOT_VERIFIED, f"claim {error.claim}") from None
    except JoseError as error:
        raise SignInRefused(Refusal.NOT_VERIFIED, error.error) from None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise SignInRefused(Refusal.NOT_VERIFIED, "malformed") from None
    if age_s > (SIGN_IN_LASTS + _LEEWAY).total_seconds():
        raise SignInRefused(Refusal.NOT_VERIFIED, "claim iat")
    if not token.claims["sub"]:
        raise SignInRefused(Refusal.NOT_VERIFIED, "claim sub")
    return token.claims


def role_of(claims: Mapping[str, Any], claim: str, values: Mapping[OperatorRole, str]) -> OperatorRole | None:
    """Find the highest role whose value the claim contains. A claim's name may be a path with dots."""
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for step in claim.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
    given = found if isinstance(found, list) else [found]
    return next((role for role in reversed(OperatorRole) if values[role] in given), None)


def is_plain(subject: str) -> bool:
    """Check that a subject may be shown: it is short, and neither an e-mail address nor like a phone number."""
    return _PLAIN_SUBJECT.fullmatch(subject) is not None and _LIKE_A_NUMBER.fullmatch(subject) is None


# --- A sign-in with the identity provider, from the button to an actor with a role
# The browser keeps one random secret in a cookie. State, nonce and PKCE verifier are keyed hashes of it, so that no
# row exists before an operator has signed in, and no attacker can make a cookie for a state.


DEADLINE_S = 5.0
"""Time for all requests of one step to the provider."""
_SECRET_BYTES = 32
_LONGEST_COOKIE = 80


@dataclass(frozen=True, kw_only=True)
class Started:
    url: str
    """Of the provider's sign-in page, with state, nonce and challenge."""
    cookie: str
    """A secret of this browser."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """An operator whom the provider has signed in."""

    actor: str
    role: OperatorRole
    state: str
    """Identifies the sign-in, which may open one session only."""


class SignIn:
    """All methods raise SignInRefused, and return within DEADLINE_S."""

    def __init__(
        self,
        provider: Provider,
        hasher: Hasher,
        *,
        redirect_uri: str,
        after_sign_out_uri: str,
        scope: str,
        roles_claim: str,
        roles: Mapping[OperatorRole, str],
    ) -> None:
        self._provider = provider
        self._hasher = hasher
        self._redirect_uri = redirect_uri
        self._after_sign_out_uri = after_sign_out_uri
        self._scope = scope
        self.roles_claim = roles_claim
        self.roles = roles

    async def start(self) -> Started:
        # By the machine's clock, as the provider's times: an installation's may be moved.
        cookie = f"{token_urlsafe(_SECRET_BYTES)}.{int(machine_now().timestamp())}"
        url = prepare_grant_uri(
            (await self._metadata()).authorization_endpoint,
            self._provider.client_id,
            "code",
            redirect_uri=self._redirect_uri,
            scope=self._scope,
            state=self._derived("state", cookie),
            nonce=self._derived("nonce", cookie),
            code_challenge=create_s256_code_challenge(self._derived("verifier", cookie)),
            code_challenge_method="S256",
        )
        return Started(url=url, cookie=cookie)

    def check_state(self, cookie: str | None, state: str | None) -> None:
        """Raise SignInRefused unless this browser started the sign-in with this state, within the last ten minutes."""
        if cookie is None or state is None or len(cookie) > _LONGEST_COOKIE:
            raise SignInRefused(Refusal.NOT_STARTED)
        if not compare_digest(self._derived("state", cookie).encode(), state.encode()):
            raise SignInRefused(Refusal.NOT_STARTED)
        # The state depends on the whole cookie, so its time is the one that `start` wrote.
        started_at = datetime.fromtimestamp(int(cookie.rpartition(".")[2]), UTC)
        if machine_now() - started_at > SIGN_IN_LASTS:
            raise SignInRefused(Refusal.TOO_LATE)

    async def finish(self, cookie: str, answer: Mapping[str, str]) -> Identity:
        """Identify the operator of the provider's answer, whose state was checked."""
        async with _time_limit():
            return await self._finish(cookie, answer)

    async def sign_out_url(self) -> str | None:
        """Find the page of the provider that ends the operator's session there. None: it has no such page."""
        url = (await self._metadata()).end_session_endpoint
        if url is None:
            return None
        # Without a hint of the ID token, which is not stored because it may contain a name.
        parameters = [
            ("client_id", self._provider.client_id),
            ("post_logout_redirect_uri", self._after_sign_out_uri),
        ]
        return str(add_params_to_uri(url, parameters))

    async def _finish(self, cookie: str, answer: Mapping[str, str]) -> Identity:
        metadata, issuer = await self._provider.metadata(), answer.get("iss")
        if issuer != self._provider.issuer and (issuer is not None or metadata.names_issuer):
            raise SignInRefused(Refusal.OTHER_ISSUER)
        if (error := answer.get("error")) is not None:
            raise SignInRefused(Refusal.DENIED if error == "access_denied" else Refusal.PROVIDER_ERROR)
        if not (code := answer.get("code")):
            raise SignInRefused(Refusal.PROVIDER_ERROR, "no code")
        tokens = await self._provider.tokens(code, self._derived("verifier", cookie), self._redirect_uri)
        claims = await self._claims(tokens, self._derived("nonce", cookie))
        role = role_of(claims, self.roles_claim, self.roles)
        if role is None:
            raise SignInRefused(Refusal.ROLE_MISSING)
        return Identity(actor=f"oidc:{self._subject(claims['sub'])}", role=role, state=answer["state"])

    async def _metadata(self) -> Metadata:
        async with _time_limit():
            return await self._provider.metadata()

    async def _claims(self, tokens: Tokens, nonce: str) -> Mapping[str, object]:
        for again in (False, True):
            keys = await self._provider.keys(again=again)
            try:
                return verified(
                    tokens,
                    keys,
                    issuer=self._provider.issuer,
                    client_id=self._provider.client_id,
                    nonce=nonce,
                    now=machine_now(),
                )
            except UnknownKey:
                continue
        raise SignInRefused(Refusal.NOT_VERIFIED, "unknown key")

    def _derived(self, purpose: str, cookie: str) -> str:
        return urlsafe_b64encode(self._hasher.sign_in(purpose, cookie)).rstrip(b"=").decode()

    def _subject(self, subject: object) -> str:
        text = str(subject)
        return text if is_plain(text) else f"hashed-{self._hasher.subject(self._provider.issuer, text).hex()[:32]}"


@asynccontextmanager
async def _time_limit() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield
    except TimeoutError:
        raise SignInRefused(Refusal.PROVIDER_AWAY, "no answer in time") from None
