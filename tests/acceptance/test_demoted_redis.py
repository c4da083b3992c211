"""A Redis that is demoted to a replica ends no process and loses no call."""

import pytest
from redis import Redis

from standalone.valkey_and_postgres import EmbeddedValkey
from tests.acceptance.conftest import WholeSystem
from tests.support.compose import WORKERS

IN_FLIGHT, WAITING, LATER = "+421915310001", "+421915310002", "+421915310003"
PROCESSES = ("api", "console", "clock", *WORKERS)


@pytest.mark.timeout(300)
def test_demoted_redis_ends_no_process_and_loses_no_call(
    whole: WholeSystem, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pids = {name: whole.system.supervisor.pid(name) for name in (*PROCESSES, "flower")}
    whole.client.plan(to=IN_FLIGHT, fault="slow", delay_s=1.0)
    other = EmbeddedValkey(tmp_path_factory.mktemp("the new primary"))
    with other as primary, Redis.from_url(whole.running.redisUrl) as client, Redis.from_url(primary.url) as new:
        whole.client.created(IN_FLIGHT)
        whole.wait_until(lambda: whole.client.rings_of(IN_FLIGHT), seconds=60, says="a POST is in flight")
        # The new primary is empty, so each waiting hint is lost.
        client.config_set("masterauth", str(new.connection_pool.connection_kwargs["password"]))
        client.replicaof("127.0.0.1", new.connection_pool.connection_kwargs["port"])
        answer = whole.client.post(whole.client.interview(WAITING))
        assert answer.status_code == 202, "it is accepted, and no worker knows of it"
        whole.wait_until(
            lambda: all("read only replica" in whole.system.log_of(name).read_text() for name in PROCESSES[3:]),
            seconds=90,
            says="each worker has met a replica",
        )
        in_flight = "SELECT 1 FROM attempts WHERE phase = 'DIALLING' AND state = 'IN_PROGRESS'"
        whole.wait_until(lambda: not whole.rows(in_flight), seconds=60, says="the call in flight is recorded")
        client.replicaof("NO", "ONE")
    for number in (IN_FLIGHT, WAITING):
        whole.wait_until(
            lambda number=number: [ring for ring in whole.client.rings() if ring["to"] == number],  # type: ignore[misc]
            seconds=90,
            says="the call rings",
        )
    whole.client.created(LATER)
    whole.wait_until(lambda: whole.client.rings_of(LATER), seconds=60, says="a later call is placed, too")
    assert {name: whole.system.supervisor.pid(name) for name in pids} == pids
    assert [len(whole.client.rings_of(number)) for number in (IN_FLIGHT, WAITING, LATER)] == [1, 1, 1]
