"""Journal: the state that survives a kill, in a file with one line for each change."""

import json
from io import FileIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel


class Journal:
    """The last state of each entry by kind and key. Without a file the state ends with the process.

    Each line is written with one system call before a phone rings or a request is answered, so that a killed process
    loses no ring. A line that a kill cut short is ignored: its change has not happened yet.
    """

    def __init__(self, path: Path | None) -> None:
        self._kept: dict[str, dict[str, Any]] = {}
        self._file: FileIO | None = None
        if path is not None:
            whole = self._read(path)
            self._file = FileIO(path, "a")
            self._file.truncate(whole)

    def kept(self, kind: str) -> list[Any]:
        """Return the restored entries of this kind, in the order in which they were first stored."""
        return list(self._kept.get(kind, {}).values())

    def keep(self, kind: str, key: str, thing: BaseModel) -> None:
        if self._file is not None:
            self._write(kind, key, thing.model_dump_json())

    def forget(self, kind: str, key: str) -> None:
        self._write(kind, key, "null")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, kind: str, key: str, thing: str) -> None:
        if self._file is not None:
            line = f'{{"kind":{json.dumps(kind)},"key":{json.dumps(key)},"is":{thing}}}\n'
            self._file.write(line.encode())

    def _read(self, path: Path) -> int:
        """Restore the entries of the file, and return the length of its complete lines."""
        text = path.read_bytes() if path.exists() else b""
        whole = text.rpartition(b"\n")[0]
        for line in whole.splitlines():
            entry = json.loads(line)
            things = self._kept.setdefault(entry["kind"], {})
            things[entry["key"]] = entry["is"]
            if entry["is"] is None:
                del things[entry["key"]]
        return len(whole) + 1 if whole else 0
