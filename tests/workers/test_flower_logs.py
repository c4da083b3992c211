"""The log of Flower: one JSON object a line, like that of each other process."""

import base64
import json
import signal
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from standalone.private_server import free_port
from standalone.supervisor import commands
from tests.conftest import wait_until
from tests.workers.test_proof import a_process

AUTH = "operator:a-flowers-secret"


def status_of(url: str, auth: str = "") -> int:
    headers = {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}
    try:
        with urlopen(Request(url, headers=headers), timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_each_line_of_flower_is_json(redis_url: str, tmp_path: Path) -> None:
    """From its start, over requests that it refuses, to its end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    flower = commands(api_port=0, console_port=0, flower_port=port)["flower"]
    variables = {"REDIS_URL": redis_url, "FLOWER_REDIS_URL": redis_url, "FLOWER_BASIC_AUTH": AUTH}
    with a_process(flower, tmp_path, **variables) as process:
        wait_until(lambda: status_of(f"{url}/healthcheck") == 200, seconds=60, says="Flower answers")
        assert [status_of(f"{url}/tasks", auth) for auth in (AUTH, "operator:wrong", "")] == [200, 401, 401]
        assert status_of(f"{url}/no-such-page", AUTH) == 404
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert lines
    assert [line for line in lines if not is_a_log_line(line)] == []


def is_a_log_line(line: str) -> bool:
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and {"event", "level", "at"} <= found.keys()
