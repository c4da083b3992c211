"""The pages Keys and Key, and the suspension, resumption and revocation of a key."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from scheduler.domain.principal import KeyKind, Principal
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.resources.keys import Keys
from tests.conftest import TestClock, real_now, seed
from tests.console.acts import words
from tests.console.conftest import PEPPER

OK, SEE_OTHER, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 200, 303, 403, 404, 409, 422
ACTS = ("suspend-key", "resume-key", "revoke-key")
New = Callable[..., Principal]


@pytest.fixture
def clock() -> TestClock:
    """A clock of the last hour. Each key is created a second later: ids of the same millisecond have no order."""
    return TestClock(real_now() - timedelta(hours=1))


@pytest.fixture
def keys(database: Database, clock: TestClock) -> Keys:
    return Keys(database, Hasher(PEPPER), clock)


@pytest.fixture
def company_id(database: Database) -> UUID:
    return seed(database, real_now()).company_id


@pytest.fixture
def new(keys: Keys, company_id: UUID, clock: TestClock) -> New:
    """Create keys, of the company unless it is another's."""

    def create(name: str = "night shift", *, of: UUID = company_id, is_ats: bool = False) -> Principal:
        kind = KeyKind.ATS if is_ats else KeyKind.REGULAR
        clock.move(timedelta(seconds=1))
        return keys.create(name=name, kind=kind, company_id=None if is_ats else of, per_minute=7)[0]

    return create


def _act(name: str, key: Principal) -> str:
    return f"/acts/{name}?key={key.key_id}"


def _page_of(key: Principal) -> str:
    return f"/keys/{key.key_id}"


def _listed(page: httpx.Response, *keys: Principal) -> list[Principal]:
    return sorted(
        (each for each in keys if str(each.key_id) in page.text), key=lambda one: page.text.index(_page_of(one))
    )


def test_keys_are_listed_newest_first(viewer: httpx.Client, new: New, database: Database, company_id: UUID) -> None:
    first, ats = new(), new("Acme ATS", is_ats=True)
    other = seed(database, real_now()).company_id
    theirs = new(of=other)
    page = viewer.get("/keys")
    assert _listed(page, first, ats, theirs) == [theirs, ats, first]
    assert "7 a minute" in words(page)
    assert "ATS: the companies that it created" in words(page)
    assert "one company: Acme" in words(page)
    assert _listed(viewer.get(f"/keys?company={company_id}"), first, ats, theirs) == [first]
    assert "1 active of 1" in words(viewer.get(f"/companies/{company_id}"))


def test_key_shows_its_state(viewer: httpx.Client, new: New, keys: Keys, database: Database) -> None:
    active, suspended, revoked, expired, both = (new() for _ in range(5))
    keys.suspend(suspended.key_id, "an invoice")
    keys.revoke(revoked.key_id)
    keys.suspend(both.key_id, None)
    keys.revoke(both.key_id)
    with database.transaction() as stores:
        stores.connection.execute(
            text("UPDATE api_keys SET expires_at = created_at WHERE id = :id"), {"id": expired.key_id}
        )
    shown = {key: words(viewer.get(_page_of(key))) for key in (active, suspended, revoked, expired, both)}
    assert "✓ Active" in shown[active]
    assert "❚❚ Suspended since" in shown[suspended]
    assert "Clients receive this reason: an invoice" in shown[suspended]
    assert all("✕ Revoked since" in shown[each] for each in (revoked, both))
    assert "✕ Expired" in shown[expired]


def test_key_of_a_deleted_company_is_not_active(
    viewer: httpx.Client, new: New, database: Database, company_id: UUID
) -> None:
    key = new()
    with database.transaction() as stores:
        stores.companies.delete(company_id, real_now())
    for page in (viewer.get(_page_of(key)), viewer.get("/keys")):
        assert "Company deleted" in words(page)
        assert "✓ Active" not in words(page)
        assert "Acme" not in page.text


def test_unknown_key_has_no_page(viewer: httpx.Client) -> None:
    for key in (str(uuid4()), "night-shift"):
        page = viewer.get(f"/keys/{key}")
        assert page.status_code == NOT_FOUND
        assert "There is no such key." in page.text


# ---- acts


def test_key_offers_only_acts_that_change_it(admin: httpx.Client, new: New, keys: Keys) -> None:
    key = new()

    def offered() -> list[str]:
        pages = [admin.get(path).text for path in (_page_of(key), "/keys")]
        [acts, listed] = [[each for each in ACTS if _act(each, key) in page] for page in pages]
        assert acts == listed
        return acts

    assert offered() == ["suspend-key", "revoke-key"]
    keys.suspend(key.key_id, None)
    assert offered() == ["resume-key", "revoke-key"]
    keys.revoke(key.key_id)
    assert offered() == []


def test_preview_of_a_revocation_says_what_stops(admin: httpx.Client, new: New, keys: Keys) -> None:
    key = new()
    shown = words(admin.get(_act("revoke-key", key)))
    assert f"The key night shift ({key.key_id}) reaches the company Acme. It was never used." in shown
    assert "401 INVALID_API_KEY" in shown
    assert "This is final" in shown
    assert "Its principal has no other active key" in shown
    keys.rotate(key.key_id, {})
    keys.used(key)
    shown = words(admin.get(_act("revoke-key", key)))
    assert "It was last used at 20" in shown
    assert "1 other active key of its principal stays valid." in shown
    assert "✓ Active" in words(admin.get(_page_of(key)))


def test_preview_of_an_ats_key_counts_its_companies(admin: httpx.Client, new: New, database: Database) -> None:
    key = new("Acme ATS", is_ats=True)
    assert f"The ATS key Acme ATS ({key.key_id}) reaches 0 companies." in words(admin.get(_act("suspend-key", key)))
    with database.transaction() as stores:
        stores.connection.execute(text("UPDATE companies SET ats_principal_id = :id"), {"id": key.id})
    shown = words(admin.get(_act("suspend-key", key)))
    assert f"The ATS key Acme ATS ({key.key_id}) reaches 1 company." in shown
    assert "401 API_KEY_SUSPENDED and your reason" in shown


def test_act_that_changes_nothing_says_so(admin: httpx.Client, new: New, keys: Keys) -> None:
    key = new()
    assert "The key is not suspended." in words(admin.get(_act("resume-key", key)))
    keys.suspend(key.key_id, "an invoice")
    assert "The key is suspended already: an invoice." in words(admin.get(_act("suspend-key", key)))
    keys.revoke(key.key_id)
    assert "The key is revoked already." in words(admin.get(_act("revoke-key", key)))
    for name in ("suspend-key", "resume-key"):
        answer = admin.get(_act(name, key))
        assert answer.status_code == UNPROCESSABLE
        assert "A revoked key cannot be restored." in answer.text
