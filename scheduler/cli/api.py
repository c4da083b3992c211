"""`duecall api`: one request to the API, from machines and images without an HTTP client."""

import json
import re
from enum import StrEnum
from typing import Annotated

import typer

from scheduler.cli.app import app, examples
from scheduler.cli.on_demand import api_url
from scheduler.cli.options import ApiUrl, api_key
from scheduler.cli.output import fail, print_result, refuse

_FIRST_ERROR = 400


class Method(StrEnum):
    GET = "GET"
    POST = "POST"
    PATCH = "PATCH"
    DELETE = "DELETE"


_Key = Annotated[str, api_key("the scopes of the request; /readyz and /metrics need none")]
_Body = Annotated[str | None, typer.Option(metavar="JSON", help="Body of the request.", show_default=False)]


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
