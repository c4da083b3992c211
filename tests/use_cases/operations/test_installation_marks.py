"""Another pepper, carrier account or address on the same database is noticed, and accepted only by an operator."""

import os
import subprocess
import sys

import pytest
from pydantic import SecretStr

from scheduler import assembly
from scheduler.domain.refusals import InvalidRequest
from scheduler.persistence.errors import WrongDatabase
from scheduler.settings import Settings
from scheduler.use_cases.operations.installation import InstallationMarks
from tests.architecture.guards import guards
from tests.support.builders import Tenant, a_pending_attempt

OURS = Settings(key_pepper=SecretStr("a pepper of this installation"), twilio_account_sid="AC" + "1" * 32)
OTHERS: dict[str, dict[str, object]] = {
    "KEY_PEPPER": {"key_pepper": SecretStr("a pepper of another one")},
    "TWILIO_ACCOUNT_SID": {"twilio_account_sid": "AC" + "2" * 32},
}


def _marks(tenant: Tenant, settings: Settings = OURS) -> InstallationMarks:
    return assembly.marks_of(settings, tenant.database, "cli:an-operator@here")


def _other(name: str) -> Settings:
    return OURS.model_copy(update=OTHERS[name])


@pytest.mark.parametrize("name", OTHERS)
@guards("other_installation")
def test_other_setting_is_named_at_start(name: str, tenant: Tenant) -> None:
    _marks(tenant).record()
    _marks(tenant).record()
    for start in (_marks(tenant, _other(name)).check, _marks(tenant, _other(name)).record):
        with pytest.raises(WrongDatabase, match=rf"^{name} differ.*duecall db accept"):
            start()
    _marks(tenant).check()


def test_address_belongs_to_the_database_in_production(tenant: Tenant) -> None:
    production = OURS.model_copy(update={"duecall_env": "production", "public_url": "https://one.example.com"})
    elsewhere = production.model_copy(update={"public_url": "https://two.example.com"})
    _marks(tenant, production).record()
    with pytest.raises(WrongDatabase, match=r"^PUBLIC_URL differ"):
        _marks(tenant, elsewhere).check()
    _marks(tenant, elsewhere.model_copy(update={"duecall_env": "development"})).check()


def test_setting_that_a_process_lacks_is_not_compared(tenant: Tenant) -> None:
    _marks(tenant).record()
    _marks(tenant, OURS.model_copy(update={"twilio_account_sid": ""})).check()


def test_first_process_alone_writes_the_marks(tenant: Tenant) -> None:
    _marks(tenant).check()
    assert tenant.ask("SELECT setting FROM installation_marks") == []
    _marks(tenant).record()
    assert sorted(tenant.ask("SELECT setting, length(mark) FROM installation_marks")) == [
        ("KEY_PEPPER", 32),
        ("TWILIO_ACCOUNT_SID", 32),
    ]


@pytest.mark.parametrize("name", OTHERS)
def test_accepted_setting_replaces_the_old_one(name: str, tenant: Tenant) -> None:
    _marks(tenant).record()
    assert _marks(tenant, _other(name)).accept("the contract of spring") == [name]
    _marks(tenant, _other(name)).check()
    with pytest.raises(WrongDatabase):
        _marks(tenant).check()
    [act] = tenant.ask("SELECT actor, verb, reason, after ->> 'fields' FROM audit")
    assert act == ("cli:an-operator@here", "settings.accept", "the contract of spring", f'["{name}"]')
    assert _marks(tenant, _other(name)).accept() == ()


@guards("pepper_of_lines")
def test_other_pepper_is_refused_while_lines_are_used(tenant: Tenant) -> None:
    """A person whose number has two hashes has two lines, and could be called twice at once."""
    _marks(tenant).record()
    a_pending_attempt(tenant)
    with pytest.raises(InvalidRequest, match="could be called twice"):
        _marks(tenant, _other("KEY_PEPPER")).accept()
    assert _marks(tenant, _other("TWILIO_ACCOUNT_SID")).accept() == ["TWILIO_ACCOUNT_SID"]


def test_command_with_another_pepper_ends_with_one_line(tenant: Tenant, postgres_url: str) -> None:
    _marks(tenant).record()
    environment = {**os.environ, "DATABASE_URL": postgres_url, "KEY_PEPPER": "a pepper of another one"}
    command = [sys.executable, "-m", "scheduler", "keys", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("KEY_PEPPER differ")
    assert "Traceback" not in done.stderr


def test_command_accepts_another_account(tenant: Tenant, postgres_url: str) -> None:
    pepper = OURS.key_pepper.get_secret_value()
    _marks(tenant).record()
    environment = {**os.environ, "DATABASE_URL": postgres_url, "KEY_PEPPER": pepper, "TWILIO_ACCOUNT_SID": "AC2"}
    command = [sys.executable, "-m", "scheduler", "db", "accept", "--reason", "a new contract"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "accepted TWILIO_ACCOUNT_SID" in done.stderr
