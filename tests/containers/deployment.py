"""A deployment by the documents: a copy of the repository, and the commands of its pages in a shell."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.conftest import wait_until
from tests.containers.release import copy_repository, extract_0_1_0
from tests.docs.pages import blocks, read, section
from tests.support.servers import ACCOUNT_SID, PRIMARY
from tests.test_deployment import FILLED

API = "http://127.0.0.1:8000"
CARRIER = "http://127.0.0.1:8100"
SECTIONS = {
    "docs/how-to/deploy.md": ("Use real servers from a shell", "Run in production", "Roles and keys"),
    "docs/operations.md": (
        "Starting, stopping",
        "Deploying",
        "Rotating secrets",
        "Backup",
        "After a restore or a failover",
    ),
}
"""Every section with commands of these pages' parts about deployment."""
_OPEN = re.compile(r"<[^>]+>|\.\.\.|\b[A-Z]+_ID\b")
_DUECALL = 'duecall() { docker compose exec dial duecall "$@"; }\n'
_ON_LOOPBACK = "on-loopback.yml"
_COPIED = re.compile(r"^cp \.env\.example \.env[^#\n]*", re.MULTILINE)


@dataclass
class Deployment:
    folder: Path
    address: str
    """Of the Docker daemon."""
    values: dict[str, str]
    """The lines of `.env`."""
    executed: set[str] = field(default_factory=set)

    def run_block(
        self, page: str, title: str, number: int, replaced: Mapping[str, str] | None = None, *, status: int = 0
    ) -> str:
        """Execute a block of a page, with these texts replaced. Return its output."""
        return self.shell(self.script(page, title, number, replaced), status=status)

    def script(self, page: str, title: str, number: int, replaced: Mapping[str, str] | None = None) -> str:
        """Return a block as a script, and count it as executed. `.env` is filled in as soon as it is copied."""
        block = text = blocks(section(read(page), title))[number]
        self.executed.add(block)
        for old, new in (replaced or {}).items():
            assert old in text, f"{page}, {title}: {old}"
            text = text.replace(old, new)
        assert not _OPEN.search(text), f"{page}, {title}: say what to put in place of {_OPEN.findall(text)}"
        (self.folder / "filled").write_text(self._env(), encoding="utf-8")
        return _COPIED.sub(r"\g<0> && cat filled > .env ", text)

    def fill(self, **values: str) -> None:
        """Change values in `.env`."""
        self.values |= values
        (self.folder / ".env").write_text(self._env(), encoding="utf-8")

    def _env(self) -> str:
        return "".join(f"{name}={value}\n" for name, value in self.values.items())

    @property
    def environment(self) -> dict[str, str]:
        files = f"docker-compose.yml:{_ON_LOOPBACK}"
        kept = {"PATH", "HOME", "LANG", "TMPDIR", "DOCKER_CONFIG"}
        known = {name: value for name, value in os.environ.items() if name in kept}
        return known | {"DOCKER_HOST": self.address, "COMPOSE_FILE": files, "COMPOSE_PROJECT_NAME": "duecall"}

    def shell(self, script: str, *, status: int = 0) -> str:
        """Run a script in the repository's copy, where `duecall` is that of the container. Return its output."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", _DUECALL + script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=500,
        )
        assert done.returncode == status, f"{script}\n{done.stdout}\n{self._logs()}"
        return done.stdout

    def _logs(self) -> str:
        logs = ["docker", "compose", "logs", "--tail", "20"]
        done = subprocess.run(logs, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout[-6000:]

    def containers(self) -> dict[str, dict[str, Any]]:
        """Read the state of each service, as Docker shows it."""
        shown = self.shell("docker compose ps --all --format json")
        return {each["Service"]: each for each in map(json.loads, filter(_is_object, shown.splitlines()))}

    def started_at(self, service: str) -> str:
        return self.shell(f"docker inspect --format '{{{{.State.StartedAt}}}}' duecall-{service}-1").strip()

    def wait_until_ready(self) -> None:
        """Wait until the API answers and every queue has a worker."""
        wait_until(_is_ready, seconds=90, says="the API is ready and nothing is degraded")


def _is_object(line: str) -> bool:
    return line.startswith("{")


def _is_ready() -> bool:
    try:
        answer = session().get(f"{API}/readyz", timeout=20)
    except requests.RequestException:
        return False
    return answer.ok and answer.json()["data"] == {**answer.json()["data"], "status": "ok", "degraded": []}


def session(key: str | None = None) -> requests.Session:
    """Build a client of the API that reads no proxy from the environment."""
    made = requests.Session()
    made.trust_env = False
    made.headers["Connection"] = "close"  # an idle one may end at the instant at which a request is sent
    if key is not None:
        made.headers["Authorization"] = f"Bearer {key}"
    return made


def a_copy_of_the_repository(folder: Path) -> Path:
    """Copy every file of the repository that git knows or would add, and link its environment."""
    copy = folder / "duecall"
    copy_repository(copy)
    (copy / ".venv").symlink_to(sys.prefix)
    _write_loopback(copy, health={})
    return copy


def release_0_1_0(folder: Path) -> Path:
    """Extract release 0.1.0, without its health checks, which would start interpreters again and again."""
    release = folder / "duecall-0.1.0"
    extract_0_1_0(release)
    _write_loopback(release, health={"disable": True})
    return release


def _write_loopback(folder: Path, health: dict[str, Any]) -> None:
    """Write a file that gives each service a network of only loopback, where services are found by their names."""
    services = yaml.safe_load((folder / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    written: dict[str, dict[str, Any]] = {}
    for name, service in services.items():
        written[name] = {"network_mode": "host", "extra_hosts": ["postgres:127.0.0.1", "valkey:127.0.0.1"]}
        if "build" in service:
            written[name]["build"] = {"network": "none"}
        if {"build", "healthcheck"} <= set(service):
            written[name]["healthcheck"] = health
    (folder / _ON_LOOPBACK).write_text(json.dumps({"services": written}), encoding="utf-8")


def first_values(public_url: str) -> dict[str, str]:
    """Build secrets and addresses for `.env`. The carrier is the simulator on loopback."""
    return FILLED | {
        "PUBLIC_URL": public_url,
        "DEFAULT_CALLER_ID": "+421221020001",
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": PRIMARY,
        "TWILIO_API_URL": CARRIER,
        "TWILIO_CPS": "50",
        "SMTP_URL": "smtp://127.0.0.1:9",
    }
