"""Settings from the environment. Errors name the variables and never quote a secret."""

import base64
import re
from pathlib import Path

import pytest

from scheduler import settings as scheduler_settings
from scheduler.assembly import webhook_encryption
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.database import Database
from scheduler.setting_values import DEVELOPMENT_FLOWER_AUTH, DEVELOPMENT_PEPPER, DEVELOPMENT_WEBHOOK_KEY
from scheduler.settings import MissingSetting, Settings, WrongSettings, settings
from scheduler.webhooks.sending import Encryption
from tests.conftest import NOON
from tests.support.smtp_server import CERTIFICATE
from tests.test_settings_of_mail import STRONG


def _refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Return the error for these variables, a single line as every process prints it."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    with pytest.raises(WrongSettings) as refused:
        settings()
    said = str(refused.value)
    assert "\n" not in said
    return said


INVALID = {
    "the POST outlives the lease": (
        {"DIAL_LEASE_S": "1"},
        (
            "DIAL_LEASE_S=1 is too short for CARRIER_TOTAL_TIMEOUT_S=13: a POST must end before its lease, even if it"
            " is sent at the end of a claim's second. Set DIAL_LEASE_S to at least 14, or reduce"
            " CARRIER_TOTAL_TIMEOUT_S."
        ),
    ),
    "no second is left to send in": ({"DIAL_LEASE_S": "13.5"}, "Set DIAL_LEASE_S to at least 14"),
    "connecting takes all the time": (
        {"CARRIER_CONNECT_TIMEOUT_S": "13"},
        "Set CARRIER_TOTAL_TIMEOUT_S to more than 13, or reduce CARRIER_CONNECT_TIMEOUT_S.",
    ),
    "given up as soon as the lease is over": ({"SETTLE_S": "60"}, "Set SETTLE_S to more than 60"),
    "no gap on a line": ({"LINE_GAP_S": "0"}, "LINE_GAP_S must be greater than or equal to 1"),
    "calls that are never long": ({"SHORT_CALL_S": "601"}, "SHORT_CALL_S must be less than or equal to 600"),
    "endless": ({"SETTLE_S": "inf"}, "SETTLE_S must be a finite number"),
    "for aeons": ({"SWEEP_S": "1e300"}, "SWEEP_S must be less than"),
    "no number": ({"TWILIO_CPS": "nan"}, "TWILIO_CPS must be a finite number"),
    "a pace of 0": ({"TWILIO_CPS": "0.0001"}, "TWILIO_CPS must be greater than or equal to 0.001"),
    "too fast a pace": ({"TWILIO_CPS": "10001"}, "TWILIO_CPS must be less than or equal to 10000"),
    "too many calls": ({"TWILIO_MAX_CALLS": "2147483648"}, "TWILIO_MAX_CALLS must be less than"),
    "a query": ({"TWILIO_API_URL": "https://a.example/x?y=1"}, "TWILIO_API_URL must not have a query"),
    "a fragment": ({"PUBLIC_URL": "https://a.example/#x"}, "PUBLIC_URL must not have a query"),
    "several errors together": ({"RING_TIMEOUT_S": "0", "TWILIO_CPS": "x"}, "; RING_TIMEOUT_S must be"),
    "an environment": ({"DUECALL_ENV": "prod"}, "DUECALL_ENV must be 'development' or 'production'"),
    "a host that Twilio refuses": (
        {"PUBLIC_URL": "https://due_call.example.com"},
        "PUBLIC_URL must name a host without",
    ),
    "a voice host that Twilio refuses": (
        {"TWILIO_VOICE_URL": "https://my_app.example.com/a_b"},
        "TWILIO_VOICE_URL must",
    ),
    "no scheme": ({"PUBLIC_URL": "duecall.example.com"}, "PUBLIC_URL must be a URL that begins"),
}


@pytest.mark.parametrize(("variables", "says"), INVALID.values(), ids=INVALID)
def test_invalid_setting_is_refused_by_its_variable_name(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    assert says in _refusal(monkeypatch, **variables)


@pytest.mark.parametrize(
    ("name", "url", "says"),
    [
        ("DATABASE_URL", "mysql://u:secret@h/x", "begins with mysql://"),
        ("DATABASE_URL", "postgresql+psycopg://u:secret@h/x", "begins with postgresql+psycopg://"),
        ("DATABASE_URL", "secret", "use the form postgresql://"),
        ("DATABASE_URL", "my secret://x", "use the form postgresql://"),
        ("DATABASE_URL", "postgresql://u:sec/ret@h/x", "percent-encode"),
        ("DATABASE_URL", "postgresql://u:secret@h:99999/x", "an invalid host or port"),
        ("DATABASE_URL", "postgresql://u:secret@h:0/x", "an invalid host or port"),
        ("DATABASE_URL", "postgresql://u:secret%ZZ@h/x", "is not a valid URL"),
        ("DATABASE_URL", "postgresql://u:secret@h/x?nonsense=1", "is not a valid URL"),
        ("DATABASE_LISTEN_URL", "redis://:secret@h/0", "begins with redis://"),
        ("REDIS_URL", "localhost:6379", "use the form redis://"),
        ("REDIS_URL", "redis://:secret@h/name", "must end with a database number"),
        ("REDIS_URL", "redis://:secret@h:port/0", "an invalid host or port"),
        ("REDIS_URL", "redis://", "must name a host"),
        ("TWILIO_API_URL", "ftp://h", "begins with ftp://"),
    ],
)
def test_invalid_url_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, says: str
) -> None:
    said = _refusal(monkeypatch, **{name: url})
    assert said.startswith(f"{name} ")
    assert says in said
    assert "secret" not in said
    assert "sec/" not in said


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgresql://u:p%40ss@h/x"),
        ("DATABASE_URL", "postgres://h:5433/x?sslmode=require"),
        ("DATABASE_URL", "postgresql:///x?host=/run/postgresql"),
        ("DATABASE_URL", "postgresql://u:p@[::1]:5432/x"),
        ("REDIS_URL", "rediss://:p@h:6380/1"),
        ("REDIS_URL", "redis://h"),
    ],
)
def test_a_url_that_is_one_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setenv(name, url)
    taken = getattr(Settings(), name.lower())
    assert taken.get_secret_value() == url


WEBHOOK = {
    "ALERT_WEBHOOK_URL": "https://pager.example.com/secret",
    "ALERT_WEBHOOK_SECRET": "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0",
}
OIDC = {
    "CONSOLE_OIDC_ISSUER": "https://id.example.com/realm/",
    "CONSOLE_OIDC_CLIENT_ID": "the-console",
    "CONSOLE_OIDC_CLIENT_SECRET": "a secret of the console",
}
PRODUCTION = {name.upper(): value for name, value in STRONG.items()} | WEBHOOK | OIDC
WEAK = [
    ("KEY_PEPPER", DEVELOPMENT_PEPPER),
    ("KEY_PEPPER", "too short"),
    ("WEBHOOK_KEY", DEVELOPMENT_WEBHOOK_KEY),
    ("WEBHOOK_KEY", f"{STRONG['webhook_key']},{DEVELOPMENT_WEBHOOK_KEY}"),
    ("FLOWER_BASIC_AUTH", DEVELOPMENT_FLOWER_AUTH),
    ("FLOWER_BASIC_AUTH", "operator"),
    ("FLOWER_BASIC_AUTH", "operator:short"),
    ("FLOWER_BASIC_AUTH", ":long enough, and no user"),
    ("DATABASE_URL", ""),
    ("REDIS_URL", ""),
    ("REDIS_URL", "redis://r"),
    ("REDIS_URL", "rediss://user@r:6380/0"),
    ("REDIS_URL", "rediss://:secret@r:6380/0?ssl_cert_reqs=none"),
    ("REDIS_URL", "rediss://:secret@r:6380/0?ssl_check_hostname=false"),
    ("FLOWER_REDIS_URL", "rediss://:secret@r:6380/0?ssl_cert_reqs=none"),
    ("PUBLIC_URL", ""),
    ("PUBLIC_URL", "http://duecall.example.com"),
    ("PUBLIC_URL", "http://localhost:8000"),
    ("CONSOLE_URL", ""),
    ("CONSOLE_URL", "http://console.example.com"),
    ("CONSOLE_URL", "http://127.0.0.1:8001"),
    ("TWILIO_API_URL", "http://api.example.com"),
    ("TWILIO_ACCOUNT_SID", ""),
    ("TWILIO_AUTH_TOKEN", ""),
    ("TWILIO_AUTH_TOKEN", " , "),
    ("TWILIO_VOICE_URL", ""),
    ("TWILIO_VOICE_URL", "http://voice.example.com"),
    ("TWILIO_VOICE_URL", "http://localhost:9000/twiml"),
    ("SMTP_URL", ""),
    ("MAIL_FROM", ""),
    ("APP_URL", ""),
    ("APP_URL", "http://app.example.com"),
    ("APP_URL", "http://127.0.0.1:3000"),
    ("ALERT_WEBHOOK_URL", "http://127.0.0.1:9/pager"),
    ("CONSOLE_OIDC_ISSUER", "http://127.0.0.1:9/realm"),
    ("DUECALL_CLOCK_OFFSET_S", "1"),
    ("DUECALL_FAILPOINT", "dial.claimed"),
]


@pytest.mark.parametrize(("name", "value"), WEAK)
def test_production_refuses_weak_settings_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    said = _refusal(monkeypatch, **PRODUCTION | {name: value})
    assert f"production rejects missing or unsafe values of {name}. Set each" in said
    assert "secret" not in said
    monkeypatch.setenv("DUECALL_ENV", "development")
    assert Settings()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ALERT_WEBHOOK_SECRET": ""}, "ALERT_WEBHOOK_SECRET is required with ALERT_WEBHOOK_URL"),
        ({"ALERT_WEBHOOK_URL": "http://pager.example.com/secret"}, "ALERT_WEBHOOK_URL must begin with https://"),
        ({"ALERT_WEBHOOK_URL": "ftp://pager.example.com/secret"}, "ALERT_WEBHOOK_URL must be a URL that begins with"),
        ({"ALERT_WEBHOOK_SECRET": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"}, "ALERT_WEBHOOK_SECRET must be whsec_"),
        ({"ALERT_WEBHOOK_SECRET": "whsec_c2VjcmV0"}, "ALERT_WEBHOOK_SECRET must be whsec_"),
        ({"ALERT_WEBHOOK_SECRET": "whsec_not base64"}, "ALERT_WEBHOOK_SECRET must be whsec_"),
    ],
)
def test_wrong_webhook_is_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str) -> None:
    refusal = _refusal(monkeypatch, **WEBHOOK | variables)
    assert said in refusal
    assert "secret" not in refusal
    assert "c2Vjcm" not in refusal


KEY, OLD_KEY = (base64.b64encode(letter * 32).decode() for letter in (b"n", b"o"))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (KEY, (b"n" * 32,)),
        (f"{KEY},{OLD_KEY}", (b"n" * 32, b"o" * 32)),
        (f" {KEY} , {OLD_KEY} ", (b"n" * 32, b"o" * 32)),
    ],
)
def test_webhook_key_is_one_or_two(monkeypatch: pytest.MonkeyPatch, text: str, keys: tuple[bytes, ...]) -> None:
    monkeypatch.setenv("WEBHOOK_KEY", text)
    assert Settings().webhook_keys == keys
    encrypted = webhook_encryption(Settings()).encrypt("a secret", "here")
    assert Encryption(keys[:1]).decrypt(encrypted, "here") == "a secret"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("secret", "WEBHOOK_KEY must be the base64 of 32 random bytes"),
        (KEY[:-4], "WEBHOOK_KEY must be the base64 of 32 random bytes"),
        (base64.b64encode(b"n" * 33).decode(), "WEBHOOK_KEY must be the base64 of 32 random bytes"),
        (",", "WEBHOOK_KEY must be the base64 of 32 random bytes"),
        (f"{KEY},", "WEBHOOK_KEY must be the base64 of 32 random bytes"),
        (f"{KEY},{OLD_KEY},{DEVELOPMENT_WEBHOOK_KEY}", "WEBHOOK_KEY must be the base64 of 32 random bytes"),
        (f"{KEY},{KEY}", "WEBHOOK_KEY must not contain the same key twice"),
    ],
)
def test_wrong_webhook_key_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    refusal = _refusal(monkeypatch, WEBHOOK_KEY=text)
    assert says in refusal
    assert "secret" not in refusal
    assert KEY[:8] not in refusal


@pytest.mark.parametrize("url", [WEBHOOK["ALERT_WEBHOOK_URL"], "http://127.0.0.1:9/pager"])
def test_webhook_is_taken_and_optional(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert Settings().alert_webhook_url is None
    for name, value in (WEBHOOK | {"ALERT_WEBHOOK_URL": url}).items():
        monkeypatch.setenv(name, value)
    chosen = Settings().alert_webhook_url
    assert chosen is not None
    assert chosen.get_secret_value() == url


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"CONSOLE_OIDC_ISSUER": ""}, "CONSOLE_OIDC_ISSUER must be set, too, because CONSOLE_OIDC_CLIENT_ID and"),
        ({"CONSOLE_OIDC_CLIENT_ID": ""}, "CONSOLE_OIDC_CLIENT_ID must be set, too, because CONSOLE_OIDC_ISSUER and"),
        ({"CONSOLE_OIDC_CLIENT_SECRET": ""}, "CONSOLE_OIDC_CLIENT_SECRET must be set, too"),
        (
            {"CONSOLE_OIDC_ISSUER": "", "CONSOLE_OIDC_CLIENT_ID": ""},
            "CONSOLE_OIDC_ISSUER and CONSOLE_OIDC_CLIENT_ID must be set, too, because CONSOLE_OIDC_CLIENT_SECRET",
        ),
        ({"CONSOLE_OIDC_ISSUER": "http://id.example.com"}, "CONSOLE_OIDC_ISSUER must begin with https://"),
        ({"CONSOLE_OIDC_ISSUER": "id.example.com"}, "CONSOLE_OIDC_ISSUER must be a URL that begins with"),
        ({"CONSOLE_OIDC_ISSUER": "https://u:secret@id.example.com"}, "CONSOLE_OIDC_ISSUER must not have a user"),
        ({"CONSOLE_OIDC_ISSUER": "https://id.example.com?x=1"}, "CONSOLE_OIDC_ISSUER must not have a user, a query"),
        ({"CONSOLE_OIDC_SCOPE": "profile"}, "CONSOLE_OIDC_SCOPE must contain openid"),
        ({"CONSOLE_OIDC_VIEWER_ROLE": "duecall-admin"}, "CONSOLE_OIDC_ADMIN_ROLE must differ"),
    ],
)
def test_wrong_identity_provider_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    refusal = _refusal(monkeypatch, **OIDC | variables)
    assert said in refusal
    assert "secret" not in refusal


def test_address_of_docs_is_optional_and_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().console_docs_url is None
    monkeypatch.setenv("CONSOLE_DOCS_URL", "https://git.example.com/duecall/docs/")
    assert Settings().console_docs_url == "https://git.example.com/duecall/docs"
    for wrong in ("docs", "javascript:alert(1)"):
        assert "CONSOLE_DOCS_URL must be a URL" in _refusal(monkeypatch, CONSOLE_DOCS_URL=wrong)


@pytest.mark.parametrize("issuer", [OIDC["CONSOLE_OIDC_ISSUER"], "http://127.0.0.1:9"])
def test_identity_provider_is_taken_and_optional(monkeypatch: pytest.MonkeyPatch, issuer: str) -> None:
    assert Settings().console_oidc_issuer is None
    for name, value in (OIDC | {"CONSOLE_OIDC_ISSUER": issuer}).items():
        monkeypatch.setenv(name, value)
    assert Settings().console_oidc_issuer == issuer, "the issuer is compared with tokens, so no slash may be removed"
    assert "a secret" not in repr(Settings())


def test_every_refusal_of_production_is_proven_here() -> None:
    refusals = set(re.findall(r'^ +\("([A-Z_]+)", ', Path(scheduler_settings.__file__).read_text(), re.MULTILINE))
    assert refusals == {name for name, _ in WEAK}


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "DIAL_LEASE_S", "PUBLIC_URL"):
        monkeypatch.setenv(name, "")
    chosen = Settings()
    assert chosen.policy == Policy()
    with pytest.raises(MissingSetting, match="DATABASE_URL"):
        chosen.database("api")


def test_times_that_are_safe_together_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"CARRIER_CONNECT_TIMEOUT_S": "0.5", "CARRIER_TOTAL_TIMEOUT_S": "1.5", "DIAL_LEASE_S": "2.5"}
    for name, seconds in (times | {"SETTLE_S": "3", "LINE_GAP_S": "1"}).items():
        monkeypatch.setenv(name, seconds)
    assert Settings().policy.lease.total_seconds() == 2.5


@pytest.mark.parametrize("pace", [0.001, 0.0014, 1 / 3, 10_000])
def test_every_pace_that_is_accepted_fits_the_database(database: Database, pace: float) -> None:
    """The column has three decimals, and its CHECK refuses 0."""
    accepted = Settings(twilio_cps=pace, twilio_max_calls=1_000_000)
    with database.transaction() as stores:
        account_id = stores.carrier_accounts.ensure("AC7", accepted.twilio_cps, accepted.twilio_max_calls, NOON)
        assert stores.carrier_accounts.get(account_id).calls_per_second == pytest.approx(pace, abs=0.0005)


def test_a_file_of_cas_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = _refusal(monkeypatch, SSL_CERT_FILE=str(tmp_path / "missing.pem"))
    assert said == "SSL_CERT_FILE names a file that cannot be read: No such file or directory"


def test_a_file_without_a_certificate_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "empty.pem"
    file.write_text("no certificate", encoding="utf-8")
    said = _refusal(monkeypatch, SSL_CERT_FILE=str(file))
    assert said == "SSL_CERT_FILE names a file that holds no certificate in PEM form"


def test_a_file_of_cas_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    assert Settings().ssl_cert_file == CERTIFICATE
