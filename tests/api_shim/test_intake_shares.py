"""Threads of the API by company: the requests of one company leave half of them to the others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from api_shim import rate_limits
from api_shim.thread_pools import ThreadPools
from scheduler.domain.principal import KeyKind
from tests.api_shim.answers import data, refused
from tests.api_shim.bodies import JOB, candidate
from tests.api_shim.intake import Intake
from tests.conftest import wait_until
from tests.support.builders import a_number

REQUESTS = 24


def half_of_the_threads() -> int:
    threads = ThreadPools.open()
    threads.close()
    return threads.requests.count // 2


@contextmanager
def locked_company(intake: Intake) -> Iterator[None]:
    """Hold the row of the company, for which each of its writes waits."""
    with intake.database.transaction() as stores:
        stores.connection.execute(
            text("SELECT FROM companies WHERE id = :id FOR UPDATE"), {"id": intake.seeded.company_id}
        )
        yield


def waiting(intake: Intake) -> int:
    return len(intake.ask("SELECT FROM pg_locks WHERE NOT granted"))


def test_one_company_holds_at_most_half_of_the_threads(intake: Intake) -> None:
    """Two keys of the company and one of its ATS count together. Another company is served at once."""
    other, half = intake.with_key_of_another_company(), half_of_the_threads()
    ats = intake.with_key_of_its_ats()
    own = {"companyId": str(intake.seeded.company_id)}
    clients: list[tuple[Intake, dict[str, Any]]] = [(intake, {}), (intake.with_new_key(), {}), (ats, own)]
    with ThreadPoolExecutor(REQUESTS) as pool:
        with locked_company(intake):
            sent = [
                pool.submit(client.post, "/jobs", JOB, params=query)
                for client, query in clients * (REQUESTS // len(clients))
            ]
            wait_until(lambda: waiting(intake) >= half, says="as many requests as may wait for the company")
            seen = []
            for _ in range(10):
                assert other.get("/jobs").status_code == 200
                seen.append(waiting(intake))
            assert max(seen) <= half
        statuses = {each.result().status_code for each in sent}
    assert statuses <= {201, 503}


def test_foreign_company_in_the_query_uses_no_share_of_it(intake: Intake) -> None:
    stranger = intake.with_new_key(kind=KeyKind.ATS)
    refused(stranger.get("/jobs", companyId=str(intake.seeded.company_id)), 403, "RESOURCE_ACCESS_DENIED")
    refused(stranger.get("/jobs", companyId=str(uuid4())), 403, "RESOURCE_ACCESS_DENIED")
    refused(stranger.get("/jobs", companyId="nonsense"), 400, "VALIDATION_ERROR")


def test_bytes_of_batches_count_before_they_are_parsed(intake: Intake, monkeypatch: Any) -> None:
    """A batch that cannot be parsed uses up the bytes of its key, and no more is parsed after that."""
    monkeypatch.setattr(rate_limits, "LARGEST_BATCH", 1000)
    monkeypatch.setattr(rate_limits, "BYTES_AN_ITEM", 10)
    limited = intake.with_key(intake.new_key(per_hour=20)[1])
    nonsense = b"{" * 1500
    headers = {"Content-Type": "application/json"}
    refused(limited.send("POST", "/batches", content=nonsense, headers=headers), 400, "MALFORMED_JSON")
    error = refused(limited.send("POST", "/batches", content=nonsense, headers=headers), 429, "RATE_LIMIT_EXCEEDED")
    assert error["details"]["unit"] == "bytes"
    assert (error["details"]["limit"], error["details"]["remaining"]) == (2000, 500)
    item = intake.body(candidate=candidate(phoneNumber=a_number()))
    data(limited.post("/batches", {"items": [item], "dryRun": True}))
