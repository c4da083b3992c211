"""Parser of docker-compose.yml: merged, with its variables filled in, as Docker does it."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+):(?P<kind>[?-])(?P<text>[^}]*)\})")
_DEFAULT = re.compile(r"\$\{(\w+):-([\w.]+)\}")


class Missing(Exception):
    """A required variable is not set."""


def composed(variables: Mapping[str, str]) -> dict[str, Any]:
    """Read the file with `variables` in place of those of `.env`. Raises Missing."""
    whole: dict[str, Any] = _filled(yaml.safe_load(COMPOSE.read_text(encoding="utf-8")), variables)
    return whole


def variables_of_compose() -> dict[str, bool]:
    """List each variable of the file, with True if it is required."""
    found = _VARIABLE.finditer(COMPOSE.read_text(encoding="utf-8"))
    return {each["name"]: each["kind"] == "?" for each in found if each["name"]}


def _filled(part: Any, variables: Mapping[str, str]) -> Any:
    match part:
        case dict():
            return {name: _filled(value, variables) for name, value in part.items()}
        case list():
            return [_filled(each, variables) for each in part]
        case str():
            return _VARIABLE.sub(lambda found: _value(found, variables), part)
    return part


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if not found["name"]:
        return "$"
    if value := variables.get(found["name"]):
        return value
    if found["kind"] == "?":
        raise Missing(found["name"])
    return found["text"]


def as_run_by_default(line: str) -> list[str]:
    """Split a shell line into words with every variable unset."""
    return shlex.split(_DEFAULT.sub(r"\2", line).removeprefix("exec "))


def procfile() -> dict[str, str]:
    lines = (ROOT / "Procfile").read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines if line.strip())


WORKERS = tuple(name for name, line in procfile().items() if " worker -Q " in line)
"""The processes that each serve one queue, which has their name."""
