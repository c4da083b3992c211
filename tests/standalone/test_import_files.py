"""Files of an import: bytes to rows, columns to rows, rows to rows, and the file of errors."""

import io
import json
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from api_shim.schemas.requested_calls import InlineCandidate, InterviewRequest
from standalone.importing import rows
from standalone.importing.rows import Defaults, Fault, Item, Reject, UnreadableFile

NAMES = ("firstName", "lastName", "phoneNumber")


def made(text: str, *mapped: str, defaults: Defaults | None = None) -> tuple[list[Item], list[Reject]]:
    table = rows.read(text.encode())
    columns = rows.columns_of(table, rows.chosen(mapped), ignores_others=False)
    return rows.items_of(table, columns, defaults or Defaults())


def bodies(text: str, *mapped: str, defaults: Defaults | None = None) -> list[dict[str, Any]]:
    ready, refused = made(text, *mapped, defaults=defaults)
    assert not refused
    return [json.loads(each.line) for each in ready]


def without_id(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "externalId"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_delimiter_and_mark_are_recognised(delimiter: str, mark: bytes) -> None:
    text = f'firstName{delimiter}"last, name;"{delimiter}email\r\nJána{delimiter}"a{delimiter}b"{delimiter}\r\n'
    table = rows.read(mark + text.encode())
    assert table.columns == ("firstName", "last, name;", "email")
    [row] = table.rows
    assert row.values == {"firstName": "Jána", "last, name;": f"a{delimiter}b"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "The file is empty", id="empty"),
        pytest.param(b"email\n", "no row below its header", id="header only"),
        pytest.param("email\na\nNov\u00e1k".encode("latin-1"), "Line 3 is not UTF-8", id="Latin"),
        pytest.param("email".encode("utf-16"), "The file is UTF-16", id="UTF-16"),
        pytest.param(b"email,timezone\nx,y\n\nx,y,z", "Row 4 has 3 cells, but the header has 2", id="cells"),
        pytest.param(b'email,timezone\nx,y\n"x,y', "Row 3 is no CSV", id="quotes"),
    ],
)
def test_unreadable_file_is_described(content: bytes, said: str) -> None:
    with pytest.raises(UnreadableFile, match=said):
        rows.read(content)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("First name", ("candidate", "firstName")),
        ("LAST_NAME", ("candidate", "lastName")),
        ("phone-number", ("candidate", "phoneNumber")),
        ("E-mail", ("candidate", "email")),
        ("Time Zone", ("candidate", "timezone")),
        ("candidate.gdpr_expiry_date", ("candidate", "gdprExpiryDate")),
        ("candidate.externalId", ("candidate", "externalId")),
        ("External ID", ("externalId",)),
        ("metadata.Ref No", ("metadata", "Ref No")),
        ("metadata.", None),
        ("Telefon", None),
    ],
)
def test_names_of_columns_are_recognised(name: str, path: tuple[str, ...] | None) -> None:
    assert rows.field_of(name) == path


@pytest.mark.parametrize(
    ("header", "mapped", "said"),
    [
        pytest.param("Jana,Tajomná", (), "Row 1 names no known field", id="no header"),
        pytest.param("email,Tajomná", (), "Column 2 of the header is no known field", id="another column"),
        pytest.param("email,a,a", (), "Columns 2, 3 have the same name", id="same name"),
        pytest.param("email,E-mail", (), "Columns 1, 2 are both email", id="same field"),
        pytest.param(
            "email", ("phoneNumber=Telefon",), "no such column as --map names for candidate.phoneN", id="gone"
        ),
        pytest.param("email", ("phone=email",), "phone is no field. FIELD is one of firstName", id="unknown field"),
        pytest.param("email", ("Ján 0900=email",), "This is no field. FIELD", id="text that is no field"),
        pytest.param("email", ("email",), "--map must be FIELD=COLUMN", id="no column"),
        pytest.param("a", ("email=a", "timezone=a"), "names one column twice", id="two fields"),
    ],
)
def test_wrong_columns_are_told_by_number(header: str, mapped: tuple[str, ...], said: str) -> None:
    with pytest.raises(UnreadableFile, match=said) as refused:
        made(header + "\n" + ",".join("x" * len(header.split(","))), *mapped)
    assert "Tajomn" not in str(refused.value)


def test_rows_become_bodies_of_requests() -> None:
    text = "First name,Telefon,isTest,metadata.ref,timezone\nJana, +421915123456 ,TRUE,A-17,\n"
    [body] = bodies(text, "phoneNumber=Telefon")
    assert without_id(body) == {
        "candidate": {"firstName": "Jana", "phoneNumber": "+421915123456"},
        "isTest": True,
        "metadata": {"ref": "A-17"},
    }


def test_defaults_fill_only_what_is_missing() -> None:
    defaults = Defaults(agent_id="a", job_id="j", gdpr_expiry_date="2030-12-31", scheduled_at="2026-04-03T09:00")
    text = "email,agentId,gdprExpiryDate,scheduledAt\nx@example.com,b,2031-01-01,2026-04-04T09:00\ny@example.com,,,\n"
    own, filled = bodies(text, defaults=defaults)
    assert without_id(own) == {
        "candidate": {"email": "x@example.com", "gdprExpiryDate": "2031-01-01"},
        "agentId": "b",
        "jobId": "j",
        "scheduledAt": "2026-04-04T09:00",
    }
    assert (filled["agentId"], filled["scheduledAt"]) == ("a", "2026-04-03T09:00")
    assert filled["candidate"]["gdprExpiryDate"] == "2030-12-31"


def test_defaults_contradict_no_body() -> None:
    defaults = Defaults(agent_id="a", job_id="j", gdpr_expiry_date="2030-12-31", scheduled_at="2026-04-03T09:00")
    line = {"candidateId": "c", "agent": {"name": "x"}, "job": {"title": "y"}, "scheduleTime": "z", "externalId": "e"}
    assert bodies(json.dumps(line), defaults=defaults) == [line]


def test_lines_may_be_bodies_or_flat() -> None:
    body = {"candidate": {"firstName": "Jana"}, "metadata": {"a": {"b": 1}}, "jobid": 1, "externalId": "e"}
    flat = {"First name": "Jana", "Telefon": "1", "externalId": "f", "other": 2}
    found = bodies(f"{json.dumps(body)}\n\n{json.dumps(flat)}\n", "phoneNumber=Telefon")
    assert found == [
        {"candidate": {"firstName": "Jana"}, "metadata": {"a": {"b": 1}}, "jobId": 1, "externalId": "e"},
        {"candidate": {"firstName": "Jana", "phoneNumber": "1"}, "externalId": "f", "other": 2},
    ]


def test_faulty_rows_are_rejected_alone() -> None:
    text = '{"email": "x"}\n{\n[1]\n{"email": "a", "E-mail": "b"}\n{"candidate": 1, "email": "b"}\n'
    ready, refused = made(text + json.dumps({"email": "x" * 70_000}))
    assert [each.row.number for each in ready] == [1]
    assert [(each.row.number, each.fault.code, each.fault.field) for each in refused] == [
        (2, "MALFORMED_JSON", None),
        (3, "VALIDATION_ERROR", None),
        (4, "CONFLICTING_FIELDS", "candidate.email"),
        (5, "CONFLICTING_FIELDS", "candidate.email"),
        (6, "BODY_TOO_LARGE", None),
    ]
    _, [wrong] = made("email,isTest\nx,yes\n")
    assert (wrong.row.number, wrong.fault.field) == (2, "isTest")


def test_ids_of_rows_follow_from_their_content() -> None:
    text = "email,timezone\na,\na,\nb,\n"
    first, again, other = (each["externalId"] for each in bodies(text))
    assert len({first, again, other}) == 3
    assert all(each.startswith("row-") and len(each) == 44 for each in (first, again, other))
    moved = [each["externalId"] for each in bodies("timezone;email\n\n;b\n;a\n;a\n", defaults=Defaults(agent_id="x"))]
    assert moved == [other, first, again]
    assert [each["externalId"] for each in bodies("email,externalId\na,mine\na,\n")] == ["mine", first]


def test_parts_have_at_most_so_many_lines_and_bytes() -> None:
    ready, _ = made("email\n" + "\n".join("abcdefg"))
    by_count = list(rows.parts_of(ready, most=3))
    assert [len(each.items) for each in by_count] == [3, 3, 1]
    size = len(ready[0].line) + 1
    by_size = list(rows.parts_of(ready, largest=size * 2))
    assert [len(each.body) for each in by_size] == [size * 2, size * 2, size * 2, size]
    assert b"".join(each.body for each in by_size) == b"".join(each.line + b"\n" for each in ready)
    keys = {part.idempotency_key(params) for part in by_size for params in ({}, {"name": "x"})}
    assert len(keys) == 8


def errors_file(text: str, fault: Fault) -> str:
    table, stream = rows.read(text.encode()), io.StringIO()
    rows.RejectsFile(stream, table).write(Reject(row=each, fault=each.fault or fault) for each in table.rows)
    return stream.getvalue()


def test_errors_of_csv_are_its_last_columns() -> None:
    fault = Fault(code="C", message="a; b", field="candidate.email")
    text = 'email;Note\n x ;"a;\nb"\n'
    written = errors_file(text, fault)
    assert written == 'email;Note;errorCode;errorMessage;errorField\n x ;"a;\nb";C;"a; b";candidate.email\n'
    assert errors_file(written, fault) == written
    ids = [bodies(each.replace("Note", "metadata.note"))[0]["externalId"] for each in (text, written)]
    assert ids[0] == ids[1]


def test_errors_of_lines_are_their_last_names() -> None:
    fault = Fault(code="C", message="m")
    written = errors_file('{"email":"ž"}\n{\n', fault).splitlines()
    error = {"errorCode": "C", "errorMessage": "m", "errorField": ""}
    assert json.loads(written[0]) == {"email": "ž", **error}
    assert (json.loads(written[1])["line"], json.loads(written[1])["errorCode"]) == ("{", "MALFORMED_JSON")
    assert errors_file(written[0], fault).splitlines() == written[:1]


def test_columns_are_the_fields_of_a_request() -> None:
    """The command imports no schema of the API, so its module also has the names."""
    request, person = (
        {to_camel(name) for name in fields} for fields in (InterviewRequest.model_fields, InlineCandidate.model_fields)
    )
    assert request - {"candidate", "agent", "job", "scheduleTime", "metadata"} == set(rows._OF_AN_INTERVIEW)
    assert person - {"externalId", "jobId"} == set(rows._OF_A_PERSON)
