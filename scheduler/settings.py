"""Settings: every environment variable, read once. Nothing else in the product reads the environment."""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from scheduler.carriers.twilio import trusted
from scheduler.domain.principal import OperatorRole
from scheduler.lifecycle.policy import Policy, UnsafeTimes
from scheduler.mail import SmtpServer
from scheduler.rules.owners import NotAnAddress, sender
from scheduler.setting_values import (
    DEVELOPMENT_FLOWER_AUTH,
    DEVELOPMENT_PEPPER,
    DEVELOPMENT_WEBHOOK_KEY,
    check_database_url,
    check_private_url,
    check_redis_url,
    check_url,
    check_webhook_secret,
    is_overheard,
    is_plain_http,
    is_unverified,
    is_weak_login,
    is_weak_pepper,
    verifying,
    webhook_keys,
)

DEVELOPMENT_PUBLIC_URL = "http://127.0.0.1:8000"
DEVELOPMENT_CONSOLE_URL = "http://127.0.0.1:8001"
DEVELOPMENT_SENDER = "Duecall <duecall@localhost.localdomain>"

_A_YEAR_S = 366 * 86_400
Seconds = Annotated[float, Field(gt=0, le=_A_YEAR_S, allow_inf_nan=False)]

_USUAL = Policy()
"""The times of the dial protocol have their defaults there."""
_TIMES = {
    "lease": "dial_lease_s",
    "settle": "settle_s",
    "sweep": "sweep_s",
    "ring_timeout": "ring_timeout_s",
    "line_gap": "line_gap_s",
    "connect_timeout": "carrier_connect_timeout_s",
    "total_timeout": "carrier_total_timeout_s",
    "max_call": "max_call_s",
    "short_call": "short_call_s",
    "outcome_wait": "outcome_wait_s",
}
"""The setting of each time of the policy."""

_CHECKS: Mapping[str, Callable[[str], object]] = {
    **dict.fromkeys(("database_url", "database_worker_url", "database_operator_url"), check_database_url),
    **dict.fromkeys(("database_owner_url", "database_listen_url"), check_database_url),
    **dict.fromkeys(("redis_url", "flower_redis_url"), check_redis_url),
    "smtp_url": SmtpServer.of,
    "alert_webhook_url": check_private_url,
    "alert_webhook_secret": check_webhook_secret,
    "webhook_key": webhook_keys,
}
"""The check of each setting that may contain a secret. It raises ValueError, whose text quotes no secret."""


class Settings(BaseSettings):
    """All settings. A variable is the field's name in capitals. Times are seconds, decimals allowed."""

    model_config = SettingsConfigDict(
        env_prefix="", case_sensitive=False, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    duecall_env: Literal["development", "production"] = "development"
    duecall_home: Path = Path(".duecall")
    """Folder of the embedded servers, run.json and the logs."""
    duecall_proof_file: Path | None = None
    """File that a worker, the clock or Flower touches whenever its work has succeeded, for health checks."""
    duecall_clock_offset_s: float = Field(default=0.0, allow_inf_nan=False)
    """Added to the clock of every process. Rejected in production."""
    duecall_instance: str = ""
    """Id of the `duecall up` that started this process. It distinguishes its API from another on the same port."""
    duecall_failpoint: str = ""
    """Development only: the process kills itself at this failpoint, as by kill -9."""

    database_url: SecretStr | None = None
    database_worker_url: SecretStr | None = None
    database_operator_url: SecretStr | None = None
    database_owner_url: SecretStr | None = None
    database_listen_url: SecretStr | None = None
    redis_url: SecretStr | None = None

    public_url: str = DEVELOPMENT_PUBLIC_URL
    console_url: str = DEVELOPMENT_CONSOLE_URL
    """The address at which operators open the console. Other addresses are refused by it."""
    console_docs_url: str | None = None
    """Address of the folder docs of this version, for links to the steps of an alarm. Unset: steps are only named."""
    console_oidc_issuer: str | None = None
    """The identity provider of operators, exactly as its tokens name it. Unset: operators sign in with links only."""
    console_oidc_client_id: str | None = None
    console_oidc_client_secret: SecretStr | None = None
    console_oidc_scope: str = "openid"
    console_oidc_roles_claim: str = "roles"
    """A claim of the ID token, or a path with dots to one."""
    console_oidc_viewer_role: str = "duecall-viewer"
    console_oidc_operator_role: str = "duecall-operator"
    console_oidc_admin_role: str = "duecall-admin"
    default_caller_id: str | None = None

    twilio_api_url: str = "https://api.twilio.com"
    twilio_account_sid: str = ""
    twilio_auth_token: SecretStr = SecretStr("")
    """One token, or during a rotation two, separated by a comma. The first one is sent."""
    twilio_voice_url: str = ""
    voice_probe: bool = True
    """Whether the voice server answers GET TWILIO_VOICE_URL?probe=1. False: only a trial call shows that it works."""
    ssl_cert_file: Path | None = None
    """CAs (PEM) trusted for the carrier's certificate in addition to the system's. OpenSSL also reads it."""
    twilio_cps: float = Field(default=1.0, ge=0.001, le=10_000, allow_inf_nan=False)
    """Stored with three decimals. Never 0, because then no call would be placed, without any error."""
    twilio_max_calls: int = Field(default=50, ge=0, le=1_000_000)

    smtp_url: SecretStr | None = None
    """smtp:// or smtps://, see `mail.SmtpServer`. Unset: mails are written to files in `duecall_home`."""
    mail_from: str | None = None
    """`Duecall <mail@example.com>`, or only an address."""
    app_url: str | None = None
    """The web application that invitation links lead to. Default: this API, which has no page for them."""

    alert_webhook_url: SecretStr | None = None
    """Receiver of new alarms, see `webhooks.sender`. Its path may contain a secret. Unset: alarms are not posted."""
    alert_webhook_secret: SecretStr | None = None
    """Key of the signatures: `whsec_` and base64. Required with the URL."""

    key_pepper: SecretStr = SecretStr(DEVELOPMENT_PEPPER)
    webhook_key: SecretStr = SecretStr(DEVELOPMENT_WEBHOOK_KEY)
    """One key, or during a rotation two, separated by a comma. The first one encrypts the secrets of webhooks."""
    flower_basic_auth: SecretStr = SecretStr(DEVELOPMENT_FLOWER_AUTH)
    flower_redis_url: SecretStr | None = None
    """Redis for Flower, as a read-only user. None: Flower connects with REDIS_URL."""

    dial_lease_s: Seconds = _USUAL.lease.total_seconds()
    settle_s: Seconds = _USUAL.settle.total_seconds()
    sweep_s: Seconds = _USUAL.sweep.total_seconds()
    ring_timeout_s: float = Field(default=_USUAL.ring_timeout.total_seconds(), ge=1, le=600)
    line_gap_s: float = Field(default=_USUAL.line_gap.total_seconds(), ge=1, le=_A_YEAR_S)
    """Never zero: after an unknown outcome the phone may still be ringing, and every call to it waits for this gap."""
    carrier_connect_timeout_s: Seconds = _USUAL.connect_timeout.total_seconds()
    carrier_total_timeout_s: Seconds = _USUAL.total_timeout.total_seconds()
    max_call_s: Seconds = _USUAL.max_call.total_seconds()
    short_call_s: float = Field(default=_USUAL.short_call.total_seconds(), ge=0, le=600)
    outcome_wait_s: Seconds = _USUAL.outcome_wait.total_seconds()

    @field_validator("public_url", "twilio_api_url", "console_url", "console_docs_url")
    @classmethod
    def _without_a_last_slash(cls, url: str | None) -> str | None:
        if url is None:
            return None
        check_url(url, "web")
        if any(mark in url for mark in "?#"):
            raise ValueError("must not have a query or a fragment, because paths are appended to it")
        return url.rstrip("/")

    @field_validator("public_url", "twilio_voice_url")
    @classmethod
    def _has_a_host_that_the_carrier_takes(cls, url: str) -> str:
        if "_" in (urlsplit(url).hostname or ""):
            raise ValueError("must name a host without an underscore, which the carrier refuses")
        return url

    @field_validator("console_oidc_issuer")
    @classmethod
    def _is_an_issuer(cls, url: str | None) -> str | None:
        if url is not None:
            check_private_url(url)
            if any(mark in url for mark in "?#@"):
                raise ValueError("must not have a user, a query or a fragment")
        return url

    @field_validator("console_oidc_scope")
    @classmethod
    def _includes_openid(cls, scope: str) -> str:
        if "openid" not in scope.split():
            raise ValueError("must contain openid, for example: openid groups")
        return scope

    @model_validator(mode="after")
    def _oidc_is_complete(self) -> Self:
        values = {
            "CONSOLE_OIDC_ISSUER": self.console_oidc_issuer,
            "CONSOLE_OIDC_CLIENT_ID": self.console_oidc_client_id,
            "CONSOLE_OIDC_CLIENT_SECRET": self.console_oidc_client_secret,
        }
        missing = [name for name, value in values.items() if value is None]
        if missing and len(missing) < len(values):
            present = [name for name in values if name not in missing]
            raise ValueError(f"{' and '.join(missing)} must be set, too, because {' and '.join(present)} is set")
        roles = {self.console_oidc_viewer_role, self.console_oidc_operator_role, self.console_oidc_admin_role}
        if len(roles) < len(OperatorRole):
            raise ValueError(
                "CONSOLE_OIDC_VIEWER_ROLE, CONSOLE_OIDC_OPERATOR_ROLE and CONSOLE_OIDC_ADMIN_ROLE must differ"
            )
        return self

    @field_validator(*_CHECKS)
    @classmethod
    def _is_a_valid_secret(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            _CHECKS[info.field_name or ""](value.get_secret_value())
        return value

    @field_validator("ssl_cert_file")
    @classmethod
    def _holds_certificates(cls, file: Path | None) -> Path | None:
        # OpenSSL ignores a missing file silently.
        trusted(file)
        return file

    @model_validator(mode="after")
    def _safe_times(self) -> Self:
        try:
            _ = self.policy
        except UnsafeTimes as unsafe:
            raise ValueError(self._unsafe_text(unsafe)) from None
        return self

    def _unsafe_text(self, unsafe: UnsafeTimes) -> str:
        """Describe the broken rule with the names and values of the variables."""
        shorter, longer = (_TIMES[name] for name in (unsafe.shorter, unsafe.longer))
        least = getattr(self, shorter) + unsafe.by.total_seconds()
        bound = f"at least {least:g}" if unsafe.by else f"more than {least:g}"
        return (
            f"{longer.upper()}={getattr(self, longer):g} is too short for"
            f" {shorter.upper()}={getattr(self, shorter):g}: {unsafe.why}. Set {longer.upper()} to {bound},"
            f" or reduce {shorter.upper()}."
        )

    @field_validator("mail_from")
    @classmethod
    def _is_a_sender(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                sender(text)
            except NotAnAddress:
                raise ValueError("must be an address, or a name with one: Duecall <mail@example.com>") from None
        return text

    @field_validator("app_url")
    @classmethod
    def _is_a_web_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be the address of a web application: https://app.example.com")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("must be written in ASCII, without spaces")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _alarms_are_signed(self) -> Self:
        if self.alert_webhook_url is not None and self.alert_webhook_secret is None:
            raise ValueError("ALERT_WEBHOOK_SECRET is required with ALERT_WEBHOOK_URL; the receiver checks it")
        return self

    @model_validator(mode="after")
    def _strong_in_production(self) -> Self:
        if self.duecall_env != "production":
            return self
        weak = [
            name
            for name, holds in (
                ("DUECALL_CLOCK_OFFSET_S", self.duecall_clock_offset_s != 0),
                ("DUECALL_FAILPOINT", bool(self.duecall_failpoint)),
                ("KEY_PEPPER", is_weak_pepper(self.key_pepper.get_secret_value())),
                ("WEBHOOK_KEY", webhook_keys(DEVELOPMENT_WEBHOOK_KEY)[0] in self.webhook_keys),
                ("FLOWER_BASIC_AUTH", is_weak_login(self.flower_basic_auth.get_secret_value())),
                ("DATABASE_URL", self.database_url is None),
                ("REDIS_URL", self.redis_url is None or not urlsplit(self.redis_url.get_secret_value()).password),
                ("REDIS_URL", is_unverified(self.redis_url)),
                ("FLOWER_REDIS_URL", is_unverified(self.flower_redis_url)),
                ("PUBLIC_URL", is_plain_http(self.public_url)),
                ("CONSOLE_URL", is_plain_http(self.console_url)),
                ("TWILIO_API_URL", is_overheard(self.twilio_api_url)),
                ("TWILIO_ACCOUNT_SID", not self.twilio_account_sid),
                ("TWILIO_AUTH_TOKEN", not self.auth_tokens),
                ("TWILIO_VOICE_URL", is_plain_http(self.twilio_voice_url)),
                ("SMTP_URL", self.smtp_url is None),
                ("MAIL_FROM", self.mail_from is None),
                ("APP_URL", self.app_url is None or is_plain_http(self.app_url)),
                ("ALERT_WEBHOOK_URL", is_plain_http(self.alert_webhook_url)),
                ("CONSOLE_OIDC_ISSUER", is_plain_http(self.console_oidc_issuer)),
            )
            if holds
        ]
        if weak:
            raise ValueError(
                f"production rejects missing or unsafe values of {', '.join(weak)}. Set each of these variables."
            )
        return self

    @property
    def is_production(self) -> bool:
        return self.duecall_env == "production"

    @property
    def policy(self) -> Policy:
        """Raises UnsafeTimes when the times contradict each other."""
        return Policy(**{name: timedelta(seconds=getattr(self, setting)) for name, setting in _TIMES.items()})

    @property
    def times(self) -> dict[str, float]:
        """The times of the dial protocol in seconds, by the names of their variables."""
        return {name.upper(): float(getattr(self, name)) for name in _TIMES.values()}

    @property
    def auth_tokens(self) -> tuple[str, ...]:
        return tuple(token.strip() for token in self.twilio_auth_token.get_secret_value().split(",") if token.strip())

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        return webhook_keys(self.webhook_key.get_secret_value())

    @property
    def smtp_server(self) -> SmtpServer | None:
        return None if self.smtp_url is None else SmtpServer.of(self.smtp_url.get_secret_value())

    @property
    def sender(self) -> tuple[str, str]:
        """Name and address in the From header of mails."""
        return sender(self.mail_from or DEVELOPMENT_SENDER)

    @property
    def mail_folder(self) -> Path:
        """The folder for mails when no mail server is set."""
        return self.duecall_home / "mail"

    def database(self, role: Literal["api", "worker", "operator", "owner", "listen"]) -> str:
        """Choose the URL for a role, by default DATABASE_URL. Raises MissingSetting if neither is set."""
        chosen = {
            "api": self.database_url,
            "worker": self.database_worker_url,
            "operator": self.database_operator_url,
            "owner": self.database_owner_url,
            "listen": self.database_listen_url,
        }[role] or self.database_url
        if chosen is None:
            raise MissingSetting("DATABASE_URL")
        return chosen.get_secret_value()

    @property
    def redis(self) -> str:
        if self.redis_url is None:
            raise MissingSetting("REDIS_URL")
        return verifying(self.redis_url.get_secret_value())

    @property
    def flower_redis(self) -> str:
        """The URL for Flower, which only reads."""
        return self.redis if self.flower_redis_url is None else verifying(self.flower_redis_url.get_secret_value())


def environment(**variables: str) -> dict[str, str]:
    """Add `variables` to this process's environment, for a child process."""
    return {**os.environ, **variables}


def replace_environment(variables: Mapping[str, str]) -> None:
    """Give this process another environment, before its settings are read. For a forked process."""
    os.environ.clear()
    os.environ.update(variables)


class WrongSettings(Exception):
    """The settings are invalid. The message names each variable, what is wrong, and what to set."""


class MissingSetting(WrongSettings):
    """A setting without a default is not set."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not set. Set it, or run `duecall up`, which starts its own private servers.")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Read the settings of this process. Raises WrongSettings."""
    try:
        return Settings()
    except ValidationError as error:
        # The errors hide their input, which may be a secret.
        raise WrongSettings("; ".join(_error_text(each["loc"], each["msg"]) for each in error.errors())) from None


def _error_text(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{'.'.join(map(str, location)).upper()} {text}".strip()
