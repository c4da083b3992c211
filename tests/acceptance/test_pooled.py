"""The whole system through PgBouncer in transaction mode. Only LISTEN and migrations reach PostgreSQL directly."""

from pathlib import Path

import pytest
import requests

from scheduler.persistence import schema
from scheduler.settings import Settings
from tests.acceptance.conftest import running_system
from tests.support.copied_postgres import CopiedPostgres
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer

NUMBER = "+421915555123"


@needs_pgbouncer
def test_call_is_placed_through_a_transaction_pooler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CopiedPostgres(tmp_path / "server", durable=False) as server:
        logins = schema.make_logins(server.url)
        assert logins.operator is not None
        with pgbouncer([logins.worker, logins.api, logins.operator], "transaction") as bouncer:
            pooled = {
                "DATABASE_URL": bouncer.url_of(logins.api),
                "DATABASE_WORKER_URL": bouncer.url_of(logins.worker),
                "DATABASE_OPERATOR_URL": bouncer.url_of(logins.operator),
                "DATABASE_OWNER_URL": server.url,
                "DATABASE_LISTEN_URL": logins.worker,
            }
            for name, url in pooled.items():
                monkeypatch.setenv(name, url)
            settings = Settings(redis_url=None, twilio_account_sid="")
            with running_system(tmp_path / "home", settings) as whole:
                interview = whole.client.created(NUMBER)
                whole.wait_until(
                    lambda: whole.client.newest(interview["id"])["status"] == "COMPLETED",
                    seconds=60,
                    says="the call is over",
                )
                assert len(whole.client.rings_of(NUMBER)) == 1
                assert whole.running.consoleUrl is not None
                page = requests.get(f"{whole.running.consoleUrl}/sign-in", timeout=40)
                assert page.status_code == requests.codes.ok
                assert "TXN" not in "".join(path.read_text(encoding="utf-8") for path in whole.logs())
