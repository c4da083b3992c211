"""A recomputation, mail server or erasure that blocks maintenance blocks no other work."""

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import WholeSystem, running_system
from tests.api_shim.bodies import EVERY_DAY

UNHEARD, WAITING = "+421915780001", "+421915780002"


@pytest.fixture
def silent_mail_server() -> Iterator[socket.socket]:
    """Accepts connections and never sends a byte."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory, silent_mail_server: socket.socket) -> Iterator[WholeSystem]:
    port = silent_mail_server.getsockname()[1]
    home = tmp_path_factory.mktemp("stuck")
    with running_system(home, SMTP_URL=f"smtp://127.0.0.1:{port}", MAIL_FROM="Duecall <calls@example.com>") as whole:
        whole.raise_limits()
        yield whole


def booked(whole: WholeSystem, number: str, **more: Any) -> str:
    return str(whole.client.created(number, **more)["id"])


def set_hours(whole: WholeSystem, start: str) -> None:
    settings = {"callTimeIntervals": [{"days": EVERY_DAY, "start": start, "end": "20:00"}]}
    answer = whole.client.send("PATCH", f"/company/{whole.running.companyId}", {"settings": settings})
    assert answer.status_code == 200, answer.text


def test_endless_recomputation_does_not_stop_leases_or_expiry(whole: WholeSystem) -> None:
    """Stop the maintenance process, which then looks as if all its threads were busy."""
    waiting = booked(whole, WAITING, scheduledAt=whole.in_seconds(3600))
    maintenance = whole.send_signal("maintenance", signal.SIGSTOP)
    try:
        set_hours(whole, "08:30")
        whole.client.plan(to=UNHEARD, fault="accept_and_silence", ring_s=0.2, talk_s=0.2, callbacks="none")
        unheard = booked(whole, UNHEARD)
        whole.wait_until(lambda: whole.client.rings_of(UNHEARD), seconds=60, says="the carrier took the call")
        whole.send_signal("dial")
        whole.wait_until(
            lambda: whole.client.newest(unheard)["status"] == "COMPLETED",
            seconds=60,
            says="its lease lapsed, it is found",
        )
        whole.change("UPDATE attempts SET expires_at = created_at WHERE state = 'PENDING'")
        whole.wait_until(
            lambda: whole.client.newest(waiting)["reasonCode"] == "EXPIRED", seconds=60, says="it has expired"
        )
        whole.change(
            f"UPDATE carrier_accounts SET failures = 1, down_cause = 'NEVER_CONNECTED', down_until = '{whole.now()}'"
        )
        whole.wait_until(
            lambda: whole.rows("SELECT 1 FROM carrier_accounts WHERE answered_at >= down_until"),
            seconds=60,
            says="a probe has asked the carrier",
        )
    finally:
        os.kill(maintenance, signal.SIGCONT)


def test_silent_mail_server_does_not_stop_a_change_of_hours(
    whole: WholeSystem, silent_mail_server: socket.socket
) -> None:
    today = whole.now().strftime("%Y-%m-%d")
    waiting = booked(whole, WAITING, scheduledAt=f"{today}T15:00:00")
    company = f"/company/{whole.running.companyId}"
    assert whole.client.send("PATCH", company, {"ownerEmail": "owner@example.com"}).status_code == 200
    silent_mail_server.settimeout(60)
    connection, _ = silent_mail_server.accept()
    with connection:
        set_hours(whole, "16:00")
        whole.wait_until(
            lambda: "MOVED_BY_SETTINGS" in whole.client.newest(waiting)["warnings"],
            seconds=60,
            says="the call is moved while the mail hangs",
        )
        assert whole.client.newest(waiting)["scheduledAt"] == f"{today}T14:00:00Z"
