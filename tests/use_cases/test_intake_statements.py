"""The intake of a command takes few statements. Their number is its cost."""

from collections.abc import Sequence

import pytest

from scheduler.domain.principal import KeyKind
from scheduler.domain.refusals import AccessDenied
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.submit import Submit
from tests.support.builders import Tenant
from tests.support.statements import statements_of
from tests.use_cases.conftest import Perform
from tests.use_cases.test_apply import a_wish

_BEGIN = ("BEGIN", "SELECT clock_timestamp()", "SELECT set_config")


def sent_within(statements: Sequence[str]) -> list[str]:
    """Leave out the statements that begin a transaction."""
    return [each for each in statements if not each.startswith(_BEGIN)]


def test_key_is_checked_in_one_statement(tenant: Tenant) -> None:
    keys = Keys(tenant.database, tenant.hasher, tenant.now)
    _, secret = keys.create(kind=KeyKind.REGULAR, name="a backend", company_id=tenant.company_id)
    with statements_of(tenant.database) as sent:
        keys.authenticate(secret)
    [only] = sent
    assert "key_of_hash" in only


def test_new_interview_is_accepted_in_two_statements(tenant: Tenant, accept: Perform) -> None:
    with statements_of(tenant.database) as sent:
        accept(a_wish(tenant))
    company, command = sent_within(sent)
    assert "FOR KEY SHARE" in company
    assert command.startswith("INSERT INTO inbox")


def test_command_is_found_in_one_statement(tenant: Tenant, accept: Perform, submit: Submit) -> None:
    command = accept(a_wish(tenant))
    with statements_of(tenant.database) as sent:
        assert submit.find(tenant.principal, str(command.id)) == command
    assert len(sent_within(sent)) == 1


def test_command_of_a_deleted_company_is_not_found(tenant: Tenant, accept: Perform, submit: Submit) -> None:
    command = accept(a_wish(tenant))
    tenant.change("UPDATE companies SET deleted_at = :at WHERE id = :id", at=tenant.now(), id=tenant.company_id)
    with pytest.raises(AccessDenied):
        submit.find(tenant.principal, str(command.id))
