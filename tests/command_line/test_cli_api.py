"""`duecall api`: one request to the API, from an image without an HTTP client."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response

from tests.command_line.conftest import Duecall
from tests.support.servers import a_closed_port, serving

STATUS = {"refused": 422, "unready": 503, "moved": 307}


@pytest.fixture
def api() -> Iterator[str]:
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PATCH", "DELETE"])
    async def received(request: Request, path: str) -> Response:
        """Return the request itself."""
        request_body = (await request.body()).decode()
        headers = {name: request.headers.get(name) for name in ("authorization", "content-type")}
        seen = {
            "method": request.method,
            "url": str(request.url.include_query_params()),
            **headers,
            "body": request_body,
        }
        return Response(json.dumps(seen), STATUS.get(path, 200), headers={"Location": "/elsewhere"})

    with serving(app) as url:
        yield url


def test_api_prints_the_response_of_a_request_without_key(duecall: Duecall, api: str) -> None:
    said = duecall(f"api get '/interviews?limit=5' --url {api}")
    assert (said.code, said.err) == (0, "")
    seen = {
        "method": "GET",
        "url": f"{api}/interviews?limit=5",
        "authorization": None,
        "content-type": None,
        "body": "",
    }
    assert said.data == seen


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_api_sends_method_key_and_body(
    duecall: Duecall, api: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("DUECALL_API_KEY", "the-key")
    monkeypatch.setenv("DUECALL_API_URL", api)
    said = duecall(f"""api {method} /company --body '{{"name": "Å"}}'""")
    assert (said.data["method"], said.data["authorization"]) == (method, "Bearer the-key")
    assert (said.data["content-type"], said.data["body"]) == ("application/json", '{"name": "Å"}')


@pytest.mark.parametrize("path", ["refused", "unready"])
def test_api_prints_a_refusal_and_fails(duecall: Duecall, api: str, path: str) -> None:
    said = duecall(f"api GET /{path} --url {api}")
    assert said.data["method"] == "GET"
    assert (said.err, said.code) == (f"{api}/{path} answered {STATUS[path]}.\n", 1)


def test_api_does_not_follow_a_redirect_with_the_key(duecall: Duecall, api: str) -> None:
    assert duecall(f"api GET /moved --url {api} --key the-key").data["url"] == f"{api}/moved"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("api GET readyz", 2),
        ("api GET '/read yz'", 2),
        ("api GET /readyz --url nonsense", 2),
        ("api POST /company --body nonsense", 2),
        ("api FETCH /readyz", 2),
    ],
)
def test_api_refuses_wrong_arguments_in_one_line(duecall: Duecall, words: str, code: int) -> None:
    assert duecall(words).is_one_error_line(code)


def test_api_that_cannot_be_reached_is_one_line(duecall: Duecall) -> None:
    assert duecall(f"api GET /readyz --url {a_closed_port()}").is_one_error_line()


def test_api_asks_the_running_system_of_the_folder(
    duecall: Duecall, api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUECALL_HOME", str(tmp_path))
    (tmp_path / "run.json").write_text(json.dumps({"databaseUrl": "postgresql://127.0.0.1:1/none", "apiUrl": api}))
    (tmp_path / "clock_offset_s").write_text("0.0")
    assert duecall("api GET /readyz").data["url"] == f"{api}/readyz"
