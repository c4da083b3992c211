"""No dependency is locked below the release that fixed a vulnerability, and each is locked by its hash."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
FLOORS = [
    Requirement(line.split("#")[0].strip())
    for line in (ROOT / "security-floors.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def locked(name: str) -> dict[str, list[Version]]:
    """List every version that a lock file may install, by package."""
    found: dict[str, list[Version]] = {}
    text = (ROOT / name).read_text(encoding="utf-8")
    for package, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE):
        found.setdefault(canonicalize_name(package), []).append(Version(version))
    return found


@pytest.mark.parametrize("floor", FLOORS, ids=str)
@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_nothing_is_locked_below_its_floor(floor: Requirement, lock: str) -> None:
    versions = locked(lock)[canonicalize_name(floor.name)]  # KeyError if nothing with this floor is locked
    assert all(version in floor.specifier for version in versions)


def test_a_release_with_a_known_hole_would_be_noticed() -> None:
    [starlette] = [floor for floor in FLOORS if floor.name == "starlette"]
    assert Version("0.49.0") not in starlette.specifier


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_everything_is_locked_by_its_hash(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    pinned = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert pinned
    assert [line for line in pinned if "==" not in line or "--hash=sha256:" not in line] == []
