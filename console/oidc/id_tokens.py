"""Verification of an ID token, and the actor and the role in its claims."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from authlib.oidc.core.claims import CodeIDToken
from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from console.oidc.provider import Refusal, SignInRefused, Tokens
from scheduler.domain.principal import OperatorRole

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
