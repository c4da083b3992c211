"""Operator commands for keys: created, listed, suspended, resumed, revoked, rotated."""

import shlex
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from scheduler.domain.refusals import ApiKeySuspended, InvalidApiKey
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.resources.keys import ALL_SCOPES, DEFAULT_SCOPES, Keys, is_well_formed
from tests.architecture.guards import guards
from tests.command_line.conftest import Duecall
from tests.conftest import Seeded, TestClock


@pytest.fixture
def keys(database: Database, hasher: Hasher, now: TestClock) -> Keys:
    return Keys(database, hasher, now)


def made(duecall: Duecall, words: str) -> tuple[str, str]:
    """The id of a new key, and the key."""
    said = duecall(f"keys create {words} --json")
    assert said.code == 0, said.err
    assert set(said.data) == {"keyId", "key"}
    return said.data["keyId"], said.data["key"]


def listed(duecall: Duecall, key_id: str) -> dict[str, Any]:
    [found] = [each for each in duecall("keys list --json").data if each["keyId"] == key_id]
    return dict(found)


def test_company_key_has_every_scope_but_that_of_events(
    duecall: Duecall, seeded: Seeded, keys: Keys, hasher: Hasher
) -> None:
    said = duecall(f"keys create --company {seeded.company_id}")
    secret = said.out.strip()
    assert is_well_formed(secret)
    key = keys.authenticate(secret)
    assert (key.principal.company_id, key.principal.scopes) == (seeded.company_id, DEFAULT_SCOPES)
    assert {"read:webhooks", "write:webhooks", "voice"} == ALL_SCOPES - DEFAULT_SCOPES
    assert key.principal.id == key.principal.key_id
    assert (key.per_minute, key.per_hour, key.expires_at) == (60, 2000, None)
    assert {"delete:companies", "read:billing", "read:webhooks"} <= ALL_SCOPES


@guards("voice_limits")
def test_key_of_a_voice_server_has_limits_for_many_calls(duecall: Duecall, seeded: Seeded) -> None:
    """Three requests a call, of 200 answered calls a minute."""
    for options, limits in (
        ("--scopes voice", (600, 36_000)),
        ("--scopes voice --per-minute 7", (7, 36_000)),
        ("--scopes voice,read:jobs", (60, 2000)),
    ):
        key = listed(duecall, made(duecall, f"--company {seeded.company_id} {options}")[0])
        assert (key["perMinute"], key["perHour"]) == limits


def test_keys_create_applies_its_options(duecall: Duecall, seeded: Seeded, keys: Keys) -> None:
    key_id, secret = made(
        duecall,
        f"--company {seeded.company_id} --scopes read:jobs,write:jobs --expires 2026-04-03T14:00+02:00"
        " --per-minute 7 --per-hour 70",
    )
    assert keys.authenticate(secret).principal.scopes == {"read:jobs", "write:jobs"}
    assert listed(duecall, key_id) | {"createdAt": "", "principalId": ""} == {
        "keyId": key_id,
        "principalId": "",
        "kind": "REGULAR",
        "companyId": str(seeded.company_id),
        "name": "regular",
        "state": "ACTIVE",
        "scopes": ["read:jobs", "write:jobs"],
        "perMinute": 7,
        "perHour": 70,
        "createdAt": "",
        "expiresAt": "2026-04-03T12:00:00Z",
        "suspendedAt": None,
        "suspendReason": None,
        "revokedAt": None,
        "lastUsedAt": None,
    }


def test_keys_of_a_company_have_names(duecall: Duecall, seeded: Seeded) -> None:
    company = f"--company {seeded.company_id}"
    named, _ = made(duecall, f"{company} --name ' the night shift '")
    unnamed, _ = made(duecall, company)
    rotated, _ = made(duecall, f"--rotate {named}")
    renamed, _ = made(duecall, f"--rotate {unnamed} --name 'the day shift'")
    names = [listed(duecall, key_id)["name"] for key_id in (named, unnamed, rotated, renamed)]
    assert names == ["the night shift", "regular", "the night shift", "the day shift"]
    assert f"owner         company {seeded.company_id}, the day shift" in duecall("keys list").out


def test_control_characters_in_a_key_name_are_not_printed(duecall: Duecall, seeded: Seeded, keys: Keys) -> None:
    key_id, _ = made(duecall, f"--company {seeded.company_id} --name 'the night shift'")
    with keys._database.transaction() as stores:
        change = text("UPDATE api_keys SET name = :name WHERE id = :id")
        stores.connection.execute(change, {"name": "the\n\x1b[31mnight shift", "id": key_id})
    assert listed(duecall, key_id)["name"] == "the [31mnight shift"
    assert "\x1b" not in duecall("keys list").out


def test_suspend_with_invalid_reason_changes_nothing(duecall: Duecall, seeded: Seeded, keys: Keys) -> None:
    key_id, secret = made(duecall, f"--company {seeded.company_id}")
    for reason, says in (
        ("call +421915123456", "contains text like a phone number"),
        ("jana@example.com asked for it", "contains text like an e-mail address"),
        (" ", "The reason is empty"),
        ("a\nb", "Remove character 2, U+000A"),
        ("x" * 201, "The reason has 201 characters"),
    ):
        said = duecall(f"keys suspend {key_id} --reason {shlex.quote(reason)}")
        assert (said.code, said.out) == (2, "")
        assert says in said.err
        assert not [each for each in ("915123456", "jana") if each in said.err]
        assert keys.authenticate(secret).principal.key_id == UUID(key_id)
    assert f"Key {key_id} is suspended" in duecall(f"keys suspend {key_id}").told, "none is needed"
    assert f"Key {key_id} is suspended" in duecall(f"keys suspend {key_id} --reason later").told, "it had none"
    assert listed(duecall, key_id)["suspendReason"] == "later"


def test_ats_key_has_no_company(duecall: Duecall, keys: Keys) -> None:
    key_id, secret = made(duecall, "--ats 'Acme ATS'")
    assert keys.authenticate(secret).principal.company_id is None
    assert listed(duecall, key_id)["name"] == "Acme ATS"
    assert "owner         ATS Acme ATS" in duecall("keys list").out


def test_suspended_key_is_rejected_until_resumed(duecall: Duecall, seeded: Seeded, keys: Keys) -> None:
    key_id, secret = made(duecall, f"--company {seeded.company_id}")
    assert f"Key {key_id} is suspended" in duecall(f"keys suspend {key_id} --reason 'the invoice of March'").told
    with pytest.raises(ApiKeySuspended):
        keys.authenticate(secret)
    assert "was already suspended" in duecall(f"keys suspend {key_id} --reason another").told
    assert listed(duecall, key_id)["suspendReason"] == "the invoice of March"
    assert "SUSPENDED: the invoice of March" in duecall("keys list").told
    for changed in (True, False):
        assert duecall(f"keys resume {key_id} --json").data == {"keyId": key_id, "changed": changed}
    assert keys.authenticate(secret).principal.key_id == UUID(key_id)
    assert listed(duecall, key_id)["suspendReason"] is None


def test_revoked_key_stays_revoked(duecall: Duecall, seeded: Seeded, keys: Keys) -> None:
    key_id, secret = made(duecall, f"--company {seeded.company_id}")
    assert "is revoked" in duecall(f"keys revoke {key_id}").told
    assert "was already revoked" in duecall(f"keys revoke {key_id}").told
    for verb in ("suspend", "resume"):
        said = duecall(f"keys {verb} {key_id}")
        assert said.code == 1
        assert "A revoked key cannot be restored" in said.told
    with pytest.raises(InvalidApiKey):
        keys.authenticate(secret)
    assert listed(duecall, key_id)["state"] == "REVOKED"


def test_suspended_key_is_not_rotated(duecall: Duecall, seeded: Seeded, keys: Keys) -> None:
    """Its rotation would open all that the suspension closed."""
    first_id, _ = made(duecall, f"--company {seeded.company_id}")
    second_id, _ = made(duecall, f"--rotate {first_id}")
    assert duecall(f"keys revoke {second_id}").code == 0
    assert duecall(f"keys suspend {first_id}").code == 0
    for which in (first_id, second_id):
        said = duecall(f"keys create --rotate {which}")
        assert said.code == 1
        assert f"duecall keys resume {first_id}" in said.err
    assert len(keys.all(seeded.company_id)) == 2
    assert duecall(f"keys resume {first_id}").code == 0
    third_id, third = made(duecall, f"--rotate {first_id}")
    assert str(keys.authenticate(third).principal.key_id) == third_id


def test_key_revoked_while_suspended_is_rotated(duecall: Duecall, seeded: Seeded, keys: Keys) -> None:
    key_id, _ = made(duecall, f"--company {seeded.company_id}")
    assert duecall(f"keys suspend {key_id}").code == 0
    assert duecall(f"keys revoke {key_id}").code == 0
    rotated_id, secret = made(duecall, f"--rotate {key_id}")
    assert str(keys.authenticate(secret).principal.key_id) == rotated_id


def test_rotation_keeps_principal_and_allows_two_live_keys(duecall: Duecall, seeded: Seeded, keys: Keys) -> None:
    first_id, first = made(duecall, f"--company {seeded.company_id} --scopes read:jobs --per-minute 7")
    second_id, second = made(duecall, f"--rotate {first_id} --expires 2027-01-01T00:00:00Z")
    one, two = keys.authenticate(first), keys.authenticate(second)
    assert one.principal.id == two.principal.id
    assert one.principal.scopes == two.principal.scopes == {"read:jobs"}
    assert (two.per_minute, two.per_hour) == (7, 2000)
    assert one.expires_at is None
    assert two.expires_at is not None
    said = duecall(f"keys create --rotate {second_id}")
    assert said.code == 1
    assert said.err.strip() == f"Revoke one of its keys first: {first_id}, {second_id}."
    duecall(f"keys revoke {first_id}")
    third_id, third = made(duecall, f"--rotate {first_id} --scopes read:agents")
    assert keys.authenticate(third).principal.id == one.principal.id
    assert keys.authenticate(third).principal.scopes == {"read:agents"}
    of_company = duecall(f"keys list --company {seeded.company_id} --json").data
    assert {each["keyId"] for each in of_company} == {first_id, second_id, third_id}


ERRORS = (
    ("keys create", "Give exactly one of --company ID, --ats NAME and --rotate"),
    (f"keys create --ats A --rotate {uuid4()}", "Give exactly one of --company ID, --ats NAME and --rotate"),
    ("keys create --ats ' '", "--ats needs a name"),
    ("keys create --ats A --name B", "--name cannot be combined with --ats"),
    ("keys create --ats 'A\nB'", "A key's name must be one line of 1 to 100 visible"),
    (f"keys create --company {uuid4()} --name ' '", "A key's name must be one line of 1 to 100 visible"),
    (f"keys create --company {uuid4()} --name {'x' * 101}", "A key's name must be one line of 1 to 100 visible"),
    ("keys create --ats A --scopes read:jbos", "There is no scope read:jbos. There are: delete:agents,"),
    ("keys create --ats A --expires 2026-04-02T11:59:59Z", "The expiry of a key must be in the future."),
    ("keys create --ats A --expires 2027-01-01T00:00", "--expires needs a UTC offset, Z or a time zone"),
    ("keys create --ats A --expires soon", "--expires is not a valid date-time"),
    ("keys create --ats A --per-minute 0", "--per-minute"),
    (f"keys create --company {uuid4()}", "There is no such company."),
    (f"keys create --rotate {uuid4()}", "There is no such key; `duecall keys list` has their ids."),
    (f"keys suspend {uuid4()}", "There is no such key"),
    (f"keys resume {uuid4()}", "There is no such key"),
    (f"keys revoke {uuid4()}", "There is no such key"),
    ("keys revoke sk_live_x", "Invalid value for 'KEY_ID'"),
)


def test_keys_errors_are_one_line(duecall: Duecall, keys: Keys) -> None:
    for words, says in ERRORS:
        said = duecall(words)
        assert said.is_one_error_line(1) or said.is_one_error_line(2), words
        assert says in said.err
    assert keys.all(None) == []


def test_keys_list_does_not_contain_secrets(duecall: Duecall, seeded: Seeded) -> None:
    assert "There are no API keys." in duecall("keys list").told
    _, secret = made(duecall, f"--company {seeded.company_id}")
    assert secret not in duecall("keys list").told + duecall("keys list --json").out
    assert "last used     never" in duecall("keys list").out
