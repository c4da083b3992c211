"""Every log line with an alarm becomes a row, and the code that logs neither waits nor fails."""

import threading
from collections.abc import Iterator, Mapping
from functools import partial
from uuid import uuid4

import pytest

from scheduler.domain.alarm import AlarmKey
from scheduler.logs import configure, log, watch_alarms
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.use_cases.shared.alarms import Alarms, AlarmStore, Seen
from tests.conftest import TestClock, wait_until
from workers import alarm_writer
from workers.alarm_writer import AlarmWriter


class Gate:
    """A store in front of the real one, which a test closes: the database is away."""

    def __init__(self, behind: AlarmStore) -> None:
        self._behind = behind
        self.is_open = threading.Event()
        self.tries = 0

    def store(self, seen: Mapping[AlarmKey, Seen]) -> None:
        self.tries += 1
        if not self.is_open.is_set():
            log(__name__).error("gate_closed: a line of the writer's own thread", alarm="OF_THE_WRITER")
            raise DatabaseAway("a test")
        self._behind.store(seen)

    def wait_for_a_whole_try(self) -> None:
        """Wait for a try that contains all alarms taken so far. The present try may have begun before them."""
        wait_until(partial(self._has_tried, self.tries + 1), says="the writer has tried twice")

    def _has_tried(self, before: int) -> bool:
        return self.tries > before

    def close(self) -> None:
        """The pool is the tests'."""


@pytest.fixture
def gate(database: Database, now: TestClock) -> Gate:
    return Gate(AlarmStore(database, now))


@pytest.fixture
def writer(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[AlarmWriter]:
    configure()
    monkeypatch.setattr(alarm_writer, "_PAUSE_S", 0.01)
    monkeypatch.setattr(alarm_writer, "_LONGEST_PAUSE_S", 0.1)
    writer = AlarmWriter(gate)
    writer.start()
    yield writer
    gate.is_open.set()
    writer.stop()


@pytest.fixture
def alarms(database: Database, now: TestClock) -> Alarms:
    return Alarms(database, now)


def test_logged_alarm_becomes_a_row(writer: AlarmWriter, gate: Gate, alarms: Alarms) -> None:
    gate.is_open.set()
    attempt_id = str(uuid4())
    log(__name__).error("cause_lost: a test", alarm="CAUSE_LOST", attempt_id=attempt_id, seconds=3, cause="a cause")
    log(__name__).error("nothing: an error without an alarm", attempt_id=attempt_id)
    [alarm] = wait_until(alarms.open)
    assert (alarm.kind, dict(alarm.subjects)) == ("CAUSE_LOST", {"attempt_id": attempt_id})


def test_alarm_that_is_stored_already_is_not_counted_twice(writer: AlarmWriter, gate: Gate, alarms: Alarms) -> None:
    gate.is_open.set()
    log(__name__).error("quarantined: a test", alarm="QUARANTINE", is_stored=True, command_id=str(uuid4()))
    log(__name__).error("lock_held: a test", alarm="LOCK_HELD")
    [alarm] = wait_until(alarms.open)
    assert alarm.kind == "LOCK_HELD"


def test_alarms_wait_while_the_database_is_away(writer: AlarmWriter, gate: Gate, alarms: Alarms) -> None:
    for _ in range(3):
        log(__name__).error("lock_held: a test", alarm="LOCK_HELD")
        gate.wait_for_a_whole_try()
    assert alarms.open() == []
    gate.is_open.set()
    [alarm] = wait_until(alarms.open)
    assert (alarm.kind, alarm.count) == ("LOCK_HELD", 3), "and none of the writer's own lines"


def test_memory_is_bounded_and_each_kind_is_kept(
    writer: AlarmWriter, gate: Gate, alarms: Alarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_writer, "_MOST_KEYS", 5)
    for _ in range(20):
        writer.take("CAUSE_LOST", {"attempt_id": str(uuid4())})
    writer.take("LOCK_HELD", {"company_id": str(uuid4())})
    gate.wait_for_a_whole_try()
    gate.is_open.set()
    wait_until(lambda: sum(each.count for each in alarms.open()) == 21)
    found = alarms.open()
    assert len(found) <= 5 + 2
    assert {each.kind for each in found} == {"CAUSE_LOST", "LOCK_HELD"}


def test_stop_stores_the_waiting_alarms(gate: Gate, alarms: Alarms) -> None:
    configure()
    gate.is_open.set()
    writer = AlarmWriter(gate)
    writer.start()
    for kind in ("LOCK_HELD", "DEAF_WORKER"):
        log(__name__).error("stop: a test", alarm=kind)
    writer.stop()
    assert alarms.count_open() == {"DEAF_WORKER": 1, "LOCK_HELD": 1}
    log(__name__).error("stop: a test", alarm="LOCK_HELD")
    assert alarms.count_open() == {"DEAF_WORKER": 1, "LOCK_HELD": 1}


def test_failing_watcher_does_not_fail_the_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure()

    def fail(kind: str, fields: Mapping[str, object]) -> None:
        raise RuntimeError(kind)

    watch_alarms(fail)
    log(__name__).error("lock_held: a test", alarm="LOCK_HELD", is_stored=False)
    watch_alarms(None)
    [line] = capsys.readouterr().err.splitlines()
    assert '"alarm": "LOCK_HELD"' in line
    assert "is_stored" not in line
