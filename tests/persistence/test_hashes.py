"""Binary columns: each is a keyed hash, or contains nothing about a person that could be found by trying."""

from sqlalchemy import LargeBinary

from scheduler.persistence.tables import metadata

KEYED = "a hash with KEY_PEPPER"
ERASED = "a plain hash, deleted with the person whose number is next to it"
IMPERSONAL = "nothing about a person"
EXPECTED = {
    "api_keys.key_hash": KEYED,
    "attempts.number_hash": KEYED,
    "candidates.content_hash": ERASED,
    "carrier_events.fingerprint": KEYED,
    "console_sessions.token_hash": KEYED,
    "inbox.request_hash": KEYED,
    "installation_marks.mark": KEYED,
    "interviews.content_hash": ERASED,
    "invitation_tokens.token_hash": KEYED,
    "jobs.content_hash": IMPERSONAL,
    "lines.number_hash": KEYED,
    "sign_in_links.token_hash": KEYED,
    "webhook_endpoints.headers": IMPERSONAL,
    "webhook_endpoints.old_secret": IMPERSONAL,
    "webhook_endpoints.secret": IMPERSONAL,
}
"""A new column needs a line here, and a test that shows it."""


def test_each_binary_column_is_keyed_or_without_a_person() -> None:
    found = {
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        for column in table.c
        if isinstance(column.type, LargeBinary)
    }
    assert found == EXPECTED.keys()
