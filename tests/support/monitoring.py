"""The alert rules and the dashboard of deploy/: their expressions, and the metrics that these read."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.sources import ROOT

RULES = ROOT / "deploy" / "prometheus" / "duecall.rules.yml"
TESTS_OF_RULES = RULES.with_name("duecall.rules.tests.yml")
DASHBOARD = ROOT / "deploy" / "grafana" / "duecall.json"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and os.environ.get("CI") != "true",
    reason="needs promtool of Debian's prometheus: `make debian` as root; CI has it",
)


def promtool(*arguments: str | Path, folder: Path = ROOT) -> None:
    """Run promtool. Raises AssertionError with its output if it fails."""
    run = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def alerts() -> dict[str, dict[str, Any]]:
    """Read the rules by the names of their alerts."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"])


def expressions() -> Iterator[str]:
    """Yield the expressions of the rules and of the dashboard."""
    yield from (rule["expr"] for rule in alerts().values())
    yield from (target["expr"] for panel in panels() for target in panel.get("targets", ()))


def metrics_read() -> frozenset[str]:
    return frozenset(name for each in expressions() for name in re.findall(r"\bduecall_\w+", each))


def metrics_of(text: str) -> frozenset[str]:
    """Read the names in an answer of /metrics. A metric without series, because nothing was counted, has a type."""
    found = set(re.findall(r"^(duecall_\w+)", text, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (duecall_\w+) (\w+)$", text, re.MULTILINE):
        found |= {f"{name}_{suffix}" for suffix in ("bucket", "count", "sum")} if kind == "histogram" else {name}
    return frozenset(found)
