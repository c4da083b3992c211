"""Release 0.1.0, from the history of the repository.

In a clone without its history, today's release stands in for it: the documented commands then replace processes, and no
data of an earlier schema. The run says so.
"""

import subprocess
from pathlib import Path

from tests.support.compose import ROOT

COMMIT = "bd9c55184633262159a430f8e8b4fcb7fb6b7b04"
"""The commit that wrote the section 0.1.0 of the changelog. No tag names it. Its newest migration is 0013."""
_GIT = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]


def is_in_this_clone() -> bool:
    return subprocess.run([*_GIT, "cat-file", "-e", COMMIT], capture_output=True, check=False).returncode == 0


def read_of_0_1_0(path: str) -> str:
    """Read the text of a file of the release."""
    if not is_in_this_clone():
        return (ROOT / path).read_text(encoding="utf-8")
    return subprocess.run([*_GIT, "show", f"{COMMIT}:{path}"], check=True, capture_output=True, text=True).stdout


def extract_0_1_0(folder: Path) -> None:
    """Write every file of the release into a new folder."""
    folder.mkdir()
    if not is_in_this_clone():
        copy_repository(folder)
        return
    with subprocess.Popen([*_GIT, "archive", COMMIT], stdout=subprocess.PIPE) as archive:
        subprocess.run(["tar", "--extract", "--directory", folder], stdin=archive.stdout, check=True)


def copy_repository(folder: Path) -> None:
    """Copy every file of the repository that git knows or would add."""
    for name in filter(lambda each: (ROOT / each).is_file(), names_in_the_repository()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())


def names_in_the_repository() -> list[str]:
    """List the path of every file that git knows or would add."""
    listed = [*_GIT, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    return subprocess.run(listed, check=True, capture_output=True, text=True).stdout.rstrip("\0").split("\0")
