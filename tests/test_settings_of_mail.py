"""Settings for mail, and those that production requires."""

import re

import pytest
from pydantic import ValidationError

from scheduler.settings import Settings

STRONG = {
    "duecall_env": "production",
    "database_url": "postgresql://u:p@db/duecall",
    "redis_url": "redis://:secret@r",
    "key_pepper": "a strong pepper, long enough",
    "webhook_key": "YSBrZXkgb2Ygd2ViaG9va3MgaW4gcHJvZHVjdGlvbi4=",
    "flower_basic_auth": "someone:a secret of theirs",
    "public_url": "https://duecall.example.com",
    "console_url": "https://console.example.com",
    "twilio_account_sid": "AC" + "1" * 32,
    "twilio_auth_token": "t",
    "twilio_voice_url": "https://voice.example.com/twiml",
    "smtp_url": "smtps://u:secret@mail.example.com",
    "mail_from": "Duecall <mail@example.com>",
    "app_url": "https://app.example.com/",
}


def test_production_takes_settings_that_are_strong() -> None:
    chosen = Settings.model_validate(STRONG)
    assert chosen.smtp_server is not None
    assert (chosen.sender, chosen.app_url) == (("Duecall", "mail@example.com"), "https://app.example.com")
    unset = ("alert_webhook_secret=None", "console_oidc_client_secret=None")
    assert "secret" not in re.sub("|".join(unset), "", repr(chosen))


@pytest.mark.parametrize("name", ["smtp_url", "mail_from", "app_url"])
@pytest.mark.parametrize("value", [None, ""])
def test_production_wants_mail_to_go_somewhere(name: str, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """F3-2."""
    for variable, strong in STRONG.items():
        monkeypatch.setenv(variable.upper(), strong)
    monkeypatch.delenv(name.upper())
    if value is not None:
        monkeypatch.setenv(name.upper(), value)
    with pytest.raises(ValidationError, match=rf"rejects missing or unsafe values of {name.upper()}\. Set each"):
        Settings()
    monkeypatch.setenv("DUECALL_ENV", "development")
    assert Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("smtp_url", "http://u:secret@mail.example.com"),
        ("smtp_url", "smtp://u:secret@mail.example.com?starttls=perhaps"),
        ("mail_from", "Duecall"),
        ("mail_from", "Duecall <mail@example.com>, <secret@example.com>"),
        ("mail_from", "Duecall\r\nBcc: secret@example.com <mail@example.com>"),
        ("app_url", "app.example.com"),
        ("app_url", "javascript:secret"),
        ("app_url", "https://app.example.com/?token=secret"),
        ("app_url", "https://app.example.com/\nsecret"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_and_not_quoted(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({name: value})
    assert [each["loc"] for each in refused.value.errors()] == [(name,)]
    assert "secret" not in str(refused.value)


def test_without_a_mail_server_mails_are_files_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "")
    chosen = Settings()
    assert chosen.smtp_server is None
    assert chosen.mail_folder == chosen.duecall_home / "mail"
    assert chosen.sender == ("Duecall", "duecall@localhost.localdomain")
