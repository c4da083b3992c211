"""Commands that use the HTTP API: `duecall api` sends one request, and `duecall import` a file of people."""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO
from uuid import UUID

import typer

from command_line.app import ApiUrl, api_key, api_url, app, examples, id_of
from command_line.output import fail, refuse

if TYPE_CHECKING:
    from rich.console import RenderableType

    from standalone.api_client import ApiClient
    from standalone.importing.rows import Item, Reject, Table
    from standalone.importing.runs import Sending

import json
import re
from enum import StrEnum

from command_line.output import print_result

# --- `duecall api`


_FIRST_ERROR = 400


class Method(StrEnum):
    GET = "GET"
    POST = "POST"
    PATCH = "PATCH"
    DELETE = "DELETE"


_Key = Annotated[str, api_key("the scopes of the request; /readyz and /metrics need none")]
_Body = Annotated[str | None, typer.Option(metavar="JSON", help="Body of the request.")]


@app.command(
    "api",
    epilog=examples(
        "duecall api GET /readyz",
        """DUECALL_API_KEY=sk_live_... duecall api POST /company --body '{"name": "Acme"}'""",
    ),
)
def api(
    method: Annotated[Method, typer.Argument(case_sensitive=False, help="GET, POST, PATCH or DELETE.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path and query, for example /interviews?limit=5.")],
    body: _Body = None,
    key: _Key = "",
    url: ApiUrl = None,
) -> None:
    """Send one request to the API and print the body of its response.

    The command fails if the status is 400 or higher.
    """
    from standalone.api_client import ApiAway, ApiClient, ApiRefused

    if not re.fullmatch(r"/[!-~]*", path):
        refuse("PATH must begin with / and have only ASCII characters, for example /readyz.")
    if body is not None:
        _must_be_json(body)
    client = ApiClient(api_url(url), key)
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        status, text = client.text(method.value, path, body, headers)
    except (ApiAway, ApiRefused) as error:
        fail(str(error))
    print_result(text)
    if status >= _FIRST_ERROR:
        fail(f"{client.url}{path} answered {status}.")


def _must_be_json(body: str) -> None:
    try:
        json.loads(body)
    except ValueError:
        refuse("--body must be JSON.")


# --- `duecall import`: a file of people becomes interviews


_HELP_PAGE = "docs/how-to/import.md"
_STDIN = "-"

_File = Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header, or NDJSON. - is standard input.")]
_Company = Annotated[UUID | None, typer.Option(parser=id_of, help="Company, for an ATS key.")]
_Agent = Annotated[UUID | None, typer.Option(parser=id_of, help="Agent of rows without agentId.")]
_Job = Annotated[UUID | None, typer.Option(parser=id_of, help="Job of rows without jobId.")]
_Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="FIELD=COLUMN", help="Column of a field. Repeatable."),
]
_ZoneColumn = Annotated[str | None, typer.Option(help="Column of the callee's time zone (IANA name).")]
_IgnoreOthers = Annotated[
    bool, typer.Option("--ignore-other-columns", help="Leave out columns that are no known field.")
]
_Delimiter = Annotated[str | None, typer.Option(help="Delimiter of a CSV. Default: that of its header.")]
_Consent = Annotated[
    str | None,
    typer.Option(help="Last day of consent of rows without their own, e.g. 2027-12-31."),
]
_RequestedTime = Annotated[
    str | None,
    typer.Option(help="Requested time of rows without scheduledAt, e.g. 2026-04-02T09:00."),
]
_Name = Annotated[str | None, typer.Option(help="Name of the batches.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only check the rows, and store nothing.")]
_Errors = Annotated[
    Path | None,
    typer.Option(help="File for refused rows, with their errors. It is overwritten."),
]
_NoWait = Annotated[bool, typer.Option("--no-wait", help="Stop as soon as all rows are stored.")]


@app.command(
    "import",
    epilog=examples(
        "duecall import people.csv --agent AGENT_ID --gdpr-expiry-date 2027-12-31 --dry-run",
        "duecall import people.csv --agent AGENT_ID --map phoneNumber=Telefon --errors bad.csv",
    ),
)
def import_people(
    *,
    file: _File,
    url: ApiUrl = None,
    key: Annotated[str, api_key("the scopes write:interviews and read:interviews")],
    company: _Company = None,
    agent: _Agent = None,
    job: _Job = None,
    mapped: _Map = None,
    tz_column: _ZoneColumn = None,
    ignore_other_columns: _IgnoreOthers = False,
    delimiter: _Delimiter = None,
    gdpr_expiry_date: _Consent = None,
    at: _RequestedTime = None,
    name: _Name = None,
    dry_run: _DryRun = False,
    errors: _Errors = None,
    no_wait: _NoWait = False,
) -> None:
    """Create an interview for each row of a file. For partners; needs no database.

    Started again after it was stopped, it creates each row once. Exit status 0: every row was accepted. 1: some were
    refused, or the API could not be reached. 2: wrong options, or a file that cannot be read. Then nothing was sent.
    """
    from command_line.terminal import terminal
    from standalone.api_client import ApiClient
    from standalone.importing.rows import Defaults, UnreadableFile, chosen, columns_of, items_of, name_agent, read

    url = api_url(url)
    _check_defaults(gdpr_expiry_date, at)
    _check_errors_file(errors, file, is_allowed=not (dry_run or no_wait))
    pairs = [*(mapped or []), *([] if tz_column is None else [f"timezone={tz_column}"])]
    try:
        by_option = chosen(pairs)
        table = read(_content(file), _one_character(delimiter))
        columns = columns_of(table, by_option, ignores_others=ignore_other_columns)
    except UnreadableFile as unreadable:
        refuse(f"{unreadable} See {_HELP_PAGE}.")
    if agent is None and not name_agent(table, columns):
        refuse("Name the agent: --agent ID or a column agentId.")
    defaults = Defaults(agent_id=_text(agent), job_id=_text(job), gdpr_expiry_date=gdpr_expiry_date, scheduled_at=at)
    rows, unsendable = items_of(table, columns, defaults)
    plan = _Plan(ApiClient(url, key), _text(company), rows, unsendable)
    page, has_refused = plan.check() if dry_run else plan.start(name, table, errors, waits=not no_wait)
    terminal().print(page)
    if has_refused:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Plan:
    client: "ApiClient"
    company_id: str | None
    rows: Sequence["Item"]
    unsendable: Sequence["Reject"]

    def check(self) -> tuple["RenderableType", bool]:
        from standalone.importing.pages import dry_run_page
        from standalone.importing.runs import run_check

        with self._sending("checked", "") as sending:
            result = run_check(sending, self.rows, self.unsendable)
        return dry_run_page(result), bool(result.refused)

    def start(
        self, name: str | None, table: "Table", errors: Path | None, *, waits: bool
    ) -> tuple["RenderableType", bool]:
        from standalone.importing.pages import import_page
        from standalone.importing.rows import RejectsFile
        from standalone.importing.runs import run_import

        if errors is None:
            with self._sending("sent", "applied" if waits else "") as sending:
                result = run_import(sending, self.rows, self.unsendable, name, _forget, waits=waits)
            return import_page(result), result.has_refused
        with _opened(errors) as stream, self._sending("sent", "applied") as sending:
            keep = RejectsFile(stream, table).write
            result = run_import(sending, self.rows, self.unsendable, name, keep, waits=True)
        return import_page(result), result.has_refused

    @contextmanager
    def _sending(self, first: str, second: str) -> Iterator["Sending"]:
        from scheduler.domain.refusals import CompanyIdRequired
        from standalone.api_client import ApiAway, ApiRefused
        from standalone.importing.pages import shown_progress
        from standalone.importing.runs import Sending

        try:
            with shown_progress(len(self.rows), first, second) as progress:
                yield Sending(self.client, self.company_id, threading.Event().wait, progress)
        except (ApiAway, ApiRefused) as error:
            if isinstance(error, ApiRefused) and error.code == CompanyIdRequired.code:
                refuse("The key is that of an ATS. Give --company ID.")
            # The text may be that of the API, which ends with a full stop.
            hint = "Rows that were stored are not created twice if you start the same command again."
            fail(f"{str(error).removesuffix('.')}. {hint if second else ''}".rstrip())


def _forget(rejects: Sequence["Reject"]) -> None:
    """Keep no row: the terminal shows only their numbers."""


def _content(file: Path) -> bytes:
    if str(file) == _STDIN:
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        refuse(f"FILE cannot be read: {error.strerror}.")


@contextmanager
def _opened(errors: Path) -> Iterator[TextIO]:
    """Create the file of errors. It contains personal data, so only its owner may read it."""
    try:
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        refuse(f"The file of --errors cannot be written: {error.strerror}.")
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        yield stream


def _check_defaults(gdpr_expiry_date: str | None, at: str | None) -> None:
    from scheduler.timing import requested_time

    if at is not None:
        requested_time.read(at, field="--at")
    try:
        is_date = gdpr_expiry_date is None or f"{date.fromisoformat(gdpr_expiry_date)}" == gdpr_expiry_date
    except ValueError:
        is_date = False
    if not is_date:
        refuse("--gdpr-expiry-date must be a date, such as 2027-12-31.")


def _check_errors_file(errors: Path | None, file: Path, *, is_allowed: bool) -> None:
    if errors is None:
        return
    if not is_allowed:
        refuse("--errors needs the outcome of each row. Leave out --dry-run and --no-wait.")
    if errors.resolve() == file.resolve():
        refuse("--errors must be another file than FILE, because it is overwritten.")


def _one_character(delimiter: str | None) -> str | None:
    if delimiter in {"\\t", "tab"}:
        return "\t"
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        refuse("--delimiter must be one character, or tab.")
    return delimiter


def _text(given: UUID | None) -> str | None:
    return None if given is None else str(given)
