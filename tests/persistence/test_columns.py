"""Columns that need a promise. A new column fails these tests, until it is in one of the lists."""

import ast
from pathlib import Path

from sqlalchemy import DateTime, LargeBinary

import tests
from scheduler.persistence.tables import metadata

# --- Instants that work waits for: each ends within a sweep if a wrong clock has written it


WAITED_FOR = {
    "companies.next_slot_at": "test_clock_set_back_within_a_minute_makes_no_call_late",
    "carrier_accounts.next_slot_at": "test_clock_set_back_within_a_minute_makes_no_call_late",
    "carrier_accounts.down_until": "test_back_off_from_the_future_ends_with_the_next_probe",
    "carrier_backoffs.down_until": "test_back_off_from_the_future_ends_with_the_next_probe",
    "candidates.leaving_at": "test_person_leaving_in_the_future_leaves_now",
    "attempts.due_at": "test_asap_call_requested_in_the_future_is_due_now",
    "attempts.released_until": "test_attempt_released_in_the_future_is_released_again",
    "attempts.unreadable_until": "test_attempt_unreadable_in_the_future_is_released",
    "attempts.held_until": "test_hold_from_the_future_ends",
    "attempts.lease_until": "test_lease_from_the_future_ends_within_a_lease",
    "attempts.look_at": "test_poll_from_the_future_is_made_at_once",
    "attempts.search_at": "test_search_from_the_future_is_made_at_once",
    "attempts.listed_at": "test_list_read_in_the_future_is_not_a_verdict",
    "attempts.claimed_at": "test_call_sent_within_a_shortened_lease_is_found",
    "attempts.unknown_at": "test_list_from_the_future_counts_as_unread",
    "attempts.updated_at": "test_deferral_from_the_future_is_due_soon",
    "attempts.outcome_until": "test_outcome_awaited_until_the_future_is_assumed_now",
    "stray_calls.look_at": "test_stray_call_with_a_distant_poll_is_polled",
    "reresolutions.not_before": "test_change_requested_in_the_future_is_processed_now",
    "reresolutions.rung_at": "test_change_requested_in_the_future_is_processed_now",
    "invitations.send_at": "test_invitation_of_the_future_is_sent",
    "erasures.rung_at": "test_work_hinted_in_the_future_is_hinted_again",
    "lines.free_at": "test_line_is_blocked_for_at_most_a_gap_from_now",
    "inbox.rung_at": "test_work_hinted_in_the_future_is_hinted_again",
    "inbox.awaited_until": "test_refusal_owed_in_the_future_is_reported",
    "batches.work_at": "test_batch_from_the_future_is_applied",
    "carrier_events.rung_at": "test_work_hinted_in_the_future_is_hinted_again",
    "alarms.post_at": "test_alarm_posted_in_the_future_is_posted",
    "webhook_endpoints.probe_at": "test_probe_of_the_future_is_sent",
    "webhook_endpoints.notice_at": "test_notice_of_the_future_is_due",
    "webhook_endpoints.claimed_at": "test_endpoint_served_in_the_future_gets_its_turn",
    "webhook_deliveries.send_at": "test_event_numbered_in_the_future_is_sent",
    "webhook_deliveries.held_until": "test_hold_of_a_delivery_from_the_future_ends",
    "webhook_deliveries.lease_until": "test_lease_of_a_delivery_in_the_future_has_ended",
    "webhook_deliveries.created_at": "test_event_numbered_in_the_future_is_sent",
    "webhook_deliveries.last_tried_at": "test_delivery_tried_in_the_future_waits_as_long_as_usual",
    "webhook_deliveries.first_failed_at": "test_delivery_tried_in_the_future_waits_as_long_as_usual",
}
"""The test that shows how each ends."""

_SHOWN = "it records when something happened: it is shown, sorted by, or compared to delete old rows"
_IS_SET = "it is compared with NULL alone, and its instant is shown"
_IS_VALID = "the end of a validity: no work waits for it"
NOT_WAITED_FOR = {
    **dict.fromkeys(("created_at", "updated_at", "received_at", "seen_at", "occurred_at", "booked_at"), _SHOWN),
    **dict.fromkeys(("at", "since", "first_seen_at", "last_seen_at", "last_used_at", "posted_at", "sent_at"), _SHOWN),
    **dict.fromkeys(
        ("applied_at", "heard_at", "finished_at", "ended_at", "started_at", "used_at", "outcome_at"), _SHOWN
    ),
    **dict.fromkeys(("paused_at", "deleted_at", "erased_at", "revoked_at", "suspended_at", "decided_at"), _IS_SET),
    **dict.fromkeys(("accepted_at", "acknowledged_at", "quarantined_at", "disabled_at", "circuit_opened_at"), _IS_SET),
    **dict.fromkeys(("api_keys.expires_at", "invitations.expires_at", "console_sessions.expires_at"), _IS_VALID),
    **dict.fromkeys(("sign_in_links.expires_at", "webhook_endpoints.old_secret_until"), _IS_VALID),
    **dict.fromkeys(
        ("interviews.expires_at", "attempts.expires_at"),
        "the client's limit, or seven days after the due time: a later end delays no call",
    ),
    "interviews.scheduled_at": "of interviews without calls, and requested by clients",
    "batches.first_due_at": "a total of the items, for the answer",
    "attempts.hung_up_at": "the wait for a verdict or a report is over if it begins later than now",
    "lines.refused_at": "a later one does not count as a blocked number of its country",
    "companies.resumed_at": "lateness is counted from it: a later one hides a delay from a metric, and delays nothing",
    "answered_at": "the breaker is half-open if it is not before `down_until`, which one clock wrote with it",
    "attempt_tokens.claimed_at": "the newest claims are read in its order, to recognise a copied database",
    "erasures.asked_at": "certificates are sorted by it",
    "reresolutions.asked_at": "it is shown as the age of a change",
    "webhook_endpoints.failing_since": "the next failure sets it to the present if it is later",
    "first_failed_at": "the time of the first failure is shown to operators, who decide",
}
"""By column, or by table and column: why no work waits for it."""

COLUMNS = {
    f"{table.name}.{column.name}"
    for table in metadata.tables.values()
    for column in table.c
    if isinstance(column.type, DateTime)
}


def test_each_instant_is_corrected_or_delays_no_work() -> None:
    """Does work wait for it? Then a wrong clock's write needs a correction."""
    explained = WAITED_FOR.keys() | NOT_WAITED_FOR.keys()
    assert {each for each in COLUMNS if not {each, each.partition(".")[2]} & explained} == set()


def test_lists_name_columns_that_exist() -> None:
    names = {each.partition(".")[2] for each in COLUMNS}
    assert WAITED_FOR.keys() <= COLUMNS
    assert NOT_WAITED_FOR.keys() <= COLUMNS | names
    assert not WAITED_FOR.keys() & NOT_WAITED_FOR.keys()


def test_each_correction_has_its_test() -> None:
    files = [path for path in Path(tests.__path__[0]).glob("use_cases/**/test_*.py") if "impossible" in path.name]
    parsed = [node for path in files for node in ast.parse(path.read_text()).body]
    assert set(WAITED_FOR.values()) <= {node.name for node in parsed if isinstance(node, ast.FunctionDef)}


# --- Binary columns: each is a keyed hash, or contains nothing about a person that could be found by trying


KEYED = "a hash with KEY_PEPPER"
ERASED = "a plain hash, deleted with the person whose number is next to it"
IMPERSONAL = "nothing about a person"
BINARY = {
    "api_keys.key_hash": KEYED,
    "attempt_history.seal": KEYED,
    "attempts.history_seal": KEYED,
    "attempts.number_hash": KEYED,
    "candidates.content_hash": ERASED,
    "carrier_events.fingerprint": KEYED,
    "console_sessions.token_hash": KEYED,
    "inbox.number_hash": KEYED,
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
    assert found == BINARY.keys()
