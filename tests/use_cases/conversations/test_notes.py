"""Notes of reports: words about a person, which go with the person."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from scheduler.domain.attempt import Attempt, Deleted
from scheduler.persistence import conversations
from scheduler.use_cases.operations.erase import ErasePeople
from tests.architecture.guards import guards
from tests.architecture.sources import ROOT
from tests.conftest import wait_until
from tests.support.builders import ApiWriter, RecordingHints, Tenant, a_number, a_placed_attempt
from tests.use_cases.conftest import Perform, answered, candidate_of, end
from tests.use_cases.conversations.conftest import FINISHED, WRONG_PERSON, code, report

NOTE = "Starts in May"


@pytest.fixture
def records(voice: Tenant, hints: RecordingHints) -> ApiWriter:
    return ApiWriter(tenant=voice, hints=hints)


def noted(voice: Tenant, perform: Perform) -> Attempt:
    """A call in progress with a report and its note."""
    attempt = answered(voice, a_placed_attempt(voice, a_number()))
    assert report(perform, attempt, FINISHED, note=NOTE) is None
    assert voice.attempt(attempt.id).outcome_note == NOTE
    return attempt


def notes(voice: Tenant) -> int:
    [(count,)] = voice.ask("SELECT count(*) FROM attempts WHERE outcome_note IS NOT NULL")
    return int(count)


def test_note_is_deleted_with_the_person(voice: Tenant, perform: Perform, records: ApiWriter) -> None:
    """Also that of a call in progress. The outcome stays."""
    live, over = noted(voice, perform), end(voice, noted(voice, perform))
    for each in (live, over):
        records.delete_candidate(voice.principal, candidate_of(voice, each))
    assert notes(voice) == 0
    assert {voice.attempt(each.id).outcome for each in (live, over)} == {FINISHED}


def test_note_is_not_deleted_with_another_person(voice: Tenant, perform: Perform, records: ApiWriter) -> None:
    noted(voice, perform)
    records.delete_candidate(voice.principal, candidate_of(voice, noted(voice, perform)))
    assert notes(voice) == 1


def test_upgrade_page_deletes_notes_that_0_2_0_has_left(voice: Tenant, perform: Perform) -> None:
    kept, left = noted(voice, perform), noted(voice, perform)
    with voice.database.transaction() as stores:
        stores.candidates.erase(candidate_of(voice, left), voice.now())
    page = (ROOT / "docs/how-to/upgrade.md").read_text(encoding="utf-8")
    _, statement = re.findall(r"```sql\n(.*?);\n", page, re.DOTALL)
    voice.change(statement)
    assert [voice.attempt(each.id).outcome_note for each in (kept, left)] == [NOTE, None]


def test_note_is_deleted_with_its_attempt(voice: Tenant, perform: Perform) -> None:
    over = end(voice, noted(voice, perform))
    assert voice.take(over, Deleted()).outcome_note is None


def test_many_notes_of_a_person_are_deleted_by_a_worker(
    voice: Tenant, perform: Perform, records: ApiWriter, hints: RecordingHints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "NOTES_AT_ONCE", 2)
    made = [noted(voice, perform) for _ in range(3)]
    person = candidate_of(voice, made[0])
    voice.change("UPDATE interviews SET candidate_id = :person", person=person)
    records.delete_candidate(voice.principal, person)
    assert notes(voice) == 1
    ErasePeople(voice.context, hints).turn()
    assert notes(voice) == 0
    assert voice.ask("SELECT FROM candidates WHERE leaving_at IS NOT NULL") == []


@guards("note_of_the_erased")
def test_note_about_an_erased_person_is_not_stored(voice: Tenant, perform: Perform, records: ApiWriter) -> None:
    """The report is, and is the same again with the note, which was never stored."""
    attempt = answered(voice, a_placed_attempt(voice, a_number()))
    records.delete_candidate(voice.principal, candidate_of(voice, attempt))
    assert report(perform, attempt, FINISHED, note=NOTE) is None
    assert report(perform, attempt, FINISHED, note=NOTE) is None
    reported = voice.attempt(attempt.id)
    assert (reported.outcome, reported.outcome_note) == (FINISHED, None)


def test_report_with_a_note_waits_for_an_erasure(voice: Tenant, perform: Perform) -> None:
    attempt = answered(voice, a_placed_attempt(voice, a_number()))
    with ThreadPoolExecutor(1) as pool:
        with voice.database.transaction() as stores:
            stores.candidates.erase(candidate_of(voice, attempt), voice.now())
            reporting = pool.submit(report, perform, attempt, FINISHED, note=NOTE)
            wait_until(
                lambda: reporting.done() or voice.ask("SELECT FROM pg_locks WHERE NOT granted"),
                says="the report waits or is done",
            )
        assert reporting.result() is None
    assert voice.attempt(attempt.id).outcome_note is None


def test_erasure_waits_for_a_report_with_a_note(voice: Tenant, perform: Perform, records: ApiWriter) -> None:
    person = candidate_of(voice, noted(voice, perform))
    with ThreadPoolExecutor(1) as pool:
        with voice.database.transaction() as stores:
            assert stores.candidates.lock_kept(person)
            erasing = pool.submit(records.delete_candidate, voice.principal, person)
            wait_until(
                lambda: erasing.done() or voice.ask("SELECT FROM pg_locks WHERE NOT granted"),
                says="the erasure waits or is done",
            )
            assert not erasing.done()
        erasing.result()


def test_refusal_with_another_note_is_another_report(voice: Tenant, perform: Perform) -> None:
    attempt = answered(voice, a_placed_attempt(voice, a_number()))
    assert report(perform, attempt, WRONG_PERSON, note=NOTE) is None
    assert code(report(perform, attempt, WRONG_PERSON, note="Another note")) == "OUTCOME_REPORTED"
    assert report(perform, attempt, WRONG_PERSON, note=NOTE) is None
    assert voice.attempt(attempt.id).outcome_note == NOTE
