"""Serves the API in a process that runs out of memory on a signal.

SIGUSR1: no thread can start. SIGUSR2: reading a body fails. Arguments: those of uvicorn.
"""

import json
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

import uvicorn

from scheduler.wire import json_values


def no_thread_begins(_number: int, _frame: FrameType | None) -> None:
    """Let no thread start, as without memory: the thread that starts it waits for its signal."""

    def fail(_: threading.Thread) -> NoReturn:
        raise MemoryError

    threading.Thread._bootstrap = fail  # type: ignore[attr-defined]


def no_body_is_read(_number: int, _frame: FrameType | None) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise MemoryError

    vars(json_values)["json"] = type("no_memory", (), {"loads": fail, "JSONDecodeError": json.JSONDecodeError})


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, no_thread_begins)
    signal.signal(signal.SIGUSR2, no_body_is_read)
    sys.argv = ["uvicorn", "api_shim.app:app", *sys.argv[1:]]
    uvicorn.main()
