"""A private PostgreSQL whose data is a copy of data at this release's schema, made once per test process.

Creating the data and upgrading the schema takes two seconds of CPU, and every whole system needs its own.
"""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from scheduler.persistence import schema
from standalone.valkey_and_postgres import EmbeddedPostgres


class CopiedPostgres(EmbeddedPostgres):
    """Differs only in its first start. Later ones use the data that it finds."""

    def _make_data(self) -> None:
        if not self._data.exists():
            made = _made_once()
            shutil.copyfile(made / self._password_file.name, self._password_file)
            self._password_file.chmod(0o600)
            shutil.copytree(made / self._data.name, self._data)
        super()._make_data()


@cache
def _made_once() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="duecall-data-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with EmbeddedPostgres(folder, durable=False) as server:
        schema.upgrade(server.url)
    return folder
