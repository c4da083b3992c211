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
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import create_engine

from scheduler.hashing import Hasher
from scheduler.persistence import schema
from scheduler.persistence.database import Database, with_driver
from tests.conftest import TestClock, seed, wait_until
from tests.containers.daemon import a_daemon, make_images
from tests.containers.deployment import (
    API,
    CARRIER,
    SECTIONS,
    Deployment,
    a_copy_of_the_repository,
    first_values,
    session,
)
from tests.containers.proxy import a_proxy, make_certificate
from tests.docs.pages import blocks, read, section
from tests.support.builders import a_pending_attempt, a_tenant
from tests.support.compose import procfile
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier

pytestmark = [
    pytest.mark.skipif("DUECALL_CONTAINERS" not in os.environ, reason="`make containers` runs these tests"),
    pytest.mark.timeout(900),
]
DEPLOY, OPERATIONS = SECTIONS
LAST_OF_0_1_0 = "0013"
"""The newest migration of release 0.1.0."""
NUMBERS = ("+421915330001", "+421915330002")
ALWAYS = [{"days": ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"], "start": "00:00", "end": "24:00"}]


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
def carrier(folder: Path, certificate: Path) -> Iterator[SimulatedCarrier]:
    """The simulated carrier as a process. It sends its callbacks through the proxy, and trusts its certificate."""
    env = {"PATH": os.environ["PATH"], "TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": PRIMARY}
    words = [sys.executable, "-m", "scheduler", "simulator", "--port", CARRIER.rpartition(":")[2]]
    with (folder / "carrier.log").open("wb") as log:
        process = subprocess.Popen(words, env=env | {"SSL_CERT_FILE": str(certificate)}, stdout=log, stderr=log)
    made = SimulatedCarrier(url=CARRIER)
    wait_until(lambda: _is_up(made), seconds=30, says="the carrier answers")
    yield made
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def _is_up(carrier: SimulatedCarrier) -> bool:
    try:
        carrier.check_health()
    except OSError:
        return False
    return True


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


def test_upgrade_from_0_1_0_keeps_its_data(deployment: Deployment, carrier: SimulatedCarrier) -> None:
    """The migrations make the schema of 0.1.0, and today's code the data, which a downgrade brings into it."""
    deployment.fill()
    deployment.shell("docker compose up -d --no-deps --wait postgres valkey")
    url = f"postgresql://duecall:{deployment.values['POSTGRES_PASSWORD']}@127.0.0.1:5432/duecall"
    schema.upgrade(url)
    now = datetime.now(UTC)
    with closing(Database(url)) as database:
        hasher = Hasher(deployment.values["KEY_PEPPER"])
        tenant = a_tenant(database, seed(database, now), hasher, TestClock(now), account_sid=ACCOUNT_SID)
        interview_id = a_pending_attempt(tenant, due_at=now + timedelta(hours=12)).interview_id
    engine = create_engine(with_driver(url))
    with engine.connect() as connection:
        command.downgrade(schema._config(connection), LAST_OF_0_1_0)
        connection.commit()
    engine.dispose()

    deployment.run_block(DEPLOY, "Run in production", 0)
    deployment.run_block(DEPLOY, "Run in production", 1)
    deployment.wait_until_ready()
    deployment.wait_until_healthy()
    assert deployment.containers()["migrate"]["ExitCode"] == 0
    deployment.run_block(DEPLOY, "Run in production", 2)
    explained = deployment.run_block(DEPLOY, "Run in production", 3, {"INTERVIEW_ID": str(interview_id)})
    assert str(interview_id) in explained
    key = _key(deployment, f"--company {tenant.company_id}")
    with session(key) as client:
        kept = client.get(f"{API}/interviews/{interview_id}", timeout=20).json()["data"]
    assert UUID(kept["id"]) == interview_id


def _key(deployment: Deployment, options: str) -> str:
    said = deployment.shell(f"docker compose exec dial duecall keys create {options} --json 2> /dev/null")
    return str(json.loads(said)["key"])


def test_call_is_placed_and_its_end_is_heard(deployment: Deployment, carrier: SimulatedCarrier) -> None:
    _call_a_person(deployment, carrier, NUMBERS[0])


def _call_a_person(deployment: Deployment, carrier: SimulatedCarrier, number: str) -> None:
    carrier.plan(to=number, outcome="answered", talk_s=1)
    with session(_key(deployment, "--ats 'Acme ATS'")) as client:

        def sent(path: str, body: dict[str, Any]) -> Any:
            answer = client.post(f"{API}{path}", json=body, timeout=40)
            assert answer.ok, answer.text
            return answer.json()["data"]

        company = sent("/company", {"name": "Acme", "settings": {"callTimeIntervals": ALWAYS}})
        mine = f"?companyId={company['id']}"
        [caller] = client.get(f"{API}/phone-numbers{mine}", timeout=40).json()["data"]["items"]
        agent = {"name": "Screening", "type": "PHONE", "focus": "GENERIC", "language": "SK", "duration": 15}
        candidate = {"firstName": "Ada", "lastName": "King", "phoneNumber": number, "gdprExpiryDate": "2099-01-01"}
        body = {"agent": agent | {"companyPhoneNumberId": caller["id"]}, "candidate": candidate}
        made = sent(f"/interviews{mine}", body)

        def is_completed() -> bool:
            shown = client.get(f"{API}/interviews/{made['id']}{mine}", timeout=40).json()["data"]
            return bool(shown["status"] == "COMPLETED")

        wait_until(is_completed, seconds=60, says="the callbacks have ended the interview")
    assert len(carrier.rings(number)) == 1


def test_keys_are_managed_by_the_documented_commands(deployment: Deployment) -> None:
    rows = json.loads(deployment.shell("docker compose exec dial duecall keys list --json 2> /dev/null"))
    company = next(each for each in rows if each["companyId"])
    replaced = {"KEY_ID": company["keyId"], "--company ID": f"--company {company['companyId']}"}
    deployment.run_block(DEPLOY, "Roles and keys", 0, replaced)


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


def test_new_release_is_deployed_by_the_documented_commands(deployment: Deployment) -> None:
    before = {name: deployment.started_at(name) for name in ("postgres", "valkey")}
    replaced = {name: deployment.started_at(name) for name in procfile()}
    (deployment.folder / "scheduler" / "release.txt").write_text("a new release\n", encoding="ascii")
    deployment.run_block(OPERATIONS, "Deploying", 0)
    deployment.wait_until_ready()
    deployment.run_block(OPERATIONS, "Deploying", 1)
    assert {name: deployment.started_at(name) for name in before} == before
    assert [name for name, at in replaced.items() if deployment.started_at(name) == at] == []


def test_secrets_are_rotated_by_the_documented_commands(deployment: Deployment) -> None:
    title = "Rotating secrets"
    owners = {"NEW_PASSWORD": "a-new-owners-secret"}
    deployment.run_block(OPERATIONS, title, 3, owners)
    deployment.fill(
        POSTGRES_PASSWORD=owners["NEW_PASSWORD"],
        **{name: f"a-new-{name.lower()}" for name in ("API_PASSWORD", "WORKER_PASSWORD", "CONSOLE_PASSWORD")},
    )
    deployment.run_block(OPERATIONS, title, 1)
    deployment.wait_until_ready()
    deployment.fill(REDIS_PASSWORD="a-new-doorbells-secret", FLOWER_REDIS_PASSWORD="a-new-watchers-secret")
    deployment.run_block(OPERATIONS, title, 2)
    deployment.wait_until_ready()
    deployment.fill(FLOWER_BASIC_AUTH="operator:a-new-flowers-secret")
    deployment.run_block(OPERATIONS, title, 0)
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
    _call_a_person(deployment, carrier, NUMBERS[1])
    violations = {name: found for name, found in carrier.verdict().items() if isinstance(found, list)}
    assert violations
    assert not any(violations.values())


def test_wrong_settings_end_the_start_and_are_named(deployment: Deployment) -> None:
    deployment.shell("docker compose down --timeout 20")
    right = deployment.values["PUBLIC_URL"]
    deployment.fill(PUBLIC_URL="http://localhost:8000")
    said = deployment.shell("docker compose up -d", status=1)
    assert 'service "migrate" didn\'t complete successfully' in said
    assert "PUBLIC_URL" in deployment.run_block(OPERATIONS, "Starting, stopping", 1)
    assert not any(each["State"] == "running" for name, each in deployment.containers().items() if name in procfile())
    deployment.fill(PUBLIC_URL=right)


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
