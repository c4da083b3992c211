"""Opens and writes files that only their owner can read."""

import os
from pathlib import Path
from typing import IO, Any


def open_private(path: Path, mode: str) -> IO[Any]:
    """Open a file. If it is created, only its owner can read it."""
    return open(path, mode, encoding=None if "b" in mode else "utf-8", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_private(path: Path, text: str) -> None:
    with open_private(path, "w") as file:
        file.write(text)
