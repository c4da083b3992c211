"""The containers and every documented command of a deployment, in the order in which an operator meets them.

The tests are one story: each continues with the deployment that the one before has left.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.containers.ats import Ats
from tests.containers.daemon import a_daemon, make_images
from tests.containers.deployment import (
    CARRIER,
    SECTIONS,
    Deployment,
    a_copy_of_the_repository,
    first_values,
    release_0_1_0,
    session,
)
from tests.containers.proxy import a_proxy, make_certificate
from tests.docs.pages import blocks, read, section
from tests.support.compose import procfile
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier

pytestmark = [
    pytest.mark.skipif("DUECALL_CONTAINERS" not in os.environ, reason="`make containers` runs these tests"),
    pytest.mark.timeout(900),
]
DEPLOY, OPERATIONS = SECTIONS


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(os.environ["DUECALL_CONTAINERS"])


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Path:
    return make_certificate(folder)


@pytest.fixture(scope="module")
def deployment(folder: Path, certificate: Path) -> Iterator[Deployment]:
    with ExitStack() as stack:
        address = stack.enter_context(a_daemon(folder))
        make_images(address, folder / "base")
        public_url = stack.enter_context(a_proxy(certificate, 8000))
        made = Deployment(a_copy_of_the_repository(folder), address, first_values(public_url))
        stack.callback(made.shell, "[ ! -e .env ] || docker compose down --volumes --timeout 20")
        yield made


@pytest.fixture(scope="module")
def before(folder: Path, deployment: Deployment) -> Iterator[Deployment]:
    """The deployment of release 0.1.0 with the same `.env`, in the same place as today's.

    Its image is built while other tests wait. Later, Docker finds each step of the build in its cache.
    """
    release = release_0_1_0(folder)
    build = ["docker", "build", "--quiet", "--network=none", "--tag=duecall-before", str(release)]
    with subprocess.Popen(build, env=deployment.environment, stdout=subprocess.DEVNULL) as building:
        yield replace(deployment, folder=release)
    assert building.returncode == 0


@pytest.fixture(scope="module")
def carrier(folder: Path, certificate: Path) -> Iterator[SimulatedCarrier]:
    """The simulated carrier as a process. It sends its callbacks through the proxy, and trusts its certificate."""
    env = {"PATH": os.environ["PATH"], "TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": PRIMARY}
    words = [sys.executable, "-m", "scheduler", "simulator", "--port", CARRIER.rpartition(":")[2]]
    with (folder / "carrier.log").open("wb") as log:
        process = subprocess.Popen(words, env=env | {"SSL_CERT_FILE": str(certificate)}, stdout=log, stderr=log)
    made = SimulatedCarrier(url=CARRIER)
    try:
        wait_until(lambda: _is_up(made), seconds=30, says="the carrier answers")
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _is_up(carrier: SimulatedCarrier) -> bool:
    try:
        carrier.check_health()
    except OSError:
        return False
    return True


@pytest.mark.usefixtures("before")
def test_real_servers_are_used_from_a_shell(
    deployment: Deployment, carrier: SimulatedCarrier, certificate: Path
) -> None:
    values = deployment.values
    script = deployment.script(
        DEPLOY,
        "Use real servers from a shell",
        0,
        {
            "<POSTGRES_PASSWORD of .env>": values["POSTGRES_PASSWORD"],
            "<REDIS_PASSWORD of .env>": values["REDIS_PASSWORD"],
            "KEY_PEPPER=<the same as in .env>": f"KEY_PEPPER={values['KEY_PEPPER']}",
            "WEBHOOK_KEY=<the same as in .env>": f"WEBHOOK_KEY={values['WEBHOOK_KEY']}",
            "TWILIO_ACCOUNT_SID=AC...": f"TWILIO_API_URL={CARRIER} TWILIO_ACCOUNT_SID={ACCOUNT_SID}",
            "TWILIO_AUTH_TOKEN=...": f"TWILIO_AUTH_TOKEN={PRIMARY}",
            "+1...": "+421221020001",
            "https://duecall.example.com": values["PUBLIC_URL"],
            "/etc/ssl/private-ca.pem": str(certificate),
        },
    )
    up = subprocess.Popen(
        ["bash", "-e", "-c", script], cwd=deployment.folder, env=deployment.environment, start_new_session=True
    )
    try:
        deployment.wait_until_ready()
    finally:
        os.killpg(up.pid, signal.SIGINT)
        status = up.wait(60)
    assert status == 0
    deployment.shell("docker compose down --volumes --timeout 20")


def test_production_starts_and_places_a_call(deployment: Deployment, carrier: SimulatedCarrier) -> None:
    """The server is new: it has no database and no secrets."""
    deployment.run_block(DEPLOY, "Run in production", 0)
    deployment.run_block(DEPLOY, "Run in production", 1)
    states = deployment.containers()
    assert states["migrate"]["ExitCode"] == 0
    assert {name for name, each in states.items() if each["Health"] != "healthy"} == {"migrate"}
    deployment.wait_until_ready()
    deployment.run_block(DEPLOY, "Run in production", 2)
    interview_id = _call_a_person(deployment, carrier, "+421915330001")
    explained = deployment.run_block(DEPLOY, "Run in production", 3, {"INTERVIEW_ID": interview_id})
    assert interview_id in explained


def _call_a_person(deployment: Deployment, carrier: SimulatedCarrier, number: str) -> str:
    ats = Ats(_ats_key(deployment))
    carrier.plan(to=number, outcome="answered", talk_s=1)
    interview_id = ats.order(number)
    ats.wait_until_completed(interview_id)
    assert len(carrier.rings(number)) == 1
    return interview_id


def _ats_key(deployment: Deployment) -> str:
    said = deployment.shell("duecall keys create --ats 'Acme ATS' --json 2> /dev/null")
    return str(json.loads(said)["key"])


def test_keys_are_managed_by_the_documented_commands(deployment: Deployment) -> None:
    [row, *_] = json.loads(deployment.shell("duecall keys list --json 2> /dev/null"))
    company_id = Ats(_ats_key(deployment)).company_id
    replaced = {"KEY_ID": row["keyId"], "--company ID": f"--company {company_id}"}
    deployment.run_block(DEPLOY, "Roles and keys", 0, replaced)


def test_voice_server_uses_the_documented_commands(
    deployment: Deployment, carrier: SimulatedCarrier, certificate: Path
) -> None:
    ats = Ats(_ats_key(deployment))
    number = "+421915330006"
    carrier.plan(to=number, outcome="answered", talk_s=40)
    interview_id = ats.order(number)
    wait_until(lambda: carrier.rings(number), seconds=60, says="the person is called")
    [ring] = carrier.rings(number)
    replaced = {"https://duecall.example.com": deployment.values["PUBLIC_URL"], "TOKEN": ring["token"]}
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}T18:00:00"
    ask = deployment.script(DEPLOY, "The voice server", 0, replaced)
    report = deployment.script(DEPLOY, "The voice server", 1, replaced | {"2026-12-04T18:00:00": tomorrow})
    given = f"export COMPANY={ats.company_id} CURL_CA_BUNDLE={certificate}\n"
    assert interview_id in deployment.shell(given + ask)
    wait_until(
        lambda: '"outcome":"CALL_BACK"' in deployment.shell(given + ask + report).replace(" ", ""),
        seconds=60,
        says="the carrier's report of the answer is applied, and then the voice server's is accepted",
    )


def test_pause_starts_no_other_container(deployment: Deployment) -> None:
    """The emergency stop works while `.env` and the image have already changed."""
    before = {name: deployment.started_at(name) for name in ("postgres", "valkey", "migrate", "dial")}
    old = deployment.values["POSTGRES_PASSWORD"]
    deployment.fill(POSTGRES_PASSWORD="another-owners-secret")
    [block] = blocks(read(OPERATIONS).split("\n## ")[0])
    assert "Everything is paused" in deployment.shell(block)
    deployment.fill(POSTGRES_PASSWORD=old)
    assert {name: deployment.started_at(name) for name in before} == before
    deployment.shell("duecall resume --all")


def test_wrong_setting_is_named_before_a_restart(deployment: Deployment) -> None:
    right = deployment.values["FLOWER_BASIC_AUTH"]
    before = {name: deployment.started_at(name) for name in procfile()}
    deployment.fill(FLOWER_BASIC_AUTH="operator")
    assert "FLOWER_BASIC_AUTH" in deployment.run_block(OPERATIONS, "Rotating secrets", 0, status=2)
    deployment.fill(FLOWER_BASIC_AUTH=right)
    assert {name: deployment.started_at(name) for name in before} == before


def test_broken_release_ends_the_deployment_at_once(deployment: Deployment) -> None:
    """Docker starts an ended process again and again, so that `docker compose ps` does not show it as unhealthy."""
    before = {name: deployment.started_at(name) for name in procfile() if name != "settle"}
    file = deployment.folder / "docker-compose.yml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("worker -Q settle", "worker --unknown-option -Q settle"), encoding="utf-8")
    said = deployment.run_block(OPERATIONS, "Deploying", 0, status=1)
    assert re.search(r"container duecall-settle-1 (is unhealthy|exited \(\d+\))", said), said
    assert "No such option" in deployment.run_block(OPERATIONS, "Starting, stopping", 2)
    file.write_text(text, encoding="utf-8")
    assert {name: deployment.started_at(name) for name in before} == before


def test_secrets_are_rotated_by_the_documented_commands(deployment: Deployment) -> None:
    title = "Rotating secrets"
    owners = {"NEW_PASSWORD": "a-new-owners-secret"}
    deployment.run_block(OPERATIONS, title, 2, owners)
    deployment.fill(
        POSTGRES_PASSWORD=owners["NEW_PASSWORD"],
        FLOWER_BASIC_AUTH="operator:a-new-flowers-secret",
        **{name: f"a-new-{name.lower()}" for name in ("API_PASSWORD", "WORKER_PASSWORD", "CONSOLE_PASSWORD")},
    )
    deployment.run_block(OPERATIONS, title, 0)
    deployment.wait_until_ready()
    deployment.fill(REDIS_PASSWORD="a-new-doorbells-secret", FLOWER_REDIS_PASSWORD="a-new-watchers-secret")
    deployment.run_block(OPERATIONS, title, 1)
    deployment.wait_until_ready()
    wait_until(_console_and_flower_answer, seconds=60, says="console and Flower use the new passwords")


def _console_and_flower_answer() -> bool:
    with session() as client:
        try:
            console = client.get("http://127.0.0.1:8001/healthz", timeout=10)
            flower = client.get(
                "http://127.0.0.1:5555/workers?json=1", auth=("operator", "a-new-flowers-secret"), timeout=20
            )
        except OSError:
            return False
    return console.ok and flower.ok and "dial@" in flower.text


def test_dump_is_restored_on_a_new_server(deployment: Deployment, carrier: SimulatedCarrier) -> None:
    policies = "docker compose exec postgres psql -U duecall -Atc 'SELECT count(*) FROM pg_policies'"
    deployment.run_block(OPERATIONS, "Backup", 0)
    before = deployment.shell(policies)
    deployment.shell("docker compose down --volumes --timeout 20")

    title = "After a restore or a failover"
    assert "Everything " in deployment.run_block(OPERATIONS, title, 0)
    assert deployment.shell(policies).split()[-1] == before.split()[-1]
    an_hour_ago = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%MZ}"
    deployment.run_block(OPERATIONS, title, 1, {"2026-04-02T07:00Z": an_hour_ago})
    deployment.run_block(OPERATIONS, title, 2)
    deployment.wait_until_ready()
    _call_a_person(deployment, carrier, "+421915330005")
    _carrier_found_no_violation(carrier)


def test_wrong_settings_end_the_start_and_are_named(deployment: Deployment) -> None:
    deployment.shell("docker compose down --timeout 20")
    right = deployment.values["PUBLIC_URL"]
    deployment.fill(PUBLIC_URL="http://localhost:8000")
    said = deployment.shell("docker compose up -d --build --wait", status=1)
    assert 'service "migrate" didn\'t complete successfully' in said
    assert "PUBLIC_URL" in deployment.run_block(OPERATIONS, "Starting, stopping", 1)
    assert not any(each["State"] == "running" for name, each in deployment.containers().items() if name in procfile())
    deployment.fill(PUBLIC_URL=right)


def test_upgrade_from_0_1_0_keeps_its_data(
    deployment: Deployment, carrier: SimulatedCarrier, before: Deployment
) -> None:
    """The image of 0.1.0 is built from the commit of the release. While it runs, the documented commands replace it.

    It has placed a call, and another call waits. `.env` has the values that were added since.
    """
    deployment.shell("docker compose down --volumes --timeout 20")
    before.fill()
    before.shell("docker compose up -d --build")
    before.wait_until_ready()
    ats = Ats(_ats_key(before))
    carrier.plan(to="+421915330002", outcome="answered", talk_s=1)
    over = ats.order("+421915330002")
    waiting = ats.order("+421915330003", scheduledAt=f"{datetime.now(UTC) + timedelta(hours=12):%Y-%m-%dT%H:%M:%SZ}")
    ats.wait_until_completed(over)
    servers = {name: deployment.started_at(name) for name in ("postgres", "valkey")}
    replaced = {name: deployment.started_at(name) for name in before.containers() if name not in servers}

    deployment.run_block(OPERATIONS, "Deploying", 0)
    deployment.wait_until_ready()
    deployment.run_block(OPERATIONS, "Deploying", 1)
    assert {name: deployment.started_at(name) for name in servers} == servers
    assert [name for name, at in replaced.items() if name != "migrate" and deployment.started_at(name) == at] == []
    assert (ats.status(over), ats.status(waiting)) == ("COMPLETED", "SCHEDULED")
    carrier.plan(to="+421915330004", outcome="answered", talk_s=1)
    ats.wait_until_completed(ats.order("+421915330004"))
    assert [len(carrier.rings(number)) for number in ("+421915330002", "+421915330003")] == [1, 0]
    _carrier_found_no_violation(carrier)


def _carrier_found_no_violation(carrier: SimulatedCarrier) -> None:
    violations = {name: found for name, found in carrier.verdict().items() if isinstance(found, list)}
    assert violations
    assert not any(violations.values())


def test_stop_ends_every_process_in_order(deployment: Deployment) -> None:
    script = deployment.script(OPERATIONS, "Starting, stopping", 0)
    start, stop = script.split("docker compose stop")
    deployment.shell(start)
    deployment.wait_until_ready()
    deployment.shell(f"docker compose stop{stop}")
    codes = {name: each["ExitCode"] for name, each in deployment.containers().items()}
    by_its_signal = dict.fromkeys(("api", "console"), 128 + signal.SIGTERM)
    assert {name: code for name, code in codes.items() if code not in {0, by_its_signal.get(name)}} == {}


def test_every_documented_command_was_executed(deployment: Deployment) -> None:
    documented = {
        each for page, titles in SECTIONS.items() for title in titles for each in blocks(section(read(page), title))
    }
    assert documented - deployment.executed == set()
    deploy = {each for part in re.split(r"^## ", read(DEPLOY), flags=re.MULTILINE) for each in blocks(part)}
    assert deploy - deployment.executed == set()
