"""Log lines contain allowed fields only, and of an exception its type and place."""

import json
import os
import subprocess
import sys

from scheduler.logs import ALLOWED

NUMBER = "+421915123456"
_LINES = f"""
import logging
import structlog
from scheduler.logs import configure, log
configure()
structlog.contextvars.bind_contextvars(email="{NUMBER}")
own, foreign = log("own"), logging.getLogger("foreign")
own.info("a_field: not allowed", count=1, phone="{NUMBER}")
own.bind(_from_structlog="{NUMBER}").info("a_name: of the library", count=2)
foreign.warning("a field", extra={{"phone": "{NUMBER}"}})
for each in own, foreign:
    try:
        raise ValueError("{NUMBER}")
    except ValueError:
        each.exception("failed")
"""


def test_line_has_only_allowed_fields_and_no_text_of_errors() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LINES], env=dict(os.environ), capture_output=True, text=True, timeout=60, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["own", "own", "foreign", "own", "foreign"]
    assert [line.get("count") for line in lines[:2]] == [1, 2]
    assert [line["error"] for line in lines[3:]] == ["builtins.ValueError at <string>:13"] * 2
    assert all(line.keys() <= ALLOWED for line in lines)
    assert NUMBER not in done.stderr
