"""Each process is killed once during a run. All work still finishes and no phone rings twice."""

import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest
import requests

from tests.acceptance.conftest import WholeSystem, kill_server, running_system
from tests.support.compose import procfile

PROCESSES = ("simulator", *(name for name in procfile() if name != "console"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    with running_system(tmp_path_factory.mktemp("killed")) as whole:
        whole.raise_limits()
        yield whole


@pytest.fixture
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    """A system that waits long for the carrier's answers."""
    home = tmp_path_factory.mktemp("told to stop")
    with running_system(home, CARRIER_TOTAL_TIMEOUT_S="20", DIAL_LEASE_S="30", SETTLE_S="60") as whole:
        whole.raise_limits()
        yield whole


class Platform:
    """Posts interviews one after the other, each until it is accepted, and records them."""

    def __init__(self, whole: WholeSystem) -> None:
        self._whole = whole
        self.accepted: dict[str, str] = {}
        """Address of the answer by number."""

    def post_one(self) -> None:
        number = f"+4219151{len(self.accepted):05d}"
        key = str(uuid4())

        def is_accepted() -> bool:
            try:
                answer = self._whole.client.post(
                    self._whole.client.interview(number), **{"Idempotency-Key": key, "Prefer": "wait=1"}
                )
            except requests.RequestException:
                return False
            return answer.status_code in {201, 202}

        self._whole.wait_until(is_accepted, seconds=60, says="the interview is accepted")
        self.accepted[number] = key


MAY_LEAVE_UNKNOWN = frozenset({"simulator", "dial"})
"""A kill of these or of PostgreSQL may leave the calls unknown that were requested right before. Earlier ones ended."""
_UNKNOWN = """
    SELECT c.phone_number FROM attempts a JOIN interviews i ON i.id = a.interview_id
    JOIN candidates c ON c.id = i.candidate_id WHERE a.reason = 'OUTCOME_UNKNOWN'
"""


def wait_until_ended(whole: WholeSystem) -> None:
    whole.wait_until(
        lambda: not whole.rows("SELECT 1 FROM attempts WHERE state IN ('PENDING', 'IN_PROGRESS')"),
        seconds=90,
        says="all have ended",
    )


def test_a_dial_worker_that_is_told_to_stop_leaves_no_unknown(patient: WholeSystem) -> None:
    whole = patient
    whole.client.plan(to=None, outcome="answered", fault="slow", delay_s=3, ring_s=0.5, talk_s=0.5)
    platform = Platform(whole)
    for _ in range(5):
        platform.post_one()
    whole.wait_until(
        lambda: whole.rows("SELECT 1 FROM attempts WHERE phase = 'DIALLING'"), seconds=60, says="a POST is under way"
    )
    whole.send_signal("dial", signal.SIGTERM)
    for _ in range(3):
        platform.post_one()
    wait_until_ended(whole)
    assert whole.rows("SELECT DISTINCT reason FROM attempts") == [("ANSWERED",)]
    assert not whole.rows("SELECT 1 FROM attempt_history WHERE event = 'answer_lost'")
    rung = [ring["to"] for ring in whole.client.rings()]
    assert sorted(rung) == sorted(platform.accepted)


def test_each_process_may_be_killed_once_and_everything_finishes(whole: WholeSystem) -> None:
    platform, in_flight = Platform(whole), set[str]()
    for name in PROCESSES:
        if name in MAY_LEAVE_UNKNOWN:
            wait_until_ended(whole)
        before = set(platform.accepted)
        for _ in range(3):
            platform.post_one()
        in_flight |= platform.accepted.keys() - before if name in MAY_LEAVE_UNKNOWN else set()
        whole.send_signal(name)
        for _ in range(2):
            platform.post_one()
    for server in (whole.system.valkey, whole.system.postgres):
        wait_until_ended(whole)
        platform.post_one()
        in_flight |= {next(reversed(platform.accepted))} if server is whole.system.postgres else set()
        kill_server(server)
        platform.post_one()

    def all_over() -> bool:
        try:
            ((waiting,),) = whole.rows("SELECT count(*) FROM inbox WHERE applied_at IS NULL")
            ((open_,),) = whole.rows("SELECT count(*) FROM attempts WHERE state IN ('PENDING', 'IN_PROGRESS')")
            ((made,),) = whole.rows("SELECT count(*) FROM attempts")
        except Exception:  # noqa: BLE001 - the database is being started again
            return False
        return (waiting, open_, made) == (0, 0, len(platform.accepted))

    whole.wait_until(all_over, seconds=180, says="every accepted interview has one attempt, and all have ended")

    rung = [ring["to"] for ring in whole.client.rings()]
    assert len(rung) == len(set(rung)), "a phone rang twice"
    ends = dict(whole.rows("SELECT reason, count(*) FROM attempts GROUP BY reason"))
    # A kill between the claim and the record of a call may leave its outcome unknown. All other calls rang.
    assert set(ends) <= {"ANSWERED", "OUTCOME_UNKNOWN"}, ends
    assert {number for (number,) in whole.rows(_UNKNOWN)} <= in_flight
    assert len(rung) >= ends["ANSWERED"]
    print(f"{len(platform.accepted)} interviews, {len(rung)} rings, {ends}")


def test_command_is_accepted_without_redis_and_rings_later(
    whole: WholeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_server(whole.system.valkey)  # no supervisor restarts it before `wait_until` does
    number = "+421915200001"
    answer = whole.client.post_impatiently(whole.client.interview(number))
    assert answer.status_code == 202
    whole.wait_until(
        lambda: number in [ring["to"] for ring in whole.client.rings()], seconds=90, says="the accepted call rings"
    )
    command = whole.client.get(answer.headers["Location"]).json()["data"]
    assert command["status"] == "APPLIED"
    told = capsys.readouterr().out
    assert "the private Valkey ended and is restarted\nthe private Valkey accepts connections again\n" in told


def test_request_without_postgresql_gets_503_and_has_no_effect(whole: WholeSystem) -> None:
    postgres = whole.system.postgres
    assert postgres is not None
    before = whole.rows("SELECT count(*) FROM inbox")
    kill_server(postgres)
    answer = whole.client.post_impatiently(whole.client.interview("+421915200002"))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "DATABASE_AWAY"
    assert "Retry-After" in answer.headers
    postgres.restart()
    assert whole.rows("SELECT count(*) FROM inbox") == before
