"""`duecall import` against the API, with the worker of batches."""

import json
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from command_line import main as cli
from scheduler.use_cases.apply_batches import ApplyBatches
from standalone.api_client import ApiAway, ApiClient, ApiRefused
from standalone.importing import rows as import_rows
from standalone.importing import runs
from standalone.importing.rows import Defaults, Item, Part, parts_of, read
from standalone.importing.runs import ImportResult, Sending, run_import
from tests.api_shim.answers import data
from tests.api_shim.bodies import EVERY_DAY, FIRST_NAME, LAST_NAME
from tests.api_shim.intake import Intake
from tests.docs.pages import DOCS
from tests.support.builders import RecordingHints, Tenant, a_number
from tests.support.servers import a_closed_port
from tests.support.webhook_receivers import a_webhook_receiver, answers

HEADER = "firstName,lastName,phoneNumber,scheduledAt"
CONSENT = "--gdpr-expiry-date 2030-12-31"
Command = Callable[[str], tuple[str, str, int]]


@pytest.fixture
def bulk(tenant: Tenant) -> ApplyBatches:
    return ApplyBatches(tenant.context, RecordingHints())


@pytest.fixture
def applying(bulk: ApplyBatches) -> Iterator[None]:
    """The process `bulk`."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.05):
            bulk.turn()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture
def duecall(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[str, str, int]]:
    """Build a function that imports with the key of the client: output, messages and status."""
    monkeypatch.setenv("DUECALL_API_KEY", intake.key)
    url = intake.client.base_url

    def run(line: str) -> tuple[str, str, int]:
        options = f"--url {url} --agent {intake.seeded.agent_id} {CONSENT}"
        monkeypatch.setattr("sys.argv", ["duecall", "import", *shlex.split(f"{options} {line}")])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        assert intake.key not in said.out + said.err
        return said.out, " ".join(said.err.split()), ended.value.code

    return run


def row(number: str = "", at: str = "") -> str:
    return f"{FIRST_NAME},{LAST_NAME},{number or a_number()},{at}"


def a_file(folder: Path, *rows: str, header: str = HEADER, name: str = "people.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def counts(out: str) -> dict[str, int]:
    """Read the counts of a result by their word."""
    lines = [line.split() for line in out.splitlines()]
    return {words[1]: int(words[0]) for words in lines if len(words) == 2 and words[0].isdecimal()}


@pytest.mark.usefixtures("applying")
def test_import_creates_an_interview_for_each_row(intake: Intake, duecall: Command, tmp_path: Path) -> None:
    path = a_file(tmp_path, row(), row(at="2026-04-03T09:30"))
    out, err, code = duecall(f"{path} --name Spring")
    assert (counts(out), code) == ({"created": 2, "existed": 0, "refused": 0}, 0)
    assert ("2 of 2 rows sent" in err, "2 of 2 rows applied" in err) == (True, True)
    [batch] = data(intake.get("/batches"))["items"]
    assert (batch["name"], batch["id"] in out) == ("Spring", True)
    found = data(intake.get("/interviews"))["items"]
    assert "2026-04-03T07:30:00Z" in {each["scheduledAt"] for each in found}


@pytest.mark.usefixtures("applying")
def test_refused_rows_are_in_the_errors_file(intake: Intake, duecall: Command, tmp_path: Path) -> None:
    rows = [row(), row("0900"), row(at="2026-04-03T01:00"), row("0901")]
    bad = tmp_path / "bad.csv"
    out, err, code = duecall(f"{a_file(tmp_path, *rows)} --errors {bad}")
    assert (counts(out), code) == ({"created": 1, "existed": 0, "refused": 3}, 1)
    header, *kept = bad.read_text(encoding="utf-8").splitlines()
    assert header == f"{HEADER},errorCode,errorMessage,errorField"
    assert all(each.startswith(f"{was},") for each, was in zip(kept, rows[1:], strict=True))
    assert sum("VALIDATION_ERROR" in each and "candidate.phoneNumber" in each for each in kept) == 2
    assert sum("OUTSIDE_CALL_TIME_INTERVAL" in each and each.endswith("scheduledAt") for each in kept) == 1
    assert bad.stat().st_mode & 0o077 == 0
    assert "3, 5" in out
    assert not [each for each in (FIRST_NAME, LAST_NAME, "0900") if each in out + err]
    corrected = bad.read_text(encoding="utf-8").replace(",0900,", f",{a_number()},").replace("01:00", "09:00")
    bad.write_text(corrected, encoding="utf-8")
    out, _, code = duecall(f"{bad} --errors {tmp_path / 'worse.csv'}")
    assert (counts(out), code) == ({"created": 2, "existed": 0, "refused": 1}, 1)
    assert intake.count("interviews") == 3


@pytest.mark.usefixtures("applying")
def test_repeated_import_creates_nothing(intake: Intake, duecall: Command, tmp_path: Path) -> None:
    person = row()
    rows = [person, person, row()]
    assert counts(duecall(str(a_file(tmp_path, *rows)))[0])["created"] == 3
    for path, options in (
        (a_file(tmp_path, *rows), ""),
        (a_file(tmp_path, *rows[::-1], name="sorted.csv"), ""),
        (a_file(tmp_path, *rows), "--name again"),
    ):
        out, _, code = duecall(f"{path} {options}")
        assert (counts(out), code) == ({"created": 0, "existed": 3, "refused": 0}, 0)
    out, _, _ = duecall(str(a_file(tmp_path, row(), *rows, name="longer.csv")))
    assert counts(out) == {"created": 1, "existed": 3, "refused": 0}
    assert intake.count("interviews") == 4


@pytest.mark.usefixtures("applying")
def test_other_options_call_no_person_twice(intake: Intake, duecall: Command, tmp_path: Path) -> None:
    path = a_file(tmp_path, row())
    duecall(str(path))
    out, _, code = duecall(f"{path} --at 2026-04-03T09:30")
    assert (counts(out)["refused"], code, "EXTERNAL_ID_REUSED" in out) == (1, 1, True)
    for text in (out, duecall(f"{path} --at 2026-04-03T09:30 --dry-run")[0]):
        shown = " ".join(text.split())
        assert "imported before with other options" in shown
        assert "details" not in shown
    assert intake.count("interviews") == 1


@pytest.mark.usefixtures("applying")
def test_another_name_has_refused_rows_judged_again(intake: Intake, duecall: Command, tmp_path: Path) -> None:
    path = a_file(tmp_path, row(at="2026-04-03T01:00"))
    assert "another --name" not in duecall(str(path))[0]
    data(intake.set_settings(callTimeIntervals=[{"days": EVERY_DAY, "start": "00:00", "end": "23:59"}]))
    out, _, code = duecall(str(path))
    assert (code, "another --name" in out) == (1, True)
    assert duecall(f"{path} --name again")[2] == 0


@pytest.mark.usefixtures("applying")
@pytest.mark.parametrize("options", ["", "--dry-run"])
def test_rows_at_different_times_of_a_night_are_one_error(
    intake: Intake, duecall: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """Also those of several parts."""
    monkeypatch.setattr(runs, "parts_of", lambda rows: parts_of(rows, most=2))
    path = a_file(tmp_path, *(row(at=f"2026-04-03T0{hour}:00") for hour in (1, 2, 3)))
    shown = " ".join(duecall(f"{path} {options}")[0].split())
    assert "3 OUTSIDE_CALL_TIME_INTERVAL" in shown
    assert shown.count("OUTSIDE_CALL_TIME_INTERVAL") == shown.count("on the callee's clock") == 1
    assert "2026-04-03 01:00" in shown


def test_dry_run_shows_errors_and_due_times(intake: Intake, duecall: Command, tmp_path: Path) -> None:
    path = a_file(tmp_path, row(), row("0900"), row(at="2026-04-03T09:30"))
    out, err, code = duecall(f"{path} --dry-run")
    assert (code, "3 of 3 rows checked" in err) == (1, True)
    shown = " ".join(out.split())
    for text in (
        "Dry run: nothing was stored.",
        "2 would create an interview",
        "1 VALIDATION_ERROR candidate.phoneNumber 3",
        "The phone number is invalid: it is not E.164",
        "2026-04-03 07:00 UTC Europe/Bratislava 1 █",
    ):
        assert text in shown
    assert not [each for each in (FIRST_NAME, LAST_NAME, "0900") if each in out + err]
    assert intake.count("batches") == intake.count("interviews") == 0
    assert duecall(f"{a_file(tmp_path, row())} --dry-run")[2] == 0


def test_import_that_does_not_wait_stores_all_rows(intake: Intake, duecall: Command, tmp_path: Path) -> None:
    out, _, code = duecall(f"{a_file(tmp_path, row(), row())} --no-wait")
    assert ("2  stored" in out, code) == (True, 0)
    assert duecall(f"{a_file(tmp_path, row(), row('0900'))} --no-wait")[2] == 1
    assert (intake.count("batch_items"), intake.count("interviews")) == (4, 0)


@pytest.mark.usefixtures("applying")
def test_lines_are_read_from_standard_input(
    intake: Intake, duecall: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    person = {"first_name": "Zuzana", "last_name": "Tajomná", "email": "zuzana@example.com"}
    lines = [json.dumps({**person, "Telefon": a_number()}), "{", json.dumps({**person, "Telefon": "0900"})]
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO("\n".join(lines).encode())))
    bad = tmp_path / "bad.ndjson"
    out, _, code = duecall(f"- --map phoneNumber=Telefon --errors {bad}")
    assert (counts(out), code) == ({"created": 1, "existed": 0, "refused": 2}, 1)
    first, second = (json.loads(line) for line in bad.read_text(encoding="utf-8").splitlines())
    assert (first["line"], first["errorCode"]) == ("{", "MALFORMED_JSON")
    assert second == json.loads(lines[2]) | {name: second[name] for name in list(second)[-3:]}
    assert list(second)[-3:] == ["errorCode", "errorMessage", "errorField"]


@pytest.mark.usefixtures("applying")
def test_ats_key_names_the_company_of_an_import(
    intake: Intake, duecall: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DUECALL_API_KEY", intake.with_key_of_its_ats().key)
    path = a_file(tmp_path, row())
    _, err, code = duecall(str(path))
    assert (code, "Give --company ID." in err) == (2, True)
    assert duecall(f"{path} --company {intake.seeded.company_id}")[2] == 0


WRONG_OPTIONS = {
    "--map phone=Telefon": "phone is no field",
    "--delimiter ab": "--delimiter must be one character",
    "--at tomorrow": "date",
    "--gdpr-expiry-date 20301231": "--gdpr-expiry-date must be a date",
    "--map phoneNumber=Telefon": "no such column",
    "--tz-column Zone": "no such column",
    "--errors people.csv": "another file than FILE",
    "--errors none/bad.csv": "cannot be written",
    "--errors bad.csv --dry-run": "Leave out --dry-run",
    "--url example.com": "--url must be a URL",
    "--agent x": "this is not an id",
    "--key ''": "answered 401",
}


def test_wrong_options_send_nothing(
    intake: Intake, duecall: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    a_file(tmp_path, row())
    for options, said in WRONG_OPTIONS.items():
        out, err, code = duecall(f"people.csv {options}")
        assert (out, said in err, code) == ("", True, 1 if "401" in said else 2), options
    assert intake.count("batches") == 0


@pytest.mark.usefixtures("applying", "worker")
def test_cancelled_rows_that_existed_are_counted(intake: Intake, duecall: Command, tmp_path: Path) -> None:
    path = a_file(tmp_path, row(), row())
    duecall(str(path))
    [batch] = data(intake.get("/batches"))["items"]
    data(intake.delete(f"/batches/{batch['id']}"))
    for options in ("", "--name again"):
        out, _, code = duecall(f"{path} {options}")
        shown = " ".join(out.split())
        assert (code, "2 existed (2 of them cancelled: no call will be placed)" in shown) == (0, True)
        assert "delete the interviews and set another --name" in shown
    for each in data(intake.get("/interviews"))["items"]:
        data(intake.delete(f"/interviews/{each['id']}"))
    assert counts(duecall(f"{path} --name afresh")[0])["created"] == 2


def test_import_without_an_agent_sends_nothing(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DUECALL_API_KEY", intake.key)
    monkeypatch.setenv("DUECALL_API_URL", str(intake.client.base_url))
    for header, said in (
        (HEADER, "Name the agent: --agent ID or a column agentId."),
        (HEADER + ",Agent ID", "Dry run"),
    ):
        path = a_file(tmp_path, row() + ("," if "Agent" in header else ""), header=header)
        monkeypatch.setattr("sys.argv", ["duecall", "import", str(path), "--dry-run"])
        with pytest.raises(SystemExit):
            cli.main()
        captured = capsys.readouterr()
        assert said in captured.out + captured.err


def test_missing_file_is_an_error_of_usage(duecall: Command, tmp_path: Path) -> None:
    _, err, code = duecall(str(tmp_path / "none.csv"))
    assert (code, "FILE cannot be read: No such file" in err) == (2, True)


@pytest.mark.usefixtures("applying")
def test_sample_file_of_the_page_is_imported(duecall: Command) -> None:
    options = "--map phoneNumber=Telefon"
    out, _, code = duecall(f"{DOCS / 'how-to' / 'people.csv'} {options}")
    assert (counts(out), code) == ({"created": 2, "existed": 0, "refused": 1}, 1)


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.done = [0, 0]
        self.notes: list[str] = []

    def sent(self, rows: int) -> None:
        self.done[0] += rows

    def applied(self, rows: int) -> None:
        self.done[1] += rows

    def note(self, text: str) -> None:
        self.notes.append(text)


def some(intake: Intake, count: int) -> list[Item]:
    text = "\n".join([HEADER, *(row() for _ in range(count))])
    table = read(text.encode())
    columns = {
        "firstName": ("candidate", "firstName"),
        "lastName": ("candidate", "lastName"),
        "phoneNumber": ("candidate", "phoneNumber"),
    }
    defaults = Defaults(agent_id=str(intake.seeded.agent_id), gdpr_expiry_date="2030-12-31")
    return import_rows.items_of(table, columns, defaults)[0]


def sending(intake: Intake, wait: Callable[[float], object], notes: Notes) -> Sending:
    return Sending(ApiClient(str(intake.client.base_url), intake.key), None, wait, notes)


def imported(intake: Intake, rows: list[Item], wait: Callable[[float], object], notes: Notes) -> ImportResult:
    return run_import(sending(intake, wait, notes), rows, [], None, lambda _: None, waits=True)


def test_stopped_import_goes_on_and_creates_each_row_once(intake: Intake, bulk: ApplyBatches) -> None:
    rows = some(intake, 150)
    first, second = Part(items=rows[:100]), Part(items=rows[100:])
    stopped = sending(intake, lambda _: None, Notes()).send([first, second], None)
    next(stopped)  # killed after the first part

    def wait(_: float) -> None:
        bulk.turn()

    again = sending(intake, wait, Notes())
    outcomes = [again.outcome(each) for each in list(again.send([first, second], None))]
    assert [(each.created, each.existed, each.rejects) for each in outcomes] == [(0, 100, []), (50, 0, [])]
    assert (intake.count("batches"), intake.count("interviews")) == (2, 150)


def test_progress_and_pauses_are_reported(intake: Intake, bulk: ApplyBatches) -> None:
    notes = Notes()

    def pause() -> None:
        [batch] = data(intake.get("/batches"))["items"]
        data(intake.post(f"/batches/{batch['id']}/pause"))

    def resume() -> None:
        [batch] = data(intake.get("/batches"))["items"]
        data(intake.post(f"/batches/{batch['id']}/resume"))

    acts: list[Callable[[], Any]] = [pause, lambda: None, resume, bulk.turn]
    result = imported(intake, some(intake, 2), lambda _: acts.pop(0)(), notes)
    assert (result.created, notes.done, len(notes.notes)) == (2, [2, 2], 1)
    assert "is paused" in notes.notes[0]


def test_cancelled_rows_are_refused(intake: Intake) -> None:
    def cancel(_: float) -> None:
        [batch] = data(intake.get("/batches"))["items"]
        data(intake.delete(f"/batches/{batch['id']}"))

    result = imported(intake, some(intake, 2), cancel, Notes())
    assert [(each.code, each.count, each.numbers) for each in result.refused] == [("BATCH_CANCELLED", 2, [2, 3])]


def test_api_that_is_away_is_asked_again(intake: Intake) -> None:
    waits: list[float] = []
    notes = Notes()
    client = ApiClient(a_closed_port(), "sk_live_secret")
    with pytest.raises(ApiAway):
        list(Sending(client, None, waits.append, notes).send([Part(items=some(intake, 1))], None))
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert notes.notes[0].endswith("trying again in 1 s")
    assert "sk_live_secret" not in "".join(notes.notes)


def test_default_api_that_is_not_there_stops(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, away = Notes(), a_closed_port()
    monkeypatch.setattr("standalone.api_client.DEFAULT_API", away)
    part = Part(items=some(intake, 1))
    with pytest.raises(ApiRefused, match=f"Nothing listens at {away} .the default.. Name the API: --url URL"):
        list(Sending(ApiClient(None, "k"), None, lambda _: None, notes).send([part], None))
    assert notes.notes == []


def test_default_api_that_was_there_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_webhook_receiver(answers(404)) as page:
        monkeypatch.setattr("standalone.api_client.DEFAULT_API", page.url)
        client = ApiClient(None, "k")
        with pytest.raises(ApiRefused):
            client.send("GET", "/x")
    with pytest.raises(ApiAway):
        client.send("GET", "/x")


def test_limit_of_rows_is_waited_for_if_it_can_help(intake: Intake) -> None:
    rows, notes = some(intake, 21), Notes()
    limited = intake.with_key(intake.new_key(per_hour=2)[1])
    with pytest.raises(ApiRefused, match="may send 20 rows an hour, and this import sends 21 at once"):
        list(sending(limited, lambda _: None, notes).send([Part(items=rows)], None))
    limited = intake.with_key(intake.new_key(per_hour=3)[1])
    waits: list[float] = []

    def stop(seconds: float) -> None:
        waits.append(seconds)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(sending(limited, stop, notes).send([Part(items=rows), Part(items=rows[:15])], None))
    assert 0 < waits[0] <= 3600
    assert "answered 429; trying again in" in notes.notes[0]


def test_answer_that_is_not_of_the_api_stops(intake: Intake) -> None:
    part = Part(items=some(intake, 1))
    for answer in (answers(200, body=b"<html>"), answers(302, "Location: http://127.0.0.1:1"), answers(404)):
        with a_webhook_receiver(answer) as page, pytest.raises(ApiRefused, match="Check --url"):
            list(Sending(ApiClient(page.url, "k"), None, lambda _: None, Notes()).send([part], None))
