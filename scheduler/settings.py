"""Every environment variable, read once. Nothing else in the product reads the environment."""

import os
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from scheduler.lifecycle.email_addresses import NotAnAddress, sender
from scheduler.lifecycle.policy import Policy
from scheduler.mail import SmtpServer

DEVELOPMENT_PEPPER = "development-pepper"
DEVELOPMENT_FLOWER_AUTH = "operator:operator"
DEVELOPMENT_SENDER = "Duecall <duecall@localhost.localdomain>"


class Settings(BaseSettings):
    """What may be set. A variable is the field's name in capitals; times are seconds, decimals allowed."""

    model_config = SettingsConfigDict(env_prefix="", case_sensitive=False, extra="ignore", hide_input_in_errors=True)

    duecall_env: Literal["development", "production"] = "development"
    duecall_home: Path = Path(".duecall")
    """Where embedded servers, run.json and logs live."""
    duecall_clock_offset_s: float = 0.0
    """Added to the clock of every process; refused in production."""
    duecall_failpoint: str = ""
    """Development only: the process ends itself, as by kill -9, where it has just made this durable."""

    database_url: SecretStr | None = None
    database_worker_url: SecretStr | None = None
    database_owner_url: SecretStr | None = None
    database_listen_url: SecretStr | None = None
    redis_url: SecretStr | None = None

    public_url: str = "http://127.0.0.1:8000"
    default_caller_id: str | None = None

    twilio_api_url: str = "https://api.twilio.com"
    twilio_account_sid: str = ""
    twilio_auth_token: SecretStr = SecretStr("")
    """Two, with a comma between them, while one replaces the other; the first is the one that we send."""
    twilio_voice_url: str = ""
    twilio_cps: float = Field(default=1.0, gt=0)
    twilio_max_calls: int = Field(default=50, ge=0)

    smtp_url: SecretStr | None = None
    """smtp:// or smtps://, see `mail.SmtpServer`; unset: mails are files below `duecall_home`."""
    mail_from: str | None = None
    """`Duecall <mail@example.com>`, or an address alone."""
    app_url: str | None = None
    """Where an invited person's link leads; default: this API, which has no page for it."""

    key_pepper: SecretStr = SecretStr(DEVELOPMENT_PEPPER)
    flower_basic_auth: SecretStr = SecretStr(DEVELOPMENT_FLOWER_AUTH)

    dial_lease_s: float = Field(default=60, gt=0)
    settle_s: float = Field(default=300, gt=0)
    sweep_s: float = Field(default=10, gt=0)
    ring_timeout_s: float = Field(default=30, ge=1, le=600)
    line_gap_s: float = Field(default=600, ge=0)
    carrier_connect_timeout_s: float = Field(default=3, gt=0)
    carrier_total_timeout_s: float = Field(default=13, gt=0)
    max_call_s: float = Field(default=11400, gt=0)

    @field_validator("public_url", "twilio_api_url")
    @classmethod
    def _without_a_last_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @field_validator("smtp_url", "mail_from", "app_url", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @field_validator("smtp_url")
    @classmethod
    def _is_a_mail_server(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            SmtpServer.of(url.get_secret_value())
        return url

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
    def _strong_in_production(self) -> Self:
        if self.duecall_env != "production":
            return self
        weak = [
            name
            for name, holds in (
                ("DUECALL_CLOCK_OFFSET_S", self.duecall_clock_offset_s != 0),
                ("DUECALL_FAILPOINT", bool(self.duecall_failpoint)),
                ("KEY_PEPPER", self.key_pepper.get_secret_value() == DEVELOPMENT_PEPPER),
                ("FLOWER_BASIC_AUTH", self.flower_basic_auth.get_secret_value() == DEVELOPMENT_FLOWER_AUTH),
                ("DATABASE_URL", self.database_url is None),
                ("REDIS_URL", self.redis_url is None),
                ("TWILIO_AUTH_TOKEN", not self.twilio_auth_token.get_secret_value()),
                ("SMTP_URL", self.smtp_url is None),
                ("MAIL_FROM", self.mail_from is None),
                ("APP_URL", self.app_url is None),
            )
            if holds
        ]
        if weak:
            raise ValueError(f"production refuses these as they are: {', '.join(weak)}. Set each of them.")
        return self

    @property
    def policy(self) -> Policy:
        """Raises UnsafeTimes when the times contradict each other."""
        return Policy(
            lease=timedelta(seconds=self.dial_lease_s),
            settle=timedelta(seconds=self.settle_s),
            sweep=timedelta(seconds=self.sweep_s),
            ring_timeout=timedelta(seconds=self.ring_timeout_s),
            line_gap=timedelta(seconds=self.line_gap_s),
            connect_timeout=timedelta(seconds=self.carrier_connect_timeout_s),
            total_timeout=timedelta(seconds=self.carrier_total_timeout_s),
            max_call=timedelta(seconds=self.max_call_s),
        )

    @property
    def auth_tokens(self) -> tuple[str, ...]:
        return tuple(token.strip() for token in self.twilio_auth_token.get_secret_value().split(",") if token.strip())

    @property
    def smtp_server(self) -> SmtpServer | None:
        return None if self.smtp_url is None else SmtpServer.of(self.smtp_url.get_secret_value())

    @property
    def sender(self) -> tuple[str, str]:
        """The name and the address that mail comes from."""
        return sender(self.mail_from or DEVELOPMENT_SENDER)

    @property
    def mail_folder(self) -> Path:
        """Where mails are put that have no server to go to."""
        return self.duecall_home / "mail"

    def database(self, role: Literal["api", "worker", "owner", "listen"]) -> str:
        """The URL for a role. Raises MissingSetting when there is no database at all."""
        chosen = {
            "api": self.database_url,
            "worker": self.database_worker_url,
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
        return self.redis_url.get_secret_value()


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with `variables` set; for a child process."""
    return {**os.environ, **variables}


class MissingSetting(Exception):
    """A setting without a default is not set."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not set. Set it, or run `duecall up`, which brings a private server of its own.")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process."""
    return Settings()
