"""Commands about the API: `duecall api` sends one request, and `duecall openapi` writes its documents."""

import json
import re
from enum import StrEnum
from typing import Annotated

import typer

from command_line.app import ApiUrl, DocumentFile, api_key, app, examples, openapi
from command_line.on_demand import api_url
from command_line.output import fail, print_result, refuse

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


# --- `duecall openapi`: the OpenAPI document of the public API, and the page of its error codes


@openapi.command("write", epilog=examples("duecall openapi write docs/openapi.json"))
def openapi_write(file: DocumentFile) -> None:
    """Write the document that the API serves as /openapi.json. No system needs to run."""
    from command_line import documents

    file.write_text(documents.openapi_text(), encoding="utf-8")


@openapi.command("check", epilog=examples("duecall openapi check docs/openapi.json"))
def openapi_check(file: DocumentFile) -> None:
    """Check that a file equals what the API serves as /openapi.json, byte for byte."""
    from command_line import documents

    try:
        documents.check_openapi(file)
    except documents.DocumentDiffers as error:
        fail(str(error))


@openapi.command(
    "errors",
    epilog=examples(
        "duecall openapi errors docs/reference/error-codes.md",
        "duecall openapi errors --check docs/reference/error-codes.md",
    ),
)
def openapi_errors(
    file: DocumentFile,
    check: Annotated[bool, typer.Option("--check", help="Compare the file and write nothing.")] = False,
) -> None:
    """Write the page of error codes."""
    from command_line import documents

    if not check:
        file.write_text(documents.error_codes_text(), encoding="utf-8")
        return
    try:
        documents.check_error_codes(file)
    except documents.DocumentDiffers as error:
        fail(str(error))
