"""The image, the compose file and the Procfile run the same processes, and bring nothing weak into production."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from scheduler.setting_values import DEVELOPMENT_FLOWER_AUTH, DEVELOPMENT_PEPPER
from scheduler.settings import Settings, environment
from scheduler.use_cases.shared.hints import QUEUES
from standalone.valkey_and_postgres import _POSTGRES_SETTINGS, _VALKEY_SETTINGS, FLOWER_RIGHTS, FLOWER_USER
from tests.architecture.sources import PRODUCT
from tests.docs.pages import blocks, read
from tests.support.compose import ROOT, WORKERS, Missing, as_run_by_default, composed, procfile, variables_of_compose

SERVERS = {"postgres", "valkey"}
ONCE = {"migrate"}
OF_THE_SHELL = {"LISTEN_ON", "PORT", "CONSOLE_PORT", "FLOWER_PORT"}
"""Variables that the lines of the Procfile use."""
OF_THE_OWNER = {"DATABASE_OWNER_URL", "POSTGRES_PASSWORD"}
DRAIN_S = 15

FILLED = {
    "POSTGRES_PASSWORD": "an-owners-secret",
    "API_PASSWORD": "an-apis-secret",
    "WORKER_PASSWORD": "a-workers-secret",
    "CONSOLE_PASSWORD": "a-consoles-secret",
    "REDIS_PASSWORD": "a-doorbells-secret",
    "FLOWER_REDIS_PASSWORD": "a-watchers-secret",
    "KEY_PEPPER": "a-pepper-of-production",
    "WEBHOOK_KEY": "YSBrZXkgb2Ygd2ViaG9va3MgaW4gcHJvZHVjdGlvbi4=",
    "FLOWER_BASIC_AUTH": "operator:a-flowers-secret",
    "PUBLIC_URL": "https://duecall.example.com",
    "CONSOLE_URL": "https://console.example.com",
    "TWILIO_ACCOUNT_SID": "AC" + "1" * 32,
    "TWILIO_AUTH_TOKEN": "a-carriers-secret",
    "TWILIO_VOICE_URL": "https://voice.example.com/twiml",
    "SMTP_URL": "smtp://user:a-mails-secret@mail.example.com:587",
    "MAIL_FROM": "Duecall <mail@example.com>",
    "APP_URL": "https://app.example.com",
}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = composed(FILLED)["services"]
    return found


def test_each_queue_has_a_process_and_each_worker_a_queue() -> None:
    assert set(WORKERS) == set(QUEUES.values())


def test_compose_runs_the_procfiles_processes_and_no_others(services: dict[str, Any]) -> None:
    assert set(services) == set(procfile()) | SERVERS | ONCE


each_process = pytest.mark.parametrize("name", list(procfile()))


@each_process
def test_a_service_runs_the_procfiles_line_word_for_word(services: dict[str, Any], name: str) -> None:
    shell, flag, line = services[name]["command"]
    assert (shell, flag) == ("sh", "-c")
    assert line == f"exec {procfile()[name]}"  # a shell in between would keep SIGTERM to itself


def test_the_image_runs_the_api_unless_it_is_told_otherwise(services: dict[str, Any]) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    [command] = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    [health] = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", text, re.MULTILINE)
    assert json.loads(command) == services["api"]["command"]
    assert ["CMD", *json.loads(health)] == services["api"]["healthcheck"]["test"]


@each_process
def test_health_check_starts_no_interpreter(services: dict[str, Any], name: str) -> None:
    """Each interpreter takes 60 MB and a second of a processor, at each check of each container."""
    check = services[name]["healthcheck"]
    kind, *words = check["test"]
    assert kind == "CMD-SHELL" or words[:2] == ["bash", "-c"]
    assert not re.search(r"python|celery|duecall ", words[-1])
    assert "$DUECALL_PROOF_FILE" in words[-1] or "/readyz" in words[-1], "it proves work"
    assert int(check["interval"].removesuffix("s")) <= 30


@each_process
def test_health_check_gives_a_slow_machine_two_minutes(services: dict[str, Any], name: str) -> None:
    """A container that is unhealthy earlier would end `docker compose up --wait`."""
    assert services[name]["healthcheck"]["start_period"] == "120s"
    assert "--start-period=120s" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["docs/operations.md", "docs/how-to/deploy.md"])
def test_documented_up_waits_for_health(page: str) -> None:
    """Without `--wait`, `up` says nothing about a service that Docker starts again and again."""
    lines = [line for block in blocks(read(page)) for line in block.splitlines() if "docker compose up" in line]
    assert lines
    assert [line for line in lines if "--wait" not in line.split()] == []


def test_image_uses_the_hashed_lock_without_root_or_compiler() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    build, last = (part for part in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:])
    assert "--require-hashes -r requirements.lock" in build
    installs = [line for line in build.splitlines() if "pip install" in line]
    assert all("--no-index" in line or "--require-hashes" in line for line in installs)
    assert re.search(r"^USER [1-9]\d*$", last, re.MULTILINE)
    assert "pip install" not in last
    assert "apt-get" not in text
    assert "-slim" in build.splitlines()[0]
    assert "-slim" in last.splitlines()[0]
    copied = {word for line in build.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert copied == {word.removeprefix("!") for word in ignored if word.startswith("!")}
    assert all((ROOT / word).exists() for word in copied)


@each_process
def test_every_variable_of_a_service_is_a_setting(services: dict[str, Any], name: str) -> None:
    said = set(services[name]["environment"])
    assert said <= {field.upper() for field in Settings.model_fields} | OF_THE_SHELL


@pytest.mark.parametrize("name", [*procfile(), *ONCE])
def test_what_a_service_is_told_is_good_enough_for_production(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable, value in services[name]["environment"].items():
        monkeypatch.setenv(variable, str(value))
    assert Settings().is_production


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "http://localhost:8000"),
        ("CONSOLE_URL", "http://localhost:8001"),
        ("FLOWER_BASIC_AUTH", "operator"),
        ("CONSOLE_OIDC_ISSUER", "https://id.example.com"),
    ],
)
def test_migration_refuses_wrong_settings_of_any_process(name: str, value: str) -> None:
    """Every process starts after it, so `docker compose up` ends with an error."""
    migrate = composed(FILLED | {name: value})["services"]["migrate"]
    shell, flag, line = migrate["command"]
    env = {name: str(value) for name, value in migrate["environment"].items()}
    path = f"{Path(sys.executable).parent}:{os.defpath}"
    ended = subprocess.run(
        [shell, flag, line],
        cwd=ROOT,
        env={**env, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert name in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name, must in variables_of_compose().items() if must])
def test_secrets_and_addresses_are_required_without_defaults(name: str) -> None:
    with pytest.raises(Missing, match=name):
        composed(FILLED | {name: ""})


def test_only_what_may_be_unset_has_a_default_and_it_is_empty() -> None:
    """Production takes the settings of each service without all others, as the test above shows."""
    assert {name for name, must in variables_of_compose().items() if must} == set(FILLED)
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert not re.findall(r"(?<!\$)\$\{\w+:-[^}]", text)
    assert not any(weak in text for weak in (DEVELOPMENT_PEPPER, DEVELOPMENT_FLOWER_AUTH, "duecall:duecall"))


def test_env_example_lists_all_variables_without_secrets() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    named = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(named) == set(variables_of_compose())
    assert not any(named.values())
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_owners_password_is_given_only_to_the_migration(services: dict[str, Any]) -> None:
    for name in procfile():
        assert FILLED["POSTGRES_PASSWORD"] not in yaml.safe_dump(services[name]), name
    for name in ("api", "console"):
        assert FILLED["WORKER_PASSWORD"] not in yaml.safe_dump(services[name]), name
    for name in set(procfile()) - {"console"}:
        assert FILLED["CONSOLE_PASSWORD"] not in yaml.safe_dump(services[name]), name
    for name in set(procfile()) - {"api"}:
        assert FILLED["API_PASSWORD"] not in yaml.safe_dump(services[name]), name


def test_ports_are_on_loopback_alone(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(ports) == {"api", "console", "flower"} | SERVERS
    assert all(port.startswith("127.0.0.1:") for each in ports.values() for port in each)


@each_process
def test_processes_start_after_the_schema_and_restart(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["restart"] == "unless-stopped"
    assert service["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "postgres": {"condition": "service_healthy"},
        "valkey": {"condition": "service_healthy"},
    }
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["restart"] == "no"


@each_process
def test_who_is_told_to_stop_has_time_to_finish(services: dict[str, Any], name: str) -> None:
    seconds = int(services[name]["stop_grace_period"].removesuffix("s"))
    assert seconds >= (10 if name == "flower" else DRAIN_S + 10)


@each_process
def test_a_process_may_do_no_more_than_it_must(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service  # the image's own, who is not root


def test_the_servers_are_set_as_the_private_ones_are(services: dict[str, Any]) -> None:
    said = [each for each in services["postgres"]["command"] if each != "-c"][1:]
    own_affairs = {"listen_addresses", "unix_socket_directories", "log_timezone", "log_checkpoints"}
    ours = {name: value for name, value in _POSTGRES_SETTINGS.items() if name not in own_affairs}
    assert dict(each.split("=", 1) for each in said) == ours
    flags = services["valkey"]["command"][1:]
    said_to_valkey = dict(zip((each.removeprefix("--") for each in flags[::2]), flags[1::2], strict=True))
    kept = ("appendonly", "appendfsync", "maxmemory-policy")
    assert {name: said_to_valkey[name] for name in kept} == {name: _VALKEY_SETTINGS[name] for name in kept}


def test_redis_lets_in_whom_the_readme_lets_in(services: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "how-to" / "integrate-over-celery.md").read_text(encoding="utf-8")
    rights = dict(re.findall(r"^ACL SETUSER (duecall-(?:processes|flower)) on >\S+ (.*)$", page, re.MULTILINE))
    users = composed(FILLED)["configs"]["users"]["content"].splitlines()
    assert users == [
        "user default off",
        f"user duecall-processes on >{FILLED['REDIS_PASSWORD']} {rights['duecall-processes']}",
        f"user duecall-flower on >{FILLED['FLOWER_REDIS_PASSWORD']} {rights['duecall-flower']}",
    ]
    assert rights[FLOWER_USER] == FLOWER_RIGHTS
    assert {"source": "users", "target": "/users.acl"} in services["valkey"]["configs"]
    assert services["valkey"]["command"][-2:] == ["--aclfile", "/users.acl"]


def test_flower_knows_no_password_of_redis_but_its_own(services: dict[str, Any]) -> None:
    told = services["flower"]["environment"]
    assert FILLED["REDIS_PASSWORD"] not in json.dumps(told)
    assert urlsplit(told["FLOWER_REDIS_URL"]).username == FLOWER_USER
    assert told["REDIS_URL"] == told["FLOWER_REDIS_URL"]


def test_flower_needs_a_read_only_user_in_production(services: dict[str, Any]) -> None:
    told = dict(services["flower"]["environment"])
    del told["FLOWER_REDIS_URL"]
    words = [sys.executable, *as_run_by_default(procfile()["flower"])[1:]]
    env = environment(**told)
    ended = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert ended.stderr.strip().splitlines()[-1].startswith("FLOWER_REDIS_URL is not set.")


def test_no_line_of_deployment_names_a_machine_or_an_index() -> None:
    for name in ("Dockerfile", "docker-compose.yml", ".dockerignore", ".env.example"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"--index-url|--extra-index|--trusted-host|https?://(?!127\.0\.0\.1)", text), name


def test_wheel_and_image_contain_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == project["tool"]["importlinter"]["root_packages"]
    assert {path.relative_to(ROOT).parts[0] for path in PRODUCT} == set(packages)
    included = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {path.relative_to(ROOT).as_posix() for path in PRODUCT} <= included
    assert "console/templates/base.html" in included
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^COPY (\w+) \1$", image, re.MULTILINE) == packages
    assert f"compileall -q {' '.join(packages)}" in image
