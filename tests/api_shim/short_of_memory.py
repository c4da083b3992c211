"""Serves the API as its own process, which runs out of memory when it is told to.

SIGUSR1: no thread can begin any longer. SIGUSR2: the next body finds no memory. Arguments: those of uvicorn.
"""

import json
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

import uvicorn

from api_shim import json_body


def no_thread_begins(_number: int, _frame: FrameType | None) -> None:
    """Let no thread begin, as when a new one has no memory: the thread that started it waits for its signal."""

    def fail(_: threading.Thread) -> NoReturn:
        raise MemoryError

    threading.Thread._bootstrap = fail  # type: ignore[attr-defined]


def no_body_is_read(_number: int, _frame: FrameType | None) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise MemoryError

    vars(json_body)["json"] = type("no_memory", (), {"loads": fail, "JSONDecodeError": json.JSONDecodeError})


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, no_thread_begins)
    signal.signal(signal.SIGUSR2, no_body_is_read)
    sys.argv = ["uvicorn", "api_shim.app:app", *sys.argv[1:]]
    uvicorn.main()
