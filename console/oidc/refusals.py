"""The reasons for which a sign-in with an identity provider fails."""

from enum import StrEnum


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
